//! Flows through a translator: packets built by hand, so that nothing but the translator is timed.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use jsync_core::config::Config;
use jsync_core::nat64::Nat64;
use jsync_core::packet::{Gso, HEADROOM, Offload, Outcome, Packet};
use jsync_core::time::Time;
use jsync_io::Ahead;
use nix::sys::resource::{UsageWho, getrusage};

/// Packets handed over at once, as the worker does.
pub const BURST: usize = 64;

/// Where every flow goes: 192.0.2.16, port 9009.
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 16);
const SERVER_PORT: u16 = 9009;
/// Ports that a client uses before the next client's turn.
const PORTS_PER_CLIENT: u32 = 50_000;

/// What a flow's packets look like.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Protocol number.
    pub proto: u8,
    /// Bytes behind the transport header.
    pub payload: usize,
    /// Whether it is a TCP super-packet.
    pub gso: bool,
}

pub const UDP64: Shape = Shape { proto: 17, payload: 64, gso: false };
pub const UDP1500: Shape = Shape { proto: 17, payload: 1452, gso: false };
pub const TCP64: Shape = Shape { proto: 6, payload: 64, gso: false };
pub const GSO64K: Shape = Shape { proto: 6, payload: 65_000, gso: true };

impl Shape {
    fn header(&self) -> usize {
        if self.proto == 6 { 20 } else { 8 }
    }

    fn offload(&self) -> Offload {
        if self.gso {
            Offload { partial_checksum: true, gso: Gso::Tcp, gso_size: 1420 }
        } else {
            Offload::default()
        }
    }
}

/// Flags of a TCP segment.
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const SYN_ACK: u8 = 0x12;
pub const ACK: u8 = 0x10;

/// A burst of buffers that are written again and again.
pub struct Buffers {
    bytes: Vec<Vec<u8>>,
    lens: [usize; BURST],
    offload: Offload,
}

impl Buffers {
    pub fn new(shape: Shape) -> Self {
        let bytes = vec![vec![0; HEADROOM + 40 + shape.header() + shape.payload]; BURST];
        Self { bytes, lens: [0; BURST], offload: shape.offload() }
    }

    /// Writes the headers of flow `flow`, seen from IPv6, into buffer `slot`.
    pub fn write_v6(&mut self, slot: usize, shape: Shape, flow: u32, flags: u8) {
        let (addr, port) = client(flow);
        let len = shape.header() + shape.payload;
        let packet = &mut self.bytes[slot][HEADROOM..];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, shape.proto, 64]);
        packet[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        packet[8..24].copy_from_slice(&addr.octets());
        packet[24..36].copy_from_slice(&[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet[36..40].copy_from_slice(&SERVER.octets());
        write_l4(&mut packet[40..], shape, port, SERVER_PORT, flags);
        self.lens[slot] = 40 + len;
    }

    /// Writes the headers of a packet from the server to `mask` into buffer `slot`.
    pub fn write_v4(&mut self, slot: usize, shape: Shape, mask: (Ipv4Addr, u16), flags: u8) {
        let len = 20 + shape.header() + shape.payload;
        let packet = &mut self.bytes[slot][HEADROOM..];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, shape.proto, 0, 0]);
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[12..16].copy_from_slice(&SERVER.octets());
        packet[16..20].copy_from_slice(&mask.0.octets());
        let sum: u32 =
            packet[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        write_l4(&mut packet[20..], shape, SERVER_PORT, mask.1, flags);
        self.lens[slot] = len;
    }

    /// Translates the first `count` buffers; how long that took. All must be forwarded if `strict`.
    pub fn translate(&mut self, nat64: &mut Nat64, now: Time, count: usize, strict: bool) -> Took {
        self.translate_then(nat64, now, count, strict, |_, _| {})
    }

    /// The same, and `seen` gets each slot and its translated packet.
    pub fn translate_then(
        &mut self,
        nat64: &mut Nat64,
        now: Time,
        count: usize,
        strict: bool,
        mut seen: impl FnMut(usize, &[u8]),
    ) -> Took {
        let mut burst = self.packets();
        let took = Took::by(|| nat64.handle_packets(now, &mut burst[..count]));
        for (slot, packet) in burst[..count].iter().enumerate() {
            let forwarded = packet.outcome == Outcome::Forward;
            assert!(forwarded || !strict, "packet {slot}: {:?}", packet.outcome);
            if forwarded {
                seen(slot, packet.bytes());
            }
        }
        took
    }

    /// The buffers as packets.
    pub fn packets(&mut self) -> [Packet<'_>; BURST] {
        let (offload, lens) = (self.offload, self.lens);
        let mut buffers = self.bytes.iter_mut();
        core::array::from_fn(|slot| {
            let buffer = buffers.next().expect("there are BURST buffers");
            Packet::new(buffer, HEADROOM, lens[slot], offload)
        })
    }
}

