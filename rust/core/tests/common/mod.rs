//! Packets for tests, built and read without the code under test.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use jsync_core::config::Config;
use jsync_core::nat64::Nat64;
use jsync_core::packet::{HEADROOM, Offload, Outcome, Packet};
use jsync_core::time::Time;
use jsync_core::tuple::Proto;

/// When tests begin.
pub const T0: Time = Time::from_millis(10_000);

/// The sample network's IPv6 node.
pub fn n6() -> Ipv6Addr {
    a6("2001:db8::8")
}

/// Its IPv4 node.
pub fn n4() -> Ipv4Addr {
    a4("203.0.113.16")
}

/// Its address of pool4.
pub fn mask() -> Ipv4Addr {
    a4("192.0.2.1")
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A packet of either family, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    V4(Ipv4Addr, Ipv4Addr, L4),
    V6(Ipv6Addr, Ipv6Addr, L4),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L4 {
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
        payload: Vec<u8>,
    },
    Udp {
        src: u16,
        dst: u16,
        payload: Vec<u8>,
    },
    Echo {
        request: bool,
        id: u16,
        payload: Vec<u8>,
    },
    /// Type, code, rest of the header, and what it is about.
    Error {
        kind: u8,
        code: u8,
        rest: u32,
        inner: Vec<u8>,
    },
}

pub fn a4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn a6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// The address under 64:ff9b::/96.
pub fn embed(addr: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = addr.octets().map(u16::from);
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d)
}

pub fn udp(src: u16, dst: u16) -> L4 {
    L4::Udp { src, dst, payload: b"payload".to_vec() }
}

pub fn tcp(src: u16, dst: u16, flags: u8) -> L4 {
    L4::Tcp { src, dst, flags, payload: Vec::new() }
}

pub fn ping(id: u16) -> L4 {
    L4::Echo { request: true, id, payload: b"abcdefgh".to_vec() }
}

pub fn pong(id: u16) -> L4 {
    L4::Echo { request: false, id, payload: b"abcdefgh".to_vec() }
}

/// The Internet checksum of a buffer whose checksum field is zero, or 0 for one that is right.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

impl L4 {
    fn protocol(&self, v6: bool) -> u8 {
        match self {
            L4::Tcp { .. } => 6,
            L4::Udp { .. } => 17,
            _ => {
                if v6 {
                    58
                } else {
                    1
                }
            }
        }
    }

