//! In which context a CPU is: a thread's, or an interrupt's, and which; and how long it has been in
//! interrupts. Attached only with wakers.
//!
//! Hard interrupts don't nest and interrupt everything else. Timers that expire in a softirq have the
//! hook of those that expire in an interrupt; a hard interrupt therefore puts that mark aside and brings it
//! back, so that it is not taken for a timer. Where softirqs can be preempted (`PREEMPT_RT`) a softirq's mark
//! counts only for the thread that is in it, and timers that expire there have no mark of their own.
//!
//! The kernel does not run a program that runs already on that CPU. A timer of an interrupt may come while the hook of
//! one in a softirq runs, and is then not marked: what it wakes is woken by the softirq that it interrupted. What the
//! interrupt puts aside and brings back mends all else, and no record is lost.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use profiler_ebpf::{interrupt, waker_context};

/// What one CPU is doing.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct CpuContext {
    /// One more than the softirq's number; 0 outside.
    pub(crate) softirq: u32,
    /// The thread that the softirq is in.
    softirq_tid: u32,
    /// One more than the interrupt's number; 0 outside.
    hard_irq: u32,
    /// 1 in an interrupt by another CPU.
    ipi: u32,
    /// 1 while a high-resolution timer expires.
    pub(crate) timer: u32,
    /// What `timer` was before the hard interrupt.
    saved_timer: u32,
    /// 1 in the local timer's interrupt.
    tick: u32,
    /// 1 once a softirq was seen to be preempted (`PREEMPT_RT`): softirqs are work of threads here.
    pub(crate) softirqs_are_threads: u32,
    /// When the innermost interrupt began, or went on.
    since_ns: u64,
    /// Time in interrupts, by kind ([`interrupt`]).
    pub(crate) spent_ns: [u64; interrupt::KINDS],
    /// That together.
    pub(crate) all_ns: u64,
    /// That as it was last told.
    pub(crate) told_ns: u64,
    /// When it was last looked at, by the clock of the CPU's run queue.
    pub(crate) looked_ns: u64,
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
    of(unsafe { bpf_get_smp_processor_id() })
}

/// A CPU's. Of another than this one only what its run queue's lock guards may be written.
#[inline(always)]
pub(crate) fn of(cpu: u32) -> Option<&'static mut CpuContext> {
    let context = CPU_CONTEXTS.get_ptr_mut(cpu)?;
    // SAFETY: The map's memory is valid, aligned and zero at first. Its words are written by one CPU each,
    // or under one lock; what is read of another CPU may be old, never torn.
    Some(unsafe { &mut *context })
}

impl CpuContext {
    /// The kind of the innermost interrupt; [`interrupt::KINDS`] outside.
    #[inline(always)]
    pub(crate) fn kind(&self) -> usize {
        if self.timer != 0 || self.tick != 0 {
            return interrupt::TIMER;
        }
        if self.ipi != 0 || self.hard_irq != 0 {
            return interrupt::OTHER;
        }
        // Numbers of softirqs: include/linux/interrupt.h.
        match self.softirq.wrapping_sub(1) {
            u32::MAX => interrupt::KINDS,
            _ if self.softirqs_are_threads != 0 => interrupt::KINDS,
            1 | 8 => interrupt::TIMER,
            2 | 3 => interrupt::NETWORK,
            4 | 5 => interrupt::BLOCK,
            _ => interrupt::OTHER,
        }
    }

    /// Whether a hard interrupt is going on, as far as there is a hook for it.
    #[inline(always)]
    fn is_in_hard_interrupt(&self) -> bool {
        self.tick | self.hard_irq | self.ipi != 0
    }

    /// Whether an interrupt is going on, as far as there is a hook for it.
    #[inline(always)]
    pub(crate) fn is_in_interrupt(&self) -> bool {
        self.kind() < interrupt::KINDS
    }

    /// How long the innermost interrupt has been going on, if there is one.
    #[inline(always)]
    pub(crate) fn elapsed_ns(&self) -> u64 {
        // SAFETY: The helper has no preconditions.
        unsafe { bpf_ktime_get_ns() }.wrapping_sub(self.since_ns)
    }

    /// One interrupt gives way to another, or to a thread: books what there was up to now.
    #[inline(always)]
    fn settle(&mut self) {
        // SAFETY: The helper has no preconditions.
        let now_ns = unsafe { bpf_ktime_get_ns() };
        let kind = self.kind();
        let elapsed_ns = now_ns.wrapping_sub(self.since_ns);
        if let Some(spent_ns) = self.spent_ns.get_mut(kind) {
            *spent_ns = spent_ns.wrapping_add(elapsed_ns);
            self.all_ns = self.all_ns.wrapping_add(elapsed_ns);
        }
        self.since_ns = now_ns;
    }
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
                $context.settle();
                $enter
            }
            0
        }

        #[btf_tracepoint]
        fn $exit(_ctx: BtfTracePointContext) -> i32 {
            if let Some($context) = this_cpu() {
                $context.settle();
                $leave
            }
            0
        }
    };
}

/// Those of a hard interrupt that one mark is enough for.
macro_rules! hard {
    ($entry:ident, $exit:ident, $mark:ident) => {
        pair!(
            $entry,
            $exit,
            |context, _ctx| {
                context.saved_timer = context.timer;
                context.timer = 0;
                context.$mark = 1;
            },
            {
                context.$mark = 0;
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
        // Of a thread's work the softirq's mark tells, which a switch to another thread outlasts.
        context.timer =
            u32::from(context.softirqs_are_threads == 0 || context.is_in_hard_interrupt());
    },
    {
        context.timer = 0;
    }
);
// arm64.
hard!(ipi_entry, ipi_exit, ipi);
// x86-64.
hard!(call_function_entry, call_function_exit, ipi);
hard!(call_function_single_entry, call_function_single_exit, ipi);
hard!(irq_work_entry, irq_work_exit, ipi);
hard!(local_timer_entry, local_timer_exit, tick);
