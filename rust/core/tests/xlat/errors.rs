//! ICMP errors and the packets that they are about: byte for byte, and the tables of RFC 7915.

use jsync_core::config::Globals;
use jsync_core::stats::DropReason;
use jsync_core::xlat::{Refusal, icmp_error};

use super::quotes::about_fragment6;
use super::*;

/// What n6 gets of an ICMPv4 error from `router` about a packet to n4's `port`.
pub fn back_to6(bytes: &[u8], router: &str, own: u16, port: u16) -> Result<Vec<u8>, Refusal> {
    error_to6(bytes, a6(router), n6(own), n4_in_6(port), &Globals::default())
}

#[test]
fn port_unreachable_4to6() {
    let got = back_to6(&hex(PORT_4), "64:ff9b::198.51.100.9", 40000, 53).unwrap();
    assert_bytes(&got, &hex(PORT_6));
}

/// A quote of 8 bytes has no TCP checksum to correct.
#[test]
fn truncated_quote_4to6() {
    let got = back_to6(&hex(TTL_4), "64:ff9b::203.0.113.7", 40000, 443).unwrap();
    assert_bytes(&got, &hex(TTL_6));
}

#[test]
fn fragmentation_needed_4to6() {
    let got = back_to6(&hex(FRAG_NEEDED_4), "64:ff9b::203.0.113.7", 40000, 443).unwrap();
    assert_bytes(&got, &hex(TOO_BIG_6));
}

#[test]
fn error_about_a_ping_4to6() {
    let got = back_to6(&hex(PING_4), "64:ff9b::203.0.113.7", 0x1111, 0x1111).unwrap();
    assert_bytes(&got, &hex(PING_6));
}

#[test]
fn port_unreachable_6to4() {
    let globals = Globals::default();
    let got = to4(&hex(PORT_BACK_6), n4(53), mask(61001), &globals, 0x77).unwrap();
    assert_bytes(&got, &hex(PORT_BACK_4));
}

#[test]
fn packet_too_big_6to4() {
    let globals = Globals::default();
    let got = to4(&hex(TOO_BIG_BACK_6), n4(443), mask(61001), &globals, 0x77).unwrap();
    assert_bytes(&got, &hex(FRAG_NEEDED_BACK_4));
}

#[test]
fn error_about_a_ping_6to4() {
    let globals = Globals::default();
    let got = to4(&hex(PING_BACK_6), n4(0xf00d), mask(0xf00d), &globals, 0x77).unwrap();
    assert_bytes(&got, &hex(PING_BACK_4));
}

#[test]
fn hairpinned_error() {
    let got = turn(&hex(HAIRPIN_ERROR_IN), n6(40000), e6("64:ff9b::192.0.2.1", 61002)).unwrap();
    assert_bytes(&got, &hex(HAIRPIN_ERROR_OUT));
    let mut bytes = hex(HAIRPIN_ERROR_IN);
    bytes[7] = 1;
    let got = turn(&bytes, n6(40000), e6("64:ff9b::192.0.2.1", 61002));
    assert_eq!(got, Err(Refusal::Drop(DropReason::TtlExpired)));
}

/// An error with its type, code and second word changed.
fn changed(example: &str, kind: u8, code: u8, rest: u32) -> Vec<u8> {
    let mut bytes = hex(example);
    let icmp = if bytes[0] >> 4 == 6 { 40 } else { 20 };
    bytes[icmp] = kind;
    bytes[icmp + 1] = code;
    bytes[icmp + 4..icmp + 8].copy_from_slice(&rest.to_be_bytes());
    oracle::finish(&mut bytes);
    bytes
}

/// Type, code and second word of an error.
pub fn head(bytes: &[u8]) -> (u8, u8, u32) {
    assert_eq!(oracle::fault(bytes), None);
    let icmp = if bytes[0] >> 4 == 6 { 40 } else { 20 };
    let rest = bytes[icmp + 4..icmp + 8].try_into().unwrap();
    (bytes[icmp], bytes[icmp + 1], u32::from_be_bytes(rest))
}

