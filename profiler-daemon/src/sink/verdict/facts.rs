//! The figures that rules are made of, each with where in the report it comes from.

mod blame;
mod times;

use serde::Serialize;

use super::rules::Topic;
use crate::sink::report::{Report, ThreadRow, is_idle};
use crate::sink::text::{duration, thousands};

/// A figure's value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Nanoseconds.
    Time(u64),
    /// A part of a whole, from 0 to 1.
    Share(f64),
    /// How many.
    Count(u64),
    /// How many on average.
    Average(f64),
    /// A name or some words.
    Text(String),
}

impl Value {
    /// The value in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Time(ns) => duration(*ns),
            Self::Share(share) => percent(*share),
            Self::Count(count) => thousands(*count),
            Self::Average(number) if *number < 9.95 => format!("{number:.1}"),
            Self::Average(number) => format!("{number:.0}"),
            Self::Text(text) => text.clone(),
        }
    }
}

/// Whole percents, but only nothing is 0% and only all is 100%.
fn percent(share: f64) -> String {
    match (share * 100.0).round() {
        0.0 if share > 0.0 => "under 1%".to_owned(),
        whole if whole >= 100.0 && share < 1.0 => "over 99%".to_owned(),
        whole => format!("{whole}%"),
    }
}

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Nanoseconds.
    Time(u64),
    /// A part of a whole, from 0 to 1.
    Share(f64),
    /// How many.
    Count(u64),
}

impl Bound {
    /// Whether a value of the same unit is at least this; one of another unit is not.
    #[must_use]
    pub fn is_reached(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Time(bound), Value::Time(value)) | (Self::Count(bound), Value::Count(value)) => {
                *value >= bound
            }
            (Self::Share(bound), Value::Share(value)) => *value >= bound,
            _ => false,
        }
    }

    /// The bound in words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Time(ns) => Value::Time(ns),
            Self::Share(share) => Value::Share(share),
            Self::Count(count) => Value::Count(count),
        }
        .words()
    }
}

/// A figure as it is in one report.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// How much.
    pub value: Value,
    /// Where in the report it comes from, as JSON pointers.
    pub evidence: Vec<String>,
}

impl Figure {
    fn new(value: Value, evidence: &[&str]) -> Self {
        Self {
            value,
            evidence: evidence.iter().map(|&pointer| pointer.to_owned()).collect(),
        }
    }
}

/// A figure that rules are made of.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// Its name in rules and in the report.
    pub name: &'static str,
    /// What it is.
    pub meaning: &'static str,
    of: fn(&Scene<'_>) -> Option<Figure>,
}

