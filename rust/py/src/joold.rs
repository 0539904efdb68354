//! Datagrams of joold's and frames of our own, for who looks at them and for tests.

use jsync_core::addr::Pool6;
use jsync_core::sync::joold::{self, Decoded, Format, Session, Timer};
use jsync_core::sync::lens::{Told, look_into};
use jsync_core::table::{Change, SessionKey, State};
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::error::Error;
use crate::node::parse_keys;

/// A session as joold tells it.
#[derive(IntoPyObject, FromPyObject)]
#[pyo3(from_item_all)]
pub struct Row {
    proto: String,
    src6: String,
    src6_port: u16,
    dst6: String,
    dst6_port: u16,
    src4: String,
    src4_port: u16,
    dst4: String,
    dst4_port: u16,
    state: String,
    timer: String,
    expires_ms: u32,
}

impl Row {
    fn new(session: &Session, pool6: Pool6) -> Self {
        let (key, dst6) = (&session.key, session.dst6(pool6));
        Self {
            proto: key.proto.name().to_owned(),
            src6: key.src6.addr.to_string(),
            src6_port: key.src6.port,
            dst6: dst6.addr.to_string(),
            dst6_port: dst6.port,
            src4: key.src4.addr.to_string(),
            src4_port: key.src4.port,
            dst4: key.dst4.addr.to_string(),
            dst4_port: key.dst4.port,
            state: session.state.name().to_owned(),
            timer: session.timer.name().to_owned(),
            expires_ms: session.lifetime_ms,
        }
    }

    fn removed(key: SessionKey, pool6: Pool6) -> Self {
        let (state, timer) = (State::Established, Timer::of(key.proto, State::Established));
        let row = Self::new(&Session { key, state, timer, lifetime_ms: 0 }, pool6);
        Self { state: "REMOVED".to_owned(), timer: "NONE".to_owned(), ..row }
    }

    fn session(&self) -> Option<Session> {
        let proto = Proto::ALL.into_iter().find(|proto| proto.name() == self.proto)?;
        let state = (0..7).filter_map(State::from_u8).find(|state| state.name() == self.state)?;
        let timer = Timer::ALL.into_iter().find(|timer| timer.name() == self.timer)?;
        let src6 = Endpoint6 { addr: self.src6.parse().ok()?, port: self.src6_port };
        let src4 = Endpoint4 { addr: self.src4.parse().ok()?, port: self.src4_port };
        let dst4 = Endpoint4 { addr: self.dst4.parse().ok()?, port: self.dst4_port };
        let key = SessionKey { proto, src6, src4, dst4 };
        Some(Session { key, state, timer, lifetime_ms: self.expires_ms })
    }
}

/// Sessions of a datagram: its format, the sessions, and what is wrong with the others.
#[pyfunction]
#[pyo3(signature = (datagram, format = None, pool6 = "64:ff9b::/96"))]
pub fn decode_joold(
    datagram: &[u8],
    format: Option<&str>,
    pool6: &str,
) -> Result<(&'static str, Vec<Row>, Vec<String>), Error> {
    let format = format.map(parse_format).transpose()?;
    let pool6 = parse_pool6(pool6)?;
    let Decoded { format, sessions } = joold::decode(datagram, format, pool6)?;
    let mut rows = Vec::new();
    let mut errors = Vec::new();
    for session in sessions {
        match session {
            Ok(session) => rows.push(Row::new(&session, pool6)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    Ok((format.name(), rows, errors))
}

/// What a frame tells: its sender, and the sessions and removals with their versions.
#[pyfunction]
#[pyo3(signature = (frame, keys, pool6 = "64:ff9b::/96"))]
pub fn decode_frame(
    frame: &[u8],
    keys: Vec<PyBackedBytes>,
    pool6: &str,
) -> Result<(u16, Vec<(Row, u32)>), Error> {
    let (keys, pool6) = (parse_keys(&keys)?, parse_pool6(pool6)?);
    let Told { header, changes } = look_into(frame, &keys).map_err(Error::Frame)?;
    let row = |change: &Change| match change {
        Change::Upsert(record) => (Row::new(&record.into(), pool6), record.version),
        Change::Remove(key, version) => (Row::removed(*key, pool6), *version),
    };
    Ok((header.node, changes.iter().map(row).collect()))
}

/// Datagrams with these sessions.
#[pyfunction]
#[pyo3(signature = (sessions, format, pool6 = "64:ff9b::/96"))]
pub fn encode_joold<'py>(
    py: Python<'py>,
    sessions: Vec<Row>,
    format: &str,
    pool6: &str,
) -> Result<Vec<Bound<'py, PyBytes>>, Error> {
    let (format, pool6) = (parse_format(format)?, parse_pool6(pool6)?);
    let sessions = sessions.iter().map(Row::session).collect::<Option<Vec<_>>>();
    let sessions = sessions.ok_or(Error::Argument("sessions: one of them is none"))?;
    let datagrams = sessions.chunks(format.sessions_per_datagram()).map(|sessions| {
        let mut out = Vec::new();
        sessions.iter().for_each(|session| joold::encode(&mut out, format, pool6, session));
        PyBytes::new(py, &out)
    });
    Ok(datagrams.collect())
}

pub fn parse_format(text: &str) -> Result<Format, Error> {
    text.parse().map_err(|_| Error::Argument("format: must be 4.1.9, 4.1.12 or 4.1.13"))
}

fn parse_pool6(text: &str) -> Result<Pool6, Error> {
    text.parse().map_err(|_| Error::Argument("pool6: must be a prefix such as 64:ff9b::/96"))
}
