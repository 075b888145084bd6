//! The wire contract between the kernel probes and the daemon.
//!
//! Both sides compile this file, so the layout exists once. Rules:
//!
//! * Every record is [`RECORD_BYTES`] long, starts with its time and ends with its [`Kind`].
//! * Kinds and flag bits are append-only: a number is never reused or given another meaning.
//! * Padding is explicit and zero; there is no `bool` and no Rust enum inside a record, so every bit
//!   pattern is a valid record and decoding cannot be undefined.
//! * Anything that changes the meaning of a byte changes [`WIRE_VERSION`].
//!
//! Times are nanoseconds of the clock named by [`Clock`], which is the same for all records of a run.

#![no_std]
#![forbid(unsafe_code)]

use core::mem::{offset_of, size_of};

pub mod config;

/// Version of everything in this file; recordings carry it.
pub const WIRE_VERSION: u32 = 1;

/// Size of a ring record, in bytes.
pub const RECORD_BYTES: usize = 32;

/// One slot of a ring: a record of any kind, not yet looked at.
#[repr(C, align(8))]
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
pub struct RawRecord(pub [u8; RECORD_BYTES]);

/// Bytes of a thread's name, as the kernel keeps it (`TASK_COMM_LEN`), NUL-padded.
pub const COMM_BYTES: usize = 16;

/// What a record is; the last byte of each.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// [`Switch`].
    Switch = 1,
    /// [`Wakeup`].
    Wakeup = 2,
    /// [`Fork`].
    Fork = 3,
    /// [`Gap`].
    Gap = 4,
    /// [`Rename`].
    Rename = 5,
    /// [`Exec`].
    Exec = 6,
    /// A wake-up call for the daemon without content; it never reaches the core.
    Doorbell = 7,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Switch,
        Self::Wakeup,
        Self::Fork,
        Self::Gap,
        Self::Rename,
        Self::Exec,
        Self::Doorbell,
    ];

    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Switch),
            2 => Some(Self::Wakeup),
            3 => Some(Self::Fork),
            4 => Some(Self::Gap),
            5 => Some(Self::Rename),
            6 => Some(Self::Exec),
            7 => Some(Self::Doorbell),
            _ => None,
        }
    }

    /// The kind's name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Wakeup => "wakeup",
            Self::Fork => "fork",
            Self::Gap => "gap",
            Self::Rename => "rename",
            Self::Exec => "exec",
            Self::Doorbell => "doorbell",
        }
    }
}

/// Which clock stamps the records.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The run queue's own clock (`rq->clock`, fed by `sched_clock`): the cheapest to read, and the
    /// one that the kernel's `sched_info` stamps are in.
    RunQueue = 0,
    /// `bpf_ktime_get_ns` (`CLOCK_MONOTONIC`), where the run queue's clock can't be reached. The
    /// kernel's stamps can't be compared with it, so wakeup records are needed.
    Monotonic = 1,
}

/// The CPU changes from one thread to another (`sched_switch`).
///
/// Thread id 0 is the CPU's idle task.
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
pub struct Switch {
    /// When.
    pub ts_ns: u64,
    /// With [`switch_flags::NEXT_STAMPED`]: all the run-queue delay that the kernel has counted for
    /// the incoming thread since it was born, the wait that ends here included
    /// (`sched_info.run_delay + rq->clock - sched_info.last_queued`, and just `run_delay` with
    /// [`switch_flags::NEXT_UNQUEUED`]). Else 0.
    pub next_delay_ns: u64,
    /// Thread that leaves the CPU.
    pub prev_tid: u32,
    /// Thread that comes in.
    pub next_tid: u32,
    /// Low 16 bits of the outgoing thread's state word (`task->__state`), as the scheduler saw it.
    /// Flags in it are the kernel's; see the state table in the daemon's `core`.
    pub prev_state: u16,
    /// With [`switch_flags::NEXT_COUNTED`]: low 16 bits of how often the incoming thread had been
    /// given a CPU before this time (`sched_info.pcount`; 0 for a new thread). The kernel counts this
    /// time just after the record is made. So the next switch-in of the thread reads one more (the same
    /// if this one has [`switch_flags::NEXT_UNQUEUED`], since Linux 5.14); else something that it did in
    /// between was missed.
    pub next_runs: u16,
    /// Zero.
    pub _pad: u16,
    /// [`switch_flags`].
    pub flags: u8,
    /// [`Kind::Switch`].
    pub kind: u8,
}

