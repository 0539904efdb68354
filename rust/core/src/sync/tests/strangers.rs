//! Frames that nobody should believe, and keys.

use super::*;

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
