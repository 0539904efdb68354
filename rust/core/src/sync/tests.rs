//! The protocol on a small network, with a table that is a map.

pub(super) mod net;

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
fn a_recording_of_an_earlier_incarnation_is_not_believed() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    net.at(2).table.create(1);
    net.run(10);
    let old = core::mem::take(&mut net.recorded);
    net.start(2);
    net.run(1000);
    let peer = |net: &Net| net.members[&1].sync.peers(net.now).next().unwrap();
    let epoch = peer(&net).epoch;
    assert_eq!(epoch, 3, "the new incarnation is");
    // Everything again, to everyone, even to a node that has forgotten all.
    for target in [1, 2] {
        for bytes in &old {
            net.deliver(target, bytes);
        }
        net.run(3);
    }
    net.run(500);
    assert_eq!((peer(&net).epoch, peer(&net).state), (epoch, "up"));
    assert!(net.members[&1].table.stats.value(Counter::FrameReplayed) > 0);
    net.members.remove(&1);
    net.start(1);
    net.members.remove(&2);
    for bytes in &old {
        net.deliver(1, bytes);
        net.step();
    }
    assert_eq!(net.state(1, 2), "joining");
    assert!(net.members[&1].table.sessions.is_empty());
}

#[test]
fn no_frame_is_taken_twice() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    let last = net.recorded.iter().rfind(|bytes| bytes[13] == 2).unwrap().clone();
    assert!(!net.deliver(1, &last));
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
fn a_healed_partition_leaves_equal_tables() {
    for third in [false, true] {
        let mut net = Net::new();
        net.start(1);
        net.start(2);
        if third {
            net.start(3);
        }
        net.run(3000);
        for peer in [2, 3] {
            net.cut.extend([(1, peer), (peer, 1)]);
        }
        (0..5000).for_each(|number| net.at(1).table.create(number));
        net.run(10_000);
        assert_eq!(net.state(1, 2), "down");
        (5000..90_000).for_each(|number| net.at(2).table.create(number));
        net.run(2000);
        net.cut.clear();
        net.run(10_000);
        assert_eq!((net.state(1, 2), net.state(2, 1)), ("up", "up"));
        net.assert_equal();
        assert!(net.ready(1) && net.ready(2));
    }
}

#[test]
fn who_is_heard_again_is_asked_when_it_listens() {
    let mut net = Net::new();
    (1..=3).for_each(|node| net.start(node));
    net.run(3000);
    net.cut.extend([(1, 2), (2, 1), (3, 2), (2, 3)]);
    net.run(2000);
    net.at(1).table.create(1);
    // Node 2 has just said HELLO when it hears node 1: the next goes 20 ms later.
    let wait_for_hello = |net: &mut Net| {
        let before = net.members[&2].sync.hello_sent;
        while net.members[&2].sync.hello_sent == before {
            net.step();
        }
        net.now
    };
    let said = wait_for_hello(&mut net);
    net.at(1).sync.hello_at = said + 100;
    wait_for_hello(&mut net);
    net.cut = [(3, 2), (2, 3)].into();
    let now = net.now;
    net.at(1).sync.hello_soon(now);
    net.at(2).events.clear();
    net.run(60);
    let events = &net.members[&2].events;
    assert!(events.contains(&Event::ComparisonStarted { node: 1 }));
    assert!(events.iter().any(|event| matches!(event, Event::SnapshotDone { node: 1, .. })));
}

#[test]
fn who_was_cut_off_knows_that_it_is_behind() {
    let catching_up = |net: &Net, node| net.members[&node].sync.catching_up();
    for lost in [false, true] {
        let mut net = Net::new();
        (1..=3).for_each(|node| net.start(node));
        net.run(3000);
        assert_eq!([1, 2, 3].map(|node| catching_up(&net, node)), [None; 3]);
        net.cut.extend([(1, 3), (2, 3), (3, 1), (3, 2)]);
        // More than is kept to be sent again, or less.
        (0..if lost { 300_000 } else { 1000 }).for_each(|n| net.at(1).table.create(n));
        net.run(8000);
        assert_eq!(net.state(3, 1), "down");
        assert_eq!(catching_up(&net, 3), None, "with nobody to learn from it has what it can have");
        net.cut.clear();
        while catching_up(&net, 3).is_none() {
            assert!(net.members[&3].table.sessions.is_empty(), "sessions come unnoticed");
            net.step();
        }
        // The others have had each other.
        assert_eq!([1, 2].map(|node| catching_up(&net, node)), [None; 2]);
        while catching_up(&net, 3).is_some() {
            net.step();
        }
        net.assert_equal();
        assert!([1, 2, 3].iter().all(|&node| net.ready(node)));
    }
}

