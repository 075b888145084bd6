//! What happened of late: figures of the last minute or so, and how delays were distributed over time.
//!
//! In: a snapshot now and then ([`Recent::take`]). Out: what was added since some time ago, exactly, since
//! it is the difference of two snapshots. Of each only what is needed for that is kept, sparsely.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::metrics::buckets::{self, BOUNDS_NS};
use crate::core::histogram::Compact;
use crate::core::{Cause, Figures, Reason, Share, Snapshot, UnitSnapshot};

/// Snapshots are taken so often.
pub const STEP: Duration = Duration::from_secs(10);

/// Columns of the heat map that are kept: an hour.
const MAX_COLUMNS: usize = 360;

/// Some of the figures of the host, a target or a unit; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Brief {
    /// Run-queue delays that ended.
    pub delay: Compact,
    /// Time on a CPU.
    pub running_ns: u128,
    /// Time on a run queue.
    pub runnable_ns: u128,
    /// Of that, while another thread or an interrupt had the CPU.
    pub contended_ns: u128,
    /// Of that, because a CPU quota was used up.
    pub throttled_ns: u128,
    /// Waits that keep a thread from its work; those of which nobody knows what they are for are not in it.
    pub work_wait_ns: u128,
    /// Waits of threads that had nothing to do.
    pub idle_ns: u128,
}

impl Brief {
    /// Of these figures.
    #[must_use]
    pub fn new(of: &Figures) -> Self {
        let idle_ns = Reason::all().filter(|reason| reason.is_idle());
        let idle_ns: u128 = idle_ns.map(|reason| of.blocked(reason)).sum();
        let unexplained_ns = of.blocked(Reason::Unknown);
        Self {
            delay: of.runqueue_delay.compact(),
            running_ns: of.time(Share::Running),
            runnable_ns: of.time(Share::Runnable),
            contended_ns: of.runnable(Cause::Contended),
            throttled_ns: of.runnable(Cause::Throttled),
            work_wait_ns: of
                .time(Share::Blocked)
                .saturating_sub(idle_ns + unexplained_ns),
            idle_ns,
        }
    }

    /// What was added since `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            delay: self.delay.since(&earlier.delay),
            running_ns: self.running_ns.saturating_sub(earlier.running_ns),
            runnable_ns: self.runnable_ns.saturating_sub(earlier.runnable_ns),
            contended_ns: self.contended_ns.saturating_sub(earlier.contended_ns),
            throttled_ns: self.throttled_ns.saturating_sub(earlier.throttled_ns),
            work_wait_ns: self.work_wait_ns.saturating_sub(earlier.work_wait_ns),
            idle_ns: self.idle_ns.saturating_sub(earlier.idle_ns),
        }
    }
}

/// What happened in a window.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Its length, in nanoseconds.
    pub length_ns: u64,
    /// The whole host; `None` as long as there was no window yet.
    pub host: Option<Brief>,
    /// Targets by name.
    pub targets: HashMap<String, Brief>,
    /// Units by serial.
    pub units: HashMap<u64, Brief>,
    /// Who took how much CPU time from whom while they were queued: victim, culprit, nanoseconds.
    pub interference: Vec<(u64, u64, u128)>,
}

/// Delays that ended within one [`STEP`], on the whole host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its end, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How many, by [`BOUNDS_NS`]; the last is what is above all bounds.
    pub counts: [u64; BOUNDS_NS.len() + 1],
    /// What 99 of 100 stayed below, in nanoseconds; 0 if there were none.
    pub p99_ns: u64,
}

#[derive(Debug)]
struct Moment {
    at_ns: u64,
    host: Brief,
    targets: HashMap<String, Brief>,
    units: HashMap<u64, Brief>,
    culprits: HashMap<u64, Culprits>,
}

/// Who took how much from a unit, in nanoseconds, by serial: there is one list for each unit in each moment, with up
/// to as many rows as there are units.
type Culprits = Box<[(u64, u64)]>;

