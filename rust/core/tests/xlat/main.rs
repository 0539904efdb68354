//! The parser and the translation of packets, seen from outside: literal bytes, tables of the
//! RFCs, and properties judged by an oracle that shares no code with what it judges.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod checksums;
mod errors;
mod extensions;
mod oracle;
mod packets;
mod parse;
mod properties;
mod quotes;
mod replies;

use std::net::{Ipv4Addr, Ipv6Addr};

use jsync_core::config::Globals;
use jsync_core::packet::{HEADROOM, Offload, Packet};
use jsync_core::tuple::{Endpoint4, Endpoint6};
use jsync_core::wire::view::{parse4, parse6};
use jsync_core::xlat::{Refusal, Translated, hairpin, v4to6, v6to4};

/// Bytes written in hexadecimal; `#` begins a comment.
fn hex(text: &str) -> Vec<u8> {
    let code = text.lines().map(|line| line.split('#').next().unwrap());
    let digits = code.flat_map(str::split_whitespace);
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// Bytes as the vectors write them, so that a failing test shows what differs.
fn show(bytes: &[u8]) -> String {
    let lines = bytes
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_bytes(got: &[u8], expected: &[u8]) {
    assert_eq!(show(got), show(expected));
}

fn e4(addr: &str, port: u16) -> Endpoint4 {
    Endpoint4 { addr: addr.parse().unwrap(), port }
}

fn e6(addr: &str, port: u16) -> Endpoint6 {
    Endpoint6 { addr: addr.parse().unwrap(), port }
}

fn a4(addr: &str) -> Ipv4Addr {
    addr.parse().unwrap()
}

fn a6(addr: &str) -> Ipv6Addr {
    addr.parse().unwrap()
}

/// n6, 2001:db8::5.
fn n6(port: u16) -> Endpoint6 {
    e6("2001:db8::5", port)
}

/// n6's mask, 192.0.2.1.
fn mask(port: u16) -> Endpoint4 {
    e4("192.0.2.1", port)
}

/// The IPv4 node, 198.51.100.9.
fn n4(port: u16) -> Endpoint4 {
    e4("198.51.100.9", port)
}

/// The IPv4 node as n6 sees it.
fn n4_in_6(port: u16) -> Endpoint6 {
    e6("64:ff9b::198.51.100.9", port)
}

/// A packet in a buffer with the headroom that every buffer has, and `slack` bytes behind it.
struct Buffer {
    buf: Vec<u8>,
    len: usize,
    offload: Offload,
}

impl Buffer {
    fn new(bytes: &[u8]) -> Self {
        let mut buf = vec![0xa5; HEADROOM];
        buf.extend_from_slice(bytes);
        Self { buf, len: bytes.len(), offload: Offload::default() }
    }

    fn packet(&mut self) -> Packet<'_> {
        Packet::new(&mut self.buf, HEADROOM, self.len, self.offload)
    }
}

fn to4(
    bytes: &[u8],
    src: Endpoint4,
    dst: Endpoint4,
    globals: &Globals,
    ident: u16,
) -> Result<Vec<u8>, Refusal> {
    let mut buffer = Buffer::new(bytes);
    let mut packet = buffer.packet();
    let view = parse6(bytes)?;
    let result = match view.inner {
        None => v6to4::translate(&mut packet, &view, src, dst, globals, ident),
        Some(_) => v6to4::translate_error(&mut packet, &view, dst.addr, src, dst, globals, ident),
    };
    if result.is_err() {
        assert_bytes(packet.bytes(), bytes);
    }
    result.map(|()| packet.bytes().to_vec())
}

fn to6(
    bytes: &[u8],
    src: Endpoint6,
    dst: Endpoint6,
    globals: &Globals,
) -> Result<Vec<u8>, Refusal> {
    let mut buffer = Buffer::new(bytes);
    let mut packet = buffer.packet();
    let result = v4to6::translate(&mut packet, &parse4(bytes)?, src, dst, globals);
    if result.is_err() {
        assert_bytes(packet.bytes(), bytes);
    }
    assert_eq!(result?, Translated::InPlace);
    Ok(packet.bytes().to_vec())
}

fn error_to6(
    bytes: &[u8],
    src: Ipv6Addr,
    inner_src: Endpoint6,
    inner_dst: Endpoint6,
    globals: &Globals,
) -> Result<Vec<u8>, Refusal> {
    let mut buffer = Buffer::new(bytes);
    let mut packet = buffer.packet();
    let view = parse4(bytes)?;
    let result = v4to6::translate_error(&mut packet, &view, src, inner_src, inner_dst, globals);
    if result.is_err() {
        assert_bytes(packet.bytes(), bytes);
    }
    result.map(|()| packet.bytes().to_vec())
}

fn turn(bytes: &[u8], src: Endpoint6, dst: Endpoint6) -> Result<Vec<u8>, Refusal> {
    let mut buffer = Buffer::new(bytes);
    let mut packet = buffer.packet();
    let view = parse6(bytes)?;
    match view.inner {
        None => hairpin::translate(&mut packet, &view, src, dst)?,
        Some(_) => hairpin::translate_error(&mut packet, &view, dst.addr, src, dst)?,
    }
    Ok(packet.bytes().to_vec())
}
