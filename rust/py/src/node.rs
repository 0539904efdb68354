//! The class `Node`.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use jsync_core::config::Config;
use jsync_core::nat64::Nat64;
use jsync_core::sync::joold::BridgeConfig;
use jsync_core::sync::{Keyring, SyncConfig, Transmit};
use jsync_core::table::Side;
use jsync_core::tuple::Proto;
use jsync_core::{node, time::Time};
use jsync_io::{Driver, Tun};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::Driven;
use crate::error::Error;
use crate::joold::parse_format;
use crate::rows::{Bib, Joold, Peer, Session, Status};

/// Lines of the log that are fetched at once.
const EVENTS: usize = 1024;
/// Places of the table that are looked at without letting the worker in between.
const SCAN_BUDGET: usize = 256;

/// One NAT64 node: table, translator, session synchronisation, and the worker on the TUN.
#[pyclass(frozen, module = "jsync._core")]
#[derive(Debug)]
pub struct Node {
    driver: Driver<Driven>,
    /// None without synchronisation. Apart from the node, so that cryptography holds up no packet.
    keyring: Option<Mutex<Keyring>>,
}

#[pymethods]
impl Node {
    #[new]
    #[pyo3(signature = (nat64, sync, *, keys, secret, joold = None, module = None))]
    fn new(
        nat64: &[u8],
        sync: Option<&[u8]>,
        keys: Vec<PyBackedBytes>,
        secret: &[u8],
        joold: Option<&[u8]>,
        module: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let nat64 = nat64_config(nat64)?;
        let sync = sync.map(|sync| from_json::<SyncConfig>("sync", sync)).transpose()?;
        let keys = parse_keys(&keys)?;
        let secret = secret.try_into().map_err(|_| Error::Argument("secret: must be 32 bytes"))?;
        let keyring = sync.as_ref().map(|sync| Keyring::new(&keys, sync)).transpose()?;
        let mut node = node::Node::new(nat64, sync, secret)?;
        for (side, what, config) in
            [(Side::Joolds, "joold", joold), (Side::Module, "module", module)]
        {
            if let Some(config) = config {
                node = node.with_bridge(side, &from_json::<BridgeConfig>(what, config)?)?;
            }
        }
        if module.is_some() {
            node = node.apart();
        }
        let driver = Driver::new(Driven::new(node))?;
        Ok(Self { driver, keyring: keyring.map(Mutex::new) })
    }

    #[pyo3(signature = (device, *, persistent))]
    fn attach(&self, py: Python<'_>, device: &str, persistent: bool) -> Result<(), Error> {
        py.detach(|| self.driver.attach(|| Tun::open(device, persistent)))?;
        Ok(())
    }

    #[pyo3(signature = (devices, *, persistent))]
    fn follow_marks(
        &self,
        py: Python<'_>,
        devices: Vec<(u32, String)>,
        persistent: bool,
    ) -> Result<(), Error> {
        let marks: Vec<u32> = devices.iter().map(|&(mark, _)| mark).collect();
        if marks.contains(&0) {
            return Err(Error::Argument("devices: mark 0 is that of the attached device"));
        }
        py.detach(|| {
            self.driver.follow_marks(&marks, |wanted| {
                let device = devices.iter().find(|&&(mark, _)| mark == wanted);
                Tun::open(device.map_or("", |(_, name)| name), persistent)
            })
        })?;
        Ok(())
    }

    fn detach(&self, py: Python<'_>) -> Result<(), Error> {
        py.detach(|| self.driver.detach())?;
        Ok(())
    }

    fn fileno(&self) -> i32 {
        self.driver.output_fd().as_raw_fd()
    }

