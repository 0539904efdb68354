//! A small network, and a table that is a map.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::vec::Vec;

use crate::config::{Config, Pool4Entry};
use crate::stats::Stats;
use crate::sync::digest::Field;
use crate::sync::frame::Keyring;
use crate::sync::{Event, Sessions, Sync, SyncConfig};
use crate::table::{Change, Learned, Merge, SessionKey, SessionRecord, State};
use crate::time::Time;
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// A table whose merge is the simplest possible: the later version wins.
#[derive(Default)]
pub struct Model {
    pub sessions: BTreeMap<SessionKey, SessionRecord>,
    pub slots: Vec<SessionKey>,
    pub changes: VecDeque<Change>,
    pub removals: VecDeque<(SessionKey, u32)>,
    /// How often nothing comes of [`Sessions::pop_change`] though something waits.
    pub ended: usize,
    pub tracking: bool,
    pub stats: Stats,
}

impl Model {
    pub fn create(&mut self, number: u32) {
        let record = session(number, 1);
        self.learn(Time::ZERO, &record);
        self.tell(Change::Upsert(record));
    }

    pub fn remove(&mut self, number: u32) {
        let removed = self.sessions.remove(&session(number, 0).key).unwrap();
        self.removals.push_back((removed.key, removed.version + 1));
    }

    pub fn tell(&mut self, change: Change) {
        if self.tracking {
            self.changes.push_back(change);
        }
    }
}

pub fn session(number: u32, version: u32) -> SessionRecord {
    let src6 = Endpoint6 { addr: u128::from(number).into(), port: number as u16 };
    let src4 = Endpoint4 { addr: (0xc000_0200 + (number >> 16)).into(), port: number as u16 };
    let dst4 = Endpoint4 { addr: "203.0.113.24".parse().unwrap(), port: 80 };
    let key = SessionKey { proto: Proto::Udp, src6, src4, dst4 };
    SessionRecord { key, state: State::Established, lifetime_ms: 300_000, version }
}

impl Sessions for Model {
    fn learn(&mut self, _now: Time, record: &SessionRecord) -> Merge {
        if self.sessions.get(&record.key).is_some_and(|ours| ours.version >= record.version) {
            return Learned::Unchanged.into();
        }
        if self.sessions.insert(record.key, *record).is_none() {
            self.slots.push(record.key);
        }
        Learned::Applied.into()
    }

    fn unlearn(&mut self, _now: Time, key: &SessionKey, version: u32) -> bool {
        let older = self.sessions.get(key).is_some_and(|ours| ours.version < version);
        older && self.sessions.remove(key).is_some()
    }

    fn revive(&mut self, key: &SessionKey, removed: u32) {
        let session = self.sessions.get_mut(key).filter(|session| session.version < removed);
        if let Some(session) = session {
            session.version = removed;
            let change = Change::Upsert(*session);
            self.tell(change);
        }
    }

    fn track_changes(&mut self, on: bool) {
        self.tracking = on;
        self.changes.clear();
    }

    fn has(&self, key: &SessionKey) -> bool {
        self.sessions.contains_key(key)
    }

    fn changes_pending(&self) -> usize {
        self.changes.len() + self.removals.len() + self.ended
    }

    fn pop_change(&mut self, _now: Time) -> Option<Change> {
        let removal = self.pop_removal().map(|(key, version)| Change::Remove(key, version));
        if removal.is_none() && self.ended > 0 {
            self.ended -= 1;
            return None;
        }
        removal.or_else(|| self.changes.pop_front())
    }

    fn pop_removal(&mut self) -> Option<(SessionKey, u32)> {
        self.removals.pop_front()
    }

    fn scan(
        &self,
        _now: Time,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        let end = (cursor as usize).saturating_add(budget).min(self.slots.len());
        for key in self.slots.get(cursor as usize..end).unwrap_or_default() {
            if let Some(record) = self.sessions.get(key) {
                f(*record);
            }
        }
        (end < self.slots.len()).then_some(end as u32)
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }
}

pub struct Member {
    pub sync: Sync,
    pub table: Model,
    pub keyring: Keyring,
    pub events: Vec<Event>,
}

/// Nodes on a network that loses frames.
pub struct Net {
    pub now: Time,
    pub members: BTreeMap<u16, Member>,
    /// Frames on their way: when they arrive, to whom, sealed.
    pub wire: VecDeque<(Time, u16, Vec<u8>)>,
    /// Everything that was ever sent.
    pub recorded: Vec<Vec<u8>>,
    /// Of a thousand frames.
    pub loss: u32,
    /// Frames from the first to the second are lost.
    pub cut: BTreeSet<(u16, u16)>,
    pub random: u64,
    pub epochs: u64,
    pub max_frame: u16,
    pub max_sessions_per_frame: Option<u16>,
    pub flush_deadline: u32,
    pub allow_mismatch: Vec<Field>,
}

