//! What is measured of a host, and how it is printed.

use std::hint::black_box;

use profiler_ebpf::RawRecord;
use rustix::time::{ClockId, clock_gettime};
use schedscope::core::decode::Event;
use schedscope::core::merge::Merger;
use schedscope::core::{Core, Reconstruction, Stream};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region};

/// The stages, in the order of the flow; the last is all of it.
pub(crate) const STAGES: [&str; 4] = ["decode", "merge", "reconstruct", "whole"];

/// Which host and which way.
pub(crate) struct Row {
    pub(crate) name: String,
    /// `simulated` or `recorded`.
    pub(crate) input: &'static str,
    pub(crate) cpus: usize,
    pub(crate) threads: usize,
}

/// Costs of the rounds, by stage.
#[derive(Default)]
pub(crate) struct Costs {
    /// Nanoseconds a record.
    rounds: [Vec<f64>; STAGES.len()],
    /// Nanoseconds of the round that goes on.
    round_ns: [f64; STAGES.len()],
    /// Records of it.
    round_records: usize,
    /// Records and what they asked of the allocator, when everything had grown to its bounds.
    steady_records: usize,
    steady_allocations: usize,
}

impl Costs {
    /// Times the stages that need no memory of what was before.
    pub(crate) fn pure(&mut self, streams: &[Stream<'_>], watermark_ns: u64, merger: &mut Merger) {
        self.round_ns[0] += time_ns(|| {
            for raw in streams.iter().flat_map(|its| its.first) {
                // A failure is decoded as well.
                let _ = black_box(Event::decode(raw));
            }
        });
        self.round_ns[1] += time_ns(|| {
            merger.merge(streams, watermark_ns, |stream, raw| {
                black_box((stream, raw));
            });
        });
    }

    /// Times what records in their order cost.
    pub(crate) fn reconstruct(
        &mut self,
        machine: &mut Reconstruction,
        merged: &[(usize, RawRecord)],
        streams: usize,
        shown_ns: u64,
    ) {
        self.round_ns[2] += time_ns(|| {
            machine.expect(streams, shown_ns);
            for (stream, raw) in merged {
                machine.record(*stream, raw);
            }
        });
    }

    /// Times all of it, and counts what it asks of the allocator.
    pub(crate) fn whole(
        &mut self,
        core: &mut Core,
        streams: &[Stream<'_>],
        watermark_ns: u64,
        is_steady: bool,
    ) {
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        self.round_ns[3] += time_ns(|| {
            core.feed(streams, watermark_ns);
        });
        let change = region.change();
        let records: usize = streams.iter().map(Stream::len).sum();
        self.round_records += records;
        if is_steady {
            self.steady_records += records;
            self.steady_allocations += change.allocations + change.reallocations;
        }
    }

    /// What follows is of another round.
    pub(crate) fn end_round(&mut self) {
        let records = std::mem::take(&mut self.round_records) as f64;
        for (costs, ns) in self
            .rounds
            .iter_mut()
            .zip(std::mem::take(&mut self.round_ns))
        {
            costs.push(ns / records);
        }
    }

    /// Where it could not be timed alone, it is what is left of the whole without the merge.
    pub(crate) fn conclude_reconstruction(&mut self) {
        let [_, merge, reconstruct, whole] = &mut self.rounds;
        for ((cost, whole), merge) in reconstruct.iter_mut().zip(whole).zip(merge) {
            *cost = *whole - *merge;
        }
    }
}

/// The CPU time that something takes: what else the machine does counts little.
fn time_ns(work: impl FnOnce()) -> f64 {
    let start = clock_gettime(ClockId::ThreadCPUTime);
    work();
    let end = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = (end.tv_sec - start.tv_sec) as f64;
    seconds * 1e9 + (end.tv_nsec - start.tv_nsec) as f64
}

/// The records in the order in which the core takes them.
pub(crate) fn merged(
    streams: &[Stream<'_>],
    watermark_ns: u64,
    merger: &mut Merger,
) -> Vec<(usize, RawRecord)> {
    let mut merged = Vec::with_capacity(streams.iter().map(Stream::len).sum());
    merger.merge(streams, watermark_ns, |stream, raw: &RawRecord| {
        merged.push((stream, *raw));
    });
    merged
}

/// Where rows go.
pub(crate) struct Output {
    is_json: bool,
    only: Option<String>,
}

impl Output {
    pub(crate) fn new(is_json: bool, only: Option<&str>) -> Self {
        Self {
            is_json,
            only: only.map(str::to_owned),
        }
    }

    /// Whether somebody wants that row.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|part| name.contains(part))
    }

    pub(crate) fn head(&self) {
        if !self.is_json {
            println!(
                "{:<44} {:>8} {:>8} {:>12} {:>8} {:>18} {:>10} {:>12}",
                "nanoseconds a record",
                "decode",
                "merge",
                "reconstruct",
                "whole",
                "(from, to)",
                "million/s",
                "allocations"
            );
        }
    }

    pub(crate) fn print(&self, row: &Row, mut costs: Costs) {
        for costs in &mut costs.rounds {
            costs.sort_by(f64::total_cmp);
        }
        let allocations = costs.steady_allocations as f64 / costs.steady_records.max(1) as f64;
        let of = |stage: usize, place: fn(usize) -> usize| {
            let its = &costs.rounds[stage];
            its.get(place(its.len())).copied().unwrap_or(f64::NAN)
        };
        let median = |stage| of(stage, |count| count / 2);
        let least = |stage| of(stage, |_| 0);
        let most = |stage| of(stage, |count| count.saturating_sub(1));
        if self.is_json {
            for (stage, name) in STAGES.into_iter().enumerate() {
                let line = json!({
                    "bench": "core",
                    "row": row.name,
                    "stage": name,
                    "input": row.input,
                    "cpus": row.cpus,
                    "threads": row.threads,
                    "rounds": costs.rounds[stage].len(),
                    "ns_per_event": median(stage),
                    "ns_per_event_least": least(stage),
                    "ns_per_event_most": most(stage),
                    "events_per_second": 1e9 / median(stage),
                    "allocations_per_event": (name == "whole").then_some(allocations),
                });
                println!("{line}");
            }
            return;
        }
        let spread = format!("({:.1}, {:.1})", least(3), most(3));
        println!(
            "{:<44} {:>8.1} {:>8.1} {:>12.1} {:>8.1} {spread:>18} {:>10.1} {allocations:>12.6}",
            row.name,
            median(0),
            median(1),
            median(2),
            median(3),
            1e3 / median(3),
        );
    }
}
