//! RFC 6146, requirement by requirement.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::stats::{Counter, DropReason};
use jsync_core::table::{SessionRecord, State};
use jsync_core::time::Time;

/// One address, the sample network's, and whatever else a test wants.
fn nat(extra: &str) -> Nat64 {
    nat64(&format!(
        r#"{{"pool4": [{{"prefix": "192.0.2.1", "ports": "61001-65535"}}], "max-sessions": 1000, {extra}
            "global": {{}}}}"#
    ))
}

fn nat_global(global: &str) -> Nat64 {
    nat64(&format!(
        r#"{{"pool4": [{{"prefix": "192.0.2.1", "ports": "61001-65535"}}], "max-sessions": 1000,
            "global": {{{global}}}}}"#
    ))
}

const STATIC: &str = r#""bib": [
    {"protocol": "tcp", "ipv6": "2001:db8::8#8080", "ipv4": "192.0.2.1#61080"},
    {"protocol": "udp", "ipv6": "2001:db8::8#8080", "ipv4": "192.0.2.1#61080"}],"#;

fn from6(l4: L4) -> Wire {
    Wire::V6(n6(), embed(n4()), l4)
}

fn from4(l4: L4) -> Wire {
    Wire::V4(n4(), mask(), l4)
}

fn sessions(nat64: &Nat64, now: Time) -> Vec<SessionRecord> {
    let mut found = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = nat64.scan(now, at, 100, &mut |record| found.push(record));
    }
    found
}

fn dropped(nat64: &mut Nat64, now: Time, packet: &Wire) -> DropReason {
    match send(nat64, now, &packet.bytes()).0 {
        Outcome::Drop(reason) => {
            assert!(nat64.stats.dropped(reason) > 0);
            reason
        }
        other => panic!("{other:?} {packet:?}"),
    }
}

/// The mask's port of a packet translated to IPv4.
fn source_port(packet: &Wire) -> u16 {
    match packet {
        Wire::V4(_, _, L4::Udp { src, .. } | L4::Tcp { src, .. }) => *src,
        Wire::V4(_, _, L4::Echo { id, .. }) => *id,
        other => panic!("{other:?}"),
    }
}

/// §3.5.1 and §3.5.3: there and back, with a mapping that doesn't depend on the destination.
#[test]
fn udp_and_icmp_there_and_back() {
    let mut nat64 = nat("");
    let out = forward(&mut nat64, T0, &from6(udp(5000, 53)));
    let port = source_port(&out);
    assert_eq!(out, Wire::V4(mask(), n4(), udp(port, 53)));
    assert_eq!(port % 2, 0, "parity is kept");
    let back = forward(&mut nat64, T0, &from4(udp(53, port)));
    assert_eq!(back, Wire::V6(embed(n4()), n6(), udp(53, 5000)));

    let other = Wire::V6(n6(), embed(a4("203.0.113.99")), udp(5000, 99));
    assert_eq!(source_port(&forward(&mut nat64, T0, &other)), port);

    let out = forward(&mut nat64, T0, &from6(ping(77)));
    let id = source_port(&out);
    assert_eq!(out, Wire::V4(mask(), n4(), ping(id)));
    let back = forward(&mut nat64, T0, &from4(pong(id)));
    assert_eq!(back, Wire::V6(embed(n4()), n6(), pong(77)));
    assert_eq!((nat64.session_count(), nat64.bib_count()), (3, 2));
    assert_eq!(nat64.stats.value(Counter::BibCreated), 2);
}

