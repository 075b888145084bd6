//! Threads and processes without end: very short ones, very many, and ids that are given again.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::common::books::{self, named, time};
use super::common::schedscope::{
    PATIENCE, Running, may_load_probes, run, schedscope, scratch_file,
};
use super::common::{not_run, number, workload_program};
use super::support::{Helper, Setting, check_bystander, reports, wait_for_command};

/// Threads in all that are too many for one process, which has 65,530 mappings, two for each stack.
const CROWD: usize = 50_000;
const PARTS: usize = 5;

/// Runs the workload program to its end, and returns the last line that it printed.
#[track_caller]
fn truth_of_run(arguments: &[&str]) -> Value {
    let output = Command::new(workload_program())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the workload program starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("a line of JSON")
}

/// Measures a mutex's users by a whole life of theirs while something else happens.
#[track_caller]
fn bystander<T>(seconds: u64, meanwhile: impl FnOnce() -> T) -> (Value, Value, T) {
    let file = scratch_file("bystander.json");
    let mut command = schedscope(["attach", "--output", "json", "--output-file"]);
    command.arg(&file).arg("--").arg(workload_program());
    let duration = format!("{seconds}s");
    command.args([
        "mutex",
        "--duration",
        &duration,
        "--dir",
        env!("CARGO_TARGET_TMPDIR"),
    ]);
    let measuring = Running::start(command);
    wait_for_command(measuring.pid());
    let came = meanwhile();
    let outcome = measuring.finish(PATIENCE);
    outcome.expect_code(0);
    let report = std::fs::read_to_string(&file).expect("a report was written");
    std::fs::remove_file(&file).expect("it was written");
    let report: Value = serde_json::from_str(&report).expect("the report is JSON");
    books::check(&report);
    let truth = outcome.stdout.lines().last().unwrap_or_default();
    let truth: Value = serde_json::from_str(truth).expect("the workload's truth");
    check_bystander(&report, &truth, "holder");
    check_bystander(&report, &truth, "waiter");
    (report, truth, came)
}

/// Two thousand processes a second that end at once: names and cgroups of many can't be read any more.
#[test]
fn a_fork_bomb_changes_nobodys_figures() {
    if !may_load_probes("births::a_fork_bomb_changes_nobodys_figures") {
        return;
    }
    let (report, _, bomb) = bystander(5, || {
        truth_of_run(&["bomb", "--duration", "3s", "--period", "500us"])
    });
    let forks: u64 = number(&bomb["forks"]);
    assert!(forks > 500, "{forks} forks in three seconds");
    assert_eq!(report["loss"]["undecodable"], 0, "{}", report["loss"]);
}

/// Runs the workload program as a command that is measured, until no record was lost: where others want the CPUs,
/// too, the rings may be emptied too late. Its truth, and the report.
#[track_caller]
fn measured(options: &[&str], arguments: &[&str]) -> (Value, Value) {
    for _ in 0..3 {
        let mut command = schedscope(["attach", "--output", "json"]);
        command
            .args(options)
            .arg("--")
            .arg(workload_program())
            .args(arguments);
        let outcome = Running::start(command).finish(PATIENCE);
        outcome.expect_code(0);
        let mut lines = outcome.stdout.lines();
        let mut next = || -> Value {
            let line = lines.next().expect("the truth, and the report");
            serde_json::from_str(line).expect("a line of JSON")
        };
        let (truth, report) = (next(), next());
        books::check(&report);
        if report["loss"]["dropped"] == 0 {
            return (truth, report);
        }
        println!("again, since records were lost: {}", report["loss"]);
    }
    panic!("records were lost three times");
}

/// What a bomb's processes did is theirs, and all of them are counted.
#[test]
fn a_fork_bomb_is_measured_with_all_its_processes() {
    if !may_load_probes("births::a_fork_bomb_is_measured_with_all_its_processes") {
        return;
    }
    let bomb = ["bomb", "--duration", "2s", "--period", "500us"];
    let (truth, report) = measured(&["--follow"], &bomb);
    let forks: u64 = number(&truth["forks"]);
    let threads: u64 = number(&report["total"]["threads"]);
    assert!(forks > 300, "{forks} forks in two seconds");
    assert_eq!(threads, forks + 1, "each process, and the first one");
}

/// A thread that lives for 50 us is there with all that it did.
#[test]
fn threads_that_live_for_fifty_microseconds_are_all_there() {
    const TEST: &str = "births::threads_that_live_for_fifty_microseconds_are_all_there";
    if !may_load_probes(TEST) {
        return;
    }
    let (truth, report) = measured(&[], &["brief", "--duration", "1s", "--hold", "50us"]);
    let started: u64 = number(&truth["threads_started"]);
    let threads: u64 = number(&report["total"]["threads"]);
    assert_eq!(threads, started + 1, "each thread, and the first one");
    assert!(started > 200, "{started} in a second");
    let cpu_ns: u64 = number(&truth["cpu_ns"]);
    let total = &report["total"];
    assert!(
        time(total, "running") + time(total, "unknown") >= cpu_ns,
        "by themselves {cpu_ns} ns: {}",
        total["time_ns"]
    );
    // Of those that are listed each has its own.
    for row in named(&report, "brief") {
        let known = time(row, "running") + time(row, "unknown");
        let observed: u64 = number(&row["observed_ns"]);
        assert!(known > 0 && observed >= 50_000, "{row}");
    }
}

