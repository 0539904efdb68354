//! What a set of updates and removals leads to, in whatever order, how often and however grouped it
//! comes: with the real table, the memory of removals, and snapshots.

use std::collections::BTreeMap;

use super::*;
use crate::sync::bytes::Reader;
use crate::sync::frame::HEADER_LEN;
use crate::sync::message::{END, SNAPSHOT_HEAD_LEN, SlotRange, SnapshotRequest};
use crate::sync::resync::Serve;
use crate::table::{Learned, State, Table, Timeouts};

const NOW: Time = Time::from_millis(1000);

/// A table and what counts in it.
struct Real {
    table: Table,
    stats: Stats,
}

impl Sessions for Real {
    fn learn(&mut self, now: Time, record: &SessionRecord) -> Merge {
        let merge = self.table.learn(now, record);
        assert!(!matches!(merge.learned, Learned::Rejected | Learned::Full), "{record:?}");
        merge
    }

    fn unlearn(&mut self, _now: Time, key: &SessionKey, version: u32) -> bool {
        self.table.unlearn(key, version)
    }

    fn revive(&mut self, key: &SessionKey, removed: u32) {
        self.table.revive(key, removed);
    }

    fn has(&self, key: &SessionKey) -> bool {
        self.table.has(key)
    }

    fn track_changes(&mut self, on: bool) {
        self.table.track_changes(on);
    }

    fn changes_pending(&self) -> usize {
        self.table.changes_pending()
    }

    fn pop_change(&mut self, now: Time) -> Option<Change> {
        self.table.pop_change(now)
    }

    fn pop_removal(&mut self) -> Option<(SessionKey, u32)> {
        self.table.pop_removal()
    }

    fn scan(
        &self,
        now: Time,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        self.table.scan_told(now, cursor, budget, f)
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }
}

/// A node that is told.
struct Node {
    sync: Sync,
    sessions: Real,
}

impl Node {
    fn new() -> Self {
        let config = config();
        let timeouts = Timeouts::from(&config.global);
        let table = Table::new(100, &config.pool4, 1, timeouts, &[3; 32]);
        Self {
            sync: Sync::new(SyncConfig::new(1, "campus", 1), &config, &[1; 32]).unwrap(),
            sessions: Real { table, stats: Stats::default() },
        }
    }

    /// Takes a frame's changes, none of which is known to be young.
    fn take(&mut self, changes: &[Change]) {
        let mut body = Vec::new();
        changes.iter().for_each(|change| record::put(&mut body, change));
        self.take_body(&body, changes.len() as u16);
    }

    fn take_body(&mut self, body: &[u8], count: u16) {
        let since = Some(Time::ZERO);
        let mut reader = Reader::new(body);
        self.sync.apply(NOW, 2, &mut reader, count, since, &mut self.sessions).unwrap();
    }

    /// Takes the other's table, and its removals.
    fn fetch(&mut self, other: &Self) {
        let ranges = std::vec![SlotRange { from: 0, until: END }];
        let request = SnapshotRequest { id: 1, frames: u16::MAX, ranges, filter: None };
        let mut serve = Serve::new(1, request).unwrap();
        let mut last = false;
        while !last {
            let graves = &other.sync.graves;
            let frame = serve.next_frame(NOW, 1400, &other.sessions, graves, Time::ZERO).unwrap();
            self.take_body(&frame.0.buf[HEADER_LEN + SNAPSHOT_HEAD_LEN..], frame.0.count);
            last = frame.1;
        }
    }

    fn records(&self) -> BTreeMap<SessionKey, (State, u32)> {
        let mut records = BTreeMap::new();
        self.sessions.table.scan(NOW, 0, 10_000, &mut |record| {
            records.insert(record.key, (record.state, record.version));
        });
        records
    }
}

/// What a change is made of.
#[derive(Clone, Copy, Debug)]
struct Parts {
    is_removal: bool,
    node: u8,
    mask: u8,
    server: u8,
    state: u8,
    version: u32,
}

fn parts() -> impl Strategy<Value = Vec<Parts>> {
    let one = (prop::bool::weighted(0.3), 0u8..3, 0u8..3, 0u8..2, 0u8..7, 0u32..8);
    let one = one.prop_map(|(is_removal, node, mask, server, state, version)| Parts {
        is_removal,
        node,
        mask,
        server,
        state,
        version,
    });
    prop::collection::vec(one, 1..16)
}

