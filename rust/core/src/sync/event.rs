//! Things worth a line in the log.

use alloc::collections::VecDeque;
use core::fmt;
use core::net::IpAddr;

use crate::sync::digest::Field;
use crate::sync::frame::FrameError;
use crate::sync::joold::{DatagramError, Format};
use crate::table::SessionKey;
use crate::time::Time;

/// Events kept for who doesn't ask.
const MAX_EVENTS: usize = 256;
/// The least time between two events that the network can cause at will, ms.
const PAUSE_MS: u64 = 10_000;

/// Something that happened between nodes; `Display` is the line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer proved to be live.
    PeerUp {
        /// The peer.
        node: u16,
        /// Its incarnation.
        epoch: u64,
    },
    /// A peer that was up has a new incarnation.
    PeerRestarted {
        /// The peer.
        node: u16,
        /// Its new incarnation.
        epoch: u64,
    },
    /// A peer that was silent is heard again.
    PeerBack {
        /// The peer.
        node: u16,
    },
    /// A peer has been silent for too long.
    PeerDown {
        /// The peer.
        node: u16,
        /// How long nothing was heard, in ms.
        silent_ms: u64,
    },
    /// A peer said BYE.
    PeerLeft {
        /// The peer.
        node: u16,
    },
    /// A peer's configuration differs from ours: nothing is synchronised with it.
    Mismatch {
        /// The peer.
        node: u16,
        /// The first field that differs.
        field: Field,
    },
    /// The configurations agree again.
    MismatchOver {
        /// The peer.
        node: u16,
    },
    /// Updates of a peer are lost for good: its table is fetched.
    Behind {
        /// The peer.
        node: u16,
    },
    /// Our table and a peer's are being compared.
    ComparisonStarted {
        /// The peer.
        node: u16,
    },
    /// A peer's table is being fetched.
    SnapshotStarted {
        /// The peer.
        node: u16,
    },
    /// Nothing of a peer's table is missing any more.
    SnapshotDone {
        /// The peer.
        node: u16,
        /// Sessions and removals received.
        sessions: u64,
        /// How long it took.
        ms: u64,
    },
    /// A peer stopped to answer before its table was whole.
    SnapshotFailed {
        /// The peer.
        node: u16,
    },
    /// This node may become MASTER.
    Ready {
        /// Why.
        reason: Reason,
    },
    /// Frames came that were refused; told at most once in ten seconds for each cause.
    FramesRefused {
        /// What was wrong with the last one.
        error: FrameError,
        /// How many since the last time.
        count: u64,
    },
    /// Another machine sends frames as this node.
    OwnIdentity {
        /// This node's number.
        node: u16,
        /// The other's incarnation.
        epoch: u64,
    },
    /// There are more nodes than this one can keep apart.
    TooManyPeers {
        /// The one that was turned away.
        node: u16,
    },
    /// A joold is heard for the first time, or in another format.
    JooldHeard {
        /// Its address.
        from: IpAddr,
        /// Its format.
        format: Format,
    },
    /// A joold writes another format than the one that we tell in.
    JooldOtherFormat {
        /// Its address.
        from: IpAddr,
        /// Its format.
        format: Format,
        /// Ours.
        ours: Format,
    },
    /// Nobody was heard whose format could be taken.
    JooldFormatUnknown,
    /// Datagrams came that aren't joold's; told at most once in ten seconds.
    JooldRefused {
        /// Where the last one came from.
        from: IpAddr,
        /// What was wrong with it.
        error: DatagramError,
        /// How many since the last time.
        count: u64,
    },
    /// Sessions of joolds collided with mappings of ours; told at most once in ten seconds.
    JooldCollision {
        /// Where the last one came from.
        from: IpAddr,
        /// The last one.
        key: SessionKey,
        /// How many since the last time.
        count: u64,
    },
    /// The whole table was told to joolds.
    JooldAdvertised {
        /// How many sessions it had.
        sessions: u64,
    },
    /// The kernel module has been told the table.
    ModuleTold {
        /// How many sessions that were.
        sessions: u64,
    },
    /// So many events happened before anyone asked that some were forgotten.
    Forgotten {
        /// How many.
        count: u64,
    },
}

