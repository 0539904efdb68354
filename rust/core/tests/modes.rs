//! Durability, PULL and active/active: whole nodes, packets on one side, frames on the other.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use common::*;
use jsync_core::node::Node;
use jsync_core::packet::{HEADROOM, Offload, Outcome, Packet};
use jsync_core::stats::{Counter, DropReason};
use jsync_core::sync::{Durability, Keyring, SyncConfig};
use jsync_core::table::{SessionRecord, State};
use jsync_core::time::Time;
use jsync_core::tuple::Proto;

const SLICES: &str = r#"{"prefix": "192.0.2.1", "ports": "2000-2999", "node": 1},
    {"prefix": "192.0.2.2", "ports": "2000-2999", "node": 2},
    {"prefix": "192.0.2.3", "ports": "2000-2999", "node": 3}"#;
const SHARED: &str = r#"{"prefix": "192.0.2.1", "ports": "2000-2999"}"#;

fn from6(l4: L4) -> Wire {
    Wire::V6(n6(), embed(n4()), l4)
}

struct Member {
    node: Node,
    keyring: Keyring,
    /// The frames that the network has taken.
    seq: u64,
}

/// Nodes 1, 2 … on a network that takes a millisecond.
struct Net {
    now: Time,
    members: Vec<Member>,
    wire: VecDeque<(Time, usize, Vec<u8>)>,
    /// No frame gets from the first to the second.
    cut: Vec<(usize, usize)>,
    /// The transports take no frames.
    stuck: bool,
    /// Packets that left later than they came, and when.
    left: Vec<(usize, Time, Wire)>,
}

impl Net {
    fn new(nodes: u16, pool4: &str, more: &str, change: impl Fn(&mut SyncConfig)) -> Self {
        let members = (1..=nodes).map(|number| {
            let json =
                format!(r#"{{"node": {number}, "pool4": [{pool4}], "max-sessions": 5000 {more}}}"#);
            let mut sync = SyncConfig::new(number, "campus", number.into());
            sync.plaintext = true;
            change(&mut sync);
            let keyring = Keyring::new(&[], &sync).unwrap();
            let nat64 = serde_json::from_str(&json).unwrap();
            let node = Node::new(nat64, Some(sync), &[number as u8; 32]).unwrap();
            Member { node, keyring, seq: 0 }
        });
        let mut net = Self {
            now: Time::from_millis(10_000),
            members: members.collect(),
            wire: VecDeque::new(),
            cut: Vec::new(),
            stuck: false,
            left: Vec::new(),
        };
        net.run(4000);
        for member in &net.members {
            assert!(member.node.ready());
            assert!(member.node.peers(net.now).all(|peer| peer.state == "up"));
        }
        net
    }

    fn node(&mut self, number: usize) -> &mut Node {
        &mut self.members[number - 1].node
    }

    fn count(&self, number: usize, counter: Counter) -> u64 {
        self.members[number - 1].node.nat64().stats.value(counter)
    }

    fn drops(&self, number: usize, reason: DropReason) -> u64 {
        self.members[number - 1].node.nat64().stats.dropped(reason)
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    /// A millisecond.
    fn step(&mut self) {
        self.now = self.now + 1;
        let now = self.now;
        while self.wire.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, to, bytes) = self.wire.pop_front().unwrap();
            let Member { node, keyring, .. } = &mut self.members[to - 1];
            if let Ok(frame) = keyring.open(&bytes) {
                node.handle_frame(now, &frame);
            }
        }
        for number in 1..=self.members.len() {
            self.drain(number);
        }
    }

    fn drain(&mut self, number: usize) {
        let (now, count) = (self.now, self.members.len());
        let Member { node, keyring, seq } = &mut self.members[number - 1];
        while node.poll_timeout().is_some_and(|due| due <= now) {
            node.handle_timeout(now);
        }
        if !self.stuck {
            node.handle_sent(now, *seq);
            while let Some(transmit) = node.poll_transmit(now) {
                let to = usize::from(transmit.to());
                *seq = transmit.header().seq;
                let bytes = keyring.seal(transmit);
                for peer in (1..=count).filter(|&peer| peer != number) {
                    if (to == 0 || to == peer) && !self.cut.contains(&(number, peer)) {
                        self.wire.push_back((now + 1, peer, bytes.clone()));
                    }
                }
            }
        }
        while let Some(packet) = node.poll_packet() {
            self.left.push((number, now, Wire::read(&packet.bytes)));
        }
    }

