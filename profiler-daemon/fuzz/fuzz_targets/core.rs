//! See `schedscope_fuzz::core`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| schedscope_fuzz::core::run(data));
