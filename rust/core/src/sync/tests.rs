//! The protocol on a small network, with a table that is a map.

mod laws;
pub(super) mod net;
mod partitions;
mod removals;
mod strangers;

use std::vec::Vec;

use proptest::prelude::*;

pub use net::session;
use net::*;

use super::*;
use crate::stats::Counter;
use crate::sync::digest::Field;
use crate::tuple::{Endpoint4, Endpoint6, Proto};

#[test]
fn alone_is_ready_after_the_join_timeout() {
    let mut net = Net::new();
    net.start(1);
    net.run(1990);
    assert!(!net.ready(1));
    net.run(20);
    assert_eq!(net.members[&1].sync.reason(), Reason::Alone);
}

#[test]
fn a_cold_cluster_becomes_ready_together() {
    let mut net = Net::new();
    (1..=3).for_each(|node| net.start(node));
    net.run(2100);
    assert!((1..=3).all(|node| net.ready(node)));
    for (node, of) in [(1, 2), (2, 3), (3, 1)] {
        assert_eq!(net.state(node, of), "up");
    }
}

#[test]
fn changes_reach_every_peer_within_the_deadline() {
    let mut net = Net::new();
    (1..=3).for_each(|node| net.start(node));
    net.run(3000);
    (0..100).for_each(|number| net.at(1).table.create(number));
    net.run(10);
    net.assert_equal();
    net.at(1).table.remove(7);
    net.run(10);
    assert_eq!(net.members[&3].table.sessions.len(), 99);
    net.assert_equal();
}

#[test]
fn who_joins_is_ready_once_it_has_the_table() {
    let mut net = Net::new();
    net.start(1);
    net.run(3000);
    (0..60_000).for_each(|number| net.at(1).table.create(number));
    net.start(2);
    let mut created = 60_000;
    while !net.ready(2) {
        // Traffic goes on meanwhile.
        net.at(1).table.create(created);
        net.at(1).table.remove(created - 50_000);
        created += 1;
        net.run(1);
        assert!(created < 62_000, "not ready");
    }
    assert_eq!(net.members[&2].sync.reason(), Reason::Fetched { node: 1 });
    net.run(10);
    net.assert_equal();
    // The one that had the table has nothing to fetch.
    assert_eq!(net.members[&2].table.stats.value(Counter::SnapshotSent), 0);
}

#[test]
fn who_joins_takes_the_table_of_who_was_cut_off_and_the_others_too() {
    let mut net = Net::new();
    net.start(2);
    net.run(3000);
    (0..100).for_each(|number| net.at(2).table.create(number));
    // Node 1 starts where it hears nobody, and comes back when node 3 starts, which node 2 is late
    // to hear.
    net.cut.extend([(1, 2), (2, 1), (1, 3), (3, 1)]);
    net.start(1);
    net.run(3000);
    assert!(net.ready(1) && net.members[&1].table.sessions.is_empty());
    net.cut = [(3, 2)].into();
    net.start(3);
    while net.members[&3].sync.joined.is_none() {
        net.step();
    }
    net.cut.clear();
    assert_eq!((net.ready(3), net.state(3, 2)), (false, "joining"));
    while !net.ready(3) {
        net.step();
    }
    assert_eq!(net.members[&3].table.sessions.len(), 100);
    assert_eq!(net.members[&3].sync.reason(), Reason::Fetched { node: 1 });
    // A peer that says that it is ready and gives nothing isn't waited for longer than it may.
    net.cut.insert((4, 1));
    net.start(4);
    let started = net.now;
    net.at(1).sync.hello_soon(started);
    while !net.ready(4) {
        net.step();
    }
    assert!((10_000..10_100).contains(&net.now.millis_since(started)));
    let reason = net.members[&4].sync.reason();
    assert!(matches!(reason, Reason::Fetched { node: 2 | 3 }), "{reason}");
}

