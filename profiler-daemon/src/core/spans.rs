//! Spans: booking a thread's time, telling what is sure of an open span, and taking samples when a
//! thread gets a CPU again.
//!
//! All time of a thread between two records goes through [`Spans::settle`], so no nanosecond is
//! booked twice or left out.

use std::ops::Range;

use super::classify::Wait;
use super::conflict::{Conflict, Conflicts};
use super::gaps::{Concern, Gaps};
use super::queue::RunQueues;
use super::ranking::Weight;
use super::spent::{Cause, Origin, Share, Spent};
use super::target::Ledger;
use super::thread::{NEVER, State, Thread};
use super::timeline::Runner;
use super::trail::{Doing, Notes};
use super::units::UnitNumber;

/// The kernel's delay and ours may differ by this much, or by one part in a hundred: the time in
/// which a queued thread is on its way from one run queue to another is in ours only, and the clocks
/// of two run queues are not read at the same moment.
pub(super) const DELAY_TOLERANCE_NS: u64 = 20_000;

/// Of a stay on a run queue that concerns no target, this many stints are looked at for who had the CPU;
/// the rest of it counts for nobody.
pub(super) const HOST_STEPS: usize = 16;

/// What a stretch of time is to be booked as. A stay on a run queue is divided when it is booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Running,
    Queued,
    Blocked(Wait),
    Unknown,
    /// Unknown because records of the thread were left out.
    Shed,
}

impl What {
    pub(super) fn share(self) -> Share {
        match self {
            Self::Running => Share::Running,
            Self::Queued => Share::Runnable,
            Self::Blocked(_) => Share::Blocked,
            Self::Unknown | Self::Shed => Share::Unknown,
        }
    }
}

/// Somebody had the CPU while somebody else was queued for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) runner: Runner,
    pub(super) duration_ns: u64,
    pub(super) victim_tid: u32,
    pub(super) victim_unit: UnitNumber,
    /// The target of the victim, if that counts for it.
    pub(super) target: Option<u16>,
}

/// What books time: apart from the threads, so that both can be borrowed at once.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) ledger: Ledger,
    pub(super) gaps: Gaps,
    pub(super) queues: RunQueues,
    /// Still to be charged to those who had the CPU.
    pub(super) held: Vec<Held>,
    pub(super) conflicts: Conflicts,
    /// What is booked for targets, one by one, if somebody wants that.
    pub(super) notes: Option<Notes>,
    /// Everything up to here may have been shown to somebody: no record can change it any more.
    pub(super) shown_ns: u64,
    /// The kernel stamps what it enqueues (some record said so). Then nobody needs wakeup records,
    /// and that there is none does not mean that a thread was not woken.
    pub(super) stamped: bool,
    /// Whether the kernel counts runs, if a record has told yet.
    pub(super) counts: Option<bool>,
    /// The kernel does not count runs without a stamp (some record said so).
    skips_unqueued: bool,
    /// Nothing takes the straight way.
    pub(super) is_careful: bool,
}

/// What a record says of a thread that gets a CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) now_ns: u64,
    /// How often the kernel had given it a CPU before, in 16 bits.
    pub(super) runs: Option<u16>,
    /// All run-queue delay that the kernel has counted for it.
    pub(super) delay_ns: Option<u64>,
    /// The kernel has no stamp of when it was queued this time.
    pub(super) unqueued: bool,
}

/// When a stay off the CPU began that has just ended, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stay {
    /// When the thread left the CPU before.
    pub(super) left_ns: Option<u64>,
    /// When it was put on the run queue.
    pub(super) queued_ns: Option<u64>,
    /// It had never been on a CPU before.
    pub(super) is_first: bool,
}

/// Whether a thread was off the CPU all the time from where the records say that it left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wholeness {
    /// It was; the kernel's count says so, or nothing was lost and the kernel does not count.
    Proven,
    /// Nothing says otherwise, but the kernel's count leaves it open. It is booked, but no sample is
    /// made of it.
    Unproven,
    /// Records were lost meanwhile.
    Doubted,
    /// It was not: the kernel's count says so.
    Refuted,
}

