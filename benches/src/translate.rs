//! Nanoseconds for a packet of a known session, sessions in random order.
//!
//! The ratio is to a random cache line of this machine: how many lines a packet costs.

use std::time::Duration;

use jsync_core::nat64::Nat64;
use jsync_core::packet::Packet;
use jsync_core::time::Time;

use crate::flows::{ACK, BURST, Buffers, GSO64K, Shape, TCP64, UDP64, UDP1500, nat64, open};
use crate::report::Report;

const SIZES: [(&str, u32); 4] =
    [("1k", 1_000), ("100k", 100_000), ("1m", 1_000_000), ("10m", 10_000_000)];
const SHAPES: [(&str, Shape); 4] =
    [("udp64", UDP64), ("tcp64", TCP64), ("udp1500", UDP1500), ("gso64k", GSO64K)];
/// Bursts that are timed.
const BURSTS: u32 = 30_000;
/// Groups of bursts of which the one in the middle counts.
const GROUPS: u32 = 100;

pub fn run(report: &mut Report) {
    for (shape_name, shape) in SHAPES {
        for (size_name, size) in SIZES {
            let name = |way| format!("translate/{way}/{shape_name}/{size_name}");
            let (out, back) = (name("v6to4"), name("v4to6"));
            if report.wants(&out) || report.wants(&back) {
                let (out_ns, back_ns) = measure(shape, size);
                let line = report.random_line_ns();
                for (name, ns) in [(out, out_ns), (back, back_ns)] {
                    if report.wants(&name) {
                        report.print(&name, ns, "ns", Some(line));
                    }
                }
            }
        }
    }
}

/// Packets of one kind through [`counted`], for a program that counts instructions: `kind` is a
/// direction and a shape, such as `v6to4/udp64`. Returns how many went through.
pub fn count(kind: &str) -> Option<u32> {
    const FLOWS: u32 = 1_000;
    const BURSTS: u32 = 200;
    let (way, shape) = kind.split_once('/')?;
    let shape = SHAPES.iter().find(|(name, _)| *name == shape)?.1;
    let now = Time::from_millis(1_000);
    let mut nat64 = nat64(FLOWS, "198.51.100.0/24", "1024-65535");
    let (masks, _) = open(&mut nat64, shape, FLOWS, now);
    let mut buffers = Buffers::new(shape);
    for burst in 0..BURSTS {
        for slot in 0..BURST {
            let flow = (burst * BURST as u32 + slot as u32) * 17 % FLOWS;
            match way {
                "v6to4" => buffers.write_v6(slot, shape, flow, ACK),
                "v4to6" => buffers.write_v4(slot, shape, masks[flow as usize], ACK),
                _ => return None,
            }
        }
        counted(&mut nat64, now, &mut buffers.packets());
    }
    Some(BURSTS * BURST as u32)
}

/// Known by its name to whoever counts.
#[inline(never)]
fn counted(nat64: &mut Nat64, now: Time, burst: &mut [Packet<'_>]) {
    nat64.handle_packets(now, burst);
}

fn measure(shape: Shape, size: u32) -> (f64, f64) {
    let now = Time::from_millis(1_000);
    let mut nat64 = nat64(size, "198.51.100.0/24", "1024-65535");
    let (masks, _) = open(&mut nat64, shape, size, now);
    let mut buffers = Buffers::new(shape);
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (((state >> 33) * u64::from(size)) >> 31) as u32
    };
    // Large packets cost time to write, not to translate: fewer do.
    let bursts = if shape.gso { BURSTS / 10 } else { BURSTS };
    let out = typical(bursts, || {
        for slot in 0..BURST {
            buffers.write_v6(slot, shape, random(), ACK);
        }
        buffers.translate(&mut nat64, now, BURST, true).wall
    });
    let back = typical(bursts, || {
        for slot in 0..BURST {
            buffers.write_v4(slot, shape, masks[random() as usize], ACK);
        }
        buffers.translate(&mut nat64, now, BURST, true).wall
    });
    (out, back)
}

/// Nanoseconds of a packet: the median of groups of bursts. What one of them waits for while the
/// machine's other users have the CPU is not the translator's.
fn typical(bursts: u32, mut burst: impl FnMut() -> Duration) -> f64 {
    let group = bursts / GROUPS;
    let mut totals: Vec<Duration> =
        (0..GROUPS).map(|_| (0..group).map(|_| burst()).sum()).collect();
    totals.sort_unstable();
    totals[totals.len() / 2].as_nanos() as f64 / f64::from(group) / BURST as f64
}
