//! Figures of a thread, a target or the host, and their differences.

use super::histogram::LatencyHistogram;
use super::state::WaitState;
use super::thread::Share;

/// Everything that is counted for one thread, for a target or for the host.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Time by [`Share`], in nanoseconds; sums to the time observed, exactly.
    pub time_ns: [u64; Share::ALL.len()],
    /// [`Share::Blocked`] by wait state; sums to it, exactly.
    pub blocked_ns: [u64; WaitState::COUNT],
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
    /// Waits that gave no sample because their beginning was not seen.
    pub censored: u64,
}

impl Figures {
    /// Time in this share, in nanoseconds.
    #[must_use]
    pub fn time(&self, share: Share) -> u64 {
        self.time_ns[share as usize]
    }

    /// All the time observed, in nanoseconds.
    #[must_use]
    pub fn observed_ns(&self) -> u64 {
        self.time_ns.iter().sum()
    }

    /// Adds time that was spent in a share; `wait` says how, for [`Share::Blocked`].
    #[inline]
    pub(super) fn add_time(&mut self, share: Share, wait: WaitState, duration_ns: u64) {
        self.time_ns[share as usize] += duration_ns;
        if share == Share::Blocked {
            self.blocked_ns[wait.index()] += duration_ns;
        }
    }

    /// What was added since `earlier`, an older copy of these.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            time_ns: difference(&self.time_ns, &earlier.time_ns),
            blocked_ns: difference(&self.blocked_ns, &earlier.blocked_ns),
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

fn difference<const N: usize>(now: &[u64; N], before: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|place| now[place].saturating_sub(before[place]))
}
