//! `make fuzz` runs it: see `jsync_fuzz::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jsync_fuzz::frame(data));
