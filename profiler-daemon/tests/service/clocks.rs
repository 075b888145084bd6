//! Where the time of a request went, by the kernel's own figures of the threads that had a part in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// `USER_HZ`, in which procfs gives times.
const TICK: Duration = Duration::from_millis(10);

/// The kernel's figures of one thread.
#[derive(Debug)]
struct Thread(PathBuf);

impl Thread {
    fn own() -> Self {
        Self(format!("/proc/self/task/{}/schedstat", gettid().as_raw_nonzero()).into())
    }

    /// The thread of this name of a process.
    fn named(process: &Path, name: &str) -> Self {
        let tasks = fs::read_dir(process.join("task")).expect("the process is there");
        let mut tasks = tasks.map(|task| task.expect("a thread").path());
        let task = tasks.find(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|its| its.trim_end() == name)
        });
        Self(task.expect("there is such a thread").join("schedstat"))
    }

    /// Time on a CPU, and on a run queue.
    fn times(&self) -> (Duration, Duration) {
        let text = fs::read_to_string(&self.0).expect("the thread is there");
        let mut numbers = text
            .split_whitespace()
            .map(|number| number.parse().expect("a number"));
        let mut next = || Duration::from_nanos(numbers.next().expect("three of them"));
        (next(), next())
    }
}

/// Those that have a part in an answer.
#[derive(Debug)]
pub(crate) struct Clocks {
    client: Thread,
    server: Thread,
    drain: Thread,
}

/// A moment, by all of them.
#[derive(Debug)]
pub(crate) struct Moment {
    at: Instant,
    client: (Duration, Duration),
    server: (Duration, Duration),
    drain: (Duration, Duration),
    stolen: Duration,
}

/// How long a request took, and what of that the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Took {
    pub(crate) all: Duration,
    /// The client itself waited for a CPU.
    pub(crate) client_waited: Duration,
    pub(crate) client_ran: Duration,
    /// The thread that serves.
    pub(crate) server_waited: Duration,
    pub(crate) server_ran: Duration,
    /// The thread that drains, and answers for the figures.
    pub(crate) drain_waited: Duration,
    pub(crate) drain_ran: Duration,
    /// The host of this virtual machine had its CPUs.
    pub(crate) stolen: Duration,
}

impl Took {
    /// All but what the client itself waited for a CPU, and what the host had of them: that would have been so with
    /// any service.
    pub(crate) fn by_the_service(&self) -> Duration {
        self.all.saturating_sub(self.client_waited + self.stolen)
    }
}

impl Clocks {
    /// The calling thread asks this service. It is not to wait behind the other clients of the test, who stand for
    /// other machines.
    pub(crate) fn new(service: &Path) -> Self {
        setpriority_process(Some(gettid()), -20).expect("root may");
        let server = service
            .join("task")
            .join(service.file_name().expect("a number"));
        Self {
            client: Thread::own(),
            server: Thread(server.join("schedstat")),
            drain: Thread::named(service, "drain"),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment {
            at: Instant::now(),
            client: self.client.times(),
            server: self.server.times(),
            drain: self.drain.times(),
            stolen: stolen(),
        }
    }

    /// What came of a request that was begun then.
    pub(crate) fn since(&self, then: &Moment) -> Took {
        let all = then.at.elapsed();
        let now = self.now();
        let stage = |now: (Duration, Duration), then: (Duration, Duration)| {
            (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1))
        };
        let (client_ran, client_waited) = stage(now.client, then.client);
        let (server_ran, server_waited) = stage(now.server, then.server);
        let (drain_ran, drain_waited) = stage(now.drain, then.drain);
        Took {
            all,
            client_waited,
            client_ran,
            server_waited,
            server_ran,
            drain_waited,
            drain_ran,
            stolen: now.stolen.saturating_sub(then.stolen),
        }
    }
}

/// A thread that was started by one that asks runs as others do.
pub(crate) fn usual() {
    setpriority_process(Some(gettid()), 0).expect("anybody may give way");
}

/// What the host has taken of all CPUs so far.
fn stolen() -> Duration {
    let stat = fs::read_to_string("/proc/stat").expect("procfs is mounted");
    let ticks = stat
        .split_whitespace()
        .nth(8)
        .and_then(|ticks| ticks.parse().ok());
    TICK * ticks.expect("the first line has the sum of all CPUs")
}
