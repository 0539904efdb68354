//! `make fuzz` runs it: see `jsync_fuzz::wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jsync_fuzz::wire(data));
