//! A session as one node tells it to another, and as people see it.

use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// Where a bridge leads: to who tells of sessions without versions or removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// joolds on the network.
    Joolds = 0,
    /// The kernel module of this machine.
    Module = 1,
}

impl Side {
    /// Every side, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Joolds, Self::Module];
}

/// State of a session (RFC 6146 §3.5.2). The numbers are joold's. UDP and ICMP sessions are
/// always `Established`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// ESTABLISHED.
    Established = 0,
    /// V6 INIT: a SYN came from IPv6.
    V6Init = 1,
    /// V4 INIT: a SYN came from IPv4.
    V4Init = 2,
    /// V4 FIN RCV.
    V4FinRcv = 3,
    /// V6 FIN RCV.
    V6FinRcv = 4,
    /// V4 FIN + V6 FIN RCV.
    V4FinV6FinRcv = 5,
    /// TRANS: a RST came.
    Trans = 6,
}

impl State {
    /// The state of that number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Established,
            1 => Self::V6Init,
            2 => Self::V4Init,
            3 => Self::V4FinRcv,
            4 => Self::V6FinRcv,
            5 => Self::V4FinV6FinRcv,
            6 => Self::Trans,
            _ => return None,
        })
    }

    /// Its name, as Jool shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::V6Init => "V6_INIT",
            Self::V4Init => "V4_INIT",
            Self::V4FinRcv => "V4_FIN_RCV",
            Self::V6FinRcv => "V6_FIN_RCV",
            Self::V4FinV6FinRcv => "V4_FIN_V6_FIN_RCV",
            Self::Trans => "TRANS",
        }
    }
}

/// What identifies a session in the cluster: RFC 6146's 5-tuple, seen from the IPv4 side with its
/// IPv6 owner. dst6 is pool6 + dst4, so it isn't kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Its protocol.
    pub proto: Proto,
    /// The IPv6 node (X', x).
    pub src6: Endpoint6,
    /// Its mask (T, t).
    pub src4: Endpoint4,
    /// The IPv4 node (Z, z). For ICMP the port equals `src4.port`.
    pub dst4: Endpoint4,
}

/// A whole session. `version` grows with every change that peers are told of: a generation in its
/// upper 20 bits, a count of changes below. How copies are merged is told in `table/merge.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Which session.
    pub key: SessionKey,
    /// Its TCP state.
    pub state: State,
    /// Milliseconds that it has left.
    pub lifetime_ms: u32,
    /// See above.
    pub version: u32,
}

/// A BIB entry as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BibRecord {
    /// Its protocol.
    pub proto: Proto,
    /// The IPv6 node (X', x).
    pub src6: Endpoint6,
    /// Its mask (T, t).
    pub src4: Endpoint4,
    /// Whether the operator made it; such an entry outlives its sessions.
    pub is_static: bool,
    /// How many sessions it has.
    pub sessions: u32,
}

/// Something that peers have to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session was created, changed its state or lives longer. The lifetime contains the slack
    /// that keeps a peer's copy alive until the next refresh is told.
    Upsert(SessionRecord),
    /// A session is gone, with the version of its removal.
    Remove(SessionKey, u32),
}

/// What became of a session that a peer told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The table has it now.
    Applied,
    /// The table had all of it already.
    Unchanged,
    /// The table knows a later version.
    Stale,
    /// A mapping of ours excludes it and takes precedence.
    Collision,
    /// It can't be here: outside pool4, inside pool6, or no session at all.
    Rejected,
    /// The table holds max-sessions already.
    Full,
}
