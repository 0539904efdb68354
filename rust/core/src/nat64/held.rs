//! Packets that wait: openers, whose session a peer is to have before they leave, and strangers,
//! whose session a peer may have.
//!
//! Both were stopped at the filter, as they came, and are taken through the translator again when
//! they may go on. So they use what the table has then: a mapping that has come from a peer
//! meanwhile, in the place of one of ours that it excludes. Other packets pass them by.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use core::ops::Range;

use super::Nat64;
use super::incoming::{Tuple4, Tuple6};
use crate::packet::{HEADROOM, Outcome, OwnedPacket, Packet};
use crate::queue::pop_front_if;
use crate::stats::Counter;
use crate::table::{Holding, Query, Wanted};
use crate::time::Time;
use crate::tuple::{Endpoint4, Proto};

/// Packets that may wait.
const MAX_PACKETS: usize = 2048;
/// Bytes that they may have.
const MAX_BYTES: usize = 4 << 20;
/// Packets that may wait for one answer.
const MAX_PER_QUERY: u8 = 4;
/// Packets that one call takes through the translator: some 0.1 ms.
const BUDGET: usize = 256;
/// Questions to peers: one in so many microseconds on average …
const QUERY_US: u64 = 500;
/// … and as many at once as would be due in this time.
const QUERY_BURST_US: u64 = 128_000;
/// Every question in vain costs its sender this much of …
const MISS_MS: u64 = 10;
/// … this much credit, which comes back with time.
const MISS_CREDIT_MS: u64 = 1280;
/// Senders are told apart by so many hash values.
const SENDERS: usize = 256;

#[derive(Debug)]
struct Kept {
    packet: OwnedPacket,
    /// See [`Packet::mark`].
    mark: u32,
}

#[derive(Debug)]
struct Waiting {
    due: Time,
    /// Of openers: their number. Of strangers: their question's.
    number: u64,
    packet: Kept,
}

/// A question without an answer so far.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: u64,
    /// Packets that wait for its answer.
    packets: u8,
    sender: u8,
}

type Key = (Proto, Wanted, Endpoint4);

/// The packets that wait.
#[derive(Debug)]
pub(super) struct Held {
    holding: Holding,
    /// Packets are on their way out: they aren't held again.
    releasing: bool,
    openers: VecDeque<Waiting>,
    strangers: VecDeque<Waiting>,
    /// May go on, as soon as there is time.
    ready: VecDeque<Kept>,
    bytes: usize,
    opened: u64,
    asked: u64,
    /// Questions that nobody has fetched yet.
    queries: VecDeque<Query>,
    open: BTreeMap<Key, Open>,
    /// When the questions so far would be due at their average rate, µs.
    query_due: u64,
    /// When each sender's questions in vain are forgotten.
    misses: [Time; SENDERS],
}

impl Default for Held {
    fn default() -> Self {
        Self {
            holding: Holding::default(),
            releasing: false,
            openers: VecDeque::new(),
            strangers: VecDeque::new(),
            ready: VecDeque::new(),
            bytes: 0,
            opened: 0,
            asked: 0,
            queries: VecDeque::new(),
            open: BTreeMap::new(),
            query_due: 0,
            misses: [Time::ZERO; SENDERS],
        }
    }
}

impl Held {
    /// Whether packets that make sessions wait.
    #[inline]
    pub fn wants_openers(&self) -> bool {
        self.holding.opener_ms > 0 && !self.releasing
    }

    /// Whether packets wait for sessions of peers.
    pub fn wants_strangers(&self) -> bool {
        self.holding.stranger_ms > 0 && !self.releasing
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.openers.len() + self.strangers.len() + self.ready.len()
    }

    /// When the first of them has waited long enough.
    pub fn next_due(&self) -> Option<Time> {
        if !self.ready.is_empty() {
            return Some(Time::ZERO);
        }
        let first = [self.openers.front(), self.strangers.front()];
        first.into_iter().flatten().map(|waiting| waiting.due).min()
    }

