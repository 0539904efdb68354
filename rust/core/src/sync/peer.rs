//! What this node knows of a peer, and the states that it goes through.

use alloc::collections::{BTreeMap, VecDeque};

use crate::sync::digest::Field;
use crate::sync::message::{Arrived, UpdateRange};
use crate::sync::resync::Plan;
use crate::sync::sequence::{Incoming, ReplayWindow};
use crate::table::Learned;
use crate::time::Time;

/// The state of a peer. [`State::next`] is the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// HELLOs come that don't echo our challenge yet: they might be recordings.
    Greeting,
    /// It is live and configured as we are: sessions are exchanged.
    Up,
    /// It is live, and its configuration differs from ours: no sessions are exchanged.
    Differing,
    /// Nothing has been heard of it for `dead-interval`.
    Down,
    /// It said BYE.
    Left,
}

/// What happens to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// A HELLO of an unknown incarnation echoes the challenge that we gave it.
    Proven,
    /// A HELLO of the known incarnation came.
    Heard,
    /// A HELLO's digests are ours.
    Agrees,
    /// A HELLO's digests aren't ours.
    Differs,
    /// `dead-interval` has passed in silence.
    Silent,
    /// A BYE came.
    Bye,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Greeting, Self::Up, Self::Differing, Self::Down, Self::Left];

    /// The state that follows; `None` where nothing changes.
    ///
    /// | | Proven | Heard | Agrees | Differs | Silent | Bye |
    /// |---|---|---|---|---|---|---|
    /// | Greeting | Up | | | | | |
    /// | Up | Up | | | Differing | Down | Left |
    /// | Differing | Up | | Up | | Down | Left |
    /// | Down | Up | Up | | | | Left |
    /// | Left | Up | | | | | |
    ///
    /// A peer in Greeting that falls silent is forgotten.
    pub const fn next(self, input: Input) -> Option<Self> {
        Some(match (self, input) {
            (_, Input::Proven) | (Self::Down, Input::Heard) | (Self::Differing, Input::Agrees) => {
                Self::Up
            }
            (Self::Up, Input::Differs) => Self::Differing,
            (Self::Up | Self::Differing, Input::Silent) => Self::Down,
            (Self::Up | Self::Differing | Self::Down, Input::Bye) => Self::Left,
            _ => return None,
        })
    }

    /// Whether frames of the known incarnation count for something.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Up | Self::Differing)
    }
}

/// A peer, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its number.
    pub node: u16,
    /// Its incarnation.
    pub epoch: u64,
    /// "joining" (heard, not yet proven to be live), "syncing" (its sessions are still on their
    /// way), "up", "differs" (configured otherwise) or "down".
    pub state: &'static str,
    /// Whether it is ready to become MASTER.
    pub ready: bool,
    /// Milliseconds since something was heard of it.
    pub heard_ms_ago: u64,
    /// Frames accepted from this incarnation.
    pub frames_received: u64,
    /// Updates that went missing, whether they came later or not.
    pub gaps: u64,
    /// The last of our updates before which none is missing there.
    pub acknowledged: u64,
    /// Updates of ours behind that one.
    pub unacknowledged: u64,
    /// The configuration field that differs from ours.
    pub mismatch: Option<Field>,
}

/// An incarnation whose HELLOs might be recordings.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub epoch: u64,
    /// Since when this incarnation has been the candidate.
    pub since: Time,
    pub heard: Time,
    /// The last HELLO's number; only later ones count.
    pub seq: u64,
    /// What it has to echo.
    pub challenge: u64,
    /// What it gave us to echo.
    pub echo: u64,
}

/// The incarnation that is believed in.
#[derive(Clone, Debug)]
pub(crate) struct Incarnation {
    pub epoch: u64,
    /// When it was proven to be live: what was removed before concerns none of its own sessions.
    pub since: Time,
    pub state: State,
    pub heard: Time,
    pub window: ReplayWindow,
    pub frames: u64,
    /// What it had to echo.
    pub challenge: u64,
    /// What it gave us to echo.
    pub echo: u64,
    pub ready: bool,
    pub generation: u32,
    pub mismatch: Option<Field>,
    pub incoming: Incoming,
    pub acknowledged: u64,
    /// The updates of ours that it has said in its last ACK to have, and that frame's number.
    pub ack: Arrived,
    pub ack_seq: u64,
    /// It has asked for an ACK.
    pub ack_due: bool,
    /// Its table has sessions that we may lack: it has to be fetched.
    pub lacking: bool,
    /// Sessions that it told of were refused, since a mapping here excludes them.
    pub refused: bool,
    /// A mapping here has given way since: its table has to be compared again.
    pub again: bool,
    /// What is being fetched of it, and how far that got.
    pub plan: Option<Plan>,
    /// When to try to fetch it, after a failure.
    pub fetch_at: Time,
    /// A HELLO has gone since it is heard. Before, it may take us for dead, and no request of ours.
    pub greeted: bool,
    /// It is Down here, and yet others hear it: what it tells them is missing here.
    pub elsewhere: bool,
    /// A NACK has to go.
    pub nack: bool,
    /// Updates that it misses.
    pub wanted: VecDeque<UpdateRange>,
}

