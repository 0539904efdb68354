//! What peers are told of sessions, and when: what begins, changes and ends at once, that it goes on
//! seldom.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::table::{Change, SessionRecord, State};
use jsync_core::time::Time;

fn nat() -> Nat64 {
    let mut nat64 = nat64(
        r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535"}], "max-sessions": 1000,
            "bib": [{"protocol": "tcp", "ipv6": "2001:db8::8#4000", "ipv4": "192.0.2.1#61080"}],
            "global": {"logging-session": true}}"#,
    );
    nat64.track_changes(true);
    nat64
}

/// What a side sends of the connection, with something in front of the transport header that means
/// nothing if `unusual`: such a packet takes the long way through the translator.
fn segment(v6: bool, flags: u8, unusual: bool) -> Vec<u8> {
    if v6 {
        let mut bytes = Wire::V6(n6(), embed(n4()), tcp(4000, 80, flags)).bytes();
        if unusual {
            bytes.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
            (bytes[5], bytes[6]) = (28, 60);
        }
        return bytes;
    }
    let mut bytes = Wire::V4(n4(), mask(), tcp(80, 61080, flags)).bytes();
    if unusual {
        bytes.splice(20..20, [1; 4]);
        (bytes[0], bytes[3]) = (0x46, 44);
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..24]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

fn pass(nat64: &mut Nat64, now: Time, bytes: &[u8]) {
    assert_eq!(send(nat64, now, bytes).0, Outcome::Forward);
}

fn told(nat64: &mut Nat64, now: Time) -> Option<SessionRecord> {
    let change = nat64.pop_change(now)?;
    assert_eq!(nat64.pop_change(now), None, "one thing at a time");
    match change {
        Change::Upsert(record) => Some(record),
        Change::Remove(..) => panic!("{change:?}"),
    }
}

fn session(nat64: &Nat64, now: Time) -> SessionRecord {
    let mut all = Vec::new();
    nat64.scan(now, 0, 10_000, &mut |record| all.push(record));
    assert_eq!(all.len(), 1);
    all[0]
}

/// A step of a connection: who sends what, the state behind it, and what is told and when the
/// session ends after it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    /// Another state: told at once, with a whole lifetime.
    Changes,
    /// The same state and a whole lifetime again: told to nobody.
    Refreshes,
    /// Nothing.
    Stays,
}

