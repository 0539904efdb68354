//! Session synchronisation: sessions into frames, frames into a table, a table into another.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jsync_core::config::{Config, Pool4Entry};
use jsync_core::node::Node;
use jsync_core::stats::Counter;
use jsync_core::sync::record::{self, UPSERT_LEN};
use jsync_core::sync::{Keyring, OpenFrame, SyncConfig};
use jsync_core::table::{Change, SessionKey, SessionRecord, State};
use jsync_core::time::Time;
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};

use crate::flows::{BURST, Buffers, SYN, UDP64, cpu_time};
use crate::report::Report;

/// Sessions in a table.
const SESSIONS: u32 = 1_000_000;
/// Bytes of a frame that the daemon makes for TCP.
const TCP_FRAME: u16 = 16 << 10;
/// Sessions in a frame of that size.
const FRAME: usize = TCP_FRAME as usize / UPSERT_LEN;

pub fn run(report: &mut Report) {
    if report.wants("sync/encode") {
        encode(report);
    }
    if report.wants("sync/apply") {
        apply(report);
    }
    if report.wants("sync/updates_per_packet") {
        updates_per_packet(report);
    }
    for (name, max_frame) in [("sync/in_memory_1m/tcp", TCP_FRAME), ("sync/in_memory_1m/udp", 1400)]
    {
        if report.wants(name) {
            in_memory(report, name, max_frame);
        }
    }
}

/// The `n`th session: a flow of its own IPv6 node, established.
fn session(n: u32, version: u32) -> SessionRecord {
    let src6 = Endpoint6 {
        addr: (0x2001_0db8_u128 << 96 | u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)).into(),
        port: 1024 + (n % 60_000) as u16,
    };
    let src4 =
        Endpoint4 { addr: (0xc612_0000 + n / 60_000).into(), port: 1024 + (n % 60_000) as u16 };
    let dst4 = Endpoint4 { addr: 0xcb00_7118.into(), port: 443 };
    let key = SessionKey { proto: Proto::Tcp, src6, src4, dst4 };
    SessionRecord { key, state: State::Established, lifetime_ms: 7_000_000, version }
}

/// Changes into frames' bodies, sessions/s; the ceiling copies the same bytes.
fn encode(report: &Report) {
    let changes: Vec<Change> = (0..FRAME as u32).map(|n| Change::Upsert(session(n, 1))).collect();
    let mut out = Vec::with_capacity(FRAME * UPSERT_LEN);
    let rounds = 100_000;
    let per_second = |start: Instant| (rounds * FRAME) as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..rounds {
        out.clear();
        for change in black_box(&changes) {
            record::put(&mut out, change);
        }
        black_box(&out);
    }
    let rate = per_second(start);
    let mut copy = Vec::with_capacity(out.len());
    let start = Instant::now();
    for _ in 0..rounds {
        copy.clear();
        copy.extend_from_slice(black_box(&out));
        black_box(&copy);
    }
    report.print("sync/encode", rate, "sessions/s", Some(per_second(start)));
}

struct Half {
    node: Node,
    keyring: Keyring,
}

fn half(id: u16, max_frame: u16) -> Half {
    let pool4 = Pool4Entry {
        protocol: None,
        prefix: "198.18.0.0/20".parse().expect("a prefix"),
        ports: "1024-65535".parse().expect("a range"),
        node: None,
        mark: 0,
    };
    let nat64 = Config { pool4: vec![pool4], max_sessions: 2 * SESSIONS, ..Config::default() };
    let sync = SyncConfig { max_frame, join_timeout: 0, ..SyncConfig::new(id, "bench", 1) };
    let keyring = Keyring::new(&[[1; 32]], &sync).expect("a key");
    Half { node: Node::new(nat64, Some(sync), &[id as u8; 32]).expect("a configuration"), keyring }
}

/// Seconds that each part of a transfer took.
#[derive(Default)]
struct Spent {
    make: f64,
    seal: f64,
    open: f64,
    take: f64,
    bytes: usize,
}