/// §3.5.1: endpoint-independent filtering lets anybody send to a mapping; that makes a session.
#[test]
fn filtering_is_endpoint_independent_unless_asked() {
    let mut nat64 = nat("");
    let port = source_port(&forward(&mut nat64, T0, &from6(udp(5000, 53))));
    let stranger = a4("198.51.100.1");
    let from_stranger = Wire::V4(stranger, mask(), udp(7, port));
    let got = forward(&mut nat64, T0, &from_stranger);
    assert_eq!(got, Wire::V6(embed(stranger), n6(), udp(7, 5000)));
    assert_eq!(nat64.session_count(), 2);

    let mut nat64 = nat_global(r#""address-dependent-filtering": true"#);
    let port = source_port(&forward(&mut nat64, T0, &from6(udp(5000, 53))));
    assert_eq!(dropped(&mut nat64, T0, &from_stranger_to(port)), DropReason::Filtered);
    assert_eq!(nat64.session_count(), 1);
    let tcp_port = established(&mut nat64, T0);
    let segment = Wire::V4(stranger, mask(), tcp(7, tcp_port, ACK));
    assert_eq!(dropped(&mut nat64, T0, &segment), DropReason::Filtered);
    // The same address from another port may.
    forward(&mut nat64, T0, &from4(udp(1, port)));
    // Also when its session isn't the BIB entry's first.
    forward(&mut nat64, T0, &Wire::V6(n6(), embed(stranger), udp(5000, 7)));
    forward(&mut nat64, T0, &Wire::V4(stranger, mask(), udp(8, port)));
    forward(&mut nat64, T0, &Wire::V4(stranger, mask(), udp(9, port)));
    assert_eq!(nat64.session_count(), 6);
}

fn from_stranger_to(port: u16) -> Wire {
    Wire::V4(a4("198.51.100.1"), mask(), udp(7, port))
}

#[test]
fn without_a_mapping_ipv4_packets_go_nowhere() {
    let mut nat64 = nat("");
    assert_eq!(dropped(&mut nat64, T0, &from4(udp(53, 61001))), DropReason::NoBib);
    assert_eq!(dropped(&mut nat64, T0, &from4(udp(53, 22))), DropReason::NotPool4);
    assert_eq!(dropped(&mut nat64, T0, &from4(tcp(53, 61001, ACK))), DropReason::NoBib);
    let elsewhere = Wire::V4(n4(), a4("192.0.2.2"), udp(53, 61001));
    assert_eq!(dropped(&mut nat64, T0, &elsewhere), DropReason::NotPool4);
    assert_eq!((nat64.session_count(), nat64.poll_packet()), (0, None));
}

/// §3.5: neither may a packet go round in circles, nor is what isn't for pool6 ours.
#[test]
fn sources_in_pool6_and_foreign_destinations_are_refused() {
    let mut nat64 = nat("");
    let circle = Wire::V6(embed(mask()), embed(n4()), udp(5000, 53));
    assert_eq!(dropped(&mut nat64, T0, &circle), DropReason::SourceInPool6);
    let foreign = Wire::V6(n6(), a6("2001:db8::1"), udp(5000, 53));
    assert_eq!(dropped(&mut nat64, T0, &foreign), DropReason::NotPool6);
    assert_eq!(nat64.session_count(), 0);
}

/// §3.5.2.2 as it goes most often, and the lifetimes of each state (§4).
#[test]
fn a_tcp_connection_opens_lives_and_closes() {
    let mut nat64 = nat("");
    let mut port = 0;
    for (v6, flags, state, lifetime) in [
        (true, SYN, State::V6Init, 240_000),
        (false, SYN | ACK, State::Established, 7_200_000),
        (true, ACK, State::Established, 7_200_000),
        (false, FIN | ACK, State::V4FinRcv, 7_200_000),
        (true, ACK, State::V4FinRcv, 7_200_000),
        (true, FIN | ACK, State::V4FinV6FinRcv, 240_000),
        (false, ACK, State::V4FinV6FinRcv, 240_000),
    ] {
        if v6 {
            port = source_port(&forward(&mut nat64, T0, &from6(tcp(4000, 80, flags))));
        } else {
            forward(&mut nat64, T0, &from4(tcp(80, port, flags)));
        }
        let all = sessions(&nat64, T0);
        assert_eq!((all.len(), all[0].state, all[0].lifetime_ms), (1, state, lifetime));
    }
    run_timers(&mut nat64, T0 + 239_000);
    assert_eq!(nat64.session_count(), 1);
    run_timers(&mut nat64, T0 + 240_500);
    assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 0));
    assert_eq!(nat64.stats.value(Counter::SessionsExpired), 1);
    assert_eq!(nat64.stats.value(Counter::BibRemoved), 1);
}

/// §3.5.2.2, CLOSED: what isn't a SYN opens nothing, but passes where there is a BIB entry.
#[test]
fn segments_without_syn_open_nothing() {
    let mut nat64 = nat(STATIC);
    assert_eq!(dropped(&mut nat64, T0, &from6(tcp(4000, 80, ACK))), DropReason::NotSyn);
    assert_eq!(dropped(&mut nat64, T0, &from6(tcp(4000, 80, RST))), DropReason::NotSyn);
    forward(&mut nat64, T0, &from6(tcp(8080, 80, ACK)));
    forward(&mut nat64, T0, &from4(tcp(80, 61080, ACK)));
    assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 2));
}

