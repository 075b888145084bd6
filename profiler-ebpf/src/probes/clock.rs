//! The clock that stamps the records.

use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_ktime_get_ns};
use profiler_ebpf::{Clock, config::ABSENT};

use crate::{
    config::config,
    task::{self, Task},
    why::{why, why_at},
};

/// Whether the records are stamped by the run queues' clock, and so compare with the kernel's stamps.
#[inline(always)]
pub(crate) fn is_run_queue() -> bool {
    config!(clock) == Clock::RunQueue as u32
}

/// The time of an event of `task`, on the CPU whose run queue it is on.
///
/// The run queue's clock is brought up to date when the kernel begins to schedule or to enqueue, so
/// in those hooks it is the time of that. In the others it is the time of the last such moment or
/// tick: never later than the truth, never earlier than the thread's last switch-in.
#[inline(always)]
pub(crate) fn of(task: Task) -> u64 {
    if is_run_queue() {
        task.run_queue_clock()
    } else {
        // SAFETY: The helper has no preconditions.
        unsafe { bpf_ktime_get_ns() }
    }
}

/// A time for an event of a thread that is not on a CPU, where neither its run queue's clock nor the one of
/// this CPU need be up to date: this CPU's, but after the thread's last switch-in. And the low 16 bits of how
/// often it had been given a CPU, which say exactly which of its waits the event belongs to.
#[inline(always)]
pub(crate) fn after_arrival(task: Task) -> (u64, u16) {
    let runs = if task::has_sched_info() {
        task.pcount() as u16
    } else {
        0
    };
    if !is_run_queue() {
        // SAFETY: The helper has no preconditions.
        return (unsafe { bpf_ktime_get_ns() }, runs);
    }
    let local_ns = if why!(has_current_btf) == 0 {
        0
    } else {
        // SAFETY: The helper has no preconditions.
        let current = unsafe { bpf_get_current_task_btf() };
        Task::from_kernel(current.cast()).run_queue_clock()
    };
    let arrival_ns = match why!(task_last_arrival) {
        ABSENT => 0,
        _ => task.0.field::<u64>(why_at!(task_last_arrival)),
    };
    (local_ns.max(arrival_ns.wrapping_add(1)), runs)
}
