//! Marks of pool4 entries: which packets get which masks, and that nothing else asks for them.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::{HEADROOM, Offload, Outcome, Packet};
use jsync_core::stats::{Counter, DropReason};
use jsync_core::table::Holding;
use jsync_core::time::Time;
use proptest::prelude::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 16);

fn nat(pool4: &str, global: &str) -> Nat64 {
    nat64(&format!(
        r#"{{"pool4": [{pool4}], "max-sessions": 10000, "node": 1, "global": {{{global}}}}}"#
    ))
}

/// Unmarked, mark 5 and mark 6, an address each.
fn three() -> Nat64 {
    nat(
        r#"{"prefix": "192.0.2.1"}, {"prefix": "192.0.2.5", "mark": 5},
           {"prefix": "192.0.2.6", "ports": "2000-2003", "mark": 6}"#,
        "",
    )
}

/// Sends one packet with a mark: what became of it, and what it was translated to.
fn marked(nat64: &mut Nat64, now: Time, mark: u32, packet: &Wire) -> (Outcome, Vec<u8>) {
    let bytes = packet.bytes();
    let mut buffer = vec![0xee; HEADROOM];
    buffer.extend(&bytes);
    let mut burst = [Packet::new(&mut buffer, HEADROOM, bytes.len(), Offload::default())];
    burst[0].mark = mark;
    nat64.handle_packets(now, &mut burst);
    (burst[0].outcome, burst[0].bytes().to_vec())
}

fn out(node: u16, l4: L4) -> Wire {
    Wire::V6(a6(&format!("2001:db8::{node:x}")), embed(SERVER), l4)
}

