//! What becomes of a packet that can't be translated.

use crate::stats::DropReason;

/// Why a packet goes no further, and what its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Forget it.
    Drop(DropReason),
    /// Forget it, but tell its sender ([`crate::xlat::icmp_error`] makes the packet).
    Reply(DropReason, IcmpError),
}

impl Refusal {
    /// What to count.
    pub const fn reason(self) -> DropReason {
        match self {
            Self::Drop(reason) | Self::Reply(reason, _) => reason,
        }
    }
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// An ICMP error in words that both families have; type and code are those of the packet's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// The time to live ran out (ICMPv4 11/0, ICMPv6 3/0).
    TimeExceeded,
    /// Larger than `mtu` bytes (ICMPv4 3/4, ICMPv6 2/0).
    TooBig {
        /// The largest packet that would pass.
        mtu: u32,
    },
    /// A source route that can't be followed (ICMPv4 3/5; IPv6 has no such code and gets 1/0).
    SourceRouteFailed,
    /// A header field can't be processed (ICMPv4 12/0, ICMPv6 4/0).
    HeaderField {
        /// Offset of the field from the first byte of the packet.
        pointer: u32,
    },
    /// A protocol that isn't translated (ICMPv4 3/2; ICMPv6 1/4, RFC 6146 §3.4).
    ProtocolUnreachable,
    /// Nobody has the destination address (ICMPv4 3/1, ICMPv6 1/3).
    AddressUnreachable,
    /// Nobody listens on the destination port (ICMPv4 3/3, ICMPv6 1/4).
    PortUnreachable,
    /// The operator forbids it (ICMPv4 3/13, ICMPv6 1/1).
    AdminProhibited,
}
