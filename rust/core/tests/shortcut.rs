//! A packet with nothing unusual takes a short way through the translator. With an IPv6 extension
//! header or IPv4 options that mean nothing it takes the long one: the two must agree in what comes
//! out and in what they do to the table.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::{Gso, HEADROOM, Offload, Outcome, Packet};
use jsync_core::stats::Counter;
use jsync_core::table::{SessionKey, SessionRecord, State};
use jsync_core::time::Time;
use jsync_core::tuple::{Endpoint4, Endpoint6};
use proptest::prelude::*;

const CONFIGS: [&str; 3] = [
    r#"{"pool4": [{"prefix": "192.0.2.0/31", "ports": "2000-2007"}], "max-sessions": 64,
        "bib": [{"protocol": "udp", "ipv6": "2001:db8::1#7", "ipv4": "192.0.2.0#2001"},
                {"protocol": "tcp", "ipv6": "2001:db8::1#7", "ipv4": "192.0.2.0#2001"}]}"#,
    r#"{"pool4": [{"prefix": "192.0.2.0", "ports": "2000-2007"},
                  {"prefix": "192.0.2.9", "ports": "2000-2007"}], "max-sessions": 64,
        "global": {"override-tos": true, "tos": 9, "zeroize-traffic-class": true,
                   "lowest-ipv6-mtu": 1500, "address-dependent-filtering": true,
                   "denylist4": ["203.0.113.0/31"]}}"#,
    r#"{"pool4": [{"prefix": "192.0.2.0/30", "ports": "2000-2003"}], "max-sessions": 8,
        "global": {"allow-non-global": true, "handle-rst-during-fin-rcv": true}}"#,
];

#[derive(Clone, Debug)]
struct Sent {
    /// Isn't sent: a peer tells of its session.
    learned: bool,
    from_v6: bool,
    host: u16,
    port: u16,
    far: Ipv4Addr,
    far_port: u16,
    l4: L4,
    hops: u8,
    class: u8,
    may_fragment: bool,
    no_checksum: bool,
    offload: Offload,
    wait: u64,
}

fn sent() -> impl Strategy<Value = Sent> {
    let far = prop::sample::select(vec![
        "203.0.113.5",
        "203.0.113.6",
        "203.0.113.1",
        "10.0.0.1",
        "127.0.0.1",
        "192.0.2.0",
        "192.0.2.1",
    ]);
    let flags = prop::sample::select(vec![SYN, SYN | ACK, ACK, ACK, ACK, ACK | FIN, RST, 0]);
    let len = prop_oneof![0..40usize, 1200..1500usize];
    let what = (any::<bool>(), flags, len);
    let who = (any::<bool>(), 1..3u16, 7..9u16, far, Just(5u16));
    let header = (
        prop_oneof![Just(64u8), Just(64), 0..4u8],
        any::<u8>(),
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop_oneof![4 => Just(Offload::default()), 1 => offload()],
    );
    let wait = prop_oneof![30 => Just(0u64), 2 => Just(50), 1 => Just(200_000)];
    (prop::bool::weighted(0.1), who, what, header, wait).prop_map(
        |(learned, (from_v6, host, port, far, far_port), (is_tcp, flags, len), header, wait)| {
            let (hops, class, may_fragment, no_checksum, offload) = header;
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let l4 = if is_tcp {
                L4::Tcp { src: 0, dst: 0, flags, payload }
            } else {
                L4::Udp { src: 0, dst: 0, payload }
            };
            let far = a4(far);
            Sent {
                learned,
                from_v6,
                host,
                port,
                far,
                far_port,
                l4,
                hops,
                class,
                may_fragment,
                no_checksum,
                offload,
                wait,
            }
        },
    )
}

fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn offload() -> impl Strategy<Value = Offload> {
    let gso = prop::sample::select(vec![Gso::None, Gso::Tcp, Gso::Udp]);
    (any::<bool>(), gso, 100..1500u16).prop_map(|(partial_checksum, gso, gso_size)| Offload {
        partial_checksum,
        gso,
        gso_size,
    })
}

impl Sent {
    /// A session of the flow, as a peer would tell of it.
    fn session(&self, version: u32) -> SessionRecord {
        let src4 = Endpoint4 {
            addr: Ipv4Addr::new(192, 0, 2, (self.host - 1) as u8),
            port: 1993 + self.port + self.host,
        };
        let src6 = Endpoint6 { addr: host(self.host), port: self.port };
        let dst4 = Endpoint4 { addr: self.far, port: self.far_port };
        let proto = proto_of(&self.l4).unwrap();
        let key = SessionKey { proto, src6, src4, dst4 };
        SessionRecord { key, state: State::Established, lifetime_ms: 100_000, version }
    }

