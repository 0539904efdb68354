//! SYNs from IPv4 that wait for the IPv6 node to open the same connection (RFC 6146 §3.5.2.2).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::packet::Packet;
use crate::time::Time;
use crate::tuple::Endpoint4;

/// How long a SYN waits (TCP_INCOMING_SYN, RFC 6146 §4).
pub const INCOMING_SYN_MS: u64 = 6_000;
/// Most bytes of a SYN that are kept: what an ICMP error quotes (RFC 1812 §4.3.2.3).
const QUOTED: usize = 576;

/// The waiting SYNs, oldest first. There are few (`maximum-simultaneous-opens`).
#[derive(Debug, Default)]
pub struct Stored {
    waiting: VecDeque<Syn>,
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
        if self.waiting.iter().any(|syn| (syn.src, syn.dst) == (src, dst)) {
            return true;
        }
        if self.waiting.len() >= limit as usize {
            return false;
        }
        let bytes = packet.bytes();
        let bytes = bytes[..bytes.len().min(QUOTED)].to_vec();
        self.waiting.push_back(Syn { due: now + INCOMING_SYN_MS, src, dst, bytes });
        true
    }

    /// An IPv6 node opens a connection to `remote`: forgets the SYN that waits for this and
    /// returns where it was sent to. `mask` is the node's mapping, if it has one.
    pub fn take(&mut self, remote: Endpoint4, mask: Option<Endpoint4>) -> Option<Endpoint4> {
        let wanted = |syn: &Syn| syn.src == remote && mask.is_none_or(|mask| mask == syn.dst);
        let at = self.waiting.iter().position(wanted)?;
        self.waiting.remove(at).map(|syn| syn.dst)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A SYN that has waited long enough.
    pub fn pop_expired(&mut self, now: Time) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        self.waiting.pop_front().map(|syn| syn.bytes)
    }

    /// When the next one has waited long enough.
    pub fn next_due(&self) -> Option<Time> {
        self.waiting.front().map(|syn| syn.due)
    }
}
