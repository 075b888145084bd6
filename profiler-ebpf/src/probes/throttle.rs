//! CPU quotas of cgroups.
//!
//! Since Linux 6.18 a thread whose group has used up its quota is taken off its queue as it is about to go
//! back to user mode (`throttle_cfs_rq_work`, kernel/sched/fair.c), and `task->throttled` is set: the switch
//! that follows sees it, and so tells exactly which thread is held back since when. The end is found as the
//! thread comes in. Nothing more is hooked.
//!
//! Before, a group's queue was taken off with all that was in it. There `tg_throttle_down` and
//! `tg_unthrottle_up` tell when a group's quota is used up on one CPU, and when there is some again. The
//! kernel calls them (kernel/sched/fair.c, `walk_tg_tree_from`) for the group with the quota and for
//! each group below it, with the run queue locked, interrupts off and its clock up to date; possibly on
//! another CPU than the one that it is about. A group below several quotas is held back while any of them
//! is used up, which `throttle_count` counts: only its first and last step matter.
//!
//! Functions are hooked by fentry; where the kernel has no trampolines for them (arm64 before Linux 6.4), or
//! refuses those, by kprobes. They are called rarely, so everything is read by address.
//!
//! See docs/decisions/0002-throttling.md.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, kprobe, map},
    maps::Array,
    programs::{FEntryContext, ProbeContext},
};
use core::{cell::UnsafeCell, ffi::c_void};
use profiler_ebpf::{Clock, Kind, Throttle, Throttled, config::ABSENT};

use crate::{
    cgroup,
    config::config,
    ring,
    task::Task,
    why::{read, why, why_at},
};

/// Called before the count goes up.
#[fentry(function = "tg_throttle_down")]
fn tg_throttle_down(ctx: FEntryContext) -> i32 {
    record(ctx.arg(0), ctx.arg(1), true).map_or(0, |()| 0)
}

/// Called before the count goes down.
#[fentry(function = "tg_unthrottle_up")]
fn tg_unthrottle_up(ctx: FEntryContext) -> i32 {
    record(ctx.arg(0), ctx.arg(1), false).map_or(0, |()| 0)
}

/// [`tg_throttle_down`], where functions can't be hooked by fentry.
#[kprobe]
fn tg_throttle_down_kprobe(ctx: ProbeContext) -> u32 {
    by_registers(&ctx, true).map_or(0, |()| 0)
}

/// [`tg_unthrottle_up`], where functions can't be hooked by fentry.
#[kprobe]
fn tg_unthrottle_up_kprobe(ctx: ProbeContext) -> u32 {
    by_registers(&ctx, false).map_or(0, |()| 0)
}

#[inline(always)]
fn by_registers(ctx: &ProbeContext, on: bool) -> Option<()> {
    let registers = ctx.as_ptr().cast::<u8>();
    let group = read(registers, why!(regs_first))?;
    let run_queue = read(registers, why!(regs_second))?;
    record(group, run_queue, on)
}

#[inline(always)]
fn record(group: *const c_void, run_queue: *const c_void, on: bool) -> Option<()> {
    let (group, run_queue) = (group.cast::<u8>(), run_queue.cast::<u8>());
    let cpu: u32 = read(run_queue, why!(rq_cpu))?;
    let queues: *const u8 = read(group, why!(group_cfs_rq))?;
    let queue: *const u8 = read(queues, cpu.wrapping_mul(8))?;
    let count: u32 = read(queue, why!(cfs_rq_throttle_count))?;
    if count != u32::from(!on) {
        return None;
    }
    let since_ns = match why!(cfs_rq_throttled_clock_self) {
        _ if on => 0,
        ABSENT => 0,
        offset => read(queue, offset)?,
    };
    let ts_ns = if config!(clock) == Clock::RunQueue as u32 {
        read(run_queue, config!(rq_clock))?
    } else {
        // SAFETY: The helper has no preconditions.
        unsafe { aya_ebpf::helpers::bpf_ktime_get_ns() }
    };
    let place = ring::reserve::<Throttle>(|| ts_ns)?;
    place.put(Throttle {
        ts_ns,
        cgroup: cgroup::id_of(group).unwrap_or(0),
        since_ns,
        cpu,
        _pad: [0; 2],
        on: u8::from(on),
        kind: Kind::Throttle as u8,
    });
    Some(())
}

