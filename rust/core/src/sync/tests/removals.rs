//! Removals, and what might bring back what was removed.

use super::*;

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
