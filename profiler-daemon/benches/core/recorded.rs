//! What was really recorded, as often as one likes.

use std::path::Path;

use anyhow::Context;
use schedscope::core::merge::Merger;
use schedscope::core::{Core, Stream};
use schedscope::recording::{Entry, Part, Reader};

use super::rows::{Costs, Output, Row};

const ROUNDS: usize = 5;

pub(crate) fn measure(output: &Output, path: &Path) -> anyhow::Result<()> {
    let mut reader = Reader::open(path).with_context(|| path.display().to_string())?;
    let header = reader.header().clone();
    let mut entries = Vec::new();
    while let Some(part) = reader.next_part()? {
        if let Part::Entries(more) = part {
            entries.extend(more);
        }
    }
    let mut records = 0;
    for entry in &entries {
        if let Entry::Feed(batch) = entry {
            records += batch.records.len();
        }
    }
    for (what, targets) in [("host alone", Vec::new()), ("as recorded", header.specs())] {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{file}, {what}, {records} records");
        if !output.wants(&name) {
            continue;
        }
        let mut costs = Costs::default();
        let mut threads = 0;
        for _ in 0..ROUNDS {
            let mut core = Core::new(targets.clone());
            let mut merger = Merger::default();
            for (number, entry) in entries.iter().enumerate() {
                match entry {
                    Entry::Feed(batch) => {
                        let streams: Vec<Stream<'_>> = batch.streams().map(Stream::new).collect();
                        costs.pure(&streams, batch.watermark_ns, &mut merger);
                        let is_steady = number >= entries.len() / 2;
                        costs.whole(&mut core, &streams, batch.watermark_ns, is_steady);
                    }
                    // What came to a target that is not watched.
                    Entry::Join(..) if targets.is_empty() => {}
                    other => other.clone().give(&mut core),
                }
            }
            threads = core.threads();
            costs.end_round();
        }
        costs.conclude_reconstruction();
        let row = Row {
            name,
            input: "recorded",
            cpus: header.cpus,
            threads,
        };
        output.print(&row, costs);
    }
    Ok(())
}
