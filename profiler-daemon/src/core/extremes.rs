//! What is out of the ordinary in the targets: cheap enough to be asked many times a second.

use super::reconstruct::Reconstruction;
use super::thread::{State, Thread};

/// The longest waits of targets that go on, in nanoseconds; 0 if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongestOpen {
    /// For a CPU.
    pub queued_ns: u64,
    /// For something else, idleness left aside.
    pub blocked_ns: u64,
}

impl Reconstruction {
    pub(super) fn longest_open(&self, at_ns: u64) -> LongestOpen {
        let mut longest = LongestOpen::default();
        // One whose records are left out may have gone on long ago.
        let is_known = |thread: &&Thread| {
            thread.target.is_some() && self.spans.shed_from(thread, at_ns).is_none()
        };
        for thread in self.threads.iter().filter(is_known) {
            let since = |from_ns: u64| at_ns.saturating_sub(from_ns.max(thread.observed_from_ns));
            match thread.state {
                State::Waiting(_) if thread.is_woken() => {
                    longest.queued_ns = longest.queued_ns.max(since(thread.woken_ns));
                }
                State::Queued(_) => {
                    longest.queued_ns = longest.queued_ns.max(since(thread.began_ns()));
                }
                State::Waiting(wait) if !wait.reason.is_idle() => {
                    longest.blocked_ns = longest.blocked_ns.max(since(thread.began_ns()));
                }
                _ => {}
            }
        }
        longest
    }

    pub(super) fn delays_above(&self, delay_ns: u64) -> u64 {
        let targets = self.spans.ledger.targets.iter();
        let delays = targets.flat_map(|target| target.account.figures.runqueue_delay.buckets());
        delays
            .filter(|&(upto_ns, _)| upto_ns > delay_ns)
            .map(|(_, count)| count)
            .sum()
    }
}
