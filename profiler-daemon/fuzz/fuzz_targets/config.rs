//! See `schedscope_fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| schedscope_fuzz::config::run(data));
