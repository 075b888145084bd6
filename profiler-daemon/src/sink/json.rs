//! Reports for programs: one line of JSON each.

use std::io::{self, Write};

use serde::Serialize;

/// Writes a report as one line and flushes, so that a full disk or a closed pipe is an error here.
pub fn write(report: &impl Serialize, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}
