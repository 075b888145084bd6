//! Reading the kernel's structs at offsets that the daemon found.
//!
//! The pointers are typed ones: arguments of a BTF tracepoint or of the iterator. The verifier knows
//! what they point to and checks every load against the kernel's own type information; a load through
//! a pointer that turns out to be bad reads zero instead of faulting.

use core::{ffi::c_void, mem::transmute};
use profiler_ebpf::{COMM_BYTES, config::ABSENT};

use crate::config::{at, config};

/// A typed pointer to a kernel struct.
#[derive(Clone, Copy)]
pub(crate) struct Struct(*const u8);

/// `PF_KTHREAD` (include/linux/sched.h; the same number since Linux 2.6.27).
const PF_KTHREAD: u32 = 0x0020_0000;

/// `PF_IO_WORKER` and `PF_USER_WORKER`: threads that the kernel keeps in a user process, whose registers
/// are a copy of their maker's. (Older kernels used the first for virtual CPUs in guest code and the
/// second for threads that load a module, which hardly ever show here.)
const PF_WORKER: u32 = 0x0000_0010 | 0x0000_4000;

/// States that are no sleep: `TASK_DEAD`, `TASK_WAKING` and `TASK_NEW` (include/linux/sched.h; the same
/// numbers since Linux 4.14). A thread that is born or woken is in one of the latter two for a moment.
const NO_SLEEP: u32 = 0x0080 | 0x0200 | 0x0800;

impl Struct {
    /// Takes a pointer that the kernel gave.
    #[inline(always)]
    pub(crate) fn from_kernel(pointer: *const c_void) -> Self {
        Self(pointer.cast())
    }

    /// Its address, still typed for the verifier.
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *const u8 {
        self.0
    }

    /// The field of type `T` at this offset.
    #[inline(always)]
    pub(crate) fn field<T: Copy>(self, offset: usize) -> T {
        let at = self.0.wrapping_add(offset).cast::<T>();
        // SAFETY: The verifier only admits this load if the kernel's type information has a scalar
        // or pointer of this size here; see the module's documentation for bad pointers.
        unsafe { *at }
    }

    /// The same, in the order of the program: for what another CPU may be changing meanwhile.
    #[inline(always)]
    fn observe<T: Copy>(self, offset: usize) -> T {
        let at = self.0.wrapping_add(offset).cast::<T>();
        // SAFETY: As above.
        unsafe { at.read_volatile() }
    }

    /// The struct that the pointer at this offset points to.
    #[inline(always)]
    fn follow(self, offset: usize) -> Self {
        Self(self.field(offset))
    }
}

/// A thread (`struct task_struct`).
#[derive(Clone, Copy)]
pub(crate) struct Task(pub(crate) Struct);

/// Whether the kernel keeps books on how long threads wait on run queues (`task_struct.sched_info`).
#[inline(always)]
pub(crate) fn has_sched_info() -> bool {
    config!(has_sched_info) != 0
}

impl Task {
    /// Takes a `task_struct` pointer that the kernel gave.
    #[inline(always)]
    pub(crate) fn from_kernel(pointer: *const c_void) -> Self {
        Self(Struct::from_kernel(pointer))
    }

    #[inline(always)]
    pub(crate) fn tid(self) -> u32 {
        self.0.field(at!(task_pid))
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.0.field(at!(task_tgid))
    }

    /// The state word. Before Linux 5.14 it was a `long`, of which these are the low four bytes.
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        self.0.observe(at!(task_state))
    }

    #[inline(always)]
    pub(crate) fn exit_state(self) -> u32 {
        self.0.observe(at!(task_exit_state))
    }

    /// Whether it sleeps at this moment. So looks also one that was preempted on its way to sleep.
    #[inline(always)]
    pub(crate) fn is_asleep(self) -> bool {
        let state = self.state();
        state != 0 && state & NO_SLEEP == 0 && self.exit_state() == 0 && !self.is_on_cpu()
    }

    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        self.0.field::<u32>(at!(task_flags)) & PF_KTHREAD != 0
    }

    /// Whether it runs nothing but kernel code.
    #[inline(always)]
    pub(crate) fn is_in_kernel_for_good(self) -> bool {
        self.0.field::<u32>(at!(task_flags)) & (PF_KTHREAD | PF_WORKER) != 0
    }

    /// The name, as two words.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u64; 2] {
        let at = at!(task_comm);
        [self.0.field(at), self.0.field(at + 8)]
    }

    #[inline(always)]
    pub(crate) fn start_boottime(self) -> u64 {
        self.0.field(at!(task_start_boottime))
    }

    #[inline(always)]
    pub(crate) fn real_parent(self) -> Self {
        Self(self.0.follow(at!(task_real_parent)))
    }

    /// The CPU whose run queue it is on, or was last on; 0 on a kernel without SMP.
    #[inline(always)]
    pub(crate) fn cpu(self) -> u32 {
        if config!(task_cpu) == ABSENT {
            0
        } else {
            self.0.field(at!(task_cpu))
        }
    }

    /// Whether it is on a CPU; false on a kernel without SMP. The field was an `int` until Linux 7, of
    /// which this is the low byte.
    #[inline(always)]
    pub(crate) fn is_on_cpu(self) -> bool {
        config!(task_on_cpu) != ABSENT && self.0.observe::<u8>(at!(task_on_cpu)) != 0
    }

    /// Whether it waits for a block device; false where the kernel has no such bit.
    #[inline(always)]
    pub(crate) fn is_in_iowait(self) -> bool {
        let byte: u8 = self.0.field(at!(task_in_iowait));
        u32::from(byte) & config!(task_in_iowait_mask) != 0
    }

    /// `sched_info.pcount`: how often it was given a CPU.
    #[inline(always)]
    pub(crate) fn pcount(self) -> u64 {
        self.0.observe(at!(task_pcount))
    }

    /// `sched_info.run_delay`: how long it waited on run queues.
    #[inline(always)]
    pub(crate) fn run_delay(self) -> u64 {
        self.0.field(at!(task_run_delay))
    }

    /// `sched_info.last_queued`: when it was put on its run queue, or 0 if it is on none.
    #[inline(always)]
    pub(crate) fn last_queued(self) -> u64 {
        self.0.field(at!(task_last_queued))
    }

    /// The queue of its group on the CPU that it is on (`se.cfs_rq`).
    #[inline(always)]
    pub(crate) fn group_queue(self) -> Struct {
        self.0.follow(at!(task_cfs_rq))
    }

    /// The clock of the run queue of the CPU that it is on (`se.cfs_rq->rq->clock`).
    ///
    /// `se.cfs_rq` is set for threads of all scheduling classes and for idle tasks: the kernel moves
    /// it with the thread's CPU (`set_task_rq`, kernel/sched/sched.h).
    #[inline(always)]
    pub(crate) fn run_queue_clock(self) -> u64 {
        let cfs_rq = self.0.follow(at!(task_cfs_rq));
        let rq = cfs_rq.follow(at!(cfs_rq_rq));
        rq.field(at!(rq_clock))
    }
}

/// The bytes of a name.
#[inline(always)]
pub(crate) fn comm_bytes(comm: [u64; 2]) -> [u8; COMM_BYTES] {
    // SAFETY: Same size, and every bit pattern is valid.
    unsafe { transmute::<[u64; 2], [u8; COMM_BYTES]>(comm) }
}
