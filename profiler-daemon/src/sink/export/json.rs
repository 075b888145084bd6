//! The report itself: a line of JSON for each target.

use std::io::{self, Write};

use super::{Export, Outcome};
use crate::core::{Culprit, Span};
use crate::sink::json;

/// Writes at the end.
pub struct Json<W> {
    out: W,
}

impl<W: Write> Json<W> {
    /// Writes here.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Export for Json<W> {
    fn span(&mut self, _: &Span, _: &[Culprit]) -> io::Result<()> {
        Ok(())
    }

    fn finish(mut self: Box<Self>, outcome: &Outcome<'_>) -> io::Result<()> {
        let out = &mut self.out;
        outcome
            .reports
            .iter()
            .try_for_each(|report| json::write(report, out))
    }
}
