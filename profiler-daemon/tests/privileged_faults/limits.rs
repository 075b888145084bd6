//! The profiler runs out of memory and of descriptors.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use super::common::schedscope::{
    Outcome, PATIENCE, Running, may_load_probes, run, schedscope, scratch_file,
};
use super::common::service::{Service, get};
use super::common::{Workload, books};
use super::support::{Helper, Objects};

/// Starts it below such a limit of the shell's `ulimit`.
fn limited(ulimit: &str, arguments: &[&str]) -> Running {
    let mut shell = std::process::Command::new("sh");
    let binary = schedscope::<&str>([]).get_program().to_owned();
    shell.args(["-c", &format!("{ulimit}; exec \"$@\""), "sh"]);
    shell.arg(binary).args(arguments);
    Running::start(shell)
}

/// It ended well, or with a message, or where a library can't go on without memory by an abort; by nothing else.
#[track_caller]
fn check_end(outcome: &Outcome, limit: &str) {
    let words = outcome.stderr.trim_end();
    match (outcome.status.code(), outcome.status.signal()) {
        (Some(0), _) => {}
        (Some(1 | 3), _) => {
            assert!(words.starts_with("schedscope: "), "{limit}: {outcome:?}");
            assert_eq!(words.lines().count(), 1, "{limit}: {outcome:?}");
        }
        // The loader of programs, when there is no room for the program itself.
        (Some(127), _) => assert!(words.contains("shared libraries"), "{limit}: {outcome:?}"),
        (None, Some(signal)) if signal == Signal::ABORT.as_raw() => {
            assert!(words.contains("memory"), "{limit}: {outcome:?}");
        }
        _ => panic!("{limit}: {outcome:?}"),
    }
}

#[test]
fn without_memory_it_says_so_and_leaves_nothing() {
    if !may_load_probes("limits::without_memory_it_says_so_and_leaves_nothing") {
        return;
    }
    let own = std::process::id().to_string();
    let mut failed = 0;
    for mebibytes in [16, 32, 48, 64, 80, 96, 128, 4096] {
        let limit = format!("ulimit -v {}", mebibytes * 1024);
        let arguments = ["attach", "-d", "50ms", "--output", "json", &own];
        let outcome = limited(&limit, &arguments).finish(PATIENCE);
        check_end(&outcome, &limit);
        if outcome.status.success() {
            books::check(&outcome.json());
        } else {
            failed += 1;
        }
        assert!(mebibytes != 4096 || outcome.status.success(), "{outcome:?}");
    }
    assert!(failed > 0, "16 MiB are too few");
}

/// While it measures there is no more memory to be had, and more threads than it knows of come.
#[test]
fn out_of_memory_it_ends_and_what_it_wrote_can_be_read() {
    const TEST: &str = "limits::out_of_memory_it_ends_and_what_it_wrote_can_be_read";
    if !may_load_probes(TEST) {
        return;
    }
    let storm = Workload::start("pingpong", &["--duration", "30s"]).expect("no special needs");
    let pid = storm.pid().to_string();
    let file = scratch_file("out-of-memory.sched");
    let path = file.to_str().expect("a plain name");
    let mut recorder = Running::start(schedscope(["record", "-d", "8s", "-o", path, &pid]));
    recorder.wait_until_it_measures();
    thread::sleep(Duration::from_millis(1_500));
    let held = Objects::of(recorder.pid());
    assert!(held.count() > 0);
    let limit = Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    let its = Pid::from_raw(recorder.pid().cast_signed()).expect("it has an id");
    prlimit(Some(its), Resource::As, limit).expect("root may limit it");
    let _crowd = Helper::start(&["crowd", "--threads", "3000"]);
    let outcome = recorder.finish(PATIENCE);
    check_end(&outcome, "no more memory");
    held.expect_gone();
    let report = run(["report", path, "--output", "json"]);
    let expected = if outcome.status.success() { 0 } else { 5 };
    report.expect_code(expected);
    books::check(&report.json());
    std::fs::remove_file(&file).expect("it was recorded");
}

#[test]
fn without_descriptors_it_says_so() {
    if !may_load_probes("limits::without_descriptors_it_says_so") {
        return;
    }
    let own = std::process::id().to_string();
    let mut failed = 0;
    for most in [4, 8, 12, 16, 20, 24, 32, 40, 48, 1024] {
        let limit = format!("ulimit -n {most}");
        let arguments = ["attach", "-d", "50ms", "--output", "json", &own];
        let outcome = limited(&limit, &arguments).finish(PATIENCE);
        check_end(&outcome, &limit);
        if outcome.status.success() {
            books::check(&outcome.json());
        } else {
            failed += 1;
            let names_it = outcome.stderr.contains("ulimit -n");
            let is_loader = outcome.stderr.contains("shared libraries");
            assert!(names_it || is_loader, "{limit}: {outcome:?}");
        }
        assert!(most != 1024 || outcome.status.success(), "{outcome:?}");
    }
    assert!(failed > 0, "4 descriptors are too few");
}

/// A service that can open nothing more goes on measuring, and serves again when it can.
#[test]
fn a_service_without_descriptors_goes_on() {
    if !may_load_probes("limits::a_service_without_descriptors_goes_on") {
        return;
    }
    let service = Service::start::<&str>([]);
    let before = service.scrape();
    let pid = Pid::from_raw(service.pid().cast_signed()).expect("it has an id");
    // Of those that it might get, all are taken.
    let few = Rlimit {
        current: Some(3),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let usual = prlimit(Some(pid), Resource::Nofile, few).expect("root may limit it");
    let address = service.address();
    let asking = thread::spawn(move || get(address, "/metrics", ""));
    thread::sleep(Duration::from_secs(1));
    // It reads /proc all the time, and must do without.
    let alive = File::open(format!("/proc/{}/stat", service.pid()));
    assert!(alive.is_ok(), "it has ended");
    prlimit(Some(pid), Resource::Nofile, usual).expect("root may");
    // Whoever came meanwhile waits at the door, and is heard now.
    let heard = asking.join().expect("asking does not fail");
    assert!(heard.is_some_and(|answer| answer.status == 200));
    let after = service.scrape();
    after.assert_grown_from(&before);
}