const SILENT: Refusal = Refusal::Drop(DropReason::UnsupportedIcmp);

fn head_4to6(kind: u8, code: u8, rest: u32) -> Result<(u8, u8, u32), Refusal> {
    let bytes = changed(PORT_4, kind, code, rest);
    back_to6(&bytes, "64:ff9b::198.51.100.9", 40000, 53).map(|bytes| head(&bytes))
}

fn head_6to4(kind: u8, code: u8, rest: u32) -> Result<(u8, u8, u32), Refusal> {
    let bytes = changed(PORT_BACK_6, kind, code, rest);
    to4(&bytes, n4(53), mask(61001), &Globals::default(), 7).map(|bytes| head(&bytes))
}

/// RFC 7915 §4.2, every code of Destination Unreachable (0 to 15, and one that isn't).
#[test]
fn types_and_codes_4to6() {
    let codes = [
        Ok((1, 0, 0)),
        Ok((1, 0, 0)),
        Ok((4, 1, 6)),
        Ok((1, 4, 0)),
        Ok((2, 0, 1280)),
        Ok((1, 0, 0)),
        Ok((1, 0, 0)),
        Ok((1, 0, 0)),
        Ok((1, 0, 0)),
        Ok((1, 1, 0)),
        Ok((1, 1, 0)),
        Ok((1, 0, 0)),
        Ok((1, 0, 0)),
        Ok((1, 1, 0)),
        Err(SILENT),
        Ok((1, 1, 0)),
        Err(SILENT),
    ];
    for (code, expected) in codes.into_iter().enumerate() {
        assert_eq!(head_4to6(3, code as u8, 0), expected, "code {code}");
    }
    assert_eq!(head_4to6(11, 0, 0), Ok((3, 0, 0)));
    assert_eq!(head_4to6(11, 1, 0), Ok((3, 1, 0)));
    assert_eq!(head_4to6(12, 0, 0), Ok((4, 0, 0)));
    assert_eq!(head_4to6(12, 1, 0), Err(SILENT));
    assert_eq!(head_4to6(12, 2, 0), Ok((4, 0, 0)));
    assert_eq!(head_4to6(12, 3, 0), Err(SILENT));
    for kind in [1, 2, 4, 5, 6, 7, 9, 10, 13, 14, 15, 16, 17, 18, 19, 128, 255] {
        assert_eq!(head_4to6(kind, 0, 0), Err(SILENT), "type {kind}");
    }
}

/// RFC 7915 §5.2.
#[test]
fn types_and_codes_6to4() {
    let codes = [
        Ok((3, 1, 0)),
        Ok((3, 10, 0)),
        Ok((3, 1, 0)),
        Ok((3, 1, 0)),
        Ok((3, 3, 0)),
        Err(SILENT),
        Err(SILENT),
    ];
    for (code, expected) in codes.into_iter().enumerate() {
        assert_eq!(head_6to4(1, code as u8, 0), expected, "code {code}");
    }
    assert_eq!(head_6to4(2, 0, 1500), Ok((3, 4, 1480)));
    assert_eq!(head_6to4(3, 0, 0), Ok((11, 0, 0)));
    assert_eq!(head_6to4(3, 1, 0), Ok((11, 1, 0)));
    assert_eq!(head_6to4(4, 0, 0), Ok((12, 0, 0)));
    assert_eq!(head_6to4(4, 1, 6), Ok((3, 2, 0)));
    assert_eq!(head_6to4(4, 2, 40), Err(SILENT));
    for kind in [0, 5, 100, 127, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 255] {
        assert_eq!(head_6to4(kind, 0, 0), Err(SILENT), "type {kind}");
    }
}

