//! Transport headers: ports and checksums, the same work in every direction.

use crate::tuple::Proto;
use crate::wire::checksum::Sum;
use crate::wire::{L4, be16, put16, tcp, udp};

/// The new ports of a TCP or UDP header and the difference that the addresses make.
pub(super) struct Change {
    /// New pseudo-header addresses less the old ones.
    pub addresses: Sum,
    pub src_port: u16,
    pub dst_port: u16,
}

impl Change {
    /// Rewrites the TCP or UDP header at the beginning of `l4`, which the parser found to be whole.
    /// With a partial checksum the field covers the addresses alone and isn't complemented.
    #[inline(always)]
    pub(super) fn apply(&self, l4: &mut [u8], kind: L4, partial: bool) {
        let ports =
            self.addresses.sub(be16(l4, 0)).sub(be16(l4, 2)).add(self.src_port).add(self.dst_port);
        put16(l4, 0, self.src_port);
        put16(l4, 2, self.dst_port);
        let field = if kind == L4::Tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
        let old = be16(l4, field);
        let new = if partial {
            self.addresses.add(old).fold()
        } else if kind == L4::Tcp {
            ports.update(old)
        } else if old == 0 {
            // No checksum: there is nothing to keep right.
            0
        } else {
            udp::nonzero(ports.update(old))
        };
        put16(l4, field, new);
    }
}

/// The same for the quote in an ICMP error, of which 8 bytes are there at least. A checksum stays
/// as right or wrong as it was; none at all stays none, since the rest of the datagram is gone.
pub(super) fn apply_quoted(change: &Change, l4: &mut [u8], proto: Proto) {
    match proto {
        Proto::Tcp if l4.len() < tcp::NEEDED => {
            put16(l4, 0, change.src_port);
            put16(l4, 2, change.dst_port);
        }
        Proto::Tcp => change.apply(l4, L4::Tcp, false),
        _ => change.apply(l4, L4::Udp, false),
    }
}
