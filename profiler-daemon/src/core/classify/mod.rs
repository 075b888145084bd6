//! From evidence to a reason: why a thread was blocked.
//!
//! The evidence is weighed in the order of its strength: the kernel function that the thread waited
//! in, the system call with the kind of file that it works on, whether it waited for a block device,
//! its state word. Where none of it says what the thread waited for, the reason is `other` with the
//! name of the call, or `unknown`; it is never guessed. What decided is kept with the result.
//!
//! The rules are data: [`syscalls`] and [`symbols`].

pub mod call;
pub mod symbols;
pub mod syscalls;

pub use call::Call;
pub use symbols::{RuleId, Stack};

use std::sync::LazyLock;

use super::reason::Reason;
use super::state::WaitState;

/// What a file descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileKind {
    /// Nobody looked, or the call takes no descriptor.
    NotKnown,
    /// A regular file or directory.
    Regular,
    /// A block device.
    Block,
    /// A pipe or FIFO.
    Pipe,
    /// An IPv4 or IPv6 socket.
    InetSocket,
    /// A Unix-domain socket.
    UnixSocket,
    /// A socket of another family, such as netlink.
    OtherSocket,
    /// A terminal.
    Tty,
    /// Another character device.
    Char,
    /// An eventfd, signalfd, pidfd, inotify, fanotify or epoll descriptor.
    Event,
    /// A timerfd.
    Timer,
    /// An `io_uring`.
    IoUring,
    /// A userfaultfd.
    Userfault,
    /// Another file without a name.
    Anonymous,
}

impl FileKind {
    /// How many there are.
    pub const COUNT: usize = 14;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NotKnown,
        Self::Regular,
        Self::Block,
        Self::Pipe,
        Self::InetSocket,
        Self::UnixSocket,
        Self::OtherSocket,
        Self::Tty,
        Self::Char,
        Self::Event,
        Self::Timer,
        Self::IoUring,
        Self::Userfault,
        Self::Anonymous,
    ];

    /// The name in explanations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotKnown => "unknown file",
            Self::Regular => "regular file",
            Self::Block => "block device",
            Self::Pipe => "pipe",
            Self::InetSocket => "inet socket",
            Self::UnixSocket => "unix socket",
            Self::OtherSocket => "other socket",
            Self::Tty => "terminal",
            Self::Char => "character device",
            Self::Event => "event descriptor",
            Self::Timer => "timerfd",
            Self::IoUring => "io_uring",
            Self::Userfault => "userfaultfd",
            Self::Anonymous => "anonymous file",
        }
    }
}

/// Everything known of a wait that bears on its reason.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// How it waited, by its state word.
    pub state: WaitState,
    /// Whether it waited for a block device (`in_iowait`).
    pub iowait: bool,
    /// Whether it is a kernel thread.
    pub kthread: bool,
    /// The system call that it waited in.
    pub call: Call,
    /// What the call's descriptor stands for.
    pub file: FileKind,
    /// The rule that its kernel stack fits, and what that says.
    pub symbol: Option<(RuleId, Reason)>,
}

/// What decided on a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Basis {
    /// A kernel function was on the stack.
    Symbol(RuleId),
    /// The system call says it alone.
    Call,
    /// The system call and the kind of file say it together.
    CallOnFile,
    /// It waited for a block device.
    Iowait,
    /// The state word says it.
    State,
    /// It is a kernel thread that sleeps.
    KernelThread,
    /// It was outside of any system call, in a page fault that waited for a device.
    FaultIowait,
    /// Nothing.
    Nothing,
}

/// Why a thread waited, with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wait {
    /// Why.
    pub reason: Reason,
    /// What decided.
    pub basis: Basis,
    /// How it waited, by its state word.
    pub state: WaitState,
    /// Whether it waited for a block device (`in_iowait`).
    pub iowait: bool,
    /// Whether it is a kernel thread.
    pub kthread: bool,
    /// The system call that it waited in.
    pub call: Call,
    /// What the call's descriptor stands for.
    pub file: FileKind,
}

