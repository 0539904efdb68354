//! Numbers that come in: which were seen, which are missing.

use alloc::vec::Vec;

use crate::sync::message::{Arrived, UpdateRange};
use crate::time::Time;

const WORDS: usize = 64;
/// How far behind the highest number a late one may come: a word less than the bitmap has, since
/// the word that the highest is in gets cleared as a whole.
pub const WINDOW: u64 = (WORDS as u64 - 1) * 64;

/// Whether a number was seen, for the last `WINDOW` numbers (the bitmap of RFC 6479).
#[derive(Clone, Debug)]
struct Bitmap {
    highest: u64,
    words: [u64; WORDS],
}

impl Bitmap {
    /// Everything up to `highest` was seen.
    fn after(highest: u64) -> Self {
        let mut words = [u64::MAX; WORDS];
        words[Self::word(highest)] = u64::MAX >> (63 - highest % 64);
        Self { highest, words }
    }

    fn word(number: u64) -> usize {
        (number / 64) as usize % WORDS
    }

    fn seen(&self, number: u64) -> bool {
        if number > self.highest {
            return false;
        }
        self.highest - number >= WINDOW || self.words[Self::word(number)] & 1 << (number % 64) != 0
    }

    fn insert(&mut self, number: u64) {
        if number > self.highest {
            let ahead = (number / 64 - self.highest / 64).min(WORDS as u64);
            for i in 1..=ahead {
                self.words[Self::word(self.highest.saturating_add(i * 64))] = 0;
            }
            self.highest = number;
        }
        self.words[Self::word(number)] |= 1 << (number % 64);
    }
}

/// Accepts every frame of one incarnation of a peer at most once.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow(Bitmap);

impl ReplayWindow {
    /// Refuses everything up to `seq`.
    pub fn after(seq: u64) -> Self {
        Self(Bitmap::after(seq))
    }

    /// Whether a frame with this number is new.
    pub fn accept(&mut self, seq: u64) -> bool {
        let new = !self.0.seen(seq);
        if new {
            self.0.insert(seq);
        }
        new
    }
}

/// What an update's number says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is the next one, or later than that.
    InOrder,
    /// It was missing.
    Late,
    /// It was here before.
    Duplicate,
    /// More is missing before it than can be kept track of.
    TooFar,
}

/// Updates of one incarnation of a peer: which have arrived, and which to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    /// Every update from this one on has arrived, up to the next.
    since: u64,
    /// Every update before this one has arrived, or is made up for by a snapshot.
    next: u64,
    /// The last update that is known to exist.
    known: u64,
    arrived: Bitmap,
    /// Updates that were overtaken or lost.
    pub gaps: u64,
    /// When to ask for what is missing.
    pub nack_at: Option<Time>,
    /// Times that it was asked for since something missing arrived.
    pub tries: u32,
}

impl Incoming {
    /// Nothing up to `last` is missing.
    pub fn after(last: u64) -> Self {
        Self {
            since: last.saturating_add(1),
            next: last.saturating_add(1),
            known: last,
            arrived: Bitmap::after(last),
            gaps: 0,
            nack_at: None,
            tries: 0,
        }
    }

    /// Forgives what is missing: a snapshot makes up for it.
    pub fn forgive(&mut self) {
        *self = Self { gaps: self.gaps, ..Self::after(self.known) };
    }

    /// Every update up to this one has arrived.
    pub fn acknowledged(&self) -> u64 {
        self.next - 1
    }

    /// What has truly arrived; of what is behind a gap, as much as `words` of a bitmap hold.
    pub fn arrived(&self, words: usize) -> Arrived {
        let range = UpdateRange { first: self.since, last: self.next - 1 };
        let mut later = Vec::new();
        for number in self.next..=self.arrived.highest {
            let bit = number - self.next;
            let word = (bit / 64) as usize;
            if word == words {
                break;
            }
            if self.arrived.seen(number) {
                later.resize(word + 1, 0);
                later[word] |= 1 << (bit % 64);
            }
        }
        Arrived { range, later }
    }

    /// An update of this number is here.
    pub fn arrive(&mut self, number: u64) -> Arrival {
        if self.arrived.seen(number) || number < self.next {
            return Arrival::Duplicate;
        }
        if number - self.next >= WINDOW {
            self.learn_of(number);
            return Arrival::TooFar;
        }
        let arrival = if number > self.known { Arrival::InOrder } else { Arrival::Late };
        if number > self.known {
            self.lost(number - self.known - 1);
            self.known = number;
        }
        self.arrived.insert(number);
        if number == self.next {
            while self.missing() && self.arrived.seen(self.next) {
                self.next = self.next.saturating_add(1);
                if self.next == u64::MAX {
                    break;
                }
            }
            self.tries = 0;
        }
        arrival
    }

