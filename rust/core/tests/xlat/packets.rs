//! TCP, UDP and echo packets in both directions, whole and in fragments, byte for byte.

use jsync_core::config::Globals;
use jsync_core::packet::{Gso, HEADROOM, Offload};
use jsync_core::stats::DropReason;
use jsync_core::wire::view::{parse4, parse6};
use jsync_core::xlat::{IcmpError, Refusal, Translated, v4to6, v6to4};

use super::*;

#[test]
fn tcp_6to4() {
    let got = to4(&hex(TCP_6), mask(61001), n4(443), &Globals::default(), 0x1234).unwrap();
    assert_bytes(&got, &hex(TCP_4));
}

#[test]
fn tcp_4to6() {
    let got = to6(&hex(TCP_REPLY_4), n4_in_6(443), n6(40000), &Globals::default()).unwrap();
    assert_bytes(&got, &hex(TCP_REPLY_6));
}

#[test]
fn udp_6to4() {
    let got = to4(&hex(UDP_6), mask(61001), n4(53), &Globals::default(), 7).unwrap();
    assert_bytes(&got, &hex(UDP_4));
}

#[test]
fn udp_4to6() {
    let got = to6(&hex(UDP_REPLY_4), n4_in_6(53), n6(40000), &Globals::default()).unwrap();
    assert_bytes(&got, &hex(UDP_REPLY_6));
}

/// RFC 7915 §5.1: hop-by-hop options, destination options and a used-up Routing header go.
#[test]
fn extension_headers_are_skipped() {
    let got = to4(&hex(UDP_6_EXTENSIONS), mask(61001), n4(53), &Globals::default(), 7).unwrap();
    assert_bytes(&got, &hex(UDP_4));
}

/// RFC 7915 §4.1: options that aren't a source route are ignored.
#[test]
fn ipv4_options_are_ignored() {
    let bytes = hex(UDP_REPLY_4_OPTIONS);
    let got = to6(&bytes, n4_in_6(53), n6(40000), &Globals::default()).unwrap();
    assert_bytes(&got, &hex(UDP_REPLY_6));
}

#[test]
fn echo_6to4() {
    let got = to4(&hex(ECHO_6), mask(0xf00d), n4(0xf00d), &Globals::default(), 1).unwrap();
    assert_bytes(&got, &hex(ECHO_4));
}

#[test]
fn echo_4to6() {
    let bytes = hex(ECHO_REPLY_4);
    let got = to6(&bytes, n4_in_6(0x1111), n6(0x1111), &Globals::default()).unwrap();
    assert_bytes(&got, &hex(ECHO_REPLY_6));
}

/// RFC 7915 §5.1.1.
#[test]
fn fragments_6to4() {
    for (from, to) in [(FRAGMENT_6_FIRST, FRAGMENT_4_FIRST), (FRAGMENT_6_LAST, FRAGMENT_4_LAST)] {
        let got = to4(&hex(from), mask(61001), n4(53), &Globals::default(), 0xffff).unwrap();
        assert_bytes(&got, &hex(to));
    }
}

/// RFC 7915 §4.1: a Fragment header.
#[test]
fn fragments_4to6() {
    for (from, to) in [
        (REPLY_FRAGMENT_4_FIRST, REPLY_FRAGMENT_6_FIRST),
        (REPLY_FRAGMENT_4_LAST, REPLY_FRAGMENT_6_LAST),
    ] {
        let got = to6(&hex(from), n4_in_6(53), n6(40000), &Globals::default()).unwrap();
        assert_bytes(&got, &hex(to));
    }
}

