//! Every reason to drop a packet is met by one packet, which counts once and for nothing else.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::nat64::Nat64;
use jsync_core::packet::{HEADROOM, Offload, Outcome, Packet};
use jsync_core::stats::DropReason;

const POOL4: &str = r#"{"prefix": "192.0.2.1", "ports": "61001-65535"}"#;

fn six(l4: L4) -> Vec<u8> {
    Wire::V6(n6(), embed(n4()), l4).bytes()
}

fn four(l4: L4) -> Vec<u8> {
    Wire::V4(n4(), mask(), l4).bytes()
}

/// `bytes` with others in some places, and an IPv4 header checksum that fits.
fn with(mut bytes: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for &(at, byte) in changes {
        bytes[at] = byte;
    }
    if bytes[0] >> 4 == 4 {
        let header = 4 * usize::from(bytes[0] & 15);
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..header]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// A later fragment of a UDP datagram from n6.
fn later() -> Vec<u8> {
    let mut bytes = six(udp(17 << 8, 8));
    bytes[6] = 44;
    bytes[44..48].copy_from_slice(&[0, 0, 0, 9]);
    bytes
}

/// A translator, the packets that come first, and the one that is dropped.
struct Case {
    pool4: &'static str,
    more: &'static str,
    before: Vec<Vec<u8>>,
    packet: Vec<u8>,
    headroom: usize,
}

fn case(packet: Vec<u8>) -> Case {
    Case {
        pool4: POOL4,
        more: r#""max-sessions": 1000"#,
        before: vec![],
        packet,
        headroom: HEADROOM,
    }
}

fn limited(more: &'static str) -> Case {
    let before = vec![six(udp(5000, 53))];
    Case { more, before, ..case(six(udp(5001, 53))) }
}

fn pool4(pool4: &'static str, count: u16) -> Case {
    let before = (0..count).map(|n| six(udp(4000 + n, 53))).collect();
    Case { pool4, before, ..case(six(udp(5001, 53))) }
}

fn case_of(reason: DropReason) -> Case {
    use DropReason::*;
    let static_entry = r#""max-sessions": 1000,
        "bib": [{"protocol": "udp", "ipv6": "2001:db8::8#53", "ipv4": "192.0.2.1#61053"}]"#;
    match reason {
        Malformed => case(six(udp(1, 2))[..47].to_vec()),
        UnknownVersion => case(vec![0x50; 40]),
        HeaderChecksum => {
            let mut bytes = four(udp(53, 61053));
            bytes[10] ^= 1;
            case(bytes)
        }
        UnsupportedProtocol => case(with(six(udp(1, 2)), &[(6, 136)])),
        UnsupportedIcmp => case(with(six(ping(1)), &[(40, 135)])),
        IcmpChecksum => {
            let error = L4::Error { kind: 3, code: 3, rest: 0, inner: four(udp(1, 2)) };
            let mut bytes = four(error);
            bytes[22] ^= 1;
            case(bytes)
        }
        TtlExpired => case(with(six(udp(1, 2)), &[(7, 1)])),
        TooBig => case(six(L4::Udp { src: 1, dst: 2, payload: vec![0; 65_508] })),
        SourceRoute => {
            let mut bytes = four(udp(53, 61053));
            bytes.splice(20..20, [131, 7, 4, 192, 0, 2, 9, 0]);
            let len = bytes.len() as u8;
            case(with(bytes, &[(0, 0x47), (3, len)]))
        }
        RoutingHeader => {
            let mut bytes = six(udp(1, 2));
            bytes.splice(40..40, [17, 0, 0, 1, 0, 0, 0, 0]);
            let len = bytes[5] + 8;
            case(with(bytes, &[(5, len), (6, 43)]))
        }
        NotPool6 => case(Wire::V6(n6(), a6("2001:db8::9"), udp(1, 2)).bytes()),
        SourceInPool6 => case(Wire::V6(embed(n4()), embed(n4()), udp(1, 2)).bytes()),
        NotPool4 => case(four(udp(53, 22))),
        BadAddress => case(Wire::V4(a4("127.0.0.1"), mask(), udp(53, 61053)).bytes()),
        NonGlobal => case(Wire::V6(n6(), embed(a4("10.0.0.1")), udp(1, 2)).bytes()),
        NoBib => case(four(udp(53, 61053))),
        NotSyn => case(six(tcp(1, 2, ACK))),
        NoSession => {
            let inner = Wire::V4(mask(), n4(), udp(61053, 53)).bytes();
            case(four(L4::Error { kind: 3, code: 3, rest: 0, inner }))
        }
        Filtered => Case {
            more: r#""max-sessions": 9, "global": {"drop-icmpv6-info": true}"#,
            ..case(six(ping(1)))
        },
        Pool4Exhausted => pool4(r#"{"prefix": "192.0.2.1", "ports": "61001-61002"}"#, 2),
        NoPool4Mark => pool4(r#"{"prefix": "192.0.2.1", "mark": 5}"#, 0),
        NoPortBlock => Case {
            more: r#""max-sessions": 99,
                "global": {"port-block-size": 64, "subscriber-prefix-length": 128}"#,
            packet: Wire::V6(a6("2001:db8::9"), embed(n4()), udp(5001, 53)).bytes(),
            ..pool4(r#"{"prefix": "192.0.2.1", "ports": "1024-1087"}"#, 1)
        },
        SubscriberPorts => {
            limited(r#""max-sessions": 99, "global": {"max-ports-per-subscriber": 1}"#)
        }
        SubscriberSessions => {
            limited(r#""max-sessions": 99, "global": {"max-sessions-per-subscriber": 1}"#)
        }
        // The first makes the subscriber known, and doesn't count.
        SubscriberRate => Case {
            more: r#""max-sessions": 99, "global": {"max-session-rate-per-subscriber": 1}"#,
            ..pool4(POOL4, 2)
        },
        Denylisted => Case {
            more: r#""max-sessions": 9, "global": {"denylist4": ["203.0.113.16"]}"#,
            ..case(six(udp(1, 2)))
        },
        TableFull => limited(r#""max-sessions": 1"#),
        FragmentsFull => Case { before: vec![later(); 52], ..case(later()) },
        FragmentRefused => {
            // The first fragment: in front of the transport header, "another follows".
            let mut first = Wire::V6(n6(), embed(a4("10.0.0.1")), udp(1, 2)).bytes();
            first.splice(40..40, [17, 0, 0, 1, 0, 0, 0, 9]);
            first.push(0);
            let first = with(first, &[(5, 24), (6, 44)]);
            let mut packet = later();
            packet[24..40].copy_from_slice(&embed(a4("10.0.0.1")).octets());
            Case { before: vec![first], ..case(packet) }
        }
        FragmentTimeout => Case { before: vec![later()], ..case(vec![]) },
        FragmentUntranslatable => {
            let bytes = six(ping(1));
            let mut fragment = bytes[..40].to_vec();
            fragment.extend([58, 0, 0, 1, 0, 0, 0, 9]);
            fragment.extend(&bytes[40..]);
            case(with(fragment, &[(5, bytes[5] + 8), (6, 44)]))
        }
        QueueFull => {
            // Each becomes two fragments, which nobody fetches.
            let big = four(L4::Udp { src: 1, dst: 61053, payload: vec![0; 1400] });
            let big = with(big, &[(6, 0)]);
            Case { more: static_entry, before: vec![big.clone(); 2048], ..case(big) }
        }
        NoHeadroom => Case { more: static_entry, headroom: 0, ..case(four(udp(1, 61053))) },
    }
}

fn hand_over(nat64: &mut Nat64, bytes: &[u8], headroom: usize) -> Outcome {
    let mut buffer = vec![0xee; headroom];
    buffer.extend(bytes);
    let mut burst = [Packet::new(&mut buffer, headroom, bytes.len(), Offload::default())];
    nat64.handle_packets(T0, &mut burst);
    burst[0].outcome
}

fn counts(nat64: &Nat64) -> Vec<(DropReason, u64)> {
    DropReason::ALL.iter().map(|&reason| (reason, nat64.stats.dropped(reason))).collect()
}

#[test]
fn every_reason_is_counted() {
    for &reason in DropReason::ALL {
        let Case { pool4, more, before, packet, headroom } = case_of(reason);
        let mut nat64 = nat64(&format!(r#"{{"pool4": [{pool4}], {more}}}"#));
        for bytes in &before {
            hand_over(&mut nat64, bytes, HEADROOM);
        }
        let mut expected = counts(&nat64);
        let outcome = match reason {
            DropReason::FragmentTimeout => {
                nat64.handle_timeout(T0 + 2_000);
                Outcome::Drop(reason)
            }
            _ => hand_over(&mut nat64, &packet, headroom),
        };
        // What finds no place in the queue are the pieces of a packet that was taken.
        let (fate, count) = match reason {
            DropReason::QueueFull => (Outcome::Consumed, 2),
            _ => (Outcome::Drop(reason), 1),
        };
        assert_eq!(outcome, fate, "{reason:?}");
        expected[reason as usize].1 += count;
        assert_eq!(counts(&nat64), expected, "{reason:?}");
    }
}
