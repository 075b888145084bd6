//! What the tests of faults share.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::books::{self, time};
use super::common::oracle::{Account, row_of, truth_of};
use super::common::{number, workload_program};

/// Programs, maps and links, each by its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects([BTreeSet<u32>; 3]);

impl Objects {
    /// Those that a process holds.
    pub(crate) fn of(pid: u32) -> Self {
        let mut objects = Self::default();
        let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo"));
        for file in files.into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            for (set, key) in objects
                .0
                .iter_mut()
                .zip(["prog_id:", "map_id:", "link_id:"])
            {
                let value = text.lines().find_map(|line| line.strip_prefix(key));
                set.extend(value.and_then(|value| value.trim().parse::<u32>().ok()));
            }
        }
        objects
    }

    /// Those of the kernel.
    fn all() -> Self {
        let programs = aya::programs::loaded_programs().flatten();
        let maps = aya::maps::loaded_maps().flatten();
        let links = aya::programs::loaded_links().flatten();
        Self([
            programs.map(|program| program.id()).collect(),
            maps.map(|map| map.id()).collect(),
            links.map(|link| link.id()).collect(),
        ])
    }

    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(BTreeSet::len).sum()
    }

    /// Fails unless none of them is left soon.
    #[track_caller]
    pub(crate) fn expect_gone(&self) {
        // The kernel frees them after a grace period.
        let start = Instant::now();
        loop {
            let all = Self::all();
            let pairs = self.0.iter().zip(&all.0);
            let left: Vec<&u32> = pairs.flat_map(|(own, all)| own.intersection(all)).collect();
            if left.is_empty() {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{left:?} of {self:?} are still there"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The workload program doing something that ends with its standard input; killed when dropped.
pub(crate) struct Helper {
    child: Child,
    _input: ChildStdin,
    pub(crate) ready: Value,
}

impl Helper {
    /// Starts it, and returns when it is ready.
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(workload_program())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the workload program starts");
        let input = child.stdin.take().expect("it is a pipe");
        let output = child.stdout.take().expect("it is a pipe");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        assert!(
            read.is_ok_and(|bytes| bytes > 0),
            "it is not ready: {arguments:?}"
        );
        Self {
            child,
            _input: input,
            ready: serde_json::from_str(&line).expect("a line of JSON"),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a command that this process started for its measuring runs: then it measures.
#[track_caller]
pub(crate) fn wait_for_command(pid: u32) {
    let start = Instant::now();
    let of_it = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let parent: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        Some(parent == pid && name.ends_with("(workload"))
    };
    loop {
        let mut entries = std::fs::read_dir("/proc")
            .expect("procfs is mounted")
            .flatten();
        if entries.any(|entry| of_it(entry) == Some(true)) {
            // Until its threads are there.
            thread::sleep(Duration::from_millis(500));
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it does not measure"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// A setting of the kernel that is put back when this is dropped.
pub(crate) struct Setting {
    path: &'static str,
    before: String,
}

impl Setting {
    /// Sets it; the reason if that can't be done.
    pub(crate) fn change(path: &'static str, value: &str) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{path}: {error}");
        let before = std::fs::read_to_string(path).map_err(failed)?;
        std::fs::write(path, value).map_err(failed)?;
        Ok(Self { path, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(self.path, self.before.trim()) {
            println!(
                "{} is not what it was ({}): {error}",
                self.path, self.before
            );
        }
    }
}

/// A cgroup; removed when dropped, by when nobody may be in it.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    /// A new one in this hierarchy; the reason if there is none.
    pub(crate) fn make(hierarchy: &Path, name: &str) -> Result<Self, String> {
        let path = hierarchy.join(format!("{name}-{}", std::process::id()));
        let made = std::fs::create_dir(&path);
        made.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// Moves a process into it.
    #[track_caller]
    pub(crate) fn take(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string());
    }

    #[track_caller]
    pub(crate) fn write(&self, file: &str, value: &str) {
        let path = self.0.join(file);
        let written = std::fs::write(&path, value);
        written.unwrap_or_else(|error| panic!("{value} to {}: {error}", path.display()));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whoever was killed in it may take a moment.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        println!("{} is left", self.0.display());
    }
}

/// Where a hierarchy is mounted: the unified one, or that of a controller of version 1.
pub(crate) fn hierarchy(controller: Option<&str>) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let fits = match controller {
            None => kind == "cgroup2",
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
        };
        fits.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Nothing is said of a thread that was not so, as far as its own truth and the kernel's books go; what is not
/// known may be missing.
#[track_caller]
pub(crate) fn check_bystander(report: &Value, truth: &Value, name: &str) {
    let truth = truth_of(truth, name);
    let row = row_of(report, truth);
    let account = Account::of_life(truth, row);
    let unknown = time(row, "unknown");
    for (part, by_kernel) in [
        ("running", account.run),
        ("runnable", account.delay),
        ("blocked", account.blocked),
    ] {
        let found = time(row, part);
        // As much as two readings one after the other may be apart, and 1%.
        let whole = account.run + account.delay + account.blocked;
        let allowed = by_kernel / 100 + whole / 1000 + 300_000;
        assert!(
            found <= by_kernel + allowed + account.tail && found + unknown + allowed >= by_kernel,
            "{part} of {name}: {found} ns, {unknown} ns unknown, by the kernel {by_kernel} ns: {row}"
        );
    }
    let longest: u64 = number(&truth["longest_ns"]);
    let outside = account.head + account.tail + time(row, "runnable");
    let off: u64 = number(&row["offcpu"]["max_ns"]);
    assert!(
        off <= longest + longest / 50 + outside,
        "a wait of {off} ns, the longest was {longest} ns: {row}"
    );
}

/// Reports of several targets, a line each, whose books all balance.
#[track_caller]
pub(crate) fn reports(lines: &str) -> Vec<Value> {
    let reports: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    reports.iter().for_each(books::check);
    reports
}
