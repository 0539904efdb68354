//! One machine: a node that may run or not, its clock, its keepalived.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use jsync_core::config::{Config, ConfigError};
use jsync_core::node::Node;
use jsync_core::packet::{HEADROOM, Offload, Outcome, Packet};
use jsync_core::sync::frame::Kind;
use jsync_core::sync::{Keyring, OpenFrame, SyncConfig};
use jsync_core::table::SessionKey;
use jsync_core::time::Time;
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};

use crate::clock::{Clock, Micros, millis, seconds};
use crate::cluster::{Setup, Table};
use crate::rng::Rng;
use crate::vrrp::{PREEMPT_DELAY, Role, Router, Say};

/// Frames or packets that a node may have to say at once: more is a flood.
const DRAIN_LIMIT: usize = 4096;
/// Frames that wait in the socket of a machine that is slow to read.
const BUFFERED: usize = 64;
/// Packets that wait in the queue of a TUN of which nobody reads.
const QUEUED: usize = 500;
/// How long keepalived waits for `jsync check` until it takes the machine for broken: two runs of
/// five seconds.
const CHECK_PATIENCE: Micros = seconds(10);
/// Places of the table that one step of a scan looks at.
const SCAN_BUDGET: usize = 4096;

/// Bytes of an update before its sessions, of a session, of a removal.
const UPDATE_HEAD: usize = 8;
const SESSION: usize = 39;
const REMOVAL: usize = 35;

/// What a node had to say after something was done to it.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Packets for the hosts.
    pub packets: Vec<Vec<u8>>,
    /// Sealed frames for the other nodes.
    pub frames: Vec<Vec<u8>>,
    /// Lines for the log.
    pub events: Vec<String>,
    /// What a node must never do.
    pub violations: Vec<String>,
}

/// A running daemon.
#[derive(Debug)]
struct Daemon {
    node: Node,
    keyring: Option<Keyring>,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Whether its cables are in.
    pub plugged: bool,
    /// How often its daemon has started.
    pub boots: u32,
    /// Removals that its daemon was told of and accepted, with their versions.
    pub removals: BTreeMap<SessionKey, u32>,
    pub(crate) id: u16,
    pub(crate) keys: Vec<[u8; 32]>,
    pub(crate) router: Router,
    pub(crate) router_planned: Option<Micros>,
    /// Between two frames that it takes from the private network; 0 if it takes all at once.
    pub(crate) read_pause: Micros,
    buffer: VecDeque<Rc<[u8]>>,
    /// Whether the network takes no frames from it.
    pub(crate) stuck: bool,
    /// Since when its daemon is stopped in its tracks.
    frozen: Option<Micros>,
    /// Packets that came since.
    queue: VecDeque<Vec<u8>>,
    daemon: Option<Daemon>,
    was_ready: bool,
    /// The last answer of `jsync check`.
    checked: bool,
    planned: Option<Micros>,
    clock: Clock,
    nat64: Config,
    sync: Option<SyncConfig>,
    ecmp: bool,
    rng: Rng,
}

impl Machine {
    pub(crate) fn new(index: usize, setup: &Setup, key: [u8; 32], clock: Clock, rng: Rng) -> Self {
        let id = index as u16 + 1;
        // J 250, K 225, L 200 and so on.
        let priority = 250u8.saturating_sub(25 * index as u8);
        // Who was cut off has to hear of it before it takes over.
        let preempt_delay = PREEMPT_DELAY.max(millis(2 * u64::from(setup.sync.hello_interval)));
        Self {
            plugged: true,
            boots: 0,
            removals: BTreeMap::new(),
            id,
            keys: if setup.sync.plaintext { Vec::new() } else { vec![key] },
            router: Router::new(id, priority, preempt_delay),
            router_planned: None,
            read_pause: 0,
            buffer: VecDeque::new(),
            stuck: false,
            frozen: None,
            queue: VecDeque::new(),
            daemon: None,
            was_ready: false,
            checked: false,
            planned: None,
            clock,
            nat64: setup.nat64.clone(),
            sync: setup.synchronised.then(|| SyncConfig { node: id, ..setup.sync.clone() }),
            ecmp: setup.ecmp,
            rng,
        }
    }

    /// J, K, L …
    pub fn name(&self) -> char {
        char::from(b'I' + self.id as u8)
    }

    /// Whether its daemon runs.
    pub fn runs(&self) -> bool {
        self.daemon.is_some()
    }

    /// Whether its daemon is stopped in its tracks, as by `kill -STOP`.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Its node, if its daemon runs.
    pub fn node(&self) -> Option<&Node> {
        self.daemon.as_ref().map(|daemon| &daemon.node)
    }

    /// Whether its daemon runs and says that it is ready.
    pub fn ready(&self) -> bool {
        self.node().is_some_and(Node::ready)
    }

    /// Why it is ready, or not.
    pub fn reason(&self) -> String {
        self.node().map_or("not running".to_string(), |node| node.reason().to_string())
    }

    /// What its keepalived is.
    pub fn role(&self) -> Role {
        self.router.role()
    }

