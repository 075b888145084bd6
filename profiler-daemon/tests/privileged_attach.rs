//! `schedscope attach`, for real, against programs whose truth is known.
//!
//! The truth is the programs' own stopwatches and the kernel's own accounts of the same time, so
//! that a busy machine changes both sides alike. Tolerances are 2% of a program's figures and 1% of
//! the kernel's; the constants beside them are the moments of a thread's life outside of its loop.

mod common;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use common::books::{assert_close, named, thread as row_by_id, time};
use common::oracle::{Account, Schedstat, check_against_kernel, row_of, truth_of};
use common::schedscope::{may_load_probes, measure_command, measure_process, settled, try_settled};
use common::{Workload, figure, number};
use serde_json::Value;

/// From the moment that a thread is stopped to that at which the one that stops it knows.
const SETTLING_NS: u64 = 1_000_000;

/// As long as the kernel's account of a running thread may be old (a tick at 250 Hz), at both ends
/// of a window, and a slice.
const TICKS_NS: u64 = 12_000_000;

/// What a spinner did in a window agrees with the kernel's account of that window.
///
/// The kernel books a run-queue delay when it ends, so over a window its figure may be wrong by what
/// is pending at each end; a spinner's is known better, as all the time in which it does not run.
#[track_caller]
fn check_spinner(row: &Value, account: Account, window_ns: u64) {
    assert_eq!(number::<u64>(&row["observed_ns"]), window_ns, "{row}");
    let unknown = time(row, "unknown");
    assert!(unknown <= window_ns / 20, "{row}");
    let allowed = TICKS_NS + unknown;
    figure(&format!(
        "running {:.2}% of {:.0} ms, by the kernel {:.2}%",
        100.0 * time(row, "running") as f64 / window_ns as f64,
        window_ns as f64 / 1e6,
        100.0 * account.run as f64 / window_ns as f64,
    ));
    assert_close("running", time(row, "running"), account.run, 0.01, allowed);
    let not_running = window_ns - account.run;
    assert_close(
        "runnable",
        time(row, "runnable"),
        not_running,
        0.01,
        allowed,
    );
    let longest: u64 = number(&row["offcpu"]["max_ns"]);
    let pending = 2 * longest + unknown;
    assert_close(
        "schedstat",
        time(row, "runnable"),
        account.delay,
        0.01,
        pending,
    );
    assert_eq!(
        time(row, "blocked"),
        0,
        "a spinner waits for nothing: {row}"
    );
}

#[test]
fn three_spinners_on_one_cpu_get_a_third_each() {
    if !may_load_probes("three_spinners_on_one_cpu_get_a_third_each") {
        return;
    }
    // Another program on that CPU takes its own share, so a third is a third of what the three got;
    // it is a third of the time, too, where they got nearly all of it. Three attempts to see that.
    for attempt in 1..=3 {
        let workload = Workload::start("spin", &["--duration", "20s"]).expect("no special needs");
        let members = ["spinner-0", "spinner-1", "spinner-2"].map(|name| workload.member(name));
        let (report, accounts) = window_of(&workload, &members, "3s");
        let window_ns: u64 = number(&report["window"]["duration_ns"]);
        let rows = members.map(|(_, tid)| row_by_id(&report, tid));
        let together: u64 = rows.iter().map(|row| time(row, "running")).sum();
        for (row, (_, tid)) in rows.iter().zip(members) {
            check_spinner(row, accounts[&tid], window_ns);
            let of_third = time(row, "running").abs_diff(together / 3);
            assert!(
                of_third <= window_ns / 50,
                "a third of what the three got, {together} ns: {row}"
            );
        }
        if together >= window_ns / 100 * 98 {
            let third = window_ns / 3;
            for row in rows {
                assert_close("running", time(row, "running"), third, 0.02, 0);
                let queued = time(row, "runnable");
                assert_close("runnable", queued, window_ns - third, 0.02, 0);
            }
            return;
        }
        println!("attempt {attempt}: others took part of the CPU, the three got {together} ns");
    }
}

/// Measures a running workload for some time; the report and the kernel's account of its window.
#[track_caller]
fn window_of(
    workload: &Workload,
    threads: &[(u32, u32)],
    duration: &str,
) -> (Value, BTreeMap<u32, Account>) {
    let oracle = Schedstat::watch(threads);
    thread::sleep(Duration::from_millis(50));
    let report = measure_process(workload.pid(), &["--duration", duration]);
    thread::sleep(Duration::from_millis(50));
    let accounts = oracle.within(&report);
    (report, accounts)
}

