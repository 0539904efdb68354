//! Random schedules: what may happen to a cluster happens to it, and what must hold is looked at
//! all the while and once the network is quiet again. What chance doesn't lead to is written down:
//! see [`Script`].
//!
//! What must hold:
//!
//! 1. Soon after everything works again and no packet flows, every node is ready and all tables
//!    are equal: the same sessions in the same states.
//! 2. A session that a node has when another one crashes stays in that node's table.
//! 3. All is bounded: what a node says at once, the size of its frames, its table; a quiet network
//!    is quiet, and nothing waits to be told. Sessions whose time is over are gone everywhere.
//! 4. Nobody becomes MASTER who isn't ready; with networks that lose nothing, nobody becomes
//!    MASTER or ready who lacks a session that a running node had a second ago (unless its cables
//!    were out within that second; a MASTER's, and the one before it died in that second too; or
//!    its daemon hung, which its keepalived didn't know).
//! 5. A node that was told of a removal never again has the session as it was before. (A packet
//!    that refreshed it elsewhere at the same time prevails.)
//! 6. Two mappings never have one transport address of pool4: not in a table; and where all can
//!    hear each other, not in two tables for longer than news take.
//! 7. With networks that lose nothing, a copy doesn't end before its original. (A packet in the
//!    last moment of a session may come to one node when the session has just ended at another:
//!    there it is back as soon as news take.)
//! 8. No packet comes out of a translator with a wrong length or checksum, no byte of a flow is
//!    ever wrong.

mod script;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jsync_core::mutant::{self, Mutant};
use jsync_core::sync::Durability;
use jsync_core::table::{SessionKey, SessionRecord, State as Session};
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};

use crate::clock::{Micros, millis, seconds};
use crate::cluster::{Cluster, LogLine, N4, N6, POOL4, STATIC_PORTS, Setup, Side, Table, slices};
use crate::flow::Pace;
use crate::machine::{Machine, newer};
use crate::network::Link;
use crate::rng::Rng;
use crate::tcp::State;
use crate::vrrp::Role;

pub use script::Script;

const TCP_PORT: u16 = 7001;
const UDP_PORT: u16 = 7000;
const PACE: Pace = Pace { interval: millis(200), chunk: 100 };
/// A timeout of pings that is longer than a schedule, in ms.
const LONG_PING_MS: u64 = 60_000;
/// How often the invariants are looked at.
const LOOK: Micros = millis(100);
/// The same while a session is followed.
const LOOK_CLOSELY: Micros = millis(1);
/// How long news may take in a network that loses nothing.
const NEWS: Micros = seconds(1);

/// How a schedule went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it was, in a line.
    pub plan: String,
    /// What didn't hold.
    pub violations: Vec<String>,
    /// What happened.
    pub log: Vec<LogLine>,
}

/// What a schedule may do.
#[derive(Clone, Debug)]
struct Plan {
    nodes: usize,
    length: Micros,
    /// What every link is like at first.
    link: Link,
    /// Whether frames get lost, overtaken for long, or cut off.
    lossy: bool,
    crashes: bool,
    /// Whether daemons are stopped in their tracks for a while.
    freezes: bool,
    /// Whether routers may be unable to hear each other, so that several are MASTER.
    split_brain: bool,
    /// How many of 1000 packets of hosts get lost.
    packet_loss: u32,
    icmp_timeout: u32,
    flush_deadline: u32,
    max_frame: u16,
    hello_interval: u32,
    /// Whether to wait until every session's time is over.
    drain: bool,
    /// Whether routers spread packets over all nodes by chance, each of which has a slice of pool4;
    /// and when the packet that makes a session leaves then, and whether peers are asked for
    /// sessions.
    spread: Option<(Durability, bool)>,
}

