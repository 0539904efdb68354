//! Port blocks: a subscriber gets its ports from ranges that are its own, so that one line in the
//! log tells of many mappings (RFC 6888 REQ-14, RFC 7422).
//!
//! A block is a range of ports of one address, aligned to its size, for all protocols. It belongs
//! to the subscriber of the first mapping in it and is free again when the last is gone. Nothing
//! of it travels: a node that learns a mapping of a peer's learns whose the block is. Static
//! entries, and what two nodes gave away in one block while both were MASTER, are in no block and
//! are told one by one.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::bib::bib_flag;
use super::bitset::BitSet;
use super::journal::{LogEvent, PortBlock};
use super::pool4::{Pool4, Wish};
use super::session::NIL;
use super::subscriber::Subscribers;
use super::{Table, src4_of, src6_of};
use crate::addr::PortRange;
use crate::tuple::{Endpoint4, Proto};

/// Blocks of a subscriber that are searched for a free port, those first in which one was freed
/// last. So a subscriber with many blocks costs a packet no more than one with few.
const MAX_SEARCHED: usize = 8;
/// Addresses, and blocks of each, that are looked at for one that nobody has. More than the first
/// is only needed where protocols have different ports.
const MAX_TRIED: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Block {
    address: u32,
    /// The first port, divided by the size.
    number: u16,
    /// Traffic here uses it: its end is ours to tell.
    is_local: bool,
    /// Slot of the subscriber.
    subscriber: u32,
    /// Mappings in it, of all protocols; 0 if the record is free.
    mappings: u32,
    /// The subscriber's other blocks; of a free record the next free one.
    next: u32,
    prev: u32,
}

#[derive(Debug)]
struct Address {
    /// Slot of each block, `NIL` where nobody has it.
    blocks: Box<[u32]>,
    /// Of each of pool4's marks, those that nobody has and of which there is a port for it.
    free: Vec<BitSet>,
}

impl Address {
    fn new(pool4: &Pool4, address: u32, shift: u32) -> Self {
        let blocks: Box<[u32]> = alloc::vec![NIL; 1 << (16 - shift)].into();
        let mut new = Self { free: Vec::new(), blocks };
        new.follow(pool4, address, shift);
        new
    }

    fn follow(&mut self, pool4: &Pool4, address: u32, shift: u32) {
        self.free = alloc::vec![BitSet::new(self.blocks.len()); pool4.mark_count()];
        for (mark, free) in self.free.iter_mut().enumerate() {
            for (number, &slot) in self.blocks.iter().enumerate() {
                let ports = ports(number as u16, shift);
                if slot == NIL && pool4.has_own_port_within(mark, address, ports) {
                    free.insert(number);
                }
            }
        }
    }
}

fn ports(number: u16, shift: u32) -> PortRange {
    let first = u32::from(number) << shift;
    PortRange { min: first as u16, max: (first + (1 << shift) - 1) as u16 }
}

/// Every block that a subscriber has.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Binary logarithm of the size.
    shift: u32,
    /// Addresses that have, or had, a block that somebody has.
    addresses: BTreeMap<u32, Address>,
    /// Of each of pool4's marks and each protocol, the addresses with a block that nobody has.
    roomy: Vec<[BTreeSet<u32>; 3]>,
    records: Vec<Block>,
    free: u32,
}

impl Blocks {
    /// No block taken. `size` is a power of two.
    pub(super) fn new(size: u32, pool4: &Pool4) -> Self {
        let mut blocks = Self {
            shift: size.trailing_zeros(),
            addresses: BTreeMap::new(),
            roomy: Vec::new(),
            records: Vec::new(),
            free: NIL,
        };
        blocks.follow(pool4);
        blocks
    }

    /// Ports of a block.
    pub(super) fn size(&self) -> u32 {
        1 << self.shift
    }

    fn ports(&self, number: u16) -> PortRange {
        ports(number, self.shift)
    }

