//! The translator against a slow and obvious model of RFC 6146, on random packets.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::Outcome;
use jsync_core::table::State;
use jsync_core::time::Time;
use jsync_core::tuple::Proto;
use proptest::prelude::*;

type End6 = (Ipv6Addr, u16);
type End4 = (Ipv4Addr, u16);

/// The wheel looks at sessions in steps of this many milliseconds.
const TICK: u64 = 256;
const MAX_SESSIONS: usize = 24;
const PORTS: std::ops::RangeInclusive<u16> = 2000..=2007;
const POOL: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 0), Ipv4Addr::new(192, 0, 2, 1)];
const STATIC: (Proto, u16, End4) = (Proto::Tcp, 1, (POOL[0], 2001));

#[derive(Default)]
struct Model {
    filtering: bool,
    external_tcp_dropped: bool,
    bib: BTreeMap<(Proto, End6), End4>,
    sessions: BTreeMap<(Proto, End6, End4), (State, u64)>,
    /// Source, destination, when it ends.
    syns: Vec<(End4, End4, u64)>,
}

#[derive(Debug, PartialEq)]
enum Expected {
    /// Forwarded, and with this mask if there was one before.
    Out(End6, Option<End4>, End4),
    In(End4, End6),
    Hairpin(End6, Option<End4>, End6),
    Dropped,
    Consumed,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    V6,
    V4,
}

fn lifetime(proto: Proto, state: State) -> u64 {
    use State::*;
    match (proto, state) {
        (Proto::Udp, _) => 300_000,
        (Proto::Icmp, _) => 60_000,
        (_, Established | V4FinRcv | V6FinRcv) => 7_200_000,
        (_, V4Init | V6Init | V4FinV6FinRcv | Trans) => 240_000,
    }
}

impl Model {
    fn owner(&self, proto: Proto, mask: End4) -> Option<End6> {
        self.bib.iter().find(|(k, v)| k.0 == proto && **v == mask).map(|(k, _)| k.1)
    }

    fn touch(&mut self, now: u64, key: (Proto, End6, End4), side: Side, flags: u8) {
        use State::*;
        let (state, deadline) = self.sessions.get_mut(&key).unwrap();
        let (syn, fin) = (flags & SYN != 0, flags & FIN != 0);
        let rst = flags & RST != 0;
        let plain = !rst;
        let next = if key.0 != Proto::Tcp {
            Some(Established)
        } else {
            match *state {
                V4Init => (plain && syn && side == Side::V6).then_some(Established),
                V6Init if plain && syn => Some(if side == Side::V4 { Established } else { V6Init }),
                V6Init | V4FinV6FinRcv => None,
                Established if rst => Some(Trans),
                Established if fin && !syn => {
                    Some(if side == Side::V4 { V4FinRcv } else { V6FinRcv })
                }
                Established => Some(Established),
                V4FinRcv | V6FinRcv => {
                    let other = if *state == V4FinRcv { Side::V6 } else { Side::V4 };
                    let both = plain && fin && !syn && side == other;
                    Some(if both { V4FinV6FinRcv } else { *state })
                }
                Trans => plain.then_some(Established),
            }
        };
        if let Some(next) = next {
            *state = next;
            *deadline = now + lifetime(key.0, next);
        }
    }

    /// RFC 6146 §3.5, for the IPv6 side of a packet. None: dropped.
    fn from6(
        &mut self,
        now: u64,
        proto: Proto,
        src: End6,
        dst: End4,
        flags: u8,
    ) -> Option<Option<End4>> {
        let mask = self.bib.get(&(proto, src)).copied();
        if self.sessions.contains_key(&(proto, src, dst)) {
            self.touch(now, (proto, src, dst), Side::V6, flags);
            return Some(mask);
        }
        let mut state = State::Established;
        let mut wanted = mask;
        if proto == Proto::Tcp {
            if flags & SYN == 0 || flags & RST != 0 {
                return mask.map(Some);
            }
            state = State::V6Init;
            let waits = |syn: &&(End4, End4, u64)| syn.0 == dst && mask.is_none_or(|m| m == syn.1);
            if let Some(&syn) = self.syns.iter().find(waits) {
                self.syns.retain(|s| *s != syn);
                state = State::Established;
                if mask.is_none() && self.owner(proto, syn.1).is_none() {
                    wanted = Some(syn.1);
                }
            }
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return None;
        }
        let used = self.bib.keys().filter(|k| k.0 == proto).count();
        if mask.is_none() && used == POOL.len() * PORTS.len() {
            return None;
        }
        self.sessions.insert((proto, src, dst), (state, now + lifetime(proto, state)));
        Some(wanted)
    }

