//! The table after random operations, against its own invariants and a map.

mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use proptest::prelude::*;

use super::subscriber::Limits;
use super::*;

const NODES: u8 = 12;
const SERVERS: u8 = 5;

fn src6(n: u8) -> Endpoint6 {
    Endpoint6 { addr: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)), port: 4000 }
}

fn dst4(proto: Proto, n: u8, identifier: u16) -> Endpoint4 {
    let port = if proto == Proto::Icmp { identifier } else { 80 };
    Endpoint4 { addr: Ipv4Addr::new(198, 51, 100, n), port }
}

fn entries() -> Vec<Pool4Entry> {
    [("192.0.2.1", "5000-5009", 0), ("192.0.2.2", "5004-5013", 0), ("192.0.2.2", "5000-5005", 5)]
        .map(|(prefix, ports, mark)| Pool4Entry {
            protocol: None,
            prefix: prefix.parse().unwrap(),
            ports: ports.parse().unwrap(),
            node: None,
            mark,
        })
        .to_vec()
}

/// All of them, all but the first, other ports, and none.
fn pools() -> [Vec<Pool4Entry>; 4] {
    let (all, mut others) = (entries(), entries());
    others[0].ports = "5003-5020".parse().unwrap();
    others[1].ports = "5004-5006".parse().unwrap();
    [all.clone(), all[1..].to_vec(), others, Vec::new()]
}

fn table(max_sessions: u32) -> Table {
    Table::new(max_sessions, &entries(), 1, Timeouts::from(&Globals::default()), &[3; 32])
}

fn records(table: &Table, now: Time) -> BTreeMap<SessionKey, (State, u32)> {
    let mut found = BTreeMap::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = table.scan(now, at, 3, &mut |record| {
            let earlier = found.insert(record.key, (record.state, record.version));
            assert_eq!(earlier, None, "a session is seen once");
        });
    }
    found
}

fn bibs(table: &Table) -> Vec<BibRecord> {
    let mut found = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = table.bib_scan(at, 2, &mut |bib| found.push(bib));
    }
    found
}

impl Table {
    /// Both indexes know every entry, no transport address is in two places, counts are right.
    fn check(&self, now: Time) {
        let (records, bibs) = (records(self, now), bibs(self));
        assert!(self.bibs as usize == bibs.len() || !self.pool4.is_settled());
        assert_eq!(self.by_src6.len(), self.bibs);
        let masks: BTreeSet<_> = bibs.iter().map(|b| (b.proto, b.src4)).collect();
        let nodes: BTreeSet<_> = bibs.iter().map(|b| (b.proto, b.src6)).collect();
        assert_eq!((masks.len(), nodes.len()), (bibs.len(), bibs.len()));
        for bib in &bibs {
            let slot = self.find6(bib.proto, bib.src6.addr.to_bits(), bib.src6.port).unwrap();
            let address = bib.src4.addr.to_bits();
            assert_eq!(self.find4(bib.proto, address, bib.src4.port), Some(slot));
            let own = records.keys().filter(|k| k.proto == bib.proto && k.src4 == bib.src4);
            assert_eq!(bib.sessions as usize, own.clone().count());
            for key in own {
                assert_eq!(key.src6, bib.src6);
                let id = self.find_session(slot, key.dst4.addr.to_bits(), key.dst4.port).unwrap();
                assert_ne!(self.session(id).prev, NIL, "a session is always in the wheel");
            }
            assert!(bib.sessions > 0 || bib.is_static);
        }
        self.pool4.check();
        self.check_blocks();
        if !self.needs_sweep() {
            assert_eq!(self.sessions as usize, records.len());
            let inline = (0..self.arena.bib_slots()).filter(|&n| self.bib(n).first.is_live());
            assert_eq!(self.by_dst4.len(), self.sessions - inline.count() as u32);
        }
    }

