//! Which cgroups have a CPU quota, from the files of the cgroup hierarchy.
//!
//! Only for kernels before Linux 6.18 that let neither fentry nor kprobes hook the functions that tell when a
//! quota is used up: there nobody can say what time it took, but whose time it may have taken.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

/// Hierarchies are not that deep; the kernel itself allows what somebody asks for.
const MAX_DEPTH: usize = 64;

/// The ids of the cgroups that have a CPU quota, or are in one that has. Empty if no hierarchy can be read.
#[must_use]
pub fn groups_with_quota() -> BTreeSet<u64> {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    let mut groups = BTreeSet::new();
    for hierarchy in mounts.into_iter().flatten().filter_map(hierarchy) {
        collect(&hierarchy, false, MAX_DEPTH, &mut groups);
    }
    groups
}

/// The root of a hierarchy that may have the CPU controller.
fn hierarchy(mount: MountInfo) -> Option<PathBuf> {
    let has_cpu = match mount.fs_type.as_str() {
        "cgroup2" => true,
        "cgroup" => mount.super_options.contains_key("cpu"),
        _ => false,
    };
    has_cpu.then_some(mount.mount_point)
}

/// Goes through a group and those below it. The id of a group is the inode of its directory
/// (`kernfs_node.id`, which is the inode's number where that has 64 bits).
fn collect(group: &Path, is_within: bool, depth: usize, groups: &mut BTreeSet<u64>) {
    let is_limited = is_within || has_quota(group);
    if is_limited && let Ok(directory) = fs::metadata(group) {
        groups.insert(directory.ino());
    }
    // A group that goes away meanwhile has no threads.
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), is_limited, depth, groups);
        }
    }
}

/// Version 2 says `max 100000` for none, version 1 `-1`.
fn has_quota(group: &Path) -> bool {
    let first_word = |file: &str| {
        let text = fs::read_to_string(group.join(file)).ok()?;
        text.split_whitespace().next().map(str::to_owned)
    };
    let quota = first_word("cpu.max").or_else(|| first_word("cpu.cfs_quota_us"));
    quota.is_some_and(|quota| quota.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::{MAX_DEPTH, collect};
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_quota_holds_for_all_groups_below() {
        let root = std::env::temp_dir().join(format!("schedscope-quotas-{}", std::process::id()));
        for (group, file, text) in [
            ("a", "cpu.max", "20000 100000\n"),
            ("a/below/deeper", "cpu.max", "max 100000\n"),
            ("b", "cpu.max", "max 100000\n"),
            ("b/old", "cpu.cfs_quota_us", "5000\n"),
            ("c", "cpu.cfs_quota_us", "-1\n"),
        ] {
            let group = root.join(group);
            fs::create_dir_all(&group).expect("a directory can be made");
            fs::write(group.join(file), text).expect("a file can be written");
        }
        let mut groups = BTreeSet::new();
        collect(&root, false, MAX_DEPTH, &mut groups);
        let limited = ["a", "a/below", "a/below/deeper", "b/old"];
        let inodes = limited.map(|group| {
            let directory = fs::metadata(root.join(group));
            directory.expect("it was made").ino()
        });
        fs::remove_dir_all(&root).expect("what was made can be removed");
        assert_eq!(groups, BTreeSet::from(inodes));
    }
}
