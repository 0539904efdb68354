//! Sessions that were removed: what keeps an older copy, still on its way in a late frame or in the
//! table of a peer that was cut off, from bringing them back; and what such a peer is told of.
//!
//! Nothing but their number ends the memory of removals. Versions wrap, but a session's end takes
//! them on by a few generations at most, so none of so few is taken for newer than it is.

use alloc::vec::Vec;

use crate::table::SessionKey;
use crate::table::hash::Keys;
use crate::table::index::Index;
use crate::time::Time;

/// Removals remembered at most. The oldest go first.
pub(super) const MAX_GRAVES: usize = 1 << 16;
/// How long a frame can be on its way, ms.
const TRAVEL_MS: u64 = 30_000;

/// A removal.
#[derive(Clone, Copy, Debug)]
struct Grave {
    key: SessionKey,
    version: u32,
    buried: Time,
}

/// Removals of late.
#[derive(Debug)]
pub(crate) struct Graves {
    /// By place; the oldest gives way to the next.
    graves: Vec<Grave>,
    next: usize,
    /// Where each session's latest removal is.
    places: Index,
    keys: Keys,
}

impl Graves {
    /// None so far. Nobody who doesn't know the secret can choose sessions that are found slowly.
    pub fn new(secret: &[u8; 32]) -> Self {
        let places = Index::new(MAX_GRAVES as u32);
        Self { graves: Vec::new(), next: 0, places, keys: Keys::new(secret) }
    }

    fn tag(&self, key: &SessionKey) -> u32 {
        let (addr, dst4) = (key.src6.addr.to_bits(), u64::from(key.dst4.addr.to_bits()));
        let ports = u64::from(key.src6.port) << 16 | u64::from(key.dst4.port);
        self.keys.tag(addr ^ key.proto as u128, dst4 << 32 | ports)
    }

    fn latest(&self, tag: u32, key: &SessionKey) -> Option<u32> {
        self.places.find(tag, |place| self.graves[place as usize].key == *key)
    }

    /// The session was removed at this version.
    pub fn bury(&mut self, now: Time, key: SessionKey, version: u32) {
        let tag = self.tag(&key);
        if let Some(place) = self.latest(tag, &key) {
            if !newer(version, self.graves[place as usize].version) {
                return;
            }
            self.places.remove(tag, place);
        }
        let place = self.next;
        let grave = Grave { key, version, buried: now };
        if place < self.graves.len() {
            let old = core::mem::replace(&mut self.graves[place], grave);
            // It isn't there if the session was removed again since.
            self.places.remove(self.tag(&old.key), place as u32);
        } else {
            // As much as it ever takes, so that nothing is copied later.
            self.graves.reserve_exact(MAX_GRAVES - place);
            self.graves.push(grave);
        }
        self.places.insert(tag, place as u32);
        self.next = (place + 1) % MAX_GRAVES;
    }

    /// The version of the removal, if a copy of `version` is older. One of the same version was
    /// refreshed while it was removed elsewhere, and prevails. What was removed before `since`
    /// counts only for as long as frames travel.
    pub fn find(&self, now: Time, key: &SessionKey, version: u32, since: Time) -> Option<u32> {
        let grave = &self.graves[self.latest(self.tag(key), key)? as usize];
        let counts = grave.buried >= since || now.millis_since(grave.buried) <= TRAVEL_MS;
        (counts && newer(grave.version, version)).then_some(grave.version)
    }

    /// The removal at a place, if it is its session's latest and not from before `since`. None
    /// behind the last place.
    pub fn at(&self, place: usize, since: Time) -> Option<Option<(SessionKey, u32)>> {
        let &Grave { key, version, buried } = self.graves.get(place)?;
        let is_latest = || self.latest(self.tag(&key), &key) == Some(place as u32);
        Some((buried >= since && is_latest()).then_some((key, version)))
    }
}

/// Whether version `a` is later than `b`, modulo 2^32.
fn newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple::{Endpoint4, Endpoint6, Proto};

    fn key(port: u16) -> SessionKey {
        let src6 = Endpoint6 { addr: "2001:db8::8".parse().unwrap(), port };
        let v4 = Endpoint4 { addr: "192.0.2.1".parse().unwrap(), port };
        SessionKey { proto: Proto::Tcp, src6, src4: v4, dst4: v4 }
    }

    #[test]
    fn only_a_later_version_comes_back() {
        let mut graves = Graves::new(&[7; 32]);
        let now = Time::from_millis(1000);
        graves.bury(now, key(1), u32::MAX);
        graves.bury(now, key(1), u32::MAX - 3);
        let find = |port, version| graves.find(now, &key(port), version, now);
        assert_eq!(find(1, u32::MAX - 1), Some(u32::MAX));
        assert_eq!(find(1, u32::MAX), None, "a refresh beats a removal");
        assert_eq!(find(1, 0), None, "versions wrap");
        assert_eq!(find(2, 0), None);
    }

    #[test]
    fn what_is_older_than_a_peer_counts_while_frames_travel() {
        let mut graves = Graves::new(&[7; 32]);
        let (met, later) = (Time::from_millis(2000), Time::from_millis(3_600_000));
        for (port, at) in [(1, met), (2, Time::from_millis(1999))] {
            graves.bury(at, key(port), 8);
            // It was told of before: that it comes again says nothing of its age.
            graves.bury(met + 10, key(port), 8);
        }
        let find = |now, port| graves.find(now, &key(port), 7, met);
        assert_eq!([1, 2].map(|port| find(met + 20, port)), [Some(8); 2]);
        assert_eq!([1, 2].map(|port| find(later, port)), [Some(8), None]);
        assert_eq!(
            [0, 1, 2].map(|place| graves.at(place, met)),
            [Some(Some((key(1), 8))), Some(None), None]
        );
    }

    #[test]
    fn only_the_latest_removal_of_a_session_is_told() {
        let mut graves = Graves::new(&[7; 32]);
        graves.bury(Time::ZERO, key(1), 8);
        graves.bury(Time::ZERO, key(1), 9);
        assert_eq!(graves.at(0, Time::ZERO), Some(None));
        assert_eq!(graves.at(1, Time::ZERO), Some(Some((key(1), 9))));
    }

    #[test]
    fn memory_is_bounded() {
        let mut graves = Graves::new(&[7; 32]);
        let mut told = |n: u32, version| {
            let mut key = key(n as u16);
            key.dst4.addr = n.into();
            graves.bury(Time::ZERO, key, version);
            key
        };
        let count = 3 * MAX_GRAVES as u32;
        let first = told(0, 1);
        (1..count).for_each(|n| _ = told(n, 1));
        // The oldest but one is removed once more: it takes the place of the oldest.
        let again = told(count - MAX_GRAVES as u32 + 1, 2);
        (count..count + 7).for_each(|n| _ = told(n, 1));
        let find = |key| graves.find(Time::ZERO, key, 0, Time::ZERO);
        assert_eq!((find(&first), find(&again)), (None, Some(2)));
        // Its first place was the next to give way.
        assert_eq!((graves.graves.len(), graves.places.len() as usize), (MAX_GRAVES, MAX_GRAVES));
    }
}