    #[pyo3(signature = (limit = 64))]
    fn take_frames<'py>(&self, py: Python<'py>, limit: usize) -> Vec<(u16, Bound<'py, PyBytes>)> {
        let Some(keyring) = &self.keyring else { return Vec::new() };
        // The node is locked for one frame at a time: packets needn't wait for a whole snapshot.
        let frames: Vec<(u16, Vec<u8>)> = py.detach(|| {
            // Who asks for more has sent what it got before.
            self.driver.update(Driven::handle_sent);
            let next = || self.driver.update(Driven::fetch_frame);
            std::iter::from_fn(next)
                .take(limit)
                .map(|frame: Transmit| (frame.to(), keyring.lock().seal(frame)))
                .collect()
        });
        frames.into_iter().map(|(to, frame)| (to, PyBytes::new(py, &frame))).collect()
    }

    fn receive_frames(&self, py: Python<'_>, frames: Vec<PyBackedBytes>) -> Vec<u16> {
        py.detach(|| frames.iter().map(|frame| self.receive_frame(frame)).collect())
    }

    #[pyo3(signature = (limit = 64, *, module = false))]
    fn take_datagrams<'py>(
        &self,
        py: Python<'py>,
        limit: usize,
        module: bool,
    ) -> Vec<Bound<'py, PyBytes>> {
        let side = side(module);
        let datagrams: Vec<_> = py.detach(|| {
            let next = || self.driver.update(|driven, now| driven.poll_datagram(now, side));
            std::iter::from_fn(next).take(limit).collect()
        });
        datagrams.into_iter().map(|datagram| PyBytes::new(py, &datagram)).collect()
    }

    #[pyo3(signature = (datagrams, *, module = false))]
    fn receive_datagrams(
        &self,
        py: Python<'_>,
        datagrams: Vec<(IpAddr, PyBackedBytes)>,
        module: bool,
    ) -> Vec<bool> {
        let side = side(module);
        let receive = |&from: &IpAddr, bytes: &[u8]| {
            self.driver.update(|driven, now| driven.node.handle_datagram(now, side, from, bytes))
        };
        py.detach(|| datagrams.iter().map(|(from, bytes)| receive(from, bytes)).collect())
    }

    fn receive_page(&self, py: Python<'_>, page: PyBackedBytes) -> usize {
        py.detach(|| self.driver.update(|driven, now| driven.node.handle_page(now, &page)))
    }

    fn take_part(&self, py: Python<'_>) {
        py.detach(|| self.driver.update(|driven, _| driven.node.take_part()));
    }

    fn rekey(&self, py: Python<'_>, keys: Vec<PyBackedBytes>) -> Result<bool, Error> {
        let keys = parse_keys(&keys)?;
        let Some(keyring) = &self.keyring else { return Ok(false) };
        Ok(py.detach(|| keyring.lock().rekey(&keys))?)
    }

    fn advertise(&self, py: Python<'_>) {
        py.detach(|| self.driver.update(|driven, now| driven.node.advertise(now)));
    }

    #[pyo3(signature = (*, all))]
    fn advertise_to_module(&self, py: Python<'_>, all: bool) {
        py.detach(|| self.driver.update(|driven, now| driven.node.advertise_to_module(now, all)));
    }

    #[pyo3(signature = (format, *, module = false))]
    fn pin_format(&self, py: Python<'_>, format: &str, module: bool) -> Result<(), Error> {
        let (format, side) = (parse_format(format)?, side(module));
        py.detach(|| self.driver.update(|driven, _| driven.node.pin_format(side, format)));
        Ok(())
    }

    fn tell_joolds_in(&self, py: Python<'_>, format: &str) -> Result<(), Error> {
        let format = parse_format(format)?;
        py.detach(|| self.driver.update(|driven, _| driven.node.tell_joolds_in(format)));
        Ok(())
    }

    fn joolds(&self, py: Python<'_>) -> Vec<Joold> {
        py.detach(|| {
            let now = jsync_io::now();
            self.driver.read(|d| d.node.talkers(Side::Joolds).map(|t| Joold::new(now, t)).collect())
        })
    }

    fn take_events(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| {
            let notice = self.driver.take_notice().map(|state| state.to_string());
            // A busy log is fetched in parts, so that packets don't wait for it.
            let events: Vec<_> = self.driver.update(|driven, _| {
                std::iter::from_fn(|| driven.poll_event()).take(EVENTS).collect()
            });
            notice.into_iter().chain(events).collect()
        })
    }

    fn config<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let json = py.detach(|| {
            let config = self.driver.read(|driven| driven.node.nat64().config().clone());
            serde_json::to_vec(&config).expect("a configuration has only string keys")
        });
        PyBytes::new(py, &json)
    }

    fn update_global(&self, py: Python<'_>, options: &[u8]) -> Result<(), Error> {
        let options: serde_json::Map<String, Value> = from_json("global", options)?;
        self.change(py, |nat64| {
            let mut globals = serde_json::to_value(&nat64.config().global)
                .expect("a configuration has only string keys");
            if let Value::Object(globals) = &mut globals {
                globals.extend(options);
            }
            Ok(nat64.set_globals(from_value(globals)?)?)
        })
    }

    fn pool4_add(&self, py: Python<'_>, entry: &[u8]) -> Result<(), Error> {
        let entry = from_json("pool4", entry)?;
        self.change(py, |nat64| Ok(nat64.pool4_add(entry)?))
    }

    fn pool4_remove(&self, py: Python<'_>, entry: &[u8]) -> Result<(), Error> {
        let entry = from_json("pool4", entry)?;
        self.change(py, |nat64| Ok(nat64.pool4_remove(&entry)?))
    }

    fn pool4_exclude(&self, py: Python<'_>, gone: &[u8]) -> Result<(), Error> {
        let gone = from_json("pool4", gone)?;
        self.change(py, |nat64| Ok(nat64.pool4_exclude(&gone)?))
    }

    fn pool4_replace(&self, py: Python<'_>, entries: &[u8]) -> Result<(), Error> {
        let entries = from_json("pool4", entries)?;
        self.change(py, |nat64| Ok(nat64.pool4_replace(entries)?))
    }

    fn bib_add(&self, py: Python<'_>, entry: &[u8]) -> Result<(), Error> {
        let entry = from_json("bib", entry)?;
        self.change(py, |nat64| Ok(nat64.bib_add(entry)?))
    }

    fn bib_remove(
        &self,
        py: Python<'_>,
        proto: &str,
        ipv6: Option<&str>,
        ipv4: Option<&str>,
    ) -> Result<(), Error> {
        let proto = parse_proto(proto)?;
        let ipv6 = ipv6.map(str::parse).transpose()?;
        let ipv4 = ipv4.map(str::parse).transpose()?;
        self.change(py, |nat64| Ok(nat64.bib_remove(proto, ipv6, ipv4)?))
    }

    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.driver.update(|driven, _| driven.node.leave()));
    }

    fn status(&self, py: Python<'_>) -> Status {
        py.detach(|| {
            let worker = self.driver.state().to_string();
            let longest_pause_us = self.driver.longest_pause().as_micros() as u64;
            self.driver.read(|driven| {
                let (node, nat64) = (&driven.node, driven.node.nat64());
                Status {
                    ready: node.ready(),
                    reason: node.reason().to_string(),
                    catching_up: node.catching_up(),
                    sessions: nat64.session_count(),
                    bib_entries: nat64.bib_count(),
                    max_sessions: nat64.config().max_sessions,
                    table_bytes: nat64.table_bytes(),
                    worker,
                    held_packets: nat64.held_packets(),
                    longest_pause_us,
                }
            })
        })
    }

    fn peers(&self, py: Python<'_>) -> Vec<Peer> {
        py.detach(|| {
            let peers: Vec<_> = self.driver.read(|d| d.node.peers(jsync_io::now()).collect());
            peers.into_iter().map(Peer::from).collect()
        })
    }

    fn stats(&self, py: Python<'_>) -> Vec<(&'static str, &'static str, u64)> {
        py.detach(|| self.driver.read(|driven| driven.node.nat64().stats.clone()).iter().collect())
    }

    fn sessions(
        &self,
        py: Python<'_>,
        proto: Option<&str>,
        cursor: u32,
        limit: usize,
    ) -> Result<(Vec<Session>, Option<u32>), Error> {
        let proto = proto.map(parse_proto).transpose()?;
        Ok(py.detach(|| {
            let pool6 = self.driver.read(|driven| driven.node.nat64().config().pool6);
            let wanted = |p| proto.is_none_or(|proto| proto == p);
            let (records, cursor) = self.page(cursor, limit, |node, now, cursor, budget, out| {
                node.nat64().scan(now, cursor, budget, &mut |record| {
                    if wanted(record.key.proto) {
                        out.push(record);
                    }
                })
            });
            (records.iter().map(|record| Session::new(record, pool6)).collect(), cursor)
        }))
    }

    fn bib(
        &self,
        py: Python<'_>,
        proto: Option<&str>,
        cursor: u32,
        limit: usize,
    ) -> Result<(Vec<Bib>, Option<u32>), Error> {
        let proto = proto.map(parse_proto).transpose()?;
        Ok(py.detach(|| {
            let wanted = |p| proto.is_none_or(|proto| proto == p);
            let (records, cursor) = self.page(cursor, limit, |node, _, cursor, budget, out| {
                node.nat64().bib_scan(cursor, budget, &mut |record| {
                    if wanted(record.proto) {
                        out.push(record);
                    }
                })
            });
            (records.into_iter().map(Bib::from).collect(), cursor)
        }))
    }
}

