//! n6 and n4: hosts with TCP connections, UDP flows and pings of their own. Every byte that
//! arrives is compared with what was sent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::clock::Micros;
use crate::datagram::flags::{ACK, FIN, RST, SYN};
use crate::datagram::{Datagram, Transport};
use crate::flow::{Direction, KEY_LEN, Pace, Progress, pattern};
use crate::rng::Rng;
use crate::tcp::{Segment, State, Tcp};

/// A series of requests, each of which is answered: UDP, or pings.
#[derive(Clone, Debug)]
pub struct Requests {
    /// What names the flow at both ends.
    pub key: u64,
    /// Answers that arrived.
    pub answered: Progress,
    /// Requests sent.
    pub sent: u64,
    /// Answers that were not what they should be.
    pub corrupt: u64,
    local: SocketAddr,
    remote: SocketAddr,
    ping: bool,
    pace: Pace,
    next_at: Option<Micros>,
}

/// What a host that answers requests knows of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// From where its requests come.
    pub source: SocketAddr,
    /// How often that has changed: each time a real application would have lost its peer.
    pub moved: u32,
    /// Requests that were not what they should be.
    pub corrupt: u64,
}

/// What a host met besides the flows that it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Packets with a length or checksum that is wrong.
    pub malformed: u64,
    /// RSTs sent since there was no such connection.
    pub resets_sent: u64,
    /// ICMP errors received.
    pub errors_received: u64,
    /// Packets that belong to nothing here.
    pub unexpected: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Tcp(usize),
    Requests(usize),
}

/// A host. After any `handle_*` or opening of a flow, drain `poll_packet`.
#[derive(Debug)]
pub struct Host {
    /// What it met besides.
    pub oddities: Oddities,
    tcp: Vec<Tcp>,
    connections: BTreeMap<(SocketAddr, SocketAddr), usize>,
    listening: BTreeSet<u16>,
    serves: Pace,
    requests: Vec<Requests>,
    answers: BTreeMap<(SocketAddr, SocketAddr, bool), usize>,
    clients: BTreeMap<u64, Client>,
    timers: BinaryHeap<Reverse<(Micros, Timer)>>,
    packets: VecDeque<Vec<u8>>,
    rng: Rng,
}

impl Host {
    /// A host that answers every ping and UDP request, and connections to ports it listens on at
    /// the pace `serves`.
    pub fn new(serves: Pace, rng: Rng) -> Self {
        Self {
            oddities: Oddities::default(),
            tcp: Vec::new(),
            connections: BTreeMap::new(),
            listening: BTreeSet::new(),
            serves,
            requests: Vec::new(),
            answers: BTreeMap::new(),
            clients: BTreeMap::new(),
            timers: BinaryHeap::new(),
            packets: VecDeque::new(),
            rng,
        }
    }

    /// Accepts connections to `port`.
    pub fn listen(&mut self, port: u16) {
        self.listening.insert(port);
    }

    /// Opens a TCP connection; its key.
    pub fn connect(
        &mut self,
        now: Micros,
        local: SocketAddr,
        remote: SocketAddr,
        pace: Pace,
    ) -> u64 {
        let key = self.rng.next_u64();
        let iss = self.rng.next_u64() as u32;
        let mut out = Vec::new();
        let tcp = Tcp::connect(now, (local, remote), key, iss, pace, &mut out);
        self.add_connection(tcp);
        self.send(out);
        key
    }

    /// Opens a UDP flow; its key.
    pub fn open_udp(
        &mut self,
        now: Micros,
        local: SocketAddr,
        remote: SocketAddr,
        pace: Pace,
    ) -> u64 {
        self.open_requests(now, local, remote, pace, false)
    }

    /// Sends `n` requests of `chunk` bytes of a new UDP flow at once, and no more; its key.
    pub fn burst_udp(
        &mut self,
        now: Micros,
        local: SocketAddr,
        remote: SocketAddr,
        n: u32,
        chunk: usize,
    ) -> u64 {
        let key = self.open_requests(now, local, remote, Pace { interval: 1, chunk }, false);
        let index = self.requests.len() - 1;
        (1..n).for_each(|_| self.send_request(now, index));
        self.requests[index].next_at = None;
        key
    }

    /// Opens a series of pings with the identifier `id`; its key.
    pub fn ping(&mut self, now: Micros, local: IpAddr, remote: IpAddr, id: u16, pace: Pace) -> u64 {
        let (local, remote) = (SocketAddr::new(local, id), SocketAddr::new(remote, id));
        self.open_requests(now, local, remote, pace, true)
    }

    /// Its connections, of both ways of opening, in the order in which they came.
    pub fn tcp(&self) -> &[Tcp] {
        &self.tcp
    }

    /// The latest connection with that key.
    pub fn connection(&self, key: u64) -> Option<&Tcp> {
        self.tcp.iter().rev().find(|tcp| tcp.key == Some(key))
    }

