//! A node's devices, and the buffers of a burst.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use jsync_core::packet::{HEADROOM, Outcome, OwnedPacket, Packet};
use jsync_core::time::Time;

use crate::{DeviceError, Tun, vnet};

/// Packets read before any of them is handled.
const BURST: usize = 64;
/// Where a packet begins in its buffer: room for the translator and for a virtio_net_hdr.
const FRONT: usize = (HEADROOM + vnet::LEN).next_multiple_of(64);
/// What must be free for a packet: an IPv6 packet has up to 65575 bytes.
const LARGEST: usize = (FRONT + 40 + 65535).next_multiple_of(64);
/// The buffers of a burst lie one behind the other, each as long as its packet needs, so that a
/// burst of small packets is a few pages. More bytes than this aren't read before they are
/// written out: what the cache has forgotten meanwhile costs more than a system call saves.
const ARENA: usize = LARGEST + (256 << 10);

/// Where packets come from. A packet that is read from a TUN carries no mark, so each mark has a
/// device; the first is that of unmarked ones, and the one by which all packets leave.
#[derive(Debug)]
pub struct Devices(Vec<(u32, Tun)>);

impl Devices {
    /// The device of unmarked packets.
    pub fn new(tun: Tun) -> Self {
        Self(vec![(0, tun)])
    }

    /// Removes the devices of other marks than these and 0, and opens those that are missing.
    ///
    /// # Errors
    /// Those of `open`; devices that it has opened before are removed.
    pub fn follow(
        &mut self,
        marks: &[u32],
        open: &mut impl FnMut(u32) -> Result<Tun, DeviceError>,
    ) -> Result<(), DeviceError> {
        let is_wanted = |mark: u32| mark == 0 || marks.contains(&mark);
        let unwanted = self.0.extract_if(.., |(mark, _)| !is_wanted(*mark));
        unwanted.for_each(|(_, tun)| tun.remove());
        let before = self.0.len();
        for &mark in marks {
            if self.0.iter().any(|&(known, _)| known == mark) {
                continue;
            }
            match open(mark) {
                Ok(tun) => self.0.push((mark, tun)),
                Err(error) => {
                    self.0.drain(before..).for_each(|(_, tun)| tun.remove());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Closes all and removes them, persistent or not.
    pub fn remove(self) {
        self.0.into_iter().for_each(|(_, tun)| tun.remove());
    }
}

/// What happened at the devices since the engine was last told.
#[derive(Debug, Default)]
pub struct Counts {
    pub refused: u64,
    pub down: u64,
    pub bad_offload: u64,
}

/// Devices with the buffers of a burst.
pub struct Port {
    devices: Devices,
    /// The device that is read first next time: one that always has packets mustn't keep others
    /// waiting.
    next: usize,
    arena: Box<[u8]>,
}

impl Port {
    pub fn new(devices: Devices) -> Self {
        Self { devices, next: 0, arena: vec![0; ARENA].into_boxed_slice() }
    }

    pub fn into_devices(self) -> Devices {
        self.devices
    }

    /// What becomes readable when there are packets.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.0.iter().map(|(_, tun)| tun.as_fd())
    }

    /// Reads a burst, has `pass` translate it and writes it out, with the packets that `pass`
    /// returns. Returns when that wants to wake, and whether the devices had no more packets.
    ///
    /// # Errors
    /// Why a device can't be used any more.
    pub fn serve(
        &mut self,
        counts: &mut Counts,
        pass: impl FnOnce(&mut [Packet<'_>], &mut Counts) -> (Option<Time>, Vec<OwnedPacket>),
    ) -> Result<(Option<Time>, bool), String> {
        let Self { devices: Devices(devices), next, arena } = self;
        let mut burst = Burst { packets: Vec::with_capacity(BURST), arena };
        let mut idle = true;
        for _ in 0..devices.len() {
            let (mark, tun) = &devices[*next];
            *next = (*next + 1) % devices.len();
            if !burst.fill(*mark, tun, counts).map_err(|error| lost(tun, &error))? {
                idle = false;
                break;
            }
        }
        let (wakes, packets) = pass(&mut burst.packets, counts);
        let (_, tun) = &devices[0];
        let mut send =
            |bytes: Option<&[u8]>| write(tun, bytes, counts).map_err(|error| lost(tun, &error));
        for packet in burst.packets.iter_mut().filter(|p| p.outcome == Outcome::Forward) {
            let header = vnet::encode(packet.offload, packet.bytes());
            send(header.ok().and_then(|header| packet.behind(&header)))?;
        }
        for packet in &packets {
            let header = vnet::encode(packet.offload, &packet.bytes);
            let bytes = header.map(|header| [&header[..], &packet.bytes].concat());
            send(bytes.ok().as_deref())?;
        }
        Ok((wakes, idle))
    }
}

fn lost(tun: &Tun, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBADFD) => format!("{} was removed", tun.name()),
        _ => format!("{}: {error}", tun.name()),
    }
}

struct Burst<'a> {
    packets: Vec<Packet<'a>>,
    /// What is left of it.
    arena: &'a mut [u8],
}

impl Burst<'_> {
    /// Reads packets until there are none or the burst is full; whether there are none.
    fn fill(&mut self, mark: u32, tun: &Tun, counts: &mut Counts) -> io::Result<bool> {
        while self.packets.len() < BURST && self.arena.len() >= LARGEST {
            let read = match tun.read(&mut self.arena[FRONT - vnet::LEN..LARGEST]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The kernel had a packet that no virtio_net_hdr can describe, and dropped it.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    counts.bad_offload += 1;
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            let len = read.checked_sub(vnet::LEN).ok_or(io::ErrorKind::UnexpectedEof)?;
            let arena = std::mem::take(&mut self.arena);
            let (buffer, rest) = arena.split_at_mut((FRONT + len).next_multiple_of(64));
            self.arena = rest;
            let (front, packet) = buffer.split_at_mut(FRONT);
            match front.last_chunk().map(|header| vnet::decode(header, &mut packet[..len])) {
                Some(Ok(offload)) => {
                    let mut packet = Packet::new(buffer, FRONT, len, offload);
                    packet.mark = mark;
                    self.packets.push(packet);
                }
                _ => counts.bad_offload += 1,
            }
        }
        Ok(false)
    }
}

/// Writes a packet behind its header, if it can have one. Only a device that is gone is an error;
/// a lost packet is counted.
fn write(tun: &Tun, bytes: Option<&[u8]>, counts: &mut Counts) -> io::Result<()> {
    let Some(bytes) = bytes else {
        counts.bad_offload += 1;
        return Ok(());
    };
    match tun.write(bytes) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Err(error),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => counts.refused += 1,
        Err(_) => counts.down += 1,
    }
    Ok(())
}