const fn fact(
    name: &'static str,
    meaning: &'static str,
    of: fn(&Scene<'_>) -> Option<Figure>,
) -> Fact {
    Fact { name, meaning, of }
}

/// All figures.
#[rustfmt::skip]
pub const FACTS: &[Fact] = &[
    fact("window", "length of the window", times::window),
    fact("observed", "time of all threads together", times::observed),
    fact("active", "threads that ran or were queued", times::active),
    fact("time", "time of the topic", times::time),
    fact("base", "the time that `share` is a part of", times::base),
    fact("share", "`time` as a part of: the time threads wanted to run, for waits for a CPU; their working time, for waits that are never idleness; else their non-idle time", times::share),
    fact("of_queue", "`time` as a part of all waiting for a CPU", times::of_queue),
    fact("of_work", "`time` as a part of the working time", times::of_work),
    fact("of_window", "`time` as a part of the window's length", times::of_window),
    fact("non_idle_of_window", "non-idle time as a part of the window's length", times::non_idle_of_window),
    fact("working", "working time", times::working),
    fact("idle", "time of plain idleness", times::idle),
    fact("idle_share", "idle time as a part of all time of threads that were idle or active", times::idle_share),
    fact("ran", "time on a CPU", times::ran),
    fact("ran_share", "`ran` as a part of the working time", times::ran_share),
    fact("ran_of_window", "`ran` as a part of the window's length", times::ran_of_window),
    fact("queued_share", "waiting for a CPU as a part of the working time", times::queued_share),
    fact("blocked_share", "waits that are never idleness as a part of the working time", times::blocked_share),
    fact("got", "CPUs that the threads ran on, on average", times::got),
    fact("demand", "CPUs that they would have run on if none had been taken, on average", times::demand),
    fact("unknown", "unknown time", times::unknown),
    fact("unknown_share", "`unknown` as a part of the non-idle time", times::unknown_share),
    fact("unknown_of_window", "`unknown` as a part of the window's length", times::unknown_of_window),
    fact("dropped", "events that were lost, if any", times::dropped),
    fact("shed", "events that were left out because there were too many, if any", times::shed),
    fact("waits", "waits of the topic", times::waits),
    fact("ended_waits", "times off the CPU that ended within the window", times::ended_waits),
    fact("p50", "median of the run-queue delay", times::p50),
    fact("p99", "99th percentile of the run-queue delay", times::p99),
    fact("one_thread", "the thread that has at least 80% of the topic's time, of three or more active ones", times::one_thread),
    fact("one_thread_share", "its part of the topic's time", times::one_thread_share),
    fact("busy_thread", "the thread that ran most", times::busy_thread),
    fact("busy_thread_share", "the part of its time that it ran", times::busy_thread_share),
    fact("busy_thread_of_all", "its part of what all threads ran", times::busy_thread_of_all),
    fact("unit", "the unit of all threads, if they have the same", blame::unit),
    fact("interrupts", "part of the contended time in which interrupts had the CPU", blame::interrupts),
    fact("interrupt", "the kind of interrupts that had it longest", blame::interrupt),
    fact("neighbors", "part of the contended time in which processes that are not of the target had the CPU", blame::neighbors),
    fact("own", "part of the contended time in which the target's own processes had the CPU", blame::own),
    fact("culprit", "the process that had the CPU longest, of those that are not of the target, or its unit if several of its processes had it", blame::culprit),
    fact("culprit_share", "its part of the contended time", blame::culprit_share),
    fact("call", "the system call with most of the topic's time", blame::call),
    fact("lock", "the kind of lock, by the system call", blame::lock),
    fact("looked", "waits of the topic that ended and are in the list of the longest", blame::looked),
    fact("typical", "mean of all waits of the topic as a part of the mean of these", blame::typical),
    fact("longest", "the longest of them", blame::longest),
    fact("longest_thread", "who waited so", blame::longest_thread),
    fact("longest_reason", "for what", blame::longest_reason),
    fact("longest_held_by", "who had the CPU most of the time meanwhile", blame::longest_held_by),
    fact("waker", "the thread that ended at least half of them", blame::waker),
    fact("waker_waits", "how many of them it ended", blame::waker_waits),
    fact("waker_queued", "part of these waits in which it was queued for a CPU", blame::waker_queued),
    fact("waker_held_by", "who had the CPU most of that", blame::waker_held_by),
    fact("waker_ran", "part of these waits in which it ran", blame::waker_ran),
    fact("waker_blocked", "part of these waits in which it waited for something else that is no idleness", blame::waker_blocked),
    fact("waker_idle", "part of these waits in which it was idle", blame::waker_idle),
    fact("waker_for", "what it waited for longest", blame::waker_for),
    fact("waker_did", "the largest of these parts, in words", blame::waker_did),
    fact("timer_share", "part of them that a timer ended", blame::timer_share),
    fact("stuck_thread", "the thread whose wait of the topic has gone on longest", blame::stuck_thread),
    fact("stuck_for", "for how long", blame::stuck_for),
    fact("or_longer", "whether it may be longer, since it began before the window", blame::or_longer),
    fact("stuck_reason", "for what", blame::stuck_reason),
    fact("stuck_cause", "why it gets no CPU", blame::stuck_cause),
    fact("stuck_others", "threads with such waits that have gone on at least half as long", blame::stuck_others),
];

/// Waits that are never idleness: for the host, not for somebody who may have nothing to say.
pub(super) const SURE: &[&str] = &[
    "disk-io",
    "fs-sync",
    "page-fault",
    "memory-reclaim",
    "kernel-lock",
    "stopped",
    "net-send",
    "net-connect",
];

/// Sums that shares are taken of, in nanoseconds.
#[derive(Debug)]
pub(super) struct Base<'a> {
    /// Threads that neither ran nor were queued, but waited for something that may be no idleness. What
    /// they wait for says nothing about the others, so their waits are in no sum.
    parked: Vec<&'a ThreadRow>,
    /// Threads that ran or were queued.
    active: u64,
    /// Running, queued, or unknown.
    wanted_ns: u64,
    /// The same, and waits that are never idleness.
    working_ns: u64,
    /// All but idleness.
    non_idle_ns: u64,
}

