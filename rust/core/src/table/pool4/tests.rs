use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::string::ToString;

fn entry(prefix: &str, ports: &str, protocol: Option<Proto>) -> Pool4Entry {
    let (prefix, ports) = (prefix.parse().unwrap(), ports.parse().unwrap());
    Pool4Entry { protocol, prefix, ports, node: None, mark: 0 }
}

fn pool(entries: &[Pool4Entry]) -> Pool4 {
    Pool4::new(entries, 1, &Keys::new(&[7; 32]))
}

fn addr(text: &str) -> u32 {
    text.parse::<Ipv4Addr>().unwrap().to_bits()
}

#[test]
fn finds_addresses_with_and_without_gaps() {
    let gaps = ["192.0.2.9", "192.0.2.0/30", "10.0.0.0/31", "255.255.255.255"];
    for prefixes in [&gaps[1..2], &gaps[..]] {
        let entries: Vec<_> = prefixes.iter().map(|p| entry(p, "7-8", None)).collect();
        let pool = pool(&entries);
        for address in [
            "9.255.255.255",
            "10.0.0.0",
            "10.0.0.1",
            "10.0.0.2",
            "192.0.1.255",
            "192.0.2.0",
            "192.0.2.3",
            "192.0.2.4",
            "192.0.2.9",
            "255.255.255.255",
            "0.0.0.0",
        ] {
            let expected = entries.iter().any(|e| e.prefix.contains(address.parse().unwrap()));
            assert_eq!(pool.contains(Proto::Udp, addr(address), 7), expected, "{address}");
        }
    }
    assert!(!pool(&[]).contains(Proto::Udp, 0, 7));
}

#[test]
fn entries_unite() {
    let pool = pool(&[
        entry("192.0.2.0/31", "1000-2000", Some(Proto::Tcp)),
        entry("192.0.2.1", "2001-3000", None),
        entry("192.0.2.1", "1500-2500", Some(Proto::Tcp)),
    ]);
    for (proto, address, port, expected) in [
        (Proto::Tcp, "192.0.2.0", 2000, true),
        (Proto::Tcp, "192.0.2.0", 2001, false),
        (Proto::Udp, "192.0.2.0", 1500, false),
        (Proto::Tcp, "192.0.2.1", 1000, true),
        (Proto::Tcp, "192.0.2.1", 3000, true),
        (Proto::Udp, "192.0.2.1", 2000, false),
        (Proto::Icmp, "192.0.2.1", 2001, true),
        (Proto::Icmp, "192.0.2.2", 2001, false),
    ] {
        assert_eq!(pool.contains(proto, addr(address), port), expected, "{address}#{port}");
    }
    assert_eq!(pool.ranges[2], [PortRange { min: 1000, max: 3000 }]);
}

/// Every port comes out exactly once, then none, and a released one comes out again.
#[test]
fn gives_every_port_once() {
    let mut pool = pool(&[entry("192.0.2.0/30", "1001-1101", Some(Proto::Udp))]);
    let mut seen = HashSet::new();
    for n in 0..4 * 101u64 {
        let wish = Wish { node: n << 60, offset: n * 31, port: (n * 7) as u16 };
        let got = pool.choose(Proto::Udp, 0, &wish).unwrap();
        assert!(pool.claim(Proto::Udp, got.addr.to_bits(), got.port, n as u32));
        assert_eq!(pool.owner(Proto::Udp, got.addr.to_bits(), got.port), Some(n as u32));
        assert!(got.port >= 1001 && got.port <= 1101 && seen.insert(got));
    }
    let wish = Wish { node: 0, offset: 0, port: 0 };
    assert_eq!(pool.choose(Proto::Udp, 0, &wish), None);
    assert_eq!(pool.choose(Proto::Tcp, 0, &wish), None);
    let slot = pool.owner(Proto::Udp, addr("192.0.2.2"), 1077).unwrap();
    pool.release(Proto::Udp, addr("192.0.2.2"), 1077, slot);
    let again = pool.choose(Proto::Udp, 0, &wish).unwrap();
    assert_eq!((again.addr.to_bits(), again.port), (addr("192.0.2.2"), 1077));
}

