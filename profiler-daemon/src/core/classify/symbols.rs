//! What a kernel function waits for, where its name says so.

use crate::core::reason::Reason;

/// One rule: a thread with this function on its stack waits for this.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// How the function's name begins, whole up to a `.` that a compiler appended, unless it ends in `*`.
    pub symbol: &'static str,
    /// What a thread in it waits for.
    pub reason: Reason,
    /// It decides only where it waits itself, not in a function that it has called: apart from those by
    /// which every wait gets to the scheduler.
    pub innermost: bool,
}

const fn rule(symbol: &'static str, reason: Reason) -> Rule {
    Rule {
        symbol,
        reason,
        innermost: false,
    }
}

const fn innermost(symbol: &'static str, reason: Reason) -> Rule {
    Rule {
        symbol,
        reason,
        innermost: true,
    }
}

/// Functions by which waits get to the scheduler, as [`Rule::symbol`].
const SCHEDULER: &[&str] = &[
    "__schedule",
    "schedule",
    "schedule_timeout*",
    "schedule_preempt_disabled",
    "schedule_hrtimeout*",
    "preempt_schedule*",
    "freezable_schedule*",
    "wait_for_completion*",
    "__wait_for_common",
    "do_wait_for_common",
];

/// The rules, the most telling first: the first one that any frame fits decides. What takes memory or
/// a page away from whatever the thread was doing stands before what it was doing.
pub const RULES: &[Rule] = &[
    rule("do_signal_stop", Reason::Stopped),
    rule("ptrace_stop*", Reason::Stopped),
    rule("do_jobctl_trap", Reason::Stopped),
    // The freezer of cgroups version 2 (kernel/signal.c), most often inlined into what follows, which itself
    // waits for nothing but stops.
    rule("do_freezer_trap", Reason::Stopped),
    innermost("get_signal", Reason::Stopped),
    rule("try_to_free_pages", Reason::MemoryReclaim),
    rule("try_to_free_mem_cgroup_pages", Reason::MemoryReclaim),
    rule("mem_cgroup_handle_over_high", Reason::MemoryReclaim),
    rule("__mem_cgroup_handle_over_high", Reason::MemoryReclaim),
    rule("throttle_direct_reclaim", Reason::MemoryReclaim),
    rule("try_to_compact_pages", Reason::MemoryReclaim),
    rule("mem_cgroup_oom*", Reason::MemoryReclaim),
    rule("handle_userfault", Reason::PageFault),
    rule("futex_wait*", Reason::Lock),
    rule("__futex_wait", Reason::Lock),
    rule("futex_do_wait", Reason::Lock),
    rule("futex_lock_pi", Reason::Lock),
    rule("flock_lock_inode_wait", Reason::Lock),
    rule("posix_lock_inode_wait", Reason::Lock),
    rule("do_lock_file_wait", Reason::Lock),
    rule("locks_lock_inode_wait", Reason::Lock),
    rule("fcntl_setlk", Reason::Lock),
    // The kernel leaves its locking functions out of the stacks of sleepers (`__sched` in its source,
    // `stack_trace_consume_entry_nosched`), so a lock shows by who takes it: these wait themselves for
    // nothing else.
    innermost("lock_mm_and_find_vma", Reason::KernelLock),
    innermost("vm_mmap_pgoff", Reason::KernelLock),
    innermost("__vm_munmap", Reason::KernelLock),
    innermost("do_mprotect_pkey", Reason::KernelLock),
    innermost("__do_sys_brk", Reason::KernelLock),
    innermost("lock_rename", Reason::KernelLock),
    innermost("do_renameat2", Reason::KernelLock),
    innermost("do_unlinkat", Reason::KernelLock),
    innermost("do_rmdir", Reason::KernelLock),
    innermost("filename_create", Reason::KernelLock),
    innermost("open_last_lookups", Reason::KernelLock),
    innermost("path_openat", Reason::KernelLock),
    innermost("lookup_slow", Reason::KernelLock),
    innermost("walk_component", Reason::KernelLock),
    innermost("iterate_dir", Reason::KernelLock),
    innermost("do_truncate", Reason::KernelLock),
    innermost("ext4_buffered_write_iter", Reason::KernelLock),
    innermost("generic_file_write_iter", Reason::KernelLock),
    rule("rwsem_down_read_slowpath", Reason::KernelLock),
    rule("rwsem_down_write_slowpath", Reason::KernelLock),
    rule("__mutex_lock*", Reason::KernelLock),
    rule("mutex_lock*", Reason::KernelLock),
    rule("__ww_mutex_lock*", Reason::KernelLock),
    rule("percpu_rwsem_wait", Reason::KernelLock),
    rule("__percpu_down_read", Reason::KernelLock),
    rule("percpu_down_write", Reason::KernelLock),
    rule("rt_mutex_slowlock*", Reason::KernelLock),
    rule("__down", Reason::KernelLock),
    rule("__down_interruptible", Reason::KernelLock),
    rule("__down_killable", Reason::KernelLock),
    rule("__down_timeout", Reason::KernelLock),
    rule("__wait_on_bit_lock", Reason::KernelLock),
    rule("__wait_rcu_gp", Reason::KernelLock),
    rule("synchronize_rcu*", Reason::KernelLock),
    rule("__synchronize_srcu", Reason::KernelLock),
    rule("jbd2_log_wait_commit", Reason::FsSync),
    rule("file_write_and_wait_range", Reason::FsSync),
    rule("blkdev_issue_flush", Reason::FsSync),
    rule("xfs_log_force_seq", Reason::FsSync),
    rule("btrfs_sync_log", Reason::FsSync),
    rule("ext4_sync_file", Reason::FsSync),
    rule("vfs_fsync_range", Reason::FsSync),
    rule("do_fsync", Reason::FsSync),
    rule("filemap_fault", Reason::PageFault),
    rule("do_swap_page", Reason::PageFault),
    rule("do_user_addr_fault", Reason::PageFault),
    rule("do_page_fault", Reason::PageFault),
    rule("handle_mm_fault", Reason::PageFault),
    rule("do_io_getevents", Reason::DiskIo),
    rule("io_schedule", Reason::DiskIo),
    rule("io_schedule_timeout", Reason::DiskIo),
    rule("blk_io_schedule", Reason::DiskIo),
    rule("submit_bio_wait", Reason::DiskIo),
    rule("pipe_read", Reason::Pipe),
    rule("anon_pipe_read", Reason::Pipe),
    rule("fifo_pipe_read", Reason::Pipe),
    rule("pipe_write", Reason::Pipe),
    rule("anon_pipe_write", Reason::Pipe),
    rule("fifo_pipe_write", Reason::Pipe),
    rule("pipe_wait_readable", Reason::Pipe),
    rule("pipe_wait_writable", Reason::Pipe),
    rule("wait_for_partner", Reason::Pipe),
    rule("unix_accept", Reason::NetAccept),
    rule("inet_csk_accept", Reason::NetAccept),
    rule("unix_stream_read_generic", Reason::UnixSocket),
    rule("unix_stream_sendmsg", Reason::UnixSocket),
    rule("__unix_dgram_recvmsg", Reason::UnixSocket),
    rule("unix_dgram_recvmsg", Reason::UnixSocket),
    rule("unix_dgram_sendmsg", Reason::UnixSocket),
    rule("unix_wait_for_peer", Reason::UnixSocket),
    rule("unix_stream_connect", Reason::UnixSocket),
    rule("inet_wait_for_connect", Reason::NetConnect),
    rule("__inet_stream_connect", Reason::NetConnect),
    rule("sk_stream_wait_connect", Reason::NetConnect),
    rule("sk_stream_wait_memory", Reason::NetSend),
    rule("sock_alloc_send_pskb", Reason::NetSend),
    rule("sk_wait_data", Reason::NetRecv),
    rule("__skb_wait_for_more_packets", Reason::NetRecv),
    rule("tcp_recvmsg*", Reason::NetRecv),
    rule("io_cqring_wait", Reason::IoUring),
    rule("n_tty_read", Reason::Tty),
    rule("n_tty_write", Reason::Tty),
    rule("tty_wait_until_sent", Reason::Tty),
    rule("wait_for_vfork_done", Reason::ChildWait),
    // Where the compiler has made one of the two.
    innermost("kernel_clone", Reason::ChildWait),
    innermost("_do_fork", Reason::ChildWait),
    rule("do_wait", Reason::ChildWait),
    rule("kernel_wait4", Reason::ChildWait),
    rule("ep_poll", Reason::EventWait),
    rule("do_sys_poll", Reason::EventWait),
    rule("do_select", Reason::EventWait),
    rule("eventfd_read", Reason::EventWait),
    rule("timerfd_read*", Reason::Sleep),
    rule("signalfd_read*", Reason::EventWait),
    rule("inotify_read", Reason::EventWait),
    rule("fanotify_read", Reason::EventWait),
    rule("userfaultfd_read*", Reason::EventWait),
    rule("userfaultfd_ctx_read", Reason::EventWait),
    rule("do_sigtimedwait", Reason::EventWait),
    rule("sigsuspend", Reason::EventWait),
    rule("do_nanosleep", Reason::Sleep),
    rule("coredump_task_exit", Reason::Exit),
    rule("exit_mm", Reason::Exit),
];

