//! Virtual time, and the clocks of machines that disagree about it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jsync_core::time::Time;

/// Virtual time: microseconds since the simulation began.
pub type Micros = u64;

/// Microseconds in `ms` milliseconds.
pub const fn millis(ms: u64) -> Micros {
    ms * 1000
}

/// Microseconds in `s` seconds.
pub const fn seconds(s: u64) -> Micros {
    s * 1_000_000
}

/// A machine's clock, which has an origin and a speed of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// What it shows when the simulation begins, in ms.
    pub offset_ms: u64,
    /// How much it is too fast, in millionths.
    pub drift_ppm: i32,
}

impl Clock {
    /// What it shows at `at`.
    pub fn read(&self, at: Micros) -> Time {
        let elapsed = u128::from(at) * self.speed() / 1_000_000_000;
        Time::from_millis(self.offset_ms + elapsed as u64)
    }

    /// The first moment at which it shows `time` or more.
    pub fn moment(&self, time: Time) -> Micros {
        let elapsed = u128::from(time.as_millis().saturating_sub(self.offset_ms));
        (elapsed * 1_000_000_000).div_ceil(self.speed()) as Micros
    }

    /// Its seconds in a million real ones.
    fn speed(&self) -> u128 {
        (1_000_000 + i128::from(self.drift_ppm)) as u128
    }
}

/// What is to happen, in order of time; what is due at the same moment happens in the order in
/// which it was planned.
#[derive(Debug)]
pub struct Agenda<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    planned: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Micros,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), planned: 0 }
    }
}

impl<E> Agenda<E> {
    /// Plans `event` for the moment `at`.
    pub fn plan(&mut self, at: Micros, event: E) {
        self.planned += 1;
        self.heap.push(Reverse(Entry { at, number: self.planned, event }));
    }

    /// The next event that is due at `until` or before, and its moment.
    pub fn next(&mut self, until: Micros) -> Option<(Micros, E)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_the_first_at_which_the_clock_shows_the_time() {
        for drift_ppm in [-500, 0, 500] {
            let clock = Clock { offset_ms: 1_000_000, drift_ppm };
            for ms in [1_000_000, 1_000_001, 1_012_345, 9_000_000] {
                let time = Time::from_millis(ms);
                let moment = clock.moment(time);
                assert_eq!(clock.read(moment), time, "{drift_ppm} ppm");
                assert!(moment == 0 || clock.read(moment - 1) < time, "{drift_ppm} ppm");
            }
        }
        // What is past is due now.
        assert_eq!(Clock { offset_ms: 5, drift_ppm: 0 }.moment(Time::ZERO), 0);
    }

    #[test]
    fn events_come_by_time_then_by_plan() {
        let mut agenda = Agenda::default();
        for (at, event) in [(5, 'c'), (3, 'a'), (5, 'd'), (4, 'b'), (9, 'e')] {
            agenda.plan(at, event);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.next(5)).collect();
        assert_eq!(order, [(3, 'a'), (4, 'b'), (5, 'c'), (5, 'd')]);
        assert_eq!(agenda.next(8), None);
    }
}