impl Moment {
    fn new(of: &Snapshot) -> Self {
        let target = |target: &crate::core::TargetSnapshot| {
            (target.name.clone(), Brief::new(&target.total.figures))
        };
        let culprits = |unit: &UnitSnapshot| {
            // Enough for 584 years.
            let row = |&(serial, ns)| (serial, u64::try_from(ns).unwrap_or(u64::MAX));
            let mut culprits: Culprits = unit.culprits.iter().map(row).collect();
            culprits.sort_unstable_by_key(|row| row.0);
            (unit.serial, culprits)
        };
        let unit = |unit: &UnitSnapshot| (unit.serial, Brief::new(&unit.figures));
        Self {
            at_ns: of.at_ns,
            host: Brief::new(&of.host),
            targets: of.targets.iter().map(target).collect(),
            units: of.units.iter().map(unit).collect(),
            culprits: of.units.iter().map(culprits).collect(),
        }
    }
}

/// The last snapshots, as far as they are needed.
#[derive(Debug)]
pub struct Recent {
    window_ns: u64,
    moments: VecDeque<Moment>,
    columns: VecDeque<Column>,
}

impl Recent {
    /// Nothing happened yet; windows are so long, or up to one [`STEP`] longer.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self {
            window_ns: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            moments: VecDeque::new(),
            columns: VecDeque::new(),
        }
    }

    /// Takes a snapshot, to be told later what was added since.
    pub fn take(&mut self, snapshot: &Snapshot, unix_ns: u64) {
        let moment = Moment::new(snapshot);
        if let Some(last) = self.moments.back() {
            let mut counts = [0; BOUNDS_NS.len() + 1];
            let added = moment.host.delay.since(&last.host.delay);
            buckets::add(&mut counts, added.buckets());
            if self.columns.len() >= MAX_COLUMNS {
                self.columns.pop_front();
            }
            let p99_ns = added.stats().into_iter().find(|(stat, _)| *stat == "p99");
            self.columns.push_back(Column {
                unix_ms: unix_ns / 1_000_000,
                counts,
                p99_ns: p99_ns.map_or(0, |(_, ns)| ns),
            });
        }
        self.moments.push_back(moment);
        // The oldest is just as old as it must be.
        let is_old = |its: &Moment| snapshot.at_ns.saturating_sub(its.at_ns) >= self.window_ns;
        while self.moments.get(1).is_some_and(is_old) {
            self.moments.pop_front();
        }
    }

    /// What was added until this snapshot since the window began, or since there are snapshots.
    #[must_use]
    pub fn window(&self, now: &Snapshot) -> Window {
        let Some(first) = self.moments.front() else {
            return Window::default();
        };
        let now = Moment::new(now);
        let nothing = Brief::default();
        let targets = now.targets.into_iter().map(|(name, brief)| {
            let since = brief.since(first.targets.get(&name).unwrap_or(&nothing));
            (name, since)
        });
        let units = now.units.into_iter().map(|(serial, brief)| {
            let since = brief.since(first.units.get(&serial).unwrap_or(&nothing));
            (serial, since)
        });
        let mut interference = Vec::new();
        for (victim, culprits) in now.culprits {
            let before = first.culprits.get(&victim).map_or(&[][..], |rows| rows);
            for (culprit, ns) in culprits {
                let earlier = before.binary_search_by_key(&culprit, |row| row.0);
                let ns = ns.saturating_sub(earlier.map_or(0, |place| before[place].1));
                if ns > 0 {
                    interference.push((victim, culprit, u128::from(ns)));
                }
            }
        }
        interference.sort_by_key(|&(victim, culprit, ns)| (std::cmp::Reverse(ns), victim, culprit));
        Window {
            length_ns: now.at_ns.saturating_sub(first.at_ns),
            host: Some(now.host.since(&first.host)),
            targets: targets.collect(),
            units: units.collect(),
            interference,
        }
    }

    /// The delays of the last hour, step by step, the oldest first.
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter()
    }
}
