//! UDP (RFC 768).

/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// Offset of the length of header and data.
pub const LENGTH: usize = 4;
/// Offset of the checksum; over IPv4, zero means that there is none.
pub const CHECKSUM: usize = 6;

/// A checksum as UDP sends it: a computed zero goes out as all ones, which is the same number.
#[inline]
pub const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}