    /// The same for the IPv4 side.
    fn from4(
        &mut self,
        now: u64,
        proto: Proto,
        src: End4,
        dst: End4,
        flags: u8,
    ) -> Result<End6, Expected> {
        let opens = proto == Proto::Tcp && flags & SYN != 0 && flags & RST == 0;
        // An answer to a SYN waits for nothing.
        let waits = opens && flags & ACK == 0;
        let Some(node) = self.owner(proto, dst) else {
            if waits && PORTS.contains(&dst.1) && !self.external_tcp_dropped {
                return Err(self.keep(now, src, dst));
            }
            return Err(Expected::Dropped);
        };
        let key = (proto, node, src);
        if self.sessions.contains_key(&key) {
            self.touch(now, key, Side::V4, flags);
            return Ok(node);
        }
        if opens && self.external_tcp_dropped {
            return Err(Expected::Dropped);
        }
        let known = self.sessions.keys().any(|k| (k.0, k.1, k.2.0) == (proto, node, src.0));
        if self.filtering && !known {
            return Err(if waits { self.keep(now, src, dst) } else { Expected::Dropped });
        }
        if proto == Proto::Tcp && !opens {
            return Ok(node);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(Expected::Dropped);
        }
        let state = if opens { State::V4Init } else { State::Established };
        self.sessions.insert(key, (state, now + lifetime(proto, state)));
        Ok(node)
    }

    fn keep(&mut self, now: u64, src: End4, dst: End4) -> Expected {
        if !self.syns.iter().any(|syn| (syn.0, syn.1) == (src, dst)) {
            if self.syns.len() == 10 {
                return Expected::Dropped;
            }
            self.syns.push((src, dst, now + 6_000));
        }
        Expected::Consumed
    }

    fn run_timers(&mut self, now: u64) {
        self.syns.retain(|syn| syn.2 > now);
        loop {
            let visit = |deadline: u64| deadline.div_ceil(TICK) * TICK;
            let due = self.sessions.iter().find(|(_, s)| visit(s.1) <= now);
            let Some((&key, &(state, deadline))) = due else { break };
            if key.0 == Proto::Tcp && state == State::Established {
                let end = visit(deadline) + lifetime(Proto::Tcp, State::Trans);
                self.sessions.insert(key, (State::Trans, end));
            } else {
                self.sessions.remove(&key);
            }
        }
        let live: Vec<_> = self.sessions.keys().map(|k| (k.0, k.1)).collect();
        self.bib.retain(|key, mask| live.contains(key) || (key.0, *mask) == (STATIC.0, STATIC.2));
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// From node and port to server and port.
    From6 {
        proto: u8,
        node: u8,
        port: u8,
        server: u8,
        flags: u8,
    },
    /// From node and port to a mask, an existing one or not.
    Hairpin {
        proto: u8,
        node: u8,
        port: u8,
        mask: prop::sample::Index,
        flags: u8,
    },
    From4 {
        proto: u8,
        server: u8,
        mask: prop::sample::Index,
        flags: u8,
    },
    /// Of a session that exists, from either side.
    Known {
        session: prop::sample::Index,
        v6: bool,
        flags: u8,
    },
    Wait(u32),
}

fn flags() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST, SYN | FIN, RST | SYN])
}

