//! BIB and sessions in memory.
//!
//! A BIB entry is found through its IPv6 transport address (a keyed hash) or through its mask (an
//! array indexed by address and port). Its first session lies in the same cache line; further ones
//! have records of their own, found through a second hash keyed by entry and IPv4 endpoint. Each
//! session stands in one list of a timing wheel. All memory is reserved at start and taken when it
//! is first used; nothing moves.

pub mod bib;
mod bitset;
mod blocks;
mod changes;
pub mod expiry;
pub mod fragment;
pub mod hash;
mod hear;
pub(crate) mod index;
mod journal;
mod life;
mod merge;
pub mod pool4;
mod query;
pub mod record;
pub mod session;
pub mod stored;
pub mod subscriber;
mod tell;

#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use bib::{Arena, Bib, bib_flag};
use blocks::Blocks;
use changes::Changes;
use expiry::Wheel;
use hash::Keys;
use index::Index;
use journal::Journal;
use pool4::{Pool4, Wish};
use session::{NIL, Session, SessionId, deadline, flag};
use subscriber::Subscribers;

pub use journal::{LogEvent, PortBlock};
pub use merge::Merge;
pub use query::{Holding, Query, Wanted};
pub use record::{BibRecord, Change, Learned, SessionKey, SessionRecord, Side, State};

use crate::config::{Globals, Pool4Entry};
use crate::time::Time;
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// Static BIB entries that may be added while running, beyond `max-sessions`.
const SPARE_BIBS: u32 = 4096;
/// Ports that are looked at in the time that it takes to end the BIB entry of one.
const PLACES_PER_ENTRY: usize = 16;

/// Lifetimes of sessions, in ms (RFC 6146 §4).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    udp: u32,
    icmp: u32,
    tcp_est: u32,
    tcp_trans: u32,
}

impl Timeouts {
    /// The lifetime that a packet gives to a session of that protocol and state.
    #[inline]
    pub fn of(&self, proto: Proto, state: State) -> u32 {
        match (proto, state) {
            (Proto::Udp, _) => self.udp,
            (Proto::Icmp, _) => self.icmp,
            (Proto::Tcp, State::Established | State::V4FinRcv | State::V6FinRcv) => self.tcp_est,
            (Proto::Tcp, _) => self.tcp_trans,
        }
    }
}

impl From<&Globals> for Timeouts {
    fn from(global: &Globals) -> Self {
        Self {
            udp: global.udp_timeout,
            icmp: global.icmp_timeout,
            tcp_est: global.tcp_est_timeout,
            tcp_trans: global.tcp_trans_timeout,
        }
    }
}

/// The table had no room for another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// BIB, sessions, pool4 and timers.
#[derive(Debug)]
pub struct Table {
    arena: Arena,
    keys: Keys,
    by_src6: Index,
    by_dst4: Index,
    pool4: Pool4,
    wheel: Wheel,
    timeouts: Timeouts,
    changes: Changes,
    journal: Journal,
    /// None without limits and port blocks.
    subscribers: Option<Subscribers>,
    blocks: Option<Blocks>,
    bib_capacity: u32,
    max_sessions: u32,
    sessions: u32,
    bibs: u32,
    bibs_created: u64,
    /// The latest version of a session that was removed. A new one begins in the generation behind
    /// it, so that a peer that still has the old one takes the new one for the newer.
    clock: u32,
    /// RFC 6056 §3.3.3's `next_ephemeral`.
    next_ephemeral: u64,
    /// How many further sessions a BIB entry (by slot) has with an IPv4 address. Kept only for
    /// address-dependent filtering, which asks for an address whatever its port.
    peers: Option<BTreeMap<(u32, u32), u32>>,
    /// Entries whose further sessions are yet to be swept, and where to go on.
    dying: u32,
    sweep_at: u32,
}

impl Table {
    /// An empty table of node `node` for `max_sessions` sessions.
    pub fn new(
        max_sessions: u32,
        pool4: &[Pool4Entry],
        node: u16,
        timeouts: Timeouts,
        secret: &[u8; 32],
    ) -> Self {
        let keys = Keys::new(secret);
        let mut pool4 = Pool4::new(pool4, node, &keys);
        pool4.reserve();
        Self {
            arena: Arena::new(max_sessions + SPARE_BIBS),
            by_src6: Index::new(max_sessions + SPARE_BIBS),
            by_dst4: Index::new(max_sessions),
            pool4,
            keys,
            wheel: Wheel::default(),
            timeouts,
            changes: Changes::default(),
            journal: Journal::default(),
            subscribers: None,
            blocks: None,
            bib_capacity: max_sessions + SPARE_BIBS,
            max_sessions,
            sessions: 0,
            bibs: 0,
            bibs_created: 0,
            clock: 0,
            next_ephemeral: 0,
            peers: None,
            dying: 0,
            sweep_at: 0,
        }
    }

