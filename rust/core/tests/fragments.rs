//! Fragments in both directions (RFC 6146 §3.4).

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::stats::DropReason;
use jsync_core::time::Time;

fn nat() -> Nat64 {
    nat64(r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535"}], "max-sessions": 1000}"#)
}

fn from6(l4: L4) -> Wire {
    Wire::V6(n6(), embed(n4()), l4)
}

fn from4(l4: L4) -> Wire {
    Wire::V4(n4(), mask(), l4)
}

/// Cuts an IPv6 packet without extension headers into fragments of `size` payload bytes.
fn fragments6(packet: &Wire, size: usize, id: u32) -> Vec<Vec<u8>> {
    let bytes = packet.bytes();
    let chunks: Vec<_> = bytes[40..].chunks(size).collect();
    let last = chunks.len() - 1;
    chunks
        .iter()
        .enumerate()
        .map(|(n, chunk)| {
            let mut out = bytes[..40].to_vec();
            out[4..6].copy_from_slice(&(chunk.len() as u16 + 8).to_be_bytes());
            out[6] = 44;
            let offset = (n * size) as u16 | u16::from(n < last);
            out.extend([bytes[6], 0]);
            out.extend(offset.to_be_bytes());
            out.extend(id.to_be_bytes());
            out.extend(*chunk);
            out
        })
        .collect()
}

fn fragments4(packet: &Wire, size: usize, id: u16) -> Vec<Vec<u8>> {
    let bytes = packet.bytes();
    let chunks: Vec<_> = bytes[20..].chunks(size).collect();
    let last = chunks.len() - 1;
    chunks
        .iter()
        .enumerate()
        .map(|(n, chunk)| {
            let mut out = bytes[..20].to_vec();
            out[2..4].copy_from_slice(&(chunk.len() as u16 + 20).to_be_bytes());
            out[4..6].copy_from_slice(&id.to_be_bytes());
            let offset = (n * size / 8) as u16 | if n < last { 0x2000 } else { 0 };
            out[6..8].copy_from_slice(&offset.to_be_bytes());
            out[10..12].fill(0);
            let sum = checksum(&out);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend(*chunk);
            out
        })
        .collect()
}

/// Puts translated fragments together again: what the receiver would get.
fn reassemble(mut fragments: Vec<Vec<u8>>) -> Wire {
    let v6 = fragments[0][0] >> 4 == 6;
    let offset = |f: &Vec<u8>| {
        if v6 {
            usize::from(u16::from_be_bytes([f[42], f[43]]) & !7)
        } else {
            usize::from(u16::from_be_bytes([f[6], f[7]]) & 0x1fff) * 8
        }
    };
    fragments.sort_by_key(offset);
    let mut payload: Vec<u8> = Vec::new();
    for fragment in &fragments {
        assert_eq!(offset(fragment), payload.len(), "no hole, no overlap");
        payload.extend(&fragment[if v6 { 48 } else { 20 }..]);
    }
    let mut whole = fragments[0][..if v6 { 40 } else { 20 }].to_vec();
    if v6 {
        whole[6] = fragments[0][40];
        whole[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    } else {
        whole[2..4].copy_from_slice(&(payload.len() as u16 + 20).to_be_bytes());
        whole[6..8].fill(0);
        whole[10..12].fill(0);
        let sum = checksum(&whole);
        whole[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    whole.extend(payload);
    Wire::read(&whole)
}

fn deliver(nat64: &mut Nat64, now: Time, fragments: &[Vec<u8>], order: &[usize]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for &n in order {
        match send(nat64, now, &fragments[n]) {
            (Outcome::Forward, bytes) => out.push(bytes),
            (Outcome::Consumed, _) => {}
            (other, _) => panic!("{other:?}"),
        }
        out.extend(std::iter::from_fn(|| nat64.poll_packet()).map(|p| p.bytes));
    }
    out
}

/// §3.4: fragments in any order, both directions.
#[test]
fn fragments_in_any_order() {
    let payload: Vec<u8> = (0..4000u32).map(|n| (n % 251) as u8).collect();
    let big = |src, dst| L4::Udp { src, dst, payload: payload.clone() };
    for (id, order) in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]].iter().enumerate() {
        let mut nat64 = nat();
        let pieces = fragments6(&from6(big(5000, 53)), 1200, id as u32 + 70_000);
        let out = reassemble(deliver(&mut nat64, T0, &pieces, order));
        let Wire::V4(_, _, L4::Udp { src: port, .. }) = out else { panic!("{out:?}") };
        assert_eq!(out, Wire::V4(mask(), n4(), big(port, 53)));

        let pieces = fragments4(&from4(big(53, port)), 1200, id as u16);
        let back = reassemble(deliver(&mut nat64, T0, &pieces, order));
        assert_eq!(back, Wire::V6(embed(n4()), n6(), big(53, 5000)));
        assert_eq!(nat64.session_count(), 1);
    }
}

/// §3.4: what never becomes whole is forgotten after two seconds; a first fragment that goes
/// nowhere takes the others along.
#[test]
fn fragments_that_go_nowhere() {
    let mut nat64 = nat();
    let big = L4::Udp { src: 53, dst: 61001, payload: vec![1; 3000] };
    let pieces = fragments4(&from4(big), 1200, 5);
    for piece in &pieces[1..] {
        assert_eq!(send(&mut nat64, T0, piece).0, Outcome::Consumed);
    }
    assert_eq!(send(&mut nat64, T0, &pieces[0]).0, Outcome::Drop(DropReason::NoBib));
    assert_eq!(nat64.stats.dropped(DropReason::FragmentRefused), 2);
    assert_eq!(send(&mut nat64, T0, &pieces[1]).0, Outcome::Drop(DropReason::FragmentRefused));

    let later = T0 + 2_000;
    run_timers(&mut nat64, later);
    assert_eq!(send(&mut nat64, later, &pieces[1]).0, Outcome::Consumed);
    run_timers(&mut nat64, later + 2_000);
    assert_eq!(nat64.stats.dropped(DropReason::FragmentTimeout), 1);
    assert_eq!((nat64.poll_timeout(), nat64.poll_packet()), (None, None));
}

/// Nothing is put together here, so fragments that overlap, or come twice, go on as they are: what
/// to make of them is the receiver's business (RFC 5722, RFC 8200 §4.5).
#[test]
fn overlapping_fragments_go_on_as_they_are() {
    let big = L4::Udp { src: 5000, dst: 53, payload: (0..100).collect() };
    let pieces = fragments6(&from6(big), 48, 9);
    let mut overlap = pieces[1].clone();
    overlap[43] = 40 | 1;
    let mut nat64 = nat();
    assert_eq!(send(&mut nat64, T0, &overlap).0, Outcome::Consumed);
    let mut got = Vec::new();
    for piece in [&pieces[0], &pieces[1], &overlap, &pieces[0]] {
        let (outcome, bytes) = send(&mut nat64, T0, piece);
        assert_eq!(outcome, Outcome::Forward);
        got.push(bytes);
        got.extend(std::iter::from_fn(|| nat64.poll_packet()).map(|packet| packet.bytes));
    }
    let shape = |bytes: &Vec<u8>| (u16::from_be_bytes([bytes[6], bytes[7]]), bytes[20..].to_vec());
    let waited = (0x2000 | 5, overlap[48..].to_vec());
    assert_eq!(shape(&got[1]), waited);
    assert_eq!(shape(&got[2]), (0x2000 | 6, pieces[1][48..].to_vec()));
    assert_eq!(shape(&got[3]), waited);
    assert_eq!(got[4], got[0], "the first one, a second time");
    assert_eq!((got.len(), nat64.session_count()), (5, 1));
}

/// RFC 8200 §4.5, RFC 791 §3.2: of one datagram are the fragments that agree in source, destination,
/// identification and protocol. What differs in one of them waits for a first fragment of its own.
#[test]
fn fragments_of_other_datagrams_wait_for_their_own() {
    let big = |src, dst| L4::Udp { src, dst, payload: vec![7; 100] };
    let ours6 = fragments6(&from6(big(5000, 53)), 48, 0x0001_0009);
    let other_node = Wire::V6(a6("2001:db8::9"), embed(n4()), big(5000, 53));
    let other_server = Wire::V6(n6(), embed(a4("203.0.113.17")), big(5000, 53));
    let mut segment = fragments6(&from6(big(5000, 53)), 48, 0x0001_0009);
    segment[1][40] = 6;
    let others6 = [
        // IPv6 identifications have 32 bits.
        fragments6(&from6(big(5000, 53)), 48, 0x0002_0009),
        fragments6(&from6(big(5000, 53)), 48, 0x0001_000a),
        fragments6(&other_node, 48, 0x0001_0009),
        fragments6(&other_server, 48, 0x0001_0009),
        segment,
    ];
    let pool4 = r#"{"pool4": [{"prefix": "192.0.2.0/31", "ports": "61001-65535"}],
        "bib": [{"protocol": "udp", "ipv6": "2001:db8::8#53", "ipv4": "192.0.2.1#61053"}]}"#;
    let ours4 = fragments4(&from4(big(53, 61053)), 48, 9);
    let other_mask = Wire::V4(n4(), a4("192.0.2.0"), big(53, 61053));
    let other_source = Wire::V4(a4("203.0.113.17"), mask(), big(53, 61053));
    let mut segment = fragments4(&from4(big(53, 61053)), 48, 9);
    segment[1][9] = 6;
    segment[1][10..12].fill(0);
    let sum = checksum(&segment[1][..20]);
    segment[1][10..12].copy_from_slice(&sum.to_be_bytes());
    let others4 = [
        fragments4(&from4(big(53, 61053)), 48, 10),
        fragments4(&other_mask, 48, 9),
        fragments4(&other_source, 48, 9),
        segment,
    ];
    for (ours, others) in [(ours6, &others6[..]), (ours4, &others4[..])] {
        let mut nat64 = nat64(pool4);
        assert_eq!(send(&mut nat64, T0, &ours[0]).0, Outcome::Forward);
        for other in others {
            assert_eq!(send(&mut nat64, T0, &other[1]).0, Outcome::Consumed);
        }
        assert_eq!(send(&mut nat64, T0, &ours[1]).0, Outcome::Forward);
        assert_eq!(nat64.poll_packet(), None);
        // None of them has left when their time is over.
        run_timers(&mut nat64, T0 + 2_000);
        let lost = nat64.stats.dropped(DropReason::FragmentTimeout);
        assert_eq!(lost, others.len() as u64);
    }
}

/// A datagram of which a part says that it is one of nothing, or that it reaches too far, is not
/// even waited for.
#[test]
fn fragments_that_lie_leave_nothing_behind() {
    let mut nat64 = nat();
    let mut empty = fragments6(&from6(udp(5000, 53)), 8, 9).remove(1);
    empty.truncate(48);
    empty[5] = 8;
    assert_eq!(send(&mut nat64, T0, &empty).0, Outcome::Drop(DropReason::Malformed));
    assert_eq!((nat64.poll_timeout(), nat64.poll_packet()), (None, None));
}

/// What is refused of fragments is counted, with its reason.
#[test]
fn fragments_that_are_refused_are_counted() {
    let mut nat64 = nat();
    let big = L4::Udp { src: 5000, dst: 53, payload: vec![1; 3000] };
    let mut pieces = fragments6(&from6(big), 1200, 9);
    for _ in 0..52 {
        assert_eq!(send(&mut nat64, T0, &pieces[1]).0, Outcome::Consumed);
    }
    let full = Outcome::Drop(DropReason::FragmentsFull);
    assert_eq!(send(&mut nat64, T0, &pieces[1]).0, full);
    assert_eq!(nat64.stats.dropped(DropReason::FragmentsFull), 1);
    // One that waited, and whose hop limit runs out.
    let mut nat64 = nat();
    pieces[1][7] = 1;
    assert_eq!(send(&mut nat64, T0, &pieces[1]).0, Outcome::Consumed);
    assert_eq!(send(&mut nat64, T0, &pieces[0]).0, Outcome::Forward);
    assert_eq!(nat64.stats.dropped(DropReason::TtlExpired), 1);
    assert_eq!(nat64.poll_packet(), None);
    // Not for any node: neither kept nor answered.
    let circle = Wire::V6(embed(mask()), embed(n4()), udp(5000, 53));
    let circle = fragments6(&circle, 8, 10).remove(1);
    let refused = Outcome::Drop(DropReason::SourceInPool6);
    assert_eq!(send(&mut nat64, T0, &circle).0, refused);
    let elsewhere = Wire::V4(n4(), a4("192.0.2.2"), udp(53, 61080));
    let elsewhere = fragments4(&elsewhere, 8, 10).remove(1);
    assert_eq!(send(&mut nat64, T0, &elsewhere).0, Outcome::Drop(DropReason::NotPool4));
}
