//! The packets of hosts, built and taken apart by hand: an oracle that shares no line with the
//! translator. Addresses and ports stand together as `SocketAddr`; for pings the port is the
//! identifier, the same at both ends.

use std::net::{IpAddr, SocketAddr};

/// The flags of a TCP header that matter here.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP4: u8 = 1;
const ICMP6: u8 = 58;

/// What a packet carries, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp {
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
        /// See [`flags`].
        flags: u8,
    },
    /// A UDP datagram.
    Udp,
    /// A ping.
    EchoRequest {
        /// Its number.
        seq: u16,
    },
    /// The answer to a ping.
    EchoReply {
        /// The number of the ping.
        seq: u16,
    },
    /// An ICMP error; the payload is the packet that it complains about.
    Error {
        /// ICMP type of the family.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it is from.
    pub src: SocketAddr,
    /// Where it goes, of the same family.
    pub dst: SocketAddr,
    /// What it carries.
    pub transport: Transport,
    /// And what that carries.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// The bytes, from the first of the IP header. All checksums are there.
    pub fn emit(&self) -> Vec<u8> {
        let v6 = self.src.is_ipv6();
        let mut l4 = Vec::with_capacity(20 + self.payload.len());
        let ports = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        let (protocol, checksum_at) = match self.transport {
            Transport::Tcp { seq, ack, flags } => {
                l4.extend(ports);
                l4.extend(seq.to_be_bytes());
                l4.extend(ack.to_be_bytes());
                l4.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
                (TCP, 16)
            }
            Transport::Udp => {
                l4.extend(ports);
                l4.extend((8 + self.payload.len() as u16).to_be_bytes());
                l4.extend([0, 0]);
                (UDP, 6)
            }
            Transport::EchoRequest { seq } | Transport::EchoReply { seq } => {
                let request = matches!(self.transport, Transport::EchoRequest { .. });
                let kind = match (v6, request) {
                    (false, true) => 8,
                    (false, false) => 0,
                    (true, true) => 128,
                    (true, false) => 129,
                };
                l4.extend([kind, 0, 0, 0]);
                l4.extend(self.src.port().to_be_bytes());
                l4.extend(seq.to_be_bytes());
                (if v6 { ICMP6 } else { ICMP4 }, 2)
            }
            Transport::Error { kind, code } => {
                l4.extend([kind, code, 0, 0, 0, 0, 0, 0]);
                (if v6 { ICMP6 } else { ICMP4 }, 2)
            }
        };
        l4.extend_from_slice(&self.payload);
        let mut sum = transport_sum(self.src.ip(), self.dst.ip(), protocol, &l4);
        if protocol == UDP && sum == 0 {
            sum = 0xffff;
        }
        l4[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut packet = ip_header(self.src.ip(), self.dst.ip(), protocol, l4.len());
        packet.extend(l4);
        packet
    }

    /// The packet in `bytes`.
    ///
    /// # Errors
    /// What is wrong with it; every length and checksum is looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (src, dst, protocol, l4) = match bytes.first().map(|b| b >> 4) {
            Some(4) => parse_ipv4(bytes)?,
            Some(6) => parse_ipv6(bytes)?,
            _ => return Err("neither IPv4 nor IPv6"),
        };
        let word = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
        let long = |at: usize| u32::from_be_bytes([l4[at], l4[at + 1], l4[at + 2], l4[at + 3]]);
        if l4.len() < 8 || (protocol == TCP && l4.len() < 20) {
            return Err("too short for its transport header");
        }
        if protocol == UDP && word(6) == 0 {
            return Err("UDP without a checksum");
        }
        if transport_sum(src, dst, protocol, l4) != 0 {
            return Err("wrong transport checksum");
        }
        let (transport, src_port, dst_port, header) = match protocol {
            TCP => {
                let transport = Transport::Tcp { seq: long(4), ack: long(8), flags: l4[13] };
                (transport, word(0), word(2), usize::from(l4[12] >> 4) * 4)
            }
            UDP if usize::from(word(4)) == l4.len() => (Transport::Udp, word(0), word(2), 8),
            UDP => return Err("wrong UDP length"),
            _ => match (protocol == ICMP6, l4[0]) {
                (false, 8) | (true, 128) => {
                    (Transport::EchoRequest { seq: word(6) }, word(4), word(4), 8)
                }
                (false, 0) | (true, 129) => {
                    (Transport::EchoReply { seq: word(6) }, word(4), word(4), 8)
                }
                (_, kind) => (Transport::Error { kind, code: l4[1] }, 0, 0, 8),
            },
        };
        let payload = l4.get(header..).ok_or("TCP options longer than the packet")?.to_vec();
        let (src, dst) = (SocketAddr::new(src, src_port), SocketAddr::new(dst, dst_port));
        Ok(Self { src, dst, transport, payload })
    }
}

type Parsed<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

fn parse_ipv4(bytes: &[u8]) -> Result<Parsed<'_>, &'static str> {
    let header = usize::from(bytes[0] & 15) * 4;
    if header < 20 || bytes.len() < header {
        return Err("too short for its IPv4 header");
    }
    if usize::from(u16::from_be_bytes([bytes[2], bytes[3]])) != bytes.len() {
        return Err("wrong IPv4 length");
    }
    if !fold(sum(&bytes[..header])) != 0 {
        return Err("wrong IPv4 header checksum");
    }
    if u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff != 0 {
        return Err("an IPv4 fragment");
    }
    let address =
        |at: usize| IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    match bytes[9] {
        TCP | UDP | ICMP4 => Ok((address(12), address(16), bytes[9], &bytes[header..])),
        _ => Err("an unknown protocol"),
    }
}

