//! What is known of one thread.

use std::slice::from_ref;

use prefetch_index::prefetch_index;

use super::account::Account;
use super::classify::Wait;
use super::spent::Origin;
use super::units::UnitNumber;
use super::who::Waker;

/// A time that is not known.
pub(super) const NEVER: u64 = u64::MAX;

/// Where a thread is in its cycle of running, waiting and queueing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// On its CPU.
    Running,
    /// Off the CPU and runnable from the start of the span; since [`Thread::woken_ns`], if that is
    /// known.
    Queued(Origin),
    /// Off the CPU and waiting from the start of the span; runnable since [`Thread::woken_ns`], if
    /// that is known.
    Waiting(Wait),
    /// Nobody knows, because records were lost or contradict one another.
    Unknown,
}

/// Which thread, for good: ids are used again, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Thread id.
    pub tid: u32,
    /// Start of the thread (`start_boottime`, nanoseconds); 0 when nobody said.
    pub start_ns: u64,
}

/// A thread's name as the kernel keeps it: any bytes, ended by a NUL or by its length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Comm(pub [u8; profiler_ebpf::COMM_BYTES]);

impl Comm {
    /// A name of at most 15 bytes; what is longer is cut.
    #[must_use]
    pub(super) fn from_name(name: &str) -> Self {
        let mut bytes = [0; profiler_ebpf::COMM_BYTES];
        let last = bytes.len() - 1;
        for (byte, from) in bytes[..last].iter_mut().zip(name.bytes()) {
            *byte = from;
        }
        Self(bytes)
    }

    /// The bytes before the NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let end = self
            .0
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(self.0.len());
        &self.0[..end]
    }

    /// Fit to be shown: what is not UTF-8, and every character that [`is_unsafe`], is replaced.
    #[must_use]
    pub fn display(&self) -> String {
        String::from_utf8_lossy(self.as_bytes())
            .chars()
            .map(|c| {
                if is_unsafe(c) {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            })
            .collect()
    }
}

/// Whether a character may do something to what it is shown on, or is not seen at all: controls, marks
/// that change the direction of writing, and characters without width.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

impl std::fmt::Debug for Comm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.display())
    }
}

/// Everything known of one thread, flat; a thread of a target has its figures beside it.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Thread {
    // What every switch asks for comes first, so that it lies in few lines of the cache.
    /// From when on the open span is still to be booked.
    pub(super) since_ns: u64,
    /// From when on its time counts for its target.
    pub(super) observed_from_ns: u64,
    /// When it was put on the run queue, if that was seen in this window; else [`NEVER`].
    pub(super) woken_ns: u64,
    /// No loss before this time puts its state in doubt.
    pub(super) proven_ns: u64,
    /// When it left the CPU, if that was seen in this window; else [`NEVER`].
    pub(super) left_ns: u64,
    /// When it was last woken though, as far as known, it did not wait by then; else [`NEVER`].
    pub(super) rewoken_ns: u64,
    /// The kernel's cumulative run-queue delay when it last got a CPU; else [`NEVER`].
    pub(super) delay_ns: u64,
    /// Time of the record of its last leaving a CPU, whatever is made of it; 0 if there was none. Names
    /// the wait to those who saw it.
    pub(super) departed_ns: u64,
    /// From when on its time counts for the host.
    pub(super) met_ns: u64,
    /// Time on a CPU that was booked since it was met.
    pub(super) ran_ns: u64,
    /// Time on run queues that was booked since it was met.
    pub(super) queued_ns: u64,
    /// Number of the thread in this run: unlike an id or an identity never used again.
    pub(super) serial: u64,
    /// Its cgroup of the cpu controller, where groups are throttled as a whole; else 0.
    pub(super) cpu_cgroup: u64,
    pub(super) tid: u32,
    /// CPU that it is on or was last on; [`NO_CPU`] if that is not known.
    pub(super) cpu: u32,
    /// CPU whose run queue it was put on; [`NO_CPU`] if that is not known, [`LOST_CPU`] if it moved unseen.
    pub(super) queue_cpu: u32,
    /// Where its moves to other CPUs are kept, while it is queued or about to be; [`NO_MOVES`] if there are
    /// none.
    pub(super) moves: u32,
    pub(super) state: State,
    /// `next_runs` of its last switch-in, if no run since can have been missed.
    pub(super) runs: Option<u16>,
    /// The unit that its process belongs to.
    pub(super) unit: UnitNumber,
    /// The target that it belongs to.
    pub(super) target: Option<u16>,
    /// The kernel had no stamp when it last got a CPU, and may not have counted that run.
    pub(super) unqueued: bool,
    /// It lost the CPU on its way to sleep, so the kernel has no stamp and may not count the next run.
    pub(super) is_unstamped: bool,
    /// It left the CPU because of a quota.
    pub(super) is_throttled: bool,
    /// What was last about to wake it; it is of the wait whose switch-in reads [`Self::waker_runs`].
    pub(super) waker: Waker,
    pub(super) waker_runs: u16,
    /// How long others waited for a CPU that it had.
    pub(super) inflicted_ns: u64,
    // And this what only some ask for.
    pub(super) start_ns: u64,
    /// The account of a thread that belongs to a target.
    pub(super) account: Option<Box<Account>>,
    /// Number of its last stay in [`super::history::History`]; 0 if there is none.
    pub(super) last_stay: u64,
    pub(super) comm: Comm,
    pub(super) tgid: u32,
    pub(super) parent_tgid: u32,
    /// Time that was booked as unknown since it was met, in microseconds, rounded up; it may wrap around.
    pub(super) unknown_us: u32,
    /// It has taken over its leader's id, and the exec that this belongs to is still to come.
    pub(super) is_exchanged: bool,
    pub(super) kthread: bool,
}

