//! Nodes that don't hear each other for a while.

use super::*;

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
