//! `cgroup_attach_task`: a thread or process goes to another cgroup, in whichever hierarchy.
//!
//! Fires in `cgroup_attach_task` (kernel/cgroup/cgroup.c) when all is done, once for a whole process. Runs
//! with interrupts on, so its record goes to the side channel.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use profiler_ebpf::{CgroupMove, Kind, ring::Counter};

use crate::{cgroup, clock, side, task::Task};

/// `dst_cgrp, path, task, threadgroup`.
#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    let task = Task::from_kernel(ctx.arg(2));
    // Only the lowest byte of a `bool` is sure to be set.
    let whole_process = ctx.arg::<u32>(3) as u8 & 1;
    let record = CgroupMove {
        ts_ns: clock::of(task),
        cgroup: cgroup::of(task),
        tid: task.tid(),
        _pad: [0; 10],
        whole_process,
        kind: Kind::CgroupMove as u8,
    };
    side::send_move(record, Counter::CgroupMove);
    0
}