    /// Takes note that pool4 has changed.
    pub(super) fn follow(&mut self, pool4: &Pool4) {
        self.addresses.retain(|_, address| address.blocks.iter().any(|&slot| slot != NIL));
        for (&bits, address) in &mut self.addresses {
            address.follow(pool4, bits, self.shift);
        }
        let room = |mark: usize, proto: Proto| {
            let has_room = |bits: &u32| {
                self.addresses.get(bits).is_none_or(|address| address.free[mark].count() > 0)
            };
            pool4.addresses(proto, mark).filter(has_room).collect()
        };
        self.roomy =
            (0..pool4.mark_count()).map(|mark| Proto::ALL.map(|proto| room(mark, proto))).collect();
    }

    fn address_mut(&mut self, pool4: &Pool4, bits: u32) -> &mut Address {
        self.addresses.entry(bits).or_insert_with(|| Address::new(pool4, bits, self.shift))
    }

    /// A block as the log shows it.
    fn told(&self, slot: u32, subscribers: &Subscribers) -> PortBlock {
        let block = &self.records[slot as usize];
        let (prefix, prefix_len) = subscribers.prefix_of(block.subscriber);
        PortBlock {
            subscriber: Ipv6Addr::from_bits(prefix),
            prefix_len,
            src4: Ipv4Addr::from_bits(block.address),
            ports: self.ports(block.number),
        }
    }

    fn owner(&self, address: u32, port: u16) -> Option<u32> {
        let slot = self.addresses.get(&address)?.blocks[usize::from(port) >> self.shift];
        (slot != NIL).then_some(slot)
    }

    /// A free transport address, for packets of the mark at that position in pool4, in one of the
    /// blocks of the list that begins with `first`, or else in a block that nobody has: of the
    /// same address if that has one, else from `home` on.
    fn choose(
        &mut self,
        pool4: &mut Pool4,
        proto: Proto,
        mark: usize,
        wish: &Wish,
        first: u32,
    ) -> Option<Endpoint4> {
        let mut slot = first;
        let mut paired = None;
        for _ in 0..MAX_SEARCHED {
            if slot == NIL {
                break;
            }
            let block = self.records[slot as usize];
            let ports = self.ports(block.number);
            if let Some(port) = pool4.choose_within(proto, mark, block.address, ports, wish) {
                return Some(Endpoint4 { addr: Ipv4Addr::from_bits(block.address), port });
            }
            if paired.is_none() && pool4.has_own_address(proto, mark, block.address) {
                paired = Some(block.address);
            }
            slot = block.next;
        }
        let home = paired.or_else(|| pool4.home(proto, mark, wish.node))?;
        let roomy = &self.roomy[mark][proto as usize];
        let around = roomy.range(home..).chain(roomy.range(..home));
        let tried: Vec<u32> = around.copied().take(MAX_TRIED).collect();
        for bits in tried {
            let len = 1 << (16 - self.shift);
            let mut at = (wish.offset % len as u64) as usize;
            for _ in 0..MAX_TRIED {
                let address = self.address_mut(pool4, bits);
                let Some(number) = address.free[mark].next_around(0, at, len) else { break };
                let ports = self.ports(number as u16);
                if let Some(port) = pool4.choose_within(proto, mark, bits, ports, wish) {
                    return Some(Endpoint4 { addr: Ipv4Addr::from_bits(bits), port });
                }
                at = (number + 1) % len;
            }
        }
        None
    }

    /// Gives a block that nobody has to a subscriber; returns its slot.
    fn take(&mut self, pool4: &Pool4, address: u32, port: u16, subscriber: u32) -> u32 {
        let number = port >> self.shift;
        let block = Block {
            address,
            number,
            is_local: false,
            subscriber,
            mappings: 0,
            next: NIL,
            prev: NIL,
        };
        let slot = if self.free == NIL {
            self.records.push(block);
            self.records.len() as u32 - 1
        } else {
            let slot = self.free;
            self.free = self.records[slot as usize].next;
            self.records[slot as usize] = block;
            slot
        };
        let of_address = self.address_mut(pool4, address);
        of_address.blocks[usize::from(number)] = slot;
        let mut used_up = Vec::new();
        for (mark, free) in of_address.free.iter_mut().enumerate() {
            free.remove(usize::from(number));
            if free.count() == 0 {
                used_up.push(mark);
            }
        }
        for mark in used_up {
            for roomy in &mut self.roomy[mark] {
                roomy.remove(&address);
            }
        }
        slot
    }