    /// A packet from an IPv6 node, as the translator handles it. Those of every third node are
    /// marked.
    fn traffic(&mut self, now: Time, proto: Proto, node: u8, server: u8) -> Option<SessionId> {
        let src = src6(node);
        let bits = src.addr.to_bits();
        let mark = if node % 3 == 2 { 5 } else { 0 };
        let slot = match self.find6(proto, bits, src.port) {
            Some(slot) => slot,
            None if !self.has_room() => return None,
            None => {
                let mask =
                    self.choose_mask(proto, mark, bits, src.port, dst4(proto, server, 0), 15)?;
                assert!(self.pool4.is_own(proto, mark, mask.addr.to_bits(), mask.port));
                self.create_bib(proto, src, mask, false).unwrap()
            }
        };
        let dst = dst4(proto, server, self.bib(slot).port4);
        match self.find_session(slot, dst.addr.to_bits(), dst.port) {
            Some(id) => {
                self.refresh(now, id, self.timeouts.of(proto, State::Established));
                Some(id)
            }
            None => self
                .create_session(now, slot, dst.addr.to_bits(), dst.port, State::Established)
                .ok(),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Traffic(u8, u8, u8),
    Remove(u8),
    RemoveBib(u8),
    Wait(u32),
    Drain,
    Pool(u8),
    Sweep(u8),
    Limits(u32, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u8..3, 0..NODES, 0..SERVERS).prop_map(|(p, n, s)| Op::Traffic(p, n, s)),
        2 => any::<u8>().prop_map(Op::Remove),
        1 => any::<u8>().prop_map(Op::RemoveBib),
        2 => (0u32..200_000).prop_map(Op::Wait),
        1 => Just(Op::Drain),
        1 => (0u8..4).prop_map(Op::Pool),
        1 => (0u8..20).prop_map(Op::Sweep),
        1 => (prop::sample::select(&[0, 2, 4][..]), prop::sample::select(&[126, 128][..]))
            .prop_map(|(size, length)| Op::Limits(size, length)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn invariants_hold_after_random_operations(
        ops in prop::collection::vec(op(), 1..120), tracked: bool, max in 5u32..60,
    ) {
        let mut table = table(max);
        table.track_changes(tracked);
        let limits = |port_block_size, subscriber_prefix_length| Limits::from(&Globals {
            max_ports_per_subscriber: 1000,
            port_block_size,
            subscriber_prefix_length,
            ..Globals::default()
        });
        table.set_limits(limits(0, 64));
        let mut now = Time::ZERO;
        for op in ops {
            match op {
                Op::Traffic(p, n, s) => { table.traffic(now, Proto::ALL[usize::from(p)], n, s); }
                Op::Remove(n) => {
                    if let Some((key, _)) = records(&table, now).into_iter().nth(n.into()) {
                        let slot = table.find6(key.proto, key.src6.addr.to_bits(), key.src6.port).unwrap();
                        let id = table.find_session(slot, key.dst4.addr.to_bits(), key.dst4.port);
                        table.remove_session(id.unwrap());
                    }
                }
                Op::RemoveBib(n) => {
                    if let Some(bib) = bibs(&table).into_iter().nth(n.into()) {
                        let slot = table.find6(bib.proto, bib.src6.addr.to_bits(), bib.src6.port);
                        table.remove_bib(slot.unwrap());
                        prop_assert_eq!(table.find4(bib.proto, bib.src4.addr.to_bits(), bib.src4.port), None);
                    }
                }
                Op::Wait(ms) => {
                    now = now + u64::from(ms);
                    let mut budget = 1000;
                    while let Some(id) = table.pop_expired(now, &mut budget) {
                        table.remove_session(id);
                    }
                }
                Op::Drain => while table.pop_change(now).is_some() {},
                Op::Pool(which) => {
                    let before = bibs(&table);
                    table.replace_pool4(&pools()[usize::from(which)]);
                    let stays = |bib: &BibRecord| {
                        table.pool4.contains(bib.proto, bib.src4.addr.to_bits(), bib.src4.port)
                    };
                    let expected: Vec<_> = before.into_iter().filter(stays).collect();
                    prop_assert_eq!(bibs(&table), expected);
                }
                Op::Sweep(budget) => table.sweep(budget.into()),
                Op::Limits(size, length) => table.set_limits(limits(size, length)),
            }
            table.check(now);
            prop_assert!(table.session_count() <= max);
        }
        // Everything ends, and the memory is there again.
        while table.needs_sweep() {
            table.sweep(1000);
        }
        now = now + 7_300_000;
        let mut budget = 1000;
        while let Some(id) = table.pop_expired(now, &mut budget) {
            table.remove_session(id);
        }
        table.check(now);
        prop_assert_eq!((table.session_count(), table.bib_count()), (0, 0));
        prop_assert_eq!(table.next_due(), None);
        prop_assert!(table.subscribers.as_ref().is_some_and(|s| s.is_empty()));
        let slots = (table.arena.bib_slots(), table.arena.overflow_slots());
        table.replace_pool4(&entries());
        for n in 0..NODES {
            table.traffic(now, Proto::Udp, n, 0);
        }
        prop_assert!(table.arena.bib_slots() <= slots.0.max(NODES.into()));
    }

    /// A second table that is told everything always has what the first has.
    #[test]
    fn a_table_that_is_told_has_the_same(ops in prop::collection::vec(op(), 1..120)) {
        let (mut ours, mut theirs) = (table(60), table(60));
        ours.track_changes(true);
        let mut now = Time::ZERO;
        for op in ops {
            match op {
                Op::Traffic(p, n, s) => { ours.traffic(now, Proto::ALL[usize::from(p)], n, s); }
                Op::RemoveBib(n) => {
                    if let Some(bib) = bibs(&ours).into_iter().nth(n.into()) {
                        let slot = ours.find6(bib.proto, bib.src6.addr.to_bits(), bib.src6.port);
                        ours.remove_bib(slot.unwrap());
                        ours.sweep(1000);
                    }
                }
                Op::Wait(ms) => {
                    // A node's timer runs when it is due, not when the next packet comes.
                    let until = now + u64::from(ms);
                    while let Some(due) = ours.next_due().filter(|&due| due <= until) {
                        now = now.max(due);
                        let mut budget = 1000;
                        while let Some(id) = ours.pop_expired(now, &mut budget) {
                            ours.remove_session(id);
                        }
                        tell(&mut ours, &mut theirs, now);
                    }
                    now = until;
                }
                _ => {}
            }
            tell(&mut ours, &mut theirs, now);
            prop_assert_eq!(records(&ours, now), records(&theirs, now));
            // No copy ends before its original.
            let mut lifetimes = BTreeMap::new();
            ours.scan(now, 0, 1000, &mut |r| { lifetimes.insert(r.key, r.lifetime_ms); });
            theirs.scan(now, 0, 1000, &mut |r| assert!(r.lifetime_ms >= lifetimes[&r.key]));
            theirs.check(now);
        }
    }

    /// Whatever the order, and however often each comes: peers' sessions end in one table.
    #[test]
    fn merging_is_a_join(
        // Versions around a step from one generation to the next, and around 2^32.
        told in prop::collection::vec((0u8..4, 0..6u16, 0..3u8, 0u8..7, 0u32..6), 1..24),
        origin in prop::sample::select(&[0, 4093, u32::MAX - 2][..]),
        order in prop::collection::vec(any::<prop::sample::Index>(), 24..48),
    ) {
        let record = |&(node, port, server, state, version): &(u8, u16, u8, u8, u32)| SessionRecord {
            key: SessionKey {
                proto: Proto::Tcp,
                src6: src6(node),
                // One mask a node here; masks that collide are another test's.
                src4: Endpoint4 { addr: Ipv4Addr::new(192, 0, 2, 1), port: 5000 + u16::from(node) + port / 6 },
                dst4: dst4(Proto::Tcp, server, 0),
            },
            state: State::from_u8(state).unwrap(),
            lifetime_ms: 100_000 + u32::from(state),
            version: version.wrapping_add(origin),
        };
        let (mut first, mut second) = (table(100), table(100));
        for one in &told {
            first.learn(Time::ZERO, &record(one));
        }
        for index in &order {
            second.learn(Time::ZERO, &record(index.get(&told)));
        }
        for one in told.iter().rev() {
            second.learn(Time::ZERO, &record(one));
            let again = second.learn(Time::ZERO, &record(one)).learned;
            prop_assert!(matches!(again, Learned::Unchanged | Learned::Stale), "{again:?}");
        }
        prop_assert_eq!(records(&first, Time::ZERO), records(&second, Time::ZERO));
        second.check(Time::ZERO);
    }
}

fn tell(from: &mut Table, to: &mut Table, now: Time) {
    while let Some(change) = from.pop_change(now) {
        match change {
            Change::Upsert(record) => {
                let learned = to.learn(now, &record).learned;
                assert!(matches!(learned, Learned::Applied | Learned::Unchanged), "{learned:?}");
            }
            Change::Remove(key, version) => {
                to.unlearn(&key, version);
            }
        }
    }
    assert_eq!(from.changes_pending(), 0);
}

fn told(node: u8, port: u16, version: u32) -> SessionRecord {
    SessionRecord {
        key: SessionKey {
            proto: Proto::Udp,
            src6: src6(node),
            src4: Endpoint4 { addr: Ipv4Addr::new(192, 0, 2, 1), port },
            dst4: dst4(Proto::Udp, 1, 0),
        },
        state: State::Established,
        lifetime_ms: 1000,
        version,
    }
}

/// Two nodes that share their sessions, and a third that is told of all.
#[derive(Debug)]
struct Trio([Table; 3]);

impl Trio {
    /// All have one session, in that state.
    fn new(state: State) -> Self {
        let mut tables = [(); 3].map(|()| table(10));
        tables.iter_mut().for_each(|table| table.track_changes(true));
        let record = tcp(state, 4096);
        tables.iter_mut().for_each(|table| {
            table.learn(Time::ZERO, &record);
        });
        Self(tables)
    }

    fn step(&mut self, node: usize, state: State) {
        let (table, key) = (&mut self.0[node], tcp(state, 0).key);
        let id = table
            .find6(Proto::Tcp, key.src6.addr.to_bits(), key.src6.port)
            .and_then(|slot| table.find_session(slot, key.dst4.addr.to_bits(), key.dst4.port));
        let lifetime = table.timeouts.of(Proto::Tcp, state);
        table.change_state(Time::ZERO, id.unwrap(), state, lifetime);
    }

    /// What waits at each node goes to both others, twice.
    fn exchange(&mut self) {
        loop {
            let told = self.0.each_mut().map(|table| {
                core::iter::from_fn(|| table.pop_change(Time::ZERO)).collect::<Vec<_>>()
            });
            if told.iter().all(Vec::is_empty) {
                break;
            }
            for _ in 0..2 {
                for (from, changes) in told.iter().enumerate() {
                    for (to, table) in self.0.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                        for change in changes {
                            match change {
                                Change::Upsert(record) => {
                                    assert_ne!(
                                        table.learn(Time::ZERO, record).learned,
                                        Learned::Rejected,
                                        "{to}"
                                    );
                                }
                                Change::Remove(key, version) => {
                                    table.unlearn(key, *version);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// The state of the session, which is the same everywhere.
    fn state(&self) -> Option<State> {
        let all = self.0.each_ref().map(|table| records(table, Time::ZERO));
        assert_eq!(all[0], all[1]);
        assert_eq!(all[0], all[2]);
        all[0].values().next().map(|&(state, _)| state)
    }
}

fn tcp(state: State, version: u32) -> SessionRecord {
    let key = SessionKey { proto: Proto::Tcp, ..told(1, 5000, 0).key };
    SessionRecord { key, state, lifetime_ms: 240_000, version }
}

/// The two SYNs, or the two FINs, of a connection go through two nodes at once, one of which has
/// more to tell of the session than the other.
#[test]
fn no_half_of_a_handshake_or_a_close_is_forgotten() {
    use State::*;
    for (start, first, second, end) in [
        (Established, V4FinRcv, V6FinRcv, V4FinV6FinRcv),
        (Established, V6FinRcv, V4FinRcv, V4FinV6FinRcv),
        (V6Init, V6Init, Established, Established),
        (V4Init, V4Init, Established, Established),
    ] {
        for repeats in 0..3 {
            let mut trio = Trio::new(start);
            trio.step(0, first);
            for _ in 0..repeats {
                // The other doesn't hear of these yet, the third does.
                let Some(Change::Upsert(record)) = trio.0[0].pop_change(Time::ZERO) else {
                    panic!()
                };
                trio.0[2].learn(Time::ZERO, &record);
                trio.step(0, first);
            }
            trio.step(1, second);
            trio.exchange();
            assert_eq!(trio.state(), Some(end), "{first:?} and {second:?}, {repeats}");
        }
    }
    // Two nodes that create the session at once: a simultaneous open.
    let mut tables = [V4Init, V6Init].map(|state| {
        let mut table = table(10);
        table.learn(Time::ZERO, &tcp(state, 9 << 12));
        table
    });
    tables[0].learn(Time::ZERO, &tcp(V6Init, 9 << 12 | 5));
    tables[1].learn(Time::ZERO, &tcp(V4Init, 9 << 12));
    tables[1].learn(Time::ZERO, &tcp(V6Init, 9 << 12 | 5));
    assert_eq!(records(&tables[0], Time::ZERO), records(&tables[1], Time::ZERO));
    assert_eq!(records(&tables[0], Time::ZERO).values().next().unwrap().0, Established);
}

/// A RST takes back what was seen; a FIN that was told late doesn't bring it back.
#[test]
fn a_reset_begins_a_generation() {
    let mut trio = Trio::new(State::Established);
    trio.step(0, State::Trans);
    trio.step(1, State::V4FinRcv);
    trio.exchange();
    assert_eq!(trio.state(), Some(State::Trans));
    trio.step(1, State::Established);
    trio.exchange();
    assert_eq!(trio.state(), Some(State::Established));
}

/// What waits to be told wasn't known to a peer that removes the session.
#[test]
fn news_that_wait_prevail_over_a_removal() {
    let mut trio = Trio::new(State::Established);
    // The remover has told of more changes than the other.
    for _ in 0..3 {
        trio.step(0, State::Established);
        assert!(trio.0[0].pop_change(Time::ZERO).is_some());
    }
    trio.step(1, State::V4FinRcv);
    let key = tcp(State::Trans, 0).key;
    let slot = trio.0[0].find6(Proto::Tcp, key.src6.addr.to_bits(), key.src6.port).unwrap();
    trio.0[0].remove_bib(slot);
    let Some(Change::Remove(key, version)) = trio.0[0].pop_change(Time::ZERO) else { panic!() };
    assert!(!trio.0[1].unlearn(&key, version));
    assert!(trio.0[2].unlearn(&key, version));
    trio.exchange();
    assert_eq!(trio.state(), Some(State::V4FinRcv));
}

/// A session that is over doesn't live on in copies of copies, however often they are made.
#[test]
fn a_copy_of_a_copy_ends_when_that_does() {
    let mut tables = [(); 3].map(|()| table(4));
    tables[0].learn(Time::ZERO, &told(1, 5000, 1));
    for n in 0..100 {
        let now = Time::from_millis(n);
        let mut copies = Vec::new();
        let from = n as usize % 3;
        tables[from].scan_told(now, 0, 10, &mut |record| copies.push(record));
        tables.iter_mut().for_each(|table| {
            table.learn(now, &copies[0]);
        });
    }
    let now = Time::from_millis(100);
    for table in &tables {
        table.scan(now, 0, 10, &mut |record| assert_eq!(record.lifetime_ms, 900));
    }
    // Of a session whose packets come here more is told than it has left: not all are told of.
    let slot = tables[0].bib_of(SessionId::inline(0));
    tables[0].refresh(now, SessionId::inline(slot), 300_000);
    tables[0].scan(now, 0, 10, &mut |record| assert_eq!(record.lifetime_ms, 300_000));
    tables[0].scan_told(now, 0, 10, &mut |record| assert_eq!(record.lifetime_ms, 375_000));
}

/// A peer's news of a session after its removal: it stays, and whoever was told of the removal is
/// told again.
#[test]
fn what_outlives_its_removal_is_told_in_a_version_that_it_does_not_end() {
    let mut trio = Trio::new(State::Established);
    let key = tcp(State::Established, 0).key;
    let removed = 4096 + 3;
    trio.0[1].revive(&key, removed);
    assert_eq!(trio.0[1].changes_pending(), 1);
    trio.0[1].revive(&key, removed);
    trio.0[1].revive(&told(2, 5000, 0).key, removed);
    assert_eq!(trio.0[1].changes_pending(), 1, "once, and nothing that isn't there");
    assert!(trio.0[0].unlearn(&key, removed));
    trio.exchange();
    assert_eq!(trio.state(), Some(State::Established));
    assert!(trio.0.iter_mut().all(|table| !table.unlearn(&key, removed)));
}

/// The later mapping stays, and of two equally late ones the same on every node.
#[test]
fn colliding_mappings_end_alike_in_any_order() {
    for (a, b, winner) in [
        (told(1, 5000, 7), told(2, 5000, 8), 2),
        (told(1, 5000, 7), told(2, 5000, 7), 1),
        (told(1, 5000, 7), told(1, 5001, 9), 1),
        (told(1, 5000, u32::MAX), told(2, 5000, 0), 2),
    ] {
        for order in [[a, b], [b, a]] {
            let mut table = table(10);
            let merges = order.map(|record| table.learn(Time::ZERO, &record));
            assert!(merges[1].collided && !merges[0].collided);
            let left = records(&table, Time::ZERO);
            let expected = if left.len() == 1 { left.keys().next().unwrap() } else { panic!() };
            assert_eq!(expected.src6, src6(winner));
            table.check(Time::ZERO);
        }
    }
}

/// What stands for a mapping is a session that it has: one that has ended is known to who heard of
/// it, and two nodes would each hold to its own mapping for ever.
#[test]
fn a_session_that_has_ended_does_not_keep_another_mapping_out() {
    let session = |server: u8, version| {
        let mut record = told(1, 5000, version);
        record.key.dst4 = dst4(Proto::Udp, server, 0);
        record
    };
    let (kept, ended, other) = (session(1, 3), session(2, 8), told(2, 5000, 6));
    for order in [[kept, ended], [ended, kept]] {
        let mut table = table(10);
        for record in order {
            assert_eq!(table.learn(Time::ZERO, &record).learned, Learned::Applied);
        }
        assert_eq!(table.learn(Time::ZERO, &other).learned, Learned::Collision);
        assert!(table.unlearn(&ended.key, 9));
        assert_eq!(table.learn(Time::ZERO, &other).learned, Learned::Applied);
        // And back, when a packet of the other has come.
        let later = SessionRecord { version: 7, ..kept };
        assert_eq!(table.learn(Time::ZERO, &later).learned, Learned::Applied);
        assert_eq!(table.learn(Time::ZERO, &other).learned, Learned::Collision);
        table.check(Time::ZERO);
    }
}

/// Whoever hears that a mapping gave way needn't know the one that took its place: nobody else may
/// be left to tell of that.
#[test]
fn who_gives_way_tells_of_what_took_its_place() {
    let (mut ours, mut theirs) = (table(10), table(10));
    ours.track_changes(true);
    let mask = told(1, 5000, 0).key.src4;
    let slot = ours.create_bib(Proto::Udp, src6(1), mask, false).unwrap();
    for server in 1..=3 {
        let dst = dst4(Proto::Udp, server, 0);
        let state = State::Established;
        ours.create_session(Time::ZERO, slot, dst.addr.to_bits(), dst.port, state).unwrap();
    }
    tell(&mut ours, &mut theirs, Time::ZERO);
    let later = told(1, 5001, 3 * COUNT);
    assert_eq!(ours.learn(Time::ZERO, &later), Merge { learned: Learned::Applied, collided: true });
    tell(&mut ours, &mut theirs, Time::ZERO);
    assert_eq!(records(&theirs, Time::ZERO), records(&ours, Time::ZERO));
    theirs.sweep(1000);
    assert_eq!(theirs.session_count(), 1);
    // Of a mapping that is another's that one tells.
    let latest = told(1, 5000, 5 * COUNT);
    assert_eq!(
        ours.learn(Time::ZERO, &latest),
        Merge { learned: Learned::Applied, collided: true }
    );
    ours.sweep(1000);
    let changes: Vec<_> = core::iter::from_fn(|| ours.pop_change(Time::ZERO)).collect();
    assert!(changes.iter().all(|change| matches!(change, Change::Remove(..))), "{changes:?}");
    assert_eq!(changes.len(), 2, "those beyond the first of the mapping that was ours");
}

#[test]
fn refuses_sessions_that_no_table_like_ours_has() {
    let mut table = table(1);
    let good = told(1, 5000, 1);
    let mut bad = [good; 4];
    bad[0].key.src4.port = 5010;
    bad[1].lifetime_ms = 0;
    bad[2].state = State::V6Init;
    bad[3].key.proto = Proto::Icmp;
    for record in bad {
        assert_eq!(table.learn(Time::ZERO, &record).learned, Learned::Rejected);
    }
    assert_eq!(table.learn(Time::ZERO, &good).learned, Learned::Applied);
    assert_eq!(table.learn(Time::ZERO, &told(2, 5002, 1)).learned, Learned::Full);
    table.check(Time::ZERO);
}

#[test]
fn a_lifetime_beyond_ours_is_cut() {
    let mut table = table(1);
    let record = SessionRecord { lifetime_ms: u32::MAX, ..told(1, 5000, 1) };
    table.learn(Time::ZERO, &record);
    table.scan(Time::ZERO, 0, 10, &mut |r| assert_eq!(r.lifetime_ms, 300_000 * 5 / 4));
}

/// A static entry isn't displaced by a peer's mapping.
#[test]
fn static_entries_prevail() {
    let mut table = table(4);
    let mask = Endpoint4 { addr: Ipv4Addr::new(192, 0, 2, 1), port: 5000 };
    table.create_bib(Proto::Udp, src6(9), mask, true).unwrap();
    assert_eq!(table.learn(Time::ZERO, &told(1, 5000, 1)).learned, Learned::Collision);
    assert_eq!(table.learn(Time::ZERO, &told(9, 5001, 1)).learned, Learned::Collision);
    assert_eq!(table.learn(Time::ZERO, &told(9, 5000, 1)).learned, Learned::Applied);
    assert_eq!(table.bib_count(), 1);
}

/// Two nodes that were alone gave a flow two masks: of those one prevails, whoever hears first.
#[test]
fn mappings_made_while_nobody_listened_are_ordered_too() {
    let dst = dst4(Proto::Udp, 1, 0);
    let mut tables = [5000, 5001].map(|port| {
        let mut table = table(4);
        // The clocks of versions differ: one has seen a session end.
        if port == 5001 {
            table.learn(Time::ZERO, &told(2, 5002, 7));
            table.unlearn(&told(2, 5002, 0).key, 8);
        }
        let mask = Endpoint4 { addr: Ipv4Addr::new(192, 0, 2, 1), port };
        let slot = table.create_bib(Proto::Udp, src6(1), mask, false).unwrap();
        table
            .create_session(Time::ZERO, slot, dst.addr.to_bits(), dst.port, State::Established)
            .unwrap();
        table
    });
    let told = tables.each_ref().map(|table| {
        let mut records = Vec::new();
        table.scan(Time::ZERO, 0, 100, &mut |record| records.push(record));
        records[0]
    });
    tables[0].learn(Time::ZERO, &told[1]);
    tables[1].learn(Time::ZERO, &told[0]);
    assert_eq!(records(&tables[0], Time::ZERO), records(&tables[1], Time::ZERO));
    assert_eq!(tables[0].session_count(), 1);
}

/// The removal that a peer tells of doesn't end what was refreshed meanwhile.
#[test]
fn a_refresh_prevails_over_a_concurrent_removal() {
    let mut table = table(4);
    table.learn(Time::ZERO, &told(1, 5000, 5));
    assert!(!table.unlearn(&told(1, 5000, 0).key, 5), "the same version says nothing new");
    assert!(!table.unlearn(&told(2, 5000, 0).key, 6), "no such session");
    assert!(table.unlearn(&told(1, 5000, 0).key, 6));
    assert_eq!((table.session_count(), table.bib_count()), (0, 0));
}

/// What an untold peer needs is told once a quarter of the timeout, however many packets come.
#[test]
fn refreshes_are_told_once_a_quarter() {
    let mut table = table(4);
    table.track_changes(true);
    let mut told = 0;
    for second in 0..3000u64 {
        let now = Time::from_millis(second * 1000);
        let mut budget = 100;
        assert_eq!(table.pop_expired(now, &mut budget), None);
        table.traffic(now, Proto::Udp, 1, 1).unwrap();
        while table.pop_change(now).is_some() {
            told += 1;
        }
    }
    assert!((40..=41).contains(&told), "3000 s are 40 quarters of 300 s: {told}");
}

/// A kernel module that is asked for its table tells of copies that it got from peers too. It got
/// each a while after it was made for it, and has it end so much later: no packet came.
#[test]
fn what_a_module_was_told_is_no_news_when_it_tells_it_back() {
    const TIMEOUT: u32 = 300_000;
    for (lifetime_ms, delay_ms) in [(250_000, 3), (250_000, 9_000), (375_000, 9_000), (20_000, 4)] {
        let mut table = table(4);
        table.track_changes(true);
        table.track_bridge(Side::Module);
        let copy = SessionRecord { lifetime_ms, ..told(1, 5000, 7) };
        assert_eq!(table.learn(Time::ZERO, &copy).learned, Learned::Applied);
        let for_module = table.pop_bridge(Time::ZERO, Side::Module).unwrap();
        assert_eq!(for_module.lifetime_ms, lifetime_ms);
        let hear = |table: &mut Table, at: u64, lifetime_ms| {
            let record = SessionRecord { lifetime_ms, version: 0, ..for_module };
            table.hear(Time::from_millis(at), Side::Module, &record, TIMEOUT).learned
        };
        for at in [10_000, 12_000, 15_000] {
            let echo = lifetime_ms + delay_ms - at as u32;
            assert_eq!(hear(&mut table, at, echo), Learned::Unchanged);
            assert_eq!(table.pop_change(Time::from_millis(at)), None, "{lifetime_ms} {delay_ms}");
        }
        // Packets come to the module: the peers are told before their copies could end.
        let mut at = 15_000;
        let news = loop {
            at += 1_000;
            assert!(u64::from(lifetime_ms) > at, "the peers' copies have ended");
            hear(&mut table, at, TIMEOUT);
            if let Some(change) = table.pop_change(Time::from_millis(at)) {
                break change;
            }
        };
        let Change::Upsert(news) = news else { panic!("{news:?}") };
        assert!(news.lifetime_ms >= TIMEOUT, "{news:?}");
    }
}

/// Where packets of a session come to several nodes, each of them tells of it as seldom, whether
/// they come in turn (there through one node, back through another) or by chance. And every copy
/// would live for the whole timeout after the last packet, whoever died then.
#[test]
fn refreshes_through_several_nodes_are_told_as_seldom() {
    const TIMEOUT: u64 = 300_000;
    for (nodes, by_chance) in [(2, false), (2, true), (3, false), (3, true)] {
        let mut tables: Vec<Table> = (0..nodes).map(|_| table(4)).collect();
        tables.iter_mut().for_each(|table| table.track_changes(true));
        let mut told = 0;
        let mut exchange = |tables: &mut Vec<Table>, now| {
            while let Some((from, change)) =
                (0..nodes).find_map(|n| Some((n, tables[n].pop_change(now)?)))
            {
                told += 1;
                let Change::Upsert(record) = change else { panic!("it ended") };
                for to in (0..nodes).filter(|&to| to != from) {
                    tables[to].learn(now, &record);
                }
            }
        };
        for tick in 0..30_000u64 {
            let now = Time::from_millis(tick * 100);
            for table in &mut tables {
                assert_eq!(table.pop_expired(now, &mut 100), None);
            }
            let n = if by_chance { tick.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 } else { tick };
            tables[n as usize % nodes].traffic(now, Proto::Udp, 1, 1).unwrap();
            exchange(&mut tables, now);
            let slot = tables[0].find6(Proto::Udp, src6(1).addr.to_bits(), 4000).unwrap();
            for table in &tables {
                let left = u64::from(table.session(SessionId::inline(slot)).remaining_ms(now));
                let bounds = TIMEOUT..=TIMEOUT + TIMEOUT / 4;
                assert!(bounds.contains(&left), "{nodes} {by_chance}: {left} ms at {tick}");
            }
        }
        let most = 41 * (nodes as u64 + 1);
        assert!(told <= most, "{nodes} nodes, {by_chance}: told {told} times in 40 quarters");
    }
}

/// RFC 6056 §3.3.3: flows that agree in the fields that `f-args` names get successive ports;
/// others begin elsewhere.
#[test]
fn f_args_name_the_fields_that_choose_the_port() {
    let entry = Pool4Entry {
        protocol: None,
        prefix: "192.0.2.1".parse().unwrap(),
        ports: "1024-65535".parse().unwrap(),
        node: None,
        mark: 0,
    };
    let timeouts = Timeouts::from(&Globals::default());
    let base = (1u128 << 64 | 7, 4000u16, dst4(Proto::Udp, 1, 0));
    let other_host = Endpoint4 { addr: Ipv4Addr::new(203, 0, 113, 9), ..base.2 };
    let other_port = Endpoint4 { port: 81, ..base.2 };
    let variants = [
        (8, (base.0 + 1, base.1, base.2)),
        (4, (base.0, base.1 + 2, base.2)),
        (2, (base.0, base.1, other_host)),
        (1, (base.0, base.1, other_port)),
    ];
    for f_args in 0..16u8 {
        for (bit, (src6, port, dst)) in variants {
            let mut table = Table::new(10, &[entry], 1, timeouts, &[3; 32]);
            let mut choose = |src6, port, dst| {
                table.choose_mask(Proto::Udp, 0, src6, port, dst, f_args).unwrap().port
            };
            let first = choose(base.0, base.1, base.2);
            assert_eq!(choose(base.0, base.1, base.2), first + 2, "the next of its parity");
            let other = choose(src6, port, dst);
            assert_eq!(other == first + 4, f_args & bit == 0, "f-args {f_args}, field {bit}");
        }
    }
}
