//! What peers have to be told: a list of changed sessions and one of removals. And what joolds
//! have to be told, who know no removals.

use alloc::collections::VecDeque;

use super::bib::Arena;
use super::record::SessionKey;
use super::session::{SessionId, flag};

/// Removals that may wait. Beyond that the oldest is forgotten: a peer's copy then ends with its
/// own lifetime.
const MAX_REMOVALS: usize = 1 << 20;

/// Sessions in the order in which they came up. One stands in the list once however often it
/// changes, since a flag says so; so the list is as bounded as the table.
#[derive(Debug)]
struct List {
    flag: u8,
    ids: VecDeque<u32>,
}

impl List {
    fn push(&mut self, arena: &mut Arena, id: SessionId, sessions: u32) {
        if self.ids.len() > 2 * sessions as usize + 1024 {
            // Sessions that ended before they were told have left their numbers behind.
            self.ids.retain(|&raw| has(arena, SessionId::from_raw(raw), self.flag));
        }
        arena.session_mut(id).flags |= self.flag;
        self.ids.push_back(id.raw());
    }

    fn pop(&mut self, arena: &mut Arena) -> Option<SessionId> {
        loop {
            let id = SessionId::from_raw(self.ids.pop_front()?);
            if has(arena, id, self.flag) {
                arena.session_mut(id).flags &= !self.flag;
                return Some(id);
            }
        }
    }

    fn clear(&mut self, arena: &mut Arena) {
        while self.pop(arena).is_some() {}
    }
}

fn has(arena: &Arena, id: SessionId, flag: u8) -> bool {
    let wanted = flag::LIVE | flag;
    arena.session(id).flags & wanted == wanted
}

/// What waits for peers, and for joolds.
#[derive(Debug)]
pub struct Changes {
    /// Whether anything is collected for peers.
    pub tracked: bool,
    /// Whether anything is collected for joolds.
    pub bridge_tracked: bool,
    dirty: List,
    bridged: List,
    removed: VecDeque<(SessionKey, u32)>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            tracked: false,
            bridge_tracked: false,
            dirty: List { flag: flag::DIRTY, ids: VecDeque::new() },
            bridged: List { flag: flag::BRIDGED, ids: VecDeque::new() },
            removed: VecDeque::new(),
        }
    }
}

impl Changes {
    /// Whether anybody has to be told of a session that lives on.
    pub fn anybody(&self) -> bool {
        self.tracked || self.bridge_tracked
    }

    /// Collects changes from now on. Room for every session is reserved, so that a peer that
    /// doesn't listen for a while makes no pause for growth.
    pub fn begin(&mut self, max_sessions: u32) {
        self.tracked = true;
        self.dirty.ids.reserve(max_sessions as usize);
    }

    /// Forgets what waits for peers, and collects nothing more for them.
    pub fn end(&mut self, arena: &mut Arena) {
        self.tracked = false;
        self.removed.clear();
        self.dirty.clear(arena);
    }

    /// The same as `begin`, for joolds.
    pub fn begin_bridge(&mut self, max_sessions: u32) {
        self.bridge_tracked = true;
        self.bridged.ids.reserve(max_sessions as usize);
    }

    /// The same as `end`, for joolds.
    pub fn end_bridge(&mut self, arena: &mut Arena) {
        self.bridge_tracked = false;
        self.bridged.clear(arena);
    }

    /// How much waits, at most: sessions that ended before they were told are still counted.
    pub fn pending(&self) -> usize {
        self.dirty.ids.len() + self.removed.len()
    }

    /// The same for joolds.
    pub fn bridge_pending(&self) -> usize {
        self.bridged.ids.len()
    }

    /// Puts a session, which doesn't stand in it, into the list.
    pub fn push_dirty(&mut self, arena: &mut Arena, id: SessionId, sessions: u32) {
        self.dirty.push(arena, id, sessions);
    }

    /// Puts a session, if it doesn't stand in it, into the list for joolds.
    pub fn push_bridged(&mut self, arena: &mut Arena, id: SessionId, sessions: u32) {
        if self.bridge_tracked && arena.session(id).flags & flag::BRIDGED == 0 {
            self.bridged.push(arena, id, sessions);
        }
    }

    /// Puts a removal into the list.
    pub fn push_removed(&mut self, key: SessionKey, version: u32) {
        if self.removed.len() == MAX_REMOVALS {
            self.removed.pop_front();
        }
        self.removed.push_back((key, version));
    }

    /// The next changed session.
    pub fn pop_dirty(&mut self, arena: &mut Arena) -> Option<SessionId> {
        self.dirty.pop(arena)
    }

    /// The next session that joolds have to be told of.
    pub fn pop_bridged(&mut self, arena: &mut Arena) -> Option<SessionId> {
        self.bridged.pop(arena)
    }

    /// The next removal.
    pub fn pop_removed(&mut self) -> Option<(SessionKey, u32)> {
        self.removed.pop_front()
    }
}
