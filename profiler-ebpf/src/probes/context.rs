//! In which context a CPU is: a thread's, or an interrupt's, and which. Attached only with wakers.
//!
//! Hard interrupts don't nest and interrupt everything else. Timers that expire in a softirq have the
//! hook of those that expire in an interrupt; a hard interrupt therefore puts that mark aside and brings it
//! back, so that it is not taken for a timer. Where softirqs can be preempted (`PREEMPT_RT`) a softirq's mark
//! counts only for the thread that is in it.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id},
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use profiler_ebpf::waker_context;

/// What one CPU is doing.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct CpuContext {
    /// One more than the softirq's number; 0 outside.
    softirq: u32,
    /// The thread that the softirq is in.
    softirq_tid: u32,
    /// One more than the interrupt's number; 0 outside.
    hard_irq: u32,
    /// 1 in an interrupt by another CPU.
    ipi: u32,
    /// 1 while a high-resolution timer expires.
    timer: u32,
    /// What `timer` was before the hard interrupt.
    saved_timer: u32,
    /// The second that `budget_used` belongs to.
    pub(crate) budget_second: u64,
    /// How many waits' evidence was taken in it.
    pub(crate) budget_used: u64,
}

// The loader sets the number of entries.
#[map]
static CPU_CONTEXTS: Array<CpuContext> = Array::with_max_entries(1, 0);

/// This CPU's.
#[inline(always)]
pub(crate) fn this_cpu() -> Option<&'static mut CpuContext> {
    // SAFETY: The helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let context = CPU_CONTEXTS.get_ptr_mut(cpu)?;
    // SAFETY: The map's memory is valid, aligned and zero at first, and only this CPU uses it.
    Some(unsafe { &mut *context })
}

/// Which context this CPU is in while thread `tid` is on it, and the number that goes with that.
#[inline(always)]
pub(crate) fn waker(tid: u32) -> (u8, u32) {
    let Some(context) = this_cpu() else {
        return (waker_context::THREAD, 0);
    };
    if context.timer != 0 {
        (waker_context::TIMER, 0)
    } else if context.ipi != 0 {
        (waker_context::IPI, 0)
    } else if context.hard_irq != 0 {
        (waker_context::HARD_IRQ, context.hard_irq.wrapping_sub(1))
    } else if context.softirq != 0 && context.softirq_tid == tid {
        (waker_context::SOFTIRQ, context.softirq.wrapping_sub(1))
    } else {
        (waker_context::THREAD, 0)
    }
}

/// The programs of one pair of hooks.
macro_rules! pair {
    ($entry:ident, $exit:ident, |$context:ident, $ctx:ident| $enter:block, $leave:block) => {
        #[btf_tracepoint]
        fn $entry($ctx: BtfTracePointContext) -> i32 {
            if let Some($context) = this_cpu() {
                $enter
            }
            0
        }

        #[btf_tracepoint]
        fn $exit(_ctx: BtfTracePointContext) -> i32 {
            if let Some($context) = this_cpu() {
                $leave
            }
            0
        }
    };
}

macro_rules! ipi {
    ($entry:ident, $exit:ident) => {
        pair!(
            $entry,
            $exit,
            |context, _ctx| {
                context.saved_timer = context.timer;
                context.timer = 0;
                context.ipi = 1;
            },
            {
                context.ipi = 0;
                context.timer = context.saved_timer;
            }
        );
    };
}

pair!(
    softirq_entry,
    softirq_exit,
    |context, ctx| {
        context.softirq = ctx.arg::<u32>(0).wrapping_add(1);
        context.softirq_tid = bpf_get_current_pid_tgid() as u32;
    },
    {
        context.softirq = 0;
    }
);
pair!(
    irq_handler_entry,
    irq_handler_exit,
    |context, ctx| {
        context.saved_timer = context.timer;
        context.timer = 0;
        context.hard_irq = ctx.arg::<u32>(0).wrapping_add(1);
    },
    {
        context.hard_irq = 0;
        context.timer = context.saved_timer;
    }
);
pair!(
    hrtimer_expire_entry,
    hrtimer_expire_exit,
    |context, _ctx| {
        context.timer = 1;
    },
    {
        context.timer = 0;
    }
);
// arm64.
ipi!(ipi_entry, ipi_exit);
// x86-64.
ipi!(call_function_entry, call_function_exit);
ipi!(call_function_single_entry, call_function_single_exit);
ipi!(irq_work_entry, irq_work_exit);
