//! `sched_switch`: a CPU changes from one thread to another. The hot one.
//!
//! Fires in `__schedule` (kernel/sched/core.c) with the run queue locked, interrupts off and its clock
//! up to date, before `sched_info_switch` settles the books: the wait of the incoming thread is not yet
//! in its `run_delay`, nor this run in its `pcount`.

//!
//! The arguments have had three forms; each has its own program, and the daemon loads the one that fits.

use aya_ebpf::{EbpfContext as _, macros::btf_tracepoint, programs::BtfTracePointContext};
use profiler_ebpf::{Kind, Switch, ring::Shed, switch_flags};

use crate::{
    clock, evidence, interrupts,
    registers::Registers,
    ring,
    task::{self, Task},
    throttle,
    why::why,
};

/// `preempt, prev, next, prev_state`: since Linux 5.18.
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    record(&ctx, 1, 2, |_| ctx.arg(3))
}

/// `preempt, prev_state, prev, next`: release candidates of 5.18, and kernels that took the change from
/// there.
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch_state_first(ctx: BtfTracePointContext) -> i32 {
    record(&ctx, 2, 3, |_| ctx.arg(1))
}

/// `preempt, prev, next`: before Linux 5.18. A thread that is woken while it is on its way out may have
/// its state word back at 0 by now, and looks as if it had not gone to sleep: it hardly had.
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch_without_state(ctx: BtfTracePointContext) -> i32 {
    record(&ctx, 1, 2, Task::state)
}

/// `TASK_DEAD` (include/linux/sched.h): the thread does not come back.
const TASK_DEAD: u32 = 0x80;

/// Records a switch; `prev` and `next` are the places of these arguments.
#[inline(always)]
fn record(
    ctx: &BtfTracePointContext,
    prev: usize,
    next: usize,
    prev_state: impl Fn(Task) -> u32,
) -> i32 {
    let Some(ring) = ring::here() else {
        return 0;
    };
    let threads = || {
        let prev = Task::from_kernel(ctx.arg(prev));
        let next = Task::from_kernel(ctx.arg(next));
        (prev.tid(), next.tid())
    };
    // A thread's last switch is never left out: nothing else says that it is gone.
    if ring.sheds_both(Shed::Switch, threads, || {
        prev_state(Task::from_kernel(ctx.arg(prev))) & TASK_DEAD != 0
    }) {
        return 0;
    }
    let ts_ns = || clock::of(Task::from_kernel(ctx.arg(prev)));
    // These have records of their own, which come before the switch.
    throttle::end(Task::from_kernel(ctx.arg(next)), ts_ns);
    if why!(wakers) != 0 {
        interrupts::at_switch(ring.cpu, ts_ns());
    }
    let Some(place) = ring.reserve::<Switch>(ts_ns) else {
        return 0;
    };
    let ts_ns = ts_ns();
    let prev = Task::from_kernel(ctx.arg(prev));
    let next = Task::from_kernel(ctx.arg(next));
    let next_tid = next.tid();
    // The argument is a `bool`: only its lowest byte is sure to be set.
    let mut flags = ctx.arg::<u32>(0) as u8 & switch_flags::PREEMPT;
    let mut next_delay_ns = 0;
    let mut next_runs = 0;
    if prev.is_in_iowait() {
        flags |= switch_flags::PREV_IOWAIT;
    }
    // The idle task is never queued, so it has no stamp and is not counted.
    if next_tid != 0 && task::has_sched_info() {
        next_runs = next.pcount() as u16;
        flags |= switch_flags::NEXT_COUNTED;
        let last_queued = next.last_queued();
        let queued_ns = if last_queued == 0 {
            flags |= switch_flags::NEXT_UNQUEUED;
            0
        } else {
            ts_ns.wrapping_sub(last_queued)
        };
        // A stamp from the future can't be, and must not make a huge delay.
        if clock::is_run_queue() && queued_ns <= ts_ns {
            next_delay_ns = next.run_delay().wrapping_add(queued_ns);
            flags |= switch_flags::NEXT_STAMPED;
        }
    }
    let prev_tid = prev.tid();
    let prev_state = prev_state(prev) as u16;
    let is_preempted = flags & switch_flags::PREEMPT != 0;
    let blocks = !is_preempted && prev_state != 0;
    let mut prev_syscall = 0;
    // One that gave its CPU up is looked at too, though it is runnable: it may have yielded.
    if why!(syscalls) != 0 && !is_preempted {
        if !prev.is_in_kernel_for_good() {
            flags |= switch_flags::PREV_SYSCALL;
            prev_syscall = Registers::of(prev).syscall();
        } else if blocks {
            flags |= switch_flags::PREV_KTHREAD;
        }
    }
    if blocks {
        if why!(evidence) != 0 {
            evidence::begin(ctx.as_ptr(), prev, prev_tid, ts_ns);
        }
    } else if prev_tid != 0 && throttle::is_throttled(prev) {
        throttle::begin(prev, prev_tid, ts_ns);
        flags |= switch_flags::PREV_THROTTLED;
    }
    place.put(Switch {
        ts_ns,
        next_delay_ns,
        prev_tid,
        next_tid,
        prev_state,
        next_runs,
        prev_syscall,
        flags,
        kind: Kind::Switch as u8,
    });
    0
}

// The argument's value is the flag.
const _: () = assert!(switch_flags::PREEMPT == 1);
