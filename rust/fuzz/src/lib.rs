//! Fuzz targets: plain functions over bytes, which `cargo fuzz` drives and the tests replay.

mod judge;

use jsync_core::addr::Pool6;
use jsync_core::config::Config;
use jsync_core::nat64::Nat64;
use jsync_core::node::Node;
use jsync_core::packet::{HEADROOM, Offload, Outcome, Packet};
use jsync_core::sync::joold::{self, BridgeConfig};
use jsync_core::sync::lens::look_into;
use jsync_core::sync::{FrameError, Keyring, SyncConfig};
use jsync_core::table::Side;
use jsync_core::time::Time;

use judge::{Checksum, transport_checksum, well_formed};

/// The most bytes of input that a target looks at: more only slows the fuzzer down.
const MAX_INPUT: usize = 4096;

fn config() -> Config {
    serde_json::from_str(
        r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "61001-61016"},
                      {"prefix": "192.0.2.1", "ports": "61009-61020", "mark": 1}],
            "bib": [{"protocol": "tcp", "ipv6": "2001:db8::8#80", "ipv4": "192.0.2.1#61001"},
                    {"protocol": "udp", "ipv6": "2001:db8::8#53", "ipv4": "192.0.2.1#61002"},
                    {"protocol": "icmp", "ipv6": "2001:db8::8#7", "ipv4": "192.0.2.1#61003"}],
            "max-sessions": 64}"#,
    )
    .expect("the configuration is right")
}

fn nat64() -> Nat64 {
    Nat64::new(config(), &[1; 32]).expect("the configuration is right")
}

/// Hands `packet` over and judges all that comes out: every packet is well-formed, and a right
/// transport checksum stays right.
fn translate(nat64: &mut Nat64, now: Time, packet: &[u8], mark: u32) {
    let before = well_formed(packet).ok().map(|()| transport_checksum(packet));
    let mut buffer = vec![0; HEADROOM];
    buffer.extend_from_slice(packet);
    let mut burst = [Packet::new(&mut buffer, HEADROOM, packet.len(), Offload::default())];
    burst[0].mark = mark;
    nat64.handle_packets(now, &mut burst);
    match burst[0].outcome {
        Outcome::Pending => panic!("a packet was left pending"),
        Outcome::Forward => judge(packet, burst[0].bytes(), before),
        Outcome::Consumed | Outcome::Drop(_) => {}
    }
    while let Some(made) = nat64.poll_packet() {
        judge(packet, &made.bytes, None);
    }
}

fn judge(from: &[u8], to: &[u8], before: Option<Checksum>) {
    if let Err(why) = well_formed(to) {
        panic!("{why}\nfrom {from:02x?}\nto   {to:02x?}");
    }
    if before == Some(Checksum::Right) && transport_checksum(to) == Checksum::Wrong {
        panic!("the checksum was right and is wrong\nfrom {from:02x?}\nto   {to:02x?}");
    }
}

/// Any bytes are a packet: packets follow each other, each behind two bytes of its length.
///
/// # Panics
/// If the translator sends something that is no packet, or breaks a checksum.
pub fn wire(data: &[u8]) {
    let mut rest = &data[..data.len().min(MAX_INPUT)];
    let mut nat64 = nat64();
    let mut now = Time::from_millis(1);
    while let [high, low, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high & 7, *low])).min(tail.len());
        let (packet, next) = tail.split_at(len);
        translate(&mut nat64, now, packet, 0);
        now = now + u64::from(*high >> 3);
        rest = next;
    }
}

