//! Why threads waited, for real: programs that wait for one known thing, or for a known neighbour.
//!
//! The programs are measured in the midst of their loops, so that the waits of their beginnings and
//! ends, which they don't speak for, are left out. What the profiler calls unknown, since this machine
//! hides it from BPF, is counted and bounded but not held against the reasons.

mod common;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use common::books::{assert_close, named, thread as row_by_id, time};
use common::oracle::{Schedstat, truth_of};
use common::schedscope::{may_load_probes, measure_command, measure_process};
use common::service::{Samples, Service};
use common::softirqs::NetworkSoftirqs;
use common::{Workload, figure, not_run, number};
use schedscope::core::InterruptKind;
use serde_json::Value;

/// At least so much of a thread's blocked time has the right reason, in percent.
const RIGHT_PERCENT: u64 = 98;

/// Blocked time that says something, in nanoseconds: a fast disk makes waits short.
const ENOUGH_NS: u64 = 20_000_000;

/// Threads, by name, of the process of the workload's first thread that wait for one thing each.
type Expected = &'static [(&'static str, &'static str)];

/// A window on a running workload's first process, in which every thread is seen well enough.
///
/// Others may keep the machine so busy that the workload is over before it is measured, or that much
/// is unknown: three attempts, the second and third with more time.
fn window_on(
    workload: &str,
    arguments: &[&str],
    options: &[&str],
    expected: Expected,
) -> Result<Value, String> {
    let mut seen = Value::Null;
    for duration in ["2500ms", "4s", "4s"] {
        let arguments = [&["--duration", duration], arguments].concat();
        let running = Workload::start(workload, &arguments)?;
        let pid = number(&running.ready["threads"][0]["pid"]);
        let options = [&["--duration", "1s"], options].concat();
        let report = measure_process(pid, &options);
        running.finish();
        let is_seen = expected.iter().all(|(name, _)| {
            named(&report, name).first().is_some_and(|row| {
                let observed: u64 = number(&row["observed_ns"]);
                time(row, "blocked") >= ENOUGH_NS && time(row, "unknown") <= observed / 10
            })
        });
        if is_seen {
            return Ok(report);
        }
        println!("{workload}: again, since too little was seen of it");
        seen = report;
    }
    panic!("{workload}: three times too little was seen of {expected:?}: {seen}");
}

/// Fails unless a thread's blocked time has this reason.
#[track_caller]
fn check_reason(workload: &str, row: &Value, reason: &str) {
    let blocked = time(row, "blocked");
    let right = row["blocked_ns"].get(reason).map_or(0, number::<u64>);
    println!(
        "{workload}: {} waits for {reason}: {right} of {blocked} ns ({:.2}%)",
        row["comm"],
        right as f64 * 100.0 / blocked as f64
    );
    assert!(
        right >= blocked / 100 * RIGHT_PERCENT,
        "{workload}: {reason} expected for {blocked} ns: {} of {row}",
        row["blocked_ns"]
    );
}

/// Checks the reasons of a workload's threads.
fn check(workload: &str, arguments: &[&str], options: &[&str], expected: Expected) {
    if !may_load_probes(workload) {
        return;
    }
    let report = match window_on(workload, arguments, options, expected) {
        Ok(report) => report,
        Err(reason) => return not_run(workload, &reason),
    };
    for (name, reason) in expected {
        check_reason(workload, named(&report, name)[0], reason);
    }
}

/// Makes one test of each workload.
macro_rules! reasons {
    ($($test:ident: $workload:literal, $expected:expr;)*) => {
        $(
            #[test]
            fn $test() {
                check($workload, &[], &[], &$expected);
            }
        )*
    };
}

