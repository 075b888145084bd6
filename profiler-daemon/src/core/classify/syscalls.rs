//! What a system call waits for, where its name, or its name and the kind of its file, says so.

use super::FileKind;
use crate::core::reason::Reason;

/// One rule: these calls on this kind of file wait for this. The first rule that fits decides.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The calls.
    pub calls: &'static [&'static str],
    /// The kind of file that the call's first argument must stand for; `None` for any.
    pub file: Option<FileKind>,
    /// What a thread in it waits for.
    pub reason: Reason,
}

const READS: &[&str] = &["read", "readv", "pread64", "preadv", "preadv2"];
const WRITES: &[&str] = &["write", "writev", "pwrite64", "pwritev", "pwritev2"];
const RECEIVES: &[&str] = &["recvfrom", "recvmsg", "recvmmsg", "recv"];
const SENDS: &[&str] = &["sendto", "sendmsg", "sendmmsg", "send"];

const fn any(calls: &'static [&'static str], reason: Reason) -> Rule {
    Rule {
        calls,
        file: None,
        reason,
    }
}

const fn on(calls: &'static [&'static str], file: FileKind, reason: Reason) -> Rule {
    Rule {
        calls,
        file: Some(file),
        reason,
    }
}

/// The rules. Calls that may wait for several things and show which only by their stack are left out.
/// So are files on a disk: who reads or writes one may wait for a lock as well, and who waits for the
/// disk is marked as such by the kernel.
pub const RULES: &[Rule] = &[
    any(&["futex", "futex_waitv", "futex_wait"], Reason::Lock),
    any(&["flock", "semop", "semtimedop"], Reason::Lock),
    any(
        &["epoll_wait", "epoll_pwait", "epoll_pwait2"],
        Reason::EventWait,
    ),
    any(&["poll", "ppoll", "select", "pselect6"], Reason::EventWait),
    any(
        &["pause", "rt_sigsuspend", "rt_sigtimedwait"],
        Reason::EventWait,
    ),
    any(&["nanosleep", "clock_nanosleep"], Reason::Sleep),
    any(
        &[
            "fsync",
            "fdatasync",
            "sync",
            "syncfs",
            "sync_file_range",
            "msync",
        ],
        Reason::FsSync,
    ),
    any(&["wait4", "waitid", "vfork"], Reason::ChildWait),
    any(&["io_uring_enter"], Reason::IoUring),
    any(&["accept", "accept4"], Reason::NetAccept),
    any(&["exit", "exit_group"], Reason::Exit),
    on(READS, FileKind::Pipe, Reason::Pipe),
    on(READS, FileKind::InetSocket, Reason::NetRecv),
    on(READS, FileKind::UnixSocket, Reason::UnixSocket),
    on(READS, FileKind::Tty, Reason::Tty),
    on(READS, FileKind::Event, Reason::EventWait),
    on(READS, FileKind::Timer, Reason::Sleep),
    on(READS, FileKind::Userfault, Reason::EventWait),
    on(WRITES, FileKind::Pipe, Reason::Pipe),
    on(WRITES, FileKind::InetSocket, Reason::NetSend),
    on(WRITES, FileKind::UnixSocket, Reason::UnixSocket),
    on(WRITES, FileKind::Tty, Reason::Tty),
    on(RECEIVES, FileKind::InetSocket, Reason::NetRecv),
    on(RECEIVES, FileKind::UnixSocket, Reason::UnixSocket),
    on(SENDS, FileKind::InetSocket, Reason::NetSend),
    on(SENDS, FileKind::UnixSocket, Reason::UnixSocket),
    on(&["connect"], FileKind::InetSocket, Reason::NetConnect),
    on(&["connect"], FileKind::UnixSocket, Reason::UnixSocket),
    on(&["splice", "tee", "vmsplice"], FileKind::Pipe, Reason::Pipe),
];

/// The rule for a call on a kind of file: whether the kind of file was needed, and what it waits for.
#[must_use]
pub fn find(call: &str, file: FileKind) -> Option<(bool, Reason)> {
    RULES
        .iter()
        .find(|rule| rule.calls.contains(&call) && rule.file.is_none_or(|kind| kind == file))
        .map(|rule| (rule.file.is_some(), rule.reason))
}

#[cfg(test)]
mod tests {
    use super::{FileKind, RULES, find};

    #[test]
    fn every_rule_decides_for_its_own_calls() {
        for rule in RULES {
            for &call in rule.calls {
                let file = rule.file.unwrap_or(FileKind::NotKnown);
                let expected = Some((rule.file.is_some(), rule.reason));
                assert_eq!(find(call, file), expected, "{call} on {file:?}");
            }
        }
    }

    #[test]
    fn a_call_that_needs_its_file_is_not_guessed_without() {
        for call in [
            "read", "write", "recvfrom", "sendmsg", "connect", "splice", "ioctl", "clone3",
        ] {
            assert_eq!(find(call, FileKind::NotKnown), None, "{call}");
        }
    }
}
