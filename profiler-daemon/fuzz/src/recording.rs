//! Any file that is said to be a recording: what is whole of it makes reports and exports, and what is not
//! is told as damage.

use std::io::{self, Write};

use schedscope::recording::facts::Target;
use schedscope::recording::{Reader, Replay, Trailed, Watched};
use schedscope::sink::export::csv::Csv;
use schedscope::sink::export::folded::Folded;
use schedscope::sink::export::html::Html;
use schedscope::sink::export::json::Json;
use schedscope::sink::export::parquet::Parquet;
use schedscope::sink::export::perfetto::Perfetto;
use schedscope::sink::export::pprof::Pprof;
use schedscope::sink::export::stacks::Graph;
use schedscope::sink::export::svg::Svg;
use schedscope::sink::export::{Export, Outcome, Run};
use schedscope::sink::json;
use schedscope::sink::table::{TableOptions, render};
use schedscope::sink::text::TextOptions;

use super::balance::check_books;

/// Takes the bytes as a file.
///
/// # Panics
///
/// If reading it does, or its figures don't sum up.
pub fn run(data: &[u8]) {
    report(data, data.len());
}

/// Reads a file, and makes all that can be made of it: every report, and one of the exports.
pub(crate) fn report(file: &[u8], export: usize) {
    let Ok(reader) = Reader::new(file) else {
        return;
    };
    let facts = reader.into_facts().expect("it lies in memory");
    let mut reader = Reader::new(file).expect("it could be opened before");
    let header = reader.header().clone();
    // Each costs a look at everything, and the file says how many there are.
    let targets: Vec<Target> = header.targets.iter().take(4).cloned().collect();
    let is_as_recorded = targets.len() == header.targets.len();
    let watched = Watched {
        specs: targets.iter().map(Target::spec).collect(),
        is_as_recorded,
    };
    let run = Run {
        header: &header,
        facts: &facts,
    };
    let mut export = begin(export, run);
    let mut looks = 0;
    let every_ns = 1_000_000;
    let mut replay = Replay::new(&header, watched, 0..u64::MAX);
    replay = replay.with_follower(|trailed| give(&mut *export, trailed));
    if header.start_ns < 1 << 40 {
        // A file of a few bytes can be of a long time.
        replay = replay.with_looks(every_ns << 20, |core, _| {
            looks += 1;
            if looks < 4 {
                check_books(&core.snapshot());
            }
        });
    }
    replay
        .run(&mut reader, |_| {})
        .expect("nothing is written to a disk");
    let (core, facts) = replay.finish();
    let snapshot = core.snapshot();
    check_books(&snapshot);
    let reports = facts.reports(&header, &targets, &snapshot);
    let mut out = Vec::new();
    for report in &reports {
        json::write(report, &mut out).expect("it can be told as JSON");
        let text = render(report, &OPTIONS);
        let is_control = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(is_control), "{text:?}");
    }
    for line in out.split(|&byte| byte == b'\n').filter(|l| !l.is_empty()) {
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(line);
        assert!(parsed.is_ok(), "a line of JSON each");
    }
    let outcome = Outcome {
        snapshot: &snapshot,
        reports: &reports,
    };
    export
        .finish(&outcome)
        .expect("nothing is written to a disk");
    let damage = reader.damage();
    assert!(damage.bytes <= file.len() as u64, "{damage:?}");
}

const OPTIONS: TableOptions = TableOptions {
    text: TextOptions::PLAIN,
    max_threads: 20,
    all: true,
    worst: 3,
    explain: true,
};

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

fn begin<'a>(number: usize, run: Run<'a>) -> Box<dyn Export + 'a> {
    let out: Box<dyn Write + Send> = Box::new(io::sink());
    let begun: io::Result<Box<dyn Export + 'a>> = match number % 9 {
        0 => Ok(Box::new(Json::new(out))),
        1 => Ok(Box::new(Perfetto::new(out, run))),
        2 => Ok(Box::new(Folded::new(out, Graph::OffCpu, run))),
        3 => Ok(Box::new(Folded::new(out, Graph::RunQueue, run))),
        4 => Ok(Box::new(Svg::new(out, Graph::OffCpu, run))),
        5 => Ok(Box::new(Pprof::new(out, run))),
        6 => Ok(Box::new(Html::new(out, run))),
        7 => Parquet::new(out, run).map(|its| Box::new(its) as Box<dyn Export + 'a>),
        _ => Csv::new(out, run).map(|its| Box::new(its) as Box<dyn Export + 'a>),
    };
    begun.expect("nothing is written to a disk")
}