/// RFC 7915 figure 3.
#[test]
fn pointers_4to6() {
    for pointer in 0..=255 {
        let expected = match pointer {
            0 => Some(0),
            1 => Some(1),
            2 | 3 => Some(4),
            8 => Some(7),
            9 => Some(6),
            12..=15 => Some(8),
            16..=19 => Some(24),
            _ => None,
        };
        let expected = expected.map(|pointer| (4, 0, pointer)).ok_or(SILENT);
        assert_eq!(head_4to6(12, 0, pointer << 24), expected, "{pointer}");
    }
}

/// RFC 7915 figure 6.
#[test]
fn pointers_6to4() {
    for pointer in (0..=64).chain([0x0100_0000, u32::MAX]) {
        let expected = match pointer {
            0 => Some(0),
            1 => Some(1),
            4 | 5 => Some(2),
            6 => Some(9),
            7 => Some(8),
            8..=23 => Some(12),
            24..=39 => Some(16),
            _ => None,
        };
        let expected = expected.map(|pointer| (12, 0, pointer << 24)).ok_or(SILENT);
        assert_eq!(head_6to4(4, 0, pointer), expected, "{pointer}");
    }
}

/// RFC 7915 §4.2: 20 more, but never below 1280.
#[test]
fn mtu_4to6() {
    for (mtu, expected) in
        [(1, 1280), (68, 1280), (1260, 1280), (1261, 1281), (1480, 1500), (65535, 65555)]
    {
        assert_eq!(head_4to6(3, 4, mtu), Ok((2, 0, expected)), "{mtu}");
    }
}

/// RFC 7915 §4.2: a router that doesn't say an MTU; the greatest plateau below the packet's size
/// stands in.
#[test]
fn mtu_plateaus() {
    let plateaus = |len: u16, mtu_plateaus: Vec<u16>| {
        let mut bytes = changed(FRAG_NEEDED_4, 3, 4, 0);
        bytes[30..32].copy_from_slice(&len.to_be_bytes());
        oracle::finish(&mut bytes);
        let globals = Globals { mtu_plateaus, ..Globals::default() };
        head(&error_to6(&bytes, a6("64:ff9b::1"), n6(1), n4_in_6(2), &globals).unwrap()).2
    };
    let default = Globals::default().mtu_plateaus;
    for (len, expected) in
        [(1500, 1512), (1492, 1280), (1493, 1512), (1280, 1280), (9000, 8186), (65535, 32020)]
    {
        assert_eq!(plateaus(len, default.clone()), expected, "{len}");
    }
    assert_eq!(plateaus(1500, vec![1300, 1400, 1350]), 1420);
    assert_eq!(plateaus(1500, vec![]), 1280);
}

/// RFC 7915 §5.2: 20 less, and 8 less if the packet had a Fragment header.
#[test]
fn mtu_6to4() {
    let cases = [
        (0, 1260, 1252),
        (1279, 1260, 1252),
        (1280, 1260, 1252),
        (1281, 1261, 1253),
        (1500, 1480, 1472),
        (65555, 65535, 65527),
        (65556, 65535, 65528),
        (65563, 65535, 65535),
        (65564, 65535, 65535),
        (u32::MAX, 65535, 65535),
    ];
    for (mtu, whole, fragment) in cases {
        assert_eq!(head_6to4(2, 0, mtu), Ok((3, 4, whole)), "{mtu}");
        let bytes = about_fragment6(2, mtu);
        let got = to4(&bytes, n4(53), mask(61001), &Globals::default(), 7).unwrap();
        assert_eq!(head(&got), (3, 4, fragment), "{mtu}");
    }
}

