//! The figures of this moment and of the last minute as JSON, for programs and for the built-in page.
//!
//! Fields may be added; none changes its meaning without a new [`SCHEMA`].

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;
use wildmatch::WildMatch;

use super::metrics::buckets::BOUNDS_NS;
use super::metrics::unit_name;
use super::recent::{Brief, Column, STEP, Window};
use crate::core::units::{INTERRUPTS, INTERRUPTS_NAME};
use crate::core::{LatencyHistogram, Reason, Share, Snapshot, ThreadNow};

/// Version of these answers.
pub const SCHEMA: u32 = 1;

/// Everything that answers are made from.
#[derive(Clone, Debug)]
pub struct View {
    /// All figures.
    pub snapshot: Snapshot,
    /// The snapshot's moment, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// What happened in the last minute.
    pub window: Window,
    /// What every thread does now.
    pub threads: Vec<ThreadNow>,
    /// How delays were distributed in the last hour.
    pub columns: Vec<Column>,
}

/// What is wanted of a list.
#[derive(Clone, Debug, Default)]
pub struct Wanted<S> {
    /// The largest of this first.
    pub sort: S,
    /// So many at most.
    pub limit: usize,
    /// Only with such a name.
    pub filter: Option<WildMatch>,
}

/// What units can be sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitSort {
    /// P99 of the run-queue delay.
    RunqueueDelay,
    /// Time on a run queue.
    #[default]
    Runnable,
    /// Waits that keep threads from their work.
    WorkWait,
    /// Time on a CPU.
    Running,
    /// Threads.
    Threads,
    /// The name, rising.
    Name,
}

/// What threads can be sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadSort {
    /// How long it has been doing what it does.
    #[default]
    Elapsed,
    /// How long others were queued for a CPU that it had.
    Inflicted,
    /// The id, rising.
    Tid,
}

/// Run-queue delays that ended in the window.
#[derive(Debug, Serialize)]
pub struct Delays {
    count: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    relative_error: f64,
}

impl Delays {
    fn new(of: &Brief) -> Self {
        let [p50_ns, p90_ns, p99_ns, p999_ns, max_ns] = of.delay.stats().map(|(_, ns)| ns);
        Self {
            count: of.delay.count(),
            p50_ns,
            p90_ns,
            p99_ns,
            p999_ns,
            max_ns,
            relative_error: LatencyHistogram::RELATIVE_ERROR,
        }
    }
}

/// Figures of a unit or of the host.
#[derive(Debug, Serialize)]
pub struct Row {
    unit: String,
    threads: usize,
    runnable_threads: u64,
    oldest_runnable_ns: u64,
    running_ns: u64,
    runnable_ns: u64,
    contended_ns: u64,
    throttled_ns: u64,
    work_wait_ns: u64,
    idle_ns: u64,
    runqueue_delay: Delays,
}

/// Who took CPU time from whom.
#[derive(Debug, Serialize)]
pub struct Interference {
    victim: String,
    culprit: String,
    ns: u64,
}

/// `/api/v1/units`.
#[derive(Debug, Serialize)]
pub struct UnitList {
    schema: u32,
    at_unix_ns: u64,
    /// Times are of so long a window; 0 as long as there is none.
    window_ns: u64,
    host: Row,
    units: Vec<Row>,
    /// Units that fit, listed or not.
    matching: usize,
    interference: Vec<Interference>,
}

/// A thread.
#[derive(Debug, Serialize)]
pub struct Thread {
    tid: u32,
    tgid: u32,
    comm: String,
    unit: String,
    state: &'static str,
    reason: Option<&'static str>,
    /// Whether it has nothing to do.
    idle: bool,
    elapsed_ns: u64,
    inflicted_ns: u64,
}

/// `/api/v1/threads`.
#[derive(Debug, Serialize)]
pub struct ThreadList {
    schema: u32,
    at_unix_ns: u64,
    threads: Vec<Thread>,
    /// Threads that fit, listed or not.
    matching: usize,
}

/// `/api/v1/delays`.
#[derive(Debug, Serialize)]
pub struct Heat {
    schema: u32,
    step_ns: u64,
    /// Upper bounds; what is above all comes last.
    bounds_ns: &'static [u64],
    columns: Vec<HeatColumn>,
}

#[derive(Debug, Serialize)]
struct HeatColumn {
    unix_ms: u64,
    counts: Vec<u64>,
    /// 0 if there was no delay.
    p99_ns: u64,
}

fn ns(of: u128) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

impl Row {
    fn new(unit: &str, of: &Brief, alive: usize, waiting: &crate::core::Waiting) -> Self {
        Self {
            unit: unit.to_owned(),
            threads: alive,
            runnable_threads: waiting.runnable.threads,
            oldest_runnable_ns: waiting.runnable.oldest_ns,
            running_ns: ns(of.running_ns),
            runnable_ns: ns(of.runnable_ns),
            contended_ns: ns(of.contended_ns),
            throttled_ns: ns(of.throttled_ns),
            work_wait_ns: ns(of.work_wait_ns),
            idle_ns: ns(of.idle_ns),
            runqueue_delay: Delays::new(of),
        }
    }
}

