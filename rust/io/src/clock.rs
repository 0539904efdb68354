//! The node's clock.

use std::time::Duration;

use jsync_core::time::Time;

/// Milliseconds since the machine was booted, the time during which it slept included: a session
/// that the other ends have forgotten meanwhile must not outlive the sleep here (CLOCK_BOOTTIME).
pub fn now() -> Time {
    Time::from_millis(read(libc::CLOCK_BOOTTIME).as_millis() as u64)
}

/// What this thread has had of a CPU.
pub fn cpu_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for a timespec.
    let status = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(status, 0, "Linux has had both clocks since 2.6.39");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
