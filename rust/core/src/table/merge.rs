//! Sessions that peers tell of.
//!
//! A version is a generation and, below it, a count. Of two copies of a session the one of the
//! later generation is the newer. Within a generation the TCP state only rises: it stands for the
//! SYNs and FINs that were seen, and copies are joined into the least state that knows what either
//! knows, with the later count. So no half of a handshake that went through two nodes is
//! forgotten. What goes back (a RST, the end of an established session's lifetime, a new session
//! in place of one that ended) begins a generation.
//!
//! Mappings that exclude each other are ordered by the versions of the sessions that they have, then
//! by their addresses. So two nodes that take each other's tables, until neither has news for the
//! other, have the same, whatever they heard before. Who ends its
//! own mapping for another tells of the other too: a peer that hears of the end and not of what
//! took its place would have neither.

use alloc::vec::Vec;
use core::hint::black_box;

use super::bib::{Bib, bib_flag};
use super::expiry::TICK_MS;
use super::record::{Change, Learned, SessionKey, SessionRecord, State};
use super::session::{Session, SessionId, deadline, flag};
use super::{COUNT, Table, generation, is_newer};
use crate::mutant::Mutant;
use crate::time::Time;
use crate::tuple::Proto;

/// What became of a peer's session, and whether a mapping of ours stood against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// What became of it.
    pub learned: Learned,
    /// A mapping excludes it: that is gone if the session was applied, else the session is.
    pub collided: bool,
}

impl From<Learned> for Merge {
    fn from(learned: Learned) -> Self {
        Self { learned, collided: learned == Learned::Collision }
    }
}

impl Table {
    /// Loads what merging these changes will look at: first the indexes, then the records. Within
    /// each the loads don't depend on each other, and there is little between one and the next, so
    /// the processor has many under way at once.
    pub fn look_ahead(&self, changes: &[Change]) {
        let keys = || {
            changes.iter().map(|change| match change {
                Change::Upsert(record) => &record.key,
                Change::Remove(key, _) => key,
            })
        };
        let tag = |key: &SessionKey| self.tag6(key.proto, key.src6.addr.to_bits(), key.src6.port);
        let tags: Vec<u32> = keys().map(tag).collect();
        black_box(tags.iter().fold(0, |all, &tag| all ^ self.by_src6.load(tag)));
        let owner =
            |key: &SessionKey| self.find4(key.proto, key.src4.addr.to_bits(), key.src4.port);
        let mut slots: Vec<u32> = keys().filter_map(owner).collect();
        slots.extend(tags.into_iter().filter_map(|tag| self.guess6(tag)));
        let live = |slot: &&u32| self.bib(**slot).is_live();
        black_box(slots.iter().filter(live).count());
    }

    /// Merges a peer's session.
    pub fn learn(&mut self, now: Time, record: &SessionRecord) -> Merge {
        let key = &record.key;
        let (src6, src4) = (key.src6.addr.to_bits(), key.src4.addr.to_bits());
        if !self.is_plausible(record) {
            return Learned::Rejected.into();
        }
        let longest = self.timeouts.of(key.proto, record.state);
        let lifetime = record.lifetime_ms.min(longest.saturating_add(longest / 4));

        let by6 = self.find6(key.proto, src6, key.src6.port);
        let by4 = self.find4(key.proto, src4, key.src4.port);
        if let (Some(slot), Some(same)) = (by6, by4)
            && slot == same
        {
            let dst = (key.dst4.addr.to_bits(), key.dst4.port);
            return match self.find_session(slot, dst.0, dst.1) {
                Some(id) => self.merge_session(now, id, record, lifetime).into(),
                None => self.adopt(now, slot, record, lifetime).into(),
            };
        }
        let rivals = [by6, by4];
        let yields = |slot: &u32| self.yields(self.bib(*slot), record);
        if !rivals.iter().flatten().all(yields) {
            return Learned::Collision.into();
        }
        if !self.has_room() && rivals == [None, None] {
            return Learned::Full.into();
        }
        let ends_are_told = rivals.iter().flatten().any(|&slot| self.is_ours(slot));
        for slot in rivals.into_iter().flatten() {
            self.remove_bib(slot);
        }
        let collided = rivals != [None, None];
        let learned = match self.create_bib(key.proto, key.src6, key.src4, false) {
            Ok(slot) => self.adopt(now, slot, record, lifetime),
            Err(_) => Learned::Full,
        };
        if ends_are_told
            && self.changes.tracked
            && let Some(id) = self.find(key)
        {
            self.changes.push_dirty(&mut self.arena, id);
        }
        Merge { learned, collided }
    }

