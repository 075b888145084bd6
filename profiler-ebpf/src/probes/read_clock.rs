//! One reading of the records' clock beside `CLOCK_MONOTONIC`, run by the daemon when it wants one.
//!
//! Attached nowhere. The daemon yields its CPU just before, so that the run queue's clock is fresh.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};
use profiler_ebpf::ClockReading;

use crate::{clock, config::config};

#[map]
static CLOCK_READING: Array<ClockReading> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[raw_tracepoint]
fn read_clock(_ctx: RawTracePointContext) -> i32 {
    let record_ns = if clock::is_run_queue() {
        run_queue_clock().unwrap_or(0)
    } else {
        0
    };
    // SAFETY: The helper has no preconditions.
    let monotonic_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(reading) = CLOCK_READING.get_ptr_mut(0) {
        // SAFETY: The map's memory is valid and aligned.
        unsafe {
            reading.write_volatile(ClockReading {
                record_ns,
                monotonic_ns,
            });
        };
    }
    0
}

/// As `Task::run_queue_clock`, for the current thread, whose pointer has no type in this kind of program.
#[inline(always)]
fn run_queue_clock() -> Option<u64> {
    // SAFETY: The helper has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let cfs_rq: *const u8 = read(task, config!(task_cfs_rq))?;
    let rq: *const u8 = read(cfs_rq, config!(cfs_rq_rq))?;
    read(rq, config!(rq_clock))
}

#[inline(always)]
fn read<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: The helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}