/// Bits that mean nothing yet are ignored and not handed on: RFC 791's beside DF, and those of the
/// Fragment header (RFC 8200 §4.5).
#[test]
fn reserved_bits_of_fragments() {
    let globals = Globals::default();
    for (example, flags, to) in [
        (UDP_REPLY_4, 0x80, UDP_REPLY_6),
        (UDP_REPLY_4, 0xc0, UDP_REPLY_6),
        (REPLY_FRAGMENT_4_FIRST, 0xa0, REPLY_FRAGMENT_6_FIRST),
        (REPLY_FRAGMENT_4_LAST, 0x80, REPLY_FRAGMENT_6_LAST),
    ] {
        let mut bytes = hex(example);
        bytes[6] |= flags;
        bytes[10..12].fill(0);
        let checksum = !oracle::sum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_bytes(&to6(&bytes, n4_in_6(53), n6(40000), &globals).unwrap(), &hex(to));
    }
    for (example, to) in [
        (FRAGMENT_6_FIRST, FRAGMENT_4_FIRST),
        (FRAGMENT_6_LAST, FRAGMENT_4_LAST),
        (UDP_6_ATOMIC, UDP_4),
    ] {
        let mut bytes = hex(example);
        bytes[41] = 0xff;
        bytes[43] |= 6;
        assert_bytes(&to4(&bytes, mask(61001), n4(53), &globals, 0xffff).unwrap(), &hex(to));
    }
}

/// RFC 7915 §5.1.1: an atomic fragment becomes a whole packet with its own identification.
#[test]
fn atomic_fragment_6to4() {
    let got = to4(&hex(UDP_6_ATOMIC), mask(61001), n4(53), &Globals::default(), 0xffff).unwrap();
    assert_bytes(&got, &hex(UDP_4));
    assert_eq!(parse6(&hex(UDP_6_ATOMIC)).unwrap().fragment, None);
}

/// RFC 6146 §3.8. The flow label stays: the packet stays in IPv6.
#[test]
fn hairpin() {
    let src = e6("64:ff9b::192.0.2.1", 61001);
    let got = turn(&hex(HAIRPIN_IN), src, e6("2001:db8::6", 80)).unwrap();
    assert_bytes(&got, &hex(HAIRPIN_OUT));
}

#[test]
fn echoes_are_not_hairpinned() {
    let got = turn(&hex(ECHO_6), e6("64:ff9b::192.0.2.1", 1), e6("2001:db8::6", 1));
    assert_eq!(got, Err(Refusal::Drop(DropReason::UnsupportedIcmp)));
}

/// RFC 7915 §§4.1, 5.1, and Jool's options for it.
#[test]
fn traffic_class_and_tos() {
    let cases = [(false, false, 0x2c, 0x88), (true, true, 0x10, 0)];
    for (zeroize_traffic_class, override_tos, tos, class) in cases {
        let globals =
            Globals { zeroize_traffic_class, override_tos, tos: 0x10, ..Globals::default() };
        let four = to4(&hex(TCP_6), mask(61001), n4(443), &globals, 0).unwrap();
        assert_eq!(four[1], tos);
        let six = to6(&hex(TCP_REPLY_4), n4_in_6(443), n6(40000), &globals).unwrap();
        assert_eq!((six[0] & 0xf) << 4 | six[1] >> 4, class);
    }
}

#[test]
fn hop_limit_runs_out() {
    let expired = Err(Refusal::Reply(DropReason::TtlExpired, IcmpError::TimeExceeded));
    for ttl in [0, 1] {
        let mut six = hex(UDP_6);
        six[7] = ttl;
        assert_eq!(to4(&six, mask(61001), n4(53), &Globals::default(), 7), expired);
        assert_eq!(turn(&six, n4_in_6(1), n6(1)), expired);
        let mut four = hex(UDP_REPLY_4);
        four[8] = ttl;
        oracle::finish(&mut four);
        assert_eq!(to6(&four, n4_in_6(53), n6(40000), &Globals::default()), expired);
    }
}

/// A UDP packet of either family whose IP packet has `len` bytes.
pub fn udp(example: &str, len: usize) -> Vec<u8> {
    let mut bytes = hex(example);
    let six = bytes[0] >> 4 == 6;
    let l4 = if six { 40 } else { 20 };
    bytes.truncate(l4 + 8);
    bytes.extend((l4 + 8..len).map(|index| index as u8));
    let field = if six { len - 40 } else { len } as u16;
    let at = if six { 4 } else { 2 };
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
    bytes[l4 + 4..l4 + 6].copy_from_slice(&((len - l4) as u16).to_be_bytes());
    oracle::finish(&mut bytes);
    bytes
}

