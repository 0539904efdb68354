//! Openers: packets that wait until their session is told. What tells it, and who has said that it
//! has arrived.
//!
//! Openers are numbered by the table, updates by this node. When nothing waits to be told, all
//! openers so far stand in the updates so far: a mark notes both numbers. What lets the openers of
//! a mark go is the transport's word that the mark's frame is on its way (`sent`), or the ACK of
//! one peer, in active/active of every peer that is Up (`acked`). The table lets each go by itself
//! when it has waited long enough.

use alloc::collections::VecDeque;

use crate::queue::pop_front_if;
use crate::sync::Sessions;
use crate::sync::config::Durability;
use crate::sync::frame::{Kind, Transmit};
use crate::sync::member::Sync;
use crate::sync::message::{ACK_LEN, UpdateRange};
use crate::sync::queue::Body;
use crate::time::Time;

/// How long an ACK may take before the update is sent again, ms; doubles with every try.
const REPEAT_MS: u64 = 10;
/// Updates that are sent again at once.
const MAX_REPEATED: u64 = 16;

/// All openers up to a number are told in updates up to a number.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Openers up to this one, all told.
    openers: u64,
    /// The updates that tell of those behind the last mark.
    updates: UpdateRange,
    /// The frame after which the last of them is on its way.
    seq: u64,
    /// When its openers have waited long enough.
    due: Time,
}

/// Openers that wait for something from the network.
#[derive(Debug, Default)]
pub(super) struct Durable {
    marks: VecDeque<Mark>,
    /// Openers in the last mark, and all before.
    marked: u64,
    /// The last update before the next mark's.
    covered: u64,
    repeat_at: Option<Time>,
    tries: u32,
    /// Updates that are to be sent again, to all.
    pub repeat: VecDeque<UpdateRange>,
}

impl Durable {
    /// When to ask for an ACK once more.
    pub fn next_due(&self) -> Option<Time> {
        self.repeat_at
    }

    /// Whether ACKs are waited for.
    pub fn waits(&self) -> bool {
        !self.marks.is_empty()
    }

    fn rest(&mut self) {
        if self.marks.is_empty() {
            self.repeat_at = None;
            self.tries = 0;
            self.repeat.clear();
        }
    }
}

impl Sync {
    /// Whether openers wait that no update tells of yet.
    pub(super) fn has_unmarked(&self, sessions: &impl Sessions) -> bool {
        self.holding.opener_ms > 0 && sessions.openers() > self.durable.marked
    }

    /// Nothing waits to be told any more: takes note of what that means for openers.
    pub(super) fn mark_openers(&mut self, now: Time, sessions: &impl Sessions) {
        let last = self.outgoing.last;
        let first = self.durable.covered.max(self.outgoing.oldest().saturating_sub(1)) + 1;
        if !self.has_unmarked(sessions) {
            return;
        }
        let openers = sessions.openers();
        let due = now + u64::from(self.holding.opener_ms);
        let updates = UpdateRange { first: first.min(last), last };
        self.durable.marks.push_back(Mark { openers, updates, seq: self.seq, due });
        (self.durable.marked, self.durable.covered) = (openers, last);
        if self.config.durability == Durability::Acked && self.durable.repeat_at.is_none() {
            self.durable.repeat_at = Some(now + REPEAT_MS);
        }
    }

    /// Every frame up to that number of its sequence was handed to the network.
    pub fn handle_sent(&mut self, now: Time, seq: u64, sessions: &mut impl Sessions) {
        if self.config.durability == Durability::Sent {
            self.pass_marks(now, sessions, |mark| mark.seq <= seq);
        }
    }

    /// A peer's ACK has come.
    pub(super) fn acknowledged(&mut self, now: Time, sessions: &mut impl Sessions) {
        if self.config.durability != Durability::Acked || !self.durable.waits() {
            return;
        }
        let up = self.peers.known().filter(|(_, known)| known.is_up());
        let acks: alloc::vec::Vec<_> = up.map(|(_, known)| known.ack).collect();
        let everyone = self.slices;
        self.pass_marks(now, sessions, |mark| {
            let has = |ack: &UpdateRange| {
                ack.first <= mark.updates.first && mark.updates.last <= ack.last
            };
            if everyone { acks.iter().all(has) } else { acks.iter().any(has) }
        });
    }

    /// Lets the openers of the first marks go, as long as `passed` holds.
    fn pass_marks(
        &mut self,
        now: Time,
        sessions: &mut impl Sessions,
        passed: impl Fn(&Mark) -> bool,
    ) {
        let mut openers = 0;
        while let Some(mark) = pop_front_if(&mut self.durable.marks, &passed) {
            openers = mark.openers;
        }
        if openers > 0 {
            self.durable.rest();
            sessions.release_openers(now, openers);
        }
    }

    /// Nobody is there to be told, or nobody has to be.
    pub(super) fn forget_openers(&mut self, now: Time, sessions: &mut impl Sessions) {
        self.durable.marks.clear();
        self.durable.rest();
        self.durable.marked = sessions.openers();
        sessions.release_openers(now, u64::MAX);
    }

    /// Sends updates again whose ACK is overdue, and forgets those whose openers have gone.
    pub(super) fn repeat_for_acks(&mut self, now: Time) {
        while pop_front_if(&mut self.durable.marks, |mark| mark.due <= now).is_some() {}
        self.durable.rest();
        let Some(mark) = self.durable.marks.front() else { return };
        if self.durable.repeat_at.is_some_and(|at| now >= at) {
            let first = mark.updates.first;
            let last = self.durable.covered.min(first + MAX_REPEATED - 1);
            self.durable.repeat = [UpdateRange { first, last }].into();
            self.durable.tries += 1;
            self.durable.repeat_at = Some(now + (REPEAT_MS << self.durable.tries.min(6)));
        }
    }

    /// ACK: what has arrived of a peer that has asked to be told at once.
    pub(super) fn ack_frame(&mut self) -> Option<Transmit> {
        let node = self.peers.known().find(|(_, known)| known.ack_due)?.0;
        let known = self.peers.known_mut(node)?;
        known.ack_due = false;
        let arrived = known.incoming.arrived();
        let mut buf = Transmit::buffer(ACK_LEN);
        arrived.put(&mut buf);
        Some(self.frame(Kind::Ack, node, Body { buf, count: 0 }))
    }
}
