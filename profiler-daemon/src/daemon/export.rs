//! `schedscope export`: gives what is in a recording to other programs.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};

use anyhow::Context;

use super::replay::{Opened, describe};
use super::reporting::write_out;
use crate::cli::{ExportArgs, Format};
use crate::exit::{Exit, Failure};
use crate::recording::{Header, Trailed};
use crate::sink::export::{Export, csv::Csv, folded::Folded, perfetto::Perfetto, pprof::Pprof};

/// Runs the command.
pub fn export(args: &ExportArgs) -> Result<u8, Failure> {
    let opened = Opened::new(&args.file, &args.choice)?;
    let out = output(args)?;
    let mut export = begin(args.format, out, &opened.header)?;
    let mut broken = None;
    let replayed = opened.replay(false, |replay| {
        replay.with_follower(|trailed| {
            let done = match trailed {
                Trailed::Seen(waits) => {
                    export.seen(waits);
                    Ok(())
                }
                Trailed::Spans(spans) => spans.iter().try_for_each(|span| export.span(span)),
            };
            // Who has seen enough of a pipe is no fault of the recording.
            done.inspect_err(|error| broken = Some(error.kind()))
        })
    });
    if broken == Some(std::io::ErrorKind::BrokenPipe) {
        return Ok(Exit::Done as u8);
    }
    let (_, facts, damage) = replayed?;
    write_out(|| export.finish(&facts)).context("the export is not whole")?;
    if damage.is_any() {
        eprintln!(
            "schedscope: {} is damaged: {}",
            args.file.display(),
            describe(&damage)
        );
        return Ok(Exit::Damaged as u8);
    }
    Ok(Exit::Done as u8)
}

fn begin(format: Format, out: Box<dyn Write>, header: &Header) -> std::io::Result<Box<dyn Export>> {
    Ok(match format {
        Format::Perfetto => Box::new(Perfetto::new(out)),
        Format::Folded => Box::new(Folded::new(out)),
        Format::Pprof => Box::new(Pprof::new(out, header)),
        Format::Csv => Box::new(Csv::new(out, header.clone())?),
    })
}

fn output(args: &ExportArgs) -> Result<Box<dyn Write>, Failure> {
    let Some(path) = &args.out else {
        let is_binary = matches!(args.format, Format::Perfetto | Format::Pprof);
        if is_binary && std::io::stdout().is_terminal() {
            return Err(Failure::usage(
                "this format is nothing for a terminal: name a file with -o".to_owned(),
            ));
        }
        return Ok(Box::new(BufWriter::new(std::io::stdout())));
    };
    let file = File::create(path).map_err(|error| {
        Failure::usage(format!(
            "cannot write {}: {error}; give -o a place that can be written",
            path.display()
        ))
    })?;
    Ok(Box::new(BufWriter::new(file)))
}