/// RFC 7915 §5.1: up to 1260 bytes may be fragmented, more not.
#[test]
fn dont_fragment_6to4() {
    for (len, flags) in [(60, 0), (1280, 0), (1281, 0x40), (1500, 0x40)] {
        let got = to4(&udp(UDP_6, len), mask(61001), n4(53), &Globals::default(), 3).unwrap();
        assert_eq!((got[6], got[4..6].to_vec()), (flags, vec![0, 3]), "{len}");
        assert_eq!(oracle::fault(&got), None);
    }
}

/// The largest IPv6 packet is larger than the largest IPv4 packet.
#[test]
fn too_large_for_ipv4() {
    let globals = Globals::default();
    let fits = to4(&udp(UDP_6, 65555), mask(61001), n4(53), &globals, 3).unwrap();
    assert_eq!((fits.len(), oracle::fault(&fits)), (65535, None));
    let too_big = Refusal::Reply(DropReason::TooBig, IcmpError::TooBig { mtu: 65555 });
    assert_eq!(to4(&udp(UDP_6, 65556), mask(61001), n4(53), &globals, 3), Err(too_big));
}

pub fn fragments(bytes: &[u8], offload: Offload, globals: &Globals) -> Vec<Vec<u8>> {
    let mut buffer = Buffer { offload, ..Buffer::new(bytes) };
    let mut packet = buffer.packet();
    let view = parse4(bytes).unwrap();
    match v4to6::translate(&mut packet, &view, n4_in_6(53), n6(40000), globals).unwrap() {
        Translated::InPlace => vec![packet.bytes().to_vec()],
        Translated::Fragments(fragments) => {
            assert!(fragments.iter().all(|f| f.offload == Offload::default()));
            fragments.into_iter().map(|f| f.bytes).collect()
        }
    }
}

/// The IPv6 packet that fragments make, the way RFC 8200 §4.5 says; checked on the way.
pub fn reassemble(fragments: &[Vec<u8>], id: u32, mtu: usize) -> Vec<u8> {
    let mut whole = fragments[0][..40].to_vec();
    whole[6] = fragments[0][40];
    for (index, fragment) in fragments.iter().enumerate() {
        assert!(fragment.len() <= mtu);
        assert_eq!(oracle::fault(fragment), None);
        assert_eq!((&fragment[..4], &fragment[6..40]), (&fragments[0][..4], &fragments[0][6..40]));
        assert_eq!(fragment[44..48], id.to_be_bytes());
        let word = u16::from_be_bytes([fragment[42], fragment[43]]);
        assert_eq!(usize::from(word & !7), whole.len() - 40);
        assert_eq!(word & 1 == 1, index + 1 < fragments.len());
        whole.extend_from_slice(&fragment[48..]);
    }
    let len = (whole.len() - 40) as u16;
    whole[4..6].copy_from_slice(&len.to_be_bytes());
    whole
}

/// RFC 7915 §4: what may be fragmented is, to `lowest-ipv6-mtu`, and only what is larger.
#[test]
fn fragmentation_4to6() {
    for (len, mtu, count) in
        [(1260, 1280, 1), (1261, 1280, 2), (1480, 1500, 1), (3000, 1280, 3), (65535, 1280, 54)]
    {
        let globals = Globals { lowest_ipv6_mtu: mtu, ..Globals::default() };
        let got = fragments(&udp(UDP_REPLY_4, len), Offload::default(), &globals);
        assert_eq!(got.len(), count, "{len}");
        if count > 1 {
            let whole = reassemble(&got, 9, mtu.into());
            assert_eq!(oracle::fault(&whole), None);
            assert_eq!(whole[48..], udp(UDP_REPLY_4, len)[28..]);
        }
    }
}

/// With DF a packet is never cut, whatever its size: the link says what is too big.
#[test]
fn dont_fragment_4to6() {
    let mut bytes = udp(UDP_REPLY_4, 9000);
    bytes[6] = 0x40;
    oracle::finish(&mut bytes);
    let got = fragments(&bytes, Offload::default(), &Globals::default());
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].len(), oracle::fault(&got[0])), (9020, None));
}

