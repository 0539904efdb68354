//! IPv6 extension headers (RFC 8200 §4): those that a translator skips, and the Fragment header.

use super::{Fragment, be16, be32};
use crate::stats::DropReason;

/// Next header number of the Fragment header.
pub const FRAGMENT: u8 = 44;
/// Length of the Fragment header.
pub const FRAGMENT_LEN: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// Offset of Segments Left in a Routing header.
const SEGMENTS_LEFT: usize = 3;
/// More extension headers than any honest packet has; the walk ends here.
const MAX_HEADERS: usize = 8;

/// Where a chain of extension headers leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the header behind the chain.
    pub next_header: u8,
    /// Its offset.
    pub offset: usize,
    /// What the Fragment header says, if there was one.
    pub fragment: Option<Fragment>,
    /// Where the Segments Left of a Routing header is that isn't zero.
    pub segments_left: Option<usize>,
}

/// Follows extension headers from `offset` of `packet`, whose number is `next_header`, to the
/// first header that is none (RFC 7915 §5.1).
///
/// # Errors
/// A chain that leaves the packet or is too long is malformed; an extension header behind the
/// Fragment header can't be skipped, since the later fragments' offsets count it
/// (RFC 7915 §5.1.1).
pub fn walk(packet: &[u8], mut next_header: u8, mut offset: usize) -> Result<Chain, DropReason> {
    let (mut fragment, mut unfinished) = (None, None);
    for _ in 0..=MAX_HEADERS {
        let header = packet.get(offset..).unwrap_or(&[]);
        match next_header {
            FRAGMENT | HOP_BY_HOP | ROUTING | DESTINATION if fragment.is_some() => {
                return Err(DropReason::FragmentUntranslatable);
            }
            FRAGMENT => {
                let header = header.first_chunk::<FRAGMENT_LEN>().ok_or(DropReason::Malformed)?;
                fragment = Some(parse_fragment(header));
                next_header = header[0];
                offset += FRAGMENT_LEN;
                // Behind a later fragment's header there are only bytes.
                if fragment.is_some_and(|f| f.offset != 0) {
                    return Ok(Chain { next_header, offset, fragment, segments_left: unfinished });
                }
            }
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let [next, len, _, segments_left, ..] = *header else {
                    return Err(DropReason::Malformed);
                };
                if next_header == ROUTING && segments_left != 0 {
                    unfinished = unfinished.or(Some(offset + SEGMENTS_LEFT));
                }
                next_header = next;
                offset += 8 + 8 * usize::from(len);
            }
            _ => return Ok(Chain { next_header, offset, fragment, segments_left: unfinished }),
        }
    }
    Err(DropReason::Malformed)
}

fn parse_fragment(header: &[u8; FRAGMENT_LEN]) -> Fragment {
    let word = be16(header, 2);
    Fragment { offset: word & !7, more: word & 1 != 0, id: be32(header, 4) }
}

/// A Fragment header before a header of number `next_header`.
pub fn fragment_to_bytes(fragment: Fragment, next_header: u8) -> [u8; FRAGMENT_LEN] {
    let [a, b] = (fragment.offset | u16::from(fragment.more)).to_be_bytes();
    let [c, d, e, f] = fragment.id.to_be_bytes();
    [next_header, 0, a, b, c, d, e, f]
}
