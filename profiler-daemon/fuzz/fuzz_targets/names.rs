//! See `schedscope_fuzz::names`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| schedscope_fuzz::names::run(data));
