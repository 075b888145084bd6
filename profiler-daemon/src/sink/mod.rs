//! Figures become something to read: the report for people and for programs, and the metrics.
//!
//! * [`report`]: a window's figures as the JSON report's data; [`json`] and [`table`] print it.
//! * [`text`]: units, harmless names, columns.

pub mod json;
pub mod report;
pub mod table;
pub mod text;
