//! The two stories of the sample network: a NAT64 dies, with and without synchronisation.
//!
//! n6 opens 60 TCP connections, n4 opens 4 through static BIB entries, 16 UDP flows and pings run
//! beside them. Then J, K and L die in turn. What survives is found out by looking at the bytes
//! that get through, not by asking the nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::clock::{Micros, millis, seconds};
use crate::cluster::{Cluster, N4, N6, POOL4, STATIC_PORTS, Setup, Side};
use crate::flow::Pace;
use crate::hosts::Requests;
use crate::tcp::{State, Tcp};
use crate::vrrp::Role;

/// Connections that n6 opens.
const DYNAMIC: u16 = 60;
const UDP_FLOWS: u16 = 16;
const TCP_PORT: u16 = 7001;
const UDP_PORT: u16 = 7000;
const PING_ID: u16 = 0x6464;

/// How long a connection may be silent after a takeover before it counts as broken.
const PATIENCE: Micros = seconds(10);
/// How long a takeover may take.
const TAKEOVER: Micros = seconds(15);
/// How long observation goes on after everything flows again: no late gap stays unseen.
const SETTLE: Micros = millis(1500);
/// How long traffic flows undisturbed before each step.
const CALM: Micros = seconds(2);

const STREAM: Pace = Pace { interval: millis(25), chunk: 200 };
const UDP: Pace = Pace { interval: millis(50), chunk: 64 };
const PING: Pace = Pace { interval: millis(10), chunk: 64 };

const J: usize = 0;
const K: usize = 1;
const L: usize = 2;

/// What became of a story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// TCP connections that were opened, by n6 and by n4.
    pub tcp_total: usize,
    /// Those that survived every step, were closed in good order and lost no byte.
    pub tcp_survived: usize,
    /// Those that n4 opened, through static BIB entries.
    pub static_total: usize,
    /// Those of them that survived.
    pub static_survived: usize,
    /// UDP flows.
    pub udp_total: usize,
    /// Those that were answered after every step and came from the same address throughout.
    pub udp_survived: usize,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// What a node did that it must never do, such as becoming MASTER before it has the sessions.
    pub complaints: Vec<String>,
}

/// A disaster, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What happened.
    pub name: String,
    /// Who had the virtual addresses at the end: one letter, unless something went wrong.
    pub master: String,
    /// From the event until the machine that has to take over was the only MASTER, in ms.
    pub takeover_ms: u64,
    /// The longest time without a byte, over all flows that survived the step, in ms; 0 if none did.
    pub gap_ms: u64,
    /// TCP connections that survived this step and all before.
    pub tcp_survived: usize,
    /// UDP flows likewise.
    pub udp_survived: usize,
    /// The longest time without an answer to a ping, in ms.
    pub ping_gap_ms: u64,
    /// Sessions in each node that runs.
    pub sessions: BTreeMap<String, u32>,
}

impl Report {
    /// As one JSON object.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a report has only string keys")
    }
}

/// Plays the story of `seed`, with or without synchronisation.
pub fn simulate_failover(seed: u64, synchronised: bool) -> Report {
    let setup = Setup { synchronised, skewed: true, ..Setup::new(3, seed) };
    let cluster = Cluster::new(&setup).expect("the sample configuration is valid");
    let mut story = Story { cluster, tcp: Vec::new(), udp: Vec::new(), steps: Vec::new() };
    story.open();
    story.step("J's daemon is killed", K, |cluster| cluster.kill(J));
    if synchronised {
        story.step("J's daemon returns", J, |cluster| start(cluster, J));
        story.step("J's links go down", K, |cluster| cluster.power_off(J));
        story.step("J comes back", J, |cluster| power_on(cluster, J));
        story.step("J dies again", K, |cluster| cluster.power_off(J));
        story.step("K dies too", L, |cluster| cluster.kill(K));
    }
    story.close()
}

fn start(cluster: &mut Cluster, machine: usize) {
    cluster.start(machine).expect("it has started with this configuration before");
}

