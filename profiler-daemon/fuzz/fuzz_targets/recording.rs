//! See `schedscope_fuzz::recording`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| schedscope_fuzz::recording::run(data));
