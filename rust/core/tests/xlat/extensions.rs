//! Extensions of ICMP errors (RFC 4884), and how much of quote and extension an error has room for.

use jsync_core::config::Globals;

use super::errors::*;
use super::*;

/// An MPLS label stack object behind its extension header (RFC 4884 §7, RFC 4950).
const EXTENSION: [u8; 12] = [0x20, 0, 0x88, 0x19, 0, 8, 1, 1, 0x05, 0xdc, 0x51, 0x01];

/// An error whose quote is padded to `quote` bytes and followed by an extension.
fn extended(example: &str, quote: usize, extension: &[u8]) -> Vec<u8> {
    let mut bytes = hex(example);
    let six = bytes[0] >> 4 == 6;
    let (icmp, unit) = if six { (40, 8) } else { (20, 4) };
    bytes[icmp + if six { 4 } else { 5 }] = (quote / unit) as u8;
    bytes.resize(icmp + 8 + quote, 0);
    bytes.extend_from_slice(extension);
    let field = if six { bytes.len() - 40 } else { bytes.len() } as u16;
    let at = if six { 4 } else { 2 };
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
    oracle::finish(&mut bytes);
    bytes
}

/// RFC 4884: the quote grows by 20 bytes, is padded to 128 at least, and is counted in units of
/// 8 bytes instead of 4; the extension stays as it is.
#[test]
fn extensions_4to6() {
    assert_eq!(oracle::sum(&EXTENSION), 0xffff);
    for padding in [128, 132, 160] {
        let bytes = extended(PING_4, padding, &EXTENSION);
        let got = back_to6(&bytes, "64:ff9b::203.0.113.7", 0x1111, 0x1111).unwrap();
        assert_eq!(head(&got), (1, 0, 16 << 24));
        assert_eq!(got[48..101], hex(PING_6)[48..]);
        assert!(got[101..176].iter().all(|&byte| byte == 0));
        assert_bytes(&got[176..], &EXTENSION);
    }
}

#[test]
fn extensions_6to4() {
    let bytes = extended(PING_BACK_6, 128, &EXTENSION);
    let got = to4(&bytes, n4(0xf00d), mask(0xf00d), &Globals::default(), 0x77).unwrap();
    assert_eq!(head(&got), (11, 0, 32 << 16));
    assert_eq!(got[28..61], hex(PING_BACK_4)[28..]);
    assert!(got[61..156].iter().all(|&byte| byte == 0));
    assert_bytes(&got[156..], &EXTENSION);
}

/// The head of an error, without the quote, and a quoted segment with `len` bytes of data.
fn long_quote(example: &str, ip: usize, len: usize) -> Vec<u8> {
    let mut bytes = hex(example);
    bytes.truncate(ip + 8);
    let (head, at, field) = if ip == 20 {
        (&hex(FRAG_NEEDED_4)[28..68], 2, 40 + len)
    } else {
        (&hex(TOO_BIG_BACK_6)[48..108], 4, 20 + len)
    };
    bytes.extend_from_slice(head);
    let at = ip + 8 + at;
    bytes[at..at + 2].copy_from_slice(&(field as u16).to_be_bytes());
    bytes.extend(std::iter::repeat_n(b'z', len));
    bytes
}

