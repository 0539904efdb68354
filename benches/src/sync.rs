//! Session synchronisation: sessions into frames, frames into a table, a table into another.

use std::hint::black_box;
use std::time::Instant;

use jsync_core::config::{Config, Pool4Entry};
use jsync_core::node::Node;
use jsync_core::sync::record::{self, UPSERT_LEN};
use jsync_core::sync::{Keyring, SyncConfig};
use jsync_core::table::{Change, SessionKey, SessionRecord, State};
use jsync_core::time::Time;
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};

use crate::report::Report;

/// Sessions in a table.
const SESSIONS: u32 = 1_000_000;
/// Sessions in a frame of TCP's size.
const FRAME: usize = 1600;

pub fn run(report: &mut Report) {
    if report.wants("sync/encode") {
        encode(report);
    }
    for (name, max_frame) in [("sync/pair_1m_tcp", u16::MAX), ("sync/pair_1m_udp", 1400)] {
        if report.wants(name) {
            pair(report, name, max_frame);
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
    let rounds = 20_000;
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

/// From empty to equal tables: a node with a million sessions and one that joins, both on this one
/// thread. The parts are printed too: taking is decoding and applying.
fn pair(report: &Report, name: &str, max_frame: u16) {
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
