//! Starts those who watch, waits until they do, and ends them.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::peers::Peers;
use super::plan::{Tool, report_words};
use super::proc;
use crate::process::describe;
use crate::stamp;

/// How long somebody may take to begin: bpftrace compiles.
const BEGIN: Duration = Duration::from_secs(30);
/// How long whoever watches has to have changed nothing to be taken as ready.
const SETTLED: Duration = Duration::from_millis(300);
/// How long somebody may take to end: perf writes its file.
const END: Duration = Duration::from_mins(1);

/// The programs.
pub(super) struct Tools<'a> {
    /// The measured binary.
    pub(super) schedscope: PathBuf,
    pub(super) peers: &'a Peers,
    /// Where files are made; emptied each time.
    pub(super) scratch: PathBuf,
}

/// Somebody who watches; killed when dropped.
pub(super) struct Watching {
    child: Child,
    /// Where the service answers.
    address: Option<SocketAddr>,
    /// Where the report will be.
    report: PathBuf,
    /// Where its errors are.
    errors: PathBuf,
    name: String,
}

/// What somebody of ours says of itself at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Records that came.
    pub(super) events: f64,
    /// Records that were lost.
    pub(super) dropped: f64,
}

impl Tools<'_> {
    /// Starts one, and returns when it watches; an error that is a string is a reason why this host can't.
    pub(super) fn begin(&self, tool: &Tool, pid: u32) -> Result<Result<Watching, String>> {
        stamp::empty(&self.scratch)?;
        let report = self.scratch.join("report.json");
        let mut address = None;
        let mut command = match tool {
            Tool::Service { config } => {
                let free = free_address()?;
                address = Some(free);
                let file = self.scratch.join("config.toml");
                fs::write(&file, config).context("can't write a configuration")?;
                let mut command = Command::new(&self.schedscope);
                command
                    .args(["run", "--listen", &free.to_string(), "--config"])
                    .arg(file);
                command
            }
            Tool::Schedscope { words } => {
                let mut command = Command::new(&self.schedscope);
                let recording = self.scratch.join("recording");
                let words = words.iter().chain(report_words());
                command.args(words.map(|word| {
                    word.replace("{pid}", &pid.to_string())
                        .replace("{file}", &report.to_string_lossy())
                        .replace("{recording}", &recording.to_string_lossy())
                }));
                command
            }
            Tool::Libbpf { program, words } => match self.peers.libbpf(program) {
                Ok(path) => {
                    let mut command = Command::new(path);
                    command.args(*words);
                    command
                }
                Err(reason) => return Ok(Err(reason)),
            },
            Tool::Bpftrace => match (self.peers.bpftrace(), self.peers.runqlat_bt()) {
                (Ok(program), Ok(script)) => {
                    let file = self.scratch.join("runqlat.bt");
                    fs::write(&file, script).context("can't write runqlat.bt")?;
                    let mut command = Command::new(program);
                    command.arg(file);
                    command
                }
                (Err(reason), _) | (_, Err(reason)) => return Ok(Err(reason)),
            },
            Tool::Perf => match self.peers.perf() {
                Ok(path) => {
                    let mut command = Command::new(path);
                    command.args(["sched", "record", "-o"]);
                    command.arg(self.scratch.join("perf.data"));
                    command
                }
                Err(reason) => return Ok(Err(reason)),
            },
        };
        let errors = self.scratch.join("errors");
        let file = File::create(&errors).context("can't create a file for errors")?;
        let name = describe(&command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start `{name}`"))?;
        let watching = Watching {
            child,
            address,
            report,
            errors,
            name,
        };
        Ok(watching.settle())
    }
}

impl Watching {
    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is attached to something, and has had nothing more to do for a while: on a machine that
    /// is busy, to have done nothing is not enough.
    fn settle(mut self) -> Result<Self, String> {
        let start = Instant::now();
        let mut seen = (0, start, 0);
        loop {
            thread::sleep(Duration::from_millis(20));
            let count = proc::attachments(self.pid());
            let (wants, busy_ns) = proc::busy(self.pid());
            let worked_ns = u128::from(busy_ns.saturating_sub(seen.2));
            if wants || count != seen.0 || worked_ns > SETTLED.as_nanos() / 10 {
                seen = (count, Instant::now(), busy_ns);
            }
            if count > 0 && seen.1.elapsed() >= SETTLED && self.answers() {
                return Ok(self);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = self.said();
                return Err(format!("it ended at once ({status}): {said}"));
            }
            if start.elapsed() > BEGIN {
                let limit = BEGIN.as_secs();
                return Err(format!("it was not attached to anything after {limit} s"));
            }
        }
    }