    /// Its UDP flows and series of pings, in the order in which they were opened.
    pub fn requests(&self) -> &[Requests] {
        &self.requests
    }

    /// The client whose flow has that key.
    pub fn client(&self, key: u64) -> Option<&Client> {
        self.clients.get(&key)
    }

    /// Forgets the longest gap of every flow.
    pub fn forget_gaps(&mut self) {
        self.tcp.iter_mut().for_each(|tcp| tcp.received.forget_gap());
        self.requests.iter_mut().for_each(|flow| flow.answered.forget_gap());
    }

    /// Writes and requests nothing more; what is under way is finished.
    pub fn pause(&mut self) {
        self.tcp.iter_mut().for_each(Tcp::pause);
        self.stop_requests();
    }

    /// Requests nothing more.
    pub fn stop_requests(&mut self) {
        self.requests.iter_mut().for_each(|flow| flow.next_at = None);
    }

    /// Closes the connection with that key in good order.
    pub fn close(&mut self, now: Micros, key: u64) {
        if let Some(index) = self.tcp.iter().rposition(|tcp| tcp.key == Some(key)) {
            let mut out = Vec::new();
            self.tcp[index].close(now, &mut out);
            self.arm(Timer::Tcp(index));
            self.send(out);
        }
    }

    /// Resets the connection with that key.
    pub fn abort(&mut self, key: u64) {
        if let Some(tcp) = self.tcp.iter_mut().rfind(|tcp| tcp.key == Some(key)) {
            let mut out = Vec::new();
            tcp.abort(&mut out);
            self.send(out);
        }
    }

    /// Takes a packet, from the first byte of its IP header.
    pub fn handle_packet(&mut self, now: Micros, bytes: &[u8]) {
        let Ok(datagram) = Datagram::parse(bytes) else {
            self.oddities.malformed += 1;
            return;
        };
        match datagram.transport {
            Transport::Tcp { seq, ack, flags } => {
                self.handle_segment(now, &datagram, Segment { seq, ack, flags });
            }
            Transport::Udp if self.is_answer(&datagram, false) => {
                self.handle_answer(now, &datagram, false);
            }
            Transport::Udp => self.handle_request(&datagram, Transport::Udp),
            Transport::EchoRequest { seq } => {
                self.handle_request(&datagram, Transport::EchoReply { seq });
            }
            Transport::EchoReply { .. } => self.handle_answer(now, &datagram, true),
            Transport::Error { .. } => self.oddities.errors_received += 1,
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Micros) {
        while let Some(&Reverse((at, timer))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            if self.due(timer) != Some(at) {
                continue;
            }
            match timer {
                Timer::Tcp(index) => {
                    let mut out = Vec::new();
                    self.tcp[index].handle_timeout(now, &mut out);
                    self.send(out);
                }
                Timer::Requests(index) => self.send_request(now, index),
            }
            self.arm(timer);
        }
    }

    /// When [`Self::handle_timeout`] is to be called next; perhaps in vain.
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// The next packet to send.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    fn handle_segment(&mut self, now: Micros, datagram: &Datagram, segment: Segment) {
        let addresses = (datagram.dst, datagram.src);
        let mut out = Vec::new();
        let syn = segment.flags & (SYN | ACK | RST) == SYN;
        let known = self.connections.get(&addresses).copied().filter(|&index| {
            let over = matches!(self.tcp[index].state(), State::Closed | State::TimedOut);
            // RFC 9293 §3.10.7.4: a new incarnation may follow one that is over.
            !(syn && (over || self.tcp[index].state() == State::Reset))
        });
        match known {
            // A connection that was reset is no connection.
            Some(index) if !matches!(self.tcp[index].state(), State::Reset | State::TimedOut) => {
                self.tcp[index].handle_segment(now, segment, &datagram.payload, &mut out);
                self.arm(Timer::Tcp(index));
            }
            None if syn && self.listening.contains(&datagram.dst.port()) => {
                let iss = self.rng.next_u64() as u32;
                let tcp = Tcp::accept(now, addresses, segment, iss, self.serves, &mut out);
                self.add_connection(tcp);
            }
            _ if segment.flags & RST == 0 => {
                self.oddities.resets_sent += 1;
                out.push(reset(datagram, segment));
            }
            _ => self.oddities.unexpected += 1,
        }
        self.send(out);
    }

    fn is_answer(&self, datagram: &Datagram, ping: bool) -> bool {
        self.answers.contains_key(&(datagram.dst, datagram.src, ping))
    }