fn op() -> impl Strategy<Value = Op> {
    let mask = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0u8..3, 0u8..3, 0u8..6, 0u8..3, flags()).prop_map(|(proto, node, port, server, flags)| {
            Op::From6 { proto, node, port, server, flags }
        }),
        2 => (0u8..3, 0u8..3, 0u8..6, mask(), flags()).prop_map(|(proto, node, port, mask, flags)| {
            Op::Hairpin { proto, node, port, mask, flags }
        }),
        6 => (0u8..3, 0u8..3, mask(), flags()).prop_map(|(proto, server, mask, flags)| {
            Op::From4 { proto, server, mask, flags }
        }),
        12 => (mask(), any::<bool>(), flags()).prop_map(|(session, v6, flags)| {
            Op::Known { session, v6, flags }
        }),
        2 => prop_oneof![0u32..7_000, 50_000..310_000u32, Just(7_200_000u32)].prop_map(Op::Wait),
    ]
}

fn node(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n) + 1)
}

fn server(n: u8) -> End4 {
    (Ipv4Addr::new(203, 0, 113, n / 2 + 1), 80 + u16::from(n % 2))
}

/// All masks there could be, then some that can't.
fn any_mask(index: prop::sample::Index) -> End4 {
    let n = index.index(18);
    if n < 16 { (POOL[n / 8], 2000 + (n % 8) as u16) } else { (POOL[1], 1990 + n as u16) }
}

fn l4(proto: Proto, src: u16, dst: u16, flags: u8, request: bool) -> L4 {
    match proto {
        Proto::Tcp => tcp(src, dst, flags),
        Proto::Udp => udp(src, dst),
        Proto::Icmp => {
            if request {
                ping(src)
            } else {
                pong(dst)
            }
        }
    }
}

struct World {
    nat64: Nat64,
    model: Model,
    now: u64,
}

