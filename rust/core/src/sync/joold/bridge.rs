//! The other way of a node to tell of its sessions: to joolds, or to a kernel module, over a bridge
//! to each.
//!
//! joold has no numbers, acknowledgements, removals or requests, and nobody says who is there. So
//! what is lost is lost until the session's next change or refresh; a session that ends here ends
//! there by its lifetime; and a joold that is heard for the first time, or after long silence, is
//! told the whole table, since it can't ask. Whether the module is new, our caller knows.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{DatagramError, Format, Session, Timer, decode, encode};
use crate::addr::Pool6;
use crate::config::{ConfigError, MAX_TIMEOUT_MS};
use crate::stats::{Counter, Stats};
use crate::sync::event::{Event, Events, Reason};
use crate::table::{Learned, SessionRecord, Side};
use crate::time::Time;

/// Talkers that are kept apart. Beyond that the one that has been silent longest is forgotten.
const MAX_TALKERS: usize = 64;
/// Silence after which a talker may have lost its table, and is told ours again, ms.
const SILENCE_MS: u64 = 60_000;
/// Pause between two datagrams of a whole table, ms: joold asks for nothing again.
const ADVERTISE_PAUSE_MS: u64 = 2;
/// Pause between two whole tables that nobody asked for, ms: anyone may pretend to be new.
const WELCOME_PAUSE_MS: u64 = 10_000;
/// Bytes of a page of a module's table that are read at once: whole sessions.
const PAGE_PART: usize = Format::Nested.attribute_len() * 14;
/// Places of the table that are looked at for one datagram.
const SCAN_BUDGET: usize = 1024;

/// The table as a bridge sees it.
pub trait Bridged {
    /// Merges a session that was told without a version. `timeout_ms` is its timer's.
    fn hear(&mut self, now: Time, side: Side, session: &Session) -> Learned;
    /// Sessions that have to be told over the bridge are collected from now on.
    fn track_bridge(&mut self, side: Side);
    /// How many wait, at most.
    fn bridge_pending(&self, side: Side) -> usize;
    /// The next of them.
    fn pop_bridge(&mut self, now: Time, side: Side) -> Option<SessionRecord>;
    /// Calls `f` with the sessions behind `cursor`, as they are to be told, without those that were
    /// heard over the bridge last unless `all` are wanted; the next cursor.
    fn scan_bridge(
        &self,
        now: Time,
        side: Side,
        all: bool,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32>;
    /// Where dst6 lies.
    fn pool6(&self) -> Pool6;
    /// Where to count.
    fn stats(&mut self) -> &mut Stats;
}

/// What an operator decides about a bridge. All durations are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// "4.1.9", "4.1.12" or "4.1.13"; "auto" takes every format and tells in the one that was
    /// heard first.
    pub format: String,
    /// How long a change may wait for others to share its datagram.
    pub flush_deadline: u32,
    /// How long a node that starts listens before it is ready: joold can't say that it has told
    /// everything.
    pub join_timeout: u32,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self { format: "auto".to_string(), flush_deadline: 5, join_timeout: 2000 }
    }
}

impl BridgeConfig {
    /// Refuses values that can't work, naming the key.
    ///
    /// # Errors
    /// The first problem found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.pinned()?;
        for (key, value, max) in [
            ("flush-deadline", self.flush_deadline, 60_000),
            ("join-timeout", self.join_timeout, 600_000),
        ] {
            if value > max {
                return Err(ConfigError(alloc::format!("{key}: {value} is outside 0 to {max}")));
            }
        }
        Ok(())
    }

    fn pinned(&self) -> Result<Option<Format>, ConfigError> {
        if self.format == "auto" {
            return Ok(None);
        }
        let format = self.format.parse();
        format.map(Some).map_err(|e| ConfigError(alloc::format!("format: {:?}: {e}", self.format)))
    }
}

/// Somebody who tells of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talker {
    /// The format that he writes.
    pub format: Format,
    /// When he was last heard.
    pub heard: Time,
    /// Datagrams that were taken.
    pub datagrams: u64,
    /// Sessions that the table took.
    pub sessions: u64,
    /// Sessions that it didn't: impossible, or in collision with one of ours.
    pub refused: u64,
}

/// A whole table on its way out.
#[derive(Clone, Copy, Debug)]
struct Advertising {
    /// Those sessions too that were heard over this bridge last.
    all: bool,
    cursor: u32,
    sessions: u64,
}

/// A bridge.
#[derive(Debug)]
pub struct Bridge {
    side: Side,
    pinned: Option<Format>,
    /// What we tell in; none until it is known.
    format: Option<Format>,
    flush_deadline: u64,
    join_timeout: u64,
    started: Option<Time>,
    ready: bool,
    talkers: BTreeMap<IpAddr, Talker>,
    advertising: Option<Advertising>,
    advertise_at: Time,
    /// When the last whole table was begun.
    advertised: Option<Time>,
    /// Somebody came while the table was on its way.
    again: bool,
    flush_at: Option<Time>,
    flushing: bool,
    events: Events,
}

