//! `sched_migrate_task`: a thread goes to another CPU's run queue.
//!
//! Fires in `set_task_cpu` (kernel/sched/core.c) before the thread's CPU is changed.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use profiler_ebpf::{Kind, Migrate, ring::Shed};

use crate::{clock, interrupts, ring, task::Task, why::why};

#[btf_tracepoint(function = "sched_migrate_task")]
fn sched_migrate_task(ctx: BtfTracePointContext) -> i32 {
    let task = Task::from_kernel(ctx.arg(0));
    let Some(ring) = ring::here() else {
        return 0;
    };
    if ring.sheds(Shed::Migrate, || task.tid()) {
        return 0;
    }
    if why!(wakers) != 0 {
        interrupts::at_coming_and_going(task.cpu(), clock::of(task));
    }
    let (ts_ns, runs) = clock::after_arrival(task);
    let Some(place) = ring.reserve::<Migrate>(|| ts_ns) else {
        return 0;
    };
    place.put(Migrate {
        ts_ns,
        tid: task.tid(),
        from_cpu: task.cpu(),
        to_cpu: ctx.arg(1),
        runs,
        _pad: [0; 9],
        kind: Kind::Migrate as u8,
    });
    0
}
