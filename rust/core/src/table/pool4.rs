//! pool4: which transport addresses are ours, whose they are, and which to give away next.

mod replace;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::Range;

use replace::Carried;

use super::bitset::BitSet;
use super::hash::Keys;
use super::index::Index;
use crate::addr::PortRange;
use crate::config::Pool4Entry;
use crate::mutant::Mutant;
use crate::tuple::{Endpoint4, Proto};

/// What a new mapping would like to have.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Hash of the IPv6 address: one node's mappings share an IPv4 address (RFC 6888 REQ-2).
    pub node: u64,
    /// Where among an address' ports the search starts (RFC 6056 §3.3.3).
    pub offset: u64,
    /// The IPv6 node's own port, of which range and parity are kept if possible
    /// (RFC 6146 §3.5.1.1).
    pub port: u16,
}

/// The ports of one address for one protocol.
#[derive(Debug, Default)]
struct Space {
    /// Index into `Pool4::ranges`: all its ports.
    ranges: u32,
    /// Where its shares stand in `Pool4::shares`.
    first_share: u32,
    /// One for each mark of which this node may give some of its ports away.
    shares: u32,
    /// The lowest port, less one if that is odd.
    base: u16,
    /// BIB slot + 1 of each port from `base` on, 0 for none. Empty until the first use.
    slots: Vec<u32>,
    /// How many ports have one.
    taken: u32,
}

/// What packets of one mark may be given of a space by this node. Shares may overlap.
#[derive(Debug)]
struct Share {
    /// Position in `Pool4::marks`.
    mark: u32,
    /// Index into `Pool4::ranges`.
    ranges: u32,
    /// Position among its group's addresses.
    member: u32,
    /// Free ports, even and odd apart: number `n` is port `base + 2 n (+ 1)` of the space. Empty
    /// until that is used.
    free: [BitSet; 2],
}

/// The addresses of which a protocol may give ports away to packets of one mark.
#[derive(Debug, Default)]
struct Group {
    /// Their positions in `Pool4::addresses`.
    members: Vec<u32>,
    /// Those (by position in `members`) that have a free port.
    roomy: BitSet,
}

/// pool4. For each protocol the entries' union counts: entries may overlap. A mapping may have
/// any transport address in it, but is given one of an entry of its first packet's mark, and none
/// of another node's slice.
#[derive(Debug)]
pub struct Pool4 {
    keys: Keys,
    /// This node's number.
    node: u16,
    addresses: Vec<u32>,
    /// Whether there is no gap between the addresses.
    is_contiguous: bool,
    by_address: Index,
    /// Distinct lists of sorted, disjoint ranges; the first is empty.
    ranges: Vec<Vec<PortRange>>,
    /// Three for each address, in the order of the protocols' numbers.
    spaces: Vec<Space>,
    shares: Vec<Share>,
    /// The marks of the entries that this node may give away, sorted.
    marks: Vec<u32>,
    /// By position in `marks`, and protocol.
    groups: Vec<[Group; 3]>,
    /// Ports of spaces that have memory.
    materialised: usize,
    /// How many ports of all spaces are taken.
    taken: usize,
    /// By space, what an earlier pool4 had there, if that had other ports. Such a space is unused.
    carried: BTreeMap<usize, Carried>,
    /// Slots of which the BIB entries may have lost their masks, by port; and how many of the first
    /// were looked at.
    retired: VecDeque<Vec<u32>>,
    retired_at: usize,
}

/// Addresses that are tried for a free port while those that have one are not all known.
const MAX_TRIED: usize = 4;

