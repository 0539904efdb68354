//! Properties that hold for any packet, judged by the oracle.

use jsync_core::config::Globals;
use jsync_core::packet::{Gso, Offload};
use jsync_core::wire::view::parse4;
use jsync_core::wire::{Parsed, parse};
use jsync_core::xlat::{IcmpError, Refusal, Translated, hairpin, icmp_error, v4to6, v6to4};
use proptest::prelude::*;

use super::packets::*;
use super::*;

/// Vectors that random bytes are made from: a mutated packet gets further than noise.
const EXAMPLES: [&str; 22] = [
    TCP_6,
    UDP_6,
    UDP_6_EXTENSIONS,
    UDP_6_ATOMIC,
    ECHO_6,
    FRAGMENT_6_FIRST,
    FRAGMENT_6_LAST,
    TCP_REPLY_4,
    UDP_REPLY_4,
    UDP_REPLY_4_NO_CHECKSUM,
    UDP_REPLY_4_OPTIONS,
    ECHO_REPLY_4,
    REPLY_FRAGMENT_4_FIRST,
    REPLY_FRAGMENT_4_LAST,
    errors::PORT_4,
    errors::TTL_4,
    errors::FRAG_NEEDED_4,
    errors::PING_4,
    errors::PORT_BACK_6,
    errors::TOO_BIG_BACK_6,
    errors::PING_BACK_6,
    errors::HAIRPIN_ERROR_IN,
];