    /// A packet comes to a node; what it is translated to, if it leaves at once.
    fn send(&mut self, number: usize, bytes: &[u8]) -> Option<Wire> {
        let (outcome, packet) = self.outcome(number, bytes);
        (outcome == Outcome::Forward).then(|| Wire::read(&packet))
    }

    fn outcome(&mut self, number: usize, bytes: &[u8]) -> (Outcome, Vec<u8>) {
        let now = self.now;
        let mut buffer = vec![0xee; HEADROOM];
        buffer.extend(bytes);
        let mut burst = [Packet::new(&mut buffer, HEADROOM, bytes.len(), Offload::default())];
        self.node(number).handle_packets(now, &mut burst);
        let result = (burst[0].outcome, burst[0].bytes().to_vec());
        self.drain(number);
        result
    }

    /// What has left since the last call, and how many milliseconds after `since`.
    fn departures(&mut self, since: Time) -> Vec<(usize, u64, Wire)> {
        let left = self.left.drain(..);
        left.map(|(number, at, wire)| (number, at.millis_since(since), wire)).collect()
    }

    fn sessions(&self, number: usize) -> Vec<SessionRecord> {
        let mut found = Vec::new();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let nat64 = self.members[number - 1].node.nat64();
            cursor = nat64.scan(self.now, at, 1000, &mut |session| found.push(session));
        }
        found.sort_unstable_by_key(|session| session.key);
        found
    }

    /// The sessions of all nodes, which must be the same.
    fn agreed(&self) -> Vec<(SessionRecord, State)> {
        let keys = |number| {
            let sessions = self.sessions(number).into_iter();
            sessions.map(|session| (session.key, session.state)).collect::<Vec<_>>()
        };
        for number in 2..=self.members.len() {
            assert_eq!(keys(number), keys(1), "nodes {number} and 1");
        }
        self.sessions(1).into_iter().map(|session| (session, session.state)).collect()
    }
}

fn durable(durability: Durability) -> impl Fn(&mut SyncConfig) {
    move |sync| sync.durability = durability
}

/// Updates wait so long that a test sees what happens without them.
fn late(sync: &mut SyncConfig) {
    sync.flush_deadline = 60_000;
    sync.dead_interval = 60_000;
}

fn ports(wire: &Wire) -> (Ipv4Addr, u16) {
    match wire {
        Wire::V4(src, _, L4::Tcp { src: port, .. } | L4::Udp { src: port, .. }) => (*src, *port),
        other => panic!("{other:?}"),
    }
}

/// The IPv4 node's answer to a packet.
fn back(wire: &Wire, flags: u8) -> Wire {
    let (mask, port) = ports(wire);
    match wire {
        Wire::V4(_, to, L4::Tcp { dst, .. }) => Wire::V4(*to, mask, tcp(*dst, port, flags)),
        Wire::V4(_, to, L4::Udp { dst, .. }) => Wire::V4(*to, mask, udp(*dst, port)),
        other => panic!("{other:?}"),
    }
}

// ---- Durability ----

#[test]
fn an_opener_leaves_when_a_peer_has_its_session_and_holds_up_nobody() {
    let mut net = Net::new(2, SHARED, "", durable(Durability::Acked));
    let t0 = net.now;
    assert_eq!(net.send(1, &from6(tcp(5000, 80, SYN)).bytes()), None);
    // Others pass: of the same connection, and of those that peers know.
    assert!(net.send(1, &from6(tcp(5000, 80, SYN)).bytes()).is_some());
    net.run(1);
    assert!(net.departures(t0).is_empty());
    assert!(net.sessions(2).iter().any(|session| session.state == State::V6Init));
    net.run(3);
    let left = net.departures(t0);
    assert_eq!(left.len(), 1);
    let (number, after, wire) = &left[0];
    assert_eq!((*number, *after), (1, 2), "a way there and back");
    assert!(matches!(wire, Wire::V4(_, to, L4::Tcp { dst: 80, flags: SYN, .. }) if *to == n4()));
    // The answer is translated at once, by the other node too.
    assert!(net.send(2, &back(wire, SYN | ACK).bytes()).is_some());
    assert_eq!(net.count(1, Counter::HeldOpeners), 1);
    assert_eq!(net.count(1, Counter::HeldTimeouts), 0);
    assert_eq!(net.node(1).nat64().held_packets(), 0);
}

