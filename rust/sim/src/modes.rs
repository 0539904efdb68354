//! Active/active without VRRP: routers spread packets over all nodes, each packet by chance, and
//! every node has a slice of pool4. What do connections notice, with which durability and with or
//! without PULL, and what when a node dies?
//!
//! n6 opens TCP connections, sends single UDP requests and bursts of three, each flow from a port
//! of its own; n4 opens connections through static BIB entries. What fails is found out by looking
//! at what arrives.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jsync_core::stats::Counter;
use jsync_core::sync::Durability;

use crate::clock::{Micros, millis, seconds};
use crate::cluster::{Cluster, N4, N6, POOL4, STATIC_PORTS, Setup, Side, Table, slices};
use crate::flow::Pace;
use crate::network::Link;
use crate::tcp::State;

const TCP_PORT: u16 = 7001;
const UDP_PORT: u16 = 7000;
const PACE: Pace = Pace { interval: millis(50), chunk: 200 };
/// Requests of a burst.
const BURST: u32 = 3;
/// Between two new flows.
const PAUSE: Micros = millis(5);
/// A handshake that takes so long had a packet sent again.
const REPEATED: Micros = millis(900);

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// How many nodes.
    pub nodes: usize,
    /// When the packet that makes a session leaves.
    pub durability: Durability,
    /// Whether peers are asked for sessions.
    pub pull: bool,
    /// How many of 1000 frames between nodes get lost.
    pub loss: u32,
    /// How long a frame takes.
    pub delay: Micros,
    /// Whether a node dies in the middle, and comes back.
    pub death: bool,
    /// How many flows of each kind.
    pub flows: u16,
}

impl Mode {
    /// Two nodes on a good network, asynchronous.
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes,
            durability: Durability::Async,
            pull: false,
            loss: 0,
            delay: 100,
            death: false,
            flows: 300,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let durability = match self.durability {
            Durability::Async => "async",
            Durability::Sent => "sent",
            Durability::Acked => "acked",
        };
        write!(f, "{} {durability}{}", self.nodes, if self.pull { "+pull" } else { "" })?;
        if self.loss > 0 {
            write!(f, ", loss {} %", self.loss / 10)?;
        }
        if self.delay != 100 {
            write!(f, ", {} ms", self.delay as f64 / 1000.0)?;
        }
        write!(f, "{}", if self.death { ", one dies" } else { "" })
    }
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// TCP connections opened.
    pub tcp: usize,
    /// Those that were never established, reset, or lost a byte.
    pub failed: usize,
    /// Those whose handshake needed a packet again.
    pub repeated: usize,
    /// The mean time of a handshake that didn't, µs.
    pub handshake: Micros,
    /// The longest of them.
    pub longest: Micros,
    /// Single UDP requests, and those without an answer.
    pub singles: (u64, u64),
    /// Requests in bursts, and those without an answer.
    pub bursts: (u64, u64),
    /// Bursts of which n4 saw more than one source.
    pub moved: usize,
    /// Packets held until their session was told, and those that waited in vain.
    pub held: (u64, u64),
    /// Questions to peers, and those that brought a session.
    pub pulls: (u64, u64),
    /// Frames for a flow.
    pub frames: f64,
    /// What must never happen and did.
    pub violations: Vec<String>,
}

/// Plays `mode` as `seed` decides.
pub fn play(mode: Mode, seed: u64) -> Figures {
    let mut setup = Setup::new(mode.nodes, seed);
    setup.ecmp = true;
    setup.skewed = true;
    setup.nat64.pool4 = slices(mode.nodes);
    setup.nat64.node = setup.sync.node;
    setup.sync.durability = mode.durability;
    setup.sync.pull = Some(mode.pull);
    let mut cluster = Cluster::new(&setup).expect("a valid configuration");
    cluster.start_all().expect("a valid configuration");
    cluster.run_for(seconds(5));
    let link = Link { loss: mode.loss, delay: mode.delay..=mode.delay, ..Link::good() };
    cluster.network.links().for_each(|l| *l = link.clone());
    let frames = cluster.network.traffic.sent;
    let mut player = Player { mode, cluster, singles: Vec::new(), bursts: Vec::new() };
    player.open();
    let frames = player.cluster.network.traffic.sent - frames;
    player.close();
    let mut figures = player.judge();
    let flows = figures.tcp + player.singles.len() + player.bursts.len();
    figures.frames = frames as f64 / flows as f64;
    figures
}

