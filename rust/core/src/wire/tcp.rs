//! TCP (RFC 9293): the fields that a NAT64 looks at.

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes that a translator needs to see: ports, flags and checksum.
pub const NEEDED: usize = CHECKSUM + 2;
/// Offset of the data offset, in 32-bit words, in the upper four bits.
pub const DATA_OFFSET: usize = 12;
/// Offset of the control bits.
pub const FLAGS: usize = 13;
/// Offset of the checksum.
pub const CHECKSUM: usize = 16;

/// Control bits of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// Whether the sender has no more to send.
    #[inline]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// Whether the segment opens a connection.
    #[inline]
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// Whether the segment resets a connection.
    #[inline]
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// Whether the acknowledgement number counts.
    #[inline]
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }
}
