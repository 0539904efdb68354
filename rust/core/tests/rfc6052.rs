//! RFC 6052 §3.1: the well-known prefix carries global IPv4 addresses alone, unless configured.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::stats::DropReason;

fn translator(pool6: &str, allow: bool) -> Nat64 {
    nat64(&format!(
        r#"{{"pool6": "{pool6}", "pool4": [{{"prefix": "192.0.2.1", "ports": "61001-65535"}}],
            "bib": [{{"protocol": "udp", "ipv6": "2001:db8::8#53", "ipv4": "192.0.2.1#61053"}}],
            "global": {{"allow-non-global": {allow}}}}}"#
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
