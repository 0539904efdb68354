//! From IPv4 to IPv6 (RFC 7915 §4).

use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use super::transport::{Change, udp_len};
use crate::config::Globals;
use crate::packet::{Gso, Offload, OwnedPacket, Packet};
use crate::stats::DropReason;
use crate::tuple::Endpoint6;
use crate::wire::checksum::Sum;
use crate::wire::{
    Fragment, IcmpError, L4, Refusal, View4, be16, icmpv4, icmpv6, ipv4, ipv6, ipv6_ext, put16,
    tcp, udp,
};

/// What a packet became.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Translated {
    /// A packet in the same buffer.
    InPlace,
    /// Fragments that take its place; the buffer holds nothing of use any more.
    Fragments(Vec<OwnedPacket>),
}

/// Translates a TCP, UDP or echo packet, or a fragment of one. An echo's identifier is `dst.port`.
///
/// A packet that may be fragmented and would be larger than `lowest-ipv6-mtu` is, here, since
/// nobody does it behind us (RFC 7915 §4). Super-packets are left to be cut at their segment size.
///
/// # Errors
/// The time to live ran out; a fragment without UDP checksum; no headroom.
#[inline]
pub fn translate(
    packet: &mut Packet<'_>,
    view: &View4,
    src: Endpoint6,
    dst: Endpoint6,
    globals: &Globals,
) -> Result<Translated, Refusal> {
    if view.hop_limit <= 1 {
        return Err(Refusal::Reply(DropReason::TtlExpired, IcmpError::TimeExceeded));
    }
    let header_len = match view.fragment {
        None => ipv6::HEADER_LEN,
        Some(_) => ipv6::HEADER_LEN + ipv6_ext::FRAGMENT_LEN,
    };
    let payload_len = view.total_len as usize - usize::from(view.l4_offset);
    let word = ipv4::fragment(packet.bytes());
    let ident = be16(packet.bytes(), ipv4::IDENT);
    let cut = header_len + payload_len > usize::from(globals.lowest_ipv6_mtu)
        && word & ipv4::DF == 0
        && packet.offload.gso == Gso::None;
    let tos = packet.bytes()[ipv4::TOS];
    let header = ipv6::Repr {
        traffic_class: if globals.zeroize_traffic_class { 0 } else { tos },
        payload_len: (header_len - ipv6::HEADER_LEN + payload_len) as u16,
        next_header: match (view.fragment, view.l4) {
            (Some(_), _) => ipv6_ext::FRAGMENT,
            (None, l4) => number(l4),
        },
        hop_limit: view.hop_limit - 1,
        src: src.addr,
        dst: dst.addr,
    };
    if packet.start() + usize::from(view.l4_offset) < header_len {
        return Err(DropReason::NoHeadroom.into());
    }
    packet.truncate(view.total_len as usize);
    if view.has_ports() {
        transport(packet, view, src, dst)?;
    }
    if cut {
        let fragment =
            view.fragment.unwrap_or(Fragment { offset: 0, more: false, id: ident.into() });
        return Ok(Translated::Fragments(fragments(packet, view, header, fragment, globals)));
    }
    if !packet.resize_front(view.l4_offset.into(), header_len) {
        return Err(DropReason::NoHeadroom.into());
    }
    let Some((ip, rest)) = packet.bytes_mut().split_first_chunk_mut() else {
        return Err(DropReason::Malformed.into());
    };
    header.emit(ip);
    if let (Some(fragment), Some(out)) = (view.fragment, rest.first_chunk_mut()) {
        ipv6_ext::emit_fragment(fragment, number(view.l4), out);
    }
    Ok(Translated::InPlace)
}

const fn number(l4: L4) -> u8 {
    match l4 {
        L4::Tcp => ipv4::TCP,
        L4::Udp => ipv4::UDP,
        L4::IcmpQuery | L4::IcmpError => ipv6::ICMPV6,
    }
}

/// Rewrites the transport header.
///
/// # Errors
/// See [`fill_checksum`]; nothing is changed then.
#[inline]
fn transport(
    packet: &mut Packet<'_>,
    view: &View4,
    src: Endpoint6,
    dst: Endpoint6,
) -> Result<(), Refusal> {
    let partial = packet.offload.partial_checksum;
    let l4 = &mut packet.bytes_mut()[usize::from(view.l4_offset)..];
    let addresses = Sum::ZERO.sub4(view.src).sub4(view.dst).add6(src.addr).add6(dst.addr);
    let change = Change { addresses, src_port: src.port, dst_port: dst.port };
    match view.l4 {
        L4::Udp if !partial && be16(l4, udp::CHECKSUM) == 0 => {
            return fill_checksum(packet, view, src, dst);
        }
        L4::Tcp | L4::Udp => change.apply(l4, view.l4, partial),
        L4::IcmpQuery | L4::IcmpError => echo(l4, src.addr, dst),
    }
    Ok(())
}

