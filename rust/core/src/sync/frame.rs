//! Frames: the unit that transports carry between nodes, sealed with a pre-shared key.
//!
//! A frame is a header of 36 bytes, a body, and a tag of 16 bytes (none on plaintext frames).
//! All numbers are big-endian.
//!
//! | offset | size | field |
//! |-------:|-----:|-------|
//! |  0 | 4 | magic, "jsyn" |
//! |  4 | 1 | version, 1 |
//! |  5 | 1 | type, see [`Kind`] |
//! |  6 | 1 | flags: bit 0 = plaintext, bit 1 = answer with an ACK at once; the others are 0 |
//! |  7 | 1 | reserved, 0 |
//! |  8 | 4 | cluster: the first four bytes of SHA-256 of the cluster's name |
//! | 12 | 2 | node that sent it, 1 to 65535 |
//! | 14 | 2 | node that it is for, 0 = all |
//! | 16 | 8 | epoch: the incarnation of the sender |
//! | 24 | 8 | sequence: unique within the epoch, grows |
//! | 32 | 2 | count of entries in the body, where its type has entries |
//! | 34 | 2 | length of the whole frame, so that a byte stream needs no other framing |
//!
//! The body is encrypted with ChaCha20-Poly1305 (RFC 8439), the header is associated data. The
//! nonce is four zero bytes and the sequence; the key is HKDF-SHA256 (RFC 5869) of the pre-shared
//! key with salt "jsync frame 1" and info = cluster, node, epoch as in the header. So a nonce is
//! never used twice with a key as long as a node never uses an epoch twice.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

use crate::config::ConfigError;
use crate::stats::Counter;
use crate::sync::bytes::Reader;
use crate::sync::config::SyncConfig;

/// Bytes of a header.
pub const HEADER_LEN: usize = 36;
/// Bytes behind the body of a sealed frame.
pub const TAG_LEN: usize = 16;
/// The protocol's version.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"jsyn";
const FLAG_PLAINTEXT: u8 = 1;
const FLAG_URGENT: u8 = 2;

/// The most pre-shared keys that are tried on a frame.
pub const MAX_KEYS: usize = 8;
/// Derived keys kept at once: a few incarnations of each of many peers.
const MAX_CIPHERS: usize = 512;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// I am here; this is my configuration, and these are the peers that I hear.
    Hello = 1,
    /// I am about to leave.
    Bye = 2,
    /// Sessions that were created, changed or removed.
    Update = 3,
    /// Updates that I miss.
    Nack = 4,
    /// Parts of the table that I want to have.
    SnapshotRequest = 5,
    /// A part of the table.
    Snapshot = 6,
    /// What do your buckets of keys come down to?
    DigestRequest = 7,
    /// Digests of buckets of keys.
    Digests = 8,
    /// Updates that have arrived.
    Ack = 9,
    /// Do you have the sessions of these packets?
    Pull = 10,
    /// The sessions of packets.
    Pulled = 11,
}

impl Kind {
    const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::Bye,
            3 => Self::Update,
            4 => Self::Nack,
            5 => Self::SnapshotRequest,
            6 => Self::Snapshot,
            7 => Self::DigestRequest,
            8 => Self::Digests,
            9 => Self::Ack,
            10 => Self::Pull,
            11 => Self::Pulled,
            _ => return None,
        })
    }
}

/// The fields of a header that a receiver acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is for.
    pub kind: Kind,
    /// The node that sent it.
    pub node: u16,
    /// The node that it is for, or 0 for all.
    pub to: u16,
    /// The sender's incarnation.
    pub epoch: u64,
    /// Unique within the epoch.
    pub seq: u64,
    /// Entries in the body.
    pub count: u16,
    /// Its sender waits for an ACK.
    pub urgent: bool,
}

