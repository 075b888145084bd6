//! The rules by which figures are compared with those of others, and how those are read: the parts of
//! `verify`, whose own tests run here.

#![allow(dead_code, reason = "the program uses all of it, and is another crate")]

#[path = "verify/check.rs"]
mod check;
#[path = "verify/parse.rs"]
mod parse;
#[path = "verify/sample.rs"]
mod sample;
#[path = "verify/stolen.rs"]
mod stolen;
