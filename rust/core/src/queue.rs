//! Queues: one that may become long, and a queue's front, taken on a condition.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes of a piece of a [`LongQueue`].
const PIECE: usize = 64 << 10;

/// A queue that may become as long as a table. It takes memory piece by piece and gives it back
/// likewise, so that it never moves to a larger place. Nor does the system ever clear a huge page
/// for it, which takes milliseconds where the host does so too.
#[derive(Debug)]
pub(crate) struct LongQueue<T> {
    /// Only the last has room; only if there is no other it may be empty.
    pieces: VecDeque<Vec<T>>,
    /// How many of the first piece are gone.
    taken: usize,
    len: usize,
}

impl<T> Default for LongQueue<T> {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), taken: 0, len: 0 }
    }
}

impl<T: Copy> LongQueue<T> {
    const ROOM: usize = PIECE / size_of::<T>();

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push_back(&mut self, item: T) {
        match self.pieces.back_mut() {
            Some(last) if last.len() < Self::ROOM => last.push(item),
            _ => {
                let mut piece = Vec::with_capacity(Self::ROOM);
                piece.push(item);
                self.pieces.push_back(piece);
            }
        }
        self.len += 1;
    }

    pub fn pop_front(&mut self) -> Option<T> {
        let is_last = self.pieces.len() == 1;
        let first = self.pieces.front_mut()?;
        let item = *first.get(self.taken)?;
        self.taken += 1;
        self.len -= 1;
        if self.taken == first.len() {
            self.taken = 0;
            if is_last {
                first.clear();
            } else {
                self.pieces.pop_front();
            }
        }
        Some(item)
    }
}

/// Takes the front if there is one and `wanted` holds for it. (The standard library's own is
/// newer than the compilers that we support.)
pub(crate) fn pop_front_if<T>(
    queue: &mut VecDeque<T>,
    wanted: impl FnOnce(&T) -> bool,
) -> Option<T> {
    if queue.front().is_some_and(wanted) { queue.pop_front() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What goes in comes out in the same order, and no more memory is held than that needs.
        #[test]
        fn agrees_with_the_standard_librarys(
            runs in prop::collection::vec((any::<bool>(), 0usize..200), 1..40)
        ) {
            // Eight to a piece.
            let item = |n: usize| [n; PIECE / size_of::<usize>() / 8];
            let mut queue = LongQueue::default();
            let mut model = VecDeque::new();
            for (n, (add, count)) in runs.into_iter().enumerate() {
                for n in (n * 1000..).take(count) {
                    if add {
                        queue.push_back(item(n));
                        model.push_back(n);
                    } else {
                        prop_assert_eq!(queue.pop_front().map(|item| item[0]), model.pop_front());
                    }
                    prop_assert_eq!(queue.len(), model.len());
                    prop_assert!(queue.pieces.len() <= model.len() / 8 + 2);
                }
            }
        }
    }
}
