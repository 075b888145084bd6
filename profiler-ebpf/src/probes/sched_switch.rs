//! `sched_switch`: a CPU changes from one thread to another. The hot one.
//!
//! Fires in `__schedule` (kernel/sched/core.c) with the run queue locked, interrupts off and its clock
//! up to date, before `sched_info_switch` settles the books: the wait of the incoming thread is not yet
//! in its `run_delay`, nor this run in its `pcount`.

use core::{ffi::c_void, ptr::null};

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use profiler_ebpf::{Kind, Switch, config::switch_args, switch_flags};

use crate::{clock, config::config, ring, task::Task};

#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    // Each argument is read at a fixed place, and only then chosen from: the verifier admits no
    // computed address into the context.
    let arguments = config!(switch_args);
    let first: *const c_void = ctx.arg(1);
    let second: *const c_void = ctx.arg(2);
    let third: *const c_void = if arguments == switch_args::WITHOUT_STATE {
        null()
    } else {
        ctx.arg(3)
    };
    let (prev, next, state) = match arguments {
        switch_args::WITHOUT_STATE => (first, second, None),
        switch_args::STATE_FIRST => (second, third, Some(first as u32)),
        _ => (first, second, Some(third as u32)),
    };
    let (prev, next) = (Task::from_kernel(prev), Task::from_kernel(next));
    let is_preempted = ctx.arg::<u64>(0) & 1 != 0;
    let ts_ns = clock::of(prev);
    let next_tid = next.tid();
    let mut flags = 0;
    let mut next_delay_ns = 0;
    let mut next_runs = 0;
    if is_preempted {
        flags |= switch_flags::PREEMPT;
    }
    if prev.is_in_iowait() {
        flags |= switch_flags::PREV_IOWAIT;
    }
    // The idle task is never queued, so it has no stamp and is not counted.
    if next_tid != 0 {
        let last_queued = next.last_queued();
        if let Some(pcount) = next.pcount() {
            next_runs = pcount as u16;
            flags |= switch_flags::NEXT_COUNTED;
            if last_queued == 0 {
                flags |= switch_flags::NEXT_UNQUEUED;
            }
            if clock::is_run_queue() {
                // A stamp from the future can't be, and must not make a huge delay.
                let queued_ns = if last_queued == 0 {
                    0
                } else {
                    ts_ns.wrapping_sub(last_queued)
                };
                if queued_ns <= ts_ns {
                    next_delay_ns = next.run_delay().wrapping_add(queued_ns);
                    flags |= switch_flags::NEXT_STAMPED;
                }
            }
        }
    }
    ring::write(Switch {
        ts_ns,
        next_delay_ns,
        prev_tid: prev.tid(),
        next_tid,
        prev_state: state.unwrap_or_else(|| prev.state()) as u16,
        next_runs,
        _pad: 0,
        flags,
        kind: Kind::Switch as u8,
    });
    0
}