/// Bits of [`Switch::flags`].
pub mod switch_flags {
    /// The outgoing thread was preempted: whatever its state word says, it is runnable.
    pub const PREEMPT: u8 = 1 << 0;
    /// [`super::Switch::next_delay_ns`] holds a figure.
    pub const NEXT_STAMPED: u8 = 1 << 1;
    /// The outgoing thread waits for a block device (`task->in_iowait`).
    pub const PREV_IOWAIT: u8 = 1 << 2;
    /// [`super::Switch::next_runs`] holds a figure.
    pub const NEXT_COUNTED: u8 = 1 << 3;
    /// The kernel has no enqueue stamp for the incoming thread, as it has none for one that was
    /// preempted on its way to sleep (`sched_info_depart`, kernel/sched/stats.h, stamps only threads
    /// whose state is running): this wait is not in [`super::Switch::next_delay_ns`], and since Linux
    /// 5.14 this run is not counted in the next [`super::Switch::next_runs`].
    pub const NEXT_UNQUEUED: u8 = 1 << 4;
}

/// A thread was put on a run queue after a wait (`sched_wakeup`).
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
pub struct Wakeup {
    /// When, by the clock of the run queue that it was put on: equal to the enqueue stamp.
    pub ts_ns: u64,
    /// Thread that was woken.
    pub tid: u32,
    /// CPU whose run queue it is on.
    pub cpu: u32,
    /// Zero.
    pub _pad: [u8; 15],
    /// [`Kind::Wakeup`].
    pub kind: u8,
}

/// A new thread was put on a run queue for the first time (`sched_wakeup_new`).
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
pub struct Fork {
    /// When.
    pub ts_ns: u64,
    /// The thread's `start_boottime`: with its id, its identity.
    pub start_ns: u64,
    /// The new thread.
    pub tid: u32,
    /// The process that it belongs to (thread group id).
    pub tgid: u32,
    /// The thread that made it, whose name it has until it is renamed.
    pub parent_tid: u32,
    /// Zero.
    pub _pad: u16,
    /// [`thread_flags`].
    pub flags: u8,
    /// [`Kind::Fork`].
    pub kind: u8,
}

/// Records of one CPU were lost here, because its ring was full.
///
/// It stands in the ring in the place of what was lost: everything before it is complete.
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
pub struct Gap {
    /// Earliest time of a record that was lost.
    pub ts_ns: u64,
    /// Latest time of a record that was lost.
    pub until_ns: u64,
    /// How many were lost.
    pub lost: u64,
    /// Zero.
    pub _pad: [u8; 7],
    /// [`Kind::Gap`].
    pub kind: u8,
}

/// A thread has a new name (`task_rename`; every exec renames too).
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
pub struct Rename {
    /// When.
    pub ts_ns: u64,
    /// The new name; bytes after the first NUL mean nothing.
    pub comm: [u8; COMM_BYTES],
    /// The thread.
    pub tid: u32,
    /// Zero.
    pub _pad: [u8; 3],
    /// [`Kind::Rename`].
    pub kind: u8,
}

/// A process runs another program (`sched_process_exec`).
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
pub struct Exec {
    /// When.
    pub ts_ns: u64,
    /// The thread, which from now on is the only one of its process and has the process's id.
    pub tid: u32,
    /// The id that it had before; another one if it was not the process's first thread.
    pub old_tid: u32,
    /// Zero.
    pub _pad: [u8; 15],
    /// [`Kind::Exec`].
    pub kind: u8,
}

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
    /// The thread's `start_boottime`, as in [`Fork::start_ns`].
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
    /// What [`Switch::next_runs`] was when it was last given a CPU (`sched_info.pcount - 1`, which
    /// wraps to 65,535 for a thread that never ran), so that its next switch-in reads one more.
    pub runs: u16,
    /// Zero.
    pub _pad: u8,
    /// [`thread_flags`].
    pub flags: u8,
    /// Zero; keeps the record a multiple of eight bytes.
    pub _pad2: [u8; 8],
}

/// Bits of [`ThreadRecord::flags`] and [`Fork::flags`].
pub mod thread_flags {
    /// A kernel thread (`PF_KTHREAD`).
    pub const KTHREAD: u8 = 1 << 0;
    /// On a CPU at this moment (`task->on_cpu`).
    pub const ON_CPU: u8 = 1 << 1;
    /// In a block-device wait (`task->in_iowait`).
    pub const IOWAIT: u8 = 1 << 2;
    /// Made with a name of its own, not its parent's; a [`super::Rename`] of the same time tells it.
    pub const OWN_NAME: u8 = 1 << 3;
}

/// The two clocks at one moment, as a probe reads them on demand.
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
pub struct ClockReading {
    /// The run queue's clock, as it was last brought up to date; 0 if it could not be read.
    pub record_ns: u64,
    /// `CLOCK_MONOTONIC`, read after it.
    pub monotonic_ns: u64,
}

/// Size of [`ThreadRecord`], in bytes.
pub const THREAD_RECORD_BYTES: usize = size_of::<ThreadRecord>();

/// Offset of the time in every ring record, in bytes.
pub const TS_OFFSET: usize = 0;