impl World {
    fn new(filtering: bool, external_tcp_dropped: bool) -> Self {
        let mut model = Model { filtering, external_tcp_dropped, ..Model::default() };
        model.bib.insert((STATIC.0, (node(0), STATIC.1)), STATIC.2);
        let nat64 = nat64(&format!(
            r#"{{"pool4": [{{"prefix": "192.0.2.0/31", "ports": "2000-2007"}}],
                "bib": [{{"protocol": "tcp", "ipv6": "2001:db8::1#1", "ipv4": "192.0.2.0#2001"}}],
                "max-sessions": {MAX_SESSIONS},
                "global": {{"address-dependent-filtering": {filtering},
                            "drop-externally-initiated-tcp": {external_tcp_dropped}}}}}"#
        ));
        Self { nat64, model, now: 1_000 }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Wait(ms) => {
                self.now += u64::from(ms);
                run_timers(&mut self.nat64, Time::from_millis(self.now));
                self.model.run_timers(self.now);
            }
            Op::From6 { proto, node: n, port, server: s, flags } => {
                let src = (node(n), u16::from(port) + 1);
                self.from6(Proto::ALL[usize::from(proto)], src, server(s), flags);
            }
            Op::Hairpin { proto, node: n, port, mask, flags } => {
                let (proto, src) = (Proto::ALL[usize::from(proto)], (node(n), u16::from(port) + 1));
                let dst = any_mask(mask);
                // An identifier outside pool4 would go out to IPv4 as if to a stranger.
                if proto == Proto::Icmp || !PORTS.contains(&dst.1) {
                    return;
                }
                let packet = Wire::V6(src.0, embed(dst.0), l4(proto, src.1, dst.1, flags, true));
                let expected = self.hairpin(proto, src, dst, flags);
                self.check(proto, flags, &packet, expected);
            }
            Op::From4 { proto, server: s, mask, flags } => {
                self.from4(Proto::ALL[usize::from(proto)], server(s), any_mask(mask), flags);
            }
            Op::Known { session, v6, flags } => {
                let known: Vec<_> = self.model.sessions.keys().copied().collect();
                if known.is_empty() {
                    return;
                }
                let (proto, src6, dst4) = known[session.index(known.len())];
                // Sessions between masks are the hairpin's.
                if POOL.contains(&dst4.0) {
                    return;
                }
                let mask = self.model.bib[&(proto, src6)];
                if v6 {
                    self.from6(proto, src6, dst4, flags);
                } else {
                    self.from4(proto, dst4, mask, flags);
                }
            }
        }
        self.compare();
    }

    fn from6(&mut self, proto: Proto, src: End6, to: End4, flags: u8) {
        let dst = (to.0, if proto == Proto::Icmp { 0 } else { to.1 });
        let expected = match self.model.from6(self.now, proto, src, dst, flags) {
            Some(mask) => Expected::Out(src, mask, dst),
            None => Expected::Dropped,
        };
        let packet = Wire::V6(src.0, embed(to.0), l4(proto, src.1, to.1, flags, true));
        self.check(proto, flags, &packet, expected);
    }

    fn from4(&mut self, proto: Proto, src: End4, dst: End4, flags: u8) {
        let key = (src.0, if proto == Proto::Icmp { 0 } else { src.1 });
        let expected = match self.model.from4(self.now, proto, key, dst, flags) {
            Ok(node) => Expected::In(src, node),
            Err(other) => other,
        };
        let packet = Wire::V4(src.0, dst.0, l4(proto, src.1, dst.1, flags, false));
        self.check(proto, flags, &packet, expected);
    }

    fn hairpin(&mut self, proto: Proto, src: End6, dst: End4, flags: u8) -> Expected {
        let Some(target) = self.model.owner(proto, dst) else { return Expected::Dropped };
        let before = self.model.bib.get(&(proto, src)).copied();
        let Some(mask) = self.model.from6(self.now, proto, src, dst, flags) else {
            return Expected::Dropped;
        };
        // Which mask a new mapping gets is the translator's choice: ask it.
        let mask = mask.or(before).unwrap_or((Ipv4Addr::UNSPECIFIED, 0));
        if mask.1 == 0 {
            return Expected::Hairpin(src, None, target);
        }
        self.model.bib.insert((proto, src), mask);
        match self.model.from4(self.now, proto, mask, dst, flags) {
            Ok(node) => Expected::Hairpin(src, Some(mask), node),
            Err(other) => other,
        }
    }

    /// Sends the packet and compares what comes out; learns new masks from it.
    fn check(&mut self, proto: Proto, flags: u8, packet: &Wire, expected: Expected) {
        let (outcome, bytes) = send(&mut self.nat64, Time::from_millis(self.now), &packet.bytes());
        while let Some(own) = self.nat64.poll_packet() {
            Wire::read(&own.bytes);
        }
        match expected {
            Expected::Dropped => {
                assert!(matches!(outcome, Outcome::Drop(_)), "{outcome:?} {packet:?}")
            }
            Expected::Consumed => assert_eq!(outcome, Outcome::Consumed, "{packet:?}"),
            Expected::In(src, node) => {
                assert_eq!(outcome, Outcome::Forward, "{packet:?}");
                let l4 = l4(proto, src.1, node.1, flags, false);
                assert_eq!(Wire::read(&bytes), Wire::V6(embed(src.0), node.0, l4));
            }
            Expected::Out(src, mask, dst) => {
                assert_eq!(outcome, Outcome::Forward, "{packet:?}");
                let Wire::V4(addr, to, out) = Wire::read(&bytes) else { panic!() };
                let port = match out {
                    L4::Tcp { src, .. } | L4::Udp { src, .. } => src,
                    L4::Echo { id, .. } => id,
                    L4::Error { .. } => panic!(),
                };
                let to_port = if proto == Proto::Icmp { 0 } else { dst.1 };
                assert_eq!((to, &out), (dst.0, &l4(proto, port, to_port, flags, true)));
                self.learn(proto, src, mask, (addr, port));
            }
            Expected::Hairpin(src, mask, to) => {
                let given = self.mask_of(proto, src);
                if mask.is_none() {
                    let given = given.expect("the mapping is made before the packet goes back");
                    self.learn(proto, src, None, given);
                    let Wire::V6(_, dst, _) = packet else { panic!() };
                    let dst4 = Ipv4Addr::from_bits(dst.to_bits() as u32);
                    let port = match packet {
                        Wire::V6(_, _, L4::Tcp { dst, .. } | L4::Udp { dst, .. }) => *dst,
                        _ => panic!(),
                    };
                    match self.model.from4(self.now, proto, given, (dst4, port), flags) {
                        Ok(_) => {}
                        Err(Expected::Consumed) => return assert_eq!(outcome, Outcome::Consumed),
                        Err(_) => return assert!(matches!(outcome, Outcome::Drop(_))),
                    }
                }
                let mask = given.unwrap();
                assert_eq!(outcome, Outcome::Forward, "{packet:?}");
                let l4 = l4(proto, mask.1, to.1, flags, true);
                assert_eq!(Wire::read(&bytes), Wire::V6(embed(mask.0), to.0, l4));
            }
        }
    }

    fn mask_of(&self, proto: Proto, src: End6) -> Option<End4> {
        let mut found = None;
        self.nat64.bib_scan(0, 10_000, &mut |bib| {
            if (bib.proto, bib.src6.addr, bib.src6.port) == (proto, src.0, src.1) {
                found = Some((bib.src4.addr, bib.src4.port));
            }
        });
        found
    }

    fn learn(&mut self, proto: Proto, src: End6, wanted: Option<End4>, given: End4) {
        assert!(wanted.is_none_or(|wanted| wanted == given), "{wanted:?} {given:?}");
        if !self.model.bib.contains_key(&(proto, src)) {
            assert!(POOL.contains(&given.0) && PORTS.contains(&given.1));
            assert_eq!(self.model.owner(proto, given), None, "a mask has one owner");
            self.model.bib.insert((proto, src), given);
        }
    }

    /// Sessions with states and lifetimes, and BIB entries, are the model's.
    fn compare(&self) {
        let now = Time::from_millis(self.now);
        let mut sessions = BTreeMap::new();
        self.nat64.scan(now, 0, 10_000, &mut |r| {
            let key = r.key;
            let port = if key.proto == Proto::Icmp { 0 } else { key.dst4.port };
            let key = (key.proto, (key.src6.addr, key.src6.port), (key.dst4.addr, port));
            sessions.insert(key, (r.state, r.lifetime_ms));
        });
        let expected: BTreeMap<_, _> = self
            .model
            .sessions
            .iter()
            .map(|(&key, &(state, end))| (key, (state, end.saturating_sub(self.now) as u32)))
            .collect();
        assert_eq!(sessions, expected);
        let mut bib = BTreeMap::new();
        self.nat64.bib_scan(0, 10_000, &mut |b| {
            bib.insert((b.proto, (b.src6.addr, b.src6.port)), (b.src4.addr, b.src4.port));
        });
        assert_eq!(bib, self.model.bib);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn behaves_like_the_model(
        ops in prop::collection::vec(op(), 1..80), filtering: bool, external_tcp_dropped: bool,
    ) {
        let mut world = World::new(filtering, external_tcp_dropped);
        for op in &ops {
            world.apply(op);
        }
    }

    /// Whatever bytes come, nothing grows and what goes out is a packet.
    #[test]
    fn any_bytes_are_survived(
        packets in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..120), any::<u8>()), 1..20,
        ),
    ) {
        let mut world = World::new(false, false);
        for (v6, mut bytes, twist) in packets {
            // Random bytes alone hardly ever get past the first check.
            if twist & 1 == 0 {
                let whole = if v6 {
                    Wire::V6(node(0), embed(server(0).0), tcp(1, 80, SYN))
                } else {
                    Wire::V4(server(0).0, POOL[0], tcp(80, 2001, SYN))
                };
                let mut whole = whole.bytes();
                for (n, byte) in bytes.iter().take(4).enumerate() {
                    let at = usize::from(*byte) * (n + 1) % whole.len();
                    whole[at] ^= twist;
                }
                bytes = whole;
            } else if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            let (outcome, _) = send(&mut world.nat64, Time::from_millis(1_000), &bytes);
            prop_assert_ne!(outcome, Outcome::Pending);
            prop_assert!(world.nat64.session_count() as usize <= MAX_SESSIONS);
        }
    }
}
