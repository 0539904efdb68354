//! The IPv6 header (RFC 8200 §3).

use core::net::Ipv6Addr;

/// Length of the header.
pub const HEADER_LEN: usize = 40;
/// The least MTU of a link, and the most bytes of an ICMPv6 error.
pub const MIN_MTU: usize = 1280;
/// Offset of the payload length.
pub const PAYLOAD_LEN: usize = 4;
/// Offset of the next header.
pub const NEXT_HEADER: usize = 6;
/// Offset of the hop limit.
pub const HOP_LIMIT: usize = 7;
/// Offset of the source address.
pub const SRC: usize = 8;
/// Offset of the destination address.
pub const DST: usize = 24;

/// Next header number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// A header; the flow label is zero (RFC 7915 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Traffic class.
    pub traffic_class: u8,
    /// Length of what follows the header in bytes.
    pub payload_len: u16,
    /// Number of the header that follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
}

impl Repr {
    /// The header.
    #[inline(always)]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        // The first 8 bytes are one number: narrow stores would be read back by wide loads.
        let first = (0x6000_0000 | (u64::from(self.traffic_class) << 20)) << 32
            | u64::from(self.payload_len) << 16
            | u64::from(self.next_header) << 8
            | u64::from(self.hop_limit);
        let mut bytes = [0; HEADER_LEN];
        bytes[..SRC].copy_from_slice(&first.to_be_bytes());
        bytes[SRC..DST].copy_from_slice(&self.src.octets());
        bytes[DST..].copy_from_slice(&self.dst.octets());
        bytes
    }
}

/// The traffic class of a header; `header` has at least two bytes.
#[inline]
pub fn traffic_class(header: &[u8]) -> u8 {
    header[0] << 4 | header[1] >> 4
}

/// The source address of a header.
#[inline]
pub fn src(header: &[u8; HEADER_LEN]) -> Ipv6Addr {
    addr(header, SRC)
}

/// The destination address of a header.
#[inline]
pub fn dst(header: &[u8; HEADER_LEN]) -> Ipv6Addr {
    addr(header, DST)
}

#[inline]
fn addr(header: &[u8; HEADER_LEN], offset: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[offset..offset + 16]);
    Ipv6Addr::from(octets)
}
