//! What a thread's state word says.

/// How a thread that is neither running nor runnable waits, by its state word alone.
///
/// The bits are the kernel's (`include/linux/sched.h`); their meaning has been the same from 5.10 on,
/// apart from the newest three, which older kernels never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum WaitState {
    /// `S`: an ordinary wait that a signal ends: locks, sockets, pipes, timers.
    Sleeping,
    /// `D`: a wait that no signal ends, mostly for a device or a kernel lock. Counts as load.
    Uninterruptible,
    /// `I`: a kernel thread with nothing to do (`D` that does not count as load).
    Idle,
    /// `T`: stopped by a signal.
    Stopped,
    /// `t`: stopped by a debugger.
    Traced,
    /// `P`: a kernel thread that was parked.
    Parked,
    /// Frozen by the cgroup freezer or for suspend (6.1 and newer show it as a state).
    Frozen,
    /// Waits for a sleeping spinlock of a `PREEMPT_RT` kernel.
    RtLock,
    /// A state word with no bit that is known here.
    Other,
}

/// How a state word from the scheduler is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateWord {
    /// The thread still wants to run.
    Runnable,
    /// It waits.
    Waiting(WaitState),
    /// It is gone for good: this was its last switch.
    Dead,
    /// It is being made and was never on a run queue. Only the task iterator sees this.
    New,
}

const INTERRUPTIBLE: u32 = 0x1;
const UNINTERRUPTIBLE: u32 = 0x2;
const STOPPED: u32 = 0x4;
const TRACED: u32 = 0x8;
const PARKED: u32 = 0x40;
const DEAD: u32 = 0x80;
/// `EXIT_DEAD` and `EXIT_ZOMBIE`: bits of `task->exit_state`, which share the numbering.
const EXITING: u32 = 0x30;
const NOLOAD: u32 = 0x400;
const NEW: u32 = 0x800;
const RTLOCK_WAIT: u32 = 0x1000;
const FROZEN: u32 = 0x8000;

/// Bit and meaning, the first that is set decides; `NOLOAD` qualifies `UNINTERRUPTIBLE`.
const TABLE: [(u32, WaitState); 7] = [
    (STOPPED, WaitState::Stopped),
    (TRACED, WaitState::Traced),
    (FROZEN, WaitState::Frozen),
    (PARKED, WaitState::Parked),
    (RTLOCK_WAIT, WaitState::RtLock),
    (UNINTERRUPTIBLE, WaitState::Uninterruptible),
    (INTERRUPTIBLE, WaitState::Sleeping),
];

impl WaitState {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Sleeping,
        Self::Uninterruptible,
        Self::Idle,
        Self::Stopped,
        Self::Traced,
        Self::Parked,
        Self::Frozen,
        Self::RtLock,
        Self::Other,
    ];

    /// The name in reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sleeping => "sleeping",
            Self::Uninterruptible => "uninterruptible",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Parked => "parked",
            Self::Frozen => "frozen",
            Self::RtLock => "rt-lock",
            Self::Other => "other",
        }
    }

    /// Its place in arrays by wait state.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl StateWord {
    /// Reads a state word.
    ///
    /// `preempted` is the tracepoint's argument: a thread that was preempted is runnable whatever its
    /// word says, since it may have been on its way to sleep.
    #[must_use]
    #[inline]
    pub fn read(word: u32, preempted: bool) -> Self {
        if preempted {
            return Self::Runnable;
        }
        // Nearly all sleep like this.
        if word == INTERRUPTIBLE {
            return Self::Waiting(WaitState::Sleeping);
        }
        if word & DEAD != 0 {
            return Self::Dead;
        }
        if word & NEW != 0 {
            return Self::New;
        }
        // A thread on its last steps is known by its exit state, and still runs.
        let word = word & !EXITING;
        match TABLE.iter().find(|(bit, _)| word & bit != 0) {
            Some((_, WaitState::Uninterruptible)) if word & NOLOAD != 0 => {
                Self::Waiting(WaitState::Idle)
            }
            Some(&(_, state)) => Self::Waiting(state),
            None if word == 0 => Self::Runnable,
            None => Self::Waiting(WaitState::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{StateWord, WaitState};

    #[track_caller]
    fn check(word: u32, expected: StateWord) {
        assert_eq!(
            StateWord::read(word, false),
            expected,
            "state word {word:#x}"
        );
    }

    #[test]
    fn words_seen_on_real_kernels() {
        check(0x0, StateWord::Runnable);
        check(0x1, StateWord::Waiting(WaitState::Sleeping));
        check(0x2001, StateWord::Waiting(WaitState::Sleeping));
        check(0x2, StateWord::Waiting(WaitState::Uninterruptible));
        check(0x102, StateWord::Waiting(WaitState::Uninterruptible));
        check(0x402, StateWord::Waiting(WaitState::Idle));
        check(0x104, StateWord::Waiting(WaitState::Stopped));
        check(0x8, StateWord::Waiting(WaitState::Traced));
        check(0x40, StateWord::Waiting(WaitState::Parked));
        check(0x8000, StateWord::Waiting(WaitState::Frozen));
        check(0x1000, StateWord::Waiting(WaitState::RtLock));
        check(0x80, StateWord::Dead);
        check(0xa0, StateWord::Dead);
        check(0x20, StateWord::Runnable);
        check(0x800, StateWord::New);
        check(0x200, StateWord::Waiting(WaitState::Other));
    }

    #[test]
    fn preemption_overrules_every_word() {
        for bit in 0..16 {
            assert_eq!(StateWord::read(1 << bit, true), StateWord::Runnable);
        }
    }

    #[test]
    fn indices_follow_the_list() {
        for (place, state) in WaitState::ALL.iter().enumerate() {
            assert_eq!(state.index(), place);
        }
    }
}
