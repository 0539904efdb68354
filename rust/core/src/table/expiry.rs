//! The timing wheel: when to look at a session next.

use alloc::vec;
use alloc::vec::Vec;

use super::bib::Arena;
use super::bitset::BitSet;
use super::session::{NIL, SessionId};
use crate::time::Time;

/// Slots of the wheel. With [`TICK_MS`] they span 35 minutes; a session that ends later is looked
/// at in between, which costs less than a hierarchy of wheels that moves everything several times.
const SLOTS: u64 = 8192;
/// Milliseconds a slot: visits are late by less than this.
pub const TICK_MS: u64 = 256;
/// Lists of a slot. Where the next record of a list lies is known when this one has come from
/// memory: of several lists as many come at once.
const LISTS: usize = 4;
/// `prev` of the first record of list `n`, those of all slots counted, is `HEAD | n`: no session
/// has such a number.
const HEAD: u32 = 1 << 30;

const _: () = assert!(crate::config::MAX_SESSIONS < HEAD);

/// A plain timing wheel whose lists run through the sessions themselves.
#[derive(Debug)]
pub struct Wheel {
    heads: Vec<[u32; LISTS]>,
    occupied: BitSet,
    /// The next tick to be handled. Every visit is due in `tick..tick + SLOTS`.
    tick: u64,
    /// The list whose turn it is: they are emptied side by side.
    turn: usize,
}

impl Default for Wheel {
    /// A wheel without sessions.
    fn default() -> Self {
        let heads = vec![[NIL; LISTS]; SLOTS as usize];
        Self { heads, occupied: BitSet::new(SLOTS as usize), tick: 0, turn: 0 }
    }
}

impl Wheel {
    /// Has the session, which stands in no list, visited `delay_ms` after `now`.
    pub fn insert(&mut self, arena: &mut Arena, id: SessionId, now: Time, delay_ms: u32) {
        if self.occupied.count() == 0 {
            // Nothing waits, so the wheel may turn to the present at no cost.
            self.tick = self.tick.max(now.as_millis() / TICK_MS);
        }
        let due = (now.as_millis() + u64::from(delay_ms)).div_ceil(TICK_MS);
        let slot = (due.clamp(self.tick, self.tick + SLOTS - 1) % SLOTS) as usize;
        let list = id.raw() as usize % LISTS;
        let head = core::mem::replace(&mut self.heads[slot][list], id.raw());
        if head == NIL {
            self.occupied.insert(slot);
        } else {
            arena.session_mut(SessionId::from_raw(head)).prev = id.raw();
        }
        let session = arena.session_mut(id);
        session.next = head;
        session.prev = HEAD | (slot * LISTS + list) as u32;
    }

    /// Takes the session out of its list.
    pub fn remove(&mut self, arena: &mut Arena, id: SessionId) {
        let session = arena.session_mut(id);
        let (next, prev) = (session.next, session.prev);
        (session.next, session.prev) = (NIL, NIL);
        if next != NIL {
            arena.session_mut(SessionId::from_raw(next)).prev = prev;
        }
        if prev & HEAD == 0 {
            arena.session_mut(SessionId::from_raw(prev)).next = next;
        } else {
            let list = (prev & !HEAD) as usize;
            let slot = list / LISTS;
            self.heads[slot][list % LISTS] = next;
            if next == NIL && self.heads[slot] == [NIL; LISTS] {
                self.occupied.remove(slot);
            }
        }
    }

    /// Takes out a session whose visit is due.
    pub fn pop_due(&mut self, arena: &mut Arena, now: Time) -> Option<SessionId> {
        let last = now.as_millis() / TICK_MS;
        let (tick, slot) = self.earliest()?;
        if tick > last {
            self.tick = self.tick.max(last);
            return None;
        }
        self.tick = tick;
        let heads = &self.heads[slot];
        let (turn, id) = (0..LISTS)
            .map(|n| (self.turn + n) % LISTS)
            .map(|list| (list, heads[list]))
            .find(|&(_, id)| id != NIL)?;
        self.turn = turn + 1;
        let id = SessionId::from_raw(id);
        self.remove(arena, id);
        Some(id)
    }