    /// Its sessions.
    pub fn table(&self, now: Micros) -> Table {
        let mut table = BTreeMap::new();
        let Some(node) = self.node() else { return table };
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = node.nat64().scan(self.clock.read(now), from, SCAN_BUDGET, &mut |record| {
                table.insert(record.key, record);
            });
        }
        table
    }

    /// Starts the daemon in an epoch that was never used before, which it returns.
    pub(crate) fn start(&mut self, now: Micros, outbox: &mut Outbox) -> Result<u64, ConfigError> {
        let epoch = self.rng.next_u64();
        let sync = self.sync.clone().map(|sync| SyncConfig { epoch, ..sync });
        let keyring = sync.as_ref().map(|sync| Keyring::new(&self.keys, sync)).transpose()?;
        let node = Node::new(self.nat64.clone(), sync, &self.rng.bytes32())?;
        self.daemon = Some(Daemon { node, keyring });
        self.planned = None;
        self.checked = false;
        self.was_ready = false;
        self.boots += 1;
        self.removals.clear();
        self.handle_timeout(now, outbox);
        Ok(epoch)
    }

    /// Stops the daemon in its tracks.
    pub(crate) fn freeze(&mut self, now: Micros) {
        self.frozen = Some(now);
    }

    /// Lets the daemon go on: with the packets that it returns, and the frames in its buffer.
    pub(crate) fn thaw(&mut self) -> VecDeque<Vec<u8>> {
        self.frozen = None;
        std::mem::take(&mut self.queue)
    }

    /// Ends the daemon without giving it a chance to say anything.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
        self.frozen = None;
        self.queue.clear();
        self.buffer.clear();
        self.was_ready = false;
        self.checked = false;
    }

    pub(crate) fn power_off(&mut self) {
        self.kill();
        self.plugged = false;
        self.router.kill();
    }

    pub(crate) fn stop(&mut self, now: Micros, outbox: &mut Outbox) {
        self.act(now, outbox, |_, daemon| daemon.node.leave());
        self.kill();
    }

    /// keepalived runs `jsync check`.
    pub(crate) fn check(&mut self, now: Micros) {
        if let Some(since) = self.frozen {
            self.checked &= now < since + CHECK_PATIENCE;
            return;
        }
        let may = |node: &Node| self.role() == Role::Master || node.catching_up().is_none();
        self.checked = self.ready() && self.node().is_some_and(may);
    }

    /// Whether keepalived finds all that it tracks: links, the TUN's carrier, which is there while
    /// the node is ready, and the last check.
    pub(crate) fn able(&self) -> bool {
        self.plugged && self.ready() && self.checked
    }

    pub(crate) fn handle_advert(&mut self, now: Micros, id: u16, priority: u8, say: &mut Vec<Say>) {
        if self.plugged {
            self.router.handle_advert(now, id, priority, say);
        }
    }

    /// Takes a packet that a host sent to the virtual addresses. Where there is no translator to
    /// take it, it is lost: blackhole routes keep the machine's own stack from answering.
    pub(crate) fn handle_packet(&mut self, now: Micros, bytes: &[u8], outbox: &mut Outbox) {
        let routed = self.ecmp || self.role() == Role::Master;
        if !self.plugged || !routed || !self.runs() {
            return;
        }
        if self.is_frozen() {
            if self.queue.len() < QUEUED {
                self.queue.push_back(bytes.to_vec());
            }
            return;
        }
        let mut buf = vec![0; HEADROOM];
        buf.extend_from_slice(bytes);
        let mut forward = None;
        self.act(now, outbox, |time, daemon| {
            let packet = Packet::new(&mut buf, HEADROOM, bytes.len(), Offload::default());
            let mut burst = [packet];
            daemon.node.handle_packets(time, &mut burst);
            if burst[0].outcome == Outcome::Forward {
                forward = Some(burst[0].bytes().to_vec());
            }
        });
        outbox.packets.extend(forward);
    }

    /// Whether it has become ready since it was last asked.
    pub(crate) fn has_become_ready(&mut self) -> bool {
        let ready = self.ready();
        ready && !std::mem::replace(&mut self.was_ready, ready)
    }

    /// Whether frames wait in its buffer, or have to.
    pub(crate) fn is_buffering(&self) -> bool {
        self.read_pause > 0 || self.is_frozen() || !self.buffer.is_empty()
    }

    /// Lets a frame wait if it has to; Some if it is the first: when it will be read.
    pub(crate) fn buffer_frame(&mut self, now: Micros, bytes: &Rc<[u8]>) -> Option<Micros> {
        if !self.is_buffering() || self.buffer.len() >= BUFFERED {
            return None;
        }
        self.buffer.push_back(Rc::clone(bytes));
        (self.buffer.len() == 1).then_some(now + self.read_pause)
    }

    /// Takes the frame that has waited longest; Some if there is another: when it will be read.
    pub(crate) fn read_frame(&mut self, now: Micros, outbox: &mut Outbox) -> Option<Micros> {
        if self.is_frozen() {
            return None;
        }
        let bytes = self.buffer.pop_front()?;
        self.handle_frame(now, &bytes, outbox);
        (!self.buffer.is_empty()).then_some(now + self.read_pause)
    }

    /// Takes a frame from the private network.
    pub(crate) fn handle_frame(&mut self, now: Micros, bytes: &[u8], outbox: &mut Outbox) {
        if !self.plugged {
            return;
        }
        let mut told = Vec::new();
        self.act(now, outbox, |time, daemon| {
            let Some(keyring) = &mut daemon.keyring else { return };
            match keyring.open(bytes) {
                Ok(frame) => {
                    if daemon.node.handle_frame(time, &frame) {
                        told = removals(&frame);
                    }
                }
                Err(error) => daemon.node.refuse_frame(time, error),
            }
        });
        for (key, version) in told {
            let known = self.removals.entry(key).or_insert(version);
            if newer(version, *known) {
                *known = version;
            }
        }
    }

    /// Does what is due; the timeout that was planned has come.
    pub(crate) fn handle_timeout(&mut self, now: Micros, outbox: &mut Outbox) {
        self.planned = None;
        if self.is_frozen() {
            return;
        }
        self.act(now, outbox, |time, daemon| {
            if daemon.node.poll_timeout().is_none_or(|due| due <= time) {
                daemon.node.handle_timeout(time);
            }
        });
    }

    /// When the node's timeout is to be planned for, if nothing as early is planned already.
    pub(crate) fn plan_timeout(&mut self, now: Micros) -> Option<Micros> {
        if self.is_frozen() {
            return None;
        }
        let due = self.clock.moment(self.node()?.poll_timeout()?).max(now);
        plan(&mut self.planned, Some(due))
    }

    /// The same for its keepalived.
    pub(crate) fn plan_router(&mut self) -> Option<Micros> {
        plan(&mut self.router_planned, self.router.poll_timeout())
    }

    /// Does something to the node, then asks it for all that it has to say.
    fn act(&mut self, now: Micros, outbox: &mut Outbox, act: impl FnOnce(Time, &mut Daemon)) {
        let time = self.clock.read(now);
        let stuck = self.stuck;
        let Some(daemon) = &mut self.daemon else { return };
        act(time, daemon);
        let mut sent = None;
        while !stuck && let Some(transmit) = daemon.node.poll_transmit(time) {
            let Some(keyring) = &daemon.keyring else { break };
            sent = Some(transmit.header().seq);
            let frame = keyring.seal(transmit);
            let most = self.sync.as_ref().map_or(0, |sync| usize::from(sync.max_frame));
            if frame.len() > most {
                outbox.violations.push(format!("sends a frame of {} bytes", frame.len()));
            }
            outbox.frames.push(frame);
            if outbox.frames.len() > DRAIN_LIMIT {
                outbox.violations.push("floods with frames".to_string());
                break;
            }
        }
        if let Some(seq) = sent {
            daemon.node.handle_sent(time, seq);
        }
        while let Some(packet) = daemon.node.poll_packet() {
            outbox.packets.push(packet.bytes);
            if outbox.packets.len() > DRAIN_LIMIT {
                outbox.violations.push("floods with packets".to_string());
                break;
            }
        }
        while let Some(event) = daemon.node.poll_event() {
            outbox.events.push(event.to_string());
        }
    }
}

