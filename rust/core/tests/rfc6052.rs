//! RFC 6052 §3.1: the well-known prefix carries global IPv4 addresses alone, unless configured.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::config::Globals;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::stats::DropReason;

fn translator(pool6: &str, allow: bool) -> Nat64 {
    nat64(&format!(
        r#"{{"pool6": "{pool6}", "pool4": [{{"prefix": "192.0.2.1", "ports": "61001-65535"}}],
            "bib": [{{"protocol": "udp", "ipv6": "2001:db8::8#53", "ipv4": "192.0.2.1#61053"}}],
            "max-sessions": 100, "global": {{"allow-non-global": {allow}}}}}"#
    ))
}

/// What becomes of a packet to `addr`, and of one from it to a static mapping.
fn outcomes(pool6: &str, allow: bool, addr: &str) -> [Outcome; 2] {
    let mut nat64 = translator(pool6, allow);
    let dst = a6(&format!("{}{addr}", pool6.strip_suffix("/96").unwrap()));
    let out = Wire::V6(a6("2001:db8::8"), dst, udp(5000, 53)).bytes();
    let back = Wire::V4(a4(addr), a4("192.0.2.1"), udp(53, 61053)).bytes();
    let got = [out, back].map(|bytes| send(&mut nat64, T0, &bytes).0);
    let sessions = got.iter().filter(|&&outcome| outcome == Outcome::Forward).count();
    assert_eq!(nat64.session_count() as usize, sessions, "what is refused leaves nothing behind");
    got
}

#[test]
fn non_global_addresses_under_the_well_known_prefix() {
    const WELL_KNOWN: &str = "64:ff9b::/96";
    for addr in ["10.1.2.3", "172.16.9.9", "192.168.0.1", "100.64.0.1", "198.18.0.1"] {
        let refused = [Outcome::Drop(DropReason::NonGlobal); 2];
        assert_eq!(outcomes(WELL_KNOWN, false, addr), refused, "{addr}");
        assert_eq!(outcomes(WELL_KNOWN, true, addr), [Outcome::Forward; 2], "{addr}");
        assert_eq!(outcomes("2001:db8:64::/96", false, addr), [Outcome::Forward; 2], "{addr}");
    }
    for addr in ["8.8.8.8", "192.0.2.8", "203.0.113.1"] {
        assert_eq!(outcomes(WELL_KNOWN, false, addr), [Outcome::Forward; 2], "{addr}");
    }
}

/// A router with a private address still says that a packet was too big: the error appears to
/// come from the packet's destination.
#[test]
fn errors_from_routers_with_private_addresses() {
    for (allow, source) in [(false, "203.0.113.9"), (true, "10.0.0.1")] {
        let mut nat64 = translator("64:ff9b::/96", allow);
        let there = Wire::V6(a6("2001:db8::8"), embed(a4("203.0.113.9")), udp(5000, 53));
        let sent = forward(&mut nat64, T0, &there);
        let error = L4::Error { kind: 3, code: 4, rest: 1400, inner: sent.bytes() };
        let got = forward(&mut nat64, T0, &Wire::V4(a4("10.0.0.1"), a4("192.0.2.1"), error));
        let Wire::V6(src, dst, L4::Error { kind: 2, rest: 1420, .. }) = got else {
            panic!("{got:?}")
        };
        assert_eq!((src, dst), (embed(a4(source)), a6("2001:db8::8")));
    }
}

const NOBODY: [&str; 10] = [
    "0.0.0.0",
    "0.255.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.255.255.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.254",
    "255.255.255.255",
];

/// Addresses that are no host's (RFC 1812 §5.3.7): not even another prefix and the operator's wish
/// carry them, in either direction, and nobody is told.
#[test]
fn addresses_that_are_no_hosts_go_nowhere() {
    let refused = [Outcome::Drop(DropReason::BadAddress); 2];
    for addr in NOBODY {
        for pool6 in ["64:ff9b::/96", "2001:db8:64::/96"] {
            for allow in [false, true] {
                assert_eq!(outcomes(pool6, allow, addr), refused, "{addr} {pool6}");
            }
        }
    }
    for addr in ["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255"] {
        assert_eq!(outcomes("64:ff9b::/96", false, addr), [Outcome::Forward; 2], "{addr}");
    }
}

/// An ICMPv4 error from such an address is no better.
#[test]
fn errors_from_addresses_that_are_no_hosts_go_nowhere() {
    let mut nat64 = translator("64:ff9b::/96", true);
    let there = Wire::V6(a6("2001:db8::8"), embed(a4("203.0.113.9")), udp(5000, 53));
    let sent = forward(&mut nat64, T0, &there);
    for addr in NOBODY {
        let error = L4::Error { kind: 3, code: 3, rest: 0, inner: sent.bytes() };
        let error = Wire::V4(a4(addr), a4("192.0.2.1"), error).bytes();
        let got = send(&mut nat64, T0, &error).0;
        assert_eq!(got, Outcome::Drop(DropReason::BadAddress), "{addr}");
    }
    assert_eq!(nat64.poll_packet(), None);
}

/// A session that there is doesn't help when `allow-non-global` is taken back.
#[test]
fn sessions_with_private_addresses_end_with_the_permission() {
    let mut nat64 = translator("64:ff9b::/96", true);
    let there = Wire::V6(a6("2001:db8::8"), embed(a4("10.1.2.3")), udp(53, 53));
    let back = Wire::V4(a4("10.1.2.3"), a4("192.0.2.1"), udp(53, 61053));
    forward(&mut nat64, T0, &there);
    forward(&mut nat64, T0, &back);
    nat64.set_globals(Globals { allow_non_global: false, ..Globals::default() }).unwrap();
    for packet in [&there, &back] {
        let got = send(&mut nat64, T0, &packet.bytes()).0;
        assert_eq!(got, Outcome::Drop(DropReason::NonGlobal), "{packet:?}");
    }
}

/// An address of pool4 may be this host's own: what the host itself sends from there to a mapping
/// is translated like anybody's, and answered to the host.
#[test]
fn the_host_may_write_from_an_address_of_pool4() {
    let mut nat64 = translator("64:ff9b::/96", false);
    let own = a4("192.0.2.1");
    let there = forward(&mut nat64, T0, &Wire::V4(own, own, udp(4000, 61053)));
    assert_eq!(there, Wire::V6(embed(own), a6("2001:db8::8"), udp(4000, 53)));
    let back = forward(&mut nat64, T0, &Wire::V6(a6("2001:db8::8"), embed(own), udp(53, 4000)));
    assert_eq!(back, Wire::V4(own, own, udp(61053, 4000)));
}
