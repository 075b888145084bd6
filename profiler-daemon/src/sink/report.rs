//! The report on a target: what is known of a window, in the shape that other programs rely on.
//!
//! In: a [`Snapshot`] and the facts about the run that no record carries ([`ReportFacts`]). Out: a
//! [`Report`], which serializes to the JSON report, schema 1, and which the table is printed from, so
//! that both show the same numbers. Fields may be added to it; none changes its meaning without a new
//! [`SCHEMA`]. Wherever a whole is given with its parts, the parts sum to it, to the nanosecond.
//!
//! `figures` is how much, `blame` is who had a part in it, `waits` are single waits.

mod blame;
mod figures;
mod waits;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use blame::{Culprit, ProcessCulprit, Times, UnitCulprit, Waker};
pub use figures::{
    Distribution, Explain, FigureRow, OriginRow, RunnableRow, Switches, TimeRow, is_idle,
};
pub(crate) use waits::states;
pub use waits::{Ender, LinkRow, Oldest, Open, WaitingRow, Worst, WorstRow};

use super::verdict::{Finding, judge};
use crate::core::{Conflict, Shedding, Snapshot, TargetSnapshot, ThreadSnapshot};
use blame::Blame;
use waits::Waits;

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
    /// The name of a process; empty when it is not known.
    pub name_of: &'a dyn Fn(u32) -> String,
    /// The functions of a user stack, the innermost first, by process and by the number under which the
    /// kernel keeps the stack; empty when nobody asked for them or they can't be had.
    pub user_stack_of: &'a dyn Fn(u32, u32) -> Vec<String>,
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
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
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
    /// What dominates and what to do about it, the most important first.
    pub verdict: Vec<Finding>,
    /// What is missing or doubtful.
    pub loss: Loss,
    /// The threads, those with the longest run-queue delay first, then those that were longest blocked by
    /// something else than idleness.
    pub threads: Vec<ThreadRow>,
    /// All threads of the target together, those not listed included.
    pub total: Total,
    /// The longest waits that have ended, at most 20 of each kind.
    pub worst: Worst,
    /// The longest waits that go on, at most 20 of each kind.
    pub stuck: Worst,
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
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// What was left out on purpose, because there was more than could be read; absent if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shed: Option<ShedRow>,
}

/// Threads that were left out, since there was more to record than could be read. Who is kept is complete;
/// time of others is unknown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShedRow {
    /// The fraction of the host's threads that is kept at the end of the window.
    pub kept: f64,
    /// The same when fewest were kept.
    pub least_kept: f64,
    /// For how long not all threads were kept.
    pub duration_ns: u64,
    /// How often that began.
    pub times: u64,
    /// Records left out, of the whole host: exact up to the last time that the rings were emptied.
    pub events: u64,
    /// The same by kind, the zeros left out. With the `switch` records that were read they are all switches of
    /// the host, but for what was dropped.
    pub events_by: BTreeMap<&'static str, u64>,
}

impl ShedRow {
    fn of(snapshot: &Snapshot) -> Option<Self> {
        let Snapshot {
            shedding, counts, ..
        } = snapshot;
        (shedding.most_shift > 0).then(|| Self {
            kept: Shedding::fraction(shedding.shift),
            least_kept: Shedding::fraction(shedding.most_shift),
            duration_ns: shedding.duration_ns,
            times: shedding.times,
            events: counts.shed.total(),
            events_by: counts
                .shed
                .by_kind()
                .filter(|&(_, count)| count > 0)
                .map(|(kind, count)| (kind.name(), count))
                .collect(),
        })
    }
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

/// All threads of the target together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Total {
    /// Threads seen.
    pub threads: u64,
    /// What they did.
    #[serde(flatten)]
    pub figures: FigureRow,
    /// The processes that held the CPU while threads of the target were queued, the ten that did so
    /// longest.
    pub culprits_by_process: Vec<ProcessCulprit>,
    /// All others; with [`Total::culprits_by_process`] it sums to [`RunnableRow::contended`].
    pub culprits_by_process_other_ns: u64,
    /// The same by systemd unit, container or pod.
    pub culprits_by_unit: Vec<UnitCulprit>,
    /// All others; with [`Total::culprits_by_unit`] it sums to [`RunnableRow::contended`].
    pub culprits_by_unit_other_ns: u64,
    /// Threads in the midst of a wait when the window ended: by `runnable`, or by what they are blocked
    /// for. States that nobody is in are left out.
    pub waiting: BTreeMap<&'static str, WaitingRow>,
    /// The wait that has gone on longest when the window ended, idle ones left aside; `null` if there is
    /// none.
    pub oldest_wait: Option<Oldest>,
}

impl Report {
    /// The report on one target of a snapshot, which must be asked for with figures per thread.
    #[must_use]
    pub fn new(snapshot: &Snapshot, target: &TargetSnapshot, facts: &ReportFacts<'_>) -> Self {
        let blame = Blame {
            unit_of: facts.unit_of,
            name_of: facts.name_of,
        };
        let waits = Waits { snapshot, facts };
        let mut threads: Vec<ThreadRow> = target
            .threads
            .iter()
            .map(|thread| thread_row(thread, &blame))
            .collect();
        threads.sort_by_key(|row| {
            (
                std::cmp::Reverse(row.figures.time_ns.runnable),
                std::cmp::Reverse(row.figures.work_ns()),
                std::cmp::Reverse(row.figures.idle_ns),
                row.tid,
                row.start_ns,
            )
        });
        let (start_ns, end_ns) = window(snapshot, target);
        let counted: u64 = facts.dropped.iter().map(|dropped| dropped.count).sum();
        let mut report = Self {
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
                shed: ShedRow::of(snapshot),
            },
            total: total(target, &blame),
            worst: waits.worst(&target.worst),
            stuck: waits.worst(&target.stuck),
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
            verdict: Vec::new(),
        };
        report.verdict = judge(&report);
        report
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

fn total(target: &TargetSnapshot, blame: &Blame<'_>) -> Total {
    let figures = figures::figure_row(&target.total, blame);
    let contended_ns = figures.runnable_ns.contended;
    let detail = &target.total.detail;
    let (culprits_by_process, culprits_by_process_other_ns) = blame.processes(detail, contended_ns);
    let (culprits_by_unit, culprits_by_unit_other_ns) = blame.units(detail, contended_ns);
    Total {
        threads: target.threads.len() as u64 + target.unlisted,
        figures,
        culprits_by_process,
        culprits_by_process_other_ns,
        culprits_by_unit,
        culprits_by_unit_other_ns,
        waiting: waits::waiting(&target.waiting),
        oldest_wait: waits::oldest(target),
    }
}

fn thread_row(thread: &ThreadSnapshot, blame: &Blame<'_>) -> ThreadRow {
    ThreadRow {
        tid: thread.identity.tid,
        tgid: thread.tgid,
        comm: thread.comm.display(),
        unit: (blame.unit_of)(thread.tgid),
        figures: figures::figure_row(&thread.account, blame),
        parent_tgid: thread.parent_tgid,
        start_ns: thread.identity.start_ns,
        ended: thread.ended_ns.is_some(),
        open: waits::open(thread),
    }
}

/// A sum of times as a report has it; one of 584 years stands for all that are longer.
fn ns(sum_ns: u128) -> u64 {
    u64::try_from(sum_ns).unwrap_or(u64::MAX)
}
