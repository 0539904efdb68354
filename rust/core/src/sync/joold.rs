//! joold's datagrams: sessions as instances of Jool tell each other of them, and as the kernel
//! module and its daemon do.
//!
//! A datagram is a run of netlink attributes, one a session, with nothing before or between them:
//! length (its own four bytes included) and type, 16 bits each, in the byte order of the host that
//! made it. Nothing names the format, but the attributes of the three that exist differ:
//!
//! | Jool | length, type | content |
//! |---|---|---|
//! | up to 4.1.11 | 140, 0x8001 | nested attributes, see [`nested`] |
//! | 4.1.12 | 52, 1 | src6, dst6 and src4, see [`flat`] |
//! | 4.1.13 and later | 40, 1 | src6, src4 and dst4, see [`flat`] |
//!
//! A datagram is taken whole or refused whole as far as its attributes go. A session in it that
//! contradicts itself is refused alone.

mod bridge;
mod flat;
mod nested;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

pub use bridge::{Bridge, BridgeConfig, Bridged, Talker};

use crate::addr::Pool6;
use crate::stats::Counter;
use crate::table::{SessionKey, State};
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// The longest datagram: joold reads no more.
pub const MAX_DATAGRAM: usize = 2048;

/// How long Jool keeps the SYN of an IPv4 node (RFC 6146 §3.5.2.2, TCP_INCOMING_SYN).
pub const SYN4_MS: u32 = 6000;

/// Bytes of an attribute before its content.
const HEADER_LEN: usize = 4;

/// How sessions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Jool 4.1.9 to 4.1.11.
    Nested,
    /// Jool 4.1.12.
    WithDst6,
    /// Jool 4.1.13 and later.
    WithDst4,
}

impl Format {
    /// Every format, the oldest first.
    pub const ALL: [Self; 3] = [Self::Nested, Self::WithDst6, Self::WithDst4];

    /// The first version of Jool that we know to write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nested => "4.1.9",
            Self::WithDst6 => "4.1.12",
            Self::WithDst4 => "4.1.13",
        }
    }

    /// Bytes of a session's attribute.
    const fn attribute_len(self) -> usize {
        HEADER_LEN
            + match self {
                Self::Nested => nested::LEN,
                Self::WithDst6 => flat::WITH_DST6_LEN,
                Self::WithDst4 => flat::WITH_DST4_LEN,
            }
    }

    /// The most sessions that are put in a datagram. Of 4.1.13 as many as Jool puts. Of the others
    /// as many as an Ethernet frame holds: Jool 4.1.9 puts 11, which leave in two fragments.
    pub const fn sessions_per_datagram(self) -> usize {
        match self {
            Self::Nested => 10,
            Self::WithDst6 => 27,
            Self::WithDst4 => 36,
        }
    }

    /// Length and type of a session's attribute.
    const fn header(self) -> (u16, u16) {
        let kind = match self {
            Self::Nested => 0x8001,
            Self::WithDst6 | Self::WithDst4 => 1,
        };
        (self.attribute_len() as u16, kind)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    /// A version of Jool: one of those in [`Format::name`].
    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or(UnknownFormat)
    }
}

/// A text that names no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFormat;

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no format of joold's; write 4.1.9 (for 4.1.9 to 4.1.11), 4.1.12, or 4.1.13 (for that \
             and later)",
        )
    }
}

impl core::error::Error for UnknownFormat {}

/// Which of Jool's timers a session is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Timer {
    /// That of the protocol; for TCP the one of established connections.
    Established = 0,
    /// The one of transitory TCP connections.
    Transitory = 1,
    /// The six seconds for which the SYN of an IPv4 node is kept.
    Syn4 = 2,
}

impl Timer {
    /// Every timer, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Established, Self::Transitory, Self::Syn4];

    const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Established,
            1 => Self::Transitory,
            2 => Self::Syn4,
            _ => return None,
        })
    }

    /// Its name, as Jool's sources have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "EST",
            Self::Transitory => "TRANS",
            Self::Syn4 => "SYN4",
        }
    }

    /// The timer on which a session of that state runs here.
    pub const fn of(proto: Proto, state: State) -> Self {
        match (proto, state) {
            (Proto::Udp | Proto::Icmp, _)
            | (_, State::Established | State::V4FinRcv | State::V6FinRcv) => Self::Established,
            _ => Self::Transitory,
        }
    }
}

/// A session as joold tells it. dst6 is pool6 + dst4, and is checked where it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which session.
    pub key: SessionKey,
    /// Its TCP state.
    pub state: State,
    /// Its timer.
    pub timer: Timer,
    /// Milliseconds that it has left.
    pub lifetime_ms: u32,
}