    /// Takes a block back.
    fn give_back(&mut self, pool4: &Pool4, slot: u32) {
        let Block { address, number, .. } = self.records[slot as usize];
        let ports = self.ports(number);
        if let Some(of_address) = self.addresses.get_mut(&address) {
            of_address.blocks[usize::from(number)] = NIL;
            for (mark, free) in of_address.free.iter_mut().enumerate() {
                if !pool4.has_own_port_within(mark, address, ports) {
                    continue;
                }
                free.insert(usize::from(number));
                for proto in Proto::ALL {
                    if pool4.has_own_address(proto, mark, address) {
                        self.roomy[mark][proto as usize].insert(address);
                    }
                }
            }
        }
        self.records[slot as usize].next = self.free;
        self.free = slot;
    }

    /// Puts a block at the head of its subscriber's list.
    fn link(&mut self, slot: u32, head: &mut u32) {
        let block = &mut self.records[slot as usize];
        (block.prev, block.next) = (NIL, *head);
        if let Some(next) = self.records.get_mut(*head as usize) {
            next.prev = slot;
        }
        *head = slot;
    }

    fn unlink(&mut self, slot: u32, head: &mut u32) {
        let Block { prev, next, .. } = self.records[slot as usize];
        match self.records.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => *head = next,
        }
        if let Some(after) = self.records.get_mut(next as usize) {
            after.prev = prev;
        }
    }
}

impl Table {
    /// Ports of a block, 0 if there are none.
    pub fn port_block_size(&self) -> u32 {
        self.blocks.as_ref().map_or(0, Blocks::size)
    }

    /// A free transport address in the subscriber's blocks; None if it has none and no block is
    /// left.
    pub(super) fn choose_in_block(
        &mut self,
        proto: Proto,
        mark: usize,
        src6: u128,
        wish: &Wish,
    ) -> Option<Endpoint4> {
        let (blocks, subscribers) = (self.blocks.as_mut()?, self.subscribers.as_ref()?);
        // The subscriber's nodes share its blocks, and so its address.
        let wish = Wish { node: self.keys.address_hash(subscribers.prefix(src6)), ..*wish };
        let first = subscribers.find_blocks(&self.keys, src6);
        blocks.choose(&mut self.pool4, proto, mark, &wish, first)
    }

    /// Counts a new mapping in its block, if that is its subscriber's or nobody's.
    pub(super) fn join_block(&mut self, slot: u32) {
        let (Some(blocks), Some(subscribers)) = (&mut self.blocks, &mut self.subscribers) else {
            return;
        };
        let bib = self.arena.bib_mut(slot);
        if bib.is_static() {
            return;
        }
        let block = match blocks.owner(bib.src4, bib.port4) {
            Some(block) if blocks.records[block as usize].subscriber != bib.subscriber => return,
            Some(block) => block,
            None => {
                let block = blocks.take(&self.pool4, bib.src4, bib.port4, bib.subscriber);
                blocks.link(block, subscribers.blocks_mut(bib.subscriber));
                block
            }
        };
        blocks.records[block as usize].mappings += 1;
        bib.flags |= bib_flag::IN_BLOCK;
    }

    /// A mapping that was counted in a block is gone.
    pub(super) fn leave_block(&mut self, slot: u32) {
        let (Some(blocks), Some(subscribers)) = (&mut self.blocks, &mut self.subscribers) else {
            return;
        };
        let bib = self.arena.bib_mut(slot);
        bib.flags &= !bib_flag::IN_BLOCK;
        let Some(block) = blocks.owner(bib.src4, bib.port4) else { return };
        let head = subscribers.blocks_mut(bib.subscriber);
        blocks.unlink(block, head);
        let record = &mut blocks.records[block as usize];
        record.mappings -= 1;
        if record.mappings > 0 {
            // It has a free port now.
            blocks.link(block, head);
            return;
        }
        if record.is_local && self.journal.bib {
            self.journal.push(LogEvent::BlockRemoved(blocks.told(block, subscribers)));
        }
        blocks.give_back(&self.pool4, block);
    }