/// RFC 6146 §3.5.1.1: range and parity are kept, until that would mean to refuse.
#[test]
fn keeps_range_and_parity_while_it_can() {
    let mut pool = pool(&[entry("192.0.2.1", "1020-1027", Some(Proto::Tcp))]);
    let mut take = |port: u16| {
        let wish = Wish { node: 1, offset: 5, port };
        let got = pool.choose(Proto::Tcp, 0, &wish).map(|e| e.port);
        got.inspect(|&p| assert!(pool.claim(Proto::Tcp, addr("192.0.2.1"), p, 0)))
    };
    for (port, range, parity) in
        [(80, 1020..=1023, 0), (82, 1020..=1023, 0), (84, 1020..=1023, 1), (86, 1020..=1023, 1)]
    {
        let got = take(port).unwrap();
        assert!(range.contains(&got) && got % 2 == parity, "{port} got {got}");
    }
    assert_eq!(take(88).unwrap() % 2, 0, "the other range, but still even");
    for _ in 0..3 {
        assert!(take(4000).is_some());
    }
    assert_eq!(take(4000), None);
}

/// RFC 6888 REQ-2.
#[test]
fn a_node_keeps_to_one_address() {
    let mut pool = pool(&[entry("192.0.2.0/24", "1024-65535", None)]);
    for node in [0, 1 << 40, u64::MAX] {
        let addresses: HashSet<_> = (0..200)
            .map(|n| {
                let proto = Proto::ALL[n as usize % 3];
                let wish = Wish { node, offset: n, port: n as u16 };
                let got = pool.choose(proto, 0, &wish).unwrap();
                pool.claim(proto, got.addr.to_bits(), got.port, n as u32);
                got.addr
            })
            .collect();
        assert_eq!(addresses.len(), 1, "{node}");
    }
}

/// The slots of which the BIB entries may have lost their masks, when all is settled.
fn retired(pool: &mut Pool4) -> Vec<u32> {
    while pool.settle_next() {}
    let mut retired: Vec<u32> =
        core::iter::from_fn(|| pool.pop_retired(&mut usize::MAX.clone())).collect();
    assert!(pool.is_settled());
    retired.sort_unstable();
    retired
}

#[test]
fn replacing_keeps_what_is_in_both() {
    let mut pool = pool(&[entry("192.0.2.0/31", "5000-5009", Some(Proto::Tcp))]);
    for (slot, (address, port)) in
        [("192.0.2.0", 5000), ("192.0.2.0", 5009), ("192.0.2.1", 5001)].into_iter().enumerate()
    {
        assert!(pool.claim(Proto::Tcp, addr(address), port, slot as u32));
    }
    let entries =
        [entry("192.0.2.0", "5005-6000", Some(Proto::Tcp)), entry("198.51.100.0/24", "1-9", None)];
    pool.replace(&entries);
    let owner = |pool: &Pool4, address, port| pool.owner(Proto::Tcp, addr(address), port);
    let check = |pool: &Pool4| {
        assert_eq!(owner(pool, "192.0.2.0", 5009), Some(1));
        assert_eq!(owner(pool, "192.0.2.0", 5000), None);
        assert_eq!(owner(pool, "192.0.2.1", 5001), None);
        pool.check();
    };
    check(&pool);
    assert_eq!(retired(&mut pool), [0, 2]);
    check(&pool);
    pool.claim(Proto::Udp, addr("198.51.100.7"), 9, 3);
    pool.replace(&entries);
    assert!(pool.is_settled(), "nothing changes");
    check(&pool);
    let ports = pool.spaces.iter().map(|space| space.slots.len()).sum::<usize>();
    assert!(ports > 1000);
    assert_eq!(pool.materialised, ports);
    assert_eq!(pool.taken, 2);
    pool.release(Proto::Udp, addr("198.51.100.7"), 9, 4);
    assert_eq!(pool.taken, 2, "it is another's");
    pool.release(Proto::Udp, addr("198.51.100.7"), 9, 3);
    assert_eq!(pool.taken, 1);
}