#[test]
fn openers_from_ipv4_are_held_too() {
    let bib =
        r#", "bib": [{"protocol": "udp", "ipv6": "2001:db8::8#53", "ipv4": "192.0.2.1#2000"}]"#;
    let mut net = Net::new(2, SHARED, bib, durable(Durability::Acked));
    let t0 = net.now;
    let query = Wire::V4(n4(), a4("192.0.2.1"), udp(5353, 2000));
    assert_eq!(net.send(1, &query.bytes()), None);
    net.run(5);
    let left = net.departures(t0);
    assert_eq!(left, [(1, 2, Wire::V6(embed(n4()), n6(), udp(5353, 53)))]);
}

#[test]
fn nothing_is_held_without_a_peer() {
    let mut net = Net::new(1, SHARED, "", durable(Durability::Acked));
    assert!(net.send(1, &from6(tcp(5000, 80, SYN)).bytes()).is_some());
    let mut net = Net::new(2, SHARED, "", durable(Durability::Acked));
    assert_eq!(net.send(1, &from6(tcp(5000, 80, SYN)).bytes()), None);
    net.cut = vec![(1, 2), (2, 1)];
    net.run(1600);
    net.left.clear();
    assert!(net.send(1, &from6(tcp(5001, 80, SYN)).bytes()).is_some(), "the peer is down");
    assert_eq!(net.count(1, Counter::HeldTimeouts), 1);
}

#[test]
fn a_lost_update_is_told_again_before_the_time_is_over() {
    let mut net = Net::new(2, SHARED, "", durable(Durability::Acked));
    let t0 = net.now;
    net.cut = vec![(1, 2)];
    assert_eq!(net.send(1, &from6(udp(5000, 53)).bytes()), None);
    net.cut.clear();
    net.run(20);
    assert_eq!(net.departures(t0).iter().map(|(_, after, _)| *after).collect::<Vec<_>>(), [12]);
    // A lost ACK likewise.
    let t0 = net.now;
    assert_eq!(net.send(1, &from6(udp(5001, 53)).bytes()), None);
    net.cut = vec![(2, 1)];
    net.run(3);
    net.cut.clear();
    net.run(17);
    assert_eq!(net.departures(t0).iter().map(|(_, after, _)| *after).collect::<Vec<_>>(), [12]);
}

/// Repeats that are on the network, as (receiver in the header, number of the update).
fn repeats(net: &Net) -> Vec<(u8, u64)> {
    let updates = net.wire.iter().filter(|(.., bytes)| bytes[5] == 3);
    let read = |bytes: &[u8]| (bytes[15], u64::from_be_bytes(bytes[36..44].try_into().unwrap()));
    updates.map(|(.., bytes)| read(bytes)).collect()
}

#[test]
fn a_lost_update_holds_up_no_openers_but_its_own() {
    let mut net = Net::new(3, SLICES, "", durable(Durability::Acked));
    let t0 = net.now;
    net.cut = vec![(1, 2)];
    assert_eq!(net.send(1, &from6(udp(5000, 53)).bytes()), None);
    net.cut.clear();
    let first = repeats(&net)[0].1;
    net.step();
    for port in [5001, 5002] {
        assert_eq!(net.send(1, &from6(udp(port, 53)).bytes()), None);
    }
    net.run(8);
    let left = net.departures(t0);
    let told: Vec<_> = left.iter().map(|(_, after, wire)| (*after, ports(wire).0)).collect();
    assert_eq!(told, [(3, a4("192.0.2.1")); 2]);
    // Who has it isn't told again.
    net.step();
    assert_eq!(repeats(&net), [(2, first)]);
    net.run(10);
    assert_eq!(net.departures(t0).iter().map(|(_, after, _)| *after).collect::<Vec<_>>(), [12]);
    assert_eq!(net.count(1, Counter::HeldTimeouts), 0);
}

