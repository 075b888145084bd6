//! What the daemon tells the probes before they are loaded about finding out why threads wait.
//!
//! Kept apart from [`crate::config::Config`], which nothing works without: here everything is optional.

use core::mem::size_of;

use crate::config::ABSENT;

macro_rules! why_config {
    ($($(#[$documentation:meta])* $field:ident = $unset:expr,)+) => {
        /// Offsets of kernel fields, [`ABSENT`] where the kernel doesn't have them, and choices. Offsets are
        /// in bytes from the start of the named struct.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            feature = "decode",
            derive(
                zerocopy::FromBytes,
                zerocopy::IntoBytes,
                zerocopy::Immutable,
                zerocopy::KnownLayout
            )
        )]
        pub struct WhyConfig {
            $($(#[$documentation])* pub $field: u32,)+
        }

        impl WhyConfig {
            /// What the probes are compiled with: everything off.
            pub const UNSET: Self = Self { $($field: $unset,)+ };
        }
    };
}

why_config! {
    /// 1 if the system calls of threads that block are read, else 0.
    syscalls = 0,
    /// 1 if wakers and the time in interrupts are recorded, else 0.
    wakers = 0,
    /// 1 if evidence of long waits is taken, else 0.
    evidence = 0,
    /// 1 if evidence has the user stack with it, else 0.
    user_stacks = 0,
    /// 1 if threads' cgroups are recorded, else 0.
    cgroups = 0,
    /// How long a wait must be for evidence, in nanoseconds, low half.
    threshold_low = 0,
    /// High half.
    threshold_high = 0,
    /// How many waits' evidence a CPU may take in a second.
    evidence_budget = 0,
    /// Bytes in the evidence channel; the record that passes this mark rings the doorbell.
    evidence_mark = 0,
    /// 1 if the kernel has the helper `bpf_get_current_task_btf` (Linux 5.11), else 0.
    has_current_btf = 0,
    /// Distance in bytes from `task_struct.stack` to the thread's registers, for kernels without the
    /// helper `bpf_task_pt_regs`; [`ABSENT`] where there is the helper.
    regs_from_stack = ABSENT,
    /// `task_struct.stack`.
    task_stack = ABSENT,
    /// `pt_regs.orig_ax` on x86-64, `pt_regs.syscallno` on arm64.
    regs_syscall = ABSENT,
    /// The register that holds the first argument: `pt_regs.di` on x86-64, `pt_regs.orig_x0` on arm64.
    regs_argument = ABSENT,
    /// The register with the first argument of a function: `pt_regs.di` on x86-64, `pt_regs.regs[0]` on arm64.
    regs_first = ABSENT,
    /// That with the second one: `pt_regs.si` on x86-64, `pt_regs.regs[1]` on arm64.
    regs_second = ABSENT,
    /// The byte of `pt_regs` that tells 32-bit code: in `cs` on x86-64, in `pstate` on arm64.
    regs_mode = ABSENT,
    /// Which bits of it count.
    regs_mode_mask = 0,
    /// What they are for 32-bit code.
    regs_mode_foreign = 0,
    /// `task_struct.throttled`, since Linux 6.18.
    task_throttled = ABSENT,
    /// `task_struct.sched_info.last_arrival`.
    task_last_arrival = ABSENT,
    /// `task_struct.sched_task_group`.
    task_group = ABSENT,
    /// `task_group.css.cgroup`.
    group_cgroup = ABSENT,
    /// `cgroup.kn`.
    cgroup_kn = ABSENT,
    /// `kernfs_node.id`.
    kn_id = ABSENT,
    /// `task_group.cfs_rq`.
    group_cfs_rq = ABSENT,
    /// `cfs_rq.throttle_count`.
    cfs_rq_throttle_count = ABSENT,
    /// `cfs_rq.throttled_clock_self`, since Linux 6.6.
    cfs_rq_throttled_clock_self = ABSENT,
    /// `cfs_rq.throttled_clock_self_time`, since Linux 6.6.
    cfs_rq_throttled_clock_self_time = ABSENT,
    /// `rq.cpu`.
    rq_cpu = ABSENT,
    /// `task_struct.files`.
    task_files = ABSENT,
    /// `files_struct.fdt`.
    files_fdt = ABSENT,
    /// `fdtable.max_fds`.
    fdt_max_fds = ABSENT,
    /// `fdtable.fd`.
    fdt_fd = ABSENT,
    /// `file.f_inode`.
    file_inode = ABSENT,
    /// `file.private_data`.
    file_private_data = ABSENT,
    /// `file.f_path.dentry`.
    file_dentry = ABSENT,
    /// `dentry.d_name.name`.
    dentry_name = ABSENT,
    /// `inode.i_mode`.
    inode_mode = ABSENT,
    /// `inode.i_rdev`.
    inode_rdev = ABSENT,
    /// `inode.i_sb`.
    inode_sb = ABSENT,
    /// `super_block.s_magic`.
    sb_magic = ABSENT,
    /// `socket.sk`.
    socket_sk = ABSENT,
    /// `sock.__sk_common.skc_family`.
    sock_family = ABSENT,
    /// `sock.__sk_common.skc_state`.
    sock_state = ABSENT,
    /// `sock.sk_type`.
    sock_type = ABSENT,
    /// `sock.sk_protocol`.
    sock_protocol = ABSENT,
}

/// Names of the maps.
pub mod maps {
    /// Array: what each possible CPU is doing (probes only).
    pub const CPU_CONTEXTS: &str = "CPU_CONTEXTS";
    /// Array: when waits began (probes only).
    pub const WAITS: &str = "WAITS";
    /// Array: threads that are off their CPU because of a quota (probes only).
    pub const THROTTLED: &str = "THROTTLED";
    /// Array: one [`crate::evidence::EvidenceControl`].
    pub const EVIDENCE_CONTROL: &str = "EVIDENCE_CONTROL";
    /// Hash: the processes whose waits are looked at.
    pub const EVIDENCE_TARGETS: &str = "EVIDENCE_TARGETS";
    /// Stack traces: the user stacks that [`crate::evidence::EvidenceRecord`]s name.
    pub const USER_STACKS: &str = "USER_STACKS";
    /// Ring buffer: [`crate::evidence::EvidenceRecord`]s.
    pub const EVIDENCE: &str = "EVIDENCE";
}

/// How many processes [`maps::EVIDENCE_TARGETS`] can hold.
pub const MAX_EVIDENCE_TARGETS: u32 = 4096;

/// How many user stacks [`maps::USER_STACKS`] can hold, a power of two: each stack has one place that it can
/// be in, so of some thousand a few in a hundred find theirs taken.
pub const MAX_USER_STACKS: u32 = 1 << 15;

/// Names of the programs; a hook's program has the hook's name.
pub mod programs {
    /// All waits that have not ended (an iterator).
    pub const OPEN_WAITS: &str = "open_waits";
    /// A sleeper is about to be woken.
    pub const SCHED_WAKING: &str = "sched_waking";
    /// A thread goes to another CPU.
    pub const SCHED_MIGRATE_TASK: &str = "sched_migrate_task";
    /// Function: a group's quota is used up on a CPU.
    pub const TG_THROTTLE_DOWN: &str = "tg_throttle_down";
    /// Function: a group has quota again on a CPU.
    pub const TG_UNTHROTTLE_UP: &str = "tg_unthrottle_up";
    /// The kprobes of the two functions above, each with its function.
    pub const QUOTA_KPROBES: [(&str, &str); 2] = [
        ("tg_unthrottle_up_kprobe", TG_UNTHROTTLE_UP),
        ("tg_throttle_down_kprobe", TG_THROTTLE_DOWN),
    ];
    /// A thread or process goes to another group.
    pub const CGROUP_ATTACH_TASK: &str = "cgroup_attach_task";
    /// What tells that a CPU is in an interrupt, and of which kind: pairs of hooks. Those that every
    /// architecture has come first, [`COMMON_CONTEXTS`] of them.
    pub const CONTEXTS: &[(&str, &str)] = &[
        ("softirq_entry", "softirq_exit"),
        ("irq_handler_entry", "irq_handler_exit"),
        ("hrtimer_expire_entry", "hrtimer_expire_exit"),
        ("ipi_entry", "ipi_exit"),
        ("call_function_entry", "call_function_exit"),
        ("call_function_single_entry", "call_function_single_exit"),
        ("irq_work_entry", "irq_work_exit"),
        ("local_timer_entry", "local_timer_exit"),
    ];
    /// How many of [`CONTEXTS`] every architecture has.
    pub const COMMON_CONTEXTS: usize = 3;

    /// Whether a program is one of [`CONTEXTS`], which mark what a CPU is doing and write no records.
    #[must_use]
    pub fn is_context(program: &str) -> bool {
        CONTEXTS
            .iter()
            .any(|&(entry, exit)| program == entry || program == exit)
    }
}

const _: () = assert!(size_of::<WhyConfig>() == 47 * size_of::<u32>());
