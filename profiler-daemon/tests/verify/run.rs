//! Starting what is measured, who measures, and others who measure the same.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stolen::{Stolen, Watch};

/// Longest time that a run may take beyond what it measures.
const PATIENCE: Duration = Duration::from_secs(40);

/// Exit code of a workload that this host can't do.
const UNAVAILABLE: i32 = 77;

/// This can't be done on this host, for this reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unable(pub(crate) String);

/// Where the programs are, and how long to measure.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) schedscope: PathBuf,
    pub(crate) workload: PathBuf,
    /// For files.
    pub(crate) dir: PathBuf,
    /// How long each workload runs.
    pub(crate) time: Duration,
}

/// A workload that was measured from its first instruction to its end.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) report: Value,
    /// The workload's own truth.
    pub(crate) truth: Value,
    /// Everything that it printed.
    pub(crate) stdout: String,
    /// Our table of spans.
    pub(crate) csv: String,
    /// What was taken from the CPUs meanwhile.
    pub(crate) stolen: Stolen,
}

impl Bench {
    /// A peer, from where a variable says that it is, or from the search path.
    pub(crate) fn peer(program: &str) -> Result<PathBuf> {
        let variable = format!("SCHEDSCOPE_{}", program.to_uppercase());
        if let Some(path) = std::env::var_os(&variable) {
            return Ok(path.into());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|dir| dir.join(program))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                Unable(format!(
                    "there is no '{program}': neither {variable} nor PATH names it"
                ))
                .into()
            })
    }

    /// A file of this run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir
            .join(format!("verify-{}-{name}", std::process::id()))
    }

    /// The workload's command line.
    pub(crate) fn workload(&self, name: &str, arguments: &[&str]) -> Vec<String> {
        let time = format!("{}ms", self.time.as_millis());
        let dir = self.dir.display().to_string();
        let program = self.workload.display().to_string();
        let head = [&*program, name, "--dir", &dir, "--duration", &time];
        head.iter()
            .chain(arguments)
            .map(|&word| word.to_owned())
            .collect()
    }

    /// Measures a command of ours as `before... schedscope attach -- command`.
    pub(crate) fn measure(&self, before: &[&OsStr], command: &[String]) -> Result<Measured> {
        let (report, csv) = (self.file("report.json"), self.file("spans.csv"));
        let schedscope = self.schedscope.as_os_str();
        let mut words = before.iter().copied().chain([schedscope]);
        let mut run = Command::new(words.next().unwrap_or(schedscope));
        run.args(words)
            .args(["attach", "--output", "json", "--output-file"])
            .arg(&report)
            .arg(format!("--export=csv={}", csv.display()))
            .arg("--")
            .args(command);
        let watch = Watch::start();
        let outcome = finish(run, self.time + PATIENCE);
        let stolen = watch.finish();
        let report_text = take(&report);
        let csv_text = take(&csv);
        let (code, stdout, stderr) = outcome?;
        let truth = stdout.lines().rev().find_map(|line| {
            let value: Value = serde_json::from_str(line).ok()?;
            value["event"].is_string().then_some(value)
        });
        let truth = truth.unwrap_or_default();
        if truth["event"] == "unavailable" {
            return Err(Unable(truth["reason"].as_str().unwrap_or_default().to_owned()).into());
        }
        ensure!(
            code == Some(0),
            "measuring {command:?} ended with {code:?}: {stderr}"
        );
        let report = report_text.context("there is no report")?;
        Ok(Measured {
            report: serde_json::from_str(&report).context("the report is not JSON")?,
            truth,
            stdout,
            csv: csv_text.unwrap_or_default(),
            stolen,
        })
    }

    /// Measures a process that is there, for the time of this run: the report, and the table of spans.
    pub(crate) fn window(&self, pid: u32) -> Result<(Value, String)> {
        let mut run = Command::new(&self.schedscope);
        let time = format!("{}ms", self.time.as_millis());
        let csv = self.file("spans.csv");
        run.args(["attach", "--output", "json", "--duration", &time])
            .arg(format!("--export=csv={}", csv.display()))
            .arg(pid.to_string());
        let outcome = finish(run, self.time + PATIENCE);
        let csv = take(&csv);
        let (code, stdout, stderr) = outcome?;
        ensure!(
            code == Some(0),
            "measuring {pid} ended with {code:?}: {stderr}"
        );
        let report = serde_json::from_str(&stdout).context("the report is not JSON")?;
        Ok((report, csv.context("there is no table of spans")?))
    }

    /// Starts a workload that lasts as long as it takes to measure it.
    pub(crate) fn start(&self, name: &str, arguments: &[&str]) -> Result<Started> {
        let mut run = Command::new(&self.workload);
        let dir = self.dir.display().to_string();
        run.args([name, "--duration", "1200s", "--dir", &dir])
            .args(arguments);
        let mut started = Started::start(run)?;
        let line = started.line()?;
        let ready: Value = serde_json::from_str(&line)
            .with_context(|| format!("a line of JSON expected of '{name}', got '{line}'"))?;
        if ready["event"] == "unavailable" {
            let _ = started.child.wait();
            return Err(Unable(ready["reason"].as_str().unwrap_or_default().to_owned()).into());
        }
        started.ready = ready;
        Ok(started)
    }
}