impl Header {
    fn emit(&self, plaintext: bool, cluster: u32, len: u16) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[6] =
            if plaintext { FLAG_PLAINTEXT } else { 0 } | if self.urgent { FLAG_URGENT } else { 0 };
        out[8..12].copy_from_slice(&cluster.to_be_bytes());
        out[12..14].copy_from_slice(&self.node.to_be_bytes());
        out[14..16].copy_from_slice(&self.to.to_be_bytes());
        out[16..24].copy_from_slice(&self.epoch.to_be_bytes());
        out[24..32].copy_from_slice(&self.seq.to_be_bytes());
        out[32..34].copy_from_slice(&self.count.to_be_bytes());
        out[34..36].copy_from_slice(&len.to_be_bytes());
        out
    }
}

/// A frame on its way out: not sealed yet, so that sealing needs no access to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    header: Header,
    /// Room for the header, then the body.
    buf: Vec<u8>,
}

impl Transmit {
    /// A frame with a body that begins behind [`HEADER_LEN`] bytes of `buf`.
    pub(crate) fn new(header: Header, buf: Vec<u8>) -> Self {
        debug_assert!(buf.len() >= HEADER_LEN);
        Self { header, buf }
    }

    /// An empty buffer for `new`: room for the header, and capacity for `body` bytes and a tag.
    pub(crate) fn buffer(body: usize) -> Vec<u8> {
        let mut buf = Vec::with_capacity(HEADER_LEN + body + TAG_LEN);
        buf.resize(HEADER_LEN, 0);
        buf
    }

    /// The same, to be answered with an ACK.
    pub(crate) fn urgent(mut self, urgent: bool) -> Self {
        self.header.urgent = urgent;
        self
    }

    /// The node that it is for, or 0 for all.
    pub fn to(&self) -> u16 {
        self.header.to
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its body, in clear.
    pub fn body(&self) -> &[u8] {
        &self.buf[HEADER_LEN..]
    }
}

/// A frame that came in, checked and in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFrame {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why bytes are not a frame for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Not a frame of this protocol at all.
    Malformed,
    /// Of another version of the protocol.
    Version(u8),
    /// Of another cluster.
    Cluster,
    /// With these flags that this version has no meaning for.
    Flags(u8),
    /// For another node; nothing is wrong with it.
    NotForUs,
    /// One of our own frames, come back; nothing is wrong with it.
    Own,
    /// No key of ours opens it, or one of us uses plaintext and the other doesn't.
    Authentication {
        /// The node that it claims to be from.
        node: u16,
    },
}

impl FrameError {
    /// The counter for it, if it is worth one.
    pub const fn counter(self) -> Option<Counter> {
        Some(match self {
            Self::Malformed => Counter::FrameMalformed,
            Self::Version(_) => Counter::FrameVersion,
            Self::Cluster => Counter::FrameCluster,
            Self::Flags(_) => Counter::FrameFlags,
            Self::Authentication { .. } => Counter::FrameAuthentication,
            Self::NotForUs | Self::Own => return None,
        })
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not a frame"),
            Self::Version(version) => write!(f, "protocol version {version}, not {VERSION}"),
            Self::Cluster => f.write_str("another cluster"),
            Self::Flags(flags) => write!(f, "unknown flags {flags:#04x}; is its sender newer?"),
            Self::NotForUs => f.write_str("for another node"),
            Self::Own => f.write_str("our own frame"),
            Self::Authentication { node } => write!(f, "no key opens it (claims node {node})"),
        }
    }
}

impl core::error::Error for FrameError {}

fn check_keys(keys: &[[u8; 32]], plaintext: bool) -> Result<(), ConfigError> {
    let error = |text: &str| Err(ConfigError(text.to_string()));
    match keys.len() {
        0 if !plaintext => error("key-files: name a key; plaintext = true does without"),
        1.. if plaintext => error("plaintext: is set although there is a key; drop one of them"),
        ..=MAX_KEYS => Ok(()),
        _ => error("key-files: at most 8 keys"),
    }
}

