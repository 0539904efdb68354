//! The IPv4 header (RFC 791).

use core::net::Ipv4Addr;

use super::checksum::Sum;
use super::{Refusal, be16, be32, put16};
use crate::stats::DropReason;

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;
/// The largest total length.
pub const MAX_LEN: usize = 65535;
/// Offset of the type of service.
pub const TOS: usize = 1;
/// Offset of the total length.
pub const TOTAL_LEN: usize = 2;
/// Offset of the identification.
pub const IDENT: usize = 4;
/// Offset of flags and fragment offset.
pub const FRAGMENT: usize = 6;
/// Offset of the time to live.
pub const TTL: usize = 8;
/// Offset of the protocol.
pub const PROTOCOL: usize = 9;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SRC: usize = 12;
/// Offset of the destination address.
pub const DST: usize = 16;

/// Flag in the word at [`FRAGMENT`]: don't fragment.
pub const DF: u16 = 0x4000;
/// Flag in the word at [`FRAGMENT`]: more fragments.
pub const MF: u16 = 0x2000;
/// Bits of the word at [`FRAGMENT`] that hold the offset in units of 8 bytes.
pub const OFFSET_MASK: u16 = 0x1fff;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of IGMP.
pub const IGMP: u8 = 2;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Option: end of the list.
const END: u8 = 0;
/// Option: no operation.
const NOP: u8 = 1;
/// Option: loose source route.
const LSRR: u8 = 131;
/// Option: strict source route.
const SSRR: u8 = 137;

/// A header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Type of service.
    pub tos: u8,
    /// Length of header and payload in bytes.
    pub total_len: u16,
    /// Identification.
    pub ident: u16,
    /// [`DF`], [`MF`] and the fragment offset in units of 8 bytes.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Number of the protocol that follows.
    pub protocol: u8,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
}

impl Repr {
    /// The header, checksum included.
    #[inline(always)]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let words = [
            0x4500_0000 | (u32::from(self.tos) << 16) | u32::from(self.total_len),
            (u32::from(self.ident) << 16) | u32::from(self.fragment),
            (u32::from(self.ttl) << 24) | (u32::from(self.protocol) << 16),
            self.src.to_bits(),
            self.dst.to_bits(),
        ];
        let checksum = words.iter().fold(Sum::ZERO, |sum, &word| sum.add32(word)).checksum();
        let mut bytes = [0; HEADER_LEN];
        let (chunks, _) = bytes.as_chunks_mut::<4>();
        for (chunk, word) in chunks.iter_mut().zip(words) {
            *chunk = word.to_be_bytes();
        }
        put16(&mut bytes, CHECKSUM, checksum);
        bytes
    }
}

/// Whether a header (options included) agrees with its checksum.
#[inline]
pub fn checksum_ok(header: &[u8]) -> bool {
    // All ones read the same in either byte order.
    let (words, _) = header.as_chunks::<4>();
    let sum = words.iter().fold(Sum::ZERO, |sum, &word| sum.add32(u32::from_ne_bytes(word)));
    sum.fold() == 0xffff
}

/// The source address of a header; `header` has at least [`HEADER_LEN`] bytes.
#[inline]
pub fn src(header: &[u8]) -> Ipv4Addr {
    Ipv4Addr::from_bits(be32(header, SRC))
}

/// The destination address of a header; `header` has at least [`HEADER_LEN`] bytes.
#[inline]
pub fn dst(header: &[u8]) -> Ipv4Addr {
    Ipv4Addr::from_bits(be32(header, DST))
}

/// Flags and fragment offset of a header; `header` has at least [`HEADER_LEN`] bytes.
#[inline]
pub fn fragment(header: &[u8]) -> u16 {
    be16(header, FRAGMENT)
}

/// Whether a source route among `options` has addresses left to visit (RFC 7915 §4.1).
///
/// # Errors
/// Options that contradict themselves.
pub fn has_source_route(mut options: &[u8]) -> Result<bool, Refusal> {
    loop {
        match *options {
            [] | [END, ..] => return Ok(false),
            [NOP, ref rest @ ..] => options = rest,
            [kind, len, ref rest @ ..] => {
                let (body, rest) = usize::from(len)
                    .checked_sub(2)
                    .and_then(|len| rest.split_at_checked(len))
                    .ok_or(DropReason::Malformed)?;
                if matches!(kind, LSRR | SSRR) {
                    // The pointer counts from 1; past the option's end the route is used up.
                    let pointer = *body.first().ok_or(DropReason::Malformed)?;
                    if pointer <= len {
                        return Ok(true);
                    }
                }
                options = rest;
            }
            [_] => return Err(DropReason::Malformed.into()),
        }
    }
}
