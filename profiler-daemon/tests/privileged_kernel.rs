//! What depends on the kernel and on the machine: what is there, many CPUs, CPUs that go and come, and clocks
//! that jump. `cargo xtask vm` runs this on other kernels, and on machines with more CPUs.
//!
//! Some of it would disturb whatever else a machine does; it is done only in a guest that is there for it.

mod common;
#[path = "kernel/extension.rs"]
mod extension;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::books::{assert_close, thread as row_by_id, time};
use common::oracle::{Schedstat, check_against_kernel, row_of, truth_of};
use common::schedscope::{Measured, may_load_probes, measure_command, measure_process, run};
use common::{Workload, figure, is_guest, not_run, number};
use extension::Extension;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::Value;

/// How this machine sleeps.
const SLEEP: &str = "/sys/power/mem_sleep";

/// CPUs of this machine.
const CPUS: &str = "/sys/devices/system/cpu";

/// So long before and after a window the kernel's account is sampled: it takes a while to begin and to end where
/// others want the CPU.
const AROUND: Duration = Duration::from_millis(600);

/// As long as the kernel's account of a running thread may be old, at both ends of a window together: a tick at 250
/// Hz, and a slice. An emulated machine has its ticks when the one that it is on has time for it.
fn ticks_ns() -> u64 {
    if is_guest() { 60_000_000 } else { 12_000_000 }
}

/// Whether this may be done here: it disturbs all others on the machine.
fn may_disturb(test: &str) -> bool {
    if !may_load_probes(test) {
        return false;
    }
    if !is_guest() {
        not_run(
            test,
            "it disturbs the machine; `cargo xtask vm` does it in a guest",
        );
    }
    is_guest()
}

#[test]
fn this_kernel_has_what_is_needed() {
    if !may_load_probes("this_kernel_has_what_is_needed") {
        return;
    }
    let outcome = run(["check", "--output", "json"]);
    outcome.expect_code(0);
    let check = outcome.json();
    assert_eq!(check["able"], true, "{check}");
    let rows = check["rows"].as_array().expect("a list of rows");
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let trial = rows.iter().find(|row| row["topic"] == "trial");
    let trial = trial.expect("the probes are tried");
    assert_eq!(trial["state"], "ok", "{check}");
    figure(&text(trial, "found"));
    let lacking = rows.iter().filter(|row| row["state"] != "ok");
    for row in lacking {
        figure(&format!(
            "lacks {}: {}; {}",
            text(row, "name"),
            text(row, "found"),
            text(row, "consequence")
        ));
    }
}

/// Three threads that compute on one CPU get as much as the kernel says.
#[test]
fn spinners_share_a_cpu_as_the_kernel_counts() {
    if !may_load_probes("spinners_share_a_cpu_as_the_kernel_counts") {
        return;
    }
    let workload = Workload::start("spin", &["--duration", "90s"]).expect("no special needs");
    let members = ["spinner-0", "spinner-1", "spinner-2"].map(|name| workload.member(name));
    let oracle = Schedstat::watch(&members);
    thread::sleep(AROUND);
    let report = measure_process(workload.pid(), &["--duration", "3s"]);
    thread::sleep(AROUND);
    let accounts = oracle.within(&report);
    let window_ns: u64 = number(&report["window"]["duration_ns"]);
    for (_, tid) in members {
        let (row, account) = (row_by_id(&report, tid), accounts[&tid]);
        figure(&format!(
            "running {:.1} of {:.0} ms, by the kernel {:.1}; queued {:.1}; unknown {:.1}",
            ms(time(row, "running")),
            ms(window_ns),
            ms(account.run),
            ms(time(row, "runnable")),
            ms(time(row, "unknown")),
        ));
        let allowed = ticks_ns() + time(row, "unknown");
        assert_close("running", time(row, "running"), account.run, 0.01, allowed);
        assert_eq!(time(row, "blocked"), 0, "it waits for nothing: {row}");
        assert_eq!(number::<u64>(&row["observed_ns"]), window_ns, "{row}");
    }
    assert_eq!(report["loss"]["dropped"], 0, "{}", report["loss"]);
}

