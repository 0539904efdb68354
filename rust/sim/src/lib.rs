//! A seeded network and a cluster of nodes on it.
//!
//! Everything here happens in virtual time and follows from a seed: the same seed gives the same
//! run, on every machine.

#![forbid(unsafe_code)]

pub mod clock;
pub mod cluster;
pub mod datagram;
pub mod flow;
pub mod hosts;
pub mod machine;
pub mod modes;
pub mod network;
pub mod rng;
pub mod schedule;
pub mod story;
pub mod tcp;
pub mod vrrp;

pub use story::{Report, simulate_failover};