    /// Merges a peer's removal. False if there is no such session, or a version of it that the
    /// peer didn't know: whoever refreshes a session prevails over who ends it.
    pub fn unlearn(&mut self, key: &SessionKey, version: u32) -> bool {
        let Some(id) = self.find(key) else { return false };
        let session = self.arena.session_mut(id);
        if !is_newer(version, session.version) {
            return false;
        }
        if session.flags & flag::LOCAL != 0 && self.changes.waits(session) {
            // It has news that wait to be told, so the peer didn't know them: they are told in a
            // version that the removal doesn't end.
            session.version = version;
            self.note_version(id, version);
            return false;
        }
        // The peer tells everybody; its version is what a new session has to exceed.
        session.flags &= !flag::LOCAL;
        session.version = version;
        self.remove_session(id);
        true
    }

    /// A peer told of the session after it was removed elsewhere at this version: it prevails, in a
    /// version that the removal doesn't end, and everybody is told.
    pub fn revive(&mut self, key: &SessionKey, removed: u32) {
        let Some(id) = self.find(key) else { return };
        let session = self.arena.session_mut(id);
        if !is_newer(removed, session.version) {
            return;
        }
        session.version = removed;
        let waits = self.changes.waits(session);
        self.note_version(id, removed);
        if self.changes.tracked && !waits {
            self.changes.push_dirty(&mut self.arena, id);
        }
    }

    /// Whether the session is here.
    pub fn has(&self, key: &SessionKey) -> bool {
        self.find(key).is_some()
    }

    fn find(&self, key: &SessionKey) -> Option<SessionId> {
        self.find6(key.proto, key.src6.addr.to_bits(), key.src6.port)
            .filter(|&slot| super::src4_of(self.bib(slot)) == key.src4)
            .and_then(|slot| self.find_session(slot, key.dst4.addr.to_bits(), key.dst4.port))
    }

    /// Whether the session could have come from a table like ours.
    pub(super) fn is_plausible(&self, record: &SessionRecord) -> bool {
        let key = &record.key;
        record.lifetime_ms > 0
            && (key.proto == Proto::Tcp || record.state == State::Established)
            && (key.proto != Proto::Icmp || key.dst4.port == key.src4.port)
            && self.pool4.contains(key.proto, key.src4.addr.to_bits(), key.src4.port)
    }

    /// Whether packets here made or used the mapping, so that peers are told of its end.
    fn is_ours(&self, slot: u32) -> bool {
        let bib = self.bib(slot);
        bib.flags & bib_flag::LOCAL != 0 || bib.first.flags & flag::LOCAL != 0
    }

    /// Whether the mapping has to make room for the record's.
    fn yields(&self, bib: &Bib, record: &SessionRecord) -> bool {
        if bib.is_static() {
            return false;
        }
        if bib.flags & bib_flag::OUTDATED != 0 {
            // What it still has may be older than the record. Else that has to make room in turn,
            // where a peer tells of it.
            return true;
        }
        if bib.newest != record.version {
            return is_newer(record.version, bib.newest);
        }
        let ours = (super::src6_of(bib), super::src4_of(bib));
        (record.key.src6, record.key.src4) < ours
    }

    fn adopt(&mut self, now: Time, slot: u32, record: &SessionRecord, lifetime: u32) -> Learned {
        let dst = &record.key.dst4;
        let mut session = Session::new(
            dst.addr.to_bits(),
            dst.port,
            record.state,
            deadline(now, lifetime),
            record.version,
        );
        // The first packet that comes here is news to the peers.
        session.flags |= flag::IDLE;
        self.follow_versions(record);
        match self.insert_session(now, slot, session) {
            Ok(id) => {
                self.note_version(id, record.version);
                self.changes.push_bridged(&mut self.arena, id);
                Learned::Applied
            }
            Err(_) => {
                if self.bib(slot).sessions == 0 && !self.bib(slot).is_static() {
                    self.remove_bib(slot);
                }
                Learned::Full
            }
        }
    }

