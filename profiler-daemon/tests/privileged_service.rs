//! `schedscope run` as a service manager and Prometheus meet it.

#[path = "support/browser.rs"]
mod browser;
#[path = "service/clocks.rs"]
mod clocks;
mod common;
#[path = "service/flight.rs"]
mod flight;
#[path = "service/hostile.rs"]
mod hostile;
#[path = "service/manager.rs"]
mod manager;

use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::schedscope::{may_load_probes, programs_of, run, scratch_file};
use common::service::{Service, free_address};
use common::{Workload, is_guest};
use rustix::process::Signal;

/// `{target="NAME"`, as every series of a target begins its labels or has among them.
fn label(target: &str) -> String {
    format!("target=\"{target}\"")
}

/// Time of all states of a target, in seconds.
fn observed(samples: &common::service::Samples, target: &str) -> f64 {
    samples.sum("schedscope_thread_time_seconds_total", &label(target))
}

#[test]
fn counters_only_grow_and_host_and_target_are_there() {
    if !may_load_probes("counters_only_grow_and_host_and_target_are_there") {
        return;
    }
    let workload = Workload::start("storm", &["--duration", "30s"]).expect("no special needs");
    let target = format!("storm=pid:{}", workload.pid());
    let service = Service::start(["--target", &target]);
    let mut earlier = service.scrape();
    let first = earlier.clone();
    let start = Instant::now();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(300));
        let samples = service.scrape();
        samples.assert_grown_from(&earlier);
        earlier = samples;
    }
    let elapsed = start.elapsed().as_secs_f64();
    for target in ["host", "storm"] {
        let grown = observed(&earlier, target) - observed(&first, target);
        let label = label(target);
        let threads = earlier.sum("schedscope_threads", &label);
        // Every thread adds a second each second, whatever it does; the host's come and go.
        assert!(grown > elapsed, "{target}: {grown} s in {elapsed} s");
        if target == "storm" {
            let expected = threads * elapsed;
            let off = (grown - expected).abs();
            assert!(
                off < expected * 0.1,
                "{grown} s of {threads} threads in {elapsed} s"
            );
        }
        let count = "schedscope_runqueue_delay_seconds_count";
        assert!(
            earlier.sum(count, &label) > first.sum(count, &label),
            "{target}"
        );
        let switches = "schedscope_switches_total";
        assert!(
            earlier.sum(switches, &label) > first.sum(switches, &label),
            "{target}"
        );
    }
    assert!(earlier.sum("schedscope_events_total", "kind=\"switch\"") > 0.0);
    assert!(earlier.value("schedscope_process_cpu_seconds_total") > 0.0);
    assert!(earlier.value("schedscope_process_resident_memory_bytes") > 1e6);
}

#[test]
fn openmetrics_is_served_to_who_asks_for_it() {
    if !may_load_probes("openmetrics_is_served_to_who_asks_for_it") {
        return;
    }
    let service = Service::start::<&str>([]);
    let answer = service.get("/metrics", "application/openmetrics-text; version=1.0.0");
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: application/openmetrics-text"),
        "{}",
        answer.head
    );
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    let answer = service.get("/metrics", "text/plain");
    assert!(
        answer.head.contains("content-type: text/plain"),
        "{}",
        answer.head
    );
    assert_eq!(service.get("/healthz", "").status, 200);
    assert_eq!(service.get("/no-such-page", "").status, 404);
}

/// A thread that is stuck in one wait is seen to be, second by second, before the wait has ended.
#[test]
fn a_wait_that_has_not_ended_is_counted_as_it_grows() {
    if !may_load_probes("a_wait_that_has_not_ended_is_counted_as_it_grows") {
        return;
    }
    let workload = Workload::start("stuck", &["--duration", "30s"]).expect("no special needs");
    let (_, tid) = workload.member("stuck");
    let target = format!("stuck=tid:{tid}");
    let service = Service::start(["--target", &target]);
    let blocked = "schedscope_thread_time_seconds_total{target=\"stuck\",state=\"blocked\"}";
    let first = service.scrape();
    let start = Instant::now();
    thread::sleep(Duration::from_secs(2));
    let second = service.scrape();
    let elapsed = start.elapsed().as_secs_f64();
    let grown = second.value(blocked) - first.value(blocked);
    // A scrape has the figures of up to a drain interval ago.
    assert!((grown - elapsed).abs() < 0.1, "{grown} s in {elapsed} s");
    let waits = "schedscope_offcpu_seconds_count{target=\"stuck\"}";
    assert_eq!(
        second.value(waits).to_bits(),
        0.0_f64.to_bits(),
        "no wait has ended"
    );
    assert!(second.value("schedscope_open_waits{target=\"stuck\"}") > 0.0);
}

