//! Evidence of waits: what the sleeper stands in. Of long waits it is taken by who wakes the sleeper; of
//! those that have not ended, by [`crate::open_waits`].

use aya_ebpf::{
    bindings::{
        BPF_F_USER_STACK, BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP, bpf_map_def,
        bpf_map_type::BPF_MAP_TYPE_STACK_TRACE,
    },
    helpers::{
        bpf_get_stackid, bpf_get_task_stack, bpf_ktime_get_ns, bpf_probe_read_kernel_str_bytes,
    },
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use core::{
    cell::UnsafeCell,
    ffi::c_void,
    mem::{MaybeUninit, size_of},
};
use profiler_ebpf::{
    COMM_BYTES,
    evidence::{
        EVIDENCE_BYTES, EvidenceControl, EvidenceRecord, FRAMES, NO_USER_STACK, USER_FRAMES,
        evidence_flags,
    },
    ring::Counter,
    syscall,
    why::MAX_EVIDENCE_TARGETS,
};

use crate::{
    clock, context,
    registers::Registers,
    ring, side,
    task::Task,
    why::{read, why},
};

/// A thread's last wait.
#[repr(C)]
#[derive(Clone, Copy)]
struct Wait {
    /// When it began.
    left_ns: u64,
    /// The thread's id in the low half, 0 if it has ended; what became of its user stack in the high half
    /// (see [`EvidenceRecord::user_stack_id`]).
    tid_and_stack: u64,
}

/// Entries of [`WAITS`], a power of two. Threads whose ids agree in these low bits share one: then only the
/// last one to go to sleep can give evidence.
const WAIT_SLOTS: u32 = 1 << 16;

// The loader sets the number of entries of these two, or the size.
#[map]
static WAITS: Array<Wait> = Array::with_max_entries(1, 0);
#[map]
static EVIDENCE: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
static EVIDENCE_CONTROL: Array<EvidenceControl> = Array::with_max_entries(1, 0);
#[map]
static EVIDENCE_TARGETS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_EVIDENCE_TARGETS, 0);

/// A map of stacks, shorter ones than the form of it that aya has.
#[repr(transparent)]
struct Stacks(UnsafeCell<bpf_map_def>);

// SAFETY: Nothing but its address is used.
unsafe impl Sync for Stacks {}

/// User stacks by the id that the kernel gives each; the loader sets the number of entries here too.
#[map]
static USER_STACKS: Stacks = Stacks(UnsafeCell::new(bpf_map_def {
    type_: BPF_MAP_TYPE_STACK_TRACE,
    key_size: size_of::<u32>() as u32,
    value_size: (USER_FRAMES * size_of::<u64>()) as u32,
    max_entries: 1,
    map_flags: 0,
    id: 0,
    pinning: 0,
}));

/// What a record takes in its channel, with the ring buffer's header.
const IN_CHANNEL_BYTES: u64 = EVIDENCE_BYTES as u64 + 8;

/// `S_IFMT` and `S_IFSOCK` (include/uapi/linux/stat.h).
const FILE_TYPE: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;

/// Notes that a wait of `prev`, the current thread, begins. `ctx` is the program's own.
#[inline(always)]
pub(crate) fn begin(ctx: *mut c_void, prev: Task, tid: u32, ts_ns: u64) {
    // Its registers and its memory are at hand only now.
    let stack = if why!(user_stacks) != 0 && is_target(prev.tgid()) {
        user_stack(ctx)
    } else {
        NO_USER_STACK
    };
    if let Some(wait) = WAITS.get_ptr_mut(tid & (WAIT_SLOTS - 1)) {
        let entry = Wait {
            left_ns: ts_ns,
            tid_and_stack: u64::from(stack.cast_unsigned()) << 32 | u64::from(tid),
        };
        // SAFETY: The map's memory is valid and aligned.
        unsafe { wait.write_volatile(entry) };
    }
}

/// The id of the current thread's user stack, or the kernel's error.
#[inline(always)]
fn user_stack(ctx: *mut c_void) -> i32 {
    let stacks = USER_STACKS.0.get().cast();
    // SAFETY: The map is one of stacks, and the context is the program's.
    let id = unsafe { bpf_get_stackid(ctx, stacks, u64::from(BPF_F_USER_STACK)) };
    id as i32
}

/// What was noted of a wait that goes on.
#[derive(Clone, Copy)]
pub(crate) struct Noted {
    /// When it began; 0 if it was not noted.
    pub(crate) left_ns: u64,
    /// See [`EvidenceRecord::user_stack_id`].
    pub(crate) user_stack_id: i32,
}

