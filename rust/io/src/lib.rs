//! What a node needs of Linux: a TUN device, a thread that moves packets between it and the
//! translator, a clock. The only unsafe code of the project.

pub mod alloc;
mod clock;
mod fd;
mod memory;
mod port;
mod tun;
mod vnet;
mod worker;

pub use clock::now;
pub use fd::EventFd;
pub use memory::{Ahead, Unused};
pub use tun::{DeviceError, Tun};
pub use worker::{Driver, Engine, WorkerState};
