//! Time off the CPU as folded stacks: a line a place, its frames separated by semicolons and then
//! nanoseconds, which flame graph programs read.

use std::io::{self, Write};

use super::stacks::{Frames, Graph, Stacks};
use super::{Export, Outcome, Run};
use crate::core::{Culprit, Seen, Span};

/// Adds up, and writes at the end.
pub struct Folded<'a, W> {
    out: W,
    run: Run<'a>,
    stacks: Stacks,
}

impl<'a, W: Write> Folded<'a, W> {
    /// Writes here.
    pub fn new(out: W, graph: Graph, run: Run<'a>) -> Self {
        Self {
            out,
            run,
            stacks: Stacks::new(graph),
        }
    }
}

impl<W: Write> Export for Folded<'_, W> {
    fn seen(&mut self, waits: &[Seen]) {
        self.stacks.seen(waits);
    }

    fn span(&mut self, span: &Span, culprits: &[Culprit]) -> io::Result<()> {
        self.stacks.span(span, culprits);
        Ok(())
    }

    fn finish(mut self: Box<Self>, _: &Outcome<'_>) -> io::Result<()> {
        for (frames, weight) in self.stacks.rows(self.run) {
            writeln!(self.out, "{}", line(&frames, weight.ns))?;
        }
        self.out.flush()
    }
}

/// A place as a line. A frame ends at a semicolon, and a line at its end: neither may be in a name.
pub(super) fn line(frames: &Frames, ns: u64) -> String {
    let plain = |frame: &String| {
        frame
            .chars()
            .map(|c| if c == ';' || c.is_control() { '_' } else { c })
            .collect::<String>()
    };
    let frames: Vec<String> = frames.iter().map(plain).collect();
    format!("{} {ns}", frames.join(";"))
}
