//! Figures of a thread, a target or the host, and their differences.

use super::histogram::LatencyHistogram;
use super::state::WaitState;
use super::thread::Share;

/// Everything that is counted for one thread, for a target or for the host.
///
/// Sums of time have 128 bits: 100,000 threads fill 64 bits of nanoseconds in two days.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    time_ns: [u128; Share::ALL.len()],
    blocked_ns: [u128; WaitState::COUNT],
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

impl Figures {
    /// Time in this share, in nanoseconds.
    #[must_use]
    pub fn time(&self, share: Share) -> u128 {
        self.time_ns[share as usize]
    }

    /// [`Share::Blocked`] in this state, in nanoseconds; over all states it sums to that, exactly.
    #[must_use]
    pub fn blocked(&self, wait: WaitState) -> u128 {
        self.blocked_ns[wait.index()]
    }

    /// All the time observed, in nanoseconds: the sum of the shares.
    #[must_use]
    pub fn observed_ns(&self) -> u128 {
        self.time_ns.iter().sum()
    }

    /// Adds time that was spent in a share; `wait` says how, for [`Share::Blocked`].
    #[inline]
    pub(super) fn add_time(&mut self, share: Share, wait: WaitState, duration_ns: u64) {
        let duration_ns = u128::from(duration_ns);
        self.time_ns[share as usize] += duration_ns;
        if share == Share::Blocked {
            self.blocked_ns[wait.index()] += duration_ns;
        }
    }

    /// What was added since `earlier`, an older copy of these.
    ///
    /// What an open span is taken for may change when it ends: a wait of unknown end turns out to
    /// have been followed by a time on the run queue, or a doubt is cleared. The time that was
    /// counted as something else before is then left out here, so that the shares sum to what was
    /// observed in between, and none is below zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut this = Self {
            time_ns: [0; Share::ALL.len()],
            blocked_ns: [0; WaitState::COUNT],
            runqueue_delay: self.runqueue_delay.since(&earlier.runqueue_delay),
            offcpu: self.offcpu.since(&earlier.offcpu),
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
            wakeups: self.wakeups.saturating_sub(earlier.wakeups),
            migrations: self.migrations.saturating_sub(earlier.migrations),
            censored: self.censored.saturating_sub(earlier.censored),
        };
        let now: Vec<u128> = self.cells().collect();
        let before: Vec<u128> = earlier.cells().collect();
        let mut growth: Vec<u128> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| now.saturating_sub(*before))
            .collect();
        let mut moved: u128 = now
            .iter()
            .zip(&before)
            .map(|(now, before)| before.saturating_sub(*now))
            .sum();
        while moved > 0
            && let Some(largest) = growth.iter_mut().max().filter(|growth| **growth > 0)
        {
            let taken = moved.min(*largest);
            *largest -= taken;
            moved -= taken;
        }
        for (cell, growth) in growth.into_iter().enumerate() {
            match cell.checked_sub(WaitState::COUNT) {
                None => {
                    this.blocked_ns[cell] = growth;
                    this.time_ns[Share::Blocked as usize] += growth;
                }
                Some(number) => this.time_ns[Self::WHOLE[number] as usize] = growth,
            }
        }
        this
    }

    /// Shares that have no finer division.
    const WHOLE: [Share; 3] = [Share::Running, Share::Runnable, Share::Unknown];

    /// All time in its finest division: blocked time by state, then the other shares.
    fn cells(&self) -> impl Iterator<Item = u128> + '_ {
        self.blocked_ns
            .iter()
            .copied()
            .chain(Self::WHOLE.map(|share| self.time(share)))
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;
    use crate::core::state::WaitState;
    use crate::core::thread::Share;

    fn of(shares: &[(Share, u64)]) -> Figures {
        let mut figures = Figures::default();
        for &(share, duration_ns) in shares {
            figures.add_time(share, WaitState::Sleeping, duration_ns);
        }
        figures
    }

    #[test]
    fn a_hundred_thousand_threads_can_sleep_for_a_year() {
        let mut figures = Figures::default();
        let year_ns = 365 * 86_400 * 1_000_000_000;
        for _ in 0..100_000 {
            figures.add_time(Share::Blocked, WaitState::Sleeping, year_ns);
        }
        assert_eq!(figures.observed_ns(), u128::from(year_ns) * 100_000);
    }

    #[test]
    fn time_that_turns_out_to_be_something_else_is_not_counted_twice() {
        let earlier = of(&[
            (Share::Running, 5),
            (Share::Blocked, 100),
            (Share::Unknown, 7),
        ]);
        let now = of(&[
            (Share::Running, 9),
            (Share::Blocked, 90),
            (Share::Runnable, 33),
        ]);
        let since = now.since(&earlier);
        assert_eq!(since.observed_ns(), 20);
        assert_eq!(since.time(Share::Running), 4);
        assert_eq!(since.time(Share::Blocked), 0);
        assert_eq!(since.time(Share::Runnable), 16);
        assert_eq!(since.time(Share::Unknown), 0);
    }
}