reasons! {
    a_mutex: "mutex", [("waiter", "lock"), ("holder", "sleep")];
    a_condition_variable: "condvar", [("waiter", "lock"), ("notifier", "sleep")];
    a_file_lock: "flock", [("waiter", "lock"), ("holder", "sleep")];
    epoll: "epoll", [("waiter", "event-wait"), ("waker", "sleep")];
    poll: "poll", [("waiter", "event-wait")];
    select: "select", [("waiter", "event-wait")];
    an_eventfd: "eventfd", [("waiter", "event-wait")];
    nanosleep: "sleep-loop", [("sleeper", "sleep")];
    a_timerfd: "timerfd", [("waiter", "sleep")];
    io_uring: "io-uring", [("waiter", "io-uring")];
    an_empty_pipe: "pipe-read", [("waiter", "pipe")];
    a_full_pipe: "pipe-write", [("waiter", "pipe")];
    a_unix_socket: "unix-socket", [("waiter", "unix-socket")];
    tcp_without_data: "tcp-recv", [("waiter", "net-recv")];
    tcp_without_room: "tcp-send", [("waiter", "net-send")];
    tcp_without_peer: "tcp-accept", [("waiter", "net-accept")];
    a_terminal: "tty", [("waiter", "tty")];
    direct_reads: "disk-read", [("reader", "disk-io")];
    fsync: "fsync", [("syncer", "fs-sync")];
    a_page_of_a_file: "page-fault", [("toucher", "page-fault")];
    a_page_of_another_thread: "userfaultfd", [("toucher", "page-fault")];
    a_lock_in_the_kernel: "mmap-lock", [("waiter", "kernel-lock")];
    a_child: "waitpid", [("parent", "child-wait")];
    a_vforked_child: "vfork", [("parent", "child-wait")];
    a_stop_by_a_signal: "sigstop", [("stoppee", "stopped")];
    a_stop_by_a_tracer: "ptrace", [("stoppee", "stopped")];
}

/// Where the kernel's spinlocks sleep (`PREEMPT_RT`), a wait for one has a state of its own, and that state is the
/// reason, in whatever call and function it was. The threads of this workload could wait for nothing else.
#[test]
fn spinlocks_that_sleep_are_locks_of_the_kernel() {
    let test = "spinlocks_that_sleep_are_locks_of_the_kernel";
    if !may_load_probes(test) {
        return;
    }
    if !is_realtime() {
        return not_run(
            test,
            "spinlocks spin here: the kernel is built without PREEMPT_RT",
        );
    }
    let workload = Workload::start("descriptors", &["--duration", "90s"]);
    let workload = workload.expect("no special needs");
    let (pid, _) = workload.member("opener-0");
    let report = measure_process(pid, &["--duration", "4s"]);
    let (mut blocked, mut slept, mut waits) = (0, 0, 0);
    for name in ["opener-0", "opener-1", "opener-2", "opener-3"] {
        let row = named(&report, name)[0];
        blocked += time(row, "blocked");
        let explain = row["explain"].as_array().expect("a list of waits");
        for wait in explain.iter().filter(|wait| wait["state"] == "rt-lock") {
            assert_eq!(wait["reason"], "kernel-lock", "{wait}");
            slept += number::<u64>(&wait["ns"]);
            waits += number::<u64>(&wait["count"]);
        }
    }
    figure(&format!(
        "{waits} waits for sleeping spinlocks, {:.1} of {:.1} ms blocked, all kernel-lock",
        slept as f64 / 1e6,
        blocked as f64 / 1e6,
    ));
    assert!(blocked >= ENOUGH_NS, "too little to say anything: {report}");
    assert!(slept >= blocked / 100 * RIGHT_PERCENT, "{report}");
}

/// A wait is looked at only if it was long enough. Else its call alone must do, and of a call that may
/// wait for many things the name is all that is said.
#[test]
fn waits_below_the_threshold_are_told_by_their_call_alone() {
    const READ: Expected = &[("waiter", "other(read)")];
    const PIPE: Expected = &[("waiter", "pipe")];
    for (stacks, period, expected) in [
        ("1m", "3ms", READ),
        ("off", "3ms", READ),
        ("2ms", "3ms", PIPE),
        ("0s", "1500us", PIPE),
    ] {
        let arguments = ["--period", period];
        check("pipe-read", &arguments, &["--stacks", stacks], expected);
    }
    let arguments = ["--stacks", "off"];
    check("condvar", &[], &arguments, &[("waiter", "lock")]);
}

