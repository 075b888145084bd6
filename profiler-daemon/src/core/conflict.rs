//! What to do when records contradict one another: each way has a name, a rule and a count.
//!
//! The rules have one thing in common. Time in which the thread's state was seen stays what it was;
//! time after the first moment that can't be trusted becomes `unknown`; and no sample is made from
//! an interval that was interrupted.

/// A contradiction between records, or between a record and the kernel's own figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Conflict {
    /// A record names a thread that nobody announced. It is observed from that record on.
    UnseenThread,
    /// A CPU switched away from another thread than the one it was known to run. The one it was
    /// known to run left unseen: its time since the loss is unknown, and so is what it does now.
    MissedSwitchOut,
    /// A thread left a CPU that it was not known to be on. Its time since the loss is unknown.
    MissedSwitchIn,
    /// The kernel's own count says that a thread ran in between. Its time since the loss is unknown.
    MissedRun,
    /// A waiting thread came in and nothing says when it was woken. The whole wait is unknown.
    MissedWakeup,
    /// A thread left one CPU while it was known to run on another. Its time since then is unknown.
    RanElsewhere,
    /// A thread was born under the id of one that was not known to be gone. The old one is closed.
    TidReused,
    /// A record is older than what is known of its thread. It counts as of then; no sample is made.
    Inverted,
    /// The kernel's run-queue delay and the records' differ by more than clocks explain. The records
    /// count, the difference is only reported.
    DelayDisagrees,
}

impl Conflict {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::UnseenThread,
        Self::MissedSwitchOut,
        Self::MissedSwitchIn,
        Self::MissedRun,
        Self::MissedWakeup,
        Self::RanElsewhere,
        Self::TidReused,
        Self::Inverted,
        Self::DelayDisagrees,
    ];

    /// The name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnseenThread => "unseen-thread",
            Self::MissedSwitchOut => "missed-switch-out",
            Self::MissedSwitchIn => "missed-switch-in",
            Self::MissedRun => "missed-run",
            Self::MissedWakeup => "missed-wakeup",
            Self::RanElsewhere => "ran-elsewhere",
            Self::TidReused => "tid-reused",
            Self::Inverted => "inverted",
            Self::DelayDisagrees => "delay-disagrees",
        }
    }
}

/// How often each conflict was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conflicts([u64; Conflict::COUNT]);

impl Conflicts {
    /// Counts one.
    pub fn count(&mut self, conflict: Conflict) {
        self.0[conflict as usize] += 1;
    }

    /// How often this one was met.
    #[must_use]
    pub fn of(&self, conflict: Conflict) -> u64 {
        self.0[conflict as usize]
    }

    /// Name and number of each.
    pub fn iter(&self) -> impl Iterator<Item = (Conflict, u64)> + '_ {
        Conflict::ALL
            .iter()
            .map(|&conflict| (conflict, self.of(conflict)))
    }
}
