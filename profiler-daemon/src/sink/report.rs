//! The report on a target: what is known of a window, in the shape that other programs rely on.
//!
//! In: a [`Snapshot`] and the facts about the run that no record carries ([`ReportFacts`]). Out: a
//! [`Report`], which serializes to the JSON report, schema 1, and which the table is printed from, so
//! that both show the same numbers. Fields may be added to it; none changes its meaning without a new
//! [`SCHEMA`]. Wherever a whole is given with its parts, the parts sum to it, to the nanosecond.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::core::{
    Cause, Conflict, Figures, LatencyHistogram, Reason, Share, Snapshot, TargetSnapshot,
    ThreadSnapshot,
};

/// Version of the JSON report.
pub const SCHEMA: u32 = 1;

/// What a report says of the run that is not in the [`Snapshot`].
pub struct ReportFacts<'a> {
    /// Version of this program.
    pub version: &'a str,
    /// Wall time at which the snapshot's window began, in nanoseconds since 1970 (UTC).
    pub start_unix_ns: u64,
    /// What the user asked for: `pid`, `tid`, `comm` or `command`.
    pub target_kind: &'a str,
    /// The value that was asked for, as it was given.
    pub target_value: &'a str,
    /// Records lost within the window, by CPU and kind, as the rings counted them.
    pub dropped: &'a [Dropped],
    /// Records lost within the window because a probe could not run: it was running already on that
    /// CPU.
    pub missed: u64,
    /// How far the clocks of two CPUs may be apart, in nanoseconds; `None` when it was not measured.
    pub clock_error_ns: Option<u64>,
    /// Whether wakeups were recorded. Without them the kernel's own run-queue delay says when a wait
    /// ended, and that is known only at its end.
    pub wakeups: bool,
    /// The systemd unit, container or pod of a process; empty when it is not known.
    pub unit_of: &'a dyn Fn(u32) -> String,
    /// What the reader should know about this run: a fallback that was taken, an early end.
    pub notes: &'a [String],
    /// How the command ended, if one was started for the report.
    pub exit: Option<Exit>,
}

/// Records that one CPU's ring had no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The CPU.
    pub cpu: u32,
    /// Name of the records' kind (`Kind::name`).
    pub kind: &'static str,
    /// How many.
    pub count: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself, with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// The report on one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `schedscope`.
    pub tool: &'static str,
    /// Version of the program that wrote it.
    pub version: String,
    /// When.
    pub window: Window,
    /// What.
    pub target: Target,
    /// What is missing or doubtful.
    pub loss: Loss,
    /// The threads, those with the longest run-queue delay first.
    pub threads: Vec<ThreadRow>,
    /// All threads of the target together, those not listed included.
    pub total: Total,
    /// Contradictions between records, by name; those that did not occur are left out.
    pub conflicts: BTreeMap<&'static str, u64>,
    /// How far the clocks of two CPUs may be apart; `null` when it was not measured.
    pub clock_error_ns: Option<u64>,
    /// Whether wakeups were recorded.
    pub wakeups_recorded: bool,
    /// What the reader should know about this run.
    pub notes: Vec<String>,
    /// How the command ended, if one was started for the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

/// The time that a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Wall time of its start, in nanoseconds since 1970 (UTC).
    pub start_unix_ns: u64,
    /// Its length. For a command: from its first instruction to the end of its last thread.
    pub duration_ns: u64,
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// `pid`, `tid`, `comm` or `command`.
    pub kind: String,
    /// As the user gave it.
    pub value: String,
}

/// What is missing or doubtful in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Records read, of the whole host.
    pub events: u64,
    /// Records lost, on the whole host, because a ring was full or a probe could not run. For the
    /// rings it is the larger of two counts: their own, and that of the gap records, which lag behind
    /// while a ring stays full.
    pub dropped: u64,
    /// Those among [`Loss::dropped`] that were lost because a probe could not run: it was running
    /// already on that CPU.
    pub missed: u64,
    /// Records that were older than what was already known of their thread.
    pub inverted: u64,
    /// Waits and stays on a run queue of this target that gave no sample: their beginning was not
    /// seen, or they had not ended. Their time is counted all the same.
    pub censored_spans: u64,
    /// Records of a kind that this version does not know.
    pub undecodable: u64,
    /// Threads that ended and are only in the total, because there were too many.
    pub unlisted_threads: u64,
    /// [`Loss::dropped`] by CPU and kind, as far as the rings counted it.
    pub dropped_by: Vec<Dropped>,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThreadRow {
    /// Thread id.
    pub tid: u32,
    /// Its process; 0 when its birth was lost.
    pub tgid: u32,
    /// Its last name; what is not UTF-8, and every control character, is replaced by U+FFFD.
    pub comm: String,
    /// The systemd unit, container or pod that it belongs to; empty when it is not known.
    pub unit: String,
    /// What it did.
    #[serde(flatten)]
    pub figures: FigureRow,
    /// The process's parent; 0 when it is not known.
    pub parent_tgid: u32,
    /// `start_boottime` of the thread, which with the id identifies it; 0 when it is not known.
    pub start_ns: u64,
    /// Whether it ended within the window.
    pub ended: bool,
    /// What it was waiting for at the end of the window, if it was not running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
}

