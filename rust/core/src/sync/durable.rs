//! Openers: packets that wait until their session is told. What tells it, and who has said that it
//! has arrived.
//!
//! Openers are numbered by the table, updates by this node. When nothing waits to be told, the
//! openers since the last time stand in the updates since then: a mark notes both. What lets the
//! openers of a mark go is the transport's word that the mark's frame is on its way (`sent`), or
//! the ACK of one peer, in active/active of every peer that is Up, that the mark's own updates are
//! there (`acked`), whatever else may be missing. The table lets each go by itself when it has
//! waited long enough.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;
use core::slice;

use crate::queue::pop_front_if;
use crate::sync::Sessions;
use crate::sync::config::Durability;
use crate::sync::frame::{Kind, Transmit};
use crate::sync::member::Sync;
use crate::sync::message::{Arrived, UpdateRange};
use crate::sync::queue::Body;
use crate::time::Time;

/// How long an ACK may take at least before the update is sent again, ms; doubles with every try.
const REPEAT_MS: u64 = 10;
/// Updates that are sent again at once.
const MAX_REPEATED: usize = 16;

/// Openers that are told, and where.
#[derive(Clone, Debug)]
struct Mark {
    /// Their numbers.
    openers: Range<u64>,
    /// The updates that tell of them.
    updates: UpdateRange,
    /// The frame after which the last of these is on its way.
    seq: u64,
    /// Since when all of these are told.
    since: Time,
    /// When they have waited long enough.
    due: Time,
    /// When the updates are sent again to who lacks them.
    repeat_at: Time,
    tries: u32,
}

/// Openers that wait for something from the network.
#[derive(Debug, Default)]
pub(super) struct Durable {
    marks: VecDeque<Mark>,
    /// Openers in the last mark, and all before.
    marked: u64,
    /// The first update that may tell of openers behind it.
    pub first: Option<u64>,
    /// How long ACKs take where nothing is lost, ms: what the quickest of late took.
    quickest_ms: u64,
    /// When the first mark may be due to be sent again.
    repeat_at: Option<Time>,
    /// Updates that are to be sent again, and to whom; 0 is all.
    pub repeat: VecDeque<(u16, u64)>,
}

impl Durable {
    /// When to send updates again, as soon as those that are to be have gone.
    pub fn next_due(&self) -> Option<Time> {
        self.repeat_at.filter(|_| self.repeat.is_empty())
    }

    /// How long to wait for an ACK at first: half as long again as it takes.
    fn patience_ms(&self) -> u64 {
        REPEAT_MS.max(self.quickest_ms * 3 / 2)
    }

