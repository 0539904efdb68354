//! Digests of a table by buckets of keys: what two tables differ in, without sending them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::sync::Sessions;
use crate::sync::message::{DigestsHead, Filter};
use crate::table::{SessionKey, SessionRecord};
use crate::time::Time;

/// Buckets of a table.
pub const BUCKETS: usize = 1024;

/// The hash that decides a key's bucket (its top ten bits) and begins a session's digest. Keyed by
/// a seed that changes with every comparison: nobody can choose sessions that cancel out.
#[inline]
fn hash(seed: u64, key: &SessionKey) -> u64 {
    let src6 = key.src6.addr.to_bits();
    let v4 = u64::from(key.src4.addr.to_bits()) << 32 | u64::from(key.dst4.addr.to_bits());
    let ports = u64::from(key.src6.port) << 48
        | u64::from(key.src4.port) << 32
        | u64::from(key.dst4.port) << 16
        | key.proto as u64;
    let mut hash = fold(seed ^ 0x9e37_79b9_7f4a_7c15, (src6 >> 64) as u64);
    for word in [src6 as u64, v4, ports] {
        hash = fold(hash, word);
    }
    hash
}

/// Both halves of the 128-bit product, mixed: every bit of both depends on every bit of both.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let a = u128::from(a ^ 0xa076_1d64_78bd_642f);
    let b = u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    let product = a * b;
    (product as u64) ^ (product >> 64) as u64
}

fn bucket(hash: u64) -> usize {
    (hash >> (64 - BUCKETS.trailing_zeros())) as usize
}

impl Filter {
    /// Whether a session with this key is wanted.
    pub(crate) fn wants(&self, key: &SessionKey) -> bool {
        let bucket = bucket(hash(self.seed, key));
        self.buckets[bucket / 64] & 1 << (bucket % 64) != 0
    }
}

/// A table's digests, while and after they are computed: the sum, modulo 2^64, of the digests of
/// the sessions in each bucket.
#[derive(Debug)]
pub(crate) struct Buckets {
    seed: u64,
    cursor: Option<u32>,
    sums: Box<[u64; BUCKETS]>,
}

impl Buckets {
    pub fn new(seed: u64) -> Self {
        Self { seed, cursor: Some(0), sums: Box::new([0; BUCKETS]) }
    }

    pub fn is_done(&self) -> bool {
        self.cursor.is_none()
    }

    /// Looks at `budget` more slots.
    pub fn advance(&mut self, now: Time, budget: usize, sessions: &impl Sessions) {
        let Some(cursor) = self.cursor else { return };
        let (seed, sums) = (self.seed, &mut self.sums);
        self.cursor = sessions.scan(now, cursor, budget, &mut |record| {
            let (bucket, digest) = Self::digest(seed, &record);
            sums[bucket] = sums[bucket].wrapping_add(digest);
        });
    }

    fn digest(seed: u64, record: &SessionRecord) -> (usize, u64) {
        let hash = hash(seed, &record.key);
        let rest = u64::from(record.version) << 8 | record.state as u64;
        (bucket(hash), fold(hash, rest))
    }

    /// The digests from bucket `first` on, at most `limit`.
    pub fn part(&self, first: usize, limit: usize) -> &[u64] {
        let end = first.saturating_add(limit).min(BUCKETS);
        self.sums.get(first..end).unwrap_or_default()
    }
}

/// Our table's digests and a peer's, on the way to knowing where they differ.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// The request for the peer's.
    pub id: u32,
    pub seed: u64,
    pub ours: Buckets,
    theirs: Vec<Option<u64>>,
}

impl Comparison {
    pub fn new(id: u32, seed: u64) -> Self {
        Self { id, seed, ours: Buckets::new(seed), theirs: alloc::vec![None; BUCKETS] }
    }

    /// Some of the peer's digests.
    pub fn arrive(&mut self, head: &DigestsHead, digests: impl Iterator<Item = u64>) {
        if head.id == self.id {
            let places = self.theirs.iter_mut().skip(head.first.into());
            places.zip(digests).for_each(|(place, digest)| *place = Some(digest));
        }
    }

    /// The buckets that differ, once both sides are known.
    pub fn outcome(&self) -> Option<Filter> {
        if !self.ours.is_done() {
            return None;
        }
        let mut filter = Filter { seed: self.seed, buckets: [0; BUCKETS / 64] };
        for (bucket, theirs) in self.theirs.iter().enumerate() {
            if (*theirs)? != self.ours.sums[bucket] {
                filter.buckets[bucket / 64] |= 1 << (bucket % 64);
            }
        }
        Some(filter)
    }
}

/// Digests that a peer has asked for. Kept after they went, in case they were lost.
#[derive(Debug)]
pub(crate) struct ServeDigests {
    /// The peer.
    pub node: u16,
    /// Its request.
    pub id: u32,
    pub buckets: Buckets,
    /// The bucket that goes next.
    pub next: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::record::tests::key;
    use crate::table::State;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_differs_changes_the_digest(
            seed: u64, key in key(), other in key(), version: u32, state in 0u8..6
        ) {
            let record = |key, state, version| {
                let state = State::from_u8(state).unwrap();
                SessionRecord { key, state, version, lifetime_ms: 1 }
            };
            let digest = |record| Buckets::digest(seed, &record);
            let ours = digest(record(key, state, version));
            prop_assert_eq!(ours, digest(SessionRecord { lifetime_ms: 2, ..record(key, state, version) }));
            prop_assert_ne!(ours, digest(record(key, state, version.wrapping_add(1))));
            prop_assert_ne!(ours, digest(record(key, state + 1, version)));
            if key != other {
                prop_assert_ne!(ours, digest(record(other, state, version)));
            }
        }
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let mut counts = [0u32; BUCKETS];
        for n in 0..64 * BUCKETS as u32 {
            let mut key = crate::sync::tests::session(n, 0).key;
            key.src4.port = (n % 4000) as u16;
            counts[bucket(hash(7, &key))] += 1;
        }
        assert!(counts.iter().all(|count| (16..=160).contains(count)), "{counts:?}");
    }
}
