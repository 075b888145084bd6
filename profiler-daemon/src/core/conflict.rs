//! What to do when records contradict one another: each way has a name, a rule and a count.
//!
//! The rules have one thing in common. Time in which the thread's state was seen stays what it was;
//! time after the first moment that can't be trusted becomes `unknown`; and no sample is made from
//! an interval that was interrupted. "Since the loss" below means: since the first loss that may
//! concern the thread, and if none is known, since its last change of state.

/// A contradiction between records, or between a record and the kernel's own figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Conflict {
    /// A record names a thread that nobody announced. It is observed from that record on.
    UnseenThread,
    /// A thread was known to run, and the CPU switched away from another one, or it got a CPU anew.
    /// Its time since the loss is unknown.
    MissedSwitchOut,
    /// A thread left a CPU and was known to wait. Its time since the loss is unknown.
    MissedSwitchIn,
    /// The kernel's own count says that a thread ran in between. Its time since the loss is unknown.
    MissedRun,
    /// A waiting thread came in and nothing says when it was woken. The whole wait is unknown.
    MissedWakeup,
    /// A thread left one CPU while it was known to run on another. Its time since the loss is unknown.
    RanElsewhere,
    /// A thread was born under the id of one that was not known to be gone. The old one is closed, its
    /// time since the loss unknown.
    TidReused,
    /// A record is older than what is known of its thread, or than what has been shown already. It
    /// counts as of then, what its thread did since the record's time is unknown, and nothing that
    /// it begins or ends gives a sample.
    Inverted,
    /// The kernel's run-queue delay and the records' differ by more than clocks explain. If the
    /// records say when the thread lost the CPU still wanting it, they count and the difference is
    /// only reported. If it waited, the time between the two wakeups is unknown and gives no sample.
    DelayDisagrees,
    /// A thread was woken that had been woken already and had not run since. The time between the two
    /// is unknown, and the stay on the run queue gives no sample.
    WokenTwice,
    /// A thread in doubt is not among those that the task iterator found: its end was lost. It is
    /// closed, its time since the loss unknown.
    MissedExit,
}

impl Conflict {
    /// How many there are.
    pub const COUNT: usize = 11;

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
        Self::WokenTwice,
        Self::MissedExit,
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
            Self::WokenTwice => "woken-twice",
            Self::MissedExit => "missed-exit",
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

    /// What was added since `earlier`, an older copy of these.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|place| {
            self.0[place].saturating_sub(earlier.0[place])
        }))
    }
}
