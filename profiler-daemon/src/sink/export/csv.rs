//! One line for each time that a thread did something, separated by commas (RFC 4180), with the columns of
//! [`rows`](super::rows).

use std::io::{self, Write};

use super::rows::{COLUMNS, Cell, Rows};
use super::{Export, Outcome, Run};
use crate::core::{Culprit, Span};

/// Writes lines.
pub struct Csv<'a, W> {
    out: W,
    rows: Rows<'a>,
}

impl<'a, W: Write> Csv<'a, W> {
    /// Begins with the names of the columns.
    pub fn new(mut out: W, run: Run<'a>) -> io::Result<Self> {
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        writeln!(out, "{}", names.join(","))?;
        Ok(Self {
            out,
            rows: Rows::new(run),
        })
    }
}

impl<W: Write> Export for Csv<'_, W> {
    fn span(&mut self, span: &Span, culprits: &[Culprit]) -> io::Result<()> {
        let row = self.rows.row(span, culprits);
        let texts = self.rows.texts();
        for (place, cell) in row.into_iter().enumerate() {
            if place > 0 {
                self.out.write_all(b",")?;
            }
            match cell {
                Cell::Empty => {}
                Cell::Number(number) => write!(self.out, "{number}")?,
                Cell::Text(number) => self.out.write_all(quoted(&texts[number]).as_bytes())?,
            }
        }
        self.out.write_all(b"\n")
    }

    fn finish(mut self: Box<Self>, _: &Outcome<'_>) -> io::Result<()> {
        self.out.flush()
    }
}

/// A text as a field: in quotes only where it needs them.
fn quoted(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_field_is_quoted_where_it_needs_to_be() {
        assert_eq!(quoted("shop-1"), "shop-1");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
    }
}