/// The kernel counts in `cpu.stat` for how long the group was held back on each CPU. Its one thread
/// that computes is measured for its whole life, so nothing of that is left out.
#[test]
fn throttled_time_is_what_the_cgroup_counted() {
    let test = "throttled_time_is_what_the_cgroup_counted";
    if !may_load_probes(test) {
        return;
    }
    let arguments = ["--duration", "5s"];
    let measured = match measure_command(&[], "quota", &arguments) {
        Ok(measured) => measured,
        Err(reason) => return not_run(test, &reason),
    };
    let row = row_by_id(
        &measured.report,
        number(&truth_of(&measured.truth, "limited")["tid"]),
    );
    let throttled: u64 = number(&row["runnable_ns"]["throttled"]);
    let counted: u64 = number(&measured.truth["facts"]["throttled_ns"]);
    figure(&format!(
        "throttled: {throttled} ns, cpu.stat: {counted} ns; {}",
        row["runnable_ns"]
    ));
    assert!(counted > 500_000_000, "{}", measured.truth);
    let unknown = number::<u64>(&row["runnable_ns"]["unknown"]) + time(row, "unknown");
    assert_close("throttled", throttled, counted, 0.03, unknown);
    // Where nobody else is, that is all it was queued for.
    let blamed: u64 = number(&row["runnable_ns"]["contended"]);
    let queued = time(row, "runnable");
    assert!(throttled + blamed + unknown >= queued / 100 * 99, "{row}");
}

/// The quota of one thread is nobody else's doing, and a hog beside it has no quota: it is contended,
/// for just as long as the other one has the CPU.
#[test]
fn a_hog_beside_a_quota_is_contended_and_blamed_only_while_it_runs() {
    let test = "a_hog_beside_a_quota_is_contended_and_blamed_only_while_it_runs";
    if !may_load_probes(test) {
        return;
    }
    let arguments = ["--duration", "15s", "--threads", "1"];
    let workload = match Workload::start("quota", &arguments) {
        Ok(workload) => workload,
        Err(reason) => return not_run(test, &reason),
    };
    let members @ [limited, hog] = ["limited", "hog"].map(|name| workload.member(name));
    let (report, runs) = window_of(limited.0, &members, "2s");
    let row = row_by_id(&report, limited.1);
    let throttled: u64 = number(&row["runnable_ns"]["throttled"]);
    let window: u64 = number(&report["window"]["duration_ns"]);
    assert!(throttled > window / 5, "{row}");
    let blamed = blamed(row, "hog");
    // All its run time is too much: it also runs while the other one is held back.
    assert!(
        blamed < runs[&hog.1] && blamed + throttled <= window,
        "{row}"
    );

    // The kernel's account of run time is as old as the last tick, and a fifth of a CPU is not much.
    let (report, runs) = window_of(hog.0, &members, "4s");
    let row = row_by_id(&report, hog.1);
    println!("the hog: {}", row["runnable_ns"]);
    let unknown = number::<u64>(&row["runnable_ns"]["unknown"]) + time(row, "unknown");
    assert_eq!(row["runnable_ns"]["throttled"], 0, "{row}");
    let contended: u64 = number(&row["runnable_ns"]["contended"]);
    assert!(
        contended + unknown >= time(row, "runnable") / 100 * 98,
        "{row}"
    );
    // While it computes, whoever has the CPU keeps it from it.
    let blamed = self::blamed(row, "limited");
    check_share("limited", blamed..=blamed, runs[&limited.1], unknown);
}

