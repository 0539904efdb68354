//! Translation of packets between the families (RFC 7915), in the packet's own buffer.
//!
//! The caller has parsed the packet ([`crate::wire::view`]) and knows the transport addresses that
//! it is to have. A function that returns an error has not changed the packet, so that an ICMP
//! error can quote it.

pub mod hairpin;
mod icmp;
pub mod icmp_error;
mod transport;
pub mod v4to6;
pub mod v6to4;

pub use crate::wire::{IcmpError, Refusal};
pub use v4to6::Translated;