#[test]
fn errors_that_are_refused() {
    let refuse4 = |bytes: Vec<u8>, reason| {
        let got = back_to6(&bytes, "64:ff9b::198.51.100.9", 40000, 53);
        assert_eq!(got, Err(Refusal::Drop(reason)));
    };
    // The outer checksum is wrong (RFC 5508 REQ-3).
    let mut bytes = hex(PORT_4);
    bytes[60] ^= 1;
    refuse4(bytes, DropReason::IcmpChecksum);
    // The quoted packet wasn't sent by whom the error goes to.
    let mut bytes = hex(PORT_4);
    bytes[28 + 15] ^= 1;
    oracle::finish(&mut bytes);
    refuse4(bytes, DropReason::Malformed);
    // Seven bytes of the quoted transport header.
    let mut bytes = hex(TTL_4);
    bytes.pop();
    bytes[3] -= 1;
    oracle::finish(&mut bytes);
    refuse4(bytes, DropReason::Malformed);
    // An error about an error.
    let mut bytes = hex(PING_4);
    bytes[48] = 3;
    oracle::finish(&mut bytes);
    refuse4(bytes, DropReason::UnsupportedIcmp);
    // About UDP-Lite.
    let mut bytes = hex(PORT_4);
    bytes[28 + 9] = 136;
    oracle::finish(&mut bytes);
    refuse4(bytes, DropReason::UnsupportedProtocol);
    // The other family's packet.
    let mut bytes = hex(PORT_4);
    bytes[28] = 0x65;
    oracle::finish(&mut bytes);
    refuse4(bytes, DropReason::Malformed);
    // An error's time to live runs out: nobody is told.
    let mut bytes = hex(PORT_4);
    bytes[8] = 1;
    oracle::finish(&mut bytes);
    refuse4(bytes, DropReason::TtlExpired);

    let refuse6 = |bytes: Vec<u8>, reason| {
        let got = to4(&bytes, n4(53), mask(61001), &Globals::default(), 7);
        assert_eq!(got, Err(Refusal::Drop(reason)));
    };
    let mut bytes = hex(PORT_BACK_6);
    bytes[100] ^= 1;
    refuse6(bytes, DropReason::IcmpChecksum);
    let mut bytes = hex(PORT_BACK_6);
    bytes[48 + 8] ^= 1;
    oracle::finish(&mut bytes);
    refuse6(bytes, DropReason::Malformed);
    // Seven bytes of the quoted transport header.
    let mut bytes = hex(PORT_BACK_6);
    bytes.truncate(95);
    bytes[5] = 55;
    oracle::finish(&mut bytes);
    refuse6(bytes, DropReason::Malformed);
    // An error about an error, about what answers to none, and about UDP-Lite.
    for (at, value, reason) in [
        (88, 1, DropReason::UnsupportedIcmp),
        (88, 135, DropReason::UnsupportedIcmp),
        (54, 136, DropReason::UnsupportedProtocol),
    ] {
        let mut bytes = hex(PING_BACK_6);
        bytes[at] = value;
        oracle::finish(&mut bytes);
        refuse6(bytes, reason);
    }
    // The other family's packet.
    let mut bytes = hex(PORT_BACK_6);
    bytes[48] = 0x45;
    oracle::finish(&mut bytes);
    refuse6(bytes, DropReason::Malformed);
    let mut bytes = hex(PORT_BACK_6);
    bytes[7] = 1;
    oracle::finish(&mut bytes);
    refuse6(bytes, DropReason::TtlExpired);
}

/// Errors about errors are never answered, so that a refusal can't start an exchange.
#[test]
fn translated_errors_earn_no_error() {
    let error = jsync_core::xlat::IcmpError::TimeExceeded;
    assert_eq!(icmp_error::build4(&hex(PORT_4), error, a4("192.0.2.1")), None);
    assert_eq!(icmp_error::build6(&hex(PORT_BACK_6), error, a6("64:ff9b::1")), None);
}

/// Port unreachable about UDP_4, whole.
pub const PORT_4: &str = "
    45 c0 00 3d 00 05 00 00 3c 01 91 bd c6 33 64 09  # IPv4
    c0 00 02 01
    03 03 e9 59 00 00 00 00  # ICMP 3/3
    45 00 00 21 00 07 00 00 3d 11 91 87 c0 00 02 01  # inner IPv4
    c6 33 64 09
    ee 49 00 35 00 0d de 34  # inner UDP
    6a 73 79 6e 63  # data
