//! The task iterator: every thread that there is, for the starting state.
//!
//! Runs in the daemon's own read of the iterator, once a thread, while the thread may be running.

use aya_ebpf::{bindings::seq_file, helpers::bpf_seq_write};
use core::{
    ffi::{c_long, c_void},
    mem::transmute,
};
use profiler_ebpf::{COMM_BYTES, THREAD_RECORD_BYTES, ThreadRecord, thread_flags};

use crate::task::Task;

/// `struct bpf_iter_meta` (include/linux/bpf.h), as far as it is used.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task` (kernel/bpf/task_iter.c).
#[repr(C)]
struct Context {
    meta: *const Meta,
    task: *const c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn threads(ctx: *const Context) -> i32 {
    // SAFETY: The kernel passes a context of this form.
    let task = unsafe { (&raw const (*ctx).task).read_volatile() };
    if task.is_null() {
        // The last call, after all threads.
        return 0;
    }
    // SAFETY: As above.
    let meta = unsafe { (&raw const (*ctx).meta).read_volatile() };
    // SAFETY: The kernel passes a valid pointer.
    let seq = unsafe { (&raw const (*meta).seq).read_volatile() };
    let record = describe(Task::from_kernel(task));
    // SAFETY: The record is plain bytes of the length given. If the file's buffer is full the kernel
    // sees it and comes back with the same thread.
    let _full: c_long =
        unsafe { bpf_seq_write(seq, (&raw const record).cast(), THREAD_RECORD_BYTES as u32) };
    0
}

#[inline(always)]
fn describe(task: Task) -> ThreadRecord {
    // The count is read first and the rest after it: a thread that gets a CPU in between is then seen
    // as one that runs, which its next switch-in, counted one higher, puts right.
    let runs = task.pcount().unwrap_or(0).wrapping_sub(1) as u16;
    let mut flags = 0;
    if task.is_kernel_thread() {
        flags |= thread_flags::KTHREAD;
    }
    if task.is_on_cpu() {
        flags |= thread_flags::ON_CPU;
    }
    if task.is_in_iowait() {
        flags |= thread_flags::IOWAIT;
    }
    ThreadRecord {
        start_ns: task.start_boottime(),
        run_delay_ns: task.run_delay(),
        // SAFETY: Same size, and every bit pattern is valid.
        comm: unsafe { transmute::<[u64; 2], [u8; COMM_BYTES]>(task.comm()) },
        tid: task.tid(),
        tgid: task.tgid(),
        parent_tgid: task.real_parent().tgid(),
        // A dead thread that its parent has not yet taken note of says so in its exit state.
        state: task.state() | task.exit_state(),
        cpu: task.cpu(),
        runs,
        _pad: 0,
        flags,
        _pad2: [0; 8],
    }
}
