//! A node: the translator and session synchronisation, joined.
//!
//! After any `handle_*`, call `poll_packet`, `poll_transmit` and `poll_event` until they have
//! nothing more, and ask `poll_timeout` when to call `handle_timeout`.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Range;

use crate::addr::Pool6;
use crate::config::{Config, ConfigError};
use crate::nat64::Nat64;
use crate::packet::{OwnedPacket, Packet};
use crate::stats::Stats;
use crate::sync::event::{Event, Reason};
use crate::sync::frame::{FrameError, OpenFrame, Transmit};
use crate::sync::joold::{self, Bridge, BridgeConfig, Bridged, Format, Talker, Timer};
use crate::sync::{PeerStatus, Sessions, Sync, SyncConfig};
use crate::table::{
    Change, Holding, Learned, LogEvent, Merge, Query, SessionKey, SessionRecord, Side, State,
};
use crate::time::Time;

/// A NAT64 and its place in a cluster.
#[derive(Debug)]
pub struct Node {
    nat64: Nat64,
    sync: Option<Sync>,
    /// By [`Side`].
    bridges: [Option<Bridge>; Side::ALL.len()],
}

impl Node {
    /// A node with an empty table; without `sync` it stands alone. `secret` is random and this
    /// node's own: it keys hashes, the choice of ports and the challenges to peers.
    ///
    /// # Errors
    /// What [`Config::validate`] and [`SyncConfig::validate`] refuse.
    pub fn new(
        mut config: Config,
        sync: Option<SyncConfig>,
        secret: &[u8; 32],
    ) -> Result<Self, ConfigError> {
        if let Some(sync) = &sync {
            config.node = sync.node;
        }
        let nat64 = Nat64::new(config, secret)?;
        let sync = sync.map(|config| Sync::new(config, nat64.config(), secret)).transpose()?;
        Ok(Self { nat64, sync, bridges: [None, None] })
    }

    /// The node, on speaking terms with joolds or a kernel module too. What one side tells is
    /// told to the others.
    ///
    /// # Errors
    /// What [`BridgeConfig::validate`] refuses.
    pub fn with_bridge(mut self, side: Side, config: &BridgeConfig) -> Result<Self, ConfigError> {
        self.bridges[side as usize] = Some(Bridge::new(side, config)?);
        Ok(self)
    }

    /// The node, apart from its peers until [`Node::take_part`]: it has to learn first what it has.
    pub fn apart(mut self) -> Self {
        if let Some(sync) = &mut self.sync {
            sync.stand_apart();
        }
        self
    }

    /// Begins to listen for peers, if it hasn't.
    pub fn take_part(&mut self) {
        if let Some(sync) = &mut self.sync {
            sync.take_part();
        }
    }

    /// Translates a burst in place and sets every packet's outcome.
    pub fn handle_packets(&mut self, now: Time, burst: &mut [Packet<'_>]) {
        self.nat64.handle_packets(now, burst);
        self.notice_changes(now);
    }

    /// Takes a frame that [`Keyring::open`](crate::sync::Keyring::open) found authentic. False if
    /// it is a repetition, a recording, or of a peer that nothing is taken from.
    pub fn handle_frame(&mut self, now: Time, frame: &OpenFrame) -> bool {
        match &mut self.sync {
            Some(sync) => {
                let taken = sync.handle_frame(now, frame, &mut self.nat64);
                self.notice_changes(now);
                taken
            }
            None => false,
        }
    }

    /// Takes a datagram of joold's, or a kernel module's batch, from somebody with that address.
    /// False if it is none.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        side: Side,
        from: IpAddr,
        datagram: &[u8],
    ) -> bool {
        let Some(bridge) = &mut self.bridges[side as usize] else { return false };
        let taken = bridge.handle_datagram(now, from, datagram, &mut self.nat64);
        self.notice_changes(now);
        taken
    }

    /// Takes a page of the kernel module's table; how many sessions it has.
    pub fn handle_page(&mut self, now: Time, page: &[u8]) -> usize {
        let Some(bridge) = &mut self.bridges[Side::Module as usize] else { return 0 };
        let sessions = bridge.handle_page(now, page, &mut self.nat64);
        self.notice_changes(now);
        sessions
    }

    /// The next datagram for joolds, or batch for the kernel module. Like frames, they are made
    /// when they are asked for.
    pub fn poll_datagram(&mut self, now: Time, side: Side) -> Option<Vec<u8>> {
        self.bridges[side as usize].as_mut()?.poll_transmit(now, &mut self.nat64)
    }

