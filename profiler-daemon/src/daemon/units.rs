//! Which systemd unit, container or cgroup a process belongs to, as /proc tells it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::sink::metrics::program;

/// Names are cut here: a cgroup's path may be 4096 bytes long.
const MAX_NAME_CHARS: usize = 128;

/// What was learned, kept beyond the end of the processes.
#[derive(Debug, Default)]
pub(super) struct Units {
    by_tgid: HashMap<u32, Process>,
}

#[derive(Debug, Default)]
struct Process {
    unit: String,
    name: String,
}

impl Units {
    /// Looks up processes that are not known yet. One that has ended stays unknown.
    pub(super) fn learn(&mut self, tgids: impl IntoIterator<Item = u32>) {
        for tgid in tgids {
            self.by_tgid.entry(tgid).or_insert_with(|| Process {
                unit: unit_in(&read(tgid, "cgroup")),
                name: comm_of(tgid),
            });
        }
    }

    /// The unit of a process; empty if it is not known.
    #[must_use]
    pub(super) fn of(&self, tgid: u32) -> String {
        let process = self.by_tgid.get(&tgid);
        process.map(|its| its.unit.clone()).unwrap_or_default()
    }

    /// The name of a process; empty if it is not known.
    #[must_use]
    pub(super) fn name_of(&self, tgid: u32) -> String {
        let process = self.by_tgid.get(&tgid);
        process.map(|its| its.name.clone()).unwrap_or_default()
    }
}

/// A file of a process in /proc; empty if it can't be read. The path is made from a number only.
fn read(tgid: u32, file: &str) -> String {
    std::fs::read(format!("/proc/{tgid}/{file}"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn comm_of(tgid: u32) -> String {
    clean(read(tgid, "comm").trim_end_matches('\n'))
}

/// What processes are called that take CPUs from others: their units, or their own names.
#[derive(Debug)]
pub(super) struct ProcessNames {
    by_tgid: HashMap<u32, String>,
    since: Instant,
}

/// A process id may come to mean another process, or a process to another unit: names are read again
/// after this time.
const KEEP: Duration = Duration::from_mins(5);

/// Names kept at most.
const MAX_NAMES: usize = 4096;

impl Default for ProcessNames {
    fn default() -> Self {
        Self {
            by_tgid: HashMap::new(),
            since: Instant::now(),
        }
    }
}

impl ProcessNames {
    /// The names of these processes, as far as they are there or were when their names were last asked
    /// for.
    pub(super) fn of(&mut self, tgids: impl IntoIterator<Item = u32>) -> HashMap<u32, String> {
        if self.since.elapsed() > KEEP || self.by_tgid.len() > MAX_NAMES {
            *self = Self::default();
        }
        let names = tgids.into_iter().map(|tgid| {
            let name = self
                .by_tgid
                .entry(tgid)
                .or_insert_with(|| process_name(tgid));
            (tgid, name.clone())
        });
        names.filter(|(_, name)| !name.is_empty()).collect()
    }
}

fn process_name(tgid: u32) -> String {
    let unit = unit_in(&read(tgid, "cgroup"));
    if unit.is_empty() || unit == "/" {
        program(&comm_of(tgid)).to_owned()
    } else {
        unit
    }
}

/// The unit in the text of a `/proc/PID/cgroup`: the innermost systemd unit of the path, else the
/// path's last part, else `/`.
///
/// Of the hierarchies systemd's own counts most, then the unified one (`0::`), then that of the CPU
/// controller.
fn unit_in(text: &str) -> String {
    let rank = |controllers: &str, id: &str| match controllers {
        "name=systemd" => 0,
        "" if id == "0" => 1,
        list if list.split(',').any(|name| name == "cpu") => 2,
        _ => 3,
    };
    let path = text
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            // The root of a hierarchy that is not in use says nothing.
            path.starts_with('/')
                .then(|| (path == "/", rank(controllers, id), path))
        })
        .min();
    let Some((_, _, path)) = path else {
        return String::new();
    };
    let is_unit = |part: &&str| {
        [".service", ".scope", ".slice"]
            .iter()
            .any(|suffix| part.ends_with(suffix))
    };
    let parts = || path.rsplit('/').filter(|part| !part.is_empty());
    let name = parts()
        .find(is_unit)
        .or_else(|| parts().next())
        .unwrap_or("/");
    clean(name)
}

fn clean(name: &str) -> String {
    name.chars()
        .take(MAX_NAME_CHARS)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{ProcessNames, Units, unit_in};

    #[track_caller]
    fn check(text: &str, unit: &str) {
        assert_eq!(unit_in(text), unit, "{text:?}");
    }

    #[test]
    fn the_innermost_unit_counts() {
        check("0::/system.slice/nginx.service\n", "nginx.service");
        check("0::/system.slice/nginx.service/workers\n", "nginx.service");
        check(
            "0::/user.slice/user-0.slice/session-1.scope\n",
            "session-1.scope",
        );
        check("0::/kubepods/burstable/pod12/abc\n", "abc");
        check("0::/\n", "/");
        check("", "");
    }

    #[test]
    fn a_hierarchy_in_use_counts_more_than_a_root() {
        check("12:cpu,cpuacct:/batch\n1:name=systemd:/\n0::/\n", "batch");
        check(
            "12:cpu,cpuacct:/batch\n1:name=systemd:/system.slice/a.service\n0::/\n",
            "a.service",
        );
        check("5:memory:/m\n4:cpu:/c\n", "c");
    }

    #[test]
    fn a_process_that_is_not_there_has_no_name() {
        let own = std::process::id();
        let names = ProcessNames::default().of([own, u32::MAX]);
        assert_eq!(names.keys().collect::<Vec<_>>(), [&own]);
        assert!(!names[&own].is_empty());
    }

    #[test]
    fn a_process_goes_by_the_name_of_its_first_thread() {
        let own = std::process::id();
        let mut units = Units::default();
        units.learn([own, u32::MAX]);
        assert!(!units.name_of(own).is_empty());
        assert_eq!(units.name_of(u32::MAX), "");
        assert_eq!(units.name_of(1), "", "nobody asked for it to be looked up");
    }

    #[test]
    fn hostile_names_are_cut_and_cleaned() {
        check("0::/a:b\u{7}c\n", "a:b\u{fffd}c");
        check(&format!("0::/{}\n", "x".repeat(500)), &"x".repeat(128));
        check("nonsense\n::\n", "");
    }
}
