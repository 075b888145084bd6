//! The clock that stamps the records.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use profiler_ebpf::Clock;

use crate::{config::config, task::Task};

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
