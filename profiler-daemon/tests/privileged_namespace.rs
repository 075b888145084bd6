//! In a PID namespace of its own, as in a container that does not share the host's: ids that are given are
//! those there, and must lead to the threads that are meant.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::schedscope::{PATIENCE, Running, may_load_probes, schedscope};
use serde_json::Value;

/// A PID namespace with a shell that runs all the time; gone when dropped.
struct Namespace {
    unshare: Child,
    /// Its process 1, by the host's number.
    init: u32,
    /// The shell that runs all the time: by its number there, and by the host's.
    spinner: (u32, u32),
}

impl Namespace {
    fn make() -> Self {
        let script = "sh -c 'while :; do :; done' & echo $!; exec sleep 120";
        let mut unshare = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) can be started");
        let mut line = String::new();
        let stdout = unshare.stdout.take().expect("it is a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the shell says who runs");
        let there: u32 = line.trim().parse().expect("a number");
        let init = children(unshare.id())[0];
        let host = children(init)
            .into_iter()
            .find(|&pid| inner_id(pid) == Some(there));
        Self {
            init,
            spinner: (there, host.expect("it is a child of the first process")),
            unshare,
        }
    }

    /// A command in there.
    fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside
            .args(["--target", &self.init.to_string(), "--pid", "--mount", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        inside
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // They fail only if it has ended already.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// The children of a process, waited for: there is at least one.
fn children(pid: u32) -> Vec<u32> {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let found: Vec<u32> = text
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if !found.is_empty() {
            return found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{pid} is childless"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a process is called in the innermost namespace that it is in.
fn inner_id(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().last()?.parse().ok()
}

fn report(command: Command) -> Value {
    let outcome = Running::start(command).finish(PATIENCE);
    outcome.expect_code(0);
    outcome.json()
}

#[test]
fn a_process_given_by_its_id_there_is_the_one_that_is_measured() {
    if !may_load_probes("a_process_given_by_its_id_there_is_the_one_that_is_measured") {
        return;
    }
    let namespace = Namespace::make();
    let (there, host) = namespace.spinner;
    assert_ne!(there, host);
    let arguments = |id: u32| {
        ["attach", "--duration", "1s", "--output", "json"]
            .map(str::to_owned)
            .into_iter()
            .chain([id.to_string()])
    };
    let inside = report(namespace.enter(&schedscope(arguments(there))));
    let outside = report(schedscope(arguments(host)));
    for report in [&inside, &outside] {
        let threads = report["threads"].as_array().expect("a list");
        assert_eq!(threads.len(), 1, "{report}");
        let thread = &threads[0];
        assert_eq!(thread["tid"], host, "{thread}");
        assert_eq!(thread["comm"], "sh");
        let time = |share: &str| thread["time_ns"][share].as_u64().expect("a number");
        let wanted = time("running") + time("runnable");
        assert!(
            wanted > 900_000_000,
            "it wants to run all the time: {thread}"
        );
        assert!(time("running") > 50_000_000, "{thread}");
        assert_eq!(thread["unit"], outside["threads"][0]["unit"]);
    }
    let text = inside.to_string();
    assert!(text.contains(&format!("{there} is {host} here")), "{text}");
    assert!(!outside.to_string().contains("PID namespace"), "{outside}");
}

#[test]
fn a_command_started_there_is_measured() {
    if !may_load_probes("a_command_started_there_is_measured") {
        return;
    }
    let namespace = Namespace::make();
    let command = [
        "attach",
        "--output",
        "json",
        "--",
        "sh",
        "-c",
        "sleep 0.3; exit 7",
    ];
    let outcome = Running::start(namespace.enter(&schedscope(command))).finish(PATIENCE);
    outcome.expect_code(7);
    let report = outcome.json();
    let thread = &report["threads"][0];
    assert_eq!(thread["comm"], "sh", "{report}");
    assert!(
        thread["time_ns"]["blocked"].as_u64() > Some(290_000_000),
        "it waits for its child: {thread}"
    );
}

#[test]
fn an_id_of_the_host_is_nobody_there() {
    if !may_load_probes("an_id_of_the_host_is_nobody_there") {
        return;
    }
    let namespace = Namespace::make();
    let (_, host) = namespace.spinner;
    let command = schedscope(["attach", "--duration", "1s", &host.to_string()]);
    let outcome = Running::start(namespace.enter(&command)).finish(PATIENCE);
    outcome.expect_error(4, &[&format!("no process has the PID {host}")]);
}