impl Bridge {
    /// Listens, and tells what changes from the first `handle_timeout` on.
    ///
    /// # Errors
    /// What [`BridgeConfig::validate`] refuses.
    pub fn new(side: Side, config: &BridgeConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let pinned = config.pinned()?;
        Ok(Self {
            side,
            pinned,
            format: pinned,
            flush_deadline: config.flush_deadline.into(),
            join_timeout: config.join_timeout.into(),
            started: None,
            ready: false,
            talkers: BTreeMap::new(),
            advertising: None,
            advertise_at: Time::ZERO,
            advertised: None,
            again: false,
            flush_at: None,
            flushing: false,
            events: Events::default(),
        })
    }

    /// Takes this format alone from now on, and tells in it.
    pub fn pin(&mut self, format: Format) {
        (self.pinned, self.format) = (Some(format), Some(format));
    }

    /// Tells in this format, unless another one is configured, and goes on to take every one.
    pub fn tell_in(&mut self, format: Format) {
        self.format = self.pinned.or(Some(format));
    }

    /// The format that is told in, once it is known.
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// Why this node may become MASTER, or not yet.
    pub fn reason(&self) -> Reason {
        if self.ready { Reason::Listened } else { Reason::Listening }
    }

    /// The next thing worth a line in the log.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Everybody who has told of sessions, by address.
    pub fn talkers(&self) -> impl Iterator<Item = (IpAddr, Talker)> + '_ {
        self.talkers.iter().map(|(&addr, &talker)| (addr, talker))
    }

    /// Tells the whole table; once more if that is under way. Without `all` it leaves out what was
    /// heard over this bridge last: who is there knows it better.
    pub fn advertise(&mut self, now: Time, all: bool) {
        if self.advertising.is_some_and(|part| part.cursor > 0) {
            self.again = true;
            return;
        }
        self.advertising = Some(Advertising { all, cursor: 0, sessions: 0 });
        self.advertise_at = now;
    }

    /// Tells the whole table to somebody new, unless that was just done.
    fn welcome(&mut self, now: Time) {
        let waiting = self.advertising.is_some();
        let begun = self.advertising.is_some_and(|part| part.cursor > 0);
        self.again |= begun;
        if !waiting {
            self.advertising = Some(Advertising { all: true, cursor: 0, sessions: 0 });
            self.advertise_at = self.advertised.map_or(now, |at| now.max(at + WELCOME_PAUSE_MS));
        }
    }

    /// Takes a datagram; false if it isn't one of joold's.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        from: IpAddr,
        datagram: &[u8],
        table: &mut impl Bridged,
    ) -> bool {
        self.take(now, from, datagram, self.pinned, table).is_some()
    }

    /// Takes a page of a module's table, which has sessions as Jool 4.1.9 tells them whatever the
    /// module's own format is. How many they are, without those that can't be read.
    pub fn handle_page(&mut self, now: Time, page: &[u8], table: &mut impl Bridged) -> usize {
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        page.chunks(PAGE_PART)
            .filter_map(|part| self.take(now, from, part, Some(Format::Nested), table))
            .sum()
    }

    /// Takes a datagram; how many sessions it has, or None if it isn't one of joold's.
    fn take(
        &mut self,
        now: Time,
        from: IpAddr,
        datagram: &[u8],
        pinned: Option<Format>,
        table: &mut impl Bridged,
    ) -> Option<usize> {
        table.stats().count(Counter::JooldReceived);
        let decoded = match decode(datagram, pinned, table.pool6()) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.refuse(now, from, error, table.stats());
                return None;
            }
        };
        let mut talker = self.meet(now, from, decoded.format);
        for session in &decoded.sessions {
            let taken = match session {
                Ok(session) => self.hear(now, from, session, table),
                Err(_) => {
                    table.stats().count(Counter::JooldRejected);
                    false
                }
            };
            *(if taken { &mut talker.sessions } else { &mut talker.refused }) += 1;
        }
        table.stats().add(Counter::JooldSessionsReceived, decoded.sessions.len() as u64);
        talker.datagrams += 1;
        self.talkers.insert(from, talker);
        Some(decoded.sessions.len())
    }

    fn refuse(&mut self, now: Time, from: IpAddr, error: DatagramError, stats: &mut Stats) {
        stats.count(error.counter());
        self.events.joold_refused(now, from, error);
    }

    /// Who tells: known, or new and to be told everything.
    fn meet(&mut self, now: Time, from: IpAddr, format: Format) -> Talker {
        let known = self.talkers.get(&from).copied();
        if known.is_none() && self.talkers.len() == MAX_TALKERS {
            let oldest = self.talkers.iter().min_by_key(|(_, talker)| talker.heard);
            if let Some(oldest) = oldest.map(|(&addr, _)| addr) {
                self.talkers.remove(&oldest);
            }
        }
        if self.side == Side::Module {
            // Its format is that of its version, and how it comes and goes our caller sees.
        } else if known.is_none_or(|talker| talker.format != format) {
            self.events.joold_heard(now, from, format);
            let ours = *self.format.get_or_insert(format);
            if ours != format {
                self.events.joold_other_format(now, from, format, ours);
            }
        }
        let was_silent = known.is_none_or(|t| now.millis_since(t.heard) > SILENCE_MS);
        if self.side == Side::Joolds && was_silent {
            self.welcome(now);
        }
        let new = Talker { format, heard: now, datagrams: 0, sessions: 0, refused: 0 };
        known.map_or(new, |talker| Talker { format, heard: now, ..talker })
    }

    /// Hands a session to the table; false if it was refused.
    fn hear(
        &mut self,
        now: Time,
        from: IpAddr,
        session: &Session,
        table: &mut impl Bridged,
    ) -> bool {
        if !(1..=MAX_TIMEOUT_MS).contains(&session.lifetime_ms) {
            table.stats().count(Counter::JooldLifetime);
            return false;
        }
        match table.hear(now, self.side, session) {
            Learned::Applied | Learned::Unchanged | Learned::Stale => true,
            Learned::Collision => {
                self.events.joold_collision(now, from, session.key);
                false
            }
            Learned::Rejected | Learned::Full => false,
        }
    }

    /// Takes note of how many changes wait.
    pub fn notice_changes(&mut self, now: Time, pending: usize) {
        let Some(format) = self.format else { return };
        if pending >= format.sessions_per_datagram() {
            self.flushing = true;
        } else if pending > 0 && self.flush_at.is_none() {
            self.flush_at = Some(now + self.flush_deadline);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time, table: &mut impl Bridged) {
        let started = *self.started.get_or_insert_with(|| {
            table.track_bridge(self.side);
            now
        });
        if !self.ready && now.millis_since(started) >= self.join_timeout {
            self.ready = true;
            if self.side == Side::Joolds {
                self.events.push(Event::Ready { reason: self.reason() });
                if self.format.is_none() {
                    self.events.push(Event::JooldFormatUnknown);
                }
            }
        }
        self.flushing |= self.flush_at.is_some_and(|at| at <= now);
    }

    /// When `handle_timeout` is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let Some(started) = self.started else { return Some(Time::ZERO) };
        let ready = (!self.ready).then(|| started + self.join_timeout);
        let advertise = self.advertising.and(self.format).map(|_| self.advertise_at);
        let flush = self.flush_at.filter(|_| !self.flushing);
        [ready, advertise, flush].into_iter().flatten().min()
    }

    /// The next datagram to send: changes first, then what of the whole table is due.
    pub fn poll_transmit(&mut self, now: Time, table: &mut impl Bridged) -> Option<Vec<u8>> {
        let format = self.format?;
        let mut records = Vec::new();
        if self.flushing {
            while records.len() < format.sessions_per_datagram() {
                let Some(record) = table.pop_bridge(now, self.side) else {
                    let again = (table.bridge_pending(self.side) > 0).then_some(now);
                    (self.flushing, self.flush_at) = (false, again);
                    break;
                };
                records.push(record);
            }
        }
        if records.is_empty() && self.advertise_at <= now {
            self.next_part(now, format, table, &mut records);
        }
        if records.is_empty() {
            return None;
        }
        let mut datagram = Vec::with_capacity(records.len() * format.attribute_len());
        for record in &records {
            encode(&mut datagram, format, table.pool6(), &Session::from(record));
        }
        table.stats().count(Counter::JooldSent);
        table.stats().add(Counter::JooldSessionsSent, records.len() as u64);
        Some(datagram)
    }

    /// The next part of the whole table.
    fn next_part(
        &mut self,
        now: Time,
        format: Format,
        table: &impl Bridged,
        records: &mut Vec<SessionRecord>,
    ) {
        let Some(mut part) = self.advertising.take() else { return };
        if part.cursor == 0 {
            self.advertised = Some(now);
        }
        let mut looked = 0;
        while looked < SCAN_BUDGET {
            let room = format.sessions_per_datagram() - records.len();
            if room == 0 {
                break;
            }
            let push = &mut |record: SessionRecord| {
                if record.lifetime_ms > 0 {
                    records.push(record);
                }
            };
            let next = table.scan_bridge(now, self.side, part.all, part.cursor, room, push);
            looked += room;
            let Some(cursor) = next else {
                let sessions = part.sessions + records.len() as u64;
                match self.side {
                    Side::Joolds => self.events.push(Event::JooldAdvertised { sessions }),
                    Side::Module if sessions > 0 => {
                        self.events.push(Event::ModuleTold { sessions })
                    }
                    Side::Module => {}
                }
                if core::mem::take(&mut self.again) {
                    self.welcome(now);
                }
                return;
            };
            part.cursor = cursor;
        }
        part.sessions += records.len() as u64;
        self.advertising = Some(part);
        // The module takes everything, and at once.
        self.advertise_at = match self.side {
            Side::Joolds => now + ADVERTISE_PAUSE_MS,
            Side::Module => now,
        };
    }
}

impl From<&SessionRecord> for Session {
    fn from(record: &SessionRecord) -> Self {
        let SessionRecord { key, state, lifetime_ms, .. } = *record;
        Self { key, state, timer: Timer::of(key.proto, state), lifetime_ms }
    }
}
