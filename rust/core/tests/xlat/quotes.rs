//! The packets that ICMP errors quote (RFC 7915 §§4.3, 5.3).

use std::ops::Range;

use jsync_core::config::Globals;
use jsync_core::stats::DropReason;
use jsync_core::wire::view::{parse4, parse6};
use jsync_core::xlat::Refusal;

use super::errors::*;
use super::*;

/// What the parser says of the quoted packet.
#[test]
fn inner_packets() {
    let inner = parse4(&hex(TTL_4)).unwrap().inner.unwrap();
    assert_eq!((inner.src, inner.src_port), (a4("192.0.2.1"), 61001));
    assert_eq!((inner.dst, inner.dst_port), (a4("198.51.100.9"), 443));
    assert_eq!((inner.offset, inner.l4_offset, inner.end), (28, 48, 56));
    let inner = parse6(&hex(PING_BACK_6)).unwrap().inner.unwrap();
    assert_eq!((inner.dst, inner.dst_port), (a6("2001:db8::5"), 0x1111));
    assert_eq!((inner.offset, inner.l4_offset, inner.end), (48, 88, 101));
}

/// An error from n6 about the first fragment of a datagram.
pub fn about_fragment6(kind: u8, rest: u32) -> Vec<u8> {
    let mut bytes = hex(PORT_BACK_6);
    bytes[48 + 6] = 44;
    bytes.splice(88..88, [17, 0, 0, 1, 0xab, 0xcd, 0x01, 0x02]);
    bytes[4..6].copy_from_slice(&69u16.to_be_bytes());
    bytes[48 + 4..48 + 6].copy_from_slice(&21u16.to_be_bytes());
    bytes[40] = kind;
    bytes[41] = 0;
    bytes[44..48].copy_from_slice(&rest.to_be_bytes());
    oracle::finish(&mut bytes);
    bytes
}

/// A quoted fragment keeps what made it one.
#[test]
fn quoted_fragments() {
    let globals = Globals::default();
    let got = to4(&about_fragment6(3, 0), n4(53), mask(61001), &globals, 7).unwrap();
    assert_eq!(oracle::fault(&got), None);
    assert_eq!(got[28..36], [0x45, 0, 0, 33, 0x01, 0x02, 0x20, 0]);

    let mut bytes = hex(PORT_4);
    bytes[28 + 6] = 0x20;
    oracle::finish(&mut bytes);
    let got = back_to6(&bytes, "64:ff9b::198.51.100.9", 40000, 53).unwrap();
    assert_eq!(oracle::fault(&got), None);
    assert_eq!(got[48 + 4..48 + 8], [0, 21, 44, 61]);
    assert_eq!(got[88..96], [17, 0, 0, 1, 0, 0, 0, 7]);
    assert_eq!(got[96..], hex(PORT_6)[88..]);

    // A later fragment has no ports to find the session by.
    bytes[28 + 7] = 1;
    oracle::finish(&mut bytes);
    let refused = Err(Refusal::Drop(DropReason::FragmentUntranslatable));
    assert_eq!(back_to6(&bytes, "64:ff9b::198.51.100.9", 40000, 53), refused);
}

/// A checksum that is wrong in the quote stays wrong by the same difference; one that isn't
/// there stays absent.
#[test]
fn inner_checksums() {
    let mut bytes = hex(PORT_4);
    bytes[54] ^= 0x10;
    oracle::finish(&mut bytes);
    let got = back_to6(&bytes, "64:ff9b::198.51.100.9", 40000, 53).unwrap();
    let mut expected = hex(PORT_6);
    assert_eq!(oracle::fault(&got), None);
    let quoted = |bytes: &[u8]| u16::from_be_bytes([bytes[94], bytes[95]]);
    let difference = |a: u16, b: u16| (u32::from(a) + 0xffff - u32::from(b)) % 0xffff;
    let before = difference(
        u16::from_be_bytes([bytes[54], bytes[55]]),
        u16::from_be_bytes([hex(PORT_4)[54], hex(PORT_4)[55]]),
    );
    assert_ne!(before, 0);
    assert_eq!(difference(quoted(&got), quoted(&expected)), before);

    bytes[54..56].fill(0);
    oracle::finish(&mut bytes);
    let got = back_to6(&bytes, "64:ff9b::198.51.100.9", 40000, 53).unwrap();
    expected[94..96].fill(0);
    oracle::finish(&mut expected);
    assert_bytes(&got, &expected);
}