#[test]
fn each_mark_has_its_own_entries_which_may_overlap() {
    let marked = |prefix, ports, mark| Pool4Entry { mark, ..entry(prefix, ports, None) };
    let entries = [
        marked("192.0.2.1", "5000-5005", 0),
        marked("192.0.2.1", "5004-5009", 7),
        marked("192.0.2.2", "5000-5001", 7),
        Pool4Entry { node: Some(2), ..marked("192.0.2.3", "5000-5001", 9) },
    ];
    let mut pool = pool(&entries);
    let (none, seven) = (pool.mark(0).unwrap(), pool.mark(7).unwrap());
    assert_eq!((pool.mark(1), pool.mark(9)), (None, None), "no entry, or another node's");
    let take = |pool: &mut Pool4, mark, n: u32| {
        let wish = Wish { node: u64::from(n) << 61, offset: n.into(), port: 4000 };
        let mask = pool.choose(Proto::Udp, mark, &wish)?;
        assert!(pool.claim(Proto::Udp, mask.addr.to_bits(), mask.port, n));
        pool.check();
        Some((mask.addr.to_string(), mask.port))
    };
    let given: HashSet<_> = (0..8).filter_map(|n| take(&mut pool, seven, n)).collect();
    let expected = (5004..=5009).map(|port| ("192.0.2.1".to_string(), port));
    let expected = expected.chain([5000, 5001].map(|port| ("192.0.2.2".to_string(), port)));
    assert_eq!(given, expected.collect());
    assert_eq!(take(&mut pool, seven, 8), None);
    let given: HashSet<_> = (10..14).filter_map(|n| take(&mut pool, none, n)).collect();
    assert_eq!(given, (5000..5004).map(|port| ("192.0.2.1".to_string(), port)).collect());
    assert_eq!(take(&mut pool, none, 14), None, "what both have is given away once");
    let slot = pool.owner(Proto::Udp, addr("192.0.2.1"), 5004).unwrap();
    pool.release(Proto::Udp, addr("192.0.2.1"), 5004, slot);
    pool.check();
    assert_eq!(take(&mut pool, none, 15), Some(("192.0.2.1".to_string(), 5004)));
    // Other marks of the same entries: nobody loses a mapping.
    let mut others = entries;
    others[0].mark = 7;
    others[1].mark = 0;
    pool.replace(&others);
    pool.check();
    assert_eq!(take(&mut pool, 0, 16), None);
    assert!(retired(&mut pool).is_empty(), "every port is there");
}

#[test]
fn another_nodes_slice_holds_mappings_and_gives_none_away() {
    let slice = |prefix, ports, node| Pool4Entry { node, ..entry(prefix, ports, None) };
    // Node 2's address is the first, so that it would be the first to be given away.
    let mut entries = [
        slice("192.0.2.1", "5000-5009", Some(2)),
        slice("192.0.2.2", "5000-5003", Some(1)),
        slice("192.0.2.2", "5004-5007", Some(2)),
        slice("192.0.2.3", "5000-5001", None),
    ];
    let mut pool = pool(&entries);
    let theirs = [("192.0.2.1", 5000), ("192.0.2.2", 5004)];
    for (slot, (address, port)) in (100..).zip(theirs) {
        assert!(pool.claim(Proto::Udp, addr(address), port, slot));
        assert_eq!(pool.owner(Proto::Udp, addr(address), port), Some(slot));
    }
    let mut given = HashSet::new();
    for slot in 0..6 {
        let wish = Wish { node: u64::from(slot) << 61, offset: slot.into(), port: 4000 };
        let mask = pool.choose(Proto::Udp, 0, &wish).unwrap();
        assert!(pool.claim(Proto::Udp, mask.addr.to_bits(), mask.port, slot));
        given.insert((mask.addr.to_string(), mask.port));
    }
    let own = [("192.0.2.2", 5000..=5003), ("192.0.2.3", 5000..=5001)];
    let own = own.into_iter().flat_map(|(a, ports)| ports.map(move |p| (a.to_string(), p)));
    assert_eq!(given, own.collect());
    let wish = Wish { node: 0, offset: 0, port: 4000 };
    assert_eq!(pool.choose(Proto::Udp, 0, &wish), None);
    // A mapping that ends in their slice is theirs to give away again.
    pool.release(Proto::Udp, addr("192.0.2.2"), 5004, 101);
    pool.release(Proto::Udp, addr("192.0.2.1"), 5000, 100);
    assert_eq!(pool.choose(Proto::Udp, 0, &wish), None);
    // The operator gives it to this node.
    entries[2].node = Some(1);
    pool.replace(&entries);
    let mask = pool.choose(Proto::Udp, 0, &wish).unwrap();
    assert_eq!(mask.addr.to_string(), "192.0.2.2");
    assert!((5004..=5007).contains(&mask.port));
}

