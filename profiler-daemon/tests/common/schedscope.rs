//! Runs the real binary as a user would, and gathers what came of it.

use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use super::{is_guest, not_run, workload_program};

/// Longest time that a run may take beyond what it measures; emulated machines are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// The same where a guest may have many CPUs: they all share one of the machine that it is on.
pub(crate) fn patience() -> Duration {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let share = if is_guest() { cpus.div_ceil(4) } else { 1 };
    PATIENCE * u32::try_from(share).unwrap_or(u32::MAX)
}

/// Whether this process may load probes here; says so where it may not, and the test then returns.
pub(crate) fn may_load_probes(test: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        "the kernel has no BTF (/sys/kernel/btf/vmlinux)"
    } else if !has_bpf_capability() {
        "no CAP_BPF, though root"
    } else {
        return true;
    };
    not_run(test, reason);
    false
}

/// `CAP_BPF`, or `CAP_SYS_ADMIN` which was there before it (include/uapi/linux/capability.h).
fn has_bpf_capability() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_BPF: u32 = 39;
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .expect("CapEff in /proc/self/status");
    effective & (1 << CAP_BPF | 1 << CAP_SYS_ADMIN) != 0
}

/// Another binary than the tests' own, such as a release build: for figures, not for judging a change.
pub(crate) const BINARY: &str = "SCHEDSCOPE_BINARY";

/// The binary, not yet started.
pub(crate) fn schedscope<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let binary = std::env::var_os(BINARY);
    let mut command =
        Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_schedscope").into()));
    command.args(arguments);
    command
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Fails unless this is the exit code.
    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
    }

    /// Fails unless it ended with this code and one line on stderr that has all the words, and
    /// nothing on stdout.
    #[track_caller]
    pub(crate) fn expect_error(&self, code: i32, words: &[&str]) {
        self.expect_code(code);
        assert_eq!(self.stderr.lines().count(), 1, "one line: {self:?}");
        assert!(self.stderr.starts_with("schedscope: "), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "'{word}' expected: {self:?}");
        }
        assert_eq!(self.stdout, "", "nothing to report: {self:?}");
    }
}

/// A run under way; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts a command and reads what it prints.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().map(read_all);
        let stderr = child.stderr.take().map(read_all);
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it holds BPF programs, which means that it measures, and a little longer.
    #[track_caller]
    pub(crate) fn wait_until_it_measures(&mut self) {
        let start = Instant::now();
        while programs_of(self.pid()).len() < 2 {
            assert!(
                !self.has_ended() && start.elapsed() < patience(),
                "it does not attach"
            );
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(500));
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Sends a signal to the process and all of its group, as a terminal does; it must have been
    /// started as a group's leader.
    pub(crate) fn signal_group(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).expect("the group is there");
    }

    /// Waits until it ends.
    #[track_caller]
    pub(crate) fn finish(mut self, patience: Duration) -> Outcome {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            if start.elapsed() > patience {
                // Otherwise what it printed could not be read to its end.
                let _ = self.child.kill();
                let printed = (self.collect_stdout(), self.collect_stderr());
                panic!("it did not end within {patience:?}: {printed:?}");
            }
            thread::sleep(Duration::from_millis(5));
        };
        Outcome {
            status,
            stdout: self.collect_stdout(),
            stderr: self.collect_stderr(),
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn collect_stdout(&mut self) -> String {
        collect(self.stdout.take())
    }

    fn collect_stderr(&mut self) -> String {
        collect(self.stderr.take())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("it prints UTF-8");
        text
    })
}

fn collect(reader: Option<JoinHandle<String>>) -> String {
    reader.map_or_else(String::new, |reader| {
        reader.join().expect("what it prints can be read")
    })
}

/// Numbers of the BPF programs that a process holds.
pub(crate) fn programs_of(pid: u32) -> Vec<u32> {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return Vec::new();
    };
    let mut programs: Vec<u32> = files
        .filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok())
        .filter_map(|text| {
            let id = text
                .lines()
                .find_map(|line| line.strip_prefix("prog_id:"))?;
            id.trim().parse().ok()
        })
        .collect();
    programs.sort_unstable();
    programs.dedup();
    programs
}

