//! ICMPv6 (RFC 4443, RFC 4884).

use core::net::Ipv6Addr;

use super::checksum::Sum;
use super::icmpv4::MIN_EXTENDED_QUOTE;
use super::ipv6::ICMPV6;

/// Length of the header; the quoted packet of an error follows it.
pub const HEADER_LEN: usize = 8;
/// Offset of the code.
pub const CODE: usize = 1;
/// Offset of the checksum.
pub const CHECKSUM: usize = 2;
/// Offset of the identifier of a query.
pub const IDENTIFIER: usize = 4;
/// Offset of the quoted packet's length in 64-bit words, one byte (RFC 4884 §4.4).
pub const LENGTH: usize = 4;
/// Offset of the MTU of a Packet Too Big or the pointer of a Parameter Problem, four bytes.
pub const VALUE: usize = 4;

/// Destination Unreachable.
pub const UNREACHABLE: u8 = 1;
/// Packet Too Big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Time Exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Parameter Problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Echo Request.
pub const ECHO_REQUEST: u8 = 128;
/// Echo Reply.
pub const ECHO_REPLY: u8 = 129;

/// Code of [`UNREACHABLE`]: no route to destination.
pub const NO_ROUTE: u8 = 0;
/// Code of [`UNREACHABLE`]: administratively prohibited.
pub const ADMIN_PROHIBITED: u8 = 1;
/// Code of [`UNREACHABLE`]: beyond scope of source address.
pub const BEYOND_SCOPE: u8 = 2;
/// Code of [`UNREACHABLE`]: address unreachable.
pub const ADDRESS: u8 = 3;
/// Code of [`UNREACHABLE`]: port unreachable.
pub const PORT: u8 = 4;

/// Code of [`PARAMETER_PROBLEM`]: erroneous header field.
pub const HEADER_FIELD: u8 = 0;
/// Code of [`PARAMETER_PROBLEM`]: unrecognized next header.
pub const NEXT_HEADER: u8 = 1;

/// The sum of the pseudo-header of a message of `len` bytes (RFC 8200 §8.1).
#[inline]
pub const fn pseudo_header(src: Ipv6Addr, dst: Ipv6Addr, len: u32) -> Sum {
    Sum::ZERO.add6(src).add6(dst).add32(len).add(ICMPV6 as u16)
}

/// The two parts behind the header of an error: the quoted packet and its extension, empty if
/// there is none (RFC 4884 §4). `message` has a whole header.
pub fn quote(message: &[u8]) -> (&[u8], &[u8]) {
    let body = &message[HEADER_LEN..];
    let extensible = matches!(message[0], UNREACHABLE | TIME_EXCEEDED);
    match 8 * usize::from(message[LENGTH]) {
        // A length that can't be is no length.
        len @ MIN_EXTENDED_QUOTE.. if extensible && len < body.len() => body.split_at(len),
        _ => (body, &[]),
    }
}
