//! Packets that wait for peers, and what a node asks its peers for: the session of a packet that
//! has none here.

use super::Table;
use super::record::SessionRecord;
use super::session::{SessionId, flag};
use crate::time::Time;
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// By what a mapping is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// The IPv6 node (X', x): a packet from IPv6 wants it.
    Src6(Endpoint6),
    /// Its mask (T, t): a packet from IPv4 wants it.
    Src4(Endpoint4),
}

/// A question to peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Comes back with the answer.
    pub id: u64,
    /// The node that is asked, or 0 for all.
    pub owner: u16,
    /// The packet's protocol.
    pub proto: Proto,
    /// The mapping that it belongs to.
    pub wanted: Wanted,
    /// The packet's IPv4 node (Z, z).
    pub dst4: Endpoint4,
}

/// Which packets wait. None at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// A packet that makes a session waits until that is told, at most so long, ms; 0: it doesn't.
    pub opener_ms: u32,
    /// A packet that lacks a session which a peer may have waits for it, at most so long, ms; 0: it
    /// doesn't.
    pub stranger_ms: u32,
}

impl Table {
    /// What is here of the mapping that a peer asks for: the session with the packet's IPv4 node,
    /// or else one that tells the mapping. Lifetimes carry slack, as in an update.
    pub fn answer(&self, now: Time, query: &Query) -> Option<SessionRecord> {
        let slot = match query.wanted {
            Wanted::Src6(src6) => self.find6(query.proto, src6.addr.to_bits(), src6.port),
            Wanted::Src4(src4) => self.find4(query.proto, src4.addr.to_bits(), src4.port),
        }?;
        let port = if query.proto == Proto::Icmp { self.bib(slot).port4 } else { query.dst4.port };
        let first = SessionId::inline(slot);
        let id = self
            .find_session(slot, query.dst4.addr.to_bits(), port)
            .or_else(|| (self.session(first).flags & flag::LIVE != 0).then_some(first))?;
        Some(self.told(now, id))
    }

    /// A hash that nobody outside can foresee, to tell the senders of packets apart by.
    pub fn sender_hash(&self, sender: u128) -> u32 {
        self.keys.tag(sender, 2 << 32)
    }
}
