//! One end of a TCP connection, as little of RFC 9293 as a translator can tell from a real one:
//! handshake, sequence numbers, cumulative acknowledgements, retransmission with back-off, FIN and
//! RST. What arrives out of order is not kept: the sender goes back (go-back-N).

use std::net::SocketAddr;

use crate::clock::{Micros, millis};
use crate::datagram::flags::{ACK, FIN, RST, SYN};
use crate::datagram::{Datagram, Transport};
use crate::flow::{Direction, KEY_LEN, Pace, Progress, pattern};

/// Payload of a segment: what the smallest IPv6 MTU carries.
const MSS: usize = 1220;
/// Bytes under way at most, and bytes written ahead at most.
const WINDOW: u64 = 65_535;
/// RFC 6298's first timeout, for the handshake.
const FIRST_RTO: Micros = millis(1000);
/// Linux's least, which a LAN gets.
const MIN_RTO: Micros = millis(200);
/// RFC 6298's least upper bound.
const MAX_RTO: Micros = millis(60_000);
/// Linux's tcp_syn_retries and tcp_retries2.
const SYN_RETRIES: u32 = 6;
const RETRIES: u32 = 15;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A SYN is under way.
    SynSent,
    /// A SYN came and was answered.
    SynReceived,
    /// Data may flow.
    Established,
    /// Both ends have closed, and know it of each other.
    Closed,
    /// The other end, or something on the way, reset it.
    Reset,
    /// Nothing was ever acknowledged.
    TimedOut,
}

/// A segment without its payload.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`crate::datagram::flags`].
    pub flags: u8,
}

/// One end of a connection. Positions in a stream are counted from 0 = SYN; the FIN has one too.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Our transport address.
    pub local: SocketAddr,
    /// Theirs, as we see it.
    pub remote: SocketAddr,
    /// What names the connection at both ends; `None` until its opener's first bytes are here.
    pub key: Option<u64>,
    /// What arrived here.
    pub received: Progress,
    /// Bytes that arrived in their place and are wrong.
    pub corrupt: u64,
    state: State,
    opened: Micros,
    established: Option<Micros>,
    pace: Pace,
    opener: bool,
    iss: u32,
    irs: u32,
    /// Ours: acknowledged, next to send, sent at most, written by the application.
    una: u64,
    nxt: u64,
    max: u64,
    written: u64,
    closing: bool,
    /// Theirs: the next that we expect; 0 before their SYN.
    rcv: u64,
    their_fin: bool,
    rto: Micros,
    retries: u32,
    resend_at: Option<Micros>,
    write_at: Option<Micros>,
}

impl Tcp {
    /// Opens a connection: its SYN goes to `out`.
    pub fn connect(
        now: Micros,
        (local, remote): (SocketAddr, SocketAddr),
        key: u64,
        iss: u32,
        pace: Pace,
        out: &mut Vec<Datagram>,
    ) -> Self {
        let mut tcp = Self::new(now, (local, remote), iss, pace, State::SynSent);
        tcp.key = Some(key);
        tcp.opener = true;
        tcp.send_from_una(now, out);
        tcp
    }

    /// Answers a SYN.
    pub fn accept(
        now: Micros,
        (local, remote): (SocketAddr, SocketAddr),
        syn: Segment,
        iss: u32,
        pace: Pace,
        out: &mut Vec<Datagram>,
    ) -> Self {
        let mut tcp = Self::new(now, (local, remote), iss, pace, State::SynReceived);
        tcp.irs = syn.seq;
        tcp.rcv = 1;
        tcp.send_from_una(now, out);
        tcp
    }