    /// Whether ACKs are waited for.
    pub fn waits(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Lets the openers of those marks go for which `passed` holds.
    fn pass_marks(
        &mut self,
        now: Time,
        sessions: &mut impl Sessions,
        passed: impl Fn(&Mark) -> bool,
    ) {
        let mut openers = Vec::new();
        let mut quickest_ms = u64::MAX;
        self.marks.retain(|mark| {
            if !passed(mark) {
                return true;
            }
            openers.push(mark.openers.clone());
            quickest_ms = quickest_ms.min(now.millis_since(mark.since));
            false
        });
        if !openers.is_empty() {
            self.quickest_ms = quickest_ms.min(self.quickest_ms + 1);
            self.rest();
            sessions.release_openers(now, &openers);
        }
    }

    /// Has updates whose ACK is overdue sent again to the peer that lacks them, or to all if
    /// several do.
    fn repeat_to(&mut self, now: Time, acks: &[(u16, &Arrived)]) {
        let patience_ms = self.patience_ms();
        for mark in self.marks.iter_mut().filter(|mark| mark.repeat_at <= now) {
            if self.repeat.len() >= MAX_REPEATED {
                break;
            }
            for number in mark.updates.first..=mark.updates.last {
                let mut lacking = acks.iter().filter(|(_, ack)| !ack.has(number));
                let to = match (lacking.next(), lacking.next()) {
                    (None, _) => continue,
                    (Some((node, _)), None) => *node,
                    (Some(_), Some(_)) => 0,
                };
                self.repeat.push_back((to, number));
                if self.repeat.len() >= MAX_REPEATED {
                    break;
                }
            }
            mark.tries += 1;
            mark.repeat_at = now + (patience_ms << mark.tries.min(6));
        }
        self.repeat_at = self.marks.iter().map(|mark| mark.repeat_at).min();
    }

    fn rest(&mut self) {
        if self.marks.is_empty() {
            self.repeat_at = None;
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
        if !self.has_unmarked(sessions) {
            return;
        }
        let last = self.outgoing.last;
        let first = self.durable.first.take().unwrap_or(last);
        let mark = Mark {
            openers: self.durable.marked..sessions.openers(),
            updates: UpdateRange { first, last },
            seq: self.seq,
            since: now,
            due: now + u64::from(self.holding.opener_ms),
            repeat_at: now + self.durable.patience_ms(),
            tries: 0,
        };
        self.durable.marked = mark.openers.end;
        if self.config.durability == Durability::Acked {
            self.durable.repeat_at.get_or_insert(mark.repeat_at);
        }
        self.durable.marks.push_back(mark);
    }

    /// Every frame up to that number of its sequence was handed to the network.
    pub fn handle_sent(&mut self, now: Time, seq: u64, sessions: &mut impl Sessions) {
        if self.config.durability == Durability::Sent {
            self.durable.pass_marks(now, sessions, |mark| mark.seq <= seq);
        }
    }

    /// A peer's ACK has come.
    pub(super) fn acknowledged(&mut self, now: Time, sessions: &mut impl Sessions) {
        if self.config.durability != Durability::Acked || !self.durable.waits() {
            return;
        }
        let up = self.peers.known().filter(|(_, known)| known.is_up());
        let acks: Vec<_> = up.map(|(_, known)| &known.ack).collect();
        let everyone = self.slices;
        let passed = |mark: &Mark| {
            let has = |ack: &&Arrived| ack.has_all(mark.updates);
            if everyone { acks.iter().all(has) } else { acks.iter().any(has) }
        };
        self.durable.pass_marks(now, sessions, passed);
    }

    /// Nobody is there to be told, or nobody has to be.
    pub(super) fn forget_openers(&mut self, now: Time, sessions: &mut impl Sessions) {
        self.durable.marks.clear();
        self.durable.rest();
        (self.durable.marked, self.durable.first) = (sessions.openers(), None);
        sessions.release_openers(now, slice::from_ref(&(0..u64::MAX)));
    }

    /// Sends updates again whose ACK is overdue, and forgets those whose openers have gone.
    pub(super) fn repeat_for_acks(&mut self, now: Time) {
        while pop_front_if(&mut self.durable.marks, |mark| mark.due <= now).is_some() {}
        if self.durable.next_due().is_some_and(|at| now >= at) {
            let up = self.peers.known().filter(|(_, known)| known.is_up());
            let acks: Vec<_> = up.map(|(node, known)| (node, &known.ack)).collect();
            self.durable.repeat_to(now, &acks);
        }
        self.durable.rest();
    }

    /// ACK: what has arrived of a peer that has asked to be told at once.
    pub(super) fn ack_frame(&mut self) -> Option<Transmit> {
        let node = self.peers.known().find(|(_, known)| known.ack_due)?.0;
        let known = self.peers.known_mut(node)?;
        known.ack_due = false;
        let max_body = self.config.max_body();
        let arrived = known.incoming.arrived(Arrived::room(max_body));
        let mut buf = Transmit::buffer(max_body);
        arrived.put(&mut buf);
        let count = arrived.later.len() as u16;
        Some(self.frame(Kind::Ack, node, Body { buf, count }))
    }
}
