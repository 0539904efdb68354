//! Sessions as they lie in memory.

use super::record::{Side, State};
use crate::time::Time;

/// Which session: the one inside BIB entry `n`, or number `n` of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(u32);

impl SessionId {
    const OVERFLOW: u32 = 1 << 31;

    /// The session inside the BIB entry of that slot.
    #[inline]
    pub const fn inline(bib: u32) -> Self {
        Self(bib)
    }

    /// A session with a record of its own.
    #[inline]
    pub const fn overflow(slot: u32) -> Self {
        Self(slot | Self::OVERFLOW)
    }

    /// The slot among the overflow records, or None for a session inside its BIB entry.
    #[inline]
    pub const fn overflow_slot(self) -> Option<u32> {
        if self.0 & Self::OVERFLOW != 0 { Some(self.0 & !Self::OVERFLOW) } else { None }
    }

    /// As a number, for the links between records.
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Back from a number.
    #[inline]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

/// Flags of a session.
pub mod flag {
    /// The record holds a session.
    pub const LIVE: u8 = 1;
    /// Traffic here refreshed it after peers were last told.
    pub const TOUCHED: u8 = 2;
    /// A quarter of its timeout went by without traffic: the next packet is told to peers.
    pub const IDLE: u8 = 4;
    /// It stands in the list of changes.
    pub const DIRTY: u8 = 8;
    /// Traffic here made or refreshed it, so its end is ours to tell; else it is a peer's copy.
    pub const LOCAL: u8 = 16;
    /// The last news of it came over a bridge, see [`super::Session::heard`]: it is ours to tell
    /// peers of, but not to tell back.
    pub const HEARD: u8 = 32;
    /// It stands in the list of what joolds have to be told.
    pub const FOR_JOOLDS: u8 = 64;
    /// It stands in the list of what the kernel module has to be told.
    pub const FOR_MODULE: u8 = 128;
}

/// The bits of a [`State`]'s number.
const STATE: u8 = 7;
/// Beside the state: of a session that was heard, that the kernel module told of it.
const HEARD_OF_MODULE: u8 = 128;
/// Beside the state: the lists of changes in which the record's number stands, be it on behalf of
/// an earlier session.
const LISTED: u8 = 8 | 16 | 32;

/// No record, at the ends of lists.
pub const NIL: u32 = u32::MAX;

/// A list of changes, as its bit of [`LISTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChangeList {
    /// What peers have to be told.
    Dirty = 8,
    /// What joolds have to be told.
    Joolds = 16,
    /// What the kernel module has to be told.
    Module = 32,
}

/// A session's 24 bytes. Of a free record only `next` means something, and [`LISTED`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Session {
    /// The IPv4 node's address.
    pub dst4: u32,
    /// Its port; for ICMP the identifier of src4.
    pub dst_port: u16,
    /// A [`State`] as its number, [`HEARD_OF_MODULE`] and [`LISTED`].
    state: u8,
    /// See [`flag`].
    pub flags: u8,
    /// When it ends, in milliseconds modulo 2^32.
    pub deadline: u32,
    /// The next in its list of the wheel.
    pub next: u32,
    /// The previous one, or the head of the list.
    pub prev: u32,
    /// See [`super::SessionRecord`].
    pub version: u32,
}

impl Session {
    /// No session.
    pub const FREE: Self = Self {
        dst4: 0,
        dst_port: 0,
        state: 0,
        flags: 0,
        deadline: 0,
        next: NIL,
        prev: NIL,
        version: 0,
    };

    /// No session, in front of that free record.
    pub fn free(next: u32) -> Self {
        Self { next, ..Self::FREE }
    }

    /// A session that stands in no list yet.
    pub fn new(dst4: u32, dst_port: u16, state: State, deadline: u32, version: u32) -> Self {
        Self {
            dst4,
            dst_port,
            state: state as u8,
            flags: flag::LIVE,
            deadline,
            version,
            ..Self::FREE
        }
    }

    /// Whether the record holds a session.
    #[inline]
    pub fn is_live(&self) -> bool {
        self.flags & flag::LIVE != 0
    }

    /// Its TCP state.
    #[inline]
    pub fn state(&self) -> State {
        State::from_u8(self.state & STATE).unwrap_or(State::Trans)
    }

    /// Changes its TCP state.
    #[inline]
    pub fn set_state(&mut self, state: State) {
        self.state = self.state & !STATE | state as u8;
    }

    /// The same session in a record that has held another one, or none.
    #[inline]
    pub fn in_place_of(self, other: &Self) -> Self {
        Self { state: self.state & !LISTED | other.state & LISTED, ..self }
    }

    /// Takes note that the record's number stands in a list from now on; false if it did already.
    #[inline]
    pub fn enter(&mut self, list: ChangeList) -> bool {
        let before = self.state;
        self.state |= list as u8;
        self.state != before
    }

    /// Takes note that the record's number doesn't stand in a list any more.
    #[inline]
    pub fn leave(&mut self, list: ChangeList) {
        self.state &= !(list as u8);
    }

    /// Over which bridge the last news of it came; None if packets or peers brought them.
    #[inline]
    pub fn heard(&self) -> Option<Side> {
        if self.flags & flag::HEARD == 0 {
            None
        } else if self.state & HEARD_OF_MODULE == 0 {
            Some(Side::Joolds)
        } else {
            Some(Side::Module)
        }
    }

    /// News of it came over that bridge: it is ours to tell of, there excepted.
    #[inline]
    pub fn set_heard(&mut self, side: Side) {
        self.flags |= flag::LOCAL | flag::HEARD;
        self.state &= !HEARD_OF_MODULE;
        if side == Side::Module {
            self.state |= HEARD_OF_MODULE;
        }
    }

    /// Milliseconds until its deadline; 0 if that has passed.
    #[inline]
    pub fn remaining_ms(&self, now: Time) -> u32 {
        let remaining = self.deadline.wrapping_sub(now.as_millis() as u32);
        if remaining > i32::MAX as u32 { 0 } else { remaining }
    }
}

/// The deadline of a session that gets `lifetime_ms` now. Lifetimes are cut to 2^31 - 1 ms, so that
/// deadlines compare modulo 2^32.
#[inline]
pub fn deadline(now: Time, lifetime_ms: u32) -> u32 {
    (now.as_millis() as u32).wrapping_add(lifetime_ms.min(i32::MAX as u32))
}

/// A session beyond its BIB entry's first.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Overflow {
    /// The session.
    pub session: Session,
    /// Slot of its BIB entry.
    pub bib: u32,
}

const _: () = assert!(size_of::<Session>() == 24);
const _: () = assert!(size_of::<Overflow>() == 32);
const _: () = assert!(crate::config::MAX_SESSIONS < SessionId::OVERFLOW);
const _: () = assert!(crate::config::MAX_TIMEOUT_MS < i32::MAX as u32);
