//! The state of all figures at one moment, what has not ended yet included.

use std::collections::BTreeMap;
use std::sync::Arc;

use profiler_ebpf::Kind;

use super::account::{Account, Detail};
use super::classify::Wait;
use super::conflict::Conflicts;
use super::figures::Figures;
use super::queue::Causes;
use super::ranking::{Ranking, Weight};
use super::reason::Reason;
use super::reconstruct::Reconstruction;
use super::shedding::{ShedCounts, Shedding};
use super::spans::What;
use super::spent::{Cause, Share, Spent};
use super::thread::{Comm, Identity, State, Thread};
use super::timeline::Runner;
use super::units::UnitSnapshot;
use super::who::Who;
use super::worst::{LongWait, Worst};

/// How many records came and how many did not, since the window began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read, by kind: the kind's number less one is the place.
    pub events: [u64; Kind::ALL.len()],
    /// Records lost, as the gap records tell.
    pub lost: u64,
    /// Records of a kind that this version does not know.
    pub undecodable: u64,
    /// Records left out on purpose.
    pub shed: ShedCounts,
}

impl Counts {
    /// All records read.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.events.iter().sum()
    }

    /// What was added since `earlier`, an older copy of these.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            events: std::array::from_fn(|kind| {
                self.events[kind].saturating_sub(earlier.events[kind])
            }),
            lost: self.lost.saturating_sub(earlier.lost),
            undecodable: self.undecodable.saturating_sub(earlier.undecodable),
            shed: self.shed.since(&earlier.shed),
        }
    }
}

/// One thread of a target.
#[derive(Clone, Debug)]
pub struct ThreadSnapshot {
    /// Which one.
    pub identity: Identity,
    /// Its number in this run. A thread that execs takes over its process's identity; this stays.
    pub serial: u64,
    /// Its process; 0 when its birth was lost.
    pub tgid: u32,
    /// The process's parent; 0 when not known.
    pub parent_tgid: u32,
    /// Its last name.
    pub comm: Comm,
    /// From when on it was observed.
    pub observed_from_ns: u64,
    /// When it ended, if it did.
    pub ended_ns: Option<u64>,
    /// What it did, with the elapsed part of what it is doing.
    pub account: Account,
    /// What it is doing now, and for how long; only what lies in the window counts.
    pub now: Option<(Share, u64)>,
    /// What it waits for now, if it waits; only what lies in the window counts.
    pub open: Option<LongWait>,
}

impl ThreadSnapshot {
    pub(super) fn ended(thread: &Thread, account: Account, ended_ns: u64) -> Self {
        Self {
            identity: thread.identity(),
            serial: thread.serial,
            tgid: thread.tgid,
            parent_tgid: thread.parent_tgid,
            comm: thread.comm,
            observed_from_ns: thread.observed_from_ns,
            ended_ns: Some(ended_ns),
            account,
            now: None,
            open: None,
        }
    }
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetSnapshot {
    /// The name that it was given.
    pub name: String,
    /// All its threads together.
    pub total: Account,
    /// The longest waits that have ended.
    pub worst: Worst,
    /// The longest waits that go on.
    pub stuck: Worst,
    /// Waits and stays on a run queue that have not ended, by what they are for.
    pub waiting: Waiting,
    /// Threads alive.
    pub alive: usize,
    /// Waits and stays on a run queue that have not ended.
    pub open: u64,
    /// Its threads one by one, the ended ones first; empty unless asked for.
    pub threads: Vec<Arc<ThreadSnapshot>>,
    /// Ended threads that are only in the total, because there were too many.
    pub unlisted: u64,
    /// When the command that it is about began to run.
    pub exec_ns: Option<u64>,
}

/// Waits that go on, of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenWaits {
    /// How many threads wait so.
    pub threads: u64,
    /// How long the one has waited that waits longest, as far as it lies in the window.
    pub oldest_ns: u64,
}

impl OpenWaits {
    fn add(&mut self, elapsed_ns: u64) {
        self.threads += 1;
        self.oldest_ns = self.oldest_ns.max(elapsed_ns);
    }
}

/// Waits that go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// For a CPU.
    pub runnable: OpenWaits,
    blocked: [OpenWaits; Reason::COUNT],
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            runnable: OpenWaits::default(),
            blocked: [OpenWaits::default(); Reason::COUNT],
        }
    }
}

impl Waiting {
    /// For this.
    #[must_use]
    pub fn blocked(&self, reason: Reason) -> OpenWaits {
        self.blocked[reason.index()]
    }
}

