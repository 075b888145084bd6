//! Figures become something to read: the report for people and for programs, and the metrics.
//!
//! * [`report`]: a window's figures as the JSON report's data; [`json`] and [`table`] print it.
//! * [`verdict`]: what dominates in a report, in plain sentences.
//! * [`diff`]: two runs beside one another.
//! * [`export`]: what threads did, in the formats of other programs.
//! * [`check`]: what this host has and lacks.
//! * [`metrics`]: all figures as they are now, for Prometheus.
//! * [`api`]: the same as JSON, beside the last minute's.
//! * [`recent`]: what happened in the last minute or so.
//! * [`screen`]: the live screen.
//! * [`text`]: units, harmless names, columns.

pub mod api;
pub mod check;
pub mod diff;
pub mod export;
pub mod json;
pub mod metrics;
pub mod recent;
pub mod report;
pub mod screen;
pub mod table;
pub mod text;
pub mod verdict;