/// The built-in page, with what this host does; `http.rs` holds it to figures that are known.
#[test]
fn the_page_shows_this_host() {
    const TEST: &str = "the_page_shows_this_host";
    if !may_load_probes(TEST) {
        return;
    }
    let Some(mut page) = browser::Browser::start() else {
        return common::not_run(TEST, "there is no chromium");
    };
    let _load = Workload::start("mutex", &["--duration", "60s"]).expect("no special needs");
    let service = Service::start::<&str>([]);
    page.resize(1280, 900, false);
    let origin = format!("http://{}/", service.address());
    page.open(&origin);
    // There is something to show once figures have been taken twice.
    page.until("$('queue').querySelectorAll('td.name').length > 0");
    page.until(
        "heat !== null && heat.columns.length > 0 && $('p99').querySelector('path') !== null",
    );
    let shown = page.texts("#queue td.name");
    let units = service.get("/api/v1/units?limit=10000", "").body;
    let units: serde_json::Value = serde_json::from_str(&units).expect("JSON");
    let units = units["units"].as_array().expect("a list");
    for unit in shown {
        assert!(
            units.iter().any(|row| row["unit"] == unit.as_str()),
            "{unit}"
        );
    }
    assert!(
        page.requests()
            .iter()
            .all(|asked| asked.starts_with(&origin) || asked == "data:,")
    );
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
    println!("{}", page.picture("page-this-host").display());
}

