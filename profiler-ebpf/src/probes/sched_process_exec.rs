//! `sched_process_exec`: a process runs another program.
//!
//! Fires in `exec_binprm` (fs/exec.c) in the thread itself, which has the process's id by then, whatever
//! it had before. Runs with interrupts on.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use profiler_ebpf::{Exec, Kind};

use crate::{clock, side, task::Task};

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let task = Task::from_kernel(ctx.arg(0));
    side::send_exec(Exec {
        ts_ns: clock::of(task),
        tid: task.tid(),
        old_tid: ctx.arg::<u32>(1),
        _pad: [0; 15],
        kind: Kind::Exec as u8,
    });
    0
}