/// Why a node is ready to become MASTER, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no synchronisation to wait for.
    NoSynchronisation,
    /// It listens for peers.
    Listening,
    /// A peer with a table is up, and its configuration differs from ours.
    Differs {
        /// The peer.
        node: u16,
        /// The first field that differs.
        field: Field,
    },
    /// A peer's table is arriving.
    Fetching {
        /// The peer.
        node: u16,
    },
    /// It has listened to joolds for join-timeout; they can't say whether that was all.
    Listened,
    /// No peer has sessions that this node lacks.
    Alone,
    /// A peer's table has arrived.
    Fetched {
        /// The peer.
        node: u16,
    },
}

impl Reason {
    /// Whether it is a reason to be ready.
    pub const fn ready(self) -> bool {
        matches!(
            self,
            Self::NoSynchronisation | Self::Listened | Self::Alone | Self::Fetched { .. }
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSynchronisation => f.write_str("synchronisation is off"),
            Self::Listening => f.write_str("listening for peers"),
            Self::Differs { node, field } => {
                write!(f, "node {node} has sessions, but its {field} differs from ours")
            }
            Self::Fetching { node } => write!(f, "fetching the sessions of node {node}"),
            Self::Listened => f.write_str("join-timeout has passed; joold can't tell more"),
            Self::Alone => f.write_str("no peer has sessions that are missing here"),
            Self::Fetched { node } => write!(f, "has the sessions of node {node}"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerUp { node, epoch } => write!(f, "node {node} is up (epoch {epoch:#x})"),
            Self::PeerRestarted { node, epoch } => {
                write!(f, "node {node} has restarted (epoch {epoch:#x})")
            }
            Self::PeerBack { node } => write!(f, "node {node} is heard again"),
            Self::PeerDown { node, silent_ms } => {
                write!(f, "node {node} is down: silent for {silent_ms} ms")
            }
            Self::PeerLeft { node } => write!(f, "node {node} has left"),
            Self::Mismatch { node, field } => write!(
                f,
                "node {node} is configured otherwise: {field} differs; not synchronising with it"
            ),
            Self::MismatchOver { node } => write!(f, "node {node} is configured as we are again"),
            Self::Behind { node } => {
                write!(f, "updates of node {node} are lost; fetching all its sessions")
            }
            Self::ComparisonStarted { node } => write!(f, "comparing sessions with node {node}"),
            Self::SnapshotStarted { node } => write!(f, "fetching the sessions of node {node}"),
            Self::SnapshotDone { node, sessions, ms } => {
                write!(f, "got {sessions} sessions and removals of node {node} in {ms} ms")
            }
            Self::SnapshotFailed { node } => {
                write!(f, "node {node} stopped to answer before all its sessions were here")
            }
            Self::Ready { reason } => write!(f, "ready: {reason}"),
            Self::FramesRefused { error, count } => {
                write!(f, "refused {count} frames; the last: {error}")
            }
            Self::OwnIdentity { node, epoch } => write!(
                f,
                "another machine sends as node {node} (epoch {epoch:#x}): give it a number of \
                 its own"
            ),
            Self::TooManyPeers { node } => write!(f, "too many peers: node {node} is ignored"),
            Self::JooldHeard { from, format } => {
                write!(f, "joold at {from} is heard, in the format of Jool {format}")
            }
            Self::JooldOtherFormat { from, format, ours } => write!(
                f,
                "joold at {from} writes the format of Jool {format} and we write that of {ours}: \
                 Jools of different formats can't share a group"
            ),
            Self::JooldFormatUnknown => f.write_str(
                "no joold was heard, so its format isn't known: nothing is sent to any until one \
                 is heard, or format is configured",
            ),
            Self::JooldRefused { from, error, count } => {
                write!(f, "refused {count} joold datagrams; the last, of {from}: {error}")
            }
            Self::JooldCollision { from, key, count } => write!(
                f,
                "{count} sessions of joolds collide with mappings of ours; the last, of {from}: \
                 {} {} - {}",
                key.proto, key.src6, key.src4
            ),
            Self::JooldAdvertised { sessions } => {
                write!(f, "told joold all {sessions} sessions")
            }
            Self::ModuleTold { sessions } => {
                write!(f, "told Jool's kernel module {sessions} sessions")
            }
            Self::Forgotten { count } => write!(f, "{count} events were forgotten"),
        }
    }
}

/// How often something was seen since it was last told.
#[derive(Clone, Copy, Debug, Default)]
struct Repeated {
    count: u64,
    told: Option<Time>,
}

impl Repeated {
    /// Counts one more; the count since the last time if it is time to tell.
    fn tell(&mut self, now: Time) -> Option<u64> {
        self.count += 1;
        if self.told.is_some_and(|told| now.millis_since(told) < PAUSE_MS) {
            return None;
        }
        self.told = Some(now);
        Some(core::mem::take(&mut self.count))
    }
}

/// Events that nobody has asked for yet. Bounded, and a network that misbehaves can't fill it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: VecDeque<Event>,
    forgotten: u64,
    refused: [Repeated; 5],
    own_identity: Repeated,
    too_many: Repeated,
    joold_heard: Repeated,
    joold_other_format: Repeated,
    joold_refused: Repeated,
    joold_collision: Repeated,
}