    /// The peer has sent updates up to `last`, and can repeat those from `oldest`. False if
    /// something is missing that it can't repeat.
    pub fn told(&mut self, last: u64, oldest: u64) -> bool {
        self.learn_of(last);
        !(self.missing() && self.next < oldest)
    }

    fn learn_of(&mut self, number: u64) {
        if number > self.known {
            self.lost(number - self.known);
            self.known = number;
        }
    }

    /// Counts what was jumped over: no more at once than could have been kept track of.
    fn lost(&mut self, count: u64) {
        self.gaps += count.min(WINDOW);
    }

    /// Whether something is missing.
    pub fn missing(&self) -> bool {
        self.next <= self.known
    }

    /// What is missing: up to `limit` ranges, the oldest first.
    pub fn missing_ranges(&self, limit: usize) -> Vec<UpdateRange> {
        let mut ranges: Vec<UpdateRange> = Vec::new();
        let end = self.known.min(self.next.saturating_add(WINDOW - 1));
        for number in self.next..=end {
            if self.arrived.seen(number) {
                continue;
            }
            if let Some(range) = ranges.last_mut()
                && range.last + 1 == number
            {
                range.last = number;
            } else if ranges.len() < limit {
                ranges.push(UpdateRange { first: number, last: number });
            } else {
                break;
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a set that forgets nothing: no number is accepted twice, and none that is new
        /// and inside the window is refused.
        #[test]
        fn the_window_agrees_with_a_set(
            start in prop_oneof![Just(0u64), Just(u64::MAX - 5000), 0..5000u64],
            steps in prop::collection::vec(prop_oneof![4 => 0..100u64, 1 => 0..12_000u64], 1..400),
        ) {
            let mut window = ReplayWindow::after(start);
            let (mut seen, mut base) = (BTreeSet::new(), start);
            for step in steps {
                // Steps lead back and forth around a base that moves on.
                let seq = base.saturating_add(step).saturating_sub(40);
                base = base.saturating_add(step / 3);
                let highest = seen.last().copied().unwrap_or(start).max(start);
                let expected = seq > start
                    && !seen.contains(&seq)
                    && (seq > highest || highest - seq < WINDOW);
                prop_assert_eq!(window.accept(seq), expected, "{} after {}", seq, highest);
                if expected {
                    seen.insert(seq);
                }
            }
        }

        #[test]
        fn what_is_asked_for_is_what_is_missing(
            lost in prop::collection::btree_set(1..4000u64, 0..60), last in 1..4000u64
        ) {
            let mut incoming = Incoming::after(0);
            for number in (1..=last).filter(|n| !lost.contains(n)) {
                prop_assert_eq!(incoming.arrive(number), Arrival::InOrder);
                prop_assert_eq!(incoming.arrive(number), Arrival::Duplicate);
            }
            prop_assert!(incoming.told(last, 1));
            let asked: BTreeSet<u64> =
                incoming.missing_ranges(usize::MAX).iter().flat_map(|r| r.first..=r.last).collect();
            let expected: BTreeSet<u64> = lost.range(..=last).copied().collect();
            prop_assert_eq!(&asked, &expected);
            prop_assert_eq!(incoming.gaps, expected.len() as u64);
            let arrived = incoming.arrived(usize::MAX);
            for number in 1..last + 70 {
                let has = number <= last && !lost.contains(&number);
                prop_assert_eq!(arrived.has(number), has, "{}", number);
            }
            let cut = incoming.arrived(2);
            let end = incoming.next + 2 * 64;
            prop_assert!((1..last + 70).all(|n| cut.has(n) == (arrived.has(n) && n < end)));
            for number in asked {
                prop_assert_eq!(incoming.arrive(number), Arrival::Late);
            }
            prop_assert!(!incoming.missing());
            prop_assert_eq!(incoming.acknowledged(), last);
        }
    }

    #[test]
    fn the_last_number_is_no_trap() {
        let mut incoming = Incoming::after(u64::MAX - 1);
        incoming.arrive(u64::MAX);
        incoming.told(u64::MAX, u64::MAX);
        assert!(incoming.missing_ranges(8).len() <= 1);
        let mut incoming = Incoming::after(u64::MAX);
        incoming.arrive(u64::MAX);
        assert!(incoming.missing_ranges(8).len() <= 1);
    }

    #[test]
    fn a_gap_that_cannot_be_filled_is_told() {
        let mut incoming = Incoming::after(10);
        assert!(incoming.told(10, 11), "nothing is missing");
        assert!(incoming.told(15, 9));
        assert!(!incoming.told(15, 12));
        incoming.forgive();
        assert!(incoming.told(15, 12));
        assert_eq!(incoming.arrive(16), Arrival::InOrder);
        assert_eq!(incoming.arrive(16 + WINDOW), Arrival::InOrder);
        assert_eq!(incoming.arrive(17 + WINDOW), Arrival::TooFar);
    }
}
