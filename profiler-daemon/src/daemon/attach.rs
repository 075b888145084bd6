//! `schedscope attach`: measures a target for a while and reports.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use wildmatch::WildMatch;

use super::config::Stacks;
use super::engine::{Engine, Handle};
use super::gate::{self, Gate};
use super::options;
use super::user_stacks::NamedStacks;
use crate::cli::{Attach, Output};
use crate::core::{Selector, Snapshot, TargetSpec};
use crate::exit::{Exit, Failure};
use crate::identity::{Keeper, Registry};
use crate::sink::json;
use crate::sink::report::{self, Dropped, Report, ReportFacts};
use crate::sink::table::{self, TableOptions};
use crate::sink::text::TextOptions;
use crate::source::{CpuLosses, Losses};

/// Most time between two drains: short enough that the end of a target is noticed soon.
const MAX_INTERVAL: Duration = Duration::from_millis(200);

/// Threads that the table lists; JSON has them all.
const MAX_THREADS: usize = 50;

/// What the user wants to be measured.
enum Target {
    Pid(u32),
    Tid(u32),
    Comm(String),
    Command(Vec<std::ffi::OsString>),
}

impl Target {
    fn of(args: &Attach) -> Result<Self, Failure> {
        match (args.pid, args.tid, &args.comm) {
            (Some(pid), _, _) => Ok(Self::Pid(pid)),
            (_, Some(tid), _) => Ok(Self::Tid(tid)),
            (_, _, Some(comm)) => Ok(Self::Comm(comm.clone())),
            _ if !args.command.is_empty() => Ok(Self::Command(args.command.clone())),
            _ => Err(Failure::usage(
                "no target: give a PID, --tid, --comm, or a command after `--`".to_owned(),
            )),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Pid(_) => "pid",
            Self::Tid(_) => "tid",
            Self::Comm(_) => "comm",
            Self::Command(_) => "command",
        }
    }

