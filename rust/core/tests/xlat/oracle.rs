//! Whether a packet is well-formed and its checksums are right, worked out the slow way.

/// The one's-complement sum of 16-bit words, as RFC 1071 defines it.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for (index, &byte) in bytes.iter().enumerate() {
        sum += if index % 2 == 0 { u32::from(byte) * 256 } else { u32::from(byte) };
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum as u16
}

/// Whether bytes that contain their own checksum agree with it.
fn agrees(bytes: &[u8]) -> bool {
    sum(bytes) == 0xffff
}

fn word(bytes: &[u8], offset: usize) -> usize {
    usize::from(bytes[offset]) * 256 + usize::from(bytes[offset + 1])
}

/// The pseudo-header of IPv4 or IPv6, by the length of the addresses.
pub fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = addresses.to_vec();
    bytes.extend_from_slice(&(len as u32).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, protocol]);
    bytes
}

/// What there is to say against a packet; nothing, if it is well-formed.
pub fn fault(packet: &[u8]) -> Option<String> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => fault4(packet),
        Some(6) if packet.len() >= 48 => fault6(packet),
        other => Some(format!("version {other:?}")),
    }
}

fn fault4(packet: &[u8]) -> Option<String> {
    if packet[0] != 0x45 {
        return Some(format!("first byte {:#x}", packet[0]));
    }
    if word(packet, 2) != packet.len() {
        return Some(format!("total length {}, has {}", word(packet, 2), packet.len()));
    }
    if !agrees(&packet[..20]) {
        return Some("header checksum".to_string());
    }
    if packet[8] == 0 {
        return Some("time to live 0".to_string());
    }
    if word(packet, 6) & 0x3fff != 0 {
        return None;
    }
    let pseudo_header = pseudo_header(&packet[12..20], packet[9], packet.len() - 20);
    match packet[9] {
        1 => fault_transport(&packet[20..], 1, &[]),
        protocol => fault_transport(&packet[20..], protocol, &pseudo_header),
    }
}

fn fault6(packet: &[u8]) -> Option<String> {
    if word(packet, 4) + 40 != packet.len() {
        return Some(format!("payload length {}, has {}", word(packet, 4), packet.len()));
    }
    if packet[7] == 0 {
        return Some("hop limit 0".to_string());
    }
    if packet[6] == 44 {
        let more = packet[43] & 1 != 0;
        if more && !(packet.len() - 48).is_multiple_of(8) {
            return Some("length of a fragment".to_string());
        }
        return None;
    }
    let pseudo_header = pseudo_header(&packet[8..40], packet[6], packet.len() - 40);
    fault_transport(&packet[40..], packet[6], &pseudo_header)
}

fn fault_transport(l4: &[u8], protocol: u8, pseudo_header: &[u8]) -> Option<String> {
    if l4.len() < if protocol == 6 { 20 } else { 8 } {
        return Some("transport header".to_string());
    }
    if protocol == 17 && !(8..=l4.len()).contains(&word(l4, 4)) {
        return Some("UDP length".to_string());
    }
    let (checksum, covered) = match protocol {
        6 => (word(l4, 16), l4),
        17 if word(l4, 6) == 0 && pseudo_header.len() == 16 => return None,
        17 => (word(l4, 6), &l4[..word(l4, 4)]),
        1 | 58 => (word(l4, 2), l4),
        _ => return Some(format!("protocol {protocol}")),
    };
    if protocol == 17 && checksum == 0 {
        return Some("no UDP checksum".to_string());
    }
    let mut bytes = pseudo_header.to_vec();
    if protocol == 17 {
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&(covered.len() as u32).to_be_bytes());
    }
    bytes.extend_from_slice(covered);
    (!agrees(&bytes)).then(|| format!("checksum {checksum:#06x} of protocol {protocol}"))
}

/// Fills in every checksum of a packet without extension headers that is no fragment.
pub fn finish(packet: &mut [u8]) {
    let (addresses, protocol, start) = if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let checksum = !sum(&packet[..20]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        (12..20, packet[9], 20)
    } else {
        (8..40, packet[6], 40)
    };
    let field = match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    packet[start + field..start + field + 2].fill(0);
    let mut bytes = match protocol {
        1 => Vec::new(),
        _ => pseudo_header(&packet[addresses], protocol, packet.len() - start),
    };
    bytes.extend_from_slice(&packet[start..]);
    let checksum = match !sum(&bytes) {
        0 if protocol == 17 => 0xffff,
        checksum => checksum,
    };
    packet[start + field..start + field + 2].copy_from_slice(&checksum.to_be_bytes());
}
