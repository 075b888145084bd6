//! The profiler is stopped, and killed.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::common::books::time;
use super::common::schedscope::{
    PATIENCE, Running, may_load_probes, run, schedscope, scratch_file,
};
use super::common::{Workload, books, number, workload_program};
use super::support::{Objects, check_bystander, wait_for_command};

/// For five seconds nobody empties the rings, and a storm fills them: what is lost is counted and unknown, and of
/// what is known nothing is wrong.
#[test]
fn a_daemon_that_is_stopped_for_five_seconds_invents_nothing() {
    const TEST: &str = "stalls::a_daemon_that_is_stopped_for_five_seconds_invents_nothing";
    if !may_load_probes(TEST) {
        return;
    }
    let storm = Workload::start("storm", &["--duration", "30s"]).expect("no special needs");
    let file = scratch_file("stalled.json");
    let mut command = schedscope(["attach", "--output", "json", "--output-file"]);
    command.arg(&file).args(["--ring-records", "4096", "--"]);
    command.arg(workload_program());
    command.args([
        "mutex",
        "--duration",
        "7s",
        "--dir",
        env!("CARGO_TARGET_TMPDIR"),
    ]);
    let measuring = Running::start(command);
    wait_for_command(measuring.pid());
    measuring.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(5));
    measuring.signal(Signal::CONT);
    let outcome = measuring.finish(PATIENCE);
    drop(storm);
    outcome.expect_code(0);
    let report = std::fs::read_to_string(&file).expect("a report was written");
    std::fs::remove_file(&file).expect("it was written");
    let report: Value = serde_json::from_str(&report).expect("the report is JSON");
    books::check(&report);
    let truth = outcome.stdout.lines().last().unwrap_or_default();
    let truth: Value = serde_json::from_str(truth).expect("the workload's truth");
    let dropped: u64 = number(&report["loss"]["dropped"]);
    assert!(
        dropped > 10_000,
        "rings of 4,096 records: {}",
        report["loss"]
    );
    let unknown = time(&report["total"], "unknown");
    assert!(
        unknown > 1_000_000_000,
        "what was lost is unknown: {}",
        report["total"]["time_ns"]
    );
    check_bystander(&report, &truth, "holder");
    check_bystander(&report, &truth, "waiter");
}

/// Killed while it loads, attaches, measures or writes: the kernel has nothing of it left, and what it wrote can
/// be read.
#[test]
fn killed_at_any_moment_it_leaves_nothing() {
    if !may_load_probes("stalls::killed_at_any_moment_it_leaves_nothing") {
        return;
    }
    let storm = Workload::start("pingpong", &["--duration", "60s"]).expect("no special needs");
    let pid = storm.pid().to_string();
    let (mut held_some, mut read_some) = (0, 0);
    // From before the probes are loaded to the second chunk, at moments that differ from run to run.
    let shift = u64::from(std::process::id() % 50);
    for after_ms in [40, 120, 250, 400, 700, 1_300, 3_500] {
        let file = scratch_file("killed-at-random.sched");
        let path = file.to_str().expect("a plain name");
        let recorder = Running::start(schedscope(["record", "-o", path, &pid]));
        thread::sleep(Duration::from_millis(after_ms + shift));
        // While it stands still it is known what it holds.
        recorder.signal(Signal::STOP);
        thread::sleep(Duration::from_millis(5));
        let held = Objects::of(recorder.pid());
        recorder.signal(Signal::KILL);
        recorder.finish(PATIENCE);
        held.expect_gone();
        held_some += usize::from(held.count() > 0);
        if !file.exists() {
            continue;
        }
        let report = run(["report", path, "--output", "json"]);
        report.expect_code(5);
        if !report.stdout.is_empty() {
            books::check(&report.json());
            read_some += 1;
        }
        std::fs::remove_file(&file).expect("it is there");
    }
    assert!(held_some >= 2 && read_some >= 1, "{held_some} {read_some}");
}
