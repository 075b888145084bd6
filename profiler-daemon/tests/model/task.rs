//! One thread of the model, and what was written of it.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Running,
    /// On the run queue of its CPU.
    Queued,
    Blocked,
    Dead,
}

/// Something that changed a thread's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Born,
    Enter { cpu: usize },
    Leave { word: u16, is_preempted: bool },
    Wake,
}

/// A thread and all that it ever did.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the thread"
)]
pub(crate) struct TaskState {
    pub(crate) tid: u32,
    /// All ids that it ever had.
    pub(crate) tids: Vec<u32>,
    pub(crate) tgid: u32,
    /// Its process's first thread.
    pub(super) leader: Task,
    pub(crate) start_ns: u64,
    pub(crate) comm: [u8; 16],
    pub(crate) doing: Doing,
    /// The CPU that it is on, or whose run queue it is on, or was last on.
    pub(crate) cpu: usize,
    /// Its state word while it is off the CPU.
    pub(super) word: u16,
    /// `sched_info.last_queued`.
    pub(super) last_queued: Option<u64>,
    /// `sched_info.run_delay`.
    pub(super) run_delay: u64,
    /// `sched_info.pcount`.
    pub(super) runs: u64,
    /// It is to end as soon as it can.
    pub(super) is_doomed: bool,
    /// Nobody waits for it any more: its id may be used again.
    pub(super) is_released: bool,
    /// It took over its leader's id, had this one before, and has not told of the exec yet.
    pub(super) exec_from: Option<u32>,
    /// It has its leader's id. If nobody knew that one, the records don't say when it started.
    pub(crate) took_over: bool,
    pub(crate) changes: Vec<(u64, Change)>,
    pub(crate) names: Vec<(u64, [u8; 16])>,
    /// The CPU that it was on or queued for, from when on.
    pub(crate) places: Vec<(u64, usize)>,
    /// A switch of it has been recorded.
    pub(crate) was_switched: bool,
    /// When the task iterator read it as queued, if no switch to it had been recorded by then.
    pub(crate) found_queued_ns: Option<u64>,
    /// It made threads before the records told who is who, and has to stay for its name.
    pub(super) must_stay: bool,
    /// The CPU that the task iterator read of it.
    pub(crate) found_cpu: Option<usize>,
}

/// A record and when it became visible.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) raw: RawRecord,
    pub(crate) visible_ns: u64,
}
