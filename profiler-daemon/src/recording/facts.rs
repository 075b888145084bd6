//! What a recording says beside its records: which run it is, and what no record carries.

use std::collections::{BTreeMap, HashMap};

use profiler_ebpf::Kind;
use serde::{Deserialize, Serialize};

use crate::core::{Selector, Snapshot, TargetSpec};
use crate::sink::report::{Dropped, Exit, Report, ReportFacts};

/// Which run a recording is of. Fields may be added; none changes its meaning within a version of the
/// format.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Header {
    /// Version of the program that recorded.
    pub version: String,
    /// Version of the records (`profiler_ebpf::WIRE_VERSION`).
    pub wire_version: u32,
    /// Architecture of the host, as Rust names it: numbers of system calls depend on it.
    pub arch: String,
    /// Name of the host.
    pub host: String,
    /// Which run of that host it was (`/proc/sys/kernel/random/boot_id`); empty if that is not known.
    #[serde(default)]
    pub boot_id: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Possible CPUs.
    pub cpus: usize,
    /// Which clock stamps the records: `run-queue` or `monotonic`.
    pub clock: String,
    /// Wall time, in nanoseconds since 1970 (UTC), of [`Self::start_ns`].
    pub start_unix_ns: u64,
    /// When the window began, by the records' clock.
    pub start_ns: u64,
    /// Whether wakeups were recorded.
    pub wakeups: bool,
    /// Whom it was made for.
    pub targets: Vec<Target>,
}

impl Header {
    /// Wall time of a moment of the records' clock.
    #[must_use]
    pub fn unix_ns(&self, record_ns: u64) -> u64 {
        let since_start_ns = record_ns.wrapping_sub(self.start_ns).cast_signed();
        self.start_unix_ns.saturating_add_signed(since_start_ns)
    }
}

impl Header {
    /// What a core watched in this run.
    #[must_use]
    pub fn specs(&self) -> Vec<TargetSpec> {
        self.targets.iter().map(Target::spec).collect()
    }
}

impl Target {
    /// What a core is to watch for it.
    #[must_use]
    pub fn spec(&self) -> TargetSpec {
        TargetSpec {
            name: self.value.clone(),
            selector: self.selector.clone(),
            per_thread: true,
        }
    }
}

/// Whom a report is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Target {
    /// As reports name the kind: `pid`, `tid`, `comm` or `command`.
    pub kind: String,
    /// As the user gave it.
    pub value: String,
    /// Its threads.
    pub selector: Selector,
}

/// What is known of a run that no record carries.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Facts {
    /// Processes by their id.
    pub processes: BTreeMap<u32, Process>,
    /// Functions of user stacks, the innermost first, by process and by the number under which the
    /// kernel kept them.
    pub user_stacks: Vec<(u32, u32, Vec<String>)>,
    /// Records that the rings had no room for: CPU, name of the kind, count.
    pub dropped: Vec<(u32, String, u64)>,
    /// Records lost because a probe could not run.
    pub missed: u64,
    /// How far the clocks of two CPUs may be apart.
    pub clock_error_ns: Option<u64>,
    /// What a reader should know about the run.
    pub notes: Vec<String>,
    /// How the command ended, if one was started for it.
    pub exit: Option<Exit>,
}

/// A process as reports name it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its systemd unit, container or pod; empty when it is not known.
    pub unit: String,
    /// Its name; empty when it is not known.
    pub name: String,
}

impl Facts {
    /// A report for each of these targets of a snapshot, in their order. The live report of a run and
    /// that on its recording are both made here.
    #[must_use]
    pub fn reports(&self, header: &Header, targets: &[Target], snapshot: &Snapshot) -> Vec<Report> {
        let dropped = self.dropped();
        let stacks: HashMap<(u32, u32), &[String]> = self
            .user_stacks
            .iter()
            .map(|(tgid, number, frames)| ((*tgid, *number), &frames[..]))
            .collect();
        let process = |tgid: u32| self.processes.get(&tgid);
        let report = |(target, seen)| {
            let target: &Target = target;
            let facts = ReportFacts {
                version: env!("CARGO_PKG_VERSION"),
                start_unix_ns: header.unix_ns(snapshot.start_ns),
                target_kind: &target.kind,
                target_value: &target.value,
                dropped: &dropped,
                missed: self.missed,
                clock_error_ns: self.clock_error_ns,
                wakeups: header.wakeups,
                unit_of: &|tgid| process(tgid).map_or_else(String::new, |its| its.unit.clone()),
                name_of: &|tgid| process(tgid).map_or_else(String::new, |its| its.name.clone()),
                user_stack_of: &|tgid, number| {
                    let stack = stacks.get(&(tgid, number));
                    stack.map_or_else(Vec::new, |frames| frames.to_vec())
                },
                notes: &self.notes,
                exit: self.exit.filter(|_| target.kind == "command"),
            };
            Report::new(snapshot, seen, &facts)
        };
        targets.iter().zip(&snapshot.targets).map(report).collect()
    }

    /// [`Self::dropped`] as reports have it; kinds that this version does not know are left out.
    #[must_use]
    pub fn dropped(&self) -> Vec<Dropped> {
        let known = |(cpu, name, count): &(u32, String, u64)| {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
            Some(Dropped {
                cpu: *cpu,
                kind: kind.name(),
                count: *count,
            })
        };
        self.dropped.iter().filter_map(known).collect()
    }
}