/// All figures at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the window began.
    pub start_ns: u64,
    /// The moment; every record up to here is in.
    pub at_ns: u64,
    /// All threads of the host together, the idle tasks not.
    pub host: Figures,
    /// Threads alive on the host.
    pub alive: usize,
    /// Waits and stays on a run queue that have not ended, on the whole host.
    pub open: u64,
    /// The same by what they are for.
    pub waiting: Waiting,
    /// Who had a CPU while others were queued for it, by process (0: its birth was lost): for how long,
    /// of all threads of the host, as far as that was followed. The lighter ones are in `other`.
    pub inflicted: Ranking<u32, Who>,
    /// The units, if figures by unit are kept: first the one that stands for all others.
    pub units: Vec<UnitSnapshot>,
    /// The targets, in the order in which they were asked for.
    pub targets: Vec<TargetSnapshot>,
    /// Records.
    pub counts: Counts,
    /// Contradictions.
    pub conflicts: Conflicts,
    /// Whether all threads are kept.
    pub shedding: Shedding,
}

impl Reconstruction {
    /// All figures as of `at_ns`: everything up to there must have been taken in, and nothing later.
    #[must_use]
    pub fn snapshot(&self, at_ns: u64) -> Snapshot {
        let ledger = &self.spans.ledger;
        let mut host = ledger.units.host();
        let mut host_open = 0;
        let mut host_waiting = Waiting::default();
        let names = if ledger.targets.is_empty() {
            BTreeMap::new()
        } else {
            self.names_now()
        };
        let mut targets: Vec<TargetSnapshot> = ledger
            .targets
            .iter()
            .map(|target| TargetSnapshot {
                name: target.spec.name.clone(),
                total: target.account.clone(),
                worst: target.worst.clone(),
                stuck: Worst::default(),
                waiting: Waiting::default(),
                alive: 0,
                open: 0,
                threads: target.ended.clone(),
                unlisted: target.unlisted,
                exec_ns: target.exec_ns,
            })
            .collect();
        let (mut units, unit_places) = ledger.units.snapshot();
        for thread in self.threads.iter() {
            let is_open = u64::from(matches!(thread.state, State::Queued(_) | State::Waiting(_)));
            host_open += is_open;
            let open = self.open_span(thread, thread.met_ns, at_ns, HOST_STEPS);
            open.book(&mut host, &mut host_waiting);
            let place = unit_places.get(usize::from(thread.unit.0));
            if let Some(unit) = place.and_then(|&place| units.get_mut(place)) {
                unit.alive += 1;
                open.book(&mut unit.figures, &mut unit.waiting);
            }
            let target = thread
                .target
                .and_then(|number| targets.get_mut(usize::from(number)));
            let Some(target) = target else { continue };
            target.alive += 1;
            target.open += is_open;
            let open = self.open_span(thread, thread.observed_from_ns, at_ns, usize::MAX);
            open.book(&mut target.total.figures, &mut target.waiting);
            self.book_detail(&open, &mut target.total.detail);
            let wait = self.open_wait(thread, at_ns);
            if let Some(wait) = &wait {
                target.stuck.add(wait.clone());
            }
            let Some(account) = &thread.account else {
                continue;
            };
            let mut account = Account::clone(account);
            open.book(&mut account.figures, &mut Waiting::default());
            self.book_detail(&open, &mut account.detail);
            account.detail.rename(&names);
            target.threads.push(Arc::new(ThreadSnapshot {
                ended_ns: None,
                now: open
                    .last
                    .map(|(what, elapsed_ns)| (what.share(), elapsed_ns)),
                open: wait,
                ..ThreadSnapshot::ended(thread, account, at_ns)
            }));
        }
        for target in &mut targets {
            target.total.detail.rename(&names);
        }
        Snapshot {
            start_ns: self.window_start_ns.unwrap_or(at_ns),
            at_ns,
            host,
            alive: self.threads.len(),
            open: host_open,
            waiting: host_waiting,
            inflicted: self.inflicted(),
            units,
            targets,
            counts: self.counts,
            conflicts: self.spans.conflicts,
            shedding: self.shedding.as_of(at_ns),
        }
    }

    /// The elapsed part of a thread's open span, as far as it counts from `from_ns` on.
    fn open_span(&self, thread: &Thread, from_ns: u64, at_ns: u64, steps: usize) -> OpenSpan {
        let mut open = OpenSpan::default();
        let mut began_ns = thread.began_ns().max(from_ns);
        let mut from_ns = thread.since_ns.max(from_ns);
        for (what, end_ns) in self.spans.parts(thread, at_ns) {
            if end_ns > began_ns {
                open.last = Some((what, end_ns - began_ns));
                began_ns = end_ns;
            }
            let Some(duration_ns) = end_ns.checked_sub(from_ns) else {
                continue;
            };
            match what {
                What::Running => open.add(Spent::Running, duration_ns),
                What::Unknown => open.add(Spent::Unknown, duration_ns),
                What::Shed => open.add(Spent::Shed, duration_ns),
                What::Blocked(wait) => {
                    open.add(Spent::Blocked(wait.reason), duration_ns);
                    open.wait = Some((wait, duration_ns));
                }
                What::Queued => {
                    let origin = thread.origin();
                    let note = |runner, duration_ns| open.held.push((runner, duration_ns));
                    let queues = &self.spans.queues;
                    open.causes = queues.divide(thread, from_ns..end_ns, steps, note);
                    for (cause, ns) in Cause::ALL.into_iter().zip(open.causes) {
                        open.add(Spent::Queued(origin, cause), ns);
                    }
                }
            }
            from_ns = end_ns;
        }
        open
    }

