//! The straight way: what nearly every switch is, of a thread that belongs to no target.
//!
//! Its records are complete and in order, they agree with what the kernel counts, and it was on one run queue
//! only, with no quota in question. Of all that the careful way in `spans` asks, little is left then, and what
//! the thread did is booked in one go. Whatever is otherwise takes the careful way. Both book the same:
//! [`super::Core::be_careful`] turns this one off, and the properties hold one against the other.

use super::queue::is_simple;
use super::spans::{Arrival, DELAY_TOLERANCE_NS, HOST_STEPS, Held, Spans, Stay, disagree};
use super::spent::{Cause, Origin, Spent};
use super::thread::{NEVER, State, Thread};

impl Spans {
    /// Whether a record of a thread leaves nothing open as to what counts and where.
    #[inline]
    fn is_plain(&self, thread: &Thread, ts_ns: u64) -> bool {
        thread.target.is_none()
            && self.not_before(thread, ts_ns) == ts_ns
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
        self.ledger.book_plain(thread, |figures| {
            figures.add_time(Spent::Running, ran_ns);
            figures.voluntary += u64::from(is_voluntary);
            figures.involuntary += u64::from(!is_voluntary);
        });
        true
    }

    /// Books what a thread did since it left its last CPU, samples and all, if that is straightforward: it gets
    /// this CPU now, `has_moved` from another one. `None` if the careful way is to be taken.
    #[inline]
    pub(super) fn arrive_straight(
        &mut self,
        thread: &mut Thread,
        cpu: usize,
        arrival: &Arrival,
        has_moved: bool,
    ) -> Option<Stay> {
        let now_ns = arrival.now_ns;
        if !self.is_plain(thread, now_ns) || !is_simple(thread, cpu) {
            return None;
        }
        let enqueued_ns = enqueued_ns(thread, arrival)?;
        let stay = match thread.state {
            State::Waiting(_) => waited(thread, now_ns, enqueued_ns)?,
            State::Queued(origin) => queued(thread, now_ns, enqueued_ns, origin)?,
            State::Running | State::Unknown => return None,
        };
        let (wait, turn_ns) = match thread.state {
            State::Waiting(wait) => (Some(wait), stay.queued_ns?.max(thread.since_ns)),
            _ => (None, thread.since_ns),
        };
        if thread.observed_from_ns > turn_ns {
            return None;
        }
        let blocked_ns = turn_ns - thread.since_ns;
        let origin = thread.origin();
        let (held, victim_tid, victim_unit) = (&mut self.held, thread.tid, thread.unit);
        let timeline = &self.queues.timeline;
        let used = timeline.divide(cpu, turn_ns..now_ns, HOST_STEPS, |runner, duration_ns| {
            held.push(Held {
                runner,
                duration_ns,
                victim_tid,
                victim_unit,
                target: None,
            });
        });
        thread.since_ns = now_ns;
        thread.queued_ns += now_ns - turn_ns;
        thread.proven_ns = now_ns;
        let met_ns = thread.met_ns;
        let was_seen = |began_ns: &u64| *began_ns >= met_ns;
        self.ledger.book_plain(thread, |figures| {
            if let Some(wait) = wait {
                figures.add_time(Spent::Blocked(wait.reason), blocked_ns);
                figures.wakeups += 1;
            }
            figures.add_time(Spent::Queued(origin, Cause::Contended), used.busy_ns);
            figures.add_time(Spent::Queued(origin, Cause::Placement), used.idle_ns);
            figures.add_time(Spent::Queued(origin, Cause::Unknown), used.unknown_ns);
            if let Some(queued_ns) = stay.queued_ns.filter(was_seen) {
                figures.runqueue_delay.record(now_ns - queued_ns);
            }
            match stay.left_ns.filter(was_seen) {
                Some(left_ns) => figures.offcpu.record(now_ns.saturating_sub(left_ns)),
                None => figures.censored += u64::from(!stay.is_first),
            }
            figures.migrations += u64::from(has_moved);
        });
        Some(stay)
    }
}

/// When the kernel put a thread on its run queue, if its counts prove that it did not run since it left its last
/// CPU.
#[inline]
fn enqueued_ns(thread: &Thread, arrival: &Arrival) -> Option<u64> {
    let (before, now) = (thread.runs?, arrival.runs?);
    let is_irregular = thread.unqueued | thread.is_unstamped | arrival.unqueued;
    if is_irregular || now.wrapping_sub(before) != 1 || thread.delay_ns == NEVER {
        return None;
    }
    let delay_ns = arrival.delay_ns?.checked_sub(thread.delay_ns)?;
    Some(arrival.now_ns.saturating_sub(delay_ns))
}

/// The stay of a thread that waited and was put on its queue then.
#[inline]
fn waited(thread: &Thread, now_ns: u64, enqueued_ns: u64) -> Option<Stay> {
    let left_ns = Some(thread.left_ns).filter(|&left_ns| left_ns != NEVER);
    let woken_ns = if thread.is_woken() {
        let woken_ns = thread.woken_ns;
        (!disagree(now_ns - woken_ns, now_ns - enqueued_ns)).then_some(woken_ns)?
    } else {
        let left_ns = left_ns.unwrap_or(0);
        (enqueued_ns.saturating_add(DELAY_TOLERANCE_NS) >= left_ns)
            .then_some(enqueued_ns.max(left_ns))?
    };
    // One that was woken before the window only ever queued in it.
    (woken_ns >= thread.met_ns).then_some(Stay {
        left_ns,
        queued_ns: Some(woken_ns),
        is_first: false,
    })
}

/// The stay of a thread that was on its queue all the time.
#[inline]
fn queued(thread: &Thread, now_ns: u64, enqueued_ns: u64, origin: Origin) -> Option<Stay> {
    let [left_ns, queued_ns] =
        [thread.left_ns, thread.woken_ns].map(|ns| Some(ns).filter(|&ns| ns != NEVER));
    let is_doubtful =
        queued_ns.is_some_and(|queued_ns| disagree(now_ns - queued_ns, now_ns - enqueued_ns));
    (!is_doubtful).then_some(Stay {
        left_ns,
        queued_ns,
        is_first: origin == Origin::Forked,
    })
}
