//! A cluster: nodes on a private network, the virtual addresses between them, and n6 and n4 on
//! either side.
//!
//! ```text
//!  n6 --- 2001:db8::/96 ---+ J K L ... +--- 192.0.2.0/24 --- n4
//!                          +- private -+
//! ```
//!
//! Of what the nodes do nothing is imitated: packets, frames and tables are the translator's own.
//! Imitated are the machines around them: wires, VRRP, processes that die and start.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use jsync_core::config::{Config, ConfigError, Pool4Entry, StaticBib};
use jsync_core::sync::SyncConfig;
use jsync_core::table::{SessionKey, SessionRecord};
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};

use crate::clock::{Agenda, Clock, Micros, millis};
use crate::flow::Pace;
use crate::hosts::Host;
use crate::machine::{Machine, Outbox};
use crate::network::Network;
use crate::rng::Rng;
use crate::vrrp::{Role, Say};

/// n6.
pub const N6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 8);
/// n4.
pub const N4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);
/// pool4's address, one of the virtual ones.
pub const POOL4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The static BIB entries: port of pool4 and port of n6, both TCP.
pub const STATIC_PORTS: [(u16, u16); 4] =
    [(61001, 8001), (61002, 8002), (61003, 8003), (61004, 8004)];

/// A packet's way between a host and the machine that has the virtual addresses.
const LAN_DELAY: Micros = 100;
/// Between two runs of `jsync check` by keepalived.
const CHECK_INTERVAL: Micros = millis(1000);
/// Timeouts that a node may handle without time passing.
const SPIN_LIMIT: u32 = 100_000;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many machines, at most 9.
    pub nodes: usize,
    /// Whether they synchronise sessions.
    pub synchronised: bool,
    /// The translator's configuration, the same everywhere.
    pub nat64: Config,
    /// That of synchronisation, but for node and epoch.
    pub sync: SyncConfig,
    /// Whether routers spread packets over all nodes that are ready, each by chance, whatever
    /// connection it belongs to. Else VRRP gives all to one.
    pub ecmp: bool,
    /// Whether the machines' clocks differ, in time and in speed.
    pub skewed: bool,
    /// How hosts write on connections that they accepted.
    pub serves: Pace,
    /// Decides everything else.
    pub seed: u64,
}

impl Setup {
    /// The sample network with `nodes` machines.
    pub fn new(nodes: usize, seed: u64) -> Self {
        let pool4 = Pool4Entry {
            protocol: None,
            prefix: "192.0.2.1".parse().expect("a prefix"),
            ports: "61001-65535".parse().expect("a range"),
            node: None,
            mark: 0,
        };
        let static_bib = |(port4, port6)| StaticBib {
            protocol: Proto::Tcp,
            ipv6: Endpoint6 { addr: N6, port: port6 },
            ipv4: Endpoint4 { addr: POOL4, port: port4 },
        };
        let nat64 = Config {
            pool4: vec![pool4],
            bib: STATIC_PORTS.map(static_bib).into(),
            max_sessions: 16_384,
            ..Config::default()
        };
        Self {
            nodes,
            synchronised: true,
            nat64,
            sync: SyncConfig::new(1, "sample", 1),
            ecmp: false,
            skewed: false,
            serves: Pace { interval: millis(50), chunk: 200 },
            seed,
        }
    }
}

/// A slice of pool4 for each of `nodes` machines.
pub fn slices(nodes: usize) -> Vec<Pool4Entry> {
    let slice = |node| Pool4Entry {
        protocol: None,
        prefix: format!("192.0.2.{node}").parse().expect("a prefix"),
        ports: "61001-65535".parse().expect("a range"),
        node: Some(node),
        mark: 0,
    };
    (1..=nodes as u16).map(slice).collect()
}

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// n6.
    Six = 0,
    /// n4.
    Four = 1,
}

#[derive(Debug)]
enum Event {
    /// A frame arrives at a machine.
    Frame(usize, Rc<[u8]>),
    /// A machine that is slow to read takes the next frame from its buffer.
    Read(usize),
    /// A router's advert arrives at a machine.
    Advert(usize, Rc<[u8]>),
    /// The hosts hear where the virtual addresses are.
    Here(usize),
    /// A host's packet arrives at a machine.
    ToMachine(usize, Vec<u8>),
    /// A packet arrives at a host.
    ToHost(Side, Vec<u8>),
    /// keepalived runs `jsync check`.
    Check(usize),
    /// A machine's daemon that was stopped in its tracks goes on.
    Thaw(usize),
    Node(usize),
    Router(usize),
    Host(Side),
}

#[derive(Debug)]
struct Place {
    host: Host,
    /// The machine that it believes to have the virtual addresses.
    gateway: Option<usize>,
    /// The earliest of its timers on the agenda.
    planned: Option<Micros>,
}

