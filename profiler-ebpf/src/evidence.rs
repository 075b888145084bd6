//! What a thread waits in: taken when it is woken, while it still stands there, for long waits; and on
//! demand for waits that have not ended.

use core::mem::{offset_of, size_of};

use crate::COMM_BYTES;

/// The most frames of a kernel stack that are taken.
pub const FRAMES: usize = 24;

/// The most frames of a user stack that are taken.
pub const USER_FRAMES: usize = 64;

/// [`EvidenceRecord::user_stack_id`] of a wait whose user stack was not taken.
pub const NO_USER_STACK: i32 = -1;

/// Size of an [`EvidenceRecord`], in bytes.
pub const EVIDENCE_BYTES: usize = size_of::<EvidenceRecord>();

/// What was seen of a wait as it ended, or while it lasted.
///
/// Which wait it is say [`EvidenceRecord::tid`] and [`EvidenceRecord::left_ns`] together, exactly.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "decode",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
pub struct EvidenceRecord {
    /// When the thread left its CPU: the very time of the [`crate::Switch`]. 0 for a wait that has not
    /// ended and whose beginning was not noted, as it began before the probes were attached.
    pub left_ns: u64,
    /// When it was woken, by the records' clock, to a few microseconds; 0 if the wait has not ended.
    pub woken_ns: u64,
    /// First argument of the system call; what it means depends on the call.
    pub first_argument: u64,
    /// Kernel code addresses, the innermost first; as many as [`EvidenceRecord::frames`] says.
    pub stack: [u64; FRAMES],
    /// The thread.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Type of the file system that the file is in (`super_block.s_magic`).
    pub fs_magic: u32,
    /// The device that a device file stands for, as the kernel keeps it (`inode.i_rdev`).
    pub rdev: u32,
    /// Type and permissions of the file (`inode.i_mode`).
    pub mode: u16,
    /// Of a socket: its family (`AF_...`).
    pub family: u16,
    /// Of a socket: its type (`SOCK_...`).
    pub socket_type: u16,
    /// Of a socket: its protocol (`IPPROTO_...`).
    pub protocol: u16,
    /// The file's name in its directory, NUL-padded: of a file without one what the kernel calls it,
    /// such as `[eventfd]`. Cut to this length.
    pub name: [u8; COMM_BYTES],
    /// As [`crate::Switch::prev_syscall`].
    pub syscall: u16,
    /// Of a socket: its state (`TCP_...`, `include/net/tcp_states.h`).
    pub socket_state: u8,
    /// How many frames there are.
    pub frames: u8,
    /// [`evidence_flags`].
    pub flags: u8,
    /// Zero.
    pub _pad: [u8; 3],
    /// The user stack that the thread left its CPU with, by its id in [`crate::why::maps::USER_STACKS`].
    /// Negative if there is none: [`NO_USER_STACK`] if it was not taken; -17 (`EEXIST`) or -12 (`ENOMEM`)
    /// if the map had no room for it; another error of the kernel's if the thread has none.
    pub user_stack_id: i32,
    /// Zero.
    pub _pad2: [u8; 4],
}

/// Bits of [`EvidenceRecord::flags`].
pub mod evidence_flags {
    /// The first argument is the number of an open file of the thread, and the fields of the file are
    /// set. It was looked up when the record was made. Whether the call takes a file there is not looked at.
    pub const FILE: u8 = 1 << 0;
    /// The file is a socket, and the fields of the socket are set.
    pub const SOCKET: u8 = 1 << 1;
    /// The call's number and argument were read.
    pub const SYSCALL: u8 = 1 << 2;
}

/// What the daemon tells the probes about evidence while they run.
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
pub struct EvidenceControl {
    /// What is added to `CLOCK_MONOTONIC` for the records' clock (wrapping).
    pub record_minus_monotonic_ns: u64,
    /// 1 if the threads of all processes are looked at, else only those of the set.
    pub all: u64,
}

const _: () = {
    assert!(EVIDENCE_BYTES == 272);
    assert!(offset_of!(EvidenceRecord, stack) == 24);
    assert!(offset_of!(EvidenceRecord, tid) == 216);
    assert!(offset_of!(EvidenceRecord, mode) == 232);
    assert!(offset_of!(EvidenceRecord, name) == 240);
    assert!(offset_of!(EvidenceRecord, syscall) == 256);
    assert!(offset_of!(EvidenceRecord, flags) == 260);
    assert!(offset_of!(EvidenceRecord, user_stack_id) == 264);
};