/// Measures a process, and tells what the kernel says of some threads' run time in the same window.
fn window_of(pid: u32, threads: &[(u32, u32)], duration: &str) -> (Value, BTreeMap<u32, u64>) {
    let oracle = Schedstat::watch(threads);
    thread::sleep(Duration::from_millis(50));
    let report = measure_process(pid, &["--duration", duration]);
    thread::sleep(Duration::from_millis(50));
    let accounts = oracle.within(&report);
    let runs = accounts.iter().map(|(tid, account)| (*tid, account.run));
    let runs = runs.collect();
    (report, runs)
}

/// How long threads with this name had the CPU that the thread was queued for.
fn blamed(row: &Value, name: &str) -> u64 {
    let culprits = row["culprits"].as_array().expect("a list of culprits");
    culprits
        .iter()
        .filter(|culprit| culprit["comm"] == name)
        .map(|culprit| number::<u64>(&culprit["ns"]))
        .sum()
}

/// How long interrupts had the CPU that the thread was queued for. The kernel counts that time for the thread
/// that is interrupted, unless it accounts for interrupts (`CONFIG_IRQ_TIME_ACCOUNTING`). On a machine it is a
/// hundredth and less; where a tick is emulated, several.
fn blamed_on_interrupts(row: &Value) -> u64 {
    let kinds = InterruptKind::ALL.into_iter();
    kinds.map(|kind| blamed(row, kind.name())).sum()
}

/// A culprit's share is right within 3%. Of the interrupts in its CPU's time some were its own and some those of
/// others, which only a busy machine has many of: the share lies between the one without them and the one with all.
#[track_caller]
fn check_share(name: &str, found: RangeInclusive<u64>, truth: u64, unknown: u64) {
    let (alone, with_interrupts) = (*found.start(), *found.end());
    figure(&format!(
        "{name} is blamed for {alone} ns, with interrupts for {with_interrupts}, and ran for {truth} ns by the \
         kernel; {unknown} ns unknown"
    ));
    assert_close(
        "the culprit's share",
        truth.clamp(alone, with_interrupts),
        truth,
        0.03,
        unknown,
    );
}

/// A victim that computes wants its CPU all the time. So whatever the hog ran there, by the kernel's own
/// account, it took from the victim.
#[test]
fn the_hog_is_named_with_its_share() {
    if !may_load_probes("the_hog_is_named_with_its_share") {
        return;
    }
    let workload = Workload::start("hog", &["--duration", "300s"]).expect("no special needs");
    let members @ [victim, hog] = ["victim", "hog"].map(|name| workload.member(name));
    let (report, runs) = window_of(victim.0, &members, "3s");
    let row = row_by_id(&report, victim.1);
    let unknown = number::<u64>(&row["runnable_ns"]["unknown"]) + time(row, "unknown");
    let alone = blamed(row, "hog");
    let found = alone..=alone + blamed_on_interrupts(row);
    check_share("the hog", found, runs[&hog.1], unknown);
    // The total of the target and its processes name it, too.
    let total = &report["total"];
    let processes = total["culprits_by_process"].as_array().expect("processes");
    let of_hog = processes.iter().find(|row| row["tgid"] == hog.0);
    let of_hog = of_hog.unwrap_or_else(|| panic!("the hog's process expected in {total}"));
    assert!(
        number::<u64>(&of_hog["ns"]) >= blamed(row, "hog"),
        "{total}"
    );
    let contended: u64 = number(&row["runnable_ns"]["contended"]);
    let throttled: u64 = number(&row["runnable_ns"]["throttled"]);
    assert_eq!(throttled, 0, "{row}");
    assert!(
        contended + unknown >= time(row, "runnable") / 100 * 98,
        "{row}"
    );
}