impl Wait {
    /// The reason's name; of [`Reason::Other`] with the call's, as in `other(getrandom)`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.reason {
            Reason::Other => format!("{}({})", Reason::Other.name(), self.call.name()),
            reason => reason.name().to_owned(),
        }
    }

    /// What decided, in words.
    #[must_use]
    pub fn explain(&self) -> String {
        let call = self.call.name();
        match self.basis {
            Basis::Symbol(rule) => format!("kernel function {}", rule.symbol()),
            Basis::Call => format!("system call {call}"),
            Basis::CallOnFile => format!("system call {call}, {}", self.file.name()),
            Basis::Iowait => "waits for a block device (in_iowait)".to_owned(),
            Basis::State => format!("state {}", self.state.name()),
            Basis::KernelThread => "a kernel thread asleep".to_owned(),
            Basis::FaultIowait => "a page fault that waits for a block device".to_owned(),
            Basis::Nothing => "no evidence".to_owned(),
        }
    }

    /// The same wait with a stronger judgement, once more is known of it.
    #[must_use]
    pub fn with(&self, file: FileKind, stack: &Stack) -> Self {
        classify(&Evidence {
            state: self.state,
            iowait: self.iowait,
            kthread: self.kthread,
            call: self.call,
            file: if self.call.takes_file() {
                file
            } else {
                FileKind::NotKnown
            },
            symbol: stack.found(),
        })
    }
}

/// What a thread waits in that sleeps in this system call, when nothing else is known: what nearly every wait
/// begins as. `None` if it is not the number of a call, and rather to be asked of [`classify`].
#[must_use]
#[inline]
pub fn asleep_in(number: u16) -> Option<Wait> {
    static WAITS: LazyLock<Vec<Wait>> = LazyLock::new(|| {
        let wait = |number| {
            classify(&Evidence {
                state: WaitState::Sleeping,
                iowait: false,
                kthread: false,
                call: Call::from_wire(number),
                file: FileKind::NotKnown,
                symbol: None,
            })
        };
        (0..call::NUMBERS).map(wait).collect()
    });
    WAITS.get(usize::from(number)).copied()
}

/// Says why a thread waited.
#[must_use]
pub fn classify(evidence: &Evidence) -> Wait {
    let (reason, basis) = judge(evidence);
    Wait {
        reason,
        basis,
        state: evidence.state,
        iowait: evidence.iowait,
        kthread: evidence.kthread,
        call: evidence.call,
        file: evidence.file,
    }
}

