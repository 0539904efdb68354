//! BIB entries as they lie in memory, and the arena of all records.

use alloc::vec::Vec;
use core::ops::Range;

use super::session::{NIL, Overflow, Session, SessionId};
use crate::tuple::Proto;

/// A BIB entry in one cache line, with its first session. Of a free record only the session's
/// `next` means something.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Bib {
    /// The IPv6 node's address (X').
    pub src6: u128,
    /// Its mask's address (T).
    pub src4: u32,
    /// The IPv6 node's port or identifier (x).
    pub port6: u16,
    /// Its mask's port or identifier (t).
    pub port4: u16,
    /// How many sessions it has, the one inside included.
    pub sessions: u32,
    /// The version of one of its sessions, the latest unless that has ended: of two mappings that
    /// exclude each other, the later stays.
    pub newest: u32,
    /// A [`Proto`] as its number.
    proto: u8,
    /// See [`bib_flag`].
    pub flags: u8,
    /// The first session, if it lives.
    pub first: Session,
    /// Slot of its subscriber, where subscribers are limited.
    pub subscriber: u32,
}

const _: () = assert!(size_of::<Bib>() == 64);

/// Flags of a BIB entry.
pub mod bib_flag {
    /// The record holds an entry that the indexes know.
    pub const LIVE: u8 = 1;
    /// The operator made it.
    pub const STATIC: u8 = 2;
    /// Traffic here has used it; else it is a peer's copy, or static and unused.
    pub const LOCAL: u8 = 8;
    /// The entry was removed while it had sessions beyond the first: nothing finds it any more,
    /// and its slot is free when the last of them is swept.
    pub const DYING: u8 = 4;
    /// The entry is counted in a port block.
    pub const IN_BLOCK: u8 = 16;
    /// `newest` is the version of a session that has ended.
    pub const OUTDATED: u8 = 32;
}

impl Bib {
    const FREE: Self = Self {
        src6: 0,
        src4: 0,
        port6: 0,
        port4: 0,
        sessions: 0,
        newest: 0,
        proto: 0,
        flags: 0,
        first: Session::FREE,
        subscriber: NIL,
    };

    /// A dynamic entry without sessions.
    pub fn new(proto: Proto, src6: u128, port6: u16, src4: u32, port4: u16) -> Self {
        Self { src6, src4, port6, port4, proto: proto as u8, flags: bib_flag::LIVE, ..Self::FREE }
    }

    /// Its protocol.
    #[inline]
    pub fn proto(&self) -> Proto {
        Proto::from_u8(self.proto).unwrap_or(Proto::Icmp)
    }

    /// Whether the operator made it.
    #[inline]
    pub fn is_static(&self) -> bool {
        self.flags & bib_flag::STATIC != 0
    }

    /// Whether the record holds an entry that the indexes know.
    #[inline]
    pub fn is_live(&self) -> bool {
        self.flags & bib_flag::LIVE != 0
    }

    /// Whether this is the entry of that IPv6 transport address.
    #[inline]
    pub fn has_src6(&self, proto: Proto, src6: u128, port6: u16) -> bool {
        self.src6 == src6 && self.port6 == port6 && self.proto == proto as u8
    }
}

/// All records. The capacity is reserved once, so nothing ever moves, and only pages that were
/// used take memory.
#[derive(Debug)]
pub struct Arena {
    bibs: Vec<Bib>,
    bib_free: u32,
    overflow: Vec<Overflow>,
    overflow_free: u32,
    capacity: u32,
}

impl Arena {
    /// An arena for `capacity` BIB entries and as many sessions beyond their first.
    pub fn new(capacity: u32) -> Self {
        Self {
            bibs: Vec::with_capacity(capacity as usize),
            bib_free: NIL,
            overflow: Vec::with_capacity(capacity as usize),
            overflow_free: NIL,
            capacity,
        }
    }

    /// BIB slots in use or free again; slots are below this.
    pub fn bib_slots(&self) -> u32 {
        self.bibs.len() as u32
    }