impl Net {
    pub fn new() -> Self {
        Self {
            now: Time::from_millis(5000),
            members: BTreeMap::new(),
            wire: VecDeque::new(),
            recorded: Vec::new(),
            loss: 0,
            cut: BTreeSet::new(),
            random: 1,
            epochs: 0,
            max_frame: 1400,
            max_sessions_per_frame: None,
            flush_deadline: 5,
            allow_mismatch: Vec::new(),
        }
    }

    pub fn start(&mut self, node: u16) {
        self.start_with(node, &config());
    }

    pub fn start_with(&mut self, node: u16, config: &Config) {
        self.epochs += 1;
        let max_frame = self.max_frame;
        let allow_mismatch = self.allow_mismatch.clone();
        let own = SyncConfig {
            max_frame,
            max_sessions_per_frame: self.max_sessions_per_frame,
            flush_deadline: self.flush_deadline,
            allow_mismatch,
            ..SyncConfig::new(node, "campus", self.epochs)
        };
        let member = Member {
            sync: Sync::new(own.clone(), config, &[node as u8; 32]).unwrap(),
            table: Model::default(),
            keyring: Keyring::new(&[[1; 32]], &own).unwrap(),
            events: Vec::new(),
        };
        self.members.insert(node, member);
    }

    pub fn at(&mut self, node: u16) -> &mut Member {
        self.members.get_mut(&node).unwrap()
    }

    pub fn lose(&mut self) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % 1000 < self.loss.into()
    }

    pub fn run(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.step();
        }
    }

    /// A millisecond.
    pub fn step(&mut self) {
        self.now = self.now + 1;
        let now = self.now;
        let due = self.wire.iter().position(|(at, ..)| *at > now).unwrap_or(self.wire.len());
        for (_, to, bytes) in self.wire.drain(..due).collect::<Vec<_>>() {
            self.deliver(to, &bytes);
        }
        let max_frame = usize::from(self.max_frame);
        for node in self.members.keys().copied().collect::<Vec<_>>() {
            let Member { sync, table, keyring, events } = self.at(node);
            sync.notice_changes(now, table.changes_pending());
            sync.bury_untold(now, table);
            let mut calls = 0;
            while sync.poll_timeout().is_some_and(|at| at <= now) {
                sync.handle_timeout(now, table);
                calls += 1;
                assert!(calls < 4, "node {node} never comes to rest");
            }
            let mut out = Vec::new();
            while let Some(transmit) = sync.poll_transmit(now, table) {
                let to = transmit.to();
                let bytes = keyring.seal(transmit);
                assert!(bytes.len() <= max_frame);
                out.push((to, bytes));
            }
            assert!(!sync.transmit_pending());
            events.extend(core::iter::from_fn(|| sync.poll_event()));
            for (to, bytes) in out {
                self.recorded.push(bytes.clone());
                for peer in self.members.keys().copied().collect::<Vec<_>>() {
                    let cut = self.cut.contains(&(node, peer));
                    if peer != node && (to == 0 || to == peer) && !cut && !self.lose() {
                        self.wire.push_back((now + 1, peer, bytes.clone()));
                    }
                }
            }
        }
    }

    pub fn deliver(&mut self, to: u16, bytes: &[u8]) -> bool {
        let now = self.now;
        let Some(Member { sync, table, keyring, .. }) = self.members.get_mut(&to) else {
            return false;
        };
        match keyring.open(bytes) {
            Ok(frame) => sync.handle_frame(now, &frame, table),
            Err(error) => {
                sync.refuse_frame(now, error, &mut table.stats);
                false
            }
        }
    }

    pub fn ready(&self, node: u16) -> bool {
        self.members[&node].sync.reason().ready()
    }

    pub fn state(&self, node: u16, of: u16) -> &'static str {
        let mut peers = self.members[&node].sync.peers(self.now);
        peers.find(|peer| peer.node == of).map_or("unknown", |peer| peer.state)
    }

    pub fn assert_equal(&self) {
        let mut tables = self.members.iter().map(|(node, member)| (node, &member.table.sessions));
        let (_, first) = tables.next().unwrap();
        for (node, table) in tables {
            assert_eq!(table.len(), first.len(), "node {node}");
            assert!(table == first, "node {node}");
        }
    }
}

pub fn config() -> Config {
    let pool4 = Pool4Entry {
        protocol: None,
        prefix: "192.0.2.1".parse().unwrap(),
        ports: "61001-65535".parse().unwrap(),
        node: None,
        mark: 0,
    };
    Config { pool4: std::vec![pool4], ..Config::default() }
}
