//! Single waits, as a report has them: the longest of all, and those that have not ended.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ReportFacts;
use super::blame::{Blame, Culprit, Waker, waker_row};
use super::figures::RunnableRow;
use crate::core::worst::Longest;
use crate::core::{
    self, Cause, Link, LongWait, OpenWaits, Reason, Share, Snapshot, TargetSnapshot,
    ThreadSnapshot, Waited, Waiting, WakerKind,
};

/// The longest waits of a target, the longest first: those that have ended, or those that go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Worst {
    /// Stays on a run queue.
    pub runqueue: Vec<WorstRow>,
    /// Waits that kept a thread from its work.
    pub blocked: Vec<WorstRow>,
    /// Waits of threads that had nothing to do.
    pub idle: Vec<WorstRow>,
}

/// One wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorstRow {
    /// The thread that waited.
    pub tid: u32,
    /// Its process; 0 when its birth was lost.
    pub tgid: u32,
    /// Its name.
    pub comm: String,
    /// Wall time at which it began, or the window did if that was later, in nanoseconds since 1970 (UTC).
    pub start_unix_ns: u64,
    /// Whether it began before the window, so that it was longer than is said here.
    pub cut: bool,
    /// How long it was within the window.
    pub duration_ns: u64,
    /// Whether it had not ended when the window did.
    pub open: bool,
    /// What it was for, as in `blocked_ns`; of a stay on a run queue there is [`WorstRow::origin`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What that was concluded from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
    /// How a stay on a run queue began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'static str>,
    /// A stay on a run queue by cause; sums to its duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causes: Option<RunnableRow>,
    /// What ended it, or ended the wait before it if it was a stay on a run queue; `null` when nobody
    /// saw that.
    pub waker: Option<Ender>,
    /// Who had the CPU meanwhile, those that had it longest.
    pub culprits: Vec<Culprit>,
    /// What the waker did meanwhile, then what its own waker did, and so on.
    pub chain: Vec<LinkRow>,
    /// The kernel functions that it waited in, the innermost first; empty if that was not taken.
    pub kernel_stack: Vec<String>,
    /// Where in its program it waited, the innermost first; empty if that was not asked for.
    pub user_stack: Vec<String>,
}

/// What ended a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ender {
    /// As in [`Waker::kind`].
    pub kind: &'static str,
    /// The thread, for `thread`; else 0.
    pub tid: u32,
    /// Its name, if it is known.
    pub comm: String,
    /// The interrupt's number, for `irq`, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub irq: Option<u32>,
}

/// What a waker did while it was waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkRow {
    /// The waker.
    pub tid: u32,
    /// Its process; 0 when that is not known.
    pub tgid: u32,
    /// Its name.
    pub comm: String,
    /// Wall time at which the time begins that this is about.
    pub start_unix_ns: u64,
    /// Length of that time: the sum of the four parts.
    pub duration_ns: u64,
    /// It ran.
    pub running_ns: u64,
    /// It was queued for a CPU.
    pub runnable_ns: u64,
    /// It waited for something else.
    pub blocked_ns: u64,
    /// Not known.
    pub unknown_ns: u64,
    /// What the longest of its own waits was for, if that was longer than any stay on a run queue.
    pub reason: Option<String>,
    /// What ended that wait; the next link, if there is one, is about it.
    pub waker: Option<Ender>,
    /// Who had the CPU during the longest of its stays on a run queue, if that was longer than any wait.
    pub culprits: Vec<Culprit>,
}

/// What a thread was in the midst of when the window ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Open {
    /// `runnable`, `blocked` or `unknown`.
    pub state: &'static str,
    /// For `blocked`: what for, as in `blocked_ns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `runnable`: the cause of most of it, as in `runnable_ns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// For how long, as far as it lies within the window.
    pub elapsed_ns: u64,
}

/// Threads in the midst of waits of one kind when the window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WaitingRow {
    /// How many.
    pub threads: u64,
    /// For how long the one waits that waits longest, as far as it lies within the window.
    pub oldest_ns: u64,
}

/// The wait that has gone on longest when the window ended, idle ones left aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Oldest {
    /// The thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// What it is in the midst of.
    #[serde(flatten)]
    pub open: Open,
}

/// Turns single waits into rows.
pub(super) struct Waits<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) facts: &'a ReportFacts<'a>,
}

