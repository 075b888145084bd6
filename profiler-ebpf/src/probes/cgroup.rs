//! A thread's cgroup in the hierarchy of the cpu controller.

use aya_ebpf::helpers::bpf_get_current_task;

use crate::{
    task::Task,
    why::{read, why},
};

/// Its id: the inode number of its directory. 0 if cgroups are not recorded, or the thread is in a group
/// that has no directory (an autogroup, which has no quota).
#[inline(always)]
pub(crate) fn of(task: Task) -> u64 {
    if why!(cgroups) == 0 {
        return 0;
    }
    group_of(task.0.as_ptr()).and_then(id_of).unwrap_or(0)
}

/// Whether a new thread is in its maker's group.
#[inline(always)]
pub(crate) fn is_shared_with_current(task: Task) -> bool {
    // SAFETY: The helper has no preconditions.
    let current = unsafe { bpf_get_current_task() } as *const u8;
    group_of(task.0.as_ptr()) == group_of(current)
}

/// The id of the cgroup of a `struct task_group`.
#[inline(always)]
pub(crate) fn id_of(group: *const u8) -> Option<u64> {
    let cgroup: *const u8 = read(group, why!(group_cgroup))?;
    let node: *const u8 = read(cgroup, why!(cgroup_kn))?;
    read(node, why!(kn_id))
}

#[inline(always)]
fn group_of(task: *const u8) -> Option<*const u8> {
    read(task, why!(task_group))
}