/// §3.5.2.2, ESTABLISHED: a RST may be forged, so the session gets four minutes to show life.
#[test]
fn a_session_survives_a_rst_that_was_not_meant() {
    let mut nat64 = nat("");
    let port = established(&mut nat64, T0);
    forward(&mut nat64, T0, &from4(tcp(80, port, RST)));
    assert_eq!(sessions(&nat64, T0)[0].state, State::Trans);
    assert_eq!(sessions(&nat64, T0)[0].lifetime_ms, 240_000);
    forward(&mut nat64, T0 + 1000, &from6(tcp(4000, 80, ACK)));
    assert_eq!(sessions(&nat64, T0 + 1000)[0].state, State::Established);
    run_timers(&mut nat64, T0 + 7_100_000);
    assert_eq!(nat64.session_count(), 1);
}

fn established(nat64: &mut Nat64, now: Time) -> u16 {
    let port = source_port(&forward(nat64, now, &from6(tcp(4000, 80, SYN))));
    forward(nat64, now, &from4(tcp(80, port, SYN | ACK)));
    port
}

/// §3.5.2.2, ESTABLISHED: at the end of its lifetime the IPv6 node is asked; its answer revives
/// the session, silence ends it.
#[test]
fn a_silent_connection_is_probed() {
    for alive in [true, false] {
        let mut nat64 = nat("");
        established(&mut nat64, T0);
        let end = T0 + 7_200_256;
        run_timers(&mut nat64, end);
        let probe = nat64.poll_packet().expect("a probe");
        let expected = Wire::V6(
            embed(n4()),
            n6(),
            L4::Tcp { src: 80, dst: 4000, flags: ACK, payload: vec![] },
        );
        assert_eq!(Wire::read(&probe.bytes), expected);
        assert_eq!(nat64.stats.value(Counter::ProbesSent), 1);
        assert_eq!(probe.bytes[44..52], [0; 8], "sequence and acknowledgement numbers are 0");
        assert_eq!(sessions(&nat64, end)[0].state, State::Trans);
        if alive {
            forward(&mut nat64, end + 10, &from6(tcp(4000, 80, ACK)));
        }
        run_timers(&mut nat64, end + 241_000);
        assert_eq!(nat64.session_count(), u32::from(alive));
        assert_eq!(nat64.poll_packet(), None);
    }
}

#[test]
fn ipv4_opens_connections_through_static_entries() {
    let mut nat64 = nat(STATIC);
    let syn = from4(tcp(1234, 61080, SYN));
    assert_eq!(forward(&mut nat64, T0, &syn), Wire::V6(embed(n4()), n6(), tcp(1234, 8080, SYN)));
    assert_eq!(sessions(&nat64, T0)[0].state, State::V4Init);
    let answer = forward(&mut nat64, T0, &from6(tcp(8080, 1234, SYN | ACK)));
    assert_eq!(answer, Wire::V4(mask(), n4(), tcp(61080, 1234, SYN | ACK)));
    assert_eq!(sessions(&nat64, T0)[0].state, State::Established);
    run_timers(&mut nat64, T0 + 8_000_000);
    assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 2), "the entry stays");

    let mut nat64 = nat64_with(r#""drop-externally-initiated-tcp": true"#);
    assert_eq!(dropped(&mut nat64, T0, &syn), DropReason::Filtered);
    assert_eq!(dropped(&mut nat64, T0, &from4(tcp(1, 61001, SYN))), DropReason::NoBib);
}

fn nat64_with(global: &str) -> Nat64 {
    nat64(&format!(
        r#"{{"pool4": [{{"prefix": "192.0.2.1", "ports": "61001-65535"}}], {STATIC}
            "max-sessions": 1000, "global": {{{global}}}}}"#
    ))
}

