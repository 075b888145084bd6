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
pub mod evidence;
pub mod pids;
pub mod ring;
pub mod settings;
pub mod shed;
mod thread;
pub mod why;

pub use shed::Shed;
pub use thread::{THREAD_RECORD_BYTES, ThreadRecord, thread_flags};

/// Version of everything in this file; recordings carry it.
pub const WIRE_VERSION: u32 = 5;

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
    /// [`Waking`].
    Waking = 8,
    /// [`Migrate`].
    Migrate = 9,
    /// [`Throttle`].
    Throttle = 10,
    /// [`CgroupMove`].
    CgroupMove = 11,
    /// [`Throttled`].
    Throttled = 12,
    /// [`Interrupts`].
    Interrupts = 13,
    /// [`Shed`].
    Shed = 14,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Switch,
        Self::Wakeup,
        Self::Fork,
        Self::Gap,
        Self::Rename,
        Self::Exec,
        Self::Doorbell,
        Self::Waking,
        Self::Migrate,
        Self::Throttle,
        Self::CgroupMove,
        Self::Throttled,
        Self::Interrupts,
        Self::Shed,
    ];

    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        // Each stands at its number less one.
        let place = number.wrapping_sub(1) as usize;
        if place < Self::ALL.len() {
            Some(Self::ALL[place])
        } else {
            None
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
            Self::Waking => "waking",
            Self::Migrate => "migrate",
            Self::Throttle => "throttle",
            Self::CgroupMove => "cgroup-move",
            Self::Throttled => "throttled",
            Self::Interrupts => "interrupts",
            Self::Shed => "shed",
        }
    }
}

const _: () = {
    let mut place = 0;
    while place < Kind::ALL.len() {
        assert!(Kind::ALL[place] as usize == place + 1);
        place += 1;
    }
};

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
    /// With [`switch_flags::PREV_SYSCALL`]: the number of the system call that the outgoing thread is
    /// in, by the table of the native ABI, or one of [`syscall`]. Else 0. One that blocks does so in this
    /// call. One that is still runnable gave its CPU up in it or right after it: that is a yield only if
    /// the call is `sched_yield`.
    pub prev_syscall: u16,
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
    /// [`super::Switch::prev_syscall`] was read. It is read only for a user thread, and not for one that
    /// the kernel preempted ([`PREEMPT`]).
    pub const PREV_SYSCALL: u8 = 1 << 5;
    /// The outgoing thread blocks, and is a kernel thread, or a worker that the kernel keeps in a user
    /// process (`io_uring`, vhost): it is in no system call. Set only where calls are read at all.
    pub const PREV_KTHREAD: u8 = 1 << 6;
    /// The outgoing thread leaves because the CPU quota of its cgroup, or of one above it, is used up
    /// (`task->throttled`, since Linux 6.18, where each thread is throttled by itself on its way to user
    /// mode). A [`super::Throttled`] comes before the switch that brings it back. It may be set together
    /// with [`PREEMPT`]. On older kernels a group that is throttled stops all its threads at once, which
    /// [`super::Throttle`] tells, and this is never set.
    pub const PREV_THROTTLED: u8 = 1 << 7;
}

/// Values of [`Switch::prev_syscall`] that are not a number.
pub mod syscall {
    /// The thread is in no system call: a page fault or another exception brought it into the kernel.
    pub const NONE: u16 = u16::MAX;
    /// It is in a call by an ABI that is not the native one (32-bit, x32), whose numbers mean others.
    pub const FOREIGN_ABI: u16 = u16::MAX - 1;
}

/// A sleeping thread is about to be woken (`sched_waking`).
///
/// Written by the waker's CPU. The waiting thread, and which wait of it ends, are exact; see
/// [`Waking::ts_ns`] for the time.
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
pub struct Waking {
    /// A moment between the last switch-in of the thread that is woken and the wakeup: the waker's
    /// run-queue clock, which stands still while its CPU is idle, but never at or before that switch-in.
    /// Only the order counts.
    pub ts_ns: u64,
    /// Thread that is woken.
    pub tid: u32,
    /// With [`waker_context::THREAD`]: the thread that wakes it. Else the thread that was interrupted,
    /// which has nothing to do with it; 0 is the idle task.
    pub waker_tid: u32,
    /// With [`waker_context::HARD_IRQ`]: the number of the interrupt, as in /proc/interrupts. With
    /// [`waker_context::SOFTIRQ`]: the number of the softirq (include/linux/interrupt.h).
    pub vector: u32,
    /// Low 16 bits of `sched_info.pcount`, as in [`Switch::next_runs`]: the wait that ends is the one
    /// whose switch-in reads the same.
    pub runs: u16,
    /// Zero.
    pub _pad: [u8; 8],
    /// One of [`waker_context`].
    pub context: u8,
    /// [`Kind::Waking`].
    pub kind: u8,
}

