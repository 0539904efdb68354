//! Transport checksums, and lengths that disagree: bytes behind the IP packet, and behind the
//! datagram within it.

use jsync_core::config::Globals;
use jsync_core::packet::Offload;
use jsync_core::stats::DropReason;
use jsync_core::xlat::Refusal;

use super::errors::*;
use super::packets::*;
use super::*;

/// RFC 7915 §4.5: IPv6 has no UDP without checksum.
#[test]
fn missing_udp_checksum_is_computed() {
    let bytes = hex(UDP_REPLY_4_NO_CHECKSUM);
    let got = to6(&bytes, n4_in_6(53), n6(40000), &Globals::default()).unwrap();
    assert_bytes(&got, &hex(UDP_REPLY_6));
}

/// RFC 7915 §4.5: the first fragment of a datagram without checksum can't be translated; the
/// later ones have nothing that would be wrong.
#[test]
fn missing_udp_checksum_in_a_fragment() {
    let mut bytes = hex(REPLY_FRAGMENT_4_FIRST);
    bytes[26..28].fill(0);
    let got = to6(&bytes, n4_in_6(53), n6(40000), &Globals::default());
    assert_eq!(got, Err(Refusal::Drop(DropReason::FragmentUntranslatable)));
}

/// IPv6 knows UDP without checksum from tunnels (RFC 6935); IPv4 always did.
#[test]
fn udp_without_checksum_6to4() {
    let mut bytes = hex(UDP_6);
    bytes[46..48].fill(0);
    let got = to4(&bytes, mask(61001), n4(53), &Globals::default(), 7).unwrap();
    assert_eq!(got[26..28], [0, 0]);
    assert_eq!(oracle::fault(&got), None);
}

