//! Subscribers, and the limits that keep one of them from using up what all share (RFC 6888 REQ-4
//! and REQ-5).
//!
//! A subscriber is an IPv6 prefix of the operator's length. Records exist only while the
//! subscriber has mappings, and only if there are limits or port blocks.

use alloc::vec::Vec;

use super::Table;
use super::hash::Keys;
use super::index::Index;
use super::session::NIL;
use crate::config::Globals;
use crate::time::Time;

/// What a subscriber may have; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    prefix_len: u8,
    ports: u32,
    sessions: u32,
    rate: u32,
    block_size: u32,
}

impl From<&Globals> for Limits {
    fn from(global: &Globals) -> Self {
        Self {
            prefix_len: global.subscriber_prefix_length,
            ports: global.max_ports_per_subscriber,
            sessions: global.max_sessions_per_subscriber,
            rate: global.max_session_rate_per_subscriber,
            block_size: global.port_block_size,
        }
    }
}

impl Limits {
    fn any(&self) -> bool {
        self.ports > 0 || self.sessions > 0 || self.rate > 0 || self.block_size > 0
    }

    fn prefix(&self, src6: u128) -> u128 {
        src6 & u128::MAX.checked_shl(128 - u32::from(self.prefix_len)).unwrap_or(0)
    }
}

/// Which limit a subscriber has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// `max-ports-per-subscriber`: BIB entries, of all protocols.
    Ports,
    /// `max-sessions-per-subscriber`.
    Sessions,
    /// `max-session-rate-per-subscriber`: sessions begun in one second.
    Rate,
}

#[derive(Clone, Copy, Debug)]
struct Subscriber {
    prefix: u128,
    ports: u32,
    sessions: u32,
    /// The second that `begun` is about, modulo 2^32; of a free record the next free one.
    second: u32,
    begun: u32,
    /// The first of its port blocks.
    blocks: u32,
}

/// Every subscriber with a mapping.
#[derive(Debug)]
pub(super) struct Subscribers {
    limits: Limits,
    index: Index,
    records: Vec<Subscriber>,
    free: u32,
}

impl Subscribers {
    fn new(limits: Limits, capacity: u32) -> Self {
        let records = Vec::with_capacity(capacity as usize);
        Self { limits, index: Index::new(capacity), records, free: NIL }
    }

    #[cfg(test)]
    pub(super) fn find_blocks_of(&self, slot: u32) -> u32 {
        self.records[slot as usize].blocks
    }

