//! Schedscope: where the wall time of every thread went, and why it waited.
//!
//! The modules stand in the order of the data flow:
//!
//! * [`source`]: the probes in the kernel, and their records.
//! * [`core`]: records of many CPUs become one history, threads' states, and figures. Pure: no I/O, no clock.
//! * [`sink`]: figures become reports and metrics.

pub mod core;
pub mod sink;
pub mod source;