#[test]
fn who_was_cut_off_from_one_that_others_heard_knows_that_it_is_behind() {
    let catching_up = |net: &Net, node| net.members[&node].sync.catching_up();
    for lost in [false, true] {
        let mut net = Net::new();
        (1..=3).for_each(|node| net.start(node));
        net.run(3000);
        net.cut.extend([(1, 2), (2, 1)]);
        (0..if lost { 300_000 } else { 1000 }).for_each(|n| net.at(1).table.create(n));
        net.run(8000);
        assert_eq!((net.state(2, 1), net.state(2, 3), net.state(3, 1)), ("down", "up", "up"));
        let before = net.members[&2].table.sessions.len();
        assert_eq!(catching_up(&net, 2), None);
        net.cut.clear();
        while catching_up(&net, 2).is_none() {
            assert_eq!(net.members[&2].table.sessions.len(), before, "sessions come unnoticed");
            net.step();
        }
        assert_eq!(catching_up(&net, 3), None, "it has heard both");
        while catching_up(&net, 2).is_some() {
            net.step();
        }
        net.assert_equal();
        // A node that nobody heard has nothing that the others lack.
        net.run(1000);
        net.cut.extend([(1, 2), (3, 2), (2, 1), (2, 3)]);
        net.run(8000);
        net.cut.clear();
        for _ in 0..1000 {
            net.step();
            assert_eq!([1, 3].map(|node| catching_up(&net, node)), [None; 2]);
        }
    }
}

#[test]
fn who_loses_its_peer_while_it_catches_up_waits_no_longer() {
    let mut net = Net::new();
    (1..=2).for_each(|node| net.start(node));
    net.run(3000);
    net.cut.extend([(1, 2), (2, 1)]);
    (0..300_000).for_each(|n| net.at(1).table.create(n));
    net.run(8000);
    net.cut.clear();
    while net.members[&2].sync.catching_up().is_none() {
        net.step();
    }
    net.members.remove(&1);
    net.run(5000);
    assert_eq!((net.state(2, 1), net.members[&2].sync.catching_up()), ("down", None));
}

#[test]
fn nobody_waits_for_ever_for_who_does_not_hear() {
    let mut net = Net::new();
    (1..=2).for_each(|node| net.start(node));
    net.run(3000);
    net.cut.extend([(1, 2), (2, 1)]);
    (0..300_000).for_each(|n| net.at(1).table.create(n));
    net.run(8000);
    net.cut.remove(&(1, 2));
    net.run(3000);
    assert_eq!(net.members[&2].sync.catching_up(), Some(1));
    net.run(10_000);
    assert_eq!(net.members[&2].sync.catching_up(), None);
}

#[test]
fn after_a_partition_only_what_differs_travels() {
    let mut net = Net::new();
    net.loss = 100;
    net.start(1);
    net.start(2);
    net.run(5000);
    (0..50_000).for_each(|number| net.at(1).table.create(number));
    net.run(3000);
    net.assert_equal();
    let sent = |net: &Net, node| net.members[&node].table.stats.value(Counter::SnapshotSent);
    let before = [sent(&net, 1), sent(&net, 2)];
    net.cut.extend([(1, 2), (2, 1)]);
    net.run(5000);
    (50_000..50_010).for_each(|number| net.at(1).table.create(number));
    (60_000..60_010).for_each(|number| net.at(2).table.create(number));
    net.run(5000);
    net.cut.clear();
    net.run(10_000);
    net.assert_equal();
    assert_eq!(net.members[&1].table.sessions.len(), 50_020);
    for (node, before) in [1, 2].into_iter().zip(before) {
        let sent = sent(&net, node) - before;
        assert!((10..8000).contains(&sent), "node {node} sent {sent}");
    }
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
    // A peer that is dead indeed is found out all the same.
    net.members.remove(&2);
    net.run(2_000);
    assert_eq!(net.state(1, 2), "down");
}

