//! The stretches of time of targets' threads, one by one, for whoever draws or lists them. Off unless
//! somebody asks for it; what is in the trail of a thread sums to the thread's figures, and who had the
//! CPU while it was queued to its culprits.

use std::ops::Range;

use super::blame::{Culprits, MAX_KNOWN};
use super::classify::Wait;
use super::reconstruct::Reconstruction;
use super::spans::{Held, Spans, What};
use super::spent::Cause;
use super::thread::{Comm, Thread};
use super::timeline::Runner;
use super::who::{Waker, Who};

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
    /// Nobody knows, because records of the thread were left out on purpose.
    Shed,
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
    /// What ended it, if it was blocked and that was seen.
    pub waker: Waker,
    /// The thread that did, if it was one.
    pub waker_thread: Option<Who>,
}

/// Somebody had the CPU while the thread of a [`Span`] was queued for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Who.
    pub who: Who,
    /// For how long.
    pub ns: u64,
}

/// What threads did, in about the order of time.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    spans: Vec<Span>,
    /// Of all spans, in their order.
    culprits: Vec<Culprit>,
    /// Of each span, where its culprits end.
    ends: Vec<usize>,
}

impl Trail {
    /// Each span with who had the CPU meanwhile, each once, as far as they are known; there is nobody unless
    /// it was queued.
    pub fn iter(&self) -> impl Iterator<Item = (&Span, &[Culprit])> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let places = begins.zip(&self.ends);
        self.spans.iter().zip(places).map(|(span, (begin, &end))| {
            let culprits = self.culprits.get(begin..end).unwrap_or_default();
            (span, culprits)
        })
    }

    fn push(&mut self, span: Span, culprits: impl Iterator<Item = Culprit>) {
        self.spans.push(span);
        self.culprits.extend(culprits);
        self.ends.push(self.culprits.len());
    }
}

/// What was booked since somebody last asked.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Each with how many of [`Self::runners`] are its.
    spans: Vec<(Span, usize)>,
    runners: Vec<(Runner, u64)>,
}

impl Notes {
    pub(super) fn clear(&mut self) {
        self.spans.clear();
        self.runners.clear();
    }

    /// Says what ended the wait that was noted last of a thread.
    pub(super) fn woken(&mut self, serial: u64, until_ns: u64, waker: Waker) {
        let its = |(span, _): &&mut (Span, usize)| span.serial == serial;
        let mut last = self.spans.iter_mut().rev().take_while(its);
        let wait = last
            .find(|(span, _)| matches!(span.doing, Doing::Blocked(_)) && span.until_ns == until_ns);
        if let Some((span, _)) = wait {
            span.waker = waker;
        }
    }

    /// Adds who had the CPU during a span; returns how many that were.
    fn add(&mut self, held: &[Held]) -> usize {
        let begin = self.runners.len();
        for its in held {
            let known = &mut self.runners[begin..];
            let count = known.len();
            match known.iter_mut().find(|(runner, _)| *runner == its.runner) {
                Some((_, ns)) => *ns += its.duration_ns,
                None if count < MAX_KNOWN => self.runners.push((its.runner, its.duration_ns)),
                None => {}
            }
        }
        self.runners.len() - begin
    }
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
            waker: Waker::default(),
            waker_thread: None,
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
        self.note_queued(thread, time_ns, doing, self.held.len());
    }

    /// The same with those who had the CPU meanwhile: what was added to [`Self::held`] since it was this
    /// long.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "mostly nobody wants it, and then nothing is left of it"
    )]
    pub(super) fn note_queued(
        &mut self,
        thread: &Thread,
        time_ns: &Range<u64>,
        doing: Doing,
        held_before: usize,
    ) {
        if self.notes.is_some() && thread.target.is_some() && time_ns.end > thread.observed_from_ns
        {
            self.note_one(thread, time_ns, doing, held_before);
        }
    }

    #[cold]
    fn note_one(
        &mut self,
        thread: &Thread,
        time_ns: &Range<u64>,
        doing: Doing,
        held_before: usize,
    ) {
        if let Some(notes) = &mut self.notes {
            let runners = notes.add(self.held.get(held_before..).unwrap_or_default());
            notes
                .spans
                .push((Span::new(thread, time_ns, doing), runners));
        }
    }
}

impl Reconstruction {
    /// Keeps a trail from now on.
    pub(super) fn keep_trail(&mut self) {
        self.spans.notes.get_or_insert_default();
    }

    /// What was noted since this was last asked.
    pub(super) fn take_trail(&mut self) -> Trail {
        let Some(notes) = &mut self.spans.notes else {
            return Trail::default();
        };
        let Notes { spans, runners } = std::mem::take(notes);
        let mut trail = Trail::default();
        let mut runners = runners.into_iter();
        for (span, count) in spans {
            let span = Span {
                waker_thread: self.names().waker(span.waker),
                ..span
            };
            let culprits = runners.by_ref().take(count);
            trail.push(span, culprits.map(|its| self.culprit(its)));
        }
        trail
    }

    /// What threads have been doing since what was noted last.
    pub(super) fn open_trail(&self, at_ns: u64) -> Trail {
        let mut trail = Trail::default();
        for thread in self.threads.iter().filter(|its| its.target.is_some()) {
            let mut from_ns = thread.since_ns.max(thread.observed_from_ns);
            for (what, until_ns) in self.spans.parts(thread, at_ns) {
                if until_ns <= from_ns {
                    continue;
                }
                let time_ns = from_ns..until_ns;
                let mut culprits = Culprits::default();
                let doing = match what {
                    What::Running => Doing::Running,
                    What::Unknown => Doing::Unknown,
                    What::Shed => Doing::Shed,
                    What::Blocked(wait) => Doing::Blocked(wait),
                    What::Queued => {
                        let visit = |runner, duration_ns| culprits.add(runner, duration_ns);
                        let queues = &self.spans.queues;
                        Doing::Queued(queues.divide(thread, time_ns.clone(), usize::MAX, visit))
                    }
                };
                let culprits = culprits.into_iter().map(|its| self.culprit(its));
                trail.push(Span::new(thread, &time_ns, doing), culprits);
                from_ns = until_ns;
            }
        }
        trail
    }

    fn culprit(&self, (runner, ns): (Runner, u64)) -> Culprit {
        Culprit {
            who: self.names().runner(runner),
            ns,
        }
    }
}
