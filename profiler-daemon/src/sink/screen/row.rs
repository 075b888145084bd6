//! A row of the screen: a thread, or all threads of a process or of a unit together.

use std::collections::BTreeMap;

use super::part::{self, Part, Parts};
use crate::core::ranking::Ranking;
use crate::core::{LatencyHistogram, ThreadSnapshot, Waited, Who};

/// What a row is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Threads.
    #[default]
    Threads,
    /// Processes.
    Processes,
    /// Systemd units, containers and pods.
    Units,
}

impl Level {
    /// What rows are called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Processes => "processes",
            Self::Units => "units",
        }
    }

    /// The next wider one, and after the widest the narrowest.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Threads => Self::Processes,
            Self::Processes => Self::Units,
            Self::Units => Self::Threads,
        }
    }
}

/// Which row, for as long as the screen lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKey {
    /// A thread by its number in this run.
    Thread(u64),
    /// A process by its id.
    Process(u32),
    /// A unit by its label.
    Unit(String),
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which one.
    pub key: RowKey,
    /// Its name.
    pub name: String,
    /// Id of the thread or process; 0 for a unit.
    pub id: u32,
    /// The unit that it belongs to; empty when that is not known.
    pub unit: String,
    /// How many threads.
    pub threads: usize,
    /// Where its time went.
    pub parts: Parts,
    /// P50 of the run-queue delay, in nanoseconds; 0 when there was none, as in what follows.
    pub p50_ns: u64,
    /// P99 of it.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// P99 of the last ticks, the oldest first.
    pub trend: Vec<u64>,
    /// Who had the CPU most while it was queued.
    pub culprit: Option<String>,
    /// The oldest wait that goes on and keeps it from its work: for what, and for how long.
    pub open: Option<(String, u64)>,
    /// Whether it has ended.
    pub ended: bool,
}

impl Row {
    /// Time observed, in nanoseconds.
    #[must_use]
    pub fn observed_ns(&self) -> u64 {
        self.parts.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
    }

    /// Time in which it was kept from its work.
    #[must_use]
    pub fn hurt_ns(&self) -> u64 {
        self.of(Part::hurts)
    }

    /// Time of such parts.
    #[must_use]
    pub fn of(&self, is_meant: impl Fn(Part) -> bool) -> u64 {
        let meant = Part::ALL.iter().filter(|part| is_meant(**part));
        meant.fold(0, |sum: u64, part| {
            sum.saturating_add(self.parts[*part as usize])
        })
    }

    /// Whether it did anything but wait for something to do.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.of(|part| part != Part::Idle) > 0
    }
}

/// What rows are made from.
pub(super) struct Group<'a> {
    threads: usize,
    parts: Parts,
    delays: LatencyHistogram,
    culprits: Ranking<u64, Who>,
    open: Option<&'a ThreadSnapshot>,
    ended: bool,
    /// The thread that it is named after.
    named: &'a ThreadSnapshot,
}

impl<'a> Group<'a> {
    /// Of one thread.
    pub(super) fn new(thread: &'a ThreadSnapshot) -> Self {
        let mut group = Self {
            threads: 0,
            parts: Parts::default(),
            delays: LatencyHistogram::default(),
            culprits: Ranking::default(),
            open: None,
            ended: true,
            named: thread,
        };
        group.add(thread);
        group
    }

    /// One more thread.
    pub(super) fn add(&mut self, thread: &'a ThreadSnapshot) {
        let figures = &thread.account.figures;
        self.threads += 1;
        for (sum, ns) in self.parts.iter_mut().zip(part::parts(figures)) {
            *sum = sum.saturating_add(ns);
        }
        self.delays.merge(&figures.runqueue_delay);
        self.culprits.merge(&thread.account.detail.culprits);
        self.ended &= thread.ended_ns.is_some();
        if thread.identity.tid == thread.tgid {
            self.named = thread;
        }
        let elapsed = |thread: &ThreadSnapshot| open_wait(thread).map_or(0, |(_, ns)| ns);
        if elapsed(thread) > self.open.map_or(0, elapsed) {
            self.open = Some(thread);
        }
    }

    /// The thread that it is named after: a process's first, if it is among them.
    pub(super) fn named(&self) -> &'a ThreadSnapshot {
        self.named
    }

    /// The row; `label` names those who had the CPU.
    pub(super) fn row(
        &self,
        (key, name, id): (RowKey, String, u32),
        unit: String,
        trend: Vec<u64>,
        label: &dyn Fn(&Who) -> String,
    ) -> Row {
        let [p50_ns, _, p99_ns, _] = self.delays.quantiles_ns();
        Row {
            key,
            name,
            id,
            unit,
            threads: self.threads,
            parts: self.parts,
            p50_ns,
            p99_ns,
            max_ns: self.delays.max_ns(),
            trend,
            culprit: by_label(&self.culprits, label)
                .into_iter()
                .next()
                .map(|(name, _)| name),
            open: self.open.and_then(open_wait),
            ended: self.ended,
        }
    }
}

/// Who had the CPU, by the names that `label` gives them, those that had it longest first.
pub(super) fn by_label(
    culprits: &Ranking<u64, Who>,
    label: &dyn Fn(&Who) -> String,
) -> Vec<(String, u64)> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (_, who, weight) in culprits.rows() {
        if who.is_known() {
            let sum = sums.entry(label(who)).or_default();
            *sum = sum.saturating_add(u64::try_from(weight.ns).unwrap_or(u64::MAX));
        }
    }
    let mut rows: Vec<(String, u64)> = sums.into_iter().collect();
    rows.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    rows
}

/// What a thread waits for now, and how long it has, unless that is idleness.
fn open_wait(thread: &ThreadSnapshot) -> Option<(String, u64)> {
    let wait = thread.open.as_ref()?;
    let what = match &wait.waited {
        Waited::Cpu(..) => "a CPU".to_owned(),
        Waited::Other(wait) if wait.reason.is_idle() => return None,
        Waited::Other(wait) => wait.name(),
    };
    Some((what, wait.duration_ns()))
}