#[test]
fn what_only_one_heard_of_a_dead_peer_reaches_the_others() {
    // Node 2 hears nothing of node 1's last words; either it notices, or it takes it for dead.
    for cut_for in [20, 5000] {
        let mut net = Net::new();
        (1..=3).for_each(|node| net.start(node));
        net.run(3000);
        net.cut.extend([(1, 2), (2, 1)]);
        net.run(cut_for);
        (0..10).for_each(|number| net.at(1).table.create(number));
        net.run(20);
        net.members.remove(&1);
        assert_eq!(net.members[&2].table.sessions.len(), 0);
        net.run(2500);
        assert_eq!(net.members[&2].table.sessions.len(), 10, "cut for {cut_for} ms");
        // Then all is quiet.
        let sent = net.recorded.len();
        net.run(10_000);
        assert!(net.recorded.len() - sent < 50, "{}", net.recorded.len() - sent);
    }
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
fn a_removal_is_not_undone_by_what_was_on_its_way() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    net.at(1).table.create(1);
    net.run(4);
    net.step();
    // The creation is on the wire; it comes after the removal.
    net.run(1);
    let created: Vec<_> = net.wire.drain(..).collect();
    assert!(!created.is_empty());
    net.at(1).table.remove(1);
    net.run(9);
    for (_, to, bytes) in created {
        assert!(net.deliver(to, &bytes), "late, not repeated");
    }
    net.run(100);
    assert!(net.members[&2].table.sessions.is_empty());
}

#[test]
fn a_removal_that_waits_to_be_told_is_not_undone_by_a_comparison() {
    let mut net = Net::new();
    net.flush_deadline = 50;
    (1..=3).for_each(|node| net.start(node));
    net.run(3000);
    net.at(1).table.create(1);
    net.run(100);
    net.assert_equal();
    // Nodes 1 and 2 compare their tables; node 2 hasn't heard of the removal yet.
    net.at(3).sync.leave();
    net.step();
    net.at(1).table.remove(1);
    net.run(40);
    assert!(net.members[&1].events.contains(&Event::ComparisonStarted { node: 2 }));
    net.members.remove(&3);
    net.run(100);
    net.assert_equal();
    assert!(net.members[&1].table.sessions.is_empty());
}

