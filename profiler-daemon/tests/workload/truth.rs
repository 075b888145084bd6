//! What a thread of the workload knows about itself: its expectation, its own stopwatch, and the
//! kernel's accounts of it before and after.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rustix::time::ClockId;
use serde::Serialize;
use serde_json::{Map, Value};

/// Nanoseconds of a duration; a workload never lasts the 584 years that don't fit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The moment by the wall clock, as reports have it.
pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, nanos)
}

/// Time that the calling thread has had a CPU.
pub(crate) fn thread_cpu_ns() -> u64 {
    let time = Duration::try_from(rustix::time::clock_gettime(ClockId::ThreadCPUTime));
    time.map_or(0, nanos)
}

/// What a thread is built to do, in the profiler's terms.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Expect {
    /// Where nearly all its time goes: `running`, `runnable` or `blocked`; `mixed` where the share
    /// follows from the others on its CPU.
    pub(crate) state: &'static str,
    /// Why it is blocked, if it is.
    pub(crate) reason: Option<&'static str>,
    /// Who ends its waits: the name of a thread, or `timer`, `block`, `network`.
    pub(crate) waker: Option<&'static str>,
    /// Name of the thread that keeps it from its CPU.
    pub(crate) culprit: Option<&'static str>,
}

impl Expect {
    /// A thread that computes, alone or beside others.
    pub(crate) const fn mixed() -> Self {
        Self {
            state: "mixed",
            reason: None,
            waker: None,
            culprit: None,
        }
    }

    /// A thread that waits for one thing nearly all the time.
    pub(crate) const fn blocked(reason: &'static str, waker: &'static str) -> Self {
        Self {
            state: "blocked",
            reason: Some(reason),
            waker: Some(waker),
            culprit: None,
        }
    }

    /// A thread that computes and shares its CPU with a named other one.
    pub(crate) const fn contended(culprit: &'static str) -> Self {
        Self {
            state: "mixed",
            reason: None,
            waker: None,
            culprit: Some(culprit),
        }
    }
}

/// The kernel's own accounts of the calling thread at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Accounts {
    /// The moment, by `CLOCK_BOOTTIME`, which threads' births are counted in.
    pub(crate) boottime_ns: u64,
    /// The moment by the wall clock, right before the thread's own clock was read.
    pub(crate) unix_ns: u64,
    /// From `unix_ns` until that clock had been read.
    pub(crate) clock_ns: u64,
    /// From before the first reading until `unix_ns`: the files are of some moment in between.
    pub(crate) files_ns: u64,
    /// `CLOCK_THREAD_CPUTIME_ID`: exact at the time of reading.
    pub(crate) cpu_ns: u64,
    /// First field of `schedstat`: run time, as of the last tick or switch.
    pub(crate) schedstat_run_ns: u64,
    /// Second field: run-queue delay.
    pub(crate) schedstat_delay_ns: u64,
    /// Third field: how often it was given a CPU.
    pub(crate) schedstat_slices: u64,
    /// `voluntary_ctxt_switches`.
    pub(crate) voluntary: u64,
    /// `nonvoluntary_ctxt_switches`.
    pub(crate) involuntary: u64,
}

impl Accounts {
    /// Reads the calling thread's accounts, again if it took long: it may have lost its CPU meanwhile, so that
    /// they are of several moments.
    pub(crate) fn read() -> Result<Self> {
        const QUICK_NS: u64 = 150_000;
        const MOST: usize = 8;
        let mut best = Self::read_once()?;
        for _ in 1..MOST {
            if best.files_ns + best.clock_ns <= QUICK_NS {
                break;
            }
            let next = Self::read_once()?;
            if next.files_ns + next.clock_ns <= best.files_ns + best.clock_ns {
                best = next;
            }
        }
        Ok(best)
    }

