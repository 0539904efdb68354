//! A second opinion on packets: slow, obvious, and sharing no code with the translator.

/// What can be said of a packet's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Right,
    /// It is wrong, or absent where IPv6 demands it.
    Wrong,
    /// There is none to judge: a fragment, or a packet too short for its header.
    Unknown,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The folded one's complement sum of 16-bit words.
pub fn sum(bytes: &[u8], mut total: u64) -> u16 {
    for pair in bytes.chunks(2) {
        total += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Whether the packet's headers are whole and its lengths agree with the bytes there are.
pub fn well_formed(packet: &[u8]) -> Result<(), String> {
    match packet.first().map(|b| b >> 4) {
        Some(4) => {
            let header = usize::from(packet[0] & 15) * 4;
            if header < 20 || packet.len() < header {
                return Err(format!("IPv4 header of {header} bytes in {}", packet.len()));
            }
            if be16(packet, 2).map(usize::from) != Some(packet.len()) {
                return Err("IPv4 total length differs from the packet's".into());
            }
            if sum(&packet[..header], 0) != 0xffff {
                return Err("IPv4 header checksum is wrong".into());
            }
            Ok(())
        }
        Some(6) if packet.len() >= 40 => {
            if be16(packet, 4).map(usize::from) != Some(packet.len() - 40) {
                return Err("IPv6 payload length differs from the packet's".into());
            }
            Ok(())
        }
        version => Err(format!("version {version:?}, {} bytes", packet.len())),
    }
}

/// The transport checksum of a well-formed packet.
pub fn transport_checksum(packet: &[u8]) -> Checksum {
    let (mut protocol, mut at, addresses) = if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        if be16(packet, 6).unwrap_or(0) & 0x3fff != 0 {
            return Checksum::Unknown;
        }
        (packet[9], header, &packet[12..20])
    } else {
        (packet[6], 40, &packet[8..40])
    };
    if packet[0] >> 4 == 6 {
        while matches!(protocol, 0 | 43 | 60) {
            let (Some(&next), Some(&len)) = (packet.get(at), packet.get(at + 1)) else {
                return Checksum::Unknown;
            };
            (protocol, at) = (next, at + usize::from(len) * 8 + 8);
        }
    }
    let (field, least) = match protocol {
        6 => (16, 20),
        17 => (6, 8),
        1 | 58 => (2, 8),
        _ => return Checksum::Unknown,
    };
    let Some(segment) = packet.get(at..).filter(|s| s.len() >= least) else {
        return Checksum::Unknown;
    };
    if protocol == 17 && be16(segment, field) == Some(0) {
        return if packet[0] >> 4 == 4 { Checksum::Unknown } else { Checksum::Wrong };
    }
    let pseudo = if protocol == 1 {
        0
    } else {
        u64::from(sum(addresses, 0)) + u64::from(protocol) + segment.len() as u64
    };
    if sum(segment, pseudo) == 0xffff { Checksum::Right } else { Checksum::Wrong }
}