/// RFC 6146 §3.5.2.2 in both ways through the translator: each change of state is told once, with
/// the timer of the new state (§4) and a quarter on top; a refresh is not.
#[test]
fn changes_of_state_are_told_and_refreshes_are_not() {
    use Effect::*;
    const EST: u32 = 7_200_000;
    const TRANS: u32 = 240_000;
    let opens = [
        (true, SYN, State::V6Init, TRANS, Changes),
        (true, SYN, State::V6Init, TRANS, Refreshes),
        (false, ACK, State::V6Init, TRANS, Stays),
        (false, RST, State::V6Init, TRANS, Stays),
        (false, SYN | ACK, State::Established, EST, Changes),
        (true, ACK, State::Established, EST, Refreshes),
        (false, ACK, State::Established, EST, Refreshes),
        (true, SYN, State::Established, EST, Refreshes),
        (false, RST, State::Trans, TRANS, Changes),
        (false, RST, State::Trans, TRANS, Stays),
        (true, ACK, State::Established, EST, Changes),
    ];
    let v4_closes = [
        (false, FIN | ACK, State::V4FinRcv, EST, Changes),
        (true, ACK, State::V4FinRcv, EST, Refreshes),
        (false, FIN | ACK, State::V4FinRcv, EST, Refreshes),
        (true, RST, State::V4FinRcv, EST, Refreshes),
        (true, FIN | ACK, State::V4FinV6FinRcv, TRANS, Changes),
        (false, ACK, State::V4FinV6FinRcv, TRANS, Stays),
        (true, FIN | ACK, State::V4FinV6FinRcv, TRANS, Stays),
    ];
    let v6_closes = [
        (true, FIN | ACK, State::V6FinRcv, EST, Changes),
        (false, ACK, State::V6FinRcv, EST, Refreshes),
        (false, FIN | ACK, State::V4FinV6FinRcv, TRANS, Changes),
        (false, RST, State::V4FinV6FinRcv, TRANS, Stays),
    ];
    for unusual in [false, true] {
        for closes in [&v4_closes[..], &v6_closes] {
            let (mut nat64, mut now, mut end) = (nat(), T0, T0);
            let mut version = None;
            for &(v6, flags, state, lifetime, effect) in opens.iter().chain(closes) {
                now = now + 1_000;
                pass(&mut nat64, now, &segment(v6, flags, unusual));
                if effect != Stays {
                    end = now + u64::from(lifetime);
                }
                let here = session(&nat64, now);
                let left = end.as_millis() - now.as_millis();
                assert_eq!((here.state, u64::from(here.lifetime_ms)), (state, left), "{flags:#x}");
                let expected = (effect == Changes).then_some((state, lifetime + lifetime / 4));
                let told = told(&mut nat64, now);
                let got = told.map(|record| (record.state, record.lifetime_ms));
                assert_eq!(got, expected, "{flags:#x} in {state:?}");
                if let Some(record) = told {
                    assert!(version.is_none_or(|before| before < record.version));
                    version = Some(record.version);
                    assert_eq!(record.key, here.key);
                }
            }
            let key = session(&nat64, now).key;
            run_timers(&mut nat64, end + 256);
            let Some(Change::Remove(removed, last)) = nat64.pop_change(now) else { panic!() };
            assert!(removed == key && Some(last) > version);
            // The operator's log has the beginning and the end, and no states.
            let lines = std::iter::from_fn(|| nat64.poll_log()).map(|line| line.to_string());
            let events: Vec<_> =
                lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
            assert_eq!(events, ["event=session-added", "event=session-removed"]);
        }
    }
}

/// What changes before it could be told is told as it is by then.
#[test]
fn changes_that_wait_become_one() {
    let mut nat64 = nat();
    for (v6, flags) in [(true, SYN), (false, SYN | ACK), (true, FIN | ACK)] {
        pass(&mut nat64, T0, &segment(v6, flags, false));
    }
    let record = told(&mut nat64, T0).unwrap();
    assert_eq!((record.state, record.lifetime_ms), (State::V6FinRcv, 9_000_000));
}

/// A copy at a peer has a quarter of the timeout more: within that nobody has to be told that a
/// session goes on. Behind it, what has come meanwhile is told then; if nothing has, what comes next
/// is told at once.
#[test]
fn refreshes_are_told_when_a_quarter_has_gone_by() {
    const QUARTER: u64 = 300_000 / 4;
    let packet = Wire::V6(n6(), embed(n4()), udp(5000, 53)).bytes();
    for busy in [true, false] {
        let mut nat64 = nat();
        pass(&mut nat64, T0, &packet);
        assert_eq!(told(&mut nat64, T0).unwrap().lifetime_ms, 375_000);
        if busy {
            pass(&mut nat64, T0 + 10_000, &packet);
            assert_eq!(told(&mut nat64, T0 + 10_000), None);
        }
        // The wheel has ticks, and looks no later than the quarter ends.
        run_timers(&mut nat64, T0 + QUARTER / 2);
        assert_eq!(told(&mut nat64, T0 + QUARTER / 2), None);
        let now = T0 + QUARTER;
        run_timers(&mut nat64, now);
        let news = told(&mut nat64, now);
        assert_eq!(news.map(|record| record.lifetime_ms), busy.then_some(385_000 - 75_000));
        pass(&mut nat64, now, &packet);
        let news = told(&mut nat64, now);
        assert_eq!(news.map(|record| record.lifetime_ms), (!busy).then_some(375_000));
        pass(&mut nat64, now + 1, &packet);
        assert_eq!(told(&mut nat64, now + 1), None);
    }
}
