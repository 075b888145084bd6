//! The figures of a thread or of a target, as a report has them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::blame::{Blame, Culprit, Times, Waker, wakers};
use super::ns;
use crate::core::ranking::Weight;
use crate::core::{
    Account, Cause, Detail, Figures, LatencyHistogram, Origin, Reason, Share, Spent, Wait,
};

/// The figures of a thread or of all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FigureRow {
    /// Time observed: the window's length for a thread that lived through it, else its shorter life.
    pub observed_ns: u64,
    /// Where the time went; sums to [`FigureRow::observed_ns`].
    pub time_ns: TimeRow,
    /// Each wait for a CPU, from being put on a run queue to running.
    pub runqueue_delay: Distribution,
    /// The part of [`TimeRow::unknown`] in which records of the thread were left out on purpose; absent if there
    /// is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_shed_ns: Option<u64>,
    /// Each time off the CPU, from leaving it to coming back, the wait for a CPU included.
    pub offcpu: Distribution,
    /// [`TimeRow::runnable`] by cause; sums to it.
    pub runnable_ns: RunnableRow,
    /// [`TimeRow::runnable`] by how the stay on the run queue began; sums to it.
    pub runnable_by_origin_ns: OriginRow,
    /// [`TimeRow::blocked`] by reason, the zeros left out; sums to it. Where a system call says nothing
    /// of what it waits for, the reason is `other(CALL)`; `other` alone are such that were folded.
    pub blocked_ns: BTreeMap<String, u64>,
    /// The part of [`TimeRow::blocked`] in which there was nothing to do: the sum of the reasons that
    /// are plain idleness.
    pub idle_ns: u64,
    /// Switches away from a CPU.
    pub switches: Switches,
    /// Waits that ended in getting a CPU.
    pub wakeups: u64,
    /// Times that it got another CPU than the one before.
    pub migrations: u64,
    /// Who ended its waits, the ten that ended most of them.
    pub wakers: Vec<Waker>,
    /// All others that ended waits.
    pub wakers_other: Times,
    /// Who held the CPU while it was queued, the ten that did so longest.
    pub culprits: Vec<Culprit>,
    /// All others that did; with [`FigureRow::culprits`] it sums to [`RunnableRow::contended`].
    pub culprits_other_ns: u64,
    /// What [`FigureRow::blocked_ns`] was concluded from, the longest first.
    pub explain: Vec<Explain>,
    /// The folded rest of it; with [`FigureRow::explain`] it sums to [`TimeRow::blocked`].
    pub explain_other: Times,
    /// Waits that gave no sample because not all of them was seen.
    pub censored_spans: u64,
}

impl FigureRow {
    /// Blocked time in which a thread was kept from its work: all but [`FigureRow::idle_ns`].
    #[must_use]
    pub fn work_ns(&self) -> u64 {
        self.time_ns.blocked.saturating_sub(self.idle_ns)
    }

    /// Blocked time by reason, the longest first.
    #[must_use]
    pub fn reasons(&self) -> Vec<(&str, u64)> {
        let mut reasons: Vec<(&str, u64)> = self
            .blocked_ns
            .iter()
            .map(|(reason, &ns)| (reason.as_str(), ns))
            .collect();
        reasons.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
        reasons
    }
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

impl RunnableRow {
    /// From the time of each cause.
    pub(super) fn new(of: impl Fn(Cause) -> u64) -> Self {
        Self {
            contended: of(Cause::Contended),
            throttled: of(Cause::Throttled),
            placement: of(Cause::Placement),
            unknown: of(Cause::Unknown),
        }
    }

    /// The causes by name.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, u64); 4] {
        [
            (Cause::Contended.name(), self.contended),
            (Cause::Throttled.name(), self.throttled),
            (Cause::Placement.name(), self.placement),
            (Cause::Unknown.name(), self.unknown),
        ]
    }
}

/// Time on a run queue by how the stay there began, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OriginRow {
    /// A wait was over.
    pub woken: u64,
    /// It lost the CPU while it still wanted to run.
    pub preempted: u64,
    /// It gave the CPU away of itself.
    pub yielded: u64,
    /// It was born.
    pub forked: u64,
    /// It was on the run queue already when the window began or it was found.
    pub unknown: u64,
}

impl OriginRow {
    fn new(figures: &Figures) -> Self {
        let of = |origin| ns(figures.runnable_from(origin));
        Self {
            woken: of(Origin::Woken),
            preempted: of(Origin::Preempted),
            yielded: of(Origin::Yielded),
            forked: of(Origin::Forked),
            unknown: of(Origin::Found),
        }
    }

    /// The origins by name.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, u64); 5] {
        [
            (Origin::Woken.name(), self.woken),
            (Origin::Preempted.name(), self.preempted),
            (Origin::Yielded.name(), self.yielded),
            (Origin::Forked.name(), self.forked),
            (Origin::Found.name(), self.unknown),
        ]
    }
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

