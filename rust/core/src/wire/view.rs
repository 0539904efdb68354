//! One pass over a packet: what it is, where its parts are, and that they are there.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::{IcmpError, Refusal, be16, icmpv4, icmpv6, ipv4, ipv6, ipv6_ext, tcp, udp};
use crate::addr::{is_unicast4, is_unicast6};
use crate::stats::DropReason;
use crate::tuple::Proto;

/// What the transport part of a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An ICMP echo request or reply.
    IcmpQuery,
    /// An ICMP error; [`View::inner`] is what it is about.
    IcmpError,
}

impl L4 {
    /// The protocol whose sessions it belongs to; an ICMP error belongs to its inner packet's.
    pub const fn proto(self) -> Option<Proto> {
        match self {
            Self::Tcp => Some(Proto::Tcp),
            Self::Udp => Some(Proto::Udp),
            Self::IcmpQuery => Some(Proto::Icmp),
            Self::IcmpError => None,
        }
    }
}

/// Which part of a datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset of its payload in the datagram's, in bytes; a multiple of 8.
    pub offset: u16,
    /// Whether another follows.
    pub more: bool,
    /// Identification of the datagram; 16 bits wide in IPv4.
    pub id: u32,
}

impl Fragment {
    /// Whether this is the fragment that has the transport header.
    pub const fn is_first(self) -> bool {
        self.offset == 0
    }

    const fn is_whole(self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// The packet that an ICMP error is about, as the error quotes it. All offsets count from the
/// first byte of the outer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<A> {
    /// Its source: the outer packet's destination.
    pub src: A,
    /// Its destination.
    pub dst: A,
    /// Its protocol.
    pub proto: Proto,
    /// Its source port; an echo's identifier.
    pub src_port: u16,
    /// Its destination port; an echo's identifier.
    pub dst_port: u16,
    /// Where its IP header begins.
    pub offset: u16,
    /// Where its transport header begins; 8 bytes of it are there at least.
    pub l4_offset: u16,
    /// Where the quoted part of it ends; it was longer, as a rule.
    pub end: u32,
    /// Set if it was a first fragment.
    pub fragment: Option<Fragment>,
}

/// A packet that was looked at and found to be well-formed. It borrows nothing: it stays true as
/// long as the packet isn't changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<A> {
    /// Source address: a unicast address that may be on a link.
    pub src: A,
    /// Destination address, unchecked: whether it lies in a pool is the translator's business.
    pub dst: A,
    /// What the transport part is.
    pub l4: L4,
    /// Source port; an echo's identifier. 0 in ICMP errors and in fragments that aren't first.
    pub src_port: u16,
    /// Destination port; an echo's identifier. 0 as above.
    pub dst_port: u16,
    /// Control bits of a TCP segment; none as above.
    pub tcp_flags: tcp::Flags,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Where the transport header begins.
    pub l4_offset: u16,
    /// Bytes of the packet, padding behind it not counted.
    pub total_len: u32,
    /// Set in fragments. A Fragment header on a whole packet ("atomic fragment") doesn't count.
    pub fragment: Option<Fragment>,
    /// The packet that an ICMP error is about; set in those and no others.
    pub inner: Option<Inner<A>>,
    /// Identification of an atomic fragment.
    pub(crate) atomic_ident: Option<u16>,
}

impl<A> View<A> {
    #[inline(always)]
    fn new(src: A, dst: A, hop_limit: u8, total_len: usize, l4_offset: u16, ports: Ports) -> Self {
        Self {
            src,
            dst,
            l4: ports.l4,
            src_port: ports.src,
            dst_port: ports.dst,
            tcp_flags: ports.tcp_flags,
            hop_limit,
            l4_offset,
            total_len: total_len as u32,
            fragment: None,
            inner: None,
            atomic_ident: None,
        }
    }

    /// Whether ports (or an identifier) are known: false for ICMP errors and later fragments.
    #[inline]
    pub fn has_ports(&self) -> bool {
        self.l4 != L4::IcmpError && self.fragment.is_none_or(Fragment::is_first)
    }
}

/// An IPv4 packet.
pub type View4 = View<Ipv4Addr>;
/// An IPv6 packet.
pub type View6 = View<Ipv6Addr>;

/// A packet of either family. Match on a reference: a view is two cache lines, and moving it costs
/// as much as making it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An IPv4 packet.
    V4(View4),
    /// An IPv6 packet.
    V6(View6),
}