impl Pool4 {
    /// The pool of these entries, all free, as node `node` sees it.
    pub fn new(entries: &[Pool4Entry], node: u16, keys: &Keys) -> Self {
        let mut addresses: Vec<u32> = entries
            .iter()
            .flat_map(|entry| {
                let first = entry.prefix.first().to_bits();
                (0..entry.prefix.count()).map(move |n| first.wrapping_add(n as u32))
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut by_address = Index::new(addresses.len() as u32);
        for (n, &address) in addresses.iter().enumerate() {
            by_address.insert(keys.tag(u128::from(address), 0), n as u32);
        }
        let own = entries.iter().filter(|entry| entry.is_of(node));
        let mut marks: Vec<u32> = own.map(|entry| entry.mark).collect();
        marks.sort_unstable();
        marks.dedup();
        let span = |first: &u32| addresses[addresses.len() - 1] - first;
        let mut pool = Self {
            is_contiguous: addresses
                .first()
                .is_none_or(|a| span(a) as usize + 1 == addresses.len()),
            keys: keys.clone(),
            node,
            by_address,
            ranges: alloc::vec![Vec::new()],
            spaces: Vec::with_capacity(addresses.len() * 3),
            shares: Vec::new(),
            groups: marks.iter().map(|_| Default::default()).collect(),
            marks,
            materialised: 0,
            taken: 0,
            carried: BTreeMap::new(),
            retired: VecDeque::new(),
            retired_at: 0,
            addresses,
        };
        pool.add_spaces(entries);
        for group in pool.groups.iter_mut().flatten() {
            group.roomy = BitSet::new(group.members.len());
            group.roomy.insert_range(0, group.members.len());
        }
        pool
    }

    fn add_spaces(&mut self, entries: &[Pool4Entry]) {
        for n in 0..self.addresses.len() {
            let address = Ipv4Addr::from_bits(self.addresses[n]);
            for proto in Proto::ALL {
                let ranges = self.keep_ranges(merged_ranges(entries, address, proto));
                let base = self.ranges[ranges].first().map_or(0, |range| range.min & !1);
                let first_share = self.shares.len();
                if ranges != 0 {
                    self.add_shares(entries, n, proto);
                }
                self.spaces.push(Space {
                    ranges: ranges as u32,
                    first_share: first_share as u32,
                    shares: (self.shares.len() - first_share) as u32,
                    base,
                    slots: Vec::new(),
                    taken: 0,
                });
            }
        }
    }

    /// Adds the shares of the address at position `n`.
    fn add_shares(&mut self, entries: &[Pool4Entry], n: usize, proto: Proto) {
        let address = Ipv4Addr::from_bits(self.addresses[n]);
        let mut own: Vec<&Pool4Entry> = entries
            .iter()
            .filter(|entry| entry.is_of(self.node) && entry.prefix.contains(address))
            .collect();
        own.sort_by_key(|entry| entry.mark);
        for entries in own.chunk_by(|a, b| a.mark == b.mark) {
            let at = self.mark(entries[0].mark).unwrap_or_default();
            let ranges = merged_ranges(entries.iter().copied(), address, proto);
            let ranges = self.keep_ranges(ranges) as u32;
            if ranges != 0 {
                let members = &mut self.groups[at][proto as usize].members;
                let (mark, member) = (at as u32, members.len() as u32);
                members.push(n as u32);
                self.shares.push(Share { mark, ranges, member, free: Default::default() });
            }
        }
    }

    /// Where the list stands among `ranges`.
    fn keep_ranges(&mut self, list: Vec<PortRange>) -> usize {
        let known = self.ranges.iter().position(|known| *known == list);
        known.unwrap_or_else(|| {
            self.ranges.push(list);
            self.ranges.len() - 1
        })
    }

    #[inline(always)]
    fn space(&self, proto: Proto, address: u32) -> Option<usize> {
        // Nearly every pool is one prefix, whose addresses need no hash.
        let first = *self.addresses.first()?;
        let ahead = address.wrapping_sub(first) as usize;
        if self.addresses.get(ahead) == Some(&address) {
            return Some(ahead * 3 + proto as usize);
        }
        if self.is_contiguous {
            return None;
        }
        self.scattered_space(proto, address)
    }

    #[inline(never)]
    fn scattered_space(&self, proto: Proto, address: u32) -> Option<usize> {
        let found = self
            .by_address
            .find(self.keys.tag(u128::from(address), 0), |n| self.addresses[n as usize] == address);
        found.map(|n| n as usize * 3 + proto as usize)
    }

    /// Whether the transport address is in the pool.
    #[inline(always)]
    pub fn contains(&self, proto: Proto, address: u32, port: u16) -> bool {
        self.space(proto, address).is_some_and(|n| self.has(self.spaces[n].ranges, port))
    }

    /// Whether this node may give the transport address to packets of that mark.
    pub fn is_own(&self, proto: Proto, mark: u32, address: u32, port: u16) -> bool {
        let mark = self.mark(mark);
        let share = mark.and_then(|mark| self.share(self.space(proto, address)?, mark));
        share.is_some_and(|n| self.has(self.shares[n].ranges, port))
    }

    /// How many marks the entries have of which this node may give something away.
    pub fn mark_count(&self) -> usize {
        self.marks.len()
    }

    /// The position of a mark among those, if it is one.
    pub fn mark(&self, mark: u32) -> Option<usize> {
        self.marks.binary_search(&mark).ok()
    }

    fn shares_of(&self, space: usize) -> Range<usize> {
        let space = &self.spaces[space];
        let first = space.first_share as usize;
        first..first + space.shares as usize
    }

    /// The share of the mark at that position.
    fn share(&self, space: usize, mark: usize) -> Option<usize> {
        self.shares_of(space).find(|&n| self.shares[n].mark as usize == mark)
    }

    /// Whether some port of the address is in the pool.
    pub fn has_address(&self, proto: Proto, address: u32) -> bool {
        self.space(proto, address).is_some_and(|n| self.spaces[n].ranges != 0)
    }

    /// Whether this node may give ports of the address to packets of the mark at that position.
    pub fn has_own_address(&self, proto: Proto, mark: usize, address: u32) -> bool {
        self.space(proto, address).is_some_and(|n| self.share(n, mark).is_some())
    }

    fn has(&self, ranges: u32, port: u16) -> bool {
        self.ranges[ranges as usize].iter().any(|range| range.contains(port))
    }

    /// The slot of the BIB entry that has the transport address.
    #[inline]
    pub fn owner(&self, proto: Proto, address: u32, port: u16) -> Option<u32> {
        let n = self.space(proto, address)?;
        let space = &self.spaces[n];
        let offset = port.checked_sub(space.base)?;
        match space.slots.get(usize::from(offset)) {
            Some(slot) => slot.checked_sub(1),
            None => self.carried_owner(n, port),
        }
    }

    #[cold]
    fn carried_owner(&self, n: usize, port: u16) -> Option<u32> {
        self.carried.get(&n)?.owner(port)
    }

    /// Reads what [`Pool4::release`] changes: to load it before.
    pub fn load(&self, proto: Proto, address: u32, port: u16) -> u64 {
        let Some(n) = self.space(proto, address) else { return 0 };
        let space = &self.spaces[n];
        let offset = usize::from(port.wrapping_sub(space.base));
        let slot = space.slots.get(offset).copied().unwrap_or(0);
        self.shares_of(n).fold(u64::from(slot), |loaded, n| {
            loaded ^ self.shares[n].free[offset & 1].load(offset / 2)
        })
    }

    /// Gives a transport address of the pool, which nobody has, to the BIB entry of that slot.
    /// False if it isn't in the pool.
    pub fn claim(&mut self, proto: Proto, address: u32, port: u16, slot: u32) -> bool {
        let Some(n) = self.space(proto, address) else { return false };
        if !self.has(self.spaces[n].ranges, port) {
            return false;
        }
        self.materialise(n);
        let space = &mut self.spaces[n];
        let offset = usize::from(port - space.base);
        space.slots[offset] = slot + 1;
        space.taken += 1;
        self.taken += 1;
        for n in self.shares_of(n) {
            let share = &mut self.shares[n];
            share.free[offset & 1].remove(offset / 2);
            if share.is_used_up() {
                let roomy = &mut self.groups[share.mark as usize][proto as usize].roomy;
                roomy.remove(share.member as usize);
            }
        }
        true
    }

    /// Takes a transport address back from the BIB entry of that slot, if it has it.
    pub fn release(&mut self, proto: Proto, address: u32, port: u16, slot: u32) {
        let Some(n) = self.space(proto, address) else { return };
        if self.owner(proto, address, port) != Some(slot) {
            return;
        }
        if let Some(carried) = self.carried.get_mut(&n) {
            carried.release(port);
            return;
        }
        let space = &mut self.spaces[n];
        let offset = usize::from(port - space.base);
        space.slots[offset] = 0;
        space.taken -= 1;
        self.taken -= 1;
        for n in self.shares_of(n) {
            if self.has(self.shares[n].ranges, port) {
                let share = &mut self.shares[n];
                share.free[offset & 1].insert(offset / 2);
                let roomy = &mut self.groups[share.mark as usize][proto as usize].roomy;
                roomy.insert(share.member as usize);
            }
        }
    }

    /// A free transport address for the wish, or None if the protocol has none left for packets of
    /// the mark at that position. The address follows from the IPv6 node as long as it has a free
    /// port; range and parity of the port are kept if that address can.
    pub fn choose(&mut self, proto: Proto, mark: usize, wish: &Wish) -> Option<Endpoint4> {
        for _ in 0..MAX_TRIED {
            let group = &self.groups[mark][proto as usize];
            let members = group.members.len();
            let home = ((u128::from(wish.node) * members as u128) >> 64) as usize;
            let member = group.roomy.next_around(0, home, members)?;
            let address = self.addresses[group.members[member] as usize];
            // There is one unless all were carried, which nobody had looked at.
            if let Some(port) = self.choose_within(proto, mark, address, PortRange::ALL, wish) {
                return Some(Endpoint4 { addr: Ipv4Addr::from_bits(address), port });
            }
        }
        None
    }

    /// The addresses of which a protocol may give ports to packets of the mark at that position,
    /// in ascending order.
    pub fn addresses(&self, proto: Proto, mark: usize) -> impl Iterator<Item = u32> + '_ {
        self.groups[mark][proto as usize].members.iter().map(|&n| self.addresses[n as usize])
    }

    /// The one of these addresses that follows from the hash of an IPv6 node.
    pub fn home(&self, proto: Proto, mark: usize, node: u64) -> Option<u32> {
        let members = &self.groups[mark][proto as usize].members;
        let member = ((u128::from(node) * members.len() as u128) >> 64) as usize;
        members.get(member).map(|&n| self.addresses[n as usize])
    }

    /// Whether this node may give some of the ports of an address, for any protocol, to packets of
    /// the mark at that position.
    pub fn has_own_port_within(&self, mark: usize, address: u32, ports: PortRange) -> bool {
        Proto::ALL.iter().any(|&proto| {
            let share = self.space(proto, address).and_then(|n| self.share(n, mark));
            share.is_some_and(|n| {
                let list = &self.ranges[self.shares[n].ranges as usize];
                list.iter().any(|range| range.min <= ports.max && ports.min <= range.max)
            })
        })
    }

    /// A free port of an address, one of `ports`, for packets of the mark at that position.
    pub fn choose_within(
        &mut self,
        proto: Proto,
        mark: usize,
        address: u32,
        ports: PortRange,
        wish: &Wish,
    ) -> Option<u16> {
        let n = self.space(proto, address)?;
        let share = self.share(n, mark)?;
        self.materialise(n);
        self.shares[share].choose(&self.spaces[n], proto, wish, ports)
    }

    /// Makes address space for all ports, unless there are so many that it is left to their first
    /// use: to have a mapping made then may mean to wait for whoever changes mappings too. Ports
    /// take memory when they are taken.
    pub fn reserve(&mut self) {
        const MOST: usize = 256 << 20;
        let ports = |space: &Space| {
            self.ranges[space.ranges as usize]
                .last()
                .map_or(0, |last| usize::from(last.max - space.base) + 1)
        };
        if self.spaces.iter().map(ports).sum::<usize>() * size_of::<u32>() <= MOST {
            (0..self.spaces.len()).for_each(|n| self.materialise(n));
        }
    }

    /// Makes the memory of a space on its first use.
    fn materialise(&mut self, n: usize) {
        let space = &mut self.spaces[n];
        let list = &self.ranges[space.ranges as usize];
        let Some(last) = list.last() else { return };
        if !space.slots.is_empty() {
            return;
        }
        let len = usize::from(last.max - space.base) + 1;
        space.slots = alloc::vec![0; len];
        self.materialised += len;
        let base = space.base;
        for n in self.shares_of(n) {
            let share = &mut self.shares[n];
            for (parity, free) in share.free.iter_mut().enumerate() {
                *free = BitSet::new(len.div_ceil(2));
                for range in &self.ranges[share.ranges as usize] {
                    let (from, to) = numbers(base, parity, *range);
                    free.insert_range(from, to);
                }
            }
        }
        self.settle(n);
    }

    /// Bytes in use; of the ports' slots what the taken ones make resident at most.
    pub fn bytes(&self) -> usize {
        let ports = (self.materialised * 4).min(self.taken * 4096) + self.materialised / 8;
        let earlier = self.retired.iter().chain(self.carried.values().map(Carried::slots));
        let earlier = earlier.map(Vec::len).sum::<usize>() * 4;
        let spaces = self.spaces.len() * size_of::<Space>();
        ports + earlier + spaces + self.shares.len() * size_of::<Share>() + self.by_address.bytes()
    }
}

impl Share {
    /// Whether no port is free, as far as the space is in use.
    fn is_used_up(&self) -> bool {
        self.free.iter().all(|free| free.count() == 0)
    }

