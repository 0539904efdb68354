//! This node's part in the cluster: what comes in, what is due, what goes out.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::config::{Config, ConfigError};
use crate::mutant::Mutant;
use crate::stats::{Counter, Stats};
use crate::sync::Sessions;
use crate::sync::buckets::{Buckets, ServeDigests};
use crate::sync::bytes::Reader;
use crate::sync::config::SyncConfig;
use crate::sync::digest::Digests;
use crate::sync::durable::Durable;
use crate::sync::event::{Event, Events, Reason};
use crate::sync::frame::{FrameError, Kind, OpenFrame};
use crate::sync::graves::Graves;
use crate::sync::message::{
    self, Arrived, DigestRequest, DigestsHead, Greeting, Hello, SnapshotHead, SnapshotRequest,
};
use crate::sync::peer::{Candidate, Incarnation, Input, Peer, PeerStatus, Peers, State};
use crate::sync::pull::Pulls;
use crate::sync::queue::Outgoing;
use crate::sync::record;
use crate::sync::resync::{Fetch, Plan, Serve};
use crate::sync::schedule::JOIN_PATIENCE;
use crate::sync::sequence::Arrival;
use crate::table::{Change, Holding, Learned, SessionRecord};
use crate::time::Time;

/// The most peers that are kept apart.
pub const MAX_PEERS: usize = 256;

/// How long a missing update may have been overtaken rather than lost, ms.
const NACK_DELAY_MS: u64 = 10;
/// Sessions of a frame that are looked up together.
const TOGETHER: usize = 64;
/// How long a candidate keeps its place while HELLOs of another incarnation come, ms.
const CANDIDATE_MS: u64 = 1000;

/// Session synchronisation of one node.
#[derive(Debug)]
pub struct Sync {
    pub(super) config: SyncConfig,
    pub(super) digests: Digests,
    pub(super) secret: [u8; 32],
    /// Random numbers made so far.
    pub(super) randoms: u64,
    /// Number of the last frame.
    pub(super) seq: u64,
    pub(super) peers: Peers,
    pub(super) reason: Reason,
    pub(super) started: Option<Time>,
    /// Whose table came first, and until when the others' are waited for before this node is ready.
    pub(super) joined: Option<(u16, Time)>,
    pub(super) outgoing: Outgoing,
    pub(super) tracking: bool,
    pub(super) fetch: Option<Fetch>,
    /// Snapshot requests sent so far.
    pub(super) requests: u32,
    /// What peers have asked for, in turn.
    pub(super) serving: VecDeque<Serve>,
    /// Digests that peers have asked for.
    pub(super) digesting: Vec<ServeDigests>,
    /// When to go on with digests of our table.
    pub(super) work_at: Option<Time>,
    /// See [`Hello::generation`].
    pub(super) generation: u32,
    pub(super) graves: Graves,
    /// Somebody is up of whom this node was cut off: until when what came to be meanwhile is waited
    /// for.
    pub(super) cut_off: Option<Time>,
    /// pool4 has slices: several nodes translate at once.
    pub(super) slices: bool,
    /// Which packets wait.
    pub(super) holding: Holding,
    pub(super) durable: Durable,
    pub(super) pulls: Pulls,
    pub(super) hello_at: Time,
    pub(super) hello_sent: Option<Time>,
    /// When to tell, after the last update, that it was the last.
    pub(super) tail_at: Option<Time>,
    /// When something last happened here.
    pub(super) driven: Time,
    /// Since when a HELLO waits to be fetched.
    pub(super) hello_due: Option<Time>,
    /// The peer that the next HELLO greets first, when not all fit.
    pub(super) greet_from: u16,
    pub(super) leaving: bool,
    /// No frame comes or goes: it has said BYE,
    pub(super) gone: bool,
    /// or it doesn't take part yet.
    pub(super) apart: bool,
    pub(super) events: Events,
}

