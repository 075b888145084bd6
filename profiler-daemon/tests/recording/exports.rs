//! Exports: their sums are those of the report.

use std::collections::BTreeMap;
use std::fs;
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

#[test]
fn exports_sum_to_the_report() {
    let path = path("exported");
    // A thread that execs takes over another id, under which the report has all of it.
    let config = Config {
        groups: false,
        ..Config::small(Kernel::Both)
    };
    let run = Run::new(config, 31, 1_500);
    record(&run, 31, settings(&path));
    let run_program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schedscope"));
        command.args(arguments);
        let output = command.output().expect("the program can be started");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        output.stdout
    };
    let file = path.to_str().expect("a plain name");
    let export = |format| run_program(&["export", format, file]);
    let report = run_program(&["report", file, "--output", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&report).expect("a line of JSON");
    let mut times: BTreeMap<(u64, String), u64> = BTreeMap::new();
    for thread in report["threads"].as_array().expect("threads") {
        let tid = thread["tid"].as_u64().expect("a number");
        for (state, ns) in thread["time_ns"].as_object().expect("times") {
            let ns = ns.as_u64().expect("a number");
            *times.entry((tid, state.clone())).or_default() += ns;
        }
    }
    times.retain(|_, ns| *ns > 0);
    let csv = String::from_utf8(export("csv")).expect("text");
    let mut of_csv: BTreeMap<(u64, String), u64> = BTreeMap::new();
    for line in csv.lines().skip(1) {
        // Names of the model's threads have no commas in them.
        let cells: Vec<&str> = line.split(',').collect();
        let number = |place: usize| cells[place].parse::<u64>().expect("a number");
        *of_csv.entry((number(0), cells[3].to_owned())).or_default() += number(6);
    }
    assert_eq!(of_csv, times);
    let mut whole: BTreeMap<u64, u64> = BTreeMap::new();
    for ((tid, _), ns) in &times {
        *whole.entry(*tid).or_default() += ns;
    }
    assert_eq!(traced(&export("perfetto")), whole);
    let folded = String::from_utf8(export("folded")).expect("text");
    let off_cpu: u64 = folded
        .lines()
        .map(|line| {
            line.rsplit(' ')
                .next()
                .map_or(0, |ns| ns.parse().expect("a number"))
        })
        .sum();
    let total = &report["total"]["time_ns"];
    let expected = total["runnable"].as_u64().zip(total["blocked"].as_u64());
    assert_eq!(
        Some(off_cpu),
        expected.map(|(runnable, blocked)| runnable + blocked)
    );
    assert!(export("pprof").len() > 100);
    fs::remove_file(&path).expect("it was just recorded");
}