/// Any bytes are a frame: sealed ones are refused, and plaintext ones reach a node, which takes
/// what follows one frame in its input as the next.
///
/// # Panics
/// Never, unless the node does.
pub fn frame(data: &[u8]) {
    let data = &data[..data.len().min(MAX_INPUT)];
    let mut sync = SyncConfig::new(1, "fuzz", 1);
    let mut sealed = Keyring::new(&[[3; 32]], &sync).expect("a key is enough");
    assert!(sealed.open(data).is_err(), "opened what nobody sealed");

    sync.plaintext = true;
    let mut keys = Keyring::new(&[], &sync).expect("plaintext needs no key");
    let mut node = Node::new(config(), Some(sync), &[1; 32]).expect("the configuration is right");
    let mut now = Time::from_millis(1);
    let mut rest = data;
    while !rest.is_empty() {
        // A frame's own length, at offset 34, says where the next begins.
        let len =
            rest.get(34..36).map_or(rest.len(), |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
        let (bytes, next) = rest.split_at(len.clamp(1, rest.len()));
        let seen = look_into(bytes, &[]);
        match keys.open(bytes) {
            Ok(frame) => {
                let is_malformed = seen == Err(FrameError::Malformed);
                assert!(is_malformed || seen.is_ok_and(|told| told.header == frame.header));
                node.handle_frame(now, &frame);
            }
            Err(error) => node.refuse_frame(now, error),
        }
        drain(&mut node, now);
        now = now + 10;
        rest = next;
    }
    for _ in 0..64 {
        let Some(next) = node.poll_timeout() else { break };
        now = now.max(next);
        node.handle_timeout(now);
        drain(&mut node, now);
    }
}

/// Any bytes are datagrams, each behind three bytes: its length and who sends it. What is decoded
/// is what it encodes to, and a node takes it from joolds or the kernel module and tells both.
///
/// # Panics
/// If a session comes out that didn't go in, or the node panics or holds more than it may.
pub fn joold(data: &[u8]) {
    let mut rest = &data[..data.len().min(MAX_INPUT)];
    let bridge = BridgeConfig { join_timeout: 0, ..BridgeConfig::default() };
    let with = |node: Node, side| node.with_bridge(side, &bridge);
    let node = Side::ALL
        .into_iter()
        .try_fold(Node::new(config(), None, &[1; 32]).expect("the configuration is right"), with);
    let mut node = node.expect("the configuration is right");
    let mut now = Time::from_millis(1);
    while let [high, low, from, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high & 15, *low])).min(tail.len());
        let (datagram, next) = tail.split_at(len);
        decode_and_encode(datagram);
        node.handle_timeout(now);
        let side = Side::ALL[usize::from(from & 1)];
        node.handle_datagram(now, side, [192, 0, 2, *from].into(), datagram);
        while let Some(told) = Side::ALL.into_iter().find_map(|s| node.poll_datagram(now, s)) {
            let decoded = joold::decode(&told, None, Pool6::WELL_KNOWN).expect("ours are right");
            assert!(decoded.sessions.iter().all(Result::is_ok), "ours are right");
        }
        while node.poll_event().is_some() {}
        assert!(node.nat64().session_count() <= node.nat64().config().max_sessions);
        now = now + 100 * u64::from(*high >> 4);
        rest = next;
    }
}

fn decode_and_encode(datagram: &[u8]) {
    let Ok(decoded) = joold::decode(datagram, None, Pool6::WELL_KNOWN) else { return };
    let mut again = Vec::new();
    for session in decoded.sessions.iter().flatten() {
        joold::encode(&mut again, decoded.format, Pool6::WELL_KNOWN, session);
    }
    assert!(again.len() <= datagram.len(), "a session was invented");
    let decoded: Vec<_> = decoded.sessions.into_iter().filter(Result::is_ok).collect();
    match joold::decode(&again, None, Pool6::WELL_KNOWN) {
        Ok(same) => assert_eq!(same.sessions, decoded),
        Err(error) => assert!(decoded.is_empty(), "{error}"),
    }
}

fn drain(node: &mut Node, now: Time) {
    while node.poll_packet().is_some() {}
    while node.poll_transmit(now).is_some() {}
    while node.poll_event().is_some() {}
}

