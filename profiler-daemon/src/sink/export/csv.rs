//! One line for each time that a thread did something, separated by commas (RFC 4180).

use std::io::{self, Write};

use super::{Export, state};
use crate::core::{Doing, Seen, Span};
use crate::recording::{Facts, Header};

/// The first line.
const HEADER: &str = "tid,tgid,comm,state,reason,start_unix_ns,duration_ns,cpu,contended_ns,throttled_ns,\
                      placement_ns,cause_unknown_ns";

/// Writes lines.
pub struct Csv<W> {
    out: W,
    header: Header,
}

impl<W: Write> Csv<W> {
    /// Begins with the names of the columns.
    pub fn new(mut out: W, header: Header) -> io::Result<Self> {
        writeln!(out, "{HEADER}")?;
        Ok(Self { out, header })
    }
}

impl<W: Write> Export for Csv<W> {
    fn seen(&mut self, _: &[Seen]) {}

    fn span(&mut self, span: &Span) -> io::Result<()> {
        let (state, reason) = state(&span.doing);
        let comm = span.comm.display().replace('"', "\"\"");
        let start_ns = self.header.unix_ns(span.from_ns);
        let duration_ns = span.duration_ns();
        write!(
            self.out,
            "{},{},\"{comm}\",{state},{reason},{start_ns},{duration_ns},",
            span.tid, span.tgid
        )?;
        match (span.doing, span.cpu) {
            (Doing::Queued([contended, throttled, placement, unknown]), _) => {
                writeln!(self.out, ",{contended},{throttled},{placement},{unknown}")
            }
            (_, Some(cpu)) => writeln!(self.out, "{cpu},,,,"),
            _ => writeln!(self.out, ",,,,"),
        }
    }

    fn finish(mut self: Box<Self>, _: &Facts) -> io::Result<()> {
        self.out.flush()
    }
}
