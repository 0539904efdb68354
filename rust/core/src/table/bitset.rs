//! Sets of small numbers with a fast "next member from here on".

use alloc::vec;
use alloc::vec::Vec;

/// Bits with a summary bit per word, so that a search skips 4096 absent numbers per word read.
#[derive(Clone, Debug, Default)]
pub struct BitSet {
    words: Vec<u64>,
    summary: Vec<u64>,
    count: u32,
}

impl BitSet {
    /// The empty set of numbers below `len`.
    pub fn new(len: usize) -> Self {
        let words = len.div_ceil(64);
        Self { words: vec![0; words], summary: vec![0; words.div_ceil(64)], count: 0 }
    }

    /// How many members it has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The word that `n` stands in: to load it before it is changed. 0 beyond the set's length.
    pub fn load(&self, n: usize) -> u64 {
        self.words.get(n / 64).copied().unwrap_or(0)
    }

    /// Makes `n` a member; false if it was one. `n` is below the set's length.
    pub fn insert(&mut self, n: usize) -> bool {
        let bit = 1 << (n % 64);
        let word = &mut self.words[n / 64];
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.summary[n / 4096] |= 1 << (n / 64 % 64);
        self.count += 1;
        true
    }

    /// Makes `n` no member; false if it was none. `n` is below the set's length.
    pub fn remove(&mut self, n: usize) -> bool {
        let bit = 1 << (n % 64);
        let word = &mut self.words[n / 64];
        if *word & bit == 0 {
            return false;
        }
        *word &= !bit;
        if *word == 0 {
            self.summary[n / 4096] &= !(1 << (n / 64 % 64));
        }
        self.count -= 1;
        true
    }

    /// Makes all of `from..to` members; `to` is at most the set's length.
    pub fn insert_range(&mut self, from: usize, to: usize) {
        for at in from / 64..to.div_ceil(64) {
            let low = u64::MAX << from.saturating_sub(at * 64).min(63);
            let high = u64::MAX >> (64 - (to - at * 64).min(64));
            let word = &mut self.words[at];
            let added = low & high & !*word;
            *word |= added;
            self.count += added.count_ones();
            if *word != 0 {
                self.summary[at / 64] |= 1 << (at % 64);
            }
        }
    }

    /// The first member in `from..to`.
    pub fn next(&self, from: usize, to: usize) -> Option<usize> {
        if from >= to {
            return None;
        }
        let mut at = from / 64;
        let mut word = self.words.get(at)? & (u64::MAX << (from % 64));
        if word == 0 {
            at = self.next_word(at + 1)?;
            word = self.words[at];
        }
        let found = at * 64 + word.trailing_zeros() as usize;
        (found < to).then_some(found)
    }

    /// The first member in `from..to`, or else in `start..from`: once around from `from`.
    pub fn next_around(&self, start: usize, from: usize, to: usize) -> Option<usize> {
        self.next(from, to).or_else(|| self.next(start, from))
    }

    fn next_word(&self, from: usize) -> Option<usize> {
        let mut at = from / 64;
        let mut word = self.summary.get(at)? & (u64::MAX << (from % 64));
        while word == 0 {
            at += 1;
            word = *self.summary.get(at)?;
        }
        Some(at * 64 + word.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn members(set: &BitSet, len: usize) -> Vec<usize> {
        core::iter::successors(set.next(0, len), |&n| set.next(n + 1, len)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_range_is_its_members(a in 0usize..5000, b in 0usize..5000, extra in 0usize..5000) {
            let (from, to) = (a.min(b), a.max(b));
            let mut set = BitSet::new(5000);
            let mut slow = BitSet::new(5000);
            set.insert(extra);
            slow.insert(extra);
            set.insert_range(from, to);
            (from..to).for_each(|n| { slow.insert(n); });
            prop_assert_eq!(set.count(), slow.count());
            prop_assert_eq!(members(&set, 5000), members(&slow, 5000));
        }

        #[test]
        fn agrees_with_a_btree_set(
            len in 1usize..20_000,
            ops in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200),
            from in any::<prop::sample::Index>(),
        ) {
            let mut set = BitSet::new(len);
            let mut model = BTreeSet::new();
            for (add, n) in ops {
                let n = n.index(len);
                if add {
                    prop_assert_eq!(set.insert(n), model.insert(n));
                } else {
                    prop_assert_eq!(set.remove(n), model.remove(&n));
                }
            }
            let from = from.index(len);
            prop_assert_eq!(set.count() as usize, model.len());
            prop_assert_eq!(members(&set, len), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.next(from, len), model.range(from..).next().copied());
            let around = model.range(from..).chain(model.range(..from)).next().copied();
            prop_assert_eq!(set.next_around(0, from, len), around);
        }
    }
}
