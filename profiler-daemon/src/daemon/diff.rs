//! `schedscope diff`: compares two recordings.

use std::path::Path;
use std::time::Duration;

use super::replay::{Opened, describe, each_part};
use super::reporting::write_out;
use crate::cli::{DiffArgs, Output};
use crate::core::Snapshot;
use crate::exit::{Exit, Failure};
use crate::recording::{Entry, Part};
use crate::sink::diff::{Blocks, Diff, render};
use crate::sink::text::TextOptions;

/// A run is cut into about so many blocks, of at least this length: shorter ones are too uneven.
const BLOCKS: u64 = 30;
const MIN_BLOCK: Duration = Duration::from_millis(100);

/// Runs the command.
pub fn diff(args: &DiffArgs) -> Result<u8, Failure> {
    let lengths = [length(&args.before)?, length(&args.after)?];
    let shorter_ns = lengths.into_iter().min().unwrap_or(0);
    let min_ns = u64::try_from(MIN_BLOCK.as_nanos()).unwrap_or(u64::MAX);
    let block_ns = (shorter_ns / BLOCKS).max(min_ns);
    let (before, before_code) = blocks(&args.before, args, block_ns)?;
    let (after, after_code) = blocks(&args.after, args, block_ns)?;
    let diff = Diff::new(&before, &after, block_ns);
    let mut out = std::io::stdout();
    write_out(|| match args.output {
        Output::Json => crate::sink::json::write(&diff, &mut out),
        Output::Table => {
            let text = render(&diff, TextOptions::for_stdout());
            std::io::Write::write_all(&mut out, text.as_bytes())
        }
    })?;
    Ok(before_code.max(after_code))
}

/// How much time is in a recording.
fn length(path: &Path) -> Result<u64, Failure> {
    let mut end_ns = 0;
    let start_ns = each_part(path, "looking how long it is", |part| {
        if let Part::Entries(entries) = part {
            for entry in entries {
                if let Entry::Feed(batch) = entry {
                    end_ns = end_ns.max(batch.watermark_ns);
                }
            }
        }
    })?
    .start_ns;
    Ok(end_ns.saturating_sub(start_ns))
}

/// The figures of a recording after each block, and the exit code that its state asks for.
fn blocks(path: &Path, args: &DiffArgs, block_ns: u64) -> Result<(Blocks, u8), Failure> {
    let mut snapshots: Vec<Snapshot> = Vec::new();
    let opened = Opened::new(path, &args.choice)?;
    let (_, _, damage) = opened.replay(false, |replay| {
        replay.with_looks(block_ns, |core, _| {
            let snapshot = core.snapshot();
            // The window begins anew where only a part is asked for.
            if snapshot.at_ns == snapshot.start_ns {
                snapshots.clear();
            }
            snapshots.push(snapshot);
        })
    })?;
    if damage.is_any() {
        eprintln!(
            "schedscope: {} is damaged: {}",
            path.display(),
            describe(&damage)
        );
        return Ok((Blocks::new(snapshots), Exit::Damaged as u8));
    }
    Ok((Blocks::new(snapshots), Exit::Done as u8))
}