impl Plan {
    fn draw(rng: &mut Rng) -> Self {
        let pick = |rng: &mut Rng, list: &[u64]| list[rng.index(list.len())];
        let lossy = rng.chance(700);
        let mut link = Link::good();
        if lossy {
            link.delay = 50..=pick(rng, &[100, 1000, 20_000, 200_000]);
            let loss = pick(rng, &[0, 50, 200, 500]);
            link.loss = rng.below(loss + 1) as u32;
            let duplicate = pick(rng, &[0, 0, 300]);
            link.duplicate = rng.below(duplicate + 1) as u32;
            let corrupt = pick(rng, &[0, 0, 50]);
            link.corrupt = rng.below(corrupt + 1) as u32;
        }
        let drain = rng.chance(20);
        let kinds = [Durability::Async, Durability::Sent, Durability::Acked]
            .map(|d| [(d, false), (d, true)]);
        let spread = rng.chance(200).then(|| kinds[rng.index(3)][rng.index(2)]);
        Self {
            spread,
            nodes: pick(rng, &[2, 2, 3, 3, 3, 4, 5, 8]) as usize,
            length: seconds(rng.within(&(3..=20))),
            link,
            lossy,
            crashes: rng.chance(800),
            freezes: rng.chance(300),
            split_brain: rng.chance(200),
            packet_loss: pick(rng, &[0, 0, 20, 200]) as u32,
            icmp_timeout: pick(rng, &[500, 3000, LONG_PING_MS]) as u32,
            flush_deadline: pick(rng, &[0, 5, 5, 50]) as u32,
            max_frame: pick(rng, &[300, 600, 1400, 1400, 9000]) as u16,
            hello_interval: if drain { 20_000 } else { pick(rng, &[100, 500, 500]) as u32 },
            drain,
        }
    }

    fn setup(&self, seed: u64) -> Setup {
        let mut setup = Setup { skewed: true, serves: PACE, ..Setup::new(self.nodes, seed) };
        setup.nat64.max_sessions = 1024;
        if let Some((durability, pull)) = self.spread {
            setup.ecmp = true;
            setup.nat64.node = setup.sync.node;
            setup.nat64.pool4 = slices(self.nodes);
            setup.sync.durability = durability;
            setup.sync.pull = Some(pull);
        }
        setup.nat64.global.icmp_timeout = self.icmp_timeout;
        setup.sync.flush_deadline = self.flush_deadline;
        setup.sync.max_frame = self.max_frame;
        setup.sync.hello_interval = self.hello_interval;
        setup.sync.dead_interval = 3 * self.hello_interval;
        setup.sync.join_timeout = 4 * self.hello_interval;
        setup
    }
}

/// Plays the schedule of `seed`. What becomes of sessions that contain the text `follow` (such as
/// `tcp 2001:db8::8#20001`) is written into the log.
pub fn play(seed: u64, follow: Option<&str>) -> Outcome {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(&mut rng);
    let mut player = Player::new(plan, rng);
    player.follow = follow.map(str::to_string);
    player.play();
    player.outcome()
}

/// What shows a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catch {
    /// The random schedule of a seed.
    Seed(u64),
    /// One of those that are written down.
    Script(Script),
}

impl fmt::Display for Catch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed(seed) => write!(f, "seed {seed}"),
            Self::Script(script) => write!(f, "script {script}"),
        }
    }
}

/// What shows that the code has this fault: the script that is meant for it, if there is one, else
/// the first of the seeds below `limit`.
pub fn catches(mutant: Mutant, limit: u64) -> Option<Catch> {
    mutant::with(mutant, || match Script::meant_for(mutant) {
        Some(script) => (!script.play(None).violations.is_empty()).then_some(Catch::Script(script)),
        None => {
            let violates = |&seed: &u64| !play(seed, None).violations.is_empty();
            (0..limit).find(violates).map(Catch::Seed)
        }
    })
}

/// The daemons that ran at a moment.
type Sample = Vec<Option<Seen>>;

/// A daemon at a moment.
#[derive(Clone)]
struct Seen {
    /// The number of its start.
    boots: u32,
    /// Whether others could hear it.
    plugged: bool,
    /// Whether it was stopped in its tracks.
    frozen: bool,
    ready: bool,
    table: Table,
}