/// Whether version `a` is later than `b`, modulo 2^32.
pub fn newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// The removals in an update, read by hand from the documented bytes.
fn removals(frame: &OpenFrame) -> Vec<(SessionKey, u32)> {
    let mut removals = Vec::new();
    let Some((_, mut rest)) = frame.body.split_at_checked(UPDATE_HEAD) else { return removals };
    if frame.header.kind != Kind::Update {
        return removals;
    }
    while let Some((record, _)) = rest.split_first_chunk::<REMOVAL>() {
        let is_removal = record[0] >> 6 == 1;
        if is_removal && let Some(key) = session_key(record) {
            let version = [record[31], record[32], record[33], record[34]];
            removals.push((key, u32::from_be_bytes(version)));
        }
        rest = rest.get(if is_removal { REMOVAL } else { SESSION }..).unwrap_or(&[]);
    }
    removals
}

fn session_key(record: &[u8; REMOVAL]) -> Option<SessionKey> {
    let port = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
    let v4 = |at: usize| {
        let octets: [u8; 4] = record[at..at + 4].try_into().ok()?;
        Some(Endpoint4 { addr: octets.into(), port: port(at + 4) })
    };
    let octets: [u8; 16] = record[1..17].try_into().ok()?;
    let src6 = Endpoint6 { addr: octets.into(), port: port(17) };
    let proto = Proto::from_u8(record[0] >> 4 & 3)?;
    Some(SessionKey { proto, src6, src4: v4(19)?, dst4: v4(25)? })
}

/// Takes note of the earliest moment on the agenda; Some if there is none as early as `due` yet.
fn plan(planned: &mut Option<Micros>, due: Option<Micros>) -> Option<Micros> {
    let due = due.filter(|&at| planned.is_none_or(|earliest| at < earliest))?;
    *planned = Some(due);
    Some(due)
}