fn entries() -> impl Strategy<Value = Vec<Pool4Entry>> {
    let entry = (0u8..3, 0u16..40, 0u16..40, prop::option::of(0usize..3), 0u32..2).prop_map(
        |(host, a, b, proto, mark)| Pool4Entry {
            protocol: proto.map(|n| Proto::ALL[n]),
            prefix: std::format!("192.0.2.{host}").parse().unwrap(),
            ports: PortRange { min: 5000 + a.min(b), max: 5000 + a.max(b) },
            node: None,
            mark,
        },
    );
    prop::collection::vec(entry, 0..5)
}

#[derive(Clone, Debug)]
enum Op {
    Replace(Vec<Pool4Entry>),
    Choose(usize, u32, u64),
    Release(prop::sample::Index),
    Settle,
    Retired(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => entries().prop_map(Op::Replace),
        8 => (0usize..3, 0u32..2, any::<u64>()).prop_map(|(p, m, node)| Op::Choose(p, m, node)),
        2 => any::<prop::sample::Index>().prop_map(Op::Release),
        1 => Just(Op::Settle),
        1 => (0usize..60).prop_map(Op::Retired),
    ]
}

proptest! {
    /// However far what follows from a replacement has been done: each transport address is the
    /// last one's to whom it was given while every pool4 since had it, and nobody else gets it.
    /// Whoever has lost it comes up.
    #[test]
    fn replacing_in_steps_is_replacing_at_once(
        first in entries(), ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut pool = pool(&first);
        let mut model: BTreeMap<(Proto, Ipv4Addr, u16), u32> = BTreeMap::new();
        let mut lost = HashSet::new();
        for (slot, op) in (0..).zip(ops) {
            match op {
                Op::Replace(entries) => {
                    pool.replace(&entries);
                    let stays = |key: &(Proto, Ipv4Addr, u16)| entries.iter().any(|e| {
                        e.protocol.is_none_or(|p| p == key.0)
                            && e.prefix.contains(key.1)
                            && e.ports.contains(key.2)
                    });
                    lost.extend(model.iter().filter(|(key, _)| !stays(key)).map(|(_, slot)| *slot));
                    model.retain(|key, _| stays(key));
                }
                Op::Choose(proto, mark, node) => {
                    let (proto, wish) = (Proto::ALL[proto], Wish { node, offset: node, port: 4000 });
                    let Some(mark) = pool.mark(mark) else { continue };
                    let Some(mask) = pool.choose(proto, mark, &wish) else {
                        let mut all = pool.addresses(proto, mark).flat_map(|address| {
                            (5000..5040).map(move |port| (address, port))
                        });
                        let mark = pool.marks[mark];
                        prop_assert!(all.all(|(address, port)| {
                            let key = (proto, Ipv4Addr::from_bits(address), port);
                            !pool.is_own(proto, mark, address, port) || model.contains_key(&key)
                        }), "a port is free");
                        continue;
                    };
                    prop_assert!(pool.claim(proto, mask.addr.to_bits(), mask.port, slot));
                    let before = model.insert((proto, mask.addr, mask.port), slot);
                    prop_assert_eq!(before, None);
                }
                Op::Release(which) => {
                    if model.is_empty() {
                        continue;
                    }
                    let (&key, &owner) = model.iter().nth(which.index(model.len())).unwrap();
                    pool.release(key.0, key.1.to_bits(), key.2, owner + 1);
                    prop_assert_eq!(pool.owner(key.0, key.1.to_bits(), key.2), Some(owner));
                    pool.release(key.0, key.1.to_bits(), key.2, owner);
                    model.remove(&key);
                }
                Op::Settle => {
                    pool.settle_next();
                }
                Op::Retired(mut places) => {
                    let before = places;
                    while let Some(slot) = pool.pop_retired(&mut places) {
                        lost.remove(&slot);
                    }
                    prop_assert!(places <= before);
                }
            }
            for proto in Proto::ALL {
                for (host, port) in (0..3).flat_map(|host| (5000..5040).map(move |p| (host, p))) {
                    let address = Ipv4Addr::new(192, 0, 2, host);
                    let owner = pool.owner(proto, address.to_bits(), port);
                    prop_assert_eq!(owner, model.get(&(proto, address, port)).copied());
                }
            }
            pool.check();
        }
        for slot in retired(&mut pool) {
            lost.remove(&slot);
        }
        prop_assert!(lost.is_empty(), "{lost:?} have lost their masks unnoticed");
        prop_assert_eq!(pool.taken, model.len());
    }
}
