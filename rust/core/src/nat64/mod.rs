//! The steps of RFC 6146: [`incoming`] tuple, [`filter`]ing and updating, [`outgoing`] tuple and
//! translation. Each returns a [`Verdict`].

pub mod change;
mod expiry;
pub mod filter;
mod fragments;
mod held;
pub mod incoming;
mod lookahead;
pub mod outgoing;
mod shortcut;
pub mod tcp_fsm;
mod verdict;

use alloc::collections::VecDeque;
use alloc::string::ToString;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

pub use change::ChangeError;
pub use verdict::{Stop, Verdict};

use held::Held;

use crate::config::{Config, ConfigError};
use crate::mutant::Mutant;
use crate::packet::{Outcome, OwnedPacket, Packet};
use crate::stats::{Counter, DropReason, Stats};
use crate::table::fragment::Fragments;
use crate::table::stored::Stored;
use crate::table::subscriber::Limits;
use crate::table::{
    BibRecord, Change, Learned, LogEvent, Merge, Query, SessionKey, SessionRecord, Side, State,
    Table, Timeouts,
};
use crate::time::Time;
use crate::tuple::Proto;
use crate::wire::IcmpError;
use crate::xlat::icmp_error;

/// Packets of our own that may wait for `poll_packet`.
const MAX_PACKETS: usize = 4096;
/// ICMP errors that we send: at most one a millisecond, so many at once (RFC 4443 §2.4 (f)).
const ICMP_BURST: u64 = 100;

/// A stateful NAT64: table, timers and translator, without I/O.
#[derive(Debug)]
pub struct Nat64 {
    /// Its counters.
    pub stats: Stats,
    pub(crate) table: Table,
    config: Config,
    stored: Stored,
    held: Held,
    fragments: Fragments<outgoing::Route>,
    packets: VecDeque<OwnedPacket>,
    ident: u16,
    /// When the ICMP errors sent so far would be due at one a millisecond.
    icmp_due: Time,
    /// What of the table's counts is in the counters already.
    bibs_counted: (u64, u64),
}

