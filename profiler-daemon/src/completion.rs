//! What a shell can complete that only this host knows: processes, threads, units, containers.
//!
//! The shell asks the binary itself, by a variable of its environment ([`VARIABLE`]); the completions that
//! packages bring only say so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use clap_complete::CompletionCandidate;

use crate::daemon::targets::is_container;
use crate::identity::Registry;
use crate::identity::selection::container_name;

/// The variable by which a shell asks; its value is the name of the shell.
pub const VARIABLE: &str = "SCHEDSCOPE_COMPLETE";

/// More than anybody reads; a shell would only ask whether to show them all.
const MOST: usize = 5_000;

/// The processes, each with its name; the newest first, since that is what somebody looks for.
#[must_use]
pub fn pids() -> Vec<CompletionCandidate> {
    let mut pids: Vec<(u32, String)> = processes().collect();
    pids.sort_by_key(|(pid, _)| std::cmp::Reverse(*pid));
    let named = pids.into_iter().take(MOST);
    named
        .map(|(pid, comm)| candidate(pid.to_string(), comm))
        .collect()
}

/// The threads, each with its name.
#[must_use]
pub fn tids() -> Vec<CompletionCandidate> {
    let mut tids: Vec<(u32, String)> = processes().flat_map(|(pid, _)| threads(pid)).collect();
    tids.sort_by_key(|(tid, _)| std::cmp::Reverse(*tid));
    let named = tids.into_iter().take(MOST);
    named
        .map(|(tid, comm)| candidate(tid.to_string(), comm))
        .collect()
}

/// The names of threads, each with how many have it.
#[must_use]
pub fn comms() -> Vec<CompletionCandidate> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let threads = processes().flat_map(|(pid, _)| threads(pid));
    for (_, comm) in threads.filter(|(_, comm)| is_plain(comm)) {
        *counts.entry(comm).or_default() += 1;
    }
    let counted = counts.into_iter().take(MOST);
    counted
        .map(|(comm, count)| match count {
            1 => candidate(comm, "1 thread".to_owned()),
            _ => candidate(comm, format!("{count} threads")),
        })
        .collect()
}

/// Systemd units, containers and pods with a process.
#[must_use]
pub fn units() -> Vec<CompletionCandidate> {
    let units = labels().into_iter().take(MOST);
    units.map(CompletionCandidate::new).collect()
}

/// Containers with a process: by their names, or by their ids where they are known by those.
#[must_use]
pub fn containers() -> Vec<CompletionCandidate> {
    let containers = labels().into_iter().filter(|label| is_container(label));
    let names = containers.map(|label| container_name(&label).to_owned());
    let names: BTreeSet<String> = names.collect();
    names
        .into_iter()
        .take(MOST)
        .map(CompletionCandidate::new)
        .collect()
}

/// Whether a name is a word to every shell: not all of them quote what they complete.
fn is_plain(comm: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/@+%,-".contains(c);
    !comm.is_empty() && comm.chars().all(is_plain)
}

fn labels() -> BTreeSet<String> {
    let mut registry = Registry::default();
    let now = Instant::now();
    registry.discover(now);
    let mut labels = registry.labels(now);
    labels.retain(|label| !label.is_empty());
    labels
}

fn candidate(value: String, help: String) -> CompletionCandidate {
    CompletionCandidate::new(value).help(Some(help.into()))
}

/// The processes with their names. Who has ended meanwhile is not among them.
fn processes() -> impl Iterator<Item = (u32, String)> {
    numbered("/proc")
}

fn threads(pid: u32) -> impl Iterator<Item = (u32, String)> {
    numbered(&format!("/proc/{pid}/task"))
}

/// The numbers in a directory of `/proc`, each with the name that its `comm` has.
fn numbered(directory: &str) -> impl Iterator<Item = (u32, String)> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let comm = std::fs::read(entry.path().join("comm")).ok()?;
        let comm = String::from_utf8_lossy(&comm);
        Some((number, crate::sink::text::safe(comm.trim_end())))
    })
}