/// §3.5.2.2, CLOSED, V4 SYN: kept for six seconds, then its sender is told.
#[test]
fn an_unexpected_syn_waits_and_is_answered() {
    let mut nat64 = nat_global(r#""maximum-simultaneous-opens": 2"#);
    let syn = from4(tcp(1234, 61001, SYN));
    for _ in 0..2 {
        assert_eq!(send(&mut nat64, T0, &syn.bytes()).0, Outcome::Consumed, "also a second time");
    }
    let other = from4(tcp(1235, 61001, SYN));
    assert_eq!(send(&mut nat64, T0, &other.bytes()).0, Outcome::Consumed);
    assert_eq!(dropped(&mut nat64, T0, &from4(tcp(1236, 61001, SYN))), DropReason::NoBib);
    run_timers(&mut nat64, T0 + 5_999);
    assert_eq!(nat64.poll_packet(), None);
    run_timers(&mut nat64, T0 + 6_000);
    let answer = nat64.poll_packet().expect("an ICMP error");
    let expected = L4::Error { kind: 3, code: 3, rest: 0, inner: syn.bytes() };
    assert_eq!(Wire::read(&answer.bytes), Wire::V4(mask(), n4(), expected));
    assert!(nat64.poll_packet().is_some());
    assert_eq!(nat64.session_count(), 0);
}

/// The same, but the IPv6 node opens the connection too: it gets the mapping that the IPv4 node
/// knows, and nobody is told of an error.
#[test]
fn both_sides_open_at_once() {
    let mut nat64 = nat("");
    send(&mut nat64, T0, &from4(tcp(1234, 62345, SYN)).bytes());
    let out = forward(&mut nat64, T0 + 5_000, &from6(tcp(4000, 1234, SYN)));
    assert_eq!(source_port(&out), 62345);
    assert_eq!(sessions(&nat64, T0)[0].state, State::Established);
    run_timers(&mut nat64, T0 + 10_000);
    assert_eq!(nat64.poll_packet(), None);

    // With address-dependent filtering a mapping that exists keeps strangers waiting as well.
    let mut nat64 = nat_global(r#""address-dependent-filtering": true"#);
    let port = established(&mut nat64, T0);
    let stranger = a4("198.51.100.1");
    let syn = Wire::V4(stranger, mask(), tcp(99, port, SYN));
    assert_eq!(send(&mut nat64, T0, &syn.bytes()).0, Outcome::Consumed);
    forward(&mut nat64, T0, &Wire::V6(n6(), embed(stranger), tcp(4000, 99, SYN)));
    forward(&mut nat64, T0, &Wire::V4(stranger, mask(), tcp(99, port, ACK)));
    run_timers(&mut nat64, T0 + 10_000);
    assert_eq!(nat64.poll_packet(), None);
}

/// A SYN that waits is met by the connection that it opens and by no other.
#[test]
fn another_connection_meets_no_waiting_syn() {
    let mut nat64 = nat("");
    let port = established(&mut nat64, T0);
    let syn = from4(tcp(1234, 62345, SYN));
    assert_eq!(send(&mut nat64, T0, &syn.bytes()).0, Outcome::Consumed);
    // To another port; and from a mapping that the IPv4 node hasn't written to.
    let out = forward(&mut nat64, T0, &from6(tcp(4002, 1235, SYN)));
    assert_ne!(source_port(&out), 62345);
    let out = forward(&mut nat64, T0, &from6(tcp(4000, 1234, SYN)));
    assert_eq!(source_port(&out), port);
    let opening = sessions(&nat64, T0).into_iter().filter(|s| s.state == State::V6Init);
    assert_eq!(opening.count(), 2);
    run_timers(&mut nat64, T0 + 6_000);
    let answer = nat64.poll_packet().expect("an ICMP error");
    let expected = L4::Error { kind: 3, code: 3, rest: 0, inner: syn.bytes() };
    assert_eq!(Wire::read(&answer.bytes), Wire::V4(mask(), n4(), expected));
    // What answers a SYN opens nothing and doesn't wait.
    let answer = from4(tcp(1234, 62345, SYN | ACK));
    assert_eq!(dropped(&mut nat64, T0, &answer), DropReason::NoBib);
}

/// §3.5.3 and RFC 5508: an error reaches whoever sent the packet, both ways, and changes nothing.
#[test]
fn icmp_errors_follow_their_session_and_leave_it_alone() {
    let mut nat64 = nat("");
    let router4 = a4("198.51.100.254");
    let out = forward(&mut nat64, T0, &from6(udp(5000, 53)));
    let port = source_port(&out);
    let error = L4::Error { kind: 3, code: 3, rest: 0, inner: out.bytes() };
    let got = forward(&mut nat64, T0 + 1000, &Wire::V4(router4, mask(), error.clone()));
    let Wire::V6(src, dst, L4::Error { kind: 1, code: 4, inner, .. }) = got else {
        panic!("{got:?}")
    };
    assert_eq!((src, dst), (embed(router4), n6()));
    let mut sent = from6(udp(5000, 53)).bytes();
    sent[7] = inner[7];
    assert_eq!(inner, sent, "the inner packet is what was sent, but for its hop limit");

    let back = forward(&mut nat64, T0, &from4(udp(53, port)));
    let error6 = L4::Error { kind: 1, code: 4, rest: 0, inner: back.bytes() };
    let got = forward(&mut nat64, T0 + 1000, &Wire::V6(n6(), embed(n4()), error6));
    let Wire::V4(src, dst, L4::Error { kind: 3, code: 3, inner, .. }) = got else {
        panic!("{got:?}")
    };
    assert_eq!((src, dst), (mask(), n4()));
    assert_eq!(inner[12..20], from4(udp(53, port)).bytes()[12..20]);
    assert_eq!(inner[20..24], from4(udp(53, port)).bytes()[20..24], "ports");

    assert_eq!(sessions(&nat64, T0 + 1000)[0].lifetime_ms, 299_000, "no refresh");
    let unknown = Wire::V4(mask(), n4(), udp(61002, 53)).bytes();
    let error = L4::Error { kind: 3, code: 3, rest: 0, inner: unknown };
    let error = Wire::V4(router4, mask(), error);
    assert_eq!(dropped(&mut nat64, T0, &error), DropReason::NoSession);
    assert_eq!(nat64.session_count(), 1);
}

/// Errors about pings carry the identifier of the side they go to.
#[test]
fn icmp_errors_about_pings() {
    let mut nat64 = nat("");
    let out = forward(&mut nat64, T0, &from6(ping(77)));
    let error = L4::Error { kind: 11, code: 0, rest: 0, inner: out.bytes() };
    let got = forward(&mut nat64, T0, &Wire::V4(a4("198.51.100.254"), mask(), error));
    let Wire::V6(_, dst, L4::Error { kind: 3, code: 0, inner, .. }) = got else {
        panic!("{got:?}")
    };
    let mut sent = from6(ping(77)).bytes();
    sent[7] = inner[7];
    assert_eq!((dst, inner), (n6(), sent));
}

/// The same of an error from IPv6 about an answer.
#[test]
fn icmpv6_errors_about_pings() {
    let mut nat64 = nat("");
    let id = source_port(&forward(&mut nat64, T0, &from6(ping(77))));
    let answer = forward(&mut nat64, T0, &from4(pong(id)));
    let error = L4::Error { kind: 3, code: 0, rest: 0, inner: answer.bytes() };
    let router = a6("2001:db8::ffff");
    let got = forward(&mut nat64, T0, &Wire::V6(router, embed(n4()), error));
    let mut inner = from4(pong(id)).bytes();
    // Neither identification nor DF come back.
    inner[4..12].copy_from_slice(&[0, 0, 0, 0, 64, 1, 0, 0]);
    let sum = checksum(&inner[..20]);
    inner[10..12].copy_from_slice(&sum.to_be_bytes());
    let error = L4::Error { kind: 11, code: 0, rest: 0, inner };
    assert_eq!(got, Wire::V4(mask(), n4(), error));
}

/// What the translator itself says to IPv6 nodes comes from an address of its own: pool6 with the
/// first of pool4 that isn't another node's.
#[test]
fn own_errors_come_from_an_own_address() {
    for (node, own) in [(1, "192.0.2.1"), (2, "192.0.2.9"), (3, "192.0.2.5")] {
        let mut nat64 = nat64(&format!(
            r#"{{"max-sessions": 10, "node": {node}, "pool4": [
                {{"prefix": "192.0.2.9", "node": 2}}, {{"prefix": "192.0.2.1", "node": 1}},
                {{"prefix": "192.0.2.5"}}]}}"#
        ));
        let mut expired = from6(udp(5000, 53)).bytes();
        expired[7] = 1;
        send(&mut nat64, T0, &expired);
        let told = Wire::read(&nat64.poll_packet().unwrap().bytes);
        let error = L4::Error { kind: 3, code: 0, rest: 0, inner: expired };
        assert_eq!(told, Wire::V6(embed(a4(own)), n6(), error));
    }
}

