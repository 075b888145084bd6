//! Schedscope: where the wall time of every thread went, and why it waited.
//!
//! The modules stand in the order of the data flow:
//!
//! * [`source`]: the running kernel; its probes' records.
//! * [`core`]: records of many CPUs become one history, threads' states, and figures. Pure: no I/O, no clock.
//! * [`recording`]: what the core was given, in a file, so that another core can be given the same.
//! * [`identity`]: whom processes belong to: units, containers, pods.
//! * [`priority`]: which threads run before others.
//! * [`sink`]: figures become reports and metrics.
//! * [`daemon`]: what drives the flow, and the commands: [`cli`] is the command line, [`exit`] how they end.
//! * [`generate`]: man pages and completions, from the command line's definition; [`completion`] is what only the
//!   host knows of that.

pub mod cli;
pub mod completion;
pub mod core;
pub mod daemon;
pub mod exit;
pub mod generate;
pub mod identity;
pub mod priority;
pub mod recording;
pub mod sink;
pub mod source;