#[test]
fn lost_frames_only_delay() {
    for (seed, loss) in [(1, 100), (2, 300), (3, 500)] {
        let mut net = Net::new();
        (net.loss, net.random) = (loss, seed);
        net.start(1);
        net.start(2);
        net.run(4000);
        let mut created = 0;
        for round in 0..400 {
            (0..40).for_each(|i| net.at(1).table.create(created + i));
            created += 40;
            if round == 100 {
                net.start(3);
            }
            net.run(5);
        }
        net.run(20_000);
        assert!((1..=3).all(|node| net.ready(node)), "loss {loss}");
        net.assert_equal();
        assert!(net.members[&2].table.stats.value(Counter::FrameGap) > 0);
    }
}

#[test]
fn a_difference_is_named_and_nothing_is_exchanged() {
    let mut other = config();
    other.global.udp_timeout += 1;
    let mut net = Net::new();
    net.start(1);
    net.run(3000);
    net.at(1).table.create(1);
    net.start_with(2, &other);
    net.run(15_000);
    let told = Event::Mismatch { node: 1, field: Field::Timeouts };
    assert_eq!(net.members[&2].events.iter().filter(|&&event| event == told).count(), 1);
    assert_eq!(net.state(2, 1), "differs");
    // Whoever has the sessions stays the one that is ready.
    assert!(!net.ready(2));
    net.at(1).table.create(2);
    net.run(100);
    assert!(net.members[&2].table.sessions.is_empty());
    net.members.remove(&1);
    net.run(2000);
    assert!(net.ready(2));
}

#[test]
fn when_the_giver_dies_another_one_gives() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    (0..50_000).for_each(|number| net.at(1).table.create(number));
    net.run(200);
    net.start(3);
    while net.members.get(&3).unwrap().table.sessions.len() < 10_000 {
        net.step();
    }
    let Reason::Fetching { node } = net.members[&3].sync.reason() else { panic!("not fetching") };
    net.members.remove(&node);
    net.run(5000);
    assert_eq!(net.members[&3].sync.reason(), Reason::Fetched { node: 3 - node });
    net.assert_equal();
}

#[test]
fn without_its_giver_a_node_is_ready_with_what_it_has() {
    let mut net = Net::new();
    net.start(1);
    net.run(3000);
    (0..50_000).for_each(|number| net.at(1).table.create(number));
    net.start(2);
    while net.members[&2].table.sessions.len() < 10_000 {
        net.step();
    }
    net.members.remove(&1);
    net.run(1000);
    assert!(!net.ready(2), "its giver may only be slow");
    net.run(2000);
    assert_eq!(net.members[&2].sync.reason(), Reason::Alone);
}

#[test]
fn who_stands_apart_is_heard_and_ready_only_when_it_takes_part() {
    let mut net = Net::new();
    net.start(1);
    net.run(5000);
    (0..10).for_each(|number| net.at(1).table.create(number));
    net.start(2);
    net.at(2).sync.stand_apart();
    (10..20).for_each(|number| net.at(2).table.create(number));
    net.run(20_000);
    assert!(!net.ready(2));
    assert_eq!(net.members[&1].sync.peers(net.now).count(), 0, "it isn't heard");
    assert!(net.members[&2].table.sessions.len() == 10, "nor does it hear");
    net.at(2).sync.take_part();
    net.run(3000);
    assert!(net.ready(2));
    net.assert_equal();
    assert_eq!(net.members[&1].table.sessions.len(), 20);
    // What node 1 got of its only peer is news to nobody else, so it has nobody compare.
    net.run(10_000);
    let compares = |event: &Event| matches!(event, Event::ComparisonStarted { .. });
    assert!(net.members[&1].events.iter().any(compares));
    assert!(!net.members[&2].events.iter().any(compares), "{:?}", net.members[&2].events);
}

