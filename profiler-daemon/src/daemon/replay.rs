//! `schedscope report`: reads a recording and reports, as the run itself did.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wildmatch::WildMatch;

use super::progress::Progress;
use super::reporting::Printer;
use super::travel;
use crate::cli::{Choice, ReportOn};
use crate::core::{Core, Selector, Snapshot, TargetSpec};
use crate::exit::{Exit, Failure};
use crate::recording::facts::{Process, Target};
use crate::recording::{Damage, Facts, Header, OpenError, Part, Reader, Replay, Watched};
use crate::sink::report::Report;
use crate::sink::text;

/// Runs the command.
pub fn report(args: &ReportOn) -> Result<u8, Failure> {
    if args.screen {
        return travel::travel(args);
    }
    // Before a file is overwritten with a report on nothing.
    let recorded = Recorded::read(&args.file, &args.choice)?;
    let mut printer = Printer::open(&args.reporting)?;
    printer.print(&recorded.reports())?;
    Ok(recorded.tell_damage())
}

/// What is in a recording on some targets.
pub(super) struct Recorded {
    path: PathBuf,
    header: Header,
    targets: Vec<Target>,
    snapshot: Snapshot,
    facts: Facts,
    damage: Damage,
}

impl Recorded {
    /// Reads a file to its end, or as far as it is whole.
    pub(super) fn read(path: &Path, choice: &Choice) -> Result<Self, Failure> {
        let opened = Opened::new(path, choice)?;
        let (header, targets) = (opened.header.clone(), opened.targets.clone());
        let (core, facts, damage) = opened.replay(true, |replay| replay)?;
        Ok(Self {
            path: path.to_owned(),
            targets,
            snapshot: core.snapshot(),
            header,
            facts,
            damage,
        })
    }

    /// A report for each target.
    pub(super) fn reports(&self) -> Vec<Report> {
        self.facts
            .reports(&self.header, &self.targets, &self.snapshot)
    }

    /// Says what is missing of the file, if anything is; returns the exit code.
    pub(super) fn tell_damage(&self) -> u8 {
        tell_damage(&self.path, &self.damage)
    }
}

/// Says what is missing of a file, if anything is; returns the exit code.
pub(super) fn tell_damage(path: &Path, damage: &Damage) -> u8 {
    if !damage.is_any() {
        return Exit::Done as u8;
    }
    let path = path.display();
    eprintln!("schedscope: {path} is damaged: {}", describe(damage));
    Exit::Damaged as u8
}

/// A recording that is about to be read.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    reader: Reader<File>,
    pub(super) header: Header,
    pub(super) targets: Vec<Target>,
    is_as_recorded: bool,
    window_ns: Range<u64>,
    progress: Progress,
}

impl Opened {
    /// With those targets and that window that are chosen.
    pub(super) fn new(path: &Path, choice: &Choice) -> Result<Self, Failure> {
        let reader = open(path)?;
        let header = reader.header().clone();
        let chosen = chosen(path, choice)?;
        Ok(Self {
            path: path.to_owned(),
            is_as_recorded: chosen.is_none(),
            targets: chosen.unwrap_or_else(|| header.targets.clone()),
            window_ns: window(&header, choice)?,
            header,
            reader,
            progress: Progress::start(),
        })
    }

    /// Without telling how far it was read.
    pub(super) fn quietly(self) -> Self {
        Self {
            progress: Progress::off(),
            ..self
        }
    }

    /// Gives it to a core, with figures for each thread or only for targets.
    pub(super) fn replay<'a>(
        mut self,
        per_thread: bool,
        prepare: impl FnOnce(Replay<'a>) -> Replay<'a>,
    ) -> Result<(Core, Facts, Damage), Failure> {
        let spec = |target: &Target| TargetSpec {
            per_thread,
            ..target.spec()
        };
        let watched = Watched {
            specs: self.targets.iter().map(spec).collect(),
            is_as_recorded: self.is_as_recorded,
        };
        let start_ns = self.header.start_ns;
        let replay = Replay::new(&self.header, watched, self.window_ns.clone());
        let mut replay = prepare(replay);
        let read = replay.run(&mut self.reader, |watermark_ns| {
            let reached_ns = watermark_ns.saturating_sub(start_ns);
            self.progress
                .show(|_| format!("reading: {} of the recording", text::duration(reached_ns)));
        });
        read.map_err(|error| unreadable(&self.path, &OpenError::Io(error)))?;
        self.progress.clear();
        let (core, facts) = replay.finish();
        let damage = self.reader.damage();
        if core.watermark_ns() <= self.window_ns.start.max(start_ns) {
            return Err(empty(&self.path, &self.header, core.watermark_ns(), damage));
        }
        // What is missing of a damaged file may have had them.
        if !self.is_as_recorded && !damage.is_any() {
            self.expect_all(&core.snapshot())?;
        }
        Ok((core, facts, damage))
    }

    /// A target that was asked for has threads in the recording.
    fn expect_all(&self, snapshot: &Snapshot) -> Result<(), Failure> {
        let mut found = self.targets.iter().zip(&snapshot.targets);
        match found.find(|(_, its)| its.total.figures.observed_ns() == 0) {
            None => Ok(()),
            Some((target, _)) => Err(Failure::no_target(format!(
                "{} has no thread of --{} {} in the time that was asked for; \
                 `schedscope report {} --host` shows who is in it",
                self.path.display(),
                target.kind,
                target.value,
                self.path.display(),
            ))),
        }
    }
}

