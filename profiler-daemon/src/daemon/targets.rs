//! From targets on the command line to what the core watches.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use wildmatch::WildMatch;

use super::gate::Gate;
use crate::cli;
use crate::core::{Selector, TargetSpec};
use crate::exit::Failure;
use crate::identity::{Registry, Selection};
use crate::recording;
use crate::source::{pids, procfs};

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Names that an error proposes at most.
const MAX_NEAR: usize = 5;

/// Names less alike than this are not proposed (Jaro-Winkler, from 0 to 1).
const NEAR: f64 = 0.7;

/// What the user wants to be measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A process, and if so wanted those that come of it.
    Pid {
        /// Its id.
        pid: u32,
        /// Whether its children belong to it.
        follow: bool,
    },
    /// A thread.
    Tid(u32),
    /// Threads by name.
    Comm(String),
    /// Processes by unit, control group or container: what it is called in reports, its value, and which
    /// processes it takes.
    Group(&'static str, String, Selection),
    /// A command to start, and if so wanted what it starts.
    Command {
        /// Its words.
        words: Vec<OsString>,
        /// Whether its children belong to it.
        follow: bool,
    },
    /// All threads of the host.
    Host,
}

impl Target {
    /// What kind of target it is, in reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pid { .. } => "pid",
            Self::Tid(_) => "tid",
            Self::Comm(_) => "comm",
            Self::Group(kind, ..) => kind,
            Self::Command { .. } => "command",
            Self::Host => "host",
        }
    }

    /// The value that was asked for, as it was given.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Pid { pid: id, .. } | Self::Tid(id) => id.to_string(),
            Self::Comm(value) | Self::Group(_, value, _) => value.clone(),
            Self::Command { words, .. } => words
                .iter()
                .map(|word| word.to_string_lossy())
                .collect::<Vec<_>>()
                .join(" "),
            Self::Host => String::new(),
        }
    }

    /// Whether more can come to it when all of it has ended.
    #[must_use]
    pub fn waits_for_more(&self) -> bool {
        !matches!(self, Self::Pid { .. } | Self::Tid(_))
    }

    /// Fails early, with the right code, where there is nothing to measure.
    fn must_exist(&self) -> Result<(), Failure> {
        let missing = match self {
            Self::Pid { pid, .. } if !is_process(*pid) => match tgid_of(*pid) {
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

/// All targets of a command line, the ones by number first.
#[derive(Debug)]
pub struct Targets {
    targets: Vec<Target>,
    /// The processes of each [`Target::Group`] when it was looked for.
    members: Vec<BTreeSet<u32>>,
}

impl Targets {
    /// Those that were asked for. All of them must be there; `registry` is asked for those of groups.
    pub fn find(args: &cli::Targets, registry: &mut Registry) -> Result<Self, Failure> {
        let targets = listed(args);
        if targets.is_empty() {
            return Err(Failure::usage(
                "no target: give a PID, --tid, --comm, --unit, --cgroup, --container, or a command after `--`"
                    .to_owned(),
            ));
        }
        for target in &targets {
            target.must_exist()?;
        }
        let selections = selections(&targets);
        let members = if selections.is_empty() {
            Vec::new()
        } else {
            registry.discover(Instant::now());
            registry.select(&selections, Instant::now())
        };
        let groups = targets.iter().filter_map(|target| match target {
            Target::Group(kind, value, _) => Some((*kind, value)),
            _ => None,
        });
        for ((kind, value), members) in groups.zip(&members) {
            if members.is_empty() {
                return Err(no_group(kind, value, registry));
            }
        }
        Ok(Self { targets, members })
    }

    /// The whole host.
    #[must_use]
    pub fn host() -> Self {
        Self {
            targets: vec![Target::Host],
            members: Vec::new(),
        }
    }

    /// Whether it is the whole host.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.targets == [Target::Host]
    }

    /// All of them in a few words.
    #[must_use]
    pub fn title(&self) -> String {
        let words = self.targets.iter().map(|target| match target {
            Target::Host => "the whole host".to_owned(),
            target => format!("{} {}", target.kind(), target.value()),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// In the order of [`Self::specs`], and so of the snapshot's targets.
    #[must_use]
    pub fn list(&self) -> &[Target] {
        &self.targets
    }

    /// Whether more can come when all of them have ended.
    #[must_use]
    pub fn waits_for_more(&self) -> bool {
        self.targets.iter().any(Target::waits_for_more)
    }

    /// The command that is to be started, if there is one.
    #[must_use]
    pub fn command(&self) -> Option<&[OsString]> {
        self.targets.iter().find_map(|target| match target {
            Target::Command { words, .. } => Some(words.as_slice()),
            _ => None,
        })
    }

    /// Which processes belong to groups, and the number of each group's target: membership changes.
    #[must_use]
    pub fn groups(&self) -> (Vec<usize>, Vec<Selection>) {
        let is_group = |target: &Target| matches!(target, Target::Group(..));
        let numbers = self.targets.iter().enumerate();
        let numbers = numbers
            .filter(|(_, target)| is_group(target))
            .map(|(number, _)| number);
        (numbers.collect(), selections(&self.targets))
    }

    /// What the core is to watch; `gate` is the process that is to become the command.
    #[must_use]
    pub fn specs(&self, gate: Option<&Gate>) -> Vec<TargetSpec> {
        let gate = gate.map_or(0, |gate| pids::wanted(gate.pid()));
        let mut members = self.members.iter();
        let specs = self.targets.iter().map(|target| TargetSpec {
            name: target.value(),
            selector: match target {
                Target::Pid { pid, follow: false } => Selector::Pid(pids::wanted(*pid)),
                Target::Pid { pid, follow: true } => {
                    Selector::Tree(BTreeSet::from([pids::wanted(*pid)]))
                }
                Target::Tid(tid) => Selector::Tid(pids::wanted(*tid)),
                Target::Comm(glob) => Selector::Comm(WildMatch::new(glob)),
                Target::Group(..) => Selector::Tree(members.next().cloned().unwrap_or_default()),
                Target::Command { follow: false, .. } => Selector::Command(gate),
                Target::Command { follow: true, .. } => Selector::CommandTree(gate),
                Target::Host => Selector::All,
            },
            per_thread: true,
        });
        specs.collect()
    }
}

impl Targets {
    /// Each with what the core watches for it, from [`Self::specs`].
    #[must_use]
    pub fn named(&self, specs: Vec<TargetSpec>) -> Vec<recording::facts::Target> {
        let named = self
            .targets
            .iter()
            .zip(specs)
            .map(|(target, spec)| recording::facts::Target {
                kind: target.kind().to_owned(),
                value: target.value(),
                selector: spec.selector,
            });
        named.collect()
    }
}

/// The narrower ones first: a thread counts for the first target that takes it.
fn listed(args: &cli::Targets) -> Vec<Target> {
    let follow = args.follow;
    let group = |kind, value: &String, selection| Target::Group(kind, value.clone(), selection);
    let mut targets: Vec<Target> = Vec::new();
    targets.extend(args.tid.iter().map(|&tid| Target::Tid(tid)));
    targets.extend(args.pid.iter().map(|&pid| Target::Pid { pid, follow }));
    if !args.command.is_empty() {
        targets.push(Target::Command {
            words: args.command.clone(),
            follow,
        });
    }
    targets.extend(args.comm.iter().cloned().map(Target::Comm));
    targets.extend(args.container.iter().map(|value| {
        let selection = Selection::Container(value.clone());
        group("container", value, selection)
    }));
    let units = args.unit.iter();
    targets.extend(units.map(|value| group("unit", value, Selection::unit(value))));
    targets.extend(args.cgroup.iter().map(|path| {
        let value = path.to_string_lossy().into_owned();
        let selection = Selection::cgroup(&in_hierarchy(&value));
        group("cgroup", &value, selection)
    }));
    let mut distinct: Vec<Target> = Vec::new();
    for target in targets {
        if !distinct.contains(&target) {
            distinct.push(target);
        }
    }
    distinct
}

fn selections(targets: &[Target]) -> Vec<Selection> {
    let groups = targets.iter().filter_map(|target| match target {
        Target::Group(_, _, selection) => Some(selection.clone()),
        _ => None,
    });
    groups.collect()
}

/// Nothing belongs to a group: what there is instead.
fn no_group(kind: &str, value: &str, registry: &mut Registry) -> Failure {
    let all = registry.labels(Instant::now());
    let message = match kind {
        "cgroup" => no_cgroup(value),
        "container" => {
            let containers: Vec<String> = all.into_iter().filter(|its| is_container(its)).collect();
            let near = near(value, containers.iter().map(String::as_str));
            match (near, containers.is_empty()) {
                (_, true) => format!(
                    "no container {value}: no process of this host is in a container that is known as such; measure by --cgroup or --unit"
                ),
                (near, false) => format!(
                    "no running container is called {value} or has an id that begins so{}; `schedscope top` lists what runs",
                    did_you_mean(&near)
                ),
            }
        }
        _ => format!(
            "no process belongs to a unit {value}{}; list units with `systemctl list-units` and see `schedscope top` for what runs",
            did_you_mean(&near(value, all.iter().map(String::as_str)))
        ),
    };
    Failure::no_target(message)
}

/// Whether a unit with this label is a container.
#[must_use]
pub fn is_container(label: &str) -> bool {
    !label.starts_with('/') && (label.contains(':') || label.matches('/').count() == 2)
}

fn no_cgroup(value: &str) -> String {
    let path = in_hierarchy(value);
    let path = path.trim_matches('/');
    let hierarchies = hierarchies();
    if hierarchies.iter().any(|root| root.join(path).is_dir()) {
        return format!(
            "no process is in the control group /{path} or below: measure a group with processes, or wait until it has some"
        );
    }
    let parent = Path::new(path).parent().unwrap_or(Path::new(""));
    let siblings: BTreeSet<String> = hierarchies
        .iter()
        .flat_map(|root| directories(&root.join(parent)))
        .map(|name| format!("/{}", parent.join(name).display()))
        .collect();
    let near = near(&format!("/{path}"), siblings.iter().map(String::as_str));
    format!(
        "no control group /{path}{}; `systemd-cgls` shows which there are",
        did_you_mean(&near)
    )
}

/// Where the roots of the hierarchies are: one in version 2, several below in version 1 (cgroups(7)).
fn hierarchies() -> Vec<PathBuf> {
    let mount = PathBuf::from(CGROUPS);
    if mount.join("cgroup.procs").exists() {
        return vec![mount];
    }
    let names = directories(&mount).into_iter();
    names.map(|name| mount.join(name)).collect()
}

/// The path of a control group from the root of its hierarchy, however it was given.
fn in_hierarchy(path: &str) -> String {
    let is_below = |root: &PathBuf| Path::new(path).strip_prefix(root).ok().map(Path::to_owned);
    let below = hierarchies().iter().find_map(is_below);
    below.map_or_else(|| path.to_owned(), |below| below.display().to_string())
}

fn directories(path: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .collect()
}

/// Those of the names that are most like this one, the nearest first.
fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.trim_matches('*').to_lowercase();
    let mut alike: Vec<(f64, &str)> = names
        .map(|name| {
            let lower = name.to_lowercase();
            let likeness = if !wanted.is_empty() && lower.contains(&wanted) {
                1.0
            } else {
                strsim::jaro_winkler(&wanted, &lower)
            };
            (likeness, name)
        })
        .filter(|(likeness, _)| *likeness >= NEAR)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    alike
        .into_iter()
        .take(MAX_NEAR)
        .map(|(_, name)| name)
        .collect()
}

fn did_you_mean(near: &[&str]) -> String {
    match near {
        [] => String::new(),
        near => format!(" (there is {})", near.join(", ")),
    }
}

fn is_process(pid: u32) -> bool {
    tgid_of(pid) == Some(pid)
}

/// The process of a thread, if that exists: /proc shows threads too, under their own ids.
fn tgid_of(tid: u32) -> Option<u32> {
    procfs::tgid_in(&std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::{listed, near};
    use crate::cli;

    #[test]
    fn narrow_targets_come_first_and_each_once() {
        let args = cli::Targets {
            pid: vec![12, 12],
            tid: vec![13],
            unit: vec!["a".to_owned()],
            comm: vec!["b".to_owned()],
            ..cli::Targets::default()
        };
        let targets = listed(&args);
        let kinds: Vec<&str> = targets.iter().map(super::Target::kind).collect();
        assert_eq!(kinds, ["tid", "pid", "comm", "unit"]);
    }

    #[test]
    fn near_names_are_found() {
        let names = ["nginx.service", "ssh.service", "docker:shop", "init.scope"];
        assert_eq!(near("ngnix", names.into_iter()), ["nginx.service"]);
        assert_eq!(near("shop", names.into_iter()), ["docker:shop"]);
        assert!(near("quux", names.into_iter()).is_empty());
    }
}
