//! The longest waits of a target, with everything that is known of each. Those that have ended and those
//! that go on have lists of their own: many threads that are stuck must not hide what was slow before.

use std::sync::Arc;

use super::classify::{Stack, Wait};
use super::spent::{Cause, Origin};
use super::who::{Waker, Who};

/// Longest waits kept of each kind.
pub const MAX_WORST: usize = 20;

/// What a long wait was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A CPU: the stay on the run queue began so, and has these causes, in the order of [`Cause::ALL`].
    Cpu(Origin, [u64; Cause::COUNT]),
    /// Something else.
    Other(Wait),
}

/// One wait.
#[derive(Clone, Debug)]
pub struct LongWait {
    /// Who waited.
    pub who: Who,
    /// Its number in this run, as [`super::ThreadSnapshot::serial`].
    pub serial: u64,
    /// When it began.
    pub from_ns: u64,
    /// When it ended, or the moment of the snapshot if it has not.
    pub until_ns: u64,
    /// It has not ended.
    pub is_open: bool,
    /// For what.
    pub waited: Waited,
    /// What ended it, or ended the wait before it if it was for a CPU.
    pub waker: Waker,
    /// The thread that ended it, if it was one.
    pub waker_thread: Option<Who>,
    /// Who had the CPU meanwhile, those with most of it first.
    pub culprits: Vec<(Who, u64)>,
    /// What kept the waker from coming earlier: what it did in that time, then what its own waker did,
    /// and so on.
    pub chain: Vec<Link>,
    /// Where in the kernel it waited, if that was taken.
    pub stack: Option<Arc<Stack>>,
    /// Where in its program it waited, by the number under which the kernel keeps that.
    pub user_stack: Option<u32>,
}

impl LongWait {
    /// How long it was.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.until_ns.saturating_sub(self.from_ns)
    }
}

/// What a waker did while it was waited for.
#[derive(Clone, Debug)]
pub struct Link {
    /// The waker.
    pub who: Who,
    /// The time that this is about.
    pub from_ns: u64,
    /// Its end.
    pub until_ns: u64,
    /// Of this it ran so long.
    pub running_ns: u64,
    /// It was queued for a CPU so long.
    pub runnable_ns: u64,
    /// It was waiting so long.
    pub blocked_ns: u64,
    /// What is not known: it was born within this time, or was not watched.
    pub unknown_ns: u64,
    /// What the longest of its waits was for.
    pub longest: Option<Wait>,
    /// What ended that.
    pub waker: Waker,
    /// Who had the CPU while it was queued longest.
    pub culprits: Vec<(Who, u64)>,
}

/// The longest waits.
#[derive(Clone, Debug, Default)]
pub struct Worst {
    /// Stays on a run queue.
    pub queued: Longest,
    /// Waits that keep a thread from its work.
    pub blocked: Longest,
    /// Waits of threads that had nothing to do.
    pub idle: Longest,
}

impl Worst {
    /// Where a wait of this kind belongs.
    #[must_use]
    pub fn list(&self, waited: &Waited) -> &Longest {
        match waited {
            Waited::Cpu(..) => &self.queued,
            Waited::Other(wait) if wait.reason.is_idle() => &self.idle,
            Waited::Other(_) => &self.blocked,
        }
    }

    pub(super) fn add(&mut self, wait: LongWait) {
        let list = match &wait.waited {
            Waited::Cpu(..) => &mut self.queued,
            Waited::Other(wait) if wait.reason.is_idle() => &mut self.idle,
            Waited::Other(_) => &mut self.blocked,
        };
        list.add(wait);
    }

    /// Those that had not ended before `at_ns`.
    #[must_use]
    pub fn since(&self, at_ns: u64) -> Self {
        Self {
            queued: self.queued.since(at_ns),
            blocked: self.blocked.since(at_ns),
            idle: self.idle.since(at_ns),
        }
    }
}

/// The longest waits of one kind.
#[derive(Clone, Debug, Default)]
pub struct Longest {
    /// The longest first.
    waits: Vec<LongWait>,
}

impl Longest {
    /// Whether one of this length would get in.
    #[inline]
    pub(super) fn takes(&self, duration_ns: u64) -> bool {
        duration_ns > 0
            && (self.waits.len() < MAX_WORST
                || self
                    .waits
                    .last()
                    .is_some_and(|last| duration_ns > last.duration_ns()))
    }

    pub(super) fn add(&mut self, wait: LongWait) {
        if !self.takes(wait.duration_ns()) {
            return;
        }
        let place = self
            .waits
            .partition_point(|other| other.duration_ns() >= wait.duration_ns());
        self.waits.insert(place, wait);
        self.waits.truncate(MAX_WORST);
    }

    /// The longest first.
    pub fn iter(&self) -> impl Iterator<Item = &LongWait> {
        self.waits.iter()
    }

    fn since(&self, at_ns: u64) -> Self {
        let later = |wait: &&LongWait| wait.until_ns > at_ns;
        Self {
            waits: self.waits.iter().filter(later).cloned().collect(),
        }
    }
}
