//! Figures become something to read: the report for people and for programs, and the metrics.
//!
//! * [`report`]: a window's figures as the JSON report's data; [`json`] and [`table`] print it.
//! * [`metrics`]: all figures as they are now, for Prometheus.
//! * [`text`]: units, harmless names, columns.

pub mod json;
pub mod metrics;
pub mod report;
pub mod table;
pub mod text;
