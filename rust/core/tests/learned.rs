//! Sessions that others tell of: what is refused of them, and what they end.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::stats::Counter;
use jsync_core::table::{Change, Learned, SessionKey, SessionRecord, Side, State};
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};

fn nat() -> Nat64 {
    nat64(r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535"}], "max-sessions": 1000}"#)
}

fn record(proto: Proto, state: State) -> SessionRecord {
    let key = SessionKey {
        proto,
        src6: Endpoint6 { addr: n6(), port: 4000 },
        src4: Endpoint4 { addr: mask(), port: 62345 },
        dst4: Endpoint4 { addr: n4(), port: 1234 },
    };
    SessionRecord { key, state, lifetime_ms: 200_000, version: 9 << 12 }
}

/// What no packet could have made here: from pool6 or from no node's address, or to no host's.
#[test]
fn sessions_of_nobody_are_refused() {
    let good = record(Proto::Udp, State::Established);
    let mut refused = Vec::new();
    for src6 in ["64:ff9b::192.0.2.8", "ff02::1", "fe80::1", "::1", "::"] {
        let mut record = good;
        record.key.src6.addr = a6(src6);
        refused.push(record);
    }
    for dst4 in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        let mut record = good;
        record.key.dst4.addr = a4(dst4);
        refused.push(record);
    }
    let mut nat64 = nat();
    for record in &refused {
        assert_eq!(nat64.learn(T0, record).learned, Learned::Rejected, "{record:?}");
        assert_eq!(nat64.hear(T0, Side::Joolds, record, 300_000), Learned::Rejected, "{record:?}");
    }
    assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 0));
    assert_eq!(nat64.stats.value(Counter::SyncRejected), 2 * refused.len() as u64);
    assert_eq!(nat64.learn(T0, &good).learned, Learned::Applied);
    assert_eq!(nat64.stats.value(Counter::SessionsLearned), 1);
}

/// A bridge may tell of a lifetime as long as a peer's copy here would have, and of no longer.
#[test]
fn impossible_lifetimes_are_cut() {
    for (told, kept, cut) in [
        (374_999, 374_999, 0),
        (375_000, 375_000, 0),
        (375_001, 375_000, 1),
        (u32::MAX, 375_000, 1),
    ] {
        let mut nat64 = nat();
        let record = SessionRecord { lifetime_ms: told, ..record(Proto::Udp, State::Established) };
        assert_eq!(nat64.hear(T0, Side::Module, &record, 300_000), Learned::Applied);
        nat64.scan(T0, 0, 100, &mut |record| assert_eq!(record.lifetime_ms, kept));
        assert_eq!(nat64.stats.value(Counter::JooldLifetimeCut), cut, "{told}");
    }
}

/// RFC 6146 §3.5.2.2 on two nodes: the IPv4 node's SYN waits here while a peer sees the IPv6 node's.
/// Both sides open, so the connection is established and nobody hears that it failed.
#[test]
fn a_waiting_syn_is_met_by_a_peers_session() {
    use State::*;
    let syn = Wire::V4(n4(), mask(), tcp(1234, 62345, SYN)).bytes();
    let other_port = SessionRecord {
        key: SessionKey {
            dst4: Endpoint4 { addr: n4(), port: 1235 },
            ..record(Proto::Tcp, V6Init).key
        },
        ..record(Proto::Tcp, V6Init)
    };
    for (told, becomes, is_answered) in [
        (record(Proto::Tcp, V6Init), Established, false),
        (record(Proto::Tcp, Established), Established, false),
        (record(Proto::Tcp, V6FinRcv), V6FinRcv, false),
        (record(Proto::Tcp, V4Init), V4Init, true),
        (record(Proto::Udp, Established), Established, true),
        (other_port, V6Init, true),
    ] {
        let mut nat64 = nat();
        nat64.track_changes(true);
        assert_eq!(send(&mut nat64, T0, &syn).0, Outcome::Consumed);
        assert_eq!(nat64.learn(T0, &told).learned, Learned::Applied);
        nat64.scan(T0, 0, 100, &mut |record| assert_eq!(record.state, becomes, "{told:?}"));
        // Only what was found out here is news to peers.
        let news = nat64.pop_change(T0);
        match (told.state, becomes) {
            (V6Init, Established) => {
                let Some(Change::Upsert(news)) = news else { panic!("{news:?}") };
                assert_eq!((news.state, news.lifetime_ms), (Established, 9_000_000));
            }
            _ => assert_eq!(news, None),
        }
        run_timers(&mut nat64, T0 + 6_000);
        assert_eq!(nat64.poll_packet().is_some(), is_answered, "{told:?}");
    }
}
