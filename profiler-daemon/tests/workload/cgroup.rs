//! A cgroup with a CPU quota, under the version that this host has the `cpu` controller in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use crate::crew::Unavailable;

/// The bandwidth period that the quota is stated for, in microseconds; the kernel's default.
const PERIOD_US: u32 = 100_000;
const PERIOD: Duration = Duration::from_micros(PERIOD_US as u64);

/// The calling process's own cgroup with a quota; left and removed when dropped.
pub(crate) struct QuotaGroup {
    path: PathBuf,
    home: PathBuf,
    version: u8,
    before: Map<String, Value>,
}

impl QuotaGroup {
    /// Makes a cgroup that may use `percent` of one CPU, and moves this process into it.
    pub(crate) fn enter(percent: u32) -> Result<Self> {
        let (home, version) = own_cpu_cgroup()?;
        let path = home.join(format!("schedscope-workload-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| {
            Unavailable(format!(
                "the cgroup '{}' can't be made ({error}); a CPU quota needs root",
                path.display()
            ))
        })?;
        let quota_us = percent * (PERIOD_US / 100);
        let mut group = Self {
            path,
            home,
            version,
            before: Map::new(),
        };
        if version == 1 {
            write(&group.path.join("cpu.cfs_period_us"), &PERIOD_US)?;
            write(&group.path.join("cpu.cfs_quota_us"), &quota_us)?;
        } else {
            let text = format!("{quota_us} {PERIOD_US}");
            write(&group.path.join("cpu.max"), &text)?;
        }
        group.before = group.stat()?;
        write(&group.path.join("cgroup.procs"), &std::process::id())?;
        Ok(group)
    }

    /// Leaves the cgroup, and tells what its `cpu.stat` counted: `nr_periods`, `nr_throttled` and
    /// `throttled_ns`.
    pub(crate) fn leave(self) -> Result<Map<String, Value>> {
        write(&self.home.join("cgroup.procs"), &std::process::id())?;
        // The kernel counts a time without quota when it ends, in the next period.
        std::thread::sleep(PERIOD * 5 / 2);
        let after = self.stat()?;
        let mut facts: Map<String, Value> = after
            .iter()
            .map(|(name, value)| {
                let before = self.before.get(name).and_then(Value::as_u64).unwrap_or(0);
                let grown = value.as_u64().unwrap_or(0).saturating_sub(before);
                (name.clone(), grown.into())
            })
            .collect();
        facts.insert("cgroup_version".to_owned(), self.version.into());
        facts.insert("cgroup".to_owned(), self.path.display().to_string().into());
        Ok(facts)
    }

    /// A way to ask how long its threads were without quota so far, from wherever.
    pub(crate) fn throttled_ns(&self) -> impl Fn() -> Result<u64> + Send + use<> {
        let path = self.path.clone();
        move || {
            let facts = stat_of(&path)?;
            Ok(facts
                .get("throttled_ns")
                .and_then(Value::as_u64)
                .unwrap_or(0))
        }
    }

    fn stat(&self) -> Result<Map<String, Value>> {
        stat_of(&self.path)
    }
}

fn stat_of(group: &Path) -> Result<Map<String, Value>> {
    let path = group.join("cpu.stat");
    let text =
        fs::read_to_string(&path).with_context(|| format!("reading '{}'", path.display()))?;
    let mut facts = Map::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let Ok(value) = value.parse::<u64>() else {
            continue;
        };
        match name {
            "nr_periods" | "nr_throttled" => facts.insert(name.to_owned(), value.into()),
            "throttled_time" => facts.insert("throttled_ns".to_owned(), value.into()),
            "throttled_usec" => facts.insert("throttled_ns".to_owned(), (value * 1000).into()),
            _ => None,
        };
    }
    Ok(facts)
}

impl Drop for QuotaGroup {
    fn drop(&mut self) {
        // Nothing better can be done than leave an empty cgroup behind.
        let _ = write(&self.home.join("cgroup.procs"), &std::process::id());
        let _ = fs::remove_dir(&self.path);
    }
}

/// The directory of this process's cgroup in the hierarchy that limits CPU time, and its version.
fn own_cpu_cgroup() -> Result<(PathBuf, u8)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading mountinfo")?;
    let groups = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let version = if controllers.is_empty() { 2 } else { 1 };
        if version == 1 && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        let Some(mount) = mount_point(&mounts, version) else {
            continue;
        };
        let path = mount.join(group.trim_start_matches('/'));
        let has_controller = match version {
            1 => path.join("cpu.cfs_quota_us").exists() || group == "/",
            _ => fs::read_to_string(path.join("cgroup.subtree_control"))
                .is_ok_and(|list| list.split_whitespace().any(|name| name == "cpu")),
        };
        if has_controller {
            return Ok((path, version));
        }
    }
    Err(Unavailable(
        "no cgroup hierarchy here limits CPU time: neither version 1 with the 'cpu' controller, nor \
         version 2 with 'cpu' in cgroup.subtree_control of this process's cgroup"
            .to_owned(),
    )
    .into())
}

/// Where the hierarchy is mounted (`proc_pid_mountinfo(5)`: the fifth field, and after the dash the
/// type, the source and the options).
fn mount_point(mounts: &str, version: u8) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let fits = match version {
            1 => kind == "cgroup" && options.split(',').any(|option| option == "cpu"),
            _ => kind == "cgroup2",
        };
        fits.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn write(path: &Path, value: &dyn std::fmt::Display) -> Result<()> {
    fs::write(path, value.to_string())
        .with_context(|| format!("writing '{value}' to '{}'", path.display()))
}