    /// Sessions in the table.
    pub fn session_count(&self) -> u32 {
        self.sessions
    }

    /// BIB entries in the table.
    pub fn bib_count(&self) -> u32 {
        self.bibs
    }

    /// BIB entries that were made and that were removed since the start.
    pub fn bibs_made(&self) -> (u64, u64) {
        (self.bibs_created, self.bibs_created - u64::from(self.bibs))
    }

    /// Memory in use, in bytes; of the hash indexes what their fill makes resident at most.
    pub fn bytes(&self) -> usize {
        let resident = |index: &Index| index.bytes().min(index.len() as usize * 4096);
        self.arena.bytes() + self.pool4.bytes() + resident(&self.by_src6) + resident(&self.by_dst4)
    }

    /// Addresses that the next records will have, BIB entries and further sessions.
    pub fn unused_memory(&self) -> [Range<usize>; 2] {
        self.arena.unused_memory()
    }

    /// The lifetimes in force.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Other lifetimes from now on. Sessions keep the deadline that they have until their next
    /// packet.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
    }

    /// pool4, to be looked at.
    pub fn pool4(&self) -> &Pool4 {
        &self.pool4
    }

    // ---- Looking up ----

    /// The tag under which the BIB entry of an IPv6 transport address stands in its index.
    #[inline]
    pub fn tag6(&self, proto: Proto, src6: u128, port6: u16) -> u32 {
        self.keys.tag(src6, u64::from(port6) << 8 | proto as u64)
    }

    /// The slot that a tag most likely belongs to: begins to load the index.
    #[inline]
    pub fn guess6(&self, tag: u32) -> Option<u32> {
        self.by_src6.guess(tag)
    }

    /// Whether the slot is that transport address' entry: begins to load the record.
    #[inline]
    pub fn is_src6(&self, slot: u32, proto: Proto, src6: u128, port6: u16) -> bool {
        self.arena.bib(slot).has_src6(proto, src6, port6)
    }

    /// The BIB entry of an IPv6 transport address of which the tag is known.
    #[inline]
    pub fn find6_tagged(&self, tag: u32, proto: Proto, src6: u128, port6: u16) -> Option<u32> {
        self.by_src6.find(tag, |slot| {
            self.arena.bib(slot).has_src6(proto, src6, port6) && self.is_known(slot)
        })
    }

    /// The BIB entry of an IPv6 transport address.
    #[inline]
    pub fn find6(&self, proto: Proto, src6: u128, port6: u16) -> Option<u32> {
        self.find6_tagged(self.tag6(proto, src6, port6), proto, src6, port6)
    }

    /// The BIB entry of a mask.
    #[inline]
    pub fn find4(&self, proto: Proto, src4: u32, port4: u16) -> Option<u32> {
        self.pool4.owner(proto, src4, port4)
    }

    /// Whether the slot holds a BIB entry that is to be used: not one that was removed, nor one of
    /// which the mask isn't in pool4 any more.
    #[inline]
    pub fn is_known(&self, slot: u32) -> bool {
        self.pool4.recognises(slot, self.arena.bib(slot))
    }

    /// A BIB entry.
    #[inline]
    pub fn bib(&self, slot: u32) -> &Bib {
        self.arena.bib(slot)
    }

    /// A session.
    #[inline]
    pub fn session(&self, id: SessionId) -> &Session {
        self.arena.session(id)
    }

    /// The slot of a session's BIB entry.
    #[inline]
    pub fn bib_of(&self, id: SessionId) -> u32 {
        self.arena.bib_of(id)
    }

    #[inline]
    fn tag_session(&self, bib: u32, dst4: u32, dst_port: u16) -> u32 {
        self.keys.tag(u128::from(bib) << 64 | u128::from(dst4), 1 << 32 | u64::from(dst_port))
    }

    /// The session of a BIB entry with an IPv4 endpoint.
    #[inline(always)]
    pub fn find_session(&self, slot: u32, dst4: u32, dst_port: u16) -> Option<SessionId> {
        let first = &self.arena.bib(slot).first;
        if first.dst4 == dst4 && first.dst_port == dst_port && first.is_live() {
            return Some(SessionId::inline(slot));
        }
        self.find_further(slot, dst4, dst_port)
    }

    /// The same of those beyond the first.
    #[inline(never)]
    fn find_further(&self, slot: u32, dst4: u32, dst_port: u16) -> Option<SessionId> {
        let bib = self.arena.bib(slot);
        let first = &bib.first;
        if bib.sessions <= u32::from(first.is_live()) {
            return None;
        }
        let found = self.by_dst4.find(self.tag_session(slot, dst4, dst_port), |n| {
            let id = SessionId::overflow(n);
            let session = self.arena.session(id);
            session.dst4 == dst4 && session.dst_port == dst_port && self.arena.bib_of(id) == slot
        });
        found.map(SessionId::overflow)
    }

    /// Whether [`Table::has_session_with`] can be asked. To begin with it takes a look at every
    /// session that isn't its BIB entry's first.
    pub fn track_peers(&mut self, on: bool) {
        if on == self.peers.is_some() {
            return;
        }
        self.peers = on.then(BTreeMap::new);
        let Some(peers) = &mut self.peers else { return };
        for n in 0..self.arena.overflow_slots() {
            let id = SessionId::overflow(n);
            let session = self.arena.session(id);
            if session.is_live() {
                *peers.entry((self.arena.bib_of(id), session.dst4)).or_insert(0) += 1;
            }
        }
    }

    /// Whether a BIB entry has a session with that IPv4 address, on any port (RFC 6146's
    /// address-dependent filtering).
    pub fn has_session_with(&self, slot: u32, dst4: u32) -> bool {
        let first = &self.arena.bib(slot).first;
        (first.is_live() && first.dst4 == dst4)
            || self.peers.as_ref().is_some_and(|peers| peers.contains_key(&(slot, dst4)))
    }

    // ---- Making and ending ----

    /// Whether another session fits.
    pub fn has_room(&self) -> bool {
        self.sessions < self.max_sessions
    }

    /// A transport address for a new mapping, not taken yet (RFC 6146 §3.5.1.1), of an entry of
    /// pool4 with that mark; with port blocks one of the subscriber's.
    pub fn choose_mask(
        &mut self,
        proto: Proto,
        mark: u32,
        src6: u128,
        port6: u16,
        dst: Endpoint4,
        f_args: u8,
    ) -> Option<Endpoint4> {
        let mark = self.pool4.mark(mark)?;
        let (high, low) = ((src6 >> 64) as u64, src6 as u64);
        let node = self.keys.address_hash(src6);
        let pick = |bit: u8, value: u64| if f_args & bit != 0 { value } else { 0 };
        let f = self.keys.prf(&[
            pick(8, high),
            pick(8, low),
            pick(4, u64::from(port6)),
            pick(2, u64::from(dst.addr.to_bits())),
            pick(1, u64::from(dst.port)),
        ]);
        let wish = Wish { node, offset: f.wrapping_add(self.next_ephemeral), port: port6 };
        let mask = match self.blocks {
            None => self.pool4.choose(proto, mark, &wish),
            Some(_) => self.choose_in_block(proto, mark, src6, &wish),
        }?;
        self.next_ephemeral = self.next_ephemeral.wrapping_add(1);
        Some(mask)
    }

    /// Makes a BIB entry. Neither address has one; the mask is in pool4.
    ///
    /// # Errors
    /// All slots are taken, or the mask isn't in pool4.
    pub fn create_bib(
        &mut self,
        proto: Proto,
        src6: Endpoint6,
        src4: Endpoint4,
        is_static: bool,
    ) -> Result<u32, Full> {
        let (address6, address4) = (src6.addr.to_bits(), src4.addr.to_bits());
        let mut bib = Bib::new(proto, address6, src6.port, address4, src4.port);
        if is_static {
            bib.flags |= bib_flag::STATIC;
        }
        let slot = self.arena.add_bib(bib).ok_or(Full)?;
        if !self.pool4.claim(proto, address4, src4.port, slot) {
            self.arena.free_bib(slot);
            return Err(Full);
        }
        self.by_src6.insert(self.tag6(proto, address6, src6.port), slot);
        if let Some(subscribers) = &mut self.subscribers {
            self.arena.bib_mut(slot).subscriber = subscribers.add_port(&self.keys, address6);
            self.join_block(slot);
        }
        self.bibs += 1;
        self.bibs_created += 1;
        Ok(slot)
    }

    /// Makes a session, which the BIB entry doesn't have, on behalf of traffic.
    ///
    /// # Errors
    /// The table holds as many as it may. A dynamic BIB entry that this leaves without sessions
    /// is the caller's to remove.
    pub fn create_session(
        &mut self,
        now: Time,
        slot: u32,
        dst4: u32,
        dst_port: u16,
        state: State,
    ) -> Result<SessionId, Full> {
        let lifetime = self.timeouts.of(self.arena.bib(slot).proto(), state);
        let end = deadline(now, lifetime);
        let mut session = Session::new(dst4, dst_port, state, end, self.clock | COUNT);
        session.flags |= flag::LOCAL;
        let id = self.insert_session(now, slot, session)?;
        self.mark_changed(id);
        self.own_bib(slot);
        if self.journal.sessions {
            self.journal.push(LogEvent::SessionAdded(self.key_of(slot, &session)));
        }
        Ok(id)
    }

    /// Traffic here uses the mapping: it is ours to tell of.
    fn own_bib(&mut self, slot: u32) {
        let bib = self.arena.bib_mut(slot);
        if bib.flags & bib_flag::LOCAL != 0 {
            return;
        }
        bib.flags |= bib_flag::LOCAL;
        self.tell_of_mapping(slot);
    }

    fn insert_session(
        &mut self,
        now: Time,
        slot: u32,
        session: Session,
    ) -> Result<SessionId, Full> {
        if !self.has_room() {
            return Err(Full);
        }
        let bib = self.arena.bib_mut(slot);
        let id = if bib.first.is_live() {
            let (dst4, dst_port) = (session.dst4, session.dst_port);
            let id = self.arena.add_overflow(session, slot).ok_or(Full)?;
            let tag = self.tag_session(slot, dst4, dst_port);
            self.by_dst4.insert(tag, id.overflow_slot().unwrap_or(NIL));
            if let Some(peers) = &mut self.peers {
                *peers.entry((slot, dst4)).or_insert(0) += 1;
            }
            id
        } else {
            bib.first = session.in_place_of(&bib.first);
            SessionId::inline(slot)
        };
        let bib = self.arena.bib_mut(slot);
        bib.sessions += 1;
        if let Some(subscribers) = &mut self.subscribers {
            subscribers.add_sessions(bib.subscriber, 1);
        }
        self.sessions += 1;
        self.arm(now, id);
        Ok(id)
    }

    /// Ends a session, and its BIB entry if that is dynamic and has no other.
    pub fn remove_session(&mut self, id: SessionId) {
        let slot = self.arena.bib_of(id);
        let session = *self.arena.session(id);
        if session.prev != NIL {
            self.wheel.remove(&mut self.arena, id);
        }
        let mut version = session.version;
        if session.flags & flag::LOCAL != 0 {
            let key = self.key_of(slot, &session);
            if self.changes.removals {
                version = version.wrapping_add(1);
                self.changes.push_removed(key, version);
            }
            if self.journal.sessions && session.flags & flag::HEARD == 0 {
                self.journal.push(LogEvent::SessionRemoved(key));
            }
        }
        if is_newer(version, self.clock) {
            self.clock = version;
        }
        if let Some(n) = id.overflow_slot() {
            self.by_dst4.remove(self.tag_session(slot, session.dst4, session.dst_port), n);
            let pair = (slot, session.dst4);
            if let Some(peers) = &mut self.peers
                && let Some(count) = peers.get_mut(&pair)
            {
                *count -= 1;
                if *count == 0 {
                    peers.remove(&pair);
                }
            }
        }
        self.arena.free_session(id);
        self.sessions -= 1;
        let bib = self.arena.bib_mut(slot);
        bib.sessions -= 1;
        if let Some(subscribers) = &mut self.subscribers
            && bib.subscriber != NIL
        {
            subscribers.remove_session(&self.keys, bib.subscriber);
        }
        if !is_newer(bib.newest, session.version) {
            // Peers may never have heard of it: it says nothing any more about the others.
            if bib.first.is_live() {
                bib.newest = bib.first.version;
            } else {
                bib.flags |= bib_flag::OUTDATED;
            }
        }
        if bib.sessions == 0 {
            if bib.flags & bib_flag::DYING != 0 {
                self.dying -= 1;
                self.arena.free_bib(slot);
            } else if !bib.is_static() {
                self.remove_bib(slot);
            }
        }
    }

    /// Removes a BIB entry and its sessions. Those beyond the first can't be found any more, and
    /// go when [`Table::sweep`] comes along.
    pub fn remove_bib(&mut self, slot: u32) {
        let bib = *self.arena.bib(slot);
        let proto = bib.proto();
        self.by_src6.remove(self.tag6(proto, bib.src6, bib.port6), slot);
        self.pool4.release(proto, bib.src4, bib.port4, slot);
        self.bibs -= 1;
        self.bury(slot);
    }

    /// What is left of a BIB entry that the indexes don't know any more.
    fn bury(&mut self, slot: u32) {
        self.tell_of_mappings_end(slot);
        if self.arena.bib(slot).flags & bib_flag::IN_BLOCK != 0 {
            self.leave_block(slot);
        }
        let bib = self.arena.bib_mut(slot);
        if let Some(subscribers) = &mut self.subscribers {
            subscribers.remove_port(&self.keys, bib.subscriber);
        }
        if bib.sessions == 0 {
            self.arena.free_bib(slot);
            return;
        }
        bib.flags = bib_flag::DYING;
        self.dying += 1;
        if bib.first.is_live() {
            self.remove_session(SessionId::inline(slot));
        }
    }

    /// Makes a BIB entry static.
    pub fn set_static(&mut self, slot: u32) {
        self.arena.bib_mut(slot).flags |= bib_flag::STATIC;
    }

    /// Ends what was removed, and forgets changes that nobody is to be told of any more: of each
    /// kind, `budget` records at most are looked at.
    pub fn sweep(&mut self, budget: usize) {
        self.changes.discard(&mut self.arena, budget);
        self.evict(budget);
        for _ in 0..budget {
            if self.dying == 0 {
                return;
            }
            if self.sweep_at >= self.arena.overflow_slots() {
                self.sweep_at = 0;
            }
            let id = SessionId::overflow(self.sweep_at);
            self.sweep_at += 1;
            if self.arena.session(id).is_live()
                && self.arena.bib(self.arena.bib_of(id)).flags & bib_flag::DYING != 0
            {
                self.remove_session(id);
            }
        }
    }

    /// Whether [`Table::sweep`] has something to do.
    pub fn needs_sweep(&self) -> bool {
        self.dying > 0 || self.changes.needs_discard() || !self.pool4.is_settled()
    }

    /// Takes other entries for pool4 instead of the present ones. BIB entries outside of them are
    /// gone, with their sessions, as far as anybody can see; [`Table::sweep`] ends them.
    pub fn replace_pool4(&mut self, entries: &[Pool4Entry]) {
        self.pool4.replace(entries);
        if let Some(blocks) = &mut self.blocks {
            blocks.follow(&self.pool4);
        }
    }

    /// Ends BIB entries whose masks aren't in pool4 any more, `budget` at most.
    fn evict(&mut self, budget: usize) {
        // That takes as long as to end a hundred.
        if self.pool4.settle_next() {
            return;
        }
        let mut places = budget.saturating_mul(PLACES_PER_ENTRY);
        for _ in 0..budget {
            let Some(slot) = self.pool4.pop_retired(&mut places) else { return };
            let bib = self.arena.bib(slot);
            if bib.is_live() && !self.pool4.owns(slot, bib) {
                self.remove_bib(slot);
            }
        }
    }

    /// Ends all of them.
    fn evict_all(&mut self) {
        while !self.pool4.is_settled() {
            self.evict(usize::MAX);
        }
    }
}

/// The bits of a version that count the changes within a generation. The count runs over into the
/// generation, which is as good: copies of the next generation take the place of all before.
const COUNT: u32 = (1 << 12) - 1;

/// The generation of a version: see [`merge`].
fn generation(version: u32) -> u32 {
    version & !COUNT
}

/// Whether version `a` comes after `b`, modulo 2^32.
fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

fn src6_of(bib: &Bib) -> Endpoint6 {
    Endpoint6 { addr: Ipv6Addr::from_bits(bib.src6), port: bib.port6 }
}

fn src4_of(bib: &Bib) -> Endpoint4 {
    Endpoint4 { addr: Ipv4Addr::from_bits(bib.src4), port: bib.port4 }
}
