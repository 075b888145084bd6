//! The other task iterator: the evidence of waits that have not ended.
//!
//! Runs in the daemon's own read of the iterator, once a thread. Threads go on meanwhile; one that is woken
//! while it is looked at is left out.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_seq_write;
use profiler_ebpf::evidence::{EVIDENCE_BYTES, EvidenceRecord};

use crate::{
    evidence::{self, Noted},
    task::{self, Task},
    threads::{Context, found},
};

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn open_waits(ctx: *const Context) -> i32 {
    let Some((seq, task)) = found(ctx) else {
        return 0;
    };
    let runs = runs(task);
    if !task.is_asleep() || !evidence::is_target(task.tgid()) {
        return 0;
    }
    let noted = evidence::noted(task.tid()).unwrap_or(Noted::NONE);
    let mut record = MaybeUninit::<EvidenceRecord>::uninit();
    evidence::describe(&mut record, task, noted, 0);
    // Else the stack may be one that never was, and the beginning that of another wait.
    if !task.is_asleep() || self::runs(task) != runs {
        return 0;
    }
    // SAFETY: The record is plain bytes of the length given. If the file's buffer is full the kernel
    // sees it and comes back with the same thread.
    let _full = unsafe { bpf_seq_write(seq, record.as_mut_ptr().cast(), EVIDENCE_BYTES as u32) };
    0
}

/// How often it was given a CPU.
#[inline(always)]
fn runs(task: Task) -> u64 {
    if task::has_sched_info() {
        task.pcount()
    } else {
        0
    }
}