struct Cipher {
    node: u16,
    epoch: u64,
    aead: ChaCha20Poly1305,
}

/// The keys of a cluster, and what seals and opens frames with them.
pub struct Keyring {
    keys: Vec<[u8; 32]>,
    cluster: u32,
    node: u16,
    epoch: u64,
    /// Seals our frames; `None` sends and takes plaintext.
    own: Option<ChaCha20Poly1305>,
    /// Opened a frame before. Only authentic frames get a place here.
    ciphers: Vec<Cipher>,
    /// The place that the next cipher takes once the list is full.
    oldest: usize,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Keyring {
    /// The keyring of the node that `config` describes: the first of `keys` seals, all open.
    ///
    /// # Errors
    /// No key without `plaintext`, a key with it, or more than [`MAX_KEYS`].
    pub fn new(keys: &[[u8; 32]], config: &SyncConfig) -> Result<Self, ConfigError> {
        check_keys(keys, config.plaintext)?;
        let cluster = cluster_id(&config.cluster);
        let derive = |key| derive(key, cluster, config.node, config.epoch);
        Ok(Self {
            keys: keys.to_vec(),
            cluster,
            node: config.node,
            epoch: config.epoch,
            own: keys.first().map(derive),
            ciphers: Vec::new(),
            oldest: 0,
        })
    }

    /// Takes other keys in the place of all that it has. Frames that were sealed by one of both
    /// sets open on. False if the keys are those that it has.
    ///
    /// # Errors
    /// As for [`Keyring::new`]; plaintext stays plaintext. The keys are left as they were.
    pub fn rekey(&mut self, keys: &[[u8; 32]]) -> Result<bool, ConfigError> {
        check_keys(keys, self.own.is_none())?;
        if keys == self.keys {
            return Ok(false);
        }
        // Numbers of frames go on, so a key that stays seals none of them twice.
        self.own = keys.first().map(|key| derive(key, self.cluster, self.node, self.epoch));
        self.keys = keys.to_vec();
        (self.ciphers, self.oldest) = (Vec::new(), 0);
        Ok(true)
    }

    /// The bytes to send.
    pub fn seal(&self, transmit: Transmit) -> Vec<u8> {
        let Transmit { header, mut buf } = transmit;
        let tag_len = if self.own.is_some() { TAG_LEN } else { 0 };
        // A frame never exceeds SyncConfig::max_frame, which is a u16.
        let len = u16::try_from(buf.len() + tag_len).unwrap_or(u16::MAX);
        let head = header.emit(self.own.is_none(), self.cluster, len);
        buf[..HEADER_LEN].copy_from_slice(&head);
        if let Some(aead) = &self.own {
            let body = &mut buf[HEADER_LEN..];
            let nonce = nonce(header.seq);
            // ChaCha20-Poly1305 refuses only bodies of 256 GiB and more.
            if let Ok(tag) = aead.encrypt_inout_detached(&nonce, &head, body.into()) {
                buf.extend_from_slice(&tag);
            }
        }
        buf
    }

    /// The frame in `bytes`, which must hold it and nothing else.
    ///
    /// The cheap checks come first: frames of other clusters, for other nodes and our own cost no
    /// cryptography.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn open(&mut self, bytes: &[u8]) -> Result<OpenFrame, FrameError> {
        let (head, sealed) = bytes.split_first_chunk().ok_or(FrameError::Malformed)?;
        let (header, plaintext) = self.parse(head, bytes.len())?;
        if plaintext != self.own.is_none() {
            return Err(FrameError::Authentication { node: header.node });
        }
        self.unseal(header, plaintext, head, sealed)
    }

