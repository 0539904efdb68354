//! What keeps a session alive, and what notices its end.

use core::hint::black_box;

use super::merge::join;
use super::session::{NIL, SessionId, deadline, flag};
use super::{COUNT, Table, bib::bib_flag, expiry, is_newer};
use crate::mutant::Mutant;
use crate::table::State;
use crate::time::Time;

/// Sessions whose memory is loaded together when they are due.
const AHEAD: usize = 16;

impl Table {
    /// A packet was seen: the session lives for `lifetime_ms` from now, or for as much longer as
    /// peers have been told.
    #[inline(always)]
    pub fn refresh(&mut self, now: Time, id: SessionId, lifetime_ms: u32) {
        let session = self.arena.session_mut(id);
        let new = deadline(now, lifetime_ms);
        let earlier = is_newer(session.deadline, new);
        if !earlier {
            session.deadline = new;
        }
        let before = session.flags;
        session.flags = before & !flag::HEARD | flag::TOUCHED | flag::LOCAL;
        if before & flag::IDLE != 0 || earlier {
            self.refresh_told(now, id, lifetime_ms);
        }
    }

    /// A refresh of which peers may have to be told, or which the wheel has to know.
    #[cold]
    fn refresh_told(&mut self, now: Time, id: SessionId, lifetime_ms: u32) {
        let session = self.arena.session_mut(id);
        // A peer's copy has a quarter more. Beyond that another configuration has made lifetimes
        // end earlier.
        let too_long = session.remaining_ms(now) > lifetime_ms.saturating_add(lifetime_ms / 4);
        if too_long {
            session.deadline = deadline(now, lifetime_ms);
        } else if session.flags & flag::IDLE == 0 {
            return;
        }
        session.flags &= !flag::IDLE;
        let slot = self.arena.bib_of(id);
        self.arena.bib_mut(slot).flags |= bib_flag::LOCAL;
        if !Mutant::SkipsRefreshes.is_on() {
            self.mark_changed(id);
        }
        self.arm(now, id);
    }

    /// Changes the TCP state and gives the session `lifetime_ms` from now.
    pub fn change_state(&mut self, now: Time, id: SessionId, state: State, lifetime_ms: u32) {
        let session = self.arena.session(id);
        let earlier = lifetime_ms < session.remaining_ms(now);
        self.enter_state(id, state);
        let session = self.arena.session_mut(id);
        session.deadline = deadline(now, lifetime_ms);
        let idle = session.flags & flag::IDLE != 0;
        let cleared = flag::IDLE | flag::HEARD;
        session.flags = session.flags & !cleared | flag::TOUCHED | flag::LOCAL;
        if earlier || idle || session.prev == NIL {
            self.arm(now, id);
        }
        self.mark_changed(id);
    }

    /// Changes the TCP state. One that takes back what was seen begins a generation: see
    /// [`super::merge`].
    pub(super) fn enter_state(&mut self, id: SessionId, state: State) {
        let session = self.arena.session_mut(id);
        let goes_back = join(session.state(), state) != state;
        session.set_state(state);
        if goes_back {
            session.version = (session.version | COUNT).wrapping_add(1);
            let version = session.version;
            self.note_version(id, version);
        }
    }

    /// Has the wheel look at the session when it ends. If peers have to be told that it goes on,
    /// also a quarter of its timeout after its last packet: until then their copies' slack covers
    /// whatever comes. After that the next packet is told at once.
    pub(super) fn arm(&mut self, now: Time, id: SessionId) {
        self.arm_within(now, id, u32::MAX);
    }

    /// The same, where peers' copies cover what comes here for `covered_ms` at most.
    pub(super) fn arm_within(&mut self, now: Time, id: SessionId, covered_ms: u32) {
        let slot = self.arena.bib_of(id);
        let session = *self.arena.session(id);
        let remaining = session.remaining_ms(now);
        let mut delay = remaining;
        if self.changes.anybody() && session.flags & flag::IDLE == 0 {
            let timeout = self.timeouts.of(self.arena.bib(slot).proto(), session.state());
            let quarter = timeout / 4;
            // Beyond the timeout is what a peer told of, which says nothing of when it was told.
            let covered = remaining.saturating_sub(timeout - quarter).min(quarter).min(covered_ms);
            // The wheel is late by up to a tick; the slack isn't.
            let covered = covered.saturating_sub(expiry::TICK_MS as u32);
            if covered == 0 {
                self.arena.session_mut(id).flags |= flag::IDLE;
            } else {
                delay = covered;
            }
        }
        if session.prev != NIL {
            self.wheel.remove(&mut self.arena, id);
        }
        self.wheel.insert(&mut self.arena, id, now, delay);
    }

    /// Peers have to be told of the session. Its version grows even while nobody listens: a peer
    /// that was cut off may have changed its copy, and the two have to be told apart.
    pub(super) fn mark_changed(&mut self, id: SessionId) {
        self.changes.push_bridged(&mut self.arena, id);
        let session = self.arena.session_mut(id);
        if self.changes.waits(session) {
            return;
        }
        session.version = session.version.wrapping_add(1);
        let version = session.version;
        self.note_version(id, version);
        if self.changes.tracked {
            self.changes.push_dirty(&mut self.arena, id);
        }
    }

    pub(super) fn note_version(&mut self, id: SessionId, version: u32) {
        let slot = self.arena.bib_of(id);
        let bib = self.arena.bib_mut(slot);
        let outdated = bib.sessions <= 1 || bib.flags & bib_flag::OUTDATED != 0;
        if outdated || is_newer(version, bib.newest) {
            bib.newest = version;
            bib.flags &= !bib_flag::OUTDATED;
        }
    }

    /// A session whose lifetime is over. Visits whatever else the wheel has due, `budget` sessions
    /// at most. The caller ends the session or changes its state.
    pub fn pop_expired(&mut self, now: Time, budget: &mut usize) -> Option<SessionId> {
        while *budget > 0 {
            if budget.is_multiple_of(AHEAD) {
                self.load_due(now);
            }
            *budget -= 1;
            let id = self.wheel.pop_due(&mut self.arena, now)?;
            if !self.is_known(self.arena.bib_of(id)) {
                self.remove_session(id);
                continue;
            }
            let session = self.arena.session_mut(id);
            if session.remaining_ms(now) == 0 {
                return Some(id);
            }
            if session.flags & flag::TOUCHED != 0 && !Mutant::SkipsRefreshes.is_on() {
                self.mark_changed(id);
            } else {
                session.flags |= flag::IDLE;
            }
            self.arm(now, id);
        }
        None
    }

    /// Has the memory that the end of the next [`AHEAD`] sessions will touch come side by side.
    fn load_due(&self, now: Time) {
        let mut ids = [SessionId::from_raw(NIL); AHEAD];
        let len = self.wheel.load_due(&self.arena, now, &mut ids);
        let mut loaded = 0;
        for &id in &ids[..len] {
            let slot = self.arena.bib_of(id);
            let bib = self.arena.bib(slot);
            if id.overflow_slot().is_some() {
                let session = self.arena.session(id);
                let tag = self.tag_session(slot, session.dst4, session.dst_port);
                loaded ^= self.by_dst4.load(tag);
            }
            let proto = bib.proto();
            loaded ^= self.by_src6.load(self.tag6(proto, bib.src6, bib.port6));
            loaded ^= self.pool4.load(proto, bib.src4, bib.port4);
        }
        black_box(loaded);
    }

    /// When [`Table::pop_expired`] has something to do.
    pub fn next_due(&self) -> Option<Time> {
        self.wheel.next_due()
    }
}