    /// A free port of the space that this is a share of.
    fn choose(&self, space: &Space, proto: Proto, wish: &Wish, within: PortRange) -> Option<u16> {
        const LOW: PortRange = PortRange { min: 0, max: 1023 };
        const HIGH: PortRange = PortRange { min: 1024, max: u16::MAX };
        let parity = usize::from(wish.port & 1);
        if proto == Proto::Icmp {
            let parity = (wish.offset & 1) as usize;
            return self
                .find(space, parity, within, wish.offset >> 1)
                .or_else(|| self.find(space, parity ^ 1, within, wish.offset >> 1));
        }
        let (like, unlike) = if LOW.contains(wish.port) { (LOW, HIGH) } else { (HIGH, LOW) };
        [(parity, like), (parity ^ 1, like), (parity, unlike), (parity ^ 1, unlike)]
            .into_iter()
            .find_map(|(parity, range)| {
                let (min, max) = (range.min.max(within.min), range.max.min(within.max));
                (min <= max)
                    .then(|| self.find(space, parity, PortRange { min, max }, wish.offset))?
            })
    }

    /// A free port of that parity and range, the first from `offset` on.
    fn find(&self, space: &Space, parity: usize, range: PortRange, offset: u64) -> Option<u16> {
        let free = &self.free[parity];
        if free.count() == 0 {
            return None;
        }
        let (from, to) = numbers(space.base, parity, range);
        let to = to.min(space.slots.len().div_ceil(2));
        if from >= to {
            return None;
        }
        let start = from + (offset % (to - from) as u64) as usize;
        let number = match Mutant::GivesPortsTwice.is_on() {
            true => from,
            false => free.next_around(from, start, to)?,
        };
        Some(space.base + (number * 2 + parity) as u16)
    }
}

/// The numbers that ports of a parity in a range have in [`Space::free`]: from, to (excluded).
fn numbers(base: u16, parity: usize, range: PortRange) -> (usize, usize) {
    let zero = usize::from(base) + parity;
    let from = usize::from(range.min).saturating_sub(zero).div_ceil(2);
    let to = (usize::from(range.max) + 2).saturating_sub(zero) / 2;
    (from, to)
}

/// The ports that the entries give to an address, sorted and disjoint. Port 0 is none, but an
/// identifier.
fn merged_ranges<'a>(
    entries: impl IntoIterator<Item = &'a Pool4Entry>,
    address: Ipv4Addr,
    proto: Proto,
) -> Vec<PortRange> {
    let min = u16::from(proto != Proto::Icmp);
    let mut list: Vec<PortRange> = entries
        .into_iter()
        .filter(|e| e.protocol.is_none_or(|p| p == proto) && e.prefix.contains(address))
        .filter(|e| e.ports.max >= min)
        .map(|e| PortRange { min: e.ports.min.max(min), max: e.ports.max })
        .collect();
    list.sort_unstable_by_key(|range| range.min);
    list.dedup_by(|later, earlier| {
        let touches = u32::from(later.min) <= u32::from(earlier.max) + 1;
        if touches {
            earlier.max = earlier.max.max(later.max);
        }
        touches
    });
    list
}

#[cfg(test)]
impl Pool4 {
    /// Of every share exactly the ports are free that nobody has, and those addresses have room of
    /// which one is.
    pub(super) fn check(&self) {
        for (n, space) in self.spaces.iter().enumerate() {
            for share in self.shares_of(n) {
                let share = &self.shares[share];
                let group = &self.groups[share.mark as usize][n % 3];
                assert_eq!(group.members[share.member as usize] as usize, n / 3);
                let member = share.member as usize;
                let has_room = group.roomy.next(member, member + 1).is_some();
                assert_eq!(has_room, space.slots.is_empty() || !share.is_used_up());
                for (offset, slot) in space.slots.iter().enumerate() {
                    let is_free = share.free[offset & 1].next(offset / 2, offset / 2 + 1);
                    let given = self.has(share.ranges, space.base + offset as u16) && *slot == 0;
                    assert_eq!(is_free.is_some(), given);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