impl Spent {
    /// Hands over everything that one half has to say.
    fn transfer(&mut self, now: Time, from: &mut Half, to: &mut Half) -> bool {
        let mut said = false;
        loop {
            let start = Instant::now();
            let Some(transmit) = from.node.poll_transmit(now) else { return said };
            let made = Instant::now();
            let bytes = from.keyring.seal(transmit);
            let sealed = Instant::now();
            self.bytes += bytes.len();
            let Ok(frame) = to.keyring.open(&bytes) else { continue };
            let opened = Instant::now();
            to.node.handle_frame(now, &frame);
            self.make += (made - start).as_secs_f64();
            self.seal += (sealed - made).as_secs_f64();
            self.open += (opened - sealed).as_secs_f64();
            self.take += opened.elapsed().as_secs_f64();
            said = true;
        }
    }
}

/// Two nodes that know each other; both tables are empty.
fn acquainted(max_frame: u16) -> (Half, Half, Time) {
    let (mut one, mut other) = (half(1, max_frame), half(2, max_frame));
    let mut now = Time::from_millis(1000);
    let mut spent = Spent::default();
    let met = |half: &Half, now| half.node.peers(now).any(|peer| peer.state == "up");
    while !(met(&one, now) && met(&other, now)) {
        for half in [&mut one, &mut other] {
            half.node.handle_timeout(now);
        }
        while spent.transfer(now, &mut one, &mut other) | spent.transfer(now, &mut other, &mut one)
        {
        }
        now = now + 1;
    }
    (one, other, now)
}

/// Updates into a table, sessions a second of a CPU: a million that it hasn't, then the same million refreshed. The
/// ceiling copies the frames' bodies.
fn apply(report: &Report) {
    const ROUNDS: usize = 5;
    let (mut new, mut known, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut one, mut other, mut now) = acquainted(TCP_FRAME);
        let numbers = shuffled(SESSIONS);
        let (rate, ceiling) = send_packets(&mut one, &mut other, now, &numbers);
        assert_eq!(other.node.nat64().session_count(), SESSIONS);
        new.push(rate);
        copied.push(ceiling);
        // Far enough into their lifetime that a packet is told of.
        for _ in 0..1000 {
            now = now + 100;
            for half in [&mut one, &mut other] {
                half.node.handle_timeout(now);
                while half.node.poll_timeout().is_some_and(|due| due <= now) {
                    half.node.handle_timeout(now);
                }
            }
            let mut spent = Spent::default();
            while spent.transfer(now, &mut one, &mut other)
                | spent.transfer(now, &mut other, &mut one)
            {}
        }
        known.push(send_packets(&mut one, &mut other, now, &shuffled(SESSIONS)).0);
    }
    let ceiling = median(copied);
    report.print("sync/apply", median(new), "sessions/s", Some(ceiling));
    report.print("sync/apply/known", median(known), "sessions/s", Some(ceiling));
}

/// One packet of every flow through `one`, of which it tells `other`. Sessions/s that `other` takes,
/// and at which the bodies of its frames are copied.
fn send_packets(one: &mut Half, other: &mut Half, now: Time, flows: &[u32]) -> (f64, f64) {
    let frames = updates_of(one, other, now, flows);
    let count = sessions_in(&frames);
    assert!(count as usize >= flows.len(), "{count} sessions were told");
    let rate = |start: Duration| f64::from(count) / (cpu_time() - start).as_secs_f64();
    let mut copy = Vec::with_capacity(usize::from(TCP_FRAME));
    let start = cpu_time();
    for frame in &frames {
        copy.clear();
        copy.extend_from_slice(black_box(&frame.body));
        black_box(&copy);
    }
    let ceiling = rate(start);
    let start = cpu_time();
    counted(&mut other.node, now, &frames);
    let taken = rate(start);
    while other.node.poll_transmit(now).is_some() {}
    (taken, ceiling)
}

/// Known by its name to whoever counts.
#[inline(never)]
fn counted(node: &mut Node, now: Time, frames: &[OpenFrame]) {
    for frame in frames {
        assert!(node.handle_frame(now, frame));
    }
}

fn sessions_in(frames: &[OpenFrame]) -> u32 {
    frames.iter().map(|frame| u32::from(frame.header.count)).sum()
}