#[test]
fn an_ack_that_was_overtaken_takes_nothing_back() {
    let mut net = Net::new(3, SLICES, "", durable(Durability::Acked));
    let t0 = net.now;
    net.cut = vec![(3, 1)];
    assert_eq!(net.send(1, &from6(udp(5000, 53)).bytes()), None);
    net.step();
    let ack = net.wire.iter().position(|(.., bytes)| bytes[5] == 9).unwrap();
    let first = net.wire.remove(ack);
    assert_eq!(net.send(1, &from6(udp(5001, 53)).bytes()), None);
    net.run(3);
    net.wire.extend(first);
    net.cut.clear();
    net.run(6);
    assert!(net.departures(t0).is_empty());
    let mut repeated = Vec::new();
    for _ in 0..4 {
        repeated.extend(repeats(&net).iter().map(|(to, _)| *to));
        net.step();
    }
    assert_eq!(repeated, [3, 3], "node 2 has both");
    assert_eq!(net.departures(t0).iter().map(|(_, after, _)| *after).collect::<Vec<_>>(), [12, 12]);
}

#[test]
fn no_opener_waits_longer_than_it_may() {
    for durability in [Durability::Sent, Durability::Acked] {
        let mut net = Net::new(2, SHARED, "", durable(durability));
        let t0 = net.now;
        net.stuck = true;
        for port in 5000..5010 {
            assert_eq!(net.send(1, &from6(udp(port, 53)).bytes()), None);
        }
        net.run(60);
        let left = net.departures(t0);
        assert_eq!(left.len(), 10);
        assert!(left.iter().all(|(_, after, _)| *after == 50), "{left:?}");
        assert_eq!(net.count(1, Counter::HeldTimeouts), 10);
        net.stuck = false;
        net.run(20);
        assert!(net.departures(t0).is_empty());
        assert_eq!(net.agreed().len(), 10);
    }
}

#[test]
fn sent_means_that_the_network_has_it() {
    let mut net = Net::new(2, SHARED, "", durable(Durability::Sent));
    let t0 = net.now;
    net.stuck = true;
    assert_eq!(net.send(1, &from6(udp(5000, 53)).bytes()), None);
    net.run(10);
    assert!(net.departures(t0).is_empty());
    (net.stuck, net.cut) = (false, vec![(1, 2)]);
    net.run(2);
    let left = net.departures(t0);
    assert_eq!(left.len(), 1, "sent, although it is lost");
    assert_eq!(left[0].1, 12);
}

