//! Threads that the task iterator does not show, from /proc.
//!
//! Some kernels keep processes from BPF programs, for instance a supervisor of a virtual machine. What
//! such a thread does is seen only half, but it should at least have a name.

use std::collections::HashSet;

use procfs::process::Task;
use procfs::{Current, LoadAverage};
use profiler_ebpf::{ThreadRecord, thread_flags};
use rustix::time::{ClockId, clock_gettime};

/// `PF_KTHREAD` (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

/// A thread younger than this may just have been born between the two lists.
const NEW_FOR_NS: u64 = 1_000_000_000;

/// Adds the threads that are in /proc and not among these, and says how many of them were there before
/// anybody looked.
///
/// A host where none is missing costs one small read. A thread that can't be read has ended.
pub fn add_missing(threads: &mut Vec<ThreadRecord>) -> usize {
    let all = LoadAverage::current().map_or(0, |load| load.max);
    if usize::try_from(all).is_ok_and(|all| all <= threads.len()) {
        return 0;
    }
    let known: HashSet<u32> = threads.iter().map(|thread| thread.tid).collect();
    let Ok(processes) = procfs::process::all_processes() else {
        return 0;
    };
    let tasks = processes
        .flatten()
        .filter_map(|process| process.tasks().ok())
        .flatten()
        .flatten();
    let missing = tasks
        .filter(|task| u32::try_from(task.tid).is_ok_and(|tid| !known.contains(&tid)))
        .filter_map(|task| record(&task));
    let before = known.len();
    threads.extend(missing);
    let boot = clock_gettime(ClockId::Boottime);
    let now_ns = u64::try_from(boot.tv_sec).unwrap_or(0) * 1_000_000_000;
    let old = |thread: &&ThreadRecord| thread.start_ns + NEW_FOR_NS < now_ns;
    threads[before..].iter().filter(old).count()
}

fn record(task: &Task) -> Option<ThreadRecord> {
    let stat = task.stat().ok()?;
    let scheduled = task.schedstat().ok()?;
    let mut comm = [0; profiler_ebpf::COMM_BYTES];
    let name = stat.comm.as_bytes();
    let length = name.len().min(comm.len() - 1);
    comm[..length].copy_from_slice(&name[..length]);
    let ticks = procfs::ticks_per_second().max(1);
    Some(ThreadRecord {
        // In whole ticks: the same thread has the same figure each time.
        start_ns: stat.starttime.saturating_mul(1_000_000_000 / ticks),
        run_delay_ns: scheduled.run_delay,
        comm,
        tid: u32::try_from(task.tid).ok()?,
        tgid: u32::try_from(task.pid).ok()?,
        parent_tgid: u32::try_from(stat.ppid).ok()?,
        state: state_word(stat.state),
        cpu: stat
            .processor
            .and_then(|cpu| u32::try_from(cpu).ok())
            .unwrap_or(u32::MAX),
        // Its low 16 bits are what the probes report.
        runs: (scheduled.pcount.wrapping_sub(1) & 0xffff) as u16,
        flags: if stat.flags & PF_KTHREAD == 0 {
            0
        } else {
            thread_flags::KTHREAD
        },
        ..ThreadRecord::default()
    })
}

/// The state word of the letter that /proc gives it (`task_state_array` in fs/proc/array.c).
fn state_word(letter: char) -> u32 {
    match letter {
        'R' => 0x0,
        'D' => 0x2,
        'T' => 0x4,
        't' => 0x8,
        'P' => 0x40,
        'I' => 0x402,
        'X' | 'Z' => 0x80,
        _ => 0x1,
    }
}

#[cfg(test)]
mod tests {
    use super::add_missing;

    #[test]
    fn our_own_threads_are_found_with_their_names() {
        let mut threads = Vec::new();
        add_missing(&mut threads);
        let own = threads
            .iter()
            .find(|thread| thread.tid == std::process::id());
        assert_eq!(own.map(|thread| thread.tgid), Some(std::process::id()));
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let found = own.map(|thread| thread.comm).unwrap_or_default();
        assert!(
            found.starts_with(name.trim_end().as_bytes()),
            "{name} {found:?}"
        );
        let count = threads.len();
        add_missing(&mut threads);
        let mut tids: Vec<u32> = threads.iter().map(|thread| thread.tid).collect();
        tids.sort_unstable();
        tids.dedup();
        assert_eq!(
            tids.len(),
            threads.len(),
            "none is added twice ({count} before)"
        );
    }
}
