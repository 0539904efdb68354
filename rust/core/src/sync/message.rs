//! Bodies of the frames that carry no sessions, and the heads of those that do.

use alloc::vec::Vec;

use crate::sync::buckets::BUCKETS;
use crate::sync::bytes::{Put, Reader};
use crate::sync::digest::{Digests, Field};
use crate::sync::sequence::WINDOW;
use crate::table::{Query, Wanted};
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// The cursor behind the last slot of a table.
pub const END: u32 = u32::MAX;
/// The most ranges in a NACK.
pub const MAX_NACK_RANGES: usize = 32;
/// The most ranges in a snapshot request.
pub const MAX_SNAPSHOT_RANGES: usize = 64;
/// Bytes of an update's body before its sessions.
pub const UPDATE_HEAD_LEN: usize = 8;
/// Bytes of a snapshot's body before its sessions.
pub const SNAPSHOT_HEAD_LEN: usize = 13;
/// Bytes of a range in a NACK.
pub const UPDATE_RANGE_LEN: usize = 16;

/// The most words of an ACK's bitmap: as far behind a missing update as others are kept track of.
pub const MAX_ACK_WORDS: usize = (WINDOW / 64) as usize;
/// Bytes of the longest entry of a PULL.
pub const PULL_LEN: usize = 33;

const FLAG_READY: u8 = 1;
const FLAG_LAST: u8 = 1;
const HELLO_HEAD_LEN: usize = 22 + 5 * Field::ALL.len();
const GREETING_LEN: usize = 34;

/// I am here.
///
/// | size | field |
/// |-----:|-------|
/// | 1 | flags: bit 0 = ready |
/// | 1 | number of digests |
/// | 5 each | digest: field (1), its digest (4) |
/// | 8 | number of the last update sent |
/// | 8 | number of the oldest update that can still be asked for |
/// | 4 | generation |
/// | 34 each | greetings, as many as the header's count: see [`Greeting`] |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender has a table that others may rely on.
    pub ready: bool,
    /// What its configuration comes down to.
    pub digests: Digests,
    /// The last update that it sent.
    pub last: u64,
    /// The oldest update that it can send again.
    pub oldest: u64,
    /// Changes whenever others may lack sessions that it has: when a peer has ended, whose last
    /// updates may not have reached everyone, and when sessions came from a peer's table.
    pub generation: u32,
    /// The peers that it hears.
    pub greetings: Vec<Greeting>,
}

/// What a HELLO says to one peer: node (2), its epoch (8), challenge (8), echo (8), acknowledged
/// (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The peer.
    pub node: u16,
    /// The incarnation of the peer that was heard.
    pub epoch: u64,
    /// What that incarnation has to echo, to prove that its frames are no recordings.
    pub challenge: u64,
    /// The challenge that it gave us.
    pub echo: u64,
    /// Every update of its up to this number has arrived.
    pub acknowledged: u64,
}

impl Hello {
    /// How many greetings fit a body of `max_body` bytes.
    pub const fn room(max_body: usize) -> usize {
        max_body.saturating_sub(HELLO_HEAD_LEN) / GREETING_LEN
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put([if self.ready { FLAG_READY } else { 0 }, Field::ALL.len() as u8]);
        for field in Field::ALL {
            out.put([*field as u8]);
            out.put(self.digests.of(*field).to_be_bytes());
        }
        out.put(self.last.to_be_bytes());
        out.put(self.oldest.to_be_bytes());
        out.put(self.generation.to_be_bytes());
        for greeting in &self.greetings {
            out.put(greeting.node.to_be_bytes());
            out.put(greeting.epoch.to_be_bytes());
            out.put(greeting.challenge.to_be_bytes());
            out.put(greeting.echo.to_be_bytes());
            out.put(greeting.acknowledged.to_be_bytes());
        }
    }

    pub(crate) fn take(body: &[u8], count: u16) -> Option<Self> {
        let mut reader = Reader::new(body);
        let ready = reader.u8()? & FLAG_READY != 0;
        let mut digests = Digests::default();
        for _ in 0..reader.u8()? {
            let (field, digest) = (reader.u8()?, reader.u32()?);
            digests.set(field, digest);
        }
        let (last, oldest) = (reader.u64()?, reader.u64()?);
        let generation = reader.u32()?;
        let mut greetings = Vec::new();
        for _ in 0..count {
            greetings.push(Greeting {
                node: reader.u16()?,
                epoch: reader.u64()?,
                challenge: reader.u64()?,
                echo: reader.u64()?,
                acknowledged: reader.u64()?,
            });
        }
        reader.end()?;
        Some(Self { ready, digests, last, oldest, generation, greetings })
    }
}

