//! What threads did of late while they were off the CPU, for the question who kept a waker busy.

use std::collections::VecDeque;
use std::ops::Range;

use super::classify::Wait;
use super::who::Waker;

/// A stay off the CPU that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub(super) left_ns: u64,
    /// When it was put on the run queue.
    pub(super) queued_ns: u64,
    /// When it got a CPU.
    pub(super) until_ns: u64,
    /// What it waited for, unless it only queued.
    pub(super) wait: Option<Wait>,
    pub(super) waker: Waker,
    /// Where it got a CPU.
    pub(super) cpu: usize,
    /// The number of its thread's stay before this one; 0 if there is none.
    pub(super) previous: u64,
}

impl Past {
    /// When it waited for something else than a CPU.
    pub(super) fn blocked_ns(&self) -> Range<u64> {
        self.left_ns..self.queued_ns
    }

    /// When it was queued.
    pub(super) fn runnable_ns(&self) -> Range<u64> {
        self.queued_ns..self.until_ns
    }
}

/// The last stays of all threads together, apart from short ones.
#[derive(Debug, Default)]
pub(super) struct History {
    stays: VecDeque<Past>,
    /// Stays that were dropped, so that the first one kept has this number plus one.
    dropped: u64,
}

/// Stays kept, some 100 bytes each.
const MAX_STAYS: usize = 1 << 13;

/// What is shorter is taken for running: it can't be what somebody waited long for.
pub(super) const SHORT_NS: u64 = 20_000;

/// Stays of one thread that are looked at.
const MAX_STEPS: usize = 1000;

impl History {
    /// Adds a stay of the thread whose last stay here is `last`, and makes it the last one.
    #[inline]
    pub(super) fn add(&mut self, last: &mut u64, stay: Past) {
        if stay.until_ns.saturating_sub(stay.left_ns) < SHORT_NS {
            return;
        }
        if self.stays.len() >= MAX_STAYS {
            self.stays.pop_front();
            self.dropped += 1;
        }
        self.stays.push_back(Past {
            previous: *last,
            ..stay
        });
        *last = self.dropped + self.stays.len() as u64;
    }

    /// The stays of a thread that reach into this time, the latest first; `last` is its last one.
    pub(super) fn within(&self, last: u64, time_ns: Range<u64>) -> impl Iterator<Item = &Past> {
        let mut number = last;
        std::iter::from_fn(move || {
            let place = number.checked_sub(self.dropped)?.checked_sub(1)?;
            let stay = self.stays.get(usize::try_from(place).ok()?)?;
            number = stay.previous;
            Some(stay)
        })
        .take(MAX_STEPS)
        .take_while(move |stay| stay.until_ns > time_ns.start)
        .filter(move |stay| stay.left_ns < time_ns.end)
    }
}

#[cfg(test)]
mod tests {
    use super::{History, MAX_STAYS, Past, SHORT_NS};
    use crate::core::who::Waker;

    fn stay(left_ns: u64, until_ns: u64) -> Past {
        Past {
            left_ns,
            queued_ns: left_ns,
            until_ns,
            wait: None,
            waker: Waker::default(),
            cpu: 0,
            previous: 0,
        }
    }

    #[test]
    fn a_threads_stays_are_found_among_others() {
        let mut history = History::default();
        let (mut a, mut b) = (0, 0);
        for number in 1..=4 {
            let start_ns = number * 10 * SHORT_NS;
            history.add(&mut a, stay(start_ns, start_ns + SHORT_NS));
            history.add(&mut b, stay(start_ns, start_ns + SHORT_NS - 1));
        }
        assert_eq!(b, 0, "too short");
        let found: Vec<u64> = history
            .within(a, 20 * SHORT_NS..30 * SHORT_NS + 1)
            .map(|stay| stay.left_ns)
            .collect();
        assert_eq!(found, [30 * SHORT_NS, 20 * SHORT_NS]);
    }

    #[test]
    fn what_was_dropped_is_not_mistaken_for_something_else() {
        let mut history = History::default();
        let (mut early, mut late) = (0, 0);
        history.add(&mut early, stay(0, SHORT_NS));
        for number in 0..MAX_STAYS as u64 {
            history.add(&mut late, stay(number * SHORT_NS, (number + 1) * SHORT_NS));
        }
        assert_eq!(history.within(early, 0..u64::MAX).count(), 0);
        assert_eq!(history.within(late, 0..u64::MAX).count(), 1000);
    }
}
