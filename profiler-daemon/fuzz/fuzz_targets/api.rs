//! See `schedscope_fuzz::api`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| schedscope_fuzz::api::run(data));
