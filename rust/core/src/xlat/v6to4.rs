//! From IPv6 to IPv4 (RFC 7915 §5).

use core::net::{Ipv4Addr, Ipv6Addr};

use super::icmp::{self, Layout};
use super::transport::{Change, apply_quoted};
use crate::config::Globals;
use crate::packet::{Gso, Packet};
use crate::stats::DropReason;
use crate::tuple::{Endpoint4, Proto};
use crate::wire::checksum::Sum;
use crate::wire::{
    Fragment, IcmpError, Inner, L4, Refusal, View6, be16, icmpv4, icmpv6, ipv4, ipv6, put16, tcp,
    udp,
};

/// Packets up to this size may be fragmented on the way, larger ones not: their sender knows path
/// MTU discovery, since it can't have got a Packet Too Big below 1280 (RFC 7915 §5.1).
const MAY_FRAGMENT: usize = ipv6::MIN_MTU - (ipv6::HEADER_LEN - ipv4::HEADER_LEN);

/// Unit of the length of a quote in an ICMPv4 error.
const QUOTE_UNIT: usize = 4;

/// Translates a TCP, UDP or echo packet, or a fragment of one. An echo's identifier is `src.port`.
/// `ident` becomes the identification of a packet that brings none.
///
/// # Errors
/// The hop limit ran out, or the packet is larger than IPv4 allows.
#[inline(always)]
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
    *ip = header.to_bytes();
    if view.has_ports() {
        match view.l4 {
            L4::IcmpQuery => {
                let sum = icmpv6::pseudo_header(view.src, view.dst, l4.len() as u32);
                echo(l4, sum, src.port);
            }
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
#[inline(always)]
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
    let total_len = view.total_len as usize - usize::from(view.l4_offset) + ipv4::HEADER_LEN;
    let Ok(len) = u16::try_from(total_len) else {
        let mtu = (ipv4::MAX_LEN + ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u32;
        return Err(Refusal::Reply(DropReason::TooBig, IcmpError::TooBig { mtu }));
    };
    let (ident, fragment) = match (view.fragment, view.atomic_ident) {
        (Some(fragment), _) => (fragment.id as u16, fragment_word(fragment)),
        (None, Some(ident)) => (ident, 0),
        (None, None) => (ident, dont_fragment(segment_len(packet, view, total_len))),
    };
    Ok(ipv4::Repr {
        tos: tos(packet.bytes(), globals),
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

#[inline(always)]
fn tos(header: &[u8], globals: &Globals) -> u8 {
    if globals.override_tos { globals.tos } else { ipv6::traffic_class(header) }
}

/// Flags and offset of a fragment.
const fn fragment_word(fragment: Fragment) -> u16 {
    (fragment.offset / 8) | if fragment.more { ipv4::MF } else { 0 }
}

/// [`ipv4::DF`] or nothing for a packet of that size.
#[inline]
const fn dont_fragment(size: usize) -> u16 {
    if size <= MAY_FRAGMENT { 0 } else { ipv4::DF }
}

/// The size in which a packet goes over the link: of a super-packet, a segment's.
#[inline(always)]
fn segment_len(packet: &Packet<'_>, view: &View6, total_len: usize) -> usize {
    if packet.offload.gso == Gso::None {
        return total_len;
    }
    let header = match view.l4 {
        L4::Tcp => {
            4 * usize::from(packet.bytes()[usize::from(view.l4_offset) + tcp::DATA_OFFSET] >> 4)
        }
        _ => udp::HEADER_LEN,
    };
    ipv4::HEADER_LEN + header + usize::from(packet.offload.gso_size)
}

/// Rewrites an echo message (RFC 7915 §5.2): type, identifier, and the checksum, which no longer
/// covers the pseudo-header.
fn echo(l4: &mut [u8], pseudo_header: Sum, identifier: u16) {
    let sum =
        Sum::ZERO.sub(pseudo_header.fold()).sub(be16(l4, 0)).sub(be16(l4, icmpv6::IDENTIFIER));
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
/// The quote is cut so that the error has no more than 576 bytes (RFC 1812 §4.3.2.3).
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
    const QUOTE: usize = ipv4::HEADER_LEN + icmpv4::HEADER_LEN;
    if view.hop_limit <= 1 {
        return Err(Refusal::Drop(DropReason::TtlExpired));
    }
    let inner = view.inner.ok_or(DropReason::Malformed)?;
    let bytes = &packet.bytes()[..view.total_len as usize];
    let message = &bytes[usize::from(view.l4_offset)..];
    let header = icmp::v6to4(message, &inner)?;
    let extension = if header.extensible { icmpv6::quote(message).1 } else { &[] };
    let inner_ip = inner_header(bytes, &inner, inner_src.addr, inner_dst.addr, globals)?;
    let l4 = &bytes[usize::from(inner.l4_offset)..inner.end as usize];
    let room = icmpv4::MAX_ERROR - QUOTE;
    let layout = Layout::new(ipv4::HEADER_LEN + l4.len(), extension.len(), QUOTE_UNIT, room);

    let mut buf = [0; icmpv4::MAX_ERROR];
    let len = QUOTE + layout.len();
    let out = &mut buf[..len];
    let (head, body) = out.split_at_mut(QUOTE);
    let (quote, tail) = body.split_at_mut(layout.quote);
    let (quote_ip, quote_l4) = quote.split_at_mut(ipv4::HEADER_LEN);
    quote_ip.copy_from_slice(&inner_ip.to_bytes());
    quote_l4.copy_from_slice(&l4[..quote_l4.len()]);
    match inner.proto {
        Proto::Icmp => {
            let l4_len = u32::from(inner_ip.total_len) - ipv4::HEADER_LEN as u32;
            let sum = icmpv6::pseudo_header(inner.src, inner.dst, l4_len);
            echo(quote_l4, sum, inner_src.port);
        }
        proto => {
            let addresses =
                Sum::ZERO.sub6(inner.src).sub6(inner.dst).add4(inner_src.addr).add4(inner_dst.addr);
            let change = Change { addresses, src_port: inner_src.port, dst_port: inner_dst.port };
            apply_quoted(&change, quote_l4, proto);
        }
    }
    tail[layout.padding..].copy_from_slice(&extension[..layout.extension]);
    let (ip, icmp) = head.split_at_mut(ipv4::HEADER_LEN);
    let outer = ipv4::Repr {
        tos: tos(bytes, globals),
        total_len: len as u16,
        ident,
        fragment: dont_fragment(len),
        ttl: view.hop_limit - 1,
        protocol: ipv4::ICMP,
        src,
        dst: inner_src.addr,
    };
    ip.copy_from_slice(&outer.to_bytes());
    icmp[0] = header.kind;
    icmp[icmpv4::CODE] = header.code;
    icmp[4..].copy_from_slice(&header.rest.to_be_bytes());
    if header.extensible {
        icmp[icmpv4::LENGTH] = layout.length(QUOTE_UNIT);
    }
    let checksum = Sum::ZERO.add_bytes(&out[ipv4::HEADER_LEN..]).checksum();
    put16(out, ipv4::HEADER_LEN + icmpv4::CHECKSUM, checksum);
    if packet.replace(out) { Ok(()) } else { Err(DropReason::NoHeadroom.into()) }
}

/// The IPv4 header of the packet that an error quotes, with the length of the whole packet. The
/// identification that it had is unknown.
fn inner_header(
    bytes: &[u8],
    inner: &Inner<Ipv6Addr>,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    globals: &Globals,
) -> Result<ipv4::Repr, Refusal> {
    let header = &bytes[usize::from(inner.offset)..];
    let headers = usize::from(inner.l4_offset - inner.offset);
    // The parser saw 8 bytes of transport header inside of what the header claims.
    let l4_len = ipv6::HEADER_LEN + usize::from(be16(header, ipv6::PAYLOAD_LEN)) - headers;
    let total_len = u16::try_from(ipv4::HEADER_LEN + l4_len).map_err(|_| DropReason::Malformed)?;
    let (ident, fragment) = match inner.fragment {
        Some(fragment) => (fragment.id as u16, fragment_word(fragment)),
        None => (0, dont_fragment(total_len.into())),
    };
    Ok(ipv4::Repr {
        tos: tos(header, globals),
        total_len,
        ident,
        fragment,
        ttl: header[ipv6::HOP_LIMIT],
        protocol: match inner.proto {
            Proto::Tcp => ipv4::TCP,
            Proto::Udp => ipv4::UDP,
            Proto::Icmp => ipv4::ICMP,
        },
        src,
        dst,
    })
}
