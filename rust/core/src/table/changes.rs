//! What peers have to be told: a list of changed sessions and one of removals.

use alloc::collections::VecDeque;

use super::bib::Arena;
use super::record::SessionKey;
use super::session::{SessionId, flag};

/// Removals that may wait. Beyond that the oldest is forgotten: a peer's copy then ends with its
/// own lifetime.
const MAX_REMOVALS: usize = 1 << 20;

/// Changes in the order in which they came up. A session stands in the list once however often it
/// changes ([`flag::DIRTY`]), so the list is as bounded as the table.
#[derive(Debug, Default)]
pub struct Changes {
    /// Whether anything is collected.
    pub tracked: bool,
    dirty: VecDeque<u32>,
    removed: VecDeque<(SessionKey, u32)>,
}

impl Changes {
    /// Collects changes from now on. Room for every session is reserved, so that a peer that
    /// doesn't listen for a while makes no pause for growth.
    pub fn begin(&mut self, max_sessions: u32) {
        self.tracked = true;
        self.dirty.reserve(max_sessions as usize);
    }

    /// Forgets everything.
    pub fn clear(&mut self, arena: &mut Arena) {
        self.removed.clear();
        while let Some(id) = self.pop_dirty(arena) {
            arena.session_mut(id).flags &= !flag::DIRTY;
        }
    }

    /// How much waits, at most: sessions that ended before they were told are still counted.
    pub fn pending(&self) -> usize {
        self.dirty.len() + self.removed.len()
    }

    /// Puts a session, which doesn't stand in it, into the list.
    pub fn push_dirty(&mut self, arena: &Arena, id: SessionId, sessions: u32) {
        if self.dirty.len() > 2 * sessions as usize + 1024 {
            // Sessions that ended before they were told have left their numbers behind.
            self.dirty.retain(|&raw| is_dirty(arena, SessionId::from_raw(raw)));
        }
        self.dirty.push_back(id.raw());
    }

    /// Puts a removal into the list.
    pub fn push_removed(&mut self, key: SessionKey, version: u32) {
        if self.removed.len() == MAX_REMOVALS {
            self.removed.pop_front();
        }
        self.removed.push_back((key, version));
    }

    /// The next changed session.
    pub fn pop_dirty(&mut self, arena: &Arena) -> Option<SessionId> {
        loop {
            let id = SessionId::from_raw(self.dirty.pop_front()?);
            if is_dirty(arena, id) {
                return Some(id);
            }
        }
    }

    /// The next removal.
    pub fn pop_removed(&mut self) -> Option<(SessionKey, u32)> {
        self.removed.pop_front()
    }
}

fn is_dirty(arena: &Arena, id: SessionId) -> bool {
    let wanted = flag::LIVE | flag::DIRTY;
    arena.session(id).flags & wanted == wanted
}