struct Player {
    mode: Mode,
    cluster: Cluster,
    /// Keys of flows.
    singles: Vec<u64>,
    bursts: Vec<u64>,
}

impl Player {
    fn open(&mut self) {
        let n4_in_pool6 = IpAddr::V6(Setup::new(1, 0).nat64.pool6.embed(N4));
        self.cluster.on_host(Side::Four, |host, _| host.listen(TCP_PORT));
        self.cluster.on_host(Side::Six, |host, _| {
            STATIC_PORTS.iter().for_each(|&(_, port6)| host.listen(port6));
        });
        for n in 0..self.mode.flows {
            let local = |base: u16| SocketAddr::new(N6.into(), base + n);
            let remote = |port| SocketAddr::new(n4_in_pool6, port);
            self.cluster.on_host(Side::Six, |host, now| {
                host.connect(now, local(10_000), remote(TCP_PORT), PACE)
            });
            if n % 10 == 0 {
                let port = STATIC_PORTS[usize::from(n / 10) % STATIC_PORTS.len()].0;
                let local = SocketAddr::new(N4.into(), 30_000 + n);
                let remote = SocketAddr::new(POOL4.into(), port);
                self.cluster.on_host(Side::Four, |host, now| {
                    host.connect(now, local, remote, PACE);
                });
            }
            let single = self.cluster.on_host(Side::Six, |host, now| {
                host.burst_udp(now, local(20_000), remote(UDP_PORT), 1, 64)
            });
            self.singles.push(single);
            let burst = self.cluster.on_host(Side::Six, |host, now| {
                host.burst_udp(now, local(30_000), remote(UDP_PORT), BURST, 64)
            });
            self.bursts.push(burst);
            if self.mode.death && n == self.mode.flows / 2 {
                self.cluster.kill(0);
            }
            self.cluster.run_for(PAUSE);
        }
    }

    /// Lets connections finish; and whoever died come back, to see that all have the same then.
    fn close(&mut self) {
        self.cluster.run_for(seconds(10));
        for side in [Side::Six, Side::Four] {
            self.cluster.on_host(side, |host, _| host.pause());
        }
        self.cluster.network.links().for_each(|link| *link = Link::good());
        self.cluster.start_all().expect("it has started with this configuration before");
        self.cluster.run_for(seconds(10));
    }