fn power_on(cluster: &mut Cluster, machine: usize) {
    cluster.power_on(machine).expect("it has started with this configuration before");
}

/// A flow by its key, and whether it has survived so far.
#[derive(Clone, Copy, Debug)]
struct Flow {
    key: u64,
    is_static: bool,
    alive: bool,
}

struct Story {
    cluster: Cluster,
    tcp: Vec<Flow>,
    udp: Vec<Flow>,
    steps: Vec<Step>,
}

impl Story {
    /// Starts the cluster and opens all flows.
    fn open(&mut self) {
        let cluster = &mut self.cluster;
        (J..=L).for_each(|machine| start(cluster, machine));
        // Everyone is ready, J is MASTER.
        cluster.wait(TAKEOVER, |c| c.machines()[J].role() == Role::Master);
        cluster.wait(TAKEOVER, |c| c.machines().iter().all(|m| m.role() != Role::Fault));
        cluster.run_for(CALM);
        let n4_in_pool6 = IpAddr::V6(Setup::new(3, 0).nat64.pool6.embed(N4));
        cluster.on_host(Side::Four, |host, _| host.listen(TCP_PORT));
        cluster.on_host(Side::Six, |host, _| {
            STATIC_PORTS.iter().for_each(|&(_, port6)| host.listen(port6));
        });
        let flow = |key, is_static| Flow { key, is_static, alive: true };
        for number in 0..DYNAMIC {
            let local = SocketAddr::new(N6.into(), 40_000 + number);
            let remote = SocketAddr::new(n4_in_pool6, TCP_PORT);
            let key =
                cluster.on_host(Side::Six, |host, now| host.connect(now, local, remote, STREAM));
            self.tcp.push(flow(key, false));
            cluster.run_for(millis(3));
        }
        for (number, &(port4, _)) in (0..).zip(&STATIC_PORTS) {
            let local = SocketAddr::new(N4.into(), 50_000 + number);
            let remote = SocketAddr::new(POOL4.into(), port4);
            let key =
                cluster.on_host(Side::Four, |host, now| host.connect(now, local, remote, STREAM));
            self.tcp.push(flow(key, true));
        }
        for number in 0..UDP_FLOWS {
            let local = SocketAddr::new(N6.into(), 30_000 + number);
            let remote = SocketAddr::new(n4_in_pool6, UDP_PORT);
            let key =
                cluster.on_host(Side::Six, |host, now| host.open_udp(now, local, remote, UDP));
            self.udp.push(flow(key, false));
        }
        cluster
            .on_host(Side::Six, |host, now| host.ping(now, N6.into(), n4_in_pool6, PING_ID, PING));
        cluster.run_for(CALM);
    }

    /// Lets something happen, after which `master` has to take over.
    fn step(&mut self, name: &str, master: usize, happen: impl FnOnce(&mut Cluster)) {
        self.cluster.run_for(CALM);
        for side in [Side::Six, Side::Four] {
            self.cluster.on_host(side, |host, _| host.forget_gaps());
        }
        let begin = self.cluster.now();
        happen(&mut self.cluster);
        self.cluster.wait(TAKEOVER, |c| c.current_masters() == [master]);
        let takeover = self.cluster.now();
        // A connection gets its time to recover; when all have, there is nothing to wait for.
        let (tcp, udp) = (self.tcp.clone(), self.udp.clone());
        self.cluster.wait(PATIENCE, |cluster| {
            tcp.iter().filter(|flow| flow.alive).all(|flow| tcp_alive(cluster, flow, takeover))
                && udp.iter().filter(|flow| flow.alive).all(|f| udp_alive(cluster, f, takeover))
        });
        self.cluster.run_for(SETTLE);
        let cluster = &self.cluster;
        self.tcp.iter_mut().for_each(|flow| flow.alive &= tcp_alive(cluster, flow, takeover));
        self.udp.iter_mut().for_each(|flow| flow.alive &= udp_alive(cluster, flow, takeover));
        let sessions = cluster.machines().iter().filter_map(|machine| {
            Some((machine.name().to_string(), machine.node()?.nat64().session_count()))
        });
        let step = Step {
            name: name.to_string(),
            master: cluster
                .current_masters()
                .iter()
                .map(|&m| cluster.machines()[m].name())
                .collect(),
            takeover_ms: (takeover - begin) / 1000,
            gap_ms: self.longest_gap() / 1000,
            tcp_survived: survivors(&self.tcp),
            udp_survived: survivors(&self.udp),
            ping_gap_ms: self.pings().map_or(0, |pings| pings.answered.gap(cluster.now())) / 1000,
            sessions: sessions.collect(),
        };
        self.steps.push(step);
    }

