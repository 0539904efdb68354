//! Keyed hashes: a fast one for the indexes, SipHash for the choice of ports.

use sha2::{Digest, Sha256};

/// Secret keys of both hashes, derived from the node's secret.
#[derive(Clone)]
pub struct Keys {
    fold: [u64; 4],
    address: [u64; 4],
    sip: [u64; 2],
}

impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys(secret)")
    }
}

impl Keys {
    /// Derives the keys. That of [`Keys::address_hash`] depends on nothing: all nodes have it.
    pub fn new(secret: &[u8; 32]) -> Self {
        let words = |label: &[u8], secret: &[u8]| {
            let digest = Sha256::new().chain_update(label).chain_update(secret).finalize();
            let mut words = [0u64; 4];
            for (word, bytes) in words.iter_mut().zip(digest.chunks_exact(8)) {
                *word = bytes.iter().fold(0, |acc, &b| acc << 8 | u64::from(b));
            }
            words
        };
        let [sip0, sip1, ..] = words(b"jsync port choice", secret);
        Self {
            fold: words(b"jsync index", secret),
            address: words(b"jsync address choice", b""),
            sip: [sip0, sip1],
        }
    }

    /// Hash of a 128-bit value with a qualifier for an index: whoever lacks the key can't choose
    /// values that collide.
    #[inline]
    pub fn tag(&self, value: u128, qualifier: u64) -> u32 {
        (mix(&self.fold, value, qualifier) >> 32) as u32
    }

    /// Hash of an IPv6 address that decides which address of pool4 it gets: the same on every
    /// node, so that a node that takes over keeps its IPv6 nodes to their addresses.
    pub fn address_hash(&self, src6: u128) -> u64 {
        mix(&self.address, src6, 0)
    }

    /// SipHash-2-4 of words: the pseudorandom function F of RFC 6056 §3.3.3.
    pub fn prf(&self, words: &[u64]) -> u64 {
        sip24(self.sip, words)
    }
}

/// Two multiplications folded to 64 bits.
#[inline]
fn mix(&[k0, k1, k2, k3]: &[u64; 4], value: u128, qualifier: u64) -> u64 {
    let mixed = fold((value >> 64) as u64 ^ k0, value as u64 ^ k1);
    fold(mixed ^ qualifier ^ k2, k3 | 1)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of whole little-endian words.
fn sip24(key: [u64; 2], words: &[u64]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let last = ((words.len() as u64 * 8) & 0xff) << 56;
    for &word in words.iter().chain([&last]) {
        v[3] ^= word;
        sip_round(&mut v);
        sip_round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the vectors that accompany SipHash: key 00..0f, input 00, 01, … of that length.
    #[test]
    fn siphash_reference_vectors() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(sip24(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(sip24(key, &[0x0706_0504_0302_0100]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn tags_depend_on_every_input_and_on_the_key() {
        let (a, b) = (Keys::new(&[1; 32]), Keys::new(&[2; 32]));
        let tag = a.tag(7, 9);
        assert_ne!(tag, a.tag(8, 9));
        assert_ne!(tag, a.tag(7 | 1 << 64, 9));
        assert_ne!(tag, a.tag(7, 10));
        assert_ne!(tag, b.tag(7, 9));
        assert_ne!(a.prf(&[1]), b.prf(&[1]));
        assert_eq!(a.address_hash(7), b.address_hash(7), "nodes agree");
        assert_ne!(a.address_hash(7), a.address_hash(8));
    }
}