impl Node {
    /// Changes the translator's configuration.
    fn change(
        &self,
        py: Python<'_>,
        change: impl FnOnce(&mut Nat64) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        py.detach(|| self.driver.update(|driven, now| driven.node.reconfigure(now, change)))
    }

    /// Opens a frame without holding up the node, then hands it over. Its sender, or 0.
    fn receive_frame(&self, frame: &[u8]) -> u16 {
        let Some(keyring) = &self.keyring else { return 0 };
        let opened = keyring.lock().open(frame);
        self.driver.update(|driven, now| match &opened {
            Ok(frame) if driven.node.handle_frame(now, frame) => frame.header.node,
            Ok(_) => 0,
            Err(error) => {
                driven.node.refuse_frame(now, *error);
                0
            }
        })
    }

    /// Up to `limit` of what `scan` finds, and the next cursor. A place holds one thing at most.
    fn page<T>(
        &self,
        cursor: u32,
        limit: usize,
        scan: impl Fn(&node::Node, Time, u32, usize, &mut Vec<T>) -> Option<u32>,
    ) -> (Vec<T>, Option<u32>) {
        let mut found = Vec::new();
        let mut next = Some(cursor);
        while let Some(cursor) = next
            && found.len() < limit
        {
            let budget = SCAN_BUDGET.min(limit - found.len());
            let now = jsync_io::now();
            next = self.driver.read(|d| scan(&d.node, now, cursor, budget, &mut found));
        }
        (found, next)
    }
}

