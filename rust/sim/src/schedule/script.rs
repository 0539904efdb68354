//! Schedules that chance doesn't lead to, since they take long or need much to come together. What
//! must hold is the same as in the random ones, and what each says of its own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jsync_core::mutant::Mutant;
use jsync_core::table::SessionKey;
use jsync_core::tuple::Proto;

use super::{Outcome, PACE, Plan, Player, TCP_PORT, show};
use crate::clock::{millis, seconds};
use crate::cluster::{N4, N6, Setup, Side};
use crate::network::Link;
use crate::rng::Rng;
use crate::vrrp::Role;

const J: usize = 0;
const K: usize = 1;
const L: usize = 2;

/// A schedule that is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// J, which prevails over K, was cut off and comes back. Frames take so long that it would be
    /// MASTER before it has what came to be meanwhile.
    BackFromIsolation,
    /// A connection ends while L is cut off; who ended it is gone when L comes back with its copy.
    EndedMeanwhile,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BackFromIsolation => "back-from-isolation",
            Self::EndedMeanwhile => "ended-meanwhile",
        })
    }
}

impl Script {
    /// All that are written down.
    pub const ALL: [Self; 2] = [Self::BackFromIsolation, Self::EndedMeanwhile];

    /// The one that shows a fault which random schedules don't.
    pub(super) fn meant_for(mutant: Mutant) -> Option<Self> {
        match mutant {
            Mutant::StaysInService => Some(Self::BackFromIsolation),
            Mutant::HidesRemovals => Some(Self::EndedMeanwhile),
            _ => None,
        }
    }

    /// Plays it; `follow` as in [`super::play`].
    pub fn play(self, follow: Option<&str>) -> Outcome {
        let (nodes, delay) = match self {
            Self::BackFromIsolation => (2, seconds(1)),
            Self::EndedMeanwhile => (3, millis(1)),
        };
        let link = Link { delay: delay..=delay, ..Link::good() };
        let mut player = Player::new(plan(nodes, link), Rng::new(0));
        player.follow = follow.map(str::to_string);
        for machine in 0..nodes {
            player.start(machine);
        }
        player.run(seconds(15));
        player.expect(player.is_master(J), "J is MASTER");
        match self {
            Self::BackFromIsolation => player.back_from_isolation(),
            Self::EndedMeanwhile => player.ended_meanwhile(),
        }
        if player.holds() {
            player.end();
        }
        player.outcome()
    }
}

/// Nothing gets lost, nothing happens by chance.
fn plan(nodes: usize, link: Link) -> Plan {
    Plan {
        nodes,
        length: 0,
        link,
        lossy: false,
        crashes: false,
        freezes: false,
        split_brain: false,
        packet_loss: 0,
        icmp_timeout: 3000,
        flush_deadline: 5,
        max_frame: 1400,
        hello_interval: 500,
        drain: false,
        spread: None,
    }
}

impl Player {
    fn back_from_isolation(&mut self) {
        self.apart = true;
        self.cluster.unplug(J);
        self.run(seconds(5));
        self.expect(self.is_master(K), "K takes over");
        (0..5).for_each(|_| _ = self.connect());
        self.run(seconds(5));
        let made = self.lasting(K);
        self.expect(made.len() == 5, "K has five connections");
        self.cluster.plug_in(J);
        // Invariant 4 looks whether J becomes MASTER without them.
        self.run(seconds(20));
        self.expect(self.is_master(J), "J is MASTER again");
        self.expect(self.lasting(J) == made, "J has K's connections");
    }

    fn ended_meanwhile(&mut self) {
        let connection = self.connect();
        self.run(seconds(5));
        let had = self.lasting(L);
        self.expect(had.len() == 1, "L has the connection");
        self.apart = true;
        self.cluster.unplug(L);
        self.cluster.on_host(Side::Six, |host, now| host.close(now, connection));
        let global = self.plan.setup(0).nat64.global;
        self.run(millis(u64::from(global.tcp_trans_timeout)) + seconds(20));
        self.expect(self.lasting(J).is_empty(), "it has ended at J");
        self.expect(self.lasting(K).is_empty(), "K was told");
        self.cluster.kill(J);
        self.run(seconds(5));
        self.expect(self.lasting(L) == had, "L still has it");
        self.cluster.plug_in(L);
        self.run(seconds(10));
        for machine in [K, L] {
            let name = self.cluster.machines()[machine].name();
            if let Some(key) = self.lasting(machine).first() {
                let text = format!("{name} has {}, whose end K was told of", show(key));
                self.violation(&text);
            }
        }
    }

    /// n6 opens a TCP connection to n4.
    fn connect(&mut self) -> u64 {
        let local = SocketAddr::new(N6.into(), self.next_port);
        self.next_port += 1;
        let n4 = IpAddr::V6(Setup::new(1, 0).nat64.pool6.embed(N4));
        let remote = SocketAddr::new(n4, TCP_PORT);
        self.cluster.on_host(Side::Six, |host, now| host.connect(now, local, remote, PACE))
    }

    /// A machine's sessions of TCP.
    fn lasting(&self, machine: usize) -> Vec<SessionKey> {
        let keys = self.cluster.table(machine).into_keys();
        keys.filter(|key| key.proto == Proto::Tcp).collect()
    }

    fn is_master(&self, machine: usize) -> bool {
        self.cluster.machines()[machine].role() == Role::Master
    }

    /// What the script takes for granted.
    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.violation(&format!("it doesn't hold that {what}"));
        }
    }
}