/// §3.8: two IPv6 nodes talk through the NAT64, each seeing the other's mask.
#[test]
fn hairpinning() {
    for tcp_too in [false, true] {
        let l4 = |src, dst, flags| if tcp_too { tcp(src, dst, flags) } else { udp(src, dst) };
        let mut nat64 = nat(STATIC);
        let other = a6("2001:db8::9");
        let out = Wire::V6(other, embed(mask()), l4(4000, 61080, SYN));
        let got = forward(&mut nat64, T0, &out);
        let Wire::V6(src, dst, L4::Udp { src: port, .. } | L4::Tcp { src: port, .. }) = got else {
            panic!("{got:?}")
        };
        assert_eq!(
            (src, dst, &got),
            (embed(mask()), n6(), &Wire::V6(src, dst, l4(port, 8080, SYN)))
        );
        let answer = Wire::V6(n6(), embed(mask()), l4(8080, port, SYN | ACK));
        let back = forward(&mut nat64, T0, &answer);
        assert_eq!(back, Wire::V6(embed(mask()), other, l4(61080, 4000, SYN | ACK)));
        let all = sessions(&nat64, T0);
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|s| s.state == State::Established));
        assert_eq!(nat64.stats.value(Counter::Hairpinned), 2);
    }
}

#[test]
fn hairpinning_makes_nothing_where_there_is_no_mapping_and_not_for_pings() {
    let mut nat64 = nat("");
    let lost = Wire::V6(n6(), embed(mask()), udp(4000, 61500));
    assert_eq!(dropped(&mut nat64, T0, &lost), DropReason::NoBib);
    let id = source_port(&forward(&mut nat64, T0, &from6(ping(1))));
    let own = Wire::V6(a6("2001:db8::9"), embed(mask()), ping(id));
    assert_eq!(dropped(&mut nat64, T0, &own), DropReason::UnsupportedIcmp);
    assert_eq!(nat64.session_count(), 1);
}