/// An IPv6 node's transport address and its mask.
type Mapping = (Proto, Endpoint6, Endpoint4);

struct Player {
    plan: Plan,
    cluster: Cluster,
    rng: Rng,
    samples: VecDeque<(Micros, Sample)>,
    /// What machines had when another one crashed: machine, number of its start, sessions.
    told: Vec<(usize, u32, Vec<SessionKey>)>,
    /// Nodes may have been MASTER without hearing of each other.
    apart: bool,
    /// When a machine last left, in whatever way.
    last_death: Micros,
    next_port: u16,
    violations: Vec<String>,
    /// Every mapping that was seen in any table.
    mappings: BTreeSet<Mapping>,
    follow: Option<String>,
}

impl Player {
    fn new(plan: Plan, mut rng: Rng) -> Self {
        let setup = plan.setup(rng.next_u64());
        let mut cluster = Cluster::new(&setup).expect("every plan is a valid configuration");
        cluster.network.links().for_each(|link| *link = plan.link.clone());
        cluster.packet_loss = plan.packet_loss;
        cluster.on_host(Side::Four, |host, _| host.listen(TCP_PORT));
        cluster.on_host(Side::Six, |host, _| {
            STATIC_PORTS.iter().for_each(|&(_, port6)| host.listen(port6));
        });
        Self {
            // Each has its slice, but any of them may be the first to see a flow.
            apart: plan.spread.is_some(),
            plan,
            cluster,
            rng,
            samples: VecDeque::new(),
            told: Vec::new(),
            last_death: 0,
            next_port: 20_000,
            violations: Vec::new(),
            mappings: BTreeSet::new(),
            follow: None,
        }
    }

    fn outcome(self) -> Outcome {
        let plan = format!("{:?}", self.plan);
        let mut violations = self.violations;
        violations.extend(self.cluster.violations);
        Outcome { plan, violations, log: self.cluster.log }
    }

    fn play(&mut self) {
        let plan = self.plan.clone();
        for machine in 0..plan.nodes {
            self.start(machine);
            let pause = self.rng.below(millis(300));
            self.run(pause);
        }
        let end = self.cluster.now() + plan.length;
        while self.cluster.now() < end && self.holds() {
            let pause = self.rng.below(millis(250));
            self.run(pause);
            self.something_happens();
        }
        self.end();
    }

    /// All is well again, and no packet flows: what must hold then?
    fn end(&mut self) {
        self.heal();
        self.run(seconds(2));
        self.silence();
        if !self.holds() {
            return;
        }
        self.check_equal();
        self.check_quiet();
        if self.plan.drain {
            self.check_drained();
        } else {
            self.check_told();
        }
        self.check_hosts();
    }

    fn something_happens(&mut self) {
        let machine = self.rng.index(self.plan.nodes);
        let other = (machine + 1 + self.rng.index(self.plan.nodes - 1)) % self.plan.nodes;
        let runs = self.cluster.machines()[machine].runs();
        let cut = self.rng.chance(400);
        let action = self.rng.below(103);
        if (55..62).contains(&action) || (72..75).contains(&action) {
            self.last_death = self.cluster.now();
        }
        match action {
            0..55 => self.traffic(),
            55..60 if self.plan.crashes && runs => self.crash(machine),
            60..62 if self.plan.crashes && runs => self.cluster.stop(machine),
            55..72 => self.start(machine),
            72..75 if self.plan.crashes => {
                self.apart = true;
                self.cluster.unplug(machine);
            }
            75..80 => self.cluster.plug_in(machine),
            80..85 if self.plan.lossy => self.cluster.network.link(machine, other).cut = cut,
            85..88 if self.plan.lossy => self.cluster.network.cut(machine, other, cut),
            88..92 if self.plan.lossy => {
                let loss = self.rng.below(501) as u32;
                self.cluster.network.link(machine, other).loss = loss;
            }
            92..93 if self.plan.lossy => {
                let pause = [0, millis(5), millis(50), seconds(1)][self.rng.index(4)];
                self.cluster.set_reading(machine, pause);
            }
            93..95 if self.plan.split_brain => self.cluster.lan.cut(machine, other, cut),
            95..100 => self.replay(machine),
            100 if self.plan.lossy => self.cluster.set_stuck(machine, cut),
            101..103 if self.plan.freezes && runs => {
                self.apart = true;
                self.last_death = self.cluster.now();
                let time = [millis(500), seconds(3), seconds(10), seconds(12)];
                self.cluster.freeze(machine, time[self.rng.index(4)]);
            }
            _ => {}
        }
    }