/// A thread with a fifth of a CPU as its quota: what it waits for a CPU is what the kernel says, and what of that is
/// the quota's is not more than its cgroup counted. The cgroup counts for each CPU, so for all of its threads together
/// there is as much.
#[test]
fn a_quota_is_told_from_the_rest() {
    let test = "a_quota_is_told_from_the_rest";
    if !may_load_probes(test) {
        return;
    }
    let measured = match measure_command(&[], "quota", &["--duration", "4s"]) {
        Ok(measured) => measured,
        Err(reason) => return not_run(test, &reason),
    };
    let truth = truth_of(&measured.truth, "limited");
    check_against_kernel(&measured.report, truth);
    let row = row_of(&measured.report, truth);
    let of = |cause: &str| number::<u64>(&row["runnable_ns"][cause]);
    let counted: u64 = number(&measured.truth["facts"]["throttled_ns"]);
    figure(&format!(
        "throttled {:.1} ms, by cpu.stat {:.1}; contended {:.1}, placement {:.1}, unknown {:.1}",
        ms(of("throttled")),
        ms(counted),
        ms(of("contended")),
        ms(of("placement")),
        ms(of("unknown")),
    ));
    // Its program's first thread is in the group, too, mostly on another CPU, and is held back there whenever it wants
    // to run.
    let whole: u64 = number(&measured.report["total"]["runnable_ns"]["throttled"]);
    figure(&format!(
        "throttled, all threads of the group: {:.1} ms, by cpu.stat {:.1}",
        ms(whole),
        ms(counted)
    ));
    let most = counted + counted / 100 * 3;
    assert!(of("throttled") <= most, "{row} in {}", measured.truth);
    let unknown = of("unknown") + time(row, "unknown");
    // Before Linux 6.6 a group's time without quota on a CPU counts there even if no thread of it wants that CPU.
    let least = if is_older_than(6, 6) { 90 } else { 97 };
    assert!(
        whole + unknown >= counted / 100 * least,
        "{} in {}",
        measured.report["total"],
        measured.truth
    );
}

/// Pairs on every CPU, and all of the host's threads in one report.
#[test]
fn the_whole_host_is_accounted_for() {
    if !may_load_probes("the_whole_host_is_accounted_for") {
        return;
    }
    let cpus = online().len();
    let mut arguments = vec!["--duration", "1200s", "--threads", "1"];
    if is_guest() && cpus > 4 {
        // One CPU does the work of them all, and would do nothing else.
        arguments.extend(["--period", "20ms"]);
    }
    let workload = Workload::start("storm", &arguments).expect("no special needs");
    let members: Vec<(u32, u32)> = workload.ready["threads"]
        .as_array()
        .expect("a list of threads")
        .iter()
        .map(|member| (number(&member["pid"]), number(&member["tid"])))
        .collect();
    let oracle = Schedstat::watch(&members);
    thread::sleep(AROUND);
    let start = Instant::now();
    let outcome = run(["top", "--duration", "2s", "--output", "json"]);
    let took = start.elapsed();
    thread::sleep(AROUND);
    outcome.expect_code(0);
    let report = outcome.json();
    common::books::check(&report);
    let accounts = oracle.within(&report);
    let window_ns: u64 = number(&report["window"]["duration_ns"]);
    let running = time(&report["total"], "running");
    assert!(
        running <= window_ns * cpus as u64,
        "{running} ns on {cpus} CPUs in {window_ns} ns"
    );
    let (mut ours, mut kernels) = (0, 0);
    for (_, tid) in &members {
        let row = row_by_id(&report, *tid);
        let observed: u64 = number(&row["observed_ns"]);
        assert_eq!(observed, window_ns, "it was there all the time: {row}");
        let account = accounts[tid];
        let allowed = ticks_ns() + time(row, "unknown");
        assert_close("running", time(row, "running"), account.run, 0.01, allowed);
        ours += time(row, "running");
        kernels += account.run;
    }
    // What ends do to each of them evens out over all.
    let allowed = ticks_ns() + time(&report["total"], "unknown");
    assert_close("running, together", ours, kernels, 0.01, allowed);
    let loss = &report["loss"];
    if is_guest() {
        assert_eq!(loss["dropped"], 0, "{loss}");
    }
    figure(&format!(
        "{cpus} CPUs, {} threads of {}: running {:.1} ms, by the kernel {:.1} ms; {} events, {} lost; \
         {:.1} s for a window of {:.1} s",
        members.len(),
        report["threads"].as_array().map_or(0, Vec::len),
        ms(ours),
        ms(kernels),
        loss["events"],
        loss["dropped"],
        took.as_secs_f64(),
        window_ns as f64 / 1e9,
    ));
}