/// Reads a file and removes it.
fn take(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok();
    // Nothing depends on its going away.
    let _ = std::fs::remove_file(path);
    text
}

/// Runs a command to its end: exit code and what it printed.
pub(crate) fn finish(
    mut command: Command,
    patience: Duration,
) -> Result<(Option<i32>, String, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for it")? {
            break Some(status);
        }
        if start.elapsed() > patience {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status {
        Some(status) => Ok((status.code(), stdout, stderr)),
        None => bail!("{command:?} did not end within {patience:?}: {stderr}"),
    }
}

fn read_all(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read until then is what there is.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A program that runs beside; killed when dropped.
pub(crate) struct Started {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// Of a workload: who its threads are.
    pub(crate) ready: Value,
}

impl Started {
    /// Starts it, to read what it prints.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let stdout = child.stdout.take().context("it has no standard output")?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout),
            ready: Value::Null,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The id of the thread with this name.
    pub(crate) fn tid(&self, name: &str) -> Result<u32> {
        let threads = self.ready["threads"].as_array().into_iter().flatten();
        let found = threads
            .filter(|thread| thread["name"] == name)
            .find_map(|thread| thread["tid"].as_u64());
        found
            .and_then(|tid| u32::try_from(tid).ok())
            .with_context(|| format!("a thread '{name}' expected in {}", self.ready))
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .context("reading what it prints")?;
        if line.is_empty() {
            let status = self.child.wait().context("waiting for it")?;
            if status.code() == Some(UNAVAILABLE) {
                return Err(Unable("this host can't do it".to_owned()).into());
            }
            bail!("it ended without a word: {status}");
        }
        Ok(line)
    }

    /// Interrupts it, as Ctrl-C does, and tells what it had still to say.
    pub(crate) fn interrupt(mut self) -> Result<String> {
        kill_process(Pid::from_child(&self.child), Signal::INT).context("interrupting it")?;
        let mut text = String::new();
        self.lines
            .read_to_string(&mut text)
            .context("reading what it prints")?;
        self.child.wait().context("waiting for it")?;
        Ok(text)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number of a report or of a truth.
pub(crate) fn number(value: &Value, pointer: &str) -> Result<u64> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("a number expected at {pointer} of {value}"))
}

/// The row of a thread in a report.
pub(crate) fn row_of(report: &Value, tid: u32) -> Result<&Value> {
    let rows = report["threads"].as_array().into_iter().flatten();
    let mut rows = rows.filter(|row| row["tid"] == tid);
    rows.next()
        .with_context(|| format!("thread {tid} is not in the report"))
}

/// The CPUs that this process may use, lowest first.
pub(crate) fn cpus() -> Result<Vec<usize>> {
    let allowed = rustix::thread::sched_getaffinity(None).context("reading the allowed CPUs")?;
    let all = 0..rustix::thread::CpuSet::MAX_CPU;
    Ok(all.filter(|&cpu| allowed.is_set(cpu)).collect())
}