/// A fragment that is too large is cut again: offsets go on from its own, and the datagram goes
/// on behind it.
#[test]
fn fragments_are_fragmented_again() {
    let mut bytes = udp(UDP_REPLY_4, 20 + 2000);
    bytes[6..8].copy_from_slice(&(0x2000u16 | 100).to_be_bytes());
    oracle::finish(&mut bytes);
    let payload = bytes[20..].to_vec();
    let got = fragments(&bytes, Offload::default(), &Globals::default());
    let at = |fragment: &[u8]| u16::from_be_bytes([fragment[42], fragment[43]]);
    assert_eq!(got.iter().map(|f| at(f)).collect::<Vec<_>>(), [801, 800 + 1232 + 1]);
    assert_eq!([&got[0][48..], &got[1][48..]].concat(), payload);
}

/// The sum that Linux leaves in the field of a packet with CHECKSUM_PARTIAL.
pub fn make_partial(bytes: &mut [u8]) {
    let (addresses, protocol, l4) =
        if bytes[0] >> 4 == 6 { (8..40, bytes[6], 40) } else { (12..20, bytes[9], 20) };
    let pseudo_header = oracle::pseudo_header(&bytes[addresses], protocol, bytes.len() - l4);
    let field = l4 + if protocol == 6 { 16 } else { 6 };
    bytes[field..field + 2].copy_from_slice(&oracle::sum(&pseudo_header).to_be_bytes());
}

