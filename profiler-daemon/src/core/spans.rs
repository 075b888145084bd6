//! Spans: booking a thread's time, telling what is sure of an open span, and taking samples when a
//! thread gets a CPU again.
//!
//! All time of a thread between two records goes through [`Spans::settle`], so no nanosecond is
//! booked twice or left out.

use super::conflict::{Conflict, Conflicts};
use super::gaps::Gaps;
use super::state::WaitState;
use super::target::Ledger;
use super::thread::{NEVER, Origin, Share, State, Thread};

/// The kernel's delay and ours may differ by this much, or by one part in a hundred: the time in
/// which a queued thread is on its way from one run queue to another is in ours only, and the clocks
/// of two run queues are not read at the same moment.
const DELAY_TOLERANCE_NS: u64 = 20_000;

/// What books time: apart from the threads, so that both can be borrowed at once.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) ledger: Ledger,
    pub(super) gaps: Gaps,
    pub(super) conflicts: Conflicts,
    /// Everything up to here may have been shown to somebody: no record can change it any more.
    pub(super) shown_ns: u64,
    /// The kernel stamps what it enqueues (some record said so). Then nobody needs wakeup records,
    /// and that there is none does not mean that a thread was not woken.
    pub(super) stamped: bool,
    /// Whether the kernel counts runs, if a record has told yet.
    pub(super) counts: Option<bool>,
    /// The kernel does not count runs without a stamp (some record said so).
    skips_unqueued: bool,
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
    /// Books a thread's time up to `until_ns` as one share. Nothing else books time.
    #[inline]
    pub(super) fn settle(
        &mut self,
        thread: &mut Thread,
        until_ns: u64,
        share: Share,
        wait: WaitState,
    ) {
        if until_ns > thread.since_ns {
            self.ledger
                .add_time(thread, thread.since_ns..until_ns, share, wait);
            thread.since_ns = until_ns;
        }
    }

    /// Books the open span up to `until_ns` as what it was, and as unknown from where it is in doubt.
    #[inline]
    pub(super) fn settle_open(&mut self, thread: &mut Thread, until_ns: u64) {
        for (share, wait, end_ns) in self.parts(thread, until_ns) {
            self.settle(thread, end_ns, share, wait);
        }
    }

    /// The open span cut in its parts, in order: share, kind of wait, end. They cover it whole.
    #[inline]
    pub(super) fn parts(&self, thread: &Thread, until_ns: u64) -> [(Share, WaitState, u64); 3] {
        let sure_ns = self.doubt(thread, until_ns).unwrap_or(until_ns);
        let (share, wait) = match thread.state {
            State::Running => (Share::Running, WaitState::Other),
            State::Queued(_) => (Share::Runnable, WaitState::Other),
            State::Waiting(wait) => (Share::Blocked, wait),
            State::Unknown => (Share::Unknown, WaitState::Other),
        };
        // An unknown woken time is later than any other.
        let turn_ns = if share == Share::Blocked {
            thread.woken_ns.min(sure_ns)
        } else {
            sure_ns
        };
        [
            (share, wait, turn_ns),
            (Share::Runnable, WaitState::Other, sure_ns),
            (Share::Unknown, WaitState::Other, until_ns),
        ]
    }

    /// From when on the open span of a thread is in doubt, if it is by `now_ns`.
    #[inline]
    pub(super) fn doubt(&self, thread: &Thread, now_ns: u64) -> Option<u64> {
        self.gaps
            .doubt(thread.proven_ns..=now_ns, thread.running_on())
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
        self.conflicts.count(conflict);
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
        self.settle(thread, now_ns, Share::Unknown, WaitState::Other);
        thread.state = State::Unknown;
        thread.forget_stay();
    }

    fn wholeness(&mut self, thread: &Thread, arrival: &Arrival) -> Wholeness {
        let is_doubted = self.doubt(thread, arrival.now_ns).is_some();
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

    /// A thread gets a CPU: books the time since it left the last one, and says which samples can be
    /// taken of it.
    pub(super) fn end_offcpu(&mut self, thread: &mut Thread, arrival: &Arrival) -> Stay {
        let now_ns = arrival.now_ns;
        let wholeness = self.wholeness(thread, arrival);
        match (thread.state, wholeness) {
            (State::Unknown, _) => {
                self.settle(thread, now_ns, Share::Unknown, WaitState::Other);
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
        wait: WaitState,
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
                self.settle(thread, woken_ns.min(enqueued_ns), Share::Blocked, wait);
                self.settle(
                    thread,
                    woken_ns.max(enqueued_ns),
                    Share::Unknown,
                    WaitState::Other,
                );
                self.settle(thread, now_ns, Share::Runnable, WaitState::Other);
            }
            (Some(woken_ns), None) if thread.rewoken_ns < now_ns => {
                // Who is on a run queue is not woken, so one of the two did not end the wait. Unless it
                // gets the CPU at this very time: then it may have had it, and its clock not gone on.
                self.conflicts.count(Conflict::WokenTwice);
                stay.queued_ns = None;
                self.settle(thread, woken_ns, Share::Blocked, wait);
                self.settle(thread, thread.rewoken_ns, Share::Unknown, WaitState::Other);
                self.settle(thread, now_ns, Share::Runnable, WaitState::Other);
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
            (None, None) => {
                self.conflicts.count(Conflict::MissedWakeup);
                self.settle(thread, now_ns, Share::Unknown, WaitState::Other);
            }
        }
        self.ledger.book(thread, |figures| figures.wakeups += 1);
    }

    /// Takes the samples of a stay off the CPU that ends now, or counts it as censored.
    ///
    /// A target has a sample only of what began after the thread came to it.
    #[inline]
    pub(super) fn sample(&mut self, thread: &mut Thread, now_ns: u64, stay: &Stay) {
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
fn disagree(ours_ns: u64, kernel_ns: u64) -> bool {
    ours_ns.abs_diff(kernel_ns) > DELAY_TOLERANCE_NS.max(ours_ns / 100)
}
