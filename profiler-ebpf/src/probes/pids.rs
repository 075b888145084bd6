//! The task iterator that tells how threads are called in the reader's PID namespace.
//!
//! It comes only to threads that are visible in the namespace of whoever reads it (`task_seq_get_next` in
//! `kernel/bpf/task_iter.c`), so each has an id there: at the reader's own level of `pid.numbers`, which
//! has one `upid` for each namespace from the first one down (include/linux/pid.h). Rarely run: plain
//! helper reads do.

use core::ffi::c_long;

use aya_ebpf::helpers::{bpf_get_current_task, bpf_seq_write};
use profiler_ebpf::pids::{PID_RECORD_BYTES, PidRecord, PidsConfig};

use crate::{
    threads::{self, Context},
    why::read,
};

/// Overwritten by the loader; see [`profiler_ebpf::pids`].
#[unsafe(no_mangle)]
static PIDS_CONFIG: PidsConfig = PidsConfig::UNSET;

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn pids(ctx: *const Context) -> i32 {
    let Some((seq, task)) = threads::found(ctx) else {
        return 0;
    };
    let Some(record) = describe(task.0.as_ptr()) else {
        return 0;
    };
    // SAFETY: The record is plain bytes of the length given. If the file's buffer is full the kernel
    // sees it and comes back with the same thread.
    let _full: c_long =
        unsafe { bpf_seq_write(seq, (&raw const record).cast(), PID_RECORD_BYTES as u32) };
    0
}

/// `None` for a thread that has just ended: its `thread_pid` is gone.
#[inline(always)]
fn describe(task: *const u8) -> Option<PidRecord> {
    // SAFETY: The pointer is to a static, which is valid and aligned; the compiler must not believe
    // what it sees there.
    let config = unsafe { (&raw const PIDS_CONFIG).read_volatile() };
    // SAFETY: The helper has no preconditions.
    let reader = unsafe { bpf_get_current_task() } as *const u8;
    let own: *const u8 = read(reader, config.task_thread_pid)?;
    let level: u32 = read(own, config.pid_level)?;
    let pid: *const u8 = read(task, config.task_thread_pid)?;
    let place = config.pid_numbers + level * config.upid_bytes + config.upid_nr;
    Some(PidRecord {
        host: read(task, config.task_pid)?,
        here: read(pid, place)?,
    })
}