    /// Tells that traffic here has begun to use a mapping: of its block, if that wasn't told yet,
    /// or of the mapping alone. A static entry is known to the operator, who made it.
    pub(super) fn tell_of_mapping(&mut self, slot: u32) {
        let bib = self.arena.bib(slot);
        if bib.flags & bib_flag::IN_BLOCK == 0 {
            if self.journal.bib && !bib.is_static() {
                let event = LogEvent::BibAdded(bib.proto(), src6_of(bib), src4_of(bib));
                self.journal.push(event);
            }
            return;
        }
        let (Some(blocks), Some(subscribers)) = (&mut self.blocks, &self.subscribers) else {
            return;
        };
        let Some(block) = blocks.owner(bib.src4, bib.port4) else { return };
        let record = &mut blocks.records[block as usize];
        if !core::mem::replace(&mut record.is_local, true) && self.journal.bib {
            self.journal.push(LogEvent::BlockAdded(blocks.told(block, subscribers)));
        }
    }

    /// Tells that a mapping which traffic here has used is gone, if its block doesn't tell that.
    pub(super) fn tell_of_mappings_end(&mut self, slot: u32) {
        let bib = self.arena.bib(slot);
        let told = bib.flags & bib_flag::LOCAL != 0 && bib.flags & bib_flag::IN_BLOCK == 0;
        if self.journal.bib && told && !bib.is_static() {
            let event = LogEvent::BibRemoved(bib.proto(), src6_of(bib), src4_of(bib));
            self.journal.push(event);
        }
    }

    /// Forgets every block, and tells so.
    pub(super) fn end_blocks(&mut self) {
        for slot in 0..self.arena.bib_slots() {
            let bib = self.arena.bib(slot);
            if bib.is_live() && bib.flags & bib_flag::IN_BLOCK != 0 {
                self.leave_block(slot);
            } else if bib.is_live() {
                self.tell_of_mappings_end(slot);
            }
        }
        self.blocks = None;
    }

    /// Begins to give ports away in blocks of that size (0: one by one), and tells of what is
    /// there already.
    pub(super) fn begin_blocks(&mut self, size: u32) {
        self.blocks = (size > 0).then(|| Blocks::new(size, &self.pool4));
        for slot in 0..self.arena.bib_slots() {
            if !self.arena.bib(slot).is_live() {
                continue;
            }
            self.join_block(slot);
            if self.arena.bib(slot).flags & bib_flag::LOCAL != 0 {
                self.tell_of_mapping(slot);
            }
        }
    }
}

#[cfg(test)]
impl Table {
    /// Every block is one subscriber's, counts its mappings, and stands in that one's list; those
    /// that nobody has are known to be free.
    pub(super) fn check_blocks(&self) {
        let (Some(blocks), Some(subscribers)) = (&self.blocks, &self.subscribers) else { return };
        let mut expected: BTreeMap<u32, u32> = BTreeMap::new();
        for slot in 0..self.arena.bib_slots() {
            let bib = self.arena.bib(slot);
            if bib.is_live() && bib.flags & bib_flag::IN_BLOCK != 0 {
                let block = blocks.owner(bib.src4, bib.port4).expect("a counted mapping's block");
                assert_eq!(blocks.records[block as usize].subscriber, bib.subscriber);
                *expected.entry(block).or_default() += 1;
            }
        }
        let mut taken = 0;
        for (&bits, address) in &blocks.addresses {
            for (number, &slot) in address.blocks.iter().enumerate() {
                if slot != NIL {
                    let block = &blocks.records[slot as usize];
                    assert_eq!((block.address, usize::from(block.number)), (bits, number));
                    assert_eq!(Some(&block.mappings), expected.get(&slot));
                    let mut at = subscribers.find_blocks_of(block.subscriber);
                    while at != slot {
                        at = blocks.records[at as usize].next;
                    }
                    taken += 1;
                }
                let ports = blocks.ports(number as u16);
                for (mark, free) in address.free.iter().enumerate() {
                    let is_free = slot == NIL && self.pool4.has_own_port_within(mark, bits, ports);
                    assert_eq!(free.next(number, number + 1).is_some(), is_free);
                }
            }
            for (mark, free) in address.free.iter().enumerate() {
                for proto in Proto::ALL {
                    let of_mark = self.pool4.has_own_address(proto, mark, bits);
                    let has_room = free.count() > 0 && of_mark;
                    assert_eq!(blocks.roomy[mark][proto as usize].contains(&bits), has_room);
                }
            }
        }
        assert_eq!(taken, expected.len());
    }
}