/// Looks at a packet of either family.
///
/// # Errors
/// See [`parse4`] and [`parse6`]; a version that is neither is refused.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Parsed, Refusal> {
    // Every branch returns a value of its own: a common one would be put together in memory and
    // copied, which costs more than the parsing.
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => {
            if let Some(view) = ordinary4(bytes) {
                return Ok(Parsed::V4(view));
            }
        }
        Some(6) => {
            if let Some(view) = ordinary6(bytes) {
                return Ok(Parsed::V6(view));
            }
        }
        _ => {}
    }
    parse_unusual(bytes)
}

#[cold]
#[inline(never)]
fn parse_unusual(bytes: &[u8]) -> Result<Parsed, Refusal> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => parse4_unusual(bytes).map(Parsed::V4),
        Some(6) => parse6_unusual(bytes).map(Parsed::V6),
        Some(_) => Err(DropReason::UnknownVersion.into()),
        None => Err(DropReason::Malformed.into()),
    }
}

/// Looks at an IPv4 packet. Its header checksum is verified, and the ICMP checksum of an error
/// (RFC 5508 REQ-3); other transport checksums aren't: translation keeps a wrong one wrong.
///
/// # Errors
/// Packets that contradict themselves, have a source that no packet may have, a protocol or ICMP
/// type that NAT64 doesn't know, or fragments of ICMP (RFC 7915 §1.2); an unexpired source route
/// earns an ICMP error (RFC 7915 §4.1).
#[inline]
pub fn parse4(bytes: &[u8]) -> Result<View4, Refusal> {
    if let Some(view) = ordinary4(bytes) {
        return Ok(view);
    }
    parse4_unusual(bytes)
}

/// Nearly every packet: TCP or UDP without options or fragmentation. Whatever else it is, and what
/// is wrong with it, is for [`parse4_unusual`] to find out.
#[inline(always)]
pub(crate) fn ordinary4(bytes: &[u8]) -> Option<View4> {
    let header: &[u8; ipv4::HEADER_LEN] = bytes.first_chunk()?;
    let total_len = usize::from(be16(header, ipv4::TOTAL_LEN));
    let l4 = bytes.get(ipv4::HEADER_LEN..total_len)?;
    let src = ipv4::src(header);
    let good = header[0] == 0x45
        && ipv4::fragment(header) & !ipv4::DF == 0
        && ipv4::checksum_ok(header)
        && is_unicast4(src);
    if !good {
        return None;
    }
    let ports = ports(l4, header[ipv4::PROTOCOL], l4.len())?;
    let l4_offset = ipv4::HEADER_LEN as u16;
    Some(View::new(src, ipv4::dst(header), header[ipv4::TTL], total_len, l4_offset, ports))
}

#[cold]
fn parse4_unusual(bytes: &[u8]) -> Result<View4, Refusal> {
    let fixed = bytes.first_chunk().ok_or(DropReason::Malformed)?;
    let (header_len, fragment) = shape4(fixed)?;
    let total_len = usize::from(be16(fixed, ipv4::TOTAL_LEN));
    let packet = bytes.get(..total_len).ok_or(DropReason::Malformed)?;
    let (header, payload) = packet.split_at_checked(header_len).ok_or(DropReason::Malformed)?;
    if !ipv4::checksum_ok(header) {
        return Err(DropReason::HeaderChecksum.into());
    }
    let (src, dst) = (ipv4::src(header), ipv4::dst(header));
    if !is_unicast4(src) {
        return Err(DropReason::BadAddress.into());
    }
    if ipv4::has_source_route(&header[ipv4::HEADER_LEN..])? {
        return Err(Refusal::Reply(DropReason::SourceRoute, IcmpError::SourceRouteFailed));
    }
    check_fragment(fragment, payload.len())?;
    let l4_offset = header_len as u16;
    let mut view = View::new(src, dst, header[ipv4::TTL], total_len, l4_offset, Ports::NONE);
    view.fragment = fragment;
    parse_l4(&mut view, packet, header[ipv4::PROTOCOL])?;
    Ok(view)
}

/// Looks at an IPv6 packet. The ICMPv6 checksum of an error is verified, no other.
///
/// # Errors
/// As [`parse4`]; a Routing header with segments left earns a Parameter Problem (RFC 7915 §5.1).
#[inline]
pub fn parse6(bytes: &[u8]) -> Result<View6, Refusal> {
    if let Some(view) = ordinary6(bytes) {
        return Ok(view);
    }
    parse6_unusual(bytes)
}