/// Threads that are bound to a CPU stay there, and where the kernel keeps all others off a CPU, the one that is
/// bound to it has it for itself.
#[test]
fn threads_stay_on_the_cpus_that_they_may_use() {
    if !may_load_probes("threads_stay_on_the_cpus_that_they_may_use") {
        return;
    }
    let cpus = online();
    let last = *cpus.last().expect("there is a CPU");
    let isolated = fs::read_to_string(format!("{CPUS}/isolated")).unwrap_or_default();
    let is_isolated = list(&isolated).contains(&last);
    let cpu = last.to_string();
    let threads = if is_isolated { "1" } else { "2" };
    let arguments = ["--duration", "120s", "--threads", threads, "--cpu", &cpu];
    let workload = Workload::start("spin", &arguments).expect("no special needs");
    let member = workload.member("spinner-0");
    let oracle = Schedstat::watch(&[member]);
    thread::sleep(AROUND);
    let report = measure_process(workload.pid(), &["--duration", "2s"]);
    // On a CPU without ticks the kernel brings its account up to date once a second.
    thread::sleep(Duration::from_millis(1_500));
    let account = oracle.within(&report)[&member.1];
    let row = row_by_id(&report, member.1);
    let window_ns: u64 = number(&report["window"]["duration_ns"]);
    assert_eq!(row["migrations"], 0, "it is bound to its CPU: {row}");
    if is_isolated {
        let unknown = time(row, "unknown");
        assert_close("running", time(row, "running"), window_ns, 0.01, unknown);
        assert_eq!(row["switches"]["voluntary"], 0, "{row}");
    } else {
        let allowed = ticks_ns() + time(row, "unknown");
        assert_close("running", time(row, "running"), account.run, 0.01, allowed);
    }
    figure(&format!(
        "CPU {last}{}: running {:.1} of {:.1} ms, by the kernel {:.1} ms, no migration",
        if is_isolated {
            " (isolated, without ticks)"
        } else {
            ""
        },
        ms(time(row, "running")),
        ms(window_ns),
        ms(account.run),
    ));
}

/// CPUs are taken away and given back while pairs of threads pass a turn on each of them.
#[test]
fn cpus_that_go_and_come_lose_nothing() {
    let test = "cpus_that_go_and_come_lose_nothing";
    if !may_disturb(test) {
        return;
    }
    let before = online();
    let switches: Vec<PathBuf> = before
        .iter()
        .rev()
        .map(|cpu| Path::new(CPUS).join(format!("cpu{cpu}/online")))
        .filter(|file| file.exists())
        // One has to stay. On x86-64 the first can't be taken away; on arm64 it can.
        .take(2.min(before.len().saturating_sub(1)))
        .collect();
    if before.len() < 2 || switches.is_empty() {
        return not_run(test, "no CPU here can be taken away");
    }
    let arguments = ["--duration", "6s", "--threads", "1"];
    let (measured, rounds) = meanwhile(
        || measure_command(&[], "storm", &arguments),
        || {
            thread::sleep(Duration::from_secs(1));
            let start = Instant::now();
            let mut rounds = 0;
            while start.elapsed() < Duration::from_secs(4) && rounds < 3 {
                for state in ["0", "1"] {
                    for file in &switches {
                        fs::write(file, state).expect("a CPU can be switched off and on");
                    }
                    let expected = before.len() - usize::from(state == "0") * switches.len();
                    assert_eq!(online().len(), expected);
                    thread::sleep(Duration::from_millis(200));
                }
                rounds += 1;
            }
            rounds
        },
    );
    let measured = measured.expect("no special needs");
    assert!(rounds > 0, "no CPU went and came");
    check_undisturbed(&measured);
    figure(&format!(
        "{} of {} CPUs off and on {rounds} times; {}",
        switches.len(),
        before.len(),
        losses(&measured.report)
    ));
}

/// Another scheduler than the kernel's own has the threads. It picks others and for other times, and what it did is in
/// the same records, and in the same books.
#[test]
fn a_scheduler_of_sched_ext_is_counted_as_the_kernel_counts() {
    let test = "a_scheduler_of_sched_ext_is_counted_as_the_kernel_counts";
    if !may_disturb(test) {
        return;
    }
    let extension = match Extension::load() {
        Ok(extension) => extension,
        Err(reason) => return not_run(test, &reason),
    };
    for (workload, arguments) in [
        ("spin", ["--duration", "3s", "--threads", "3"]),
        ("storm", ["--duration", "2s", "--threads", "1"]),
        ("sleep-loop", ["--duration", "2s", "--period", "10ms"]),
    ] {
        let own = fs::read_to_string("/proc/self/sched").expect("the kernel tells of schedulers");
        let has = |line: &str| line.starts_with("ext.enabled") && line.ends_with(" 1");
        assert!(own.lines().any(has), "it has this test's thread: {own}");
        let measured = measure_command(&[], workload, &arguments).expect("no special needs");
        Extension::check();
        check_undisturbed(&measured);
        figure(&format!("{workload}: {}", losses(&measured.report)));
    }
    drop(extension);
    assert_eq!(Extension::state(), "disabled", "it is gone again");
}