impl Nat64 {
    /// A translator with an empty table but for its static BIB entries. `secret` keys the hashes
    /// and the choice of ports.
    ///
    /// # Errors
    /// What [`Config::validate`] refuses.
    pub fn new(config: Config, secret: &[u8; 32]) -> Result<Self, ConfigError> {
        config.validate()?;
        let timeouts = Timeouts::from(&config.global);
        let mut table =
            Table::new(config.max_sessions, &config.pool4, config.node, timeouts, secret);
        table.track_peers(config.global.address_dependent_filtering);
        table.set_limits(Limits::from(&config.global));
        table.log(config.global.logging_bib, config.global.logging_session);
        for bib in &config.bib {
            table
                .create_bib(bib.protocol, bib.ipv6, bib.ipv4, true)
                .map_err(|_| ConfigError("bib: more static entries than fit".to_string()))?;
        }
        let fragments = Fragments::new(config.global.fragment_arrival_timeout);
        let mut nat64 = Self {
            stats: Stats::default(),
            ident: u16::from_be_bytes([secret[0], secret[1]]),
            table,
            config,
            stored: Stored::default(),
            held: Held::default(),
            fragments,
            packets: VecDeque::new(),
            icmp_due: Time::ZERO,
            bibs_counted: (0, 0),
        };
        nat64.count_bibs();
        Ok(nat64)
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Translates a burst in place and sets every packet's outcome.
    pub fn handle_packets(&mut self, now: Time, burst: &mut [Packet<'_>]) {
        for chunk in burst.chunks_mut(lookahead::LEN) {
            self.handle_chunk(now, chunk);
        }
        self.count_bibs();
    }

    fn handle_chunk(&mut self, now: Time, chunk: &mut [Packet<'_>]) {
        let hints = lookahead::hints(&self.table, chunk);
        for (packet, hint) in chunk.iter_mut().zip(hints) {
            let version = packet.bytes().first().map(|byte| byte >> 4);
            let passed = match version {
                Some(6) => {
                    self.stats.count(Counter::Received6);
                    self.shortcut6(now, packet, hint)
                }
                Some(4) => {
                    self.stats.count(Counter::Received4);
                    self.shortcut4(now, packet, hint)
                }
                _ => None,
            };
            match passed {
                Some(()) => packet.outcome = Outcome::Forward,
                None => self.all_steps(now, packet, hint),
            }
        }
    }

    /// The next packet that the translator itself has to send.
    pub fn poll_packet(&mut self) -> Option<OwnedPacket> {
        self.packets.pop_front()
    }

    fn push_packet(&mut self, packet: OwnedPacket) {
        if self.packets.len() < MAX_PACKETS {
            self.packets.push_back(packet);
        } else {
            self.stats.drop(DropReason::QueueFull);
        }
    }

    /// Tells the sender of a packet why it went no further, unless too many were told just now.
    #[cold]
    fn reply(&mut self, now: Time, offending: &[u8], error: IcmpError) {
        if self.icmp_due > now + ICMP_BURST {
            self.stats.count(Counter::IcmpErrorsSuppressed);
            return;
        }
        let packet = match offending.first().map(|byte| byte >> 4) {
            Some(4) => {
                // It appears to come from the address that the packet was sent to.
                let dst = offending.get(16..20).and_then(|bytes| bytes.first_chunk::<4>());
                dst.and_then(|dst| icmp_error::build4(offending, error, Ipv4Addr::from(*dst)))
            }
            Some(6) => icmp_error::build6(offending, error, self.own_address6()),
            _ => None,
        };
        if let Some(packet) = packet {
            self.icmp_due = self.icmp_due.max(now) + 1;
            self.stats.count(Counter::IcmpErrorsSent);
            self.push_packet(packet);
        }
    }

    /// The address that our own IPv6 packets come from: pool6 + the first of this node's pool4.
    fn own_address6(&self) -> Ipv6Addr {
        let mut own = self.config.pool4.iter().filter(|entry| entry.is_of(self.config.node));
        let first = own.next().map_or(Ipv4Addr::UNSPECIFIED, |entry| entry.prefix.first());
        self.config.pool6.embed(first)
    }

    // ---- Synchronisation ----

    /// Merges a peer's session.
    pub fn learn(&mut self, now: Time, record: &SessionRecord) -> Merge {
        let merge = if self.is_misplaced(&record.key) {
            Learned::Rejected.into()
        } else {
            self.table.learn(now, record)
        };
        if merge.learned == Learned::Applied && !self.stored.is_empty() {
            self.meet_stored(now, record);
        }
        self.count_merge(merge);
        merge
    }

    /// A peer has seen the IPv6 node's SYN of a connection; if the IPv4 node's waits here, both
    /// sides are opening (§3.5.2.2), and nobody is to be told that the connection failed.
    fn meet_stored(&mut self, now: Time, record: &SessionRecord) {
        let SessionKey { proto, src4, dst4, .. } = record.key;
        if proto != Proto::Tcp || record.state == State::V4Init {
            return;
        }
        if self.stored.take(dst4, Some(src4)).is_some() && record.state == State::V6Init {
            let slot = self.table.find4(proto, src4.addr.to_bits(), src4.port);
            let id = slot.and_then(|s| self.table.find_session(s, dst4.addr.to_bits(), dst4.port));
            if let Some(id) = id {
                let lifetime = self.table.timeouts().of(proto, State::Established);
                self.table.change_state(now, id, State::Established, lifetime);
            }
        }
    }

    /// What is here of a mapping that a peer asks for.
    pub fn answer(&self, now: Time, query: &Query) -> Option<SessionRecord> {
        self.table.answer(now, query)
    }

    fn is_misplaced(&self, key: &SessionKey) -> bool {
        self.config.pool6.contains(&key.src6.addr)
            || !crate::addr::is_unicast6(key.src6.addr)
            || !crate::addr::is_unicast4(key.dst4.addr)
    }

    fn count_merge(&mut self, merge: Merge) {
        if merge.collided {
            self.stats.count(Counter::SyncCollisions);
        }
        match merge.learned {
            Learned::Applied => self.stats.count(Counter::SessionsLearned),
            Learned::Rejected => self.stats.count(Counter::SyncRejected),
            Learned::Full => self.stats.count(Counter::SyncTableFull),
            Learned::Unchanged | Learned::Stale | Learned::Collision => {}
        }
        self.count_bibs();
    }

    /// Merges a peer's removal; false if the table has no such session or a later version of it.
    pub fn unlearn(&mut self, _now: Time, key: &SessionKey, version: u32) -> bool {
        if Mutant::KeepsRemoved.is_on() {
            return false;
        }
        let removed = self.table.unlearn(key, version);
        if removed {
            self.stats.count(Counter::SessionsUnlearned);
            self.count_bibs();
        }
        removed
    }

    /// Merges a session that was told without a version, by a joold or a kernel module.
    /// `timeout_ms` is its timer's: what the lifetime lacks of that is its age.
    pub fn hear(
        &mut self,
        now: Time,
        side: Side,
        record: &SessionRecord,
        timeout_ms: u32,
    ) -> Learned {
        let longest = self.timeout_ms(record.key.proto, record.state);
        let longest = longest.saturating_add(longest / 4);
        let mut record = *record;
        if record.lifetime_ms > longest {
            record.lifetime_ms = longest;
            self.stats.count(Counter::JooldLifetimeCut);
        }
        let merge = if self.is_misplaced(&record.key) {
            Learned::Rejected.into()
        } else {
            self.table.hear(now, side, &record, timeout_ms)
        };
        self.count_merge(merge);
        merge.learned
    }

    /// Whether changes are collected for synchronisation. At first they are not.
    pub fn track_changes(&mut self, on: bool) {
        self.table.track_changes(on);
    }

    /// How many things wait for `pop_change`, at most.
    pub fn changes_pending(&self) -> usize {
        self.table.changes_pending()
    }

    /// The next thing that peers have to be told.
    pub fn pop_change(&mut self, now: Time) -> Option<Change> {
        self.table.pop_change(now)
    }

    /// Calls `f` with the sessions behind `cursor` (0 at first), looking at no more than `budget`
    /// places of the table. Returns the next cursor, or None at the end. Sessions that stay in the
    /// table throughout are seen once; lifetimes are real, without slack.
    pub fn scan(
        &self,
        now: Time,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        self.table.scan(now, cursor, budget, f)
    }

    /// The same for BIB entries.
    pub fn bib_scan(
        &self,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(BibRecord),
    ) -> Option<u32> {
        self.table.bib_scan(cursor, budget, f)
    }

    /// Sessions are collected for a bridge from now on.
    pub fn track_bridge(&mut self, side: Side) {
        self.table.track_bridge(side);
    }

    /// How many things wait for `pop_bridge`, at most.
    pub fn bridge_pending(&self, side: Side) -> usize {
        self.table.bridge_pending(side)
    }

    /// The next session that has to be told over a bridge.
    pub fn pop_bridge(&mut self, now: Time, side: Side) -> Option<SessionRecord> {
        self.table.pop_bridge(now, side)
    }

    /// Like `scan`, with lifetimes as they are to be told over a bridge. Sessions that were heard
    /// over it last are left out unless `all` are wanted.
    pub fn scan_bridge(
        &self,
        now: Time,
        side: Side,
        all: bool,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        self.table.scan_bridge(now, side, all, cursor, budget, f)
    }

    /// The lifetime that a packet gives to a session, in ms.
    pub fn timeout_ms(&self, proto: Proto, state: State) -> u32 {
        self.table.timeouts().of(proto, state)
    }

    // ---- Looking at it ----

    /// The next line of the operator's log, as `logging-bib` and `logging-session` ask for.
    pub fn poll_log(&mut self) -> Option<LogEvent> {
        self.table.pop_log()
    }

    /// Sessions in the table.
    pub fn session_count(&self) -> u32 {
        self.table.session_count()
    }

    /// BIB entries in the table.
    pub fn bib_count(&self) -> u32 {
        self.table.bib_count()
    }

    /// Memory that the table has in use, in bytes: an estimate from the counts.
    pub fn table_bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Addresses that the table's next records will have: reserved, and perhaps no memory yet.
    pub fn unused_memory(&self) -> [Range<usize>; 2] {
        self.table.unused_memory()
    }

    fn count_bibs(&mut self) {
        let (created, removed) = self.table.bibs_made();
        self.stats.add(Counter::BibCreated, created - self.bibs_counted.0);
        self.stats.add(Counter::BibRemoved, removed - self.bibs_counted.1);
        self.bibs_counted = (created, removed);
    }
}
