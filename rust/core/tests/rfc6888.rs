//! RFC 6888's requirements that aren't RFC 6146's: limits for each subscriber, and exceptions.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use std::net::Ipv6Addr;

use jsync_core::addr::PortRange;
use jsync_core::config::Globals;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::stats::DropReason;
use jsync_core::table::{Change, Learned, SessionKey, SessionRecord, State};
use jsync_core::time::Time;
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};

fn nat(global: &str) -> Nat64 {
    nat64(&format!(
        r#"{{"pool4": [{{"prefix": "192.0.2.1", "ports": "2048-4095"}}], "max-sessions": 1000,
            "global": {{{global}}}}}"#
    ))
}

/// A datagram from `node`#`port` to 203.0.113.16#`to`: what became of it.
fn udp_from(nat64: &mut Nat64, now: Time, node: &str, port: u16, to: u16) -> Outcome {
    let packet = Wire::V6(a6(node), embed(a4("203.0.113.16")), udp(port, to));
    send(nat64, now, &packet.bytes()).0
}

const DROP_PORTS: Outcome = Outcome::Drop(DropReason::SubscriberPorts);
const DROP_SESSIONS: Outcome = Outcome::Drop(DropReason::SubscriberSessions);
const DROP_RATE: Outcome = Outcome::Drop(DropReason::SubscriberRate);