fn fits(symbol: &str, function: &str) -> bool {
    let bare = function.split('.').next().unwrap_or(function);
    match symbol.strip_suffix('*') {
        Some(prefix) => bare.starts_with(prefix),
        None => bare == symbol,
    }
}

/// A rule of [`RULES`], by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(u16);

impl RuleId {
    /// The function that it is about.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        RULES
            .get(usize::from(self.0))
            .map_or("", |rule| rule.symbol)
    }
}

/// A kernel stack, and what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stack {
    frames: Vec<String>,
    found: Option<(RuleId, Reason)>,
}

impl Stack {
    /// One of these functions, the innermost first.
    #[must_use]
    pub fn new(frames: Vec<String>) -> Self {
        let found = find(&frames);
        Self { frames, found }
    }

    /// The functions, the innermost first.
    #[must_use]
    pub fn frames(&self) -> &[String] {
        &self.frames
    }

    /// The rule that decides for it, and what a thread there waits for.
    #[must_use]
    pub fn found(&self) -> Option<(RuleId, Reason)> {
        self.found
    }
}

/// The first rule that a function of the stack fits, and what a thread there waits for.
#[must_use]
pub fn find<S: AsRef<str>>(stack: &[S]) -> Option<(RuleId, Reason)> {
    let mut functions = stack.iter().map(AsRef::as_ref);
    let waits_in = functions.find(|function| !SCHEDULER.iter().any(|its| fits(its, function)));
    let place = RULES.iter().position(|rule| {
        if rule.innermost {
            waits_in.is_some_and(|function| fits(rule.symbol, function))
        } else {
            let mut functions = stack.iter().map(AsRef::as_ref);
            functions.any(|function| fits(rule.symbol, function))
        }
    })?;
    Some((RuleId(u16::try_from(place).ok()?), RULES.get(place)?.reason))
}