/// A thread that sends much is interrupted by the network's softirqs: a victim on its CPU waits for both, and
/// each is named for its own part. The kernel's tracing times the softirqs, too.
#[test]
fn interrupts_are_named_and_not_whom_they_interrupt() {
    const TEST: &str = "interrupts_are_named_and_not_whom_they_interrupt";
    if !may_load_probes(TEST) {
        return;
    }
    let workload = Workload::start("flood", &["--duration", "300s"]).expect("no special needs");
    let members @ [victim, sender] = ["victim", "sender"].map(|name| workload.member(name));
    let softirqs = NetworkSoftirqs::watch(cpu_of(victim.1));
    let (report, runs) = window_of(victim.0, &members, "2s");
    let row = row_by_id(&report, victim.1);
    let network = blamed(row, "network softirq");
    let unknown = number::<u64>(&row["runnable_ns"]["unknown"]) + time(row, "unknown");
    // The kernel counts for the sender whatever interrupted it, unless it accounts for interrupts. Its softirqs are its
    // own.
    let alone = blamed(row, "sender") + network;
    let all = blamed(row, "sender") + blamed_on_interrupts(row);
    check_share("sender", alone..=all, runs[&sender.1], unknown);
    let units = report["total"]["culprits_by_unit"].as_array();
    let of_interrupts = units.into_iter().flatten();
    let of_interrupts: u64 = of_interrupts
        .filter(|unit| unit["unit"] == "interrupts")
        .map(|unit| number::<u64>(&unit["ns"]))
        .sum();
    assert!(of_interrupts >= network, "{report}");
    match softirqs {
        Ok(softirqs) => {
            let (count, by_tracing) = softirqs.within(&report);
            figure(&format!(
                "network softirqs: {network} ns; by tracing {count} in {by_tracing} ns"
            ));
            if is_realtime() {
                // They are work of the thread that sends, or of one of the kernel's own.
                return assert!(network <= by_tracing / 10, "{network} of {by_tracing} ns");
            }
            // Both time some of what the other one's hooks take. What interrupts a softirq has its own name here,
            // and is part of the softirq by tracing.
            let hooks = count * 100;
            let others = blamed_on_interrupts(row) - network;
            let allowed = by_tracing / 20 + unknown + hooks;
            assert!(
                network <= by_tracing + allowed && network + others + allowed >= by_tracing,
                "softirqs: found {network} ns, with other interrupts {others} ns more; by tracing {by_tracing} ns, \
                 {allowed} ns allowed"
            );
        }
        Err(reason) => not_run(TEST, &format!("no tracing to compare with: {reason}")),
    }
}

/// Whether softirqs are done by threads here, and spinlocks sleep (`PREEMPT_RT`).
fn is_realtime() -> bool {
    let version = std::fs::read_to_string("/proc/version").expect("procfs is mounted");
    version.contains("PREEMPT_RT")
}

/// The CPU that a thread may use, the highest of several.
fn cpu_of(tid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).expect("it is there");
    let cpus = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let last = cpus.and_then(|cpus| cpus.trim().rsplit([',', '-']).next());
    last.and_then(|cpu| cpu.parse().ok())
        .expect("a list of CPUs")
}