/// Values of [`Waking::context`].
pub mod waker_context {
    /// A thread.
    pub const THREAD: u8 = 0;
    /// A device's interrupt.
    pub const HARD_IRQ: u8 = 1;
    /// A softirq.
    pub const SOFTIRQ: u8 = 2;
    /// A high-resolution timer in its interrupt. (Other timers are softirqs.)
    pub const TIMER: u8 = 3;
    /// An interrupt by another CPU.
    pub const IPI: u8 = 4;
}

/// A thread goes to another CPU's run queue (`sched_migrate_task`), queued or about to be.
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
pub struct Migrate {
    /// As [`Waking::ts_ns`].
    pub ts_ns: u64,
    /// The thread.
    pub tid: u32,
    /// CPU that it was on.
    pub from_cpu: u32,
    /// CPU that it goes to.
    pub to_cpu: u32,
    /// As [`Waking::runs`].
    pub runs: u16,
    /// Zero.
    pub _pad: [u8; 9],
    /// [`Kind::Migrate`].
    pub kind: u8,
}

/// A thread comes in that left because of a quota ([`switch_flags::PREV_THROTTLED`]): how long it was kept
/// off by that. What follows it up to the switch is ordinary run-queue delay.
///
/// It stands right before the [`Switch`] that brings the thread in.
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
pub struct Throttled {
    /// The time of the switch that brings it in.
    pub ts_ns: u64,
    /// When its group was first held back on that CPU, at or before the thread left.
    pub since_ns: u64,
    /// When the group had quota again: at most `ts_ns`. `ts_ns` itself if the thread was moved to another
    /// group or CPU and runs for that reason.
    pub until_ns: u64,
    /// The thread.
    pub tid: u32,
    /// Zero.
    pub _pad: [u8; 3],
    /// [`Kind::Throttled`].
    pub kind: u8,
}

/// How long a CPU has been in interrupts. Comes right before a [`Switch`] there, a wakeup to its run queue, or
/// a [`Migrate`] from it, if that has grown by a microsecond since it was last told.
///
/// Hard interrupts, softirqs that run on their way out or when a thread turns them on again, and interrupts
/// by other CPUs, as far as there are hooks for them. What `ksoftirqd` and threads of interrupts do is theirs.
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
pub struct Interrupts {
    /// When, by the clock of that CPU's run queue.
    pub ts_ns: u64,
    /// By kind ([`interrupt`]): all the time since the probes were attached, in nanoseconds, low 32 bits.
    /// Each moment counts for the innermost interrupt. By `CLOCK_MONOTONIC`.
    pub spent_ns: [u32; interrupt::KINDS],
    /// How long before `ts_ns` it was last looked at; `u32::MAX` for longer. All but a microsecond of
    /// what is new since the record before was spent within that time.
    pub within_ns: u32,
    /// The CPU; not always the one that the record comes from.
    pub cpu: u16,
    /// Zero.
    pub _pad: u8,
    /// [`Kind::Interrupts`].
    pub kind: u8,
}

/// Places in [`Interrupts::spent_ns`].
pub mod interrupt {
    /// The timer's interrupt with what expires in it, and the softirqs of timers.
    pub const TIMER: usize = 0;
    /// The network softirqs.
    pub const NETWORK: usize = 1;
    /// The block softirqs.
    pub const BLOCK: usize = 2;
    /// Devices' interrupts, those by other CPUs, and the other softirqs.
    pub const OTHER: usize = 3;
    /// How many there are.
    pub const KINDS: usize = 4;
}

/// A cgroup's CPU quota is used up on one CPU, or there is some again. Only on kernels that throttle groups
/// and not threads (before Linux 6.18).
///
/// Comes for the group with the quota and for each group below it.
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
pub struct Throttle {
    /// When, by the clock of the run queue that it is about.
    pub ts_ns: u64,
    /// The group's id in the hierarchy of the cpu controller: the inode number of its directory.
    pub cgroup: u64,
    /// With [`Throttle::on`] 0: since when threads of this very group were held back here, by the
    /// kernel's own stamp (`cfs_rq.throttled_clock_self`, since Linux 6.6); 0 if none was, or the kernel
    /// keeps no such stamp.
    pub since_ns: u64,
    /// The CPU that it is about; not always the one that it comes from.
    pub cpu: u32,
    /// Zero.
    pub _pad: [u8; 2],
    /// 1 if the group may no longer run there, 0 if it may again.
    pub on: u8,
    /// [`Kind::Throttle`].
    pub kind: u8,
}

