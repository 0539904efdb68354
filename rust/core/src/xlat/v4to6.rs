//! From IPv4 to IPv6 (RFC 7915 §4).

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::icmp::{self, Layout};
use super::transport::{Change, apply_quoted};
use crate::config::Globals;
use crate::packet::{Gso, Offload, OwnedPacket, Packet};
use crate::stats::DropReason;
use crate::tuple::{Endpoint6, Proto};
use crate::wire::checksum::Sum;
use crate::wire::{
    Fragment, IcmpError, Inner, L4, Refusal, View4, be16, icmpv4, icmpv6, ipv4, ipv6, ipv6_ext,
    put16, tcp, udp,
};

/// Unit of the length of a quote in an ICMPv6 error.
const QUOTE_UNIT: usize = 8;

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
#[inline(always)]
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
    let (header_len, payload_len) = lengths(view);
    let ident = be16(packet.bytes(), ipv4::IDENT);
    let cut = is_cut(packet, view, globals);
    let header = ipv6::Repr {
        traffic_class: traffic_class(packet.bytes(), globals),
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
        return Ok(Translated::Fragments(fragments(packet, *view, header, fragment, globals)));
    }
    if !packet.resize_front(view.l4_offset.into(), header_len) {
        return Err(DropReason::NoHeadroom.into());
    }
    let Some((ip, rest)) = packet.bytes_mut().split_first_chunk_mut() else {
        return Err(DropReason::Malformed.into());
    };
    *ip = header.to_bytes();
    if let (Some(fragment), Some(ext)) = (view.fragment, rest.first_chunk_mut()) {
        *ext = ipv6_ext::fragment_to_bytes(fragment, number(view.l4));
    }
    Ok(Translated::InPlace)
}

/// Bytes of the translated packet's headers in front of the transport header, and of the rest.
#[inline(always)]
fn lengths(view: &View4) -> (usize, usize) {
    let header_len = match view.fragment {
        None => ipv6::HEADER_LEN,
        Some(_) => ipv6::HEADER_LEN + ipv6_ext::FRAGMENT_LEN,
    };
    (header_len, view.total_len as usize - usize::from(view.l4_offset))
}

/// Whether the packet becomes [`Translated::Fragments`].
#[inline(always)]
pub(crate) fn is_cut(packet: &Packet<'_>, view: &View4, globals: &Globals) -> bool {
    let (header_len, payload_len) = lengths(view);
    header_len + payload_len > usize::from(globals.lowest_ipv6_mtu)
        && ipv4::fragment(packet.bytes()) & ipv4::DF == 0
        && packet.offload.gso == Gso::None
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
#[inline(always)]
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
            return fill_checksum(packet, *view, src, dst);
        }
        L4::Tcp | L4::Udp => change.apply(l4, view.l4, partial),
        L4::IcmpQuery | L4::IcmpError => {
            let sum = icmpv6::pseudo_header(src.addr, dst.addr, l4.len() as u32);
            echo(l4, sum, dst.port);
        }
    }
    Ok(())
}