#[test]
fn a_removal_is_not_undone_by_what_its_teller_hears_late() {
    let mut net = Net::new();
    (1..=2).for_each(|node| net.start(node));
    net.run(3000);
    net.at(1).table.create(1);
    net.run(100);
    // Node 2 tells of the same version; that is lost, and comes when it is asked for.
    net.cut.insert((2, 1));
    net.at(2).table.tell(Change::Upsert(session(1, 1)));
    net.run(10);
    net.at(1).table.remove(1);
    net.run(10);
    net.cut.clear();
    net.run(1000);
    assert_eq!(net.state(1, 2), "up");
    net.assert_equal();
    assert!(net.members[&1].table.sessions.is_empty());
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
fn a_refresh_at_who_did_not_hear_of_the_removal_prevails_everywhere() {
    let mut net = Net::new();
    (1..=3).for_each(|node| net.start(node));
    net.run(3000);
    net.at(1).table.create(1);
    net.run(100);
    net.cut.insert((1, 2));
    net.at(1).table.remove(1);
    net.run(10);
    assert!(net.members[&3].table.sessions.is_empty());
    // The removal reaches node 2 when it asks for it: after its own news were told.
    net.at(2).table.tell(Change::Upsert(session(1, 1)));
    net.run(20);
    net.cut.clear();
    net.run(1000);
    net.assert_equal();
    assert_eq!(net.members[&3].table.sessions.values().next(), Some(&session(1, 2)));
}

#[test]
fn removals_that_nobody_can_repeat_reach_who_was_cut_off() {
    for others in [false, true] {
        let mut net = Net::new();
        (1..=2).for_each(|node| net.start(node));
        if others {
            net.start(3);
        }
        net.run(3000);
        (0..1000).for_each(|number| net.at(1).table.create(number));
        net.run(100);
        net.assert_equal();
        net.cut.extend([(1, 2), (2, 1), (2, 3), (3, 2)]);
        net.run(2000);
        (0..500).for_each(|number| net.at(1).table.remove(number));
        // More than is kept to be sent again, and longer than a frame can be on its way.
        (1000..if others { 200_000 } else { 1001 }).for_each(|n| net.at(1).table.create(n));
        net.run(40_000);
        assert_eq!(net.members[&2].table.sessions.len(), 1000);
        net.cut.clear();
        net.run(5000);
        net.assert_equal();
        let sessions = &net.members[&2].table.sessions;
        assert_eq!((0..1000).filter(|n| sessions.contains_key(&session(*n, 0).key)).count(), 500);
    }
}

/// What is beyond the bound ends with its own timer.
#[test]
fn who_was_cut_off_keeps_what_was_removed_too_long_ago() {
    let mut net = Net::new();
    (1..=2).for_each(|node| net.start(node));
    net.run(3000);
    (0..70_000).for_each(|number| net.at(1).table.create(number));
    net.run(1000);
    net.assert_equal();
    net.cut.extend([(1, 2), (2, 1)]);
    net.run(2000);
    (0..70_000).for_each(|number| net.at(1).table.remove(number));
    net.run(40_000);
    net.cut.clear();
    net.run(5000);
    net.assert_equal();
    let sessions = &net.members[&2].table.sessions;
    assert_eq!(sessions.len(), 70_000 - graves::MAX_GRAVES);
    assert!((0..sessions.len() as u32).all(|n| sessions.contains_key(&session(n, 0).key)));
}

/// A node that has started alone knows nothing of the versions before: its sessions may be older
/// by number, and are not.
#[test]
fn what_was_removed_before_a_node_started_ends_none_of_its_sessions() {
    let mut net = Net::new();
    (1..=2).for_each(|node| net.start(node));
    net.run(3000);
    net.at(1).table.create(7);
    net.run(100);
    net.at(1).table.remove(7);
    net.run(40_000);
    net.cut.extend([(1, 2), (2, 1)]);
    net.start(2);
    net.run(3000);
    assert_eq!(net.members[&2].sync.reason(), Reason::Alone);
    (6..8).for_each(|number| net.at(2).table.create(number));
    net.run(100);
    net.cut.clear();
    net.run(5000);
    net.assert_equal();
    assert_eq!(net.members[&1].table.sessions.len(), 2);
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
fn a_clone_is_named() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    let clone = SyncConfig::new(1, "campus", 99);
    let mut sync = Sync::new(clone.clone(), &config(), &[9; 32]).unwrap();
    let mut table = Model::default();
    sync.handle_timeout(net.now, &mut table);
    let hello = sync.poll_transmit(net.now, &mut table).unwrap();
    let bytes = Keyring::new(&[[1; 32]], &clone).unwrap().seal(hello);
    assert!(!net.deliver(1, &bytes));
    net.step();
    assert!(net.members[&1].events.contains(&Event::OwnIdentity { node: 1, epoch: 99 }));
    assert_eq!(net.members[&1].table.stats.value(Counter::FrameOwnIdentity), 1);
}

#[test]
fn what_is_refused_is_counted_told_once_and_draws_no_answer() {
    let mut net = Net::new();
    net.start(1);
    net.start(2);
    net.run(3000);
    let hello = net.recorded.iter().find(|bytes| bytes[5] == 1 && bytes[13] == 2).unwrap().clone();
    let changed = |at: usize, value: u8| {
        let mut bytes = hello.clone();
        bytes[at] = value;
        bytes
    };
    // A second version, another cluster, another sender, and no frame at all.
    let cases = [
        (changed(4, 2), Counter::FrameVersion),
        (changed(8, !hello[8]), Counter::FrameCluster),
        (changed(13, 9), Counter::FrameAuthentication),
        (b"GET / HTTP/1.1".to_vec(), Counter::FrameMalformed),
    ];
    for (bytes, counter) in cases {
        net.run(100);
        let (now, events) = (net.now, net.members[&1].events.len());
        for _ in 0..1000 {
            assert!(!net.deliver(1, &bytes));
        }
        let Member { sync, table, .. } = net.at(1);
        assert_eq!(table.stats.value(counter), 1000, "{counter:?}");
        assert!(!sync.transmit_pending(), "{counter:?}");
        assert!(sync.poll_transmit(now, table).is_none(), "{counter:?}");
        net.step();
        let told = net.members[&1].events[events..].iter();
        let told = told.filter(|event| matches!(event, Event::FramesRefused { .. }));
        assert_eq!(told.count(), 1, "{counter:?}");
        assert_eq!((net.state(1, 2), net.members[&1].sync.peers(now).count()), ("up", 1));
    }
}

#[test]
fn a_wrong_key_learns_nothing_and_is_told() {
    let mut net = Net::new();
    net.start(1);
    net.run(3000);
    net.at(1).table.create(1);
    net.start(2);
    let wrong = SyncConfig::new(2, "campus", net.epochs);
    net.at(2).keyring = Keyring::new(&[[2; 32]], &wrong).unwrap();
    net.run(5000);
    let refused = |net: &Net, node| {
        let events = &net.members[&node].events;
        events.iter().filter(|event| matches!(event, Event::FramesRefused { .. })).count()
    };
    assert_eq!((refused(&net, 1), refused(&net, 2)), (1, 1));
    assert!(net.members[&2].table.sessions.is_empty());
    assert_eq!((net.state(1, 2), net.state(2, 1)), ("unknown", "unknown"));
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever has the key can say anything: nothing of it may panic, or take memory without end.
    #[test]
    fn a_mad_peer_does_no_harm(frames in prop::collection::vec(mad_frame(), 1..60)) {
        let mut net = Net::new();
        net.start(1);
        net.start(2);
        net.run(3000);
        net.at(1).table.create(1);
        net.members.remove(&2);
        for (index, (kind, count, numbers, tail)) in frames.into_iter().enumerate() {
            let header =
                frame::Header { kind, node: 2, to: 1, epoch: 2, seq: 1000 + index as u64, count, urgent: true };
            let mut body = Vec::new();
            if let (frame::Kind::Hello, [last, oldest, ..]) = (kind, &numbers[..]) {
                let digests = digest::Digests::new(&config());
                let (last, oldest, ready) = (*last, *oldest, true);
                let (generation, greetings) = (count.into(), Vec::new());
                message::Hello { ready, digests, last, oldest, generation, greetings }
                    .put(&mut body);
            } else {
                numbers.iter().for_each(|n| body.extend(n.to_be_bytes()));
                body.extend(tail);
            }
            let now = net.now;
            let Member { sync, table, .. } = net.at(1);
            sync.handle_frame(now, &OpenFrame { header, body }, table);
            net.run(7);
        }
        // It goes on as if nothing had been.
        net.start(3);
        net.run(30_000);
        prop_assert!(net.ready(1) && net.ready(3));
        prop_assert!(net.members[&3].table.sessions.contains_key(&session(1, 1).key));
    }
}

/// A kind, a count, and a body of numbers that matter and of bytes that don't.
fn mad_frame() -> impl Strategy<Value = (frame::Kind, u16, Vec<u64>, Vec<u8>)> {
    use frame::Kind::*;
    let number = prop_oneof![0..5u64, Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()];
    (
        prop::sample::select(
            &[Hello, Update, Nack, SnapshotRequest, Snapshot, DigestRequest, Digests][..],
        ),
        prop_oneof![0..4u16, any::<u16>()],
        prop::collection::vec(number, 0..8),
        prop::collection::vec(any::<u8>(), 0..80),
    )
}

#[test]
fn greetings_take_turns_where_not_all_fit() {
    let mut net = Net::new();
    net.max_frame = config::MIN_MAX_FRAME;
    (1..=9).for_each(|node| net.start(node));
    net.run(6000);
    for node in 1..=9 {
        let peers: Vec<_> = net.members[&node].sync.peers(net.now).collect();
        assert_eq!(peers.iter().filter(|peer| peer.state == "up").count(), 8, "node {node}");
    }
    (0..100).for_each(|number| net.at(1).table.create(number));
    net.run(2500);
    net.assert_equal();
    assert!(
        net.members[&1]
            .sync
            .peers(net.now)
            .all(|peer| peer.acknowledged > 0 && peer.unacknowledged == 0)
    );
}

#[test]
fn peers_are_bounded() {
    let mut net = Net::new();
    net.start(1);
    for node in 2..600 {
        let config = SyncConfig::new(node, "campus", 7);
        let mut sync = Sync::new(config.clone(), &self::config(), &[0; 32]).unwrap();
        let mut table = Model::default();
        sync.handle_timeout(net.now, &mut table);
        let hello = sync.poll_transmit(net.now, &mut table).unwrap();
        let bytes = Keyring::new(&[[1; 32]], &config).unwrap().seal(hello);
        net.deliver(1, &bytes);
    }
    assert_eq!(net.members[&1].sync.peers(net.now).count(), 256);
    net.run(40);
    assert!(net.members[&1].events.contains(&Event::TooManyPeers { node: 258 }));
    net.run(2000);
    assert_eq!(net.members[&1].sync.peers(net.now).count(), 0, "recordings are forgotten");
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

/// First everybody is given the new key beside the old one, then everybody seals with it, then the
/// old one goes: there is no moment at which a frame isn't understood.
#[test]
fn keys_are_exchanged_without_losing_a_frame() {
    let mut net = Net::new();
    (1..=3).for_each(|node| net.start(node));
    net.run(3000);
    let (old, new) = ([1; 32], [2; 32]);
    let mut created = 0;
    for keys in [&[old, new][..], &[new, old], &[new]] {
        for node in 1..=3 {
            net.at(node).keyring.rekey(keys).unwrap();
            for _ in 0..100 {
                net.at(node).table.create(created);
                created += 1;
                net.step();
            }
            net.run(10);
            net.assert_equal();
        }
    }
    assert_eq!(net.members[&1].table.sessions.len(), 900);
    for member in net.members.values() {
        for counter in [Counter::FrameAuthentication, Counter::FrameGap] {
            assert_eq!(member.table.stats.value(counter), 0, "{counter:?}");
        }
        assert!(!member.events.iter().any(|e| matches!(e, Event::FramesRefused { .. })));
    }
}
