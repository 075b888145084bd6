//! How threads are called in the PID namespace of the daemon, where that is not the first one.
//!
//! All other records carry the ids of the first namespace.

use core::mem::size_of;

use crate::config::ABSENT;

/// Name of the read-only global that holds the [`PidsConfig`].
pub const SYMBOL: &str = "PIDS_CONFIG";

/// Name of the program: all threads of the reader's PID namespace (an iterator).
pub const PROGRAM: &str = "pids";

/// Offsets of kernel fields, in bytes from the start of the named struct.
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
pub struct PidsConfig {
    /// `task_struct.pid`.
    pub task_pid: u32,
    /// `task_struct.thread_pid`.
    pub task_thread_pid: u32,
    /// `pid.level`: how deep its namespace lies below the first one.
    pub pid_level: u32,
    /// `pid.numbers`: its id in each namespace, from the first one down.
    pub pid_numbers: u32,
    /// `upid.nr`.
    pub upid_nr: u32,
    /// From one `upid` to the next in `pid.numbers`.
    pub upid_bytes: u32,
}

impl PidsConfig {
    /// What the probes are compiled with; the program does not load with it.
    pub const UNSET: Self = Self {
        task_pid: ABSENT,
        task_thread_pid: ABSENT,
        pid_level: ABSENT,
        pid_numbers: ABSENT,
        upid_nr: ABSENT,
        upid_bytes: 0,
    };
}

/// Size of [`PidRecord`], in bytes.
pub const PID_RECORD_BYTES: usize = size_of::<PidRecord>();

/// A thread of the reader's PID namespace.
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
pub struct PidRecord {
    /// Its id in the first namespace, as in all other records.
    pub host: u32,
    /// Its id in the reader's namespace.
    pub here: u32,
}

const _: () = {
    assert!(size_of::<PidsConfig>() == 24);
    assert!(PID_RECORD_BYTES == 8);
};
