//! From evidence to a reason: why a thread was blocked.
//!
//! The evidence is weighed in the order of its strength: the kernel function that the thread waited
//! in, the system call with the kind of file that it works on, whether it waited for a block device,
//! its state word. Where none of it says what the thread waited for, the reason is `other` with the
//! name of the call, or `unknown`; it is never guessed. What decided is kept with the result.
//!
//! The rules are data: [`syscalls`] and [`symbols`].

pub mod symbols;
pub mod syscalls;

use super::reason::Reason;
use super::state::WaitState;

/// What a file descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// An eventfd, timerfd, signalfd, pidfd, inotify, fanotify or epoll descriptor.
    Event,
    /// An `io_uring`.
    IoUring,
    /// A userfaultfd.
    Userfault,
    /// Another file without a name.
    Anonymous,
}

impl FileKind {
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
            Self::IoUring => "io_uring",
            Self::Userfault => "userfaultfd",
            Self::Anonymous => "anonymous file",
        }
    }
}

/// Everything known of a wait that bears on its reason.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// How it waited, by its state word.
    pub state: WaitState,
    /// Whether it waited for a block device (`in_iowait`).
    pub iowait: bool,
    /// Whether it is a kernel thread.
    pub kthread: bool,
    /// Name of the system call that it waited in; `None` outside of one.
    pub syscall: Option<&'static str>,
    /// Whether the system call was looked at: without, none means nothing.
    pub syscall_read: bool,
    /// What the call's descriptor stands for.
    pub file: FileKind,
    /// Names of the kernel functions that it waited in, the innermost first; empty if not taken.
    pub stack: &'a [&'a str],
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// This kernel function was on the stack.
    Symbol(&'static str),
    /// The system call says it alone.
    Syscall(&'static str),
    /// The system call and the kind of file say it together.
    SyscallOnFile(&'static str, FileKind),
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

/// A reason and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why it waited.
    pub reason: Reason,
    /// What decided.
    pub basis: Basis,
}

/// Says why a thread waited.
#[must_use]
pub fn classify(evidence: &Evidence<'_>) -> Verdict {
    let verdict = |reason, basis| Verdict { reason, basis };
    // A stop is a stop wherever it caught the thread.
    if matches!(
        evidence.state,
        WaitState::Stopped | WaitState::Traced | WaitState::Frozen
    ) {
        return verdict(Reason::Stopped, Basis::State);
    }
    if let Some((symbol, reason)) = symbols::find(evidence.stack, evidence.syscall) {
        return verdict(reason, Basis::Symbol(symbol));
    }
    if matches!(evidence.state, WaitState::Idle | WaitState::Parked) {
        return verdict(Reason::KthreadIdle, Basis::State);
    }
    if evidence.state == WaitState::RtLock {
        return verdict(Reason::KernelLock, Basis::State);
    }
    let by_call = evidence
        .syscall
        .and_then(|name| syscalls::find(name, evidence.file));
    if let Some((name, needs_file, reason)) = by_call {
        let basis = if needs_file {
            Basis::SyscallOnFile(name, evidence.file)
        } else {
            Basis::Syscall(name)
        };
        return verdict(reason, basis);
    }
    if evidence.iowait {
        // Only a fault brings a thread to a device from outside of a system call.
        let in_user_code = evidence.syscall_read && evidence.syscall.is_none() && !evidence.kthread;
        return if in_user_code {
            verdict(Reason::PageFault, Basis::FaultIowait)
        } else {
            verdict(Reason::DiskIo, Basis::Iowait)
        };
    }
    match (evidence.syscall, evidence.kthread, evidence.state) {
        (Some(name), _, _) => verdict(Reason::Other, Basis::Syscall(name)),
        (None, true, WaitState::Sleeping) => verdict(Reason::KthreadIdle, Basis::KernelThread),
        _ => verdict(Reason::Unknown, Basis::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::{Basis, Evidence, FileKind, Verdict, classify};
    use crate::core::reason::Reason;
    use crate::core::state::WaitState;

    const NOTHING: Evidence<'_> = Evidence {
        state: WaitState::Sleeping,
        iowait: false,
        kthread: false,
        syscall: None,
        syscall_read: true,
        file: FileKind::NotKnown,
        stack: &[],
    };

    #[track_caller]
    fn check(evidence: Evidence<'_>, reason: Reason, basis: Basis) {
        assert_eq!(
            classify(&evidence),
            Verdict { reason, basis },
            "{evidence:?}"
        );
    }

    #[test]
    fn a_stop_outweighs_everything() {
        let stack: &[&str] = &["futex_do_wait"];
        for state in [WaitState::Stopped, WaitState::Traced, WaitState::Frozen] {
            check(
                Evidence {
                    state,
                    stack,
                    ..NOTHING
                },
                Reason::Stopped,
                Basis::State,
            );
        }
    }

    #[test]
    fn a_stack_outweighs_a_call() {
        let evidence = Evidence {
            syscall: Some("read"),
            file: FileKind::Pipe,
            stack: &["__schedule", "handle_userfault", "pipe_read"],
            ..NOTHING
        };
        check(
            evidence,
            Reason::PageFault,
            Basis::Symbol("handle_userfault"),
        );
    }

    #[test]
    fn a_call_counts_where_the_stack_says_nothing() {
        let stack: &[&str] = &["__schedule", "schedule"];
        let read = Evidence {
            syscall: Some("read"),
            stack,
            ..NOTHING
        };
        let basis = Basis::SyscallOnFile("read", FileKind::InetSocket);
        check(
            Evidence {
                file: FileKind::InetSocket,
                ..read
            },
            Reason::NetRecv,
            basis,
        );
        check(read, Reason::Other, Basis::Syscall("read"));
        let futex = Evidence {
            syscall: Some("futex"),
            ..NOTHING
        };
        check(futex, Reason::Lock, Basis::Syscall("futex"));
    }

    #[test]
    fn a_device_wait_counts_where_the_call_says_nothing() {
        let waits = Evidence {
            state: WaitState::Uninterruptible,
            iowait: true,
            ..NOTHING
        };
        check(
            Evidence {
                syscall: Some("openat"),
                ..waits
            },
            Reason::DiskIo,
            Basis::Iowait,
        );
        check(waits, Reason::PageFault, Basis::FaultIowait);
        check(
            Evidence {
                kthread: true,
                ..waits
            },
            Reason::DiskIo,
            Basis::Iowait,
        );
        check(
            Evidence {
                syscall_read: false,
                ..waits
            },
            Reason::DiskIo,
            Basis::Iowait,
        );
    }

    #[test]
    fn kernel_threads_idle_only_where_they_say_so() {
        let kthread = Evidence {
            kthread: true,
            ..NOTHING
        };
        check(kthread, Reason::KthreadIdle, Basis::KernelThread);
        check(
            Evidence {
                state: WaitState::Idle,
                ..kthread
            },
            Reason::KthreadIdle,
            Basis::State,
        );
        check(
            Evidence {
                state: WaitState::Parked,
                ..kthread
            },
            Reason::KthreadIdle,
            Basis::State,
        );
        let busy = Evidence {
            state: WaitState::Uninterruptible,
            ..kthread
        };
        check(busy, Reason::Unknown, Basis::Nothing);
    }

    #[test]
    fn without_evidence_nothing_is_said() {
        check(NOTHING, Reason::Unknown, Basis::Nothing);
        check(
            Evidence {
                syscall_read: false,
                ..NOTHING
            },
            Reason::Unknown,
            Basis::Nothing,
        );
    }
}