    /// The same for overflow records.
    pub fn overflow_slots(&self) -> u32 {
        self.overflow.len() as u32
    }

    /// Bytes of the records that were ever used.
    pub fn bytes(&self) -> usize {
        self.bibs.len() * size_of::<Bib>() + self.overflow.len() * size_of::<Overflow>()
    }

    /// The addresses of what was reserved and never used, BIB entries and further sessions.
    pub fn unused_memory(&self) -> [Range<usize>; 2] {
        fn behind<T>(records: &Vec<T>) -> Range<usize> {
            let all = records.as_ptr_range();
            all.end.addr()..all.start.addr() + records.capacity() * size_of::<T>()
        }
        [behind(&self.bibs), behind(&self.overflow)]
    }

    /// The BIB entry of that slot.
    #[inline]
    pub fn bib(&self, slot: u32) -> &Bib {
        &self.bibs[slot as usize]
    }

    /// The same, to be changed.
    #[inline]
    pub fn bib_mut(&mut self, slot: u32) -> &mut Bib {
        &mut self.bibs[slot as usize]
    }

    /// A session.
    #[inline]
    pub fn session(&self, id: SessionId) -> &Session {
        match id.overflow_slot() {
            None => &self.bibs[id.raw() as usize].first,
            Some(slot) => &self.overflow[slot as usize].session,
        }
    }

    /// The same, to be changed.
    #[inline]
    pub fn session_mut(&mut self, id: SessionId) -> &mut Session {
        match id.overflow_slot() {
            None => &mut self.bibs[id.raw() as usize].first,
            Some(slot) => &mut self.overflow[slot as usize].session,
        }
    }

    /// The slot of a session's BIB entry.
    #[inline]
    pub fn bib_of(&self, id: SessionId) -> u32 {
        match id.overflow_slot() {
            None => id.raw(),
            Some(slot) => self.overflow[slot as usize].bib,
        }
    }

    /// Stores a BIB entry, unless all slots are taken.
    pub fn add_bib(&mut self, bib: Bib) -> Option<u32> {
        if self.bib_free != NIL {
            let slot = self.bib_free;
            let place = &mut self.bibs[slot as usize];
            self.bib_free = place.first.next;
            let first = bib.first.in_place_of(&place.first);
            *place = Bib { first, ..bib };
            return Some(slot);
        }
        if self.bibs.len() >= self.capacity as usize {
            return None;
        }
        self.bibs.push(bib);
        Some(self.bibs.len() as u32 - 1)
    }

    /// Frees a BIB slot.
    pub fn free_bib(&mut self, slot: u32) {
        let place = &mut self.bibs[slot as usize];
        let first = Session::free(self.bib_free).in_place_of(&place.first);
        *place = Bib { first, ..Bib::FREE };
        self.bib_free = slot;
    }

    /// Stores a session beyond the first of BIB slot `bib`, unless all slots are taken.
    pub fn add_overflow(&mut self, session: Session, bib: u32) -> Option<SessionId> {
        if self.overflow_free != NIL {
            let slot = self.overflow_free;
            let place = &mut self.overflow[slot as usize];
            self.overflow_free = place.session.next;
            *place = Overflow { session: session.in_place_of(&place.session), bib };
            return Some(SessionId::overflow(slot));
        }
        if self.overflow.len() >= self.capacity as usize {
            return None;
        }
        self.overflow.push(Overflow { session, bib });
        Some(SessionId::overflow(self.overflow.len() as u32 - 1))
    }

    /// Frees a session's record.
    pub fn free_session(&mut self, id: SessionId) {
        let Some(slot) = id.overflow_slot() else {
            let first = &mut self.bibs[id.raw() as usize].first;
            *first = Session::FREE.in_place_of(first);
            return;
        };
        let place = &mut self.overflow[slot as usize];
        let session = Session::free(self.overflow_free).in_place_of(&place.session);
        *place = Overflow { session, bib: NIL };
        self.overflow_free = slot;
    }
}
