//! Sessions as they come and go: time to create, to refuse and to expire one, and its memory.

use std::time::Duration;

use jsync_core::nat64::Nat64;
use jsync_core::time::Time;

use crate::flows::{ACK, BURST, Buffers, SYN, Took, UDP64, nat64, open};
use crate::report::Report;

const SIZES: [(&str, u32); 2] = [("1m", 1_000_000), ("10m", 10_000_000)];

pub fn run(report: &mut Report) {
    for (size_name, size) in SIZES {
        let names = [
            "create",
            "create_longest",
            "create_longest_wall",
            "bytes",
            "expire",
            "expire_longest",
            "expire_longest_wall",
        ]
        .map(|what| format!("session/{what}/{size_name}"));
        if names.iter().any(|name| report.wants(name)) {
            life(report, size_name, size);
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

/// From nothing to `size` sessions and back.
fn life(report: &mut Report, size_name: &str, size: u32) {
    let line = report.random_line_ns();
    let now = Time::from_millis(1_000);
    let before = resident();
    let mut nat64 = nat64(size, "198.51.100.0/24", "1024-65535");
    let (masks, total, longest) = open(&mut nat64, UDP64, size, now);
    let own = masks.capacity() * size_of_val(&masks[0]);
    let bytes = (resident() - before - own as f64) / f64::from(size);
    drop(masks);
    let each = |total: Duration| total.as_nanos() as f64 / f64::from(size);
    let print = |report: &mut Report, what: &str, value: f64, unit: &str, ceiling| {
        let name = format!("session/{what}/{size_name}");
        if report.wants(&name) {
            report.print(&name, value, unit, ceiling);
        }
    };
    // What is not ours is seen in bursts that make nothing: other threads, a hypervisor.
    let undisturbed = longest_of_known(&mut nat64, size, now);
    let print_longest = |report: &mut Report, what: &str, took: Took| {
        let us = |time: Duration| time.as_nanos() as f64 / 1e3;
        print(report, what, us(took.cpu), "us", Some(us(undisturbed.cpu)));
        print(report, &format!("{what}_wall"), us(took.wall), "us", Some(us(undisturbed.wall)));
    };
    print(report, "create", each(total), "ns", Some(line));
    print_longest(report, "create_longest", longest);
    print(report, "bytes", bytes, "bytes", None);

    let (mut total, mut longest) = (Duration::ZERO, Took::default());
    let mut now = now;
    while let Some(next) = nat64.poll_timeout() {
        now = now.max(next);
        let took = Took::by(|| nat64.handle_timeout(now));
        total += took.cpu;
        longest = longest.max(took);
    }
    print(report, "expire", each(total), "ns", Some(line));
    print_longest(report, "expire_longest", longest);
}

/// The longest burst of as many packets of sessions that are there.
fn longest_of_known(nat64: &mut Nat64, size: u32, now: Time) -> Took {
    let mut buffers = Buffers::new(UDP64);
    let mut longest = Took::default();
    for first in (0..size).step_by(BURST) {
        let burst = (size - first).min(BURST as u32) as usize;
        for slot in 0..burst {
            buffers.write_v6(slot, UDP64, first + slot as u32, ACK);
        }
        longest = longest.max(buffers.translate(nat64, now, burst, true));
    }
    longest
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
