//! The record of a thread that the task iterator finds.

use core::mem::{offset_of, size_of};

use crate::COMM_BYTES;

/// Size of [`ThreadRecord`], in bytes.
pub const THREAD_RECORD_BYTES: usize = size_of::<ThreadRecord>();

/// A thread that was there when the probes were attached, as the task iterator found it.
///
/// It says what the thread was doing when it was read, and nothing about when that began.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "decode",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
pub struct ThreadRecord {
    /// The thread's `start_boottime`, as in [`crate::Fork::start_ns`].
    pub start_ns: u64,
    /// Its cumulative run-queue delay, the wait that it may be in not included.
    pub run_delay_ns: u64,
    /// Its name, NUL-padded.
    pub comm: [u8; COMM_BYTES],
    /// Its id.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// The process that is its parent.
    pub parent_tgid: u32,
    /// Its state word, whole.
    pub state: u32,
    /// The CPU that it is on, or was last on.
    pub cpu: u32,
    /// What [`crate::Switch::next_runs`] was when it was last given a CPU (`sched_info.pcount - 1`, which
    /// wraps to 65,535 for a thread that never ran), so that its next switch-in reads one more.
    pub runs: u16,
    /// Zero.
    pub _pad: u8,
    /// [`thread_flags`].
    pub flags: u8,
    /// Its cgroup in the hierarchy of the cpu controller, by its id: the inode number of the group's
    /// directory (1 is the root). 0 if it is not known, or the thread is in the root and an autogroup.
    pub cpu_cgroup: u64,
    /// With [`thread_flags::SYSCALL`]: the system call that it sleeps in, as [`crate::Switch::prev_syscall`].
    /// Else 0.
    pub syscall: u16,
    /// Zero.
    pub _pad2: [u8; 6],
}

/// Bits of [`ThreadRecord::flags`] and [`crate::Fork::flags`].
pub mod thread_flags {
    /// A kernel thread (`PF_KTHREAD`).
    pub const KTHREAD: u8 = 1 << 0;
    /// On a CPU at this moment (`task->on_cpu`).
    pub const ON_CPU: u8 = 1 << 1;
    /// In a block-device wait (`task->in_iowait`).
    pub const IOWAIT: u8 = 1 << 2;
    /// Made with a name of its own, not its parent's; a [`crate::Rename`] of the same time tells it.
    pub const OWN_NAME: u8 = 1 << 3;
    /// [`super::ThreadRecord::syscall`] was read. It is read only for a user thread that sleeps, and only
    /// if system calls are asked for.
    pub const SYSCALL: u8 = 1 << 4;
}

const _: () = {
    assert!(THREAD_RECORD_BYTES == 72);
    assert!(offset_of!(ThreadRecord, run_delay_ns) == 8);
    assert!(offset_of!(ThreadRecord, comm) == 16);
    assert!(offset_of!(ThreadRecord, tid) == 32);
    assert!(offset_of!(ThreadRecord, cpu) == 48);
    assert!(offset_of!(ThreadRecord, runs) == 52);
    assert!(offset_of!(ThreadRecord, flags) == 55);
    assert!(offset_of!(ThreadRecord, cpu_cgroup) == 56);
    assert!(offset_of!(ThreadRecord, syscall) == 64);
};