#[test]
fn a_full_store_holds_no_more_and_says_so() {
    let mut net = Net::new(2, r#"{"prefix": "192.0.2.1"}"#, "", durable(Durability::Acked));
    net.stuck = true;
    let at_once = (0..2100).filter(|n| net.send(1, &from6(udp(5000 + n, 53)).bytes()).is_some());
    assert_eq!(at_once.count(), 2100 - 2048);
    assert_eq!(net.count(1, Counter::HeldFull), 2100 - 2048);
    net.run(60);
    assert_eq!(net.left.len(), 2048);
    assert_eq!(net.drops(1, DropReason::QueueFull), 0);
}

#[test]
fn a_hairpinned_opener_waits_for_both_sessions() {
    let bib =
        r#", "bib": [{"protocol": "tcp", "ipv6": "2001:db8::9#80", "ipv4": "192.0.2.1#2080"}]"#;
    let mut net = Net::new(2, SHARED, bib, durable(Durability::Acked));
    let t0 = net.now;
    let syn = Wire::V6(n6(), embed(a4("192.0.2.1")), tcp(5000, 2080, SYN));
    assert_eq!(net.send(1, &syn.bytes()), None);
    net.run(1);
    assert_eq!(net.sessions(2).len(), 2);
    net.run(4);
    let left = net.departures(t0);
    assert_eq!(left.len(), 1);
    assert!(
        matches!(&left[0].2, Wire::V6(_, to, L4::Tcp { dst: 80, .. }) if *to == a6("2001:db8::9"))
    );
}

/// A fragment of a UDP datagram from n6, by hand.
fn fragment(first: bool) -> Vec<u8> {
    let whole = Wire::V6(n6(), embed(n4()), L4::Udp { src: 5000, dst: 53, payload: vec![7; 56] });
    let whole = whole.bytes();
    let part = if first { &whole[40..72] } else { &whole[72..] };
    let mut out = whole[..40].to_vec();
    out[4..6].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
    out[6] = 44;
    let offset: u16 = if first { 1 } else { 32 };
    out.extend([17, 0, (offset >> 8) as u8, offset as u8, 0, 0, 0, 9]);
    out.extend(part);
    out
}

#[test]
fn the_fragments_of_an_opener_wait_with_it() {
    let mut net = Net::new(2, SHARED, "", durable(Durability::Acked));
    assert_eq!(net.outcome(1, &fragment(true)).0, Outcome::Consumed);
    assert_eq!(net.outcome(1, &fragment(false)).0, Outcome::Consumed);
    assert_eq!(net.node(1).nat64().held_packets(), 1);
    let now = net.now;
    net.now = now + 1;
    let deliver: Vec<_> = net.wire.drain(..).collect();
    for (_, to, bytes) in deliver {
        let Member { node, keyring, .. } = &mut net.members[to - 1];
        node.handle_frame(now + 1, &keyring.open(&bytes).unwrap());
    }
    let ack = core::iter::from_fn(|| net.members[1].node.poll_transmit(now + 1)).next().unwrap();
    let ack = net.members[1].keyring.seal(ack);
    let Member { node, keyring, .. } = &mut net.members[0];
    node.handle_frame(now + 2, &keyring.open(&ack).unwrap());
    let left: Vec<_> = core::iter::from_fn(|| node.poll_packet()).collect();
    assert_eq!(left.iter().map(|packet| packet.bytes.len()).collect::<Vec<_>>(), [52, 52]);
}

// ---- Removals ----

#[test]
fn a_session_that_ended_while_a_peer_was_cut_off_ends_there_too() {
    for nodes in [2, 3] {
        let mut net = Net::new(nodes, SHARED, "", |_| {});
        for port in [5000, 5001] {
            assert!(net.send(1, &from6(udp(port, 53)).bytes()).is_some());
        }
        net.run(100);
        assert_eq!(net.agreed().len(), 2);
        net.cut = (1..=3).flat_map(|other| [(2, other), (other, 2)]).collect();
        net.run(2000);
        let src6 = format!("{}#5000", n6()).parse().unwrap();
        net.node(1).nat64_mut().bib_remove(Proto::Udp, Some(src6), None).unwrap();
        net.run(40_000);
        assert_eq!((net.sessions(1).len(), net.sessions(2).len()), (1, 2));
        net.cut.clear();
        net.run(3000);
        assert_eq!(net.agreed().len(), 1);
        assert_eq!(net.count(2, Counter::SessionsUnlearned), 1);
    }
}

// ---- PULL ----

#[test]
fn a_packet_from_ipv4_waits_for_the_session_in_another_nodes_slice() {
    let mut net = Net::new(3, SLICES, "", late);
    let syn = net.send(1, &from6(tcp(5000, 80, SYN)).bytes()).unwrap();
    assert_eq!(ports(&syn).0, a4("192.0.2.1"), "its own slice");
    net.run(2);
    assert!(net.sessions(2).is_empty());
    let t0 = net.now;
    assert_eq!(net.send(2, &back(&syn, SYN | ACK).bytes()), None);
    net.run(5);
    let left = net.departures(t0);
    assert_eq!(left, [(2, 2, Wire::V6(embed(n4()), n6(), tcp(80, 5000, SYN | ACK)))]);
    assert_eq!(net.sessions(2)[0].state, State::Established);
    assert_eq!(net.count(2, Counter::PullsFound), 1);
    // Only the owner was asked.
    assert_eq!([1, 3].map(|node| net.count(node, Counter::PullsServed)), [1, 0]);
}

#[test]
fn a_segment_from_ipv6_waits_for_the_session_of_any_peer() {
    let mut net = Net::new(3, SLICES, "", late);
    let syn = net.send(1, &from6(tcp(5000, 80, SYN)).bytes()).unwrap();
    net.send(1, &back(&syn, SYN | ACK).bytes()).unwrap();
    let t0 = net.now;
    assert_eq!(net.send(3, &from6(tcp(5000, 80, ACK)).bytes()), None);
    net.run(5);
    let left = net.departures(t0);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].0, left[0].1, ports(&left[0].2)), (3, 2, ports(&syn)));
    assert_eq!([1, 2].map(|node| net.count(node, Counter::PullsServed)), [1, 1]);
}

