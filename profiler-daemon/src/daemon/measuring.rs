//! Measures targets: from the start of the probes to whatever ends it first.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use profiler_ebpf::{Clock, WIRE_VERSION};
use rustix::process::{Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::engine::{Engine, Handle};
use super::gate::Gate;
use super::options;
use super::targets::{Target, Targets};
use super::user_stacks::NamedStacks;
use crate::core::Snapshot;
use crate::exit::Failure;
use crate::identity::{Keeper, Registry, keeper::LEARN_EVERY};
use crate::recording::{self, Header, Tape};
use crate::source::{Losses, Options, pids};

/// Most time between two drains: short enough that the end of a target is noticed soon.
const MAX_INTERVAL: Duration = Duration::from_millis(200);

/// How the measuring ended.
#[derive(Debug, Default)]
pub(super) struct End {
    /// What the reader of a report should know about it.
    pub(super) notes: Vec<String>,
    /// How the command ended, if one was started.
    pub(super) command: Option<ExitStatus>,
}

/// A measuring under way.
pub(super) struct Session {
    /// What is measured, in the order of the snapshot's targets.
    pub(super) targets: Targets,
    /// Asks the loop between kernel and core.
    pub(super) handle: Handle,
    /// Knows the processes.
    pub(super) keeper: Keeper,
    /// Which run it is.
    pub(super) header: Header,
    /// Threads that the kernel shows to no BPF program.
    pub(super) hidden: usize,
    duration: Option<Duration>,
    gate: Option<Gate>,
    stop: Stop,
}

/// Who tells the measuring to end before its time.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    /// From here on neither signal ends the process by itself.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

impl Session {
    /// Attaches the probes and begins the window. It ends after `duration`, if there is one. What the core
    /// is given goes to the tape, too. Needs to be called within a runtime.
    pub(super) fn begin(
        targets: Targets,
        registry: Registry,
        options: &Options,
        duration: Option<Duration>,
        tape: Option<Tape>,
    ) -> Result<Self, Failure> {
        // First: whoever is interrupted while the probes are attached ends with a report as well.
        let stop = Stop::listen()?;
        let gate = match targets.command() {
            Some(command) => Some(Gate::start(command)?),
            None => None,
        };
        let specs = targets.specs(gate.as_ref());
        let keeper = Keeper::start(registry)?;
        let mut engine = Engine::start_recorded(options, specs.clone(), MAX_INTERVAL, tape)
            .map_err(options::start_failure)?;
        if let Some(gone) = vanished(&targets, &mut engine) {
            return Err(Failure::no_target(format!(
                "{} {} ended before anything was seen of it: start it with `schedscope attach -- COMMAND` to see it whole",
                gone.kind(),
                gone.value()
            )));
        }
        let start_ns = engine.core().watermark_ns();
        let header = header(&mut engine, targets.named(specs), start_ns);
        if let Some(tape) = engine.tape() {
            tape.header(header.clone());
        }
        engine.tell(keeper.clone());
        if let Some(duration) = duration {
            let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            engine.end_at(start_ns.saturating_add(duration_ns));
        }
        let hidden = engine.hidden();
        // It ends with the last handle.
        let (handle, _thread) = engine.spawn()?;
        Ok(Self {
            targets,
            handle,
            keeper,
            header,
            hidden,
            duration,
            gate,
            stop,
        })
    }

    /// Lets the command begin, if there is one, and waits for whatever ends the measuring first.
    pub(super) async fn ended(&mut self) -> anyhow::Result<End> {
        let Self {
            targets,
            handle,
            keeper,
            duration,
            gate,
            stop,
            ..
        } = self;
        let gate = gate.take();
        tokio::select! {
            end = async {
                match gate {
                    Some(gate) => command_ends(gate, stop).await,
                    None => time_is_up(targets, handle, *duration, stop).await,
                }
            } => end,
            error = follow_groups(targets, handle, keeper) => Err(error),
        }
    }

    /// Takes in what there still is, and says all that was seen.
    pub(super) async fn finish(&self) -> anyhow::Result<Measured> {
        Ok(self.handle.ask(Measured::take).await?)
    }
}

async fn time_is_up(
    targets: &Targets,
    handle: &Handle,
    duration: Option<Duration>,
    stop: &mut Stop,
) -> anyhow::Result<End> {
    let timer = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let count = targets.list().len();
    let mut end = End::default();
    tokio::select! {
        () = timer => {}
        _ = stop.interrupt.recv() => end.notes.push("interrupted before its time".to_owned()),
        _ = stop.terminate.recv() => end.notes.push("told to end before its time".to_owned()),
        result = targets_gone(handle, count), if !targets.waits_for_more() => {
            result?;
            let ended = match count {
                1 => "the target ended",
                _ => "the targets ended",
            };
            end.notes.push(ended.to_owned());
        }
    }
    Ok(end)
}

async fn targets_gone(handle: &Handle, targets: usize) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(MAX_INTERVAL).await;
        let alive = move |engine: &mut Engine| (0..targets).any(|t| engine.core().alive(t) > 0);
        if !handle.ask(alive).await? {
            return Ok(());
        }
    }
}

