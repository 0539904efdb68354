//! `struct virtio_net_hdr`, which stands before every packet of the device and says what work its
//! sender left to us, or we leave to the kernel (virtio 1.3 §5.1.6; legacy: native byte order).

use jsync_core::packet::{Gso, Offload};
use jsync_core::wire::ipv6_ext;

/// Bytes of the header.
pub const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type when the packet has CWR set.
const GSO_ECN: u8 = 0x80;

const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;

/// An offload that can't be expressed or understood; such a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOffload;

/// What `header` says about `packet`, which is as the kernel delivered it.
///
/// A checksum left open anywhere else than in this packet's own TCP or UDP header (a tunnel inside,
/// say) is filled in: translation would lose its place.
///
/// # Errors
/// Segmentation of an unknown kind, a place outside the packet.
pub fn decode(header: &[u8; LEN], packet: &mut [u8]) -> Result<Offload, BadOffload> {
    if *header == [0; LEN] {
        return Ok(Offload::default());
    }
    let number = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let (gso_size, start, field) = (number(4), number(6), number(8));
    let gso = match header[1] & !GSO_ECN {
        GSO_NONE => Gso::None,
        GSO_TCPV4 | GSO_TCPV6 => Gso::Tcp,
        GSO_UDP_L4 => Gso::Udp,
        _ => return Err(BadOffload),
    };
    let mut offload = Offload { partial_checksum: header[0] & NEEDS_CSUM != 0, gso, gso_size: 0 };
    if gso != Gso::None {
        if gso_size == 0 {
            return Err(BadOffload);
        }
        offload.gso_size = gso_size;
    }
    if offload.partial_checksum && !is_own_checksum(packet, start, field) {
        if gso != Gso::None {
            return Err(BadOffload);
        }
        complete(packet, start.into(), field.into()).ok_or(BadOffload)?;
        offload.partial_checksum = false;
    }
    Ok(offload)
}