    /// Loads the records of sessions that [`Wheel::pop_due`] takes out next, and tells which: up to
    /// `N` that are due in the same tick, put into `ids`. Returns how many.
    pub fn load_due<const N: usize>(
        &self,
        arena: &Arena,
        now: Time,
        ids: &mut [SessionId; N],
    ) -> usize {
        let mut len = 0;
        let due = self.earliest().filter(|&(tick, _)| tick <= now.as_millis() / TICK_MS);
        let Some((_, slot)) = due else { return 0 };
        let mut heads = self.heads[slot];
        while len + LISTS <= N && heads != [NIL; LISTS] {
            for at in heads.iter_mut().filter(|at| **at != NIL) {
                ids[len] = SessionId::from_raw(*at);
                *at = arena.session(ids[len]).next;
                len += 1;
            }
        }
        len
    }

    /// When the next visit is due.
    pub fn next_due(&self) -> Option<Time> {
        self.earliest().map(|(tick, _)| Time::from_millis(tick * TICK_MS))
    }

    fn earliest(&self) -> Option<(u64, usize)> {
        let start = (self.tick % SLOTS) as usize;
        let slot = self.occupied.next_around(0, start, SLOTS as usize)?;
        let ahead = (slot as u64 + SLOTS - start as u64) % SLOTS;
        Some((self.tick + ahead, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::State;
    use super::super::session::Session;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn arena(sessions: u32) -> (Arena, Vec<SessionId>) {
        let mut arena = Arena::new(sessions);
        let ids = (0..sessions)
            .map(|n| {
                let session = Session::new(n, 0, State::Established, 0, 0);
                arena.add_overflow(session, 0).unwrap()
            })
            .collect();
        (arena, ids)
    }

    #[test]
    fn visits_are_late_by_less_than_a_tick() {
        let (mut arena, ids) = arena(1);
        for (start, delay) in [(0, 0), (1, 1), (1000, 300_000), (77, 2_000_000)] {
            let mut wheel = Wheel::default();
            let due = Time::from_millis(start + delay);
            wheel.insert(&mut arena, ids[0], Time::from_millis(start), delay as u32);
            let told = wheel.next_due().unwrap();
            assert!(told >= due && told.millis_since(due) < TICK_MS, "{start} {delay}");
            if told > Time::ZERO {
                assert_eq!(wheel.pop_due(&mut arena, told - 1), None);
            }
            assert_eq!(wheel.pop_due(&mut arena, told), Some(ids[0]));
            assert_eq!(wheel.next_due(), None);
        }
    }

    #[test]
    fn a_distant_visit_comes_at_the_horizon() {
        let (mut arena, ids) = arena(1);
        let mut wheel = Wheel::default();
        wheel.insert(&mut arena, ids[0], Time::ZERO, 7_200_000);
        assert_eq!(wheel.next_due(), Some(Time::from_millis((SLOTS - 1) * TICK_MS)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is inserted and removed in whatever order comes out once, when it is due.
        #[test]
        fn agrees_with_a_map(
            ops in prop::collection::vec((0usize..24, 0u32..2_000_000, 0u64..3_000_000), 1..200)
        ) {
            let (mut arena, ids) = arena(24);
            let mut wheel = Wheel::default();
            let mut model: BTreeMap<usize, u64> = BTreeMap::new();
            let mut now = Time::ZERO;
            for (n, delay, step) in ops {
                if model.remove(&n).is_some() {
                    wheel.remove(&mut arena, ids[n]);
                } else {
                    wheel.insert(&mut arena, ids[n], now, delay);
                    model.insert(n, (now.as_millis() + u64::from(delay)).div_ceil(TICK_MS));
                }
                if step % 3 == 0 {
                    now = now + step;
                    while let Some(id) = wheel.pop_due(&mut arena, now) {
                        let n = ids.iter().position(|&i| i == id).unwrap();
                        let due = model.remove(&n).expect("popped once");
                        prop_assert!(due <= now.as_millis() / TICK_MS);
                    }
                    prop_assert!(model.values().all(|&due| due > now.as_millis() / TICK_MS));
                }
                let next = wheel.next_due().map(|t| t.as_millis() / TICK_MS);
                prop_assert_eq!(next, model.values().min().copied());
            }
        }
    }
}
