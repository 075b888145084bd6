//! What a fuzzer tries: each target takes any bytes, gives them to a part of schedscope that takes input from
//! others, and panics if a promise of that part is broken.
//!
//! `cargo xtask fuzz` runs them under libFuzzer, and `tests/corpus.rs` with all that is in `corpus/`, so that
//! what was found once is tried in every run of the tests. Both compile this file.

#[path = "../../tests/support/balance.rs"]
mod balance;
mod bytes;
#[path = "../../tests/support/mod.rs"]
mod support;

pub mod api;
pub mod chunks;
pub mod config;
pub mod core;
pub mod decode;
pub mod http;
pub mod names;
pub mod recording;
pub mod web;

/// A target: what it is called, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 9] = [
    ("api", api::run),
    ("chunks", chunks::run),
    ("config", config::run),
    ("core", core::run),
    ("decode", decode::run),
    ("http", http::run),
    ("names", names::run),
    ("recording", recording::run),
    ("web", web::run),
];
