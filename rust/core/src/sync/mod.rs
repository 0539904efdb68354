//! Session synchronisation: what nodes tell each other.

#![allow(dead_code)]

pub(crate) mod bytes;
pub mod config;
pub mod digest;
pub mod event;
pub mod frame;
pub mod message;
pub mod peer;
pub mod record;

use alloc::collections::VecDeque;

use crate::config::{Config, ConfigError};
use crate::stats::Stats;
use crate::table::{Change, Learned, SessionKey, SessionRecord};
use crate::time::Time;

pub use config::SyncConfig;
pub use event::{Event, Reason};
pub use frame::{FrameError, Keyring, OpenFrame, Transmit};
pub use peer::PeerStatus;

/// The table as synchronisation sees it.
pub trait Sessions {
    /// Merges a peer's session.
    fn learn(&mut self, now: Time, record: &SessionRecord) -> Learned;
    /// Merges a peer's removal.
    fn unlearn(&mut self, now: Time, key: &SessionKey, version: u32) -> bool;
    /// Whether changes are collected.
    fn track_changes(&mut self, on: bool);
    /// Whether `pop_change` has something.
    fn changes_pending(&self) -> bool;
    /// The next thing that peers have to be told.
    fn pop_change(&mut self, now: Time) -> Option<Change>;
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
}

/// This node's part in the cluster.
#[derive(Debug)]
pub struct Sync {
    events: VecDeque<Event>,
}

impl Sync {
    /// A node that begins to listen for peers.
    ///
    /// # Errors
    /// What [`SyncConfig::validate`] refuses.
    pub fn new(
        config: SyncConfig,
        _nat64: &Config,
        _secret: &[u8; 32],
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { events: VecDeque::new() })
    }

    /// Takes an authentic frame; false if it isn't acted on.
    pub fn handle_frame(
        &mut self,
        _now: Time,
        _frame: &OpenFrame,
        _sessions: &mut impl Sessions,
    ) -> bool {
        false
    }

    /// Counts bytes that were refused.
    pub fn refuse_frame(&mut self, _now: Time, error: FrameError, stats: &mut Stats) {
        if let Some(counter) = error.counter() {
            stats.count(counter);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, _now: Time, _sessions: &mut impl Sessions) {}

    /// When `handle_timeout` is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// Starts the flush deadline if changes wait and it doesn't run.
    pub fn notice_changes(&mut self, _now: Time, _pending: bool) {}

    /// The next frame to send.
    pub fn poll_transmit(&mut self, _now: Time, _sessions: &mut impl Sessions) -> Option<Transmit> {
        None
    }

    /// The next thing worth a line in the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Why this node may become MASTER, or not.
    pub fn reason(&self) -> Reason {
        Reason::Alone
    }

    /// Every peer heard since the start, by number.
    pub fn peers(&self, _now: Time) -> impl Iterator<Item = PeerStatus> + '_ {
        core::iter::empty()
    }

    /// Flushes changes, then says BYE.
    pub fn leave(&mut self, _now: Time) {}
}
