//! Session synchronisation: what nodes tell each other.

mod buckets;
mod bytes;
pub mod config;
pub mod digest;
mod durable;
pub mod event;
pub mod frame;
mod graves;
pub mod joold;
pub mod lens;
mod member;
pub mod message;
pub mod peer;
mod pull;
mod queue;
pub mod record;
mod resync;
mod schedule;
mod sequence;
#[cfg(test)]
mod tests;

use core::ops::Range;

use crate::stats::Stats;
use crate::table::{Change, Holding, Merge, Query, SessionKey, SessionRecord};
use crate::time::Time;

pub use config::{Durability, SyncConfig};
pub use event::{Event, Reason};
pub use frame::{FrameError, Keyring, OpenFrame, Transmit};
pub use member::Sync;
pub use peer::PeerStatus;

/// The table as synchronisation sees it.
pub trait Sessions {
    /// Merges a peer's session.
    fn learn(&mut self, now: Time, record: &SessionRecord) -> Merge;
    /// Begins to load what merging these changes will look at.
    fn look_ahead(&self, _changes: &[Change]) {}
    /// Merges a peer's removal.
    fn unlearn(&mut self, now: Time, key: &SessionKey, version: u32) -> bool;
    /// A session that was just merged was removed at this version elsewhere, of which its teller
    /// didn't know: it takes that version, if it has an earlier one, and is told.
    fn revive(&mut self, key: &SessionKey, removed: u32);
    /// Whether the session is here.
    fn has(&self, key: &SessionKey) -> bool;
    /// Whether changes are collected. Removals are from the first time on.
    fn track_changes(&mut self, on: bool);
    /// How many changes wait, at most.
    fn changes_pending(&self) -> usize;
    /// The next thing that peers have to be told. None while something waits if that takes a look at
    /// too much: the next call goes on.
    fn pop_change(&mut self, now: Time) -> Option<Change>;
    /// The next removal that peers have to be told, and its version.
    fn pop_removal(&mut self) -> Option<(SessionKey, u32)>;
    /// Calls `f` with the sessions in slots from `cursor`, looking at no more than `budget` slots,
    /// as peers are to be told of them. Returns the next cursor, or None at the end.
    fn scan(
        &self,
        now: Time,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32>;
    /// Where to count.
    fn stats(&mut self) -> &mut Stats;

    // ---- Packets that wait; a table without packets needs none of this ----

    /// Which packets wait from now on, and how long at most.
    fn hold(&mut self, _holding: Holding) {}
    /// How many packets that made a session were held so far.
    fn openers(&self) -> u64 {
        0
    }
    /// Lets some of them go, by their numbers.
    fn release_openers(&mut self, _now: Time, _numbers: &[Range<u64>]) {}
    /// The next question for peers.
    fn pop_query(&mut self) -> Option<Query> {
        None
    }
    /// What is here of the mapping that a peer asks for.
    fn answer(&self, _now: Time, _query: &Query) -> Option<SessionRecord> {
        None
    }
    /// Lets the packets go that wait for an answer, which has brought a session or not.
    fn release_strangers(&mut self, _now: Time, _id: u64, _found: bool) {}
}