/// Bytes that may be a packet: noise, or an example with bytes changed, cut, or lengthened, its
/// checksums put right again as often as not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let mutant = (
        prop::sample::select(&EXAMPLES[..]),
        prop::collection::vec(change, 0..4),
        prop::option::of(any::<prop::sample::Index>()),
        0..1500usize,
        any::<bool>(),
    )
        .prop_map(|(example, changes, cut, longer, finish)| {
            let mut bytes = hex(example);
            let first = bytes[0];
            let start = if first >> 4 == 6 { 40 } else { 20 };
            match cut {
                Some(cut) => bytes.truncate(cut.index(bytes.len()).max(start + 20)),
                None if longer > 700 => bytes.resize(bytes.len() + longer - 700, 0x5a),
                None => {}
            }
            for (index, value) in changes {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            if finish && bytes.len() >= start + 20 {
                bytes[0] = first;
                let (at, len) = if start == 40 { (4, bytes.len() - 40) } else { (2, bytes.len()) };
                bytes[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
                oracle::finish(&mut bytes);
            }
            bytes
        });
    prop_oneof![1 => noise, 9 => mutant]
}

fn offload() -> impl Strategy<Value = Offload> {
    let gso = prop_oneof![8 => Just(Gso::None), 1 => Just(Gso::Tcp), 1 => Just(Gso::Udp)];
    (prop::bool::weighted(0.2), gso, any::<u16>())
        .prop_map(|(partial_checksum, gso, gso_size)| Offload { partial_checksum, gso, gso_size })
}

fn globals() -> impl Strategy<Value = Globals> {
    (any::<bool>(), any::<bool>(), any::<u8>(), 1280..=2000u16).prop_map(
        |(zeroize_traffic_class, override_tos, tos, lowest_ipv6_mtu)| Globals {
            zeroize_traffic_class,
            override_tos,
            tos,
            lowest_ipv6_mtu,
            ..Globals::default()
        },
    )
}

/// What is wrong with a translated packet, less what was wrong before: a transport checksum that
/// a sender got wrong, or left to the device.
fn structural_fault(bytes: &[u8]) -> Option<String> {
    oracle::fault(bytes)
        .filter(|fault| !fault.starts_with("checksum") && !fault.starts_with("no UDP checksum"))
}

/// Translates whatever `bytes` are in every way that the parser allows, and returns what comes out.
fn everything(bytes: &[u8], offload: Offload, globals: &Globals) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let refused = |refusal: Refusal, bytes: &[u8], out: &mut Vec<Vec<u8>>| {
        if let Refusal::Reply(_, error) = refusal {
            let four = icmp_error::build4(bytes, error, a4("192.0.2.1"));
            let six = icmp_error::build6(bytes, error, a6("64:ff9b::1"));
            let reply = if bytes[0] >> 4 == 4 { four } else { six };
            out.extend(reply.map(|packet| packet.bytes));
        }
    };
    let parsed = match parse(bytes) {
        Ok(parsed) => parsed,
        Err(refusal) => {
            refused(refusal, bytes, &mut out);
            return out;
        }
    };
    let mut buffer = Buffer { offload, ..Buffer::new(bytes) };
    let mut packet = buffer.packet();
    let result = match &parsed {
        Parsed::V4(view) if view.inner.is_some() => {
            let src = a6("64:ff9b::203.0.113.7");
            v4to6::translate_error(&mut packet, view, src, n6(1), n4_in_6(2), globals)
        }
        Parsed::V4(view) => match v4to6::translate(&mut packet, view, n4_in_6(2), n6(1), globals) {
            Ok(Translated::Fragments(fragments)) => {
                out.extend(fragments.into_iter().map(|fragment| fragment.bytes));
                return out;
            }
            result => result.map(|_| ()),
        },
        Parsed::V6(view) if view.inner.is_some() => {
            let src = a4("192.0.2.1");
            v6to4::translate_error(&mut packet, view, src, n4(2), mask(61001), globals, 7)
        }
        Parsed::V6(view) => v6to4::translate(&mut packet, view, mask(61001), n4(2), globals, 7),
    };
    match result {
        Ok(()) => out.push(packet.bytes().to_vec()),
        Err(refusal) => {
            assert_bytes(packet.bytes(), bytes);
            refused(refusal, bytes, &mut out);
        }
    }
    if let Parsed::V6(view) = &parsed {
        let mut buffer = Buffer { offload, ..Buffer::new(bytes) };
        let mut packet = buffer.packet();
        let src = e6("64:ff9b::192.0.2.1", 61001);
        let done = match view.inner {
            Some(_) => hairpin::translate_error(&mut packet, view, src.addr, n6(1), src),
            None => hairpin::translate(&mut packet, view, src, e6("2001:db8::6", 80)),
        };
        // Extension headers stay, which the oracle doesn't follow; the parser does.
        if done.is_ok() {
            let again = parse(packet.bytes());
            assert!(again.is_ok() || view.hop_limit == 1, "{again:?}");
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any bytes: no panic, and what comes out is a packet.
    #[test]
    fn any_bytes(bytes in bytes(), offload in offload(), globals in globals()) {
        for packet in everything(&bytes, offload, &globals) {
            prop_assert_eq!(structural_fault(&packet), None, "\n{}", show(&packet));
            prop_assert!(packet.len() <= bytes.len().max(1280) + 28);
        }
    }

    /// A packet without fault becomes one without fault.
    #[test]
    fn right_stays_right(bytes in bytes(), globals in globals()) {
        // Of what is behind a Fragment header the oracle says nothing.
        let judged = bytes.len() >= 20 && (bytes[0] >> 4 == 4 || bytes[6] != 44);
        if judged && oracle::fault(&bytes).is_none() {
            for packet in everything(&bytes, Offload::default(), &globals) {
                prop_assert_eq!(oracle::fault(&packet), None, "\n{}", show(&packet));
            }
        }
    }
}

/// A whole packet of a protocol, from n6 to n4 or back.
fn packet(six: bool, protocol: u8, data: &[u8], ports: (u16, u16), class: u8) -> Vec<u8> {
    let header = match protocol {
        6 => 20,
        _ => 8,
    };
    let len = header + data.len();
    let mut bytes;
    if six {
        bytes = vec![0x60 | class >> 4, class << 4, 0, 0, 0, 0, protocol, 64];
        bytes[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        bytes.extend(n6(0).addr.octets());
        bytes.extend(n4_in_6(0).addr.octets());
    } else {
        bytes = vec![0x45, class, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
        bytes[2..4].copy_from_slice(&(len as u16 + 20).to_be_bytes());
        bytes.extend(n4(0).addr.octets());
        bytes.extend(mask(0).addr.octets());
    }
    let start = bytes.len();
    bytes.resize(start + header, 0);
    bytes[start..start + 2].copy_from_slice(&ports.0.to_be_bytes());
    bytes[start + 2..start + 4].copy_from_slice(&ports.1.to_be_bytes());
    match protocol {
        6 => bytes[start + 12..start + 14].copy_from_slice(&[0x50, 0x10]),
        17 => bytes[start + 4..start + 6].copy_from_slice(&(len as u16).to_be_bytes()),
        _ => {
            let echo = [if protocol == 1 { 8 } else { 128 }, 0, 0, 0];
            bytes[start..start + 4].copy_from_slice(&echo);
            bytes[start + 4..start + 6].copy_from_slice(&ports.0.to_be_bytes());
        }
    }
    bytes.extend_from_slice(data);
    oracle::finish(&mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// v6 to v4 with checksums right, and back to what it was, less two hops.
    #[test]
    fn there_and_back_from_6(
        kind in 0..3usize,
        data in prop::collection::vec(any::<u8>(), 0..1400),
        own: u16,
        other: u16,
        masked: u16,
        class: u8,
        ident: u16,
    ) {
        let globals = Globals::default();
        let six = packet(true, [6, 17, 58][kind], &data, (own, other), class);
        prop_assert_eq!(oracle::fault(&six), None);
        let other = if kind == 2 { masked } else { other };
        let four = to4(&six, mask(masked), n4(other), &globals, ident).unwrap();
        prop_assert_eq!(oracle::fault(&four), None);
        prop_assert_eq!(four.len() + 20, six.len());
        // The answer's addresses are the question's, the other way round; here they aren't
        // turned, so that the packet must come back as it was.
        let (src, dst) = match kind {
            2 => (n6(own), n4_in_6(own)),
            _ => (n6(own), n4_in_6(other)),
        };
        let mut again = to6(&four, src, dst, &globals).unwrap();
        prop_assert_eq!(again[7], 62);
        again[7] = 64;
        // A checksum of zero and one of all ones are the same number; either may come back.
        prop_assert_eq!(oracle::fault(&again), None);
        oracle::finish(&mut again);
        assert_bytes(&again, &six);
    }

    /// v4 to v6 with checksums right, and back to what it was, less two hops, identification and DF.
    #[test]
    fn there_and_back_from_4(
        kind in 0..3usize,
        data in prop::collection::vec(any::<u8>(), 0..1400),
        other: u16,
        masked: u16,
        own: u16,
        class: u8,
    ) {
        let globals = Globals::default();
        let four = packet(false, [6, 17, 1][kind], &data, (other, masked), class);
        prop_assert_eq!(oracle::fault(&four), None);
        let other = if kind == 2 { own } else { other };
        let six = to6(&four, n4_in_6(other), n6(own), &globals).unwrap();
        prop_assert_eq!(oracle::fault(&six), None);
        let view = parse4(&four).unwrap();
        let (src, dst) = (n4(view.src_port), mask(view.dst_port));
        let mut again = to4(&six, src, dst, &globals, 0x1234).unwrap();
        prop_assert_eq!((again[8], again[6]), (62, if four.len() > 1260 { 0x40 } else { 0 }));
        again[8] = 64;
        again[6] = 0x40;
        prop_assert_eq!(oracle::fault(&six), None);
        oracle::finish(&mut again);
        assert_bytes(&again, &four);
    }

    /// An error about any packet that was translated leads back to the packet that was.
    #[test]
    fn errors_quote_what_was_sent(
        kind in 0..3usize,
        data in prop::collection::vec(any::<u8>(), 0..1300),
        own: u16,
        other: u16,
        masked: u16,
    ) {
        let globals = Globals::default();
        let sent = packet(true, [6, 17, 58][kind], &data, (own, other), 0);
        let other = if kind == 2 { masked } else { other };
        let four = to4(&sent, mask(masked), n4(other), &globals, 7).unwrap();
        let router = a4("203.0.113.7");
        let error = icmp_error::build4(&four, IcmpError::AdminProhibited, router).unwrap();
        let inner = parse4(&error.bytes).unwrap().inner.unwrap();
        prop_assert_eq!((inner.src_port, inner.dst_port), (masked, other));
        let (src, dst) = match kind {
            2 => (n6(own), n4_in_6(own)),
            _ => (n6(own), n4_in_6(other)),
        };
        let router = a6("64:ff9b::203.0.113.7");
        let got = error_to6(&error.bytes, router, src, dst, &globals).unwrap();
        prop_assert_eq!(oracle::fault(&got), None);
        let mut expected = sent;
        expected[7] = 63;
        expected.truncate(got.len() - 48);
        let checksum = 40 + [16, 6, 2][kind];
        let same = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            // Zero and all ones are the same.
            if bytes[checksum..checksum + 2] == [0xff, 0xff] {
                bytes[checksum..checksum + 2].fill(0);
            }
            bytes
        };
        assert_bytes(&same(&got[48..]), &same(&expected));
    }
}

/// No quote is too short or too long for the buffers and the headroom.
#[test]
fn errors_of_every_length() {
    for len in 28..1500usize {
        let mut bytes = hex(errors::FRAG_NEEDED_4);
        bytes.truncate(48);
        bytes.resize(20 + 8 + len.max(28), 0x5a);
        bytes[30..32].copy_from_slice(&1500u16.to_be_bytes());
        let total = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        oracle::finish(&mut bytes);
        let globals = Globals::default();
        let got = error_to6(&bytes, a6("64:ff9b::1"), n6(1), n4_in_6(2), &globals).unwrap();
        assert_eq!(got.len(), (bytes.len() + 40).min(1280));
        assert_eq!(oracle::fault(&got), None);
    }
}