    fn handle_answer(&mut self, now: Micros, datagram: &Datagram, ping: bool) {
        let Some(&index) = self.answers.get(&(datagram.dst, datagram.src, ping)) else {
            self.oddities.unexpected += 1;
            return;
        };
        let flow = &mut self.requests[index];
        let direction = if ping { Direction::Forth } else { Direction::Back };
        match request_number(&datagram.payload, direction) {
            Some((key, number)) if key == flow.key && number < flow.sent => {
                flow.answered.note(now, datagram.payload.len());
            }
            _ => flow.corrupt += 1,
        }
    }

    fn handle_request(&mut self, datagram: &Datagram, answer: Transport) {
        let Some((key, number)) = request_number(&datagram.payload, Direction::Forth) else {
            match datagram.payload.first_chunk() {
                Some(key) if self.clients.contains_key(&u64::from_be_bytes(*key)) => {
                    let client = self.clients.get_mut(&u64::from_be_bytes(*key));
                    client.into_iter().for_each(|client| client.corrupt += 1);
                }
                _ => self.oddities.unexpected += 1,
            }
            return;
        };
        let source = datagram.src;
        let client = self.clients.entry(key).or_insert(Client { source, moved: 0, corrupt: 0 });
        if client.source != source {
            client.source = source;
            client.moved += 1;
        }
        let payload = match answer {
            Transport::Udp => request(key, number, Direction::Back, datagram.payload.len()),
            _ => datagram.payload.clone(),
        };
        let (src, dst) = (datagram.dst, datagram.src);
        self.send(vec![Datagram { src, dst, transport: answer, payload }]);
    }

    fn open_requests(
        &mut self,
        now: Micros,
        local: SocketAddr,
        remote: SocketAddr,
        pace: Pace,
        ping: bool,
    ) -> u64 {
        let key = self.rng.next_u64();
        let index = self.requests.len();
        self.requests.push(Requests {
            key,
            answered: Progress::new(now),
            sent: 0,
            corrupt: 0,
            local,
            remote,
            ping,
            pace,
            next_at: Some(now),
        });
        self.answers.insert((local, remote, ping), index);
        self.send_request(now, index);
        self.arm(Timer::Requests(index));
        key
    }

    fn send_request(&mut self, now: Micros, index: usize) {
        let flow = &mut self.requests[index];
        let payload = request(flow.key, flow.sent, Direction::Forth, flow.pace.chunk);
        let transport = match flow.ping {
            true => Transport::EchoRequest { seq: flow.sent as u16 },
            false => Transport::Udp,
        };
        let datagram = Datagram { src: flow.local, dst: flow.remote, transport, payload };
        flow.sent += 1;
        flow.next_at = Some(now + flow.pace.interval);
        self.send(vec![datagram]);
    }

    fn add_connection(&mut self, tcp: Tcp) {
        let index = self.tcp.len();
        self.connections.insert((tcp.local, tcp.remote), index);
        self.tcp.push(tcp);
        self.arm(Timer::Tcp(index));
    }

    fn due(&self, timer: Timer) -> Option<Micros> {
        match timer {
            Timer::Tcp(index) => self.tcp[index].poll_timeout(),
            Timer::Requests(index) => self.requests[index].next_at,
        }
    }

    fn arm(&mut self, timer: Timer) {
        if let Some(at) = self.due(timer) {
            self.timers.push(Reverse((at, timer)));
        }
    }

    fn send(&mut self, datagrams: Vec<Datagram>) {
        self.packets.extend(datagrams.iter().map(Datagram::emit));
    }
}

/// Key, number, and a pattern that depends on both.
fn request(key: u64, number: u64, direction: Direction, len: usize) -> Vec<u8> {
    let mut payload = [key.to_be_bytes(), number.to_be_bytes()].concat();
    let rest = len.saturating_sub(payload.len());
    payload.extend(pattern(key, direction, number << 16, rest));
    payload
}

/// Key and number of a request or an answer, if it is one, whole and right.
fn request_number(payload: &[u8], direction: Direction) -> Option<(u64, u64)> {
    let (key, rest) = payload.split_first_chunk::<KEY_LEN>()?;
    let number = u64::from_be_bytes(*rest.first_chunk()?);
    let key = u64::from_be_bytes(*key);
    (payload == request(key, number, direction, payload.len())).then_some((key, number))
}

