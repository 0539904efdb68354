//! The formats of Jool 4.1.12 and 4.1.13: fixed places, network byte order.
//!
//! | 4.1.12 | 4.1.13 | size | field |
//! |-------:|-------:|-----:|-------|
//! |  0 |  0 | 16 | src6 |
//! | 16 |    | 16 | dst6 |
//! | 32 | 16 |  4 | src4 |
//! |    | 20 |  4 | dst4 |
//! | 36 | 24 |  4 | milliseconds left |
//! | 40 | 28 |  2 | src6's port |
//! | 42 |    |  2 | dst6's port |
//! | 44 | 30 |  2 | src4's port |
//! |    | 32 |  2 | dst4's port |
//! | 46 | 34 |  2 | protocol << 5, state << 2, timer |

use alloc::vec::Vec;

use super::{Fields, Session};
use crate::sync::bytes::{Put, Reader};
use crate::tuple::{Endpoint4, Endpoint6};

/// Bytes of a session in 4.1.12's format.
pub const WITH_DST6_LEN: usize = 48;
/// Bytes of a session in 4.1.13's format.
pub const WITH_DST4_LEN: usize = 36;

/// Reads a session of 4.1.12.
pub fn take_with_dst6(content: &[u8]) -> Option<Fields> {
    let mut reader = Reader::new(content);
    let (src6, dst6) = (*reader.take::<16>()?, *reader.take::<16>()?);
    let src4 = *reader.take::<4>()?;
    let lifetime_ms = reader.u32()?;
    let src6 = Endpoint6 { addr: src6.into(), port: reader.u16()? };
    let dst6 = Endpoint6 { addr: dst6.into(), port: reader.u16()? };
    let src4 = Endpoint4 { addr: src4.into(), port: reader.u16()? };
    let fields = fields(reader.u16()?, src6, Some(dst6), src4, None, lifetime_ms);
    reader.end().map(|()| fields)
}

/// Reads a session of 4.1.13.
pub fn take_with_dst4(content: &[u8]) -> Option<Fields> {
    let mut reader = Reader::new(content);
    let src6 = *reader.take::<16>()?;
    let (src4, dst4) = (*reader.take::<4>()?, *reader.take::<4>()?);
    let lifetime_ms = reader.u32()?;
    let src6 = Endpoint6 { addr: src6.into(), port: reader.u16()? };
    let src4 = Endpoint4 { addr: src4.into(), port: reader.u16()? };
    let dst4 = Endpoint4 { addr: dst4.into(), port: reader.u16()? };
    let fields = fields(reader.u16()?, src6, None, src4, Some(dst4), lifetime_ms);
    reader.end().map(|()| fields)
}

fn fields(
    flags: u16,
    src6: Endpoint6,
    dst6: Option<Endpoint6>,
    src4: Endpoint4,
    dst4: Option<Endpoint4>,
    lifetime_ms: u32,
) -> Fields {
    let (state, timer) = ((flags >> 2 & 7) as u8, (flags & 3) as u8);
    Fields { proto: flags >> 5, state, timer, src6, dst6, src4, dst4, lifetime_ms }
}

/// Writes a session of 4.1.12.
pub fn put_with_dst6(out: &mut Vec<u8>, session: &Session, dst6: Endpoint6) {
    let key = &session.key;
    out.put(key.src6.addr.octets());
    out.put(dst6.addr.octets());
    out.put(key.src4.addr.octets());
    out.put(session.lifetime_ms.to_be_bytes());
    for port in [key.src6.port, dst6.port, key.src4.port, flags(session)] {
        out.put(port.to_be_bytes());
    }
}

/// Writes a session of 4.1.13.
pub fn put_with_dst4(out: &mut Vec<u8>, session: &Session) {
    let key = &session.key;
    out.put(key.src6.addr.octets());
    out.put(key.src4.addr.octets());
    out.put(key.dst4.addr.octets());
    out.put(session.lifetime_ms.to_be_bytes());
    for port in [key.src6.port, key.src4.port, key.dst4.port, flags(session)] {
        out.put(port.to_be_bytes());
    }
}

fn flags(session: &Session) -> u16 {
    (session.key.proto as u16) << 5 | (session.state as u16) << 2 | session.timer as u16
}