/// Has processes counted that come to a unit, a control group or a container by another way than by
/// birth. Ends only by an error.
async fn follow_groups(targets: &Targets, handle: &Handle, keeper: &Keeper) -> anyhow::Error {
    let (numbers, selections) = targets.groups();
    if numbers.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LEARN_EVERY).await;
        let members = match keeper.select(selections.clone()).await {
            Ok(members) => members,
            Err(error) => return error.into(),
        };
        let members: Vec<_> = numbers.iter().copied().zip(members).collect();
        let join = move |engine: &mut Engine| {
            for (target, tgids) in &members {
                engine.join(*target, tgids);
            }
        };
        if let Err(error) = handle.ask(join).await {
            return error.into();
        }
    }
}

/// Which run this is, and of what.
pub(super) fn header(
    engine: &mut Engine,
    targets: Vec<recording::facts::Target>,
    start_ns: u64,
) -> Header {
    let host = rustix::system::uname();
    let kernel = engine.kernel();
    Header {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wire_version: WIRE_VERSION,
        arch: std::env::consts::ARCH.to_owned(),
        host: host.nodename().to_string_lossy().into_owned(),
        boot_id: boot_id(),
        kernel: host.release().to_string_lossy().into_owned(),
        cpus: kernel.cpus(),
        clock: match kernel.clock() {
            Clock::RunQueue => "run-queue",
            Clock::Monotonic => "monotonic",
        }
        .to_owned(),
        start_unix_ns: kernel.unix_ns(start_ns),
        start_ns,
        wakeups: kernel.wakeups(),
        targets,
    }
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// A target that was there when it was looked for, and has ended since. (What is in another target, too,
/// is there.)
fn vanished<'a>(targets: &'a Targets, engine: &mut Engine) -> Option<&'a Target> {
    let core = engine.core();
    let is_gone = |target: &&Target| match target {
        Target::Pid { pid: tid, .. } | Target::Tid(tid) => !core.is_alive(pids::wanted(*tid)),
        _ => false,
    };
    targets.list().iter().find(is_gone)
}

/// Opens the gate, and waits for the command to end.
async fn command_ends(gate: Gate, stop: &mut Stop) -> anyhow::Result<End> {
    let mut end = End::default();
    // The command gets the terminal's signals too, and decides itself when to end.
    let pid = gate.process();
    let mut command = tokio::task::spawn_blocking(move || gate.open());
    loop {
        tokio::select! {
            status = &mut command => {
                end.command = Some(status.context("cannot wait for the command")??);
                return Ok(end);
            }
            _ = stop.interrupt.recv() => end.notes.push("interrupted, and waited for the command to end".to_owned()),
            _ = stop.terminate.recv() => {
                end.notes.push("told to end, and told the command".to_owned());
                // It may just have ended.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }
}

/// What the loop has to say at the end.
pub(super) struct Measured {
    /// All figures.
    pub(super) snapshot: Snapshot,
    /// What was lost.
    pub(super) losses: Losses,
    /// How far the clocks of two CPUs may be apart.
    pub(super) clock_error_ns: u64,
    /// What this host keeps from being known of why threads wait.
    pub(super) lacks: Vec<String>,
    /// Where in their programs threads waited.
    pub(super) user_stacks: NamedStacks,
}

impl Measured {
    fn take(engine: &mut Engine) -> Self {
        Self {
            snapshot: engine.finish(),
            losses: engine.kernel().losses(),
            clock_error_ns: engine.kernel().clock_error_ns(),
            lacks: lacks(engine),
            user_stacks: engine.take_named_stacks(),
        }
    }
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