fn judge(evidence: &Evidence) -> (Reason, Basis) {
    // A stop is a stop wherever it caught the thread.
    if matches!(
        evidence.state,
        WaitState::Stopped | WaitState::Traced | WaitState::Frozen
    ) {
        return (Reason::Stopped, Basis::State);
    }
    // So is a spinlock that sleeps, whatever the thread was about. Most of these waits are too short to be looked at,
    // and the functions of the longer ones must not make another wait of the same lock.
    if evidence.state == WaitState::RtLock {
        return (Reason::KernelLock, Basis::State);
    }
    let by_call = evidence.call.waits_for(evidence.file);
    if let Some((rule, reason)) = evidence.symbol {
        // Calls that make data safe wait for the same things as others; only the call tells them apart.
        let syncs = matches!(by_call, Some((_, Reason::FsSync)));
        let reason = match reason {
            Reason::DiskIo if syncs => Reason::FsSync,
            reason => reason,
        };
        return (reason, Basis::Symbol(rule));
    }
    if matches!(evidence.state, WaitState::Idle | WaitState::Parked) {
        return (Reason::KthreadIdle, Basis::State);
    }
    if let Some((needs_file, reason)) = by_call {
        let basis = if needs_file {
            Basis::CallOnFile
        } else {
            Basis::Call
        };
        return (reason, basis);
    }
    if evidence.iowait {
        // Only a fault brings a thread to a device from outside of a system call.
        return if evidence.call == Call::None && !evidence.kthread {
            (Reason::PageFault, Basis::FaultIowait)
        } else {
            (Reason::DiskIo, Basis::Iowait)
        };
    }
    match (evidence.call, evidence.kthread, evidence.state) {
        (Call::Number(_) | Call::Foreign, _, _) => (Reason::Other, Basis::Call),
        (_, true, WaitState::Sleeping) => (Reason::KthreadIdle, Basis::KernelThread),
        _ => (Reason::Unknown, Basis::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::{Basis, Call, Evidence, FileKind, Stack, Wait, classify, symbols};
    use crate::core::reason::Reason;
    use crate::core::state::WaitState;

    const NOTHING: Evidence = Evidence {
        state: WaitState::Sleeping,
        iowait: false,
        kthread: false,
        call: Call::None,
        file: FileKind::NotKnown,
        symbol: None,
    };

    #[track_caller]
    fn check(evidence: Evidence, reason: Reason, basis: Basis) -> Wait {
        let wait = classify(&evidence);
        assert_eq!((wait.reason, wait.basis), (reason, basis), "{evidence:?}");
        wait
    }

    fn stack(frames: &[&str]) -> Stack {
        Stack::new(frames.iter().map(|&frame| frame.to_owned()).collect())
    }

    fn call(name: &str) -> Call {
        Call::named(name).expect("a call of every architecture")
    }

    #[test]
    fn a_stop_outweighs_everything() {
        let symbol = symbols::find(&["futex_do_wait"]);
        for state in [WaitState::Stopped, WaitState::Traced, WaitState::Frozen] {
            let evidence = Evidence {
                state,
                symbol,
                ..NOTHING
            };
            check(evidence, Reason::Stopped, Basis::State);
        }
    }

    #[test]
    fn a_sleeping_spinlock_is_a_lock_of_the_kernel_wherever_it_is() {
        let short = check(
            Evidence {
                state: WaitState::RtLock,
                call: call("futex"),
                ..NOTHING
            },
            Reason::KernelLock,
            Basis::State,
        );
        let frames = ["schedule_rtlock", "rt_spin_lock", "futex_wait_setup"];
        let long = short.with(FileKind::NotKnown, &stack(&frames));
        assert_eq!((long.reason, long.basis), (short.reason, short.basis));
    }

    #[test]
    fn a_stack_outweighs_a_call() {
        let read = check(
            Evidence {
                call: call("read"),
                ..NOTHING
            },
            Reason::Other,
            Basis::Call,
        );
        assert_eq!(read.name(), "other(read)");
        let wait = read.with(
            FileKind::Pipe,
            &stack(&["__schedule", "handle_userfault", "pipe_read"]),
        );
        assert_eq!(wait.reason, Reason::PageFault);
        assert_eq!(wait.explain(), "kernel function handle_userfault");
    }

    #[test]
    fn a_call_counts_where_the_stack_says_nothing() {
        let read = classify(&Evidence {
            call: call("read"),
            ..NOTHING
        });
        let wait = read.with(FileKind::InetSocket, &stack(&["__schedule", "schedule"]));
        assert_eq!(
            (wait.reason, wait.basis),
            (Reason::NetRecv, Basis::CallOnFile)
        );
        assert_eq!(wait.explain(), "system call read, inet socket");
        let futex = Evidence {
            call: call("futex"),
            ..NOTHING
        };
        check(futex, Reason::Lock, Basis::Call);
        let foreign = Evidence {
            call: Call::Foreign,
            ..NOTHING
        };
        let wait = check(foreign, Reason::Other, Basis::Call);
        assert_eq!(wait.name(), "other(foreign-abi)");
    }

    #[test]
    fn a_device_wait_of_a_syncing_call_is_a_sync() {
        for (name, reason) in [("fdatasync", Reason::FsSync), ("read", Reason::DiskIo)] {
            let wait = classify(&Evidence {
                call: call(name),
                ..NOTHING
            });
            let wait = wait.with(FileKind::Regular, &stack(&["io_schedule"]));
            assert_eq!(wait.reason, reason, "{name}");
        }
    }

    #[test]
    fn a_device_wait_counts_where_the_call_says_nothing() {
        let waits = Evidence {
            state: WaitState::Uninterruptible,
            iowait: true,
            ..NOTHING
        };
        check(waits, Reason::PageFault, Basis::FaultIowait);
        let in_call = Evidence {
            call: call("openat"),
            ..waits
        };
        check(in_call, Reason::DiskIo, Basis::Iowait);
        let kthread = Evidence {
            kthread: true,
            ..waits
        };
        check(kthread, Reason::DiskIo, Basis::Iowait);
        let unread = Evidence {
            call: Call::NotRead,
            ..waits
        };
        check(unread, Reason::DiskIo, Basis::Iowait);
    }

    #[test]
    fn kernel_threads_idle_only_where_they_say_so() {
        let of = |state| Evidence {
            kthread: true,
            state,
            ..NOTHING
        };
        check(
            of(WaitState::Sleeping),
            Reason::KthreadIdle,
            Basis::KernelThread,
        );
        check(of(WaitState::Idle), Reason::KthreadIdle, Basis::State);
        check(of(WaitState::Parked), Reason::KthreadIdle, Basis::State);
        let busy = of(WaitState::Uninterruptible);
        check(busy, Reason::Unknown, Basis::Nothing);
    }

    #[test]
    fn without_evidence_nothing_is_said() {
        check(NOTHING, Reason::Unknown, Basis::Nothing);
        let unread = Evidence {
            call: Call::NotRead,
            ..NOTHING
        };
        check(unread, Reason::Unknown, Basis::Nothing);
    }
}
