//! ICMP errors in the other family's words: type, code, and what stands in the second word of
//! the header (RFC 7915 §§4.2, 5.2); and the room that quote and extension get (RFC 4884).

use super::Refusal;
use crate::config::Globals;
use crate::stats::DropReason;
use crate::wire::{Inner, be16, be32, icmpv4, icmpv6, ipv4, ipv6, ipv6_ext};

/// What IPv6 headers have more than IPv4 ones.
const GROWTH: u32 = (ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u32;

/// The header of an ICMP error, without checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: u8,
    pub code: u8,
    /// Bytes 4 to 7, without the length of RFC 4884.
    pub rest: u32,
    /// Whether such an error may have extensions.
    pub extensible: bool,
}

impl Header {
    const fn new(kind: u8, code: u8) -> Self {
        Self { kind, code, rest: 0, extensible: true }
    }

    const fn with_rest(kind: u8, code: u8, rest: u32) -> Self {
        Self { kind, code, rest, extensible: false }
    }
}

/// The ICMPv6 header for the ICMPv4 error `message` (RFC 7915 §4.2); `total_len` is that of the
/// packet which it quotes.
///
/// # Errors
/// Types and codes without counterpart, which are dropped silently.
pub(super) fn v4to6(message: &[u8], total_len: u16, globals: &Globals) -> Result<Header, Refusal> {
    use icmpv4::{PARAMETER_PROBLEM, TIME_EXCEEDED, UNREACHABLE};
    let code = message[icmpv4::CODE];
    Ok(match (message[0], code) {
        (UNREACHABLE, icmpv4::PROTOCOL) => Header::with_rest(
            icmpv6::PARAMETER_PROBLEM,
            icmpv6::NEXT_HEADER,
            ipv6::NEXT_HEADER as u32,
        ),
        (UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED) => {
            let mtu = mtu_v4to6(be16(message, icmpv4::MTU), total_len, globals);
            Header::with_rest(icmpv6::PACKET_TOO_BIG, 0, mtu)
        }
        (UNREACHABLE, icmpv4::PORT) => Header::new(icmpv6::UNREACHABLE, icmpv6::PORT),
        // Network and host: unreachable, unknown, isolated, unreachable for this TOS; and the
        // source route that failed.
        (UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12) => {
            Header::new(icmpv6::UNREACHABLE, icmpv6::NO_ROUTE)
        }
        // Prohibited: network, host, communication, and precedence cut-off.
        (UNREACHABLE, 9 | 10 | 13 | 15) => {
            Header::new(icmpv6::UNREACHABLE, icmpv6::ADMIN_PROHIBITED)
        }
        (TIME_EXCEEDED, _) => Header::new(icmpv6::TIME_EXCEEDED, code),
        // A pointer, or a bad length.
        (PARAMETER_PROBLEM, 0 | 2) => {
            let pointer = pointer_v4to6(message[icmpv4::POINTER])?;
            Header::with_rest(icmpv6::PARAMETER_PROBLEM, icmpv6::HEADER_FIELD, pointer)
        }
        _ => return Err(DropReason::UnsupportedIcmp.into()),
    })
}

/// The MTU of a Packet Too Big (RFC 7915 §4.2). Next hops' own MTUs aren't known here: their
/// errors come from the host that has the links.
fn mtu_v4to6(mtu: u16, total_len: u16, globals: &Globals) -> u32 {
    let mtu = match mtu {
        // A router that doesn't know RFC 1191: the greatest plateau below what it refused.
        0 => {
            let below = globals.mtu_plateaus.iter().filter(|&&plateau| plateau < total_len);
            below.max().copied().unwrap_or(0)
        }
        mtu => mtu,
    };
    (u32::from(mtu) + GROWTH).max(ipv6::MIN_MTU as u32)
}

/// Where a field of the IPv4 header is in the IPv6 header (RFC 7915 figure 3).
fn pointer_v4to6(pointer: u8) -> Result<u32, Refusal> {
    Ok(match pointer {
        // Version and header length, type of service.
        0 | 1 => pointer.into(),
        // Total length.
        2 | 3 => ipv6::PAYLOAD_LEN as u32,
        // Time to live.
        8 => ipv6::HOP_LIMIT as u32,
        // Protocol.
        9 => ipv6::NEXT_HEADER as u32,
        12..=15 => ipv6::SRC as u32,
        16..=19 => ipv6::DST as u32,
        _ => return Err(DropReason::UnsupportedIcmp.into()),
    })
}