    fn judge(&self) -> Figures {
        let mut figures =
            Figures { violations: self.cluster.violations.clone(), ..Figures::default() };
        let (six, four) = (self.cluster.host(Side::Six), self.cluster.host(Side::Four));
        let mut handshakes = Vec::new();
        for (host, other) in [(six, four), (four, six)] {
            for tcp in host.tcp().iter().filter(|tcp| tcp.is_opener()) {
                figures.tcp += 1;
                let there = tcp.key.and_then(|key| other.connection(key));
                let whole = there.is_some_and(|there| {
                    there.received.bytes == tcp.written() && tcp.received.bytes == there.written()
                });
                match tcp.opening_time() {
                    Some(time) if whole && tcp.state() == State::Established => {
                        figures.repeated += usize::from(time >= REPEATED);
                        handshakes.extend(Some(time).filter(|&time| time < REPEATED));
                    }
                    _ => figures.failed += 1,
                }
            }
        }
        figures.longest = handshakes.iter().copied().max().unwrap_or(0);
        figures.handshake = handshakes.iter().sum::<Micros>() / handshakes.len().max(1) as u64;
        let lost = |keys: &[u64]| {
            let flows = six.requests().iter().filter(|flow| keys.contains(&flow.key));
            flows.fold((0, 0), |(sent, lost), flow| {
                (sent + flow.sent, lost + flow.sent - flow.answered.bytes / 64)
            })
        };
        figures.singles = lost(&self.singles);
        figures.bursts = lost(&self.bursts);
        let moved = |key: &&u64| four.client(**key).is_some_and(|client| client.moved > 0);
        figures.moved = self.bursts.iter().filter(moved).count();
        for machine in self.cluster.machines() {
            let Some(node) = machine.node() else { continue };
            let value = |counter| node.nat64().stats.value(counter);
            figures.held.0 += value(Counter::HeldOpeners);
            figures.held.1 += value(Counter::HeldTimeouts);
            figures.pulls.0 += value(Counter::PullsSent);
            figures.pulls.1 += value(Counter::PullsFound);
        }
        self.check_tables(&mut figures.violations);
        figures
    }

    /// Every node has the same sessions, and a node behind the NAT one mapping a port.
    fn check_tables(&self, violations: &mut Vec<String>) {
        let tables: Vec<Table> = (0..self.mode.nodes).map(|m| self.cluster.table(m)).collect();
        for (machine, table) in tables.iter().enumerate().skip(1) {
            if !table.keys().eq(tables[0].keys()) {
                violations.push(format!("tables 0 and {machine} differ"));
            }
        }
        let mut mappings: Vec<_> =
            tables[0].keys().map(|key| ((key.proto, key.src6), key.src4)).collect();
        mappings.dedup();
        for pair in mappings.windows(2) {
            if pair[0].0 == pair[1].0 {
                violations.push(format!("{:?} has two mappings", pair[0].0));
            }
        }
    }
}

/// The modes that `sim modes` shows.
pub fn all() -> Vec<Mode> {
    let mut modes = Vec::new();
    let kinds = [
        (Durability::Async, false),
        (Durability::Sent, false),
        (Durability::Acked, false),
        (Durability::Async, true),
        (Durability::Acked, true),
    ];
    for (nodes, loss, delay, death) in [
        (2, 0, 100, false),
        (3, 0, 100, false),
        (3, 0, millis(5), false),
        (3, 200, 100, false),
        (3, 0, 100, true),
    ] {
        modes.extend(kinds.map(|(durability, pull)| Mode {
            durability,
            pull,
            loss,
            delay,
            death,
            ..Mode::new(nodes)
        }));
    }
    modes
}

/// The table that `sim modes` prints.
pub fn table(rows: &[(Mode, Figures)]) -> String {
    let mut text = format!(
        "{:<32} {:>5} {:>6} {:>8} {:>9} {:>9} {:>11} {:>11} {:>6} {:>10} {:>12} {:>7}\n",
        "nodes, mode",
        "tcp",
        "failed",
        "repeated",
        "open us",
        "max us",
        "udp lost",
        "burst lost",
        "moved",
        "held/late",
        "pulls/found",
        "frames"
    );
    for (mode, figures) in rows {
        let part = |(all, some): (u64, u64)| format!("{some}/{all}");
        text += &format!(
            "{:<32} {:>5} {:>6} {:>8} {:>9} {:>9} {:>11} {:>11} {:>6} {:>10} {:>12} {:>7.2}\n",
            mode.to_string(),
            figures.tcp,
            figures.failed,
            figures.repeated,
            figures.handshake,
            figures.longest,
            part(figures.singles),
            part(figures.bursts),
            figures.moved,
            format!("{}/{}", figures.held.0, figures.held.1),
            format!("{}/{}", figures.pulls.0, figures.pulls.1),
            figures.frames,
        );
        for violation in &figures.violations {
            text += &format!("    VIOLATION {violation}\n");
        }
    }
    text
}