impl Sync {
    /// A node that begins to listen for peers.
    ///
    /// # Errors
    /// What [`SyncConfig::validate`] refuses.
    pub fn new(config: SyncConfig, nat64: &Config, secret: &[u8; 32]) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            digests: Digests::new(nat64),
            secret: *secret,
            randoms: 0,
            seq: 0,
            peers: Peers::default(),
            reason: Reason::Listening,
            started: None,
            joined: None,
            outgoing: Outgoing::new(),
            tracking: false,
            fetch: None,
            requests: 0,
            serving: VecDeque::new(),
            digesting: Vec::new(),
            work_at: None,
            generation: 0,
            graves: Graves::new(secret),
            cut_off: None,
            slices: has_slices(nat64),
            holding: Holding::default(),
            durable: Durable::default(),
            pulls: Pulls::default(),
            hello_at: Time::ZERO,
            hello_sent: None,
            tail_at: None,
            driven: Time::ZERO,
            hello_due: None,
            greet_from: 0,
            leaving: false,
            gone: false,
            apart: false,
            events: Events::default(),
            config,
        })
    }

    /// Takes note of another configuration. Each peer's next HELLO shows whether it has it too.
    pub fn reconfigured(&mut self, now: Time, nat64: &Config) {
        self.digests = Digests::new(nat64);
        self.slices = has_slices(nat64);
        self.hello_soon(now);
    }

    /// Why this node may become MASTER, or not.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The peer whose sessions are still missing after this node was cut off.
    pub fn catching_up(&self) -> Option<u16> {
        if Mutant::StaysInService.is_on() {
            return None;
        }
        let missed = |(_, known): &(u16, &Incarnation)| known.is_up() && known.is_behind();
        self.cut_off.and_then(|_| Some(self.peers.known().find(missed)?.0))
    }

    /// Every peer heard since the start, by number.
    pub fn peers(&self, now: Time) -> impl Iterator<Item = PeerStatus> + '_ {
        self.peers
            .all
            .iter()
            .filter_map(move |(&node, peer)| peer.status(node, now, self.outgoing.last))
    }

    /// The next thing worth a line in the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Keeps silent, and is not ready, until it is told to take part.
    pub fn stand_apart(&mut self) {
        self.apart = true;
    }

    /// Begins to listen for peers, if it hasn't.
    pub fn take_part(&mut self) {
        self.apart = false;
    }

    /// Whether no frame comes or goes.
    pub(super) fn is_silent(&self) -> bool {
        self.gone || self.apart
    }

    /// Flushes changes, then says BYE; nothing is sent after that.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.outgoing.flushing = self.tracking;
    }

    /// Counts bytes that were refused.
    pub fn refuse_frame(&mut self, now: Time, error: FrameError, stats: &mut Stats) {
        if let Some(counter) = error.counter() {
            stats.count(counter);
            self.events.refused(now, error);
        }
    }

    /// Takes an authentic frame; false if it isn't acted on.
    pub fn handle_frame(
        &mut self,
        now: Time,
        frame: &OpenFrame,
        sessions: &mut impl Sessions,
    ) -> bool {
        let header = &frame.header;
        if header.node == self.config.node {
            if header.epoch != self.config.epoch {
                sessions.stats().count(Counter::FrameOwnIdentity);
                self.events.own_identity(now, header.node, header.epoch);
            }
            return false;
        }
        if self.is_silent() {
            return false;
        }
        self.wake(now);
        let known = self.peers.known_mut(header.node);
        let taken = match known {
            Some(known) if known.epoch == header.epoch => {
                if known.state == State::Left || !known.window.accept(header.seq) {
                    sessions.stats().count(Counter::FrameReplayed);
                    return false;
                }
                self.known_frame(now, frame, sessions)
            }
            _ => self.candidate_frame(now, frame, sessions.stats()),
        };
        match taken {
            Ok(taken) => {
                if taken {
                    sessions.stats().count(Counter::FramesReceived);
                }
                self.settle(now, sessions);
                taken
            }
            Err(Malformed) => {
                sessions.stats().count(Counter::FrameMalformed);
                false
            }
        }
    }

    /// A frame of an incarnation that isn't believed in: only a HELLO that echoes our challenge
    /// changes that.
    fn candidate_frame(
        &mut self,
        now: Time,
        frame: &OpenFrame,
        stats: &mut Stats,
    ) -> Result<bool, Malformed> {
        let header = &frame.header;
        if header.kind != Kind::Hello {
            stats.count(Counter::FrameReplayed);
            return Ok(false);
        }
        let hello = Hello::take(&frame.body, header.count).ok_or(Malformed)?;
        if !self.peers.all.contains_key(&header.node) && !self.make_room(now) {
            self.events.too_many_peers(now, header.node);
            return Ok(false);
        }
        let greeting = self.greeting_to_us(&hello);
        let peer = self.peers.all.entry(header.node).or_default();
        let keep = peer
            .candidate
            .as_ref()
            .is_some_and(|c| c.epoch == header.epoch || now.millis_since(c.since) < CANDIDATE_MS);
        if !keep {
            self.randoms += 1;
            peer.candidate = Some(Candidate {
                epoch: header.epoch,
                since: now,
                heard: now,
                seq: 0,
                challenge: random(&self.secret, self.config.epoch, self.randoms),
                echo: 0,
            });
        }
        let Some(candidate) = peer.candidate.as_mut().filter(|c| c.epoch == header.epoch) else {
            return Ok(false);
        };
        if header.seq <= candidate.seq {
            stats.count(Counter::FrameReplayed);
            return Ok(false);
        }
        candidate.seq = header.seq;
        candidate.heard = now;
        // Not every HELLO has room for a greeting to us.
        candidate.echo = greeting.map_or(candidate.echo, |g| g.challenge);
        if greeting.is_none_or(|g| g.echo != candidate.challenge) {
            self.hello_soon(now);
            return Ok(true);
        }
        let restarted = peer.known.as_ref().is_some_and(|known| known.state.is_live());
        let incarnation = Incarnation::new(candidate, now, hello.last);
        let (node, epoch) = (header.node, header.epoch);
        *peer = Peer { known: Some(incarnation), candidate: None };
        self.met(now, node);
        self.forget_transfers(node);
        if restarted {
            self.events.push(Event::PeerRestarted { node, epoch });
            self.new_generation(now);
        } else {
            self.events.push(Event::PeerUp { node, epoch });
        }
        self.hello_soon(now);
        self.hello(now, node, &hello, true);
        Ok(true)
    }

    fn greeting_to_us(&self, hello: &Hello) -> Option<Greeting> {
        let to_us = |g: &&Greeting| g.node == self.config.node && g.epoch == self.config.epoch;
        hello.greetings.iter().find(to_us).copied()
    }

    /// Makes room for another peer; false if every place is taken by one that is alive.
    fn make_room(&mut self, now: Time) -> bool {
        if self.peers.all.len() < MAX_PEERS {
            return true;
        }
        let dead = self.peers.all.iter().filter_map(|(&node, peer)| {
            let known = peer.known.as_ref()?;
            (!known.state.is_live() && peer.candidate.is_none())
                .then_some((now.millis_since(known.heard), node))
        });
        match dead.max() {
            Some((_, node)) => self.peers.all.remove(&node).is_some(),
            None => false,
        }
    }

    /// A frame of a known incarnation, for the first time.
    fn known_frame(
        &mut self,
        now: Time,
        frame: &OpenFrame,
        sessions: &mut impl Sessions,
    ) -> Result<bool, Malformed> {
        let header = &frame.header;
        let node = header.node;
        let Some(known) = self.peers.known_mut(node) else {
            return Ok(false);
        };
        match header.kind {
            Kind::Hello => {
                let hello = Hello::take(&frame.body, header.count).ok_or(Malformed)?;
                known.heard = now;
                known.frames += 1;
                known.greeted &= known.state.is_live();
                if self.step(node, Input::Heard) {
                    self.met(now, node);
                    self.events.push(Event::PeerBack { node });
                    self.hello_soon(now);
                }
                self.hello(now, node, &hello, false);
                return Ok(true);
            }
            Kind::Bye => {
                known.frames += 1;
                if self.step(node, Input::Bye) {
                    self.events.push(Event::PeerLeft { node });
                    self.forget_transfers(node);
                    self.new_generation(now);
                }
                return Ok(true);
            }
            _ if !known.is_up() => return Ok(false),
            _ => {}
        }
        known.heard = now;
        known.frames += 1;
        let body = &frame.body;
        match header.kind {
            Kind::Update => {
                known.ack_due |= header.urgent;
                self.update(now, node, body, header.count, sessions)?;
            }
            Kind::Ack => {
                let ack = Arrived::take(body, header.count).ok_or(Malformed)?;
                // One that was overtaken has less to say.
                if header.seq > known.ack_seq {
                    (known.ack, known.ack_seq) = (ack, header.seq);
                    self.acknowledged(now, sessions);
                }
            }
            Kind::Pull => self.pull(now, node, body, header.count, sessions)?,
            Kind::Pulled => self.pulled(now, node, body, header.count, sessions)?,
            Kind::Nack => {
                let ranges = message::take_nack(body, header.count).ok_or(Malformed)?;
                known.wanted = ranges.into();
            }
            Kind::SnapshotRequest => {
                let request = SnapshotRequest::take(body, header.count).ok_or(Malformed)?;
                self.serving.retain(|serve| serve.node != node);
                self.serving.extend(Serve::new(node, request));
            }
            Kind::Snapshot => self.snapshot(now, node, body, header.count, sessions)?,
            Kind::DigestRequest => {
                let request = DigestRequest::take(body).ok_or(Malformed)?;
                self.digest_request(now, node, &request);
            }
            Kind::Digests => self.digests(now, node, body, header.count)?,
            Kind::Hello | Kind::Bye => {}
        }
        Ok(true)
    }

    /// A peer is up that wasn't: was it this node that was cut off, or the peer?
    fn met(&mut self, now: Time, node: u16) {
        let alone = !self.peers.known().any(|(other, known)| other != node && known.is_up());
        let known = self.peers.known_mut(node);
        let elsewhere = known.is_some_and(|known| core::mem::take(&mut known.elsewhere));
        if alone || elsewhere {
            self.cut_off = Some(now + u64::from(self.config.join_timeout) * JOIN_PATIENCE);
        }
    }

    /// Moves a peer's state; false if the input changes nothing.
    pub(super) fn step(&mut self, node: u16, input: Input) -> bool {
        let known = self.peers.known_mut(node);
        let Some((known, next)) = known.and_then(|k| k.state.next(input).map(|next| (k, next)))
        else {
            return false;
        };
        known.state = next;
        true
    }

    /// A HELLO of a believed incarnation; the `first` one is what made it so.
    fn hello(&mut self, now: Time, node: u16, hello: &Hello, first: bool) {
        let greeting = self.greeting_to_us(hello);
        let differs = self.digests.differs(&hello.digests, &self.config.allow_mismatch);
        let moved = self.step(node, if differs.is_some() { Input::Differs } else { Input::Agrees });
        let Some(known) = self.peers.known_mut(node) else {
            return;
        };
        if let Some(greeting) = greeting {
            known.echo = greeting.challenge;
            known.acknowledged = greeting.acknowledged.min(self.outgoing.last);
        }
        // A peer that is ready when we first meet has sessions that were never told to us; one that
        // becomes ready later may have got some where we couldn't hear.
        known.lacking |= hello.ready && !known.ready;
        known.ready = hello.ready;
        let news = !first && known.generation != hello.generation;
        known.generation = hello.generation;
        let is_up = known.is_up();
        if known.mismatch != differs {
            known.mismatch = differs;
            self.events.push(match differs {
                Some(field) => Event::Mismatch { node, field },
                None => Event::MismatchOver { node },
            });
        }
        if moved && differs.is_some() {
            return self.forget_transfers(node);
        }
        if is_up {
            self.look_for_lost(now, &hello.greetings);
        }
        if news {
            self.refetch(node);
        }
        let Some(known) = self.peers.known_mut(node) else { return };
        if known.is_up() && !known.incoming.told(hello.last, hello.oldest) {
            self.behind(node);
        } else {
            self.ask_for_missing(now, node);
        }
    }

    /// A peer greets whom it hears: are some of them Down here?
    fn look_for_lost(&mut self, now: Time, greetings: &[Greeting]) {
        // Whoever fell silent for all is greeted a little longer by who heard it last.
        let sure_ms = u64::from(self.config.dead_interval) + u64::from(self.config.hello_interval);
        for greeting in greetings {
            if let Some(lost) = self.peers.known_mut(greeting.node)
                && (lost.epoch, lost.state) == (greeting.epoch, State::Down)
                && now.millis_since(lost.heard) > sure_ms
            {
                lost.elsewhere = true;
            }
        }
    }

    /// Updates are lost for good: only the table makes up for them.
    pub(super) fn behind(&mut self, node: u16) {
        if let Some(known) = self.peers.known_mut(node) {
            known.incoming.forgive();
            if !known.lacking {
                self.events.push(Event::Behind { node });
            }
        }
        self.refetch(node);
    }

    /// A peer's table, as it is from now on, has to be fetched.
    fn refetch(&mut self, node: u16) {
        if let Some(known) = self.peers.known_mut(node) {
            known.lacking = true;
            known.plan = None;
        }
        // Settling begins anew.
        self.fetch = self.fetch.take().filter(|fetch| fetch.node != node);
    }

    /// Has every peer compare its table with ours, and fetch what it lacks.
    pub fn advertise(&mut self, now: Time) {
        self.new_generation(now);
    }

    /// Others may lack sessions that we have: they are told to compare.
    pub(super) fn new_generation(&mut self, now: Time) {
        self.generation = self.generation.wrapping_add(1);
        self.hello_soon(now);
    }

    fn ask_for_missing(&mut self, now: Time, node: u16) {
        if let Some(known) = self.peers.known_mut(node) {
            let incoming = &mut known.incoming;
            if !incoming.missing() {
                incoming.nack_at = None;
            } else if incoming.nack_at.is_none() {
                incoming.nack_at = Some(now + NACK_DELAY_MS);
            }
        }
    }

    fn update(
        &mut self,
        now: Time,
        node: u16,
        body: &[u8],
        count: u16,
        sessions: &mut impl Sessions,
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        let number = reader.u64().ok_or(Malformed)?;
        let Some(known) = self.peers.known_mut(node) else {
            return Ok(());
        };
        let (gaps, since) = (known.incoming.gaps, known.since);
        let arrival = known.incoming.arrive(number);
        sessions.stats().add(Counter::FrameGap, known.incoming.gaps - gaps);
        match arrival {
            // Perhaps it was only forgiven, and no snapshot has made up for it so far.
            Arrival::Duplicate => {}
            Arrival::TooFar => self.behind(node),
            Arrival::InOrder | Arrival::Late => self.ask_for_missing(now, node),
        }
        // Whoever was overtaken may be about sessions that are gone by now.
        let since = Some(since).filter(|_| arrival != Arrival::InOrder);
        self.apply(now, node, &mut reader, count, since, sessions)?;
        Ok(())
    }

    fn snapshot(
        &mut self,
        now: Time,
        node: u16,
        body: &[u8],
        count: u16,
        sessions: &mut impl Sessions,
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        let head = SnapshotHead::take(&mut reader).ok_or(Malformed)?;
        let fetch = self.fetch.as_mut().filter(|fetch| fetch.node == node);
        let known = self.peers.known_mut(node);
        let (Some(fetch), Some(known)) = (fetch, known) else { return Ok(()) };
        if let Some(plan) = &mut known.plan {
            fetch.arrive(now, &head, self.requests, count, plan);
        }
        let since = Some(known.since);
        let news = self.apply(now, node, &mut reader, count, since, sessions)?;
        if let Some(fetch) = &mut self.fetch {
            fetch.news |= news;
        }
        self.conclude(now);
        Ok(())
    }

    fn digests(&mut self, now: Time, node: u16, body: &[u8], count: u16) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        let head = DigestsHead::take(&mut reader).ok_or(Malformed)?;
        if let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.node == node) {
            fetch.hear_digests(now, &head, (0..count).map_while(|_| reader.u64()));
            self.conclude(now);
        }
        Ok(())
    }

    fn digest_request(&mut self, now: Time, node: u16, request: &DigestRequest) {
        let DigestRequest { id, seed } = *request;
        let repeated = self.digesting.iter_mut().find(|serve| serve.node == node && serve.id == id);
        if let Some(serve) = repeated {
            serve.next = 0;
            return;
        }
        self.digesting.retain(|serve| serve.node != node);
        self.digesting.push(ServeDigests { node, id, buckets: Buckets::new(seed), next: 0 });
        self.work_at = Some(now);
    }

    /// Goes on with a fetch that has got what it asked for.
    pub(super) fn conclude(&mut self, now: Time) {
        let Some(fetch) = &mut self.fetch else { return };
        let node = fetch.node;
        let Some(known) = self.peers.known_mut(node) else {
            return;
        };
        if let Some(plan) = fetch.conclude() {
            known.plan = Some(plan);
        }
        if !known.plan.as_ref().is_some_and(Plan::is_done) {
            return;
        }
        known.lacking = false;
        known.plan = None;
        let (sessions, ms) = (fetch.sessions, now.millis_since(fetch.started));
        let news = fetch.news;
        self.fetch = None;
        self.events.push(Event::SnapshotDone { node, sessions, ms });
        if !self.reason.ready() {
            let patience = u64::from(self.config.join_timeout) * JOIN_PATIENCE;
            self.joined.get_or_insert((node, now + patience));
        } else if news
            && self.peers.known().any(|(other, known)| other != node && known.state.is_live())
        {
            self.new_generation(now);
        }
    }

    /// Hands `count` changes that a peer told of to the table; true if any session was news. What
    /// may be old doesn't bring back what was removed since the peer is known: `since` is None for
    /// what isn't.
    pub(super) fn apply(
        &mut self,
        now: Time,
        node: u16,
        reader: &mut Reader<'_>,
        count: u16,
        since: Option<Time>,
        sessions: &mut impl Sessions,
    ) -> Result<bool, Malformed> {
        let (mut read, mut applied) = (0, false);
        let mut batch = Vec::with_capacity(TOGETHER);
        let mut result = Ok(());
        while read < u64::from(count) && result.is_ok() {
            // The misses of the caches overlap when many sessions are looked up at once.
            batch.clear();
            while read < u64::from(count) && batch.len() < TOGETHER {
                read += 1;
                let Some(change) = record::take(reader) else {
                    result = Err(Malformed);
                    break;
                };
                batch.push(change);
            }
            sessions.look_ahead(&batch);
            for change in &batch {
                match change {
                    Change::Upsert(session) => {
                        applied |= self.take(now, node, session, since, sessions);
                    }
                    Change::Remove(key, version) => {
                        if !Mutant::ForgetsRemovals.is_on() {
                            self.graves.bury(now, *key, *version);
                        }
                        sessions.unlearn(now, key, *version);
                    }
                }
            }
        }
        sessions.stats().add(Counter::RecordsReceived, read);
        result.map(|()| applied)
    }

    /// Hands a session to the table; true if it was news.
    fn take(
        &mut self,
        now: Time,
        node: u16,
        session: &SessionRecord,
        since: Option<Time>,
        sessions: &mut impl Sessions,
    ) -> bool {
        let removed = |since| self.graves.find(now, &session.key, session.version, since);
        if since.is_some_and(|since| removed(since).is_some()) && !Mutant::AppliesAnything.is_on() {
            return false;
        }
        let merge = sessions.learn(now, session);
        if merge.collided {
            self.peers.collided(node, merge.learned);
        }
        let applied = merge.learned == Learned::Applied;
        // A peer that tells of it only now has had a packet of it, and had not heard of the
        // removal. Nor may others that have heard of it by now know of the packet.
        if applied
            && since.is_none()
            && let Some(removed) = removed(Time::ZERO)
        {
            sessions.revive(&session.key, removed);
        }
        applied
    }

    pub(super) fn forget_transfers(&mut self, node: u16) {
        self.serving.retain(|serve| serve.node != node);
        self.digesting.retain(|serve| serve.node != node);
        if self.fetch.as_ref().is_some_and(|fetch| fetch.node == node) {
            self.fetch = None;
            self.events.push(Event::SnapshotFailed { node });
        }
        if let Some(known) = self.peers.known_mut(node) {
            known.wanted.clear();
            known.nack = false;
            known.incoming.nack_at = None;
        }
    }
}

fn has_slices(nat64: &Config) -> bool {
    nat64.pool4.iter().any(|entry| entry.node.is_some())
}

/// A body that contradicts itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Malformed;

/// A number that nobody can guess, and that is never 0.
pub(super) fn random(secret: &[u8; 32], epoch: u64, number: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"jsync random");
    hash.update(secret);
    hash.update(epoch.to_be_bytes());
    hash.update(number.to_be_bytes());
    let hash = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first).max(1)
}