impl Waits<'_> {
    fn blame(&self) -> Blame<'_> {
        Blame {
            unit_of: self.facts.unit_of,
            name_of: self.facts.name_of,
        }
    }

    pub(super) fn worst(&self, worst: &core::Worst) -> Worst {
        let rows = |list: &Longest| list.iter().map(|wait| self.row(wait)).collect();
        Worst {
            runqueue: rows(&worst.queued),
            blocked: rows(&worst.blocked),
            idle: rows(&worst.idle),
        }
    }

    fn unix_ns(&self, at_ns: u64) -> u64 {
        let start_ns = self.snapshot.start_ns;
        let unix_ns = self.facts.start_unix_ns;
        unix_ns
            .saturating_add(at_ns.saturating_sub(start_ns))
            .saturating_sub(start_ns.saturating_sub(at_ns))
    }

    fn row(&self, wait: &LongWait) -> WorstRow {
        let (reason, explain, origin, causes) = match &wait.waited {
            Waited::Cpu(origin, causes) => {
                let causes = RunnableRow::new(|cause| causes[cause as usize]);
                (None, None, Some(origin.name()), Some(causes))
            }
            Waited::Other(wait) => (Some(wait.name()), Some(wait.explain()), None, None),
        };
        WorstRow {
            tid: wait.who.tid,
            tgid: wait.who.tgid,
            comm: wait.who.comm.display(),
            start_unix_ns: self.unix_ns(wait.from_ns),
            cut: wait.from_ns <= self.snapshot.start_ns,
            duration_ns: wait.duration_ns(),
            open: wait.is_open,
            reason,
            explain,
            origin,
            causes,
            waker: ender(wait.waker, wait.waker_thread),
            culprits: self.culprits(&wait.culprits),
            chain: self.chain(&wait.chain),
            kernel_stack: wait
                .stack
                .as_ref()
                .map(|stack| stack.frames().to_vec())
                .unwrap_or_default(),
            user_stack: wait
                .user_stack
                .map(|id| (self.facts.user_stack_of)(wait.who.tgid, id))
                .unwrap_or_default(),
        }
    }

    fn culprits(&self, culprits: &[(core::Who, u64)]) -> Vec<Culprit> {
        let blame = self.blame();
        let rows = culprits.iter().map(|(who, ns)| blame.culprit(who, *ns));
        rows.collect()
    }

    fn chain(&self, chain: &[Link]) -> Vec<LinkRow> {
        let rows = chain.iter().enumerate().map(|(place, link)| LinkRow {
            tid: link.who.tid,
            tgid: link.who.tgid,
            comm: link.who.comm.display(),
            start_unix_ns: self.unix_ns(link.from_ns),
            duration_ns: link.until_ns.saturating_sub(link.from_ns),
            running_ns: link.running_ns,
            runnable_ns: link.runnable_ns,
            blocked_ns: link.blocked_ns,
            unknown_ns: link.unknown_ns,
            reason: link.longest.map(|wait| wait.name()),
            waker: link.longest.and_then(|_| {
                let next = chain.get(place + 1).map(|next| next.who);
                ender(link.waker, next.filter(|who| who.tid == link.waker.number))
            }),
            culprits: self.culprits(&link.culprits),
        });
        rows.collect()
    }
}

fn ender(waker: core::Waker, who: Option<core::Who>) -> Option<Ender> {
    let Waker {
        kind,
        tid,
        comm,
        irq,
        ..
    } = waker_row(waker, who);
    (waker.kind != WakerKind::Unknown).then_some(Ender {
        kind,
        tid,
        comm,
        irq,
    })
}

pub(super) fn open(thread: &ThreadSnapshot) -> Option<Open> {
    let (share, elapsed_ns) = thread.now.filter(|&(share, _)| share != Share::Running)?;
    let wait = thread.open.as_ref().map(open_wait);
    let of_wait = wait.filter(|open| open.state == share.name());
    Some(of_wait.unwrap_or(Open {
        state: share.name(),
        reason: None,
        cause: None,
        elapsed_ns,
    }))
}

fn open_wait(wait: &LongWait) -> Open {
    let (state, reason, cause) = match &wait.waited {
        Waited::Cpu(_, causes) => {
            let most = Cause::ALL
                .into_iter()
                .max_by_key(|&cause| causes[cause as usize]);
            (Share::Runnable, None, most.map(Cause::name))
        }
        Waited::Other(wait) => (Share::Blocked, Some(wait.name()), None),
    };
    Open {
        state: state.name(),
        reason,
        cause,
        elapsed_ns: wait.duration_ns(),
    }
}

/// Threads in the midst of waits, by `runnable` or the reason's name; states of nobody are left out.
pub(super) fn waiting(waiting: &Waiting) -> BTreeMap<&'static str, WaitingRow> {
    states(waiting)
        .filter(|(_, of)| of.threads > 0)
        .map(|(name, of)| {
            let row = WaitingRow {
                threads: of.threads,
                oldest_ns: of.oldest_ns,
            };
            (name, row)
        })
        .collect()
}

/// All kinds of waits, with who is in the midst of one.
pub(crate) fn states(waiting: &Waiting) -> impl Iterator<Item = (&'static str, OpenWaits)> + '_ {
    let blocked = Reason::all().map(|reason| (reason.name(), waiting.blocked(reason)));
    std::iter::once((Share::Runnable.name(), waiting.runnable)).chain(blocked)
}

/// The oldest wait that keeps a thread from its work.
pub(super) fn oldest(target: &TargetSnapshot) -> Option<Oldest> {
    let is_work = |wait: &LongWait| match &wait.waited {
        Waited::Cpu(..) => true,
        Waited::Other(wait) => !wait.reason.is_idle(),
    };
    let open = target
        .threads
        .iter()
        .filter_map(|thread| thread.open.as_ref());
    let oldest = open
        .filter(|&wait| is_work(wait))
        .max_by_key(|wait| (wait.duration_ns(), std::cmp::Reverse(wait.who.tid)))?;
    Some(Oldest {
        tid: oldest.who.tid,
        comm: oldest.who.comm.display(),
        open: open_wait(oldest),
    })
}