/// Who waits for a lock waits for its holder, and if that is queued, for who has its CPU: the chain
/// of the longest waits says so.
#[test]
fn the_chain_names_the_holder_and_who_has_its_cpu() {
    if !may_load_probes("the_chain_names_the_holder_and_who_has_its_cpu") {
        return;
    }
    let workload =
        Workload::start("preempted-holder", &["--duration", "20s"]).expect("no special needs");
    let holder = workload.member("holder");
    let waiter = workload.member("waiter");
    let report = measure_process(waiter.0, &["--duration", "3s"]);
    let worst = report["worst"]["blocked"].as_array().expect("waits");
    let waits: Vec<_> = worst
        .iter()
        .filter(|wait| wait["tid"] == waiter.1)
        .collect();
    let (mut queued, mut of_hog, mut covered) = (0, 0, 0);
    for wait in waits
        .iter()
        .filter(|wait| wait["open"] == false && wait["cut"] == false)
    {
        assert_eq!(wait["reason"], "lock", "{wait}");
        assert_eq!(wait["waker"]["tid"], holder.1, "{wait}");
        let link = &wait["chain"][0];
        assert_eq!(
            (&link["comm"], &link["tid"]),
            (&"holder".into(), &holder.1.into()),
            "{wait}"
        );
        // The holder does nothing but compute while it has the lock.
        assert_eq!(link["duration_ns"], wait["duration_ns"], "{wait}");
        covered += number::<u64>(&link["duration_ns"]) - number::<u64>(&link["unknown_ns"]);
        queued += number::<u64>(&link["runnable_ns"]);
        of_hog += blamed(link, "hog");
    }
    println!(
        "{} waits of {covered} ns: the holder was queued {queued} ns, {of_hog} ns of its longest stays for the hog",
        waits.len()
    );
    assert!(waits.len() >= 5, "{}", report["worst"]);
    assert!(
        of_hog > 0,
        "the hog has the holder's CPU: {}",
        report["worst"]
    );
    // While the waiter waits, the holder and the hog want the CPU, and have the same weight: the holder gets
    // half of it, give or take a slice, or less if there are others.
    assert!(
        queued as f64 >= covered as f64 * 0.45,
        "{queued} of {covered} ns: {}",
        report["worst"]
    );
}

/// What a service says of the threads that are called `stuck`.
struct StuckNow {
    pipe: f64,
    blocked: f64,
    observed: f64,
}

impl StuckNow {
    fn of(samples: &Samples) -> Self {
        let waits = |state: &str| {
            samples.value(&format!(
                "schedscope_oldest_wait_seconds{{target=\"stuck\",state=\"{state}\"}}"
            ))
        };
        Self {
            pipe: waits("pipe"),
            blocked: samples.sum("schedscope_blocked_seconds_total", "target=\"stuck\""),
            observed: samples.sum("schedscope_thread_time_seconds_total", "target=\"stuck\""),
        }
    }
}

/// How far an open wait's figures on `/metrics` may be from a clock that was read around the scrape.
const SCRAPE_SLACK: f64 = 0.2;

#[test]
fn a_thread_that_is_stuck_shows_while_it_is_and_is_counted_once() {
    if !may_load_probes("a_thread_that_is_stuck_shows_while_it_is_and_is_counted_once") {
        return;
    }
    let seconds = std::env::var("SCHEDSCOPE_TEST_STUCK_SECONDS");
    let seconds: u64 = seconds.map_or(3, |text| text.parse().expect("a number of seconds"));
    let service = Service::start(["--target", "stuck=comm:stuck"]);
    let duration = format!("{seconds}s");
    let start = Instant::now();
    let workload = Workload::start("stuck", &["--duration", &duration]).expect("no special needs");
    let started_in = start.elapsed().as_secs_f64();
    let mut oldest: f64 = 0.0;
    let mut under_pipe = 0;
    loop {
        thread::sleep(Duration::from_millis(250));
        let before = start.elapsed().as_secs_f64();
        let now = StuckNow::of(&service.scrape());
        let after = start.elapsed().as_secs_f64();
        if after + SCRAPE_SLACK >= seconds as f64 {
            break;
        }
        // A wait that goes on is looked at after a second; until then its call is all that is known.
        if before > 1.0 + started_in + SCRAPE_SLACK {
            let from_start = before - started_in - SCRAPE_SLACK..=after + SCRAPE_SLACK;
            // It is a scrape that has it looked at, so it may be the next one that tells; from then on it goes on.
            assert!(
                from_start.contains(&now.pipe) || (now.pipe <= 0.0 && under_pipe == 0),
                "stuck for {after} s, {} s on /metrics",
                now.pipe
            );
            under_pipe += u32::from(now.pipe > 0.0);
            assert!(
                from_start.contains(&now.blocked),
                "{} s blocked",
                now.blocked
            );
            oldest = oldest.max(now.blocked);
        }
    }
    println!("stuck for {seconds} s: up to {oldest} s were on /metrics meanwhile");
    assert!(oldest > seconds as f64 - 1.0, "{oldest}");
    assert!(under_pipe > 0, "it is told what it waits for");
    let truth = workload.finish();
    let waited = number::<u64>(&truth_of(&truth, "stuck")["waited_ns"]) as f64 / 1e9;
    let ended = |samples: &Samples| samples.value("schedscope_threads{target=\"stuck\"}") == 0.0;
    let end = StuckNow::of(&service.scrape_until(ended));
    println!(
        "it waited {waited} s; {} s blocked of {} s observed",
        end.blocked, end.observed
    );
    assert!(end.pipe <= 0.0, "nobody is stuck any more: {}", end.pipe);
    assert!(
        (end.blocked - waited).abs() < SCRAPE_SLACK && end.observed < waited + 2.0 * SCRAPE_SLACK,
        "it waited {waited} s, {} s are counted of {} s",
        end.blocked,
        end.observed
    );
}