/// Why a datagram is none of joold's, or not of the format that it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramError {
    /// It has no bytes.
    Empty,
    /// It is longer than joold reads.
    Oversized(usize),
    /// Its last attribute goes on behind its end.
    Truncated,
    /// Something stands behind the last session that is no session.
    Padded,
    /// It has sessions of two formats.
    Mixed(Format, Format),
    /// It was made by a machine of the other byte order.
    ForeignEndian,
    /// An attribute has the length of one format and the type of another.
    Ambiguous {
        /// The attribute's length.
        len: u16,
        /// The attribute's type.
        kind: u16,
    },
    /// An attribute is of no format.
    Unknown {
        /// The attribute's length.
        len: u16,
        /// The attribute's type.
        kind: u16,
    },
    /// The attributes within a session aren't those that they should be.
    Malformed,
    /// It has another format than the configuration says.
    Unexpected {
        /// What it has.
        found: Format,
        /// What the configuration says.
        pinned: Format,
    },
}

impl DatagramError {
    /// Its counter.
    pub const fn counter(self) -> Counter {
        match self {
            Self::Empty | Self::Unknown { .. } | Self::Malformed => Counter::JooldMalformed,
            Self::Oversized(_) => Counter::JooldOversized,
            Self::Truncated => Counter::JooldTruncated,
            Self::Padded => Counter::JooldPadded,
            Self::Mixed(..) => Counter::JooldMixed,
            Self::ForeignEndian => Counter::JooldForeignEndian,
            Self::Ambiguous { .. } => Counter::JooldAmbiguous,
            Self::Unexpected { .. } => Counter::JooldOtherFormat,
        }
    }
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Oversized(len) => {
                write!(f, "oversized: it has {len} bytes, and joold reads at most {MAX_DATAGRAM}")
            }
            Self::Truncated => f.write_str("truncated: its last session goes on behind its end"),
            Self::Padded => f.write_str("padded: something stands behind the last session"),
            Self::Mixed(one, other) => {
                write!(f, "mixed: it has sessions of Jool {one} and of Jool {other}")
            }
            Self::ForeignEndian => {
                f.write_str("foreign-endian: a machine of the other byte order made it")
            }
            Self::Ambiguous { len, kind } => write!(
                f,
                "ambiguous: length {len} and type {kind:#x} are of different formats of joold's"
            ),
            Self::Unknown { len, kind } => {
                write!(f, "no session of joold's: an attribute of length {len} and type {kind:#x}")
            }
            Self::Malformed => f.write_str("malformed: not the attributes of a session"),
            Self::Unexpected { found, pinned } => {
                write!(f, "it has the format of Jool {found}, and {pinned} is configured")
            }
        }
    }
}

impl core::error::Error for DatagramError {}

/// Why a session in a datagram is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// There is no protocol of that number.
    Protocol(u16),
    /// There is no state of that number, or not for that protocol.
    State(u8),
    /// There is no timer of that number.
    Timer(u8),
    /// dst6 isn't in pool6.
    NotPool6(Ipv6Addr),
    /// The ports or identifiers of its two sides contradict each other.
    Ports,
    /// dst6 and dst4 contradict each other.
    Destination,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(number) => write!(f, "protocol {number} doesn't exist"),
            Self::State(number) => write!(f, "state {number} doesn't exist for its protocol"),
            Self::Timer(number) => write!(f, "timer {number} doesn't exist"),
            Self::NotPool6(addr) => write!(f, "dst6 {addr} isn't in pool6"),
            Self::Ports => f.write_str("its ports on the two sides contradict each other"),
            Self::Destination => f.write_str("dst6 and dst4 contradict each other"),
        }
    }
}

impl core::error::Error for SessionError {}

/// The sessions of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The format that it has.
    pub format: Format,
    /// Each session in turn, or why it is none.
    pub sessions: Vec<Result<Session, SessionError>>,
}

/// Reads a datagram, of the `pinned` format if there is one. `pool6` is where dst6 lies.
///
/// # Errors
/// See [`DatagramError`].
pub fn decode(
    datagram: &[u8],
    pinned: Option<Format>,
    pool6: Pool6,
) -> Result<Decoded, DatagramError> {
    if datagram.len() > MAX_DATAGRAM {
        return Err(DatagramError::Oversized(datagram.len()));
    }
    let format = recognise(datagram)?;
    if let Some(pinned) = pinned.filter(|&pinned| pinned != format) {
        return Err(DatagramError::Unexpected { found: format, pinned });
    }
    let mut sessions = Vec::with_capacity(datagram.len() / format.attribute_len());
    for attribute in datagram.chunks_exact(format.attribute_len()) {
        let content = &attribute[HEADER_LEN..];
        let fields = match format {
            Format::Nested => nested::take(content),
            Format::WithDst6 => flat::take_with_dst6(content),
            Format::WithDst4 => flat::take_with_dst4(content),
        };
        sessions.push(fields.ok_or(DatagramError::Malformed)?.session(pool6));
    }
    Ok(Decoded { format, sessions })
}

