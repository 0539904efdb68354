//! What Python gets to see, as dictionaries.

use std::net::IpAddr;

use jsync_core::addr::Pool6;
use jsync_core::sync::PeerStatus;
use jsync_core::sync::joold::Talker;
use jsync_core::table::{BibRecord, SessionRecord};
use jsync_core::time::Time;
use pyo3::IntoPyObject;

#[derive(IntoPyObject)]
pub struct Session {
    proto: &'static str,
    src6: String,
    src6_port: u16,
    dst6: String,
    dst6_port: u16,
    src4: String,
    src4_port: u16,
    dst4: String,
    dst4_port: u16,
    state: &'static str,
    expires_ms: u32,
}

impl Session {
    pub fn new(record: &SessionRecord, pool6: Pool6) -> Self {
        let key = &record.key;
        // RFC 6146 §3.5.3: the IPv6 side of an ICMP session knows one identifier only.
        let dst6_port = match key.proto {
            jsync_core::tuple::Proto::Icmp => key.src6.port,
            _ => key.dst4.port,
        };
        Self {
            proto: key.proto.name(),
            src6: key.src6.addr.to_string(),
            src6_port: key.src6.port,
            dst6: pool6.embed(key.dst4.addr).to_string(),
            dst6_port,
            src4: key.src4.addr.to_string(),
            src4_port: key.src4.port,
            dst4: key.dst4.addr.to_string(),
            dst4_port: key.dst4.port,
            state: record.state.name(),
            expires_ms: record.lifetime_ms,
        }
    }
}

#[derive(IntoPyObject)]
pub struct Bib {
    proto: &'static str,
    src6: String,
    src6_port: u16,
    src4: String,
    src4_port: u16,
    #[pyo3(item("static"))]
    is_static: bool,
    sessions: u32,
}

impl From<BibRecord> for Bib {
    fn from(record: BibRecord) -> Self {
        Self {
            proto: record.proto.name(),
            src6: record.src6.addr.to_string(),
            src6_port: record.src6.port,
            src4: record.src4.addr.to_string(),
            src4_port: record.src4.port,
            is_static: record.is_static,
            sessions: record.sessions,
        }
    }
}

#[derive(IntoPyObject)]
pub struct Peer {
    node: u16,
    epoch: u64,
    state: &'static str,
    ready: bool,
    heard_ms_ago: u64,
    frames_received: u64,
    gaps: u64,
    acknowledged: u64,
    unacknowledged: u64,
    mismatch: Option<String>,
}

impl From<PeerStatus> for Peer {
    fn from(peer: PeerStatus) -> Self {
        Self {
            node: peer.node,
            epoch: peer.epoch,
            state: peer.state,
            ready: peer.ready,
            heard_ms_ago: peer.heard_ms_ago,
            frames_received: peer.frames_received,
            gaps: peer.gaps,
            acknowledged: peer.acknowledged,
            unacknowledged: peer.unacknowledged,
            mismatch: peer.mismatch.map(|field| field.to_string()),
        }
    }
}

#[derive(IntoPyObject)]
pub struct Joold {
    address: String,
    format: &'static str,
    heard_ms_ago: u64,
    datagrams: u64,
    sessions: u64,
    refused: u64,
}

impl Joold {
    pub fn new(now: Time, (address, talker): (IpAddr, Talker)) -> Self {
        Self {
            address: address.to_string(),
            format: talker.format.name(),
            heard_ms_ago: now.millis_since(talker.heard),
            datagrams: talker.datagrams,
            sessions: talker.sessions,
            refused: talker.refused,
        }
    }
}

#[derive(IntoPyObject)]
pub struct Status {
    pub ready: bool,
    pub reason: String,
    pub catching_up: Option<u16>,
    pub sessions: u32,
    pub bib_entries: u32,
    pub max_sessions: u32,
    pub table_bytes: usize,
    pub worker: String,
    pub held_packets: usize,
    pub longest_pause_us: u64,
}
