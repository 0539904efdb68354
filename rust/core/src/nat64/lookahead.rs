//! A burst's table entries, loaded together so that the misses of the caches overlap.
//!
//! Three passes over up to [`LEN`] packets: what to look for, the index, the record. In each the
//! loads don't depend on each other, so the processor has many under way at once. What comes out
//! are hints: the steps that follow check them, since an earlier packet may change the table.

use crate::packet::Packet;
use crate::table::Table;
use crate::tuple::Proto;
use crate::wire::{be16, be32, ipv4, ipv6};

/// Packets that are looked at together.
pub(super) const LEN: usize = 32;

#[derive(Clone, Copy)]
enum Wanted {
    Nothing,
    /// A tag of the index by IPv6 transport address.
    Tag(u32),
    /// A mask.
    Mask(Proto, u32, u16),
}

/// For each packet the slot of its BIB entry, if it is an ordinary one and has one.
pub(super) fn hints(table: &Table, chunk: &[Packet<'_>]) -> [Option<u32>; LEN] {
    let mut wanted = [Wanted::Nothing; LEN];
    for (packet, wanted) in chunk.iter().zip(&mut wanted) {
        *wanted = look(table, packet.bytes());
    }
    let mut hints = [None; LEN];
    for (wanted, hint) in wanted[..chunk.len()].iter().zip(&mut hints) {
        *hint = match *wanted {
            Wanted::Nothing => None,
            Wanted::Tag(tag) => table.guess6(tag),
            Wanted::Mask(proto, address, port) => table.find4(proto, address, port),
        };
    }
    for hint in &mut hints[..chunk.len()] {
        *hint = hint.filter(|&slot| table.bib(slot).is_live());
    }
    if !table.pool4().is_settled() {
        forget_strangers(table, &mut hints);
    }
    hints
}

/// Leaves no hint to a BIB entry of which the mask isn't in pool4 any more.
#[cold]
fn forget_strangers(table: &Table, hints: &mut [Option<u32>; LEN]) {
    for hint in hints {
        *hint = hint.filter(|&slot| table.is_known(slot));
    }
}

/// What to look for on behalf of a packet without options, extension headers or fragments. The
/// packet isn't parsed yet: it may be anything.
#[inline]
fn look(table: &Table, bytes: &[u8]) -> Wanted {
    // An echo's identifier stands in the fifth byte of its header.
    const ECHO: usize = 4;
    match bytes.first() {
        Some(0x60..=0x6f) => {
            let Some(bytes) = bytes.first_chunk::<{ ipv6::HEADER_LEN + ECHO + 2 }>() else {
                return Wanted::Nothing;
            };
            let (proto, at) = match bytes[ipv6::NEXT_HEADER] {
                ipv4::TCP => (Proto::Tcp, 0),
                ipv4::UDP => (Proto::Udp, 0),
                ipv6::ICMPV6 => (Proto::Icmp, ECHO),
                _ => return Wanted::Nothing,
            };
            let mut src = [0; 16];
            src.copy_from_slice(&bytes[ipv6::SRC..ipv6::DST]);
            let port = be16(bytes, ipv6::HEADER_LEN + at);
            Wanted::Tag(table.tag6(proto, u128::from_be_bytes(src), port))
        }
        Some(0x45) => {
            let Some(bytes) = bytes.first_chunk::<{ ipv4::HEADER_LEN + ECHO + 2 }>() else {
                return Wanted::Nothing;
            };
            let (proto, at) = match bytes[ipv4::PROTOCOL] {
                ipv4::TCP => (Proto::Tcp, 2),
                ipv4::UDP => (Proto::Udp, 2),
                ipv4::ICMP => (Proto::Icmp, ECHO),
                _ => return Wanted::Nothing,
            };
            let port = be16(bytes, ipv4::HEADER_LEN + at);
            Wanted::Mask(proto, be32(bytes, ipv4::DST), port)
        }
        _ => Wanted::Nothing,
    }
}