#[test]
fn a_hangup_reads_the_configuration_again() {
    if !may_load_probes("a_hangup_reads_the_configuration_again") {
        return;
    }
    let workload = Workload::start("mutex", &["--duration", "30s"]).expect("no special needs");
    let file = scratch_file("config.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("the configuration is written");
    write("");
    let path = file.to_str().expect("a path in UTF-8");
    let service = Service::start(["--config", path]);
    let before = service.scrape();
    assert!(!before.has(&label("locks")), "{before:?}");

    let target = format!("[[target]]\nname = \"locks\"\npid = {}\n", workload.pid());
    write(&target);
    service.signal(Signal::HUP);
    let with_target = service.scrape_until(|samples| samples.has(&label("locks")));
    with_target.assert_grown_from(&before);

    // What can't be read leaves everything as it was.
    write("no such key = 1");
    service.signal(Signal::HUP);
    thread::sleep(Duration::from_millis(200));
    let after = service.scrape();
    after.assert_grown_from(&with_target);
    assert!(observed(&after, "locks") > observed(&with_target, "locks"));

    service.signal(Signal::TERM);
    let outcome = service.finish(Duration::from_secs(1));
    std::fs::remove_file(&file).expect("the scratch file goes away");
    outcome.expect_code(0);
    assert!(
        outcome.stderr.contains(path),
        "the bad file is named: {outcome:?}"
    );
}

#[test]
fn a_signal_ends_it_within_a_second() {
    if !may_load_probes("a_signal_ends_it_within_a_second") {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let service = Service::start::<&str>([]);
        service.signal(signal);
        service.finish(Duration::from_secs(1)).expect_code(0);
    }
}

#[test]
fn a_taken_port_is_named() {
    if !may_load_probes("a_taken_port_is_named") {
        return;
    }
    let address = free_address();
    let _taken = TcpListener::bind(address).expect("the port is free");
    let port = address.port().to_string();
    run(["run", "--listen", &address.to_string()]).expect_error(2, &[&port, "--listen"]);
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_with_the_line() {
    let missing = scratch_file("no-such-file.toml");
    let missing = missing.to_str().expect("a path in UTF-8");
    run(["run", "--config", missing]).expect_error(2, &[missing, "--config"]);
    // A directory can be opened, and not read.
    let directory = env!("CARGO_TARGET_TMPDIR");
    run(["run", "--config", directory]).expect_error(2, &[directory]);

    let file = scratch_file("wrong.toml");
    let path = file.to_str().expect("a path in UTF-8");
    for (text, words) in [
        (
            "\n[ring]\nrecords_per_cp = 64\n",
            &[":3:", "records_per_cp", "records_per_cpu"][..],
        ),
        ("listen = \"127.0.0.1\"\n", &[":1:", "port"]),
        ("[ring]\nrecords_per_cpu = 1000\n", &[":2:", "power of two"]),
        ("[ring\n", &[":1:"]),
    ] {
        std::fs::write(&file, text).expect("the configuration is written");
        let words = [&[path], words].concat();
        run(["run", "--config", path]).expect_error(2, &words);
    }
    std::fs::remove_file(&file).expect("the scratch file goes away");
}

/// Numbers of all BPF programs that the kernel has.
fn all_programs() -> Vec<u32> {
    aya::programs::loaded_programs()
        .map(|program| program.expect("root may list programs").id())
        .collect()
}

#[test]
fn a_kill_leaves_nothing_in_the_kernel() {
    if !may_load_probes("a_kill_leaves_nothing_in_the_kernel") {
        return;
    }
    let service = Service::start::<&str>([]);
    let own = programs_of(service.pid());
    let all = all_programs();
    assert!(own.len() >= 2, "the probes are programs: {own:?}");
    assert!(own.iter().all(|id| all.contains(id)), "{own:?} in {all:?}");
    service.signal(Signal::KILL);
    // It takes its probes away first, which takes an emulated machine with PREEMPT_RT more than a second.
    let patience = Duration::from_secs(if is_guest() { 10 } else { 1 });
    let outcome = service.finish(patience);
    assert!(!outcome.status.success());
    // The kernel frees programs after a grace period.
    let start = Instant::now();
    loop {
        let all = all_programs();
        let left: Vec<_> = own.iter().filter(|id| all.contains(id)).collect();
        if left.is_empty() {
            break;
        }
        assert!(start.elapsed() < 5 * patience, "{left:?} are still there");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Times that all threads of a process have gone to sleep.
fn sleeps_of(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    tasks
        .map(|task| status_field(&task.expect("a thread").path(), "voluntary_ctxt_switches:"))
        .sum()
}

fn status_field(task: &Path, field: &str) -> u64 {
    let status = std::fs::read_to_string(task.join("status")).expect("the thread is there");
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    value
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .expect("a number")
}

/// All switches of the host so far.
fn host_switches() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("procfs is mounted");
    let value = stat.lines().find_map(|line| line.strip_prefix("ctxt "));
    value
        .and_then(|value| value.trim().parse().ok())
        .expect("a number")
}

/// How long an idle service is watched.
const SECONDS: u64 = 5;

/// Switches of the host for which the service may wake up once more: as rings fill.
const SWITCHES_A_WAKEUP: u64 = 2048;

/// Beside the two drains a second the service wakes up only as rings fill; the host is never quite
/// idle while tests run.
#[test]
fn it_hardly_ever_wakes_up_on_an_idle_host() {
    if !may_load_probes("it_hardly_ever_wakes_up_on_an_idle_host") {
        return;
    }
    let service = Service::start::<&str>([]);
    // The start and the first sample of the probes' cost are over.
    thread::sleep(Duration::from_secs(1));
    let before = (sleeps_of(service.pid()), host_switches());
    thread::sleep(Duration::from_secs(SECONDS));
    let after = (sleeps_of(service.pid()), host_switches());
    let (sleeps, switches) = (after.0 - before.0, after.1 - before.1);
    let allowed = SECONDS * 3 + switches / SWITCHES_A_WAKEUP;
    assert!(
        sleeps <= allowed,
        "{sleeps} wakeups in {SECONDS} s with {switches} switches of the host; {allowed} allowed"
    );
    println!("{sleeps} wakeups in {SECONDS} s, while the host switched {switches} times");
}
