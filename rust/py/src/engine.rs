//! A node as its worker drives it.

use jsync_core::node::Node;
use jsync_core::packet::{OwnedPacket, Packet};
use jsync_core::stats::Counter;
use jsync_core::sync::Transmit;
use jsync_core::table::Side;
use jsync_core::time::Time;
use jsync_io::{Engine, Unused};

/// A node that looks one frame and one event ahead, to know whether Python is to be woken. The
/// other frames are made when they are fetched: a slow reader makes changes coalesce, not queue.
#[derive(Debug)]
pub struct Driven {
    pub node: Node,
    frame: Option<Transmit>,
    /// The sequence of the last frame that was fetched.
    fetched: u64,
    /// By [`Side`].
    datagrams: [Option<Vec<u8>>; Side::ALL.len()],
    event: Option<String>,
}

impl Driven {
    pub fn new(node: Node) -> Self {
        Self { node, frame: None, fetched: 0, datagrams: [None, None], event: None }
    }

    /// The next frame, for Python.
    pub fn fetch_frame(&mut self, now: Time) -> Option<Transmit> {
        let frame = self.frame.take().or_else(|| self.node.poll_transmit(now))?;
        self.fetched = frame.header().seq;
        Some(frame)
    }

    /// Every frame that was fetched before has been handed to the network.
    pub fn handle_sent(&mut self, now: Time) {
        self.node.handle_sent(now, self.fetched);
    }

    /// The next datagram for joolds, or batch for the kernel module.
    pub fn poll_datagram(&mut self, now: Time, side: Side) -> Option<Vec<u8>> {
        self.datagrams[side as usize].take().or_else(|| self.node.poll_datagram(now, side))
    }

    /// The next line of the log.
    pub fn poll_event(&mut self) -> Option<String> {
        let node = &mut self.node;
        self.event
            .take()
            .or_else(|| node.poll_event().map(|event| event.to_string()))
            .or_else(|| node.poll_log().map(|event| event.to_string()))
    }
}

impl Engine for Driven {
    fn handle_packets(&mut self, now: Time, burst: &mut [Packet<'_>]) {
        self.node.handle_packets(now, burst);
    }

    fn poll_packet(&mut self) -> Option<OwnedPacket> {
        self.node.poll_packet()
    }

    fn handle_timeout(&mut self, now: Time) {
        self.node.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.node.poll_timeout()
    }

    fn has_output(&mut self, now: Time) -> bool {
        self.frame = self.frame.take().or_else(|| self.node.poll_transmit(now));
        self.datagrams = Side::ALL.map(|side| self.poll_datagram(now, side));
        self.event = self.poll_event();
        let datagrams = self.datagrams.iter().any(Option::is_some);
        self.frame.is_some() || datagrams || self.event.is_some()
    }

    fn count(&mut self, counter: Counter, n: u64) {
        self.node.nat64_mut().stats.add(counter, n);
    }

    fn unused_memory(&self) -> Unused {
        self.node.nat64().unused_memory()
    }
}