/// REQ-4, with a subscriber that is a prefix.
#[test]
fn ports_of_a_subscriber_are_limited() {
    let mut nat64 = nat(r#""max-ports-per-subscriber": 3"#);
    for port in 0..3 {
        assert_eq!(udp_from(&mut nat64, T0, "2001:db8:0:1::a", 100 + port, 1), Outcome::Forward);
    }
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8:0:1::b", 100, 1), DROP_PORTS, "the same /64");
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8:0:2::b", 100, 1), Outcome::Forward);
    assert_eq!(
        udp_from(&mut nat64, T0, "2001:db8:0:1::a", 100, 2),
        Outcome::Forward,
        "no new port"
    );
    assert_eq!(nat64.poll_packet(), None, "a flood isn't answered");
    run_timers(&mut nat64, T0 + 301_000);
    let later = T0 + 301_000;
    assert_eq!(udp_from(&mut nat64, later, "2001:db8:0:1::b", 100, 1), Outcome::Forward);
}

/// REQ-5: state.
#[test]
fn sessions_of_a_subscriber_are_limited() {
    let mut nat64 = nat(r#""max-sessions-per-subscriber": 3, "subscriber-prefix-length": 128"#);
    for to in 1..=3 {
        assert_eq!(udp_from(&mut nat64, T0, "2001:db8::a", 100, to), Outcome::Forward);
    }
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::a", 100, 4), DROP_SESSIONS);
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::a", 101, 1), DROP_SESSIONS);
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::b", 100, 1), Outcome::Forward);
    // Nor does the IPv4 side get around it.
    let mut mask = None;
    nat64.bib_scan(0, 100, &mut |bib| {
        if bib.src6.addr == a6("2001:db8::a") {
            mask = Some(bib.src4);
        }
    });
    let stranger = Wire::V4(a4("198.51.100.1"), mask.unwrap().addr, udp(9, mask.unwrap().port));
    assert_eq!(send(&mut nat64, T0, &stranger.bytes()).0, DROP_SESSIONS);
    assert_eq!(
        udp_from(&mut nat64, T0, "2001:db8::a", 100, 3),
        Outcome::Forward,
        "a known session"
    );
}

/// REQ-5: rate.
#[test]
fn the_rate_of_new_sessions_is_limited() {
    let mut nat64 = nat(r#""max-session-rate-per-subscriber": 5"#);
    // The first makes the subscriber known.
    let passed = |nat64: &mut Nat64, now, from: u16| {
        (0..20)
            .filter(|n| udp_from(nat64, now, "2001:db8::a", 100, from + n) == Outcome::Forward)
            .count()
    };
    assert_eq!(passed(&mut nat64, T0, 1), 6);
    assert_eq!(passed(&mut nat64, T0 + 999, 100), 0);
    assert_eq!(passed(&mut nat64, T0 + 1_000, 200), 5);
    assert_eq!(udp_from(&mut nat64, T0 + 1_500, "2001:db8::a", 100, 300), DROP_RATE);
}

/// Limits that come while running count what is there.
#[test]
fn limits_change_while_running() {
    let mut nat64 = nat("");
    for port in 0..10 {
        assert_eq!(udp_from(&mut nat64, T0, "2001:db8::a", 100 + port, 1), Outcome::Forward);
    }
    let limit = |ports, length| Globals {
        max_ports_per_subscriber: ports,
        subscriber_prefix_length: length,
        ..Globals::default()
    };
    nat64.set_globals(limit(5, 64)).unwrap();
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::b", 1, 1), DROP_PORTS);
    assert_eq!(nat64.bib_count(), 10, "what is there stays");
    nat64.set_globals(limit(11, 64)).unwrap();
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::b", 1, 1), Outcome::Forward);
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::b", 2, 1), DROP_PORTS);
    nat64.set_globals(limit(5, 128)).unwrap();
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::b", 2, 1), Outcome::Forward);
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::a", 1, 1), DROP_PORTS);
    // Entries leave in other ways than by their timers, too.
    let mut all = Vec::new();
    nat64.bib_scan(0, 1000, &mut |bib| all.push(bib.src6));
    for src6 in all {
        nat64.bib_remove(Proto::Udp, Some(src6), None).unwrap();
    }
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::a", 1, 1), Outcome::Forward);
    nat64.set_globals(limit(0, 64)).unwrap();
    run_timers(&mut nat64, T0 + 301_000);
    assert_eq!(nat64.bib_count(), 0);
    let error = nat64.set_globals(limit(1, 0)).unwrap_err();
    assert!(error.to_string().contains("subscriber-prefix-length"), "{error}");
}

/// What the log says since the last look, without sessions.
fn lines(nat64: &mut Nat64) -> Vec<String> {
    std::iter::from_fn(|| nat64.poll_log()).map(|event| event.to_string()).collect()
}

fn masks(nat64: &Nat64) -> Vec<(Proto, Ipv6Addr, u16)> {
    let mut found = Vec::new();
    nat64.bib_scan(0, 10_000, &mut |bib| found.push((bib.proto, bib.src6.addr, bib.src4.port)));
    found
}

const BLOCKS: &str = r#""port-block-size": 64, "logging-bib": true"#;

/// REQ-14: a subscriber's ports, of all protocols, come from blocks of its own, and the log has
/// a line for each.
#[test]
fn ports_come_from_blocks_of_the_subscriber() {
    let mut nat64 = nat(BLOCKS);
    for (node, port) in (0..40).flat_map(|port| [("2001:db8::a", port), ("2001:db8::b", port)]) {
        assert_eq!(udp_from(&mut nat64, T0, node, 4000 + port, 1), Outcome::Forward);
    }
    let query = Wire::V6(a6("2001:db8::c"), embed(a4("203.0.113.16")), ping(9));
    forward(&mut nat64, T0, &query);
    let first = lines(&mut nat64);
    assert_eq!(first.len(), 2, "80 ports of one protocol are two blocks: {first:?}");
    let begins = "event=block-added subscriber=2001:db8::/64 src4=192.0.2.1 ports=";
    let ports: Vec<PortRange> =
        first.iter().map(|line| line.strip_prefix(begins).unwrap().parse().unwrap()).collect();
    assert!(ports.iter().all(|range| range.min % 64 == 0 && range.count() == 64));
    assert!(masks(&nat64).iter().all(|mask| ports.iter().any(|range| range.contains(mask.2))));

    // Another subscriber has others.
    assert_eq!(udp_from(&mut nat64, T0 + 1_000, "2001:db8:1::a", 4000, 1), Outcome::Forward);
    let other = lines(&mut nat64);
    let range =
        other[0].strip_prefix("event=block-added subscriber=2001:db8:1::/64 src4=192.0.2.1 ports=");
    let range: PortRange = range.unwrap().parse().unwrap();
    assert!(other.len() == 1 && !ports.contains(&range), "{other:?}");

    // They are free again when their last mapping is gone.
    run_timers(&mut nat64, T0 + 300_500);
    let ends: Vec<_> = lines(&mut nat64);
    let mut expected: Vec<_> =
        first.iter().map(|line| line.replace("block-added", "block-removed")).collect();
    expected.sort();
    assert_eq!(
        {
            let mut ends = ends;
            ends.sort();
            ends
        },
        expected
    );
}

/// Parity and range are kept inside a block too, and never a reason to refuse.
#[test]
fn a_block_is_used_up() {
    let mut nat64 = nat(BLOCKS);
    for port in 0..64 {
        assert_eq!(udp_from(&mut nat64, T0, "2001:db8::a", 4000 + 2 * port, 1), Outcome::Forward);
        if port < 32 {
            assert!(masks(&nat64).iter().all(|mask| mask.2 % 2 == 0), "even stays even");
        }
    }
    assert_eq!(lines(&mut nat64).len(), 1);
    udp_from(&mut nat64, T0, "2001:db8::a", 4001, 1);
    assert_eq!(lines(&mut nat64).len(), 1, "and then another is begun");
}

/// Nobody gets a port of another's block, even if that is the last.
#[test]
fn blocks_run_out() {
    let mut nat64 = nat64(
        r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "1000-1087"}], "max-sessions": 1000,
            "global": {"port-block-size": 64, "subscriber-prefix-length": 128}}"#,
    );
    // 960 to 1023 and 1024 to 1087, of the first only 24 ports.
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::1", 1, 1), Outcome::Forward);
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::2", 1, 1), Outcome::Forward);
    let refused = Outcome::Drop(DropReason::NoPortBlock);
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::3", 1, 1), refused);
    let had = (1..200)
        .filter(|port| udp_from(&mut nat64, T0, "2001:db8::1", 1 + port, 1) == Outcome::Forward)
        .count();
    assert!([23, 63].contains(&had), "{had} more ports of one block");
    nat64.pool4_add(serde_json::from_str(r#"{"prefix": "192.0.2.9"}"#).unwrap()).unwrap();
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8::3", 1, 1), Outcome::Forward);
}

/// A node that takes over goes on with the blocks that it was told of.
#[test]
fn blocks_survive_a_failover() {
    let (mut old, mut new) = (nat(BLOCKS), nat(BLOCKS));
    old.track_changes(true);
    for node in 0..10 {
        udp_from(&mut old, T0, &format!("2001:db8:{node}::a"), 4000, 1);
    }
    while let Some(change) = old.pop_change(T0) {
        let Change::Upsert(record) = change else { panic!() };
        assert_eq!(new.learn(T0, &record).learned, Learned::Applied);
    }
    assert_eq!(lines(&mut new), [""; 0], "only who translates tells");
    for node in 0..10 {
        udp_from(&mut new, T0, &format!("2001:db8:{node}::b"), 4000, 1);
    }
    let (old, new) = (lines(&mut old), lines(&mut new));
    assert_eq!((old.len(), old), (10, new), "no new block");
}

/// What two nodes gave to two subscribers out of one block stays, and is told by itself.
#[test]
fn a_mapping_in_anothers_block_is_told_by_itself() {
    let mut nat64 = nat(BLOCKS);
    udp_from(&mut nat64, T0, "2001:db8::a", 4000, 1);
    let (_, _, port) = masks(&nat64)[0];
    let mine = Endpoint4 { addr: a4("192.0.2.1"), port: port ^ 1 };
    let src6 = Endpoint6 { addr: a6("2001:db8:9::a"), port: 5000 };
    let dst4 = Endpoint4 { addr: a4("203.0.113.16"), port: 1 };
    let record = SessionRecord {
        key: SessionKey { proto: Proto::Udp, src6, src4: mine, dst4 },
        state: State::Established,
        lifetime_ms: 60_000,
        version: 1,
    };
    assert_eq!(nat64.learn(T0, &record).learned, Learned::Applied);
    lines(&mut nat64);
    assert_eq!(udp_from(&mut nat64, T0, "2001:db8:9::a", 5000, 2), Outcome::Forward);
    let told = format!("event=bib-added proto=udp src6=2001:db8:9::a#5000 src4={mine}");
    assert_eq!(lines(&mut nat64), [told.as_str()]);
    run_timers(&mut nat64, T0 + 301_000);
    assert!(lines(&mut nat64).contains(&told.replace("added", "removed")));
    assert_eq!(nat64.bib_count(), 0);
}

/// Blocks that come and go while running: the log tells of everything once, and of its end.
#[test]
fn blocks_change_while_running() {
    let mut nat64 = nat(r#""logging-bib": true"#);
    let sizes = |size| Globals { port_block_size: size, logging_bib: true, ..Globals::default() };
    for port in 0..100 {
        udp_from(&mut nat64, T0, "2001:db8::a", 4000 + port, 1);
    }
    let mut open = std::collections::BTreeSet::new();
    let mut follow = |nat64: &mut Nat64| {
        for line in lines(nat64) {
            let (event, what) = line.split_once(' ').unwrap();
            let news = match event.ends_with("added") {
                true => open.insert(what.to_string()),
                false => open.remove(what),
            };
            assert!(news, "{line}");
        }
        open.len()
    };
    assert_eq!(follow(&mut nat64), 100);
    for size in [64, 1024, 0, 256] {
        nat64.set_globals(sizes(size)).unwrap();
        let count = follow(&mut nat64);
        assert_eq!(count == 100, size == 0, "{count} with {size}");
    }
    run_timers(&mut nat64, T0 + 301_000);
    assert_eq!(follow(&mut nat64), 0);
    let error = nat64.set_globals(sizes(100)).unwrap_err();
    assert!(error.to_string().contains("port-block-size"), "{error}");
}

/// REQ-6: translation can be turned off for destinations.
#[test]
fn destinations_can_be_excepted() {
    let mut nat64 = nat(r#""denylist4": ["203.0.113.0/28", "203.0.113.16"]"#);
    assert_eq!(
        udp_from(&mut nat64, T0, "2001:db8::a", 1, 1),
        Outcome::Drop(DropReason::Denylisted)
    );
    let told = nat64.poll_packet().unwrap();
    let Wire::V6(_, dst, L4::Error { kind: 1, code: 1, .. }) = Wire::read(&told.bytes) else {
        panic!()
    };
    assert_eq!((dst, nat64.session_count()), (a6("2001:db8::a"), 0));
    let other = Wire::V6(a6("2001:db8::a"), embed(a4("203.0.113.17")), udp(1, 1));
    forward(&mut nat64, T0, &other);
}