    fn new(
        now: Micros,
        (local, remote): (SocketAddr, SocketAddr),
        iss: u32,
        pace: Pace,
        state: State,
    ) -> Self {
        Self {
            local,
            remote,
            key: None,
            received: Progress::new(now),
            corrupt: 0,
            state,
            opened: now,
            established: None,
            pace,
            opener: false,
            iss,
            irs: 0,
            una: 0,
            nxt: 0,
            max: 0,
            written: 0,
            closing: false,
            rcv: 0,
            their_fin: false,
            rto: FIRST_RTO,
            retries: 0,
            resend_at: None,
            write_at: None,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// How long it took to establish it, if it was.
    pub fn opening_time(&self) -> Option<Micros> {
        Some(self.established? - self.opened)
    }

    /// Bytes that were written here.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether this end opened the connection.
    pub fn is_opener(&self) -> bool {
        self.opener
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Micros> {
        [self.resend_at, self.write_at].into_iter().flatten().min()
    }

    /// Writes nothing more; what was written is still delivered.
    pub fn pause(&mut self) {
        self.write_at = None;
    }

    /// Closes our direction behind what was written.
    pub fn close(&mut self, now: Micros, out: &mut Vec<Datagram>) {
        self.write_at = None;
        self.closing = true;
        self.send_new(now, out);
    }

    /// Gives up: the other end is told by a RST.
    pub fn abort(&mut self, out: &mut Vec<Datagram>) {
        out.push(self.segment(self.max, RST | ACK, Vec::new()));
        self.end(State::Reset);
    }

    /// Writes, or sends again, what is due.
    pub fn handle_timeout(&mut self, now: Micros, out: &mut Vec<Datagram>) {
        if self.write_at.is_some_and(|at| at <= now) {
            // An application whose socket is full waits.
            if 1 + self.written - self.una < WINDOW {
                self.written += self.pace.chunk as u64;
            }
            self.write_at = Some(now + self.pace.interval);
            self.send_new(now, out);
        }
        if self.resend_at.is_some_and(|at| at <= now) {
            self.retries += 1;
            let most = if self.state == State::Established { RETRIES } else { SYN_RETRIES };
            if self.retries > most {
                return self.end(State::TimedOut);
            }
            self.rto = (self.rto * 2).min(MAX_RTO);
            self.send_from_una(now, out);
        }
    }

    /// Takes a segment of this connection.
    pub fn handle_segment(
        &mut self,
        now: Micros,
        segment: Segment,
        payload: &[u8],
        out: &mut Vec<Datagram>,
    ) {
        match self.state {
            State::SynSent => return self.handle_syn_ack(now, segment, out),
            State::Reset | State::TimedOut => return,
            State::SynReceived | State::Established | State::Closed => {}
        }
        // Where the segment stands relative to what we expect (RFC 9293 §3.4, modulo 2^32).
        let expected = self.irs.wrapping_add(self.rcv as u32);
        let ahead = i64::from(segment.seq.wrapping_sub(expected) as i32);
        if segment.flags & RST != 0 {
            // RFC 5961 §3.2: only the exact number resets, others in the window are asked about.
            match ahead {
                _ if self.state == State::Closed => {}
                0 => self.end(State::Reset),
                1..=65_535 => out.push(self.acknowledgement()),
                _ => {}
            }
            return;
        }
        if segment.flags & SYN != 0 {
            // A SYN again: our answer got lost. Anything else: RFC 5961 §4.2.
            match self.state {
                State::SynReceived => self.send_from_una(now, out),
                _ => out.push(self.acknowledgement()),
            }
            return;
        }
        if segment.flags & ACK == 0 {
            return;
        }
        self.handle_ack(now, segment.ack, out);
        let fin = segment.flags & FIN != 0;
        if !payload.is_empty() || fin {
            if ahead <= 0 {
                self.take(now, (-ahead) as usize, payload, fin, out);
            }
            out.push(self.acknowledgement());
        }
        self.finish();
    }

    fn handle_syn_ack(&mut self, now: Micros, segment: Segment, out: &mut Vec<Datagram>) {
        if segment.flags & ACK == 0 || segment.ack != self.iss.wrapping_add(1) {
            return;
        }
        if segment.flags & RST != 0 {
            return self.end(State::Reset);
        }
        if segment.flags & SYN != 0 {
            self.irs = segment.seq;
            self.rcv = 1;
            self.una = 1;
            self.establish(now);
            self.written = KEY_LEN as u64;
            out.push(self.acknowledgement());
            self.send_new(now, out);
            self.write_at = Some(now + self.pace.interval);
        }
    }

    fn establish(&mut self, now: Micros) {
        self.state = State::Established;
        self.established = Some(now);
        self.received.last = now;
        self.rto = MIN_RTO;
        self.retries = 0;
        self.resend_at = None;
    }

    fn handle_ack(&mut self, now: Micros, ack: u32, out: &mut Vec<Datagram>) {
        let fresh = i64::from(ack.wrapping_sub(self.iss.wrapping_add(self.una as u32)) as i32);
        if fresh <= 0 || self.una + fresh as u64 > self.max {
            return;
        }
        if self.state == State::SynReceived {
            self.establish(now);
        }
        self.una += fresh as u64;
        self.nxt = self.nxt.max(self.una);
        self.rto = MIN_RTO;
        self.retries = 0;
        self.resend_at = (self.una < self.max).then_some(now + self.rto);
        self.send_new(now, out);
    }

    /// Takes data of which the first `known` bytes are here already.
    fn take(
        &mut self,
        now: Micros,
        known: usize,
        payload: &[u8],
        fin: bool,
        out: &mut Vec<Datagram>,
    ) {
        if let Some(fresh) = payload.get(known..).filter(|fresh| !fresh.is_empty()) {
            self.verify(fresh);
            self.rcv += fresh.len() as u64;
            self.received.note(now, fresh.len());
            if !self.opener && self.written == 0 && !self.closing {
                self.written = self.pace.chunk as u64;
                self.write_at = Some(now + self.pace.interval);
                self.send_new(now, out);
            }
        }
        if fin && known <= payload.len() && !self.their_fin {
            self.rcv += 1;
            self.their_fin = true;
            self.close(now, out);
        }
    }

    fn verify(&mut self, mut fresh: &[u8]) {
        let mut offset = self.rcv - 1;
        let direction = if self.opener { Direction::Back } else { Direction::Forth };
        if !self.opener && offset < KEY_LEN as u64 {
            // The opener's first write holds the key whole.
            let Some((key, rest)) = fresh.split_first_chunk().filter(|_| offset == 0) else {
                self.corrupt += fresh.len() as u64;
                return;
            };
            self.key = Some(u64::from_be_bytes(*key));
            offset += KEY_LEN as u64;
            fresh = rest;
        }
        let expected = pattern(self.key.unwrap_or(0), direction, offset, fresh.len());
        self.corrupt += fresh.iter().zip(&expected).filter(|(a, b)| a != b).count() as u64;
    }

    /// Bytes of our stream, `len` from `offset`.
    fn data(&self, offset: u64, len: usize) -> Vec<u8> {
        let key = self.key.unwrap_or(0);
        if !self.opener {
            return pattern(key, Direction::Back, offset, len);
        }
        let mut data = pattern(key, Direction::Forth, offset, len);
        for (at, byte) in (offset..).zip(&mut data).take_while(|(at, _)| *at < KEY_LEN as u64) {
            *byte = key.to_be_bytes()[at as usize];
        }
        data
    }

    /// Sends what hasn't been sent, as far as the window allows.
    fn send_new(&mut self, now: Micros, out: &mut Vec<Datagram>) {
        if self.state != State::Established {
            return;
        }
        while self.nxt < self.end_of_stream() && self.nxt - self.una < WINDOW {
            self.send_segment(out);
        }
        if self.una < self.max && self.resend_at.is_none() {
            self.resend_at = Some(now + self.rto);
        }
    }

    /// Goes back to what isn't acknowledged and sends one segment of it.
    fn send_from_una(&mut self, now: Micros, out: &mut Vec<Datagram>) {
        self.nxt = self.una;
        match self.state {
            State::SynSent => out.push(self.handshake(SYN)),
            State::SynReceived => out.push(self.handshake(SYN | ACK)),
            _ => self.send_segment(out),
        }
        self.resend_at = Some(now + self.rto);
    }

    fn handshake(&mut self, flags: u8) -> Datagram {
        self.nxt = 1;
        self.max = 1;
        self.segment(0, flags, Vec::new())
    }

    fn send_segment(&mut self, out: &mut Vec<Datagram>) {
        let data_end = 1 + self.written;
        let len = (data_end.saturating_sub(self.nxt) as usize).min(MSS);
        let at = self.nxt;
        let payload = if len > 0 { self.data(at - 1, len) } else { Vec::new() };
        self.nxt += len as u64;
        let mut flags = ACK;
        if self.closing && self.nxt == data_end {
            flags |= FIN;
            self.nxt += 1;
        }
        self.max = self.max.max(self.nxt);
        out.push(self.segment(at, flags, payload));
    }

    /// The position behind the last that there is to send.
    fn end_of_stream(&self) -> u64 {
        1 + self.written + u64::from(self.closing)
    }

    fn acknowledgement(&self) -> Datagram {
        self.segment(self.max, ACK, Vec::new())
    }

    fn segment(&self, at: u64, flags: u8, payload: Vec<u8>) -> Datagram {
        let ack = if flags & ACK != 0 { self.irs.wrapping_add(self.rcv as u32) } else { 0 };
        let transport = Transport::Tcp { seq: self.iss.wrapping_add(at as u32), ack, flags };
        Datagram { src: self.local, dst: self.remote, transport, payload }
    }

    fn finish(&mut self) {
        if self.their_fin && self.closing && self.una == self.end_of_stream() {
            self.end(State::Closed);
        }
    }

    fn end(&mut self, state: State) {
        self.state = state;
        self.resend_at = None;
        self.write_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::seconds;
    use crate::rng::Rng;

    const PACE: Pace = Pace { interval: millis(50), chunk: 700 };

    /// Two ends and a wire that loses, doubles and delays; run to the end of `until`.
    struct Pair {
        now: Micros,
        ends: [Option<Tcp>; 2],
        wire: Vec<(Micros, usize, Datagram)>,
        rng: Rng,
        loss: u32,
    }

    impl Pair {
        fn new(seed: u64, loss: u32) -> Self {
            let addresses = ("[::1]:1000".parse().unwrap(), "[::2]:80".parse().unwrap());
            let mut out = Vec::new();
            // Sequence numbers wrap soon.
            let tcp = Tcp::connect(0, addresses, 42, u32::MAX - 1000, PACE, &mut out);
            let rng = Rng::new(seed);
            let mut pair = Self { now: 0, ends: [Some(tcp), None], wire: vec![], rng, loss };
            pair.carry(1, out);
            pair
        }

        fn carry(&mut self, to: usize, out: Vec<Datagram>) {
            for datagram in out {
                for _ in 0..1 + u32::from(self.rng.chance(self.loss / 2)) {
                    if !self.rng.chance(self.loss) {
                        let at = self.now + self.rng.within(&(100..=5000));
                        self.wire.push((at, to, datagram.clone()));
                    }
                }
            }
        }

        fn run(&mut self, until: Micros) {
            loop {
                let arrival = self.wire.iter().map(|w| w.0).min();
                let timers = self.ends.iter().flatten().filter_map(Tcp::poll_timeout);
                let Some(now) = timers.chain(arrival).min().filter(|&at| at <= until) else {
                    break;
                };
                self.now = now;
                if let Some(at) = self.wire.iter().position(|w| w.0 == now) {
                    let (_, to, datagram) = self.wire.remove(at);
                    self.deliver(to, &datagram);
                } else {
                    for index in 0..2 {
                        let mut out = Vec::new();
                        if let Some(tcp) = &mut self.ends[index] {
                            tcp.handle_timeout(now, &mut out);
                        }
                        self.carry(1 - index, out);
                    }
                }
            }
            self.now = until;
        }

        fn deliver(&mut self, to: usize, datagram: &Datagram) {
            let Transport::Tcp { seq, ack, flags } = datagram.transport else { return };
            let segment = Segment { seq, ack, flags };
            let mut out = Vec::new();
            match &mut self.ends[to] {
                Some(tcp) => tcp.handle_segment(self.now, segment, &datagram.payload, &mut out),
                None => {
                    let addresses = (datagram.dst, datagram.src);
                    let tcp = Tcp::accept(self.now, addresses, segment, 7, PACE, &mut out);
                    self.ends[to] = Some(tcp);
                }
            }
            self.carry(1 - to, out);
        }

        fn ends(&self) -> [&Tcp; 2] {
            [self.ends[0].as_ref().unwrap(), self.ends[1].as_ref().unwrap()]
        }
    }

    #[test]
    fn carries_data_both_ways_whatever_the_wire_does() {
        for seed in 0..20 {
            for loss in [0, 100, 300] {
                let mut pair = Pair::new(seed, loss);
                pair.run(seconds(60));
                for tcp in pair.ends() {
                    assert_eq!(tcp.state(), State::Established, "seed {seed} loss {loss}");
                    assert_eq!(tcp.corrupt, 0);
                    assert_eq!(tcp.key, Some(42));
                    let least = if loss == 0 { 800_000 } else { 20_000 };
                    assert!(tcp.received.bytes > least, "{}", tcp.received.bytes);
                }
            }
        }
    }

    #[test]
    fn closes_both_ends_behind_the_last_byte() {
        for loss in [0, 200] {
            let mut pair = Pair::new(5, loss);
            pair.run(seconds(5));
            let mut out = Vec::new();
            pair.ends[0].as_mut().unwrap().close(pair.now, &mut out);
            pair.carry(1, out);
            pair.run(seconds(120));
            let [a, b] = pair.ends();
            assert_eq!([a.state(), b.state()], [State::Closed; 2]);
            assert_eq!([a.corrupt, b.corrupt], [0; 2]);
            assert_eq!(b.received.bytes, a.written);
            assert_eq!(a.received.bytes, b.written);
        }
    }

    #[test]
    fn a_reset_must_have_the_exact_number() {
        let mut pair = Pair::new(1, 0);
        pair.run(seconds(1));
        let tcp = pair.ends[0].as_mut().unwrap();
        let exact = tcp.irs.wrapping_add(tcp.rcv as u32);
        let mut out = Vec::new();
        let mut reset = |seq| {
            let segment = Segment { seq, ack: 0, flags: RST };
            tcp.handle_segment(seconds(1), segment, &[], &mut out);
            tcp.state()
        };
        assert_eq!(reset(exact.wrapping_sub(1)), State::Established);
        assert_eq!(reset(exact.wrapping_add(5)), State::Established);
        assert_eq!(reset(exact), State::Reset);
        assert_eq!(out.len(), 1, "the one inside the window is asked about");
        assert_eq!(pair.ends()[0].poll_timeout(), None);
    }

    #[test]
    fn wrong_bytes_are_counted() {
        let mut pair = Pair::new(1, 0);
        pair.run(seconds(1));
        let [opener, other] = &pair.ends;
        let (opener, mut other) = (opener.clone().unwrap(), other.clone().unwrap());
        let seq = other.irs.wrapping_add(other.rcv as u32);
        let segment = Segment { seq, ack: other.iss, flags: ACK };
        let mut data = opener.data(other.rcv - 1, 16);
        data[3] ^= 1;
        other.handle_segment(seconds(1), segment, &data, &mut Vec::new());
        assert_eq!(other.corrupt, 1);
    }

    #[test]
    fn a_handshake_without_an_answer_ends() {
        let mut pair = Pair::new(1, 1000);
        pair.run(seconds(300));
        assert_eq!(pair.ends[0].as_ref().unwrap().state(), State::TimedOut);
    }
}