    /// An attacker sends again what was recorded.
    fn replay(&mut self, machine: usize) {
        let recorded = &self.cluster.network.recorded;
        if !recorded.is_empty() {
            let frame = recorded[self.rng.index(recorded.len())].clone();
            self.cluster.inject(machine, frame);
        }
    }

    fn traffic(&mut self) {
        let n4_in_pool6 = IpAddr::V6(Setup::new(1, 0).nat64.pool6.embed(N4));
        let port = self.next_port;
        let from = |addr: IpAddr| SocketAddr::new(addr, port);
        self.next_port += 1;
        let static_port = STATIC_PORTS[self.rng.index(STATIC_PORTS.len())].0;
        let (six, four) = (IpAddr::from(N6), IpAddr::from(N4));
        let remote = |port| SocketAddr::new(n4_in_pool6, port);
        match self.rng.below(10) {
            0..3 => {
                self.cluster.on_host(Side::Six, |host, now| {
                    host.connect(now, from(six), remote(TCP_PORT), PACE);
                });
            }
            3 => {
                let remote = SocketAddr::new(POOL4.into(), static_port);
                self.cluster.on_host(Side::Four, |host, now| {
                    host.connect(now, from(four), remote, PACE);
                });
            }
            4 => {
                self.cluster.on_host(Side::Six, |host, now| {
                    host.open_udp(now, from(six), remote(UDP_PORT), PACE);
                });
            }
            5 => {
                let pace =
                    Pace { interval: self.rng.within(&(millis(100)..=seconds(5))), chunk: 40 };
                self.cluster.on_host(Side::Six, |host, now| {
                    host.ping(now, six, n4_in_pool6, port, pace);
                });
            }
            action => {
                let side = if self.rng.chance(500) { Side::Six } else { Side::Four };
                let open = self.cluster.host(side).tcp().iter();
                let open = open.filter(|tcp| tcp.state() == State::Established);
                let keys: Vec<_> = open.filter_map(|tcp| tcp.key).collect();
                if !keys.is_empty() {
                    let key = keys[self.rng.index(keys.len())];
                    self.cluster.on_host(side, |host, now| match action {
                        6 => host.abort(key),
                        7 => host.close(now, key),
                        _ => host.stop_requests(),
                    });
                }
            }
        }
    }

    fn start(&mut self, machine: usize) {
        if !self.cluster.machines()[machine].runs() {
            self.cluster.start(machine).expect("every plan is a valid configuration");
        }
    }

    fn crash(&mut self, machine: usize) {
        for (index, other) in self.cluster.machines().iter().enumerate() {
            if index != machine && other.runs() {
                let lasting = |key: &SessionKey| key.proto != Proto::Icmp;
                let keys = self.cluster.table(index).into_keys().filter(lasting).collect();
                self.told.push((index, other.boots, keys));
            }
        }
        self.cluster.kill(machine);
    }

    fn heal(&mut self) {
        self.cluster.packet_loss = 0;
        self.cluster.network.links().for_each(|link| *link = Link::good());
        self.cluster.lan.links().for_each(|link| *link = Link::good());
        for machine in 0..self.plan.nodes {
            self.cluster.set_reading(machine, 0);
            self.cluster.thaw(machine);
            self.cluster.set_stuck(machine, false);
            self.cluster.plug_in(machine);
            self.start(machine);
        }
    }