fn parse_ipv6(bytes: &[u8]) -> Result<Parsed<'_>, &'static str> {
    if bytes.len() < 40 {
        return Err("too short for its IPv6 header");
    }
    if usize::from(u16::from_be_bytes([bytes[4], bytes[5]])) != bytes.len() - 40 {
        return Err("wrong IPv6 length");
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[at..at + 16]);
        IpAddr::from(octets)
    };
    match bytes[6] {
        TCP | UDP | ICMP6 => Ok((address(8), address(24), bytes[6], &bytes[40..])),
        _ => Err("an unknown next header"),
    }
}

fn ip_header(src: IpAddr, dst: IpAddr, protocol: u8, payload: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(40 + payload);
    match (src, dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            header.extend([0x60, 0, 0, 0]);
            header.extend((payload as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(src.octets());
            header.extend(dst.octets());
        }
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            header.extend([0x45, 0]);
            header.extend((20 + payload as u16).to_be_bytes());
            // No identification: never a fragment (RFC 6864).
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = !fold(sum(&header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        _ => unreachable!("a host sends from its own family to its own family"),
    }
    header
}

/// RFC 1071 over pseudo-header and segment; 0 if the checksum in the segment is right. ICMPv4 has
/// no pseudo-header.
fn transport_sum(src: IpAddr, dst: IpAddr, protocol: u8, l4: &[u8]) -> u16 {
    let pseudo = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) if protocol != ICMP4 => {
            sum(&src.octets()) + sum(&dst.octets()) + u64::from(protocol) + l4.len() as u64
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            sum(&src.octets()) + sum(&dst.octets()) + u64::from(protocol) + l4.len() as u64
        }
        _ => 0,
    };
    !fold(pseudo + sum(l4))
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    });
    words.sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(v6: bool) -> BoxedStrategy<IpAddr> {
        if v6 {
            any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())).boxed()
        } else {
            any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())).boxed()
        }
    }

    fn datagram() -> impl Strategy<Value = Datagram> {
        let transport = prop_oneof![
            any::<(u32, u32, u8)>().prop_map(|(seq, ack, flags)| Transport::Tcp {
                seq,
                ack,
                flags
            }),
            Just(Transport::Udp),
            any::<u16>().prop_map(|seq| Transport::EchoRequest { seq }),
            any::<u16>().prop_map(|seq| Transport::EchoReply { seq }),
        ];
        any::<bool>()
            .prop_flat_map(|v6| (address(v6), address(v6)))
            .prop_flat_map(move |ips| {
                (Just(ips), any::<(u16, u16)>(), prop::collection::vec(any::<u8>(), 0..64))
            })
            .prop_flat_map(move |parts| (Just(parts), transport.clone()))
            .prop_map(|((ips, (sport, dport), payload), transport)| {
                let echo = !matches!(transport, Transport::Tcp { .. } | Transport::Udp);
                let dport = if echo { sport } else { dport };
                let (src, dst) = (SocketAddr::new(ips.0, sport), SocketAddr::new(ips.1, dport));
                Datagram { src, dst, transport, payload }
            })
    }

    /// The header that Wikipedia's "Internet checksum" works out by hand.
    #[test]
    fn a_literal_ipv4_header() {
        let datagram = Datagram {
            src: "192.168.0.1:1000".parse().unwrap(),
            dst: "192.168.0.199:2000".parse().unwrap(),
            transport: Transport::Udp,
            payload: vec![0; 115 - 28],
        };
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 192, 168, 0, 1, 192, 168, 0,
            199,
        ];
        assert_eq!(datagram.emit()[..20], header);
    }

    /// ~(0x0800 + 0x1234 + 0x0001 + 0x6162 + 0x6364) = 0x2104.
    #[test]
    fn a_literal_ping() {
        let ping = Datagram {
            src: "192.0.2.8:4660".parse().unwrap(),
            dst: "192.0.2.1:4660".parse().unwrap(),
            transport: Transport::EchoRequest { seq: 1 },
            payload: b"abcd".to_vec(),
        };
        let message = [8, 0, 0x21, 0x04, 0x12, 0x34, 0, 1, b'a', b'b', b'c', b'd'];
        assert_eq!(ping.emit()[20..], message);
    }

    #[test]
    fn names_what_is_wrong() {
        assert!(Datagram::parse(&[]).is_err());
        assert!(Datagram::parse(&[0x45; 10]).is_err());
        assert!(Datagram::parse(&[0x60; 50]).is_err());
    }

    proptest! {
        #[test]
        fn parses_what_it_emits(datagram in datagram()) {
            prop_assert_eq!(Datagram::parse(&datagram.emit()), Ok(datagram));
        }

        #[test]
        fn a_turned_bit_of_the_payload_or_ports_is_noticed(
            datagram in datagram(), at: prop::sample::Index, bit in 0u8..8
        ) {
            let mut bytes = datagram.emit();
            let header = if datagram.src.is_ipv6() { 40 } else { 20 };
            let at = header + at.index(bytes.len() - header);
            bytes[at] ^= 1 << bit;
            let parsed = Datagram::parse(&bytes);
            prop_assert!(parsed.is_err(), "{parsed:?}");
        }
    }
}
