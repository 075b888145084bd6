//! `sched_process_exec`: a process runs another program.
//!
//! Fires in `exec_binprm` (fs/exec.c) in the thread itself, which has the process's id by then, whatever
//! it had before. Runs with interrupts on.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use profiler_ebpf::{Exec, Kind, Rename, ring::Counter};

use crate::{
    clock, side,
    task::{Task, comm_bytes},
};

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let task = Task::from_kernel(ctx.arg(0));
    let ts_ns = clock::of(task);
    let tid = task.tid();
    let old_tid = ctx.arg::<u32>(1);
    side::send_exec(Exec {
        ts_ns,
        tid,
        old_tid,
        _pad: [0; 15],
        kind: Kind::Exec as u8,
    });
    if tid != old_tid {
        // The thread was renamed before this, when nobody knew that it has this id.
        let rename = Rename {
            ts_ns,
            comm: comm_bytes(task.comm()),
            tid,
            _pad: [0; 3],
            kind: Kind::Rename as u8,
        };
        side::send_rename(rename, Counter::Rename);
    }
    0
}
