//! Runs a workload once: held at a gate until somebody watches, then let go and timed.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::plan::{Work, Workload};
use super::proc;
use crate::process::describe;

/// Waits for a line, and becomes what it is told to be.
const PLAIN: &str = "read -r _ && exec \"$@\"";
/// Waits for a line, starts what it is told to, and says what CPU time that and its children took.
const TIMED: &str =
    "read -r _ || exit 1; TIMEFORMAT='cpu %3U %3S'; { time \"$@\" 2>/dev/null; } 2>&1";

/// What a workload's programs are, and how much of it is done.
pub(super) struct Loads {
    /// The project's own workload program.
    pub(super) own: PathBuf,
    /// perf, if there is one.
    pub(super) perf: Result<PathBuf, String>,
    /// Do a tenth of it.
    pub(super) quick: bool,
}

/// One run of a workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Time that passed for each thing done.
    pub(super) wall_ns: f64,
    /// Time of CPUs that the workload took for each thing done.
    pub(super) cpu_ns: f64,
    /// How many things were done.
    pub(super) count: f64,
    /// Switches of the host meanwhile.
    pub(super) switches: f64,
    /// How long it all took.
    pub(super) took_ns: f64,
}

/// A workload that waits at its gate.
pub(super) struct Gated {
    child: Child,
    beside: Vec<Child>,
    work: Work,
    count: u32,
}

impl Loads {
    /// Starts a workload up to its gate; an error that is a string is a reason why this host can't.
    pub(super) fn begin(&self, workload: &Workload) -> Result<Result<Gated, String>> {
        let mut command = Command::new("taskset");
        let cpus = proc::cpus();
        let mask = if workload.pinned {
            (cpus - 1).to_string()
        } else {
            format!("0-{}", cpus - 1)
        };
        let gate = match workload.work {
            Work::Perf { .. } => TIMED,
            _ => PLAIN,
        };
        command.args(["-c", &mask, "bash", "-c", gate, "bash"]);
        let mut count = 0;
        match workload.work {
            Work::Perf {
                words,
                loops,
                loops_flag,
            } => {
                let perf = match &self.perf {
                    Ok(perf) => perf,
                    Err(reason) => return Ok(Err(reason.clone())),
                };
                count = if self.quick { loops / 10 } else { loops };
                command.arg(perf).args(["bench", "-f", "simple", "sched"]);
                command.args(words).args([loops_flag, &count.to_string()]);
            }
            Work::Turns { words, millis } | Work::Idle { words, millis } => {
                let millis = if self.quick { 200 } else { millis };
                command.arg(&self.own).args(words);
                command.args(["--duration", &format!("{millis}ms")]);
            }
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("can't start `{}`", describe(&command)))?;
        let mut gated = Gated {
            child,
            beside: Vec::new(),
            work: workload.work,
            count,
        };
        for words in workload.beside {
            let mut other = Command::new(&self.own);
            other.args(*words).args(["--duration", "60s"]);
            let other = other
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            gated
                .beside
                .push(other.context("can't start what runs beside")?);
        }
        Ok(Ok(gated))
    }
}

impl Gated {
    /// The process, before and after the gate.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens the gate, and waits for the end.
    pub(super) fn run(mut self) -> Result<Run> {
        let before = proc::switches();
        let mut gate = self.child.stdin.take().context("the gate is a pipe")?;
        gate.write_all(b"\n").context("can't open the gate")?;
        drop(gate);
        let mut text = String::new();
        let mut output = self.child.stdout.take().context("the output is a pipe")?;
        output
            .read_to_string(&mut text)
            .context("can't read what a workload says")?;
        let switches = proc::switches().saturating_sub(before) as f64;
        let status = self.child.wait().context("can't wait for a workload")?;
        ensure!(status.success(), "a workload failed ({status}): {text}");
        let (took_ns, cpu_ns, count) = match self.work {
            Work::Perf { .. } => {
                let (took_ns, cpu_ns) = perf_ns(&text)?;
                (took_ns, cpu_ns, f64::from(self.count))
            }
            Work::Turns { .. } | Work::Idle { .. } => truth(&text)?,
        };
        Ok(Run {
            wall_ns: took_ns / count,
            cpu_ns: cpu_ns / count,
            count,
            switches,
            took_ns,
        })
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        for child in self.beside.iter_mut().chain([&mut self.child]) {
            // One that has ended is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        // What has just ended is still being cleared away.
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads the seconds that `perf bench -f simple` says, and the shell's of CPU time: in the program and in the kernel.
fn perf_ns(text: &str) -> Result<(f64, f64)> {
    let read = || {
        let (took, cpu) = text.trim().split_once("\ncpu ")?;
        let (user, system) = cpu.split_once(' ')?;
        let [took, user, system] = [took, user, system].map(|its| its.trim().parse::<f64>().ok());
        Some((took? * 1e9, (user? + system?) * 1e9))
    };
    read().with_context(|| {
        format!("`perf bench` should say a number of seconds, and then its shell two; they said {text:?}")
    })
}

/// Reads the workload's own words: how long its threads ran by the clock, what CPU time they took, and how
/// often they waited.
fn truth(text: &str) -> Result<(f64, f64, f64)> {
    let line = text.lines().last().unwrap_or_default();
    let truth: Value = serde_json::from_str(line)
        .with_context(|| format!("a workload should say the truth, and said {line:?}"))?;
    let threads = truth["threads"].as_array().cloned().unwrap_or_default();
    let number = |thread: &Value, name: &str| thread[name].as_f64().unwrap_or(0.0);
    let sum = |name| threads.iter().map(|its| number(its, name)).sum::<f64>();
    let took_ns = threads
        .iter()
        .map(|its| number(its, "loop_ns"))
        .fold(0.0, f64::max);
    let waits = sum("waits");
    ensure!(waits > 0.0, "a workload did nothing: {line}");
    Ok((took_ns, sum("cpu_ns"), waits))
}

#[cfg(test)]
mod tests {
    use super::{perf_ns, truth};

    #[test]
    fn what_workloads_say_is_read() {
        let (took_ns, cpu_ns) = perf_ns("0.186\ncpu 0.010 0.170\n").expect("numbers");
        assert!((took_ns - 186e6).abs() < 1.0 && (cpu_ns - 180e6).abs() < 1.0);
        assert!(perf_ns("Total time: 1").is_err());
        let text = "{\"event\":\"ready\"}\n{\"threads\":[{\"loop_ns\":100,\"cpu_ns\":40,\"waits\":3},\
                    {\"loop_ns\":90,\"cpu_ns\":50,\"waits\":4}]}\n";
        assert_eq!(truth(text).expect("the truth"), (100.0, 90.0, 7.0));
        assert!(truth("{\"threads\":[]}\n").is_err());
    }
}