/// Rewrites a UDP header without checksum, which IPv6 doesn't allow: computes one (RFC 7915
/// §4.5), or leaves it to whoever cuts a super-packet.
///
/// # Errors
/// A fragment, whose checksum would cover what isn't here; a wrong length.
#[cold]
fn fill_checksum(
    packet: &mut Packet<'_>,
    view: &View4,
    src: Endpoint6,
    dst: Endpoint6,
) -> Result<(), Refusal> {
    if view.fragment.is_some() {
        return Err(DropReason::FragmentUntranslatable.into());
    }
    let super_packet = packet.offload.gso != Gso::None;
    let l4 = &mut packet.bytes_mut()[usize::from(view.l4_offset)..];
    let len = udp_len(l4)?;
    put16(l4, 0, src.port);
    put16(l4, 2, dst.port);
    let pseudo_header =
        Sum::ZERO.add6(src.addr).add6(dst.addr).add32(len as u32).add(ipv4::UDP.into());
    let checksum = if super_packet {
        pseudo_header.fold()
    } else {
        udp::nonzero(pseudo_header.add_bytes(&l4[..len]).checksum())
    };
    put16(l4, udp::CHECKSUM, checksum);
    packet.offload.partial_checksum = super_packet;
    Ok(())
}

/// Rewrites an echo message (RFC 7915 §4.2): type, identifier, and a checksum with the
/// pseudo-header that ICMPv4 doesn't have.
fn echo(l4: &mut [u8], src: Ipv6Addr, dst: Endpoint6) {
    let sum = icmpv6::pseudo_header(src, dst.addr, l4.len() as u32)
        .sub(be16(l4, 0))
        .sub(be16(l4, icmpv4::IDENTIFIER));
    l4[0] = if l4[0] == icmpv4::ECHO_REQUEST { icmpv6::ECHO_REQUEST } else { icmpv6::ECHO_REPLY };
    put16(l4, icmpv6::IDENTIFIER, dst.port);
    let sum = sum.add(be16(l4, 0)).add(dst.port);
    let checksum = sum.update(be16(l4, icmpv4::CHECKSUM));
    put16(l4, icmpv6::CHECKSUM, checksum);
}

/// Cuts a packet whose transport header has been rewritten into fragments of at most
/// `lowest-ipv6-mtu` bytes. `whole` says which part of a datagram the packet is.
#[cold]
fn fragments(
    packet: &mut Packet<'_>,
    view: &View4,
    header: ipv6::Repr,
    whole: Fragment,
    globals: &Globals,
) -> Vec<OwnedPacket> {
    let partial = packet.offload.partial_checksum;
    let l4 = &mut packet.bytes_mut()[usize::from(view.l4_offset)..];
    if partial && view.has_ports() {
        // Nobody can finish the checksum of a datagram in pieces but us.
        let field = if view.l4 == L4::Tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
        let checksum = Sum::ZERO.add_bytes(l4).checksum();
        put16(l4, field, if view.l4 == L4::Udp { udp::nonzero(checksum) } else { checksum });
    }
    const HEADERS: usize = ipv6::HEADER_LEN + ipv6_ext::FRAGMENT_LEN;
    let size = (usize::from(globals.lowest_ipv6_mtu) - HEADERS) / 8 * 8;
    let count = l4.len().div_ceil(size);
    let cut = |(index, chunk): (usize, &[u8])| {
        let mut bytes = vec![0; HEADERS + chunk.len()];
        let payload_len = (ipv6_ext::FRAGMENT_LEN + chunk.len()) as u16;
        let header = ipv6::Repr { payload_len, next_header: ipv6_ext::FRAGMENT, ..header };
        let fragment = Fragment {
            offset: whole.offset + (index * size) as u16,
            more: whole.more || index + 1 < count,
            ..whole
        };
        let (ip, rest) = bytes.split_at_mut(ipv6::HEADER_LEN);
        let (ext, payload) = rest.split_at_mut(ipv6_ext::FRAGMENT_LEN);
        if let (Some(ip), Some(ext)) = (ip.first_chunk_mut(), ext.first_chunk_mut()) {
            header.emit(ip);
            ipv6_ext::emit_fragment(fragment, number(view.l4), ext);
        }
        payload.copy_from_slice(chunk);
        OwnedPacket { bytes, offload: Offload::default() }
    };
    l4.chunks(size).enumerate().map(cut).collect()
}

/// Translates an ICMP error and the packet that it is about.
///
/// `src` is the outer source (pool6 + the router, or whoever is to appear in its place);
/// `inner_src` and `inner_dst` are what the inner packet was before it was translated: the IPv6
/// node that sent it, which the error goes to, and pool6 + the IPv4 node.
///
/// # Errors
/// The time to live ran out; a type or code without counterpart; no headroom.
pub fn translate_error(
    packet: &mut Packet<'_>,
    view: &View4,
    src: Ipv6Addr,
    inner_src: Endpoint6,
    inner_dst: Endpoint6,
    globals: &Globals,
) -> Result<(), Refusal> {
    let _ = (packet, view, src, inner_src, inner_dst, globals);
    Err(DropReason::UnsupportedIcmp.into())
}
