//! A stateful NAT64 (RFC 6146) whose sessions can be shared between machines.
//!
//! Nothing here performs I/O, reads a clock, draws a random number or starts a thread: `no_std`
//! makes the compiler hold us to that. Packets, frames, time and seeds come in as arguments to
//! `handle_*`; what is to be sent comes out of `poll_*`. The same inputs give the same outputs.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod config;
pub mod mutant;
pub mod nat64;
pub mod node;
pub mod packet;
mod queue;
pub mod stats;
pub mod sync;
pub mod table;
pub mod time;
pub mod tuple;
pub mod wire;
pub mod xlat;