/// A wait that goes on is looked at a second after it began, whatever was looked at just before.
#[test]
fn the_reasons_of_waits_that_begin_one_after_the_other_are_known() {
    if !may_load_probes("the_reasons_of_waits_that_begin_one_after_the_other_are_known") {
        return;
    }
    let service = Service::start(["--target", "stuck=comm:stuck"]);
    let mut workloads = Vec::new();
    for count in 1..=3 {
        let workload = Workload::start("stuck", &["--duration", "30s"]);
        workloads.push(workload.expect("no special needs"));
        let start = Instant::now();
        let all_known = |samples: &Samples| {
            let waiting = "schedscope_waiting_threads{target=\"stuck\",state=\"pipe\"}";
            samples.value(waiting) >= f64::from(count)
        };
        service.scrape_within(Duration::from_secs(5), all_known);
        println!("{count}: known after {:?}", start.elapsed());
    }
}

/// A wait that began before anybody looked: while it goes on, and when it has ended.
#[test]
fn a_wait_from_before_the_window_has_its_reason() {
    if !may_load_probes("a_wait_from_before_the_window_has_its_reason") {
        return;
    }
    let workload = Workload::start("stuck", &["--duration", "6s"]).expect("no special needs");
    let (pid, tid) = workload.member("stuck");
    let report = measure_process(pid, &["--duration", "500ms"]);
    let window: u64 = number(&report["window"]["duration_ns"]);
    let row = row_by_id(&report, tid);
    assert_eq!(row["blocked_ns"]["pipe"], window, "{row}");
    assert_eq!(
        (&row["open"]["reason"], &row["open"]["elapsed_ns"]),
        (&"pipe".into(), &window.into()),
        "{row}"
    );
    assert_eq!(
        report["total"]["waiting"]["pipe"]["oldest_ns"], window,
        "{report}"
    );
    let waits = report["stuck"]["blocked"].as_array().expect("waits");
    let wait = waits
        .iter()
        .find(|wait| wait["tid"] == tid)
        .expect("its one wait");
    assert_eq!(
        (&wait["open"], &wait["cut"]),
        (&true.into(), &true.into()),
        "{wait}"
    );

    // The second window has its end.
    let report = measure_process(pid, &["--duration", "20s"]);
    workload.finish();
    let row = row_by_id(&report, tid);
    check_reason("stuck", row, "pipe");
    let waits = report["worst"]["blocked"].as_array().expect("waits");
    let own: Vec<_> = waits
        .iter()
        .filter(|wait| wait["tid"] == tid && wait["reason"] == "pipe")
        .collect();
    assert_eq!(own.len(), 1, "{waits:?}");
    assert_eq!(
        (&own[0]["open"], &own[0]["cut"]),
        (&false.into(), &true.into()),
        "{own:?}"
    );
    assert_eq!(own[0]["duration_ns"], row["blocked_ns"]["pipe"], "{row}");
    assert_eq!(own[0]["waker"]["comm"], "releaser", "{own:?}");
}
