//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use core::net::{Ipv4Addr, Ipv6Addr};

/// A one's-complement sum of 16-bit words that has not been folded yet, or the difference of two.
///
/// Numbers are added as they read in network byte order. 32-bit words may be added whole, since
/// 2^32 and 2^16 are both 1 modulo 2^16 - 1; 2^32 of them fit before the accumulator overflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing yet.
    pub const ZERO: Self = Self(0);

    /// Adds a 16-bit word.
    #[inline]
    #[must_use]
    pub const fn add(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Takes a 16-bit word out: adds its complement.
    #[inline]
    #[must_use]
    pub const fn sub(self, word: u16) -> Self {
        Self(self.0 + !word as u64)
    }

    /// Adds two 16-bit words.
    #[inline]
    #[must_use]
    pub const fn add32(self, words: u32) -> Self {
        Self(self.0 + words as u64)
    }

    /// Takes two 16-bit words out.
    #[inline]
    #[must_use]
    pub const fn sub32(self, words: u32) -> Self {
        Self(self.0 + !words as u64)
    }

    /// Adds an IPv4 address.
    #[inline]
    #[must_use]
    pub const fn add4(self, addr: Ipv4Addr) -> Self {
        self.add32(addr.to_bits())
    }

    /// Takes an IPv4 address out.
    #[inline]
    #[must_use]
    pub const fn sub4(self, addr: Ipv4Addr) -> Self {
        self.sub32(addr.to_bits())
    }

    /// Adds an IPv6 address.
    #[inline]
    #[must_use]
    pub const fn add6(self, addr: Ipv6Addr) -> Self {
        self.add128(addr.to_bits())
    }

    /// Takes an IPv6 address out.
    #[inline]
    #[must_use]
    pub const fn sub6(self, addr: Ipv6Addr) -> Self {
        self.add128(!addr.to_bits())
    }

    #[inline]
    const fn add128(self, bits: u128) -> Self {
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        let words = (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff);
        Self(self.0 + words)
    }

    /// Adds bytes; an odd last one counts as if a zero followed.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        // Words are added in the machine's order and swapped once at the end (RFC 1071 §2B).
        let (chunks, rest) = bytes.as_chunks::<4>();
        let mut sum = 0u64;
        for chunk in chunks {
            sum += u64::from(u32::from_ne_bytes(*chunk));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        sum += u64::from(u32::from_ne_bytes(last));
        self.add(u16::from_be(Self(sum).fold()))
    }

    /// The sum as 16 bits, not complemented.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 32) + (sum & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }

    /// The checksum: the complement of the sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// What a checksum becomes when what it covers changes by this difference:
    /// HC' = ~(~HC + ~m + m') (RFC 1624 §3, equation 3).
    #[inline]
    #[must_use]
    pub const fn update(self, checksum: u16) -> u16 {
        self.sub(checksum).checksum()
    }
}
