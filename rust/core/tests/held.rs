//! Packets that wait for peers: how many may, and how much a node asks its peers for.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::net::Ipv4Addr;

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::stats::{Counter, DropReason};
use jsync_core::table::{Holding, Query, Wanted};
use jsync_core::time::Time;
use jsync_core::tuple::{Endpoint4, Proto};

/// Node 2, and a slice of node 1's.
fn nat(holding: Holding) -> Nat64 {
    let mut nat64 = nat64(
        r#"{"node": 2, "max-sessions": 5000, "pool4": [
            {"prefix": "192.0.2.1", "ports": "2000-2999", "node": 1},
            {"prefix": "192.0.2.2", "ports": "2000-2999", "node": 2},
            {"prefix": "192.0.2.3", "ports": "2000-2999"}]}"#,
    );
    nat64.hold(holding);
    nat64
}

fn asking() -> Nat64 {
    nat(Holding { opener_ms: 0, stranger_ms: 100 })
}

/// A packet from an IPv4 node to a port of node 1's slice: whether somebody is asked.
fn stranger(nat64: &mut Nat64, now: Time, from: u32, port: u16) -> bool {
    let from = Ipv4Addr::from_bits(n4().to_bits() + from);
    let packet = Wire::V4(from, mask(), udp(53, port));
    match send(nat64, now, &packet.bytes()).0 {
        Outcome::Consumed => true,
        Outcome::Drop(DropReason::NoBib) => false,
        other => panic!("{other:?}"),
    }
}

fn queries(nat64: &mut Nat64) -> Vec<Query> {
    std::iter::from_fn(|| nat64.pop_query()).collect()
}

/// On average two questions a millisecond, whoever they are for; 256 at once.
#[test]
fn questions_have_a_pace() {
    let mut nat64 = asking();
    for (wait, expected) in [(0, 256), (0, 0), (1, 2), (51, 100), (10_000, 256)] {
        let asked =
            (0..300).filter(|&n| stranger(&mut nat64, T0 + wait, n, 2000 + wait as u16 % 999));
        assert_eq!(asked.count(), expected, "after {wait} ms");
        let queries = queries(&mut nat64);
        assert_eq!(queries.len(), expected);
        for query in queries {
            let mask = Endpoint4 { addr: mask(), port: 2000 + wait as u16 % 999 };
            let expected = (1, Proto::Udp, Wanted::Src4(mask));
            assert_eq!((query.owner, query.proto, query.wanted), expected);
            nat64.release_strangers(T0 + wait, query.id, true);
        }
    }
    assert_eq!(nat64.stats.value(Counter::PullsSuppressed), 5 * 300 - 614);
    assert_eq!(nat64.stats.value(Counter::PullsSent), 614);
}

/// Of a port of its own, or everybody's, a node knows best itself.
#[test]
fn nobody_is_asked_for_own_ports() {
    let mut nat64 = asking();
    for own in ["192.0.2.2", "192.0.2.3"] {
        let packet = Wire::V4(n4(), a4(own), udp(53, 2000)).bytes();
        assert_eq!(send(&mut nat64, T0, &packet).0, Outcome::Drop(DropReason::NoBib));
    }
    assert_eq!((nat64.held_packets(), nat64.pop_query()), (0, None));
}

/// Four packets wait for one answer, and go on with it; what comes too late isn't waited for.
#[test]
fn few_packets_wait_for_one_answer() {
    let mut nat64 = asking();
    let waits: Vec<_> = (0..6).map(|_| stranger(&mut nat64, T0, 0, 2000)).collect();
    assert_eq!(waits, [true, true, true, true, false, false]);
    let [query] = queries(&mut nat64)[..] else { panic!() };
    assert_eq!((query.dst4, nat64.held_packets()), (Endpoint4 { addr: n4(), port: 53 }, 4));
    nat64.release_strangers(T0, query.id + 1, true);
    assert_eq!(nat64.held_packets(), 4, "another's answer");
    nat64.release_strangers(T0, query.id, false);
    assert_eq!((nat64.held_packets(), nat64.stats.dropped(DropReason::NoBib)), (0, 6));
    nat64.release_strangers(T0, query.id, false);
    assert_eq!(nat64.stats.value(Counter::PullsMissed), 1);
}

/// A question in vain costs its sender 10 ms of the 1.28 s that it may owe; others owe nothing.
#[test]
fn senders_pay_for_questions_in_vain() {
    let mut nat64 = asking();
    let mut in_vain = |now, from| {
        let asked = stranger(&mut nat64, now, from, 2000);
        for query in queries(&mut nat64) {
            nat64.release_strangers(now, query.id, false);
        }
        asked
    };
    assert_eq!((0..200).filter(|_| in_vain(T0, 0)).count(), 128);
    assert_eq!((0..50).filter(|_| in_vain(T0, 1)).count(), 50);
    assert!(!in_vain(T0 + 9, 0));
    assert!(in_vain(T0 + 10, 0));
    assert!(!in_vain(T0 + 10, 0));
    assert_eq!((0..200).filter(|_| in_vain(T0 + 110, 0)).count(), 10);
}

/// 4 MiB of packets may wait. What finds no room goes on at once.
#[test]
fn bytes_of_packets_that_wait_are_bounded() {
    let mut nat64 = nat(Holding { opener_ms: 100, stranger_ms: 0 });
    let big = |port| {
        let payload = vec![0; 60_000 - 48];
        Wire::V6(n6(), embed(n4()), L4::Udp { src: port, dst: 53, payload }).bytes()
    };
    for now in [T0, T0 + 1_000] {
        let first = 1000 + now.as_millis() as u16 / 10;
        let waiting = (first..first + 75)
            .filter(|&port| send(&mut nat64, now, &big(port)).0 == Outcome::Consumed);
        assert_eq!(waiting.count(), (4 << 20) / 60_000);
        assert_eq!(nat64.poll_timeout(), Some(now + 100));
        run_timers(&mut nat64, now + 99);
        assert_eq!((nat64.held_packets(), nat64.poll_packet()), (69, None));
        run_timers(&mut nat64, now + 100);
        let left: Vec<_> =
            std::iter::from_fn(|| nat64.poll_packet()).map(|p| Wire::read(&p.bytes)).collect();
        assert_eq!(left.len(), 69);
    }
    assert_eq!(nat64.stats.value(Counter::HeldFull), 2 * 6);
    assert_eq!(nat64.stats.value(Counter::HeldTimeouts), 2 * 69);
}
