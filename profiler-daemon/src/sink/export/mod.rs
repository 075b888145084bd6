//! What threads did, in the formats of other programs.
//!
//! An [`Export`] gets what was seen of waits and what threads did, in about the order of time, and at the
//! end the reports. [`csv`], [`parquet`] and [`perfetto`] write while they get it; [`folded`], [`svg`] and [`pprof`] add
//! it up by [`stacks`] first; [`html`] merges it. [`rows`] says which columns tables of spans have.

pub mod csv;
pub mod folded;
pub mod html;
pub mod json;
pub mod parquet;
pub mod perfetto;
pub mod pprof;
pub mod rows;
pub mod stacks;
pub mod svg;

use std::io;

use crate::core::{Comm, Culprit, Doing, Seen, Snapshot, Span, Who};
use crate::recording::{Facts, Header};
use crate::sink::report::Report;

/// A format.
pub trait Export {
    /// Takes in what was seen of waits whose ends are still to come.
    fn seen(&mut self, _waits: &[Seen]) {}

    /// Takes in what a thread did, and who had the CPU if it was queued.
    fn span(&mut self, span: &Span, culprits: &[Culprit]) -> io::Result<()>;

    /// Ends it, with what came of it all.
    fn finish(self: Box<Self>, outcome: &Outcome<'_>) -> io::Result<()>;
}

/// The figures that spans sum to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// All figures.
    pub snapshot: &'a Snapshot,
    /// A report for each target, in their order.
    pub reports: &'a [Report],
}

/// The run that an export is of.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Which one.
    pub header: &'a Header,
    /// What no record of it carries.
    pub facts: &'a Facts,
}

impl<'a> Run<'a> {
    /// The unit of a process; empty if it is not known.
    fn unit(self, tgid: u32) -> &'a str {
        let process = self.facts.processes.get(&tgid);
        process.map_or("", |its| &its.unit)
    }

    /// What a process is called: by its name if that is known.
    fn process_name(self, tgid: u32) -> String {
        match self.facts.processes.get(&tgid) {
            Some(process) if !process.name.is_empty() => process.name.clone(),
            _ => format!("process {tgid}"),
        }
    }
}

/// Who had a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Process(u32),
    /// By the name of their kind.
    Interrupts(Comm),
}

impl Holder {
    fn of(who: &Who) -> Self {
        if who.is_interrupts() {
            Self::Interrupts(who.comm)
        } else {
            Self::Process(who.tgid)
        }
    }
}

/// Why it is unknown what a thread did whose records were left out on purpose.
const SHED: &str = "shed";

/// What a thread did, as reports name it.
fn state(doing: &Doing) -> &'static str {
    match doing {
        Doing::Running => "running",
        Doing::Queued(_) => "runnable",
        Doing::Blocked(_) => "blocked",
        Doing::Unknown | Doing::Shed => "unknown",
    }
}