#[test]
fn a_sleeper_is_blocked() {
    if !may_load_probes("a_sleeper_is_blocked") {
        return;
    }
    let measured = settled(|| measure_command(&[], "sleep-loop", &["--duration", "2s"]));
    let truth = truth_of(&measured.truth, "sleeper");
    let row = row_of(&measured.report, truth);
    check_against_kernel(&measured.report, truth);
    check_waits(truth, row);
    let waits: u64 = number(&truth["waits"]);
    let off: u64 = number(&row["offcpu"]["count"]);
    assert!(off >= waits, "{waits} sleeps, each off the CPU: {row}");
}

/// Blocked time is what the thread timed, and its longest off-CPU time its longest wait, within 2%. Returns what of
/// the thread's time may lie outside of its waits.
#[track_caller]
fn check_waits(truth: &Value, row: &Value) -> u64 {
    let Account { head, tail, .. } = Account::of_life(truth, row);
    // Whoever queues for a CPU before the wait comes late to it.
    let outside = head + tail + time(row, "unknown") + time(row, "runnable");
    // What it timed is the wait, and the wait for a CPU after it.
    let delay = number::<u64>(&truth["after"]["schedstat_delay_ns"])
        - number::<u64>(&truth["before"]["schedstat_delay_ns"]);
    let waited = number::<u64>(&truth["waited_ns"]).saturating_sub(delay);
    assert_close("blocked", time(row, "blocked"), waited, 0.02, outside);
    let longest: u64 = number(&truth["longest_ns"]);
    let max: u64 = number(&row["offcpu"]["max_ns"]);
    assert_close("longest off-CPU time", max, longest, 0.02, outside);
    outside
}

#[test]
fn the_time_that_a_mutex_is_held_is_blocked_time_of_the_waiter() {
    if !may_load_probes("the_time_that_a_mutex_is_held_is_blocked_time_of_the_waiter") {
        return;
    }
    let measured = settled(|| measure_command(&[], "mutex", &["--duration", "2s"]));
    let (holder, waiter) = (
        truth_of(&measured.truth, "holder"),
        truth_of(&measured.truth, "waiter"),
    );
    check_against_kernel(&measured.report, holder);
    check_against_kernel(&measured.report, waiter);
    let row = row_of(&measured.report, waiter);
    let outside = check_waits(waiter, row);
    // As long as it was held; longer, if the wakeup takes its time to get to the other CPU, as where that is emulated.
    let held: u64 = number(&holder["facts"]["held_ns"]);
    let blocked = time(row, "blocked") + outside;
    assert!(blocked >= held / 100 * 98, "held for {held} ns: {row}");
}

#[test]
fn run_time_and_run_queue_delay_agree_with_schedstat() {
    if !may_load_probes("run_time_and_run_queue_delay_agree_with_schedstat") {
        return;
    }
    // A storm on one CPU, two threads that yield to each other, and a mix of all.
    for (workload, arguments) in [
        ("pingpong", &["--cpu", "0", "--threads", "2"][..]),
        ("yield", &["--cpu", "0"]),
        ("tcp-recv", &["--period", "1ms"]),
    ] {
        let arguments = [&["--duration", "1s"], arguments].concat();
        let measured = settled(|| measure_command(&[], workload, &arguments));
        for truth in measured.truth["threads"].as_array().expect("threads") {
            check_against_kernel(&measured.report, truth);
        }
    }
}

#[test]
fn a_window_on_a_running_process_agrees_with_schedstat() {
    if !may_load_probes("a_window_on_a_running_process_agrees_with_schedstat") {
        return;
    }
    let workload = Workload::start("hog", &["--duration", "20s"]).expect("no special needs");
    let victim = workload.member("victim");
    let (report, accounts) = window_of(&workload, &[victim], "2s");
    let window_ns: u64 = number(&report["window"]["duration_ns"]);
    check_spinner(row_by_id(&report, victim.1), accounts[&victim.1], window_ns);
    assert!(
        named(&report, "hog").is_empty(),
        "the hog is another process, and not asked for"
    );
    // The others were there before and after: they have the whole window.
    assert_close("the window", window_ns, 2_000_000_000, 0.0, 50_000_000);
    for row in report["threads"].as_array().expect("threads") {
        assert_eq!(number::<u64>(&row["observed_ns"]), window_ns, "{row}");
    }
}

