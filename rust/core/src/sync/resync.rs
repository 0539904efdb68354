//! Snapshots: the table of a peer, fetched part by part.
//!
//! Who fetches keeps track of the slots that it has; who serves keeps nothing but what it was last
//! asked for. So a lost frame costs a repetition of that frame, and a table that changes meanwhile
//! costs nothing: what changes is told in updates as well. Who has a table of its own compares
//! digests first, and fetches the sessions of those buckets that differ. Behind the sessions come
//! the removals that are remembered: who was cut off for long has missed them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::mutant::Mutant;
use crate::sync::Sessions;
use crate::sync::buckets::Comparison;
use crate::sync::config::SyncConfig;
use crate::sync::frame::{HEADER_LEN, Transmit};
use crate::sync::graves::{Graves, MAX_GRAVES};
use crate::sync::message::{
    DigestRequest, DigestsHead, END, Filter, SNAPSHOT_HEAD_LEN, SlotRange, SnapshotHead,
    SnapshotRequest,
};
use crate::sync::queue::Body;
use crate::sync::record::{self, UPSERT_LEN};
use crate::table::{Change, SessionKey};
use crate::time::Time;

/// The first of the places of removals, which lie behind those of the table.
const FIRST_GRAVE: u32 = END - MAX_GRAVES as u32;
/// Parts of a table that are kept apart while what lies between them is missing.
const MAX_ISLANDS: usize = 64;
/// Bytes of snapshot that one request asks for: what sockets buffer by default, with some margin.
const REQUEST_BYTES: usize = 128 << 10;
/// Slots looked at for one frame, so that an empty table is not crossed in one go.
const SLOTS_PER_FRAME: usize = 1 << 16;
/// How long to wait for frames that were overtaken by the last one, ms.
const REORDER_MS: u64 = 10;
/// How long to wait for an answer, ms; doubles with every try.
const ANSWER_MS: u64 = 100;
/// Requests without any answer after which the peer is given up.
const MAX_TRIES: u32 = 8;

/// Slots of a peer's table that have arrived: disjoint ranges in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(Vec<SlotRange>);

impl Coverage {
    fn add(&mut self, range: SlotRange) {
        if range.from >= range.until {
            return;
        }
        let from = self.0.partition_point(|r| r.until < range.from);
        let until = self.0.partition_point(|r| r.from <= range.until);
        let touched = &self.0[from..until];
        if touched.is_empty() && self.0.len() >= MAX_ISLANDS {
            return;
        }
        let merged = SlotRange {
            from: touched.first().map_or(range.from, |r| r.from.min(range.from)),
            until: touched.last().map_or(range.until, |r| r.until.max(range.until)),
        };
        self.0.splice(from..until, [merged]);
    }

    fn holes(&self, limit: usize) -> Vec<SlotRange> {
        let starts = core::iter::once(0).chain(self.0.iter().map(|r| r.until));
        let ends = self.0.iter().map(|r| r.from).chain(core::iter::once(END));
        let holes = starts.zip(ends).map(|(from, until)| SlotRange { from, until });
        holes.filter(|r| r.from < r.until).take(limit).collect()
    }
}

/// What is fetched of a table. Outlives interruptions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The sessions that differ; None for all.
    filter: Option<Filter>,
    coverage: Coverage,
}

/// How far a fetch is.
#[derive(Debug)]
enum Stage {
    /// Finding out what to fetch.
    Comparing(Comparison),
    /// Fetching it.
    Taking,
}

/// A table that is being fetched.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// Whose.
    pub node: u16,
    /// When it began.
    pub started: Time,
    /// Sessions received.
    pub sessions: u64,
    /// Some of them were news.
    pub news: bool,
    /// When to ask again.
    pub ask_at: Time,
    /// It is time to ask.
    pub asking: bool,
    stage: Stage,
    /// Answers up to this request say nothing about what is missing now.
    stale: u32,
    tries: u32,
}