    fn merge_session(
        &mut self,
        now: Time,
        id: SessionId,
        record: &SessionRecord,
        lifetime: u32,
    ) -> Learned {
        let longest = self.timeouts.of(record.key.proto, record.state);
        let has_passed_here = self.arena.bib(self.arena.bib_of(id)).flags & bib_flag::LOCAL != 0;
        let session = self.arena.session_mut(id);
        let (old, told) = (session.version, record.version);
        let before = (session.state(), session.remaining_ms(now));
        let same_generation = generation(old) == generation(told);
        let own = Mutant::KeepsOwnCopy.is_on() && session.flags & flag::LOCAL != 0;
        if own || !same_generation && is_newer(old, told) {
            return Learned::Stale;
        }
        let state = match same_generation {
            true if Mutant::ForgetsHalves.is_on() && is_newer(old, told) => before.0,
            true if Mutant::ForgetsHalves.is_on() => record.state,
            true => join(before.0, record.state),
            false => record.state,
        };
        // Whether the peer's copy takes the place of ours; else the two are joined.
        let newer = is_newer(told, old) && state == record.state;
        let lifetime = if state == before.0 {
            // The longer of two lifetimes in one state; an earlier state's says nothing.
            if state == record.state { lifetime.max(before.1) } else { before.1 }
        } else if state == record.state {
            // A later state brings its own lifetime, which may be shorter.
            lifetime
        } else {
            // Nobody has told of a packet in this state yet: that which led to it has come.
            self.timeouts.of(record.key.proto, state)
        };
        let version = if is_newer(told, old) { told } else { old };
        if (state, lifetime, version) == (before.0, before.1, old) {
            let stale = state != record.state || told != old;
            return if stale { Learned::Stale } else { Learned::Unchanged };
        }
        session.set_state(state);
        session.deadline = deadline(now, lifetime);
        session.version = version;
        if newer {
            session.flags &= !(flag::LOCAL | flag::DIRTY | flag::TOUCHED);
        }
        // What the teller's copy has beyond the timeout, the others' have too. As long as that
        // covers what comes here, nobody has to be told: else two nodes through which the packets
        // of a session come in turn would tell each other of each.
        let covered = record.lifetime_ms.saturating_sub(longest.saturating_add(longest / 4));
        let is_covered = has_passed_here && state == before.0 && covered > TICK_MS as u32;
        if newer || state != before.0 {
            let idle = if is_covered { 0 } else { flag::IDLE };
            session.flags = session.flags & !(flag::HEARD | flag::IDLE) | idle;
        }
        let untold = session.flags & (flag::LOCAL | flag::DIRTY) == flag::LOCAL
            && (state, version) != (record.state, told)
            && (state, version) != (before.0, old);
        self.note_version(id, version);
        if newer || state != before.0 {
            self.changes.push_bridged(&mut self.arena, id);
        }
        if untold && self.changes.tracked {
            // Whoever hears of both copies joins them alike; the others hear of it from here.
            self.changes.push_dirty(&mut self.arena, id);
        }
        if newer && is_covered {
            self.arm_within(now, id, covered);
        } else if lifetime < before.1 {
            self.arm(now, id);
        }
        Learned::Applied
    }

    /// Follows the versions of peers, so that of one connection's segments that go through two
    /// nodes at once both begin in the same generation.
    fn follow_versions(&mut self, record: &SessionRecord) {
        let fresh =
            record.key.proto != Proto::Tcp || matches!(record.state, State::V4Init | State::V6Init);
        let before = (record.version & !COUNT).wrapping_sub(1);
        if fresh && is_newer(before, self.clock | COUNT) {
            self.clock = before;
        }
    }
}

/// The least state that is as far as both. Below ESTABLISHED stand V4 INIT, V6 INIT and TRANS,
/// none before another; above it the two FIN states, and above those the last.
pub(super) fn join(a: State, b: State) -> State {
    use State::*;
    let level = |state| match state {
        V4Init | V6Init | Trans => 0,
        Established => 1,
        V4FinRcv | V6FinRcv => 2,
        V4FinV6FinRcv => 3,
    };
    match level(a).cmp(&level(b)) {
        core::cmp::Ordering::Less => b,
        core::cmp::Ordering::Greater => a,
        core::cmp::Ordering::Equal if a == b => a,
        core::cmp::Ordering::Equal if level(a) == 0 => Established,
        core::cmp::Ordering::Equal => V4FinV6FinRcv,
    }
}