    /// No more packets; time for the nodes to come to terms, and for pings' sessions to end.
    fn silence(&mut self) {
        self.cluster.packet_loss = 1000;
        for side in [Side::Six, Side::Four] {
            self.cluster.on_host(side, |host, _| host.pause());
        }
        let hellos = 20 * u64::from(self.plan.hello_interval);
        let pings = match u64::from(self.plan.icmp_timeout) {
            // None has ended yet, and none will until all is over.
            LONG_PING_MS => 0,
            timeout => 2 * timeout,
        };
        self.run(millis(hellos.max(pings)) + seconds(5));
    }

    /// Lets time pass, and looks.
    fn run(&mut self, time: Micros) {
        let end = self.cluster.now() + time;
        while self.cluster.now() < end && self.holds() {
            let look = if self.follow.is_some() { LOOK_CLOSELY } else { LOOK };
            let until = end.min(self.cluster.now() - self.cluster.now() % look + look);
            self.cluster.run_until(until);
            self.apart |= self.cluster.current_masters().len() > 1;
            if until.is_multiple_of(look) {
                self.look();
            }
        }
    }

    fn look(&mut self) {
        let machines = self.cluster.machines().iter().enumerate();
        let sample: Sample = machines
            .map(|(index, machine)| {
                machine.runs().then(|| Seen {
                    boots: machine.boots,
                    plugged: machine.plugged && !machine.is_frozen(),
                    frozen: machine.is_frozen(),
                    ready: machine.ready() && !machine.is_frozen(),
                    table: self.cluster.table(index),
                })
            })
            .collect();
        self.follow(&sample);
        let keys = sample.iter().flatten().flat_map(|seen| seen.table.keys());
        self.mappings.extend(keys.map(|key| (key.proto, key.src6, key.src4)));
        self.check_removals(&sample);
        self.check_size(&sample);
        self.check_masters(&sample);
        self.check_ports(&sample);
        self.check_copies(&sample);
        self.samples.push_back((self.cluster.now(), sample));
        while self.samples.front().is_some_and(|(at, _)| at + NEWS < self.cluster.now()) {
            self.samples.pop_front();
        }
    }

    fn follow(&mut self, sample: &Sample) {
        let Some(text) = &self.follow else { return };
        let earlier = self.samples.back().map(|(_, sample)| sample);
        for (machine, now) in sample.iter().enumerate() {
            let then = earlier.and_then(|sample| sample[machine].as_ref());
            let then = then.map(|seen| &seen.table);
            let keys = now.iter().map(|seen| &seen.table).chain(then).flat_map(Table::keys);
            let keys: BTreeSet<_> = keys.filter(|key| show(key).contains(text)).collect();
            for key in keys {
                let of = |table: Option<&Table>| {
                    table.and_then(|table| table.get(key)).map(|r| (r.state, r.version))
                };
                let (then, now) = (of(then), of(now.as_ref().map(|seen| &seen.table)));
                if then != now {
                    let text = format!("{}: {then:?} -> {now:?}", show(key));
                    self.cluster.log.push(LogLine { at: self.cluster.now(), machine, text });
                }
            }
        }
    }

    /// Invariant 5.
    fn check_removals(&mut self, sample: &Sample) {
        let mut wrong = Vec::new();
        for (machine, Seen { table, .. }) in
            self.cluster.machines().iter().zip(sample).filter_map(present)
        {
            for (key, removed) in &machine.removals {
                if let Some(record) = table.get(key).filter(|r| newer(*removed, r.version)) {
                    wrong.push(format!(
                        "{} was told that {} is removed at version {removed}, and has version {}",
                        machine.name(),
                        show(key),
                        record.version
                    ));
                }
            }
        }
        wrong.into_iter().for_each(|text| self.violation(&text));
    }