    /// Tells other machines every session: joolds hear them all, peers fetch what they lack.
    pub fn advertise(&mut self, now: Time) {
        if let Some(bridge) = &mut self.bridges[Side::Joolds as usize] {
            bridge.advertise(now, true);
        }
        if let Some(sync) = &mut self.sync {
            sync.advertise(now);
        }
    }

    /// Tells the kernel module every session; see [`Bridge::advertise`] for `all`.
    pub fn advertise_to_module(&mut self, now: Time, all: bool) {
        if let Some(bridge) = &mut self.bridges[Side::Module as usize] {
            bridge.advertise(now, all);
        }
    }

    /// Takes and tells datagrams of that format alone.
    pub fn pin_format(&mut self, side: Side, format: Format) {
        if let Some(bridge) = &mut self.bridges[side as usize] {
            bridge.pin(format);
        }
    }

    /// Tells joolds in that format, unless another one is configured.
    pub fn tell_joolds_in(&mut self, format: Format) {
        if let Some(bridge) = &mut self.bridges[Side::Joolds as usize] {
            bridge.tell_in(format);
        }
    }

    /// Everybody heard over a bridge.
    pub fn talkers(&self, side: Side) -> impl Iterator<Item = (IpAddr, Talker)> + '_ {
        self.bridges[side as usize].iter().flat_map(Bridge::talkers)
    }

    /// Counts bytes that [`Keyring::open`](crate::sync::Keyring::open) refused.
    pub fn refuse_frame(&mut self, now: Time, error: FrameError) {
        if let Some(sync) = &mut self.sync {
            sync.refuse_frame(now, error, &mut self.nat64.stats);
        }
    }

    /// Does what is due at `now`, a bounded part of it: ask `poll_timeout` for the rest.
    pub fn handle_timeout(&mut self, now: Time) {
        self.nat64.handle_timeout(now);
        if let Some(sync) = &mut self.sync {
            sync.handle_timeout(now, &mut self.nat64);
        }
        for bridge in self.bridges.iter_mut().flatten() {
            bridge.handle_timeout(now, &mut self.nat64);
        }
        self.notice_changes(now);
    }

    /// When `handle_timeout` is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let sync = self.sync.as_ref().and_then(Sync::poll_timeout);
        let bridges = self.bridges.iter().flatten().filter_map(Bridge::poll_timeout).min();
        [self.nat64.poll_timeout(), sync, bridges].into_iter().flatten().min()
    }

    /// The next packet that the translator itself has to send.
    pub fn poll_packet(&mut self) -> Option<OwnedPacket> {
        self.nat64.poll_packet()
    }

    /// The next frame to send, to be sealed by [`Keyring::seal`](crate::sync::Keyring::seal).
    /// Frames are made when they are asked for, so a caller that can't send just doesn't ask.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        self.sync.as_mut()?.poll_transmit(now, &mut self.nat64)
    }

    /// Every frame up to that number of its sequence (see [`Transmit::header`]) was handed to the
    /// network: packets that waited for that go on.
    pub fn handle_sent(&mut self, now: Time, seq: u64) {
        if let Some(sync) = &mut self.sync {
            sync.handle_sent(now, seq, &mut self.nat64);
        }
    }

    /// Whether `poll_transmit` may have something, short of asking it.
    pub fn transmit_pending(&self) -> bool {
        self.sync.as_ref().is_some_and(Sync::transmit_pending)
    }

    /// The next thing worth a line in the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.sync.as_mut().and_then(Sync::poll_event);
        event.or_else(|| self.bridges.iter_mut().flatten().find_map(Bridge::poll_event))
    }

    /// The next line of the operator's log of mappings and sessions.
    pub fn poll_log(&mut self) -> Option<LogEvent> {
        self.nat64.poll_log()
    }

    /// Whether this node may become MASTER.
    pub fn ready(&self) -> bool {
        self.reason().ready()
    }

    /// Why it may become MASTER, or not.
    pub fn reason(&self) -> Reason {
        let sync = self.sync.as_ref().map(Sync::reason);
        // The first that isn't ready speaks for all.
        let bridge = self.bridges.iter().flatten().map(Bridge::reason).min_by_key(|r| r.ready());
        match (sync, bridge) {
            (Some(sync), Some(bridge)) if sync.ready() && !bridge.ready() => bridge,
            (Some(sync), _) => sync,
            (None, bridge) => bridge.unwrap_or(Reason::NoSynchronisation),
        }
    }

    /// The peer whose sessions are still missing after this node was cut off: until they are
    /// here, whoever isn't MASTER had better not become it.
    pub fn catching_up(&self) -> Option<u16> {
        self.sync.as_ref().and_then(Sync::catching_up)
    }

    /// Every peer heard since the start, by number.
    pub fn peers(&self, now: Time) -> impl Iterator<Item = PeerStatus> + '_ {
        self.sync.iter().flat_map(move |sync| sync.peers(now))
    }

    /// Has the peers told of all changes and then of our leaving; nothing is sent after that.
    pub fn leave(&mut self) {
        if let Some(sync) = &mut self.sync {
            sync.leave();
        }
    }

    /// The translator.
    pub fn nat64(&self) -> &Nat64 {
        &self.nat64
    }

    /// Changes the configuration of the translator and tells the peers which it is now.
    ///
    /// # Errors
    /// What `change` returns; it has changed nothing then.
    pub fn reconfigure<E>(
        &mut self,
        now: Time,
        change: impl FnOnce(&mut Nat64) -> Result<(), E>,
    ) -> Result<(), E> {
        change(&mut self.nat64)?;
        if let Some(sync) = &mut self.sync {
            sync.reconfigured(now, self.nat64.config());
        }
        self.notice_changes(now);
        Ok(())
    }

    /// The translator, to be changed.
    pub fn nat64_mut(&mut self) -> &mut Nat64 {
        &mut self.nat64
    }

    fn notice_changes(&mut self, now: Time) {
        if let Some(sync) = &mut self.sync {
            sync.notice_changes(now, self.nat64.changes_pending());
            sync.notice_held(now, &mut self.nat64);
            sync.bury_untold(now, &mut self.nat64);
        }
        for (side, bridge) in Side::ALL.into_iter().zip(&mut self.bridges) {
            if let Some(bridge) = bridge {
                bridge.notice_changes(now, self.nat64.bridge_pending(side));
            }
        }
    }
}