    fn keep(&mut self, packet: &Packet<'_>) -> Option<Kept> {
        let bytes = packet.bytes();
        if self.len() >= MAX_PACKETS || self.bytes + bytes.len() > MAX_BYTES {
            return None;
        }
        self.bytes += bytes.len();
        let owned = OwnedPacket { bytes: bytes.to_vec(), offload: packet.offload };
        Some(Kept { packet: owned, mark: packet.mark })
    }

    /// Whether another question may be asked on behalf of that sender.
    fn may_ask(&mut self, now: Time, sender: u8) -> bool {
        let now_us = now.as_millis() * 1000;
        let spent = self.misses[usize::from(sender)].millis_since(now);
        let allowed = spent + MISS_MS <= MISS_CREDIT_MS
            && self.query_due <= now_us + QUERY_BURST_US - QUERY_US;
        if allowed {
            self.query_due = self.query_due.max(now_us) + QUERY_US;
        }
        allowed
    }

    fn close(&mut self, id: u64) -> Option<Open> {
        let (&key, &open) = self.open.iter().find(|(_, open)| open.id == id)?;
        self.open.remove(&key);
        Some(open)
    }
}

impl Nat64 {
    /// Packets that wait.
    pub fn held_packets(&self) -> usize {
        self.held.len()
    }

    /// What is held from now on. What waits already goes on waiting.
    pub fn hold(&mut self, holding: Holding) {
        self.held.holding = holding;
    }

    /// Keeps a packet that has made a session until the session is told. False if it is to go on
    /// at once.
    #[cold]
    pub(super) fn hold_opener(&mut self, now: Time, packet: &Packet<'_>) -> bool {
        let Some(packet) = self.held.keep(packet) else {
            self.stats.count(Counter::HeldFull);
            return false;
        };
        let due = now + u64::from(self.held.holding.opener_ms);
        let number = self.held.opened;
        self.held.openers.push_back(Waiting { due, number, packet });
        self.held.opened += 1;
        self.stats.count(Counter::HeldOpeners);
        true
    }

    /// Keeps a packet whose session a peer may have, and asks. False if nobody is asked.
    #[cold]
    pub(super) fn hold_stranger(
        &mut self,
        now: Time,
        packet: &Packet<'_>,
        sender: u128,
        owner: u16,
        key: Key,
    ) -> bool {
        if !self.held.wants_strangers() {
            return false;
        }
        let sender = self.table.sender_hash(sender) as u8;
        let held = &mut self.held;
        let id = match held.open.get(&key).copied() {
            Some(open) if open.packets >= MAX_PER_QUERY => return false,
            Some(open) => open.id,
            None if !held.may_ask(now, sender) => {
                self.stats.count(Counter::PullsSuppressed);
                return false;
            }
            None => held.asked,
        };
        let Some(kept) = held.keep(packet) else {
            self.stats.count(Counter::HeldFull);
            return false;
        };
        let due = now + u64::from(held.holding.stranger_ms);
        held.strangers.push_back(Waiting { due, number: id, packet: kept });
        held.open.entry(key).or_insert(Open { id, packets: 0, sender }).packets += 1;
        if id == held.asked {
            held.asked += 1;
            let (proto, wanted, dst4) = key;
            held.queries.push_back(Query { id, owner, proto, wanted, dst4 });
            self.stats.count(Counter::PullsSent);
        }
        true
    }

    /// A packet to a mask that nobody has here: if it lies in another node's slice, that node is
    /// asked, and the packet waits. `sender` is whose fault it is if there is none.
    pub(super) fn ask_owner(
        &mut self,
        now: Time,
        packet: &Packet<'_>,
        sender: u128,
        proto: Proto,
        mask: Endpoint4,
        dst4: Endpoint4,
    ) -> bool {
        if !self.held.wants_strangers() {
            return false;
        }
        let entry = self.config.pool4.iter().find(|entry| {
            entry.protocol.is_none_or(|p| p == proto)
                && entry.prefix.contains(mask.addr)
                && entry.ports.contains(mask.port)
        });
        match entry.and_then(|entry| entry.node) {
            Some(owner) if owner != self.config.node => {
                self.hold_stranger(now, packet, sender, owner, (proto, Wanted::Src4(mask), dst4))
            }
            _ => false,
        }
    }

