//! `sched_wakeup_new`: a new thread is put on a run queue for the first time.
//!
//! Fires in `wake_up_new_task` (kernel/sched/core.c), called by the thread that made it, with the new
//! thread's run queue locked and its clock up to date. Unlike in `sched_process_fork`, the thread has its
//! CPU and its name.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use core::mem::transmute;
use profiler_ebpf::{COMM_BYTES, CgroupMove, Fork, Kind, Rename, ring::Counter, thread_flags};

use crate::{
    cgroup, clock, ring, side,
    task::{Task, comm_bytes},
    why::why,
};

#[btf_tracepoint(function = "sched_wakeup_new")]
fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    let task = Task::from_kernel(ctx.arg(0));
    let ts_ns = clock::of(task);
    let tid = task.tid();
    // Most threads begin with their parent's name. Kernel threads and the like are given their own as
    // they are made, and no hook says so.
    let comm = task.comm();
    let has_own_name = bpf_get_current_comm().map(words) != Ok(comm);
    let mut flags = 0;
    if task.is_kernel_thread() {
        flags |= thread_flags::KTHREAD;
    }
    if has_own_name {
        flags |= thread_flags::OWN_NAME;
    }
    if let Some(place) = ring::reserve::<Fork>(|| ts_ns) {
        place.put(Fork {
            ts_ns,
            start_ns: task.start_boottime(),
            tid,
            tgid: task.tgid(),
            parent_tid: bpf_get_current_pid_tgid() as u32,
            cpu: task.cpu() as u16,
            flags,
            kind: Kind::Fork as u8,
        });
    }
    if has_own_name {
        let rename = Rename {
            ts_ns,
            comm: comm_bytes(comm),
            tid,
            _pad: [0; 3],
            kind: Kind::Rename as u8,
        };
        side::send_rename(rename, Counter::FirstName);
    }
    if why!(cgroups) != 0 && !cgroup::is_shared_with_current(task) {
        let record = CgroupMove {
            ts_ns,
            cgroup: cgroup::of(task),
            tid,
            _pad: [0; 10],
            whole_process: 0,
            kind: Kind::CgroupMove as u8,
        };
        side::send_move(record, Counter::FirstName);
    }
    0
}

#[inline(always)]
fn words(comm: [u8; COMM_BYTES]) -> [u64; 2] {
    // SAFETY: Same size, and every bit pattern is valid.
    unsafe { transmute::<[u8; COMM_BYTES], [u64; 2]>(comm) }
}
