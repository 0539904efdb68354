//! Updates that go out: changes drained into frames, and the frames kept a while for those who
//! miss them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::mutant::Mutant;
use crate::sync::Sessions;
use crate::sync::frame::Transmit;
use crate::sync::message::{UPDATE_HEAD_LEN, UpdateRange};
use crate::sync::record::{self, UPSERT_LEN};
use crate::table::{Change, SessionKey};
use crate::time::Time;

/// Bytes of updates kept for repetition. Who misses more than that fetches the table.
const KEPT_BYTES: usize = 4 << 20;

/// The body of a frame and its count of entries.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// Room for a header, then the body.
    pub buf: Vec<u8>,
    pub count: u16,
}

/// The stream of updates to all peers.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Number of the last update.
    pub last: u64,
    kept: VecDeque<Body>,
    kept_bytes: usize,
    /// When waiting changes have to go.
    pub flush_at: Option<Time>,
    /// Whatever waits goes now.
    pub flushing: bool,
    /// What waits fills a frame.
    pub full: bool,
}

impl Outgoing {
    pub fn new() -> Self {
        Self {
            last: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            flush_at: None,
            flushing: false,
            full: false,
        }
    }

    /// The oldest update that can be repeated; `last + 1` if there is none.
    pub fn oldest(&self) -> u64 {
        self.last + 1 - self.kept.len() as u64
    }

    /// Changes are no longer collected: makes a gap that nobody can fill, so that who comes back
    /// knows that it has missed something.
    pub fn interrupt(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
        self.last += 1;
        self.flush_at = None;
        (self.flushing, self.full) = (false, false);
    }

    /// The next update of up to `room` changes, if one is due; `on_remove` sees the removals in it.
    pub fn next_update(
        &mut self,
        now: Time,
        room: usize,
        sessions: &mut impl Sessions,
        mut on_remove: impl FnMut(&SessionKey, u32),
    ) -> Option<Body> {
        if !self.flushing && (!self.full || sessions.changes_pending() < room) {
            self.full = false;
            return None;
        }
        let mut buf = Transmit::buffer(UPDATE_HEAD_LEN + room * UPSERT_LEN);
        buf.extend_from_slice(&(self.last + 1).to_be_bytes());
        let mut count = 0;
        while usize::from(count) < room {
            let Some(change) = sessions.pop_change(now) else {
                // What still waits begins with sessions that have ended: to be gone on with at once,
                // but not at a stretch.
                let again = (sessions.changes_pending() > 0).then_some(now);
                (self.flushing, self.full, self.flush_at) = (false, false, again);
                break;
            };
            if let Change::Remove(key, version) = &change {
                // A peer that still had it may have given it back meanwhile.
                sessions.unlearn(now, key, *version);
                on_remove(key, *version);
            }
            if Mutant::ForgetsChanges.is_on() && self.last % 4 == 3 {
                continue;
            }
            record::put(&mut buf, &change);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        self.last += 1;
        if Mutant::LosesUpdates.is_on() && self.last.is_multiple_of(8) {
            self.last -= 1;
            return None;
        }
        let body = Body { buf, count };
        self.keep(body.clone());
        Some(body)
    }

    fn keep(&mut self, body: Body) {
        self.kept_bytes += body.buf.len();
        self.kept.push_back(body);
        while self.kept_bytes > KEPT_BYTES {
            let Some(old) = self.kept.pop_front() else { break };
            self.kept_bytes -= old.buf.len();
        }
    }

    /// An update, if it is still kept.
    pub fn kept(&self, number: u64) -> Option<Body> {
        let index = number.checked_sub(self.oldest()).and_then(|i| usize::try_from(i).ok());
        index.and_then(|i| self.kept.get(i)).cloned()
    }

    /// Takes the first of `wanted` and repeats it. `Some(None)` if it is no longer kept.
    pub fn repeat(&self, wanted: &mut VecDeque<UpdateRange>) -> Option<Option<Body>> {
        let range = wanted.front_mut()?;
        let number = range.first;
        if Mutant::RepeatsForever.is_on() {
            // Nothing is ever done.
        } else if number >= range.last {
            wanted.pop_front();
        } else {
            range.first += 1;
        }
        let body = self.kept(number);
        if body.is_none() {
            // Nor are the others worth a look each: a range is as long as its sender likes.
            wanted.clear();
        }
        Some(body)
    }
}