/// RFC 9293 §3.10.7.1: what a segment without a connection earns.
fn reset(datagram: &Datagram, segment: Segment) -> Datagram {
    let transport = if segment.flags & ACK != 0 {
        Transport::Tcp { seq: segment.ack, ack: 0, flags: RST }
    } else {
        let len = datagram.payload.len() as u32
            + u32::from(segment.flags & SYN != 0)
            + u32::from(segment.flags & FIN != 0);
        Transport::Tcp { seq: 0, ack: segment.seq.wrapping_add(len), flags: RST | ACK }
    };
    Datagram { src: datagram.dst, dst: datagram.src, transport, payload: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{millis, seconds};

    const PACE: Pace = Pace { interval: millis(100), chunk: 64 };

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Runs two hosts on a wire without delay; `change` may alter what passes, or drop it.
    fn run(
        a: &mut Host,
        b: &mut Host,
        from: Micros,
        until: Micros,
        mut change: impl FnMut(&mut Vec<u8>) -> bool,
    ) {
        let mut now = from;
        loop {
            while let Some((packet, to_b)) =
                a.poll_packet().map(|p| (p, true)).or_else(|| b.poll_packet().map(|p| (p, false)))
            {
                let mut packet = packet;
                if change(&mut packet) {
                    let host = if to_b { &mut *b } else { &mut *a };
                    host.handle_packet(now, &packet);
                }
            }
            match [a.poll_timeout(), b.poll_timeout()].into_iter().flatten().min() {
                Some(at) if at <= until => now = at,
                _ => break,
            }
            a.handle_timeout(now);
            b.handle_timeout(now);
        }
    }

    fn hosts() -> (Host, Host) {
        let mut b = Host::new(PACE, Rng::new(2));
        b.listen(80);
        (Host::new(PACE, Rng::new(1)), b)
    }

    #[test]
    fn flows_go_both_ways() {
        let (mut a, mut b) = hosts();
        let (local, remote) = (address("10.0.0.1:1000"), address("10.0.0.2:80"));
        let tcp = a.connect(0, local, remote, PACE);
        let udp = a.open_udp(0, local, remote, PACE);
        a.ping(0, local.ip(), remote.ip(), 9, PACE);
        run(&mut a, &mut b, 0, seconds(10), |_| true);
        for host in [&a, &b] {
            let connection = host.connection(tcp).unwrap();
            assert_eq!((connection.state(), connection.corrupt), (State::Established, 0));
            assert!(connection.received.bytes > 6000);
            assert_eq!(host.oddities, Oddities::default());
        }
        for flow in a.requests() {
            assert_eq!((flow.sent, flow.corrupt), (101, 0));
            assert_eq!(flow.answered.bytes, 101 * 64);
            assert!(flow.answered.gap(seconds(10)) <= millis(100));
        }
        assert_eq!(b.client(udp).unwrap().moved, 0);
    }

    #[test]
    fn a_port_that_nobody_listens_on_resets() {
        let (mut a, mut b) = hosts();
        let key = a.connect(0, address("10.0.0.1:1000"), address("10.0.0.2:81"), PACE);
        run(&mut a, &mut b, 0, seconds(1), |_| true);
        assert_eq!(a.connection(key).unwrap().state(), State::Reset);
        assert_eq!(b.oddities.resets_sent, 1);
    }

    #[test]
    fn a_segment_of_an_unknown_connection_earns_a_reset_that_counts() {
        let (mut a, mut b) = hosts();
        let key = a.connect(0, address("10.0.0.1:1000"), address("10.0.0.2:80"), PACE);
        run(&mut a, &mut b, 0, seconds(1), |_| true);
        let mut stranger = Host::new(PACE, Rng::new(3));
        run(&mut a, &mut stranger, seconds(1), seconds(2), |_| true);
        assert_eq!(a.connection(key).unwrap().state(), State::Reset);
        assert_eq!(stranger.oddities.resets_sent, 1);
    }

    #[test]
    fn a_client_that_moves_is_noticed() {
        let (mut a, mut b) = hosts();
        let key = a.open_udp(0, address("10.0.0.1:1000"), address("10.0.0.2:53"), PACE);
        run(&mut a, &mut b, 0, seconds(1), |_| true);
        // Another source port, as of a NAT that has forgotten the session.
        a.handle_timeout(seconds(2));
        let mut moved = Datagram::parse(&a.poll_packet().unwrap()).unwrap();
        moved.src.set_port(2000);
        b.handle_packet(seconds(2), &moved.emit());
        assert_eq!(b.client(key).unwrap().moved, 1);
    }

    #[test]
    fn changed_bytes_are_noticed_even_with_right_checksums() {
        let (mut a, mut b) = hosts();
        let (local, remote) = (address("10.0.0.1:1000"), address("10.0.0.2:80"));
        a.connect(0, local, remote, PACE);
        let udp = a.open_udp(0, local, remote, PACE);
        run(&mut a, &mut b, 0, seconds(1), |packet| {
            let mut datagram = Datagram::parse(packet).unwrap();
            if let Some(byte) = datagram.payload.get_mut(20) {
                *byte ^= 1;
            }
            *packet = datagram.emit();
            true
        });
        assert!(b.tcp()[0].corrupt > 0);
        assert_eq!(b.client(udp).map(|client| client.corrupt), None);
        assert!(b.oddities.unexpected > 0);
        run(&mut a, &mut b, seconds(1), seconds(2), |packet| {
            packet[22] ^= 1;
            true
        });
        assert!(b.oddities.malformed > 0);
    }
}
