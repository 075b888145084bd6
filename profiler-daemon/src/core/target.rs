//! What the user wants to know about: which threads belong to a target, and its figures.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::account::{Account, Detail};
use super::classify::Wait;
use super::figures::Figures;
use super::interrupts::InterruptKind;
use super::ranking::{Ranking, Weight};
use super::snapshot::ThreadSnapshot;
use super::spent::Spent;
use super::thread::{Comm, Thread};
use super::units::Units;
use super::who::Who;
use super::worst::Worst;

/// Which threads a target takes in.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// All threads of a process, those to come included.
    Pid(u32),
    /// One thread.
    Tid(u32),
    /// All threads of a process from its next exec on: a command that was started for the purpose.
    Command(u32),
    /// The same, and all processes that come of it.
    CommandTree(u32),
    /// All threads of these processes, of those that they make, and of those that [`super::Core::join`]
    /// adds. A process that is once in stays in.
    Tree(BTreeSet<u32>),
    /// All threads of the host.
    All,
    /// All threads with a name that fits (`*` and `?` stand for anything and for one character).
    /// A thread that once fitted stays in.
    Comm(WildMatch),
}

impl Selector {
    /// The process that is to become a command, if it is about one.
    pub(super) fn command(&self) -> Option<u32> {
        match self {
            Self::Command(pid) | Self::CommandTree(pid) => Some(*pid),
            _ => None,
        }
    }

    /// Whether what its processes make belongs to it, too.
    fn follows(&self) -> bool {
        matches!(self, Self::CommandTree(_) | Self::Tree(_))
    }
}

/// A target as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetSpec {
    /// Its name in reports and metrics.
    pub name: String,
    /// Its threads.
    pub selector: Selector,
    /// Whether each thread gets figures of its own (some 80 KiB at most, once it has waited), or only the
    /// target as a whole.
    pub per_thread: bool,
}

/// A target and what was counted for it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) spec: TargetSpec,
    pub(super) account: Account,
    pub(super) worst: Worst,
    pub(super) ended: Vec<Arc<ThreadSnapshot>>,
    /// Threads that ended and are not in [`Self::ended`], because it was full.
    pub(super) unlisted: u64,
    /// For [`Selector::Tree`] and [`Selector::CommandTree`]: its processes, as far as they came to it.
    members: BTreeSet<u32>,
    /// For commands: when it began.
    pub(super) exec_ns: Option<u64>,
}

/// Most ended threads kept one by one; what they did stays in the target's figures in any case.
const MAX_ENDED: usize = 10_000;

impl Target {
    pub(super) fn new(spec: TargetSpec) -> Self {
        let members = match &spec.selector {
            Selector::Tree(tgids) => tgids.clone(),
            _ => BTreeSet::new(),
        };
        Self {
            members,
            spec,
            account: Account::default(),
            worst: Worst::default(),
            ended: Vec::new(),
            unlisted: 0,
            exec_ns: None,
        }
    }

    fn takes(&self, tid: u32, tgid: u32, comm: &Comm) -> bool {
        match &self.spec.selector {
            Selector::Pid(pid) => tgid == *pid,
            Selector::Tid(wanted) => tid == *wanted,
            Selector::Command(pid) => tgid == *pid && self.exec_ns.is_some(),
            Selector::CommandTree(_) | Selector::Tree(_) => self.members.contains(&tgid),
            Selector::All => true,
            Selector::Comm(pattern) => {
                std::str::from_utf8(comm.as_bytes()).is_ok_and(|name| pattern.matches(name))
            }
        }
    }

    /// The command has begun.
    pub(super) fn begin(&mut self, pid: u32, now_ns: u64) {
        self.exec_ns = Some(now_ns);
        self.members.insert(pid);
    }

    pub(super) fn end(&mut self, row: ThreadSnapshot) {
        if self.ended.len() < MAX_ENDED {
            self.ended.push(Arc::new(row));
        } else {
            self.unlisted += 1;
        }
    }

    pub(super) fn forget_ended(&mut self) {
        self.unlisted += self.ended.len() as u64;
        self.ended.clear();
    }

    pub(super) fn clear(&mut self) {
        self.account = Account::default();
        self.worst = Worst::default();
        self.ended.clear();
        self.unlisted = 0;
    }
}

/// The host's figures, by unit, and the targets': where all time and all samples are booked.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What threads that have ended took from others, by process, and what interrupts took.
    pub(super) inflicted: Ranking<u32, Who>,
    pub(super) targets: Vec<Target>,
    pub(super) units: Units,
}

impl Ledger {
    /// Interrupts had a CPU that somebody was queued for.
    pub(super) fn inflict(&mut self, kind: InterruptKind, duration_ns: u64) {
        // No process has such an id.
        let key = u32::MAX - kind as u32;
        let who = || Who::interrupts(kind);
        self.inflicted.add(key, Weight::once(duration_ns), who);
    }

