//! `task_rename`: a thread gets a new name, by its own wish, by another thread of its process, or by exec.
//!
//! Fires in `__set_task_comm` (fs/exec.c) before the name is copied: the new one is an argument. Runs with
//! interrupts on.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel_str_bytes, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use core::ffi::c_void;
use profiler_ebpf::{COMM_BYTES, Kind, Rename, ring::Counter};

use crate::{clock, side, task::Task};

#[btf_tracepoint(function = "task_rename")]
fn task_rename(ctx: BtfTracePointContext) -> i32 {
    let task = Task::from_kernel(ctx.arg(0));
    let name = ctx.arg::<*const c_void>(1).cast::<u8>();
    let mut comm = [0; COMM_BYTES];
    // SAFETY: The helper checks the address, stops at the buffer's end and ends with a NUL.
    if unsafe { bpf_probe_read_kernel_str_bytes(name, &mut comm) }.is_err() {
        return 0;
    }
    let rename = Rename {
        ts_ns: clock::of(task),
        comm,
        tid: task.tid(),
        _pad: [0; 3],
        kind: Kind::Rename as u8,
    };
    side::send_rename(rename, Counter::Rename);
    0
}