/// Nearly every packet: TCP or UDP without extension headers.
#[inline(always)]
pub(crate) fn ordinary6(bytes: &[u8]) -> Option<View6> {
    let header: &[u8; ipv6::HEADER_LEN] = bytes.first_chunk()?;
    let total_len = ipv6::HEADER_LEN + usize::from(be16(header, ipv6::PAYLOAD_LEN));
    let l4 = bytes.get(ipv6::HEADER_LEN..total_len)?;
    let src = ipv6::src(header);
    if header[0] >> 4 != 6 || !is_unicast6(src) {
        return None;
    }
    let ports = ports(l4, header[ipv6::NEXT_HEADER], l4.len())?;
    let l4_offset = ipv6::HEADER_LEN as u16;
    Some(View::new(src, ipv6::dst(header), header[ipv6::HOP_LIMIT], total_len, l4_offset, ports))
}

#[cold]
fn parse6_unusual(bytes: &[u8]) -> Result<View6, Refusal> {
    let header: &[u8; ipv6::HEADER_LEN] = bytes.first_chunk().ok_or(DropReason::Malformed)?;
    let total_len = ipv6::HEADER_LEN + usize::from(be16(header, ipv6::PAYLOAD_LEN));
    let packet = bytes.get(..total_len).ok_or(DropReason::Malformed)?;
    let src = ipv6::src(header);
    if header[0] >> 4 != 6 {
        return Err(DropReason::Malformed.into());
    }
    if !is_unicast6(src) {
        return Err(DropReason::BadAddress.into());
    }
    let chain = ipv6_ext::walk(packet, header[ipv6::NEXT_HEADER], ipv6::HEADER_LEN)?;
    if let Some(offset) = chain.segments_left {
        let error = IcmpError::HeaderField { pointer: offset as u32 };
        return Err(Refusal::Reply(DropReason::RoutingHeader, error));
    }
    let payload = packet.len().checked_sub(chain.offset).ok_or(DropReason::Malformed)?;
    let (dst, hop_limit) = (ipv6::dst(header), header[ipv6::HOP_LIMIT]);
    // At most nine headers of 2048 bytes: fits.
    let l4_offset = chain.offset as u16;
    let mut view = View::new(src, dst, hop_limit, total_len, l4_offset, Ports::NONE);
    match chain.fragment {
        Some(fragment) if fragment.is_whole() => view.atomic_ident = Some(fragment.id as u16),
        fragment => view.fragment = fragment,
    }
    check_fragment(view.fragment, payload)?;
    parse_l4(&mut view, packet, chain.next_header)?;
    Ok(view)
}

/// A fragment that another follows has a multiple of 8 bytes, and none reaches past 65535.
fn check_fragment(fragment: Option<Fragment>, payload: usize) -> Result<(), Refusal> {
    let Some(fragment) = fragment else { return Ok(()) };
    let end = usize::from(fragment.offset) + payload;
    if payload == 0
        || (fragment.more && !payload.is_multiple_of(8))
        || end > ipv4::MAX_LEN - ipv4::HEADER_LEN
    {
        return Err(DropReason::Malformed.into());
    }
    Ok(())
}

/// What a TCP or UDP header says.
#[derive(Clone, Copy)]
struct Ports {
    l4: L4,
    src: u16,
    dst: u16,
    tcp_flags: tcp::Flags,
}

impl Ports {
    const NONE: Self = Self { l4: L4::Udp, src: 0, dst: 0, tcp_flags: tcp::Flags(0) };
}

/// The ports of a TCP segment or UDP datagram, if what its header says of lengths is between the
/// header's and `available`.
#[inline(always)]
fn ports(l4: &[u8], protocol: u8, available: usize) -> Option<Ports> {
    if protocol == ipv4::TCP {
        let header: &[u8; tcp::HEADER_LEN] = l4.first_chunk()?;
        let len = 4 * usize::from(header[tcp::DATA_OFFSET] >> 4);
        let flags = tcp::Flags(header[tcp::FLAGS]);
        (tcp::HEADER_LEN <= len && len <= available).then(|| Ports {
            l4: L4::Tcp,
            src: be16(header, 0),
            dst: be16(header, 2),
            tcp_flags: flags,
        })
    } else if protocol == ipv4::UDP {
        let header: &[u8; udp::HEADER_LEN] = l4.first_chunk()?;
        let len = usize::from(be16(header, udp::LENGTH));
        (udp::HEADER_LEN <= len && len <= available).then(|| Ports {
            l4: L4::Udp,
            src: be16(header, 0),
            dst: be16(header, 2),
            tcp_flags: tcp::Flags(0),
        })
    } else {
        None
    }
}

/// What differs between the families behind the IP header.
trait Family: Copy {
    /// Protocol number of its ICMP.
    const ICMP: u8;

    /// Whether an ICMP type is an echo request or reply.
    fn is_query(kind: u8) -> bool;

