//! Starts a workload's threads and helper processes together, says who they are, ends them at the
//! same time and gathers their truths.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Pid;
use rustix::thread::CpuSet;
use serde_json::{Map, Value, json};

use crate::options::Options;
use crate::truth::{Expect, Meter};

/// How much longer than asked a workload may take before it is given up.
const GRACE: Duration = Duration::from_secs(15);

/// This host can't do what the workload needs; not a failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unavailable(pub(crate) String);

/// Tells the threads when to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether the time is over; cheap enough for a switch storm.
    pub(crate) fn due(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A flag that one thread of a workload raises for another.
pub(crate) type Flag = Arc<AtomicBool>;

/// A thread's truth.
type Outcome = Result<Value>;

/// What is done when the last thread has ended.
type Closing = Box<dyn FnOnce() -> Result<Map<String, Value>>>;

/// The threads and processes of one workload.
pub(crate) struct Crew {
    /// What the user asked for.
    pub(crate) options: Options,
    name: &'static str,
    stop: Stop,
    gate: Arc<AtomicBool>,
    members: Vec<Value>,
    threads: Vec<thread::JoinHandle<()>>,
    truths: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    helpers: Vec<Helper>,
    closing: Vec<Closing>,
    facts: Map<String, Value>,
}

impl Crew {
    /// A crew without members.
    pub(crate) fn new(name: &'static str, options: Options) -> Self {
        Self {
            options,
            name,
            stop: Stop::default(),
            gate: Arc::default(),
            members: Vec::new(),
            threads: Vec::new(),
            truths: mpsc::channel(),
            helpers: Vec::new(),
            closing: Vec::new(),
            facts: Map::new(),
        }
    }

    /// Adds a thread on the CPU that the user named, if any.
    pub(crate) fn thread<F>(&mut self, name: &str, expect: Expect, body: F) -> Result<u32>
    where
        F: FnOnce(&mut Meter, &Stop) -> Result<()> + Send + 'static,
    {
        self.thread_on(self.options.cpu, name, expect, body)
    }

    /// Adds a thread on the given CPU, and tells its id. Its body runs when all are there.
    pub(crate) fn thread_on<F>(
        &mut self,
        cpu: Option<usize>,
        name: &str,
        expect: Expect,
        body: F,
    ) -> Result<u32>
    where
        F: FnOnce(&mut Meter, &Stop) -> Result<()> + Send + 'static,
    {
        ensure!(
            name.len() < 16,
            "a thread's name has at most 15 bytes, '{name}' has more"
        );
        let (stop, gate, outcomes) = (
            self.stop.clone(),
            Arc::clone(&self.gate),
            self.truths.0.clone(),
        );
        let (say_tid, hear_tid) = mpsc::channel();
        let named = name.to_owned();
        let handle = thread::Builder::new()
            .name(named.clone())
            .spawn(move || {
                let outcome = (|| {
                    if let Some(cpu) = cpu {
                        pin(cpu)?;
                    }
                    // The receiver lives until the thread has spoken.
                    say_tid.send(own_tid()).context("the crew has gone")?;
                    while !gate.load(Ordering::Acquire) {
                        thread::park();
                    }
                    let mut meter = Meter::start(&named, expect)?;
                    body(&mut meter, &stop).with_context(|| format!("thread '{named}'"))?;
                    Ok(serde_json::to_value(meter.finish()?)?)
                })();
                // If the crew has gone, so has the process, nearly.
                let _ = outcomes.send(outcome);
            })
            .with_context(|| format!("starting thread '{name}'"))?;
        let Ok(tid) = hear_tid.recv() else {
            match self.truths.1.recv_timeout(GRACE) {
                Ok(Err(error)) => return Err(error),
                _ => bail!("thread '{name}' ended before it began"),
            }
        };
        self.threads.push(handle);
        self.members
            .push(json!({ "name": name, "pid": std::process::id(), "tid": tid }));
        Ok(tid)
    }

    /// Adds a process: this program again, with the workload and options given. It ends when the
    /// crew does, and its threads' truths become the crew's. Tells the id of its first named thread.
    pub(crate) fn process(&mut self, arguments: &[&str]) -> Result<Process> {
        let mut helper = Helper::start(arguments)?;
        let ready = helper.line()?;
        let members = ready.get("threads").and_then(Value::as_array);
        self.members.extend(members.into_iter().flatten().cloned());
        let tid = ready.pointer("/threads/0/tid").and_then(Value::as_u64);
        let process = Process {
            pid: as_pid(helper.child.id().into())?,
            tid: as_pid(tid.context("the helper process named no thread")?)?,
        };
        self.helpers.push(helper);
        Ok(process)
    }

    /// Says something that is true of the whole workload.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Does something after the last thread has ended, and keeps what it says as facts.
    pub(crate) fn at_end(
        &mut self,
        closing: impl FnOnce() -> Result<Map<String, Value>> + 'static,
    ) {
        self.closing.push(Box::new(closing));
    }

    /// Raises the stop flag when standard input ends, however the parent ends.
    fn end_with_stdin(&self) -> Result<()> {
        let signal = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal)
            .context("asking to be killed with the parent")?;
        let stop = self.stop.clone();
        thread::Builder::new()
            .name("stdin-watch".to_owned())
            .spawn(move || {
                // An error ends the input as well as its end does.
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                stop.0.store(true, Ordering::Relaxed);
            })
            .context("starting the thread that watches stdin")?;
        Ok(())
    }

    /// Lets all start, prints the ready line, waits for the end and prints the truth.
    pub(crate) fn run(mut self) -> Result<()> {
        let pid = std::process::id();
        let duration = if self.options.helper {
            self.end_with_stdin()?;
            Duration::from_hours(1)
        } else {
            self.options.duration
        };
        let ready =
            json!({ "event": "ready", "workload": self.name, "pid": pid, "threads": self.members });
        self.gate.store(true, Ordering::Release);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        let start = Instant::now();
        say(&ready)?;

        let mut truths = Vec::with_capacity(self.threads.len());
        while truths.len() < self.threads.len() {
            let limit = if self.stop.due() {
                duration + GRACE
            } else {
                duration
            };
            match self
                .truths
                .1
                .recv_timeout(limit.saturating_sub(start.elapsed()))
            {
                Ok(truth) => truths.push(truth?),
                Err(_) if !self.stop.due() => self.stop.0.store(true, Ordering::Relaxed),
                Err(_) => bail!(
                    "{} of {} threads of '{}' did not end within {GRACE:?} after the time was over",
                    self.threads.len() - truths.len(),
                    self.threads.len(),
                    self.name
                ),
            }
        }
        for helper in self.helpers {
            truths.extend(helper.finish()?);
        }
        for closing in self.closing {
            self.facts.append(&mut closing()?);
        }
        say(&json!({
            "event": "truth",
            "workload": self.name,
            "pid": pid,
            "threads": truths,
            "facts": self.facts,
        }))
    }
}

