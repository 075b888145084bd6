//! See `schedscope_fuzz::chunks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| schedscope_fuzz::chunks::run(data));
