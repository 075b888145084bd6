//! `schedscope export`: gives what is in a recording to other programs.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;

use super::replay::{self, Opened, tell_damage};
use super::reporting::write_out;
use crate::cli::{ExportArgs, Format};
use crate::exit::Failure;
use crate::recording::{Damage, Trailed};
use crate::sink::export::csv::Csv;
use crate::sink::export::folded::Folded;
use crate::sink::export::html::Html;
use crate::sink::export::json::Json;
use crate::sink::export::parquet::Parquet;
use crate::sink::export::perfetto::Perfetto;
use crate::sink::export::pprof::Pprof;
use crate::sink::export::stacks::Graph;
use crate::sink::export::svg::Svg;
use crate::sink::export::{Export, Outcome, Run};

/// Runs the command.
pub fn export(args: &ExportArgs) -> Result<u8, Failure> {
    let opened = Opened::new(&args.file, &args.choice)?;
    let damage = write(opened, vec![(args.format, output(args)?)])?;
    Ok(tell_damage(&args.file, &damage))
}

/// An export that is to be written, and where to.
pub(super) type Wanted = (Format, Box<dyn Write + Send>);

/// Reads a recording once for all of them.
pub(super) fn write(opened: Opened, wanted: Vec<Wanted>) -> Result<Damage, Failure> {
    let facts = replay::facts(&opened.path)?;
    let (header, targets) = (opened.header.clone(), opened.targets.clone());
    let run = Run {
        header: &header,
        facts: &facts,
    };
    let has_threads = wanted.iter().any(|(format, _)| format.has_threads());
    let exports = wanted
        .into_iter()
        .map(|(format, out)| begin(format, out, run));
    let mut exports = exports
        .collect::<io::Result<Vec<_>>>()
        .context("cannot write the export")?;
    let mut broken = None;
    let replayed = opened.replay(has_threads, |replay| {
        replay.with_follower(|trailed| {
            let done = exports
                .iter_mut()
                .try_for_each(|export| give(&mut **export, trailed));
            // Who has seen enough of a pipe is no fault of the recording.
            done.inspect_err(|error| broken = Some(error.kind()))
        })
    });
    if broken == Some(io::ErrorKind::BrokenPipe) {
        return Ok(Damage::default());
    }
    let (core, facts, damage) = replayed?;
    let snapshot = core.snapshot();
    let outcome = Outcome {
        reports: &facts.reports(&header, &targets, &snapshot),
        snapshot: &snapshot,
    };
    let finish = || exports.into_iter().try_for_each(|its| its.finish(&outcome));
    write_out(finish).context("the export is not whole")?;
    Ok(damage)
}

fn give(export: &mut dyn Export, trailed: Trailed<'_>) -> io::Result<()> {
    match trailed {
        Trailed::Seen(waits) => {
            export.seen(waits);
            Ok(())
        }
        Trailed::Did(trail) => trail
            .iter()
            .try_for_each(|(span, culprits)| export.span(span, culprits)),
    }
}

fn begin<'a>(
    format: Format,
    out: Box<dyn Write + Send>,
    run: Run<'a>,
) -> io::Result<Box<dyn Export + 'a>> {
    Ok(match format {
        Format::Perfetto => Box::new(Perfetto::new(out, run)),
        Format::Folded => Box::new(Folded::new(out, Graph::OffCpu, run)),
        Format::FoldedRunqueue => Box::new(Folded::new(out, Graph::RunQueue, run)),
        Format::Svg => Box::new(Svg::new(out, Graph::OffCpu, run)),
        Format::SvgRunqueue => Box::new(Svg::new(out, Graph::RunQueue, run)),
        Format::Pprof => Box::new(Pprof::new(out, run)),
        Format::Html => Box::new(Html::new(out, run)),
        Format::Parquet => Box::new(Parquet::new(out, run)?),
        Format::Csv => Box::new(Csv::new(out, run)?),
        Format::Json => Box::new(Json::new(out)),
    })
}

fn output(args: &ExportArgs) -> Result<Box<dyn Write + Send>, Failure> {
    if let Some(path) = &args.out {
        return create(path, "-o");
    }
    if args.format.is_binary() && io::stdout().is_terminal() {
        return Err(Failure::usage(
            "this format is nothing for a terminal: name a file with -o".to_owned(),
        ));
    }
    Ok(Box::new(BufWriter::new(io::stdout())))
}

/// Begins a file that this option names.
pub(super) fn create(path: &Path, option: &str) -> Result<Box<dyn Write + Send>, Failure> {
    let file = File::create(path).map_err(|error| {
        Failure::usage(format!(
            "cannot write {}: {error}; give {option} a place that can be written",
            path.display()
        ))
    })?;
    Ok(Box::new(BufWriter::new(file)))
}
