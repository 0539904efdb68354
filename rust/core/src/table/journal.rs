//! What the operator has to be able to answer for: who had which transport address, and when
//! (RFC 6888 REQ-12).

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::record::SessionKey;
use crate::addr::PortRange;
use crate::queue::LongQueue;
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// Entries that may wait to be written.
const MAX_WAITING: usize = 1 << 16;

/// Ports that are one subscriber's (RFC 6888 REQ-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBlock {
    /// The subscriber's prefix.
    pub subscriber: Ipv6Addr,
    /// The prefix' length.
    pub prefix_len: u8,
    /// The address.
    pub src4: Ipv4Addr,
    /// Its ports and identifiers, of all protocols.
    pub ports: PortRange,
}

/// A line of the operator's log; `Display` writes it as `key=value`. A session is told by the node
/// that it ends on, which may not be the one that it began on; peers' copies aren't told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A BIB entry was made for traffic (`logging-bib`).
    BibAdded(Proto, Endpoint6, Endpoint4),
    /// A BIB entry is gone (`logging-bib`).
    BibRemoved(Proto, Endpoint6, Endpoint4),
    /// A subscriber has got a block of ports, of which all its mappings are (`logging-bib`).
    BlockAdded(PortBlock),
    /// A subscriber's last mapping in a block is gone (`logging-bib`).
    BlockRemoved(PortBlock),
    /// A session was made for traffic (`logging-session`).
    SessionAdded(SessionKey),
    /// A session is gone (`logging-session`).
    SessionRemoved(SessionKey),
    /// So many entries were lost, since nobody wrote them in time.
    Lost(u64),
}

impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bib = |f: &mut fmt::Formatter<'_>, event, proto, src6, src4| {
            write!(f, "event={event} proto={proto} src6={src6} src4={src4}")
        };
        let block = |f: &mut fmt::Formatter<'_>, event, block: &PortBlock| {
            let PortBlock { subscriber, prefix_len, src4, ports } = block;
            write!(
                f,
                "event={event} subscriber={subscriber}/{prefix_len} src4={src4} ports={ports}"
            )
        };
        match self {
            Self::BlockAdded(ports) => block(f, "block-added", ports),
            Self::BlockRemoved(ports) => block(f, "block-removed", ports),
            Self::BibAdded(proto, src6, src4) => bib(f, "bib-added", proto, src6, src4),
            Self::BibRemoved(proto, src6, src4) => bib(f, "bib-removed", proto, src6, src4),
            Self::SessionAdded(key) => {
                bib(f, "session-added", &key.proto, &key.src6, &key.src4)?;
                write!(f, " dst4={}", key.dst4)
            }
            Self::SessionRemoved(key) => {
                bib(f, "session-removed", &key.proto, &key.src6, &key.src4)?;
                write!(f, " dst4={}", key.dst4)
            }
            Self::Lost(count) => write!(f, "event=log-lost count={count}"),
        }
    }
}

/// Entries of the log that wait to be written.
#[derive(Debug, Default)]
pub struct Journal {
    /// Whether BIB entries are told.
    pub bib: bool,
    /// Whether sessions are told.
    pub sessions: bool,
    waiting: LongQueue<LogEvent>,
    lost: u64,
}

impl Journal {
    /// Adds an entry.
    pub fn push(&mut self, event: LogEvent) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    /// The next entry.
    pub fn pop(&mut self) -> Option<LogEvent> {
        if let Some(event) = self.waiting.pop_front() {
            return Some(event);
        }
        match core::mem::take(&mut self.lost) {
            0 => None,
            lost => Some(LogEvent::Lost(lost)),
        }
    }
}