";

/// The same on the IPv6 side.
pub const PORT_6: &str = "
    6c 00 00 00 00 3d 3a 3b 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    01 04 35 5d 00 00 00 00  # ICMPv6 1/4
    60 00 00 00 00 0d 11 3d 20 01 0d b8 00 00 00 00  # inner IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    9c 40 00 35 00 0d c4 81  # inner UDP
    6a 73 79 6e 63  # data
";

/// Time exceeded from a router, about TCP_4, of which it quotes 8 bytes.
pub const TTL_4: &str = "
    45 00 00 38 00 05 00 00 3c 01 80 b7 cb 00 71 07  # IPv4
    c0 00 02 01
    0b 00 00 f5 00 00 00 00  # ICMP 11/0
    45 2c 00 2c 12 34 00 00 01 06 bb 2e c0 00 02 01  # inner IPv4
    c6 33 64 09
    ee 49 01 bb 01 02 03 04  # inner TCP, cut
";

/// The same on the IPv6 side.
pub const TTL_6: &str = "
    60 00 00 00 00 38 3a 3b 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 cb 00 71 07 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    03 00 2f f1 00 00 00 00  # ICMPv6 3/0
    62 c0 00 00 00 18 06 01 20 01 0d b8 00 00 00 00  # inner IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    9c 40 01 bb 01 02 03 04  # inner TCP, cut
";

/// Fragmentation needed, MTU 1400, about a segment of 1500 bytes of which 40 are quoted.
pub const FRAG_NEEDED_4: &str = "
    45 00 00 44 00 05 00 00 3c 01 80 ab cb 00 71 07  # IPv4
    c0 00 02 01
    03 04 71 18 00 00 05 78  # ICMP 3/4
    45 00 05 dc 00 55 40 00 3c 06 4c 89 c0 00 02 01  # inner IPv4
    c6 33 64 09
    ee 49 01 bb 00 00 00 01 00 00 00 02 50 10 03 e8  # inner TCP
    42 6b 00 00
";

/// The same on the IPv6 side: MTU 1420.
pub const TOO_BIG_6: &str = "
    60 00 00 00 00 44 3a 3b 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 cb 00 71 07 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    02 00 af 80 00 00 05 8c  # ICMPv6 2/0
    60 00 00 00 05 c8 06 3c 20 01 0d b8 00 00 00 00  # inner IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    9c 40 01 bb 00 00 00 01 00 00 00 02 50 10 03 e8  # inner TCP
    28 b8 00 00
";

/// Host unreachable about ECHO_4.
pub const PING_4: &str = "
    45 00 00 3d 00 05 00 00 3c 01 80 b2 cb 00 71 07  # IPv4
    c0 00 02 01
    03 01 fc fe 00 00 00 00  # ICMP 3/1
    45 00 00 21 00 01 00 00 3d 01 91 9d c0 00 02 01  # inner IPv4
    c6 33 64 09
    08 00 c1 0c f0 0d 00 03  # inner echo
    6a 73 79 6e 63  # data
";

/// The same on the IPv6 side.
pub const PING_6: &str = "
    60 00 00 00 00 3d 3a 3b 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 cb 00 71 07 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    01 00 fa be 00 00 00 00  # ICMPv6 1/0
    60 00 00 00 00 0d 3a 3d 20 01 0d b8 00 00 00 00  # inner IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    80 00 cf c6 11 11 00 03  # inner echo
    6a 73 79 6e 63  # data
";

/// n6 says port unreachable about UDP_REPLY_6.
pub const PORT_BACK_6: &str = "
    64 00 00 00 00 3d 3a 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    01 04 35 5c 00 00 00 00  # ICMPv6 1/4
    60 00 00 00 00 0d 11 3e 00 64 ff 9b 00 00 00 00  # inner IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    00 35 9c 40 00 0d c4 81  # inner UDP
    6a 73 79 6e 63  # data
";