/// The header with which the kernel takes `packet`, whose offload is `offload`.
///
/// # Errors
/// The packet is none that can have such an offload.
pub fn encode(offload: Offload, packet: &[u8]) -> Result<[u8; LEN], BadOffload> {
    let mut header = [0; LEN];
    if offload == Offload::default() {
        return Ok(header);
    }
    let transport = transport(packet).ok_or(BadOffload)?;
    let mut put = |at: usize, value: usize| {
        header[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    };
    if offload.partial_checksum {
        put(6, transport.offset);
        put(8, transport.checksum_field);
    }
    if offload.gso != Gso::None {
        put(2, transport.offset + transport.header_len);
        put(4, offload.gso_size.into());
    }
    header[0] = if offload.partial_checksum { NEEDS_CSUM } else { 0 };
    header[1] = match (offload.gso, transport.protocol) {
        (Gso::None, _) => GSO_NONE,
        (Gso::Udp, UDP) => GSO_UDP_L4,
        (Gso::Tcp, TCP) => {
            let kind = if packet[0] >> 4 == 4 { GSO_TCPV4 } else { GSO_TCPV6 };
            kind | if transport.cwr { GSO_ECN } else { 0 }
        }
        _ => return Err(BadOffload),
    };
    Ok(header)
}

/// Where the transport header of a packet of ours is. Ours have no extension header but Fragment.
struct Transport {
    protocol: u8,
    offset: usize,
    header_len: usize,
    checksum_field: usize,
    cwr: bool,
}

fn transport(packet: &[u8]) -> Option<Transport> {
    let (protocol, offset) = match packet.first()? >> 4 {
        4 => (*packet.get(9)?, usize::from(packet[0] & 15) * 4),
        6 if *packet.get(6)? == FRAGMENT => (*packet.get(40)?, 48),
        6 => (packet[6], 40),
        _ => return None,
    };
    let (header_len, checksum_field, cwr) = match protocol {
        TCP => {
            let flags = packet.get(offset + 12..offset + 14)?;
            (usize::from(flags[0] >> 4) * 4, 16, flags[1] & 0x80 != 0)
        }
        UDP => (8, 6, false),
        _ => return None,
    };
    Some(Transport { protocol, offset, header_len, checksum_field, cwr })
}

/// Whether `start` and `field` name the checksum of the packet's own TCP or UDP header.
fn is_own_checksum(packet: &[u8], start: u16, field: u16) -> bool {
    let (start, field) = (usize::from(start), usize::from(field));
    if transport(packet).is_some_and(|t| t.offset == start && t.checksum_field == field) {
        return true;
    }
    // Seldom: extension headers stand before it.
    packet.len() > 40
        && packet[0] >> 4 == 6
        && [6, 16].contains(&field)
        && ipv6_ext::walk(packet, packet[6], 40).is_ok_and(|chain| chain.offset == start)
}

/// Fills in the Internet checksum of everything from `start`, whose place, `field` bytes behind,
/// holds what the pseudo-header adds (RFC 1071).
fn complete(packet: &mut [u8], start: usize, field: usize) -> Option<()> {
    let covered = packet.get_mut(start..)?;
    covered.get(field..field + 2)?;
    let words =
        covered.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    // Zero would mean "no checksum" to UDP; both stand for the same number.
    let sum = if sum == 0xffff { 0xffff } else { !sum as u16 };
    covered[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(flags: u8, kind: u8, numbers: [u16; 4]) -> [u8; LEN] {
        let mut header = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (to, from) in header[2..].chunks_exact_mut(2).zip(numbers) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        header
    }

    /// An IPv4 packet of TCP (with options to 32 bytes) or UDP.
    fn v4(protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; 20 + 32 + 100];
        (packet[0], packet[9], packet[20 + 12]) = (0x45, protocol, 8 << 4);
        packet
    }

    fn v6(protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; 40 + 32 + 100];
        (packet[0], packet[6], packet[40 + 12]) = (0x60, protocol, 8 << 4);
        packet
    }

    const TCP_GSO: Offload = Offload { partial_checksum: true, gso: Gso::Tcp, gso_size: 1440 };
    const UDP_GSO: Offload = Offload { partial_checksum: true, gso: Gso::Udp, gso_size: 1200 };

    #[test]
    fn nothing_to_do_is_all_zeros() {
        assert_eq!(decode(&[0; LEN], &mut v4(TCP)), Ok(Offload::default()));
        assert_eq!(encode(Offload::default(), &v6(TCP)), Ok([0; LEN]));
        // DATA_VALID: the kernel checked it; nothing for us to do.
        assert_eq!(decode(&header(2, 0, [0; 4]), &mut v4(UDP)), Ok(Offload::default()));
    }

    #[test]
    fn segmentation_changes_its_family_with_the_packet() {
        let tcp6 = header(NEEDS_CSUM, GSO_TCPV6, [72, 1440, 40, 16]);
        assert_eq!(decode(&tcp6, &mut v6(TCP)), Ok(TCP_GSO));
        assert_eq!(
            encode(TCP_GSO, &v4(TCP)),
            Ok(header(NEEDS_CSUM, GSO_TCPV4, [52, 1440, 20, 16]))
        );
        assert_eq!(encode(TCP_GSO, &v6(TCP)), Ok(tcp6));
        let udp4 = header(NEEDS_CSUM, GSO_UDP_L4, [28, 1200, 20, 6]);
        assert_eq!(decode(&udp4, &mut v4(UDP)), Ok(UDP_GSO));
        assert_eq!(encode(UDP_GSO, &v4(UDP)), Ok(udp4));
        assert_eq!(
            encode(UDP_GSO, &v6(UDP)),
            Ok(header(NEEDS_CSUM, GSO_UDP_L4, [48, 1200, 40, 6]))
        );
    }

    #[test]
    fn ecn_follows_cwr() {
        let mut packet = v4(TCP);
        let ecn = header(NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, [52, 1440, 20, 16]);
        assert_eq!(decode(&ecn, &mut packet), Ok(TCP_GSO));
        packet[20 + 13] = 0x80;
        assert_eq!(encode(TCP_GSO, &packet), Ok(ecn));
    }

    #[test]
    fn a_checksum_behind_an_extension_header_is_the_packets_own() {
        // Destination Options of 8 bytes (PadN), then UDP of 12 bytes.
        let mut packet = vec![0; 40 + 8 + 12];
        (packet[0], packet[5], packet[6], packet[7]) = (0x60, 20, 60, 64);
        (packet[8], packet[24]) = (0x20, 0x20);
        packet[40..48].copy_from_slice(&[UDP, 0, 1, 4, 0, 0, 0, 0]);
        packet[48..56].copy_from_slice(&[4, 1, 4, 2, 0, 12, 0, 0]);
        let offload = decode(&header(NEEDS_CSUM, GSO_NONE, [56, 0, 48, 6]), &mut packet);
        assert_eq!(offload, Ok(Offload { partial_checksum: true, ..Offload::default() }));
    }

    #[test]
    fn a_checksum_of_an_inner_header_is_filled_in() {
        let mut packet = v4(UDP);
        packet[60..64].copy_from_slice(&[0x12, 0x34, 0xf0, 0x0f]);
        packet[151] = 7;
        let inner = header(NEEDS_CSUM, GSO_NONE, [0, 0, 60, 6]);
        assert_eq!(decode(&inner, &mut packet), Ok(Offload::default()));
        // 0x1234 + 0xf00f + 0x0007 = 1_024a -> 0x024b
        assert_eq!(packet[66..68], (!0x024bu16).to_be_bytes());
        let beyond = header(NEEDS_CSUM, GSO_NONE, [0, 0, 151, 6]);
        assert_eq!(decode(&beyond, &mut packet), Err(BadOffload));
        let odd = header(NEEDS_CSUM, GSO_NONE, [0, 0, 65535, 65535]);
        assert_eq!(decode(&odd, &mut packet), Err(BadOffload));
    }

    proptest! {
        /// A guest behind a virtual NIC has a say in what its host hands us.
        #[test]
        fn survives_any_header_before_any_packet(
            flags in 0u8..4,
            kind in prop::sample::select(&[0u8, 1, 3, 4, 5, 0x81, 255]),
            numbers in prop::array::uniform4(prop_oneof![0u16..100, any::<u16>()]),
            version in prop::sample::select(&[0x45u8, 0x4f, 0x60, 0]),
            mut packet in prop::collection::vec(prop_oneof![Just(0u8), Just(6), Just(17), Just(44), any::<u8>()], 0..120),
        ) {
            if let Some(first) = packet.first_mut() {
                *first = version;
            }
            let before = packet.clone();
            if let Ok(offload) = decode(&header(flags, kind, numbers), &mut packet) {
                let changed = before.iter().zip(&packet).filter(|(a, b)| a != b).count();
                prop_assert!(changed <= 2 && (changed == 0 || !offload.partial_checksum));
                let _ = encode(offload, &packet);
            }
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for bad in [
            header(NEEDS_CSUM, 3, [28, 1200, 20, 6]),
            header(NEEDS_CSUM, GSO_TCPV4, [52, 0, 20, 16]),
            header(NEEDS_CSUM, GSO_TCPV4, [52, 1440, 60, 16]),
        ] {
            assert_eq!(decode(&bad, &mut v4(TCP)), Err(BadOffload), "{bad:?}");
        }
        assert_eq!(encode(TCP_GSO, &v4(UDP)), Err(BadOffload));
        assert_eq!(encode(UDP_GSO, &v4(TCP)), Err(BadOffload));
        for short in [vec![], vec![0x45], v4(TCP)[..25].to_vec(), v6(TCP)[..30].to_vec(), v4(1)] {
            let partial = Offload { partial_checksum: true, ..Offload::default() };
            assert!(short.len() == 30 || encode(partial, &short).is_err(), "{short:?}");
            let _ = decode(&header(NEEDS_CSUM, GSO_NONE, [0, 0, 20, 16]), &mut short.clone());
        }
    }
}