/// Each four bytes are a step: packets of a few hosts, ports and marks in both directions with any
/// TCP flags, and time that passes. So the state machine is reached, which random bytes hardly do.
///
/// # Panics
/// If the translator sends something that is no packet, breaks a checksum, or holds more than it may.
pub fn node(data: &[u8]) {
    let mut nat64 = nat64();
    let mut now = Time::from_millis(1);
    for step in data[..data.len().min(MAX_INPUT)].chunks_exact(4) {
        let [what, host, port, flags] = [step[0], step[1], step[2], step[3]];
        match what & 7 {
            7 => {
                now = now + (u64::from(host) << (port & 15));
                nat64.handle_timeout(now);
            }
            kind => {
                // No entry of pool4 has the marks 2 and 3.
                let mark = u32::from(what >> 3 & 3);
                translate(&mut nat64, now, &packet(kind, host, port, flags), mark);
            }
        }
        assert!(nat64.session_count() <= nat64.config().max_sessions);
    }
    // All that is dynamic goes when nothing more comes.
    while let Some(next) = nat64.poll_timeout() {
        now = now.max(next);
        nat64.handle_timeout(now);
        while nat64.poll_packet().is_some() {}
    }
    assert_eq!(nat64.session_count(), 0, "sessions outlive their lifetimes");
    assert_eq!(nat64.bib_count(), 3, "only the static BIB entries stay");
}

/// A packet with a right checksum: `kind` 0 to 2 from IPv6 and 3 to 5 from IPv4 (TCP, UDP, echo).
fn packet(kind: u8, host: u8, port: u8, flags: u8) -> Vec<u8> {
    let port6 = 1000 + u16::from(port & 3);
    let port4 = 61_001 + u16::from(port & 15);
    let server = [198, 51, 100, host & 3];
    let v6 = kind < 3;
    let (src, dst) = if v6 { (port6, 80) } else { (80, port4) };
    let mut l4 = match kind % 3 {
        0 => {
            let mut tcp = vec![0; 20];
            tcp[12] = 0x50;
            tcp[13] = flags;
            tcp
        }
        1 => vec![0, 0, 0, 0, 0, 8, 0, 0],
        _ => vec![0; 8],
    };
    let (protocol, field) = match (kind % 3, v6) {
        (0, _) => (6, 16),
        (1, _) => (17, 6),
        (_, true) => (58, 2),
        (_, false) => (1, 2),
    };
    if kind % 3 == 2 {
        l4[0] = match (v6, flags & 1) {
            (true, bit) => 128 + bit,
            (false, 0) => 8,
            (false, _) => 0,
        };
        let id = if v6 { port6 } else { port4 };
        l4[4..6].copy_from_slice(&id.to_be_bytes());
    } else {
        l4[..2].copy_from_slice(&src.to_be_bytes());
        l4[2..4].copy_from_slice(&dst.to_be_bytes());
    }
    let mut ip = if v6 {
        let mut ip = vec![0x60, 0, 0, 0, 0, l4.len() as u8, protocol, 64];
        ip.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8 + (host >> 6)]);
        ip.extend([0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]);
        ip.extend(server);
        ip
    } else {
        let mut ip = vec![0x45, 0, 0, 20 + l4.len() as u8, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        ip.extend(server);
        ip.extend([192, 0, 2, 1]);
        let checksum = !judge::sum(&ip, 0);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip
    };
    let addresses = if v6 { ip[8..40].to_vec() } else { ip[12..20].to_vec() };
    let pseudo = if protocol == 1 {
        0
    } else {
        u64::from(judge::sum(&addresses, 0)) + u64::from(protocol) + l4.len() as u64
    };
    let checksum = match !judge::sum(&l4, pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    l4[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    ip.extend(l4);
    ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_a_step_are_right() {
        for kind in 0..6 {
            let packet = packet(kind, 1, 2, 0x12);
            well_formed(&packet).unwrap();
            assert_eq!(transport_checksum(&packet), Checksum::Right, "kind {kind}");
        }
    }
}
