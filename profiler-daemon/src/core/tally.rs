//! What single threads did, to be held against the kernel's own books.

use super::Core;
use super::spans::What;
use super::thread::{State, Thread};

/// Time of a thread since it was met, window or not. Two of the same thread differ by what it did in
/// between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The thread.
    pub tid: u32,
    /// Its number in this run, never used again.
    pub serial: u64,
    /// Time on a CPU, in nanoseconds, up to the watermark.
    pub running_ns: u64,
    /// Time on a run queue, in nanoseconds, without the stay that goes on: the kernel counts it at its end.
    pub runnable_ns: u64,
    /// Time of which it is not known what it did, in microseconds; wraps around.
    pub unknown_us: u32,
}

impl Core {
    /// What this thread has done, if it is alive and it is known what it does.
    #[must_use]
    pub fn tally(&self, tid: u32) -> Option<Tally> {
        let threads = &self.machine.threads;
        let thread = threads.get(threads.find(tid)?)?;
        let is_shed = self
            .machine
            .spans
            .shed_from(thread, self.watermark_ns)
            .is_some();
        if thread.state == State::Unknown || is_shed {
            return None;
        }
        let running_ns = thread.ran_ns + self.open_run_ns(thread);
        Some(Tally {
            tid,
            serial: thread.serial,
            running_ns,
            runnable_ns: thread.queued_ns,
            unknown_us: thread.unknown_us,
        })
    }

    fn open_run_ns(&self, thread: &Thread) -> u64 {
        let parts = self.machine.spans.parts(thread, self.watermark_ns);
        match parts[0] {
            (What::Running, until_ns) => until_ns.saturating_sub(thread.since_ns),
            _ => 0,
        }
    }

    /// Some threads that had a CPU since this time: in the order of their ids, from the first one after
    /// `after` on, and from the lowest on when there are no more.
    #[must_use]
    pub fn active(&self, since_ns: u64, after: u32, count: usize) -> Vec<u32> {
        let is_active = |thread: &&Thread| {
            thread.state == State::Running
                || (thread.left_ns >= since_ns && thread.departed_ns >= since_ns)
        };
        let threads = self.machine.threads.iter().filter(is_active);
        let mut tids: Vec<u32> = threads.map(|thread| thread.tid).collect();
        tids.sort_unstable_by_key(|&tid| (tid <= after, tid));
        tids.truncate(count);
        tids
    }
}
