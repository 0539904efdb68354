//! Packets of both families as bytes: one file a header, and the parser that finds its way
//! through all of them once ([`view`]).
//!
//! Offsets in a module are relative to the header that the module is about.

pub mod checksum;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ipv6_ext;
mod refusal;
pub mod tcp;
pub mod udp;
pub mod view;

pub use refusal::{IcmpError, Refusal};
pub use view::{Fragment, Inner, L4, Parsed, View, View4, View6, parse, parse4, parse6};
pub(crate) use view::{ordinary4, ordinary6};

/// The 16-bit number at `offset`; the caller has checked that it is there.
#[inline]
pub(crate) fn be16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

/// The 32-bit number at `offset`; the caller has checked that it is there.
#[inline]
pub(crate) fn be32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

/// Writes a 16-bit number at `offset`; the caller has checked that there is room.
#[inline]
pub(crate) fn put16(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}
