//! Off-CPU time as folded stacks: a line a place, `process;thread;state;reason;functions NANOSECONDS`, which
//! flame graph programs read.

use std::io::{self, Write};

use super::Export;
use super::stacks::{Stacks, process_name};
use crate::core::{Seen, Span};
use crate::recording::Facts;

/// Adds up, and writes at the end.
pub struct Folded<W> {
    out: W,
    stacks: Stacks,
}

impl<W: Write> Folded<W> {
    /// Writes here.
    pub fn new(out: W) -> Self {
        Self {
            out,
            stacks: Stacks::default(),
        }
    }
}

impl<W: Write> Export for Folded<W> {
    fn seen(&mut self, waits: &[Seen]) {
        self.stacks.seen(waits);
    }

    fn span(&mut self, span: &Span) -> io::Result<()> {
        self.stacks.span(span);
        Ok(())
    }

    fn finish(mut self: Box<Self>, facts: &Facts) -> io::Result<()> {
        for (frames, weight) in self.stacks.rows(|tgid| process_name(facts, tgid)) {
            // A frame ends at a semicolon, and a line at its end: neither may be in a name.
            let frames: Vec<String> = frames.iter().map(|frame| plain(frame)).collect();
            writeln!(self.out, "{} {}", frames.join(";"), weight.ns)?;
        }
        self.out.flush()
    }
}

fn plain(frame: &str) -> String {
    frame
        .chars()
        .map(|c| if c == ';' || c.is_control() { '_' } else { c })
        .collect()
}
