//! From one IPv6 node to another through the NAT64 (RFC 6146 §3.8).
//!
//! A packet that would go to IPv4 and come straight back keeps its IPv6 header; only what the two
//! translations together change is changed.

use core::net::Ipv6Addr;

use super::transport::{Change, apply_quoted};
use crate::packet::Packet;
use crate::stats::DropReason;
use crate::tuple::{Endpoint6, Proto};
use crate::wire::checksum::Sum;
use crate::wire::{IcmpError, L4, Refusal, View6, icmpv6, ipv6, put16};

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
    readdress(ip, src.addr, dst.addr);
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
/// The hop limit ran out; the packet was an echo.
pub fn translate_error(
    packet: &mut Packet<'_>,
    view: &View6,
    src: Ipv6Addr,
    inner_src: Endpoint6,
    inner_dst: Endpoint6,
) -> Result<(), Refusal> {
    if view.hop_limit <= 1 {
        return Err(Refusal::Drop(DropReason::TtlExpired));
    }
    let inner = view.inner.ok_or(DropReason::Malformed)?;
    if inner.proto == Proto::Icmp {
        return Err(DropReason::UnsupportedIcmp.into());
    }
    packet.truncate(view.total_len as usize);
    let (ip, icmp) = packet.bytes_mut().split_at_mut(view.l4_offset.into());
    ip[ipv6::HOP_LIMIT] -= 1;
    readdress(ip, src, inner_src.addr);
    let quote = &mut icmp[icmpv6::HEADER_LEN..];
    readdress(quote, inner_src.addr, inner_dst.addr);
    let addresses =
        Sum::ZERO.sub6(inner.src).sub6(inner.dst).add6(inner_src.addr).add6(inner_dst.addr);
    let change = Change { addresses, src_port: inner_src.port, dst_port: inner_dst.port };
    let l4 =
        usize::from(inner.l4_offset - inner.offset)..inner.end as usize - usize::from(inner.offset);
    apply_quoted(&change, &mut quote[l4], inner.proto);
    put16(icmp, icmpv6::CHECKSUM, 0);
    let sum = icmpv6::pseudo_header(src, inner_src.addr, icmp.len() as u32);
    let checksum = sum.add_bytes(icmp).checksum();
    put16(icmp, icmpv6::CHECKSUM, checksum);
    Ok(())
}

/// Puts new addresses into the IPv6 header at the beginning of `header`.
fn readdress(header: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) {
    header[ipv6::SRC..ipv6::DST].copy_from_slice(&src.octets());
    header[ipv6::DST..ipv6::HEADER_LEN].copy_from_slice(&dst.octets());
}
