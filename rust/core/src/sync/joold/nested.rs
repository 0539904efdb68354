//! The format of Jool 4.1.9 to 4.1.11: attributes in attributes, ports and lifetime in the byte
//! order of the host. Jool writes all of them, always in this order.
//!
//! | offset | size | attribute |
//! |-------:|-----:|-------|
//! |   0 | 32 | src6: type 0x8001, with an address (type 1, 16 bytes) and a port (type 2) |
//! |  32 | 32 | dst6: type 0x8002, likewise |
//! |  64 | 20 | src4: type 0x8003, likewise with an address of 4 bytes |
//! |  84 | 20 | dst4: type 0x8004, likewise |
//! | 104 |  8 | protocol: type 5, 1 byte |
//! | 112 |  8 | state: type 6, 1 byte |
//! | 120 |  8 | timer: type 7, 1 byte |
//! | 128 |  8 | milliseconds left: type 8, 4 bytes |

use alloc::vec::Vec;

use super::{Fields, Session};
use crate::sync::bytes::{Put, Reader};
use crate::tuple::{Endpoint4, Endpoint6};

/// Bytes of a session.
pub const LEN: usize = 136;

const NESTED: u16 = 0x8000;
const ADDRESS: u16 = 1;
const PORT: u16 = 2;
const SRC6: u16 = NESTED | 1;
const DST6: u16 = NESTED | 2;
const SRC4: u16 = NESTED | 3;
const DST4: u16 = NESTED | 4;
const PROTO: u16 = 5;
const STATE: u16 = 6;
const TIMER: u16 = 7;
const LIFETIME: u16 = 8;

/// Reads a session.
pub fn take(content: &[u8]) -> Option<Fields> {
    let mut reader = Reader::new(content);
    let src6 = take6(&mut reader, SRC6)?;
    let dst6 = take6(&mut reader, DST6)?;
    let src4 = take4(&mut reader, SRC4)?;
    let dst4 = take4(&mut reader, DST4)?;
    let proto = take_u8(&mut reader, PROTO)?;
    let state = take_u8(&mut reader, STATE)?;
    let timer = take_u8(&mut reader, TIMER)?;
    let lifetime_ms = u32::from_ne_bytes(take_attribute(&mut reader, LIFETIME)?);
    reader.end()?;
    let (dst6, dst4) = (Some(dst6), Some(dst4));
    Some(Fields { proto: proto.into(), state, timer, src6, dst6, src4, dst4, lifetime_ms })
}

fn take_header(reader: &mut Reader<'_>, kind: u16, len: usize) -> Option<()> {
    let [a, b, c, d] = *reader.take::<4>()?;
    let found = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
    (found == (len + 4, kind)).then_some(())
}

fn take_attribute<const N: usize>(reader: &mut Reader<'_>, kind: u16) -> Option<[u8; N]> {
    take_header(reader, kind, N)?;
    let content = *reader.take::<N>()?;
    // An attribute begins at a multiple of four; what lies between says nothing.
    for _ in N..N.next_multiple_of(4) {
        reader.u8()?;
    }
    Some(content)
}

fn take_u8(reader: &mut Reader<'_>, kind: u16) -> Option<u8> {
    take_attribute::<1>(reader, kind).map(|[byte]| byte)
}

fn take6(reader: &mut Reader<'_>, kind: u16) -> Option<Endpoint6> {
    take_header(reader, kind, 28)?;
    let addr = take_attribute::<16>(reader, ADDRESS)?.into();
    let port = u16::from_ne_bytes(take_attribute(reader, PORT)?);
    Some(Endpoint6 { addr, port })
}

fn take4(reader: &mut Reader<'_>, kind: u16) -> Option<Endpoint4> {
    take_header(reader, kind, 16)?;
    let addr = take_attribute::<4>(reader, ADDRESS)?.into();
    let port = u16::from_ne_bytes(take_attribute(reader, PORT)?);
    Some(Endpoint4 { addr, port })
}

/// Writes a session.
pub fn put(out: &mut Vec<u8>, session: &Session, dst6: Endpoint6) {
    let key = &session.key;
    for (kind, end) in [(SRC6, key.src6), (DST6, dst6)] {
        put_header(out, kind, 28);
        put_attribute(out, ADDRESS, end.addr.octets());
        put_attribute(out, PORT, end.port.to_ne_bytes());
    }
    for (kind, end) in [(SRC4, key.src4), (DST4, key.dst4)] {
        put_header(out, kind, 16);
        put_attribute(out, ADDRESS, end.addr.octets());
        put_attribute(out, PORT, end.port.to_ne_bytes());
    }
    put_attribute(out, PROTO, [key.proto as u8]);
    put_attribute(out, STATE, [session.state as u8]);
    put_attribute(out, TIMER, [session.timer as u8]);
    put_attribute(out, LIFETIME, session.lifetime_ms.to_ne_bytes());
}

fn put_header(out: &mut Vec<u8>, kind: u16, len: u16) {
    out.put((len + 4).to_ne_bytes());
    out.put(kind.to_ne_bytes());
}

fn put_attribute<const N: usize>(out: &mut Vec<u8>, kind: u16, content: [u8; N]) {
    put_header(out, kind, N as u16);
    out.put(content);
    out.resize(out.len() + (N.next_multiple_of(4) - N), 0);
}