#[cfg(test)]
mod tests {
    use super::{RULES, find};
    use crate::core::reason::Reason;

    /// A frame that the rule is meant for.
    fn example(symbol: &str) -> String {
        symbol
            .strip_suffix('*')
            .map_or_else(|| symbol.to_owned(), |prefix| format!("{prefix}_x"))
    }

    #[test]
    fn every_rule_decides_for_its_own_symbol() {
        for rule in RULES {
            let function = example(rule.symbol);
            let stack = ["schedule", &function, "do_syscall_64"];
            let found = find(&stack);
            assert_eq!(
                found.map(|(_, reason)| reason),
                Some(rule.reason),
                "{}",
                rule.symbol
            );
            let place = found.map(|(rule, _)| usize::from(rule.0));
            let expected = RULES.iter().position(|its| its.symbol == rule.symbol);
            assert_eq!(place, expected, "{} is shadowed", rule.symbol);
        }
    }

    #[test]
    fn some_decide_only_where_they_wait_themselves() {
        let waits = [
            "__schedule",
            "schedule",
            "wait_for_completion_state",
            "kernel_clone",
        ];
        assert_eq!(find(&waits).map(|found| found.1), Some(Reason::ChildWait));
        let calls = ["__schedule", "schedule", "something_else", "kernel_clone"];
        assert_eq!(find(&calls), None);
    }

    #[test]
    fn the_part_that_a_compiler_appends_is_ignored() {
        assert_eq!(
            find(&["futex_do_wait.isra.0"]).map(|(rule, reason)| (rule.symbol(), reason)),
            Some(("futex_do_wait", Reason::Lock))
        );
        assert_eq!(
            find(&["io_schedule_prepare"]),
            None,
            "another function, not a suffix"
        );
    }

    #[test]
    fn a_fault_or_reclaim_outweighs_what_the_thread_was_doing() {
        let stack = [
            "io_schedule",
            "filemap_fault",
            "handle_mm_fault",
            "tcp_recvmsg",
        ];
        assert_eq!(find(&stack).map(|f| f.1), Some(Reason::PageFault));
        let stack = [
            "io_schedule",
            "shrink_node",
            "try_to_free_pages",
            "pipe_write",
        ];
        assert_eq!(find(&stack).map(|f| f.1), Some(Reason::MemoryReclaim));
    }
}
