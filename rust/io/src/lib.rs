//! TUN devices and worker threads: the only unsafe code.

pub mod alloc;
