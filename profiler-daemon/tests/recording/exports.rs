//! Exports: their sums are those of the report.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::model::feed::Run;
use super::model::{Config, Kernel};
use super::{path, record, settings};

/// What a trace has of what this test looks at; the rest is passed over.
mod trace {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Trace {
        #[prost(message, repeated, tag = "1")]
        pub(crate) packet: Vec<Packet>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Packet {
        #[prost(uint64, tag = "8")]
        pub(crate) timestamp: u64,
        #[prost(message, optional, tag = "11")]
        pub(crate) event: Option<Event>,
        #[prost(message, optional, tag = "60")]
        pub(crate) track: Option<Track>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(crate) struct Event {
        #[prost(int32, tag = "9")]
        pub(crate) kind: i32,
        #[prost(uint64, tag = "11")]
        pub(crate) track: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Track {
        #[prost(uint64, tag = "1")]
        pub(crate) uuid: u64,
        #[prost(message, optional, tag = "4")]
        pub(crate) thread: Option<Thread>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(crate) struct Thread {
        #[prost(int32, tag = "2")]
        pub(crate) tid: i32,
    }
}

/// Time by thread id in a trace: each slice lasts from its beginning to the next end on its track.
fn traced(bytes: &[u8]) -> BTreeMap<u64, u64> {
    let trace: trace::Trace = prost::Message::decode(bytes).expect("it is a trace");
    let mut tids: BTreeMap<u64, u64> = BTreeMap::new();
    let mut open: BTreeMap<u64, u64> = BTreeMap::new();
    let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
    for packet in trace.packet {
        if let Some(track) = packet.track
            && let Some(thread) = track.thread
        {
            tids.insert(track.uuid, u64::from(thread.tid.unsigned_abs()));
        }
        let Some(event) = packet.event else { continue };
        match event.kind {
            1 => assert_eq!(open.insert(event.track, packet.timestamp), None),
            2 => {
                let from_ns = open.remove(&event.track).expect("what ends has begun");
                if let Some(tid) = tids.get(&event.track) {
                    *sums.entry(*tid).or_default() += packet.timestamp - from_ns;
                }
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    sums
}

/// A recording of a history and the report on it.
pub(super) struct Recorded {
    path: PathBuf,
    pub(super) report: serde_json::Value,
}

impl Recorded {
    pub(super) fn new(name: &str, seed: u64) -> Self {
        let path = path(name);
        // A thread that execs takes over another id, under which the report has all of it.
        let config = Config {
            groups: false,
            ..Config::small(Kernel::Both)
        };
        let run = Run::new(config, seed, 1_500);
        record(&run, seed, settings(&path));
        let mut recorded = Self {
            path,
            report: serde_json::Value::Null,
        };
        let report = recorded.run(&["report"], &["--output", "json"]);
        recorded.report = serde_json::from_slice(&report).expect("a line of JSON");
        recorded
    }

    fn run(&self, before: &[&str], after: &[&str]) -> Vec<u8> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schedscope"));
        command.args(before).arg(&self.path).args(after);
        let output = command.output().expect("the program can be started");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        output.stdout
    }

    pub(super) fn export(&self, format: &str) -> Vec<u8> {
        self.run(&["export", format], &[])
    }

    pub(super) fn text(&self, format: &str) -> String {
        String::from_utf8(self.export(format)).expect("text")
    }

    /// Time by thread and state.
    pub(super) fn times(&self) -> BTreeMap<(u64, String), u64> {
        let mut times: BTreeMap<(u64, String), u64> = BTreeMap::new();
        for thread in self.report["threads"].as_array().expect("threads") {
            let tid = thread["tid"].as_u64().expect("a number");
            for (state, ns) in thread["time_ns"].as_object().expect("times") {
                let ns = ns.as_u64().expect("a number");
                *times.entry((tid, state.clone())).or_default() += ns;
            }
        }
        times.retain(|_, ns| *ns > 0);
        times
    }

    /// A figure of all threads together.
    pub(super) fn total(&self, path: &[&str]) -> u64 {
        let total = path
            .iter()
            .fold(&self.report["total"], |its, key| &its[*key]);
        total.as_u64().expect("a number")
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        fs::remove_file(&self.path).expect("it was just recorded");
    }
}

/// The fields of a line of CSV.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut is_quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        let last = fields.last_mut().expect("there is always one");
        match letter {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            other => last.push(other),
        }
    }
    fields
}

#[test]
fn tables_of_spans_sum_to_the_report() {
    let recorded = Recorded::new("tables", 31);
    let csv = recorded.text("csv");
    let mut lines = csv.lines();
    let names = fields(lines.next().expect("a head"));
    let mut times: BTreeMap<(u64, String), u64> = BTreeMap::new();
    let mut parts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in lines {
        let row = fields(line);
        let row: BTreeMap<&str, &str> = names
            .iter()
            .map(String::as_str)
            .zip(row.iter().map(String::as_str))
            .collect();
        let number = |name: &str| row[name].parse::<u64>().unwrap_or(0);
        let (tid, ns) = (number("tid"), number("duration_ns"));
        *times.entry((tid, row["state"].to_owned())).or_default() += ns;
        for cause in ["contended", "throttled", "placement", "cause_unknown"] {
            *parts.entry(cause).or_default() += number(&format!("{cause}_ns"));
        }
        assert!(number("culprit_ns") <= number("contended_ns"), "{line}");
        assert!(
            row["waker"].is_empty() || row["state"] == "blocked",
            "{line}"
        );
    }
    assert_eq!(times, recorded.times());
    for (cause, ns) in parts {
        let name = cause.trim_start_matches("cause_");
        assert_eq!(ns, recorded.total(&["runnable_ns", name]), "{name}");
    }
}

#[test]
fn a_trace_sums_to_the_report() {
    let recorded = Recorded::new("traced", 32);
    let mut whole: BTreeMap<u64, u64> = BTreeMap::new();
    for ((tid, _), ns) in recorded.times() {
        *whole.entry(tid).or_default() += ns;
    }
    assert_eq!(traced(&recorded.export("perfetto")), whole);
}

/// The frames of each line with its nanoseconds.
pub(super) fn places(folded: &str) -> Vec<(Vec<&str>, u64)> {
    folded
        .lines()
        .map(|line| {
            let (frames, ns) = line.rsplit_once(' ').expect("frames and a number");
            (frames.split(';').collect(), ns.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn graphs_sum_to_the_report() {
    let recorded = Recorded::new("graphs", 33);
    let runnable = recorded.total(&["time_ns", "runnable"]);
    let blocked = recorded.total(&["time_ns", "blocked"]);
    let off_cpu = recorded.text("folded");
    let sum = |places: &[(Vec<&str>, u64)]| places.iter().map(|(_, ns)| ns).sum::<u64>();
    assert_eq!(sum(&places(&off_cpu)), runnable + blocked);
    let queued = recorded.text("folded-runqueue");
    let queued = places(&queued);
    assert_eq!(sum(&queued), runnable);
    let culprits = recorded.report["total"]["culprits_by_process"].clone();
    let culprits = culprits.as_array().expect("rows");
    assert!(culprits.len() > 2, "{culprits:?}");
    for culprit in culprits {
        let comm = culprit["comm"].as_str().expect("a name");
        let (by, kind) = match culprit["tgid"].as_u64() {
            Some(0) => ("by interrupts".to_owned(), Some(comm)),
            _ => (format!("by process {}", culprit["tgid"]), None),
        };
        let its = |frames: &Vec<&str>| {
            frames.get(3) == Some(&by.as_str())
                && (kind.is_none() || frames.get(4).copied() == kind)
        };
        let ns: u64 = queued
            .iter()
            .filter(|(frames, _)| its(frames))
            .map(|(_, ns)| ns)
            .sum();
        assert_eq!(Some(ns), culprit["ns"].as_u64(), "{by} {comm}");
    }
    let idle = recorded.total(&["idle_ns"]);
    assert!(idle > 0, "the model has idle threads");
    for (format, ns) in [
        ("svg", runnable + blocked - idle),
        ("svg-runqueue", runnable),
    ] {
        let svg = recorded.text(format);
        let (_, all) = svg.split_once("<title>all (").expect("a first frame");
        let digits: String = all
            .chars()
            .take_while(|c| *c != ' ')
            .filter(char::is_ascii_digit)
            .collect();
        let us: u64 = digits.parse().expect("a number");
        assert!(us.abs_diff(ns / 1_000) <= 1, "{format}: {us} µs of {ns} ns");
    }
}

#[test]
fn the_report_is_exported_as_it_is() {
    let recorded = Recorded::new("json", 34);
    let report: serde_json::Value =
        serde_json::from_slice(&recorded.export("json")).expect("a line of JSON");
    assert_eq!(report, recorded.report);
    assert!(recorded.export("pprof").len() > 100);
}
