//! The text of a `/proc/PID/cgroup` to the unit that it means.
//!
//! With cgroup version 1 a process is in one cgroup of each hierarchy, and managers differ in which of
//! them they use; a hybrid host has both versions at once (cgroups(7)). So every path is looked at, and
//! the one that says most counts.

use super::rules;
use super::unit::Unit;

/// How much a hierarchy says of units where several say something of the same kind: first systemd's own,
/// then the unified one, then that of the CPU controller.
fn rank(id: &str, controllers: &str) -> u8 {
    match controllers {
        "name=systemd" => 0,
        "" if id == "0" => 1,
        list if list.split(',').any(|name| name == "cpu") => 2,
        _ => 3,
    }
}

/// The unit of a process, from the text of its `/proc/PID/cgroup`: the one that says most of all its
/// paths. [`Unit::Root`] if it is in no cgroup, or nothing can be made of the text.
#[must_use]
pub fn unit_of(text: &str) -> Unit {
    // Of equal ones the first counts.
    paths(text)
        .map(|its| (rank(its.id, its.controllers), rules::unit_of_path(its.path)))
        .min_by_key(|(rank, unit)| (std::cmp::Reverse(unit.says()), *rank))
        .map_or(Unit::Root, |(_, unit)| unit)
}

/// One line of a `/proc/PID/cgroup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The hierarchy's number; 0 for the unified one.
    pub id: &'a str,
    /// Its controllers or its name.
    pub controllers: &'a str,
    /// The cgroup's path in it.
    pub path: &'a str,
}

/// The lines of a `/proc/PID/cgroup` that have a path.
pub fn paths(text: &str) -> impl Iterator<Item = Place<'_>> {
    text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        path.starts_with('/').then(|| Place {
            id,
            controllers,
            // The kernel says so of a cgroup that was removed while a process was still in it.
            path: path.strip_suffix(" (deleted)").unwrap_or(path),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::unit_of;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[track_caller]
    fn check(text: &str, label: &str) {
        assert_eq!(unit_of(text).label(None), label, "{text:?}");
    }

    #[test]
    fn the_unified_hierarchy() {
        check("0::/system.slice/nginx.service\n", "nginx.service");
        check("0::/\n", "/");
        check("0::/../system.slice/nginx.service\n", "nginx.service");
        check("0::/system.slice/gone.service (deleted)\n", "gone.service");
    }

    #[test]
    fn the_named_hierarchies() {
        check(
            "12:cpu,cpuacct:/system.slice/a.service\n5:memory:/system.slice\n\
             1:name=systemd:/system.slice/a.service\n",
            "a.service",
        );
        check(
            &format!(
                "4:cpu,cpuacct:/docker/{ID}\n3:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n"
            ),
            "docker:0123456789ab",
        );
        // No controller of systemd's: what the CPU controller says.
        check("5:memory:/m\n4:cpu:/c\n", "/c");
    }

    #[test]
    fn both_versions_at_once() {
        check(
            "12:cpu,cpuacct:/\n1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n",
            "a.service",
        );
        // Old cgroupfs drivers leave systemd's hierarchy and the unified one alone.
        check(
            &format!(
                "11:cpu,cpuacct:/kubepods/burstable/pod12345678-1234-1234-1234-123456789abc/{ID}\n\
                 1:name=systemd:/system.slice/containerd.service\n0::/system.slice/containerd.service\n"
            ),
            "pod:12345678-1234-1234-1234-123456789abc",
        );
    }

    #[test]
    fn a_hierarchy_in_use_says_more_than_a_root() {
        check("12:cpu,cpuacct:/batch\n1:name=systemd:/\n0::/\n", "/batch");
        check(
            "12:cpu,cpuacct:/batch\n1:name=systemd:/system.slice/a.service\n0::/\n",
            "a.service",
        );
        check(
            "4:memory:/agent/63e629c0f5efde39134b3756c9e7f18c\n1:cpu:/\n0::/\n",
            "/agent/63e629c0f5ef",
        );
    }

    #[test]
    fn what_makes_no_sense_is_the_root() {
        for text in ["", "nonsense\n::\n", "0::relative\n", ":::::\n", "\0\u{7}"] {
            check(text, "/");
        }
    }
}