fn set_length(bytes: &mut [u8]) {
    let (at, len) = if bytes[0] >> 4 == 6 { (4, bytes.len() - 40) } else { (2, bytes.len()) };
    bytes[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
    oracle::finish(bytes);
}

/// RFC 4443 §3: at most 1280 bytes; RFC 1812 §4.3.2.3: at most 576.
#[test]
fn long_quotes_are_cut() {
    let mut bytes = long_quote(TTL_4, 20, 1400);
    set_length(&mut bytes);
    let got = back_to6(&bytes, "64:ff9b::203.0.113.7", 40000, 443).unwrap();
    assert_eq!((got.len(), head(&got)), (1280, (3, 0, 0)));
    let mut bytes = long_quote(PING_BACK_6, 40, 1100);
    set_length(&mut bytes);
    let got = to4(&bytes, n4(443), mask(61001), &Globals::default(), 0x77).unwrap();
    assert_eq!((got.len(), head(&got)), (576, (11, 0, 0)));
}

/// The quote makes room for the extension, down to 128 bytes; an extension too large even then
/// is left out, since a part of it would fail its own checksum.
#[test]
fn long_quotes_make_room_for_extensions() {
    for (extension, rest) in [(12, 134 << 16), (420, 32 << 16), (424, 0)] {
        let mut bytes = long_quote(PING_BACK_6, 40, 576 - 60);
        bytes[44] = 72;
        bytes.extend(vec![0xee; extension]);
        set_length(&mut bytes);
        let got = to4(&bytes, n4(443), mask(61001), &Globals::default(), 0x77).unwrap();
        assert_eq!((got.len(), head(&got)), (576, (11, 0, rest)), "{extension}");
        let shown = got.iter().rev().take_while(|&&byte| byte == 0xee).count();
        assert_eq!(shown, if rest == 0 { 0 } else { extension });
    }
}

/// What has no place for extensions in the other family loses them.
#[test]
fn extensions_without_counterpart() {
    for (kind, code, pointer, expected) in
        [(3, 2, 0, (4, 1, 6)), (3, 4, 0, (2, 0, 1420)), (12, 0, 8, (4, 0, 7))]
    {
        let mut bytes = extended(PING_4, 128, &EXTENSION);
        bytes[20..22].copy_from_slice(&[kind, code]);
        bytes[24] = pointer;
        bytes[26..28].copy_from_slice(&1400u16.to_be_bytes());
        oracle::finish(&mut bytes);
        let got = back_to6(&bytes, "64:ff9b::203.0.113.7", 0x1111, 0x1111).unwrap();
        assert_eq!((got.len(), head(&got)), (101, expected));
    }
}

/// What has no extensions in ICMPv6 has no length either: there the MTU or the pointer stands.
#[test]
fn values_that_look_like_lengths() {
    for (kind, code, expected) in [(2, 0, (3, 4, 65535)), (4, 1, (3, 2, 0))] {
        let mut bytes = long_quote(PING_BACK_6, 40, 200);
        bytes[40..42].copy_from_slice(&[kind, code]);
        bytes[44..48].copy_from_slice(&0x1000_0000u32.to_be_bytes());
        set_length(&mut bytes);
        let got = to4(&bytes, n4(443), mask(61001), &Globals::default(), 0x77).unwrap();
        assert_eq!((got.len(), head(&got)), (bytes.len() - 40, expected));
    }
}

/// A length that points out of the message, or below the least that RFC 4884 knows, is none.
#[test]
fn lengths_that_lie() {
    for (length, quoted) in [(255, 13), (33, 13), (3, 13)] {
        let mut bytes = hex(PORT_4);
        bytes[25] = length;
        oracle::finish(&mut bytes);
        let got = back_to6(&bytes, "64:ff9b::198.51.100.9", 40000, 53).unwrap();
        assert_eq!(got.len(), 88 + quoted);
        assert_bytes(&got, &hex(PORT_6));
    }
}

/// An error that quotes the first `quote` bytes of a segment which is longer, says that they are
/// `units`, and goes on with an extension.
fn with_length(example: &str, quote: usize, units: u8) -> Vec<u8> {
    let (ip, length) = if hex(example)[0] >> 4 == 6 { (40, 4) } else { (20, 5) };
    let mut bytes = long_quote(example, ip, 3000);
    bytes.truncate(ip + 8 + quote);
    bytes[ip + length] = units;
    bytes.extend(EXTENSION);
    set_length(&mut bytes);
    bytes
}

/// RFC 4884 §4: the length counts 32-bit words in one byte, and an extension begins behind
/// 128 bytes at least. With less than that there is none: all is quote.
#[test]
fn least_and_greatest_length_4to6() {
    let translated = |bytes: &[u8]| {
        let got = back_to6(bytes, "64:ff9b::203.0.113.7", 40000, 443).unwrap();
        assert_eq!(oracle::fault(&got), None);
        assert_eq!((got[40], got[41]), (3, 0));
        // Ports and checksum aside, the segment is the one that was quoted.
        assert_eq!(got[92..104], bytes[52..64]);
        got
    };
    for (quote, units, length) in [(128, 32, 19), (1020, 255, 130)] {
        let bytes = with_length(TTL_4, quote, units);
        let got = translated(&bytes);
        let end = 48 + usize::from(length) * 8;
        assert_eq!((&got[44..48], got.len()), (&[length, 0, 0, 0][..], end + 12));
        assert_bytes(&got[106..68 + quote], &bytes[66..28 + quote]);
        assert!(got[68 + quote..end].iter().all(|&byte| byte == 0));
        assert_bytes(&got[end..], &EXTENSION);
    }
    // A length below the least, and one that leaves nothing for an extension.
    for (quote, units) in [(124, 31), (116, 32)] {
        let bytes = with_length(TTL_4, quote, units);
        let got = translated(&bytes);
        assert_eq!((&got[44..48], got.len()), (&[0; 4][..], bytes.len() + 40));
        assert_bytes(&got[106..], &bytes[66..]);
    }
}

/// The same in units of 64 bits.
#[test]
fn least_and_greatest_length_6to4() {
    let translated = |bytes: &[u8]| {
        let got = to4(bytes, n4(443), mask(61001), &Globals::default(), 0x77).unwrap();
        assert_eq!(oracle::fault(&got), None);
        assert_eq!((got[20], got[21]), (11, 0));
        assert_eq!(got[52..64], bytes[92..104]);
        got
    };
    // 128 bytes become 108, which are padded; of 2040 as many are left as an error may quote.
    for (quote, units, length) in [(128, 16, 32), (2040, 255, 134)] {
        let bytes = with_length(PING_BACK_6, quote, units);
        let got = translated(&bytes);
        let end = 28 + usize::from(length) * 4;
        assert_eq!((&got[24..28], got.len()), (&[0, length, 0, 0][..], end + 12));
        let shown = end.min(8 + quote);
        assert_bytes(&got[66..shown], &bytes[106..40 + shown]);
        assert!(got[shown..end].iter().all(|&byte| byte == 0));
        assert_bytes(&got[end..], &EXTENSION);
    }
    for (quote, units) in [(120, 15), (116, 16)] {
        let bytes = with_length(PING_BACK_6, quote, units);
        let got = translated(&bytes);
        assert_eq!((&got[24..28], got.len()), (&[0; 4][..], bytes.len() - 40));
        assert_bytes(&got[66..], &bytes[106..]);
    }
}

/// 1020 bytes become 1040. A quote that has to be cut ends on a multiple of 8 bytes; an extension
/// has room as long as 128 bytes of the quote have.
#[test]
fn long_quotes_make_room_for_extensions_4to6() {
    let room = 1280 - 48;
    for (extension, length) in
        [(12, 130), (192, 130), (193, 129), (196, 129), (room - 128, 16), (room - 127, 0)]
    {
        let mut bytes = long_quote(TTL_4, 20, 1020 - 40);
        bytes[25] = 255;
        bytes.extend(vec![0xee; extension]);
        set_length(&mut bytes);
        let got = back_to6(&bytes, "64:ff9b::203.0.113.7", 40000, 443).unwrap();
        assert_eq!(head(&got), (3, 0, length << 24), "{extension}");
        let (quote, shown) = match length {
            0 => (1040, 0),
            length => (length as usize * 8, extension),
        };
        assert_eq!(got.len(), 48 + quote + shown);
        assert!(got[48 + quote..].iter().all(|&byte| byte == 0xee));
        assert!(got[108..48 + quote].iter().all(|&byte| byte == b'z'));
    }
}