    /// Whether no subscriber has a mapping.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    fn find(&self, keys: &Keys, prefix: u128) -> Option<u32> {
        let tag = keys.tag(prefix, 0);
        self.index.find(tag, |slot| self.records[slot as usize].prefix == prefix)
    }

    /// The prefix of the subscriber of an address.
    pub(super) fn prefix(&self, src6: u128) -> u128 {
        self.limits.prefix(src6)
    }

    /// A subscriber's prefix and its length.
    pub(super) fn prefix_of(&self, slot: u32) -> (u128, u8) {
        (self.records[slot as usize].prefix, self.limits.prefix_len)
    }

    /// The first port block of the subscriber of an address, `NIL` if it has none.
    pub(super) fn find_blocks(&self, keys: &Keys, src6: u128) -> u32 {
        self.find(keys, self.prefix(src6)).map_or(NIL, |slot| self.records[slot as usize].blocks)
    }

    /// The first port block of a subscriber.
    pub(super) fn blocks_mut(&mut self, slot: u32) -> &mut u32 {
        &mut self.records[slot as usize].blocks
    }

    /// A mapping was made: the slot of its subscriber. There is one for each mapping at most, so
    /// the records are as many as the BIB entries that there is room for.
    pub(super) fn add_port(&mut self, keys: &Keys, src6: u128) -> u32 {
        let prefix = self.limits.prefix(src6);
        let slot = self.find(keys, prefix).unwrap_or_else(|| {
            let new =
                Subscriber { prefix, ports: 0, sessions: 0, second: 0, begun: 0, blocks: NIL };
            let slot = if self.free == NIL {
                self.records.push(new);
                self.records.len() as u32 - 1
            } else {
                let slot = self.free;
                self.free = self.records[slot as usize].second;
                self.records[slot as usize] = new;
                slot
            };
            self.index.insert(keys.tag(prefix, 0), slot);
            slot
        });
        self.records[slot as usize].ports += 1;
        slot
    }

    /// A mapping of the subscriber is gone.
    pub(super) fn remove_port(&mut self, keys: &Keys, slot: u32) {
        self.records[slot as usize].ports -= 1;
        self.forget(keys, slot);
    }

    /// The subscriber has more sessions.
    pub(super) fn add_sessions(&mut self, slot: u32, count: u32) {
        self.records[slot as usize].sessions += count;
    }

    /// A session of the subscriber is gone.
    pub(super) fn remove_session(&mut self, keys: &Keys, slot: u32) {
        self.records[slot as usize].sessions -= 1;
        self.forget(keys, slot);
    }

    fn forget(&mut self, keys: &Keys, slot: u32) {
        let record = &mut self.records[slot as usize];
        if record.ports == 0 && record.sessions == 0 {
            self.index.remove(keys.tag(record.prefix, 0), slot);
            record.second = self.free;
            self.free = slot;
        }
    }

    fn admit(&mut self, keys: &Keys, now: Time, src6: u128, needs_port: bool) -> Result<(), Quota> {
        let limits = self.limits;
        let Some(slot) = self.find(keys, limits.prefix(src6)) else { return Ok(()) };
        let record = &mut self.records[slot as usize];
        if needs_port && limits.ports > 0 && record.ports >= limits.ports {
            return Err(Quota::Ports);
        }
        if limits.sessions > 0 && record.sessions >= limits.sessions {
            return Err(Quota::Sessions);
        }
        if limits.rate > 0 {
            let second = (now.as_millis() / 1000) as u32;
            if record.second != second {
                (record.second, record.begun) = (second, 0);
            }
            if record.begun >= limits.rate {
                return Err(Quota::Rate);
            }
            record.begun += 1;
        }
        Ok(())
    }
}

impl Table {
    /// Other limits from now on. What exceeds them already stays; to begin with, or for another
    /// prefix length, every BIB entry is looked at.
    pub fn set_limits(&mut self, limits: Limits) {
        if let Some(subscribers) = &mut self.subscribers
            && limits.any()
            && subscribers.limits.prefix_len == limits.prefix_len
            && subscribers.limits.block_size == limits.block_size
        {
            subscribers.limits = limits;
            return;
        }
        self.evict_all();
        let blocks = (self.port_block_size(), limits.block_size);
        if blocks != (0, 0) {
            self.end_blocks();
        }
        self.subscribers = limits.any().then(|| Subscribers::new(limits, self.bib_capacity));
        if let Some(subscribers) = &mut self.subscribers {
            for slot in 0..self.arena.bib_slots() {
                let bib = self.arena.bib_mut(slot);
                // The sessions of an entry that waits to be swept don't count any more.
                bib.subscriber = NIL;
                if bib.is_live() {
                    bib.subscriber = subscribers.add_port(&self.keys, bib.src6);
                    subscribers.add_sessions(bib.subscriber, bib.sessions);
                }
            }
        }
        if blocks != (0, 0) {
            self.begin_blocks(limits.block_size);
        }
    }

    /// Whether the subscriber of an IPv6 address may have another session, and another mapping if
    /// it needs one. A session that is admitted counts against the rate.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(&mut self, now: Time, src6: u128, needs_port: bool) -> Result<(), Quota> {
        match &mut self.subscribers {
            None => Ok(()),
            Some(subscribers) => subscribers.admit(&self.keys, now, src6, needs_port),
        }
    }
}