#[test]
fn one_thread_can_be_measured_alone() {
    if !may_load_probes("one_thread_can_be_measured_alone") {
        return;
    }
    let workload = Workload::start("mutex", &["--duration", "20s"]).expect("no special needs");
    let (_, tid) = workload.member("waiter");
    let tid = tid.to_string();
    let outcome = common::schedscope::run([
        "attach",
        "--tid",
        &tid,
        "--duration",
        "300ms",
        "--output",
        "json",
    ]);
    outcome.expect_code(0);
    let report = outcome.json();
    common::books::check(&report);
    assert_eq!(report["target"]["kind"], "tid");
    let threads = report["threads"].as_array().expect("threads");
    assert_eq!(threads.len(), 1, "{report}");
    assert_eq!(threads[0]["comm"], "waiter");
}

/// Rings too small for the storm: losses are counted, and never become a delay.
#[test]
fn tiny_rings_lose_records_but_invent_no_delay() {
    if !may_load_probes("tiny_rings_lose_records_but_invent_no_delay") {
        return;
    }
    let workload = Workload::start("storm", &["--duration", "4s"]).expect("no special needs");
    let members = workload.ready["threads"]
        .as_array()
        .expect("threads")
        .clone();
    let report = measure_process(
        workload.pid(),
        &["--duration", "2s", "--ring-records", "64"],
    );
    let truth = workload.finish();
    let dropped: u64 = number(&report["loss"]["dropped"]);
    let events: u64 = number(&report["loss"]["events"]);
    assert!(
        dropped > 0,
        "rings of 64 records must overflow: {}",
        report["loss"]
    );
    assert!(events > 0, "{}", report["loss"]);
    figure(&format!("{events} events, {dropped} lost and counted"));
    let unknown = time(&report["total"], "unknown");
    assert!(unknown > 0, "what was lost is unknown: {}", report["total"]);
    for member in members {
        let name = member["name"].as_str().expect("a name");
        let row = row_by_id(&report, number(&member["tid"]));
        let longest: u64 = number(&truth_of(&truth, name)["facts"]["longest_round_ns"]);
        for spans in ["runqueue_delay", "offcpu"] {
            let max: u64 = number(&row[spans]["max_ns"]);
            // The two clocks may drift apart by some parts in a million.
            assert!(
                max <= longest + longest / 1000 + 1000,
                "{spans} of {name}: {max} ns, though no round took longer than {longest} ns"
            );
        }
    }
}

/// A storm that rings of this size can't hold: threads are left out, which is told, and all come back.
#[test]
fn what_is_too_fast_is_shed_by_whole_threads_until_it_is_over() {
    if !may_load_probes("what_is_too_fast_is_shed_by_whole_threads_until_it_is_over") {
        return;
    }
    let storm = thread::spawn(|| {
        thread::sleep(Duration::from_millis(500));
        let options = ["--duration", "1500ms", "--threads", "8"];
        let workload = Workload::start("storm", &options).expect("no special needs");
        workload.finish()
    });
    // This process hardly does anything; what matters is the host.
    let report = measure_process(
        std::process::id(),
        &["--duration", "9s", "--ring-records", "64"],
    );
    storm.join().expect("the storm ends");
    let shed = &report["loss"]["shed"];
    let fraction = |name: &str| shed[name].as_f64().unwrap_or_default();
    let least = fraction("least_kept");
    assert!((0.0005..=0.5).contains(&least), "{}", report["loss"]);
    assert!(number::<u64>(&shed["events_by"]["switch"]) > 0, "{shed}");
    assert!(fraction("kept") > 0.99, "all are followed again: {shed}");
    let lasted_ns: u64 = number(&shed["duration_ns"]);
    let window_ns: u64 = number(&report["window"]["duration_ns"]);
    assert!((1..window_ns).contains(&lasted_ns), "{shed}");
    let total = &report["total"];
    let unknown_ns = time(total, "unknown");
    let shed_ns = total["unknown_shed_ns"].as_u64().unwrap_or(0);
    assert!(shed_ns <= unknown_ns, "{total}");
}

