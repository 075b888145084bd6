//! Tells how long a CPU has been in interrupts; see [`crate::context`].
//!
//! Looked at where it matters who had the CPU: at each switch, when a thread leaves its run queue for another
//! one, and at each wakeup to it, if wakeups are recorded. That run queue's lock is held then, and so guards
//! what was told; only a sleeper that is sent to another CPU leaves without. What is told is the sum since the
//! start, so that two who look at once do no harm.

use profiler_ebpf::{Interrupts, Kind};

use crate::{context, ring};

/// What is less waits until there is more.
const LEAST_NS: u64 = 1000;

/// A CPU is about to change threads: no interrupt goes on there.
#[inline(always)]
pub(crate) fn at_switch(cpu: u32, ts_ns: u64) {
    let Some(context) = context::of(cpu) else {
        return;
    };
    if context.softirq != 0 {
        context.softirqs_are_threads = 1;
        // One that expires in it stays with its thread.
        context.timer = 0;
    }
    if has_grown(context.all_ns, context.told_ns) {
        tell(cpu, ts_ns);
    } else {
        context.looked_ns = ts_ns;
    }
}

/// A thread comes to the run queue of a CPU, which may be in the interrupt that wakes it, or leaves it.
#[inline(always)]
pub(crate) fn at_coming_and_going(cpu: u32, ts_ns: u64) {
    let Some(context) = context::of(cpu) else {
        return;
    };
    if context.is_in_interrupt() || has_grown(context.all_ns, context.told_ns) {
        tell(cpu, ts_ns);
    } else {
        context.looked_ns = ts_ns;
    }
}

/// Whether there is something to tell. Another CPU that read it in the midst of a change may have told a little
/// too much.
#[inline(always)]
fn has_grown(all_ns: u64, told_ns: u64) -> bool {
    all_ns >= told_ns.wrapping_add(LEAST_NS)
}

/// Out of the way of those that have nothing to tell.
#[cold]
#[inline(never)]
fn tell(cpu: u32, ts_ns: u64) -> u64 {
    let Some(context) = context::of(cpu) else {
        return 0;
    };
    let mut spent_ns = context.spent_ns.map(|ns| ns as u32);
    let mut all_ns = context.all_ns;
    if let Some(ns) = spent_ns.get_mut(context.kind()) {
        let elapsed_ns = context.elapsed_ns();
        *ns = ns.wrapping_add(elapsed_ns as u32);
        all_ns = all_ns.wrapping_add(elapsed_ns);
    }
    let within_ns = ts_ns.saturating_sub(context.looked_ns);
    if !has_grown(all_ns, context.told_ns) {
        context.looked_ns = ts_ns;
        return 0;
    }
    let Some(place) = ring::reserve::<Interrupts>(|| ts_ns) else {
        return 0;
    };
    place.put(Interrupts {
        ts_ns,
        spent_ns,
        within_ns: u32::try_from(within_ns).unwrap_or(u32::MAX),
        cpu: cpu as u16,
        _pad: 0,
        kind: Kind::Interrupts as u8,
    });
    context.told_ns = all_ns;
    context.looked_ns = ts_ns;
    0
}
