//! Sessions as they come and go: time to create, to refuse and to expire one, and its memory.

use std::process::Command;
use std::time::Duration;

use jsync_core::config::Pool4Entry;
use jsync_core::nat64::Nat64;
use jsync_core::time::Time;

use crate::flows::{ACK, BURST, Buffers, Bursts, RST, SYN, Shape, TCP64, Took, UDP64, nat64, open};
use crate::report::Report;

const SIZES: [(&str, u32); 2] = [("1m", 1_000_000), ("10m", 10_000_000)];
/// What is measured in one go.
const WAYS: [(&str, &[&str]); 3] = [
    ("life", &["create", "bytes", "expire"]),
    ("random", &["expire_random"]),
    ("pool4", &["pool4_cut", "pool4_cut_rest", "pool4_flush", "pool4_flush_rest"]),
];
/// What is said of the bursts of a measurement, behind its name.
const LONGEST: [&str; 6] =
    ["", "_longest", "_longest_faults", "_longest_wall", "_longest_waits", "_preempted"];

pub fn run(report: &mut Report) {
    for (size, _) in SIZES {
        for (way, measurements) in WAYS {
            let names = measurements
                .iter()
                .flat_map(|what| LONGEST.map(|longest| format!("session/{what}{longest}/{size}")));
            if names.into_iter().any(|name| report.wants(&name)) {
                alone(report, way, size);
            }
        }
    }
    if report.wants("session/refused/pool4") {
        // 1,000 ports, all taken: every further flow is refused.
        refused(report, "session/refused/pool4", 10_000, "60000-60999");
    }
    if report.wants("session/refused/table") {
        refused(report, "session/refused/table", 1_000, "1024-65535");
    }
}

/// Has a process of its own measure that: what another table has left to the allocator would
/// count as this one's memory, or be there without a page fault.
fn alone(report: &mut Report, way: &str, size: &str) {
    let line = report.random_line_ns().to_string();
    let program = std::env::current_exe().expect("Linux has /proc");
    let prefix = report.prefix();
    let status = Command::new(program).args(["--alone", way, size, &line, prefix]).status();
    assert!(status.is_ok_and(|status| status.success()), "{way} of {size} sessions");
}

/// What [`alone`] asks for: a measurement, a size and a cache line's time.
pub fn run_alone(report: &mut Report, way: &str, size: &str, line: f64) {
    let count = SIZES.iter().find(|(name, _)| *name == size).expect("a size such as 1m").1;
    let mut measured = Measured { report, size, count, line };
    match way {
        "life" => life(&mut measured),
        "random" => random(&mut measured),
        "pool4" => pool4(&mut measured),
        _ => panic!("{way} is no way to measure"),
    }
}

/// Where measurements of one size go.
struct Measured<'a> {
    report: &'a mut Report,
    size: &'a str,
    count: u32,
    line: f64,
}

impl Measured<'_> {
    fn print(&mut self, what: &str, value: f64, unit: &str, ceiling: Option<f64>) {
        let name = format!("session/{what}/{}", self.size);
        if self.report.wants(&name) {
            self.report.print(&name, value, unit, ceiling);
        }
    }

    /// Prints what each session took and what the longest burst did, beside that of bursts that
    /// make nothing: what is in both is not ours, but other threads' or a hypervisor's.
    fn print_bursts(&mut self, what: &str, bursts: Bursts, undisturbed: Bursts) {
        let us = |time: Duration| time.as_nanos() as f64 / 1e3;
        let (cpu, wall) = (bursts.longest, bursts.longest_wall);
        let each = bursts.cpu.as_nanos() as f64 / f64::from(self.count);
        self.print(what, each, "ns", Some(self.line));
        let [_, longest, faults, longest_wall, waits, preempted] =
            LONGEST.map(|end| format!("{what}{end}"));
        self.print(&longest, us(cpu.cpu), "us", Some(us(undisturbed.longest.cpu)));
        self.print(&faults, cpu.faults as f64, "page faults", None);
        self.print(&longest_wall, us(wall.wall), "us", Some(us(undisturbed.longest_wall.wall)));
        self.print(&waits, wall.waits as f64, "waits", None);
        self.print(&preempted, bursts.preempted.into(), "bursts", None);
    }
}

/// From nothing to so many sessions and back.
fn life(measured: &mut Measured<'_>) {
    let count = measured.count;
    let now = Time::from_millis(1_000);
    let before = resident();
    let mut nat64 = nat64(count, "198.51.100.0/24", "1024-65535");
    let (masks, created) = open(&mut nat64, UDP64, count, now);
    let own = masks.capacity() * size_of_val(&masks[0]);
    let bytes = (resident() - before - own as f64) / f64::from(count);
    drop(masks);
    let undisturbed = known(&mut nat64, UDP64, count, now);
    measured.print_bursts("create", created, undisturbed);
    measured.print("bytes", bytes, "bytes", None);
    measured.print_bursts("expire", expire(&mut nat64, now), undisturbed);
}

