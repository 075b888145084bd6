//! The command line as a user meets it: commands that are started, interrupts, wrong input, and the
//! exit code of each.

mod common;
mod pty;

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::books::{named, time};
use common::schedscope::{
    PATIENCE, Running, may_load_probes, measure_command, run, schedscope, scratch_file,
};
use common::{Workload, number, workload_command, workload_program};
use rustix::process::Signal;
use serde_json::Value;

/// A process id that nobody has: that of a process that has just ended and been waited for.
fn nobody() -> u32 {
    let mut child = Command::new("true").spawn().expect("`true` starts");
    let pid = child.id();
    child.wait().expect("`true` ends");
    pid
}

/// Runs `attach --output json -- sh -c SCRIPT`; the report is on stdout, as the script prints nothing.
#[track_caller]
fn attach_shell(script: &str) -> common::schedscope::Outcome {
    run(["attach", "--output", "json", "--", "sh", "-c", script])
}

#[test]
fn the_exit_code_of_a_command_is_passed_on() {
    if !may_load_probes("the_exit_code_of_a_command_is_passed_on") {
        return;
    }
    for (script, code, exit) in [
        ("exit 0", 0, "code"),
        ("exit 7", 7, "code"),
        ("kill -9 $$", 128 + 9, "signal"),
    ] {
        let outcome = attach_shell(script);
        outcome.expect_code(code);
        let report = outcome.json();
        common::books::check(&report);
        assert_eq!(report["target"]["kind"], "command");
        assert!(report["exit"][exit].is_number(), "{}", report["exit"]);
    }
}

