//! Another pool4 while mappings live.
//!
//! It holds at once; what follows from it is done in steps, since packets wait meanwhile and there
//! may be millions of mappings. Of an address that has other ports than before, the ports' slots
//! are carried along until somebody asks for a port of it, or until its turn comes. The slots of
//! those that were lost are retired, and their BIB entries ended a few at a time. All the while
//! [`Pool4::owner`] tells whose a transport address is: an entry that doesn't own its mask is as
//! good as gone.

use alloc::vec::Vec;

use super::Pool4;
use crate::addr::PortRange;
use crate::config::Pool4Entry;
use crate::table::bib::Bib;
use crate::tuple::Proto;

/// Ports that are looked at in the time that it takes to give the memory of a space back.
const PLACES_PER_SPACE: usize = 512;

/// What a space of an earlier pool4 had.
#[derive(Debug)]
pub(super) struct Carried {
    /// See [`super::Space`].
    base: u16,
    slots: Vec<u32>,
    /// The ports that every pool4 since then has had: who had another has lost it for good.
    kept: Vec<PortRange>,
}

impl Carried {
    /// The slots of all ports, kept or not.
    pub(super) fn slots(&self) -> &Vec<u32> {
        &self.slots
    }

    /// The slot of the BIB entry that has the port.
    pub(super) fn owner(&self, port: u16) -> Option<u32> {
        if !self.kept.iter().any(|range| range.contains(port)) {
            return None;
        }
        self.slots.get(usize::from(port.checked_sub(self.base)?))?.checked_sub(1)
    }

    /// Takes a port back that a BIB entry has.
    pub(super) fn release(&mut self, port: u16) {
        let place = self.slots.get_mut(usize::from(port.wrapping_sub(self.base)));
        if let Some(place) = place {
            *place = 0;
        }
    }
}

impl Pool4 {
    /// Takes the entries instead of the present ones. BIB entries whose transport address is in
    /// both keep it.
    pub fn replace(&mut self, entries: &[Pool4Entry]) {
        let mut old = core::mem::replace(self, Self::new(entries, self.node, &self.keys));
        self.retired = core::mem::take(&mut old.retired);
        self.retired_at = old.retired_at;
        for n in 0..old.spaces.len() {
            let carried = old.carried.remove(&n);
            if old.spaces[n].slots.is_empty() && carried.is_none() {
                continue;
            }
            let now = self.space(Proto::ALL[n % 3], old.addresses[n / 3]);
            let is_same = |&now: &usize| self.layout(now) == old.layout(n);
            if carried.is_none()
                && let Some(now) = now.filter(is_same)
            {
                self.take_over(now, &mut old, n);
                continue;
            }
            let space = &mut old.spaces[n];
            if space.taken == 0 {
                // Nothing to look for, but to give its memory back takes time too.
                space.slots.clear();
            }
            let mut carried = carried.unwrap_or_else(|| Carried {
                base: space.base,
                slots: core::mem::take(&mut space.slots),
                kept: old.ranges[space.ranges as usize].clone(),
            });
            let ranges = now.map_or(0, |now| self.spaces[now].ranges);
            carried.kept = intersection(&carried.kept, &self.ranges[ranges as usize]);
            match now {
                Some(now) if !carried.kept.is_empty() && !carried.slots.is_empty() => {
                    self.carried.insert(now, carried);
                }
                _ => self.retired.push_back(carried.slots),
            }
        }
    }

    /// Goes on with a space of the old pool that has the same ports.
    fn take_over(&mut self, now: usize, old: &mut Self, before: usize) {
        let (space, from) = (&mut self.spaces[now], &mut old.spaces[before]);
        (space.slots, space.taken) = (core::mem::take(&mut from.slots), from.taken);
        self.materialised += space.slots.len();
        self.taken += space.taken as usize;
        for (share, before) in self.shares_of(now).zip(old.shares_of(before)) {
            self.shares[share].free = core::mem::take(&mut old.shares[before].free);
        }
        self.note_used_up(now);
    }

    /// Takes note of which shares of a space in use have no free port.
    fn note_used_up(&mut self, n: usize) {
        for share in self.shares_of(n) {
            let share = &self.shares[share];
            if share.is_used_up() {
                let roomy = &mut self.groups[share.mark as usize][n % 3].roomy;
                roomy.remove(share.member as usize);
            }
        }
    }

    /// The ports of a space, and those of each mark.
    fn layout(&self, space: usize) -> (&[PortRange], Vec<(u32, &[PortRange])>) {
        let list = |ranges: u32| &self.ranges[ranges as usize][..];
        let shares = self.shares[self.shares_of(space)].iter();
        let shares = shares.map(|share| (self.marks[share.mark as usize], list(share.ranges)));
        (list(self.spaces[space].ranges), shares.collect())
    }

    /// Whether nothing is carried or retired.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.carried.is_empty() && self.retired.is_empty()
    }

    /// Whether the slot's BIB entry is there and has its mask.
    #[inline]
    pub fn recognises(&self, slot: u32, bib: &Bib) -> bool {
        bib.is_live() && (self.is_settled() || self.owns(slot, bib))
    }

    /// Whether the slot's BIB entry has its mask.
    #[inline(never)]
    pub fn owns(&self, slot: u32, bib: &Bib) -> bool {
        self.owner(bib.proto(), bib.src4, bib.port4) == Some(slot)
    }

    /// Gives one of the spaces whose ports are carried what it has of them; false if there is none.
    pub fn settle_next(&mut self) -> bool {
        let Some((&n, _)) = self.carried.first_key_value() else { return false };
        self.materialise(n);
        true
    }

    /// Gives a space, of which all ports are free, those that are carried for it.
    pub(super) fn settle(&mut self, n: usize) {
        let Some(Carried { base, mut slots, kept }) = self.carried.remove(&n) else { return };
        let shares = self.shares_of(n);
        let space = &mut self.spaces[n];
        for port in kept.iter().flat_map(|range| range.min..=range.max) {
            let slot = core::mem::take(&mut slots[usize::from(port - base)]);
            if slot != 0 {
                let offset = usize::from(port - space.base);
                space.slots[offset] = slot;
                space.taken += 1;
                for share in &mut self.shares[shares.clone()] {
                    share.free[offset & 1].remove(offset / 2);
                }
            }
        }
        self.taken += space.taken as usize;
        self.retired.push_back(slots);
        self.note_used_up(n);
    }

    /// The slot of a BIB entry that may have lost its mask. None if no more were retired, or after
    /// that many places.
    pub fn pop_retired(&mut self, places: &mut usize) -> Option<u32> {
        while *places > 0 {
            let slots = self.retired.front()?;
            let rest = &slots[self.retired_at..];
            if rest.is_empty() {
                self.retired.pop_front();
                self.retired_at = 0;
                *places = places.saturating_sub(PLACES_PER_SPACE);
                continue;
            }
            let seen = rest.len().min(*places);
            let found = rest[..seen].iter().position(|&slot| slot != 0);
            let (steps, slot) = found.map_or((seen, 0), |at| (at + 1, rest[at]));
            self.retired_at += steps;
            *places -= steps;
            if slot != 0 {
                return Some(slot - 1);
            }
        }
        None
    }
}

/// What is in both lists of sorted, disjoint ranges.
fn intersection(a: &[PortRange], b: &[PortRange]) -> Vec<PortRange> {
    let both = |&one: &PortRange| {
        b.iter().filter_map(move |other| {
            let (min, max) = (one.min.max(other.min), one.max.min(other.max));
            (min <= max).then_some(PortRange { min, max })
        })
    };
    a.iter().flat_map(both).collect()
}