/// Runs the binary to its end.
#[track_caller]
pub(crate) fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    Running::start(schedscope(arguments)).finish(patience())
}

/// A file name that no other test has.
pub(crate) fn scratch_file(suffix: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    directory.join(format!("{}-{number}-{suffix}", std::process::id()))
}

/// A workload that was measured as a command, from its first instruction to its end.
pub(crate) struct Measured {
    /// The report.
    pub(crate) report: Value,
    /// The workload's own truth.
    pub(crate) truth: Value,
}

/// `schedscope attach OPTIONS -- workload NAME ARGUMENTS`; the reason if the host can't do it.
#[track_caller]
pub(crate) fn measure_command(
    options: &[&str],
    name: &str,
    arguments: &[&str],
) -> Result<Measured, String> {
    let file = scratch_file("report.json");
    let mut command = schedscope(["attach", "--output", "json", "--output-file"]);
    command.arg(&file).args(options).arg("--");
    command.arg(workload_program()).arg(name).args(arguments);
    command.args(["--dir", env!("CARGO_TARGET_TMPDIR")]);
    let steal_before_ns = steal_ns();
    let outcome = Running::start(command).finish(patience());
    let steal_ns = match steal_ns() {
        0 => 0,
        // One tick may have begun before, or not be full yet.
        now => now.saturating_sub(steal_before_ns) + TICK_NS,
    };
    let report = std::fs::read_to_string(&file);
    // Nothing depends on its going away.
    let _ = std::fs::remove_file(&file);
    let last_line = outcome.stdout.lines().last().unwrap_or_default();
    let mut truth: Value = serde_json::from_str(last_line)
        .unwrap_or_else(|error| panic!("the workload's truth expected, {error}: {outcome:?}"));
    if truth["event"] == "unavailable" {
        return Err(truth["reason"].as_str().unwrap_or_default().to_owned());
    }
    outcome.expect_code(0);
    let report = report.unwrap_or_else(|error| panic!("no report, {error}: {outcome:?}"));
    let report = serde_json::from_str(&report).expect("the report is JSON");
    super::books::check(&report);
    for thread in truth["threads"].as_array_mut().into_iter().flatten() {
        thread["steal_ns"] = steal_ns.into();
    }
    Ok(Measured { report, truth })
}

/// In such units `/proc/stat` counts.
const TICK_NS: u64 = 10_000_000;

/// What the host of this virtual machine has taken from its CPUs so far, in whole ticks; 0 if it tells of
/// nothing. The kernel's books leave it out of the time that threads ran, where it can
/// (`CONFIG_PARAVIRT_TIME_ACCOUNTING`); for whoever waits for an answer the thread ran.
fn steal_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let steal = text
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(8));
    let ticks: u64 = steal.and_then(|ticks| ticks.parse().ok()).unwrap_or(0);
    ticks * TICK_NS
}

/// Measures until nothing in the report is unknown, three times at the most; the reason if the host
/// can't do it.
///
/// Some hosts hide what the threads of their own agents do (the kernel's own tracing does not show
/// their switches either): whoever runs after one of them comes in unseen, and that is unknown time.
#[track_caller]
pub(crate) fn try_settled(
    measure: impl Fn() -> Result<Measured, String>,
) -> Result<Measured, String> {
    let mut measured = measure()?;
    for _ in 1..3 {
        if measured.report["total"]["time_ns"]["unknown"] == 0 {
            break;
        }
        println!(
            "again, since some time is unknown: {}",
            measured.report["conflicts"]
        );
        measured = measure()?;
    }
    Ok(measured)
}

/// [`try_settled`] with a workload that any host can do.
#[track_caller]
pub(crate) fn settled(measure: impl Fn() -> Result<Measured, String>) -> Measured {
    try_settled(measure).expect("the workload needs nothing special")
}

/// `schedscope attach PID OPTIONS --output json`, with its report.
#[track_caller]
pub(crate) fn measure_process(pid: u32, options: &[&str]) -> Value {
    let pid = pid.to_string();
    let arguments = ["attach", "--output", "json", &pid];
    let outcome = run(arguments.into_iter().chain(options.iter().copied()));
    outcome.expect_code(0);
    let report = outcome.json();
    super::books::check(&report);
    report
}
