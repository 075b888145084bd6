//! What it takes to show what was measured: snapshots, scrapes, reports, exports, in milliseconds, as there are
//! more series, threads and spans. `cargo bench -p profiler-daemon --bench sinks [-- PART-OF-A-NAME]`.
//!
//! The history is made up; what is made of it is made by the daemon's own code.

mod rows;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use profiler_ebpf::{RawRecord, ThreadRecord, WIRE_VERSION};
use schedscope::cli::{Cli, Command};
use schedscope::core::{Core, Selector, Stream, TargetSpec, UnitNews, UnitNumber};
use schedscope::recording::facts::Target;
use schedscope::recording::{Facts, Header, Intake, Recorder, Settings};
use schedscope::sink::json;
use schedscope::sink::metrics::Exporter;
use schedscope::sink::report::Report;
use wildmatch::WildMatch;

use self::rows::Rows;
use self::support::{MS, S, START_NS, asleep, scrape, switch, wakeup};

/// Ids of threads begin here.
const FIRST: u32 = 1000;
/// Threads of each process.
const SIBLINGS: u32 = 10;
const FORMATS: [&str; 7] = [
    "perfetto", "parquet", "csv", "html", "svg", "pprof", "folded",
];

fn main() -> anyhow::Result<()> {
    let rows = Rows::from_arguments("sinks");
    snapshots(&rows);
    scrapes(&rows)?;
    reports(&rows)?;
    exports(&rows)
}

/// Milliseconds of some rounds.
fn time<T>(rows: &Rows, mut work: impl FnMut() -> T) -> Vec<f64> {
    let rounds = if rows.is_quick { 1 } else { 7 };
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let made = work();
            let took = start.elapsed();
            drop(made);
            took.as_secs_f64() * 1e3
        })
        .collect()
}

/// The sizes that are measured.
fn sizes<const N: usize>(rows: &Rows, all: [u32; N]) -> Vec<u32> {
    let count = if rows.is_quick { 1 } else { N };
    all.into_iter().take(count).collect()
}

fn threads(count: u32) -> Vec<ThreadRecord> {
    let thread = |number: u32| ThreadRecord {
        tgid: FIRST + number / SIBLINGS * SIBLINGS,
        ..asleep(FIRST + number, b"worker")
    };
    (0..count).map(thread).collect()
}

/// What these threads do: each is woken, waits for a CPU, runs and sleeps again, one after the other on one
/// CPU; with each round its waits are longer.
fn records(count: u32, rounds: u32) -> Vec<RawRecord> {
    let mut records = Vec::new();
    let mut now = START_NS + MS;
    for round in 0..rounds {
        for number in 0..count {
            let tid = FIRST + number;
            records.push(wakeup(now, tid));
            now += 1_000 * u64::from(1 + (round * 7 + number * 13) % 997);
            records.push(switch(now, 0, 0, tid));
            now += 5_000;
            records.push(switch(now, tid, S, 0));
            now += 1_000;
        }
    }
    records
}

fn everybody() -> TargetSpec {
    TargetSpec {
        name: "*".to_owned(),
        selector: Selector::Comm(WildMatch::new("*")),
        per_thread: true,
    }
}

/// A core that has seen these threads go about their business.
fn core(count: u32, rounds: u32, targets: Vec<TargetSpec>, units: u16) -> Core {
    let mut core = Core::new(targets);
    core.found(&threads(count), START_NS - MS..=START_NS);
    core.feed(&[], START_NS);
    core.begin_window();
    core.keep_units();
    let processes = (0..count).step_by(SIBLINGS as usize).map(|its| FIRST + its);
    let numbers = (0..units).cycle().map(|unit| UnitNumber(unit + 1));
    core.learn_units(&UnitNews {
        named: (0..units)
            .map(|unit| (UnitNumber(unit + 1), format!("unit-{unit}.service").into()))
            .collect(),
        placed: if units == 0 {
            Vec::new()
        } else {
            processes.zip(numbers).collect()
        },
        ..UnitNews::default()
    });
    let records = records(count, rounds);
    core.feed(&[Stream::new(&records)], u64::MAX);
    core
}

fn snapshots(rows: &Rows) {
    for count in sizes(rows, [100, 1_000, 10_000, 100_000]) {
        for (what, targets) in [
            ("snapshot of the host", Vec::new()),
            ("snapshot with figures of each", vec![everybody()]),
        ] {
            let name = format!("{what}, {} threads", grouped(count));
            if rows.wants(&name) {
                let core = core(count, 3, targets, 0);
                rows.print(&name, "ms", time(rows, || core.snapshot()));
            }
        }
    }
}

fn scrapes(rows: &Rows) -> anyhow::Result<()> {
    // Targets and units. More targets than that, and more units than the thousand of the last but one,
    // the configuration does not allow.
    for (targets, units) in [(0, 0), (5, 20), (10, 70), (64, 1_000), (64, 2_000)] {
        if rows.is_quick && units > 0 {
            break;
        }
        let specs = (0..targets).map(|number| TargetSpec {
            name: format!("target-{number}"),
            selector: Selector::Pid(FIRST + number * SIBLINGS),
            per_thread: false,
        });
        let core = core(20_000, 5, specs.collect(), units);
        let scrape = scrape(core.snapshot());
        // Nothing is said for the first time in service.
        let text = Exporter::new().openmetrics(&scrape)?;
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        let size = format!("{targets} targets, {} units", grouped(u32::from(units)));
        rows.print(&format!("scrape, {size}"), "series", vec![series as f64]);
        let name = format!("scrape, {size}");
        if rows.wants(&name) {
            let mut exporter = Exporter::new();
            let mut failed = None;
            let times = time(rows, || {
                let made = exporter.openmetrics(&scrape);
                failed = failed.take().or(made.as_ref().err().copied());
                made
            });
            ensure!(failed.is_none(), "a scrape can be written");
            rows.print(&name, "ms", times);
            let mut exporter = Exporter::new();
            let times = time(rows, || exporter.protobuf(&scrape));
            rows.print(&format!("{name}, protobuf"), "ms", times);
            let snapshot = time(rows, || core.snapshot());
            rows.print(&format!("{name}, its snapshot"), "ms", snapshot);
        }
    }
    Ok(())
}

