//! Sessions on the wire.
//!
//! | offset | size | field |
//! |-------:|-----:|-------|
//! |  0 |  1 | bits 7-6: 0 = session, 1 = removal; 5-4: protocol; 3: 0; 2-0: state |
//! |  1 | 16 | src6 |
//! | 17 |  2 | src6's port |
//! | 19 |  4 | src4 |
//! | 23 |  2 | src4's port |
//! | 25 |  4 | dst4 |
//! | 29 |  2 | dst4's port |
//! | 31 |  4 | version |
//! | 35 |  4 | milliseconds left (not in a removal) |
//!
//! Protocol and state have the numbers of [`Proto`] and [`State`]; for ICMP the ports are the
//! identifier. dst6 is pool6 + dst4, so it doesn't travel.

use alloc::vec::Vec;

use crate::sync::bytes::Reader;
use crate::table::{Change, SessionKey, SessionRecord, State};
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// Bytes of a session.
pub const UPSERT_LEN: usize = 39;
/// Bytes of a removal.
pub const REMOVE_LEN: usize = 35;

const REMOVE: u8 = 1;

/// Appends a change. A whole array at a time, so that the compiler needs one bounds check.
#[inline]
pub fn put(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Upsert(record) => {
            let mut bytes = [0; UPSERT_LEN];
            put_key(&mut bytes, &record.key, record.state as u8, record.version);
            bytes[35..39].copy_from_slice(&record.lifetime_ms.to_be_bytes());
            out.extend_from_slice(&bytes);
        }
        Change::Remove(key, version) => {
            let mut bytes = [0; REMOVE_LEN];
            put_key(&mut bytes, key, REMOVE << 6, *version);
            out.extend_from_slice(&bytes);
        }
    }
}

#[inline]
fn put_key<const N: usize>(bytes: &mut [u8; N], key: &SessionKey, tag: u8, version: u32) {
    const { assert!(N >= REMOVE_LEN) };
    bytes[0] = tag | (key.proto as u8) << 4;
    bytes[1..17].copy_from_slice(&key.src6.addr.octets());
    bytes[17..19].copy_from_slice(&key.src6.port.to_be_bytes());
    bytes[19..23].copy_from_slice(&key.src4.addr.octets());
    bytes[23..25].copy_from_slice(&key.src4.port.to_be_bytes());
    bytes[25..29].copy_from_slice(&key.dst4.addr.octets());
    bytes[29..31].copy_from_slice(&key.dst4.port.to_be_bytes());
    bytes[31..35].copy_from_slice(&version.to_be_bytes());
}

/// Takes a change off the front; `None` if there is none, or a malformed one.
#[inline]
pub(crate) fn take(reader: &mut Reader<'_>) -> Option<Change> {
    let bytes = reader.take::<REMOVE_LEN>()?;
    let proto = Proto::from_u8(bytes[0] >> 4 & 3)?;
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let v4 = |at: usize| {
        let octets = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        Endpoint4 { addr: octets.into(), port: port(at + 4) }
    };
    let mut src6 = [0; 16];
    src6.copy_from_slice(&bytes[1..17]);
    let src6 = Endpoint6 { addr: src6.into(), port: port(17) };
    let key = SessionKey { proto, src6, src4: v4(19), dst4: v4(25) };
    let version = u32::from_be_bytes([bytes[31], bytes[32], bytes[33], bytes[34]]);
    match bytes[0] >> 6 {
        0 => {
            let state = State::from_u8(bytes[0] & 0xf)?;
            let lifetime_ms = reader.u32()?;
            Some(Change::Upsert(SessionRecord { key, state, lifetime_ms, version }))
        }
        REMOVE if bytes[0] & 0xf == 0 => Some(Change::Remove(key, version)),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn key() -> impl Strategy<Value = SessionKey> {
        let proto = prop::sample::select(&Proto::ALL[..]);
        (proto, any::<(u128, u16, u32, u16, u32, u16)>()).prop_map(
            |(proto, (src6, port6, src4, port4, dst4, port))| SessionKey {
                proto,
                src6: Endpoint6 { addr: src6.into(), port: port6 },
                src4: Endpoint4 { addr: src4.into(), port: port4 },
                dst4: Endpoint4 { addr: dst4.into(), port },
            },
        )
    }

    pub fn change() -> impl Strategy<Value = Change> {
        (key(), 0u8..7, any::<(u32, u32, bool)>()).prop_map(|(key, state, rest)| {
            let (lifetime_ms, version, remove) = rest;
            if remove {
                return Change::Remove(key, version);
            }
            let state = State::from_u8(state).unwrap();
            Change::Upsert(SessionRecord { key, state, lifetime_ms, version })
        })
    }

    #[test]
    fn literal_bytes() {
        let key = SessionKey {
            proto: Proto::Udp,
            src6: Endpoint6 { addr: "2001:db8::8".parse().unwrap(), port: 0x1234 },
            src4: Endpoint4 { addr: "192.0.2.1".parse().unwrap(), port: 0xee49 },
            dst4: Endpoint4 { addr: "203.0.113.24".parse().unwrap(), port: 80 },
        };
        let record =
            SessionRecord { key, state: State::Established, lifetime_ms: 300_000, version: 7 };
        let mut bytes = Vec::new();
        put(&mut bytes, &Change::Upsert(record));
        let mut expected = std::vec![0x10, 0x20, 0x01, 0x0d, 0xb8];
        expected.extend([0; 11]);
        expected.extend([8, 0x12, 0x34, 192, 0, 2, 1, 0xee, 0x49, 203, 0, 113, 24, 0, 80]);
        expected.extend([0, 0, 0, 7, 0, 4, 0x93, 0xe0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn unknown_numbers_are_malformed() {
        for tag in [0x07, 0x08, 0x30, 0x41, 0x80, 0xff] {
            let mut bytes = [0; UPSERT_LEN];
            bytes[0] = tag;
            assert_eq!(take(&mut Reader::new(&bytes)), None, "{tag:#x}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(changes in prop::collection::vec(change(), 0..20)) {
            let mut bytes = Vec::new();
            changes.iter().for_each(|c| put(&mut bytes, c));
            let mut reader = Reader::new(&bytes);
            for change in changes {
                prop_assert_eq!(take(&mut reader), Some(change));
            }
            prop_assert!(reader.end().is_some());
        }

        #[test]
        fn a_short_record_is_malformed(change in change(), cut in 1usize..35) {
            let mut bytes = Vec::new();
            put(&mut bytes, &change);
            bytes.truncate(bytes.len() - cut);
            prop_assert_eq!(take(&mut Reader::new(&bytes)), None);
        }
    }
}
