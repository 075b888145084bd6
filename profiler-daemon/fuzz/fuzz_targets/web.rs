//! See `schedscope_fuzz::web`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| schedscope_fuzz::web::run(data));