fn header() -> Header {
    Header {
        version: "0.1.0".to_owned(),
        wire_version: WIRE_VERSION,
        arch: std::env::consts::ARCH.to_owned(),
        host: "host".to_owned(),
        boot_id: String::new(),
        kernel: "6.18.0".to_owned(),
        cpus: 1,
        clock: "run-queue".to_owned(),
        start_unix_ns: 1_700_000_000_000_000_000,
        start_ns: START_NS,
        wakeups: true,
        targets: vec![Target {
            kind: "comm".to_owned(),
            value: "*".to_owned(),
            selector: Selector::Comm(WildMatch::new("*")),
        }],
    }
}

fn reports(rows: &Rows) -> anyhow::Result<()> {
    let header = header();
    for count in sizes(rows, [100, 1_000, 10_000, 100_000]) {
        let name = format!("report as JSON, {} threads", grouped(count));
        if !rows.wants(&name) {
            continue;
        }
        let snapshot = core(count, 3, vec![everybody()], 0).snapshot();
        let facts = Facts::default();
        let made: Vec<Report> = facts.reports(&header, &header.targets, &snapshot);
        let report = made.first().context("there is a target")?;
        let mut text = Vec::new();
        json::write(report, &mut text)?;
        ensure!(text.len() > 1000, "there is something in a report");
        let times = time(rows, || {
            let made = facts.reports(&header, &header.targets, &snapshot);
            let mut text = Vec::new();
            for report in &made {
                // To memory: it can't fail.
                let _ = json::write(report, &mut text);
            }
            text
        });
        rows.print(&name, "ms", times);
    }
    Ok(())
}

/// A recording with so many spans, in a directory that is removed with it.
struct Recording {
    directory: PathBuf,
}

impl Recording {
    fn make(spans: u32) -> anyhow::Result<Self> {
        let directory =
            std::env::temp_dir().join(format!("schedscope-sinks-{}", std::process::id()));
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("can't create {}", directory.display()))?;
        let its = Self { directory };
        let (recorder, tape) = Recorder::start(Settings {
            path: its.path(),
            max_bytes: None,
            keep: None,
            last: None,
        })?;
        let header = header();
        tape.header(header.clone());
        let mut intake = Intake::new(Core::new(header.specs()), Some(tape));
        // Each round of a thread has three: queued, running, asleep.
        let count = (spans / 3).min(100);
        intake.found(&threads(count), START_NS - MS..=START_NS);
        intake.feed(&[], START_NS);
        intake.begin_window();
        let records = records(count, spans / 3 / count);
        let mut now_ns = START_NS;
        for part in records.chunks(3 * 4096) {
            now_ns += 3 * 4096 * MS;
            intake.feed(&[Stream::new(part)], now_ns);
        }
        intake.drop_tape();
        recorder.facts(Facts::default());
        let summary = recorder.finish()?;
        ensure!(summary.lost == 0, "the recording is whole: {summary:?}");
        Ok(its)
    }

    fn path(&self) -> PathBuf {
        self.directory.join("recording")
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // It is in a directory for what may be lost.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn exports(rows: &Rows) -> anyhow::Result<()> {
    for spans in sizes(rows, [300, 1_000, 10_000, 100_000, 1_000_000]) {
        let wanted: Vec<(&str, String)> = FORMATS
            .iter()
            .map(|format| {
                (
                    *format,
                    format!("export {format}, {} spans", grouped(spans)),
                )
            })
            .filter(|(_, name)| rows.wants(name))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let recording = Recording::make(spans)?;
        for (format, name) in wanted {
            let out = recording.directory.join(format);
            let mut failed = false;
            let times = time(rows, || {
                failed |= export(format, &recording.path(), &out).is_err();
            });
            ensure!(!failed, "`schedscope export {format}` works");
            let bytes = std::fs::metadata(&out).map_or(0, |its| its.len());
            ensure!(bytes > 0, "there is something in an export as {format}");
            rows.print(&name, "ms", times);
        }
    }
    Ok(())
}

fn export(format: &str, recording: &Path, out: &Path) -> anyhow::Result<()> {
    let words = [
        "schedscope".as_ref(),
        "export".as_ref(),
        format.as_ref(),
        recording.as_os_str(),
        "-o".as_ref(),
        out.as_os_str(),
    ];
    let Command::Export(args) = Cli::try_parse_from(words)?.command else {
        anyhow::bail!("that is an export");
    };
    let code = schedscope::daemon::export::export(&args).map_err(|failure| failure.error)?;
    ensure!(code == 0, "it ended with {code}");
    Ok(())
}

/// `100000` as `100,000`.
fn grouped(count: u32) -> String {
    match (count / 1_000_000, count / 1_000 % 1_000, count % 1_000) {
        (0, 0, ones) => ones.to_string(),
        (0, thousands, ones) => format!("{thousands},{ones:03}"),
        (millions, thousands, ones) => format!("{millions},{thousands:03},{ones:03}"),
    }
}
