//! What the table tells: to peers, to the operator's log, and to those who look at it.

use core::net::Ipv4Addr;

use super::journal::LogEvent;
use super::record::{BibRecord, Change, SessionKey, SessionRecord, Side};
use super::session::{Session, SessionId, flag};
use super::{Table, src4_of, src6_of};
use crate::time::Time;
use crate::tuple::Endpoint4;

impl Table {
    /// Whether BIB entries and sessions are told to the operator's log.
    pub fn log(&mut self, bib: bool, sessions: bool) {
        (self.journal.bib, self.journal.sessions) = (bib, sessions);
    }

    /// The next line of the operator's log.
    pub fn pop_log(&mut self) -> Option<LogEvent> {
        self.journal.pop()
    }

    /// Whether changes are collected for peers. Removals are from the first time on: peers that
    /// hear nothing may come back.
    pub fn track_changes(&mut self, on: bool) {
        if on {
            self.changes.begin();
        } else {
            self.changes.end();
        }
    }

    /// How many things wait for [`Table::pop_change`], at most.
    pub fn changes_pending(&self) -> usize {
        self.changes.pending()
    }

    /// The next removal that peers have to be told, and its version.
    pub fn pop_removal(&mut self) -> Option<(SessionKey, u32)> {
        self.changes.pop_removed()
    }

    /// The next thing that peers have to be told; removals first. None while something waits if that
    /// begins with many sessions that have ended: the next call goes on.
    pub fn pop_change(&mut self, now: Time) -> Option<Change> {
        if let Some((key, version)) = self.pop_removal() {
            return Some(Change::Remove(key, version));
        }
        let id = self.changes.pop_dirty(&mut self.arena, &self.pool4)?;
        self.arena.session_mut(id).flags &= !flag::TOUCHED;
        Some(Change::Upsert(self.told(now, id)))
    }

    /// Sessions are collected from now on for who is at the other end of a bridge.
    pub fn track_bridge(&mut self, side: Side) {
        self.changes.begin_bridge(side);
    }

    /// How many things wait for [`Table::pop_bridge`], at most.
    pub fn bridge_pending(&self, side: Side) -> usize {
        self.changes.bridge_pending(side)
    }

    /// The next session that has to be told over a bridge; None as of [`Table::pop_change`].
    pub fn pop_bridge(&mut self, now: Time, side: Side) -> Option<SessionRecord> {
        let id = self.changes.pop_bridged(side, &mut self.arena, &self.pool4)?;
        if !self.changes.tracked {
            self.arena.session_mut(id).flags &= !flag::TOUCHED;
        }
        Some(self.told_over(now, side, id))
    }

    fn told_over(&self, now: Time, side: Side, id: SessionId) -> SessionRecord {
        match self.arena.session(id).heard() == Some(side) {
            true => self.record_of(now, id),
            false => self.told(now, id),
        }
    }

    /// A session as it is told: with slack, so that a copy lives until a refresh is told. A copy
    /// carries it already. If each that is made of another had more, those of a session that is
    /// over could go round among peers for ever.
    pub(super) fn told(&self, now: Time, id: SessionId) -> SessionRecord {
        let mut record = self.record_of(now, id);
        if self.arena.session(id).flags & flag::LOCAL != 0 {
            let slack = self.timeouts.of(record.key.proto, record.state) / 4;
            record.lifetime_ms = record.lifetime_ms.saturating_add(slack);
        }
        record
    }

    pub(super) fn key_of(&self, slot: u32, session: &Session) -> SessionKey {
        let bib = self.arena.bib(slot);
        SessionKey {
            proto: bib.proto(),
            src6: src6_of(bib),
            src4: src4_of(bib),
            dst4: Endpoint4 { addr: Ipv4Addr::from_bits(session.dst4), port: session.dst_port },
        }
    }

    pub(super) fn record_of(&self, now: Time, id: SessionId) -> SessionRecord {
        let session = self.arena.session(id);
        SessionRecord {
            key: self.key_of(self.arena.bib_of(id), session),
            state: session.state(),
            lifetime_ms: session.remaining_ms(now),
            version: session.version,
        }
    }

    /// See [`crate::nat64::Nat64::scan`].
    pub fn scan(
        &self,
        now: Time,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        self.visit(cursor, budget, &mut |id| f(self.record_of(now, id)))
    }

    /// The same, with sessions as peers are to be told of them.
    pub fn scan_told(
        &self,
        now: Time,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        self.visit(cursor, budget, &mut |id| f(self.told(now, id)))
    }

    /// The same, with sessions as they are to be told over a bridge; those that were heard over it
    /// last are left out unless `all` are wanted.
    pub fn scan_bridge(
        &self,
        now: Time,
        side: Side,
        all: bool,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        self.visit(cursor, budget, &mut |id| {
            if all || self.arena.session(id).heard() != Some(side) {
                f(self.told_over(now, side, id));
            }
        })
    }

    fn visit(&self, cursor: u32, budget: usize, f: &mut dyn FnMut(SessionId)) -> Option<u32> {
        let mut id = SessionId::from_raw(cursor);
        for _ in 0..budget {
            let (at, slots) = match id.overflow_slot() {
                None => (id.raw(), self.arena.bib_slots()),
                Some(n) => (n, self.arena.overflow_slots()),
            };
            if at >= slots {
                if id.overflow_slot().is_some() {
                    return None;
                }
                id = SessionId::overflow(0);
                continue;
            }
            if self.arena.session(id).is_live() && self.is_known(self.arena.bib_of(id)) {
                f(id);
            }
            id = SessionId::from_raw(id.raw() + 1);
        }
        Some(id.raw())
    }

    /// A BIB entry as people see it.
    pub fn bib_record(&self, slot: u32) -> BibRecord {
        let bib = self.arena.bib(slot);
        BibRecord {
            proto: bib.proto(),
            src6: src6_of(bib),
            src4: src4_of(bib),
            is_static: bib.is_static(),
            sessions: bib.sessions,
        }
    }

    /// See [`crate::nat64::Nat64::bib_scan`].
    pub fn bib_scan(
        &self,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(BibRecord),
    ) -> Option<u32> {
        let slots = self.arena.bib_slots();
        let end = slots.min(cursor.saturating_add(u32::try_from(budget).unwrap_or(u32::MAX)));
        for slot in cursor..end {
            if self.is_known(slot) {
                f(self.bib_record(slot));
            }
        }
        (end < slots).then_some(end)
    }
}