/// What a thread was in the midst of when the window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Open {
    /// `runnable`, `blocked` or `unknown`.
    pub state: &'static str,
    /// For how long, as far as it lies within the window.
    pub elapsed_ns: u64,
}

/// All threads of the target together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Total {
    /// Threads seen.
    pub threads: u64,
    /// What they did.
    #[serde(flatten)]
    pub figures: FigureRow,
}

/// The figures of a thread or of all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FigureRow {
    /// Time observed: the window's length for a thread that lived through it, else its shorter life.
    pub observed_ns: u64,
    /// Where the time went; sums to [`FigureRow::observed_ns`].
    pub time_ns: TimeRow,
    /// Each wait for a CPU, from being put on a run queue to running.
    pub runqueue_delay: Distribution,
    /// Each time off the CPU, from leaving it to coming back, the wait for a CPU included.
    pub offcpu: Distribution,
    /// [`TimeRow::runnable`] by cause; sums to it.
    pub runnable_ns: RunnableRow,
    /// [`TimeRow::blocked`] by reason, the zeros left out; sums to it.
    pub blocked_ns: BTreeMap<&'static str, u64>,
    /// Switches away from a CPU.
    pub switches: Switches,
    /// Waits that ended in getting a CPU.
    pub wakeups: u64,
    /// Times that it got another CPU than the one before.
    pub migrations: u64,
    /// Who ended its waits.
    pub wakers: Vec<Waker>,
    /// Who held the CPU while it was queued.
    pub culprits: Vec<Culprit>,
    /// Waits that gave no sample because not all of them was seen.
    pub censored_spans: u64,
}

/// The four parts of wall time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimeRow {
    /// On a CPU.
    pub running: u64,
    /// On a run queue.
    pub runnable: u64,
    /// Waiting for something else than a CPU.
    pub blocked: u64,
    /// Not known: records were lost or contradict one another.
    pub unknown: u64,
}

impl TimeRow {
    /// All of it.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.running + self.runnable + self.blocked + self.unknown
    }
}

/// Time on a run queue by what it was waited for there, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RunnableRow {
    /// Another thread ran on that CPU.
    pub contended: u64,
    /// The CPU quota of its cgroup was used up.
    pub throttled: u64,
    /// The CPU was idle, and on its way to the thread.
    pub placement: u64,
    /// Not known.
    pub unknown: u64,
}

/// A distribution of durations, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// Their exact sum.
    pub sum_ns: u64,
    /// Half of them are at most this long; 0 when there are none, as in what follows.
    pub p50_ns: u64,
    /// 90% are at most this long.
    pub p90_ns: u64,
    /// 99% are at most this long.
    pub p99_ns: u64,
    /// 99.9% are at most this long.
    pub p999_ns: u64,
    /// The longest, exact.
    pub max_ns: u64,
    /// The quantiles are at most this part of themselves above the true ones, and never below.
    pub relative_error: f64,
}

/// Switches away from a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Switches {
    /// In order to wait.
    pub voluntary: u64,
    /// While it still wanted to run.
    pub involuntary: u64,
}

/// Who ended waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waker {
    /// `thread`, `timer`, `network`, `block`, `ipi` or `irq`.
    pub kind: &'static str,
    /// The thread, for `thread`; else 0.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// How many waits it ended.
    pub count: u64,
    /// How long they were, together.
    pub wait_ns: u64,
}

/// Who held a CPU that was waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Culprit {
    /// The thread.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its name.
    pub comm: String,
    /// The systemd unit, container or pod that it belongs to.
    pub unit: String,
    /// For how long.
    pub ns: u64,
}

