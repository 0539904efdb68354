//! A packet on its way through the translator, in a buffer that somebody else owns.

use alloc::vec::Vec;

use crate::stats::DropReason;

/// Bytes that a buffer must leave free before the packet: v4 to v6 grows by 20, by 28 with a
/// fragment header.
pub const HEADROOM: usize = 64;

/// Segmentation that was left to whoever sends the packet on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// The packet goes out as it is.
    #[default]
    None,
    /// A TCP super-packet.
    Tcp,
    /// A UDP super-packet (several datagrams of one flow).
    Udp,
}

/// Work that the sender left to the network device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum covers the pseudo-header alone (Linux's CHECKSUM_PARTIAL): the field
    /// holds the folded sum, not complemented.
    pub partial_checksum: bool,
    /// What is to be cut at `gso_size`.
    pub gso: Gso,
    /// Payload bytes of a segment; 0 without segmentation.
    pub gso_size: u16,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Not handled yet.
    #[default]
    Pending,
    /// Translated in place; send [`Packet::bytes`] on.
    Forward,
    /// Taken: kept for later, or what replaces it comes out of `poll_packet`.
    Consumed,
    /// To be forgotten, for this reason.
    Drop(DropReason),
}

/// An IP packet in a borrowed buffer, with room before it.
///
/// `buf[start..end]` is the packet. Translation moves `start` and `end`, never the payload.
#[derive(Debug)]
pub struct Packet<'a> {
    buf: &'a mut [u8],
    start: usize,
    end: usize,
    /// What the device still has to do.
    pub offload: Offload,
    /// The firewall mark that it came with: a new mapping gets an address of an entry of pool4
    /// with the same.
    pub mark: u32,
    /// What became of it; set by `handle_packets`.
    pub outcome: Outcome,
}

impl<'a> Packet<'a> {
    /// A packet of `len` bytes that begins at `start` of `buf`; both are cut to what `buf` holds.
    /// Its mark is 0.
    pub fn new(buf: &'a mut [u8], start: usize, len: usize, offload: Offload) -> Self {
        let start = start.min(buf.len());
        let end = start.saturating_add(len).min(buf.len());
        Self { buf, start, end, offload, mark: 0, outcome: Outcome::Pending }
    }

    /// The packet, from the first byte of its IP header.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// The same, to be changed.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }

    /// Where the packet begins in its buffer.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Bytes in the packet.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Moves the beginning so that a header of `old` bytes can be written anew with `new` bytes.
    /// Returns false, changing nothing, if the buffer lacks the headroom or the packet the bytes.
    #[must_use]
    #[inline(always)]
    pub fn resize_front(&mut self, old: usize, new: usize) -> bool {
        match (self.start + old).checked_sub(new) {
            Some(start) if start <= self.end => {
                self.start = start;
                true
            }
            _ => false,
        }
    }

    /// Puts `bytes` in the packet's place, so that they end where it ended. Returns false, changing
    /// nothing, if the buffer lacks the headroom.
    #[must_use]
    pub fn replace(&mut self, bytes: &[u8]) -> bool {
        let fits = self.resize_front(self.len(), bytes.len());
        if fits {
            self.bytes_mut().copy_from_slice(bytes);
        }
        fits
    }

    /// The packet with `header` before it, which is written into the headroom; None if that is too
    /// small.
    pub fn behind(&mut self, header: &[u8]) -> Option<&[u8]> {
        let start = self.start.checked_sub(header.len())?;
        self.buf[start..self.start].copy_from_slice(header);
        Some(&self.buf[start..self.end])
    }

    /// Cuts the packet to `len` bytes if it is longer (padding behind the IP packet).
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start.saturating_add(len));
    }
}

/// A packet that the translator itself made or kept: an ICMP error, a fragment, a released SYN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPacket {
    /// From the first byte of the IP header.
    pub bytes: Vec<u8>,
    /// What the device still has to do.
    pub offload: Offload,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a packet's place never reaches beyond its buffer.
    #[test]
    fn packets_stay_in_their_buffer() {
        let mut buf = [1, 2, 3, 4, 5, 6, 7, 8];
        for (start, len, expected) in [
            (2, 3, 2..5),
            (2, 6, 2..8),
            (2, 7, 2..8),
            (8, 1, 8..8),
            (9, 1, 8..8),
            (1, usize::MAX, 1..8),
        ] {
            let packet = Packet::new(&mut buf, start, len, Offload::default());
            assert_eq!((packet.start(), packet.len()), (expected.start, expected.len()));
            assert_eq!(packet.is_empty(), expected.is_empty());
            assert_eq!(
                packet.bytes().first().map(|&n| usize::from(n)),
                expected.map(|n| n + 1).next()
            );
        }
    }

    /// The beginning moves into the headroom and out of it, the end only towards the beginning.
    #[test]
    fn headers_grow_into_the_headroom() {
        let mut buf = [1, 2, 3, 4, 5, 6, 7, 8];
        let mut packet = Packet::new(&mut buf, 2, 4, Offload::default());
        assert!(!packet.resize_front(1, 4), "one byte too many in front");
        assert!(!packet.resize_front(5, 0), "a header longer than the packet");
        assert_eq!(packet.bytes(), [3, 4, 5, 6]);
        assert!(packet.resize_front(1, 3));
        assert_eq!(packet.bytes(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(packet.behind(&[9]), None);
        assert!(packet.resize_front(6, 0) && packet.is_empty());
        assert_eq!(packet.behind(&[9, 9]), Some(&[9, 9][..]));
        assert!(packet.replace(&[7, 7, 7]) && !packet.replace(&[7; 7]));
        assert_eq!((packet.start(), packet.bytes()), (3, &[7, 7, 7][..]));
        packet.truncate(4);
        assert_eq!(packet.len(), 3);
        packet.truncate(2);
        assert_eq!((packet.start(), packet.len()), (3, 2));
    }
}
