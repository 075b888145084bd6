//! Units of real processes in real cgroups, in reports and in metrics.

mod churn;
#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::not_run;
use common::schedscope::{may_load_probes, measure_process};
use common::service::Service;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

/// Runs for good.
const SPIN: &str = "while :; do :; done";

/// Makes processes that live for some milliseconds, and does nothing else.
const FORK: &str = "while :; do sh -c 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done'; done";

const ID: &str = "3f2a9c1d5b7e8f60112233445566778899aabbccddeeff001234567890abcdef";
const UID: &str = "7f3e1c5a-9b2d-4e8f-a1b0-c2d3e4f50617";

/// A cgroup with a shell in it, which ends with it.
struct Group {
    shell: Child,
    directory: PathBuf,
    /// The uppermost directory that was made for it.
    top: PathBuf,
}

impl Group {
    /// Runs a script in a cgroup of this path below the unified hierarchy, on the first CPU.
    fn run(unified: &Path, path: &str, script: &str) -> Self {
        let directory = unified.join(path);
        fs::create_dir_all(&directory).expect("root may make cgroups");
        let top = path.split('/').next().expect("a path has a part");
        // It waits to be moved, so that all that it makes is where it should be.
        let shell = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let group = Self {
            shell,
            directory,
            top: unified.join(top),
        };
        let mut first = CpuSet::new();
        first.set(0);
        let pid = Pid::from_child(&group.shell);
        sched_setaffinity(Some(pid), &first).expect("there is a first CPU");
        fs::write(
            group.directory.join("cgroup.procs"),
            group.shell.id().to_string(),
        )
        .expect("root may move processes");
        group
    }

    /// Has it begin.
    fn go(&mut self) {
        use std::io::Write;
        let mut stdin = self.shell.stdin.take().expect("it has not begun");
        stdin.write_all(b"\n").expect("it waits");
    }

    fn pid(&self) -> u32 {
        self.shell.id()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What can't be done leaves an empty cgroup behind.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        // The shell's last child ends by itself.
        thread::sleep(Duration::from_millis(300));
        let mut directory = self.directory.clone();
        while fs::remove_dir(&directory).is_ok() && directory != self.top && directory.pop() {}
    }
}

/// Where cgroups of version 2 are; says so where they are not, and the test then returns.
fn unified(test: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("procfs is mounted");
    let of_version_2 = |line: &&str| line.split(' ').nth(2) == Some("cgroup2");
    let mount = mounts.lines().find(of_version_2);
    let place = mount.and_then(|line| line.split(' ').nth(1));
    if place.is_none() {
        not_run(test, "no cgroups of version 2 are mounted");
    }
    place.map(PathBuf::from)
}

/// What a unit has of the time that the target waited for others.
fn share(report: &Value, unit: &str) -> f64 {
    let total = &report["total"];
    let rows = total["culprits_by_unit"].as_array().expect("a list");
    let its: u64 = rows
        .iter()
        .filter(|row| row["unit"] == unit)
        .filter_map(|row| row["ns"].as_u64())
        .sum();
    let contended = total["runnable_ns"]["contended"].as_u64().unwrap_or(0);
    its as f64 / contended.max(1) as f64
}

#[test]
fn attach_names_the_units_of_victim_and_culprit() {
    const TEST: &str = "attach_names_the_units_of_victim_and_culprit";
    if !may_load_probes(TEST) {
        return;
    }
    let Some(unified) = unified(TEST) else { return };
    let mut victim = Group::run(&unified, "schedscope.slice/victim.service", SPIN);
    let pod = format!("kubepods-schedscope/kubepods/besteffort/pod{UID}/{ID}");
    let mut culprit = Group::run(&unified, &pod, SPIN);
    victim.go();
    culprit.go();
    let report = measure_process(victim.pid(), &["--duration", "2s"]);
    assert_eq!(report["threads"][0]["unit"], "victim.service", "{report}");
    let pod = format!("pod:{UID}");
    let rows = report["total"]["culprits_by_process"]
        .as_array()
        .expect("a list");
    let row = rows.iter().find(|row| row["tgid"] == culprit.pid());
    let row = row.expect("it shares the CPU with the victim for two seconds");
    assert_eq!(row["unit"], pod.as_str(), "{report}");
    // What else runs on this host has some of it, too.
    let share = share(&report, &pod);
    assert!(share > 0.2, "{share} of the time: {}", report["total"]);
}

/// Those that end before anybody can look at them belong to the unit of those that made them.
#[test]
fn processes_that_live_shortly_have_their_unit() {
    const TEST: &str = "processes_that_live_shortly_have_their_unit";
    if !may_load_probes(TEST) {
        return;
    }
    let Some(unified) = unified(TEST) else { return };
    let mut victim = Group::run(&unified, "schedscope.slice/victim.service", SPIN);
    let mut culprit = Group::run(&unified, "schedscope.slice/forks.service/worker", FORK);
    victim.go();
    culprit.go();
    let report = measure_process(victim.pid(), &["--duration", "3s"]);
    let total = &report["total"];
    println!(
        "{} of the time is forks.service's",
        share(&report, "forks.service")
    );
    let rows = |list: &str| total[list].as_array().expect("a list").clone();
    // Of all shells only the victim is not made by that unit, and that is no culprit of its own.
    let shells: Vec<Value> = rows("culprits_by_process")
        .into_iter()
        .filter(|row| row["comm"] == "sh")
        .collect();
    assert!(shells.len() > 3, "they are many: {total}");
    let elsewhere = |row: &&Value| row["unit"] != "forks.service";
    assert_eq!(shells.iter().find(elsewhere), None, "{total}");
    let by_unit = rows("culprits_by_unit");
    assert_eq!(
        by_unit.iter().find(|row| row["unit"] == ""),
        None,
        "{total}"
    );
}

#[test]
fn the_service_names_units_of_culprits() {
    const TEST: &str = "the_service_names_units_of_culprits";
    if !may_load_probes(TEST) {
        return;
    }
    let Some(unified) = unified(TEST) else { return };
    let mut victim = Group::run(&unified, "schedscope.slice/victim.service", SPIN);
    let container = format!("schedscope.slice/docker-{ID}.scope");
    let mut culprit = Group::run(&unified, &container, SPIN);
    victim.go();
    culprit.go();
    let target = format!("spin=pid:{}", victim.pid());
    let service = Service::start(["--target", &target]);
    let series = |victim: &str, culprit: &str| {
        format!(
            "schedscope_interference_seconds_total{{victim=\"{victim}\",culprit=\"{culprit}\"}}"
        )
    };
    let docker = format!("docker:{}", &ID[..12]);
    let wanted = [series("spin", &docker), series("host", "victim.service")];
    service.scrape_until(|samples| wanted.iter().all(|series| samples.has(series)));
    thread::sleep(Duration::from_secs(3));
    let samples = service.scrape();
    for series in &wanted {
        assert!(
            samples.value(series) > 0.3,
            "{series} {}",
            samples.value(series)
        );
    }
}
