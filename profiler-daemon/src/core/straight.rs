//! The straight way: what nearly every switch is, of a thread that belongs to no target.
//!
//! Its records are complete and in order, they agree with what the kernel counts, and it was on one run queue
//! only, with no quota in question. Of all that the careful way in `spans` asks, little is left then, and what
//! the thread did is booked in one go. Whatever is otherwise takes the careful way. Both book the same:
//! [`super::Core::be_careful`] turns this one off, and the properties hold one against the other.
//!
//! Times stay what they are in a thread, [`NEVER`] for one that is not known: an `Option` made of each takes more
//! than what is done with it.

use profiler_ebpf::{Switch, switch_flags};

use super::queue::is_simple;
use super::spans::{DELAY_TOLERANCE_NS, HOST_STEPS, Held, Spans, Stay, disagree};
use super::spent::{Cause, Origin, Spent};
use super::thread::{NEVER, State, Thread};
use super::timeline::{Holder, Runner};

/// The kernel counts runs and stamps what it enqueues, and says that of this thread.
const IS_COUNTED: u8 = switch_flags::NEXT_COUNTED | switch_flags::NEXT_STAMPED;

/// When a stay off the CPU began that was booked; [`NEVER`] where that is not known.
#[derive(Clone, Copy)]
pub(super) struct Booked {
    left_ns: u64,
    queued_ns: u64,
    is_first: bool,
    /// Who had the CPU while the thread was queued for it, and how long, if it was one and the same.
    pub(super) held: Option<(Runner, u64)>,
}

impl Booked {
    /// The same, as the careful way tells it.
    pub(super) fn stay(&self) -> Stay {
        let [left_ns, queued_ns] =
            [self.left_ns, self.queued_ns].map(|ns| (ns != NEVER).then_some(ns));
        Stay {
            left_ns,
            queued_ns,
            is_first: self.is_first,
        }
    }
}

impl Spans {
    /// Whether a record of a thread leaves nothing open as to what counts and where.
    #[inline]
    fn is_plain(&self, thread: &Thread, ts_ns: u64) -> bool {
        // Together the same as that nothing can be booked only from a later time on.
        let is_in_order = thread.since_ns <= ts_ns
            && thread.observed_from_ns <= ts_ns
            && self.shown_ns <= ts_ns
            && (thread.woken_ns <= ts_ns || thread.woken_ns == NEVER);
        is_in_order
            && thread.target.is_none()
            && self.gaps.is_sure_from(thread.proven_ns)
            && !self.is_careful
    }

    /// Books the run of a thread that leaves this CPU, if that is straightforward. Returns whether it was.
    #[inline]
    pub(super) fn leave_straight(
        &mut self,
        thread: &mut Thread,
        cpu: usize,
        ts_ns: u64,
        is_voluntary: bool,
    ) -> bool {
        if !self.is_plain(thread, ts_ns) || thread.running_on() != Some(cpu) {
            return false;
        }
        let ran_ns = ts_ns - thread.since_ns;
        thread.since_ns = ts_ns;
        thread.ran_ns += ran_ns;
        let figures = self.ledger.units.figures(thread.unit);
        figures.add_time(Spent::Running, ran_ns);
        figures.voluntary += u64::from(is_voluntary);
        figures.involuntary += u64::from(!is_voluntary);
        true
    }

