//! What a thread's time is booked as: the four shares, and what they are divided into.

use super::reason::{self, Reason};

/// The four parts of wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Share {
    /// On a CPU.
    Running,
    /// On a run queue, waiting for a CPU.
    Runnable,
    /// Waiting for something else.
    Blocked,
    /// Not known.
    Unknown,
}

impl Share {
    /// All four, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Running, Self::Runnable, Self::Blocked, Self::Unknown];

    /// The name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Runnable => "runnable",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a thread on a run queue did not run. Each nanosecond has one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cause {
    /// Another thread, or an interrupt, had the CPU whose queue it was on.
    Contended,
    /// The CPU quota of its cgroup, or of one above it, was used up.
    Throttled,
    /// The CPU was idle: on its way out of idling, or not told yet.
    Placement,
    /// Nobody can tell: records of that CPU were lost, or are too long ago.
    Unknown,
}

impl Cause {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Contended,
        Self::Throttled,
        Self::Placement,
        Self::Unknown,
    ];

    /// The name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contended => "contended",
            Self::Throttled => "throttled",
            Self::Placement => "placement",
            Self::Unknown => "unknown",
        }
    }
}

/// How a stay on a run queue began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Origin {
    /// A wait was over.
    Woken,
    /// The thread still wanted to run when it lost the CPU.
    Preempted,
    /// It gave the CPU away of itself (`sched_yield`).
    Yielded,
    /// It was born.
    Forked,
    /// It was on the run queue already when the window began or the thread was found.
    Found,
}

impl Origin {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Woken,
        Self::Preempted,
        Self::Yielded,
        Self::Forked,
        Self::Found,
    ];

    /// The name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Woken => "woken",
            Self::Preempted => "preempted",
            Self::Yielded => "yielded",
            Self::Forked => "forked",
            Self::Found => "unknown",
        }
    }
}

/// What a stretch of a thread's time was spent on, as finely as it is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// On a CPU.
    Running,
    /// Nobody knows.
    Unknown,
    /// Nobody knows, because records of the thread were left out on purpose.
    Shed,
    /// On a run queue.
    Queued(Origin, Cause),
    /// Waiting for something else than a CPU.
    Blocked(Reason),
}

impl Spent {
    /// How many there are.
    pub const COUNT: usize = BLOCKED + Reason::COUNT;

    /// Its place in arrays of all of them.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Running => 0,
            Self::Unknown => 1,
            Self::Shed => 2,
            Self::Queued(origin, cause) => QUEUED + origin as usize * Cause::COUNT + cause as usize,
            Self::Blocked(reason) => BLOCKED + reason.index(),
        }
    }

    /// The share that it is a part of.
    #[must_use]
    pub const fn share(self) -> Share {
        match self {
            Self::Running => Share::Running,
            Self::Unknown | Self::Shed => Share::Unknown,
            Self::Queued(..) => Share::Runnable,
            Self::Blocked(_) => Share::Blocked,
        }
    }

    /// All of them, in the order of their places.
    pub fn all() -> impl Iterator<Item = Self> {
        let queued = Origin::ALL.into_iter().flat_map(|origin| {
            Cause::ALL
                .into_iter()
                .map(move |cause| Self::Queued(origin, cause))
        });
        let blocked = reason::DOCS.iter().map(|doc| Self::Blocked(doc.reason));
        [Self::Running, Self::Unknown, Self::Shed]
            .into_iter()
            .chain(queued)
            .chain(blocked)
    }
}

const QUEUED: usize = 3;
const BLOCKED: usize = QUEUED + Origin::COUNT * Cause::COUNT;

#[cfg(test)]
mod tests {
    use super::{Cause, Origin, Spent};

    #[test]
    fn each_has_its_place() {
        assert_eq!(Spent::all().count(), Spent::COUNT);
        for (place, spent) in Spent::all().enumerate() {
            assert_eq!(spent.index(), place, "{spent:?}");
        }
        for (place, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, place);
        }
        for (place, origin) in Origin::ALL.iter().enumerate() {
            assert_eq!(*origin as usize, place);
        }
    }
}
