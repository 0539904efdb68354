//! ICMPv4 (RFC 792, RFC 1191, RFC 1812, RFC 4884).

/// Length of the header; the quoted packet of an error follows it.
pub const HEADER_LEN: usize = 8;
/// Most bytes of an error, IP header included (RFC 1812 §4.3.2.3).
pub const MAX_ERROR: usize = 576;
/// Offset of the code.
pub const CODE: usize = 1;
/// Offset of the checksum.
pub const CHECKSUM: usize = 2;
/// Offset of the identifier of a query.
pub const IDENTIFIER: usize = 4;
/// Offset of the pointer of a Parameter Problem, one byte.
pub const POINTER: usize = 4;
/// Offset of the quoted packet's length in 32-bit words, one byte (RFC 4884 §4.1).
pub const LENGTH: usize = 5;
/// Offset of the next-hop MTU of a Fragmentation Needed, two bytes (RFC 1191 §4).
pub const MTU: usize = 6;

/// The least length of a quoted packet that an extension follows (RFC 4884 §4).
pub const MIN_EXTENDED_QUOTE: usize = 128;

/// Echo Reply.
pub const ECHO_REPLY: u8 = 0;
/// Destination Unreachable.
pub const UNREACHABLE: u8 = 3;
/// Echo.
pub const ECHO_REQUEST: u8 = 8;
/// Time Exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Parameter Problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Code of [`UNREACHABLE`]: host unreachable.
pub const HOST: u8 = 1;
/// Code of [`UNREACHABLE`]: protocol unreachable.
pub const PROTOCOL: u8 = 2;
/// Code of [`UNREACHABLE`]: port unreachable.
pub const PORT: u8 = 3;
/// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Code of [`UNREACHABLE`]: source route failed.
pub const SOURCE_ROUTE_FAILED: u8 = 5;
/// Code of [`UNREACHABLE`]: host administratively prohibited.
pub const HOST_PROHIBITED: u8 = 10;
/// Code of [`UNREACHABLE`]: communication administratively prohibited.
pub const ADMIN_PROHIBITED: u8 = 13;

/// The two parts behind the header of an error: the quoted packet and its extension, empty if
/// there is none (RFC 4884 §4). `message` has a whole header.
pub fn quote(message: &[u8]) -> (&[u8], &[u8]) {
    let body = &message[HEADER_LEN..];
    match 4 * usize::from(message[LENGTH]) {
        // A length that can't be is no length.
        len @ MIN_EXTENDED_QUOTE.. if len < body.len() => body.split_at(len),
        _ => (body, &[]),
    }
}