/// A session table.
pub type Table = BTreeMap<SessionKey, SessionRecord>;

/// A moment in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub at: Micros,
    /// At which machine.
    pub machine: usize,
    /// What happened.
    pub text: String,
}

/// Everything, and the time.
#[derive(Debug)]
pub struct Cluster {
    /// The private network.
    pub network: Network,
    /// What VRRP's adverts travel on.
    pub lan: Network,
    /// How many of 1000 packets between hosts and machines get lost.
    pub packet_loss: u32,
    /// What happened, oldest first.
    pub log: Vec<LogLine>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// Who became MASTER or ready, what its keepalived was then, and the sessions that it had.
    pub takeovers: Vec<(usize, Role, Table)>,
    now: Micros,
    agenda: Agenda<Event>,
    machines: Vec<Machine>,
    places: [Place; 2],
    ecmp: bool,
    rng: Rng,
    spins: u32,
}

impl Cluster {
    /// The machines of `setup`, all off, and the hosts.
    ///
    /// # Errors
    /// A configuration that no node would accept.
    pub fn new(setup: &Setup) -> Result<Self, ConfigError> {
        setup.nat64.validate()?;
        setup.sync.validate()?;
        let mut rng = Rng::new(setup.seed);
        let key = rng.bytes32();
        let machines = (0..setup.nodes).map(|index| {
            let clock = match setup.skewed {
                true => {
                    Clock { offset_ms: rng.below(1 << 40), drift_ppm: rng.below(1001) as i32 - 500 }
                }
                false => Clock::default(),
            };
            Machine::new(index, setup, key, clock, rng.fork())
        });
        let machines: Vec<_> = machines.collect();
        let mut place =
            || Place { host: Host::new(setup.serves, rng.fork()), gateway: None, planned: None };
        let places = [place(), place()];
        let mut agenda = Agenda::default();
        for index in 0..setup.nodes {
            agenda.plan(rng.below(CHECK_INTERVAL), Event::Check(index));
        }
        Ok(Self {
            network: Network::new(setup.nodes, rng.fork()),
            lan: Network::new(setup.nodes, rng.fork()),
            packet_loss: 0,
            log: Vec::new(),
            violations: Vec::new(),
            takeovers: Vec::new(),
            now: 0,
            agenda,
            machines,
            places,
            ecmp: setup.ecmp,
            rng,
            spins: 0,
        })
    }

    /// The time.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// A host, to be looked at.
    pub fn host(&self, side: Side) -> &Host {
        &self.places[side as usize].host
    }

    /// A host, to do something now; what it has to send is sent.
    pub fn on_host<R>(&mut self, side: Side, act: impl FnOnce(&mut Host, Micros) -> R) -> R {
        let result = act(&mut self.places[side as usize].host, self.now);
        self.drain_host(side);
        result
    }

    /// The machines that believe to have the virtual addresses.
    pub fn current_masters(&self) -> Vec<usize> {
        let all = self.machines.iter().enumerate();
        all.filter(|(_, machine)| machine.role() == Role::Master).map(|(index, _)| index).collect()
    }

    /// A machine's sessions; none if its daemon doesn't run.
    pub fn table(&self, machine: usize) -> Table {
        self.machines[machine].table(self.now)
    }

    /// Has a machine take a frame from the private network only once in `pause`, or at once when
    /// that is 0. What its buffer has no room for is lost.
    pub fn set_reading(&mut self, machine: usize, pause: Micros) {
        self.machines[machine].read_pause = pause;
    }

    /// Has the network take no frames from a machine, or take them again.
    pub fn set_stuck(&mut self, machine: usize, stuck: bool) {
        self.machines[machine].stuck = stuck;
        let mut outbox = Outbox::default();
        self.machines[machine].handle_timeout(self.now, &mut outbox);
        self.post(machine, outbox);
    }

    /// `kill -STOP` of a machine's daemon; it goes on after `time`.
    pub fn freeze(&mut self, machine: usize, time: Micros) {
        self.note(machine, format!("is frozen for {} ms", time / millis(1)));
        self.machines[machine].freeze(self.now);
        self.agenda.plan(self.now + time, Event::Thaw(machine));
    }

    /// `kill -CONT`: the daemon finds the packets and frames that came meanwhile, as far as there
    /// was room for them. Does nothing if it isn't stopped.
    pub fn thaw(&mut self, machine: usize) {
        if !self.machines[machine].is_frozen() {
            return;
        }
        self.note(machine, "goes on".to_string());
        for packet in self.machines[machine].thaw() {
            self.agenda.plan(self.now, Event::ToMachine(machine, packet));
        }
        self.agenda.plan(self.now, Event::Read(machine));
        self.agenda.plan(self.now, Event::Node(machine));
    }

