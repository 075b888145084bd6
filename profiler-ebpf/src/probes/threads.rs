//! The task iterator: every thread that there is, for the starting state.
//!
//! Runs in the daemon's own read of the iterator, once a thread, while the thread may be running.

use aya_ebpf::{bindings::seq_file, helpers::bpf_seq_write};
use core::ffi::{c_long, c_void};
use profiler_ebpf::{THREAD_RECORD_BYTES, ThreadRecord, thread_flags};

use crate::{
    cgroup,
    registers::Registers,
    task::{self, Task, comm_bytes},
    why::why,
};

/// `struct bpf_iter_meta` (include/linux/bpf.h), as far as it is used.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task` (`kernel/bpf/task_iter.c`).
#[repr(C)]
pub(crate) struct Context {
    meta: *const Meta,
    task: *const c_void,
}

/// The file that the daemon reads, and the thread that an iterator has come to; `None` after the last one.
#[inline(always)]
pub(crate) fn found(ctx: *const Context) -> Option<(*mut seq_file, Task)> {
    // SAFETY: The kernel passes a context of this form.
    let task = unsafe { (&raw const (*ctx).task).read_volatile() };
    if task.is_null() {
        return None;
    }
    // SAFETY: As above.
    let meta = unsafe { (&raw const (*ctx).meta).read_volatile() };
    // SAFETY: The kernel passes a valid pointer.
    let seq = unsafe { (&raw const (*meta).seq).read_volatile() };
    Some((seq, Task::from_kernel(task)))
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn threads(ctx: *const Context) -> i32 {
    let Some((seq, task)) = found(ctx) else {
        return 0;
    };
    let record = describe(task);
    // SAFETY: The record is plain bytes of the length given. If the file's buffer is full the kernel
    // sees it and comes back with the same thread.
    let _full: c_long =
        unsafe { bpf_seq_write(seq, (&raw const record).cast(), THREAD_RECORD_BYTES as u32) };
    0
}

#[inline(always)]
fn describe(thread: Task) -> ThreadRecord {
    // The count is read first, and what the thread does after it: if it is given a CPU in between, the
    // record of that switch-in has the next number, and so is known to be later than this.
    let (runs, run_delay_ns) = if task::has_sched_info() {
        (thread.pcount(), thread.run_delay())
    } else {
        (0, 0)
    };
    let mut flags = 0;
    if thread.is_kernel_thread() {
        flags |= thread_flags::KTHREAD;
    }
    if thread.is_on_cpu() {
        flags |= thread_flags::ON_CPU;
    }
    if thread.is_in_iowait() {
        flags |= thread_flags::IOWAIT;
    }
    // A dead thread that its parent has not yet taken note of says so in its exit state.
    let exit_state = thread.exit_state();
    let state = thread.state();
    let mut syscall = 0;
    if why!(syscalls) != 0 && thread.is_asleep() && !thread.is_in_kernel_for_good() {
        syscall = Registers::of(thread).syscall();
        flags |= thread_flags::SYSCALL;
    }
    ThreadRecord {
        start_ns: thread.start_boottime(),
        run_delay_ns,
        comm: comm_bytes(thread.comm()),
        tid: thread.tid(),
        tgid: thread.tgid(),
        parent_tgid: thread.real_parent().tgid(),
        state: state | exit_state,
        cpu: thread.cpu(),
        runs: runs.wrapping_sub(1) as u16,
        _pad: 0,
        flags,
        cpu_cgroup: cgroup::of(thread),
        syscall,
        _pad2: [0; 6],
    }
}
