//! What a record costs in the core, on one CPU, stage by stage: `cargo bench -p profiler-daemon --bench core`.
//!
//! On simulated hosts of many sizes, and on a recording (`--recording FILE`). Each row is the median of
//! several rounds; the stages of a round follow each other on the same records, so that what else the
//! machine does meets all of them.
//!
//! * `--format json`: an object a line, for programs.
//! * `--quick`: fewer rounds and sizes.
//! * A word: only the rows with that in their names.

mod recorded;
mod rows;
mod simulated;

#[path = "../storm/mod.rs"]
mod storm;

use std::alloc::System;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::rows::Output;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What a record costs in the core.
#[derive(Parser)]
struct Options {
    /// Only rows with this in their names.
    only: Option<String>,
    /// How the rows are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// A recording made by `schedscope record`, to be measured as well.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Fewer rounds, and only the smallest and the largest hosts.
    #[arg(long)]
    quick: bool,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let output = Output::new(options.format == Format::Json, options.only.as_deref());
    output.head();
    simulated::measure(&output, options.quick);
    match &options.recording {
        Some(path) => recorded::measure(&output, path)?,
        None => eprintln!(
            "not run: recorded: no recording was given; make one with `schedscope record --output FILE \
             -- COMMAND`, and say --recording FILE"
        ),
    }
    Ok(())
}