/// Where others want the CPUs, too, the drain may come too late: three attempts.
#[test]
fn default_rings_lose_nothing_in_a_storm() {
    if !may_load_probes("default_rings_lose_nothing_in_a_storm") {
        return;
    }
    let attempt = || settled(|| measure_command(&[], "storm", &["--duration", "1s"]));
    let mut measured = attempt();
    for _ in 1..3 {
        if measured.report["loss"]["dropped"] == 0 {
            break;
        }
        println!(
            "again, since records were lost: {}",
            measured.report["loss"]
        );
        measured = attempt();
    }
    let loss = &measured.report["loss"];
    figure(&format!(
        "{} events, {} lost",
        loss["events"], loss["dropped"]
    ));
    assert_eq!(loss["dropped"], 0, "{loss}");
    for truth in measured.truth["threads"].as_array().expect("threads") {
        check_against_kernel(&measured.report, truth);
        let longest: u64 = number(&truth["facts"]["longest_round_ns"]);
        let row = row_of(&measured.report, truth);
        let account = Account::of_life(truth, row);
        // The whole life is measured here, with its wait for the others and its end.
        let max: u64 = number(&row["offcpu"]["max_ns"]);
        let limit = longest + account.head + account.tail + SETTLING_NS;
        assert!(max <= limit, "{max} > {longest}: {row}");
        let switches: u64 = number(&row["switches"]["voluntary"]);
        let by_kernel: u64 = number(&truth["after"]["voluntary"]);
        assert_close("voluntary switches", switches, by_kernel, 0.0, 10);
        let events: u64 = number(&loss["events"]);
        assert!(events >= switches, "each switch is a record");
    }
}

/// Waits whose kind the profiler tells already: sleeping, uninterruptible, stopped; all parts sum.
#[test]
fn every_kind_of_wait_is_blocked_time() {
    if !may_load_probes("every_kind_of_wait_is_blocked_time") {
        return;
    }
    for workload in [
        "condvar",
        "flock",
        "epoll",
        "poll",
        "select",
        "eventfd",
        "timerfd",
        "io-uring",
        "stuck",
        "pipe-read",
        "pipe-write",
        "unix-socket",
        "tcp-send",
        "tcp-accept",
        "tty",
        "disk-read",
        "fsync",
        "page-fault",
        "userfaultfd",
        "waitpid",
        "vfork",
    ] {
        let measured =
            match try_settled(|| measure_command(&[], workload, &["--duration", "400ms"])) {
                Ok(measured) => measured,
                Err(reason) => {
                    println!("{workload} is left out: {reason}");
                    continue;
                }
            };
        for truth in measured.truth["threads"].as_array().expect("threads") {
            if truth["expect"]["state"] != "blocked" {
                continue;
            }
            check_against_kernel(&measured.report, truth);
        }
    }
}

#[test]
fn stopped_time_is_blocked_time() {
    if !may_load_probes("stopped_time_is_blocked_time") {
        return;
    }
    for (workload, kind) in [("sigstop", "stopped"), ("ptrace", "stopped")] {
        let running = Workload::start(workload, &["--duration", "1s"]).expect("no special needs");
        let (pid, tid) = running.member("stoppee");
        // It ends with the workload, so the window is the rest of its life.
        let report = measure_process(pid, &["--duration", "700ms"]);
        let truth = running.finish();
        let row = row_by_id(&report, tid);
        let threads = truth["threads"].as_array().expect("threads");
        let stopped: u64 = threads
            .iter()
            .filter(|thread| thread["name"] != "stoppee")
            .map(|thread| number::<u64>(&thread["waited_ns"]))
            .sum();
        // Every stop lasts 50 ms at least; the window may cut the first, and has not all of them.
        let blocked = time(row, "blocked");
        let stops: u64 = number(&row["switches"]["voluntary"]);
        let at_least = stops.saturating_sub(1) * 50_000_000;
        let at_most = stopped + stopped / 50 + SETTLING_NS * stops;
        let unknown = time(row, "unknown");
        assert!(stops >= 2, "{workload}: {row}");
        assert!(
            blocked + unknown >= at_least && blocked <= at_most,
            "{workload}: {blocked} ns are not between {at_least} and {at_most}: {row}"
        );
        // The window may have the end of its life, in which it says what it knows.
        let right: u64 = number(&row["blocked_ns"][kind]);
        assert!(right >= blocked / 100 * 99, "{workload}: {row}");
    }
}
