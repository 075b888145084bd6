//! Flame graphs: one picture with its own script, which any browser shows.

use std::io::{self, Write};

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{self, Options, TextTruncateDirection};

use super::folded::line;
use super::stacks::{Graph, Stacks};
use super::{Export, Outcome, Run};
use crate::core::{Culprit, Seen, Span};
use crate::sink::report::Report;
use crate::sink::text;

/// Adds up, and draws at the end.
pub struct Svg<'a, W> {
    out: W,
    run: Run<'a>,
    stacks: Stacks,
}

impl<'a, W: Write> Svg<'a, W> {
    /// Writes here.
    pub fn new(out: W, graph: Graph, run: Run<'a>) -> Self {
        Self {
            out,
            run,
            stacks: Stacks::new(graph),
        }
    }
}

impl<W: Write> Export for Svg<'_, W> {
    fn seen(&mut self, waits: &[Seen]) {
        self.stacks.seen(waits);
    }

    fn span(&mut self, span: &Span, culprits: &[Culprit]) -> io::Result<()> {
        self.stacks.span(span, culprits);
        Ok(())
    }

    fn finish(mut self: Box<Self>, outcome: &Outcome<'_>) -> io::Result<()> {
        let idle_ns = self.stacks.leave_out_idleness();
        let lines: Vec<String> = self
            .stacks
            .rows(self.run)
            .iter()
            .map(|(frames, weight)| line(frames, weight.ns))
            .collect();
        if lines.is_empty() {
            self.out
                .write_all(nothing(self.stacks.graph()).as_bytes())?;
            return self.out.flush();
        }
        let mut options = options(self.stacks.graph());
        options.subtitle = Some(subtitle(outcome.reports, idle_ns));
        flamegraph::from_lines(
            &mut options,
            lines.iter().map(String::as_str),
            &mut self.out,
        )?;
        self.out.flush()
    }
}

fn options(graph: Graph) -> Options<'static> {
    let mut options = Options::default();
    title(graph).clone_into(&mut options.title);
    "µs".clone_into(&mut options.count_name);
    options.factor = 1e-3;
    "Place:".clone_into(&mut options.name_type);
    options.colors = Palette::Basic(match graph {
        Graph::OffCpu => BasicPalette::Aqua,
        Graph::RunQueue => BasicPalette::Orange,
    });
    options.text_truncate_direction = TextTruncateDirection::Right;
    // The same picture each time.
    options.deterministic = true;
    options
}

fn title(graph: Graph) -> &'static str {
    match graph {
        Graph::OffCpu => "Time off the CPU: process, thread, why, kernel functions",
        Graph::RunQueue => "Waiting for a CPU: process, thread, cause, who had it",
    }
}

/// Whom it is about, when, and what is not in it.
fn subtitle(reports: &[Report], idle_ns: u64) -> String {
    let targets = reports.iter().map(|report| {
        let target = &report.target;
        format!("{} {}", target.kind, text::safe(&target.value))
            .trim_end()
            .to_owned()
    });
    let mut parts = vec![targets.collect::<Vec<_>>().join(", ")];
    if let Some(report) = reports.first() {
        let window = report.window;
        parts.push(format!(
            "{} from {}",
            text::duration(window.duration_ns),
            text::utc(window.start_unix_ns)
        ));
    }
    if idle_ns > 0 {
        let idle = text::duration(idle_ns);
        parts.push(format!("without {idle} of waits that are plain idleness"));
    }
    parts.join("; ")
}

/// A picture that says that there is nothing to draw.
fn nothing(graph: Graph) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"60\"><text x=\"20\" y=\"36\" \
         font-family=\"monospace\">{}: none</text></svg>\n",
        title(graph)
    )
}