impl Noted {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        left_ns: 0,
        user_stack_id: NO_USER_STACK,
    };
}

/// The entry of this thread's wait and what is in it, if one was noted.
#[inline(always)]
fn find(tid: u32) -> Option<(*mut Wait, Noted)> {
    let entry = WAITS.get_ptr_mut(tid & (WAIT_SLOTS - 1))?;
    // SAFETY: The map's memory is valid and aligned.
    let wait = unsafe { entry.read_volatile() };
    let noted = Noted {
        left_ns: wait.left_ns,
        user_stack_id: (wait.tid_and_stack >> 32) as i32,
    };
    (wait.tid_and_stack as u32 == tid).then_some((entry, noted))
}

/// What was noted of this thread's wait.
#[inline(always)]
pub(crate) fn noted(tid: u32) -> Option<Noted> {
    find(tid).map(|(_, noted)| noted)
}

/// Whether this process is looked at.
#[inline(always)]
pub(crate) fn is_target(tgid: u32) -> bool {
    let Some(control) = EVIDENCE_CONTROL.get_ptr(0) else {
        return false;
    };
    // SAFETY: The map's memory is valid and aligned, and the daemon writes whole words.
    let all = unsafe { (&raw const (*control).all).read_volatile() };
    all != 0 || EVIDENCE_TARGETS.get_ptr(tgid).is_some()
}

/// The records' time now, of a moment of `CLOCK_MONOTONIC`.
#[inline(always)]
fn record_ns(monotonic_ns: u64) -> u64 {
    let Some(control) = EVIDENCE_CONTROL.get_ptr(0) else {
        return 0;
    };
    if !clock::is_run_queue() {
        return monotonic_ns;
    }
    // SAFETY: The map's memory is valid and aligned, and the daemon writes whole words.
    let distance = unsafe { (&raw const (*control).record_minus_monotonic_ns).read_volatile() };
    monotonic_ns.wrapping_add(distance)
}

/// Takes the evidence of the wait that ends, if it was a long one of a thread that is looked at.
#[inline(always)]
pub(crate) fn take(task: Task) {
    let tid = task.tid();
    let Some((wait, noted)) = find(tid) else {
        return;
    };
    // However long it was: the next one may end before its thread has left its CPU.
    // SAFETY: The map's memory is valid and aligned.
    unsafe { (&raw mut (*wait).tid_and_stack).write_volatile(0) };
    let tgid = task.tgid();
    if !is_target(tgid) {
        return;
    }
    // No run queue's clock need be up to date here, and the one of an idle CPU may be far behind.
    // SAFETY: The helper has no preconditions.
    let monotonic_ns = unsafe { bpf_ktime_get_ns() };
    let woken_ns = record_ns(monotonic_ns);
    let waited_ns = woken_ns.saturating_sub(noted.left_ns);
    let threshold_ns = u64::from(why!(threshold_high)) << 32 | u64::from(why!(threshold_low));
    if waited_ns < threshold_ns {
        return;
    }
    if !is_in_budget(monotonic_ns >> 30) {
        ring::count_lost(Counter::EvidenceBudget);
        return;
    }
    let Some(mut entry) = EVIDENCE.reserve::<EvidenceRecord>(0) else {
        ring::count_lost(Counter::Evidence);
        return;
    };
    describe(&mut entry, task, noted, woken_ns);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    // The daemon listens to one doorbell only. It rings as the mark is passed.
    let waiting = EVIDENCE.query(u64::from(BPF_RB_AVAIL_DATA));
    if waiting.wrapping_sub(u64::from(why!(evidence_mark))) < IN_CHANNEL_BYTES {
        side::ring_doorbell();
    }
}

/// Whether this CPU may take one more in this second (of 1.07 seconds).
#[inline(always)]
fn is_in_budget(second: u64) -> bool {
    let Some(context) = context::this_cpu() else {
        return false;
    };
    if context.budget_second != second {
        context.budget_second = second;
        context.budget_used = 0;
    }
    context.budget_used = context.budget_used.wrapping_add(1);
    context.budget_used <= u64::from(why!(evidence_budget))
}