impl Incarnation {
    pub fn new(candidate: &Candidate, now: Time, last: u64) -> Self {
        Self {
            epoch: candidate.epoch,
            since: now,
            state: State::Up,
            heard: now,
            window: ReplayWindow::after(candidate.seq),
            frames: 0,
            challenge: candidate.challenge,
            echo: candidate.echo,
            ready: false,
            generation: 0,
            mismatch: None,
            incoming: Incoming::after(last),
            acknowledged: 0,
            ack: Arrived::nothing(),
            ack_seq: 0,
            ack_due: false,
            lacking: false,
            refused: false,
            again: false,
            plan: None,
            fetch_at: now,
            greeted: false,
            elsewhere: false,
            nack: false,
            wanted: VecDeque::new(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether its table has to be fetched and it would answer.
    pub fn is_fetchable(&self) -> bool {
        self.is_up() && (self.lacking || self.again) && self.greeted
    }

    /// Whether it has told of sessions, or has some, that haven't come yet.
    pub fn is_behind(&self) -> bool {
        self.lacking || self.incoming.missing()
    }
}

/// A peer: at most one incarnation that is believed in, and one that wants to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub known: Option<Incarnation>,
    pub candidate: Option<Candidate>,
}

impl Peer {
    /// `last` is the number of our last update.
    pub fn status(&self, node: u16, now: Time, last: u64) -> Option<PeerStatus> {
        let Some(known) = &self.known else {
            let candidate = self.candidate.as_ref()?;
            return Some(PeerStatus {
                node,
                epoch: candidate.epoch,
                state: "joining",
                ready: false,
                heard_ms_ago: now.millis_since(candidate.heard),
                frames_received: 0,
                gaps: 0,
                acknowledged: 0,
                unacknowledged: last,
                mismatch: None,
            });
        };
        Some(PeerStatus {
            node,
            epoch: known.epoch,
            state: match known.state {
                State::Greeting => "joining",
                State::Up if known.lacking => "syncing",
                State::Up => "up",
                State::Differing => "differs",
                State::Down | State::Left => "down",
            },
            ready: known.ready && known.state.is_live(),
            heard_ms_ago: now.millis_since(known.heard),
            frames_received: known.frames,
            gaps: known.incoming.gaps,
            acknowledged: known.acknowledged,
            unacknowledged: last - known.acknowledged,
            mismatch: known.mismatch,
        })
    }
}

/// Every peer heard since the start, by number.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub all: BTreeMap<u16, Peer>,
}

impl Peers {
    /// The incarnations that are believed in.
    pub fn known(&self) -> impl Iterator<Item = (u16, &Incarnation)> {
        self.all.iter().filter_map(|(&node, peer)| Some((node, peer.known.as_ref()?)))
    }

    /// The incarnation of this peer that is believed in.
    pub fn known_mut(&mut self, node: u16) -> Option<&mut Incarnation> {
        self.all.get_mut(&node)?.known.as_mut()
    }

    /// A mapping here stood against a session that this peer told of. One that gives way may be
    /// that for which others were refused, which would be missing here until they are told again.
    pub fn collided(&mut self, node: u16, learned: Learned) {
        if learned == Learned::Collision {
            if let Some(known) = self.known_mut(node) {
                known.refused = true;
            }
            return;
        }
        for known in self.all.values_mut().filter_map(|peer| peer.known.as_mut()) {
            known.again |= core::mem::take(&mut known.refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the documentation of `State::next` and in docs/ss-protocol.md.
    #[test]
    fn the_documented_table_is_the_machine() {
        let inputs =
            [Input::Proven, Input::Heard, Input::Agrees, Input::Differs, Input::Silent, Input::Bye];
        let head = "| | Proven | Heard | Agrees | Differs | Silent | Bye |";
        let mut table = std::format!("{head}\n|---|---|---|---|---|---|---|\n");
        for state in State::ALL {
            table += &std::format!("| {state:?} |");
            for input in inputs {
                match state.next(input) {
                    Some(next) => table += &std::format!(" {next:?} |"),
                    None => table += " |",
                }
            }
            table += "\n";
        }
        let rustdoc = table.lines().map(|line| std::format!("    /// {line}\n"));
        assert!(include_str!("peer.rs").contains(&rustdoc.collect::<std::string::String>()));
        assert!(include_str!("../../../../docs/ss-protocol.md").contains(&table));
    }
}