/// A thread is in another cgroup of the cpu controller's hierarchy from now on, or was born into another
/// one than its parent's.
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
pub struct CgroupMove {
    /// When.
    pub ts_ns: u64,
    /// The group's id, as in [`ThreadRecord::cpu_cgroup`].
    pub cgroup: u64,
    /// The thread.
    pub tid: u32,
    /// Zero.
    pub _pad: [u8; 10],
    /// 1 if all threads of its process go with it, else 0.
    pub whole_process: u8,
    /// [`Kind::CgroupMove`].
    pub kind: u8,
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
    /// CPU whose run queue it is on. (No kernel has 65,536 CPUs.)
    pub cpu: u16,
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

/// Offset of the time in every ring record, in bytes.
pub const TS_OFFSET: usize = 0;

/// Offset of the kind in every ring record, in bytes.
pub const KIND_OFFSET: usize = RECORD_BYTES - 1;

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
    record!(Waking);
    record!(Migrate);
    record!(Throttle);
    record!(CgroupMove);
    record!(Throttled);
    record!(Interrupts);
    record!(Shed);
    assert!(offset_of!(Switch, next_delay_ns) == 8);
    assert!(offset_of!(Switch, prev_tid) == 16);
    assert!(offset_of!(Switch, next_tid) == 20);
    assert!(offset_of!(Switch, prev_state) == 24);
    assert!(offset_of!(Switch, next_runs) == 26);
    assert!(offset_of!(Switch, prev_syscall) == 28);
    assert!(offset_of!(Switch, flags) == 30);
    assert!(offset_of!(Wakeup, tid) == 8);
    assert!(offset_of!(Wakeup, cpu) == 12);
    assert!(offset_of!(Fork, start_ns) == 8);
    assert!(offset_of!(Fork, tid) == 16);
    assert!(offset_of!(Fork, tgid) == 20);
    assert!(offset_of!(Fork, parent_tid) == 24);
    assert!(offset_of!(Fork, cpu) == 28);
    assert!(offset_of!(Fork, flags) == 30);
    assert!(offset_of!(Gap, until_ns) == 8);
    assert!(offset_of!(Gap, lost) == 16);
    assert!(offset_of!(Rename, comm) == 8);
    assert!(offset_of!(Rename, tid) == 24);
    assert!(offset_of!(Exec, tid) == 8);
    assert!(offset_of!(Exec, old_tid) == 12);
    assert!(offset_of!(Waking, tid) == 8);
    assert!(offset_of!(Waking, waker_tid) == 12);
    assert!(offset_of!(Waking, vector) == 16);
    assert!(offset_of!(Waking, runs) == 20);
    assert!(offset_of!(Waking, context) == 30);
    assert!(offset_of!(Migrate, tid) == 8);
    assert!(offset_of!(Migrate, from_cpu) == 12);
    assert!(offset_of!(Migrate, to_cpu) == 16);
    assert!(offset_of!(Migrate, runs) == 20);
    assert!(offset_of!(Throttle, cgroup) == 8);
    assert!(offset_of!(Throttle, since_ns) == 16);
    assert!(offset_of!(Throttle, cpu) == 24);
    assert!(offset_of!(Throttle, on) == 30);
    assert!(offset_of!(CgroupMove, cgroup) == 8);
    assert!(offset_of!(CgroupMove, tid) == 16);
    assert!(offset_of!(CgroupMove, whole_process) == 30);
    assert!(offset_of!(Throttled, since_ns) == 8);
    assert!(offset_of!(Throttled, until_ns) == 16);
    assert!(offset_of!(Throttled, tid) == 24);
    assert!(offset_of!(Interrupts, spent_ns) == 8);
    assert!(offset_of!(Interrupts, within_ns) == 24);
    assert!(offset_of!(Interrupts, cpu) == 28);
    assert!(offset_of!(Shed, switches) == 8);
    assert!(offset_of!(Shed, wakeups) == 16);
    assert!(offset_of!(Shed, wakings) == 20);
    assert!(offset_of!(Shed, migrations) == 24);
    assert!(offset_of!(Shed, shift) == 30);
    assert!(
        ring::DROPPED + ring::COUNTERS * 8 <= ring::SHED
            && ring::SHED + ring::SHED_COUNTERS * 8 <= ring::TAIL
            && ring::TAIL + 8 <= ring::KEEP
            && ring::KEEP + 8 <= ring::HEADER_BYTES
            && ring::HEADER_BYTES.is_power_of_two()
    );
};