#[test]
fn a_filtered_packet_waits_for_the_session_that_lets_it_pass() {
    let filtering = r#", "global": {"address-dependent-filtering": true}"#;
    let mut net = Net::new(2, SLICES, filtering, |_| ());
    net.send(1, &Wire::V6(n6(), embed(a4("203.0.113.77")), udp(5000, 53)).bytes()).unwrap();
    net.run(10);
    // The mapping is known at both; the next session is made here and answered there.
    let query = net.send(1, &from6(udp(5000, 53)).bytes()).unwrap();
    assert_eq!(net.send(2, &back(&query, 0).bytes()), None);
    net.run(5);
    assert_eq!(net.left.len(), 1);
    // Who was never written to stays outside.
    let stranger = Wire::V4(a4("203.0.113.99"), ports(&query).0, udp(53, ports(&query).1));
    assert_eq!(net.send(2, &stranger.bytes()), None);
    net.run(5);
    assert_eq!((net.left.len(), net.drops(2, DropReason::Filtered)), (1, 1));
}

#[test]
fn what_nobody_has_is_dropped_as_ever_and_a_scan_costs_little() {
    let mut net = Net::new(2, SLICES, "", |_| ());
    let scan = |port| Wire::V4(n4(), a4("192.0.2.1"), udp(9, port)).bytes();
    let mut asked = 0;
    for port in 2000..3000 {
        let (outcome, _) = net.outcome(2, &scan(port));
        asked += u64::from(outcome == Outcome::Consumed);
        if port % 10 == 0 {
            net.run(1);
        }
    }
    net.run(10);
    assert!((128..200).contains(&asked), "{asked} questions");
    assert_eq!(net.drops(2, DropReason::NoBib), 1000);
    assert_eq!(net.count(2, Counter::PullsMissed), asked);
    assert_eq!(net.count(2, Counter::PullsSuppressed), 1000 - asked);
    // Others are asked for meanwhile, and the scanner too once it has stopped for a while.
    let other = Wire::V4(a4("203.0.113.5"), a4("192.0.2.1"), udp(9, 2000));
    assert_eq!(net.outcome(2, &other.bytes()).0, Outcome::Consumed);
    net.run(1300);
    assert_eq!(net.outcome(2, &scan(2001)).0, Outcome::Consumed);
    assert!(net.left.is_empty());
}

#[test]
fn nobody_is_asked_for_ones_own_slice_or_that_of_the_dead() {
    let mut net = Net::new(2, SLICES, "", |_| ());
    for (address, asked) in [("192.0.2.2", 0), ("192.0.2.3", 0), ("192.0.2.1", 1)] {
        net.send(2, &Wire::V4(n4(), a4(address), udp(9, 2000)).bytes());
        net.run(5);
        assert_eq!(net.count(1, Counter::PullsServed), asked, "{address}");
    }
    assert_eq!(net.drops(2, DropReason::NoBib), 3);
}

#[test]
fn an_answer_that_never_comes_costs_the_packet_only() {
    let mut net = Net::new(2, SLICES, "", |_| ());
    net.cut = vec![(1, 2)];
    let t0 = net.now;
    net.send(2, &Wire::V4(n4(), a4("192.0.2.1"), udp(9, 2000)).bytes());
    net.run(99);
    assert_eq!(net.node(2).nat64().held_packets(), 1);
    net.run(2);
    assert_eq!(net.node(2).nat64().held_packets(), 0);
    assert_eq!((net.count(2, Counter::PullTimeouts), net.drops(2, DropReason::NoBib)), (1, 1));
    assert!(net.departures(t0).is_empty());
}

// ---- Active/active ----

#[test]
fn packets_of_one_node_at_two_at_once_end_with_one_mapping() {
    let mut net = Net::new(2, SLICES, "", durable(Durability::Acked));
    let t0 = net.now;
    assert_eq!(net.send(1, &from6(udp(5000, 53)).bytes()), None);
    assert_eq!(net.send(2, &from6(udp(5000, 53)).bytes()), None);
    net.run(10);
    let left = net.departures(t0);
    let masks: Vec<_> = left.iter().map(|(node, _, wire)| (*node, ports(wire))).collect();
    assert_eq!(masks.len(), 2);
    assert_eq!(masks[0].1, masks[1].1, "the mapping that stayed");
    net.run(100);
    let sessions = net.agreed();
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].0.key.src4.addr, sessions[0].0.key.src4.port), masks[0].1);
    for node in [1, 2] {
        assert!(net.send(node, &back(&left[0].2, 0).bytes()).is_some());
        let next = net.send(node, &from6(udp(5000, 53)).bytes()).unwrap();
        assert_eq!(ports(&next), masks[0].1);
    }
}