    fn read_once() -> Result<Self> {
        let first_ns = unix_ns();
        let clock = |id| -> Result<u64> {
            let time = Duration::try_from(rustix::time::clock_gettime(id));
            Ok(nanos(time.context("a time is negative")?))
        };
        // First: what the thread queues for while it reads the rest is then after the moment.
        let boottime_ns = clock(ClockId::Boottime)?;
        let schedstat = fs::read_to_string("/proc/thread-self/schedstat")
            .context("reading /proc/thread-self/schedstat, which needs CONFIG_SCHED_INFO")?;
        let mut fields = schedstat.split_ascii_whitespace().map(str::parse);
        let mut next = || -> Result<u64> {
            fields
                .next()
                .with_context(|| format!("three numbers expected in schedstat, got '{schedstat}'"))?
                .with_context(|| format!("a number expected in schedstat, got '{schedstat}'"))
        };
        let (schedstat_run_ns, schedstat_delay_ns, schedstat_slices) = (next()?, next()?, next()?);
        let status = fs::read_to_string("/proc/thread-self/status")
            .context("reading /proc/thread-self/status")?;
        let field = |name: &str| -> Result<u64> {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .with_context(|| format!("'{name}' expected in /proc/thread-self/status"))?
                .trim()
                .parse()
                .with_context(|| format!("a number expected for '{name}'"))
        };
        let (voluntary, involuntary) = (
            field("voluntary_ctxt_switches")?,
            field("nonvoluntary_ctxt_switches")?,
        );
        let unix_ns = unix_ns();
        let cpu_ns = clock(ClockId::ThreadCPUTime)?;
        Ok(Self {
            boottime_ns,
            unix_ns,
            clock_ns: self::unix_ns().saturating_sub(unix_ns),
            files_ns: unix_ns.saturating_sub(first_ns),
            cpu_ns,
            schedstat_run_ns,
            schedstat_delay_ns,
            schedstat_slices,
            voluntary,
            involuntary,
        })
    }
}

/// One thread's truth, as printed.
#[derive(Debug, Serialize)]
pub(crate) struct ThreadTruth {
    name: String,
    pid: u32,
    tid: u32,
    expect: Expect,
    /// Wall time of the loop by `CLOCK_MONOTONIC`; all figures below are of the loop.
    loop_ns: u64,
    /// CPU time of the loop by the thread's own clock.
    cpu_ns: u64,
    /// Wall time around the waits, by `CLOCK_MONOTONIC`: the wait itself, the run-queue delay
    /// after it, and the instructions of the call.
    waited_ns: u64,
    /// How many waits.
    waits: u64,
    /// The longest of them.
    longest_ns: u64,
    before: Accounts,
    after: Accounts,
    facts: Map<String, Value>,
}

/// The stopwatch of one thread; made when its loop starts, closed when it ends.
#[derive(Debug)]
pub(crate) struct Meter {
    name: String,
    expect: Expect,
    start: Instant,
    before: Accounts,
    waited_ns: u64,
    waits: u64,
    longest_ns: u64,
    facts: Map<String, Value>,
}

impl Meter {
    /// Starts the calling thread's stopwatch.
    pub(crate) fn start(name: &str, expect: Expect) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            expect,
            before: Accounts::read()?,
            start: Instant::now(),
            waited_ns: 0,
            waits: 0,
            longest_ns: 0,
            facts: Map::new(),
        })
    }

    /// Does something that waits, and times it.
    pub(crate) fn wait<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = wait();
        self.waited(start.elapsed());
        result
    }

    /// Counts a wait that was timed elsewhere.
    pub(crate) fn waited(&mut self, time: Duration) {
        let time_ns = nanos(time);
        self.waited_ns += time_ns;
        self.waits += 1;
        self.longest_ns = self.longest_ns.max(time_ns);
    }

    /// Adds something else that the thread knows.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Stops the stopwatch.
    pub(crate) fn finish(self) -> Result<ThreadTruth> {
        let loop_ns = nanos(self.start.elapsed());
        let after = Accounts::read()?;
        Ok(ThreadTruth {
            name: self.name,
            pid: std::process::id(),
            tid: rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .unsigned_abs(),
            expect: self.expect,
            loop_ns,
            cpu_ns: after.cpu_ns - self.before.cpu_ns,
            waited_ns: self.waited_ns,
            waits: self.waits,
            longest_ns: self.longest_ns,
            before: self.before,
            after,
            facts: self.facts,
        })
    }
}
