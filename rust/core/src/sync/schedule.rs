//! When this node does something of its own accord, and the frames that it then sends.

use alloc::vec::Vec;

use crate::mutant::Mutant;
use crate::stats::Counter;
use crate::sync::Sessions;
use crate::sync::buckets::{BUCKETS, Comparison, ServeDigests};
use crate::sync::config::Durability;
use crate::sync::event::{Event, Reason};
use crate::sync::frame::{Header, Kind, Transmit};
use crate::sync::member::{Sync, random};
use crate::sync::message::{self, DigestsHead, Greeting, Hello, MAX_NACK_RANGES};
use crate::sync::peer::{Incarnation, Input, State};
use crate::sync::queue::Body;
use crate::sync::resync::{Fetch, Plan, Question};
use crate::table::{Holding, SessionKey};
use crate::time::Time;

/// The least time between two HELLOs, ms: what happens in between shares one.
const HELLO_PAUSE_MS: u64 = 20;
/// How long after its last update a node says HELLO, ms: with its number, so that its loss is
/// noticed long before the next regular HELLO.
const TAIL_MS: u64 = 30;
/// A HELLO that nobody has fetched for so long, ms, says that who drives this node is busy, and
/// reads no frames either: the time until it is fetched is no peer's silence.
const DEAF_MS: u64 = 100;
/// So many times longer than usual others are waited for then: if frames can't leave at all, it isn't
/// business, and packets mustn't wait for an answer for ever.
const DEAF_PATIENCE: u64 = 10;
/// Slots of the table that digests are computed of at once.
const SLOTS_AT_ONCE: usize = 1 << 12;
/// Removals remembered at once that nobody is told of: more than one call makes.
const BURIED_AT_ONCE: usize = 1 << 10;
/// The least time between two NACKs, ms; doubles with every try.
const NACK_PAUSE_MS: u64 = 40;
/// NACKs without any answer after which the table is fetched instead.
const MAX_NACKS: u32 = 8;
/// How long a peer that stopped to answer is left alone, ms.
const FETCH_PAUSE_MS: u64 = 2000;
/// Nobody waits longer than this many times `join-timeout`: neither a node that starts, for peers
/// that are heard but not yet proven to be live, and for further tables once it has one, nor one
/// that was cut off, for what it missed.
pub(super) const JOIN_PATIENCE: u64 = 5;

/// When a wait for others that began at `from` is over: later if a HELLO of ours, due since then,
/// will have waited for so long that nobody may be listening.
fn wait_ends(from: Time, wait_ms: u64, hello_due: Option<Time>) -> Time {
    let at = from + wait_ms;
    match hello_due {
        Some(since) if at >= since + DEAF_MS => from + DEAF_PATIENCE * wait_ms,
        _ => at,
    }
}