/// RFC 5508 REQ-7: errors about hairpinned packets are hairpinned.
#[test]
fn errors_about_hairpinned_packets() {
    let mut nat64 = nat(STATIC);
    let other = a6("2001:db8::9");
    let sent = Wire::V6(other, embed(mask()), udp(4000, 61080));
    let arrived = forward(&mut nat64, T0, &sent);
    let error = L4::Error { kind: 1, code: 4, rest: 0, inner: arrived.bytes() };
    let got = forward(&mut nat64, T0, &Wire::V6(n6(), embed(mask()), error));
    let Wire::V6(src, dst, L4::Error { kind: 1, code: 4, inner, .. }) = got else {
        panic!("{got:?}")
    };
    assert_eq!((src, dst), (embed(mask()), other));
    let mut expected = sent.bytes();
    expected[7] = inner[7];
    assert_eq!(inner, expected);
}

/// `drop-icmpv6-info` is about echoes, requests and replies; errors pass.
#[test]
fn icmpv6_queries_may_be_dropped() {
    let mut nat64 = nat_global(r#""drop-icmpv6-info": true"#);
    assert_eq!(dropped(&mut nat64, T0, &from6(ping(1))), DropReason::Filtered);
    assert_eq!(dropped(&mut nat64, T0, &from6(pong(1))), DropReason::Filtered);
    assert_eq!(nat64.session_count(), 0);
    let port = source_port(&forward(&mut nat64, T0, &from6(udp(1, 2))));
    let inner = forward(&mut nat64, T0, &from4(udp(2, port))).bytes();
    let error = L4::Error { kind: 1, code: 4, rest: 0, inner };
    forward(&mut nat64, T0, &Wire::V6(n6(), embed(n4()), error));
}

/// An error comes from the router that sent it, or, without `source-icmpv6-errors-better`, from
/// where the packet was to go.
#[test]
fn whom_errors_come_from() {
    let router = a4("198.51.100.254");
    for (better, source) in [(true, router), (false, n4())] {
        let mut nat64 = nat_global(&format!(r#""source-icmpv6-errors-better": {better}"#));
        let out = forward(&mut nat64, T0, &from6(udp(5000, 53)));
        let error = L4::Error { kind: 11, code: 0, rest: 0, inner: out.bytes() };
        let got = forward(&mut nat64, T0, &Wire::V4(router, mask(), error));
        let mut inner = from6(udp(5000, 53)).bytes();
        inner[7] = 64;
        let error = L4::Error { kind: 3, code: 0, rest: 0, inner };
        assert_eq!(got, Wire::V6(embed(source), n6(), error));
    }
}

/// A BIB entry isn't enough for an error: it must be about a packet of a session. Nor may one
/// come from pool6.
#[test]
fn errors_about_no_session_are_refused() {
    let mut nat64 = nat(STATIC);
    let error = |kind, inner: Wire| L4::Error { kind, code: 0, rest: 0, inner: inner.bytes() };
    let from_router4 = |inner| Wire::V4(a4("198.51.100.254"), mask(), error(11, inner));
    let from_router6 = |src, inner| Wire::V6(src, embed(n4()), error(3, inner));
    let sent4 = Wire::V4(mask(), n4(), udp(61080, 53));
    let sent6 = Wire::V6(embed(n4()), n6(), udp(53, 8080));
    let router6 = a6("2001:db8::ffff");
    let none = DropReason::NoSession;
    assert_eq!(dropped(&mut nat64, T0, &from_router4(sent4.clone())), none);
    assert_eq!(dropped(&mut nat64, T0, &from_router6(router6, sent6.clone())), none);
    forward(&mut nat64, T0, &from6(udp(8080, 53)));
    forward(&mut nat64, T0, &from_router4(sent4));
    forward(&mut nat64, T0, &from_router6(router6, sent6.clone()));
    let circle = from_router6(embed(a4("203.0.113.1")), sent6);
    assert_eq!(dropped(&mut nat64, T0, &circle), DropReason::SourceInPool6);
}

/// §3.5.1.1: without a free transport address the IPv6 node is told, within reason.
#[test]
fn an_exhausted_pool4_is_told() {
    let mut nat64 = nat64(
        r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "61001-61002"}], "max-sessions": 1000}"#,
    );
    for port in 0..500 {
        let packet = from6(udp(5000 + port, 53));
        if port < 2 {
            forward(&mut nat64, T0, &packet);
        } else {
            assert_eq!(dropped(&mut nat64, T0, &packet), DropReason::Pool4Exhausted);
        }
    }
    let told = nat64.poll_packet().unwrap();
    let Wire::V6(_, dst, L4::Error { kind: 1, code: 3, inner, .. }) = Wire::read(&told.bytes)
    else {
        panic!()
    };
    assert_eq!((dst, inner), (n6(), from6(udp(5002, 53)).bytes()));
    // ICMP errors are limited (RFC 4443 §2.4 (f)): 100 that wait for their millisecond beside the
    // one whose turn it is, and then one a millisecond.
    let more = std::iter::from_fn(|| nat64.poll_packet()).count();
    assert_eq!((more, nat64.stats.value(Counter::IcmpErrorsSuppressed)), (100, 397));
    for (wait, expected) in [(0, 0), (1, 1), (11, 10), (1_000, 101)] {
        for _ in 0..200 {
            dropped(&mut nat64, T0 + wait, &from6(udp(6000, 53)));
        }
        let told = std::iter::from_fn(|| nat64.poll_packet()).count();
        assert_eq!(told, expected, "after {wait} ms");
    }
    forward(&mut nat64, T0, &from6(tcp(1, 53, SYN)));
    assert_eq!(dropped(&mut nat64, T0, &from4(udp(53, 61003))), DropReason::NotPool4);
}