/// The ICMPv4 header for the ICMPv6 error `message` about `inner` (RFC 7915 §5.2).
///
/// # Errors
/// As [`v4to6`].
pub(super) fn v6to4<A>(message: &[u8], inner: &Inner<A>) -> Result<Header, Refusal> {
    use icmpv6::{PACKET_TOO_BIG, PARAMETER_PROBLEM, TIME_EXCEEDED, UNREACHABLE};
    let code = message[icmpv6::CODE];
    let value = be32(message, icmpv6::VALUE);
    Ok(match (message[0], code) {
        (UNREACHABLE, icmpv6::NO_ROUTE | icmpv6::BEYOND_SCOPE | icmpv6::ADDRESS) => {
            Header::new(icmpv4::UNREACHABLE, icmpv4::HOST)
        }
        (UNREACHABLE, icmpv6::ADMIN_PROHIBITED) => {
            Header::new(icmpv4::UNREACHABLE, icmpv4::HOST_PROHIBITED)
        }
        (UNREACHABLE, icmpv6::PORT) => Header::new(icmpv4::UNREACHABLE, icmpv4::PORT),
        (PACKET_TOO_BIG, _) => {
            let mtu = mtu_v6to4(value, inner.fragment.is_some());
            let code = icmpv4::FRAGMENTATION_NEEDED;
            Header::with_rest(icmpv4::UNREACHABLE, code, mtu.into())
        }
        (TIME_EXCEEDED, _) => Header::new(icmpv4::TIME_EXCEEDED, code),
        (PARAMETER_PROBLEM, icmpv6::HEADER_FIELD) => {
            let pointer = u32::from(pointer_v6to4(value)?) << 24;
            Header::with_rest(icmpv4::PARAMETER_PROBLEM, 0, pointer)
        }
        (PARAMETER_PROBLEM, icmpv6::NEXT_HEADER) => {
            Header::with_rest(icmpv4::UNREACHABLE, icmpv4::PROTOCOL, 0)
        }
        _ => return Err(DropReason::UnsupportedIcmp.into()),
    })
}

/// The MTU of a Fragmentation Needed. No IPv6 link is below 1280, whatever the message says.
fn mtu_v6to4(mtu: u32, fragmented: bool) -> u16 {
    let less = if fragmented { GROWTH + ipv6_ext::FRAGMENT_LEN as u32 } else { GROWTH };
    u16::try_from(mtu.max(ipv6::MIN_MTU as u32) - less).unwrap_or(u16::MAX)
}

/// Where a field of the IPv6 header is in the IPv4 header (RFC 7915 figure 6).
fn pointer_v6to4(pointer: u32) -> Result<u8, Refusal> {
    Ok(match pointer {
        // Version and traffic class.
        0 => 0,
        1 => ipv4::TOS as u8,
        // Payload length.
        4 | 5 => ipv4::TOTAL_LEN as u8,
        6 => ipv4::PROTOCOL as u8,
        7 => ipv4::TTL as u8,
        8..=23 => ipv4::SRC as u8,
        24..=39 => ipv4::DST as u8,
        _ => return Err(DropReason::UnsupportedIcmp.into()),
    })
}

// An error that is full has a quote whose length one byte can count.
const _: () = assert!(icmpv4::MAX_ERROR / 4 <= 255 && ipv6::MIN_MTU / 8 <= 255);

/// How much of quote and extension an error carries, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Of the quoted packet.
    pub quote: usize,
    /// Zeros behind it.
    pub padding: usize,
    /// Of the extension.
    pub extension: usize,
}

impl Layout {
    /// Shares out `room` bytes. With an extension the quote is padded to at least 128 bytes and a
    /// multiple of `unit`, which its length is counted in, in one byte (RFC 4884 §4).
    /// An extension is shown whole or not at all: its checksum would betray a part.
    pub(super) fn new(quote: usize, extension: usize, unit: usize, room: usize) -> Self {
        let rest = room.saturating_sub(extension);
        if extension == 0 || rest < icmpv4::MIN_EXTENDED_QUOTE {
            return Self { quote: quote.min(room), padding: 0, extension: 0 };
        }
        let quote = quote.min(rest / unit * unit);
        let padded = quote.next_multiple_of(unit).max(icmpv4::MIN_EXTENDED_QUOTE);
        Self { quote, padding: padded - quote, extension }
    }

    /// Of all three.
    pub(super) const fn len(self) -> usize {
        self.quote + self.padding + self.extension
    }

    /// What the length field says.
    pub(super) const fn length(self, unit: usize) -> u8 {
        if self.extension == 0 { 0 } else { ((self.quote + self.padding) / unit) as u8 }
    }
}
