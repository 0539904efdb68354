//! From IPv6 to IPv4 (RFC 7915 §5).

use core::net::Ipv4Addr;

use super::transport::Change;
use crate::config::Globals;
use crate::packet::{Gso, Packet};
use crate::stats::DropReason;
use crate::tuple::Endpoint4;
use crate::wire::checksum::Sum;
use crate::wire::{
    IcmpError, L4, Refusal, View6, be16, icmpv4, icmpv6, ipv4, ipv6, put16, tcp, udp,
};

/// Packets up to this size may be fragmented on the way, larger ones not: their sender knows path
/// MTU discovery, since it can't have got a Packet Too Big below 1280 (RFC 7915 §5.1).
const MAY_FRAGMENT: usize = ipv6::MIN_MTU - (ipv6::HEADER_LEN - ipv4::HEADER_LEN);

/// Translates a TCP, UDP or echo packet, or a fragment of one. An echo's identifier is `src.port`.
/// `ident` becomes the identification of a packet that brings none.
///
/// # Errors
/// The hop limit ran out, or the packet is larger than IPv4 allows.
#[inline]
pub fn translate(
    packet: &mut Packet<'_>,
    view: &View6,
    src: Endpoint4,
    dst: Endpoint4,
    globals: &Globals,
    ident: u16,
) -> Result<(), Refusal> {
    let header = header(packet, view, src.addr, dst.addr, globals, ident)?;
    let offload = packet.offload;
    packet.truncate(view.total_len as usize);
    if !packet.resize_front(view.l4_offset.into(), ipv4::HEADER_LEN) {
        return Err(DropReason::NoHeadroom.into());
    }
    let Some((ip, l4)) = packet.bytes_mut().split_first_chunk_mut() else {
        return Err(DropReason::Malformed.into());
    };
    header.emit(ip);
    if view.has_ports() {
        match view.l4 {
            L4::IcmpQuery => echo(l4, view, src.port),
            kind => {
                let addresses =
                    Sum::ZERO.sub6(view.src).sub6(view.dst).add4(src.addr).add4(dst.addr);
                Change { addresses, src_port: src.port, dst_port: dst.port }.apply(
                    l4,
                    kind,
                    offload.partial_checksum,
                );
            }
        }
    }
    Ok(())
}

/// The IPv4 header of a packet, or why it can't have one.
#[inline]
fn header(
    packet: &Packet<'_>,
    view: &View6,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    globals: &Globals,
    ident: u16,
) -> Result<ipv4::Repr, Refusal> {
    if view.hop_limit <= 1 {
        return Err(Refusal::Reply(DropReason::TtlExpired, IcmpError::TimeExceeded));
    }
    let bytes = packet.bytes();
    let total_len = view.total_len as usize - usize::from(view.l4_offset) + ipv4::HEADER_LEN;
    let Ok(len) = u16::try_from(total_len) else {
        let mtu = (ipv4::MAX_LEN + ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u32;
        return Err(Refusal::Reply(DropReason::TooBig, IcmpError::TooBig { mtu }));
    };
    let (ident, fragment) = match (view.fragment, view.atomic_ident) {
        (Some(fragment), _) => {
            let more = if fragment.more { ipv4::MF } else { 0 };
            (fragment.id as u16, (fragment.offset / 8) | more)
        }
        (None, Some(ident)) => (ident, 0),
        (None, None) => (ident, dont_fragment(packet, view, total_len)),
    };
    Ok(ipv4::Repr {
        tos: if globals.override_tos { globals.tos } else { ipv6::traffic_class(bytes) },
        total_len: len,
        ident,
        fragment,
        ttl: view.hop_limit - 1,
        protocol: match view.l4 {
            L4::Tcp => ipv4::TCP,
            L4::Udp => ipv4::UDP,
            L4::IcmpQuery | L4::IcmpError => ipv4::ICMP,
        },
        src,
        dst,
    })
}

/// [`ipv4::DF`] or nothing. Of a super-packet the segments count, not the whole.
#[inline]
fn dont_fragment(packet: &Packet<'_>, view: &View6, total_len: usize) -> u16 {
    let size = match packet.offload.gso {
        Gso::None => total_len,
        gso => {
            let l4 = &packet.bytes()[usize::from(view.l4_offset)..];
            let header = match gso {
                Gso::Udp => udp::HEADER_LEN,
                _ => usize::from(l4[tcp::DATA_OFFSET] >> 4) * 4,
            };
            ipv4::HEADER_LEN + header + usize::from(packet.offload.gso_size)
        }
    };
    if size <= MAY_FRAGMENT { 0 } else { ipv4::DF }
}

/// Rewrites an echo message (RFC 7915 §5.2): type, identifier, and a checksum without the
/// pseudo-header that ICMPv6 has.
fn echo(l4: &mut [u8], view: &View6, identifier: u16) {
    let pseudo_header = icmpv6::pseudo_header(view.src, view.dst, l4.len() as u32).fold();
    let sum = Sum::ZERO.sub(pseudo_header).sub(be16(l4, 0)).sub(be16(l4, icmpv6::IDENTIFIER));
    l4[0] = if l4[0] == icmpv6::ECHO_REQUEST { icmpv4::ECHO_REQUEST } else { icmpv4::ECHO_REPLY };
    put16(l4, icmpv4::IDENTIFIER, identifier);
    let sum = sum.add(be16(l4, 0)).add(identifier);
    let checksum = sum.update(be16(l4, icmpv6::CHECKSUM));
    put16(l4, icmpv4::CHECKSUM, checksum);
}

/// Translates an ICMPv6 error and the packet that it is about.
///
/// `src` is the outer source (the pool4 address of the session); `inner_src` and `inner_dst` are
/// what the inner packet was before it was translated: the IPv4 node that sent it, which the error
/// goes to, and the pool4 transport address. `ident` as in [`translate`].
///
/// # Errors
/// The hop limit ran out; a type or code without counterpart.
pub fn translate_error(
    packet: &mut Packet<'_>,
    view: &View6,
    src: Ipv4Addr,
    inner_src: Endpoint4,
    inner_dst: Endpoint4,
    globals: &Globals,
    ident: u16,
) -> Result<(), Refusal> {
    let _ = (packet, view, src, inner_src, inner_dst, globals, ident);
    Err(DropReason::UnsupportedIcmp.into())
}