/// What to ask a peer for.
pub(crate) enum Question {
    Digests(DigestRequest),
    Snapshot(SnapshotRequest),
}

impl Fetch {
    /// Fetches what a plan says, or finds out what differs from our table first.
    pub fn new(node: u16, now: Time, id: u32, comparison: Option<Comparison>) -> Self {
        let stage = comparison.map_or(Stage::Taking, Stage::Comparing);
        let (ask_at, asking) = (now, true);
        Self {
            node,
            started: now,
            sessions: 0,
            news: false,
            ask_at,
            asking,
            stage,
            stale: id,
            tries: 0,
        }
    }

    /// The comparison, while it goes on.
    pub fn comparison(&mut self) -> Option<&mut Comparison> {
        match &mut self.stage {
            Stage::Comparing(comparison) => Some(comparison),
            Stage::Taking => None,
        }
    }

    /// What to ask for now; a snapshot is asked for with request `id`.
    pub fn question(&mut self, now: Time, id: u32, config: &SyncConfig, plan: &Plan) -> Question {
        self.asking = false;
        self.ask_at = now + (ANSWER_MS << self.tries.min(4));
        self.tries += 1;
        if let Stage::Comparing(Comparison { id, seed, .. }) = self.stage {
            return Question::Digests(DigestRequest { id, seed });
        }
        let frames = (REQUEST_BYTES / usize::from(config.max_frame)).clamp(4, 256) as u16;
        let ranges = plan.coverage.holes(SnapshotRequest::room(config.max_body()));
        Question::Snapshot(SnapshotRequest { id, frames, ranges, filter: plan.filter })
    }

    /// The time to ask again has come; false if the peer is to be given up.
    pub fn ask_again(&mut self) -> bool {
        self.asking = true;
        self.tries < MAX_TRIES
    }

    /// Some of the peer's digests are here.
    pub fn hear_digests(
        &mut self,
        now: Time,
        head: &DigestsHead,
        digests: impl Iterator<Item = u64>,
    ) {
        if let Stage::Comparing(comparison) = &mut self.stage {
            comparison.arrive(head, digests);
            self.tries = 0;
            self.ask_at = now + ANSWER_MS;
        }
    }

    /// If both tables' digests are known by now: the plan for what differs.
    pub fn conclude(&mut self) -> Option<Plan> {
        let filter = self.comparison()?.outcome()?;
        (self.stage, self.asking, self.tries) = (Stage::Taking, true, 0);
        let mut plan = Plan { filter: Some(filter), coverage: Coverage::default() };
        if filter.is_empty() {
            plan.coverage.add(SlotRange { from: 0, until: END });
        }
        Some(plan)
    }

    /// A part of the table is here, in answer to request `head.id` when the last was `id`.
    pub fn arrive(
        &mut self,
        now: Time,
        head: &SnapshotHead,
        id: u32,
        sessions: u16,
        plan: &mut Plan,
    ) {
        self.sessions += u64::from(sessions);
        if head.id <= self.stale || !matches!(self.stage, Stage::Taking) {
            return;
        }
        self.tries = 0;
        plan.coverage.add(head.covers);
        self.ask_at = now + ANSWER_MS;
        if head.last && head.id == id {
            // Holes before the end may just be frames on their way.
            if plan.coverage.0.len() == 1 {
                self.asking = true;
            } else {
                self.ask_at = now + REORDER_MS;
            }
        }
    }
}

impl Plan {
    /// Whether nothing more is missing.
    pub fn is_done(&self) -> bool {
        self.coverage.holes(1).is_empty()
    }
}

/// What a peer has asked for and not got yet.
#[derive(Debug)]
pub(crate) struct Serve {
    /// The peer.
    pub node: u16,
    id: u32,
    frames: u16,
    ranges: VecDeque<SlotRange>,
    filter: Option<Filter>,
}

