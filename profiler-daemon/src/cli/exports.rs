//! Formats of other programs, and how to get them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Choice;

/// Exports of what is measured.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Exports")]
pub struct Exporting {
    /// Write this, too, at the end: `html=stall.html`, `perfetto=stall.pftrace`, ... (`schedscope export
    /// --help` lists the formats). May be given several times; takes room for a recording beside the file
    #[arg(long, value_name = "FORMAT=FILE", value_parser = export_to)]
    pub export: Vec<ExportTo>,
}

/// A format, and the file that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportTo {
    /// Which format.
    pub format: Format,
    /// Where to.
    pub path: PathBuf,
}

fn export_to(text: &str) -> Result<ExportTo, String> {
    let Some((format, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
        return Err("expected a format and a file, such as html=stall.html".to_owned());
    };
    let format = Format::from_str(format, false).map_err(|_| {
        let names = Format::value_variants().iter().filter_map(|its| {
            its.to_possible_value()
                .map(|value| value.get_name().to_owned())
        });
        let names: Vec<String> = names.collect();
        format!("no format `{format}`: there are {}", names.join(", "))
    })?;
    Ok(ExportTo {
        format,
        path: path.into(),
    })
}

/// `schedscope export`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    schedscope export perfetto stall.sched -o stall.pftrace      open it in https://ui.perfetto.dev\n  \
    schedscope export html stall.sched -o stall.html             all of it as a page, for a browser\n  \
    schedscope export svg stall.sched -o stall.svg               flame graph of off-CPU time, for a browser\n  \
    schedscope export svg-runqueue stall.sched -o queued.svg     flame graph of waiting for a CPU, and for whom\n  \
    schedscope export folded stall.sched -o stall.folded         for flamegraph.pl, speedscope and the like\n  \
    schedscope export pprof stall.sched -o stall.pb              pprof -http=: stall.pb\n  \
    schedscope export parquet stall.sched -o stall.parquet       a table of spans, for DuckDB or Spark\n  \
    schedscope export csv stall.sched --pid 1234 -o stall.csv    the same table as text, of one process\n  \
    schedscope export json stall.sched | jq .                    the report")]
pub struct ExportArgs {
    /// Which format
    #[arg(value_enum)]
    pub format: Format,

    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Where to write it to instead of standard output
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Whom it is about.
    #[command(flatten)]
    pub choice: Choice,
}

/// A format of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For the Perfetto UI: what each thread did, who was on each CPU, and who woke whom
    Perfetto,
    /// Time off the CPU as folded stacks, for flame graph programs
    Folded,
    /// Time on a run queue as folded stacks: whose doing it was
    FoldedRunqueue,
    /// A flame graph of time off the CPU, for a browser; plain idleness is left out
    Svg,
    /// A flame graph of time on a run queue: whose doing it was
    SvgRunqueue,
    /// Time off the CPU for pprof
    Pprof,
    /// A page for a browser that needs nothing else: verdict, timeline, histograms, who slowed whom
    Html,
    /// A table for databases, Spark and the like: a row for each time that a thread did something
    Parquet,
    /// The same table as text
    Csv,
    /// The report, a line for each target
    Json,
}

impl Format {
    /// Whether a terminal can't show it.
    #[must_use]
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Perfetto | Self::Pprof | Self::Parquet)
    }

    /// Whether a report with each thread goes into it.
    #[must_use]
    pub fn has_threads(self) -> bool {
        matches!(self, Self::Html | Self::Json)
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, export_to};

    #[test]
    fn an_export_has_a_format_and_a_file() {
        let its = export_to("svg-runqueue=a=b.svg").expect("it has both");
        assert_eq!(
            (its.format, its.path.to_str()),
            (Format::SvgRunqueue, Some("a=b.svg"))
        );
        for wrong in ["", "svg", "svg=", "=x", "gif=x"] {
            assert!(export_to(wrong).is_err(), "{wrong}");
        }
    }
}
