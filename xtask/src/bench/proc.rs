//! What `/proc` says of processes and of the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// CPU time of a process's threads that are alive, in nanoseconds.
pub(super) fn cpu_ns(pid: u32) -> u64 {
    let read = |task: PathBuf| {
        let text = fs::read_to_string(task.join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    tasks(pid).filter_map(read).sum()
}

/// Whether a thread of it wants a CPU now; and time that its threads ran and queued, in nanoseconds.
pub(super) fn busy(pid: u32) -> (bool, u64) {
    let mut wants = false;
    let mut busy_ns = 0;
    for task in tasks(pid) {
        let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
        // After the name, which may hold anything.
        wants |= stat
            .rsplit_once(") ")
            .is_some_and(|its| its.1.starts_with('R'));
        let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let times = text.split_ascii_whitespace().take(2);
        busy_ns += times.filter_map(|its| its.parse::<u64>().ok()).sum::<u64>();
    }
    (wants, busy_ns)
}

/// How often its threads that are alive have given their CPU up by themselves: each was followed by a wakeup.
pub(super) fn waits(pid: u32) -> u64 {
    let read = |task: PathBuf| {
        let text = fs::read_to_string(task.join("status")).ok()?;
        field(&text, "voluntary_ctxt_switches")
    };
    tasks(pid).filter_map(read).sum()
}

fn tasks(pid: u32) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Memory of a process that is in use, in bytes, files and shared memory included.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // In kB.
    field(&text, "VmRSS").unwrap_or(0) * 1024
}

/// Memory in use of a process's mappings of files whose names have this part, in bytes.
pub(super) fn mapped_bytes(pid: u32, part: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut is_wanted = false;
    let mut bytes = 0;
    for line in text.lines() {
        // A mapping's first line begins with its addresses, in small letters; the others with names.
        if line.starts_with(|first: char| first.is_ascii_hexdigit() && !first.is_ascii_uppercase())
        {
            is_wanted = line.contains(part);
        } else if is_wanted && let Some(kilobytes) = field(line, "Rss") {
            bytes += kilobytes * 1024;
        }
    }
    bytes
}

/// The number in a line `NAME: NUMBER ...`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Switches of the whole host since it was started.
pub(super) fn switches() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("ctxt "));
    line.and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// How many descriptors of a process attach it to events of the kernel.
pub(super) fn attachments(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target| {
            let target = target.to_string_lossy();
            let kinds = ["bpf-prog", "bpf_link", "bpf-link", "[perf_event]"];
            kinds.iter().any(|kind| target.contains(kind))
        })
        .count()
}

/// Runs and run time of a process's BPF programs, as far as the kernel counts them.
pub(super) fn probe_runs(pid: u32) -> (u64, u64) {
    let mut programs = BTreeMap::new();
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    for entry in entries.into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let number = |name| field(&text, name);
        if let (Some(id), Some(runs), Some(time_ns)) =
            (number("prog_id"), number("run_cnt"), number("run_time_ns"))
        {
            programs.insert(id, (runs, time_ns));
        }
    }
    programs
        .values()
        .fold((0, 0), |(runs, time), its| (runs + its.0, time + its.1))
}

/// The host, for the heading of a table.
pub(super) fn host() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let is_virtual = info
        .lines()
        .any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    format!(
        "Linux {}, {}, {} {}CPUs {model}",
        release.trim(),
        std::env::consts::ARCH,
        cpus(),
        if is_virtual { "virtual " } else { "" },
    )
}

/// How many CPUs there are.
pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The load of the last minute, as the kernel has it.
pub(super) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// While it lives the kernel counts what BPF programs take.
pub(super) struct Counting(String);

const COUNTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Counting {
    /// Has it count; as it was before, at the end.
    pub(super) fn begin() -> std::io::Result<Self> {
        let before = fs::read_to_string(COUNTING)?;
        fs::write(COUNTING, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // The user sees it in the kernel's settings, if that fails.
        let _ = fs::write(COUNTING, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{attachments, cpu_ns, field, resident_bytes, waits};

    #[test]
    fn this_process_is_seen() {
        let pid = std::process::id();
        assert!(cpu_ns(pid) > 0);
        assert!(resident_bytes(pid) > 1 << 20);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(waits(pid) > 0);
        assert_eq!(attachments(pid), 0);
        assert_eq!(field("a:\t1 kB\nbc: 2\n", "bc"), Some(2));
    }
}
