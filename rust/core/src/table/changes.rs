//! What peers have to be told: a list of changed sessions and one of removals. And what joolds and
//! a kernel module have to be told, who know no removals.

use super::bib::Arena;
use super::pool4::Pool4;
use super::record::{SessionKey, Side};
use super::session::{ChangeList, Session, SessionId, flag};
use crate::queue::LongQueue;

/// Removals that may wait. Beyond that the oldest is forgotten: a peer's copy then ends with its
/// own lifetime.
const MAX_REMOVALS: usize = 1 << 20;
/// Numbers of ended sessions that are passed over at once: each is a record that no cache has.
const MAX_ENDED: usize = 32;

/// Sessions in the order in which they came up. The number of a record stands in the list once, and
/// that of one whose session has ended stays until its turn: so the list is as bounded as the table.
#[derive(Debug)]
struct List {
    flag: u8,
    listed: ChangeList,
    ids: LongQueue<u32>,
}

impl List {
    fn new(flag: u8, listed: ChangeList) -> Self {
        Self { flag, listed, ids: LongQueue::default() }
    }

    fn push(&mut self, arena: &mut Arena, id: SessionId) {
        let session = arena.session_mut(id);
        session.flags |= self.flag;
        if session.enter(self.listed) {
            self.ids.push_back(id.raw());
        }
    }

    /// Takes the first out, to be told or not.
    fn take(&mut self, arena: &mut Arena) -> Option<SessionId> {
        let id = SessionId::from_raw(self.ids.pop_front()?);
        let session = arena.session_mut(id);
        session.leave(self.listed);
        let wanted = flag::LIVE | self.flag;
        let waited = session.flags & wanted == wanted;
        session.flags &= !self.flag;
        waited.then_some(id)
    }

    /// The next session. None if none is left, or after [`MAX_ENDED`] that have ended.
    fn pop(&mut self, arena: &mut Arena, pool4: &Pool4) -> Option<SessionId> {
        for _ in 0..self.ids.len().min(MAX_ENDED) {
            let Some(id) = self.take(arena) else { continue };
            let slot = arena.bib_of(id);
            // The end of a session that waits to be swept is told then.
            if pool4.recognises(slot, arena.bib(slot)) {
                return Some(id);
            }
        }
        None
    }
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
    removed: LongQueue<(SessionKey, u32)>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            tracked: false,
            removals: false,
            dirty: List::new(flag::DIRTY, ChangeList::Dirty),
            bridged: [None, None],
            removed: LongQueue::default(),
        }
    }
}

impl Changes {
    /// Whether anybody has to be told of a session that lives on.
    pub fn anybody(&self) -> bool {
        self.tracked || self.bridged.iter().any(Option::is_some)
    }

    /// Collects changes from now on.
    pub fn begin(&mut self) {
        (self.tracked, self.removals) = (true, true);
    }

    /// Tells peers of nothing but removals, and collects nothing else for them. [`Self::discard`]
    /// forgets what waits; whatever is left of it when collecting begins again will be told.
    pub fn end(&mut self) {
        self.tracked = false;
    }

    /// Forgets sessions that nobody is to be told of any more, `budget` at most.
    pub fn discard(&mut self, arena: &mut Arena, budget: usize) {
        if !self.tracked {
            for _ in 0..self.dirty.ids.len().min(budget) {
                self.dirty.take(arena);
            }
        }
    }

    /// Whether [`Self::discard`] has something to do.
    pub fn needs_discard(&self) -> bool {
        !self.tracked && self.dirty.ids.len() > 0
    }

    /// Whether the session has changes that peers will be told of.
    pub fn waits(&self, session: &Session) -> bool {
        self.tracked && session.flags & flag::DIRTY != 0
    }

    /// The same for a bridge, once and for all.
    pub fn begin_bridge(&mut self, side: Side) {
        self.bridged[side as usize].get_or_insert_with(|| match side {
            Side::Joolds => List::new(flag::FOR_JOOLDS, ChangeList::Joolds),
            Side::Module => List::new(flag::FOR_MODULE, ChangeList::Module),
        });
    }

    /// How much waits, at most: sessions that ended before they were told are still counted.
    pub fn pending(&self) -> usize {
        let dirty = if self.tracked { self.dirty.ids.len() } else { 0 };
        dirty + self.removed.len()
    }

    /// The same for a bridge.
    pub fn bridge_pending(&self, side: Side) -> usize {
        self.bridged[side as usize].as_ref().map_or(0, |list| list.ids.len())
    }

    /// Puts a session into the list.
    pub fn push_dirty(&mut self, arena: &mut Arena, id: SessionId) {
        self.dirty.push(arena, id);
    }

    /// Puts a session into the list of every bridge but the one over which it was heard last,
    /// unless it stands there.
    pub fn push_bridged(&mut self, arena: &mut Arena, id: SessionId) {
        for (side, list) in Side::ALL.into_iter().zip(&mut self.bridged) {
            let Some(list) = list else { continue };
            let session = arena.session(id);
            if session.heard() != Some(side) && session.flags & list.flag == 0 {
                list.push(arena, id);
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

    /// The next changed session. None also if what waits begins with many that have ended: ask again.
    pub fn pop_dirty(&mut self, arena: &mut Arena, pool4: &Pool4) -> Option<SessionId> {
        if self.tracked { self.dirty.pop(arena, pool4) } else { None }
    }

    /// The next session that the other end of a bridge has to be told of; None as of `pop_dirty`.
    pub fn pop_bridged(
        &mut self,
        side: Side,
        arena: &mut Arena,
        pool4: &Pool4,
    ) -> Option<SessionId> {
        self.bridged[side as usize].as_mut()?.pop(arena, pool4)
    }

    /// The next removal.
    pub fn pop_removed(&mut self) -> Option<(SessionKey, u32)> {
        self.removed.pop_front()
    }
}
