//! SYNs from IPv4 that wait for the IPv6 node to open the same connection (RFC 6146 §3.5.2.2).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::packet::Packet;
use crate::time::Time;
use crate::tuple::Endpoint4;

/// How long a SYN waits (TCP_INCOMING_SYN, RFC 6146 §4).
pub const INCOMING_SYN_MS: u64 = 6_000;
/// Most bytes of a SYN that are kept: what an ICMP error quotes (RFC 1812 §4.3.2.3).
const QUOTED: usize = 576;

/// The waiting SYNs, numbered as they came. There may be many (`maximum-simultaneous-opens`), and
/// whoever floods us with them chooses their addresses: trees are as deep whatever is in them.
#[derive(Debug, Default)]
pub struct Stored {
    waiting: BTreeMap<u64, Syn>,
    /// The number of each SYN, by where it came from and went to.
    by_pair: BTreeMap<(Endpoint4, Endpoint4), u64>,
    /// All SYNs, by where they came from and their number.
    by_source: BTreeSet<(Endpoint4, u64)>,
    next: u64,
}

#[derive(Debug)]
struct Syn {
    due: Time,
    src: Endpoint4,
    dst: Endpoint4,
    bytes: Vec<u8>,
}

impl Stored {
    /// Keeps a SYN from `src` to `dst`, a transport address of pool4, unless `limit` SYNs wait.
    /// One that is sent again has waited since the first time.
    pub fn keep(
        &mut self,
        now: Time,
        src: Endpoint4,
        dst: Endpoint4,
        packet: &Packet<'_>,
        limit: u32,
    ) -> bool {
        if self.by_pair.contains_key(&(src, dst)) {
            return true;
        }
        if self.waiting.len() >= limit as usize {
            return false;
        }
        let bytes = packet.bytes();
        let bytes = bytes[..bytes.len().min(QUOTED)].to_vec();
        self.waiting.insert(self.next, Syn { due: now + INCOMING_SYN_MS, src, dst, bytes });
        self.by_pair.insert((src, dst), self.next);
        self.by_source.insert((src, self.next));
        self.next += 1;
        true
    }

    /// An IPv6 node opens a connection to `remote`: forgets the SYN that waits for this, of several
    /// the oldest, and returns where it was sent to. `mask` is the node's mapping, if it has one.
    pub fn take(&mut self, remote: Endpoint4, mask: Option<Endpoint4>) -> Option<Endpoint4> {
        let number = match mask {
            Some(mask) => *self.by_pair.get(&(remote, mask))?,
            None => self.by_source.range((remote, 0)..=(remote, u64::MAX)).next()?.1,
        };
        self.remove(number).map(|syn| syn.dst)
    }

    fn remove(&mut self, number: u64) -> Option<Syn> {
        let syn = self.waiting.remove(&number)?;
        self.by_pair.remove(&(syn.src, syn.dst));
        self.by_source.remove(&(syn.src, number));
        Some(syn)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A SYN that has waited long enough.
    pub fn pop_expired(&mut self, now: Time) -> Option<Vec<u8>> {
        let (&number, syn) = self.waiting.first_key_value()?;
        if syn.due > now {
            return None;
        }
        self.remove(number).map(|syn| syn.bytes)
    }

    /// When the next one has waited long enough.
    pub fn next_due(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|(_, syn)| syn.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Offload;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Keep(u8, u8),
        Take(u8, Option<u8>),
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u8..6, 0u8..6).prop_map(|(src, dst)| Op::Keep(src, dst)),
            2 => (0u8..6, prop::option::of(0u8..6)).prop_map(|(src, mask)| Op::Take(src, mask)),
            1 => (0u64..4_000).prop_map(Op::Wait),
        ]
    }

    fn endpoint(net: u32, n: u8) -> Endpoint4 {
        Endpoint4 { addr: (net + u32::from(n / 3)).into(), port: 1 + u16::from(n % 3) }
    }

    proptest! {
        /// A list that is searched from its oldest SYN on.
        #[test]
        fn agrees_with_a_list(ops in prop::collection::vec(op(), 1..200), limit in 0u32..20) {
            let (src, dst) = (|n| endpoint(0xcb00_7100, n), |n| endpoint(0xc000_0200, n));
            let mut stored = Stored::default();
            let mut model: Vec<(Time, u8, u8, Vec<u8>)> = Vec::new();
            let mut now = Time::from_millis(1_000);
            for (number, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Keep(from, to) => {
                        let mut bytes = [number as u8; 600];
                        let len = 575 + number % 3;
                        let packet = Packet::new(&mut bytes, 0, len, Offload::default());
                        let waits = model.iter().any(|syn| (syn.1, syn.2) == (from, to));
                        let fits = model.len() < limit as usize;
                        prop_assert_eq!(
                            stored.keep(now, src(from), dst(to), &packet, limit),
                            waits || fits
                        );
                        if !waits && fits {
                            let bytes = packet.bytes()[..len.min(576)].to_vec();
                            model.push((now + 6_000, from, to, bytes));
                        }
                    }
                    Op::Take(from, mask) => {
                        let at = model
                            .iter()
                            .position(|syn| syn.1 == from && mask.is_none_or(|mask| mask == syn.2));
                        let expected = at.map(|at| dst(model.remove(at).2));
                        prop_assert_eq!(stored.take(src(from), mask.map(dst)), expected);
                    }
                    Op::Wait(ms) => {
                        now = now + ms;
                        while model.first().is_some_and(|syn| syn.0 <= now) {
                            prop_assert_eq!(stored.pop_expired(now), Some(model.remove(0).3));
                        }
                        prop_assert_eq!(stored.pop_expired(now), None);
                    }
                }
                prop_assert_eq!(stored.next_due(), model.first().map(|syn| syn.0));
                prop_assert_eq!(stored.is_empty(), model.is_empty());
                let sizes = [stored.waiting.len(), stored.by_pair.len(), stored.by_source.len()];
                prop_assert_eq!(sizes, [model.len(); 3]);
            }
        }
    }
}
