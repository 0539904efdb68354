//! What peers have to be told: a list of changed sessions and one of removals. And what joolds and
//! a kernel module have to be told, who know no removals.

use alloc::collections::VecDeque;

use super::bib::Arena;
use super::record::{SessionKey, Side};
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

/// What waits for peers, and for the ends of bridges.
#[derive(Debug)]
pub struct Changes {
    /// Whether sessions are collected for peers.
    pub tracked: bool,
    /// Whether removals are.
    pub removals: bool,
    dirty: List,
    /// None for bridges that aren't there.
    bridged: [Option<List>; Side::ALL.len()],
    removed: VecDeque<(SessionKey, u32)>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            tracked: false,
            removals: false,
            dirty: List { flag: flag::DIRTY, ids: VecDeque::new() },
            bridged: [None, None],
            removed: VecDeque::new(),
        }
    }
}

impl Changes {
    /// Whether anybody has to be told of a session that lives on.
    pub fn anybody(&self) -> bool {
        self.tracked || self.bridged.iter().any(Option::is_some)
    }

    /// Collects changes from now on. Room for every session is reserved, so that a peer that
    /// doesn't listen for a while makes no pause for growth.
    pub fn begin(&mut self, max_sessions: u32) {
        (self.tracked, self.removals) = (true, true);
        self.dirty.ids.reserve(max_sessions as usize);
    }

    /// Forgets what waits for peers, and collects nothing but removals for them.
    pub fn end(&mut self, arena: &mut Arena) {
        self.tracked = false;
        self.dirty.clear(arena);
    }

    /// The same as `begin`, for a bridge.
    pub fn begin_bridge(&mut self, side: Side, max_sessions: u32) {
        let flag = match side {
            Side::Joolds => flag::FOR_JOOLDS,
            Side::Module => flag::FOR_MODULE,
        };
        let list = self.bridged[side as usize].get_or_insert(List { flag, ids: VecDeque::new() });
        list.ids.reserve(max_sessions as usize);
    }

    /// The same as `end`, for a bridge.
    pub fn end_bridge(&mut self, side: Side, arena: &mut Arena) {
        if let Some(mut list) = self.bridged[side as usize].take() {
            list.clear(arena);
        }
    }

    /// How much waits, at most: sessions that ended before they were told are still counted.
    pub fn pending(&self) -> usize {
        self.dirty.ids.len() + self.removed.len()
    }

    /// The same for a bridge.
    pub fn bridge_pending(&self, side: Side) -> usize {
        self.bridged[side as usize].as_ref().map_or(0, |list| list.ids.len())
    }

    /// Puts a session, which doesn't stand in it, into the list.
    pub fn push_dirty(&mut self, arena: &mut Arena, id: SessionId, sessions: u32) {
        self.dirty.push(arena, id, sessions);
    }

    /// Puts a session into the list of every bridge but the one over which it was heard last,
    /// unless it stands there.
    pub fn push_bridged(&mut self, arena: &mut Arena, id: SessionId, sessions: u32) {
        for (side, list) in Side::ALL.into_iter().zip(&mut self.bridged) {
            let Some(list) = list else { continue };
            let session = arena.session(id);
            if session.heard() != Some(side) && session.flags & list.flag == 0 {
                list.push(arena, id, sessions);
            }
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

    /// The next session that the other end of a bridge has to be told of.
    pub fn pop_bridged(&mut self, side: Side, arena: &mut Arena) -> Option<SessionId> {
        self.bridged[side as usize].as_mut()?.pop(arena)
    }

    /// The next removal.
    pub fn pop_removed(&mut self) -> Option<(SessionKey, u32)> {
        self.removed.pop_front()
    }
}
