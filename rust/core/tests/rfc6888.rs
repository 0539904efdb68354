//! RFC 6888's requirements that aren't RFC 6146's: limits for each subscriber, and exceptions.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::config::Globals;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::stats::DropReason;
use jsync_core::time::Time;
use jsync_core::tuple::Proto;

const T0: Time = Time::from_millis(10_000);

fn nat(global: &str) -> Nat64 {
    nat64(&format!(
        r#"{{"pool4": [{{"prefix": "192.0.2.1", "ports": "2000-3999"}}], "max-sessions": 1000,
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
