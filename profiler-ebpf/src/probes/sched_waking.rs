//! `sched_waking`: a sleeping thread is about to be woken. Attached only on demand.
//!
//! Fires in `try_to_wake_up` (kernel/sched/core.c) on the waker's CPU with the sleeper's `pi_lock` held and
//! interrupts off, once a wait: the state has been found to match. No run queue is locked yet, so no clock
//! is up to date.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use core::ffi::c_void;
use profiler_ebpf::{Kind, Waking, ring::Shed};

use crate::{clock, context, evidence, ring, task::Task, why::why};

#[btf_tracepoint(function = "sched_waking")]
fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    let pointer = ctx.arg::<*const c_void>(0);
    // A thread that wakes itself waits for nothing, and comes here with interrupts on.
    // SAFETY: The helper has no preconditions.
    if pointer as u64 == unsafe { bpf_get_current_task() } {
        return 0;
    }
    let task = Task::from_kernel(pointer);
    let Some(ring) = ring::here() else {
        return 0;
    };
    // What its stack would show nobody could place.
    if ring.sheds(Shed::Waking, || task.tid()) {
        return 0;
    }
    if why!(wakers) != 0 {
        let waker_tid = bpf_get_current_pid_tgid() as u32;
        let (context, vector) = context::waker(waker_tid);
        let (ts_ns, runs) = clock::after_arrival(task);
        if let Some(place) = ring.reserve::<Waking>(|| ts_ns) {
            place.put(Waking {
                ts_ns,
                tid: task.tid(),
                waker_tid,
                vector,
                runs,
                _pad: [0; 8],
                context,
                kind: Kind::Waking as u8,
            });
        }
    }
    if why!(evidence) != 0 {
        evidence::take(task);
    }
    0
}
