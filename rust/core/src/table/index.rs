//! A hash index of fixed size: keyed tag to slot, eight bytes an entry.

use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;

/// Entries on the smallest page that there is.
const ENTRIES_PER_PAGE: usize = 4096 / 8;

/// Open addressing with linear probing. An entry is `tag << 32 | slot + 1`, 0 an empty place.
///
/// A tag's home follows from its leading bits, so that removal can shift entries back without
/// looking at the records they stand for. Never resized: `capacity` entries fill 60 % of it.
#[derive(Debug)]
pub struct Index {
    entries: Vec<u64>,
    len: u32,
}

impl Index {
    /// An index for `capacity` entries.
    pub fn new(capacity: u32) -> Self {
        let places = (capacity as usize * 5).div_ceil(3).max(8);
        let mut entries = vec![0; places];
        // The system gives memory page by page as it is first written to, and a huge page takes it
        // some 0.3 ms. The first burst of new sessions hits a page each: have them all now.
        for entry in entries.iter_mut().step_by(ENTRIES_PER_PAGE) {
            *black_box(entry) = 0;
        }
        Self { entries, len: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Bytes of address space that it takes.
    pub fn bytes(&self) -> usize {
        self.entries.len() * 8
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.entries.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, place: usize) -> usize {
        if place + 1 == self.entries.len() { 0 } else { place + 1 }
    }

    /// What stands at the tag's home: to load it before it is searched. A search branches on what
    /// it finds, and whatever was begun behind a branch guessed wrongly is lost.
    #[inline]
    pub fn load(&self, tag: u32) -> u64 {
        self.entries[self.home(tag)]
    }

    /// The slot of the first entry at or behind the tag's home that carries the tag: most likely
    /// the right one, to begin loading its record.
    #[inline]
    pub fn guess(&self, tag: u32) -> Option<u32> {
        let mut place = self.home(tag);
        loop {
            let entry = self.entries[place];
            if entry == 0 {
                return None;
            }
            if (entry >> 32) as u32 == tag {
                return Some(entry as u32 - 1);
            }
            place = self.next(place);
        }
    }

    /// The slot with this tag of which `matches` is true.
    #[inline]
    pub fn find(&self, tag: u32, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut place = self.home(tag);
        loop {
            let entry = self.entries[place];
            if entry == 0 {
                return None;
            }
            if (entry >> 32) as u32 == tag && matches(entry as u32 - 1) {
                return Some(entry as u32 - 1);
            }
            place = self.next(place);
        }
    }

    /// Adds an entry that isn't there yet. The caller keeps within the capacity.
    pub fn insert(&mut self, tag: u32, slot: u32) {
        debug_assert!((self.len as usize) < self.entries.len() * 2 / 3);
        let mut place = self.home(tag);
        while self.entries[place] != 0 {
            place = self.next(place);
        }
        self.entries[place] = u64::from(tag) << 32 | u64::from(slot + 1);
        self.len += 1;
    }

    /// Removes the entry; false if there is none.
    pub fn remove(&mut self, tag: u32, slot: u32) -> bool {
        let wanted = u64::from(tag) << 32 | u64::from(slot + 1);
        let mut hole = self.home(tag);
        while self.entries[hole] != wanted {
            if self.entries[hole] == 0 {
                return false;
            }
            hole = self.next(hole);
        }
        // Shift back whatever may stand in the hole: entries whose home isn't behind it.
        let places = self.entries.len();
        let distance =
            |from: usize, to: usize| if to >= from { to - from } else { to + places - from };
        let mut place = self.next(hole);
        loop {
            let entry = self.entries[place];
            if entry == 0 {
                break;
            }
            let home = self.home((entry >> 32) as u32);
            if distance(home, place) >= distance(hole, place) {
                self.entries[hole] = entry;
                hole = place;
            }
            place = self.next(place);
        }
        self.entries[hole] = 0;
        self.len -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Tags from a small set make long runs, also across the end of the array.
        #[test]
        fn agrees_with_a_map(ops in prop::collection::vec((any::<bool>(), 0u32..40), 1..400)) {
            let mut index = Index::new(40);
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (add, slot) in ops {
                let tag = if slot % 3 == 0 { u32::MAX - slot % 2 } else { slot.wrapping_mul(0x9e37_79b9) };
                if add && !model.contains_key(&slot) {
                    index.insert(tag, slot);
                    model.insert(slot, tag);
                } else if !add {
                    prop_assert_eq!(index.remove(tag, slot), model.remove(&slot).is_some());
                }
                prop_assert_eq!(index.len() as usize, model.len());
                for (&slot, &tag) in &model {
                    prop_assert_eq!(index.find(tag, |s| s == slot), Some(slot));
                }
            }
        }
    }

    #[test]
    fn an_empty_index_finds_nothing() {
        let index = Index::new(1);
        assert_eq!(index.find(0, |_| true), None);
        assert_eq!(index.guess(u32::MAX), None);
    }
}
