//! Datagrams that are right, and datagrams that aren't.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::sync::record::tests::key;

const POOL6: Pool6 = Pool6::WELL_KNOWN;

fn session() -> impl Strategy<Value = Session> {
    (key(), 0u8..7, 0u8..3, any::<u32>()).prop_map(|(mut key, state, timer, lifetime_ms)| {
        let tcp = key.proto == Proto::Tcp;
        if key.proto == Proto::Icmp {
            key.dst4.port = key.src4.port;
        }
        let state = if tcp { State::from_u8(state).unwrap() } else { State::Established };
        Session { key, state, timer: Timer::from_u8(timer).unwrap(), lifetime_ms }
    })
}

fn datagram(format: Format, sessions: &[Session]) -> Vec<u8> {
    let mut out = Vec::new();
    sessions.iter().for_each(|session| encode(&mut out, format, POOL6, session));
    out
}

fn one() -> Session {
    let key = SessionKey {
        proto: Proto::Udp,
        src6: Endpoint6 { addr: "2001:db8:6::77".parse().unwrap(), port: 5000 },
        src4: Endpoint4 { addr: "192.0.2.1".parse().unwrap(), port: 62000 },
        dst4: Endpoint4 { addr: "192.0.2.8".parse().unwrap(), port: 53 },
    };
    Session { key, state: State::Established, timer: Timer::Established, lifetime_ms: 200_000 }
}

fn error(datagram: &[u8]) -> DatagramError {
    decode(datagram, None, POOL6).unwrap_err()
}

/// Of 4.1.13: what Jool 4.1.15 took and showed as this session.
#[cfg(target_endian = "little")]
#[test]
fn literal_bytes() {
    let mut expected = std::vec![40, 0, 1, 0, 0x20, 1, 0x0d, 0xb8, 0, 6];
    expected.extend([0; 9]);
    expected.extend([0x77, 192, 0, 2, 1, 192, 0, 2, 8, 0, 3, 0x0d, 0x40]);
    expected.extend([0x13, 0x88, 0xf2, 0x30, 0, 53, 0, 0x20]);
    assert_eq!(datagram(Format::WithDst4, &[one()]), expected);
}

#[test]
fn sessions_per_datagram_fit_an_ethernet_frame() {
    for format in Format::ALL {
        let bytes = format.sessions_per_datagram() * format.attribute_len();
        assert!(bytes <= 1500 - 48, "{format}: {bytes}");
    }
}

#[test]
fn a_format_is_refused_that_is_not_the_configured_one() {
    for found in Format::ALL {
        for pinned in Format::ALL {
            let decoded = decode(&datagram(found, &[one()]), Some(pinned), POOL6);
            if found == pinned {
                assert_eq!(decoded.unwrap().sessions, [Ok(one())]);
            } else {
                assert_eq!(decoded, Err(DatagramError::Unexpected { found, pinned }));
            }
        }
    }
}

#[test]
fn datagrams_that_are_none() {
    for format in Format::ALL {
        let good = datagram(format, &[one(), one()]);
        let len = good.len() / 2;
        assert_eq!(error(&good[..good.len() - 4]), DatagramError::Truncated);
        assert_eq!(error(&good[..len - 1]), DatagramError::Truncated);
        for padding in [&[0; 4][..], &[0; 3], &[7], &[0; 40]] {
            let padded = [&good[..], padding].concat();
            assert_eq!(error(&padded), DatagramError::Padded, "{format} {padding:?}");
        }
        assert_eq!(error(&good.repeat(30)), DatagramError::Oversized(good.len() * 30));
        for other in Format::ALL.into_iter().filter(|&other| other != format) {
            let mixed = [good.clone(), datagram(other, &[one()])].concat();
            assert_eq!(error(&mixed), DatagramError::Mixed(format, other));
        }
        let mut foreign = good.clone();
        foreign[..2].reverse();
        foreign[2..4].reverse();
        assert_eq!(error(&foreign), DatagramError::ForeignEndian);
        let mut other_type = good.clone();
        let kind: u16 = if format == Format::Nested { 1 } else { 0x8001 };
        other_type[2..4].copy_from_slice(&kind.to_ne_bytes());
        assert!(matches!(error(&other_type), DatagramError::Ambiguous { .. }), "{format}");
        let mut unknown = good.clone();
        unknown[2..4].copy_from_slice(&5u16.to_ne_bytes());
        assert!(matches!(error(&unknown), DatagramError::Unknown { kind: 5, .. }), "{format}");
    }
    assert_eq!(error(&[]), DatagramError::Empty);
    assert_eq!(error(&[1]), DatagramError::Truncated);
    let mut malformed = datagram(Format::Nested, &[one()]);
    malformed[6] = 7;
    assert_eq!(error(&malformed), DatagramError::Malformed);
}

#[test]
fn sessions_that_are_none_leave_the_others_alone() {
    let flags = |value: u16| {
        let mut datagram = datagram(Format::WithDst4, &[one(), one()]);
        datagram[38..40].copy_from_slice(&value.to_be_bytes());
        decode(&datagram, None, POOL6).unwrap().sessions
    };
    for (value, error) in [
        (3 << 5, SessionError::Protocol(3)),
        (0xffe0, SessionError::Protocol(0x7ff)),
        (7 << 2, SessionError::State(7)),
        (1 << 5 | 1 << 2, SessionError::State(1)),
        (1 << 5 | 3, SessionError::Timer(3)),
        (2 << 5, SessionError::Ports),
    ] {
        assert_eq!(flags(value), [Err(error), Ok(one())]);
    }
}

#[test]
fn a_destination_must_be_the_same_on_both_sides() {
    let mut changed = datagram(Format::Nested, &[one()]);
    changed[4 + 32 + 8] = 0xfe;
    let sessions = decode(&changed, None, POOL6).unwrap().sessions;
    assert!(matches!(sessions[0], Err(SessionError::NotPool6(_))));
    let mut changed = datagram(Format::Nested, &[one()]);
    changed[4 + 32 + 8 + 15] = 9;
    assert_eq!(decode(&changed, None, POOL6).unwrap().sessions, [Err(SessionError::Destination)]);
    let mut changed = datagram(Format::Nested, &[one()]);
    changed[4 + 32 + 28] ^= 1;
    assert_eq!(decode(&changed, None, POOL6).unwrap().sessions, [Err(SessionError::Ports)]);
}

proptest! {
    #[test]
    fn reads_what_it_writes(
        format in prop::sample::select(&Format::ALL[..]),
        sessions in prop::collection::vec(session(), 1..14),
    ) {
        let decoded = decode(&datagram(format, &sessions), None, POOL6).unwrap();
        prop_assert_eq!(decoded.format, format);
        prop_assert_eq!(decoded.sessions, sessions.into_iter().map(Ok).collect::<Vec<_>>());
    }

    /// What is cut somewhere is refused or has fewer sessions, all of them ours.
    #[test]
    fn a_cut_datagram_invents_nothing(
        format in prop::sample::select(&Format::ALL[..]),
        sessions in prop::collection::vec(session(), 1..6),
        cut in 0usize..400,
    ) {
        let bytes = datagram(format, &sessions);
        if let Ok(decoded) = decode(&bytes[..bytes.len().saturating_sub(cut)], None, POOL6) {
            prop_assert!(decoded.sessions.iter().zip(&sessions).all(|(d, s)| d.as_ref() == Ok(s)));
        }
    }
}