/// Its caller has much to do and lets frames wait, which are no peer's silence.
#[test]
fn who_is_busy_takes_nobody_for_dead() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(5000);
    let node = |net: &mut Net, ms: u64| {
        let (now, member) = (net.now + ms, net.members.get_mut(&1).unwrap());
        member.sync.handle_timeout(now, &mut member.table);
        now
    };
    for ms in (50..10_000).step_by(50) {
        let now = node(&mut net, ms);
        let due = net.members[&1].sync.poll_timeout();
        assert!(due.is_none_or(|at| at > now), "it has to be called again at once");
    }
    // It sends first and reads then what the peer has said meanwhile.
    net.now = node(&mut net, 10_000);
    let now = net.now;
    while net.at(1).sync.poll_transmit(now, &mut Model::default()).is_some() {}
    node(&mut net, 50);
    assert_eq!(net.state(1, 2), "up");
    // Nor does a peer count for ever that can't be told anything.
    for _ in 0..20_000 / 50 {
        net.now = node(&mut net, 50);
    }
    assert_eq!(net.state(1, 2), "down");
}

#[test]
fn who_is_dead_is_found_out_by_who_was_busy() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(5000);
    net.members.remove(&2);
    for _ in 0..20 {
        net.now = net.now + 50;
        let (now, Member { sync, table, .. }) = (net.now, net.at(1));
        sync.handle_timeout(now, table);
    }
    net.run(2_000);
    assert_eq!(net.state(1, 2), "down");
}

#[test]
fn who_was_frozen_while_it_listened_listens_on() {
    for asleep in [3000, 60_000] {
        let mut net = Net::new();
        net.start(1);
        net.run(3000);
        (0..100).for_each(|number| net.at(1).table.create(number));
        net.start(2);
        net.step();
        // Nothing runs, on neither machine; then timers come first.
        net.now = net.now + asleep;
        let now = net.now;
        let Member { sync, table, .. } = net.at(2);
        sync.handle_timeout(now, table);
        assert!(!net.ready(2));
        net.run(200);
        assert_eq!(net.members[&2].sync.reason(), Reason::Fetched { node: 1 });
        assert_eq!(net.members[&2].table.sessions.len(), 100);
    }
}

#[test]
fn who_does_not_listen_yet_is_not_alone() {
    let mut net = Net::new();
    net.start(1);
    let Member { sync, table, .. } = net.members.get_mut(&1).unwrap();
    // Its HELLO isn't fetched: who drives it is busy for 1.5 s.
    let mut now = net.now;
    let fetched = now + 1500;
    while now < fetched {
        now = now + 1;
        sync.handle_timeout(now, table);
    }
    while sync.poll_transmit(now, table).is_some() {}
    net.now = now;
    net.run(1950);
    assert!(!net.ready(1));
    net.run(100);
    assert_eq!(net.members[&1].sync.reason(), Reason::Alone);
}

#[test]
fn who_was_frozen_takes_nobody_for_dead() {
    let mut net = Net::new();
    (1..=2).for_each(|node| net.start(node));
    net.run(3000);
    net.now = net.now + 10_000;
    let now = net.now;
    for node in 1..=2 {
        let Member { sync, table, .. } = net.at(node);
        sync.handle_timeout(now, table);
        assert_eq!(net.state(node, 3 - node), "up");
    }
    // Who doesn't wake up is found out all the same.
    net.members.remove(&2);
    net.run(900);
    assert_eq!(net.state(1, 2), "up");
    net.run(1100);
    assert_eq!(net.state(1, 2), "down");
}

#[test]
fn a_deaf_node_does_not_become_ready_over_one_that_has_sessions() {
    let mut net = Net::new();
    net.start(1);
    net.run(3000);
    net.at(1).table.create(1);
    net.start(2);
    net.run(300);
    // Node 2 hears node 1, but cannot make itself heard.
    net.members.remove(&2);
    net.cut.insert((2, 1));
    net.start(2);
    net.run(9000);
    assert!(!net.ready(2), "a candidate is heard");
    net.run(2000);
    assert!(net.ready(2), "patience ends");
}

#[test]
fn peers_compare_tables_when_they_are_asked_to() {
    let mut net = Net::new();
    (1..=3).for_each(|node| net.start(node));
    net.run(3000);
    let news = session(7, 1);
    net.at(1).table.learn(Time::ZERO, &news);
    net.run(5000);
    assert!(net.members[&2].table.sessions.is_empty(), "nobody knows that there is anything");
    let now = net.now;
    net.at(1).sync.advertise(now);
    net.run(500);
    assert!(net.members[&2].table.sessions.contains_key(&news.key));
    net.assert_equal();
}