    /// The packet, with something in front of its transport header if `unusual`.
    fn bytes(&self, unusual: bool) -> Vec<u8> {
        let ports = |l4: &L4, src, dst| match l4.clone() {
            L4::Tcp { flags, payload, .. } => L4::Tcp { src, dst, flags, payload },
            L4::Udp { payload, .. } => L4::Udp { src, dst, payload },
            other => other,
        };
        let is_udp = matches!(self.l4, L4::Udp { .. });
        if self.from_v6 {
            let src = host(self.host);
            // To a mask it is hairpinned.
            let port =
                if self.far.octets()[0] == 192 { 1995 + self.far_port } else { self.far_port };
            let l4 = ports(&self.l4, self.port, port);
            let mut bytes = Wire::V6(src, embed(self.far), l4).bytes();
            bytes[0] |= self.class >> 4;
            bytes[1] |= self.class << 4;
            bytes[7] = self.hops;
            if unusual {
                // Destination Options with a PadN.
                let extension = [bytes[6], 0, 1, 4, 0, 0, 0, 0];
                bytes[6] = 60;
                let len = u16::from_be_bytes([bytes[4], bytes[5]]) + 8;
                bytes[4..6].copy_from_slice(&len.to_be_bytes());
                bytes.splice(40..40, extension);
            }
            return bytes;
        }
        let mask = Ipv4Addr::new(192, 0, 2, (self.host - 1) as u8);
        let l4 = ports(&self.l4, self.far_port, 1993 + self.port + self.host);
        let mut bytes = Wire::V4(self.far, mask, l4).bytes();
        (bytes[1], bytes[8]) = (self.class, self.hops);
        if self.may_fragment {
            bytes[6] = 0;
        }
        if is_udp && self.no_checksum {
            bytes[26..28].fill(0);
        }
        if unusual {
            // Four times no operation.
            bytes[0] = 0x46;
            let len = u16::from_be_bytes([bytes[2], bytes[3]]) + 4;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes.splice(20..20, [1; 4]);
        }
        let header = if unusual { 24 } else { 20 };
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..header]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// What became of a packet, what it is now, and what comes in its place.
type Fate = (Outcome, Vec<u8>, Vec<Vec<u8>>);

fn take(nat64: &mut Nat64, now: Time, bytes: &[u8], offload: Offload) -> Fate {
    let mut buffer = vec![0; HEADROOM];
    buffer.extend(bytes);
    let mut burst = [Packet::new(&mut buffer, HEADROOM, bytes.len(), offload)];
    nat64.handle_packets(now, &mut burst);
    let [packet] = burst;
    let made = std::iter::from_fn(|| nat64.poll_packet()).map(|packet| packet.bytes).collect();
    match packet.outcome {
        Outcome::Forward => (Outcome::Forward, without_extension(packet.bytes().to_vec()), made),
        Outcome::Consumed => (Outcome::Consumed, Vec::new(), made),
        // An ICMP error quotes the packet with what makes it unusual.
        outcome => (outcome, Vec::new(), Vec::new()),
    }
}

/// A hairpinned packet keeps its IPv6 extension header.
fn without_extension(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes[0] >> 4 == 6 && bytes[6] == 60 {
        bytes[6] = bytes[40];
        let len = u16::from_be_bytes([bytes[4], bytes[5]]) - 8;
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
        bytes.drain(40..48);
    }
    bytes
}

fn sessions(nat64: &Nat64, now: Time) -> Vec<SessionRecord> {
    let mut all = Vec::new();
    assert_eq!(nat64.scan(now, 0, usize::MAX, &mut |record| all.push(record)), None);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_short_way_and_the_long_one_agree(
        config in prop::sample::select(&CONFIGS[..]),
        packets in prop::collection::vec(sent(), 1..120),
    ) {
        let (mut short, mut long) = (nat64(config), nat64(config));
        let mut now = Time::from_millis(1_000);
        for (version, packet) in (1..).zip(&packets) {
            now = now + packet.wait;
            for nat64 in [&mut short, &mut long] {
                nat64.handle_timeout(now);
                while nat64.poll_packet().is_some() {}
            }
            if packet.learned {
                let learned = [&mut short, &mut long]
                    .map(|nat64| nat64.learn(now, &packet.session(version)));
                prop_assert_eq!(learned[0], learned[1]);
                continue;
            }
            let fates = [(&mut short, false), (&mut long, true)]
                .map(|(nat64, unusual)| take(nat64, now, &packet.bytes(unusual), packet.offload));
            prop_assert_eq!(&fates[0], &fates[1], "{:?}", packet);
        }
        prop_assert_eq!(sessions(&short, now), sessions(&long, now));
        for &counter in Counter::ALL {
            prop_assert_eq!(short.stats.value(counter), long.stats.value(counter), "{}", counter.name());
        }
    }
}