impl Serve {
    /// None if nothing is asked for.
    pub fn new(node: u16, request: SnapshotRequest) -> Option<Self> {
        let ranges: VecDeque<_> =
            request.ranges.iter().copied().filter(|r| r.from < r.until).collect();
        if ranges.is_empty() || request.frames == 0 {
            return None;
        }
        let SnapshotRequest { id, frames, filter, .. } = request;
        Some(Self { node, id, frames, ranges, filter })
    }

    /// The next frame, and whether it is the last. The peer is told of removals since `since`.
    pub fn next_frame(
        &mut self,
        now: Time,
        max_body: usize,
        sessions: &impl Sessions,
        graves: &Graves,
        since: Time,
    ) -> Option<(Body, bool)> {
        let wants = |key: &SessionKey| self.filter.as_ref().is_none_or(|filter| filter.wants(key));
        let range = self.ranges.front_mut()?;
        let from = range.from;
        let mut buf = Transmit::buffer(max_body);
        buf.extend_from_slice(&[0; SNAPSHOT_HEAD_LEN]);
        let room = (max_body - SNAPSHOT_HEAD_LEN) / UPSERT_LEN;
        let (mut count, mut slots) = (0, SLOTS_PER_FRAME);
        while range.from < range.until && usize::from(count) < room && slots > 0 {
            if range.from >= FIRST_GRAVE {
                let Some(grave) = graves.at((range.from - FIRST_GRAVE) as usize, since) else {
                    range.from = END;
                    break;
                };
                // Who has the session knows better than to tell of its removal.
                if let Some((key, version)) = grave.filter(|(key, _)| wants(key))
                    && !sessions.has(&key)
                    && !Mutant::HidesRemovals.is_on()
                {
                    record::put(&mut buf, &Change::Remove(key, version));
                    count += 1;
                }
                range.from += 1;
                slots -= 1;
                continue;
            }
            // A slot holds a session at most, so the budget keeps the frame's size too.
            let wanted = (range.until.min(FIRST_GRAVE) - range.from) as usize;
            let budget = (room - usize::from(count)).min(wanted).min(slots);
            let next = sessions.scan(now, range.from, budget, &mut |record| {
                if !wants(&record.key) {
                    return;
                }
                if Mutant::ShortSnapshots.is_on() && range.from < 8 {
                    return;
                }
                record::put(&mut buf, &Change::Upsert(record));
                count += 1;
            });
            range.from = next.unwrap_or(FIRST_GRAVE).max(range.from);
            slots -= budget;
        }
        let covers = SlotRange { from, until: range.from };
        if range.from >= range.until || range.from == END {
            self.ranges.pop_front();
        }
        self.frames -= 1;
        let last = self.frames == 0 || self.ranges.is_empty();
        let head = SnapshotHead { id: self.id, covers, last };
        buf[HEADER_LEN..HEADER_LEN + SNAPSHOT_HEAD_LEN].copy_from_slice(&head.bytes());
        Some((Body { buf, count }, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn coverage_agrees_with_a_set(ranges in prop::collection::vec((0u32..60, 0u32..60), 0..40)) {
            let mut coverage = Coverage::default();
            let mut slots = [false; 60];
            for (from, until) in ranges {
                coverage.add(SlotRange { from, until });
                (from..until).for_each(|i| slots[i as usize] = true);
            }
            let holes = coverage.holes(usize::MAX);
            for (slot, &covered) in slots.iter().enumerate() {
                let hole = holes.iter().any(|r| (r.from..r.until).contains(&(slot as u32)));
                prop_assert_eq!(hole, !covered, "{}", slot);
            }
            for pair in coverage.0.windows(2) {
                prop_assert!(pair[0].until < pair[1].from);
            }
        }
    }

    #[test]
    fn islands_are_bounded() {
        let mut coverage = Coverage::default();
        for i in 0..1000 {
            coverage.add(SlotRange { from: 2 * i, until: 2 * i + 1 });
        }
        assert_eq!(coverage.0.len(), MAX_ISLANDS);
        coverage.add(SlotRange { from: 0, until: END });
        assert!(coverage.holes(1).is_empty());
    }
}