/// While all of /proc is read, most of what is in it goes away: the whole host is measured and every second is
/// asked for names.
#[test]
fn entries_of_proc_that_vanish_are_no_errors() {
    if !may_load_probes("births::entries_of_proc_that_vanish_are_no_errors") {
        return;
    }
    let mut bomb = Command::new(workload_program())
        .args(["bomb", "--duration", "20s", "--period", "300us"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the workload program starts");
    let outcomes = [
        run(["top", "-d", "1200ms", "--output", "json"]),
        run([
            "attach", "-d", "500ms", "--output", "json", "--comm", "workload",
        ]),
        run(["attach", "-d", "500ms", "--output", "json", "--unit", "*"]),
    ];
    bomb.kill().expect("it runs");
    bomb.wait().expect("it ends");
    for outcome in outcomes {
        outcome.expect_code(0);
        assert!(!reports(&outcome.stdout).is_empty(), "{outcome:?}");
    }
}

/// Fifty thousand threads that wait: all are known from the beginning, and what they cost is bounded.
#[test]
fn fifty_thousand_threads_are_known_and_cost_little() {
    const TEST: &str = "births::fifty_thousand_threads_are_known_and_cost_little";
    if !may_load_probes(TEST) {
        return;
    }
    let ids = Setting::change("/proc/sys/kernel/pid_max", "262144");
    let most = std::fs::read_to_string("/proc/sys/kernel/threads-max").unwrap_or_default();
    let most: usize = most.trim().parse().unwrap_or(0);
    if let (Err(reason), _) | (_, Some(reason)) = (
        &ids,
        (most < CROWD + 10_000)
            .then(|| format!("the kernel allows {most} threads"))
            .as_ref(),
    ) {
        return not_run(TEST, reason);
    }
    let part = (CROWD / PARTS).to_string();
    let crowd: Vec<Helper> = (0..PARTS)
        .map(|_| Helper::start(&["crowd", "--threads", &part]))
        .collect();
    let pids: Vec<String> = crowd
        .iter()
        .map(|helper| helper.pid().to_string())
        .collect();
    let mut arguments = vec!["attach", "-d", "1s", "--output", "json"];
    arguments.extend(pids.iter().map(String::as_str));
    let measuring = Running::start(schedscope(&arguments));
    let mut peak_kib = 0;
    let status = format!("/proc/{}/status", measuring.pid());
    while let Ok(text) = std::fs::read_to_string(&status) {
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) else {
            break;
        };
        peak_kib = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(peak_kib);
        thread::sleep(Duration::from_millis(10));
    }
    let outcome = measuring.finish(PATIENCE);
    outcome.expect_code(0);
    let reports = reports(&outcome.stdout);
    assert_eq!(reports.len(), PARTS);
    for report in &reports {
        let threads: usize = number(&report["total"]["threads"]);
        assert_eq!(
            threads,
            CROWD / PARTS + 1,
            "all that wait, and the first one"
        );
        let window: u64 = number(&report["window"]["duration_ns"]);
        // Nobody saw them move, and their state was read.
        assert_eq!(
            time(&report["total"], "blocked"),
            window * (CROWD as u64 / PARTS as u64 + 1),
            "{}",
            report["total"]["time_ns"]
        );
    }
    println!("the profiler took {} MiB at most", peak_kib >> 10);
    assert!(peak_kib < 1 << 20, "{peak_kib} KiB");
}

/// The kernel begins again with low ids, and a thread gets the very id of one that has just ended.
#[test]
fn an_id_that_is_given_again_is_somebody_else() {
    const TEST: &str = "births::an_id_that_is_given_again_is_somebody_else";
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    if !may_load_probes(TEST) {
        return;
    }
    if std::fs::write(
        LAST,
        std::fs::read_to_string(LAST).unwrap_or_default().trim(),
    )
    .is_err()
    {
        return not_run(TEST, "the kernel lets nobody set the next id");
    }
    // A shell that starts one child after the other and sees to it that all get the same id, which is where the
    // ids begin anew, too.
    let script = "last=$(($(cat /proc/sys/kernel/pid_max) - 2)); n=0; \
                  while [ $n -lt 20 ]; do n=$((n + 1)); echo $last > /proc/sys/kernel/ns_last_pid; \
                  sleep 0.02 & echo $!; wait; done";
    let outcome = run([
        "attach", "--follow", "--output", "json", "--", "sh", "-c", script,
    ]);
    outcome.expect_code(0);
    let (ids, report): (Vec<&str>, Vec<&str>) = outcome
        .stdout
        .lines()
        .partition(|line| !line.starts_with('{'));
    let report: Value = serde_json::from_str(report.first().expect("a report")).expect("JSON");
    books::check(&report);
    let sleeps = named(&report, "sleep");
    assert_eq!(sleeps.len(), 20, "each is a row of its own: {ids:?}");
    let mut often: Vec<&Value> = sleeps.iter().map(|row| &row["tid"]).collect();
    often.sort_by_key(|tid| tid.as_u64());
    often.dedup();
    assert!(often.len() < 20, "ids were given again: {often:?}");
    for row in sleeps {
        let observed: u64 = number(&row["observed_ns"]);
        let blocked = time(row, "blocked");
        assert!(
            blocked + time(row, "unknown") >= 20_000_000 && observed < 2_000_000_000,
            "each slept for 20 ms, and none has another's time: {row}"
        );
    }
}