/// Where versions begin: around a step from one generation to the next, and around 2^32.
fn origin() -> impl Strategy<Value = u32> {
    prop::sample::select(&[0, 4092, u32::MAX - 3][..])
}

/// The order in which some changes come, some of them repeatedly, and how many share a frame.
fn order() -> impl Strategy<Value = (Vec<prop::sample::Index>, usize)> {
    (prop::collection::vec(any::<prop::sample::Index>(), 0..32), 1usize..8)
}

fn change(origin: u32, parts: Parts) -> Change {
    let Parts { is_removal, node, mask, server, state, version } = parts;
    let mut key = session(node.into(), 0).key;
    key.proto = Proto::Tcp;
    key.src4 = Endpoint4 { addr: "192.0.2.1".parse().unwrap(), port: 62_000 + u16::from(mask) };
    key.dst4.port = 80 + u16::from(server);
    let version = version.wrapping_add(origin);
    if is_removal {
        return Change::Remove(key, version);
    }
    let state = State::from_u8(state).unwrap();
    Change::Upsert(SessionRecord { key, state, lifetime_ms: 100_000, version })
}

fn generation(version: u32) -> u32 {
    version >> 12
}

/// Has nodes take each other's tables until that changes none.
fn settle(nodes: &mut [Node]) {
    let tables = |nodes: &[Node]| nodes.iter().map(Node::records).collect::<Vec<_>>();
    for _ in 0..20 {
        let before = tables(nodes);
        for to in 0..nodes.len() {
            for from in (0..nodes.len()).filter(|&from| from != to) {
                let [to, from] = nodes.get_disjoint_mut([to, from]).unwrap();
                to.fetch(from);
            }
        }
        if tables(nodes) == before {
            return;
        }
    }
    panic!("they never come to terms");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Without mappings that exclude each other: all of it leads to the same sessions in the same
    /// versions at once. To the same states too, but where a removal lies within the generation of a
    /// copy that outlives it: whether what an earlier copy knew of the handshake counts depends on
    /// which came first, until the tables are compared.
    #[test]
    fn any_order_of_updates_and_removals_leads_to_one_table(
        parts in parts(),
        origin in origin(),
        (order, group) in order(),
    ) {
        let one_mask = |parts: Parts| change(origin, Parts { mask: parts.node, ..parts });
        let changes: Vec<_> = parts.into_iter().map(one_mask).collect();
        let (mut first, mut second) = (Node::new(), Node::new());
        changes.iter().for_each(|change| first.take(&[*change]));
        let all = order.iter().map(|index| *index.get(&changes));
        let all: Vec<_> = all.chain(changes.iter().rev().copied()).collect();
        all.chunks(group).for_each(|frame| second.take(frame));
        let known = |node: &Node| {
            let is_clear = |key: &SessionKey, version: u32| !changes.iter().any(|change| {
                matches!(change, Change::Remove(removed, at)
                    if removed == key && generation(*at) == generation(version))
            });
            let known = node.records().into_iter().map(|(key, (state, version))| {
                (key, version, is_clear(&key, version).then_some(state))
            });
            known.collect::<Vec<_>>()
        };
        prop_assert_eq!(known(&first), known(&second));
        first.fetch(&second);
        second.fetch(&first);
        prop_assert_eq!(first.records(), second.records());
    }

    /// Mappings may exclude each other, and each node hears only of some changes: once they have
    /// taken each other's tables until that changes none, all have the same.
    #[test]
    fn whatever_nodes_have_heard_they_come_to_terms(
        parts in parts(),
        origin in origin(),
        orders in prop::collection::vec(order(), 2..=3),
    ) {
        let changes: Vec<_> = parts.into_iter().map(|parts| change(origin, parts)).collect();
        let mut nodes: Vec<_> = orders.iter().map(|_| Node::new()).collect();
        for (node, (order, group)) in nodes.iter_mut().zip(&orders) {
            let heard: Vec<_> = order.iter().map(|index| *index.get(&changes)).collect();
            heard.chunks(*group).for_each(|frame| node.take(frame));
        }
        settle(&mut nodes);
        for node in &nodes[1..] {
            prop_assert_eq!(nodes[0].records(), node.records());
        }
    }
}