    /// Looks at an ICMP message, whose header is there and which isn't fragmented.
    fn icmp(view: &mut View<Self>, packet: &[u8]) -> Result<(), Refusal>;
}

/// Fills in what the transport header says. `packet` ends where the IP packet does.
fn parse_l4<A: Family>(view: &mut View<A>, packet: &[u8], protocol: u8) -> Result<(), Refusal> {
    let l4 = packet.get(usize::from(view.l4_offset)..).unwrap_or(&[]);
    match protocol {
        ipv4::TCP | ipv4::UDP => {
            view.l4 = if protocol == ipv4::TCP { L4::Tcp } else { L4::Udp };
            let ports = match view.fragment {
                None => ports(l4, protocol, l4.len()).ok_or(DropReason::Malformed)?,
                // Options and data may be in the fragments that follow, the header not.
                Some(fragment) if fragment.is_first() => {
                    let needed =
                        if protocol == ipv4::TCP { tcp::HEADER_LEN } else { udp::HEADER_LEN };
                    if l4.len() < needed {
                        return Err(DropReason::FragmentUntranslatable.into());
                    }
                    ports(l4, protocol, ipv4::MAX_LEN).ok_or(DropReason::Malformed)?
                }
                Some(_) => return Ok(()),
            };
            view.src_port = ports.src;
            view.dst_port = ports.dst;
            view.tcp_flags = ports.tcp_flags;
            Ok(())
        }
        protocol if protocol == A::ICMP => {
            // The pseudo-header of ICMPv6 has the length of the whole message, which no fragment
            // knows (RFC 7915 §1.2).
            if view.fragment.is_some() {
                return Err(DropReason::FragmentUntranslatable.into());
            }
            if l4.len() < icmpv4::HEADER_LEN {
                return Err(DropReason::Malformed.into());
            }
            A::icmp(view, packet)
        }
        // For neighbours alone: nobody means it for a host behind us, nor is told (RFC 7915 §4.2).
        ipv4::IGMP => Err(DropReason::UnsupportedProtocol.into()),
        // The later fragments of such a datagram would earn an error each.
        _ if view.fragment.is_some() => Err(DropReason::UnsupportedProtocol.into()),
        _ => {
            let error = IcmpError::ProtocolUnreachable;
            Err(Refusal::Reply(DropReason::UnsupportedProtocol, error))
        }
    }
}

impl Family for Ipv4Addr {
    const ICMP: u8 = ipv4::ICMP;

    fn is_query(kind: u8) -> bool {
        matches!(kind, icmpv4::ECHO_REQUEST | icmpv4::ECHO_REPLY)
    }

    fn icmp(view: &mut View4, packet: &[u8]) -> Result<(), Refusal> {
        let offset = usize::from(view.l4_offset);
        let message = &packet[offset..];
        match message[0] {
            kind if Self::is_query(kind) => query(view, message),
            icmpv4::UNREACHABLE | icmpv4::TIME_EXCEEDED | icmpv4::PARAMETER_PROBLEM => {
                if Sum::ZERO.add_bytes(message).fold() != 0xffff {
                    return Err(DropReason::IcmpChecksum.into());
                }
                let quote = icmpv4::quote(message).0;
                error(view, inner4(&packet[..offset + icmpv4::HEADER_LEN + quote.len()], offset)?)
            }
            _ => Err(DropReason::UnsupportedIcmp.into()),
        }
    }
}

impl Family for Ipv6Addr {
    const ICMP: u8 = ipv6::ICMPV6;

    fn is_query(kind: u8) -> bool {
        matches!(kind, icmpv6::ECHO_REQUEST | icmpv6::ECHO_REPLY)
    }

    fn icmp(view: &mut View6, packet: &[u8]) -> Result<(), Refusal> {
        let offset = usize::from(view.l4_offset);
        let message = &packet[offset..];
        match message[0] {
            kind if Self::is_query(kind) => query(view, message),
            icmpv6::UNREACHABLE..=icmpv6::PARAMETER_PROBLEM => {
                let sum = icmpv6::pseudo_header(view.src, view.dst, message.len() as u32);
                if sum.add_bytes(message).fold() != 0xffff {
                    return Err(DropReason::IcmpChecksum.into());
                }
                let quote = icmpv6::quote(message).0;
                error(view, inner6(&packet[..offset + icmpv6::HEADER_LEN + quote.len()], offset)?)
            }
            _ => Err(DropReason::UnsupportedIcmp.into()),
        }
    }
}

fn query<A>(view: &mut View<A>, message: &[u8]) -> Result<(), Refusal> {
    view.l4 = L4::IcmpQuery;
    view.src_port = be16(message, icmpv4::IDENTIFIER);
    view.dst_port = view.src_port;
    Ok(())
}