    /// A process was made, or found to be another's child: it follows that one. Returns whether it came
    /// to a target by that.
    pub(super) fn follow(&mut self, tgid: u32, parent_tgid: u32) -> bool {
        let mut came = false;
        for target in &mut self.targets {
            if target.spec.selector.follows() && target.members.contains(&parent_tgid) {
                came |= target.members.insert(tgid);
            }
        }
        came
    }

    /// A process is new: what had its id before is gone.
    pub(super) fn forget_process(&mut self, tgid: u32) {
        for target in &mut self.targets {
            target.members.remove(&tgid);
        }
    }

    /// Adds processes to a [`Selector::Tree`].
    pub(super) fn join(&mut self, target: usize, tgids: impl IntoIterator<Item = u32>) {
        if let Some(target) = self.targets.get_mut(target)
            && matches!(target.spec.selector, Selector::Tree(_))
        {
            target.members.extend(tgids);
        }
    }

    /// Does the same to all figures that a thread counts for.
    #[inline]
    pub(super) fn book(&mut self, thread: &mut Thread, mut entry: impl FnMut(&mut Figures)) {
        self.book_from(thread, |figures, _| entry(figures));
    }

    /// Does the same to all figures that a thread counts for, and says from when on it does so.
    #[inline]
    pub(super) fn book_from(
        &mut self,
        thread: &mut Thread,
        mut entry: impl FnMut(&mut Figures, u64),
    ) {
        entry(self.units.figures(thread.unit), thread.met_ns);
        if let Some(target) = thread
            .target
            .and_then(|t| self.targets.get_mut(usize::from(t)))
        {
            entry(&mut target.account.figures, thread.observed_from_ns);
            if let Some(account) = &mut thread.account {
                entry(&mut account.figures, thread.observed_from_ns);
            }
        }
    }

    /// Does the same to all details that a thread counts for, if it belongs to a target.
    #[inline]
    pub(super) fn detail(&mut self, thread: &mut Thread, mut entry: impl FnMut(&mut Detail)) {
        if let Some(target) = thread
            .target
            .and_then(|t| self.targets.get_mut(usize::from(t)))
        {
            entry(&mut target.account.detail);
            if let Some(account) = &mut thread.account {
                entry(&mut account.detail);
            }
        }
    }

    /// Books time of a thread; what lies before it came to its target is the host's only.
    #[inline]
    pub(super) fn add_time(&mut self, thread: &mut Thread, time_ns: Range<u64>, spent: Spent) {
        self.book_from(thread, |figures, from_ns| {
            let start_ns = time_ns.start.max(from_ns);
            figures.add_time(spent, time_ns.end.saturating_sub(start_ns));
        });
    }

    /// Books a part of a time that lies wholly before or wholly after the thread came to its target.
    #[inline]
    pub(super) fn add_part(
        &mut self,
        thread: &mut Thread,
        time_ns: &Range<u64>,
        spent: Spent,
        duration_ns: u64,
    ) {
        self.book_from(thread, |figures, from_ns| {
            if time_ns.start >= from_ns {
                figures.add_time(spent, duration_ns);
            }
        });
    }

    /// Books a time of waiting.
    #[inline]
    pub(super) fn add_wait(&mut self, thread: &mut Thread, time_ns: Range<u64>, wait: Wait) {
        let start_ns = time_ns.start.max(thread.observed_from_ns);
        let duration_ns = time_ns.end.saturating_sub(start_ns);
        if duration_ns > 0 {
            self.detail(thread, |detail| detail.add_wait(wait, duration_ns));
        }
        self.add_time(thread, time_ns, Spent::Blocked(wait.reason));
    }

    /// Watches these targets from now on. One that was watched before keeps its figures. Returns for
    /// each old target the number that it has now, if it is still there.
    pub(super) fn retarget(&mut self, specs: Vec<TargetSpec>) -> Vec<Option<u16>> {
        let mut old: Vec<Option<Target>> = self.targets.drain(..).map(Some).collect();
        let mut moved = vec![None; old.len()];
        for spec in specs {
            let place = old
                .iter()
                .position(|target| target.as_ref().is_some_and(|target| target.spec == spec));
            let kept = place.and_then(|place| {
                moved[place] = u16::try_from(self.targets.len()).ok();
                old[place].take()
            });
            self.targets.push(kept.unwrap_or_else(|| Target::new(spec)));
        }
        moved
    }

    /// Puts a thread into the first target that takes it, if it is in none.
    pub(super) fn enroll(&self, thread: &mut Thread) -> bool {
        if thread.target.is_some() {
            return false;
        }
        let taker = self
            .targets
            .iter()
            .position(|target| target.takes(thread.tid, thread.tgid, &thread.comm));
        let Some(number) = taker else { return false };
        thread.target = u16::try_from(number).ok();
        if self.targets[number].spec.per_thread {
            thread.account = Some(Box::default());
        }
        thread.target.is_some()
    }
}