impl<'a> Base<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let is_active = |row: &&ThreadRow| {
            let times = &row.figures.time_ns;
            times.running > 0 || times.runnable > 0
        };
        let (active, rest): (Vec<&ThreadRow>, Vec<&ThreadRow>) =
            report.threads.iter().partition(is_active);
        let parked = rest
            .into_iter()
            .filter(|row| row.figures.work_ns() > 0)
            .collect::<Vec<_>>();
        let times = &report.total.figures.time_ns;
        let mut base = Self {
            parked,
            active: active.len() as u64 + report.loss.unlisted_threads,
            wanted_ns: times.running + times.runnable + times.unknown,
            working_ns: 0,
            non_idle_ns: 0,
        };
        let waits = |is_counted: fn(&str) -> bool| {
            let reasons = report.total.figures.blocked_ns.keys();
            let counted = reasons.filter(|reason| is_counted(reason));
            counted
                .map(|reason| base.active_ns(report, reason))
                .sum::<u64>()
        };
        let sure_ns = waits(|reason| SURE.contains(&reason));
        let maybe_ns = waits(|reason| !SURE.contains(&reason) && !is_idle(reason));
        base.working_ns = base.wanted_ns + sure_ns;
        base.non_idle_ns = base.working_ns + maybe_ns;
        base
    }

    /// Blocked for a reason (as in `blocked_ns`), the parked threads left aside.
    fn active_ns(&self, report: &Report, reason: &str) -> u64 {
        let of = |row: &ThreadRow| row.figures.blocked_ns.get(reason).copied().unwrap_or(0);
        let whole_ns = report.total.figures.blocked_ns.get(reason).copied();
        let parked_ns: u64 = self.parked.iter().map(|row| of(row)).sum();
        whole_ns.unwrap_or(0).saturating_sub(parked_ns)
    }
}

/// What a rule looks at: a report, and the topic that it speaks of.
#[derive(Debug)]
pub struct Scene<'a> {
    report: &'a Report,
    base: &'a Base<'a>,
    topic: Topic,
}

impl<'a> Scene<'a> {
    pub(super) fn new(report: &'a Report, base: &'a Base<'a>, topic: Topic) -> Self {
        Self {
            report,
            base,
            topic,
        }
    }

    /// The figure of this name, if the topic has one and the report tells.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<Figure> {
        let fact = FACTS.iter().find(|fact| fact.name == name)?;
        (fact.of)(self)
    }

    /// How long a wait of the topic is on average, those of parked threads left aside.
    fn mean_ns(&self) -> Option<f64> {
        match (times::time(self)?.value, times::waits(self)?.value) {
            (Value::Time(ns), Value::Count(count)) => Some(ns as f64 / count as f64),
            _ => None,
        }
    }

    /// By what findings of one rank are ordered.
    pub(super) fn weight_ns(&self) -> u64 {
        times::weight_ns(self)
    }

    /// Whether a reason, as in `blocked_ns`, belongs to the topic.
    fn is_topic(&self, reason: &str) -> bool {
        let is_one = |name: &&str| {
            *name == reason
                || reason
                    .strip_prefix(*name)
                    .is_some_and(|rest| rest.starts_with('('))
        };
        match self.topic {
            Topic::Open([]) => !is_idle(reason),
            Topic::Blocked(reasons) | Topic::Open(reasons) => reasons.iter().any(is_one),
            _ => false,
        }
    }
}

/// A thread or process by name and id.
fn named(comm: &str, id: u32) -> String {
    match (comm, id) {
        ("", 0) => "a thread that is gone".to_owned(),
        (interrupts, 0) => interrupts.to_owned(),
        ("", id) => format!("?/{id}"),
        (comm, id) => format!("{comm}/{id}"),
    }
}

/// A key as a part of a JSON pointer (RFC 6901).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