    fn book_detail(&self, open: &OpenSpan, detail: &mut Detail) {
        if let Some((wait, duration_ns)) = open.wait.filter(|(_, duration_ns)| *duration_ns > 0) {
            detail.add_wait(wait, duration_ns);
        }
        let mut nameless_ns = open.causes[Cause::Contended as usize];
        for &(runner, duration_ns) in &open.held {
            nameless_ns = nameless_ns.saturating_sub(duration_ns);
            let weight = Weight::once(duration_ns);
            let who = || self.names().runner(runner);
            detail.culprits.add(runner.serial, weight, who);
        }
        if nameless_ns > 0 {
            detail.culprits.add_other(Weight::once(nameless_ns));
        }
    }
}

/// Steps back in time for who has a CPU that a thread of no target is queued for.
const HOST_STEPS: usize = 16;

/// What a thread has been doing since the last time that was booked.
#[derive(Debug, Default)]
struct OpenSpan {
    parts: Vec<(Spent, u64)>,
    wait: Option<(Wait, u64)>,
    held: Vec<(Runner, u64)>,
    causes: Causes,
    /// What it does now, and for how long, with what of that has been booked.
    last: Option<(What, u64)>,
}

impl OpenSpan {
    fn add(&mut self, spent: Spent, duration_ns: u64) {
        if duration_ns > 0 {
            self.parts.push((spent, duration_ns));
        }
    }

    fn book(&self, figures: &mut Figures, waiting: &mut Waiting) {
        for &(spent, duration_ns) in &self.parts {
            figures.add_time(spent, duration_ns);
        }
        match self.last {
            Some((What::Queued, elapsed_ns)) => waiting.runnable.add(elapsed_ns),
            Some((What::Blocked(wait), elapsed_ns)) => {
                waiting.blocked[wait.reason.index()].add(elapsed_ns);
            }
            _ => {}
        }
    }
}

impl Snapshot {
    /// What happened between an older snapshot of the same window and this one.
    ///
    /// A thread that had ended before is left out.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let targets = self
            .targets
            .iter()
            .zip(&earlier.targets)
            .map(|(now, before)| TargetSnapshot {
                total: now.total.since(&before.total),
                worst: now.worst.since(earlier.at_ns),
                threads: threads_since(&now.threads, &before.threads, earlier.at_ns),
                unlisted: now.unlisted.saturating_sub(before.unlisted),
                ..now.clone()
            })
            .collect();
        Self {
            start_ns: earlier.at_ns,
            host: self.host.since(&earlier.host),
            inflicted: self.inflicted.since(&earlier.inflicted),
            units: units_since(&self.units, &earlier.units),
            targets,
            counts: self.counts.since(&earlier.counts),
            conflicts: self.conflicts.since(&earlier.conflicts),
            shedding: self.shedding.since(&earlier.shedding),
            ..self.clone()
        }
    }
}

fn units_since(now: &[UnitSnapshot], before: &[UnitSnapshot]) -> Vec<UnitSnapshot> {
    let of = |serial: u64| before.iter().find(|unit| unit.serial == serial);
    now.iter()
        .map(|unit| of(unit.serial).map_or_else(|| unit.clone(), |before| unit.since(before)))
        .collect()
}

fn threads_since(
    now: &[Arc<ThreadSnapshot>],
    before: &[Arc<ThreadSnapshot>],
    at_ns: u64,
) -> Vec<Arc<ThreadSnapshot>> {
    let known: std::collections::HashMap<u64, &ThreadSnapshot> = before
        .iter()
        .map(|thread| (thread.serial, &**thread))
        .collect();
    now.iter()
        .filter_map(|thread| match known.get(&thread.serial) {
            Some(before) if before.ended_ns.is_some() => None,
            Some(before) => Some(Arc::new(ThreadSnapshot {
                account: thread.account.since(&before.account),
                observed_from_ns: thread.observed_from_ns.max(at_ns),
                open: thread.open.clone(),
                ..**thread
            })),
            None => Some(Arc::clone(thread)),
        })
        .collect()
}
