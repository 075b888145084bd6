//! The state of all figures at one moment, what has not ended yet included.

use profiler_ebpf::Kind;

use super::conflict::Conflicts;
use super::figures::Figures;
use super::reconstruct::Reconstruction;
use super::thread::{Comm, Identity, Share, State, Thread};

/// How many records came and how many did not, since the window began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read, by kind: the kind's number less one is the place.
    pub events: [u64; Kind::ALL.len()],
    /// Records lost, as the gap records tell.
    pub lost: u64,
    /// Records of a kind that this version does not know.
    pub undecodable: u64,
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
    pub figures: Figures,
    /// What it is doing now, and for how long; only what lies in the window counts.
    pub now: Option<(Share, u64)>,
}

impl ThreadSnapshot {
    pub(super) fn ended(thread: &Thread, figures: Figures, ended_ns: u64) -> Self {
        Self {
            identity: thread.identity(),
            serial: thread.serial,
            tgid: thread.tgid,
            parent_tgid: thread.parent_tgid,
            comm: thread.comm,
            observed_from_ns: thread.observed_from_ns,
            ended_ns: Some(ended_ns),
            figures,
            now: None,
        }
    }
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetSnapshot {
    /// The name that it was given.
    pub name: String,
    /// All its threads together.
    pub total: Figures,
    /// Threads alive.
    pub alive: usize,
    /// Waits and stays on a run queue that have not ended.
    pub open: u64,
    /// Its threads one by one, the ended ones first; empty unless asked for.
    pub threads: Vec<ThreadSnapshot>,
    /// Ended threads that are only in the total, because there were too many.
    pub unlisted: u64,
    /// When the command that it is about began to run.
    pub exec_ns: Option<u64>,
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
    /// The targets, in the order in which they were asked for.
    pub targets: Vec<TargetSnapshot>,
    /// Records.
    pub counts: Counts,
    /// Contradictions.
    pub conflicts: Conflicts,
}

impl Reconstruction {
    /// All figures as of `at_ns`: everything up to there must have been taken in, and nothing later.
    #[must_use]
    pub fn snapshot(&self, at_ns: u64) -> Snapshot {
        let ledger = &self.spans.ledger;
        let mut host = ledger.host.clone();
        let mut host_open = 0;
        let mut targets: Vec<TargetSnapshot> = ledger
            .targets
            .iter()
            .map(|target| TargetSnapshot {
                name: target.spec.name.clone(),
                total: target.figures.clone(),
                alive: 0,
                open: 0,
                threads: target.ended.clone(),
                unlisted: target.unlisted,
                exec_ns: target.exec_ns,
            })
            .collect();
        for thread in self.threads.iter() {
            let open = u64::from(matches!(thread.state, State::Queued(_) | State::Waiting(_)));
            host_open += open;
            self.add_open(&mut host, thread, thread.met_ns, at_ns);
            let target = thread
                .target
                .and_then(|number| targets.get_mut(usize::from(number)));
            let Some(target) = target else { continue };
            target.alive += 1;
            target.open += open;
            self.add_open(&mut target.total, thread, thread.observed_from_ns, at_ns);
            let Some(figures) = &thread.figures else {
                continue;
            };
            let mut figures = Figures::clone(figures);
            self.add_open(&mut figures, thread, thread.observed_from_ns, at_ns);
            target.threads.push(ThreadSnapshot {
                ended_ns: None,
                now: self.doing(thread, at_ns),
                ..ThreadSnapshot::ended(thread, figures, at_ns)
            });
        }
        Snapshot {
            start_ns: self.window_start_ns.unwrap_or(at_ns),
            at_ns,
            host,
            alive: self.threads.len(),
            open: host_open,
            targets,
            counts: self.counts,
            conflicts: self.spans.conflicts,
        }
    }

    /// Adds the elapsed part of a thread's open span, as far as it counts from `from_ns` on.
    fn add_open(&self, figures: &mut Figures, thread: &Thread, from_ns: u64, at_ns: u64) {
        let mut from_ns = thread.since_ns.max(from_ns);
        for (share, wait, end_ns) in self.spans.parts(thread, at_ns) {
            if let Some(duration_ns) = end_ns.checked_sub(from_ns) {
                figures.add_time(share, wait, duration_ns);
                from_ns = end_ns;
            }
        }
    }

    /// The share that a thread is in now, and since how long.
    fn doing(&self, thread: &Thread, at_ns: u64) -> Option<(Share, u64)> {
        let mut from_ns = thread.since_ns.max(thread.observed_from_ns);
        let mut doing = None;
        for (share, _, end_ns) in self.spans.parts(thread, at_ns) {
            if let Some(duration_ns) = end_ns.checked_sub(from_ns).filter(|&duration| duration > 0)
            {
                doing = Some((share, duration_ns));
                from_ns = end_ns;
            }
        }
        doing
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
                threads: threads_since(&now.threads, &before.threads, earlier.at_ns),
                unlisted: now.unlisted.saturating_sub(before.unlisted),
                ..now.clone()
            })
            .collect();
        Self {
            start_ns: earlier.at_ns,
            host: self.host.since(&earlier.host),
            targets,
            counts: self.counts.since(&earlier.counts),
            conflicts: self.conflicts.since(&earlier.conflicts),
            ..self.clone()
        }
    }
}

fn threads_since(
    now: &[ThreadSnapshot],
    before: &[ThreadSnapshot],
    at_ns: u64,
) -> Vec<ThreadSnapshot> {
    let known: std::collections::HashMap<u64, &ThreadSnapshot> = before
        .iter()
        .map(|thread| (thread.serial, thread))
        .collect();
    now.iter()
        .filter_map(|thread| match known.get(&thread.serial) {
            Some(before) if before.ended_ns.is_some() => None,
            Some(before) => Some(ThreadSnapshot {
                figures: thread.figures.since(&before.figures),
                observed_from_ns: thread.observed_from_ns.max(at_ns),
                ..thread.clone()
            }),
            None => Some(thread.clone()),
        })
        .collect()
}
