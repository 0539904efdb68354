//! What the flows of hosts have in common: when they send, what they send, how they fare.

use crate::clock::Micros;
use crate::rng::mix;

/// How a flow sends: so many bytes, ever so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between two writes or requests.
    pub interval: Micros,
    /// Bytes of a write; at least [`KEY_LEN`].
    pub chunk: usize,
}

/// The direction of data: from the end that opened the flow, or to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the end that opened the flow.
    Forth = 0,
    /// From the other.
    Back = 1,
}

/// Bytes of the key with which a flow's opener begins, so that the other end knows what to expect.
pub const KEY_LEN: usize = 8;

/// The `len` bytes from `offset` of what a flow carries in a direction: every byte depends on its
/// place, so that a byte lost, doubled, moved or of another flow is noticed.
pub fn pattern(key: u64, direction: Direction, offset: u64, len: usize) -> Vec<u8> {
    let word = |number: u64| mix(key ^ ((direction as u64) << 63) ^ number).to_be_bytes();
    (offset..offset + len as u64).map(|at| word(at >> 3)[(at & 7) as usize]).collect()
}

/// When something got through, and the longest time in which nothing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that got through.
    pub bytes: u64,
    /// The last moment at which some did; the beginning of the flow at first.
    pub last: Micros,
    gap: Micros,
}

impl Progress {
    /// A flow that begins at `now`.
    pub fn new(now: Micros) -> Self {
        Self { bytes: 0, last: now, gap: 0 }
    }

    /// Notes that `bytes` got through.
    pub fn note(&mut self, now: Micros, bytes: usize) {
        self.gap = self.gap(now);
        self.last = now;
        self.bytes += bytes as u64;
    }

    /// The longest time without anything since [`Self::forget_gap`], up to `now`.
    pub fn gap(&self, now: Micros) -> Micros {
        self.gap.max(now - self.last)
    }

    /// Begins a new search for the longest gap.
    pub fn forget_gap(&mut self) {
        self.gap = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_however_it_is_cut() {
        let whole = pattern(7, Direction::Forth, 3, 100);
        let parts = [pattern(7, Direction::Forth, 3, 41), pattern(7, Direction::Forth, 44, 59)];
        assert_eq!(whole, parts.concat());
        assert_ne!(whole, pattern(7, Direction::Back, 3, 100));
        assert_ne!(whole, pattern(8, Direction::Forth, 3, 100));
        assert_ne!(whole, pattern(7, Direction::Forth, 11, 100));
    }

    #[test]
    fn the_gap_is_the_longest_since_it_was_forgotten() {
        let mut progress = Progress::new(10);
        progress.note(30, 1);
        progress.note(35, 1);
        assert_eq!(progress.gap(36), 20);
        progress.forget_gap();
        assert_eq!(progress.gap(36), 1);
        assert_eq!(progress.gap(50), 15);
        assert_eq!(progress.bytes, 2);
    }
}