#[test]
fn a_full_table_refuses_only_what_is_new() {
    let mut nat64 =
        nat64(r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535"}], "max-sessions": 3}"#);
    for port in 0..3 {
        forward(&mut nat64, T0, &from6(udp(5000 + port, 53)));
    }
    assert_eq!(dropped(&mut nat64, T0, &from6(udp(6000, 53))), DropReason::TableFull);
    assert_eq!(dropped(&mut nat64, T0, &from6(udp(5000, 54))), DropReason::TableFull);
    assert_eq!(nat64.bib_count(), 3);
    forward(&mut nat64, T0, &from6(udp(5000, 53)));
}

/// §4: UDP and ICMP lifetimes; a BIB entry ends with its last session.
#[test]
fn sessions_end_when_their_traffic_does() {
    let mut nat64 = nat("");
    forward(&mut nat64, T0, &from6(udp(5000, 53)));
    forward(&mut nat64, T0 + 200_000, &from6(udp(5000, 54)));
    forward(&mut nat64, T0, &from6(ping(1)));
    run_timers(&mut nat64, T0 + 59_000);
    assert_eq!(nat64.session_count(), 3);
    run_timers(&mut nat64, T0 + 60_256);
    assert_eq!(nat64.session_count(), 2);
    run_timers(&mut nat64, T0 + 300_256);
    assert_eq!((nat64.session_count(), nat64.bib_count()), (1, 1));
    run_timers(&mut nat64, T0 + 500_256);
    assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 0));
    assert_eq!(nat64.poll_timeout(), None);
}

/// Deadlines are 32 bits wide; nothing happens when they pass zero.
#[test]
fn lifetimes_cross_the_end_of_32_bits() {
    let start = Time::from_millis((1 << 32) - 100_000);
    let mut nat64 = nat("");
    established(&mut nat64, start);
    forward(&mut nat64, start, &from6(udp(5000, 53)));
    let mut lifetimes: Vec<_> = sessions(&nat64, start).iter().map(|s| s.lifetime_ms).collect();
    lifetimes.sort_unstable();
    assert_eq!(lifetimes, [300_000, 7_200_000]);
    run_timers(&mut nat64, start + 299_000);
    assert_eq!(nat64.session_count(), 2);
    run_timers(&mut nat64, start + 300_256);
    assert_eq!(nat64.session_count(), 1);
    forward(&mut nat64, start + 300_256, &from6(tcp(4000, 80, ACK)));
    assert_eq!(sessions(&nat64, start + 300_256)[0].lifetime_ms, 7_200_000);
    run_timers(&mut nat64, start + 7_400_000);
    assert_eq!(sessions(&nat64, start + 7_400_000)[0].state, State::Established);
}