/// Options in the quoted header go, as they would in the packet.
#[test]
fn quoted_options() {
    let mut bytes = hex(PORT_4);
    bytes[28] = 0x46;
    bytes[31] += 4;
    bytes.splice(48..48, [1, 1, 1, 0]);
    bytes[3] += 4;
    oracle::finish(&mut bytes);
    let got = back_to6(&bytes, "64:ff9b::198.51.100.9", 40000, 53).unwrap();
    assert_bytes(&got, &hex(PORT_6));
}

/// An error with other bytes in some place, its length and checksums right.
fn spliced(mut bytes: Vec<u8>, at: Range<usize>, new: &[u8]) -> Vec<u8> {
    bytes.splice(at, new.iter().copied());
    let (field, len) = if bytes[0] >> 4 == 6 { (4, bytes.len() - 40) } else { (2, bytes.len()) };
    bytes[field..field + 2].copy_from_slice(&(len as u16).to_be_bytes());
    oracle::finish(&mut bytes);
    bytes
}

fn port_back_to4(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    to4(bytes, n4(53), mask(61001), &Globals::default(), 0x77)
}

fn port_back_to6(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    back_to6(bytes, "64:ff9b::198.51.100.9", 40000, 53)
}

/// What stands behind the packet that is quoted isn't part of it.
#[test]
fn quotes_longer_than_their_packet() {
    let junk = [0xee; 9];
    let bytes = spliced(hex(PORT_4), 61..61, &junk);
    assert_bytes(&port_back_to6(&bytes).unwrap(), &hex(PORT_6));
    let bytes = spliced(hex(PORT_BACK_6), 101..101, &junk);
    assert_bytes(&port_back_to4(&bytes).unwrap(), &hex(PORT_BACK_4));
    // An error that stays in IPv6 stays as long as it is.
    let bytes = spliced(hex(HAIRPIN_ERROR_IN), 101..101, &junk);
    let got = turn(&bytes, n6(40000), e6("64:ff9b::192.0.2.1", 61002)).unwrap();
    assert_bytes(&got, &spliced(hex(HAIRPIN_ERROR_OUT), 101..101, &junk));
}

/// A packet that says of itself that it has no whole header can't be quoted. 8 bytes of the
/// transport header are enough.
#[test]
fn quotes_that_say_too_little_of_themselves() {
    let refused = Err(Refusal::Drop(DropReason::Malformed));
    for len in [0, 19, 20, 27] {
        let bytes = spliced(hex(PORT_4), 30..32, &[0, len]);
        assert_eq!(port_back_to6(&bytes), refused, "{len}");
    }
    let got = port_back_to6(&spliced(hex(PORT_4), 30..32, &[0, 28])).unwrap();
    assert_bytes(&got, &spliced(hex(PORT_6), 52..101, &[&[0, 8], &hex(PORT_6)[54..96]].concat()));
    for len in [0, 7] {
        let bytes = spliced(hex(PORT_BACK_6), 52..54, &[0, len]);
        assert_eq!(port_back_to4(&bytes), refused, "{len}");
        let bytes = spliced(hex(HAIRPIN_ERROR_IN), 52..54, &[0, len]);
        let got = turn(&bytes, n6(40000), e6("64:ff9b::192.0.2.1", 61002));
        assert_eq!(got, refused, "{len}");
    }
    let got = port_back_to4(&spliced(hex(PORT_BACK_6), 52..54, &[0, 8])).unwrap();
    let inner = [&[0, 28][..], &hex(PORT_BACK_4)[32..38], &[0x90, 0x93], &hex(PORT_BACK_4)[40..56]];
    assert_bytes(&got, &spliced(hex(PORT_BACK_4), 30..61, &inner.concat()));
    // Options count, though they aren't shown.
    let mut bytes = spliced(hex(PORT_4), 48..48, &[1; 4]);
    bytes[28] = 0x46;
    for (len, expected) in [(23, false), (31, false), (32, true)] {
        bytes[31] = len;
        oracle::finish(&mut bytes);
        assert_eq!(port_back_to6(&bytes).is_ok(), expected, "{len}");
    }
}

/// The checksum of an echo covers a pseudo-header in ICMPv6 alone, with the length of the whole
/// message: the quoted part has the same checksum however little there is of it.
#[test]
fn truncated_echoes() {
    for left in [8, 10, 12] {
        let bytes = spliced(hex(PING_BACK_6), 88 + left..101, &[]);
        let got = to4(&bytes, n4(0xf00d), mask(0xf00d), &Globals::default(), 0x77).unwrap();
        assert_bytes(&got, &spliced(hex(PING_BACK_4), 48 + left..61, &[]));
        let bytes = spliced(hex(PING_4), 48 + left..61, &[]);
        let got = back_to6(&bytes, "64:ff9b::203.0.113.7", 0x1111, 0x1111).unwrap();
        assert_bytes(&got, &spliced(hex(PING_6), 88 + left..101, &[]));
    }
}