/// Rewrites a UDP header without checksum, which IPv6 doesn't allow: computes one (RFC 7915
/// §4.5), or leaves it to whoever cuts a super-packet.
///
/// # Errors
/// A fragment, whose checksum would cover what isn't here.
// The view by value: if it were lent, it would have to be in memory for every other packet too.
#[cold]
fn fill_checksum(
    packet: &mut Packet<'_>,
    view: View4,
    src: Endpoint6,
    dst: Endpoint6,
) -> Result<(), Refusal> {
    if view.fragment.is_some() {
        return Err(DropReason::FragmentUntranslatable.into());
    }
    let super_packet = packet.offload.gso != Gso::None;
    let l4 = &mut packet.bytes_mut()[usize::from(view.l4_offset)..];
    // The parser saw that so much is there.
    let len = usize::from(be16(l4, udp::LENGTH));
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

/// Rewrites an echo message (RFC 7915 §4.2): type, identifier, and the checksum, which now covers
/// the pseudo-header too.
fn echo(l4: &mut [u8], pseudo_header: Sum, identifier: u16) {
    let sum = pseudo_header.sub(be16(l4, 0)).sub(be16(l4, icmpv4::IDENTIFIER));
    l4[0] = if l4[0] == icmpv4::ECHO_REQUEST { icmpv6::ECHO_REQUEST } else { icmpv6::ECHO_REPLY };
    put16(l4, icmpv6::IDENTIFIER, identifier);
    let sum = sum.add(be16(l4, 0)).add(identifier);
    let checksum = sum.update(be16(l4, icmpv4::CHECKSUM));
    put16(l4, icmpv6::CHECKSUM, checksum);
}

/// Cuts a packet whose transport header has been rewritten into fragments of at most
/// `lowest-ipv6-mtu` bytes. `whole` says which part of a datagram the packet is.
#[cold]
fn fragments(
    packet: &mut Packet<'_>,
    view: View4,
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
    let mtu = usize::from(globals.lowest_ipv6_mtu).max(ipv6::MIN_MTU);
    let size = (mtu - HEADERS) / 8 * 8;
    let count = l4.len().div_ceil(size);
    let cut = |(index, chunk): (usize, &[u8])| {
        let payload_len = (ipv6_ext::FRAGMENT_LEN + chunk.len()) as u16;
        let header = ipv6::Repr { payload_len, next_header: ipv6_ext::FRAGMENT, ..header };
        let fragment = Fragment {
            offset: whole.offset + (index * size) as u16,
            more: whole.more || index + 1 < count,
            ..whole
        };
        let mut bytes = Vec::with_capacity(HEADERS + chunk.len());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(&ipv6_ext::fragment_to_bytes(fragment, number(view.l4)));
        bytes.extend_from_slice(chunk);
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
/// The quote is cut so that the error has no more than 1280 bytes (RFC 4443 §3).
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
    const QUOTE: usize = ipv6::HEADER_LEN + icmpv6::HEADER_LEN;
    if view.hop_limit <= 1 {
        return Err(Refusal::Drop(DropReason::TtlExpired));
    }
    let inner = view.inner.ok_or(DropReason::Malformed)?;
    let bytes = &packet.bytes()[..view.total_len as usize];
    let message = &bytes[usize::from(view.l4_offset)..];
    let inner_bytes = &bytes[usize::from(inner.offset)..];
    let header = icmp::v4to6(message, be16(inner_bytes, ipv4::TOTAL_LEN), globals)?;
    let extension = if header.extensible { icmpv4::quote(message).1 } else { &[] };
    let l4 = &bytes[usize::from(inner.l4_offset)..inner.end as usize];
    let (inner_ip, inner_ip_len) =
        inner_headers(inner_bytes, &inner, inner_src, inner_dst, globals);
    let inner_ip = &inner_ip[..inner_ip_len];
    let room = ipv6::MIN_MTU - QUOTE;
    let layout = Layout::new(inner_ip_len + l4.len(), extension.len(), QUOTE_UNIT, room);

    let mut buf = [0; ipv6::MIN_MTU];
    let out = &mut buf[..QUOTE + layout.len()];
    let (head, body) = out.split_at_mut(QUOTE);
    let (quote, tail) = body.split_at_mut(layout.quote);
    let (quote_ip, quote_l4) = quote.split_at_mut(inner_ip_len);
    quote_ip.copy_from_slice(inner_ip);
    quote_l4.copy_from_slice(&l4[..quote_l4.len()]);
    match inner.proto {
        Proto::Icmp => {
            let l4_len = be16(inner_bytes, ipv4::TOTAL_LEN) - (inner.l4_offset - inner.offset);
            let sum = icmpv6::pseudo_header(inner_src.addr, inner_dst.addr, l4_len.into());
            echo(quote_l4, sum, inner_src.port);
        }
        proto => {
            let addresses =
                Sum::ZERO.sub4(inner.src).sub4(inner.dst).add6(inner_src.addr).add6(inner_dst.addr);
            let change = Change { addresses, src_port: inner_src.port, dst_port: inner_dst.port };
            apply_quoted(&change, quote_l4, proto);
        }
    }
    tail[layout.padding..].copy_from_slice(&extension[..layout.extension]);
    let (ip, icmp) = head.split_at_mut(ipv6::HEADER_LEN);
    let outer = ipv6::Repr {
        traffic_class: traffic_class(bytes, globals),
        payload_len: (icmpv6::HEADER_LEN + layout.len()) as u16,
        next_header: ipv6::ICMPV6,
        hop_limit: view.hop_limit - 1,
        src,
        dst: inner_src.addr,
    };
    ip.copy_from_slice(&outer.to_bytes());
    icmp[0] = header.kind;
    icmp[icmpv6::CODE] = header.code;
    icmp[4..].copy_from_slice(&header.rest.to_be_bytes());
    if header.extensible {
        icmp[icmpv6::LENGTH] = layout.length(QUOTE_UNIT);
    }
    let message = &out[ipv6::HEADER_LEN..];
    let sum = icmpv6::pseudo_header(src, inner_src.addr, message.len() as u32);
    let checksum = sum.add_bytes(message).checksum();
    put16(out, ipv6::HEADER_LEN + icmpv6::CHECKSUM, checksum);
    if packet.replace(out) { Ok(()) } else { Err(DropReason::NoHeadroom.into()) }
}

/// The IPv6 header of the packet that an error quotes, with the length of the whole packet, and
/// its Fragment header if it was a fragment; and how long they are.
fn inner_headers(
    quoted: &[u8],
    inner: &Inner<Ipv4Addr>,
    src: Endpoint6,
    dst: Endpoint6,
    globals: &Globals,
) -> ([u8; ipv6::HEADER_LEN + ipv6_ext::FRAGMENT_LEN], usize) {
    let number = match inner.proto {
        Proto::Tcp => ipv4::TCP,
        Proto::Udp => ipv4::UDP,
        Proto::Icmp => ipv6::ICMPV6,
    };
    let mut bytes = [0; ipv6::HEADER_LEN + ipv6_ext::FRAGMENT_LEN];
    let (mut len, mut next_header) = (ipv6::HEADER_LEN, number);
    if let Some(fragment) = inner.fragment {
        bytes[len..].copy_from_slice(&ipv6_ext::fragment_to_bytes(fragment, number));
        len += ipv6_ext::FRAGMENT_LEN;
        next_header = ipv6_ext::FRAGMENT;
    }
    // The parser saw 8 bytes of transport header inside of what the header claims.
    let l4_len = usize::from(be16(quoted, ipv4::TOTAL_LEN) - (inner.l4_offset - inner.offset));
    let header = ipv6::Repr {
        traffic_class: traffic_class(quoted, globals),
        payload_len: (len - ipv6::HEADER_LEN + l4_len) as u16,
        next_header,
        hop_limit: quoted[ipv4::TTL],
        src: src.addr,
        dst: dst.addr,
    };
    bytes[..ipv6::HEADER_LEN].copy_from_slice(&header.to_bytes());
    (bytes, len)
}

#[inline(always)]
fn traffic_class(header: &[u8], globals: &Globals) -> u8 {
    if globals.zeroize_traffic_class { 0 } else { header[ipv4::TOS] }
}