    fn unseal(
        &mut self,
        header: Header,
        plaintext: bool,
        head: &[u8; HEADER_LEN],
        sealed: &[u8],
    ) -> Result<OpenFrame, FrameError> {
        if plaintext {
            return Ok(OpenFrame { header, body: sealed.to_vec() });
        }
        let (body, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(FrameError::Malformed)?;
        let failed = FrameError::Authentication { node: header.node };
        let body = self.decrypt(&header, head, body, tag).ok_or(failed)?;
        Ok(OpenFrame { header, body })
    }

    /// The header, and whether the body is plaintext.
    fn parse(&self, head: &[u8; HEADER_LEN], len: usize) -> Result<(Header, bool), FrameError> {
        let mut fields = Reader::new(head);
        let mut read = || {
            Some((
                fields.take::<4>()?,
                [fields.u8()?, fields.u8()?, fields.u8()?, fields.u8()?],
                fields.u32()?,
                (fields.u16()?, fields.u16()?),
                (fields.u64()?, fields.u64()?),
                (fields.u16()?, fields.u16()?),
            ))
        };
        let (magic, [version, kind, flags, _], cluster, (node, to), (epoch, seq), (count, length)) =
            read().ok_or(FrameError::Malformed)?;
        if *magic != MAGIC || usize::from(length) != len {
            return Err(FrameError::Malformed);
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if cluster != self.cluster {
            return Err(FrameError::Cluster);
        }
        if node == self.node && epoch == self.epoch {
            return Err(FrameError::Own);
        }
        if to != 0 && to != self.node {
            return Err(FrameError::NotForUs);
        }
        let kind = Kind::from_u8(kind).ok_or(FrameError::Malformed)?;
        if node == 0 {
            return Err(FrameError::Malformed);
        }
        let known = FLAG_PLAINTEXT | if kind == Kind::Update { FLAG_URGENT } else { 0 };
        if flags & !known != 0 {
            return Err(FrameError::Flags(flags & !known));
        }
        let urgent = flags & FLAG_URGENT != 0;
        let header = Header { kind, node, to, epoch, seq, count, urgent };
        Ok((header, flags & FLAG_PLAINTEXT != 0))
    }

    fn decrypt(
        &mut self,
        header: &Header,
        head: &[u8; HEADER_LEN],
        sealed: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Option<Vec<u8>> {
        let (node, epoch) = (header.node, header.epoch);
        let open = |aead: &ChaCha20Poly1305| {
            let mut body = sealed.to_vec();
            let tag = Tag::from(*tag);
            let buf = body.as_mut_slice().into();
            aead.decrypt_inout_detached(&nonce(header.seq), head, buf, &tag).ok()?;
            Some(body)
        };
        let known = self.ciphers.iter().filter(|c| c.node == node && c.epoch == epoch);
        if let Some(body) = known.map(|c| open(&c.aead)).find(Option::is_some) {
            return body;
        }
        // A new sender, or one that has changed its key.
        for key in &self.keys {
            let aead = derive(key, self.cluster, node, epoch);
            if let Some(body) = open(&aead) {
                let cipher = Cipher { node, epoch, aead };
                if self.ciphers.len() < MAX_CIPHERS {
                    self.ciphers.push(cipher);
                } else {
                    self.ciphers[self.oldest] = cipher;
                    self.oldest = (self.oldest + 1) % MAX_CIPHERS;
                }
                return Some(body);
            }
        }
        None
    }
}

/// Opens a frame as the one would that it is for, whose keys are these.
pub(crate) fn open_any(bytes: &[u8], keys: &[[u8; 32]]) -> Result<OpenFrame, FrameError> {
    let (head, sealed) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(FrameError::Malformed)?;
    let mut keyring = Keyring {
        keys: keys.to_vec(),
        cluster: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
        node: u16::from_be_bytes([head[14], head[15]]),
        // No node's.
        epoch: 0,
        own: None,
        ciphers: Vec::new(),
        oldest: 0,
    };
    let (header, plaintext) = keyring.parse(head, bytes.len())?;
    keyring.unseal(header, plaintext, head, sealed)
}

fn cluster_id(name: &str) -> u32 {
    let hash = Sha256::digest(name.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn derive(key: &[u8; 32], cluster: u32, node: u16, epoch: u64) -> ChaCha20Poly1305 {
    let mut info = [0; 14];
    info[..4].copy_from_slice(&cluster.to_be_bytes());
    info[4..6].copy_from_slice(&node.to_be_bytes());
    info[6..].copy_from_slice(&epoch.to_be_bytes());
    let mut derived = Key::default();
    // HKDF refuses only outputs of more than 255 hashes.
    let expanded = Hkdf::<Sha256>::new(Some(b"jsync frame 1"), key).expand(&info, &mut derived);
    debug_assert!(expanded.is_ok());
    ChaCha20Poly1305::new(&derived)
}

fn nonce(seq: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&seq.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const K1: [u8; 32] = [1; 32];
    const K2: [u8; 32] = [2; 32];

    fn keyring(node: u16, keys: &[[u8; 32]]) -> Keyring {
        Keyring::new(keys, &SyncConfig::new(node, "campus", 7)).unwrap()
    }

    fn frame(to: u16, body: &[u8]) -> Transmit {
        let (kind, urgent) = (Kind::Update, false);
        let header = Header { kind, node: 1, to, epoch: 7, seq: 99, count: 2, urgent };
        let mut buf = Transmit::buffer(body.len());
        buf.extend_from_slice(body);
        Transmit::new(header, buf)
    }

    #[test]
    fn opens_what_a_peer_sealed() {
        let sealed = keyring(1, &[K1]).seal(frame(0, b"body"));
        assert_eq!(sealed.len(), HEADER_LEN + 4 + TAG_LEN);
        assert_eq!(&sealed[..8], b"jsyn\x01\x03\0\0");
        let open = keyring(2, &[K1]).open(&sealed).unwrap();
        assert_eq!(open.body, b"body");
        assert_eq!((open.header.node, open.header.epoch, open.header.seq), (1, 7, 99));
    }

    #[test]
    fn every_key_opens_and_the_first_seals() {
        let by_second = keyring(1, &[K2]).seal(frame(0, b"body"));
        let mut both = keyring(2, &[K1, K2]);
        assert!(both.open(&by_second).is_ok());
        // The sender turns to another key within its incarnation.
        let by_first = keyring(1, &[K1, K2]).seal(frame(0, b"body"));
        assert!(both.open(&by_first).is_ok());
        let wrong = keyring(3, &[[9; 32]]).open(&by_first);
        assert_eq!(wrong, Err(FrameError::Authentication { node: 1 }));
    }

    #[test]
    fn names_what_is_wrong() {
        let sealed = keyring(1, &[K1]).seal(frame(3, b"body"));
        assert_eq!(keyring(2, &[K1]).open(&sealed), Err(FrameError::NotForUs));
        assert_eq!(keyring(1, &[K1]).open(&sealed), Err(FrameError::Own));
        let mut newer = sealed.clone();
        newer[4] = 2;
        assert_eq!(keyring(3, &[K1]).open(&newer), Err(FrameError::Version(2)));
        let other = SyncConfig::new(3, "lab", 7);
        let mut other = Keyring::new(&[K1], &other).unwrap();
        assert_eq!(other.open(&sealed), Err(FrameError::Cluster));
        assert_eq!(keyring(3, &[K1]).open(b"GET / HTTP/1.1"), Err(FrameError::Malformed));
    }

    #[test]
    fn flags_without_a_meaning_are_refused() {
        let config = |node| SyncConfig { plaintext: true, ..SyncConfig::new(node, "campus", 7) };
        let open = |kind: Kind, flags: u8| {
            let mut clear = Keyring::new(&[], &config(1)).unwrap().seal(frame(0, b"body"));
            (clear[5], clear[6]) = (kind as u8, FLAG_PLAINTEXT | flags);
            Keyring::new(&[], &config(2)).unwrap().open(&clear).map(|open| open.header.urgent)
        };
        assert_eq!(open(Kind::Update, 0), Ok(false));
        assert_eq!(open(Kind::Update, FLAG_URGENT), Ok(true));
        for bit in 2..8 {
            assert_eq!(open(Kind::Update, 1 << bit), Err(FrameError::Flags(1 << bit)));
        }
        // Nothing but an update is answered with an ACK.
        assert_eq!(open(Kind::Nack, FLAG_URGENT | 128), Err(FrameError::Flags(130)));
        assert_eq!(FrameError::Flags(4).counter(), Some(Counter::FrameFlags));
    }

    #[test]
    fn plaintext_and_sealed_frames_do_not_mix() {
        let config = |node| SyncConfig { plaintext: true, ..SyncConfig::new(node, "campus", 7) };
        let clear = Keyring::new(&[], &config(1)).unwrap().seal(frame(0, b"body"));
        assert_eq!(clear.len(), HEADER_LEN + 4);
        assert_eq!(Keyring::new(&[], &config(2)).unwrap().open(&clear).unwrap().body, b"body");
        assert!(keyring(2, &[K1]).open(&clear).is_err());
        let sealed = keyring(1, &[K1]).seal(frame(0, b"body"));
        assert!(Keyring::new(&[], &config(2)).unwrap().open(&sealed).is_err());
        // No key is no reason to send in clear, and a key is none to ignore it.
        assert!(Keyring::new(&[], &SyncConfig::new(1, "campus", 7)).is_err());
        assert!(Keyring::new(&[K1], &config(1)).is_err());
    }

    #[test]
    fn a_key_that_was_taken_away_opens_nothing() {
        let mut receiver = keyring(2, &[K1]);
        assert!(receiver.open(&keyring(1, &[K1]).seal(frame(0, b"body"))).is_ok());
        assert_eq!(receiver.rekey(&[K2, K1]), Ok(true));
        assert!(receiver.open(&keyring(1, &[K1]).seal(frame(0, b"body"))).is_ok());
        assert!(receiver.rekey(&[]).is_err());
        assert!(receiver.rekey(&[[0; 32]; MAX_KEYS + 1]).is_err());
        assert_eq!(receiver.rekey(&[K2, K1]), Ok(false), "a refusal left them as they were");
        assert_eq!(receiver.rekey(&[K2]), Ok(true));
        assert!(receiver.open(&keyring(1, &[K1]).seal(frame(0, b"body"))).is_err());
        assert!(receiver.open(&keyring(1, &[K2]).seal(frame(0, b"body"))).is_ok());
        let mut clear =
            Keyring::new(&[], &SyncConfig { plaintext: true, ..SyncConfig::new(1, "c", 7) });
        assert!(clear.as_mut().unwrap().rekey(&[K1]).is_err(), "plaintext stays plaintext");
    }

    #[test]
    fn ciphers_of_many_incarnations_stay_bounded() {
        let mut receiver = keyring(2, &[K1]);
        for epoch in 0..MAX_CIPHERS as u64 + 10 {
            let config = SyncConfig::new(1, "campus", epoch);
            let header = Header { epoch, ..*frame(0, b"").header() };
            let sealed = Keyring::new(&[K1], &config)
                .unwrap()
                .seal(Transmit::new(header, Transmit::buffer(0)));
            assert!(receiver.open(&sealed).is_ok());
        }
        assert_eq!(receiver.ciphers.len(), MAX_CIPHERS);
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_noticed(
            body in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0u8..8
        ) {
            let mut sealed = keyring(1, &[K1]).seal(frame(0, &body));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(keyring(2, &[K1]).open(&sealed).is_err());
        }

        #[test]
        fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(keyring(2, &[K1]).open(&bytes).is_err());
        }
    }
}