#[test]
fn who_leaves_is_gone_at_once() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    net.at(1).table.create(1);
    net.at(1).sync.leave();
    net.run(3);
    assert_eq!(net.members[&2].table.sessions.len(), 1, "changes go first");
    assert_eq!(net.state(2, 1), "down");
    assert!(net.members[&2].events.contains(&Event::PeerLeft { node: 1 }));
    net.run(1000);
    assert_eq!(net.members[&1].sync.poll_timeout(), None);
}

#[test]
fn a_full_frame_does_not_wait() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    (0..40).for_each(|number| net.at(1).table.create(number));
    net.run(2);
    assert_eq!(net.members[&2].table.sessions.len(), 34);
    net.run(6);
    net.assert_equal();
}

#[test]
fn what_waits_behind_sessions_that_have_ended_does_not_wait_for_another_deadline() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    net.at(1).table.ended = 10;
    net.at(1).table.create(1);
    // The deadline, each step that comes to nothing, and the way.
    net.run(5 + 10 + 2);
    assert_eq!(net.members[&2].table.sessions.len(), 1);
    net.assert_equal();
}

#[test]
fn as_many_as_may_share_a_frame_do_not_wait_for_others() {
    let mut net = Net::new();
    net.max_sessions_per_frame = Some(8);
    net.start(1);
    net.start(2);
    net.run(3000);
    net.recorded.clear();
    (0..20).for_each(|number| net.at(1).table.create(number));
    net.run(2);
    assert_eq!(net.members[&2].table.sessions.len(), 16);
    net.run(6);
    net.assert_equal();
    let mut keyring = Keyring::new(&[[1; 32]], &SyncConfig::new(3, "campus", 99)).unwrap();
    let frames = net.recorded.iter().map(|bytes| keyring.open(bytes).unwrap().header);
    let updates = frames.filter(|header| header.kind == frame::Kind::Update);
    assert_eq!(updates.map(|header| header.count).collect::<Vec<_>>(), [8, 8, 4]);
}

#[test]
fn a_lost_last_update_is_noticed_soon() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    net.at(1).table.create(1);
    net.loss = 1000;
    net.run(10);
    net.loss = 0;
    net.run(60);
    net.assert_equal();
    assert_eq!(net.members[&2].table.sessions.len(), 1);
}

#[test]
fn each_field_that_differs_is_named_and_no_obstacle_where_it_is_allowed() {
    for &field in Field::ALL {
        let mut other = config();
        match field {
            Field::Pool6 => other.pool6 = "2001:db8:64::/96".parse().unwrap(),
            Field::Pool4 => other.pool4[0].ports.min += 1,
            Field::Bib => other.bib.push(crate::config::StaticBib {
                protocol: Proto::Udp,
                ipv6: Endpoint6 { addr: "2001:db8::8".parse().unwrap(), port: 53 },
                ipv4: Endpoint4 { addr: "192.0.2.1".parse().unwrap(), port: 61_053 },
            }),
            Field::Timeouts => other.global.tcp_est_timeout += 1,
            Field::Filtering => other.global.address_dependent_filtering ^= true,
        }
        for allowed in [false, true] {
            let mut net = Net::new();
            if allowed {
                net.allow_mismatch.push(field);
            }
            net.start(1);
            net.start_with(2, &other);
            net.run(3000);
            net.at(1).table.create(1);
            net.run(100);
            for (node, peer) in [(1, 2), (2, 1)] {
                let told = Event::Mismatch { node: peer, field };
                let named = net.members[&node].events.contains(&told);
                assert_eq!(
                    (named, net.state(node, peer)),
                    match allowed {
                        true => (false, "up"),
                        false => (true, "differs"),
                    }
                );
            }
            assert_eq!(net.members[&2].table.sessions.len(), usize::from(allowed), "{field}");
        }
    }
}