/// Offset of the kind in every ring record, in bytes.
pub const KIND_OFFSET: usize = RECORD_BYTES - 1;

/// Where the fields of a per-CPU ring's header are, in bytes.
///
/// The header is [`ring::HEADER_BYTES`] long. The probes write the first part, the daemon the second, and the
/// two are kept 128 bytes apart, so that the prefetcher of neither side pulls in the other's line.
pub mod ring {
    /// Size of a header.
    pub const HEADER_BYTES: usize = 256;
    /// Records ever written (`u64`); the producer stores it after the record.
    pub const HEAD: usize = 0;
    /// Earliest time of a record lost since the last [`super::Gap`] (`u64`).
    pub const GAP_FROM: usize = 8;
    /// Latest time of a record lost since the last [`super::Gap`] (`u64`).
    pub const GAP_UNTIL: usize = 16;
    /// Records lost since the last [`super::Gap`] (`u64`).
    pub const GAP_LOST: usize = 24;
    /// Records ever lost, one counter a [`Counter`] (`u64` each).
    pub const DROPPED: usize = 32;
    /// Records ever read (`u64`); the consumer stores it after it has done with them.
    pub const TAIL: usize = 128;
    /// A ring keeps one part in this many for what is rare and hard to do without (forks and gaps),
    /// so that a storm of switches can't crowd it out.
    pub const RESERVE_DIVISOR: u32 = 16;
    /// What a loss counter counts; its place among them.
    ///
    /// Each is written by one program alone, which can't interrupt itself on a CPU, so that no count
    /// is lost although none is atomic.
    #[repr(u8)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Counter {
        /// [`super::Switch`] records for which the ring had no room.
        Switch = 0,
        /// [`super::Wakeup`] records for which the ring had no room.
        Wakeup = 1,
        /// [`super::Fork`] records for which the ring had no room.
        Fork = 2,
        /// [`super::Rename`] records for which the side channel had no room.
        Rename = 3,
        /// [`super::Exec`] records for which the side channel had no room.
        Exec = 4,
        /// As `Rename`, for the names that threads are made with.
        FirstName = 5,
    }
    /// How many loss counters there are.
    pub const COUNTERS: usize = 6;
    /// The smallest ring, in records: the reserve must hold a few.
    pub const MIN_RECORDS: u32 = 64;
    /// The largest ring, in records a CPU.
    pub const MAX_RECORDS: u32 = 1 << 20;
}

// The layout is the contract: a compiler that sees it otherwise must not build.
const _: () = {
    macro_rules! record {
        ($record:ty) => {
            assert!(size_of::<$record>() == RECORD_BYTES);
            assert!(offset_of!($record, ts_ns) == TS_OFFSET);
            assert!(offset_of!($record, kind) == KIND_OFFSET);
        };
    }
    record!(Switch);
    record!(Wakeup);
    record!(Fork);
    record!(Gap);
    record!(Rename);
    record!(Exec);
    assert!(offset_of!(Switch, next_delay_ns) == 8);
    assert!(offset_of!(Switch, prev_tid) == 16);
    assert!(offset_of!(Switch, next_tid) == 20);
    assert!(offset_of!(Switch, prev_state) == 24);
    assert!(offset_of!(Switch, next_runs) == 26);
    assert!(offset_of!(Switch, flags) == 30);
    assert!(offset_of!(Wakeup, tid) == 8);
    assert!(offset_of!(Wakeup, cpu) == 12);
    assert!(offset_of!(Fork, start_ns) == 8);
    assert!(offset_of!(Fork, tid) == 16);
    assert!(offset_of!(Fork, tgid) == 20);
    assert!(offset_of!(Fork, parent_tid) == 24);
    assert!(offset_of!(Fork, flags) == 30);
    assert!(offset_of!(Gap, until_ns) == 8);
    assert!(offset_of!(Gap, lost) == 16);
    assert!(offset_of!(Rename, comm) == 8);
    assert!(offset_of!(Rename, tid) == 24);
    assert!(offset_of!(Exec, tid) == 8);
    assert!(offset_of!(Exec, old_tid) == 12);
    assert!(THREAD_RECORD_BYTES == 64);
    assert!(offset_of!(ThreadRecord, run_delay_ns) == 8);
    assert!(offset_of!(ThreadRecord, comm) == 16);
    assert!(offset_of!(ThreadRecord, tid) == 32);
    assert!(offset_of!(ThreadRecord, cpu) == 48);
    assert!(offset_of!(ThreadRecord, runs) == 52);
    assert!(offset_of!(ThreadRecord, flags) == 55);
    assert!(
        ring::DROPPED + ring::COUNTERS * 8 <= ring::TAIL && ring::TAIL + 8 <= ring::HEADER_BYTES
    );
};