/// A thread that is off its CPU because of a quota.
#[repr(C)]
#[derive(Clone, Copy)]
struct Held {
    /// 0 if the slot is free.
    tid: u64,
    /// Address of the queue that it was in.
    queue: u64,
    /// When threads of that queue were first held back.
    since_ns: u64,
    /// How long they had been before that.
    total_ns: u64,
}

/// Slots of [`THROTTLED`], a power of two; of threads that share one the last to leave is remembered.
const SLOTS: u32 = 1 << 16;

// The loader sets the number of entries.
#[map]
static THROTTLED: Array<Held> = Array::with_max_entries(1, 0);

/// 1 once a thread was held back, so that no switch looks for one on a host without quotas.
static QUOTAS_MATTER: Global = Global(UnsafeCell::new(0));

/// A word that all programs share.
#[repr(transparent)]
struct Global(UnsafeCell<u64>);

// SAFETY: It is read and written as a whole.
unsafe impl Sync for Global {}

/// Whether a thread that leaves its CPU is held back by a quota.
#[inline(always)]
pub(crate) fn is_throttled(task: Task) -> bool {
    why!(task_throttled) != ABSENT && task.0.field::<u8>(why_at!(task_throttled)) & 1 != 0
}

/// Notes that a thread leaves because of a quota.
///
/// Its queue's `throttled_clock_self` says since when threads are held back there, and at the end that span
/// is added to `throttled_clock_self_time` (`tg_unthrottle_up`, kernel/sched/fair.c).
#[inline(always)]
pub(crate) fn begin(task: Task, tid: u32, ts_ns: u64) {
    let Some(slot) = THROTTLED.get_ptr_mut(tid & (SLOTS - 1)) else {
        return;
    };
    let queue = task.group_queue();
    let since_ns: u64 = queue.field(why_at!(cfs_rq_throttled_clock_self));
    let held = Held {
        tid: u64::from(tid),
        queue: queue.as_ptr() as u64,
        since_ns: if since_ns == 0 { ts_ns } else { since_ns },
        total_ns: queue.field(why_at!(cfs_rq_throttled_clock_self_time)),
    };
    // SAFETY: The map's memory is valid and aligned.
    unsafe { slot.write_volatile(held) };
    // SAFETY: As above; all that is ever written is this.
    unsafe { QUOTAS_MATTER.0.get().write_volatile(1) };
}

/// Tells how long a thread that comes in was held back, if it was.
#[inline(always)]
pub(crate) fn end(task: Task, ts_ns: impl Fn() -> u64) {
    if why!(task_throttled) == ABSENT {
        return;
    }
    // SAFETY: A static is valid and aligned.
    if unsafe { QUOTAS_MATTER.0.get().read_volatile() } != 0 {
        settle(task.tid(), ts_ns());
    }
}

#[inline(always)]
fn settle(tid: u32, ts_ns: u64) {
    let Some(slot) = THROTTLED.get_ptr_mut(tid & (SLOTS - 1)) else {
        return;
    };
    // SAFETY: The map's memory is valid and aligned.
    let held = unsafe { slot.read_volatile() };
    if tid == 0 || held.tid != u64::from(tid) {
        return;
    }
    // SAFETY: As above.
    unsafe { (&raw mut (*slot).tid).write_volatile(0) };
    // By address: the thread may have gone to another queue, and its old one need not be there any more.
    let total_ns: u64 = read(
        held.queue as *const u8,
        why!(cfs_rq_throttled_clock_self_time),
    )
    .unwrap_or(held.total_ns);
    let span_ns = total_ns.wrapping_sub(held.total_ns);
    let left_ns = ts_ns.saturating_sub(held.since_ns);
    let is_known = span_ns != 0 && span_ns <= left_ns;
    let Some(place) = ring::reserve::<Throttled>(|| ts_ns) else {
        return;
    };
    place.put(Throttled {
        ts_ns,
        since_ns: held.since_ns,
        until_ns: if is_known {
            held.since_ns.wrapping_add(span_ns)
        } else {
            ts_ns
        },
        tid,
        _pad: [0; 3],
        kind: Kind::Throttled as u8,
    });
}