fn side(module: bool) -> Side {
    if module { Side::Module } else { Side::Joolds }
}

/// The translator's configuration in JSON, not validated yet.
pub fn nat64_config(bytes: &[u8]) -> Result<Config, Error> {
    from_json("nat64", bytes)
}

/// Reads JSON; errors name `what` and the key.
fn from_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    let value = serde_json::from_slice(bytes)
        .map_err(|error| Error::Config(format!("{what}: not JSON: {error}")))?;
    from_value(value)
}

/// Reads a value; errors name the key.
fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let inner = for_people(error.into_inner().to_string());
        Error::Config(if path == "." { inner } else { format!("{path}: {inner}") })
    })
}

/// serde names Rust's types where a number is none or too large.
fn for_people(message: String) -> String {
    let types = [("u8", u8::MAX.into()), ("u16", u16::MAX.into()), ("u32", u32::MAX.into())];
    for (name, most) in types.into_iter().chain([("u64", u64::MAX)]) {
        if let Some(found) = message.strip_suffix(&format!("expected {name}")) {
            return format!("{found}expected a whole number from 0 to {most}");
        }
    }
    message
}

pub fn parse_keys(keys: &[PyBackedBytes]) -> Result<Vec<[u8; 32]>, Error> {
    let keys: Result<Vec<_>, _> = keys.iter().map(|key| <[u8; 32]>::try_from(&key[..])).collect();
    keys.map_err(|_| Error::Argument("keys: each must be 32 bytes"))
}

fn parse_proto(name: &str) -> Result<Proto, Error> {
    Proto::ALL
        .into_iter()
        .find(|proto| proto.name() == name)
        .ok_or(Error::Argument("proto: must be tcp, udp or icmp"))
}
