//! `sched_wakeup`: a thread is put on a run queue after a wait. Attached only on demand.
//!
//! Fires in `ttwu_do_wakeup` (kernel/sched/core.c) with the lock of the run queue that the thread goes to
//! held and its clock up to date; possibly on that run queue's CPU, from an interrupt, where `current` has
//! nothing to do with it.

use aya_ebpf::{
    helpers::bpf_get_current_task, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use core::ffi::c_void;
use profiler_ebpf::{Kind, Wakeup, ring::Shed};

use crate::{clock, interrupts, ring, task::Task, why::why};

#[btf_tracepoint(function = "sched_wakeup")]
fn sched_wakeup(ctx: BtfTracePointContext) -> i32 {
    let pointer = ctx.arg::<*const c_void>(0);
    // A thread that wakes itself is running: it waits for nothing and is put nowhere. The kernel takes
    // a short cut for it, without locks and with interrupts on, where the ring can't be used.
    // SAFETY: The helper has no preconditions.
    if pointer as u64 == unsafe { bpf_get_current_task() } {
        return 0;
    }
    let task = Task::from_kernel(pointer);
    let Some(ring) = ring::here() else {
        return 0;
    };
    if ring.sheds(Shed::Wakeup, || task.tid()) {
        return 0;
    }
    if why!(wakers) != 0 {
        interrupts::at_coming_and_going(task.cpu(), clock::of(task));
    }
    let Some(place) = ring.reserve::<Wakeup>(|| clock::of(task)) else {
        return 0;
    };
    place.put(Wakeup {
        ts_ns: clock::of(task),
        tid: task.tid(),
        cpu: task.cpu(),
        _pad: [0; 15],
        kind: Kind::Wakeup as u8,
    });
    0
}
