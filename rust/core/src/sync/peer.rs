//! What this node knows of a peer.

use crate::sync::digest::Field;

/// A peer, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its number.
    pub node: u16,
    /// Its incarnation.
    pub epoch: u64,
    /// "joining", "syncing", "up", "differs" or "down".
    pub state: &'static str,
    /// Milliseconds since something was heard of it.
    pub heard_ms_ago: u64,
    /// Frames accepted from this incarnation.
    pub frames_received: u64,
    /// Updates that went missing, whether they came later or not.
    pub gaps: u64,
    /// The configuration field that differs from ours.
    pub mismatch: Option<Field>,
}
