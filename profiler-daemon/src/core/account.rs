//! All that is kept of a thread or a target: the figures, and who had a part in them.

use std::collections::BTreeMap;

use super::classify::Wait;
use super::figures::Figures;
use super::ranking::{Ranking, Weight};
use super::who::{Waker, Who};

/// What is kept of a thread of a target, or of the target.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// How much.
    pub figures: Figures,
    /// Why and by whom.
    pub detail: Detail,
}

impl Account {
    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.figures.merge(&other.figures);
        self.detail.merge(&other.detail);
    }

    /// What was added since `earlier`, an older copy of this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            figures: self.figures.since(&earlier.figures),
            detail: self.detail.since(&earlier.detail),
        }
    }
}

/// Why and by whom. Sums of all that was seen; what is not among the largest is in `other`.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// Blocked time by what is known of the waits: how often, and how long. Sums to the blocked time.
    pub waits: Ranking<Wait>,
    /// What ended waits: how often, and how long they had been.
    pub wakers: Ranking<Waker, Option<Who>>,
    /// Who had the CPU while it was queued: for how long. Sums to the contended time. The key is the
    /// thread's number in this run.
    pub culprits: Ranking<u64, Who>,
}

impl Detail {
    pub(super) fn add_wait(&mut self, wait: Wait, duration_ns: u64) {
        self.waits.add(wait, Weight::once(duration_ns), || ());
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.waits.merge(&other.waits);
        self.wakers.merge(&other.wakers);
        self.culprits.merge(&other.culprits);
    }

    /// Gives those who are still there the names that they have now.
    pub(super) fn rename(&mut self, names: &BTreeMap<u64, Who>) {
        self.culprits.relabel(|serial| names.get(serial).copied());
    }

    /// What was added since `earlier`, an older copy of this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            waits: self.waits.since(&earlier.waits),
            wakers: self.wakers.since(&earlier.wakers),
            culprits: self.culprits.since(&earlier.culprits),
        }
    }
}
