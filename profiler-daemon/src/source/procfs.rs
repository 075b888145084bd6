//! Threads that the task iterator does not show, from /proc.
//!
//! Some kernels keep processes from BPF programs, for instance a supervisor of a virtual machine. What
//! such a thread does is seen only half, but it should at least have a name.

use std::collections::HashSet;

use procfs::process::{Stat, Task};
use procfs::{Current, FromRead, LoadAverage};
use profiler_ebpf::{ThreadRecord, thread_flags};
use rustix::time::{ClockId, clock_gettime};

use super::pids;

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
    let read = |file: &str| {
        let path = format!("/proc/{}/task/{}/{file}", task.pid, task.tid);
        std::fs::read(path).ok()
    };
    let (tid, tgid) = (u32::try_from(task.tid).ok()?, u32::try_from(task.pid).ok()?);
    thread_record(&read("stat")?, &read("schedstat")?, tid, tgid)
}

/// What the contents of its `stat` and `schedstat` say of a thread; `None` if they can't be its.
#[must_use]
pub fn thread_record(stat: &[u8], schedstat: &[u8], tid: u32, tgid: u32) -> Option<ThreadRecord> {
    let stat = Stat::from_read(is_stat(stat).then_some(stat)?).ok()?;
    let books = Books::parse(std::str::from_utf8(schedstat).ok()?)?;
    let mut comm = [0; profiler_ebpf::COMM_BYTES];
    let name = stat.comm.as_bytes();
    let length = name.len().min(comm.len() - 1);
    comm[..length].copy_from_slice(&name[..length]);
    let ticks = procfs::ticks_per_second().max(1);
    Some(ThreadRecord {
        // In whole ticks: the same thread has the same figure each time.
        start_ns: stat.starttime.saturating_mul(1_000_000_000 / ticks),
        run_delay_ns: books.runnable_ns,
        comm,
        tid,
        tgid,
        parent_tgid: u32::try_from(stat.ppid).ok()?,
        state: state_word(stat.state),
        cpu: stat
            .processor
            .and_then(|cpu| u32::try_from(cpu).ok())
            .unwrap_or(u32::MAX),
        // Its low 16 bits are what the probes report.
        runs: (books.runs.wrapping_sub(1) & 0xffff) as u16,
        flags: if stat.flags & PF_KTHREAD == 0 {
            0
        } else {
            thread_flags::KTHREAD
        },
        ..ThreadRecord::default()
    })
}

/// Whether this looks like the content of a `stat`: an id, a name in brackets, and more. What reads it takes
/// that for granted.
fn is_stat(content: &[u8]) -> bool {
    let content = content.trim_ascii();
    let open = content.iter().position(|&byte| byte == b'(');
    let close = content.iter().rposition(|&byte| byte == b')');
    let (Some(open), Some(close)) = (open, close) else {
        return false;
    };
    let is_blank = |place: Option<usize>| place.and_then(|at| content.get(at)) == Some(&b' ');
    content.first().is_some_and(u8::is_ascii_digit)
        && is_blank(open.checked_sub(1))
        && open < close
        && is_blank(Some(close + 1))
        && content.get(close + 2).is_some_and(u8::is_ascii_alphabetic)
}

/// The kernel's books of a thread, of its whole life: `/proc/TID/schedstat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// Time on a CPU, in nanoseconds.
    pub running_ns: u64,
    /// Time on a run queue, in nanoseconds.
    pub runnable_ns: u64,
    /// How often it got a CPU.
    pub runs: u64,
}

impl Books {
    /// Of the thread that has this id in records; `None` if it is gone, or the kernel keeps no books.
    #[must_use]
    pub fn read(tid: u32) -> Option<Self> {
        let tid = pids::here(tid)?;
        Self::parse(&std::fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?)
    }

    /// From the file's text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().map(str::parse);
        let mut next = || words.next()?.ok();
        Some(Self {
            running_ns: next()?,
            runnable_ns: next()?,
            runs: next()?,
        })
    }
}

/// The process of a thread, from the text of its `/proc/TID/status`.
#[must_use]
pub fn tgid_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
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
    use super::{Books, add_missing, tgid_in, thread_record};

    #[test]
    fn the_kernels_books_are_read() {
        let books = Books {
            running_ns: 1225,
            runnable_ns: 4900,
            runs: 66,
        };
        assert_eq!(Books::parse("1225 4900 66\n"), Some(books));
        for text in ["1225\n", "a b c\n", "", "1 2 -3"] {
            assert_eq!(Books::parse(text), None);
        }
        assert!(Books::read(std::process::id()).is_some_and(|books| books.running_ns > 0));
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_move_the_other_fields() {
        let name = "a) R 9 (\n";
        let rest = "1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 3 0 0 0 0 0";
        let stat = format!("7 ({name}) S {rest}\n");
        let thread = thread_record(stat.as_bytes(), b"1 2 3\n", 7, 7).expect("it is whole");
        assert!(thread.comm.starts_with(name.as_bytes()));
        assert_eq!((thread.state, thread.parent_tgid, thread.cpu), (1, 1, 3));
        assert_eq!((thread.run_delay_ns, thread.runs), (2, 2));
        for odd in [
            "7 (a",
            "7 (a)",
            "(a) S 1",
            "7)a( S",
            "7é(a)éS",
            " (a) S",
            "7 (a) ",
            "7 (a) \u{a0}",
        ] {
            assert!(
                thread_record(odd.as_bytes(), b"1 2 3\n", 7, 7).is_none(),
                "{odd}"
            );
        }
    }

    #[test]
    fn a_threads_process_is_read() {
        assert_eq!(tgid_in("Name:\tTgid:9\nTgid:\t12\nPid:\t13\n"), Some(12));
        assert_eq!(tgid_in("Tgid:\t-1\n"), None);
    }

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
