//! See `schedscope_fuzz::http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| schedscope_fuzz::http::run(data));