    /// Invariant 3, of tables.
    fn check_size(&mut self, sample: &Sample) {
        let most = Setup::new(1, 0).nat64.max_sessions as usize;
        if sample.iter().flatten().any(|seen| seen.table.len() > most) {
            self.violation("a table has more than max-sessions");
        }
        // A session stands in the list of changes once. One that ended before it was told leaves
        // its place there until the list is twice as long as the table, and its removal waits too.
        if let Some(waiting) = self.most_waiting().filter(|&waiting| waiting > 4 * most) {
            self.violation(&format!("{waiting} changes wait to be told"));
        }
    }

    /// How many changes wait to be told at the node where most do; None if nowhere any.
    fn most_waiting(&self) -> Option<usize> {
        let nodes = self.cluster.machines().iter().filter_map(Machine::node);
        nodes.map(|node| node.nat64().changes_pending()).max().filter(|&waiting| waiting > 0)
    }

    /// Invariant 4.
    fn check_masters(&mut self, sample: &Sample) {
        let new = std::mem::take(&mut self.cluster.takeovers);
        if self.plan.lossy || self.plan.split_brain || new.is_empty() {
            return;
        }
        let Some((at, earlier)) = self.samples.front().cloned() else { return };
        if at + NEWS > self.cluster.now() + LOOK {
            return;
        }
        for (machine, role, table) in new {
            // Who was plugged in a moment ago learns what it missed, unless the MASTER dies now; as
            // long as it is cut off, it is ready without, as is who starts there.
            let cut = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| !seen.plugged);
            let frozen = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.frozen);
            let was = |cut: &dyn Fn(&Sample) -> bool| {
                cut(sample) || self.samples.iter().any(|(_, then)| cut(then))
            };
            let excused = match role {
                // keepalived learns only after a while that a daemon doesn't answer.
                Role::Master if was(&|sample| frozen(&sample[machine])) => true,
                Role::Master => {
                    self.last_death + NEWS > self.cluster.now()
                        && was(&|sample| cut(&sample[machine]))
                }
                _ => was(&|sample| cut(&sample[machine])),
            };
            if excused {
                continue;
            }
            let had = (0..self.plan.nodes).filter_map(|other| {
                let (now, then) = (sample[other].as_ref()?, earlier[other].as_ref()?);
                // What a daemon had a second ago and still has, if others could hear of it all the
                // while; pings' sessions come and go.
                if was(&|sample| cut(&sample[other])) || now.boots != then.boots {
                    return None;
                }
                let lasting = |key: &&SessionKey| key.proto != Proto::Icmp;
                let kept = |key: &&SessionKey| now.table.contains_key(*key);
                Some(then.table.keys().filter(lasting).filter(kept))
            });
            let lacking = had.flatten().find(|key| !table.contains_key(key));
            if let Some(key) = lacking.map(show) {
                let name = self.cluster.machines()[machine].name();
                self.violation(&format!("{name} is ready or MASTER and lacks {key}"));
            }
        }
    }

    /// Invariant 6.
    fn check_ports(&mut self, sample: &Sample) {
        for seen in sample.iter().flatten() {
            if let Some(port) = shared_ports([&seen.table]).first() {
                self.violation(&format!("two nodes have {port:?} in one table"));
            }
        }
        let earlier = self.samples.front().filter(|(at, _)| at + NEWS <= self.cluster.now() + LOOK);
        if self.plan.lossy || self.apart || earlier.is_none() {
            return;
        }
        let shared = |sample: &Sample| shared_ports(sample.iter().flatten().map(|s| &s.table));
        let now = shared(sample);
        let then = match now.is_empty() {
            true => return,
            false => earlier.map(|(_, sample)| shared(sample)).unwrap_or_default(),
        };
        if let Some(port) = now.iter().find(|port| then.contains(port)) {
            self.violation(&format!("two nodes have had {port:?} for a second"));
        }
    }

    /// Invariant 7.
    fn check_copies(&mut self, sample: &Sample) {
        let news =
            self.samples.front().is_some_and(|(at, _)| at + NEWS <= self.cluster.now() + LOOK);
        if !news || self.plan.lossy || self.plan.split_brain || self.apart {
            return;
        }
        // Those that were there for a second, as they are and as they were.
        let all_along = |machine: usize| {
            let now = sample[machine].as_ref().filter(|seen| seen.ready)?;
            let before = self.samples.iter().map(|(_, sample)| sample[machine].as_ref());
            let before = before.map(|then| then.filter(|t| t.ready && t.boots == now.boots));
            Some((machine, now, before.collect::<Option<Vec<_>>>()?))
        };
        let there: Vec<_> = (0..self.plan.nodes).filter_map(all_along).collect();
        let masters = self.cluster.current_masters();
        // What was to be told of by then has been heard of by now.
        let now = self.cluster.now();
        let told = self.samples.partition_point(|(at, _)| at + LOOK <= now);
        let Some((at, _)) = told.checked_sub(1).and_then(|last| self.samples.get(last)) else {
            return;
        };
        let age_ms = (now - at) / millis(1);
        let mut lacking = None;
        for (_, now, before) in there.iter().filter(|(machine, ..)| masters == [*machine]) {
            // A session whose lifetime had grown was told if the copies needed that.
            let refreshed = |(key, _): &(&SessionKey, &SessionRecord)| {
                let lifetimes = before[..told].iter().map(|then| then.table.get(*key));
                let lifetimes: Option<Vec<_>> =
                    lifetimes.map(|record| Some(record?.lifetime_ms)).collect();
                let lifetimes = lifetimes.as_ref().and_then(|all| all.split_last());
                lifetimes.is_some_and(|(&last, earlier)| {
                    u64::from(last) > age_ms && earlier.iter().any(|&ms| ms < last)
                })
            };
            for (machine, other, then) in &there {
                // An end that was told a moment ago may cross a refresh: it is undone soon.
                let had =
                    |key| other.table.contains_key(key) || then[told - 1].table.contains_key(key);
                let without = now.table.iter().filter(|(key, _)| !had(*key));
                lacking =
                    lacking.or(without.filter(refreshed).map(|(key, _)| (*machine, *key)).next());
            }
        }
        if let Some((machine, key)) = lacking {
            let name = self.cluster.machines()[machine].name();
            self.violation(&format!("{name} lacks {}, which lives elsewhere", show(&key)));
        }
    }

    /// Invariant 1.
    fn check_equal(&mut self) {
        let states = |table: Table| -> BTreeMap<SessionKey, Session> {
            table.into_iter().map(|(key, record)| (key, record.state)).collect()
        };
        let first = states(self.cluster.table(0));
        for machine in 0..self.plan.nodes {
            let name = self.cluster.machines()[machine].name();
            if !self.cluster.machines()[machine].ready() {
                let why = self.cluster.machines()[machine].reason();
                self.violation(&format!("{name} is not ready although all is well: {why}"));
            }
            let table = states(self.cluster.table(machine));
            let lacks = first.iter().find(|(key, _)| !table.contains_key(key));
            let has = table.iter().find(|(key, _)| !first.contains_key(key));
            let other = table
                .iter()
                .find(|(key, state)| first.get(key).is_some_and(|in_first| in_first != *state));
            if let Some((key, state)) = lacks {
                self.violation(&format!("{name} lacks {} {state:?}, which J has", show(key)));
            }
            if let Some((key, state)) = has {
                self.violation(&format!("{name} has {} {state:?}, which J lacks", show(key)));
            }
            if let Some((key, state)) = other {
                let in_first = first.get(key);
                self.violation(&format!("{name} has {} {state:?}, J {in_first:?}", show(key)));
            }
        }
    }

    /// Invariant 2. Nodes that were MASTER without hearing of each other may have given a flow two
    /// ports, or two flows the same: one has to go.
    fn check_told(&mut self) {
        let apart = self.apart || self.plan.lossy;
        for (machine, boots, keys) in std::mem::take(&mut self.told) {
            if self.cluster.machines()[machine].boots != boots {
                continue;
            }
            let table = self.cluster.table(machine);
            let gone = keys.iter().filter(|key| !table.contains_key(key));
            let collides = |key: &SessionKey| {
                table
                    .keys()
                    .any(|k| k.proto == key.proto && (k.src4 == key.src4) != (k.src6 == key.src6))
            };
            let lost = gone.filter(|key| !(apart && collides(key)));
            if let Some(key) = lost.map(show).next() {
                let name = self.cluster.machines()[machine].name();
                self.violation(&format!("{name} lost {key}, which it had at a crash"));
            }
        }
    }

    /// Invariant 3, of the network.
    fn check_quiet(&mut self) {
        let before = self.cluster.network.traffic.sent;
        let hellos = 10;
        self.run(millis(hellos * u64::from(self.plan.hello_interval)));
        let sent = self.cluster.network.traffic.sent - before;
        // HELLOs, and a few for sessions that happen to need a refresh.
        let most = (hellos + 5) * self.plan.nodes as u64;
        if sent > most {
            self.violation(&format!("{sent} frames in {hellos} intervals of quiet"));
        }
        // What has just come up may wait for company.
        if self.most_waiting().is_some() {
            self.run(2 * millis(self.plan.flush_deadline.into()) + LOOK);
        }
        if let Some(waiting) = self.most_waiting() {
            self.violation(&format!("{waiting} changes wait to be told although all is quiet"));
        }
    }

    /// Invariant 3, of time: a copy lives a quarter longer than its original, and an established
    /// TCP session has a transitory time behind its own.
    fn check_drained(&mut self) {
        let global = &self.plan.setup(0).nat64.global;
        let longest =
            u64::from(global.tcp_est_timeout) * 3 / 2 + u64::from(global.tcp_trans_timeout) * 2;
        self.cluster.run_for(millis(longest));
        for machine in 0..self.plan.nodes {
            let left = self.cluster.table(machine).len();
            if left > 0 {
                let name = self.cluster.machines()[machine].name();
                self.violation(&format!("{name} still has {left} sessions whose time is over"));
            }
        }
    }

    /// Invariant 8.
    fn check_hosts(&mut self) {
        for side in [Side::Six, Side::Four] {
            let host = self.cluster.host(side);
            let malformed = host.oddities.malformed;
            let corrupt: u64 = host.tcp().iter().map(|tcp| tcp.corrupt).sum::<u64>()
                + host.requests().iter().map(|flow| flow.corrupt).sum::<u64>();
            if malformed + corrupt > 0 {
                let text =
                    format!("{side:?}: {malformed} malformed packets, {corrupt} wrong bytes");
                self.violation(&text);
            }
        }
    }

    /// Whether all has held so far.
    fn holds(&self) -> bool {
        self.violations.is_empty() && self.cluster.violations.is_empty()
    }

    fn violation(&mut self, text: &str) {
        self.violations.push(format!("{} us: {text}", self.cluster.now()));
    }
}

/// Transport addresses of pool4 that several IPv6 nodes have, and two of those.
fn shared_ports<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Vec<[Mapping; 2]> {
    let keys = tables.into_iter().flat_map(Table::keys);
    let mut mappings: Vec<Mapping> = keys.map(|key| (key.proto, key.src6, key.src4)).collect();
    mappings.sort_unstable_by_key(|&(proto, src6, src4)| (proto, src4, src6));
    mappings.dedup();
    let pairs = mappings.windows(2).filter_map(|pair| <[Mapping; 2]>::try_from(pair).ok());
    pairs.filter(|[a, b]| (a.0, a.2) == (b.0, b.2)).collect()
}

fn show(key: &SessionKey) -> String {
    format!("{} {} {} {}", key.proto, key.src6, key.src4, key.dst4)
}

fn present<A, B>((a, b): (A, &Option<B>)) -> Option<(A, &B)> {
    Some((a, b.as_ref()?))
}
