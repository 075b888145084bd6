//! Figures of a thread, a target or the host, and their differences.

use super::histogram::LatencyHistogram;
use super::reason::Reason;
use super::spent::{Cause, Origin, Share, Spent};

/// Everything that is counted for one thread, for a target or for the host.
///
/// Sums of time have 128 bits: 100,000 threads fill 64 bits of nanoseconds in two days.
#[derive(Clone, Debug)]
pub struct Figures {
    /// By [`Spent::index`].
    time_ns: [u128; Spent::COUNT],
    /// How long it queued each time before it got a CPU.
    pub runqueue_delay: LatencyHistogram,
    /// How long it was off the CPU each time, from leaving to coming back, queueing included.
    pub offcpu: LatencyHistogram,
    /// Switches away in order to wait.
    pub voluntary: u64,
    /// Switches away while it still wanted to run.
    pub involuntary: u64,
    /// Waits that ended in the thread getting a CPU.
    pub wakeups: u64,
    /// Times that it got another CPU than the one it had before.
    pub migrations: u64,
    /// Times that it got a CPU and gave no sample for the time off it, because not all of that was
    /// seen.
    pub censored: u64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            time_ns: [0; Spent::COUNT],
            runqueue_delay: LatencyHistogram::default(),
            offcpu: LatencyHistogram::default(),
            voluntary: 0,
            involuntary: 0,
            wakeups: 0,
            migrations: 0,
            censored: 0,
        }
    }
}

impl Figures {
    /// Time spent so, in nanoseconds.
    #[must_use]
    pub fn spent(&self, spent: Spent) -> u128 {
        self.time_ns[spent.index()]
    }

    /// Time in this share, in nanoseconds: the sum of what it is divided into.
    #[must_use]
    pub fn time(&self, share: Share) -> u128 {
        self.sum(|spent| spent.share() == share)
    }

    /// [`Share::Blocked`] for this reason, in nanoseconds.
    #[must_use]
    pub fn blocked(&self, reason: Reason) -> u128 {
        self.spent(Spent::Blocked(reason))
    }

    /// [`Share::Runnable`] with this cause, in nanoseconds.
    #[must_use]
    pub fn runnable(&self, cause: Cause) -> u128 {
        self.sum(|spent| matches!(spent, Spent::Queued(_, its) if its == cause))
    }

    /// [`Share::Runnable`] that began so, in nanoseconds.
    #[must_use]
    pub fn runnable_from(&self, origin: Origin) -> u128 {
        self.sum(|spent| matches!(spent, Spent::Queued(its, _) if its == origin))
    }

    fn sum(&self, mut counts: impl FnMut(Spent) -> bool) -> u128 {
        Spent::all()
            .zip(&self.time_ns)
            .filter(|&(spent, _)| counts(spent))
            .map(|(_, ns)| ns)
            .sum()
    }

    /// All the time observed, in nanoseconds: the sum of the shares.
    #[must_use]
    pub fn observed_ns(&self) -> u128 {
        self.time_ns.iter().sum()
    }

    /// Adds time that was spent so.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "each caller knows what it was spent on, and the place of that is a constant then"
    )]
    pub(super) fn add_time(&mut self, spent: Spent, duration_ns: u64) {
        self.time_ns[spent.index()] += u128::from(duration_ns);
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.time_ns.iter_mut().zip(other.time_ns) {
            *sum += more;
        }
        self.runqueue_delay.merge(&other.runqueue_delay);
        self.offcpu.merge(&other.offcpu);
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
        self.wakeups += other.wakeups;
        self.migrations += other.migrations;
        self.censored += other.censored;
    }

    /// What was added since `earlier`, an older copy of these.
    ///
    /// What an open span is taken for may change when it ends: a wait of unknown end turns out to
    /// have been followed by a time on the run queue, its reason is understood better, or a doubt is
    /// cleared. The time that was counted as something else before is then left out here, so that the
    /// parts sum to what was observed in between, and none is below zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = || self.time_ns.iter().zip(&earlier.time_ns);
        let mut time_ns = [0; Spent::COUNT];
        for (growth, (now, before)) in time_ns.iter_mut().zip(pairs()) {
            *growth = now.saturating_sub(*before);
        }
        let mut moved: u128 = pairs()
            .map(|(now, before)| before.saturating_sub(*now))
            .sum();
        while moved > 0
            && let Some(largest) = time_ns.iter_mut().max().filter(|growth| **growth > 0)
        {
            let taken = moved.min(*largest);
            *largest -= taken;
            moved -= taken;
        }
        Self {
            time_ns,
            runqueue_delay: self.runqueue_delay.since(&earlier.runqueue_delay),
            offcpu: self.offcpu.since(&earlier.offcpu),
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
            wakeups: self.wakeups.saturating_sub(earlier.wakeups),
            migrations: self.migrations.saturating_sub(earlier.migrations),
            censored: self.censored.saturating_sub(earlier.censored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;
    use crate::core::reason::Reason;
    use crate::core::spent::{Cause, Origin, Share, Spent};

    const QUEUED: Spent = Spent::Queued(Origin::Woken, Cause::Contended);
    const BLOCKED: Spent = Spent::Blocked(Reason::Lock);

    fn of(parts: &[(Spent, u64)]) -> Figures {
        let mut figures = Figures::default();
        for &(spent, duration_ns) in parts {
            figures.add_time(spent, duration_ns);
        }
        figures
    }

    #[test]
    fn a_hundred_thousand_threads_can_sleep_for_a_year() {
        let mut figures = Figures::default();
        let year_ns = 365 * 86_400 * 1_000_000_000;
        for _ in 0..100_000 {
            figures.add_time(BLOCKED, year_ns);
        }
        assert_eq!(figures.observed_ns(), u128::from(year_ns) * 100_000);
    }

    #[test]
    fn causes_and_origins_are_two_divisions_of_the_same_time() {
        let figures = of(&[
            (Spent::Queued(Origin::Woken, Cause::Contended), 1),
            (Spent::Queued(Origin::Preempted, Cause::Contended), 20),
            (Spent::Queued(Origin::Preempted, Cause::Throttled), 300),
            (BLOCKED, 4000),
        ]);
        assert_eq!(figures.time(Share::Runnable), 321);
        assert_eq!(figures.runnable(Cause::Contended), 21);
        assert_eq!(figures.runnable(Cause::Throttled), 300);
        assert_eq!(figures.runnable_from(Origin::Preempted), 320);
        assert_eq!(figures.blocked(Reason::Lock), 4000);
    }

    #[test]
    fn time_that_turns_out_to_be_something_else_is_not_counted_twice() {
        let earlier = of(&[(Spent::Running, 5), (BLOCKED, 100), (Spent::Unknown, 7)]);
        let now = of(&[(Spent::Running, 9), (BLOCKED, 90), (QUEUED, 33)]);
        let since = now.since(&earlier);
        assert_eq!(since.observed_ns(), 20);
        assert_eq!(since.time(Share::Running), 4);
        assert_eq!(since.time(Share::Blocked), 0);
        assert_eq!(since.time(Share::Runnable), 16);
        assert_eq!(since.time(Share::Unknown), 0);
    }
}
