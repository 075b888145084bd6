//! What the test files share: the workload program with its truth, the real binary with its report,
//! and the kernel's own accounts.

#![allow(
    dead_code,
    reason = "each test file is a crate of its own, and uses its part"
)]

pub(crate) mod books;
pub(crate) mod oracle;
pub(crate) mod schedscope;
pub(crate) mod service;
pub(crate) mod softirqs;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

/// Exit code of a workload that this host can't do.
const UNAVAILABLE: i32 = 77;

/// The workload program, which `cargo test` builds as an example beside the tests.
pub(crate) fn workload_program() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own file");
    let program = own
        .ancestors()
        .nth(2)
        .expect("a test lies in the profile's 'deps' directory")
        .join("examples/workload");
    assert!(
        program.exists(),
        "'{}' is missing: run the tests with `cargo test`, or build it with `cargo build --example workload`",
        program.display()
    );
    program
}

/// The names of all workloads.
pub(crate) fn workloads() -> Vec<String> {
    let output = Command::new(workload_program())
        .arg("list")
        .output()
        .expect("the workload program starts");
    let list = String::from_utf8(output.stdout).expect("the list is text");
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// A command that runs a workload, its files on the disk that the build is on.
pub(crate) fn workload_command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(workload_program());
    command
        .arg(name)
        .args(["--dir", env!("CARGO_TARGET_TMPDIR")])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// A workload that runs; killed when dropped.
pub(crate) struct Workload {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// Its ready line: who its threads are.
    pub(crate) ready: Value,
}

impl Workload {
    /// Starts a workload, and returns when its threads are there; the reason if the host can't.
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut child = workload_command(name, arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the workload program starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut workload = Self {
            child,
            lines,
            ready: Value::Null,
        };
        let ready = workload.line();
        if ready["event"] == "unavailable" {
            return Err(ready["reason"].as_str().unwrap_or_default().to_owned());
        }
        assert_eq!(ready["event"], "ready", "{name}: {ready}");
        workload.ready = ready;
        Ok(workload)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Process and thread id of the thread with this name.
    pub(crate) fn member(&self, name: &str) -> (u32, u32) {
        let member = self.ready["threads"]
            .as_array()
            .and_then(|threads| threads.iter().find(|thread| thread["name"] == name))
            .unwrap_or_else(|| panic!("a thread '{name}' expected in {}", self.ready));
        (number(&member["pid"]), number(&member["tid"]))
    }

    /// Waits for its end and returns its truth.
    pub(crate) fn finish(mut self) -> Value {
        let truth = self.line();
        let status = self.child.wait().expect("the workload can be waited for");
        assert!(status.success(), "the workload failed: {status}");
        assert_eq!(truth["event"], "truth", "{truth}");
        truth
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .expect("the workload's stdout can be read");
        if line.is_empty() {
            let status = self.child.wait().expect("the workload can be waited for");
            assert_ne!(status.code(), Some(UNAVAILABLE), "no reason was given");
            panic!("the workload ended without its line: {status}");
        }
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("a line of JSON expected, got '{line}': {error}"))
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a workload to its end; its truth, or the reason why the host can't.
pub(crate) fn run_workload(name: &str, arguments: &[&str]) -> Result<Value, String> {
    Workload::start(name, arguments).map(Workload::finish)
}

/// A number of a report, as the type that is wanted.
pub(crate) fn number<T: TryFrom<u64>>(value: &Value) -> T {
    value
        .as_u64()
        .and_then(|number| T::try_from(number).ok())
        .unwrap_or_else(|| panic!("a number expected, got {value}"))
}

/// Says that a test could not be run here; the test then returns.
pub(crate) fn not_run(name: &str, reason: &str) {
    println!("not run: {name}: {reason}");
}

/// Whether this is a guest that `cargo xtask vm` has booted, where nobody else is disturbed.
pub(crate) fn is_guest() -> bool {
    std::env::var_os("SCHEDSCOPE_GUEST").is_some()
}

/// Gives a figure to the table of `cargo xtask vm`.
pub(crate) fn figure(text: &str) {
    println!("figure: {text}");
}
