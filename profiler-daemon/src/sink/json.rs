//! The report for programs: one line of JSON.

use std::io::{self, Write};

use super::report::Report;

/// Writes the report as one line and flushes, so that a full disk or a closed pipe is an error here.
pub fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}