/// The format of all attributes of a datagram.
fn recognise(datagram: &[u8]) -> Result<Format, DatagramError> {
    let mut rest = datagram;
    let mut format = None;
    while !rest.is_empty() {
        let found = match recognise_first(rest) {
            // What comes first says what the whole is; what comes last is what is left of it.
            Err(DatagramError::Unknown { .. } | DatagramError::Truncated)
                if format.is_some() && is_padding(rest) =>
            {
                Err(DatagramError::Padded)
            }
            found => found,
        }?;
        match format.replace(found) {
            Some(before) if before != found => return Err(DatagramError::Mixed(before, found)),
            _ => {}
        }
        rest = rest.get(found.attribute_len()..).ok_or(DatagramError::Truncated)?;
    }
    format.ok_or(DatagramError::Empty)
}

/// Whether what follows the sessions is no attribute at all: too short, or of length zero.
fn is_padding(rest: &[u8]) -> bool {
    rest.len() < HEADER_LEN || rest[..2] == [0, 0]
}

/// The format of the first attribute.
fn recognise_first(bytes: &[u8]) -> Result<Format, DatagramError> {
    let (len, kind) = header(bytes).ok_or(DatagramError::Truncated)?;
    let of = |len, kind| Format::ALL.into_iter().find(|format| format.header() == (len, kind));
    if let Some(format) = of(len, kind) {
        return Ok(format);
    }
    if of(len.swap_bytes(), kind.swap_bytes()).is_some() {
        return Err(DatagramError::ForeignEndian);
    }
    let known = |len| Format::ALL.into_iter().any(|format| format.header().0 == len);
    if known(len) && Format::ALL.into_iter().any(|format| format.header().1 == kind) {
        return Err(DatagramError::Ambiguous { len, kind });
    }
    Err(DatagramError::Unknown { len, kind })
}

/// Length and type of the attribute at the front.
fn header(bytes: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *bytes.first_chunk::<HEADER_LEN>()?;
    Some((u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])))
}

/// Appends a session; `pool6` is where its dst6 lies.
pub fn encode(out: &mut Vec<u8>, format: Format, pool6: Pool6, session: &Session) {
    let (len, kind) = format.header();
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    let dst6 = session.dst6(pool6);
    match format {
        Format::Nested => nested::put(out, session, dst6),
        Format::WithDst6 => flat::put_with_dst6(out, session, dst6),
        Format::WithDst4 => flat::put_with_dst4(out, session),
    }
}

impl Session {
    /// The IPv4 node as the IPv6 node sees it. An ICMP session has one identifier on each side.
    pub fn dst6(&self, pool6: Pool6) -> Endpoint6 {
        let port = match self.key.proto {
            Proto::Icmp => self.key.src6.port,
            Proto::Tcp | Proto::Udp => self.key.dst4.port,
        };
        Endpoint6 { addr: pool6.embed(self.key.dst4.addr), port }
    }
}

/// The fields of a session as they came, of which a format carries some.
struct Fields {
    proto: u16,
    state: u8,
    timer: u8,
    src6: Endpoint6,
    dst6: Option<Endpoint6>,
    src4: Endpoint4,
    dst4: Option<Endpoint4>,
    lifetime_ms: u32,
}

impl Fields {
    /// The session that they make, if they agree with each other.
    fn session(self, pool6: Pool6) -> Result<Session, SessionError> {
        let number = u8::try_from(self.proto).ok();
        let proto = number.and_then(Proto::from_u8).ok_or(SessionError::Protocol(self.proto))?;
        let state = State::from_u8(self.state)
            .filter(|&state| proto == Proto::Tcp || state == State::Established)
            .ok_or(SessionError::State(self.state))?;
        let timer = Timer::from_u8(self.timer).ok_or(SessionError::Timer(self.timer))?;
        let dst4 = match (self.dst4, self.dst6) {
            (Some(dst4), _) => dst4,
            (None, Some(dst6)) => {
                let addr = pool6.extract(&dst6.addr).ok_or(SessionError::NotPool6(dst6.addr))?;
                let port = if proto == Proto::Icmp { self.src4.port } else { dst6.port };
                Endpoint4 { addr, port }
            }
            (None, None) => return Err(SessionError::Destination),
        };
        let key = SessionKey { proto, src6: self.src6, src4: self.src4, dst4 };
        let session = Session { key, state, timer, lifetime_ms: self.lifetime_ms };
        if let Some(dst6) = self.dst6 {
            let addr = pool6.extract(&dst6.addr).ok_or(SessionError::NotPool6(dst6.addr))?;
            if addr != dst4.addr {
                return Err(SessionError::Destination);
            }
            if dst6.port != session.dst6(pool6).port {
                return Err(SessionError::Ports);
            }
        }
        if proto == Proto::Icmp && dst4.port != self.src4.port {
            return Err(SessionError::Ports);
        }
        Ok(session)
    }
}