/// Updates from `first` to `last`, both included (8 bytes each). A NACK is as many of them as the
/// header's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// What has arrived: the first (8) and the last (8) of the updates without a gap, then a bitmap of
/// those behind them, as many words (8) as the header's count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// All of these.
    pub range: UpdateRange,
    /// The lowest bit of the first word is the update behind the range, which is missing.
    pub later: Vec<u64>,
}

impl Arrived {
    /// Nothing.
    pub(crate) fn nothing() -> Self {
        Self { range: UpdateRange { first: u64::MAX, last: 0 }, later: Vec::new() }
    }

    /// How many words of the bitmap fit a body of `max_body` bytes.
    pub(crate) fn room(max_body: usize) -> usize {
        (max_body.saturating_sub(UPDATE_RANGE_LEN) / 8).min(MAX_ACK_WORDS)
    }

    /// Whether an update has arrived.
    pub(crate) fn has(&self, number: u64) -> bool {
        let Some(bit) = number.checked_sub(self.range.last).and_then(|n| n.checked_sub(1)) else {
            return number >= self.range.first;
        };
        let word = usize::try_from(bit / 64).ok().and_then(|word| self.later.get(word));
        word.is_some_and(|word| word & 1 << (bit % 64) != 0)
    }

    /// Whether all updates of a range have arrived.
    pub(crate) fn has_all(&self, updates: UpdateRange) -> bool {
        let behind = updates.first.max(self.range.last.saturating_add(1));
        self.has(updates.first) && (behind..=updates.last).all(|number| self.has(number))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put(self.range.first.to_be_bytes());
        out.put(self.range.last.to_be_bytes());
        self.later.iter().for_each(|word| out.put(word.to_be_bytes()));
    }

    pub(crate) fn take(body: &[u8], count: u16) -> Option<Self> {
        let mut reader = Reader::new(body);
        let range = UpdateRange { first: reader.u64()?, last: reader.u64()? };
        if usize::from(count) > MAX_ACK_WORDS {
            return None;
        }
        let later = (0..count).map(|_| reader.u64()).collect::<Option<_>>()?;
        reader.end()?;
        Some(Self { range, later })
    }
}

/// A question of a PULL: id (8), bits 7-6: 0 = by mask, 1 = by IPv6 node, 5-4: protocol (1), then
/// the mask (4 + 2) or the IPv6 node (16 + 2), then the IPv4 node (4 + 2).
pub(crate) fn put_query(out: &mut Vec<u8>, query: &Query) {
    let put4 = |out: &mut Vec<u8>, endpoint: Endpoint4| {
        out.put(endpoint.addr.octets());
        out.put(endpoint.port.to_be_bytes());
    };
    out.put(query.id.to_be_bytes());
    let proto = (query.proto as u8) << 4;
    match query.wanted {
        Wanted::Src4(src4) => {
            out.put([proto]);
            put4(out, src4);
        }
        Wanted::Src6(src6) => {
            out.put([1 << 6 | proto]);
            out.put(src6.addr.octets());
            out.put(src6.port.to_be_bytes());
        }
    }
    put4(out, query.dst4);
}

pub(crate) fn take_query(reader: &mut Reader<'_>) -> Option<Query> {
    fn take4(reader: &mut Reader<'_>) -> Option<Endpoint4> {
        let addr = (*reader.take::<4>()?).into();
        Some(Endpoint4 { addr, port: reader.u16()? })
    }
    let (id, tag) = (reader.u64()?, reader.u8()?);
    let proto = Proto::from_u8(tag >> 4 & 3)?;
    let wanted = match tag >> 6 {
        0 => Wanted::Src4(take4(reader)?),
        1 => {
            let addr = (*reader.take::<16>()?).into();
            Wanted::Src6(Endpoint6 { addr, port: reader.u16()? })
        }
        _ => return None,
    };
    Some(Query { id, owner: 0, proto, wanted, dst4: take4(reader)? })
}

pub(crate) fn put_nack(out: &mut Vec<u8>, ranges: &[UpdateRange]) {
    for range in ranges {
        out.put(range.first.to_be_bytes());
        out.put(range.last.to_be_bytes());
    }
}

pub(crate) fn take_nack(body: &[u8], count: u16) -> Option<Vec<UpdateRange>> {
    let mut reader = Reader::new(body);
    let mut ranges = Vec::new();
    for _ in 0..count.min(MAX_NACK_RANGES as u16) {
        ranges.push(UpdateRange { first: reader.u64()?, last: reader.u64()? });
    }
    Some(ranges)
}