/// The wall clock is set an hour ahead and two hours back, and no figure knows.
#[test]
fn a_step_of_the_clock_changes_no_figure() {
    let test = "a_step_of_the_clock_changes_no_figure";
    if !may_disturb(test) {
        return;
    }
    let (measured, ()) = meanwhile(
        || measure_command(&[], "sleep-loop", &["--duration", "4s"]),
        || {
            for seconds in [3_600, -7_200, 3_600] {
                thread::sleep(Duration::from_secs(1));
                let now = clock_gettime(ClockId::Realtime);
                let stepped = Timespec {
                    tv_sec: now.tv_sec + seconds,
                    ..now
                };
                clock_settime(ClockId::Realtime, stepped).expect("root may set the clock");
            }
        },
    );
    let measured = measured.expect("no special needs");
    check_undisturbed(&measured);
    let window_ns: u64 = number(&measured.report["window"]["duration_ns"]);
    assert!(
        (4_000_000_000..40_000_000_000).contains(&window_ns),
        "a window of {window_ns} ns around 4 s"
    );
    figure(&format!(
        "+1 h, -2 h, +1 h in a window of {:.1} s; {}",
        window_ns as f64 / 1e9,
        losses(&measured.report)
    ));
}

/// The machine sleeps for some seconds while it is measured. The scheduler's clock and `CLOCK_MONOTONIC` stand still
/// then, so nobody ran, waited or slept meanwhile.
#[test]
fn time_asleep_is_nobodys() {
    let test = "time_asleep_is_nobodys";
    if !may_disturb(test) {
        return;
    }
    let modes = fs::read_to_string(SLEEP).unwrap_or_default();
    let alarm = Path::new("/sys/class/rtc/rtc0/wakealarm");
    if !modes.contains("deep") || !alarm.exists() {
        return not_run(test, "it can't sleep, or nothing could wake it");
    }
    // What "boot time" counts and CLOCK_MONOTONIC does not.
    let asleep_ns = || {
        let ns = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec * 1_000_000_000 + time.tv_nsec
        };
        ns(ClockId::Boottime) - ns(ClockId::Monotonic)
    };
    let (measured, slept_ns) = meanwhile(
        || measure_command(&[], "sleep-loop", &["--duration", "4s"]),
        || {
            thread::sleep(Duration::from_secs(1));
            // The other mode has no alarm that wakes an emulated machine.
            fs::write(SLEEP, "deep").expect("the mode was listed");
            fs::write(alarm, "+5").expect("the alarm can be set");
            let before = asleep_ns();
            fs::write("/sys/power/state", "mem").expect("it can sleep");
            asleep_ns() - before
        },
    );
    let measured = measured.expect("no special needs");
    assert!(slept_ns > 1_000_000_000, "it slept for {slept_ns} ns only");
    check_undisturbed(&measured);
    figure(&format!(
        "asleep for {:.1} s; {}",
        slept_ns as f64 / 1e9,
        losses(&measured.report)
    ));
}

/// Does both at once.
fn meanwhile<A, B: Send>(first: impl FnOnce() -> A, second: impl FnOnce() -> B + Send) -> (A, B) {
    thread::scope(|scope| {
        let second = scope.spawn(second);
        let first = first();
        (first, second.join().expect("what was done meanwhile"))
    })
}

/// Nothing was lost, and each thread of the workload has what the kernel counted for it.
#[track_caller]
fn check_undisturbed(measured: &Measured) {
    let report = &measured.report;
    assert_eq!(report["loss"]["dropped"], 0, "{}", report["loss"]);
    let threads = measured.truth["threads"].as_array();
    for truth in threads.expect("a list of threads") {
        check_against_kernel(report, truth);
    }
}

/// What was lost and what is unknown, for the table.
fn losses(report: &Value) -> String {
    format!(
        "{} events, {} lost, {} out of order, {:.3} ms unknown, conflicts {}",
        report["loss"]["events"],
        report["loss"]["dropped"],
        report["loss"]["inverted"],
        ms(time(&report["total"], "unknown")),
        report["conflicts"]
    )
}

/// Whether the kernel's version is below this one.
fn is_older_than(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).expect("two numbers");
    (next(), next()) < (major, minor)
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The CPUs that are there and switched on.
fn online() -> Vec<usize> {
    list(&fs::read_to_string(format!("{CPUS}/online")).expect("sysfs is mounted"))
}

/// `0-2,5` as numbers.
fn list(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bound = |text: &str| text.parse::<usize>().expect("a list of CPUs");
        cpus.extend(bound(first)..=bound(last));
    }
    cpus
}
