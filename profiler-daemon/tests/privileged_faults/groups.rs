//! Cgroups: frozen ones, and processes that are moved all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::common::books::{self, assert_close, thread as row_by_id, time};
use super::common::oracle::Schedstat;
use super::common::schedscope::{PATIENCE, Running, may_load_probes, schedscope};
use super::common::{Workload, not_run, number};
use super::support::{Cgroup, hierarchy};

/// How long it is frozen.
const FROZEN_MS: u64 = 800;

/// Freezes a spinner for a while in the middle of a window; its row.
#[track_caller]
fn frozen(group: &Cgroup, file: &str, freeze: &str, thaw: &str) -> (Value, u64) {
    let spinner = Workload::start("spin", &["--threads", "1", "--duration", "30s"])
        .expect("no special needs");
    let home = Cgroup(group.0.parent().expect("it is in a hierarchy").to_owned());
    group.take(spinner.pid());
    let pid = spinner.pid().to_string();
    let arguments = ["attach", "--output", "json", "-d", "60s", &pid];
    let mut measuring = Running::start(schedscope(arguments));
    measuring.wait_until_it_measures();
    // The window begins when all threads have been read.
    thread::sleep(Duration::from_millis(1_500));
    group.write(file, freeze);
    let (_, tid) = spinner.member("spinner-0");
    while is_running(tid) {
        thread::sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    thread::sleep(Duration::from_millis(FROZEN_MS));
    group.write(file, thaw);
    let frozen_ns = u64::try_from(start.elapsed().as_nanos()).expect("a second");
    thread::sleep(Duration::from_millis(200));
    measuring.signal(Signal::INT);
    let outcome = measuring.finish(PATIENCE);
    home.take(spinner.pid());
    // The hierarchy's root is not ours to remove.
    std::mem::forget(home);
    outcome.expect_code(0);
    let report = outcome.json();
    books::check(&report);
    (row_by_id(&report, tid).clone(), frozen_ns)
}

/// Whether a thread has a CPU or waits for one.
fn is_running(tid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).expect("the thread is there");
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.starts_with(" R"))
}

#[track_caller]
fn check_frozen((row, frozen_ns): &(Value, u64), version: &str) {
    let blocked = time(row, "blocked");
    // It stops when it has a CPU next.
    let allowed = 30_000_000 + number::<u64>(&row["runqueue_delay"]["max_ns"]);
    assert_close(
        &format!("{version}: {row}"),
        blocked,
        *frozen_ns,
        0.05,
        allowed,
    );
    let stopped: u64 = number(&row["blocked_ns"]["stopped"]);
    assert!(stopped >= blocked / 100 * 99, "{version}: {row}");
}

#[test]
fn frozen_time_is_blocked_time_that_is_stopped() {
    const TEST: &str = "groups::frozen_time_is_blocked_time_that_is_stopped";
    if !may_load_probes(TEST) {
        return;
    }
    let mut tried = 0;
    if let Some(group) = hierarchy(None).and_then(|at| Cgroup::make(&at, "frozen").ok()) {
        let its = frozen(&group, "cgroup.freeze", "1", "0");
        check_frozen(&its, "version 2");
        tried += 1;
    }
    let old = hierarchy(Some("freezer"));
    if let Some(group) = old.and_then(|at| Cgroup::make(&at, "frozen").ok()) {
        let its = frozen(&group, "freezer.state", "FROZEN", "THAWED");
        check_frozen(&its, "version 1");
        tried += 1;
    }
    if tried == 0 {
        not_run(TEST, "there is no cgroup hierarchy that can freeze");
    }
}

/// A process that is moved to and fro two hundred times a second has the figures that the kernel has.
#[test]
fn moves_between_cgroups_change_no_figures() {
    const TEST: &str = "groups::moves_between_cgroups_change_no_figures";
    if !may_load_probes(TEST) {
        return;
    }
    let hierarchies = [hierarchy(None), hierarchy(Some("cpu"))];
    let groups: Vec<[Cgroup; 2]> = hierarchies
        .iter()
        .flatten()
        .filter_map(|at| Some([Cgroup::make(at, "to").ok()?, Cgroup::make(at, "fro").ok()?]))
        .collect();
    if groups.is_empty() {
        return not_run(TEST, "no cgroup can be made");
    }
    let spinners = Workload::start("spin", &["--duration", "30s"]).expect("no special needs");
    let members = ["spinner-0", "spinner-1", "spinner-2"].map(|name| spinners.member(name));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let pid = spinners.pid();
    let mover = thread::spawn(move || {
        let mut moves: u64 = 0;
        while !stopped.load(Ordering::Relaxed) {
            for pair in &groups {
                for group in pair {
                    group.take(pid);
                    moves += 1;
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        (moves, groups)
    });
    let oracle = Schedstat::watch(&members);
    thread::sleep(Duration::from_millis(50));
    let text = pid.to_string();
    let arguments = ["attach", "--output", "json", "-d", "2s", &text];
    let outcome = Running::start(schedscope(arguments)).finish(PATIENCE);
    thread::sleep(Duration::from_millis(50));
    stop.store(true, Ordering::Relaxed);
    let (moves, groups) = mover.join().expect("root may move processes");
    drop(spinners);
    drop(groups);
    outcome.expect_code(0);
    let report = outcome.json();
    books::check(&report);
    assert!(moves > 100, "{moves} moves");
    let accounts = oracle.within(&report);
    for (_, tid) in members {
        let row = row_by_id(&report, tid);
        let unknown = time(row, "unknown");
        // As old as the kernel's books of a running thread may be, at both ends, and a slice; and where whoever
        // reads them had to queue, too, as long as that took.
        let allowed = 12_000_000 + unknown + number::<u64>(&row["offcpu"]["max_ns"]);
        assert_close(
            "running",
            time(row, "running"),
            accounts[&tid].run,
            0.01,
            allowed,
        );
        assert_eq!(
            time(row, "blocked"),
            0,
            "a spinner waits for nothing: {row}"
        );
        assert!(unknown < 100_000_000, "{row}");
    }
}