impl Sync {
    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time, sessions: &mut impl Sessions) {
        if self.is_silent() {
            return;
        }
        self.wake(now);
        if now >= self.hello_at || self.tail_at.is_some_and(|at| now >= at) {
            self.hello_due.get_or_insert(now);
            self.tail_at = None;
            self.hello_at = now + u64::from(self.config.hello_interval);
        }
        if self.work_at.is_some_and(|at| now >= at) {
            self.compute_digests(now, sessions);
        }
        if self.outgoing.flush_at.is_some_and(|at| now >= at) {
            self.outgoing.flush_at = None;
            self.outgoing.flushing = true;
        }
        self.repeat_for_acks(now);
        self.watch_peers(now);
        if let Some(fetch) = &mut self.fetch
            && now >= fetch.ask_at
            && !fetch.asking
            && !fetch.ask_again()
        {
            let node = fetch.node;
            self.fetch = None;
            self.events.push(Event::SnapshotFailed { node });
            if let Some(known) = self.peers.known_mut(node) {
                known.fetch_at = now + FETCH_PAUSE_MS;
            }
        }
        self.settle(now, sessions);
    }

    /// Has this node been frozen, with its machine or alone? Whatever was due then is late, and what
    /// has come for it meanwhile isn't read yet.
    pub(super) fn wake(&mut self, now: Time) {
        let due = self.poll_timeout().map_or(now, |due| due.max(self.driven));
        self.driven = now;
        let asleep_ms = now.millis_since(due);
        if asleep_ms >= DEAF_MS {
            self.was_deaf(now, asleep_ms);
        }
    }

    /// For so long, until now, nobody has listened: what is waited for may take as much longer.
    fn was_deaf(&mut self, now: Time, deaf_ms: u64) {
        for peer in self.peers.all.values_mut() {
            let known = peer.known.as_mut().map(|known| &mut known.heard);
            let candidate = peer.candidate.as_mut().map(|candidate| &mut candidate.heard);
            for heard in known.into_iter().chain(candidate) {
                *heard = now.min(*heard + deaf_ms);
            }
        }
        self.started = self.started.map(|started| now.min(started + deaf_ms));
        self.joined = self.joined.map(|(node, until)| (node, until + deaf_ms));
        self.cut_off = self.cut_off.map(|until| until + deaf_ms);
    }

    /// When `handle_timeout` is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.is_silent() {
            return None;
        }
        let dead = u64::from(self.config.dead_interval);
        let peers = self.peers.all.values().flat_map(|peer| {
            let known = peer.known.as_ref().filter(|known| known.state.is_live());
            let fetch = known.filter(|k| k.is_fetchable() && self.fetch.is_none());
            let fetch = fetch.map(|k| k.fetch_at);
            let candidate = peer.candidate.as_ref().map(|c| c.heard + dead);
            let nack = known.filter(|k| k.is_up()).and_then(|k| k.incoming.nack_at);
            let silent = known.map(|k| wait_ends(k.heard, dead, self.hello_due));
            [silent, candidate, nack, fetch]
        });
        let fetch = self.fetch.as_ref().filter(|f| !f.asking).map(|f| f.ask_at);
        let joined = self.joined.map(|(_, until)| until).filter(|_| !self.reason.ready());
        let join = self.join_deadline().filter(|_| self.reason == Reason::Listening);
        let own = [
            Some(self.hello_at),
            self.tail_at,
            self.work_at,
            self.outgoing.flush_at,
            self.durable.next_due(),
            fetch,
            join,
            joined,
        ];
        peers.chain(own).flatten().min()
    }

    /// Whether `poll_transmit` may have something, short of asking it.
    pub fn transmit_pending(&self) -> bool {
        !self.is_silent()
            && (self.hello_due.is_some()
                || self.leaving
                || self.outgoing.flushing
                || self.outgoing.full
                || !self.serving.is_empty()
                || self.digesting.iter().any(|s| s.buckets.is_done() && s.next < BUCKETS)
                || self.fetch.as_ref().is_some_and(|fetch| fetch.asking)
                || self.pulls.pending()
                || !self.durable.repeat.is_empty()
                || self
                    .peers
                    .known()
                    .any(|(_, known)| known.nack || known.ack_due || !known.wanted.is_empty()))
    }

    /// Takes note that so many changes wait: they go when they fill a frame, or when the first of
    /// them has waited for the flush deadline.
    pub fn notice_changes(&mut self, now: Time, pending: usize) {
        let outgoing = &mut self.outgoing;
        if pending == 0 || !self.tracking {
            return;
        }
        outgoing.full = pending >= self.config.changes_per_update();
        if self.config.flush_deadline == 0 {
            outgoing.flushing = true;
        } else if !outgoing.flushing && outgoing.flush_at.is_none() {
            outgoing.flush_at = Some(now + u64::from(self.config.flush_deadline));
        }
    }

    /// Takes care of packets that the table holds: those whose session is to be told are told of
    /// at once, those that lack one are asked for.
    pub fn notice_held(&mut self, now: Time, sessions: &mut impl Sessions) {
        while let Some(query) = sessions.pop_query() {
            self.ask(now, query, sessions);
        }
        if self.has_unmarked(sessions) {
            self.outgoing.flushing = true;
        }
    }

    /// Remembers removals of which nobody is there to be told, a bounded number of them. What waits
    /// for the next call is told if somebody comes before it.
    pub fn bury_untold(&mut self, now: Time, sessions: &mut impl Sessions) {
        if self.tracking {
            return;
        }
        for (key, version) in core::iter::from_fn(|| sessions.pop_removal()).take(BURIED_AT_ONCE) {
            self.graves.bury(now, key, version);
        }
    }

    /// The next frame to send. What keeps the cluster together goes first, then news, then
    /// repetitions, then snapshots.
    pub fn poll_transmit(&mut self, now: Time, sessions: &mut impl Sessions) -> Option<Transmit> {
        if self.is_silent() {
            return None;
        }
        let transmit = self
            .hello_frame(now)
            .or_else(|| self.ack_frame())
            .or_else(|| self.nack_frame())
            .or_else(|| self.pull_frame())
            .or_else(|| self.pulled_frame())
            .or_else(|| self.request_frame(now))
            .or_else(|| self.update_frame(now, sessions))
            .or_else(|| self.repetition(now, sessions))
            .or_else(|| self.digests_frame())
            .or_else(|| self.snapshot_frame(now, sessions))
            .or_else(|| self.bye_frame())?;
        sessions.stats().count(Counter::FramesSent);
        Some(transmit)
    }

    /// A HELLO, as soon as the last one is not too recent.
    pub(super) fn hello_soon(&mut self, now: Time) {
        let at = self.hello_sent.map_or(now, |sent| now.max(sent + HELLO_PAUSE_MS));
        self.hello_at = self.hello_at.min(at);
    }

    /// Peers that fell silent, and what they were asked for in vain.
    fn watch_peers(&mut self, now: Time) {
        let dead = u64::from(self.config.dead_interval);
        self.peers.all.retain(|_, peer| {
            if peer.candidate.as_ref().is_some_and(|c| now.millis_since(c.heard) >= dead) {
                peer.candidate = None;
            }
            peer.known.is_some() || peer.candidate.is_some()
        });
        let hello_due = self.hello_due;
        let nodes: Vec<u16> = self.peers.known().map(|(node, _)| node).collect();
        for node in nodes {
            let Some(known) = self.peers.known_mut(node) else { continue };
            let silent_ms = now.millis_since(known.heard);
            let incoming = &mut known.incoming;
            let nack = known.state == State::Up && incoming.nack_at.is_some_and(|at| now >= at);
            let given_up = nack && incoming.tries >= MAX_NACKS;
            if nack && !given_up {
                known.nack = true;
                incoming.nack_at = Some(now + (NACK_PAUSE_MS << incoming.tries));
                incoming.tries += 1;
            }
            if now >= wait_ends(known.heard, dead, hello_due) && self.step(node, Input::Silent) {
                self.events.push(Event::PeerDown { node, silent_ms });
                self.forget_transfers(node);
                self.new_generation(now);
            } else if given_up {
                self.behind(node);
            }
        }
    }

    fn join_deadline(&self) -> Option<Time> {
        let started = self.started?;
        let timeout = u64::from(self.config.join_timeout);
        let unproven = self.peers.all.values().any(|peer| peer.candidate.is_some());
        let wait_ms = timeout * if unproven { JOIN_PATIENCE } else { 1 };
        Some(wait_ends(started, wait_ms, self.hello_due))
    }

    /// Decides what follows from what is known by now: whether changes are collected, whose table
    /// is fetched, whether this node is ready.
    pub(super) fn settle(&mut self, now: Time, sessions: &mut impl Sessions) {
        self.started.get_or_insert(now);
        let tracking = self.peers.known().any(|(_, known)| known.state == State::Up);
        if tracking != self.tracking {
            self.tracking = tracking;
            sessions.track_changes(tracking);
            self.bury_untold(now, sessions);
            // What changed while nobody was told: peers may have heard us all the while.
            if !tracking || self.reason.ready() {
                self.outgoing.interrupt();
            }
        }
        let holding = Holding {
            opener_ms: match self.config.durability {
                Durability::Sent | Durability::Acked if tracking && !self.leaving => {
                    self.config.acked_timeout
                }
                _ => 0,
            },
            stranger_ms: match self.config.pull.unwrap_or(self.slices) {
                true if tracking && !self.leaving => self.config.pull_timeout,
                _ => 0,
            },
        };
        if holding != self.holding {
            self.holding = holding;
            sessions.hold(holding);
            if holding.opener_ms == 0 {
                self.forget_openers(now, sessions);
            }
        }
        if self.fetch.is_none() {
            let due =
                |(_, known): &(u16, &Incarnation)| known.is_fetchable() && now >= known.fetch_at;
            // Whoever is ready has the most to give.
            let from = self.peers.known().filter(due).max_by_key(|(_, known)| known.ready);
            if let Some((node, _)) = from {
                self.requests += 1;
                self.randoms += 1;
                let (id, seed) =
                    (self.requests, random(&self.secret, self.config.epoch, self.randoms));
                // A node that starts has nothing to compare.
                let joining = !self.reason.ready() && self.joined.is_none();
                let mut comparison = None;
                if let Some(known) = self.peers.known_mut(node) {
                    known.refused = false;
                    if core::mem::take(&mut known.again) {
                        known.lacking = true;
                        known.plan = None;
                    }
                    if joining {
                        known.plan.get_or_insert_default();
                    } else if known.plan.is_none() {
                        comparison = Some(Comparison::new(id, seed));
                        self.work_at = Some(now);
                    }
                }
                self.events.push(match comparison {
                    Some(_) => Event::ComparisonStarted { node },
                    None => Event::SnapshotStarted { node },
                });
                self.fetch = Some(Fetch::new(node, now, id, comparison));
            }
        }
        if !self.reason.ready() {
            self.join(now);
        }
        // Who is heard but doesn't hear us gives nothing, and may not be able to take over itself.
        let until = self.cut_off.filter(|&until| now < until);
        self.cut_off = self.catching_up().and(until);
    }

    /// Not ready yet: is there still something to wait for?
    fn join(&mut self, now: Time) {
        let ready_peer = self.peers.known().find(|(_, known)| known.ready && known.state.is_live());
        self.reason = match (&self.fetch, ready_peer) {
            (Some(fetch), _) if Mutant::ReadyTooEarly.is_on() => {
                let reason = Reason::Fetched { node: fetch.node };
                return self.become_ready(now, reason);
            }
            (Some(fetch), _) => Reason::Fetching { node: fetch.node },
            (None, Some((node, Incarnation { mismatch: Some(field), .. }))) => {
                Reason::Differs { node, field: *field }
            }
            (None, Some((node, _))) => Reason::Fetching { node },
            (None, None) => Reason::Listening,
        };
        if let Some((node, until)) = self.joined {
            // Whose table it has may itself have just come back from where nobody heard it.
            let untaken = |known: &Incarnation| known.is_up() && known.ready && known.lacking;
            let mut others = self.peers.all.values();
            let waits = others
                .any(|peer| peer.candidate.is_some() || peer.known.as_ref().is_some_and(untaken));
            if !waits || now >= until {
                return self.become_ready(now, Reason::Fetched { node });
            }
        }
        let waited = self.join_deadline().is_some_and(|at| now >= at);
        if self.reason == Reason::Listening && waited {
            self.become_ready(now, Reason::Alone);
        }
    }

    pub(super) fn become_ready(&mut self, now: Time, reason: Reason) {
        self.reason = reason;
        self.events.push(Event::Ready { reason });
        self.hello_soon(now);
    }

    pub(super) fn frame(&mut self, kind: Kind, to: u16, body: Body) -> Transmit {
        self.seq += 1;
        let Body { buf, count } = body;
        let (node, epoch) = (self.config.node, self.config.epoch);
        let urgent = false;
        Transmit::new(Header { kind, node, to, epoch, seq: self.seq, count, urgent }, buf)
    }

    fn hello_frame(&mut self, now: Time) -> Option<Transmit> {
        let since = self.hello_due.take()?;
        self.hello_sent = Some(now);
        // Whatever came for us meanwhile will be read soon.
        let deaf_ms = now.millis_since(since);
        if deaf_ms >= DEAF_MS {
            self.was_deaf(now, deaf_ms);
        }
        let max_body = self.config.max_body();
        let mut greetings = Vec::new();
        for (&node, peer) in &mut self.peers.all {
            if let Some(known) = peer.known.as_mut().filter(|known| known.state.is_live()) {
                known.greeted = true;
                greetings.push(Greeting {
                    node,
                    epoch: known.epoch,
                    challenge: known.challenge,
                    echo: known.echo,
                    acknowledged: known.incoming.acknowledged(),
                });
            }
            if let Some(candidate) = &peer.candidate {
                greetings.push(Greeting {
                    node,
                    epoch: candidate.epoch,
                    challenge: candidate.challenge,
                    echo: candidate.echo,
                    acknowledged: 0,
                });
            }
        }
        let room = Hello::room(max_body);
        if greetings.len() > room {
            let first = greetings.partition_point(|g| g.node < self.greet_from);
            let first = if first == greetings.len() { 0 } else { first };
            greetings.rotate_left(first);
            self.greet_from = greetings[room].node;
            greetings.truncate(room);
        }
        let count = greetings.len() as u16;
        let hello = Hello {
            ready: self.reason.ready(),
            digests: self.digests,
            last: self.outgoing.last,
            oldest: self.outgoing.oldest(),
            generation: self.generation,
            greetings,
        };
        let mut buf = Transmit::buffer(max_body);
        hello.put(&mut buf);
        Some(self.frame(Kind::Hello, 0, Body { buf, count }))
    }

    fn nack_frame(&mut self) -> Option<Transmit> {
        let room = (self.config.max_body() / message::UPDATE_RANGE_LEN).min(MAX_NACK_RANGES);
        let node = self.peers.known().find(|(_, known)| known.nack)?.0;
        let known = self.peers.known_mut(node)?;
        known.nack = false;
        let ranges = known.incoming.missing_ranges(room);
        let mut buf = Transmit::buffer(ranges.len() * message::UPDATE_RANGE_LEN);
        message::put_nack(&mut buf, &ranges);
        let count = ranges.len() as u16;
        Some(self.frame(Kind::Nack, node, Body { buf, count }))
    }

    fn request_frame(&mut self, now: Time) -> Option<Transmit> {
        let fetch = self.fetch.as_mut().filter(|fetch| fetch.asking)?;
        let node = fetch.node;
        let no_plan = Plan::default();
        let plan = self.peers.all.get(&node)?.known.as_ref()?.plan.as_ref().unwrap_or(&no_plan);
        self.requests += 1;
        let mut buf = Transmit::buffer(self.config.max_body());
        match fetch.question(now, self.requests, &self.config, plan) {
            Question::Digests(request) => {
                request.put(&mut buf);
                Some(self.frame(Kind::DigestRequest, node, Body { buf, count: 0 }))
            }
            Question::Snapshot(request) => {
                request.put(&mut buf);
                let count = request.ranges.len() as u16;
                Some(self.frame(Kind::SnapshotRequest, node, Body { buf, count }))
            }
        }
    }

    /// Goes on with the digests of our table: first those that others wait for.
    fn compute_digests(&mut self, now: Time, sessions: &impl Sessions) {
        let others = self.digesting.iter_mut().map(|serve| &mut serve.buckets);
        let ours = self.fetch.as_mut().and_then(Fetch::comparison).map(|c| &mut c.ours);
        let mut undone = others.chain(ours).filter(|buckets| !buckets.is_done());
        let Some(buckets) = undone.next() else {
            self.work_at = None;
            return;
        };
        buckets.advance(now, SLOTS_AT_ONCE, sessions);
        // A millisecond later, so that packets get their turn in between.
        self.work_at = Some(now + 1);
        drop(undone);
        self.conclude(now);
    }

    fn digests_frame(&mut self) -> Option<Transmit> {
        let ready = |serve: &&mut ServeDigests| serve.buckets.is_done() && serve.next < BUCKETS;
        let serve = self.digesting.iter_mut().find(ready)?;
        let max_body = self.config.max_body();
        let mut buf = Transmit::buffer(max_body);
        DigestsHead { id: serve.id, first: serve.next as u16 }.put(&mut buf);
        let part = serve.buckets.part(serve.next, DigestsHead::room(max_body));
        part.iter().for_each(|digest| buf.extend_from_slice(&digest.to_be_bytes()));
        let (node, count) = (serve.node, part.len() as u16);
        serve.next += part.len();
        Some(self.frame(Kind::Digests, node, Body { buf, count }))
    }

    fn update_frame(&mut self, now: Time, sessions: &mut impl Sessions) -> Option<Transmit> {
        let room = self.config.changes_per_update();
        let graves = &mut self.graves;
        // What is on its way here may still have what we have just removed.
        let bury = |key: &SessionKey, version| graves.bury(now, *key, version);
        let body = self.outgoing.next_update(now, room, sessions, bury);
        let urgent = self.has_unmarked(sessions);
        if body.is_some() && urgent {
            self.durable.first.get_or_insert(self.outgoing.last);
        }
        let frame = body.map(|body| {
            sessions.stats().add(Counter::UpdatesSent, body.count.into());
            self.tail_at = Some(now + TAIL_MS);
            let urgent = urgent && self.config.durability == Durability::Acked;
            self.frame(Kind::Update, 0, body).urgent(urgent)
        });
        if !self.outgoing.flushing {
            self.mark_openers(now, sessions);
        }
        frame
    }

    fn repetition(&mut self, now: Time, sessions: &mut impl Sessions) -> Option<Transmit> {
        while let Some((to, number)) = self.durable.repeat.pop_front() {
            let Some(body) = self.outgoing.kept(number) else { continue };
            sessions.stats().add(Counter::UpdatesSent, body.count.into());
            return Some(self.frame(Kind::Update, to, body).urgent(true));
        }
        let node = self.peers.known().find(|(_, known)| !known.wanted.is_empty())?.0;
        let known = self.peers.known_mut(node)?;
        match self.outgoing.repeat(&mut known.wanted)? {
            Some(body) => {
                sessions.stats().add(Counter::UpdatesSent, body.count.into());
                let urgent = self.durable.waits() && self.config.durability == Durability::Acked;
                Some(self.frame(Kind::Update, node, body).urgent(urgent))
            }
            None => {
                // The next HELLO tells what can still be had.
                self.hello_soon(now);
                None
            }
        }
    }

    fn snapshot_frame(&mut self, now: Time, sessions: &mut impl Sessions) -> Option<Transmit> {
        let mut serve = self.serving.pop_front()?;
        let node = serve.node;
        let since = self.peers.known_mut(node)?.since;
        let max_body = self.config.max_body();
        let (body, last) = serve.next_frame(now, max_body, sessions, &self.graves, since)?;
        if !last {
            self.serving.push_back(serve);
        }
        sessions.stats().add(Counter::SnapshotSent, body.count.into());
        Some(self.frame(Kind::Snapshot, node, body))
    }

    fn bye_frame(&mut self) -> Option<Transmit> {
        if !self.leaving || self.outgoing.flushing {
            return None;
        }
        self.gone = true;
        Some(self.frame(Kind::Bye, 0, Body { buf: Transmit::buffer(0), count: 0 }))
    }
}