    /// A segment from IPv6 that opens nothing, of a node that has no mapping here: any peer may
    /// have opened the connection.
    pub(super) fn ask_all6(&mut self, now: Time, packet: &Packet<'_>, tuple: &Tuple6) -> bool {
        let key = (tuple.proto, Wanted::Src6(tuple.src6), tuple.dst4);
        self.hold_stranger(now, packet, tuple.src6.addr.to_bits(), 0, key)
    }

    /// A packet from an IPv4 address that a mapping hasn't written to, as far as is known here.
    pub(super) fn ask_all4(&mut self, now: Time, packet: &Packet<'_>, tuple: &Tuple4) -> bool {
        let key = (tuple.proto, Wanted::Src4(tuple.dst4), tuple.src4);
        self.hold_stranger(now, packet, tuple.src4.addr.to_bits().into(), 0, key)
    }

    /// The next question for peers.
    pub fn pop_query(&mut self) -> Option<Query> {
        self.held.queries.pop_front()
    }

    /// How many openers were held so far.
    pub fn openers(&self) -> u64 {
        self.held.opened
    }

    /// Lets the openers of these numbers, from 0, go on, as far as they still wait.
    pub fn release_openers(&mut self, now: Time, numbers: &[Range<u64>]) {
        let Held { openers, ready, .. } = &mut self.held;
        for numbers in numbers {
            let from = openers.partition_point(|w| w.number < numbers.start);
            let until = openers.partition_point(|w| w.number < numbers.end);
            ready.extend(openers.drain(from..until).map(|opener| opener.packet));
        }
        self.let_go(now);
    }

    /// Lets those go on that wait for the answer to a question; `found` if it brought a session.
    pub fn release_strangers(&mut self, now: Time, id: u64, found: bool) {
        let Some(open) = self.held.close(id) else { return };
        if found {
            self.stats.count(Counter::PullsFound);
        } else {
            let miss = &mut self.held.misses[usize::from(open.sender)];
            *miss = (*miss).max(now) + MISS_MS;
            self.stats.count(Counter::PullsMissed);
        }
        let (ready, rest) =
            self.held.strangers.drain(..).partition::<VecDeque<_>, _>(|w| w.number == id);
        self.held.strangers = rest;
        self.held.ready.extend(ready.into_iter().map(|waiting| waiting.packet));
        self.let_go(now);
    }

    /// Lets those go on that have waited long enough.
    pub(super) fn expire_held(&mut self, now: Time) {
        while let Some(opener) = pop_front_if(&mut self.held.openers, |w| w.due <= now) {
            self.stats.count(Counter::HeldTimeouts);
            self.held.ready.push_back(opener.packet);
        }
        while let Some(stranger) = pop_front_if(&mut self.held.strangers, |w| w.due <= now) {
            if self.held.close(stranger.number).is_some() {
                self.stats.count(Counter::PullTimeouts);
            }
            self.held.ready.push_back(stranger.packet);
        }
        self.let_go(now);
    }

    /// Takes packets that may go on through the translator, a bounded number of them.
    fn let_go(&mut self, now: Time) {
        for _ in 0..BUDGET {
            let Some(kept) = self.held.ready.pop_front() else { break };
            self.held.bytes -= kept.packet.bytes.len();
            self.without_holding(|nat64| nat64.translate_held(now, &kept));
        }
        self.count_bibs();
    }

    /// Does something without holding the packets that it handles.
    pub(super) fn without_holding<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R {
        let before = core::mem::replace(&mut self.held.releasing, true);
        let result = act(self);
        self.held.releasing = before;
        result
    }

    fn translate_held(&mut self, now: Time, kept: &Kept) {
        let held = &kept.packet;
        let len = held.bytes.len();
        let mut buffer = vec![0; HEADROOM + len];
        buffer[HEADROOM..].copy_from_slice(&held.bytes);
        let mut packet = Packet::new(&mut buffer, HEADROOM, len, held.offload);
        packet.mark = kept.mark;
        self.all_steps(now, &mut packet, None);
        if packet.outcome == Outcome::Forward {
            let (bytes, offload) = (packet.bytes().to_vec(), packet.offload);
            self.push_packet(OwnedPacket { bytes, offload });
        }
    }
}
