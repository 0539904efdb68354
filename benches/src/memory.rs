//! The ceiling: how fast this machine reads random cache lines.

use std::hint::black_box;
use std::time::Instant;

/// A cache line.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

/// 2 GiB: far beyond any cache.
const LINES: usize = 1 << 25;
const CHAINS: usize = 16;
const STEPS: u64 = 4_000_000;

/// Random reads of 64-byte lines from 2 GiB with 16 independent chains, lines/s: in a chain each
/// address follows from the line read before it.
pub fn random_lines() -> f64 {
    let mut lines = vec![Line::default(); LINES];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for line in &mut lines {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        line.0[0] = state ^ (state >> 29);
    }
    let mut at: [usize; CHAINS] = core::array::from_fn(|i| i * (LINES / CHAINS));
    let start = Instant::now();
    for step in 0..STEPS {
        for chain in &mut at {
            // The step keeps a chain from falling into a short cycle.
            *chain = (lines[*chain].0[0].wrapping_add(step) as usize) % LINES;
        }
    }
    black_box(at);
    (STEPS * CHAINS as u64) as f64 / start.elapsed().as_secs_f64()
}