    /// Closes what is left: a connection that loses its last bytes hasn't survived.
    fn close(mut self) -> Report {
        self.cluster.run_for(CALM);
        for side in [Side::Six, Side::Four] {
            self.cluster.on_host(side, |host, now| {
                host.pause();
                let openers = |tcp: &&Tcp| tcp.is_opener() && tcp.state() == State::Established;
                let keys: Vec<_> = host.tcp().iter().filter(openers).map(|tcp| tcp.key).collect();
                for key in keys.into_iter().flatten() {
                    host.close(now, key);
                }
            });
        }
        self.cluster.run_for(PATIENCE);
        let complete = |flow: &mut Flow| {
            flow.alive &= ends(&self.cluster, flow.key).is_some_and(|[a, b]| {
                [a.state(), b.state()] == [State::Closed; 2]
                    && a.received.bytes == b.written()
                    && b.received.bytes == a.written()
                    && a.corrupt + b.corrupt == 0
            });
        };
        self.tcp.iter_mut().for_each(complete);
        let statics: Vec<_> = self.tcp.iter().filter(|flow| flow.is_static).copied().collect();
        Report {
            tcp_total: self.tcp.len(),
            tcp_survived: survivors(&self.tcp),
            static_total: statics.len(),
            static_survived: survivors(&statics),
            udp_total: self.udp.len(),
            udp_survived: survivors(&self.udp),
            steps: self.steps,
            complaints: self.cluster.violations,
        }
    }

    fn longest_gap(&self) -> Micros {
        let cluster = &self.cluster;
        let now = cluster.now();
        let tcp = self.tcp.iter().filter(|flow| flow.alive);
        let tcp = tcp.filter_map(|flow| ends(cluster, flow.key)).flatten();
        let requests = cluster.host(Side::Six).requests();
        let alive = |key| self.udp.iter().all(|flow| flow.key != key || flow.alive);
        let requests = requests.iter().filter(|flow| alive(flow.key));
        let gaps = tcp.map(|end| end.received.gap(now));
        gaps.chain(requests.map(|flow| flow.answered.gap(now))).max().unwrap_or(0)
    }

    fn pings(&self) -> Option<&Requests> {
        self.cluster.host(Side::Six).requests().last()
    }
}

fn survivors(flows: &[Flow]) -> usize {
    flows.iter().filter(|flow| flow.alive).count()
}

fn ends(cluster: &Cluster, key: u64) -> Option<[&Tcp; 2]> {
    let end = |side| cluster.host(side).connection(key);
    Some([end(Side::Six)?, end(Side::Four)?])
}

/// Whether right bytes have reached both ends since `since`.
fn tcp_alive(cluster: &Cluster, flow: &Flow, since: Micros) -> bool {
    ends(cluster, flow.key).is_some_and(|ends| {
        ends.iter().all(|end| {
            end.state() == State::Established && end.corrupt == 0 && end.received.last > since
        })
    })
}

/// Whether requests have been answered since `since`, and the server never saw its client move.
fn udp_alive(cluster: &Cluster, flow: &Flow, since: Micros) -> bool {
    let mut requests = cluster.host(Side::Six).requests().iter();
    let here = requests.find(|requests| requests.key == flow.key);
    let there = cluster.host(Side::Four).client(flow.key);
    here.zip(there).is_some_and(|(here, there)| {
        here.corrupt + there.corrupt == 0 && here.answered.last > since && there.moved == 0
    })
}