impl Report {
    /// The report on one target of a snapshot, which must be asked for with figures per thread.
    #[must_use]
    pub fn new(snapshot: &Snapshot, target: &TargetSnapshot, facts: &ReportFacts<'_>) -> Self {
        let mut threads: Vec<ThreadRow> = target
            .threads
            .iter()
            .map(|thread| thread_row(thread, facts))
            .collect();
        threads.sort_by_key(|row| {
            (
                std::cmp::Reverse(row.figures.time_ns.runnable),
                std::cmp::Reverse(row.figures.time_ns.blocked),
                row.tid,
                row.start_ns,
            )
        });
        let (start_ns, end_ns) = window(snapshot, target);
        let counted: u64 = facts.dropped.iter().map(|dropped| dropped.count).sum();
        Self {
            schema: SCHEMA,
            tool: "schedscope",
            version: facts.version.to_owned(),
            window: Window {
                start_unix_ns: facts
                    .start_unix_ns
                    .saturating_add(start_ns.saturating_sub(snapshot.start_ns)),
                duration_ns: end_ns.saturating_sub(start_ns),
            },
            target: Target {
                kind: facts.target_kind.to_owned(),
                value: facts.target_value.to_owned(),
            },
            loss: Loss {
                events: snapshot.counts.total(),
                dropped: counted.max(snapshot.counts.lost) + facts.missed,
                missed: facts.missed,
                inverted: snapshot.conflicts.of(Conflict::Inverted),
                censored_spans: target.total.figures.censored + target.open,
                undecodable: snapshot.counts.undecodable,
                unlisted_threads: target.unlisted,
                dropped_by: facts
                    .dropped
                    .iter()
                    .copied()
                    .filter(|dropped| dropped.count > 0)
                    .collect(),
            },
            total: Total {
                threads: target.threads.len() as u64 + target.unlisted,
                figures: figure_row(&target.total.figures),
            },
            threads,
            conflicts: snapshot
                .conflicts
                .iter()
                .filter(|&(_, count)| count > 0)
                .map(|(conflict, count)| (conflict.name(), count))
                .collect(),
            clock_error_ns: facts.clock_error_ns,
            wakeups_recorded: facts.wakeups,
            notes: facts.notes.to_vec(),
            exit: facts.exit,
        }
    }
}

/// Start and end of what a report on this target is about: a command's life begins within the
/// snapshot's window and may end there.
fn window(snapshot: &Snapshot, target: &TargetSnapshot) -> (u64, u64) {
    let Some(exec_ns) = target.exec_ns else {
        return (snapshot.start_ns, snapshot.at_ns);
    };
    let start_ns = exec_ns.max(snapshot.start_ns);
    let last_end_ns = target.threads.iter().filter_map(|t| t.ended_ns).max();
    match last_end_ns {
        Some(end_ns) if target.alive == 0 && target.unlisted == 0 => (start_ns, end_ns),
        _ => (start_ns, snapshot.at_ns),
    }
}

fn thread_row(thread: &ThreadSnapshot, facts: &ReportFacts<'_>) -> ThreadRow {
    ThreadRow {
        tid: thread.identity.tid,
        tgid: thread.tgid,
        comm: thread.comm.display(),
        unit: (facts.unit_of)(thread.tgid),
        figures: figure_row(&thread.account.figures),
        parent_tgid: thread.parent_tgid,
        start_ns: thread.identity.start_ns,
        ended: thread.ended_ns.is_some(),
        open: thread
            .now
            .filter(|&(share, _)| share != Share::Running)
            .map(|(share, elapsed_ns)| Open {
                state: share.name(),
                elapsed_ns,
            }),
    }
}

fn figure_row(figures: &Figures) -> FigureRow {
    FigureRow {
        observed_ns: ns(figures.observed_ns()),
        time_ns: TimeRow {
            running: ns(figures.time(Share::Running)),
            runnable: ns(figures.time(Share::Runnable)),
            blocked: ns(figures.time(Share::Blocked)),
            unknown: ns(figures.time(Share::Unknown)),
        },
        runqueue_delay: distribution(&figures.runqueue_delay),
        offcpu: distribution(&figures.offcpu),
        runnable_ns: RunnableRow {
            contended: ns(figures.runnable(Cause::Contended)),
            throttled: ns(figures.runnable(Cause::Throttled)),
            placement: ns(figures.runnable(Cause::Placement)),
            unknown: ns(figures.runnable(Cause::Unknown)),
        },
        blocked_ns: Reason::all()
            .map(|reason| (reason.name(), ns(figures.blocked(reason))))
            .filter(|&(_, ns)| ns > 0)
            .collect(),
        switches: Switches {
            voluntary: figures.voluntary,
            involuntary: figures.involuntary,
        },
        wakeups: figures.wakeups,
        migrations: figures.migrations,
        wakers: Vec::new(),
        culprits: Vec::new(),
        censored_spans: figures.censored,
    }
}

/// A sum of times as a report has it; one of 584 years stands for all that are longer.
fn ns(sum_ns: u128) -> u64 {
    u64::try_from(sum_ns).unwrap_or(u64::MAX)
}

fn distribution(histogram: &LatencyHistogram) -> Distribution {
    let [p50_ns, p90_ns, p99_ns, p999_ns] = histogram.quantiles_ns();
    Distribution {
        count: histogram.count(),
        sum_ns: ns(histogram.sum_ns()),
        p50_ns,
        p90_ns,
        p99_ns,
        p999_ns,
        max_ns: histogram.max_ns(),
        relative_error: LatencyHistogram::RELATIVE_ERROR,
    }
}