/// New sessions through [`counted`], for a program that counts instructions: how many.
pub fn count() -> u32 {
    const FLOWS: u32 = 20_000;
    let (mut one, mut other, now) = acquainted(TCP_FRAME);
    let frames = updates_of(&mut one, &mut other, now, &shuffled(FLOWS));
    counted(&mut other.node, now, &frames);
    assert_eq!(other.node.nat64().session_count(), FLOWS);
    sessions_in(&frames)
}

/// What `one` tells `other` when a packet of every flow goes through it.
fn updates_of(one: &mut Half, other: &mut Half, now: Time, flows: &[u32]) -> Vec<OpenFrame> {
    let mut buffers = Buffers::new(UDP64);
    let mut frames = Vec::new();
    for group in flows.chunks(BURST) {
        for (slot, &flow) in group.iter().enumerate() {
            buffers.write_v6(slot, UDP64, flow, SYN);
        }
        one.node.handle_packets(now, &mut buffers.packets()[..group.len()]);
        one.node.handle_timeout(now + 5);
        while let Some(transmit) = one.node.poll_transmit(now) {
            let bytes = one.keyring.seal(transmit);
            frames.extend(other.keyring.open(&bytes));
        }
    }
    frames
}

/// The numbers below `count` in an order that no cache foresees.
fn shuffled(count: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    let mut state = 1_u64;
    for n in (1..numbers.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        numbers.swap(n, (state >> 33) as usize % (n + 1));
    }
    numbers
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Sessions told per packet translated: UDP flows of 100,000 packets, 100 a second each.
fn updates_per_packet(report: &Report) {
    const FLOWS: usize = 50;
    const PACKETS: u64 = 100_000;
    const PAUSE_MS: u64 = 10;
    let (mut one, mut other, mut now) = acquainted(TCP_FRAME);
    let mut buffers = Buffers::new(UDP64);
    for _ in 0..PACKETS {
        for flow in 0..FLOWS {
            buffers.write_v6(flow, UDP64, flow as u32, SYN);
        }
        one.node.handle_packets(now, &mut buffers.packets()[..FLOWS]);
        now = now + PAUSE_MS;
        for half in [&mut one, &mut other] {
            half.node.handle_timeout(now);
        }
        let mut spent = Spent::default();
        while spent.transfer(now, &mut one, &mut other) | spent.transfer(now, &mut other, &mut one)
        {
        }
    }
    let stats = &one.node.nat64().stats;
    let (told, packets) = (stats.value(Counter::UpdatesSent), PACKETS * FLOWS as u64);
    assert_eq!(stats.value(Counter::Translated6to4), packets);
    assert_eq!(other.node.nat64().session_count(), FLOWS as u32);
    let value = told as f64 / packets as f64;
    report.print("sync/updates_per_packet", value, "updates", None);
}

/// From empty to equal tables: a node with a million sessions and one that joins, both on this one
/// thread. The parts are printed too: taking is decoding and applying.
fn in_memory(report: &Report, name: &str, max_frame: u16) {
    let (mut full, mut empty) = (half(1, max_frame), half(2, max_frame));
    let mut now = Time::from_millis(1000);
    full.node.handle_timeout(now);
    for n in 0..SESSIONS {
        full.node.nat64_mut().learn(now, &session(n, 1));
    }
    assert_eq!(full.node.nat64().session_count(), SESSIONS);
    let mut spent = Spent::default();
    let start = Instant::now();
    while empty.node.nat64().session_count() < SESSIONS {
        full.node.handle_timeout(now);
        empty.node.handle_timeout(now);
        let mut said = true;
        while said {
            said = spent.transfer(now, &mut full, &mut empty);
            said |= spent.transfer(now, &mut empty, &mut full);
        }
        now = now + 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = |seconds: f64| f64::from(SESSIONS) / seconds;
    report.print(name, seconds, "s", None);
    report.print(&format!("{name}/make"), rate(spent.make), "sessions/s", None);
    report.print(&format!("{name}/seal"), rate(spent.seal), "sessions/s", None);
    report.print(&format!("{name}/open"), rate(spent.open), "sessions/s", None);
    report.print(&format!("{name}/take"), rate(spent.take), "sessions/s", None);
    let bytes = spent.bytes as f64 / f64::from(SESSIONS);
    report.print(&format!("{name}/bytes_per_session"), bytes, "bytes", None);
}