/// What the network device does with such a packet.
pub fn complete_partial(bytes: &mut [u8]) {
    let (protocol, l4) = if bytes[0] >> 4 == 6 { (bytes[6], 40) } else { (bytes[9], 20) };
    let field = l4 + if protocol == 6 { 16 } else { 6 };
    let checksum = !oracle::sum(&bytes[l4..]);
    bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn partial_checksums() {
    let offload = Offload { partial_checksum: true, ..Offload::default() };
    for (from, to) in [(TCP_6, TCP_4), (UDP_6, UDP_4)] {
        let mut bytes = hex(from);
        make_partial(&mut bytes);
        let mut buffer = Buffer { offload, ..Buffer::new(&bytes) };
        let mut packet = buffer.packet();
        let view = parse6(&bytes).unwrap();
        let ident = if to == TCP_4 { 0x1234 } else { 7 };
        let dst = n4(view.dst_port);
        v6to4::translate(&mut packet, &view, mask(61001), dst, &Globals::default(), ident).unwrap();
        assert!(packet.offload.partial_checksum);
        complete_partial(packet.bytes_mut());
        assert_bytes(packet.bytes(), &hex(to));
    }
    for (from, to) in [(TCP_REPLY_4, TCP_REPLY_6), (UDP_REPLY_4, UDP_REPLY_6)] {
        let mut bytes = hex(from);
        make_partial(&mut bytes);
        let mut buffer = Buffer { offload, ..Buffer::new(&bytes) };
        let mut packet = buffer.packet();
        let view = parse4(&bytes).unwrap();
        let src = n4_in_6(view.src_port);
        let got = v4to6::translate(&mut packet, &view, src, n6(40000), &Globals::default());
        assert_eq!(got, Ok(Translated::InPlace));
        complete_partial(packet.bytes_mut());
        assert_bytes(packet.bytes(), &hex(to));
    }
}

/// A device can't finish the checksum of a datagram in pieces: whoever cuts it must.
#[test]
fn partial_checksum_of_a_packet_to_be_fragmented() {
    let mut bytes = udp(UDP_REPLY_4, 3000);
    make_partial(&mut bytes);
    let offload = Offload { partial_checksum: true, ..Offload::default() };
    let got = fragments(&bytes, offload, &Globals::default());
    assert_eq!(oracle::fault(&reassemble(&got, 9, 1280)), None);
}

/// A super-packet is translated whole, whatever its size; of its segments' size depends whether
/// they may be fragmented.
#[test]
fn super_packets() {
    let globals = Globals::default();
    for (gso_size, flags) in [(1200, 0), (1232, 0), (1233, 0x40), (1440, 0x40)] {
        let offload = Offload { partial_checksum: true, gso: Gso::Udp, gso_size };
        let mut bytes = udp(UDP_6, 60000);
        make_partial(&mut bytes);
        let mut buffer = Buffer { offload, ..Buffer::new(&bytes) };
        let mut packet = buffer.packet();
        let view = parse6(&bytes).unwrap();
        v6to4::translate(&mut packet, &view, mask(61001), n4(53), &globals, 7).unwrap();
        assert_eq!((packet.offload, packet.bytes()[6]), (offload, flags), "{gso_size}");
        complete_partial(packet.bytes_mut());
        assert_eq!(oracle::fault(packet.bytes()), None);
    }
    let offload = Offload { partial_checksum: true, gso: Gso::Udp, gso_size: 1400 };
    let mut bytes = udp(UDP_REPLY_4, 65535);
    make_partial(&mut bytes);
    let mut got = fragments(&bytes, offload, &globals);
    assert_eq!(got.len(), 1);
    complete_partial(&mut got[0]);
    assert_eq!((got[0].len(), oracle::fault(&got[0])), (65555, None));
}

/// TCP segments count with their own header length.
#[test]
fn tcp_super_packets() {
    for (gso_size, flags) in [(1216, 0), (1217, 0x40)] {
        let bytes = hex(TCP_6);
        let offload = Offload { partial_checksum: false, gso: Gso::Tcp, gso_size };
        let mut buffer = Buffer { offload, ..Buffer::new(&bytes) };
        let mut packet = buffer.packet();
        let view = parse6(&bytes).unwrap();
        let globals = Globals::default();
        v6to4::translate(&mut packet, &view, mask(61001), n4(443), &globals, 7).unwrap();
        assert_eq!(packet.bytes()[6], flags, "{gso_size}");
    }
}

/// Segments get the checksum that their super-packet lacks from whoever cuts it.
#[test]
fn super_packet_without_udp_checksum() {
    let mut bytes = udp(UDP_REPLY_4, 20000);
    bytes[26..28].fill(0);
    let offload = Offload { partial_checksum: false, gso: Gso::Udp, gso_size: 1400 };
    let mut buffer = Buffer { offload, ..Buffer::new(&bytes) };
    let mut packet = buffer.packet();
    let view = parse4(&bytes).unwrap();
    let got = v4to6::translate(&mut packet, &view, n4_in_6(53), n6(40000), &Globals::default());
    assert_eq!(got, Ok(Translated::InPlace));
    assert_eq!(packet.offload, Offload { partial_checksum: true, ..offload });
    complete_partial(packet.bytes_mut());
    assert_eq!(oracle::fault(packet.bytes()), None);
}

#[test]
fn headroom_is_needed_and_enough() {
    for (example, needed) in [(UDP_REPLY_4, 20), (REPLY_FRAGMENT_4_FIRST, 28)] {
        let bytes = hex(example);
        let view = parse4(&bytes).unwrap();
        for room in [needed - 1, needed] {
            let mut buf = vec![0; room];
            buf.extend_from_slice(&bytes);
            let mut packet = Packet::new(&mut buf, room, bytes.len(), Offload::default());
            let globals = Globals::default();
            let got = v4to6::translate(&mut packet, &view, n4_in_6(53), n6(40000), &globals);
            if room < needed {
                assert_eq!(got, Err(Refusal::Drop(DropReason::NoHeadroom)));
                assert_bytes(packet.bytes(), &bytes);
            } else {
                assert_eq!(got, Ok(Translated::InPlace));
                assert_eq!(packet.start(), 0);
            }
        }
        assert!(needed <= HEADROOM);
    }
}

/// n6 opens a connection; traffic class 0x2c.
pub const TCP_6: &str = "
    62 c0 00 00 00 18 06 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    9c 40 01 bb 01 02 03 04 00 00 00 00 60 02 fd 20  # TCP
    a1 1d 00 00
    02 04 05 a0  # MSS
";

/// The same as 192.0.2.1#61001, identification 0x1234.
pub const TCP_4: &str = "
    45 2c 00 2c 12 34 00 00 3f 06 7d 2e c0 00 02 01  # IPv4
    c6 33 64 09
    ee 49 01 bb 01 02 03 04 00 00 00 00 60 02 fd 20  # TCP
    ba d0 00 00
    02 04 05 a0  # MSS
";

/// The answer, with data.
pub const TCP_REPLY_4: &str = "
    45 88 00 2d be ef 40 00 39 06 96 15 c6 33 64 09  # IPv4, DF
    c0 00 02 01
    01 bb ee 49 00 00 00 09 01 02 03 05 50 12 ff ff  # TCP
    88 98 00 00
    6a 73 79 6e 63  # data
";

/// The answer on the IPv6 side.
pub const TCP_REPLY_6: &str = "
    68 80 00 00 00 19 06 38 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    01 bb 9c 40 00 00 00 09 01 02 03 05 50 12 ff ff  # TCP
    6e e5 00 00
    6a 73 79 6e 63  # data
";

/// A datagram of odd length.
pub const UDP_6: &str = "
    60 00 00 00 00 0d 11 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    9c 40 00 35 00 0d c4 81  # UDP
    6a 73 79 6e 63  # data
";

/// The same on the IPv4 side, identification 7.
pub const UDP_4: &str = "
    45 00 00 21 00 07 00 00 3f 11 8f 87 c0 00 02 01  # IPv4
    c6 33 64 09
    ee 49 00 35 00 0d de 34  # UDP
    6a 73 79 6e 63  # data
";

/// A datagram back.
pub const UDP_REPLY_4: &str = "
    45 00 00 21 00 09 00 00 40 11 8e 85 c6 33 64 09  # IPv4
    c0 00 02 01
    00 35 ee 49 00 0d de 34  # UDP
    6a 73 79 6e 63  # data
";

/// The same without UDP checksum.
pub const UDP_REPLY_4_NO_CHECKSUM: &str = "
    45 00 00 21 00 09 00 00 40 11 8e 85 c6 33 64 09  # IPv4
    c0 00 02 01
    00 35 ee 49 00 0d 00 00  # UDP
    6a 73 79 6e 63  # data
";

/// The same with a record route option.
pub const UDP_REPLY_4_OPTIONS: &str = "
    47 00 00 29 00 09 00 00 40 11 84 72 c6 33 64 09  # IPv4
    c0 00 02 01
    01 07 07 04 00 00 00 00  # options
    00 35 ee 49 00 0d de 34  # UDP
    6a 73 79 6e 63  # data
";

/// What each of them becomes.
pub const UDP_REPLY_6: &str = "
    60 00 00 00 00 0d 11 3f 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    00 35 9c 40 00 0d c4 81  # UDP
    6a 73 79 6e 63  # data
";

/// UDP_6 behind three extension headers.
pub const UDP_6_EXTENSIONS: &str = "
    60 00 00 00 00 3d 00 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    3c 00 01 04 00 00 00 00  # hop-by-hop options
    2b 01 01 0c 00 00 00 00 00 00 00 00 00 00 00 00  # destination options
    11 02 00 00 00 00 00 00 20 01 0d b8 00 00 00 00  # routing, no segments left
    00 00 00 00 00 00 00 77
    9c 40 00 35 00 0d c4 81  # UDP
    6a 73 79 6e 63  # data
";

/// A ping.
pub const ECHO_6: &str = "
    60 00 00 00 00 0d 3a 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    80 00 cf c6 11 11 00 03  # echo request
    6a 73 79 6e 63  # data
";

/// The same on the IPv4 side, identifier 0xf00d, identification 1.
pub const ECHO_4: &str = "
    45 00 00 21 00 01 00 00 3f 01 8f 9d c0 00 02 01  # IPv4
    c6 33 64 09
    08 00 c1 0c f0 0d 00 03  # echo request
    6a 73 79 6e 63  # data
";

/// The answer to the ping.
pub const ECHO_REPLY_4: &str = "
    45 00 00 21 00 02 00 00 40 01 8e 9c c6 33 64 09  # IPv4
    c0 00 02 01
    00 00 c9 0c f0 0d 00 03  # echo reply
    6a 73 79 6e 63  # data
";

/// The answer on the IPv6 side.
pub const ECHO_REPLY_6: &str = "
    60 00 00 00 00 0d 3a 3f 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    81 00 ce c6 11 11 00 03  # echo reply
    6a 73 79 6e 63  # data
";

/// The first fragment of a datagram of 32 bytes, identification 0xabcd0102.
pub const FRAGMENT_6_FIRST: &str = "
    60 00 00 00 00 18 2c 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    11 00 00 01 ab cd 01 02  # fragment
    9c 40 00 35 00 20 86 ad  # UDP
    00 01 02 03 04 05 06 07  # data
";

/// The same on the IPv4 side.
pub const FRAGMENT_4_FIRST: &str = "
    45 00 00 24 01 02 20 00 3f 11 6e 89 c0 00 02 01  # IPv4
    c6 33 64 09
    ee 49 00 35 00 20 a0 60  # UDP
    00 01 02 03 04 05 06 07  # data
";

/// The last fragment.
pub const FRAGMENT_6_LAST: &str = "
    60 00 00 00 00 18 2c 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    11 00 00 10 ab cd 01 02  # fragment
    08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17  # data
";

/// The same on the IPv4 side.
pub const FRAGMENT_4_LAST: &str = "
    45 00 00 24 01 02 00 02 3f 11 8e 87 c0 00 02 01  # IPv4
    c6 33 64 09
    08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17  # data
";

/// A fragment back, identification 0x0304.
pub const REPLY_FRAGMENT_4_FIRST: &str = "
    45 00 00 24 03 04 20 00 40 11 6b 87 c6 33 64 09  # IPv4
    c0 00 02 01
    00 35 ee 49 00 20 a0 60  # UDP
    00 01 02 03 04 05 06 07  # data
";

/// The same on the IPv6 side.
pub const REPLY_FRAGMENT_6_FIRST: &str = "
    60 00 00 00 00 18 2c 3f 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    11 00 00 01 00 00 03 04  # fragment
    00 35 9c 40 00 20 86 ad  # UDP
    00 01 02 03 04 05 06 07  # data
";

/// The last fragment back.
pub const REPLY_FRAGMENT_4_LAST: &str = "
    45 00 00 24 03 04 00 02 40 11 8b 85 c6 33 64 09  # IPv4
    c0 00 02 01
    08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17  # data
";

/// The same on the IPv6 side.
pub const REPLY_FRAGMENT_6_LAST: &str = "
    60 00 00 00 00 18 2c 3f 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 c6 33 64 09 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 05
    11 00 00 10 00 00 03 04  # fragment
    08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17  # data
";

/// UDP_6 as an atomic fragment, identification 0x99990007.
pub const UDP_6_ATOMIC: &str = "
    60 00 00 00 00 15 2c 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c6 33 64 09
    11 00 00 00 99 99 00 07  # fragment
    9c 40 00 35 00 0d c4 81  # UDP
    6a 73 79 6e 63  # data
";

/// n6 writes to 192.0.2.1#61002, which is [2001:db8::6]:80.
pub const HAIRPIN_IN: &str = "
    61 01 23 45 00 0d 11 40 20 01 0d b8 00 00 00 00  # IPv6
    00 00 00 00 00 00 00 05 00 64 ff 9b 00 00 00 00
    00 00 00 00 c0 00 02 01
    9c 40 ee 4a 00 0d 3e a7  # UDP
    6a 73 79 6e 63  # data
";

/// What arrives there, from 192.0.2.1#61001.
pub const HAIRPIN_OUT: &str = "
    61 01 23 45 00 0d 11 3f 00 64 ff 9b 00 00 00 00  # IPv6
    00 00 00 00 c0 00 02 01 20 01 0d b8 00 00 00 00
    00 00 00 00 00 00 00 06
    ee 49 00 50 00 0d da 97  # UDP
    6a 73 79 6e 63  # data
";