    /// Books what a thread did since it left its last CPU, samples and all, if that is straightforward: it gets
    /// this CPU now, `has_moved` from another one. `None` if the careful way is to be taken.
    #[inline]
    pub(super) fn arrive_straight(
        &mut self,
        thread: &mut Thread,
        cpu: usize,
        record: &Switch,
        has_moved: bool,
    ) -> Option<Booked> {
        let now_ns = record.ts_ns;
        if !self.is_plain(thread, now_ns) || !is_simple(thread, cpu) {
            return None;
        }
        let enqueued_ns = enqueued_ns(thread, record)?;
        let left_ns = thread.left_ns;
        let (reason, origin, queued_ns, turn_ns) = match thread.state {
            State::Waiting(wait) => {
                let woken_ns = woken_ns(thread, now_ns, enqueued_ns)?;
                let turn_ns = woken_ns.max(thread.since_ns);
                (Some(wait.reason), Origin::Woken, woken_ns, turn_ns)
            }
            State::Queued(origin) => {
                let queued_ns = thread.woken_ns;
                if queued_ns != NEVER && disagree(now_ns - queued_ns, now_ns - enqueued_ns) {
                    return None;
                }
                (None, origin, queued_ns, thread.since_ns)
            }
            State::Running | State::Unknown => return None,
        };
        if thread.observed_from_ns > turn_ns {
            return None;
        }
        let (since_ns, met_ns) = (thread.since_ns, thread.met_ns);
        let (blocked_ns, runnable_ns) = (turn_ns - since_ns, now_ns - turn_ns);
        thread.since_ns = now_ns;
        thread.queued_ns += runnable_ns;
        thread.proven_ns = now_ns;
        let figures = self.ledger.units.figures(thread.unit);
        if let Some(reason) = reason {
            figures.add_time(Spent::Blocked(reason), blocked_ns);
            figures.wakeups += 1;
        }
        let mut held = None;
        // Mostly who has the CPU now had it all the time.
        match self.queues.timeline.holder_since(cpu, turn_ns) {
            Some(Holder::Thread(runner)) => {
                figures.add_time(Spent::Queued(origin, Cause::Contended), runnable_ns);
                held = (runnable_ns > 0).then_some((runner, runnable_ns));
            }
            Some(Holder::Idle) => {
                figures.add_time(Spent::Queued(origin, Cause::Placement), runnable_ns);
            }
            Some(Holder::Unknown) => {
                figures.add_time(Spent::Queued(origin, Cause::Unknown), runnable_ns);
            }
            None => {
                let (list, victim_tid, victim_unit) = (&mut self.held, thread.tid, thread.unit);
                let timeline = &self.queues.timeline;
                let used =
                    timeline.divide(cpu, turn_ns..now_ns, HOST_STEPS, |runner, duration_ns| {
                        list.push(Held {
                            runner,
                            duration_ns,
                            victim_tid,
                            victim_unit,
                            target: None,
                        });
                    });
                figures.add_time(Spent::Queued(origin, Cause::Contended), used.busy_ns);
                figures.add_time(Spent::Queued(origin, Cause::Placement), used.idle_ns);
                figures.add_time(Spent::Queued(origin, Cause::Unknown), used.unknown_ns);
            }
        }
        let was_seen = |began_ns: u64| began_ns != NEVER && began_ns >= met_ns;
        let is_first = origin == Origin::Forked;
        if was_seen(queued_ns) {
            figures.runqueue_delay.record(now_ns - queued_ns);
        }
        if was_seen(left_ns) {
            figures.offcpu.record(now_ns.saturating_sub(left_ns));
        } else {
            figures.censored += u64::from(!is_first);
        }
        figures.migrations += u64::from(has_moved);
        Some(Booked {
            left_ns,
            queued_ns,
            is_first,
            held,
        })
    }
}

/// When the kernel put a thread on its run queue, if its counts prove that it did not run since it left its last
/// CPU.
#[inline]
fn enqueued_ns(thread: &Thread, record: &Switch) -> Option<u64> {
    if record.flags & (IS_COUNTED | switch_flags::NEXT_UNQUEUED) != IS_COUNTED
        || thread.unqueued
        || thread.is_unstamped
        || record.next_runs.wrapping_sub(thread.runs?) != 1
        || thread.delay_ns == NEVER
    {
        return None;
    }
    let delay_ns = record.next_delay_ns.checked_sub(thread.delay_ns)?;
    Some(record.ts_ns.saturating_sub(delay_ns))
}

/// When a thread that waited was put on its queue.
#[inline]
fn woken_ns(thread: &Thread, now_ns: u64, enqueued_ns: u64) -> Option<u64> {
    let woken_ns = if thread.is_woken() {
        if disagree(now_ns - thread.woken_ns, now_ns - enqueued_ns) {
            return None;
        }
        thread.woken_ns
    } else {
        let left_ns = if thread.left_ns == NEVER {
            0
        } else {
            thread.left_ns
        };
        if enqueued_ns.saturating_add(DELAY_TOLERANCE_NS) < left_ns {
            return None;
        }
        enqueued_ns.max(left_ns)
    };
    // One that was woken before the window only ever queued in it.
    (woken_ns >= thread.met_ns).then_some(woken_ns)
}