pub(super) fn describe(damage: &Damage) -> String {
    let mut parts = Vec::new();
    if damage.bytes > 0 {
        parts.push(format!("{} of it make no sense", text::bytes(damage.bytes)));
    }
    if damage.chunks > 0 {
        parts.push(format!("{} chunks are missing", damage.chunks));
    }
    if damage.records > 0 {
        let records = text::thousands(damage.records);
        parts.push(format!(
            "{records} records at least are lost, and reported as such"
        ));
    }
    if damage.is_unfinished {
        parts.push("it was not ended, or its end is missing".to_owned());
    }
    format!("{}; the report is on what is whole", parts.join(", "))
}

pub(super) fn open(path: &Path) -> Result<Reader<File>, Failure> {
    Reader::open(path).map_err(|error| unreadable(path, &error))
}

pub(super) fn unreadable(path: &Path, error: &OpenError) -> Failure {
    let exit = match error {
        OpenError::Io(_) => Exit::Usage,
        _ => Exit::Damaged,
    };
    Failure::new(exit, anyhow::anyhow!("{}: {error}", path.display()))
}

/// Nothing of the window is there.
fn empty(path: &Path, header: &Header, until_ns: u64, damage: Damage) -> Failure {
    let length = text::duration(until_ns.saturating_sub(header.start_ns));
    let path = path.display();
    if damage.is_any() {
        let what = describe(&damage);
        return Failure::new(
            Exit::Damaged,
            anyhow::anyhow!("{path} has no records that could be reported on: {what}"),
        );
    }
    Failure::usage(format!(
        "{path} ends after {length}: give an earlier --from"
    ))
}

/// The time that counts, by the records' clock.
fn window(header: &Header, choice: &Choice) -> Result<Range<u64>, Failure> {
    let at = |after: Duration| {
        let after_ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        header.start_ns.saturating_add(after_ns)
    };
    let window_ns = choice.from.map_or(0, at)..choice.to.map_or(u64::MAX, at);
    if window_ns.is_empty() {
        return Err(Failure::usage(
            "--to is not after --from: both count from the beginning of the recording".to_owned(),
        ));
    }
    Ok(window_ns)
}

/// The targets that are asked for in place of those of the recording.
fn chosen(path: &Path, choice: &Choice) -> Result<Option<Vec<Target>>, Failure> {
    let target = |kind: &str, value: String, selector| Target {
        kind: kind.to_owned(),
        value,
        selector,
    };
    let mut targets: Vec<Target> = Vec::new();
    let tids = choice.tid.iter();
    targets.extend(tids.map(|&tid| target("tid", tid.to_string(), Selector::Tid(tid))));
    let pids = choice.pid.iter();
    targets.extend(pids.map(|&pid| target("pid", pid.to_string(), Selector::Pid(pid))));
    let globs = choice.comm.iter();
    targets.extend(
        globs.map(|glob| target("comm", glob.clone(), Selector::Comm(WildMatch::new(glob)))),
    );
    if !choice.unit.is_empty() {
        let facts = facts(path)?;
        for glob in &choice.unit {
            let members = members(&facts, glob);
            if members.is_empty() {
                return Err(Failure::no_target(format!(
                    "no process in {} belongs to a unit {glob}; `schedscope report {} --host` shows the units",
                    path.display(),
                    path.display()
                )));
            }
            targets.push(target("unit", glob.clone(), Selector::Tree(members)));
        }
    }
    if choice.host {
        targets.push(target("host", String::new(), Selector::All));
    }
    Ok((!targets.is_empty()).then_some(targets))
}

/// Goes through all that is whole of a recording, before a core is given it.
pub(super) fn each_part(
    path: &Path,
    what: &str,
    mut take: impl FnMut(Part),
) -> Result<Header, Failure> {
    let mut reader = open(path)?;
    let mut progress = Progress::start();
    let failed = |error| unreadable(path, &OpenError::Io(error));
    while let Some(part) = reader.next_part().map_err(failed)? {
        take(part);
        progress.show(|elapsed| format!("{}: {what}, {} s", path.display(), elapsed.as_secs()));
    }
    Ok(reader.header().clone())
}

/// What is known of a recording beside its records: it stands behind them.
pub(super) fn facts(path: &Path) -> Result<Facts, Failure> {
    open(path)?
        .into_facts()
        .map_err(|error| unreadable(path, &OpenError::Io(error)))
}

/// The processes that belong to such a unit. Those that a former list had are in the last one, too.
fn members(facts: &Facts, glob: &str) -> BTreeSet<u32> {
    let (whole, service) = (
        WildMatch::new(glob),
        WildMatch::new(&format!("{glob}.service")),
    );
    let is_member =
        |process: &Process| whole.matches(&process.unit) || service.matches(&process.unit);
    let processes = facts.processes.iter();
    processes
        .filter_map(|(&tgid, process)| is_member(process).then_some(tgid))
        .collect()
}