/// A packet that would not leave changes no session, and its sender is told.
#[test]
fn an_expired_hop_limit_makes_no_session() {
    let mut nat64 = nat("");
    let mut bytes = from6(udp(5000, 53)).bytes();
    bytes[7] = 1;
    assert_eq!(send(&mut nat64, T0, &bytes).0, Outcome::Drop(DropReason::TtlExpired));
    assert_eq!(nat64.session_count(), 0);
    let told = nat64.poll_packet().unwrap();
    let Wire::V6(src, dst, L4::Error { kind: 3, code: 0, .. }) = Wire::read(&told.bytes) else {
        panic!()
    };
    assert_eq!((src, dst), (embed(mask()), n6()));
}

/// Likewise from one IPv6 node to another, and from IPv4; but a scan of pool4 isn't answered.
#[test]
fn an_expired_hop_limit_makes_no_session_anywhere() {
    let mut nat64 = nat(STATIC);
    let other = a6("2001:db8::9");
    let mut turned = Wire::V6(other, embed(mask()), udp(4000, 61080)).bytes();
    turned[7] = 1;
    assert_eq!(send(&mut nat64, T0, &turned).0, Outcome::Drop(DropReason::TtlExpired));
    let told = Wire::read(&nat64.poll_packet().unwrap().bytes);
    let expected = L4::Error { kind: 3, code: 0, rest: 0, inner: turned.clone() };
    assert_eq!(told, Wire::V6(embed(mask()), other, expected));

    let expired4 = |port| {
        let mut bytes = from4(udp(53, port)).bytes();
        bytes[8] = 1;
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    let (mapped, unmapped) = (expired4(61080), expired4(61081));
    assert_eq!(send(&mut nat64, T0, &mapped).0, Outcome::Drop(DropReason::TtlExpired));
    let told = Wire::read(&nat64.poll_packet().unwrap().bytes);
    let expected = L4::Error { kind: 11, code: 0, rest: 0, inner: mapped.clone() };
    assert_eq!(told, Wire::V4(mask(), n4(), expected));
    assert_eq!(send(&mut nat64, T0, &unmapped).0, Outcome::Drop(DropReason::NoBib));
    assert_eq!((nat64.session_count(), nat64.poll_packet()), (0, None));
    assert_eq!(nat64.stats.value(Counter::IcmpErrorsSent), 2);

    turned[7] = 2;
    let (outcome, bytes) = send(&mut nat64, T0, &turned);
    assert_eq!((outcome, bytes[7], nat64.session_count()), (Outcome::Forward, 1, 2));
    // A session that is there gets no more time by what doesn't leave.
    forward(&mut nat64, T0, &from4(udp(53, 61080)));
    send(&mut nat64, T0 + 1000, &mapped);
    assert!(sessions(&nat64, T0 + 1000).iter().all(|session| session.lifetime_ms == 299_000));
}

/// RFC 7915 §5.1: a packet that brings no identification gets one of its own.
#[test]
fn identifications_differ() {
    let mut nat64 = nat("");
    let mut ident = || {
        let (_, bytes) = send(&mut nat64, T0, &from6(udp(5000, 53)).bytes());
        assert_eq!(bytes[6..8], [0, 0], "it may be fragmented");
        u16::from_be_bytes([bytes[4], bytes[5]])
    };
    let first = ident();
    assert_eq!([ident(), ident()], [first.wrapping_add(1), first.wrapping_add(2)]);
}

/// Bursts are looked ahead into; what the first packet changes the second must see.
#[test]
fn packets_of_one_burst_see_each_other() {
    use jsync_core::packet::{HEADROOM, Offload, Packet};
    let mut nat64 = nat("");
    let packets: Vec<Vec<u8>> =
        (0..80u16).map(|n| from6(udp(5000 + n / 4, 53 + n % 2)).bytes()).collect();
    let mut buffers: Vec<Vec<u8>> =
        packets.iter().map(|packet| [vec![0; HEADROOM], packet.clone()].concat()).collect();
    let mut burst: Vec<Packet<'_>> = buffers
        .iter_mut()
        .zip(&packets)
        .map(|(buffer, packet)| Packet::new(buffer, HEADROOM, packet.len(), Offload::default()))
        .collect();
    nat64.handle_packets(T0, &mut burst);
    assert!(burst.iter().all(|packet| packet.outcome == Outcome::Forward));
    assert_eq!((nat64.bib_count(), nat64.session_count()), (20, 40));
}