impl View {
    fn names(&self) -> HashMap<u64, &str> {
        let units = self.snapshot.units.iter();
        let names = units.map(|unit| (unit.serial, unit_name(unit)));
        names.chain([(INTERRUPTS, INTERRUPTS_NAME)]).collect()
    }

    /// The units, with what happened to them in the window.
    #[must_use]
    pub fn units(&self, wanted: &Wanted<UnitSort>) -> UnitList {
        let (snapshot, nothing) = (&self.snapshot, Brief::default());
        let units = snapshot.units.iter();
        let mut rows: Vec<Row> = units
            .filter(|unit| fits(wanted.filter.as_ref(), unit_name(unit)))
            .map(|unit| {
                let brief = self.window.units.get(&unit.serial).unwrap_or(&nothing);
                Row::new(unit_name(unit), brief, unit.alive, &unit.waiting)
            })
            .collect();
        let matching = rows.len();
        rows.sort_by(|left, right| left.unit.cmp(&right.unit));
        match wanted.sort {
            UnitSort::RunqueueDelay => rows.sort_by_key(|row| Reverse(row.runqueue_delay.p99_ns)),
            UnitSort::Runnable => rows.sort_by_key(|row| Reverse(row.runnable_ns)),
            UnitSort::WorkWait => rows.sort_by_key(|row| Reverse(row.work_wait_ns)),
            UnitSort::Running => rows.sort_by_key(|row| Reverse(row.running_ns)),
            UnitSort::Threads => rows.sort_by_key(|row| Reverse(row.threads)),
            UnitSort::Name => {}
        }
        rows.truncate(wanted.limit);
        let names = self.names();
        let name = |serial: &u64| names.get(serial).copied().unwrap_or("other").to_owned();
        let pairs = self.window.interference.iter();
        let pairs = pairs.map(|(victim, culprit, time_ns)| Interference {
            victim: name(victim),
            culprit: name(culprit),
            ns: ns(*time_ns),
        });
        let pairs = pairs.filter(|pair| {
            let filter = wanted.filter.as_ref();
            fits(filter, &pair.victim) || fits(filter, &pair.culprit)
        });
        let host = self.window.host.as_ref().unwrap_or(&nothing);
        UnitList {
            schema: SCHEMA,
            at_unix_ns: self.unix_ns,
            window_ns: self.window.length_ns,
            host: Row::new("host", host, snapshot.alive, &snapshot.waiting),
            units: rows,
            matching,
            interference: pairs.take(wanted.limit).collect(),
        }
    }

    /// The threads: only those in this state, if one is given.
    #[must_use]
    pub fn threads(&self, wanted: &Wanted<ThreadSort>, state: Option<Share>) -> ThreadList {
        let mut fitting: Vec<&ThreadNow> = self
            .threads
            .iter()
            .filter(|thread| state.is_none_or(|state| thread.share == state))
            .filter(|thread| {
                let filter = wanted.filter.as_ref();
                filter.is_none() || fits(filter, &thread.comm.display())
            })
            .collect();
        fitting.sort_by_key(|thread| thread.tid);
        match wanted.sort {
            ThreadSort::Elapsed => fitting.sort_by_key(|thread| Reverse(thread.elapsed_ns)),
            ThreadSort::Inflicted => fitting.sort_by_key(|thread| Reverse(thread.inflicted_ns)),
            ThreadSort::Tid => {}
        }
        let names = self.names();
        let shown = fitting.iter().take(wanted.limit);
        ThreadList {
            schema: SCHEMA,
            at_unix_ns: self.unix_ns,
            threads: shown
                .map(|thread| Thread {
                    tid: thread.tid,
                    tgid: thread.tgid,
                    comm: thread.comm.display(),
                    unit: names
                        .get(&thread.unit)
                        .copied()
                        .unwrap_or("other")
                        .to_owned(),
                    state: thread.share.name(),
                    reason: thread.reason.map(Reason::name),
                    idle: thread.reason.is_some_and(Reason::is_idle),
                    elapsed_ns: thread.elapsed_ns,
                    inflicted_ns: thread.inflicted_ns,
                })
                .collect(),
            matching: fitting.len(),
        }
    }

    /// How run-queue delays of the host were distributed in the last hour.
    #[must_use]
    pub fn heat(&self) -> Heat {
        let columns = self.columns.iter();
        Heat {
            schema: SCHEMA,
            step_ns: ns(STEP.as_nanos()),
            bounds_ns: &BOUNDS_NS,
            columns: columns
                .map(|column| HeatColumn {
                    unix_ms: column.unix_ms,
                    counts: column.counts.to_vec(),
                    p99_ns: column.p99_ns,
                })
                .collect(),
        }
    }
}

fn fits(filter: Option<&WildMatch>, name: &str) -> bool {
    filter.is_none_or(|filter| filter.matches(name))
}