/// The ids of a process of the crew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// Its first named thread, which is not its main thread.
    pub(crate) tid: Pid,
}

/// A process of the crew.
struct Helper {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Helper {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = own_program()?
            .args(arguments)
            .arg("--helper")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the helper process '{arguments:?}'"))?;
        let lines = child.stdout.take().context("the helper has no stdout")?;
        Ok(Self {
            child,
            lines: BufReader::new(lines),
        })
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .context("reading what the helper process says")?;
        serde_json::from_str(&line)
            .with_context(|| format!("a line of JSON expected from the helper, got '{line}'"))
    }

    fn finish(mut self) -> Result<Vec<Value>> {
        drop(self.child.stdin.take());
        let truth = self.line()?;
        let status = self
            .child
            .wait()
            .context("waiting for the helper process")?;
        ensure!(status.success(), "the helper process failed: {status}");
        let threads = truth.get("threads").and_then(Value::as_array);
        threads
            .cloned()
            .with_context(|| format!("threads expected in the helper's truth, got '{truth}'"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail only if the process has been reaped, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Turns a number into an id as the kernel's calls want it.
fn as_pid(id: u64) -> Result<Pid> {
    i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{id} is no process or thread id"))
}

/// This program, to be started once more.
pub(crate) fn own_program() -> Result<Command> {
    Ok(Command::new(
        std::env::current_exe().context("finding this program's own file")?,
    ))
}

/// Binds the calling thread to one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    ensure!(
        cpu < CpuSet::MAX_CPU,
        "CPU {cpu} does not exist; the largest number is {}",
        CpuSet::MAX_CPU - 1
    );
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus)
        .with_context(|| format!("binding a thread to CPU {cpu}; /proc/cpuinfo lists the CPUs"))
}

/// Numbers of the CPUs that this process may use, lowest first.
pub(crate) fn allowed_cpus() -> Result<Vec<usize>> {
    let cpus = rustix::thread::sched_getaffinity(None).context("reading the allowed CPUs")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|cpu| cpus.is_set(*cpu))
        .collect())
}

/// The calling thread's id.
pub(crate) fn own_tid() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

/// Prints one line of JSON at once.
pub(crate) fn say(line: &Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").context("writing to stdout")?;
    stdout.flush().context("writing to stdout")
}
