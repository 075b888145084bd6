//! From what was measured to reports, and to where they go.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use anyhow::Context;

use super::measuring::{End, Measured, Session};
use super::targets::Target;
use crate::cli::{Output, Reporting};
use crate::core::TargetSnapshot;
use crate::exit::Failure;
use crate::identity::Known;
use crate::recording::facts::{Facts, Process};
use crate::sink::json;
use crate::sink::report::{self, Dropped, Report};
use crate::sink::table::{self, TableOptions};
use crate::sink::text::TextOptions;
use crate::source::{CpuLosses, Losses, pids};

/// Threads that the table lists; JSON has them all.
const MAX_THREADS: usize = 50;

/// What is known of a run that is over, beside its figures.
pub(super) fn facts(session: &Session, measured: &Measured, end: End) -> Result<Facts, Failure> {
    let End { mut notes, command } = end;
    if session.hidden > 0 {
        notes.push(format!(
            "{} threads of this host are hidden from BPF programs by its kernel: what follows them on a CPU \
             is partly unknown",
            session.hidden
        ));
    }
    if pids::differ() {
        notes.push(renamed(session.targets.list()));
    }
    notes.extend(measured.lacks.iter().cloned());
    let dropped = dropped(&measured.losses).into_iter();
    let stacks = measured.user_stacks.iter();
    Ok(Facts {
        processes: known(session, measured)?
            .into_iter()
            .map(|(tgid, known)| (tgid, process(known)))
            .collect(),
        user_stacks: stacks
            .map(|(&(tgid, number), frames)| (tgid, number, frames.clone()))
            .collect(),
        dropped: dropped
            .map(|its| (its.cpu, its.kind.to_owned(), its.count))
            .collect(),
        missed: measured.losses.missed,
        clock_error_ns: Some(measured.clock_error_ns),
        notes,
        exit: command.map(command_end),
    })
}

/// Says which ids a report has that was made in a PID namespace of its own, and whom it calls otherwise than
/// it was asked for.
fn renamed(targets: &[Target]) -> String {
    let ids = targets.iter().filter_map(|target| match target {
        Target::Pid { pid: id, .. } | Target::Tid(id) => Some(*id),
        _ => None,
    });
    let both = ids.filter_map(|id| Some(format!("{id} is {} here", pids::in_records(id)?)));
    let both: Vec<String> = both.collect();
    let both = if both.is_empty() {
        String::new()
    } else {
        format!(" ({})", both.join(", "))
    };
    format!(
        "ids in this report are the host's, not those of the PID namespace that it was made in{both}; \
         processes outside of that have no units"
    )
}

/// A process as reports name it.
pub(super) fn process(known: Known) -> Process {
    Process {
        unit: known.unit,
        name: known.name,
    }
}

/// All processes that a report may name.
fn known(session: &Session, measured: &Measured) -> Result<HashMap<u32, Known>, Failure> {
    let mut tgids: BTreeSet<u32> = BTreeSet::new();
    for target in &measured.snapshot.targets {
        tgids.extend(processes(target));
    }
    tgids.remove(&0);
    Ok(session.keeper.known_now(tgids.into_iter().collect())?)
}

/// The processes of a target, and those that kept it from a CPU.
pub(super) fn processes(target: &TargetSnapshot) -> impl Iterator<Item = u32> + '_ {
    let culprits = target.total.detail.culprits.rows().into_iter();
    culprits
        .map(|(_, who, _)| who.tgid)
        .chain(target.threads.iter().map(|thread| thread.tgid))
}

/// Records that the rings had no room for.
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

/// Where reports go.
pub(super) struct Printer {
    out: Box<dyn Write>,
    output: Output,
    table: TableOptions,
}

impl Printer {
    /// To this file, or to the standard output. A file is opened at once, so that nobody measures for an
    /// hour to find that it can't be written.
    pub(super) fn open(to: &Reporting) -> Result<Self, Failure> {
        let Reporting {
            output,
            output_file: path,
            view,
        } = to;
        let out: Box<dyn Write> = match path {
            None => Box::new(std::io::stdout()),
            Some(path) => Box::new(File::create(path).map_err(|error| {
                Failure::usage(format!(
                    "cannot write {}: {error}; give --output-file a place that can be written",
                    path.display()
                ))
            })?),
        };
        let table = TableOptions {
            // A file gets no colours, wherever the standard output goes.
            text: match path {
                Some(_) => TextOptions::PLAIN,
                None => TextOptions::for_stdout(),
            },
            max_threads: MAX_THREADS,
            all: view.all,
            worst: view.worst,
            explain: view.explain,
        };
        Ok(Self {
            out,
            output: *output,
            table,
        })
    }

    /// Prints reports: each as a line of JSON of its own, or as tables with an empty line between them.
    pub(super) fn print(&mut self, reports: &[Report]) -> anyhow::Result<()> {
        write_out(|| self.write(reports).and_then(|()| self.out.flush()))
    }

    fn write(&mut self, reports: &[Report]) -> std::io::Result<()> {
        for (number, report) in reports.iter().enumerate() {
            match self.output {
                Output::Json => json::write(report, &mut self.out)?,
                Output::Table => {
                    if number > 0 {
                        self.out.write_all(b"\n")?;
                    }
                    self.out
                        .write_all(table::render(report, &self.table).as_bytes())?;
                }
            }
        }
        Ok(())
    }
}

/// Writes what somebody reads, who may have seen enough.
pub(super) fn write_out(write: impl FnOnce() -> std::io::Result<()>) -> anyhow::Result<()> {
    match write() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write the report"),
    }
}
