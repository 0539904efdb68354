//! ICMP errors that the translator sends (RFC 7915 §§4.4, 5.4).

use jsync_core::stats::DropReason;
use jsync_core::wire::view::{parse4, parse6};
use jsync_core::xlat::{IcmpError, Refusal, icmp_error};

use super::packets::{ECHO_6, FRAGMENT_6_LAST, UDP_6, UDP_REPLY_4};
use super::*;

/// Every error: what it is called in ICMPv4 and in ICMPv6.
type Head = (u8, u8, u32);

fn errors() -> [(IcmpError, Head, Head); 8] {
    [
        (IcmpError::TimeExceeded, (11, 0, 0), (3, 0, 0)),
        (IcmpError::TooBig { mtu: 1400 }, (3, 4, 1400), (2, 0, 1400)),
        (IcmpError::SourceRouteFailed, (3, 5, 0), (1, 0, 0)),
        (IcmpError::HeaderField { pointer: 9 }, (12, 0, 9 << 24), (4, 0, 9)),
        (IcmpError::ProtocolUnreachable, (3, 2, 0), (1, 4, 0)),
        (IcmpError::AddressUnreachable, (3, 1, 0), (1, 3, 0)),
        (IcmpError::PortUnreachable, (3, 3, 0), (1, 4, 0)),
        (IcmpError::AdminProhibited, (3, 13, 0), (1, 1, 0)),
    ]
}

fn head(icmp: &[u8]) -> Head {
    (icmp[0], icmp[1], u32::from_be_bytes(icmp[4..8].try_into().unwrap()))
}

#[test]
fn every_error() {
    for (error, four, six) in errors() {
        let offending = hex(UDP_REPLY_4);
        let got = icmp_error::build4(&offending, error, a4("192.0.2.1")).unwrap();
        assert_eq!(oracle::fault(&got.bytes), None);
        assert_eq!(head(&got.bytes[20..]), four);
        assert_eq!(got.bytes[12..20], [192, 0, 2, 1, 198, 51, 100, 9]);
        assert_bytes(&got.bytes[28..], &offending);

        let offending = hex(UDP_6);
        let got = icmp_error::build6(&offending, error, a6("64:ff9b::1")).unwrap();
        assert_eq!(oracle::fault(&got.bytes), None);
        assert_eq!(head(&got.bytes[40..]), six);
        assert_eq!(got.bytes[8..24], a6("64:ff9b::1").octets());
        assert_eq!(got.bytes[24..40], offending[8..24]);
        assert_bytes(&got.bytes[48..], &offending);
    }
}

/// The field of ICMPv4 has 16 bits, that of ICMPv6 has 32.
#[test]
fn large_mtus() {
    for (mtu, four) in [(65535, 65535), (65536, 65535), (u32::MAX, 65535)] {
        let error = IcmpError::TooBig { mtu };
        let got = icmp_error::build4(&hex(UDP_REPLY_4), error, a4("192.0.2.1")).unwrap();
        assert_eq!(head(&got.bytes[20..]), (3, 4, four));
        let got = icmp_error::build6(&hex(UDP_6), error, a6("64:ff9b::1")).unwrap();
        assert_eq!(head(&got.bytes[40..]), (2, 0, mtu));
    }
}

/// At most 576 and 1280 bytes, and no padding.
#[test]
fn quotes_are_cut() {
    let mut four = hex(UDP_REPLY_4);
    four[2..4].copy_from_slice(&1000u16.to_be_bytes());
    four.resize(1010, 1);
    let got = icmp_error::build4(&four, IcmpError::TimeExceeded, a4("192.0.2.1")).unwrap();
    assert_eq!((got.bytes.len(), oracle::fault(&got.bytes)), (576, None));
    let mut six = hex(UDP_6);
    six[4..6].copy_from_slice(&1400u16.to_be_bytes());
    six.resize(1450, 1);
    let got = icmp_error::build6(&six, IcmpError::TimeExceeded, a6("64:ff9b::1")).unwrap();
    assert_eq!((got.bytes.len(), oracle::fault(&got.bytes)), (1280, None));
    let mut padded = hex(UDP_6);
    padded.extend([0; 9]);
    let got = icmp_error::build6(&padded, IcmpError::TimeExceeded, a6("64:ff9b::1")).unwrap();
    assert_bytes(&got.bytes[48..], &hex(UDP_6));
}

/// RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e).
#[test]
fn errors_that_must_not_be_sent() {
    let build4 = |bytes: &[u8]| icmp_error::build4(bytes, IcmpError::TimeExceeded, a4("192.0.2.1"));
    let build6 =
        |bytes: &[u8]| icmp_error::build6(bytes, IcmpError::TimeExceeded, a6("2001:db8::"));
    let changed = |example: &str, at: usize, new: &[u8]| {
        let mut bytes = hex(example);
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    // From or to nobody, many, or this machine.
    for addr in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        assert_eq!(build4(&changed(UDP_REPLY_4, 12, &addr)), None);
        assert_eq!(build4(&changed(UDP_REPLY_4, 16, &addr)), None);
    }
    for addr in ["::", "::1", "ff02::1"] {
        assert_eq!(build6(&changed(UDP_6, 8, &a6(addr).octets())), None);
        assert_eq!(build6(&changed(UDP_6, 24, &a6(addr).octets())), None);
    }
    // About a fragment that isn't first.
    assert_eq!(build4(&changed(UDP_REPLY_4, 6, &[0, 1])), None);
    assert!(build4(&changed(UDP_REPLY_4, 6, &[0x20, 0])).is_some());
    assert_eq!(build6(&hex(FRAGMENT_6_LAST)), None);
    // About ICMP that isn't an echo.
    assert!(build6(&hex(ECHO_6)).is_some());
    for kind in [1, 2, 3, 4, 100, 133, 137, 255] {
        assert_eq!(build6(&changed(ECHO_6, 40, &[kind])), None);
    }
    for kind in [3, 4, 5, 11, 12, 13] {
        let mut bytes = changed(UDP_REPLY_4, 9, &[1]);
        bytes[20] = kind;
        assert_eq!(build4(&bytes), None);
    }
    // About an ICMPv6 error behind the Routing header that is its fault.
    let mut bytes = changed(ECHO_6, 40, &[1]);
    bytes[6] = 43;
    bytes.splice(40..40, [58, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(build6(&bytes), None);
    bytes[48] = 128;
    assert!(build6(&bytes).is_some());
    // About what is no packet.
    assert_eq!(build4(&hex(UDP_REPLY_4)[..19]), None);
    assert_eq!(build6(&hex(UDP_6)[..39]), None);
}

/// UDP_6, or a fragment of it, behind extension headers: number and bytes of each, without the
/// number of the next.
fn behind(headers: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = hex(UDP_6);
    let (mut at, mut number_at) = (40, 6);
    for &(number, rest) in headers {
        bytes[number_at] = number;
        bytes.splice(at..at, [&[17], rest].concat());
        bytes[5] += 1 + rest.len() as u8;
        number_at = at;
        at += 1 + rest.len();
    }
    bytes
}

fn told_at(bytes: &[u8]) -> u32 {
    match parse6(bytes) {
        Err(Refusal::Reply(DropReason::RoutingHeader, IcmpError::HeaderField { pointer })) => {
            pointer
        }
        other => panic!("{other:?}"),
    }
}

const HOP_BY_HOP: (u8, &[u8]) = (0, &[0, 1, 4, 0, 0, 0, 0]);
const ROUTING_DONE: (u8, &[u8]) = (43, &[1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
const ROUTING: (u8, &[u8]) =
    (43, &[2, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8]);

/// RFC 7915 §5.1: the error points at Segments Left, wherever the Routing header is.
#[test]
fn routing_header_with_segments_left() {
    let bytes = behind(&[HOP_BY_HOP, ROUTING]);
    let error = IcmpError::HeaderField { pointer: 51 };
    assert_eq!(parse6(&bytes), Err(Refusal::Reply(DropReason::RoutingHeader, error)));
    let got = icmp_error::build6(&bytes, error, a6("64:ff9b::1")).unwrap();
    assert_eq!(oracle::fault(&got.bytes), None);
    assert_eq!(head(&got.bytes[40..]), (4, 0, 51));
    assert_bytes(&got.bytes[48..], &bytes);
}

/// It doesn't matter of which type the Routing header is, nor what it has in common with others: of
/// several the first that isn't used up is the fault.
#[test]
fn routing_headers_of_every_type_and_in_every_place() {
    for kind in 0..=255 {
        let mut bytes = behind(&[ROUTING]);
        bytes[42] = kind;
        assert_eq!(told_at(&bytes), 43, "{kind}");
        bytes[43] = 0;
        assert_eq!(parse6(&bytes).map(|view| (view.l4_offset, view.src_port)), Ok((64, 40000)));
    }
    assert_eq!(told_at(&behind(&[ROUTING_DONE, ROUTING])), 40 + 16 + 3);
    assert_eq!(told_at(&behind(&[ROUTING, ROUTING_DONE])), 43);
    assert_eq!(told_at(&behind(&[ROUTING, HOP_BY_HOP, ROUTING])), 43);
    // What stands there in another header is not a number of segments.
    assert!(parse6(&behind(&[(60, &[0, 1, 1, 0, 1, 0, 0])])).is_ok());
}

/// In front of a fragment likewise; but a fragment that isn't first earns no error, or each would.
#[test]
fn routing_headers_of_fragments() {
    for (offset, is_told) in [([0, 1], true), ([0, 9], false)] {
        let fragment = [0, offset[0], offset[1], 0, 0, 0, 7];
        let mut bytes = behind(&[ROUTING, (44, &fragment)]);
        bytes.extend([0; 3]);
        bytes[5] += 3;
        assert_eq!(told_at(&bytes), 43);
        let error = IcmpError::HeaderField { pointer: 43 };
        let told = icmp_error::build6(&bytes, error, a6("64:ff9b::1"));
        assert_eq!(told.is_some(), is_told);
    }
}

/// RFC 7915 §4.1: loose and strict source routes that aren't used up earn a 3/5; used-up ones
/// are options like others.
#[test]
fn source_routes() {
    let with = |options: &[u8]| {
        let mut bytes = hex(UDP_REPLY_4);
        bytes.splice(20..20, options.iter().copied());
        bytes[0] += (options.len() / 4) as u8;
        bytes[3] += options.len() as u8;
        bytes[10..12].fill(0);
        let checksum = !oracle::sum(&bytes[..20 + options.len()]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        parse4(&bytes).map(|view| (view.l4_offset, view.src_port))
    };
    let failed = Err(Refusal::Reply(DropReason::SourceRoute, IcmpError::SourceRouteFailed));
    for kind in [131, 137] {
        assert_eq!(with(&[kind, 7, 4, 192, 0, 2, 9, 0]), failed);
        assert_eq!(with(&[1, kind, 7, 4, 192, 0, 2, 9]), failed);
        assert_eq!(with(&[kind, 7, 7, 192, 0, 2, 9, 0]), failed);
        assert_eq!(with(&[kind, 7, 8, 192, 0, 2, 9, 0]), Ok((28, 53)));
        // Behind the end of the list there are no options.
        assert_eq!(with(&[0, kind, 7, 4, 192, 0, 2, 9]), Ok((28, 53)));
    }
    for malformed in [[131, 1, 4, 0], [131, 2, 4, 0], [1, 1, 1, 131], [7, 5, 4, 0], [7, 0, 0, 0]] {
        let got = with(&malformed);
        assert_eq!(got, Err(Refusal::Drop(DropReason::Malformed)), "{malformed:?}");
    }
}
