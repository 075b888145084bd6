//! The live self-check: some threads' figures against the kernel's own books, now and then others.
//!
//! `/proc/TID/schedstat` says how long a thread has run and how long it has queued. What both grew by
//! between two looks must agree. Where some of that time is unknown, as after a loss, ours may be less by so
//! much: such a thread still shows whether we claim too much, but it says nothing of the ratio.

use std::time::{Duration, Instant};

use crate::core::{Core, Tally};
use crate::source::procfs::Books;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(10);

/// Threads looked at each time. Reading the kernel's figure takes some ten microseconds.
const THREADS: usize = 16;

/// What the kernel's answers may take, at both ends together; and beyond it, which share of the kernel's
/// figure both may differ by.
const TOLERANCE_NS: u64 = 5_000_000;
const TOLERANCE_PARTS: u64 = 100;

/// One figure, from both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// What the records say, in nanoseconds.
    pub ours_ns: u64,
    /// What the kernel says, in nanoseconds.
    pub kernel_ns: u64,
}

impl Pair {
    /// Whether both agree, if so much of ours may be missing.
    fn agrees(self, unknown_ns: u64) -> bool {
        let allowed_ns = TOLERANCE_NS + self.kernel_ns / TOLERANCE_PARTS;
        self.ours_ns <= self.kernel_ns + allowed_ns
            && self.kernel_ns <= self.ours_ns + allowed_ns + unknown_ns
    }

    fn add(&mut self, other: Self) {
        self.ours_ns += other.ours_ns;
        self.kernel_ns += other.kernel_ns;
    }
}

/// What the looks have shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Threads whose figures agreed.
    pub agree: u64,
    /// Threads of which one figure at least did not.
    pub differ: u64,
    /// Threads whose figures agreed because some of their time was unknown.
    pub unsure: u64,
    /// Time on a CPU, all threads together of which nothing was unknown.
    pub running: Pair,
    /// Time on a run queue, the same threads.
    pub runnable: Pair,
}

impl Findings {
    fn add(&mut self, running: Pair, runnable: Pair, unknown_ns: u64) {
        let agree = |unknown_ns| running.agrees(unknown_ns) && runnable.agrees(unknown_ns);
        if agree(0) {
            self.agree += 1;
        } else if agree(unknown_ns) {
            self.unsure += 1;
        } else {
            self.differ += 1;
        }
        if unknown_ns == 0 {
            self.running.add(running);
            self.runnable.add(runnable);
        }
    }
}

/// A moment at which threads are looked at.
#[derive(Debug, Default)]
struct Look {
    /// By the records' clock.
    at_ns: u64,
    threads: Vec<(Tally, Books)>,
}

/// Looks, and remembers.
///
/// The kernel is asked first. What the core says of the same moment is known once it has taken in everything
/// up to then, and no more: a stay on a run queue counts at its end, on either side.
#[derive(Debug)]
pub struct SelfCheck {
    due: Instant,
    last: Look,
    /// What the kernel said, by thread; the core is still to be asked.
    asked: Option<(u64, Vec<(u32, Books)>)>,
    findings: Findings,
}

impl SelfCheck {
    /// The first look is due at once.
    #[must_use]
    pub fn start() -> Self {
        Self {
            due: Instant::now(),
            last: Look::default(),
            asked: None,
            findings: Findings::default(),
        }
    }

    /// What has been found so far.
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.findings
    }

    /// Asks the kernel, if it is time to: of the threads of the last look, and of others that have run since.
    pub fn ask_kernel(&mut self, core: &Core, now_ns: impl Fn() -> u64) {
        if self.asked.is_some() || Instant::now() < self.due {
            return;
        }
        self.due = Instant::now() + EVERY;
        let known: Vec<u32> = self.last.threads.iter().map(|its| its.0.tid).collect();
        let after = known.last().copied().unwrap_or(0);
        let others = core.active(self.last.at_ns, after, THREADS);
        let others = others.iter().filter(|tid| !known.contains(tid));
        let tids = known.iter().chain(others);
        let books = tids.filter_map(|&tid| Some((tid, Books::read(tid)?)));
        let books = books.collect();
        self.asked = Some((now_ns(), books));
    }

    /// Not all records of the threads that are compared are there: it begins anew.
    pub fn forget(&mut self) {
        self.last.threads.clear();
        self.asked = None;
    }

    /// The time up to which the core must have taken in everything, and nothing later, before it is asked.
    #[must_use]
    pub fn asks_at_ns(&self) -> Option<u64> {
        self.asked.as_ref().map(|(at_ns, _)| *at_ns)
    }

    /// Asks the core, and compares.
    pub fn ask_core(&mut self, core: &Core) {
        let Some((at_ns, books)) = self.asked.take() else {
            return;
        };
        let before = std::mem::take(&mut self.last.threads);
        for (tid, books) in books {
            let Some(tally) = core.tally(tid) else {
                continue;
            };
            match before.iter().find(|its| its.0.serial == tally.serial) {
                Some((tally_before, books_before)) => self.findings.add(
                    Pair {
                        ours_ns: tally.running_ns.saturating_sub(tally_before.running_ns),
                        kernel_ns: books.running_ns.saturating_sub(books_before.running_ns),
                    },
                    Pair {
                        ours_ns: tally.runnable_ns.saturating_sub(tally_before.runnable_ns),
                        kernel_ns: books.runnable_ns.saturating_sub(books_before.runnable_ns),
                    },
                    u64::from(tally.unknown_us.wrapping_sub(tally_before.unknown_us)) * 1000,
                ),
                // It is compared at the next look.
                None => self.last.threads.push((tally, books)),
            }
        }
        self.last.at_ns = at_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::{Findings, Pair};

    fn pair(ours_ms: u64, kernel_ms: u64) -> Pair {
        Pair {
            ours_ns: ours_ms * 1_000_000,
            kernel_ns: kernel_ms * 1_000_000,
        }
    }

    #[test]
    fn small_differences_are_the_clocks_and_large_ones_are_told() {
        let mut findings = Findings::default();
        findings.add(pair(1000, 1014), pair(0, 0), 0);
        assert_eq!((findings.agree, findings.differ), (1, 0));
        findings.add(pair(1000, 1020), pair(0, 0), 0);
        findings.add(pair(10, 10), pair(6, 0), 0);
        assert_eq!((findings.agree, findings.differ), (1, 2));
        assert_eq!(findings.running, pair(2010, 2044));
        assert_eq!(findings.runnable, pair(6, 0));
    }

    #[test]
    fn unknown_time_may_be_missing_but_excuses_no_time_too_much() {
        let mut findings = Findings::default();
        let unknown_ns = 300_000_000;
        findings.add(pair(10, 10), pair(100, 400), unknown_ns);
        assert_eq!((findings.unsure, findings.differ), (1, 0));
        findings.add(pair(10, 10), pair(400, 100), unknown_ns);
        findings.add(pair(10, 10), pair(0, 400), unknown_ns);
        assert_eq!((findings.unsure, findings.differ), (1, 2));
        findings.add(pair(10, 10), pair(5, 5), unknown_ns);
        assert_eq!((findings.agree, findings.unsure), (1, 1));
        // The ratio is of threads of which everything is known.
        assert_eq!(
            (findings.running, findings.runnable),
            (pair(0, 0), pair(0, 0))
        );
    }
}
