//! What the daemon tells the probes before they are loaded.
//!
//! The daemon fills one [`Config`] in from the running kernel's type information, and writes it into the probes'
//! instructions (see [`crate::settings`]). The verifier sees its fields as constants, so a branch that a host
//! doesn't need costs nothing there.

use core::mem::size_of;

/// Stands for a field that the running kernel doesn't have. No struct is that long, and a BPF
/// instruction can hold it.
pub const ABSENT: u32 = i32::MAX as u32;

/// Offsets of kernel fields, and choices. Offsets are in bytes from the start of the named struct.
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
pub struct Config {
    /// `task_struct.pid`.
    pub task_pid: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.flags`.
    pub task_flags: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `task_struct.__state`, or `state` before Linux 5.14.
    pub task_state: u32,
    /// `task_struct.exit_state`.
    pub task_exit_state: u32,
    /// `task_struct.on_cpu`; [`ABSENT`] on a kernel without SMP.
    pub task_on_cpu: u32,
    /// `task_struct.thread_info.cpu`, or `cpu` before Linux 5.16; [`ABSENT`] on a kernel without SMP.
    pub task_cpu: u32,
    /// `task_struct.start_boottime`.
    pub task_start_boottime: u32,
    /// `task_struct.real_parent`.
    pub task_real_parent: u32,
    /// The byte of `task_struct` that holds the bit `in_iowait`; any byte if there is none.
    pub task_in_iowait: u32,
    /// The bit in that byte; 0 if there is none.
    pub task_in_iowait_mask: u32,
    /// `task_struct.sched_info.pcount`, or [`ABSENT`].
    pub task_pcount: u32,
    /// `task_struct.sched_info.run_delay`, or [`ABSENT`].
    pub task_run_delay: u32,
    /// `task_struct.sched_info.last_queued`, or [`ABSENT`].
    pub task_last_queued: u32,
    /// `task_struct.se.cfs_rq`, or [`ABSENT`] (then the clock is [`super::Clock::Monotonic`]).
    pub task_cfs_rq: u32,
    /// `cfs_rq.rq`, or [`ABSENT`].
    pub cfs_rq_rq: u32,
    /// `rq.clock`, or [`ABSENT`].
    pub rq_clock: u32,
    /// The number of a [`super::Clock`].
    pub clock: u32,
    /// 1 if the fields of `sched_info` are there, else 0.
    pub has_sched_info: u32,
    /// Records in one CPU's ring, a power of two.
    pub ring_records: u32,
    /// How many records a ring may hold before switches and wakeups are dropped.
    pub ring_limit: u32,
    /// A doorbell rings whenever none of these bits is set in the number of a ring's unread records.
    pub doorbell_mask: u32,
    /// Bytes in the side channel above which a side record wakes the daemon.
    pub side_mark: u32,
}

impl Config {
    /// What the probes are compiled with; no program loads with it, since every offset is absent.
    pub const UNSET: Self = Self {
        task_pid: ABSENT,
        task_tgid: ABSENT,
        task_flags: ABSENT,
        task_comm: ABSENT,
        task_state: ABSENT,
        task_exit_state: ABSENT,
        task_on_cpu: ABSENT,
        task_cpu: ABSENT,
        task_start_boottime: ABSENT,
        task_real_parent: ABSENT,
        task_in_iowait: ABSENT,
        task_in_iowait_mask: 0,
        task_pcount: ABSENT,
        task_run_delay: ABSENT,
        task_last_queued: ABSENT,
        task_cfs_rq: ABSENT,
        cfs_rq_rq: ABSENT,
        rq_clock: ABSENT,
        clock: 0,
        has_sched_info: 0,
        ring_records: 0,
        ring_limit: 0,
        doorbell_mask: 0,
        side_mark: 0,
    };
}

/// Names of the maps.
pub mod maps {
    /// Array, mapped: one ring header a possible CPU (see [`crate::ring`]).
    pub const RING_HEADERS: &str = "RING_HEADERS";
    /// Array, mapped: all CPUs' ring slots, CPU 0's first.
    pub const RING_SLOTS: &str = "RING_SLOTS";
    /// Ring buffer: renames, execs and doorbells.
    pub const SIDE: &str = "SIDE";
    /// Array, mapped: one [`crate::ClockReading`].
    pub const CLOCK_READING: &str = "CLOCK_READING";
}

/// Names of the programs; a hook's program has the hook's name, with more behind it if there are several.
pub mod programs {
    /// Every switch from one thread to another: arguments `preempt, prev, next, prev_state`.
    pub const SCHED_SWITCH: &str = "sched_switch";
    /// The same: arguments `preempt, prev_state, prev, next`.
    pub const SCHED_SWITCH_STATE_FIRST: &str = "sched_switch_state_first";
    /// The same: arguments `preempt, prev, next`.
    pub const SCHED_SWITCH_WITHOUT_STATE: &str = "sched_switch_without_state";
    /// Every wakeup.
    pub const SCHED_WAKEUP: &str = "sched_wakeup";
    /// The first wakeup of a new thread.
    pub const SCHED_WAKEUP_NEW: &str = "sched_wakeup_new";
    /// A new name.
    pub const TASK_RENAME: &str = "task_rename";
    /// A new program.
    pub const SCHED_PROCESS_EXEC: &str = "sched_process_exec";
    /// All threads that there are (an iterator).
    pub const THREADS: &str = "threads";
    /// One reading of the records' clock; run on demand and attached nowhere.
    pub const READ_CLOCK: &str = "read_clock";
}

const _: () = assert!(size_of::<Config>() == 24 * size_of::<u32>());