/// What waits were taken for, and by what evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explain {
    /// The reason, as in [`FigureRow::blocked_ns`].
    pub reason: String,
    /// What decided, in words.
    pub evidence: String,
    /// The system call, if the thread was in one and it was read.
    pub call: Option<String>,
    /// What the call's file descriptor stands for, if it bears on the reason and was looked at.
    pub file: Option<&'static str>,
    /// How it waited, by the kernel's state word.
    pub state: &'static str,
    /// Whether the kernel had it down as waiting for a block device (`in_iowait`).
    pub iowait: bool,
    /// How many waits.
    pub count: u64,
    /// How long, together.
    pub ns: u64,
}

/// Whether a reason, by its name in [`FigureRow::blocked_ns`], is plain idleness.
#[must_use]
pub fn is_idle(reason: &str) -> bool {
    Reason::all().any(|its| its.is_idle() && its.name() == reason)
}

pub(super) fn figure_row(account: &Account, blame: &Blame<'_>) -> FigureRow {
    let Account { figures, detail } = account;
    let runnable_ns = RunnableRow::new(|cause| ns(figures.runnable(cause)));
    let blocked_ns = ns(figures.time(Share::Blocked));
    let (wakers, wakers_other) = wakers(detail);
    let (culprits, culprits_other_ns) = blame.culprits(detail, runnable_ns.contended);
    let (explain, explain_other) = explain(detail, blocked_ns);
    FigureRow {
        observed_ns: ns(figures.observed_ns()),
        time_ns: TimeRow {
            running: ns(figures.time(Share::Running)),
            runnable: ns(figures.time(Share::Runnable)),
            blocked: blocked_ns,
            unknown: ns(figures.time(Share::Unknown)),
        },
        runqueue_delay: distribution(&figures.runqueue_delay),
        unknown_shed_ns: Some(ns(figures.spent(Spent::Shed))).filter(|&shed_ns| shed_ns > 0),
        offcpu: distribution(&figures.offcpu),
        runnable_ns,
        runnable_by_origin_ns: OriginRow::new(figures),
        blocked_ns: by_reason(account),
        idle_ns: Reason::all()
            .filter(|reason| reason.is_idle())
            .map(|reason| ns(figures.blocked(reason)))
            .sum(),
        switches: Switches {
            voluntary: figures.voluntary,
            involuntary: figures.involuntary,
        },
        wakeups: figures.wakeups,
        migrations: figures.migrations,
        wakers,
        wakers_other,
        culprits,
        culprits_other_ns,
        explain,
        explain_other,
        censored_spans: figures.censored,
    }
}

/// The figures say how much, and the details by which call: what they don't have is `other`.
fn by_reason(account: &Account) -> BTreeMap<String, u64> {
    let mut by_reason: BTreeMap<String, u64> = Reason::all()
        .filter(|&reason| reason != Reason::Other)
        .map(|reason| {
            (
                reason.name().to_owned(),
                ns(account.figures.blocked(reason)),
            )
        })
        .collect();
    let mut other_ns = ns(account.figures.blocked(Reason::Other));
    for (wait, (), weight) in account.detail.waits.rows() {
        if wait.reason == Reason::Other {
            let part_ns = ns(weight.ns).min(other_ns);
            other_ns -= part_ns;
            *by_reason.entry(wait.name()).or_default() += part_ns;
        }
    }
    by_reason.insert(Reason::Other.name().to_owned(), other_ns);
    by_reason.retain(|_, ns| *ns > 0);
    by_reason
}

fn explain(detail: &Detail, blocked_ns: u64) -> (Vec<Explain>, Times) {
    let mut rest_ns = blocked_ns;
    let rows = detail.waits.rows().into_iter().map(|(wait, (), weight)| {
        let part_ns = ns(weight.ns).min(rest_ns);
        rest_ns -= part_ns;
        evidence(&wait, weight, part_ns)
    });
    let rows = rows.collect();
    let other = Times {
        count: detail.waits.other().count,
        wait_ns: rest_ns,
    };
    (rows, other)
}

fn evidence(wait: &Wait, weight: Weight, part_ns: u64) -> Explain {
    use crate::core::classify::{Call, FileKind};
    // Of other calls the first argument may be no descriptor at all.
    let depends_on_file = matches!(wait.call.waits_for(wait.file), Some((true, _)));
    let call = match wait.call {
        Call::NotRead | Call::None => None,
        call => Some(call.name()),
    };
    Explain {
        reason: wait.name(),
        evidence: wait.explain(),
        call,
        file: (depends_on_file && wait.file != FileKind::NotKnown).then(|| wait.file.name()),
        state: wait.state.name(),
        iowait: wait.iowait,
        count: weight.count,
        ns: part_ns,
    }
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
