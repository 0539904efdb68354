//! What the parser sees, and what it refuses.

use jsync_core::stats::DropReason;
use jsync_core::tuple::Proto;
use jsync_core::wire::view::{parse4, parse6};
use jsync_core::wire::{Fragment, L4, Parsed, Refusal, parse};
use jsync_core::xlat::IcmpError;

use super::packets::{
    ECHO_6, ECHO_REPLY_4, FRAGMENT_6_FIRST, FRAGMENT_6_LAST, REPLY_FRAGMENT_4_FIRST,
    REPLY_FRAGMENT_4_LAST, TCP_6, TCP_REPLY_4, UDP_6, UDP_6_EXTENSIONS, UDP_REPLY_4,
};
use super::*;

fn reason(bytes: &[u8]) -> DropReason {
    match parse(bytes) {
        Err(Refusal::Drop(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tcp() {
    let Ok(Parsed::V6(view)) = parse(&hex(TCP_6)) else { panic!() };
    assert_eq!((view.src, view.src_port), (n6(0).addr, 40000));
    assert_eq!((view.dst, view.dst_port), (n4_in_6(0).addr, 443));
    assert_eq!((view.l4, view.l4.proto()), (L4::Tcp, Some(Proto::Tcp)));
    assert_eq!((view.hop_limit, view.l4_offset, view.total_len), (64, 40, 64));
    assert!(view.tcp_flags.syn() && !view.tcp_flags.ack());
    assert!(view.has_ports() && view.fragment.is_none() && view.inner.is_none());

    let Ok(Parsed::V4(view)) = parse(&hex(TCP_REPLY_4)) else { panic!() };
    assert_eq!((view.src, view.src_port), (n4(0).addr, 443));
    assert_eq!((view.dst, view.dst_port), (mask(0).addr, 61001));
    assert_eq!((view.hop_limit, view.l4_offset, view.total_len), (57, 20, 45));
    assert!(view.tcp_flags.syn() && view.tcp_flags.ack());
    assert!(!view.tcp_flags.fin() && !view.tcp_flags.rst());
}

#[test]
fn echo() {
    let view = parse6(&hex(ECHO_6)).unwrap();
    assert_eq!((view.l4, view.src_port, view.dst_port), (L4::IcmpQuery, 0x1111, 0x1111));
    let view = parse4(&hex(ECHO_REPLY_4)).unwrap();
    assert_eq!((view.l4, view.src_port, view.dst_port), (L4::IcmpQuery, 0xf00d, 0xf00d));
}

#[test]
fn fragments() {
    let view = parse6(&hex(FRAGMENT_6_FIRST)).unwrap();
    let fragment = Fragment { offset: 0, more: true, id: 0xabcd_0102 };
    assert_eq!((view.fragment, view.src_port, view.l4_offset), (Some(fragment), 40000, 48));
    let view = parse6(&hex(FRAGMENT_6_LAST)).unwrap();
    let fragment = Fragment { offset: 16, more: false, id: 0xabcd_0102 };
    assert_eq!((view.fragment, view.src_port, view.l4), (Some(fragment), 0, L4::Udp));
    assert!(!view.has_ports());
    let view = parse4(&hex(REPLY_FRAGMENT_4_LAST)).unwrap();
    let fragment = Fragment { offset: 16, more: false, id: 0x0304 };
    assert_eq!((view.fragment, view.dst_port), (Some(fragment), 0));
}

#[test]
fn extension_headers() {
    let view = parse6(&hex(UDP_6_EXTENSIONS)).unwrap();
    assert_eq!((view.l4_offset, view.src_port), (88, 40000));
}

/// A packet cut anywhere is malformed, not a shorter packet.
#[test]
fn cut_packets() {
    for example in [TCP_6, TCP_REPLY_4, UDP_6, UDP_REPLY_4, ECHO_6, UDP_6_EXTENSIONS] {
        let bytes = hex(example);
        for len in 0..bytes.len() {
            assert_eq!(reason(&bytes[..len]), DropReason::Malformed, "{len}");
        }
    }
}

/// The same when the headers say the shorter length.
#[test]
fn short_transport_headers() {
    for (example, at, ip, header) in
        [(TCP_6, 4, 40, 20), (UDP_6, 4, 40, 8), (ECHO_6, 4, 40, 8), (TCP_REPLY_4, 2, 20, 20)]
    {
        for len in 0..header {
            let mut bytes = hex(example);
            bytes.truncate(ip + len);
            bytes[at + 1] = if ip == 40 { len } else { ip + len } as u8;
            if ip == 20 {
                bytes[10..12].fill(0);
                let checksum = !oracle::sum(&bytes[..20]);
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            assert_eq!(reason(&bytes), DropReason::Malformed, "{len}");
        }
    }
}

/// A TCP header longer than the segment, a UDP datagram longer than the packet.
#[test]
fn transport_lengths_that_lie() {
    for (example, at, values) in [
        (TCP_6, 40 + 12, [0x40, 0x70]),
        (TCP_REPLY_4, 20 + 12, [0x40, 0x70]),
        (UDP_6, 40 + 5, [7, 14]),
        (UDP_REPLY_4, 20 + 5, [7, 14]),
    ] {
        for value in values {
            let mut bytes = hex(example);
            bytes[at] = value;
            assert_eq!(reason(&bytes), DropReason::Malformed, "{value}");
        }
    }
}

#[test]
fn versions() {
    for version in [0, 1, 5, 7, 15] {
        let mut bytes = hex(UDP_6);
        bytes[0] = version << 4;
        assert_eq!(reason(&bytes), DropReason::UnknownVersion);
    }
    assert_eq!(reason(&[]), DropReason::Malformed);
}

/// Whoever knows a packet's family may be wrong.
#[test]
fn the_other_familys_packet_is_malformed() {
    let malformed = Err(Refusal::Drop(DropReason::Malformed));
    assert_eq!(parse4(&hex(UDP_6)).map(|_| ()), malformed);
    assert_eq!(parse4(&hex(UDP_6_EXTENSIONS)).map(|_| ()), malformed);
    for version in [0, 4, 7, 15] {
        let mut bytes = hex(UDP_6);
        bytes[0] = version << 4;
        assert_eq!(parse6(&bytes).map(|_| ()), malformed, "{version}");
    }
}

/// Options of zeros leave the header checksum as it is, so that it fits the first 20 bytes too;
/// what is behind these is no segment, though it looks like one.
#[test]
fn options_are_never_taken_for_the_segment() {
    let mut bytes = hex(TCP_REPLY_4);
    // The acknowledgement number stands where the length of a segment's header would.
    bytes[28] = 0x50;
    bytes.splice(20..20, [0; 4]);
    bytes[0] = 0x46;
    bytes[3] += 4;
    bytes[10..12].fill(0);
    let checksum = !oracle::sum(&bytes[..24]);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(oracle::sum(&bytes[..20]), 0xffff);
    let view = parse4(&bytes).unwrap();
    assert_eq!((view.l4_offset, view.src_port, view.dst_port), (24, 443, 61001));
}

/// Any bit of the IPv4 header that turns is noticed.
#[test]
fn header_checksum() {
    for at in [1, 4, 5, 8, 10, 11, 12, 19] {
        let mut bytes = hex(UDP_REPLY_4);
        bytes[at] ^= 0x04;
        assert_eq!(reason(&bytes), DropReason::HeaderChecksum, "{at}");
    }
}

fn changed(example: &str, at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = hex(example);
    bytes[at..at + new.len()].copy_from_slice(new);
    if bytes[0] >> 4 == 4 {
        oracle::finish(&mut bytes);
    }
    bytes
}

#[test]
fn protocols() {
    // UDP-Lite, SCTP, DCCP, ESP, AH, no next header, the other family's ICMP.
    let told = Refusal::Reply(DropReason::UnsupportedProtocol, IcmpError::ProtocolUnreachable);
    for protocol in [136, 132, 33, 50, 51, 59] {
        assert_eq!(parse(&changed(UDP_6, 6, &[protocol])), Err(told));
        assert_eq!(parse(&changed(UDP_REPLY_4, 9, &[protocol])), Err(told));
    }
    assert_eq!(parse(&changed(ECHO_6, 6, &[1])), Err(told));
    assert_eq!(parse(&changed(ECHO_REPLY_4, 9, &[58])), Err(told));
    // IGMP is for a router's neighbours alone (RFC 7915 §4.2).
    assert_eq!(reason(&changed(UDP_REPLY_4, 9, &[2])), DropReason::UnsupportedProtocol);
    // Every fragment would earn an error.
    assert_eq!(reason(&changed(FRAGMENT_6_FIRST, 40, &[132])), DropReason::UnsupportedProtocol);
}

#[test]
fn sources() {
    for addr in ["0.0.0.0", "0.0.0.9", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        let bytes = changed(UDP_REPLY_4, 12, &a4(addr).octets());
        assert_eq!(reason(&bytes), DropReason::BadAddress, "{addr}");
    }
    for addr in ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1", "::192.0.2.1"] {
        let bytes = changed(UDP_6, 8, &a6(addr).octets());
        assert_eq!(reason(&bytes), DropReason::BadAddress, "{addr}");
    }
}

#[test]
fn fragments_that_lie() {
    // Another follows, but the length is no multiple of 8.
    let mut bytes = hex(FRAGMENT_6_FIRST);
    bytes.pop();
    bytes[5] -= 1;
    assert_eq!(reason(&bytes), DropReason::Malformed);
    // Reaches past 65535.
    let bytes = changed(FRAGMENT_6_LAST, 42, &[0xff, 0xf8]);
    assert_eq!(reason(&bytes), DropReason::Malformed);
    let bytes = changed(REPLY_FRAGMENT_4_LAST, 6, &[0x1f, 0xff]);
    assert_eq!(reason(&bytes), DropReason::Malformed);
    // The transport header in pieces.
    let mut bytes = hex(FRAGMENT_6_FIRST);
    bytes[40] = 6;
    assert_eq!(reason(&bytes), DropReason::FragmentUntranslatable);
    // An extension header behind the Fragment header (RFC 7915 §5.1.1).
    let bytes = changed(FRAGMENT_6_FIRST, 40, &[60]);
    assert_eq!(reason(&bytes), DropReason::FragmentUntranslatable);
    // ICMP in pieces (RFC 7915 §1.2).
    let bytes = changed(FRAGMENT_6_FIRST, 40, &[58]);
    assert_eq!(reason(&bytes), DropReason::FragmentUntranslatable);
    let bytes = changed(ECHO_REPLY_4, 6, &[0, 9]);
    assert_eq!(reason(&bytes), DropReason::FragmentUntranslatable);
}

/// A first fragment may end where the transport header does, and no earlier.
#[test]
fn least_first_fragments() {
    for (protocol, len, whole) in [(17, 8, true), (6, 8, false), (6, 16, false), (6, 24, true)] {
        let mut bytes = changed(FRAGMENT_6_FIRST, 40, &[protocol]);
        bytes.resize(48 + len, 0);
        bytes[5] = 8 + len as u8;
        // Where the header of a segment has its length.
        if let Some(byte) = bytes.get_mut(60) {
            *byte = 0x50;
        }
        let parsed = parse6(&bytes).map(|view| view.src_port);
        let untranslatable = Refusal::Drop(DropReason::FragmentUntranslatable);
        assert_eq!(parsed, if whole { Ok(40000) } else { Err(untranslatable) }, "{protocol} {len}");
    }
    let mut bytes = hex(REPLY_FRAGMENT_4_FIRST);
    bytes.truncate(28);
    bytes[3] = 28;
    bytes[10..12].fill(0);
    let checksum = !oracle::sum(&bytes[..20]);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(parse4(&bytes).map(|view| view.dst_port), Ok(61001));
}

/// A fragment of nothing is none, wherever it claims to be.
#[test]
fn empty_fragments() {
    for word in [0x0001u16, 0x0010, 0x0011] {
        let mut bytes = changed(FRAGMENT_6_FIRST, 42, &word.to_be_bytes());
        bytes.truncate(48);
        bytes[5] = 8;
        assert_eq!(reason(&bytes), DropReason::Malformed, "{word:#x}");
    }
    for word in [0x2000u16, 0x0002, 0x2002] {
        let mut bytes = changed(REPLY_FRAGMENT_4_LAST, 6, &word.to_be_bytes());
        bytes.truncate(20);
        bytes[3] = 20;
        bytes[10..12].fill(0);
        let checksum = !oracle::sum(&bytes);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(reason(&bytes), DropReason::Malformed, "{word:#x}");
    }
}

/// The last byte that an IPv4 packet can have is the 65515th of its payload.
#[test]
fn last_fragments_end_where_packets_do() {
    for (len, fits) in [(1, true), (3, true), (4, false), (8, false)] {
        let mut bytes = changed(FRAGMENT_6_LAST, 42, &65512u16.to_be_bytes());
        bytes.truncate(48 + len);
        bytes[5] = 8 + len as u8;
        assert_eq!(parse(&bytes).is_ok(), fits, "{len}");
        let mut bytes = hex(REPLY_FRAGMENT_4_LAST);
        bytes.truncate(20 + len);
        bytes[3] = 20 + len as u8;
        bytes[6..8].copy_from_slice(&(65512u16 / 8).to_be_bytes());
        bytes[10..12].fill(0);
        let checksum = !oracle::sum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(parse(&bytes).is_ok(), fits, "{len}");
    }
}

/// A chain of extension headers ends somewhere.
#[test]
fn endless_extension_headers() {
    let chain = |count: usize| {
        let mut bytes = hex(UDP_6);
        bytes[6] = 60;
        let mut headers = Vec::new();
        for index in 0..count {
            headers.extend([if index + 1 < count { 60 } else { 17 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        bytes[5] += headers.len() as u8;
        bytes.splice(40..40, headers);
        bytes
    };
    assert_eq!(parse6(&chain(8)).map(|view| view.l4_offset), Ok(104));
    assert_eq!(reason(&chain(9)), DropReason::Malformed);
    // A length that leaves the packet.
    let mut bytes = chain(1);
    bytes[41] = 255;
    assert_eq!(reason(&bytes), DropReason::Malformed);
}