    /// Whether it answers, if it is one who does.
    fn answers(&self) -> bool {
        self.address
            .is_none_or(|address| get(address, "/readyz").is_ok())
    }

    /// The end of what it said on standard error.
    fn said(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        let last = text.lines().last().unwrap_or_default();
        last.chars().take(120).collect()
    }

    /// Ends it; one of ours tells of itself.
    pub(super) fn end(mut self, is_ours: bool) -> Result<Told> {
        let told = match self.address {
            Some(address) => from_metrics(&get(address, "/metrics")?)?,
            None => Told::default(),
        };
        self.signal(Signal::INT);
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().context("can't wait")? {
                break status;
            }
            ensure!(
                start.elapsed() < END,
                "`{}` did not end {} s after SIGINT",
                self.name,
                END.as_secs()
            );
            thread::sleep(Duration::from_millis(10));
        };
        if !is_ours || self.address.is_some() {
            return Ok(told);
        }
        ensure!(
            status.success(),
            "`{}` failed ({status}): {}",
            self.name,
            self.said()
        );
        from_report(&self.report)
    }

    /// What the service says.
    pub(super) fn metrics(&self) -> Result<String> {
        match self.address {
            Some(address) => get(address, "/metrics"),
            None => bail!("`{}` serves nothing", self.name),
        }
    }

    /// Sends a signal to it and to what it started.
    fn signal(&self, signal: Signal) {
        // One that has ended is as good.
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn free_address() -> Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port on loopback")?;
    listener.local_addr().context("a socket has an address")
}

/// Asks a server on loopback; an error unless it says 200.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{path} should be answered with 200, and was with {:?}",
        answer.lines().next().unwrap_or_default()
    );
    Ok(answer)
}

/// The sum of the series of a metric in a scrape.
pub(super) fn metric(text: &str, name: &str) -> f64 {
    let of_series = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = rest
            .strip_prefix(' ')
            .or_else(|| rest.strip_prefix('{')?.rsplit_once("} ").map(|its| its.1))?;
        value.split(' ').next()?.parse::<f64>().ok()
    };
    text.lines().filter_map(of_series).sum()
}

fn from_metrics(text: &str) -> Result<Told> {
    let told = Told {
        events: metric(text, "schedscope_events_total"),
        dropped: metric(text, "schedscope_events_dropped_total"),
    };
    ensure!(told.events > 0.0, "the service says that nothing happened");
    Ok(told)
}

fn from_report(path: &Path) -> Result<Told> {
    let text = fs::read_to_string(path).with_context(|| format!("no report {}", path.display()))?;
    let report: Value = serde_json::from_str(&text).context("a report is JSON")?;
    let loss = |name: &str| report["loss"][name].as_f64();
    match (loss("events"), loss("dropped")) {
        (Some(events), Some(dropped)) => Ok(Told { events, dropped }),
        _ => bail!("a report has `loss.events` and `loss.dropped`"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Told, from_metrics, metric};

    #[test]
    fn series_of_a_metric_are_summed_up() {
        let text = "# TYPE a_total counter\na_total{x=\"}\"} 2\na_total{x=\"b\"} 3 1.5\na_total_b 9\nc 4\n";
        assert!((metric(text, "a_total") - 5.0).abs() < 1e-9);
        assert!((metric(text, "c") - 4.0).abs() < 1e-9);
        let text = "schedscope_events_total{kind=\"switch\"} 7\n\
                    schedscope_events_dropped_total{cpu=\"0\",kind=\"switch\"} 1\n";
        let told = from_metrics(text).expect("something happened");
        assert_eq!(
            told,
            Told {
                events: 7.0,
                dropped: 1.0
            }
        );
        assert!(from_metrics("").is_err());
    }
}
