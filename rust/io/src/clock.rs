//! The node's clock.

use jsync_core::time::Time;

/// Milliseconds since the machine was booted, the time during which it slept included: a session
/// that the other ends have forgotten meanwhile must not outlive the sleep here (CLOCK_BOOTTIME).
pub fn now() -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for a timespec.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert_eq!(status, 0, "Linux has had CLOCK_BOOTTIME since 2.6.39");
    Time::from_millis(time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
}
