//! What waits to be told: how much it may become, and how it is passed over.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;

/// Sessions come and go while nobody takes what there is to tell: the list neither grows beyond the
/// records nor holds any session twice.
#[test]
fn the_list_of_changes_is_as_bounded_as_the_table() {
    let mut table = table(8);
    table.track_changes(true);
    table.track_bridge(Side::Joolds);
    let now = Time::ZERO;
    let server = |n: u32| dst4(Proto::Udp, 1 + (n % 5) as u8, 0);
    let mut ids = Vec::new();
    for n in 0..1000_u32 {
        if ids.len() == 8 {
            table.remove_session(ids.remove(n as usize * 7 % 8));
        }
        let node = src6((n % 12) as u8);
        let slot = table.find6(Proto::Udp, node.addr.to_bits(), node.port).or_else(|| {
            let mask = table.choose_mask(Proto::Udp, 0, node.addr.to_bits(), 4000, server(n), 0)?;
            table.create_bib(Proto::Udp, node, mask, false).ok()
        });
        let (slot, to) = (slot.unwrap(), server(n));
        if table.find_session(slot, to.addr.to_bits(), to.port).is_none() {
            let to = (to.addr.to_bits(), to.port);
            ids.push(table.create_session(now, slot, to.0, to.1, State::Established).unwrap());
        }
        let records = (table.arena.bib_slots() + table.arena.overflow_slots()) as usize;
        assert!(table.bridge_pending(Side::Joolds) <= records);
        assert!(records <= 16);
    }
    while table.pop_removal().is_some() {}
    assert!(table.changes_pending() <= 16);
    let mut told = BTreeMap::new();
    while table.changes_pending() > 0 {
        if let Some(Change::Upsert(record)) = table.pop_change(now) {
            let twice = told.insert(record.key, (record.state, record.version));
            assert_eq!(twice, None);
        }
    }
    assert_eq!(told, records(&table, now));
}

/// A table with UDP sessions of as many mappings, and their ids.
fn with_sessions(count: u16) -> (Table, Vec<SessionId>) {
    let entry = Pool4Entry { ports: "5000-5999".parse().unwrap(), ..entries()[0] };
    let mut table = Table::new(200, &[entry], 1, Timeouts::from(&Globals::default()), &[3; 32]);
    table.track_changes(true);
    let create = |port: u16| {
        let src6 = Endpoint6 { port, ..src6(1) };
        let src4 = Endpoint4 { addr: Ipv4Addr::new(192, 0, 2, 1), port };
        let slot = table.create_bib(Proto::Udp, src6, src4, false).unwrap();
        table.create_session(Time::ZERO, slot, 7, 80, State::Established).unwrap()
    };
    let ids = (5000..5000 + count).map(create).collect();
    (table, ids)
}

/// However many sessions have ended before they were told, one call passes over a few of them.
#[test]
fn ended_sessions_are_passed_over_in_steps() {
    let (mut table, mut ids) = with_sessions(101);
    let (now, last) = (Time::ZERO, ids.pop().unwrap());
    ids.into_iter().for_each(|id| table.remove_session(id));
    while table.pop_removal().is_some() {}
    for waiting in [101, 69, 37] {
        assert_eq!(table.changes_pending(), waiting);
        assert_eq!(table.pop_change(now), None);
    }
    let key = table.key_of(table.bib_of(last), table.session(last));
    let told = table.pop_change(now);
    assert!(matches!(told, Some(Change::Upsert(record)) if record.key == key), "{told:?}");
    assert_eq!((table.changes_pending(), table.pop_change(now)), (0, None));
}

/// The same of sessions whose mapping is gone and that wait to be swept.
#[test]
fn sessions_of_removed_mappings_are_passed_over_in_steps() {
    let (mut table, ids) = with_sessions(1);
    let now = Time::ZERO;
    for port in 1..100 {
        table.create_session(now, ids[0].raw(), 8, port, State::Established).unwrap();
    }
    table.remove_bib(ids[0].raw());
    while table.pop_removal().is_some() {}
    for waiting in [100, 68, 36, 4, 0] {
        assert_eq!(table.changes_pending(), waiting);
        assert_eq!(table.pop_change(now), None);
    }
}

/// What waited for peers when the last of them went is forgotten, but not in one go.
#[test]
fn changes_for_nobody_are_forgotten_in_steps() {
    let (mut table, _) = with_sessions(100);
    table.track_changes(false);
    assert_eq!((table.changes_pending(), table.pop_change(Time::ZERO)), (0, None));
    for _ in 0..10 {
        assert!(table.needs_sweep());
        table.sweep(10);
    }
    assert!(!table.needs_sweep());
}

/// Peers that come back while it isn't all forgotten are told of the rest. And what changed
/// meanwhile is in a version of its own, by which they can tell it from what they were told.
#[test]
fn changes_that_are_not_forgotten_yet_are_told() {
    let (mut table, ids) = with_sessions(100);
    let now = Time::ZERO;
    let versions = |table: &Table| ids.iter().map(|&id| table.session(id).version).collect();
    let before: Vec<u32> = versions(&table);
    table.track_changes(false);
    table.sweep(40);
    ids.iter().for_each(|&id| table.mark_changed(id));
    table.sweep(20);
    assert_eq!(versions(&table), before.iter().map(|version| version + 1).collect::<Vec<_>>());
    let key = |id: SessionId| table.key_of(table.bib_of(id), table.session(id));
    let keys: Vec<SessionKey> = ids.iter().map(|&id| key(id)).collect();
    let (gone, left) = (keys[60], &keys[61..]);
    assert!(table.unlearn(&gone, before[60] + 2), "nobody was to be told of that");

    table.track_changes(true);
    assert!(!table.needs_sweep());
    // These are told in any case, so a removal by somebody who didn't know them doesn't end them.
    assert!(!table.unlearn(&left[0], before[61] + 2));
    let mut told = Vec::new();
    while let Some(Change::Upsert(record)) = table.pop_change(now) {
        told.push(record.key);
    }
    assert_eq!(told, left);
    ids[..60].iter().for_each(|&id| table.mark_changed(id));
    assert_eq!(table.changes_pending(), 60);
}