fn write_l4(to: &mut [u8], shape: Shape, src: u16, dst: u16, flags: u8) {
    to[..2].copy_from_slice(&src.to_be_bytes());
    to[2..4].copy_from_slice(&dst.to_be_bytes());
    if shape.proto == 6 {
        to[12..14].copy_from_slice(&[0x50, flags]);
        to[16..18].copy_from_slice(&0x1234_u16.to_be_bytes());
    } else {
        to[4..6].copy_from_slice(&((8 + shape.payload) as u16).to_be_bytes());
        to[6..8].copy_from_slice(&0x1234_u16.to_be_bytes());
    }
}

/// What something took: by the clock, and in this thread's time on a CPU. What other threads take
/// is not in the latter, page faults are, and what a hypervisor takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    pub wall: Duration,
    pub cpu: Duration,
    /// Pages that the system had to find first.
    pub faults: i64,
    /// How often the thread gave its CPU up, to wait for something.
    pub waits: i64,
    /// How often it lost its CPU to others.
    pub preemptions: i64,
}

impl Took {
    pub fn by(act: impl FnOnce()) -> Self {
        let before = usage();
        let cpu = cpu_time();
        let wall = Instant::now();
        act();
        let (wall, cpu) = (wall.elapsed(), cpu_time() - cpu);
        let after = usage();
        let [faults, waits, preemptions] = core::array::from_fn(|n| after[n] - before[n]);
        Self { wall, cpu, faults, waits, preemptions }
    }
}

/// Page faults and context switches of this thread, voluntary and not.
fn usage() -> [i64; 3] {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("Linux tells of threads");
    let faults = usage.minor_page_faults() + usage.major_page_faults();
    [faults, usage.voluntary_context_switches(), usage.involuntary_context_switches()]
}

/// All bursts together, in time on a CPU, and the longest of those during which the thread didn't
/// lose its CPU: what that takes, and what it makes the caches forget, is the others'.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bursts {
    pub cpu: Duration,
    /// The one that took the most time on a CPU, and the one that took the most by the clock.
    pub longest: Took,
    pub longest_wall: Took,
    /// How many are left out.
    pub preempted: u32,
}

impl Bursts {
    pub fn add(&mut self, took: Took) {
        self.cpu += took.cpu;
        if took.preemptions > 0 {
            self.preempted += 1;
            return;
        }
        if took.cpu > self.longest.cpu {
            self.longest = took;
        }
        if took.wall > self.longest_wall.wall {
            self.longest_wall = took;
        }
    }
}

pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a CPU's time is not negative")
}

/// The client and port of a flow.
fn client(flow: u32) -> (Ipv6Addr, u16) {
    let host = u128::from(flow / PORTS_PER_CLIENT);
    let base = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).to_bits();
    (Ipv6Addr::from_bits(base + host), (flow % PORTS_PER_CLIENT) as u16 + 10_000)
}

/// Source address and port of a translated packet.
pub fn mask_of(packet: &[u8]) -> (Ipv4Addr, u16) {
    let addr = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    (addr, u16::from_be_bytes([packet[20], packet[21]]))
}

/// A translator with room for `sessions` and pool4 addresses enough for them.
pub fn nat64(sessions: u32, pool4: &str, ports: &str) -> Nat64 {
    let json = format!(
        r#"{{"pool4": [{{"prefix": "{pool4}", "ports": "{ports}"}}], "max-sessions": {sessions}}}"#
    );
    let config: Config = serde_json::from_str(&json).expect("the configuration is right");
    Nat64::new(config, &[7; 32]).expect("the configuration is right")
}

/// Opens `count` flows and returns their masks, and what it took to make the sessions.
pub fn open(
    nat64: &mut Nat64,
    shape: Shape,
    count: u32,
    now: Time,
) -> (Vec<(Ipv4Addr, u16)>, Bursts) {
    let mut masks = Vec::with_capacity(count as usize);
    let shape = Shape { payload: shape.payload.min(64), gso: false, ..shape };
    let mut buffers = Buffers::new(shape);
    // As the driver of a node does.
    let mut ahead = Ahead::new().expect("there are threads");
    ahead.follow(nat64.unused_memory());
    let mut bursts = Bursts::default();
    while masks.len() < count as usize {
        let first = masks.len() as u32;
        let burst = (count - first).min(BURST as u32) as usize;
        for slot in 0..burst {
            buffers.write_v6(slot, shape, first + slot as u32, SYN);
        }
        bursts.add(buffers.translate_then(nat64, now, burst, true, |_, packet| {
            masks.push(mask_of(packet));
        }));
        ahead.follow(nat64.unused_memory());
    }
    if shape.proto == 6 {
        for group in masks.chunks(BURST) {
            for (slot, mask) in group.iter().enumerate() {
                buffers.write_v4(slot, shape, *mask, SYN_ACK);
            }
            buffers.translate(nat64, now, group.len(), true);
        }
    }
    (masks, bursts)
}
