//! `schedscope attach` and `schedscope top`: measure targets or the whole host for a while, show it, and
//! report.

use std::io::Write;
use std::time::Duration;

use super::config::{ProbeFlags, Stacks};
use super::exporting::{Exports, Scratch};
use super::gate;
use super::live::{self, Live};
use super::measuring::{End, Measured, Session};
use super::options;
use super::progress::Progress;
use super::recorder::Recording;
use super::reporting::{self, Printer};
use super::targets::Targets;
use crate::cli::{Attach, Exporting, Output, Reporting, Shown, Top};
use crate::exit::{Exit, Failure};
use crate::identity::Registry;
use crate::sink::screen::About;

/// Runs `attach`; the code is that of the command that was started, if one was.
pub fn attach(args: &Attach) -> Result<u8, Failure> {
    options::learn_ids()?;
    let mut registry = Registry::default();
    let targets = Targets::find(&args.targets, &mut registry)?;
    let wanted = Wanted {
        duration: args.duration,
        user_stacks: args.user_stacks,
        reporting: &args.reporting,
        exporting: &args.exporting,
        shown: args.shown,
        probes: &args.probes,
    };
    wanted.measure(targets, registry, true)
}

/// Runs `top`. After a live screen there is only a report if a file was named for it.
pub fn top(args: &Top) -> Result<u8, Failure> {
    options::learn_ids()?;
    let wanted = Wanted {
        duration: args.duration,
        user_stacks: false,
        reporting: &args.reporting,
        exporting: &args.exporting,
        shown: args.shown,
        probes: &args.probes,
    };
    let reports = args.reporting.output_file.is_some();
    wanted.measure(Targets::host(), Registry::default(), reports)
}

/// How to measure and what to show of it.
struct Wanted<'a> {
    duration: Option<Duration>,
    user_stacks: bool,
    reporting: &'a Reporting,
    exporting: &'a Exporting,
    shown: Shown,
    probes: &'a ProbeFlags,
}

impl Wanted<'_> {
    /// `reports` is whether there is a report even after a live screen.
    fn measure(&self, targets: Targets, registry: Registry, reports: bool) -> Result<u8, Failure> {
        if self.user_stacks && self.probes.stacks == Some(Stacks(None)) {
            return Err(Failure::usage(
                "--user-stacks goes with kernel stacks: leave out `--stacks off`, or give it a time"
                    .to_owned(),
            ));
        }
        let mut printer = Printer::open(self.reporting)?;
        let exports = Exports::open(&self.exporting.export)?;
        let is_host = targets.is_host();
        let options = options::for_attach(self.probes, self.user_stacks);
        let live = if self.has_screen(&targets) {
            let about = About {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                title: targets.title(),
                wakeups: options.wakeups,
            };
            Some(Live::open(about, self.shown.refresh, is_host)?)
        } else {
            None
        };
        let reports = reports || live.is_none();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let context = runtime.enter();
        let (scratch, recorder, tape) = match Scratch::begin(&self.exporting.export)? {
            Some((scratch, recorder, tape)) => (Some(scratch), Some(recorder), Some(tape)),
            None => (None, None, None),
        };
        let mut session = Session::begin(targets, registry, &options, self.duration, tape)?;
        drop(context);
        let mut recording = recorder.map(|recorder| {
            Recording::new(session.handle.clone(), session.keeper.clone(), recorder)
        });
        let (measured, end) = runtime.block_on(async {
            let end = tokio::select! {
                end = self.watch(&mut session, live, is_host) => end?,
                error = keep_gathering(&mut recording) => return Err(error),
            };
            Ok::<_, anyhow::Error>((session.finish().await?, end))
        })?;
        let command = end.command;
        if let Some(status) = command
            && session.targets.list().len() == 1
            && !has_begun(&measured)
        {
            // The gate has said why; there is nothing to report.
            return Ok(gate::exit_code(status));
        }
        let mut facts = reporting::facts(&session, &measured, end)?;
        if let Some(recording) = recording {
            facts = runtime.block_on(recording.finish(facts))?.0;
        }
        if reports {
            let header = &session.header;
            printer.print(&facts.reports(header, &header.targets, &measured.snapshot))?;
        }
        if let Some(scratch) = scratch {
            exports.write(&scratch.path())?;
        }
        Ok(command.map_or(Exit::Done as u8, gate::exit_code))
    }

    /// Whether there is to be a live screen. A command has the terminal to itself.
    fn has_screen(&self, targets: &Targets) -> bool {
        let is_report =
            self.reporting.output == Output::Json && self.reporting.output_file.is_none();
        let is_wanted = !self.shown.no_screen && self.shown.interval.is_none() && !is_report;
        is_wanted && targets.command().is_none() && live::has_terminal()
    }

    /// Shows what is measured until that ends.
    async fn watch(
        &self,
        session: &mut Session,
        live: Option<Live>,
        is_host: bool,
    ) -> anyhow::Result<End> {
        let (handle, keeper) = (session.handle.clone(), session.keeper.clone());
        let has_command = session.targets.command().is_some();
        let shows = async {
            match (live, self.shown.interval) {
                (Some(live), _) => live.run(&handle, &keeper).await,
                (None, Some(every)) => {
                    live::print(&handle, every, is_host, &mut *self.lines()).await
                }
                (None, None) => self.say_how_long(has_command).await,
            }
        };
        tokio::select! {
            end = session.ended() => end,
            seen = shows => seen.map(|()| End::default()),
        }
    }

    /// Says on a terminal how long it has been measuring, unless a command writes to that.
    async fn say_how_long<T>(&self, has_command: bool) -> T {
        let mut progress = if has_command {
            Progress::off()
        } else {
            Progress::start()
        };
        let whole = self.duration.map_or_else(String::new, |whole| {
            format!(" of {}", humantime::format_duration(whole))
        });
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            progress.show(|elapsed| format!("measuring: {} s{whole}", elapsed.as_secs()));
        }
    }

    /// Where lines go: not among a report for programs, nor among what a command prints.
    fn lines(&self) -> Box<dyn Write> {
        match (self.reporting.output, &self.reporting.output_file) {
            (Output::Table, None) => Box::new(std::io::stdout()),
            _ => Box::new(std::io::stderr()),
        }
    }
}

async fn keep_gathering(recording: &mut Option<Recording>) -> anyhow::Error {
    match recording {
        Some(recording) => recording.keep_gathering().await,
        None => std::future::pending().await,
    }
}

/// Whether a command was seen to begin.
fn has_begun(measured: &Measured) -> bool {
    let mut targets = measured.snapshot.targets.iter();
    targets.any(|target| target.exec_ns.is_some())
}
