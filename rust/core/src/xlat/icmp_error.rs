//! ICMP errors that the translator itself sends (RFC 7915 §§4.4, 5.4).

use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::addr::{is_unicast4, is_unicast6};
use crate::packet::{Offload, OwnedPacket};
use crate::wire::checksum::Sum;
use crate::wire::{IcmpError, be16, icmpv4, icmpv6, ipv4, ipv6, ipv6_ext, put16};

/// Time to live and hop limit of what we send.
const HOP_LIMIT: u8 = 64;

/// An ICMPv4 error from `src` to the sender of `offending`, quoting as much of it as fits 576
/// bytes. None if it must not be sent (RFC 1812 §4.3.2.7): about an ICMP error, a fragment that
/// isn't first, or a packet whose source or destination isn't one host.
pub fn build4(offending: &[u8], error: IcmpError, src: Ipv4Addr) -> Option<OwnedPacket> {
    let header: &[u8; ipv4::HEADER_LEN] = offending.first_chunk()?;
    let (from, to) = (ipv4::src(header), ipv4::dst(header));
    if !is_unicast4(from) || !is_unicast4(to) || ipv4::fragment(header) & ipv4::OFFSET_MASK != 0 {
        return None;
    }
    if header[ipv4::PROTOCOL] == ipv4::ICMP {
        let kind = offending.get(4 * usize::from(header[0] & 0xf))?;
        if !matches!(*kind, icmpv4::ECHO_REQUEST | icmpv4::ECHO_REPLY) {
            return None;
        }
    }
    let (kind, code, rest) = match error {
        IcmpError::TimeExceeded => (icmpv4::TIME_EXCEEDED, 0, 0),
        IcmpError::TooBig { mtu } => {
            (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED, mtu.min(0xffff))
        }
        IcmpError::SourceRouteFailed => (icmpv4::UNREACHABLE, icmpv4::SOURCE_ROUTE_FAILED, 0),
        IcmpError::HeaderField { pointer } => (icmpv4::PARAMETER_PROBLEM, 0, pointer << 24),
        IcmpError::ProtocolUnreachable => (icmpv4::UNREACHABLE, icmpv4::PROTOCOL, 0),
        IcmpError::AddressUnreachable => (icmpv4::UNREACHABLE, icmpv4::HOST, 0),
        IcmpError::PortUnreachable => (icmpv4::UNREACHABLE, icmpv4::PORT, 0),
        IcmpError::AdminProhibited => (icmpv4::UNREACHABLE, icmpv4::ADMIN_PROHIBITED, 0),
    };
    let total_len = usize::from(be16(header, ipv4::TOTAL_LEN));
    let quote = &offending[..offending.len().min(total_len)];
    let mut bytes = message(ipv4::HEADER_LEN, icmpv4::MAX_ERROR, (kind, code, rest), quote);
    let header = ipv4::Repr {
        tos: 0,
        total_len: bytes.len() as u16,
        ident: 0,
        fragment: ipv4::DF,
        ttl: HOP_LIMIT,
        protocol: ipv4::ICMP,
        src,
        dst: from,
    };
    let (ip, icmp) = bytes.split_first_chunk_mut()?;
    *ip = header.to_bytes();
    let checksum = Sum::ZERO.add_bytes(icmp).checksum();
    put16(icmp, icmpv4::CHECKSUM, checksum);
    Some(OwnedPacket { bytes, offload: Offload::default() })
}

/// An ICMPv6 error from `src` to the sender of `offending`, quoting as much of it as fits 1280
/// bytes. None if it must not be sent (RFC 4443 §2.4 (e)): about an ICMPv6 error or a redirect, or
/// a packet whose source or destination isn't one host; nor about a fragment that isn't first, as
/// in ICMPv4, since each of a datagram's would earn one.
pub fn build6(offending: &[u8], error: IcmpError, src: Ipv6Addr) -> Option<OwnedPacket> {
    let header: &[u8; ipv6::HEADER_LEN] = offending.first_chunk()?;
    let (from, to) = (ipv6::src(header), ipv6::dst(header));
    if !is_unicast6(from) || !is_unicast6(to) {
        return None;
    }
    if let Ok(chain) = ipv6_ext::walk(offending, header[ipv6::NEXT_HEADER], ipv6::HEADER_LEN) {
        if chain.fragment.is_some_and(|fragment| !fragment.is_first()) {
            return None;
        }
        if chain.next_header == ipv6::ICMPV6 {
            let kind = offending.get(chain.offset)?;
            if !matches!(*kind, icmpv6::ECHO_REQUEST | icmpv6::ECHO_REPLY) {
                return None;
            }
        }
    }
    let (kind, code, rest) = match error {
        IcmpError::TimeExceeded => (icmpv6::TIME_EXCEEDED, 0, 0),
        IcmpError::TooBig { mtu } => (icmpv6::PACKET_TOO_BIG, 0, mtu),
        IcmpError::SourceRouteFailed => (icmpv6::UNREACHABLE, icmpv6::NO_ROUTE, 0),
        IcmpError::HeaderField { pointer } => {
            (icmpv6::PARAMETER_PROBLEM, icmpv6::HEADER_FIELD, pointer)
        }
        IcmpError::AddressUnreachable => (icmpv6::UNREACHABLE, icmpv6::ADDRESS, 0),
        IcmpError::ProtocolUnreachable | IcmpError::PortUnreachable => {
            (icmpv6::UNREACHABLE, icmpv6::PORT, 0)
        }
        IcmpError::AdminProhibited => (icmpv6::UNREACHABLE, icmpv6::ADMIN_PROHIBITED, 0),
    };
    let total_len = ipv6::HEADER_LEN + usize::from(be16(header, ipv6::PAYLOAD_LEN));
    let quote = &offending[..offending.len().min(total_len)];
    let mut bytes = message(ipv6::HEADER_LEN, ipv6::MIN_MTU, (kind, code, rest), quote);
    let header = ipv6::Repr {
        traffic_class: 0,
        payload_len: (bytes.len() - ipv6::HEADER_LEN) as u16,
        next_header: ipv6::ICMPV6,
        hop_limit: HOP_LIMIT,
        src,
        dst: from,
    };
    let (ip, icmp) = bytes.split_first_chunk_mut()?;
    *ip = header.to_bytes();
    let sum = icmpv6::pseudo_header(src, from, icmp.len() as u32);
    let checksum = sum.add_bytes(icmp).checksum();
    put16(icmp, icmpv6::CHECKSUM, checksum);
    Some(OwnedPacket { bytes, offload: Offload::default() })
}

/// Room for the IP header, the ICMP header without checksum, and the quote cut to `max` in all.
fn message(ip: usize, max: usize, (kind, code, rest): (u8, u8, u32), quote: &[u8]) -> Vec<u8> {
    let icmp = ip + icmpv4::HEADER_LEN;
    let quote = &quote[..quote.len().min(max - icmp)];
    let mut bytes = vec![0; icmp + quote.len()];
    bytes[ip] = kind;
    bytes[ip + icmpv4::CODE] = code;
    bytes[ip + 4..icmp].copy_from_slice(&rest.to_be_bytes());
    bytes[icmp..].copy_from_slice(quote);
    bytes
}
