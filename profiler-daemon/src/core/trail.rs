//! The stretches of time of targets' threads, one by one, for whoever draws or lists them. Off unless
//! somebody asks for it; what is in the trail of a thread sums to the thread's figures.

use std::ops::Range;

use super::classify::Wait;
use super::reconstruct::Reconstruction;
use super::spans::{Spans, What};
use super::spent::Cause;
use super::thread::{Comm, Thread};
use super::who::Waker;

/// What a thread did for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It was on a CPU.
    Running,
    /// It was on a run queue, for these causes, in the order of [`Cause::ALL`]; in nanoseconds.
    Queued([u64; Cause::COUNT]),
    /// It waited for something else.
    Blocked(Wait),
    /// Nobody knows.
    Unknown,
}

/// A while of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The thread's number in this run.
    pub serial: u64,
    /// Its id, its process and its name then.
    pub tid: u32,
    /// Its process; 0 when its birth was lost.
    pub tgid: u32,
    /// Its name.
    pub comm: Comm,
    /// The CPU that it was on, if it was on one.
    pub cpu: Option<usize>,
    /// When it began, by the records' clock.
    pub from_ns: u64,
    /// When it ended.
    pub until_ns: u64,
    /// What it did.
    pub doing: Doing,
    /// When the thread left its CPU before: names its wait in [`super::Seen::left_ns`].
    pub left_ns: u64,
    /// What ended its last wait.
    pub waker: Waker,
}

impl Span {
    fn new(thread: &Thread, time_ns: &Range<u64>, doing: Doing) -> Self {
        Self {
            serial: thread.serial,
            tid: thread.tid,
            tgid: thread.tgid,
            comm: thread.comm,
            cpu: match doing {
                Doing::Running => thread.running_on(),
                _ => None,
            },
            from_ns: time_ns.start.max(thread.observed_from_ns),
            until_ns: time_ns.end,
            doing,
            left_ns: thread.departed_ns,
            waker: thread.waker,
        }
    }

    /// How long it was.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.until_ns.saturating_sub(self.from_ns)
    }
}

impl Spans {
    /// Notes what is booked, if somebody wants that.
    #[inline]
    pub(super) fn note(&mut self, thread: &Thread, time_ns: &Range<u64>, doing: Doing) {
        if let Some(trail) = &mut self.trail
            && thread.target.is_some()
            && time_ns.end > thread.observed_from_ns
        {
            trail.push(Span::new(thread, time_ns, doing));
        }
    }
}

impl Reconstruction {
    /// Keeps a trail from now on.
    pub(super) fn keep_trail(&mut self) {
        self.spans.trail.get_or_insert_default();
    }

    /// What was noted since this was last asked.
    pub(super) fn take_trail(&mut self) -> Vec<Span> {
        self.spans
            .trail
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// What threads have been doing since what was noted last.
    pub(super) fn open_trail(&self, at_ns: u64) -> Vec<Span> {
        let mut open = Vec::new();
        for thread in self.threads.iter().filter(|its| its.target.is_some()) {
            let mut from_ns = thread.since_ns.max(thread.observed_from_ns);
            for (what, until_ns) in self.spans.parts(thread, at_ns) {
                if until_ns <= from_ns {
                    continue;
                }
                let time_ns = from_ns..until_ns;
                let doing = match what {
                    What::Running => Doing::Running,
                    What::Unknown => Doing::Unknown,
                    What::Blocked(wait) => Doing::Blocked(wait),
                    What::Queued => {
                        let queues = &self.spans.queues;
                        Doing::Queued(queues.divide(thread, time_ns.clone(), 0, |_, _| {}))
                    }
                };
                open.push(Span::new(thread, &time_ns, doing));
                from_ns = until_ns;
            }
        }
        open
    }
}