/// A wrong checksum stays wrong.
#[test]
fn wrong_checksums_stay_wrong() {
    for (example, at) in [(TCP_6, 60), (UDP_6, 48), (ECHO_6, 48)] {
        let mut bytes = hex(example);
        bytes[at] ^= 0x40;
        let got = to4(&bytes, mask(61001), n4(53), &Globals::default(), 7).unwrap();
        assert!(oracle::fault(&got).unwrap().starts_with("checksum"));
    }
    for (example, at) in [(TCP_REPLY_4, 40), (UDP_REPLY_4, 28), (ECHO_REPLY_4, 28)] {
        let mut bytes = hex(example);
        bytes[at] ^= 0x40;
        let got = to6(&bytes, n4_in_6(53), n6(40000), &Globals::default()).unwrap();
        assert!(oracle::fault(&got).unwrap().starts_with("checksum"));
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Tries every checksum that the datagram may have, at `at`; `translate` returns the new one. What
/// comes to zero goes out as all ones (RFC 768): zero would say that there is none.
fn no_zero_is_computed(example: &str, at: usize, translate: &dyn Fn(&[u8]) -> u16) {
    let mut bytes = hex(example);
    let mut ones = 0;
    for checksum in 1..=u16::MAX {
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let got = translate(&bytes);
        assert_ne!(got, 0, "{checksum:#x}");
        ones += u32::from(got == 0xffff);
    }
    assert_eq!(ones, 1, "of 65535 checksums one leads there");
}

#[test]
fn no_computed_zero_of_udp() {
    let globals = Globals::default();
    no_zero_is_computed(UDP_6, 46, &|bytes| {
        word(&to4(bytes, mask(61001), n4(53), &globals, 7).unwrap(), 26)
    });
    no_zero_is_computed(UDP_REPLY_4, 26, &|bytes| {
        word(&to6(bytes, n4_in_6(53), n6(40000), &globals).unwrap(), 46)
    });
    no_zero_is_computed(HAIRPIN_IN, 46, &|bytes| {
        let src = e6("64:ff9b::192.0.2.1", 61001);
        word(&turn(bytes, src, e6("2001:db8::6", 80)).unwrap(), 46)
    });
}

/// The same of the datagram that an error quotes.
#[test]
fn no_computed_zero_of_quoted_udp() {
    let finished = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        oracle::finish(&mut bytes);
        bytes
    };
    no_zero_is_computed(PORT_4, 54, &|bytes| {
        word(&back_to6(&finished(bytes), "64:ff9b::198.51.100.9", 40000, 53).unwrap(), 94)
    });
    no_zero_is_computed(PORT_BACK_6, 94, &|bytes| {
        word(&to4(&finished(bytes), n4(53), mask(61001), &Globals::default(), 7).unwrap(), 54)
    });
    no_zero_is_computed(HAIRPIN_ERROR_IN, 94, &|bytes| {
        let inner_dst = e6("64:ff9b::192.0.2.1", 61002);
        word(&turn(&finished(bytes), n6(40000), inner_dst).unwrap(), 94)
    });
}

/// The same of a checksum that is computed anew: where there was none, in a whole packet and in one
/// to be cut; and where a device was to do it, which can't for a datagram in pieces.
#[test]
fn no_computed_zero_where_there_was_no_checksum() {
    for (len, partial_checksum) in [(30, false), (3000, false), (3000, true)] {
        let mut bytes = udp(UDP_REPLY_4, len);
        let mut computed = |data: u16| {
            bytes[len - 2..].copy_from_slice(&data.to_be_bytes());
            if partial_checksum {
                make_partial(&mut bytes);
            } else {
                bytes[26..28].fill(0);
            }
            let offload = Offload { partial_checksum, ..Offload::default() };
            let got = fragments(&bytes, offload, &Globals::default());
            word(&got[0], if len == 30 { 46 } else { 54 })
        };
        // What the rest sums up to, as the last two bytes, makes all of it come to zero.
        let rest = computed(0);
        assert_eq!(computed(rest), 0xffff, "{len} {partial_checksum}");
    }
}

/// A segment that is cut, and whose checksum a device was to compute.
#[test]
fn partial_checksum_of_a_segment_to_be_fragmented() {
    let mut bytes = hex(TCP_REPLY_4);
    bytes.resize(3000, 0x5a);
    bytes[2..4].copy_from_slice(&3000u16.to_be_bytes());
    bytes[6] = 0;
    oracle::finish(&mut bytes);
    make_partial(&mut bytes);
    let offload = Offload { partial_checksum: true, ..Offload::default() };
    let whole = reassemble(&fragments(&bytes, offload, &Globals::default()), 0xbeef, 1280);
    assert_eq!(oracle::fault(&whole), None);
    assert_bytes(&whole[60..], &bytes[40..]);
}

/// TCP and ICMP know no missing checksum: a zero is a number like others.
#[test]
fn zero_is_a_checksum_of_tcp_and_icmp() {
    let globals = Globals::default();
    let translate = |bytes: &[u8]| match bytes[0] >> 4 {
        6 if bytes[6] == 58 => to4(bytes, mask(0xf00d), n4(0xf00d), &globals, 7).unwrap(),
        6 => to4(bytes, mask(61001), n4(443), &globals, 7).unwrap(),
        _ if bytes[9] == 1 => to6(bytes, n4_in_6(0x1111), n6(0x1111), &globals).unwrap(),
        _ => to6(bytes, n4_in_6(443), n6(40000), &globals).unwrap(),
    };
    for (example, data, before, after) in [
        (TCP_6, 62, 56, 36),
        (TCP_REPLY_4, 40, 36, 56),
        (ECHO_6, 48, 42, 22),
        (ECHO_REPLY_4, 28, 22, 42),
    ] {
        // Some data make the checksum come to zero, before or after.
        for (field, zero_before) in [(before, true), (after, false)] {
            let mut bytes = hex(example);
            bytes[data..data + 2].fill(0);
            oracle::finish(&mut bytes);
            let judged = if zero_before { bytes.clone() } else { translate(&bytes) };
            let checksum = word(&judged, field);
            bytes[data..data + 2].copy_from_slice(&checksum.to_be_bytes());
            oracle::finish(&mut bytes);
            let got = translate(&bytes);
            assert_eq!(oracle::fault(&got), None);
            assert_eq!(word(if zero_before { &bytes } else { &got }, field), 0);
        }
    }
}

/// Bytes behind the IP packet (an Ethernet frame's padding) go.
#[test]
fn padding_is_cut() {
    let mut bytes = hex(UDP_6);
    bytes.extend([0xee; 9]);
    let got = to4(&bytes, mask(61001), n4(53), &Globals::default(), 7).unwrap();
    assert_bytes(&got, &hex(UDP_4));
    let mut bytes = hex(UDP_REPLY_4);
    bytes.extend([0xee; 9]);
    let got = to6(&bytes, n4_in_6(53), n6(40000), &Globals::default()).unwrap();
    assert_bytes(&got, &hex(UDP_REPLY_6));
}

/// The same of packets that are turned round, and of errors.
#[test]
fn padding_of_hairpinned_packets_and_errors_is_cut() {
    let padded = |example: &str| [hex(example), vec![0xee; 9]].concat();
    let src = e6("64:ff9b::192.0.2.1", 61001);
    let got = turn(&padded(HAIRPIN_IN), src, e6("2001:db8::6", 80)).unwrap();
    assert_bytes(&got, &hex(HAIRPIN_OUT));
    let inner_dst = e6("64:ff9b::192.0.2.1", 61002);
    let got = turn(&padded(HAIRPIN_ERROR_IN), n6(40000), inner_dst).unwrap();
    assert_bytes(&got, &hex(HAIRPIN_ERROR_OUT));
    let got = back_to6(&padded(PORT_4), "64:ff9b::198.51.100.9", 40000, 53).unwrap();
    assert_bytes(&got, &hex(PORT_6));
    let globals = Globals::default();
    let got = to4(&padded(PORT_BACK_6), n4(53), mask(61001), &globals, 0x77).unwrap();
    assert_bytes(&got, &hex(PORT_BACK_4));
}

/// A packet whose IP payload goes on behind the datagram, by what its own length says: that is
/// payload of the packet, and none of the datagram, whose length and checksum don't know of it.
fn with_surplus(example: &str) -> Vec<u8> {
    let mut bytes = hex(example);
    bytes.extend([0xe1, 0xe2, 0xe3]);
    if bytes[0] >> 4 == 6 {
        bytes[5] += 3;
    } else {
        bytes[3] += 3;
        bytes[10..12].fill(0);
        let checksum = !oracle::sum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

#[test]
fn bytes_behind_the_datagram_stay_and_do_not_count() {
    let globals = Globals::default();
    let got = to4(&with_surplus(UDP_6), mask(61001), n4(53), &globals, 7).unwrap();
    assert_bytes(&got, &with_surplus(UDP_4));
    for example in [UDP_REPLY_4, UDP_REPLY_4_NO_CHECKSUM] {
        let got = to6(&with_surplus(example), n4_in_6(53), n6(40000), &globals).unwrap();
        assert_bytes(&got, &with_surplus(UDP_REPLY_6));
    }
    let src = e6("64:ff9b::192.0.2.1", 61001);
    let got = turn(&with_surplus(HAIRPIN_IN), src, e6("2001:db8::6", 80)).unwrap();
    assert_bytes(&got, &with_surplus(HAIRPIN_OUT));
    // An echo has no length of its own: its checksum covers all there is.
    let mut bytes = with_surplus(ECHO_6);
    oracle::finish(&mut bytes);
    let got = to4(&bytes, mask(0xf00d), n4(0xf00d), &globals, 1).unwrap();
    let mut expected = with_surplus(ECHO_4);
    oracle::finish(&mut expected);
    assert_bytes(&got, &expected);
}