impl Spans {
    /// Books a thread's time up to `until_ns`. Nothing else books time.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "each caller knows what it books, and little is left of it there"
    )]
    pub(super) fn settle(&mut self, thread: &mut Thread, until_ns: u64, what: What) {
        if until_ns <= thread.since_ns {
            return;
        }
        if what == What::Unknown
            && let Some(shed_ns) = self.shed_from(thread, until_ns)
        {
            return self.settle_shed(thread, shed_ns, until_ns);
        }
        let time_ns = thread.since_ns..until_ns;
        thread.since_ns = until_ns;
        match what {
            What::Running => {
                thread.ran_ns += time_ns.end - time_ns.start;
                self.note(thread, &time_ns, Doing::Running);
                self.ledger.add_time(thread, time_ns, Spent::Running);
            }
            What::Unknown => {
                // A time that does not fit is cut short: it is longer than an hour.
                let time_us = (time_ns.end - time_ns.start).div_ceil(1000);
                let time_us = u32::try_from(time_us).unwrap_or(u32::MAX);
                thread.unknown_us = thread.unknown_us.wrapping_add(time_us);
                self.note(thread, &time_ns, Doing::Unknown);
                self.ledger.add_time(thread, time_ns, Spent::Unknown);
            }
            What::Shed => {
                self.note(thread, &time_ns, Doing::Shed);
                self.ledger.add_time(thread, time_ns, Spent::Shed);
            }
            What::Blocked(wait) => {
                self.note(thread, &time_ns, Doing::Blocked(wait));
                self.ledger.add_wait(thread, time_ns, wait);
            }
            What::Queued => {
                thread.queued_ns += time_ns.end - time_ns.start;
                let joined_ns = thread.observed_from_ns;
                if time_ns.start < joined_ns && joined_ns < time_ns.end {
                    self.settle_queued(thread, time_ns.start..joined_ns);
                    self.settle_queued(thread, joined_ns..time_ns.end);
                } else {
                    self.settle_queued(thread, time_ns);
                }
            }
        }
    }

    /// Books an unknown time of which it is known from when on records were left out.
    #[cold]
    #[inline(never)]
    fn settle_shed(&mut self, thread: &mut Thread, shed_ns: u64, until_ns: u64) {
        if shed_ns > thread.since_ns {
            let time_ns = thread.since_ns..shed_ns;
            thread.since_ns = shed_ns;
            self.note(thread, &time_ns, Doing::Unknown);
            self.ledger.add_time(thread, time_ns, Spent::Unknown);
        }
        self.settle(thread, until_ns, What::Shed);
    }

    /// From when on records of a thread were left out since its state was last proven, if they were.
    #[inline]
    pub(super) fn shed_from(&self, thread: &Thread, until_ns: u64) -> Option<u64> {
        self.gaps.shed_from(thread.tid, thread.proven_ns..=until_ns)
    }

    /// Books a time on a run queue by cause, and notes who had the CPU.
    fn settle_queued(&mut self, thread: &mut Thread, time_ns: Range<u64>) {
        let origin = thread.origin();
        let target = thread
            .target
            .filter(|_| time_ns.start >= thread.observed_from_ns);
        let steps = if target.is_some() {
            usize::MAX
        } else {
            HOST_STEPS
        };
        let held_before = self.held.len();
        let (held, victim_tid, victim_unit) = (&mut self.held, thread.tid, thread.unit);
        let mut named_ns = 0;
        let note = |runner, duration_ns| {
            named_ns += duration_ns;
            held.push(Held {
                runner,
                duration_ns,
                victim_tid,
                victim_unit,
                target,
            });
        };
        let causes = self.queues.divide(thread, time_ns.clone(), steps, note);
        self.note_queued(thread, &time_ns, Doing::Queued(causes), held_before);
        for (cause, duration_ns) in Cause::ALL.into_iter().zip(causes) {
            if duration_ns > 0 {
                let spent = Spent::Queued(origin, cause);
                self.ledger.add_part(thread, &time_ns, spent, duration_ns);
            }
        }
        let nameless_ns = causes[Cause::Contended as usize].saturating_sub(named_ns);
        if nameless_ns > 0 && target.is_some() {
            self.ledger.detail(thread, |detail| {
                detail.culprits.add_other(Weight::once(nameless_ns));
            });
        }
    }

    /// Books the open span up to `until_ns` as what it was, and as unknown from where it is in doubt.
    #[inline]
    pub(super) fn settle_open(&mut self, thread: &mut Thread, until_ns: u64) {
        // The same as by `parts`, which is too slow for every switch.
        let sure_ns = self.doubt(thread, until_ns).unwrap_or(until_ns);
        match thread.state {
            State::Running => self.settle(thread, sure_ns, What::Running),
            State::Queued(_) => self.settle(thread, sure_ns, What::Queued),
            State::Waiting(wait) => {
                self.settle(thread, thread.woken_ns.min(sure_ns), What::Blocked(wait));
                self.settle(thread, sure_ns, What::Queued);
            }
            State::Unknown => {}
        }
        self.settle(thread, until_ns, What::Unknown);
    }

    /// The open span cut in its parts, in order, each with its end. They cover it whole.
    #[inline]
    pub(super) fn parts(&self, thread: &Thread, until_ns: u64) -> [(What, u64); 4] {
        let sure_ns = self.doubt(thread, until_ns).unwrap_or(until_ns);
        let (what, turn_ns) = match thread.state {
            State::Running => (What::Running, sure_ns),
            State::Queued(_) => (What::Queued, sure_ns),
            // An unknown woken time is later than any other.
            State::Waiting(wait) => (What::Blocked(wait), thread.woken_ns.min(sure_ns)),
            State::Unknown => (What::Unknown, sure_ns),
        };
        let shed_ns = self.shed_from(thread, until_ns).unwrap_or(until_ns);
        [
            (what, turn_ns),
            (What::Queued, sure_ns),
            (What::Unknown, shed_ns.max(sure_ns)),
            (What::Shed, until_ns),
        ]
    }

    /// From when on the open span of a thread is in doubt, if it is by `now_ns`.
    #[inline]
    pub(super) fn doubt(&self, thread: &Thread, now_ns: u64) -> Option<u64> {
        self.gaps.doubt(&Concern {
            tid: thread.tid,
            time_ns: thread.proven_ns..=now_ns,
            running_on: thread.running_on(),
        })
    }

    /// The same as far as records were lost.
    pub(super) fn loss(&self, thread: &Thread, now_ns: u64) -> Option<u64> {
        self.gaps.loss(&Concern {
            tid: thread.tid,
            time_ns: thread.proven_ns..=now_ns,
            running_on: thread.running_on(),
        })
    }

    /// When a record of a thread counts, and whether that is its own time: one that is older than
    /// what is booked or has been shown can't count as of then.
    #[inline]
    pub(super) fn in_order(&mut self, thread: &Thread, ts_ns: u64) -> (u64, bool) {
        let now_ns = self.not_before(thread, ts_ns);
        if now_ns != ts_ns {
            self.conflicts.count(Conflict::Inverted);
        }
        (now_ns, now_ns == ts_ns)
    }

    /// The first time from this on at which something can still be booked for a thread.
    #[inline]
    pub(super) fn not_before(&self, thread: &Thread, ts_ns: u64) -> u64 {
        let woken_ns = if thread.is_woken() {
            thread.woken_ns
        } else {
            0
        };
        ts_ns
            .max(thread.since_ns)
            .max(thread.observed_from_ns)
            .max(woken_ns)
            .max(self.shown_ns)
    }

    /// The open span is contradicted: what is not sure of it is unknown.
    #[cold]
    pub(super) fn contradict(
        &mut self,
        thread: &mut Thread,
        now_ns: u64,
        delay_ns: Option<u64>,
        conflict: Conflict,
    ) {
        // What was left out on purpose is no contradiction.
        if self.shed_from(thread, now_ns).is_none() {
            self.conflicts.count(conflict);
        }
        // Without a known loss, nothing of the span can be trusted.
        let sure_ns = self.doubt(thread, now_ns).unwrap_or(thread.since_ns);
        self.lose(thread, sure_ns, now_ns, delay_ns);
    }

    /// Books the open span as what it was up to `sure_ns`, or to where it is in doubt, and as unknown
    /// from there. What the thread does from `now_ns` on is unknown.
    ///
    /// `delay_ns` is what the kernel has counted by now as the thread's run-queue delay, all waits
    /// included that ended before now.
    #[cold]
    pub(super) fn lose(
        &mut self,
        thread: &mut Thread,
        sure_ns: u64,
        now_ns: u64,
        delay_ns: Option<u64>,
    ) {
        let mut sure_ns = self
            .doubt(thread, now_ns)
            .unwrap_or(sure_ns)
            .min(sure_ns)
            .min(now_ns);
        if let (State::Waiting(_), true) = (thread.state, self.stamped)
            && thread.woken_ns > sure_ns
        {
            // It may have been woken before, without a record; but it can't have queued for longer
            // than the kernel says it did in all this time.
            let queued_ns = match delay_ns {
                Some(now) if thread.delay_ns != NEVER => now.checked_sub(thread.delay_ns),
                _ => None,
            };
            sure_ns = sure_ns.saturating_sub(queued_ns.unwrap_or(u64::MAX));
        }
        if sure_ns > thread.since_ns {
            self.settle_open(thread, sure_ns);
        }
        if let Some(shed_ns) = self.shed_from(thread, now_ns)
            && self.doubt(thread, now_ns) == Some(shed_ns)
            && thread.state != State::Unknown
        {
            // What makes the time before that unknown is the same.
            self.settle(thread, shed_ns, What::Shed);
        }
        self.settle(thread, now_ns, What::Unknown);
        thread.state = State::Unknown;
        thread.forget_stay();
    }

    /// Whether a stay off the CPU that ends now began or ends while records of its thread are left out. Whether
    /// such a one is recorded depends on what the CPU did besides, so the ones that are would make a
    /// distribution of their own. Others are as good as any, if it is proven that the thread did not run
    /// meanwhile, and the kernel says when it was woken: that record may be missing.
    #[cold]
    fn touches_shedding(&self, thread: &Thread, arrival: &Arrival) -> bool {
        let shed_ns = self.shed_from(thread, arrival.now_ns);
        self.gaps.hides(thread.tid)
            || shed_ns
                .is_some_and(|shed_ns| shed_ns <= thread.proven_ns || arrival.delay_ns.is_none())
    }

    fn wholeness(&mut self, thread: &Thread, arrival: &Arrival) -> Wholeness {
        let is_doubted = self.doubt(thread, arrival.now_ns).is_some();
        if is_doubted && self.touches_shedding(thread, arrival) {
            return Wholeness::Doubted;
        }
        let (Some(before), Some(now)) = (thread.runs, arrival.runs) else {
            return match arrival.runs {
                _ if is_doubted => Wholeness::Doubted,
                Some(_) => Wholeness::Unproven,
                None => Wholeness::Proven,
            };
        };
        // Some kernels count a run without a stamp, some don't, and which it is must first be seen.
        let skipped = match (thread.unqueued, now.wrapping_sub(before)) {
            (false, 1) => false,
            (true, 0) => true,
            (true, 1) if !self.skips_unqueued => false,
            _ => return Wholeness::Refuted,
        };
        self.skips_unqueued |= skipped;
        // A run that is not counted could hide in a loss.
        if is_doubted && (thread.unqueued || thread.is_unstamped) {
            return Wholeness::Doubted;
        }
        // And one that gets a stamp after all was moved to another CPU, or ran.
        let got_stamp = thread.is_unstamped && !arrival.unqueued;
        if got_stamp || (thread.unqueued && !skipped) {
            return Wholeness::Unproven;
        }
        Wholeness::Proven
    }

    /// A thread leaves a CPU: books what it did, and says as of when it left, and whether in order.
    pub(super) fn leave(&mut self, thread: &mut Thread, cpu: usize, ts_ns: u64) -> (u64, bool) {
        let (now_ns, in_order) = self.in_order(thread, ts_ns);
        let is_doubted = self.doubt(thread, now_ns).is_some();
        let mut is_sure = false;
        match thread.state {
            _ if !in_order => self.lose(thread, ts_ns, now_ns, None),
            State::Running if thread.running_on() == Some(cpu) => {
                is_sure = !is_doubted;
                self.settle_open(thread, now_ns);
            }
            State::Running => {
                self.contradict(thread, now_ns, None, Conflict::RanElsewhere);
            }
            State::Queued(_) | State::Waiting(_) => {
                self.contradict(thread, now_ns, None, Conflict::MissedSwitchIn);
            }
            State::Unknown => self.settle_open(thread, now_ns),
        }
        if !is_sure {
            thread.forget_counts();
        }
        (now_ns, in_order)
    }

    /// A thread gets a CPU, as of when it can count: books what it did since it left the last one, and takes the
    /// samples of that.
    pub(super) fn arrive(
        &mut self,
        thread: &mut Thread,
        arrival: &mut Arrival,
        has_moved: bool,
    ) -> Stay {
        let ts_ns = arrival.now_ns;
        let (now_ns, in_order) = self.in_order(thread, ts_ns);
        arrival.now_ns = now_ns;
        let stay = if in_order {
            self.end_offcpu(thread, arrival)
        } else {
            self.lose(thread, ts_ns, now_ns, arrival.delay_ns);
            Stay::default()
        };
        self.sample(thread, now_ns, &stay);
        if has_moved {
            self.ledger.book(thread, |figures| figures.migrations += 1);
        }
        stay
    }

    /// A thread gets a CPU: books the time since it left the last one, and says which samples can be
    /// taken of it.
    fn end_offcpu(&mut self, thread: &mut Thread, arrival: &Arrival) -> Stay {
        let now_ns = arrival.now_ns;
        let wholeness = self.wholeness(thread, arrival);
        match (thread.state, wholeness) {
            (State::Unknown, _) => {
                self.settle(thread, now_ns, What::Unknown);
                return Stay::default();
            }
            (State::Running, _) => {
                self.contradict(thread, now_ns, arrival.delay_ns, Conflict::MissedSwitchOut);
                return Stay::default();
            }
            (_, Wholeness::Refuted) => {
                self.contradict(thread, now_ns, arrival.delay_ns, Conflict::MissedRun);
                return Stay::default();
            }
            (_, Wholeness::Doubted) => {
                self.lose(thread, now_ns, now_ns, arrival.delay_ns);
                return Stay::default();
            }
            (_, Wholeness::Proven) => thread.proven_ns = now_ns,
            (_, Wholeness::Unproven) => {}
        }
        // What the kernel says this stay's run-queue delay was, all of it.
        let kernel_ns = match arrival.delay_ns {
            Some(now) if thread.delay_ns != NEVER && !arrival.unqueued => {
                now.checked_sub(thread.delay_ns)
            }
            _ => None,
        };
        let mut stay = Stay {
            left_ns: (thread.left_ns != NEVER).then_some(thread.left_ns),
            queued_ns: (thread.woken_ns != NEVER).then_some(thread.woken_ns),
            is_first: thread.state == State::Queued(Origin::Forked),
        };
        if let State::Waiting(wait) = thread.state {
            self.end_wait(thread, wait, now_ns, kernel_ns, &mut stay);
        } else {
            if let (Some(queued_ns), Some(kernel_ns)) = (stay.queued_ns, kernel_ns)
                && wholeness == Wholeness::Proven
                && disagree(now_ns - queued_ns, kernel_ns)
            {
                self.conflicts.count(Conflict::DelayDisagrees);
            }
            self.settle_open(thread, now_ns);
        }
        if wholeness == Wholeness::Unproven {
            return Stay::default();
        }
        stay
    }

    /// Books a wait and the queueing after it. Who says when the thread was woken: a record, the
    /// kernel's delay, or both.
    fn end_wait(
        &mut self,
        thread: &mut Thread,
        wait: Wait,
        now_ns: u64,
        kernel_ns: Option<u64>,
        stay: &mut Stay,
    ) {
        let enqueued_ns = kernel_ns.map(|kernel_ns| now_ns.saturating_sub(kernel_ns));
        match (stay.queued_ns, enqueued_ns) {
            (Some(woken_ns), Some(enqueued_ns))
                if disagree(now_ns - woken_ns, now_ns - enqueued_ns) =>
            {
                self.conflicts.count(Conflict::DelayDisagrees);
                stay.queued_ns = None;
                self.settle(thread, woken_ns.min(enqueued_ns), What::Blocked(wait));
                self.settle(thread, woken_ns.max(enqueued_ns), What::Unknown);
                self.settle(thread, now_ns, What::Queued);
            }
            (Some(woken_ns), None) if thread.rewoken_ns < now_ns => {
                // Who is on a run queue is not woken, so one of the two did not end the wait. Unless it
                // gets the CPU at this very time: then it may have had it, and its clock not gone on.
                self.conflicts.count(Conflict::WokenTwice);
                stay.queued_ns = None;
                self.settle(thread, woken_ns, What::Blocked(wait));
                self.settle(thread, thread.rewoken_ns, What::Unknown);
                self.settle(thread, now_ns, What::Queued);
            }
            (Some(_), _) => self.settle_open(thread, now_ns),
            (None, Some(enqueued_ns)) => {
                if let Some(left_ns) = stay.left_ns
                    && enqueued_ns.saturating_add(DELAY_TOLERANCE_NS) < left_ns
                {
                    // It can't have queued for longer than it was off the CPU.
                    *stay = Stay::default();
                    return self.contradict(thread, now_ns, None, Conflict::DelayDisagrees);
                }
                thread.woken_ns = enqueued_ns.max(stay.left_ns.unwrap_or(0));
                stay.queued_ns = Some(thread.woken_ns);
                self.settle_open(thread, now_ns);
                if thread.woken_ns < thread.met_ns {
                    // It was woken before the window began: to the window it only ever queued.
                    return;
                }
            }
            // The record of its last switch-in, which tells the kernel's delay up to then, was left out.
            (None, None) if self.stamped && thread.delay_ns == NEVER && self.gaps.has_shed() => {
                self.settle(thread, now_ns, What::Shed);
            }
            (None, None) => {
                self.conflicts.count(Conflict::MissedWakeup);
                self.settle(thread, now_ns, What::Unknown);
            }
        }
        self.ledger.book(thread, |figures| figures.wakeups += 1);
    }

    /// Takes the samples of a stay off the CPU that ends now, or counts it as censored.
    ///
    /// A target has a sample only of what began after the thread came to it.
    #[inline]
    fn sample(&mut self, thread: &mut Thread, now_ns: u64, stay: &Stay) {
        self.ledger.book_from(thread, |figures, from_ns| {
            let seen = |began_ns: &u64| *began_ns >= from_ns;
            if let Some(queued_ns) = stay.queued_ns.filter(seen) {
                figures
                    .runqueue_delay
                    .record(now_ns.saturating_sub(queued_ns));
            }
            match stay.left_ns.filter(seen) {
                Some(left_ns) => figures.offcpu.record(now_ns.saturating_sub(left_ns)),
                None => figures.censored += u64::from(!stay.is_first),
            }
        });
    }
}

/// Whether two figures for the same run-queue delay differ by more than clocks explain.
#[inline]
pub(super) fn disagree(ours_ns: u64, kernel_ns: u64) -> bool {
    ours_ns.abs_diff(kernel_ns) > DELAY_TOLERANCE_NS.max(ours_ns / 100)
}