    fn value(&self) -> String {
        match self {
            Self::Pid(id) | Self::Tid(id) => id.to_string(),
            Self::Comm(pattern) => pattern.clone(),
            Self::Command(words) => words
                .iter()
                .map(|word| word.to_string_lossy())
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// Fails early, with the right code, where there is nothing to measure.
    fn must_exist(&self) -> Result<(), Failure> {
        let missing = match self {
            Self::Pid(pid) if !is_process(*pid) => match tgid_of(*pid) {
                Some(tgid) => format!(
                    "{pid} is a thread of process {tgid}: give `--tid {pid}` for the thread or {tgid} for the process"
                ),
                None => format!(
                    "no process has the PID {pid}: look it up with `pgrep -a NAME` or measure by name with --comm"
                ),
            },
            Self::Tid(tid) if tgid_of(*tid).is_none() => {
                format!(
                    "no thread has the id {tid}: list a process's threads with `ls /proc/PID/task`"
                )
            }
            _ => return Ok(()),
        };
        Err(Failure::no_target(missing))
    }
}

fn is_process(pid: u32) -> bool {
    tgid_of(pid) == Some(pid)
}

/// The process of a thread, if that exists: /proc shows threads too, under their own ids.
fn tgid_of(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// How the measuring ended.
#[derive(Default)]
struct End {
    notes: Vec<String>,
    command: Option<ExitStatus>,
}

/// Runs the command; the code is that of the command that was started, if one was.
pub fn attach(args: &Attach) -> Result<u8, Failure> {
    let target = Target::of(args)?;
    target.must_exist()?;
    if args.user_stacks && args.probes.stacks == Some(Stacks(None)) {
        return Err(Failure::usage(
            "--user-stacks goes with kernel stacks: leave out `--stacks off`, or give it a time"
                .to_owned(),
        ));
    }
    let mut out = open_output(args.output_file.as_deref())?;
    let gate = match &target {
        Target::Command(command) => Some(Gate::start(command)?),
        _ => None,
    };
    let selector = match (&target, &gate) {
        (Target::Pid(pid), _) => Selector::Pid(*pid),
        (Target::Tid(tid), _) => Selector::Tid(*tid),
        (Target::Comm(pattern), _) => Selector::Comm(WildMatch::new(pattern)),
        (Target::Command(_), gate) => Selector::Command(gate.as_ref().map_or(0, Gate::pid)),
    };
    let spec = TargetSpec {
        name: target.value(),
        selector,
        per_thread: true,
    };
    let options = options::for_attach(&args.probes, args.user_stacks);
    let mut engine =
        Engine::start(&options, vec![spec], MAX_INTERVAL).map_err(options::start_failure)?;
    let waits_for_more = matches!(target, Target::Comm(_) | Target::Command(_));
    if engine.core().alive(0) == 0 && !waits_for_more {
        let (kind, value) = (target.kind(), target.value());
        return Err(Failure::no_target(format!(
            "{kind} {value} ended before anything was seen of it: start it with `schedscope attach -- COMMAND` to see it whole"
        )));
    }
    let start_ns = engine.core().watermark_ns();
    let start_unix_ns = engine.kernel().unix_ns(start_ns);
    let keeper = Keeper::start(Registry::default())?;
    engine.tell(keeper.clone());
    let hidden = engine.hidden();
    if let Some(duration) = args.duration {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        engine.end_at(start_ns.saturating_add(duration_ns));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (measured, mut end) = runtime.block_on(async {
        let (handle, _thread) = engine.spawn()?;
        let end = measure(&handle, args.duration, gate, waits_for_more).await?;
        Ok::<_, anyhow::Error>((handle.ask(Measured::take).await?, end))
    })?;
    let Some(seen) = measured.snapshot.targets.first() else {
        return Err(anyhow::anyhow!("the snapshot has no target").into());
    };
    if let (Some(status), None) = (end.command, seen.exec_ns) {
        // The gate has said why; there is nothing to report.
        return Ok(gate::exit_code(status));
    }
    if hidden > 0 {
        end.notes.push(format!(
            "{hidden} threads of this host are hidden from BPF programs by its kernel: what follows them on \
             a CPU is partly unknown"
        ));
    }
    end.notes.extend(measured.lacks.iter().cloned());
    let culprits = seen.total.detail.culprits.rows().into_iter();
    let tgids: BTreeSet<u32> = culprits
        .map(|(_, who, _)| who.tgid)
        .chain(seen.threads.iter().map(|thread| thread.tgid))
        .filter(|&tgid| tgid != 0)
        .collect();
    let known = keeper.known_now(tgids.into_iter().collect())?;
    let known = |tgid| known.get(&tgid).cloned().unwrap_or_default();
    let report = Report::new(
        &measured.snapshot,
        seen,
        &ReportFacts {
            version: env!("CARGO_PKG_VERSION"),
            start_unix_ns,
            target_kind: target.kind(),
            target_value: &target.value(),
            dropped: &dropped(&measured.losses),
            missed: measured.losses.missed,
            clock_error_ns: Some(measured.clock_error_ns),
            wakeups: measured.wakeups,
            unit_of: &|tgid| known(tgid).unit,
            name_of: &|tgid| known(tgid).name,
            user_stack_of: &|tgid, number| {
                let stack = measured.user_stacks.get(&(tgid, number));
                stack.cloned().unwrap_or_default()
            },
            notes: &end.notes,
            exit: end.command.map(command_end),
        },
    );
    print(&mut out, &report, args)?;
    Ok(end.command.map_or(Exit::Done as u8, gate::exit_code))
}

/// What this host keeps from being known of why threads wait.
fn lacks(engine: &mut Engine) -> Vec<String> {
    let kernel = engine.kernel().lacks().iter();
    let mut lacks: Vec<String> = kernel
        .map(|lack| {
            let reason = lack.reason.lines().next().unwrap_or_default();
            format!("without {}: {} ({reason})", lack.what, lack.consequence)
        })
        .collect();
    if let Some(reason) = engine.symbols_lack() {
        lacks.push(format!(
            "without names of kernel functions: waits are told by their system calls alone ({reason})"
        ));
    }
    lacks
}

/// What the loop has to say at the end.
struct Measured {
    snapshot: Snapshot,
    losses: Losses,
    wakeups: bool,
    clock_error_ns: u64,
    lacks: Vec<String>,
    user_stacks: NamedStacks,
}

impl Measured {
    fn take(engine: &mut Engine) -> Self {
        Self {
            snapshot: engine.finish(),
            losses: engine.kernel().losses(),
            wakeups: engine.kernel().wakeups(),
            clock_error_ns: engine.kernel().clock_error_ns(),
            lacks: lacks(engine),
            user_stacks: engine.take_named_stacks(),
        }
    }
}

pub(super) fn dropped(losses: &Losses) -> Vec<Dropped> {
    let of_cpu = |(cpu, losses): (usize, &CpuLosses)| {
        let cpu = u32::try_from(cpu).unwrap_or(u32::MAX);
        losses.by_kind().map(move |(kind, count)| Dropped {
            cpu,
            kind: kind.name(),
            count,
        })
    };
    losses.cpus.iter().enumerate().flat_map(of_cpu).collect()
}

fn command_end(status: ExitStatus) -> report::Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => report::Exit::Code(code),
        (None, signal) => report::Exit::Signal(signal.unwrap_or(0)),
    }
}

/// Waits for whatever ends the measuring first.
async fn measure(
    handle: &Handle,
    duration: Option<Duration>,
    gate: Option<Gate>,
    waits_for_more: bool,
) -> anyhow::Result<End> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut end = End::default();
    if let Some(gate) = gate {
        // The command gets the terminal's signals too, and decides itself when to end.
        let pid = gate.process();
        let mut command = tokio::task::spawn_blocking(move || gate.open());
        loop {
            tokio::select! {
                status = &mut command => {
                    end.command = Some(status.context("cannot wait for the command")??);
                    return Ok(end);
                }
                _ = interrupt.recv() => end.notes.push("interrupted, and waited for the command to end".to_owned()),
                _ = terminate.recv() => {
                    end.notes.push("told to end, and told the command".to_owned());
                    // It may just have ended.
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        }
    }
    let timer = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = timer => {}
        _ = interrupt.recv() => end.notes.push("interrupted before its time".to_owned()),
        _ = terminate.recv() => end.notes.push("told to end before its time".to_owned()),
        result = target_gone(handle), if !waits_for_more => {
            result?;
            end.notes.push("the target ended".to_owned());
        }
    }
    Ok(end)
}

async fn target_gone(handle: &Handle) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(MAX_INTERVAL).await;
        if handle.ask(|engine| engine.core().alive(0)).await? == 0 {
            return Ok(());
        }
    }
}

fn open_output(path: Option<&Path>) -> Result<Box<dyn Write>, Failure> {
    let Some(path) = path else {
        return Ok(Box::new(std::io::stdout().lock()));
    };
    // Opened first, so that nobody measures for an hour to find that it can't be written.
    let file = File::create(path).map_err(|error| {
        Failure::usage(format!(
            "cannot write {}: {error}; give --output-file a place that can be written",
            path.display()
        ))
    })?;
    Ok(Box::new(file))
}

fn print(mut out: &mut dyn Write, report: &Report, args: &Attach) -> anyhow::Result<()> {
    let style = TableOptions {
        // A file gets no colours, wherever the standard output goes.
        text: match args.output_file {
            Some(_) => TextOptions::PLAIN,
            None => TextOptions::for_stdout(),
        },
        max_threads: MAX_THREADS,
        all: args.view.all,
        worst: args.view.worst,
        explain: args.view.explain,
    };
    let written = match args.output {
        Output::Json => json::write(report, &mut out),
        Output::Table => out.write_all(table::render(report, &style).as_bytes()),
    };
    match written.and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write the report"),
    }
}
