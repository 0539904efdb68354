//! A queue's front, taken on a condition.

use alloc::collections::VecDeque;

/// Takes the front if there is one and `wanted` holds for it. (The standard library's own is
/// newer than the compilers that we support.)
pub(crate) fn pop_front_if<T>(
    queue: &mut VecDeque<T>,
    wanted: impl FnOnce(&T) -> bool,
) -> Option<T> {
    if queue.front().is_some_and(wanted) { queue.pop_front() } else { None }
}