/// The same end of sessions that stand in the wheel in an order that has nothing to do with their
/// places in memory, as after days of coming and going: TCP connections, reset by chance.
fn random(measured: &mut Measured<'_>) {
    let count = measured.count;
    let now = Time::from_millis(1_000);
    let mut nat64 = nat64(count, "198.51.100.0/24", "1024-65535");
    drop(open(&mut nat64, TCP64, count, now));
    let undisturbed = known(&mut nat64, TCP64, count, now);
    let mut buffers = Buffers::new(TCP64);
    // Visits every flow once: the step is a prime that doesn't divide the count.
    const STEP: u64 = 7_368_787;
    let order = |n: u32| (u64::from(n) * STEP % u64::from(count)) as u32;
    for first in (0..count).step_by(BURST) {
        let burst = (count - first).min(BURST as u32) as usize;
        for slot in 0..burst {
            buffers.write_v6(slot, TCP64, order(first + slot as u32), RST);
        }
        buffers.translate(&mut nat64, now, burst, true);
    }
    measured.print_bursts("expire_random", expire(&mut nat64, now), undisturbed);
}

/// Half of each address' ports are taken out of pool4, then the rest: what packets have to wait for
/// while that is done, and for what is left to do afterwards.
fn pool4(measured: &mut Measured<'_>) {
    let now = Time::from_millis(1_000);
    let mut nat64 = nat64(measured.count, "198.51.100.0/24", "1024-65535");
    drop(open(&mut nat64, UDP64, measured.count, now));
    nat64.track_changes(true);
    for (what, ports) in [("pool4_cut", "1024-32767"), ("pool4_flush", "0-65535")] {
        let gone = Pool4Entry {
            protocol: None,
            prefix: "198.51.100.0/24".parse().expect("a prefix"),
            ports: ports.parse().expect("a range"),
            node: None,
            mark: 0,
        };
        let change = Took::by(|| nat64.pool4_exclude(&gone).expect("pool4 has the ports"));
        let us = |time: Duration| time.as_nanos() as f64 / 1e3;
        measured.print(what, us(change.cpu), "us", None);
        let mut rest = Bursts::default();
        while nat64.poll_timeout().is_some_and(|due| due <= now) {
            rest.add(Took::by(|| nat64.handle_timeout(now)));
        }
        measured.print(&format!("{what}_rest"), us(rest.cpu), "us", None);
        measured.print(&format!("{what}_rest_longest"), us(rest.longest.cpu), "us", None);
    }
    assert_eq!(nat64.session_count(), 0);
}

/// Has all sessions end. A burst is a call: what packets may have to wait for.
fn expire(nat64: &mut Nat64, mut now: Time) -> Bursts {
    let mut bursts = Bursts::default();
    while let Some(next) = nat64.poll_timeout() {
        now = now.max(next);
        bursts.add(Took::by(|| nat64.handle_timeout(now)));
    }
    assert_eq!(nat64.session_count(), 0);
    bursts
}

/// Bursts of packets of sessions that are there.
fn known(nat64: &mut Nat64, shape: Shape, count: u32, now: Time) -> Bursts {
    let mut buffers = Buffers::new(shape);
    let mut bursts = Bursts::default();
    for first in (0..count).step_by(BURST) {
        let burst = (count - first).min(BURST as u32) as usize;
        for slot in 0..burst {
            buffers.write_v6(slot, shape, first + slot as u32, ACK);
        }
        bursts.add(buffers.translate(nat64, now, burst, true));
    }
    bursts
}

/// Nanoseconds for a packet that can have no session.
fn refused(report: &mut Report, name: &str, sessions: u32, ports: &str) {
    const ROUNDS: u32 = 20_000;
    let now = Time::from_millis(1_000);
    let mut nat64 = nat64(sessions, "198.51.100.1", ports);
    open(&mut nat64, UDP64, 1_000, now);
    let mut buffers = Buffers::new(UDP64);
    let mut total = Duration::ZERO;
    for round in 0..ROUNDS {
        for slot in 0..BURST {
            buffers.write_v6(slot, UDP64, 1_000 + round * BURST as u32 + slot as u32, SYN);
        }
        let took = buffers.translate_then(&mut nat64, now, BURST, false, |slot, _| {
            panic!("packet {slot} should have been refused");
        });
        total += took.wall;
        while nat64.poll_packet().is_some() {}
    }
    let line = report.random_line_ns();
    let ns = total.as_nanos() as f64 / f64::from(ROUNDS) / BURST as f64;
    report.print(name, ns, "ns", Some(line));
}

/// Resident bytes of this process.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: f64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .expect("the second field of statm is a number");
    pages * 4096.0
}