impl Events {
    pub fn push(&mut self, event: Event) {
        if self.queue.len() == MAX_EVENTS {
            self.queue.pop_front();
            self.forgotten += 1;
        }
        self.queue.push_back(event);
    }

    pub fn pop(&mut self) -> Option<Event> {
        if self.forgotten > 0 {
            let count = core::mem::take(&mut self.forgotten);
            return Some(Event::Forgotten { count });
        }
        self.queue.pop_front()
    }

    pub fn refused(&mut self, now: Time, error: FrameError) {
        let cause = match error {
            FrameError::Authentication { .. } => 0,
            FrameError::Version(_) => 1,
            FrameError::Cluster => 2,
            FrameError::Malformed => 3,
            FrameError::Flags(_) => 4,
            FrameError::NotForUs | FrameError::Own => return,
        };
        if let Some(count) = self.refused[cause].tell(now) {
            self.push(Event::FramesRefused { error, count });
        }
    }

    pub fn own_identity(&mut self, now: Time, node: u16, epoch: u64) {
        if self.own_identity.tell(now).is_some() {
            self.push(Event::OwnIdentity { node, epoch });
        }
    }

    pub fn too_many_peers(&mut self, now: Time, node: u16) {
        if self.too_many.tell(now).is_some() {
            self.push(Event::TooManyPeers { node });
        }
    }

    pub fn joold_heard(&mut self, now: Time, from: IpAddr, format: Format) {
        if self.joold_heard.tell(now).is_some() {
            self.push(Event::JooldHeard { from, format });
        }
    }

    pub fn joold_other_format(&mut self, now: Time, from: IpAddr, format: Format, ours: Format) {
        if self.joold_other_format.tell(now).is_some() {
            self.push(Event::JooldOtherFormat { from, format, ours });
        }
    }

    pub fn joold_refused(&mut self, now: Time, from: IpAddr, error: DatagramError) {
        if let Some(count) = self.joold_refused.tell(now) {
            self.push(Event::JooldRefused { from, error, count });
        }
    }

    pub fn joold_collision(&mut self, now: Time, from: IpAddr, key: SessionKey) {
        if let Some(count) = self.joold_collision.tell(now) {
            self.push(Event::JooldCollision { from, key, count });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_network_that_misbehaves_cannot_fill_the_log() {
        let mut events = Events::default();
        for ms in 0..20_001 {
            events.refused(Time::from_millis(ms), FrameError::Authentication { node: 9 });
            events.refused(Time::from_millis(ms), FrameError::Cluster);
        }
        let told: Vec<_> = core::iter::from_fn(|| events.pop()).collect();
        let wrong_key = |count| {
            let error = FrameError::Authentication { node: 9 };
            Event::FramesRefused { error, count }
        };
        let told: Vec<_> = told.into_iter().step_by(2).collect();
        assert_eq!(told, [wrong_key(1), wrong_key(10_000), wrong_key(10_000)]);
    }

    #[test]
    fn events_are_bounded_and_the_loss_is_told() {
        let mut events = Events::default();
        for node in 0..300 {
            events.push(Event::PeerLeft { node });
        }
        assert_eq!(events.pop(), Some(Event::Forgotten { count: 44 }));
        assert_eq!(events.pop(), Some(Event::PeerLeft { node: 44 }));
    }
}
