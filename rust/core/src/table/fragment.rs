//! Fragments (RFC 6146 §3.4): only the first has ports, and it need not come first.
//!
//! Datagrams aren't put together. What the first fragment is translated to is remembered, and the
//! others, waiting or still to come, go the same way. Space and time are bounded.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::packet::{Offload, OwnedPacket};
use crate::stats::DropReason;
use crate::time::Time;
use crate::tuple::Proto;

/// Datagrams that are remembered at once.
const MAX_DATAGRAMS: usize = 8192;
/// Bytes of waiting fragments, in all.
const MAX_BYTES: usize = 4 << 20;
/// Fragments of one datagram that wait: 64 KiB in pieces of 1280.
const MAX_WAITING: usize = 52;

/// Which datagram a fragment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatagramKey {
    /// Its source; of IPv4 the low 32 bits.
    pub src: u128,
    /// Its destination.
    pub dst: u128,
    /// Its protocol; an ICMP error is none of these, and not allowed in fragments.
    pub proto: Proto,
    /// Its identification.
    pub id: u32,
}

/// What becomes of a fragment that isn't first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate<R> {
    /// It goes the way of the first one.
    Route(R),
    /// It waits for the first one.
    Kept,
    /// It is dropped.
    Drop(DropReason),
}

/// The datagrams of which fragments were seen lately; `R` is where a first fragment went.
#[derive(Debug)]
pub struct Fragments<R> {
    datagrams: BTreeMap<DatagramKey, Way<R>>,
    /// In the order in which they are forgotten.
    due: VecDeque<(Time, DatagramKey)>,
    bytes: usize,
    /// How long a datagram is remembered after its first packet, ms.
    timeout: u64,
}

#[derive(Debug)]
enum Way<R> {
    Unknown(Vec<OwnedPacket>),
    Known(R),
    Refused,
}

impl<R: Copy> Fragments<R> {
    /// None seen yet. A datagram is remembered for `timeout` ms after its first packet.
    pub fn new(timeout: u32) -> Self {
        let timeout = timeout.into();
        Self { datagrams: BTreeMap::new(), due: VecDeque::new(), bytes: 0, timeout }
    }

    /// Another time to remember datagrams for, from the next one on.
    pub fn set_timeout(&mut self, timeout: u32) {
        self.timeout = timeout.into();
    }

    /// What becomes of a fragment that isn't first; it is copied if it has to wait.
    pub fn later(
        &mut self,
        now: Time,
        key: DatagramKey,
        bytes: &[u8],
        offload: Offload,
    ) -> Fate<R> {
        if let Some(way) = self.datagrams.get(&key) {
            match way {
                Way::Known(route) => return Fate::Route(*route),
                Way::Refused => return Fate::Drop(DropReason::FragmentRefused),
                Way::Unknown(waiting) if waiting.len() >= MAX_WAITING => {
                    return Fate::Drop(DropReason::FragmentsFull);
                }
                Way::Unknown(_) => {}
            }
        }
        if self.bytes + bytes.len() > MAX_BYTES {
            return Fate::Drop(DropReason::FragmentsFull);
        }
        let Some(datagram) = self.datagram(now, key) else {
            return Fate::Drop(DropReason::FragmentsFull);
        };
        if let Way::Unknown(waiting) = datagram {
            waiting.push(OwnedPacket { bytes: bytes.to_vec(), offload });
            self.bytes += bytes.len();
        }
        Fate::Kept
    }

    /// The first fragment went that way, or was refused (None). Returns those that waited for it.
    pub fn first(&mut self, now: Time, key: DatagramKey, route: Option<R>) -> Vec<OwnedPacket> {
        let Some(datagram) = self.datagram(now, key) else { return Vec::new() };
        let way = route.map_or(Way::Refused, Way::Known);
        match core::mem::replace(datagram, way) {
            Way::Unknown(waiting) => {
                self.bytes -= waiting.iter().map(|packet| packet.bytes.len()).sum::<usize>();
                waiting
            }
            Way::Known(_) | Way::Refused => Vec::new(),
        }
    }