/// Slots of the sender's table from `from` up to but not including `until` (4 bytes each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// The first.
    pub from: u32,
    /// The one behind the last, or [`END`].
    pub until: u32,
}

/// Buckets of keys: seed (8), then a bit a bucket (128 bytes of eight big-endian words, bucket 0 is
/// the lowest bit of the first word).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What keys are hashed with.
    pub seed: u64,
    /// The buckets that are wanted.
    pub buckets: [u64; BUCKETS / 64],
}

impl Filter {
    /// Whether no bucket is wanted.
    pub fn is_empty(&self) -> bool {
        self.buckets == [0; BUCKETS / 64]
    }
}

/// Asks for parts of a table: id (4), frames at most (2), then as many [`SlotRange`]s as the
/// header's count, then a [`Filter`] or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Comes back in the answer.
    pub id: u32,
    /// How many frames the answer may have.
    pub frames: u16,
    /// What is wanted, in order.
    pub ranges: Vec<SlotRange>,
    /// Which sessions in these slots are wanted, if not all.
    pub filter: Option<Filter>,
}

impl SnapshotRequest {
    /// How many ranges fit a body of `max_body` bytes.
    pub(crate) fn room(max_body: usize) -> usize {
        (max_body.saturating_sub(6 + 8 + BUCKETS / 8) / 8).min(MAX_SNAPSHOT_RANGES)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put(self.id.to_be_bytes());
        out.put(self.frames.to_be_bytes());
        for range in &self.ranges {
            out.put(range.from.to_be_bytes());
            out.put(range.until.to_be_bytes());
        }
        if let Some(filter) = &self.filter {
            out.put(filter.seed.to_be_bytes());
            filter.buckets.iter().for_each(|word| out.put(word.to_be_bytes()));
        }
    }

    pub(crate) fn take(body: &[u8], count: u16) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (id, frames) = (reader.u32()?, reader.u16()?);
        if usize::from(count) > MAX_SNAPSHOT_RANGES {
            return None;
        }
        let mut ranges = Vec::new();
        for _ in 0..count {
            ranges.push(SlotRange { from: reader.u32()?, until: reader.u32()? });
        }
        let mut filter = None;
        if reader.end().is_none() {
            let seed = reader.u64()?;
            let mut buckets = [0; BUCKETS / 64];
            for word in &mut buckets {
                *word = reader.u64()?;
            }
            filter = Some(Filter { seed, buckets });
        }
        reader.end()?;
        Some(Self { id, frames, ranges, filter })
    }
}

/// Asks for the digests of a table's buckets: id (4), seed (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestRequest {
    /// Comes back in the answer.
    pub id: u32,
    /// What keys are hashed with.
    pub seed: u64,
}

impl DigestRequest {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put(self.id.to_be_bytes());
        out.put(self.seed.to_be_bytes());
    }

    pub(crate) fn take(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let request = Self { id: reader.u32()?, seed: reader.u64()? };
        reader.end()?;
        Some(request)
    }
}

/// The head of a frame with digests: id (4), the first bucket (2). As many digests (8 bytes each)
/// as the header's count follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestsHead {
    /// The request that this answers.
    pub id: u32,
    /// The bucket of the first digest.
    pub first: u16,
}

impl DigestsHead {
    /// How many digests fit a body of `max_body` bytes.
    pub(crate) const fn room(max_body: usize) -> usize {
        max_body.saturating_sub(6) / 8
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put(self.id.to_be_bytes());
        out.put(self.first.to_be_bytes());
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { id: reader.u32()?, first: reader.u16()? })
    }
}

/// The head of a snapshot's frame: id (4), slots that it covers (8), flags (1; bit 0 = last frame
/// of this answer). As many sessions as the header's count follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The request that this answers.
    pub id: u32,
    /// The slots whose sessions are all in this frame.
    pub covers: SlotRange,
    /// The answer ends here.
    pub last: bool,
}

impl SnapshotHead {
    /// The bytes; the caller patches them in once it knows what the frame covers.
    pub(crate) fn bytes(&self) -> [u8; SNAPSHOT_HEAD_LEN] {
        let mut out = [0; SNAPSHOT_HEAD_LEN];
        out[..4].copy_from_slice(&self.id.to_be_bytes());
        out[4..8].copy_from_slice(&self.covers.from.to_be_bytes());
        out[8..12].copy_from_slice(&self.covers.until.to_be_bytes());
        out[12] = if self.last { FLAG_LAST } else { 0 };
        out
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let id = reader.u32()?;
        let covers = SlotRange { from: reader.u32()?, until: reader.u32()? };
        Some(Self { id, covers, last: reader.u8()? & FLAG_LAST != 0 })
    }
}