/// No CPU is known.
pub(super) const NO_CPU: u32 = u32::MAX;

/// The CPU of a stay is not known, and can't be concluded from where the stay ends either.
pub(super) const LOST_CPU: u32 = u32::MAX - 1;

/// It was not moved.
pub(super) const NO_MOVES: u32 = u32::MAX;

impl Thread {
    /// A thread of which nothing is known but its id, first heard of at this time.
    pub(super) fn unseen(tid: u32, now_ns: u64) -> Self {
        Self {
            since_ns: now_ns,
            met_ns: now_ns,
            observed_from_ns: now_ns,
            left_ns: NEVER,
            departed_ns: 0,
            woken_ns: NEVER,
            rewoken_ns: NEVER,
            delay_ns: NEVER,
            proven_ns: now_ns,
            ran_ns: 0,
            queued_ns: 0,
            start_ns: 0,
            serial: 0,
            account: None,
            inflicted_ns: 0,
            last_stay: 0,
            cpu_cgroup: 0,
            comm: Comm::default(),
            tid,
            tgid: 0,
            parent_tgid: 0,
            cpu: NO_CPU,
            queue_cpu: NO_CPU,
            moves: NO_MOVES,
            waker: Waker::default(),
            waker_runs: 0,
            unknown_us: 0,
            runs: None,
            unit: UnitNumber::OTHER,
            target: None,
            state: State::Unknown,
            unqueued: false,
            is_unstamped: false,
            is_exchanged: false,
            kthread: false,
            is_throttled: false,
        }
    }

    /// Has the memory that every switch asks for fetched, without waiting for it: a field in each of the lines of the
    /// cache that it can lie in.
    #[inline]
    pub(super) fn fetch(&self) {
        prefetch_index(from_ref(&self.since_ns), 0);
        prefetch_index(from_ref(&self.met_ns), 0);
        prefetch_index(from_ref(&self.state), 0);
        prefetch_index(from_ref(&self.inflicted_ns), 0);
    }

    /// Takes over what a thread has from the one that made it.
    pub(super) fn inherit(&mut self, parent: &Self) {
        self.comm = parent.comm;
        self.cpu_cgroup = parent.cpu_cgroup;
        self.unit = parent.unit;
        self.parent_tgid = if parent.tgid == self.tgid {
            parent.parent_tgid
        } else {
            parent.tgid
        };
    }

    /// Whether it was seen to be put on a run queue in this window.
    pub(super) fn is_woken(&self) -> bool {
        self.woken_ns != NEVER
    }

    /// When it was last woken, in vain or not, if that was seen in this stay or run.
    pub(super) fn last_woken_ns(&self) -> Option<u64> {
        [self.rewoken_ns, self.woken_ns]
            .into_iter()
            .find(|&woken_ns| woken_ns != NEVER)
    }

    /// No loss before this time puts its state in doubt.
    pub(super) fn prove(&mut self, proven_ns: u64) {
        self.proven_ns = self.proven_ns.max(proven_ns);
    }

    /// Forgets when the stay off the CPU that is going on began.
    pub(super) fn forget_stay(&mut self) {
        self.left_ns = NEVER;
        self.woken_ns = NEVER;
        self.rewoken_ns = NEVER;
    }

    /// Forgets what the kernel had counted: a run may have been missed since.
    pub(super) fn forget_counts(&mut self) {
        self.runs = None;
        self.delay_ns = NEVER;
        self.unqueued = false;
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            tid: self.tid,
            start_ns: self.start_ns,
        }
    }

    /// Since when it does what it does, as far as that was seen in this window. Some of it may have been booked
    /// already: a thread that is put into another unit, say, leaves what it did so far to the old one.
    pub(super) fn began_ns(&self) -> u64 {
        let began_ns = match self.state {
            State::Waiting(_) => self.left_ns,
            State::Queued(_) => self.woken_ns,
            State::Running | State::Unknown => NEVER,
        };
        self.since_ns.min(began_ns).max(self.met_ns)
    }

    /// How the stay on a run queue began that it is in, if it is in one.
    pub(super) fn origin(&self) -> Origin {
        match self.state {
            State::Queued(origin) => origin,
            _ => Origin::Woken,
        }
    }

    /// The CPU that it runs on now.
    pub(super) fn running_on(&self) -> Option<usize> {
        match self.state {
            State::Running => usize::try_from(self.cpu).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Comm, Thread};

    #[test]
    fn a_thread_without_figures_is_small() {
        assert!(size_of::<Thread>() <= 224, "{} bytes", size_of::<Thread>());
    }

    #[test]
    fn hostile_names_are_made_harmless() {
        let mut comm = Comm::default();
        comm.0[..7].copy_from_slice(b"a\x1b[\xff\nb\"");
        assert_eq!(comm.display(), "a\u{fffd}[\u{fffd}\u{fffd}b\"");
        let mut turned = Comm::default();
        turned.0[..10].copy_from_slice("\u{202e}fdp.exe".as_bytes());
        assert_eq!(turned.display(), "\u{fffd}fdp.exe");
        assert_eq!(Comm([b'x'; 16]).display(), "xxxxxxxxxxxxxxxx");
    }
}
