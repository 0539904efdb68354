//! `cargo +nightly fuzz run node`: see `jsync_fuzz::node`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jsync_fuzz::node(data));