/// Sets the whole record: what this sleeper stands in.
#[inline(always)]
pub(crate) fn describe(
    record: &mut MaybeUninit<EvidenceRecord>,
    task: Task,
    noted: Noted,
    woken_ns: u64,
) {
    let record = record.as_mut_ptr();
    let mut flags = 0;
    let mut number = syscall::NONE;
    let mut first_argument = 0;
    if why!(syscalls) != 0 && !task.is_in_kernel_for_good() {
        let registers = Registers::of(task);
        number = registers.syscall();
        if number < syscall::FOREIGN_ABI {
            first_argument = registers.first_argument();
        }
        flags |= evidence_flags::SYSCALL;
    }
    let (file, name) = if number < syscall::FOREIGN_ABI {
        File::of(task, first_argument)
    } else {
        (None, [0; COMM_BYTES])
    };
    let mut facts = File::default();
    if let Some(file) = file {
        facts = file;
        flags |= evidence_flags::FILE;
        if facts.mode & FILE_TYPE == SOCKET {
            flags |= evidence_flags::SOCKET;
        }
    }
    // SAFETY: The buffer has this size; the helper writes what there is, and zeroes the rest of it.
    let bytes = unsafe {
        bpf_get_task_stack(
            task.0.as_ptr().cast_mut().cast(),
            (&raw mut (*record).stack).cast(),
            (FRAMES * size_of::<u64>()) as u32,
            0,
        )
    };
    let frames = if bytes > 0 {
        bytes.cast_unsigned() >> 3
    } else {
        0
    };
    macro_rules! set {
        ($($field:ident: $value:expr),+ $(,)?) => {
            // SAFETY: The record is memory of this size, aligned to eight bytes.
            $(unsafe { (&raw mut (*record).$field).write($value) };)+
        };
    }
    set! {
        left_ns: noted.left_ns,
        woken_ns: woken_ns,
        first_argument: first_argument,
        tid: task.tid(),
        tgid: task.tgid(),
        fs_magic: facts.fs_magic,
        rdev: facts.rdev,
        mode: facts.mode,
        family: facts.family,
        socket_type: facts.socket_type,
        protocol: facts.protocol,
        name: name,
        syscall: number,
        socket_state: facts.socket_state,
        frames: frames as u8,
        flags: flags,
        _pad: [0; 3],
        user_stack_id: noted.user_stack_id,
        _pad2: [0; 4],
    }
}

/// What is known of an open file.
#[derive(Clone, Copy, Default)]
struct File {
    fs_magic: u32,
    rdev: u32,
    mode: u16,
    family: u16,
    socket_type: u16,
    protocol: u16,
    socket_state: u8,
}

impl File {
    /// The file of this number in the thread's table, and its name.
    #[inline(always)]
    fn of(task: Task, number: u64) -> (Option<Self>, [u8; COMM_BYTES]) {
        let mut name = [0; COMM_BYTES];
        let facts = Self::find(task, number).and_then(|file| Self::read(file, &mut name));
        (facts, name)
    }

    #[inline(always)]
    fn find(task: Task, number: u64) -> Option<*const u8> {
        let files: *const u8 = read(task.0.as_ptr(), why!(task_files))?;
        let table: *const u8 = read(files, why!(files_fdt))?;
        let size: u32 = read(table, why!(fdt_max_fds))?;
        // The argument is an `int`: its high half means nothing.
        let number = number & 0xffff_ffff;
        if number >= u64::from(size) {
            return None;
        }
        let slots: *const u8 = read(table, why!(fdt_fd))?;
        let file: *const u8 = read(slots.wrapping_add((number << 3) as usize), 0)?;
        if file.is_null() { None } else { Some(file) }
    }

    #[inline(always)]
    fn read(file: *const u8, name: &mut [u8; COMM_BYTES]) -> Option<Self> {
        let inode: *const u8 = read(file, why!(file_inode))?;
        let super_block: *const u8 = read(inode, why!(inode_sb))?;
        let mut facts = Self {
            mode: read(inode, why!(inode_mode))?,
            rdev: read(inode, why!(inode_rdev))?,
            fs_magic: read(super_block, why!(sb_magic))?,
            ..Self::default()
        };
        let dentry: *const u8 = read(file, why!(file_dentry))?;
        let text: *const u8 = read(dentry, why!(dentry_name))?;
        // SAFETY: The helper checks the address, stops at the buffer's end and ends with a NUL.
        let _length = unsafe { bpf_probe_read_kernel_str_bytes(text, name) };
        if facts.mode & FILE_TYPE == SOCKET {
            let socket: *const u8 = read(file, why!(file_private_data))?;
            let sock: *const u8 = read(socket, why!(socket_sk))?;
            facts.family = read(sock, why!(sock_family))?;
            facts.socket_type = read(sock, why!(sock_type))?;
            facts.protocol = read(sock, why!(sock_protocol))?;
            facts.socket_state = read(sock, why!(sock_state))?;
        }
        Some(facts)
    }
}