/// The same on the IPv4 side.
pub const PORT_BACK_4: &str = "
    45 40 00 3d 00 77 00 00 3f 01 8e cb c0 00 02 01  # IPv4
    c6 33 64 09
    03 03 e9 59 00 00 00 00  # ICMP 3/3
    45 00 00 21 00 00 00 00 3e 11 90 8e c6 33 64 09  # inner IPv4
    c0 00 02 01
    00 35 ee 49 00 0d de 34  # inner UDP
    6a 73 79 6e 63  # data
";

/// A router says packet too big, MTU 1280, about a segment of 1500 bytes of which 60 are quoted.
pub const TOO_BIG_BACK_6: &str = "
    60 00 00 00 00 44 3a 40 20 01 0d b8 00 ff 00 00  # IPv6
    00 00 00 00 00 00 00 01 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    02 00 de f8 00 00 05 00  # ICMPv6 2/0
    60 00 00 00 05 b4 06 3e 00 64 ff 9b 00 00 00 00  # inner IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    01 bb 9c 40 00 00 00 01 00 00 00 02 50 10 03 e8  # inner TCP
    0a ae 00 00
";

/// The same on the IPv4 side: MTU 1260.
pub const FRAG_NEEDED_BACK_4: &str = "
    45 00 00 44 00 77 00 00 3f 01 8f 04 c0 00 02 01  # IPv4
    c6 33 64 09
    03 04 8f ae 00 00 04 ec  # ICMP 3/4
    45 00 05 c8 00 00 40 00 3e 06 4a f2 c6 33 64 09  # inner IPv4
    c0 00 02 01
    01 bb ee 49 00 00 00 01 00 00 00 02 50 10 03 e8  # inner TCP
    24 61 00 00
";

/// A router says time exceeded about ECHO_REPLY_6.
pub const PING_BACK_6: &str = "
    60 00 00 00 00 3d 3a 40 20 01 0d b8 00 ff 00 00  # IPv6
    00 00 00 00 00 00 00 01 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    03 00 09 8e 00 00 00 00  # ICMPv6 3/0
    60 00 00 00 00 0d 3a 3e 00 64 ff 9b 00 00 00 00  # inner IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    81 00 ce c6 11 11 00 03  # inner echo
    6a 73 79 6e 63  # data
";

/// The same on the IPv4 side.
pub const PING_BACK_4: &str = "
    45 00 00 3d 00 77 00 00 3f 01 8f 0b c0 00 02 01  # IPv4
    c6 33 64 09
    0b 00 f4 ff 00 00 00 00  # ICMP 11/0
    45 00 00 21 00 00 00 00 3e 01 90 9e c6 33 64 09  # inner IPv4
    c0 00 02 01
    00 00 c9 0c f0 0d 00 03  # inner echo
    6a 73 79 6e 63  # data
";

/// [2001:db8::6] says port unreachable about HAIRPIN_OUT.
pub const HAIRPIN_ERROR_IN: &str = "
    60 00 00 00 00 3d 3a 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 06 00 64 ff 9b 00 00 00 00
    00 00 00 00 c0 00 02 01
    01 04 79 4f 00 00 00 00  # ICMPv6 1/4
    61 01 23 45 00 0d 11 3f 00 64 ff 9b 00 00 00 00  # inner IPv6
    00 00 00 00 c0 00 02 01 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 06
    ee 49 00 50 00 0d da 97  # inner UDP
    6a 73 79 6e 63  # data
";

/// What n6 gets.
pub const HAIRPIN_ERROR_OUT: &str = "
    60 00 00 00 00 3d 3a 3f 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 c0 00 02 01 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    01 04 79 50 00 00 00 00  # ICMPv6 1/4
    61 01 23 45 00 0d 11 3f 20 01 0d b8 00 00 00 00  # inner IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c0 00 02 01
    9c 40 ee 4a 00 0d 3e a7  # inner UDP
    6a 73 79 6e 63  # data
";