/// The mask that a packet with a mark got.
fn mask(nat64: &mut Nat64, mark: u32, packet: &Wire) -> (Ipv4Addr, u16) {
    let (outcome, bytes) = marked(nat64, T0, mark, packet);
    assert_eq!(outcome, Outcome::Forward, "{packet:?}");
    match Wire::read(&bytes) {
        Wire::V4(src, _, L4::Udp { src: port, .. } | L4::Tcp { src: port, .. }) => (src, port),
        Wire::V4(src, _, L4::Echo { id, .. }) => (src, id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_packets_mark_chooses_its_mask() {
    for l4 in [udp(4000, 53), tcp(4000, 80, SYN), ping(4000)] {
        let mut nat64 = three();
        for (node, mark, expected) in
            [(1, 0, "192.0.2.1"), (2, 5, "192.0.2.5"), (3, 6, "192.0.2.6"), (4, 5, "192.0.2.5")]
        {
            let (address, port) = mask(&mut nat64, mark, &out(node, l4.clone()));
            assert_eq!(address, a4(expected));
            let answer = match l4 {
                L4::Udp { dst, .. } => udp(dst, port),
                L4::Tcp { dst, .. } => tcp(dst, port, SYN | ACK),
                _ => pong(port),
            };
            // The answer's mark is nobody's business.
            let back = Wire::V4(SERVER, address, answer);
            let (outcome, bytes) = marked(&mut nat64, T0, 99, &back);
            assert_eq!(outcome, Outcome::Forward);
            let Wire::V6(_, dst, _) = Wire::read(&bytes) else { panic!() };
            assert_eq!(dst, a6(&format!("2001:db8::{node:x}")));
        }
    }
}

#[test]
fn a_mapping_serves_its_node_whatever_the_mark_is_later() {
    let mut nat64 = three();
    let first = mask(&mut nat64, 5, &out(1, udp(4000, 53)));
    for mark in [0, 5, 6, 1234] {
        assert_eq!(mask(&mut nat64, mark, &out(1, udp(4000, 53))), first, "the session");
        let elsewhere = out(1, udp(4000, 1000 + mark as u16));
        assert_eq!(mask(&mut nat64, mark, &elsewhere), first, "another session of the mapping");
    }
    assert_eq!(nat64.bib_count(), 1);
}

#[test]
fn a_mark_without_entry_is_refused_and_told() {
    let mut nat64 = three();
    let packet = out(1, udp(4000, 53));
    let refused = Outcome::Drop(DropReason::NoPool4Mark);
    assert_eq!(marked(&mut nat64, T0, 7, &packet).0, refused);
    let told = nat64.poll_packet().unwrap();
    let Wire::V6(_, dst, L4::Error { kind: 1, code: 3, .. }) = Wire::read(&told.bytes) else {
        panic!()
    };
    assert_eq!(dst, a6("2001:db8::1"));
    assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 0));
    // Nor has an unmarked packet a mask where every entry has a mark.
    let mut nat64 = nat(r#"{"prefix": "192.0.2.5", "mark": 5}"#, "");
    assert_eq!(marked(&mut nat64, T0, 0, &packet).0, refused);
}

#[test]
fn a_mark_whose_ports_are_used_up_gets_none_of_another() {
    let mut nat64 = three();
    for node in 1..=4 {
        assert_eq!(mask(&mut nat64, 6, &out(node, udp(4000, 53))).0, a4("192.0.2.6"));
    }
    let more = marked(&mut nat64, T0, 6, &out(5, udp(4000, 53))).0;
    assert_eq!(more, Outcome::Drop(DropReason::Pool4Exhausted));
    assert_eq!(mask(&mut nat64, 0, &out(5, udp(4000, 53))).0, a4("192.0.2.1"));
}

#[test]
fn hairpinning_masks_the_sender_by_its_mark() {
    let mut nat64 = three();
    let (address, port) = mask(&mut nat64, 5, &out(1, udp(4000, 53)));
    let inward = Wire::V6(a6("2001:db8::2"), embed(address), udp(4001, port));
    let (outcome, bytes) = marked(&mut nat64, T0, 6, &inward);
    assert_eq!(outcome, Outcome::Forward);
    let Wire::V6(src, dst, _) = Wire::read(&bytes) else { panic!() };
    assert_eq!((src, dst), (embed(a4("192.0.2.6")), a6("2001:db8::1")));
}

/// RFC 6146 §3.5.2.2: where the IPv4 node's SYN waits, its destination becomes the mask, but not
/// that of a node whose mark has no share in it.
#[test]
fn a_waiting_syn_gives_no_node_the_mask_of_another_mark() {
    for (mark, expected) in [(0, "192.0.2.1"), (5, "192.0.2.5")] {
        let mut nat64 = three();
        let syn = Wire::V4(SERVER, a4("192.0.2.5"), tcp(80, 3000, SYN));
        assert_eq!(marked(&mut nat64, T0, 0, &syn).0, Outcome::Consumed);
        let (address, port) = mask(&mut nat64, mark, &out(1, tcp(4000, 80, SYN)));
        assert_eq!(address, a4(expected));
        assert_eq!(port == 3000, mark == 5);
    }
}

#[test]
fn a_packet_that_was_held_keeps_its_mark() {
    let mut nat64 = three();
    nat64.hold(Holding { opener_ms: 50, stranger_ms: 0 });
    assert_eq!(marked(&mut nat64, T0, 5, &out(1, udp(4000, 53))).0, Outcome::Consumed);
    // Meanwhile the operator has removed the mapping: it gets another of the same mark.
    let src6 = "2001:db8::1#4000".parse().unwrap();
    nat64.bib_remove(jsync_core::tuple::Proto::Udp, Some(src6), None).unwrap();
    nat64.release_openers(T0, core::slice::from_ref(&(0..1)));
    let Wire::V4(src, ..) = Wire::read(&nat64.poll_packet().unwrap().bytes) else { panic!() };
    assert_eq!(src, a4("192.0.2.5"));
}

#[test]
fn another_nodes_slice_of_the_mark_is_not_given_away() {
    let pool4 = |first| {
        format!(
            r#"{{"prefix": "192.0.2.1", "node": {first}, "mark": 5}},
               {{"prefix": "192.0.2.2", "node": 1}}"#
        )
    };
    let packet = out(1, udp(4000, 53));
    let mut nat64 = nat(&pool4(2), "");
    assert_eq!(marked(&mut nat64, T0, 5, &packet).0, Outcome::Drop(DropReason::NoPool4Mark));
    assert_eq!(mask(&mut nat64, 0, &packet).0, a4("192.0.2.2"));
    let mut nat64 = nat(&pool4(1), "");
    assert_eq!(mask(&mut nat64, 5, &packet).0, a4("192.0.2.1"));
}

/// Marks that share one address: every block of a subscriber's has ports of the packet's mark.
#[test]
fn blocks_are_of_the_mark() {
    let mut nat64 = nat(
        r#"{"prefix": "192.0.2.1", "ports": "1024-60000"},
           {"prefix": "192.0.2.1", "ports": "60064-60127", "mark": 5}"#,
        r#""port-block-size": 64, "max-ports-per-subscriber": 1000, "logging-bib": true"#,
    );
    for n in 0..100 {
        let (_, port) = mask(&mut nat64, 0, &out(1, udp(4000 + n, 53)));
        assert!((1024..=60000).contains(&port));
    }
    for n in 0..64 {
        let (_, port) = mask(&mut nat64, 5, &out(2, udp(4000 + n, 53)));
        assert!((60064..=60127).contains(&port));
    }
    let more = marked(&mut nat64, T0, 5, &out(2, udp(9000, 53))).0;
    assert_eq!(more, Outcome::Drop(DropReason::NoPortBlock));
    let blocks = std::iter::from_fn(|| nat64.poll_log()).count();
    assert_eq!(blocks, 2 + 2, "the mark's ports lie in two blocks");
    run_timers(&mut nat64, T0 + 301_000);
    assert_eq!(nat64.bib_count(), 0);
    assert_eq!(mask(&mut nat64, 5, &out(9, udp(1, 1))).0, a4("192.0.2.1"));
}

#[test]
fn entries_of_a_mark_come_and_go_while_running() {
    let mut nat64 = three();
    let entry = serde_json::from_str(r#"{"prefix": "192.0.2.7", "mark": 7}"#).unwrap();
    nat64.pool4_add(entry).unwrap();
    let seven = out(1, udp(4000, 53));
    assert_eq!(mask(&mut nat64, 7, &seven).0, a4("192.0.2.7"));
    let (first, _) = mask(&mut nat64, 5, &out(2, udp(4000, 53)));
    nat64.pool4_remove(&entry).unwrap();
    for _ in 0..2 {
        assert_eq!(mask(&mut nat64, 5, &out(2, udp(4000, 53))).0, first);
        assert_eq!(marked(&mut nat64, T0, 7, &seven).0, Outcome::Drop(DropReason::NoPool4Mark));
        run_timers(&mut nat64, T0);
    }
    assert_eq!(nat64.bib_count(), 1, "a mapping of another mark stays");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever marks packets have: a node's mask is one of its first packet's mark, and stays.
    #[test]
    fn marks_change_no_mapping(
        packets in prop::collection::vec((1u16..20, 0u16..3, prop::sample::select(&[0, 5, 6, 7][..])), 1..200),
    ) {
        let mut nat64 = three();
        let mut masks = BTreeMap::new();
        let mut refused = 0;
        for (node, to, mark) in packets {
            let (outcome, bytes) = marked(&mut nat64, T0, mark, &out(node, udp(4000, 53 + to)));
            if outcome != Outcome::Forward {
                prop_assert!(!masks.contains_key(&node));
                prop_assert!(matches!(mark, 6 | 7));
                refused += 1;
                continue;
            }
            let Wire::V4(src, _, L4::Udp { src: port, .. }) = Wire::read(&bytes) else { panic!() };
            let known = masks.entry(node).or_insert_with(|| {
                let expected = if mark == 0 { "192.0.2.1" } else { &format!("192.0.2.{mark}") };
                assert_eq!(src, a4(expected));
                (src, port)
            });
            prop_assert_eq!(*known, (src, port));
        }
        prop_assert_eq!(nat64.bib_count() as usize, masks.len());
        let drops = [DropReason::NoPool4Mark, DropReason::Pool4Exhausted];
        prop_assert_eq!(drops.map(|reason| nat64.stats.dropped(reason)).iter().sum::<u64>(), refused);
        prop_assert_eq!(nat64.stats.value(Counter::BibCreated) as usize, masks.len());
    }
}
