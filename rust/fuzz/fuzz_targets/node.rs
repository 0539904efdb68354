//! `make fuzz` runs it: see `jsync_fuzz::node`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jsync_fuzz::node(data));