/// The checksum of TCP ends 18 bytes into the header: what is shorter has none.
#[test]
fn truncated_segments() {
    for left in [8, 16, 17, 18, 19, 20] {
        let bytes = spliced(hex(FRAG_NEEDED_4), 48 + left..68, &[]);
        let got = back_to6(&bytes, "64:ff9b::203.0.113.7", 40000, 443).unwrap();
        let mut expected = hex(TOO_BIG_6);
        if left == 17 {
            expected[104] = 0x42;
        }
        expected.truncate(88 + left);
        expected[5] = (48 + left) as u8;
        oracle::finish(&mut expected);
        assert_bytes(&got, &expected);

        let bytes = spliced(hex(TOO_BIG_BACK_6), 88 + left..108, &[]);
        let got = to4(&bytes, n4(443), mask(61001), &Globals::default(), 0x77).unwrap();
        let mut expected = hex(FRAG_NEEDED_BACK_4);
        if left == 17 {
            expected[64] = 0x0a;
        }
        expected.truncate(48 + left);
        expected[3] = (48 + left) as u8;
        oracle::finish(&mut expected);
        assert_bytes(&got, &expected);
    }
}

/// Extension headers in the quoted packet go, and its length with them.
#[test]
fn quoted_extension_headers() {
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let with_options = |example: &str| {
        let mut bytes = spliced(hex(example), 88..88, &options);
        bytes[53] += 8;
        bytes[54] = 60;
        oracle::finish(&mut bytes);
        bytes
    };
    let got = port_back_to4(&with_options(PORT_BACK_6)).unwrap();
    assert_bytes(&got, &hex(PORT_BACK_4));
    let bytes = with_options(HAIRPIN_ERROR_IN);
    let got = turn(&bytes, n6(40000), e6("64:ff9b::192.0.2.1", 61002)).unwrap();
    assert_bytes(&got, &with_options(HAIRPIN_ERROR_OUT));
}

/// `override-tos` and `zeroize-traffic-class` are for the error as for the packet that it quotes.
#[test]
fn traffic_class_and_tos_of_errors() {
    // 0x40 outside, 0x2c inside.
    let bytes = spliced(hex(PORT_BACK_6), 48..50, &[0x62, 0xc0]);
    for (override_tos, outer, inner) in [(false, 0x40, 0x2c), (true, 0x11, 0x11)] {
        let globals = Globals { override_tos, tos: 0x11, ..Globals::default() };
        let got = to4(&bytes, n4(53), mask(61001), &globals, 0x77).unwrap();
        let mut expected = hex(PORT_BACK_4);
        (expected[1], expected[29]) = (outer, inner);
        expected[38..40].fill(0);
        let checksum = !oracle::sum(&expected[28..48]);
        expected[38..40].copy_from_slice(&checksum.to_be_bytes());
        oracle::finish(&mut expected);
        assert_bytes(&got, &expected);
    }
    // 0xc0 outside, 0x2c inside.
    let bytes = spliced(hex(PORT_4), 29..30, &[0x2c]);
    for (zeroize_traffic_class, outer, inner) in
        [(false, [0x6c, 0], [0x62, 0xc0]), (true, [0x60, 0], [0x60, 0])]
    {
        let globals = Globals { zeroize_traffic_class, ..Globals::default() };
        let src = a6("64:ff9b::198.51.100.9");
        let got = error_to6(&bytes, src, n6(40000), n4_in_6(53), &globals).unwrap();
        let mut expected = hex(PORT_6);
        expected[..2].copy_from_slice(&outer);
        expected[48..50].copy_from_slice(&inner);
        oracle::finish(&mut expected);
        assert_bytes(&got, &expected);
    }
    // Neither is for errors that stay in IPv6, and neither is for the other direction.
    let globals = Globals { zeroize_traffic_class: true, ..Globals::default() };
    let got = to4(&hex(PORT_BACK_6), n4(53), mask(61001), &globals, 0x77).unwrap();
    assert_bytes(&got, &hex(PORT_BACK_4));
    let globals = Globals { override_tos: true, tos: 0x11, ..Globals::default() };
    let src = a6("64:ff9b::198.51.100.9");
    let got = error_to6(&hex(PORT_4), src, n6(40000), n4_in_6(53), &globals).unwrap();
    assert_bytes(&got, &hex(PORT_6));
}