#[test]
fn a_dead_nodes_sessions_go_on_and_new_ones_come_from_the_own_slice() {
    let mut net = Net::new(2, SLICES, "", |_| ());
    let syn = net.send(1, &from6(tcp(5000, 80, SYN)).bytes()).unwrap();
    net.run(10);
    net.cut = vec![(1, 2), (2, 1)];
    net.run(2000);
    let answer = net.send(2, &back(&syn, SYN | ACK).bytes()).unwrap();
    assert_eq!(answer, Wire::V6(embed(n4()), n6(), tcp(80, 5000, SYN | ACK)));
    assert_eq!(ports(&net.send(2, &from6(tcp(5000, 80, ACK)).bytes()).unwrap()), ports(&syn));
    for port in 6000..7000 {
        let syn = net.send(2, &from6(tcp(port, 80, SYN)).bytes()).unwrap();
        assert_eq!(ports(&syn).0, a4("192.0.2.2"));
    }
    // Its own slice is given away; the dead node's is not.
    assert_eq!(net.send(2, &from6(tcp(7000, 80, SYN)).bytes()), None);
    assert_eq!(net.drops(2, DropReason::Pool4Exhausted), 1);
}

#[test]
fn a_connection_opened_from_both_sides_at_two_nodes_is_established() {
    let bib =
        r#", "bib": [{"protocol": "tcp", "ipv6": "2001:db8::8#80", "ipv4": "192.0.2.1#2080"}]"#;
    for durability in [Durability::Async, Durability::Acked] {
        let mut net = Net::new(2, SLICES, bib, durable(durability));
        let from4 = Wire::V4(n4(), a4("192.0.2.1"), tcp(9000, 2080, SYN));
        let from6 = Wire::V6(n6(), embed(n4()), tcp(80, 9000, SYN));
        net.send(1, &from4.bytes());
        net.send(2, &from6.bytes());
        net.run(50);
        let sessions = net.agreed();
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions[0].1, State::Established, "{durability:?}");
    }
}

#[test]
fn a_stored_syn_meets_the_other_that_came_to_a_peer() {
    let more = r#", "global": {"address-dependent-filtering": true}"#;
    let mut net = Net::new(2, SLICES, more, |sync| sync.pull = Some(false));
    // n6 has a mapping, since it wrote to somebody else.
    let other = Wire::V6(n6(), embed(a4("203.0.113.77")), tcp(5000, 80, SYN));
    let (mask, port) = ports(&net.send(1, &other.bytes()).unwrap());
    net.run(10);
    let from4 = Wire::V4(n4(), mask, tcp(9000, port, SYN));
    assert_eq!(net.outcome(1, &from4.bytes()).0, Outcome::Consumed);
    assert_eq!(net.count(1, Counter::SynsStored), 1);
    assert!(net.send(2, &Wire::V6(n6(), embed(n4()), tcp(5000, 9000, SYN)).bytes()).is_some());
    net.run(50);
    let sessions = net.agreed();
    let ours = sessions.iter().find(|(session, _)| session.key.dst4.addr == n4()).unwrap();
    assert_eq!(ours.1, State::Established);
    // Nobody is told that the port can't be reached.
    net.run(7000);
    assert_eq!(net.count(1, Counter::IcmpErrorsSent), 0);
    assert!(net.left.is_empty());
    assert_eq!(ours.0.key.proto, Proto::Tcp);
}

#[test]
fn an_answer_to_a_peers_syn_gives_no_port_away() {
    // Without PULL: the answer comes to node 2 before the update does.
    let mut net = Net::new(2, SLICES, "", |sync| {
        late(sync);
        sync.pull = Some(false);
    });
    let syn = net.send(1, &from6(tcp(5000, 80, SYN)).bytes()).unwrap();
    assert_eq!(net.send(2, &back(&syn, SYN | ACK).bytes()), None);
    assert_eq!(net.count(2, Counter::SynsStored), 0);
    // Nor does a true SYN to another node's slice, which is kept.
    let (mask, port) = ports(&syn);
    net.send(2, &Wire::V4(n4(), mask, tcp(80, port + 1, SYN)).bytes());
    assert_eq!(net.count(2, Counter::SynsStored), 1);
    let other = net.send(2, &from6(tcp(5001, 80, SYN)).bytes()).unwrap();
    assert_eq!(ports(&other).0, a4("192.0.2.2"));
}