    fn datagram(&mut self, now: Time, key: DatagramKey) -> Option<&mut Way<R>> {
        if !self.datagrams.contains_key(&key) {
            if self.due.len() >= MAX_DATAGRAMS {
                return None;
            }
            self.due.push_back((now + self.timeout, key));
        }
        Some(self.datagrams.entry(key).or_insert_with(|| Way::Unknown(Vec::new())))
    }

    /// Forgets what is due, `budget` datagrams at most. Returns how many fragments waited in vain.
    pub fn expire(&mut self, now: Time, budget: usize) -> u64 {
        let mut lost = 0;
        for _ in 0..budget {
            let Some(&(_, key)) = self.due.front().filter(|(due, _)| *due <= now) else { break };
            self.due.pop_front();
            if let Some(Way::Unknown(waiting)) = self.datagrams.remove(&key) {
                lost += waiting.len() as u64;
                self.bytes -= waiting.iter().map(|packet| packet.bytes.len()).sum::<usize>();
            }
        }
        lost
    }

    /// When the next datagram is to be forgotten.
    pub fn next_due(&self) -> Option<Time> {
        self.due.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> DatagramKey {
        DatagramKey { src: 1, dst: 2, proto: Proto::Udp, id }
    }

    fn later(fragments: &mut Fragments<u8>, id: u32, len: usize) -> Fate<u8> {
        fragments.later(Time::ZERO, key(id), &alloc::vec![0; len], Offload::default())
    }

    #[test]
    fn fragments_wait_for_the_first_and_then_follow_it() {
        let mut fragments = Fragments::new(2_000);
        assert_eq!(later(&mut fragments, 1, 8), Fate::Kept);
        assert_eq!(later(&mut fragments, 1, 9), Fate::Kept);
        assert_eq!(later(&mut fragments, 2, 8), Fate::Kept, "another datagram");
        let waited = fragments.first(Time::ZERO, key(1), Some(7));
        assert_eq!(waited.iter().map(|p| p.bytes.len()).collect::<Vec<_>>(), [8, 9]);
        assert_eq!(later(&mut fragments, 1, 8), Fate::Route(7));
        assert_eq!(fragments.first(Time::ZERO, key(2), None).len(), 1);
        assert_eq!(later(&mut fragments, 2, 8), Fate::Drop(DropReason::FragmentRefused));
        assert_eq!(fragments.bytes, 0);
    }

    #[test]
    fn memory_and_time_are_bounded() {
        let mut fragments = Fragments::new(2_000);
        let mut kept = 0;
        while later(&mut fragments, kept, 1024) == Fate::Kept {
            kept += 1;
        }
        assert_eq!((fragments.bytes, kept as usize * 1024), (MAX_BYTES, MAX_BYTES));
        assert_eq!(later(&mut fragments, 0, 1), Fate::Drop(DropReason::FragmentsFull));
        let due = fragments.next_due().unwrap();
        assert_eq!(due, Time::from_millis(2_000));
        assert_eq!(fragments.expire(due - 1, 10_000), 0);
        assert_eq!(fragments.expire(due, 10), 10, "no more than it may look at");
        assert_eq!(fragments.expire(due, 10_000), u64::from(kept) - 10);
        assert_eq!((fragments.bytes, fragments.next_due()), (0, None));

        for id in 0..MAX_DATAGRAMS as u32 {
            assert_eq!(later(&mut fragments, id, 8), Fate::Kept);
        }
        assert_eq!(later(&mut fragments, u32::MAX, 8), Fate::Drop(DropReason::FragmentsFull));
        for _ in 1..MAX_WAITING {
            assert_eq!(later(&mut fragments, 5, 8), Fate::Kept);
        }
        assert_eq!(later(&mut fragments, 5, 8), Fate::Drop(DropReason::FragmentsFull));
    }
}