/// An error goes to the source of the packet that it is about, and nowhere else.
fn error<A: PartialEq>(view: &mut View<A>, inner: Inner<A>) -> Result<(), Refusal> {
    if inner.src != view.dst {
        return Err(DropReason::Malformed.into());
    }
    view.l4 = L4::IcmpError;
    view.inner = Some(inner);
    Ok(())
}

/// Looks at the packet quoted by the ICMPv4 error at `icmp` of `packet`, which ends with the
/// quote. The quote's header checksum isn't verified: routers are known to quote a header with
/// the time to live already changed.
fn inner4(packet: &[u8], icmp: usize) -> Result<Inner<Ipv4Addr>, Refusal> {
    let offset = icmp + icmpv4::HEADER_LEN;
    let header = packet[offset..].first_chunk().ok_or(DropReason::Malformed)?;
    let (header_len, fragment) = shape4(header)?;
    let total_len = usize::from(be16(header, ipv4::TOTAL_LEN));
    if total_len < header_len {
        return Err(DropReason::Malformed.into());
    }
    let packet = &packet[..packet.len().min(offset + total_len)];
    let l4 = L4Start { offset: offset + header_len, fragment, protocol: header[ipv4::PROTOCOL] };
    inner(packet, offset, l4, ipv4::src(header), ipv4::dst(header))
}

/// The same of an ICMPv6 error.
fn inner6(packet: &[u8], icmp: usize) -> Result<Inner<Ipv6Addr>, Refusal> {
    let offset = icmp + icmpv6::HEADER_LEN;
    let header = packet[offset..].first_chunk().ok_or(DropReason::Malformed)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::Malformed.into());
    }
    let total_len = ipv6::HEADER_LEN + usize::from(be16(header, ipv6::PAYLOAD_LEN));
    let packet = &packet[..packet.len().min(offset + total_len)];
    let chain = ipv6_ext::walk(&packet[offset..], header[ipv6::NEXT_HEADER], ipv6::HEADER_LEN)?;
    let l4 = L4Start {
        offset: offset + chain.offset,
        fragment: chain.fragment,
        protocol: chain.next_header,
    };
    inner(packet, offset, l4, ipv6::src(header), ipv6::dst(header))
}

/// Where the transport part of a quote is, and what.
struct L4Start {
    offset: usize,
    fragment: Option<Fragment>,
    protocol: u8,
}

fn inner<A: Family>(
    packet: &[u8],
    offset: usize,
    l4: L4Start,
    src: A,
    dst: A,
) -> Result<Inner<A>, Refusal> {
    if l4.fragment.is_some_and(|fragment| !fragment.is_first()) {
        return Err(DropReason::FragmentUntranslatable.into());
    }
    // Every quote has 8 bytes of the transport part (RFC 792).
    let header: &[u8; 8] =
        packet.get(l4.offset..).and_then(<[u8]>::first_chunk).ok_or(DropReason::Malformed)?;
    let (proto, src_port, dst_port) = match l4.protocol {
        ipv4::TCP => (Proto::Tcp, be16(header, 0), be16(header, 2)),
        ipv4::UDP => (Proto::Udp, be16(header, 0), be16(header, 2)),
        protocol if protocol == A::ICMP => {
            // Errors about errors are not sent (RFC 1122 §3.2.2, RFC 4443 §2.4).
            if !A::is_query(header[0]) {
                return Err(DropReason::UnsupportedIcmp.into());
            }
            let identifier = be16(header, icmpv4::IDENTIFIER);
            (Proto::Icmp, identifier, identifier)
        }
        _ => return Err(DropReason::UnsupportedProtocol.into()),
    };
    Ok(Inner {
        src,
        dst,
        proto,
        src_port,
        dst_port,
        offset: offset as u16,
        l4_offset: l4.offset as u16,
        end: packet.len() as u32,
        fragment: l4.fragment,
    })
}

/// Header length and fragmentation of an IPv4 header, which may have options.
fn shape4(header: &[u8; ipv4::HEADER_LEN]) -> Result<(usize, Option<Fragment>), Refusal> {
    let header_len = 4 * usize::from(header[0] & 0xf);
    if header[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN {
        return Err(DropReason::Malformed.into());
    }
    let word = ipv4::fragment(header);
    let fragment = Fragment {
        offset: (word & ipv4::OFFSET_MASK) * 8,
        more: word & ipv4::MF != 0,
        id: be16(header, ipv4::IDENT).into(),
    };
    Ok((header_len, (!fragment.is_whole()).then_some(fragment)))
}
