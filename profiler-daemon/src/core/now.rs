//! What every thread of the host is doing at this moment.

use super::reason::Reason;
use super::reconstruct::Reconstruction;
use super::spans::What;
use super::spent::Share;
use super::thread::Comm;

/// What one thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadNow {
    /// Its id.
    pub tid: u32,
    /// Its process; 0 when that is not known.
    pub tgid: u32,
    /// Its name.
    pub comm: Comm,
    /// Serial of its unit, as [`super::UnitSnapshot::serial`].
    pub unit: u64,
    /// What it is doing.
    pub share: Share,
    /// For how long, in nanoseconds, as far as it was watched.
    pub elapsed_ns: u64,
    /// What it waits for, if it is blocked.
    pub reason: Option<Reason>,
    /// How long others were queued for a CPU that it had, in nanoseconds.
    pub inflicted_ns: u64,
}

impl Reconstruction {
    /// All threads as of `at_ns`: everything up to there must have been taken in.
    pub(super) fn threads_now(&self, at_ns: u64) -> Vec<ThreadNow> {
        self.threads
            .iter()
            .map(|thread| {
                let mut now = ThreadNow {
                    tid: thread.tid,
                    tgid: thread.tgid,
                    comm: thread.comm,
                    unit: self.spans.ledger.units.serial(thread.unit),
                    share: Share::Unknown,
                    elapsed_ns: 0,
                    reason: None,
                    inflicted_ns: thread.inflicted_ns,
                };
                let mut from_ns = thread.began_ns();
                for (what, end_ns) in self.spans.parts(thread, at_ns) {
                    if end_ns <= from_ns {
                        continue;
                    }
                    now.share = what.share();
                    now.elapsed_ns = end_ns - from_ns;
                    now.reason = match what {
                        What::Blocked(wait) => Some(wait.reason),
                        _ => None,
                    };
                    from_ns = end_ns;
                }
                now
            })
            .collect()
    }
}