    fn bytes(&self, v6: bool) -> (Vec<u8>, usize) {
        match self {
            L4::Tcp { src, dst, flags, payload } => {
                let mut out = vec![0; 20];
                out[..2].copy_from_slice(&src.to_be_bytes());
                out[2..4].copy_from_slice(&dst.to_be_bytes());
                out[12] = 0x50;
                out[13] = *flags;
                out.extend(payload);
                (out, 16)
            }
            L4::Udp { src, dst, payload } => {
                let mut out = vec![0; 8];
                out[..2].copy_from_slice(&src.to_be_bytes());
                out[2..4].copy_from_slice(&dst.to_be_bytes());
                out[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
                out.extend(payload);
                (out, 6)
            }
            L4::Echo { request, id, payload } => {
                let kind = match (v6, request) {
                    (true, true) => 128,
                    (true, false) => 129,
                    (false, true) => 8,
                    (false, false) => 0,
                };
                let mut out = vec![kind, 0, 0, 0, 0, 0, 0, 1];
                out[4..6].copy_from_slice(&id.to_be_bytes());
                out.extend(payload);
                (out, 2)
            }
            L4::Error { kind, code, rest, inner } => {
                let mut out = vec![*kind, *code, 0, 0];
                out.extend(rest.to_be_bytes());
                out.extend(inner);
                (out, 2)
            }
        }
    }
}

impl Wire {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Wire::V6(src, dst, l4) => {
                let (mut body, field) = l4.bytes(true);
                let mut pseudo = Vec::new();
                pseudo.extend(src.octets());
                pseudo.extend(dst.octets());
                pseudo.extend((body.len() as u32).to_be_bytes());
                pseudo.extend([0, 0, 0, l4.protocol(true)]);
                pseudo.extend(&body);
                let sum = nonzero(l4, checksum(&pseudo));
                body[field..field + 2].copy_from_slice(&sum.to_be_bytes());
                let mut out = vec![0x60, 0, 0, 0, 0, 0, l4.protocol(true), 64];
                out[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
                out.extend(src.octets());
                out.extend(dst.octets());
                out.extend(body);
                out
            }
            Wire::V4(src, dst, l4) => {
                let (mut body, field) = l4.bytes(false);
                let mut pseudo = Vec::new();
                if l4.protocol(false) != 1 {
                    pseudo.extend(src.octets());
                    pseudo.extend(dst.octets());
                    pseudo.extend([0, l4.protocol(false)]);
                    pseudo.extend((body.len() as u16).to_be_bytes());
                }
                pseudo.extend(&body);
                let sum = nonzero(l4, checksum(&pseudo));
                body[field..field + 2].copy_from_slice(&sum.to_be_bytes());
                let mut out = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, l4.protocol(false), 0, 0];
                out[2..4].copy_from_slice(&(20 + body.len() as u16).to_be_bytes());
                out.extend(src.octets());
                out.extend(dst.octets());
                let sum = checksum(&out);
                out[10..12].copy_from_slice(&sum.to_be_bytes());
                out.extend(body);
                out
            }
        }
    }

    /// Reads a packet; wrong lengths and checksums are panics.
    pub fn read(bytes: &[u8]) -> Wire {
        let v6 = bytes[0] >> 4 == 6;
        let (protocol, body, mut pseudo) = if v6 {
            let len = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            assert_eq!(bytes.len(), 40 + len, "payload length");
            let mut pseudo = bytes[8..40].to_vec();
            pseudo.extend((len as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, bytes[6]]);
            (bytes[6], &bytes[40..], pseudo)
        } else {
            let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            assert_eq!(bytes.len(), len, "total length");
            assert_eq!(checksum(&bytes[..20]), 0, "header checksum");
            let mut pseudo = Vec::new();
            if bytes[9] != 1 {
                pseudo.extend(&bytes[12..20]);
                pseudo.extend([0, bytes[9]]);
                pseudo.extend((len as u16 - 20).to_be_bytes());
            }
            (bytes[9], &bytes[20..], pseudo)
        };
        pseudo.extend(body);
        assert_eq!(checksum(&pseudo), 0, "transport checksum");
        let word = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let l4 = match (protocol, body[0]) {
            (6, _) => L4::Tcp {
                src: word(0),
                dst: word(2),
                flags: body[13],
                payload: body[usize::from(body[12] >> 4) * 4..].to_vec(),
            },
            (17, _) => L4::Udp { src: word(0), dst: word(2), payload: body[8..].to_vec() },
            (1, kind @ (0 | 8)) | (58, kind @ (128 | 129)) => L4::Echo {
                request: matches!(kind, 8 | 128),
                id: word(4),
                payload: body[8..].to_vec(),
            },
            (1 | 58, kind) => L4::Error {
                kind,
                code: body[1],
                rest: u32::from_be_bytes([body[4], body[5], body[6], body[7]]),
                inner: body[8..].to_vec(),
            },
            (other, _) => panic!("protocol {other}"),
        };
        if v6 {
            let octets = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap();
            Wire::V6(octets(8).into(), octets(24).into(), l4)
        } else {
            let octets = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap();
            Wire::V4(octets(12).into(), octets(16).into(), l4)
        }
    }
}

/// A UDP checksum that comes to zero is sent as ones.
fn nonzero(l4: &L4, sum: u16) -> u16 {
    if matches!(l4, L4::Udp { .. }) && sum == 0 { 0xffff } else { sum }
}

/// Sends one packet: what became of it, and what it was translated to.
pub fn send(nat64: &mut Nat64, now: Time, bytes: &[u8]) -> (Outcome, Vec<u8>) {
    let mut buffer = vec![0xee; HEADROOM];
    buffer.extend(bytes);
    let mut burst = [Packet::new(&mut buffer, HEADROOM, bytes.len(), Offload::default())];
    nat64.handle_packets(now, &mut burst);
    (burst[0].outcome, burst[0].bytes().to_vec())
}

/// Sends one packet that is forwarded.
pub fn forward(nat64: &mut Nat64, now: Time, packet: &Wire) -> Wire {
    let (outcome, bytes) = send(nat64, now, &packet.bytes());
    assert_eq!(outcome, Outcome::Forward, "{packet:?}");
    Wire::read(&bytes)
}

/// Runs every timer up to `until`, each when it is due.
pub fn run_timers(nat64: &mut Nat64, until: Time) {
    while let Some(due) = nat64.poll_timeout().filter(|&due| due <= until) {
        nat64.handle_timeout(due);
    }
    nat64.handle_timeout(until);
}

/// A translator configured by JSON.
pub fn nat64(config: &str) -> Nat64 {
    let config: Config = serde_json::from_str(config).unwrap();
    Nat64::new(config, &[9; 32]).unwrap()
}

pub fn proto_of(l4: &L4) -> Option<Proto> {
    match l4 {
        L4::Tcp { .. } => Some(Proto::Tcp),
        L4::Udp { .. } => Some(Proto::Udp),
        L4::Echo { .. } => Some(Proto::Icmp),
        L4::Error { .. } => None,
    }
}