#[test]
fn a_command_that_cannot_run_gives_the_codes_of_a_shell() {
    if !may_load_probes("a_command_that_cannot_run_gives_the_codes_of_a_shell") {
        return;
    }
    run(["attach", "--", "/no/such/program"]).expect_error(127, &["/no/such/program", "PATH"]);
    let file = scratch_file("not-executable");
    std::fs::write(&file, "").expect("the scratch directory can be written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let path = file.to_str().expect("a path in UTF-8");
    run(["attach", "--", path]).expect_error(126, &[path]);
    std::fs::remove_file(&file).expect("the scratch file goes away");
}

#[test]
fn a_command_is_measured_from_its_first_instruction_to_its_end() {
    if !may_load_probes("a_command_is_measured_from_its_first_instruction_to_its_end") {
        return;
    }
    let start = Instant::now();
    let measured = measure_command(&[], "sleep-loop", &["--duration", "500ms"])
        .expect("it needs nothing special");
    let around = start.elapsed();
    let window: u64 = number(&measured.report["window"]["duration_ns"]);
    let window = Duration::from_nanos(window);
    assert!(
        window >= Duration::from_millis(500) && window < around,
        "{window:?} of {around:?}"
    );
    // The first thread has the name of the program. It may end a little before the others, which it
    // does not wait for.
    let first = named(&measured.report, "workload");
    assert_eq!(first.len(), 1, "{}", measured.report["threads"]);
    let observed: u64 = number(&first[0]["observed_ns"]);
    assert!(observed >= 500_000_000, "{}", first[0]);
    assert_eq!(first[0]["tid"], measured.truth["pid"]);
    assert!(
        time(first[0], "running") > 0,
        "it ran before it waited: {}",
        first[0]
    );
    let gate = measured.report["threads"].as_array().expect("threads");
    assert!(
        gate.iter().all(|thread| thread["comm"] != "schedscope"),
        "{gate:?}"
    );
}

#[test]
fn an_interrupt_ends_early_with_a_full_report() {
    if !may_load_probes("an_interrupt_ends_early_with_a_full_report") {
        return;
    }
    for signal in [Signal::INT, Signal::TERM] {
        let workload = Workload::start("mutex", &["--duration", "20s"]).expect("no special needs");
        let pid = workload.pid().to_string();
        let attach = ["attach", &pid, "--duration", "60s", "--output", "json"];
        let start = Instant::now();
        let mut running = Running::start(schedscope(attach));
        running.wait_until_it_measures();
        running.signal(signal);
        let outcome = running.finish(Duration::from_secs(5));
        let around = start.elapsed();
        outcome.expect_code(0);
        let report = outcome.json();
        common::books::check(&report);
        let window: u64 = number(&report["window"]["duration_ns"]);
        let window_time = Duration::from_nanos(window);
        assert!(
            window_time > Duration::from_millis(100) && window_time < around,
            "{window_time:?} of {around:?}"
        );
        let (_, waiter) = workload.member("waiter");
        let row = common::books::thread(&report, waiter);
        assert_eq!(row["observed_ns"], window, "{row}");
    }
}

/// A terminal's Ctrl-C goes to the command, too, which ends by it; the report comes all the same.
#[test]
fn an_interrupt_of_a_command_is_the_commands_and_the_report_comes() {
    if !may_load_probes("an_interrupt_of_a_command_is_the_commands_and_the_report_comes") {
        return;
    }
    let (report, lines) = (scratch_file("report.json"), scratch_file("lines"));
    let mut command = schedscope(["attach", "--output", "json", "--output-file"]);
    command.arg(&report).args(["--", "sh", "-c"]);
    command.arg(r#"exec "$0" spin --threads 1 --duration 60s > "$1""#);
    command.arg(workload_program()).arg(&lines).process_group(0);
    let mut running = Running::start(command);
    let is_ready = || std::fs::read_to_string(&lines).is_ok_and(|text| text.contains("ready"));
    let start = Instant::now();
    while !is_ready() {
        assert!(
            !running.has_ended() && start.elapsed() < PATIENCE,
            "the command does not begin"
        );
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(300));
    running.signal_group(Signal::INT);
    let outcome = running.finish(Duration::from_secs(5));
    outcome.expect_code(128 + 2);
    let text = std::fs::read_to_string(&report).expect("the report is there");
    let parsed: Value = serde_json::from_str(&text).expect("the report is JSON");
    for file in [report, lines] {
        std::fs::remove_file(file).expect("the scratch files go away");
    }
    common::books::check(&parsed);
    assert_eq!(parsed["exit"]["signal"], 2, "{}", parsed["exit"]);
    assert_eq!(
        named(&parsed, "spinner-0").len(),
        1,
        "{}",
        parsed["threads"]
    );
}

#[test]
fn the_table_goes_to_stdout_and_names_the_threads() {
    if !may_load_probes("the_table_goes_to_stdout_and_names_the_threads") {
        return;
    }
    let workload = Workload::start("mutex", &["--duration", "20s"]).expect("no special needs");
    let outcome = run(["attach", &workload.pid().to_string(), "--duration", "300ms"]);
    outcome.expect_code(0);
    assert_eq!(outcome.stderr, "");
    for name in ["holder", "waiter", "workload"] {
        assert!(outcome.stdout.contains(name), "{outcome:?}");
    }
}

#[test]
fn a_process_that_is_not_there_is_named() {
    if !may_load_probes("a_process_that_is_not_there_is_named") {
        return;
    }
    let pid = nobody().to_string();
    run(["attach", &pid, "--duration", "1s"]).expect_error(4, &[&pid, "--comm"]);
    run(["attach", "--tid", &pid, "--duration", "1s"]).expect_error(4, &[&pid]);
}

#[test]
fn groups_that_are_not_there_are_named() {
    let all = [
        ("--unit", "no-such-unit"),
        ("--cgroup", "no/such/group"),
        ("--container", "no-such-container"),
    ];
    for (option, value) in all {
        run(["attach", option, value, "--duration", "1s"]).expect_error(4, &[value]);
    }
}

/// A command that starts others, and a process that is named besides: each has a report of its own.
#[test]
fn children_follow_and_several_targets_have_reports_of_their_own() {
    if !may_load_probes("children_follow_and_several_targets_have_reports_of_their_own") {
        return;
    }
    let mut other = Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("sleep starts");
    let pid = other.id().to_string();
    let script = "sleep 0.1 & (sleep 0.2; true); wait";
    let outcome = run([
        "attach", "--follow", "--output", "json", &pid, "--", "sh", "-c", script,
    ]);
    other.kill().expect("it runs");
    other.wait().expect("it ends");
    assert!(outcome.status.success(), "{outcome:?}");
    let reports: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let [process, command] = &reports[..] else {
        panic!("{} reports", reports.len())
    };
    for report in [process, command] {
        common::books::check(report);
    }
    assert_eq!(process["target"]["kind"], "pid");
    assert_eq!(process["total"]["threads"], 1);
    assert_eq!(command["target"]["kind"], "command");
    let threads = command["threads"].as_array().expect("threads");
    let comms: Vec<_> = threads.iter().filter_map(|t| t["comm"].as_str()).collect();
    // The shell, its subshell (which may have become the second sleep's parent), and two sleeps.
    assert!(
        comms.iter().filter(|comm| **comm == "sleep").count() >= 2,
        "{comms:?}"
    );
    assert!(comms.contains(&"sh"), "{comms:?}");
}

#[test]
fn a_thread_given_as_a_process_is_explained() {
    if !may_load_probes("a_thread_given_as_a_process_is_explained") {
        return;
    }
    let workload = Workload::start("mutex", &["--duration", "20s"]).expect("no special needs");
    let (pid, tid) = workload.member("waiter");
    let (pid, tid) = (pid.to_string(), tid.to_string());
    run(["attach", &tid, "--duration", "1s"]).expect_error(4, &["--tid", &pid, &tid]);
}

/// What ends while it is measured gives its report at once; what has ended already is exit code 4.
#[test]
fn a_process_that_ends_ends_the_measurement() {
    if !may_load_probes("a_process_that_ends_ends_the_measurement") {
        return;
    }
    let mut child = workload_command("doze", &["--duration", "3s"])
        .spawn()
        .expect("it starts");
    let pid = child.id().to_string();
    let start = Instant::now();
    let outcome = run(["attach", &pid, "--duration", "20s", "--output", "json"]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    outcome.expect_code(0);
    let report = outcome.json();
    common::books::check(&report);
    assert_eq!(report["threads"][0]["ended"], true, "{report}");
    // Nobody has waited for it yet: its id is still taken, but nothing is left to measure.
    run(["attach", &pid, "--duration", "1s"]).expect_error(4, &[&pid]);
    child.wait().expect("it can be waited for");
}

#[test]
fn who_is_not_root_is_told_what_is_missing() {
    if !may_load_probes("who_is_not_root_is_told_what_is_missing") {
        return;
    }
    // A copy where everybody may read: a checkout need not be such a place.
    let directory = std::env::temp_dir().join(format!("schedscope-test-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a temporary directory");
    let binary = directory.join("schedscope");
    std::fs::copy(env!("CARGO_BIN_EXE_schedscope"), &binary).expect("a copy of the binary");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&directory, open).expect("chmod");
    let attempt = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        // Giving up the user id gives up the capabilities.
        command
            .args(arguments)
            .uid(65534)
            .gid(65534)
            .current_dir("/");
        Running::start(command).finish(PATIENCE)
    };
    let own = std::process::id().to_string();
    let attach = attempt(&["attach", &own, "--duration", "1s"]);
    let command = attempt(&["attach", "--", "true"]);
    let service = attempt(&["run", "--listen", "127.0.0.1:0"]);
    let check = attempt(&["check"]);
    std::fs::remove_dir_all(&directory).expect("the temporary directory goes away");
    attach.expect_error(3, &["CAP_BPF"]);
    command.expect_error(3, &["CAP_BPF"]);
    service.expect_error(3, &["CAP_BPF"]);
    check.expect_code(3);
    assert!(check.stdout.contains("CAP_BPF"), "{check:?}");
}

#[test]
fn check_finds_all_that_the_main_job_needs() {
    if !may_load_probes("check_finds_all_that_the_main_job_needs") {
        return;
    }
    let outcome = run(["check"]);
    outcome.expect_code(0);
    assert_eq!(outcome.stderr, "");
    for word in ["/sys/kernel/btf/vmlinux", "tracepoint sched_switch"] {
        assert!(
            outcome.stdout.contains(word),
            "'{word}' expected: {outcome:?}"
        );
    }
    let outcome = run(["check", "--output", "json"]);
    outcome.expect_code(0);
    assert!(outcome.json().is_object(), "{outcome:?}");
}

#[test]
fn wrong_usage_is_refused_before_anything_is_attached() {
    for arguments in [
        &["attach"][..],
        &["attach", "1", "--duration", "soon"],
        &["attach", "1", "--ring-records", "1000"],
        &["attach", "no-number"],
        &["no-such-command"],
        &["run", "--no-such-flag"],
    ] {
        let outcome = run(arguments);
        outcome.expect_code(2);
        assert_eq!(outcome.stdout, "", "{arguments:?}: {outcome:?}");
        assert_ne!(outcome.stderr, "", "{arguments:?}");
    }
}

#[test]
fn a_recorded_storm_is_reported_byte_by_byte_as_it_was_live() {
    if !may_load_probes("a_recorded_storm_is_reported_byte_by_byte_as_it_was_live") {
        return;
    }
    let file = scratch_file("storm.sched");
    let path = file
        .to_str()
        .expect("the scratch directory has a plain name");
    let storm = Workload::start("storm", &["--duration", "20s"]).expect("no special needs");
    let pid = storm.pid().to_string();
    let live = run(["record", "-o", path, "-d", "3s", "--output", "json", &pid]);
    live.expect_code(0);
    let report = live.json();
    common::books::check(&report);
    let bytes = std::fs::metadata(&file).expect("it was recorded").len();
    let events: u64 = number(&report["loss"]["events"]);
    assert!(events > 300_000, "no storm: {events} in 3 s");
    assert!(bytes < 8 * events, "{bytes} bytes for {events} records");
    let replayed = run(["report", path, "--output", "json"]);
    replayed.expect_code(0);
    assert!(
        replayed.stdout == live.stdout,
        "a recording says something else: {path}"
    );
    // Whoever else was there can be asked for, too.
    let host = run(["report", path, "--host", "--output", "json"]);
    host.expect_code(0);
    common::books::check(&host.json());
    std::fs::remove_file(&file).expect("it was recorded");
}

#[test]
fn what_is_exported_at_the_end_is_what_was_reported() {
    if !may_load_probes("what_is_exported_at_the_end_is_what_was_reported") {
        return;
    }
    let directory = scratch_file("exports");
    std::fs::create_dir(&directory).expect("the scratch directory can be written");
    let to = |format: &str| format!("{format}={}", directory.join(format).display());
    let work = Workload::start("pingpong", &["--duration", "20s"]).expect("no special needs");
    let (json, csv, html) = (to("json"), to("csv"), to("html"));
    let pid = work.pid().to_string();
    let mut arguments = vec!["attach", &pid, "-d", "1s", "--output", "json"];
    for export in [&json, &csv, &html] {
        arguments.extend(["--export", export]);
    }
    let outcome = run(arguments);
    outcome.expect_code(0);
    let read =
        |format: &str| std::fs::read_to_string(directory.join(format)).expect("it was exported");
    assert!(
        read("json") == outcome.stdout,
        "an export says something else"
    );
    assert!(read("html").ends_with("</html>\n"));
    let csv = read("csv");
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("a head");
    let column = |name: &str| names.iter().position(|its| *its == name).expect("a column");
    let (state, duration) = (column("state"), column("duration_ns"));
    let running: u64 = lines
        .filter(|row| row[state] == "running")
        .map(|row| row[duration].parse::<u64>().expect("a number"))
        .sum();
    let report = outcome.json();
    assert_eq!(
        running,
        number::<u64>(&report["total"]["time_ns"]["running"])
    );
    let left: Vec<_> = std::fs::read_dir(&directory)
        .expect("it is there")
        .collect();
    assert_eq!(left.len(), 3, "the recording is gone: {left:?}");
    std::fs::remove_dir_all(&directory).expect("it was just written");
    let nowhere = "html=/nowhere/at/all.html";
    run(["attach", &pid, "--export", nowhere])
        .expect_error(2, &["/nowhere/at/all.html", "--export"]);
}

#[test]
fn a_recorder_that_was_killed_leaves_what_it_wrote() {
    if !may_load_probes("a_recorder_that_was_killed_leaves_what_it_wrote") {
        return;
    }
    let file = scratch_file("killed.sched");
    let path = file
        .to_str()
        .expect("the scratch directory has a plain name");
    let storm = Workload::start("pingpong", &["--duration", "20s"]).expect("no special needs");
    let pid = storm.pid().to_string();
    let mut recorder = Running::start(schedscope(["record", "-o", path, &pid]));
    recorder.wait_until_it_measures();
    thread::sleep(Duration::from_secs(3));
    recorder.signal(Signal::KILL);
    recorder.finish(PATIENCE);
    let report = run(["report", path, "--output", "json"]);
    report.expect_code(5);
    assert!(report.stderr.contains("was not ended"), "{report:?}");
    let report = report.json();
    common::books::check(&report);
    let length: u64 = number(&report["window"]["duration_ns"]);
    assert!(
        length > 1_000_000_000,
        "all but the last second: {length} ns"
    );
    std::fs::remove_file(&file).expect("it was recorded");
}

#[test]
fn a_full_disk_ends_a_recording_cleanly() {
    if !may_load_probes("a_full_disk_ends_a_recording_cleanly") {
        return;
    }
    let disk = scratch_file("full-disk");
    std::fs::create_dir(&disk).expect("the scratch directory can be written");
    let disk = disk
        .to_str()
        .expect("the scratch directory has a plain name");
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none", disk])
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        common::not_run(
            "a_full_disk_ends_a_recording_cleanly",
            "no tmpfs can be mounted",
        );
        return;
    }
    let path = format!("{disk}/full.sched");
    let storm = Workload::start("storm", &["--duration", "20s"]).expect("no special needs");
    let pid = storm.pid().to_string();
    let outcome = run(["record", "-o", &path, "-d", "15s", &pid]);
    let report = run(["report", &path, "--output", "json"]);
    let unmounted = Command::new("umount").arg(disk).status();
    assert!(unmounted.is_ok_and(|status| status.success()), "{disk}");
    std::fs::remove_dir(disk).expect("it is empty");
    outcome.expect_error(1, &["No space left", "full.sched"]);
    report.expect_code(0);
    common::books::check(&report.json());
}
