//! The workload program's own test: what it says of itself must fit what the kernel says of it, or
//! nothing can be checked against it.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::{not_run, number, run_workload, workload_program, workloads};
use serde_json::Value;

/// How long each workload runs.
const DURATION: &str = "200ms";
const DURATION_NS: u64 = 200_000_000;

/// What may come in between on a busy machine without being wrong.
const SLACK_NS: u64 = 40_000_000;

/// Checks one thread's truth against itself and against the kernel's accounts.
fn check_thread(thread: &Value) -> Result<(), String> {
    let field = |name: &str| number::<u64>(&thread[name]);
    let account = |name: &str| {
        number::<u64>(&thread["after"][name]).saturating_sub(number(&thread["before"][name]))
    };
    let (loop_ns, cpu_ns, waited_ns) = (field("loop_ns"), field("cpu_ns"), field("waited_ns"));
    let check = |holds: bool, claim: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{claim}: {thread}"))
        }
    };
    check(field("tid") > 0 && field("pid") > 0, "ids")?;
    check(
        thread["name"] == "after-exec" || loop_ns >= DURATION_NS - SLACK_NS,
        "it lasts as long as asked",
    )?;
    check(
        cpu_ns <= loop_ns + SLACK_NS,
        "one thread uses one CPU at most",
    )?;
    check(waited_ns <= loop_ns, "waits are part of the loop")?;
    check(
        field("longest_ns") <= waited_ns,
        "a wait is part of all waits",
    )?;

    // The scheduler's own account of blocked time: what is neither run time nor run-queue delay.
    let blocked_ns = loop_ns.saturating_sub(cpu_ns + account("schedstat_delay_ns"));
    match thread["expect"]["state"].as_str() {
        Some("blocked") => {
            check(field("waits") > 0, "a blocked thread waits")?;
            check(
                waited_ns + SLACK_NS >= blocked_ns,
                "nearly all that the kernel calls blocked is in the waits that were timed",
            )?;
            check(
                blocked_ns + account("schedstat_delay_ns") + cpu_ns + SLACK_NS >= waited_ns,
                "waits are off the CPU",
            )?;
            check(
                thread["expect"]["reason"].is_string(),
                "a blocked thread has a reason",
            )
        }
        Some("mixed") => Ok(()),
        _ => Err(format!("a known state expected: {thread}")),
    }
}

/// Checks what a workload says beside its threads' figures.
fn check_facts(name: &str, truth: &Value) -> Result<(), String> {
    let thread_fact = |fact: &str| {
        let threads = truth["threads"].as_array().into_iter().flatten();
        threads
            .filter_map(|thread| thread["facts"][fact].as_u64())
            .max()
            .ok_or_else(|| format!("a fact '{fact}' expected: {truth}"))
    };
    let at_least_one = |fact: &str| match thread_fact(fact)? {
        0 => Err(format!("'{fact}' of more than 0 expected: {truth}")),
        _ => Ok(()),
    };
    match name {
        "mutex" | "flock" | "preempted-holder" => at_least_one("held_ns"),
        "descriptors" => at_least_one("rounds"),
        "fork-storm" => {
            at_least_one("threads_started")?;
            at_least_one("processes_started")
        }
        "renames" => at_least_one("renames"),
        "yield" => at_least_one("yields"),
        "exec-from-thread" => at_least_one("tid_before_exec"),
        "quota" if truth["facts"]["nr_throttled"] == 0 => {
            Err(format!("a throttled thread expected: {truth}"))
        }
        _ => Ok(()),
    }
}

/// Runs one workload and checks what it says.
fn check(test: &str, name: &str) {
    let arguments = ["--duration", DURATION, "--period", "5ms", "--hold", "20ms"];
    let truth = match run_workload(name, &arguments) {
        Ok(truth) => truth,
        Err(reason) => return not_run(test, &reason),
    };
    let threads = truth["threads"].as_array().expect("a list of threads");
    assert!(!threads.is_empty(), "threads expected: {truth}");
    for thread in threads {
        check_thread(thread).unwrap_or_else(|claim| panic!("{claim}"));
    }
    check_facts(name, &truth).unwrap_or_else(|claim| panic!("{claim}"));
}

/// Makes one test of each workload, named like it.
macro_rules! workloads {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check(stringify!($test), $name);
            }
        )*

        /// Names of all workloads with a test.
        const TESTED: &[&str] = &[$($name),*];
    };
}

workloads! {
    spin: "spin",
    yielding: "yield",
    hog: "hog",
    quota: "quota",
    flood: "flood",
    sleep_loop: "sleep-loop",
    mutex: "mutex",
    preempted_holder: "preempted-holder",
    condvar: "condvar",
    flock: "flock",
    descriptors: "descriptors",
    epoll: "epoll",
    poll: "poll",
    select: "select",
    eventfd: "eventfd",
    timerfd: "timerfd",
    io_uring: "io-uring",
    stuck: "stuck",
    pipe_read: "pipe-read",
    pipe_write: "pipe-write",
    unix_socket: "unix-socket",
    tcp_recv: "tcp-recv",
    tcp_send: "tcp-send",
    tcp_accept: "tcp-accept",
    tty: "tty",
    disk_read: "disk-read",
    fsync: "fsync",
    page_fault: "page-fault",
    userfaultfd: "userfaultfd",
    mmap_lock: "mmap-lock",
    waitpid: "waitpid",
    vfork: "vfork",
    sigstop: "sigstop",
    ptrace: "ptrace",
    fork_storm: "fork-storm",
    renames: "renames",
    exec_from_thread: "exec-from-thread",
    pingpong: "pingpong",
    storm: "storm",
}

#[test]
fn every_workload_has_a_test() {
    // The server has a log of its own, by which `verify` judges it.
    let tested = TESTED.iter().copied().chain(["requests"]);
    let tested: BTreeSet<&str> = tested.collect();
    let all = workloads();
    assert_eq!(
        all.iter().map(AsRef::as_ref).collect::<BTreeSet<&str>>(),
        tested
    );
}

#[test]
fn an_unknown_workload_is_refused() {
    let output = Command::new(workload_program())
        .arg("no-such-workload")
        .output()
        .expect("the workload program starts");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("'no-such-workload'"), "{message}");
}