impl Bridged for Nat64 {
    fn hear(&mut self, now: Time, side: Side, session: &joold::Session) -> Learned {
        let joold::Session { key, state, timer, lifetime_ms } = *session;
        let timeout_ms = match timer {
            Timer::Established => self.timeout_ms(key.proto, State::Established),
            Timer::Transitory => self.timeout_ms(key.proto, State::Trans),
            Timer::Syn4 => joold::SYN4_MS,
        };
        let record = SessionRecord { key, state, lifetime_ms, version: 0 };
        self.hear(now, side, &record, timeout_ms)
    }

    fn track_bridge(&mut self, side: Side) {
        self.track_bridge(side);
    }

    fn bridge_pending(&self, side: Side) -> usize {
        self.bridge_pending(side)
    }

    fn pop_bridge(&mut self, now: Time, side: Side) -> Option<SessionRecord> {
        self.pop_bridge(now, side)
    }

    fn scan_bridge(
        &self,
        now: Time,
        side: Side,
        all: bool,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        self.scan_bridge(now, side, all, cursor, budget, f)
    }

    fn pool6(&self) -> Pool6 {
        self.config().pool6
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }
}

impl Sessions for Nat64 {
    fn learn(&mut self, now: Time, record: &SessionRecord) -> Merge {
        self.learn(now, record)
    }

    fn look_ahead(&self, changes: &[Change]) {
        self.table.look_ahead(changes);
    }

    fn unlearn(&mut self, now: Time, key: &SessionKey, version: u32) -> bool {
        self.unlearn(now, key, version)
    }

    fn revive(&mut self, key: &SessionKey, removed: u32) {
        self.table.revive(key, removed);
    }

    fn has(&self, key: &SessionKey) -> bool {
        self.table.has(key)
    }

    fn track_changes(&mut self, on: bool) {
        self.track_changes(on);
    }

    fn changes_pending(&self) -> usize {
        self.changes_pending()
    }

    fn pop_change(&mut self, now: Time) -> Option<Change> {
        self.pop_change(now)
    }

    fn pop_removal(&mut self) -> Option<(SessionKey, u32)> {
        self.table.pop_removal()
    }

    fn scan(
        &self,
        now: Time,
        cursor: u32,
        budget: usize,
        f: &mut dyn FnMut(SessionRecord),
    ) -> Option<u32> {
        self.table.scan_told(now, cursor, budget, f)
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn hold(&mut self, holding: Holding) {
        self.hold(holding);
    }

    fn openers(&self) -> u64 {
        self.openers()
    }

    fn release_openers(&mut self, now: Time, numbers: &[Range<u64>]) {
        self.release_openers(now, numbers);
    }

    fn pop_query(&mut self) -> Option<Query> {
        self.pop_query()
    }

    fn answer(&self, now: Time, query: &Query) -> Option<SessionRecord> {
        self.answer(now, query)
    }

    fn release_strangers(&mut self, now: Time, id: u64, found: bool) {
        self.release_strangers(now, id, found);
    }
}
