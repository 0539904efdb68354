//! The steps of RFC 6146.

use alloc::collections::VecDeque;

use crate::config::{Config, ConfigError};
use crate::packet::{Outcome, OwnedPacket, Packet};
use crate::stats::{DropReason, Stats};
use crate::table::{BibRecord, Change, Learned, SessionKey, SessionRecord, State};
use crate::time::Time;
use crate::tuple::Proto;

/// A stateful NAT64: table, timers and translator, without I/O.
#[derive(Debug)]
pub struct Nat64 {
    /// Its counters.
    pub stats: Stats,
    config: Config,
    packets: VecDeque<OwnedPacket>,
}

impl Nat64 {
    /// A translator with an empty table but for its static BIB entries. `secret` keys the hashes
    /// and the choice of ports.
    ///
    /// # Errors
    /// What [`Config::validate`] refuses.
    pub fn new(config: Config, _secret: &[u8; 32]) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { stats: Stats::default(), config, packets: VecDeque::new() })
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Translates a burst in place and sets every packet's outcome.
    pub fn handle_packets(&mut self, _now: Time, burst: &mut [Packet<'_>]) {
        for packet in burst {
            self.stats.drop(DropReason::NoBib);
            packet.outcome = Outcome::Drop(DropReason::NoBib);
        }
    }

    /// The next packet that the translator itself has to send.
    pub fn poll_packet(&mut self) -> Option<OwnedPacket> {
        self.packets.pop_front()
    }

    /// Does what is due at `now`, a bounded part of it: ask `poll_timeout` for the rest.
    pub fn handle_timeout(&mut self, _now: Time) {}

    /// When `handle_timeout` is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// Merges a peer's session.
    pub fn learn(&mut self, _now: Time, _record: &SessionRecord) -> Learned {
        Learned::Rejected
    }

    /// Merges a peer's removal; false if the table has no such session or a later version of it.
    pub fn unlearn(&mut self, _now: Time, _key: &SessionKey, _version: u32) -> bool {
        false
    }

    /// Whether changes are collected for synchronisation. At first they are not.
    pub fn track_changes(&mut self, _on: bool) {}

    /// Whether `pop_change` has something.
    pub fn changes_pending(&self) -> bool {
        false
    }

    /// The next thing that peers have to be told.
    pub fn pop_change(&mut self, _now: Time) -> Option<Change> {
        None
    }

    /// Calls `f` with the sessions behind `cursor` (0 at first), looking at no more than `budget`
    /// places of the table. Returns the next cursor, or None at the end. Sessions that stay in the
    /// table throughout are seen once; lifetimes are real, without slack.
    pub fn scan(
        &self,
        _now: Time,
        _cursor: u32,
        _budget: usize,
        _f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        None
    }

    /// The same for BIB entries.
    pub fn bib_scan(
        &self,
        _cursor: u32,
        _budget: usize,
        _f: &mut dyn FnMut(BibRecord),
    ) -> Option<u32> {
        None
    }

    /// What a lifetime on the wire carries on top, in ms: a quarter of the state's timeout.
    pub fn slack_ms(&self, proto: Proto, state: State) -> u32 {
        self.timeout_ms(proto, state) / 4
    }

    /// The lifetime that a packet gives to a session, in ms.
    pub fn timeout_ms(&self, proto: Proto, state: State) -> u32 {
        let global = &self.config.global;
        match (proto, state) {
            (Proto::Udp, _) => global.udp_timeout,
            (Proto::Icmp, _) => global.icmp_timeout,
            (Proto::Tcp, State::Established | State::V4FinRcv | State::V6FinRcv) => {
                global.tcp_est_timeout
            }
            (Proto::Tcp, _) => global.tcp_trans_timeout,
        }
    }

    /// Sessions in the table.
    pub fn session_count(&self) -> u32 {
        0
    }

    /// BIB entries in the table.
    pub fn bib_count(&self) -> u32 {
        0
    }

    /// Memory that the table has in use, in bytes: an estimate from the counts.
    pub fn table_bytes(&self) -> usize {
        0
    }
}