    /// Gives a machine other pre-shared keys, from its next start on.
    pub fn set_keys(&mut self, machine: usize, keys: Vec<[u8; 32]>) {
        self.machines[machine].keys = keys;
    }

    /// A frame of anybody's making arrives at a machine now.
    pub fn inject(&mut self, machine: usize, frame: Rc<[u8]>) {
        self.agenda.plan(self.now, Event::Frame(machine, frame));
    }

    /// Starts all daemons.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_all(&mut self) -> Result<(), ConfigError> {
        (0..self.machines.len()).try_for_each(|machine| self.start(machine))
    }

    /// Starts a machine's daemon, in a new epoch and without sessions. Does nothing if it runs.
    ///
    /// # Errors
    /// What the node refuses.
    pub fn start(&mut self, machine: usize) -> Result<(), ConfigError> {
        if self.machines[machine].runs() {
            return Ok(());
        }
        let mut outbox = Outbox::default();
        let epoch = self.machines[machine].start(self.now, &mut outbox)?;
        self.note(machine, format!("starts in epoch {epoch:#x}"));
        self.post(machine, outbox);
        Ok(())
    }

    /// `kill -9` of a machine's daemon. keepalived notices at once that the TUN lost its carrier.
    pub fn kill(&mut self, machine: usize) {
        self.note(machine, "is killed".to_string());
        self.machines[machine].kill();
        self.update_router(machine);
    }

    /// Stops a machine's daemon in good order: it tells its peers.
    pub fn stop(&mut self, machine: usize) {
        self.thaw(machine);
        self.note(machine, "is stopped".to_string());
        let mut outbox = Outbox::default();
        self.machines[machine].stop(self.now, &mut outbox);
        self.post(machine, outbox);
        self.update_router(machine);
    }

    /// Pulls all cables of a machine. Its daemon goes on, its keepalived notices.
    pub fn unplug(&mut self, machine: usize) {
        self.note(machine, "is unplugged".to_string());
        self.machines[machine].plugged = false;
        self.update_router(machine);
    }

    /// Plugs them in again.
    pub fn plug_in(&mut self, machine: usize) {
        self.note(machine, "is plugged in".to_string());
        self.machines[machine].plugged = true;
        self.update_router(machine);
    }

    /// Takes a machine away: nothing on it runs any more, and nobody says so.
    pub fn power_off(&mut self, machine: usize) {
        self.note(machine, "is gone".to_string());
        self.machines[machine].power_off();
    }

    /// Gives it back, freshly booted.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn power_on(&mut self, machine: usize) -> Result<(), ConfigError> {
        self.machines[machine].plugged = true;
        self.start(machine)
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Micros) {
        self.run_until(self.now + time);
    }

    /// Lets time pass until `until`.
    pub fn run_until(&mut self, until: Micros) {
        while let Some((at, event)) = self.agenda.next(until) {
            self.spins = if at == self.now { self.spins + 1 } else { 0 };
            self.now = at;
            if self.spins > SPIN_LIMIT {
                self.violations.push(format!("{at} us: time stands still at {event:?}"));
                return;
            }
            self.handle(event);
        }
        self.now = until;
    }

    /// Lets time pass until `done` holds, looking every millisecond; false if it doesn't within
    /// `patience`.
    pub fn wait(&mut self, patience: Micros, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + patience;
        while !done(self) {
            if self.now >= end {
                return false;
            }
            self.run_for(millis(1));
        }
        true
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        let mut outbox = Outbox::default();
        match event {
            Event::Frame(machine, bytes) => {
                if let Some(at) = self.machines[machine].buffer_frame(now, &bytes) {
                    self.agenda.plan(at, Event::Read(machine));
                } else if !self.machines[machine].is_buffering() {
                    self.machines[machine].handle_frame(now, &bytes, &mut outbox);
                    self.post(machine, outbox);
                }
            }
            Event::Read(machine) => {
                if let Some(at) = self.machines[machine].read_frame(now, &mut outbox) {
                    self.agenda.plan(at, Event::Read(machine));
                }
                self.post(machine, outbox);
            }
            Event::ToMachine(machine, bytes) => {
                self.machines[machine].handle_packet(now, &bytes, &mut outbox);
                self.post(machine, outbox);
            }
            Event::Node(machine) => {
                self.machines[machine].handle_timeout(now, &mut outbox);
                self.post(machine, outbox);
            }
            Event::Advert(machine, bytes) => {
                if let [high, low, priority] = *bytes {
                    let id = u16::from_be_bytes([high, low]);
                    self.route(machine, |m, say| m.handle_advert(now, id, priority, say));
                }
            }
            Event::Router(machine) => {
                self.machines[machine].router_planned = None;
                self.route(machine, |m, say| m.router.handle_timeout(now, say));
            }
            Event::Check(machine) => {
                self.machines[machine].check(now);
                self.update_router(machine);
                self.agenda.plan(now + CHECK_INTERVAL, Event::Check(machine));
            }
            Event::Thaw(machine) => self.thaw(machine),
            Event::Here(machine) => {
                self.places.iter_mut().for_each(|place| place.gateway = Some(machine));
            }
            Event::ToHost(side, bytes) => {
                self.places[side as usize].host.handle_packet(now, &bytes);
                self.drain_host(side);
            }
            Event::Host(side) => {
                let place = &mut self.places[side as usize];
                place.planned = None;
                place.host.handle_timeout(now);
                self.drain_host(side);
            }
        }
    }

    /// Sends what a machine's node has to say, and plans its next timeout.
    fn post(&mut self, machine: usize, outbox: Outbox) {
        for packet in outbox.packets {
            let side =
                if packet.first().is_some_and(|b| b >> 4 == 6) { Side::Six } else { Side::Four };
            if self.machines[machine].plugged && !self.rng.chance(self.packet_loss) {
                self.agenda.plan(self.now + LAN_DELAY, Event::ToHost(side, packet));
            }
        }
        for frame in outbox.frames {
            if self.machines[machine].plugged {
                for delivery in self.network.send(machine, frame) {
                    let event = Event::Frame(delivery.to, delivery.bytes);
                    self.agenda.plan(self.now + delivery.delay, event);
                }
            }
        }
        for text in outbox.events {
            self.note(machine, text);
        }
        for text in outbox.violations {
            self.violation(machine, &text);
        }
        if self.machines[machine].has_become_ready() {
            let role = self.machines[machine].role();
            self.takeovers.push((machine, role, self.table(machine)));
        }
        if let Some(at) = self.machines[machine].plan_timeout(self.now) {
            self.agenda.plan(at, Event::Node(machine));
        }
        if self.machines[machine].role() != Role::Fault && !self.machines[machine].able() {
            self.update_router(machine);
        }
    }

    fn update_router(&mut self, machine: usize) {
        let now = self.now;
        self.route(machine, |m, say| m.router.set_able(now, m.able(), say));
    }

    /// Lets a machine's router act, and does what it says.
    fn route(&mut self, index: usize, act: impl FnOnce(&mut Machine, &mut Vec<Say>)) {
        let mut say = Vec::new();
        let machine = &mut self.machines[index];
        let before = machine.role();
        act(machine, &mut say);
        let (plugged, after) = (machine.plugged, machine.role());
        let (ready, why) = (machine.ready(), machine.reason());
        for word in say.into_iter().filter(|_| plugged) {
            match word {
                Say::Advert(priority) => {
                    let [high, low] = self.machines[index].id.to_be_bytes();
                    for delivery in self.lan.send(index, vec![high, low, priority]) {
                        let event = Event::Advert(delivery.to, delivery.bytes);
                        self.agenda.plan(self.now + delivery.delay, event);
                    }
                }
                Say::Here => self.agenda.plan(self.now + LAN_DELAY, Event::Here(index)),
            }
        }
        if before != after {
            self.note(index, format!("is {after:?}"));
            if after == Role::Master {
                self.takeovers.push((index, after, self.table(index)));
                if !ready {
                    self.violation(index, &format!("became MASTER while {why}"));
                }
            }
        }
        if let Some(at) = self.machines[index].plan_router() {
            self.agenda.plan(at, Event::Router(index));
        }
    }

    fn drain_host(&mut self, side: Side) {
        let place = &mut self.places[side as usize];
        while let Some(packet) = place.host.poll_packet() {
            let gateway = match self.ecmp {
                // A link that goes down takes its route away at once.
                true => {
                    let able: Vec<_> =
                        (0..self.machines.len()).filter(|&m| self.machines[m].able()).collect();
                    (!able.is_empty()).then(|| able[self.rng.index(able.len())])
                }
                false => place.gateway,
            };
            let Some(gateway) = gateway.filter(|_| !self.rng.chance(self.packet_loss)) else {
                continue;
            };
            self.agenda.plan(self.now + LAN_DELAY, Event::ToMachine(gateway, packet));
        }
        let due = place.host.poll_timeout();
        if due.is_some_and(|at| place.planned.is_none_or(|planned| at < planned)) {
            place.planned = due;
            self.agenda.plan(due.unwrap_or(self.now), Event::Host(side));
        }
    }

    fn note(&mut self, machine: usize, text: String) {
        self.log.push(LogLine { at: self.now, machine, text });
    }

    fn violation(&mut self, machine: usize, text: &str) {
        let name = self.machines[machine].name();
        self.violations.push(format!("{} us: {name} {text}", self.now));
    }
}
