//! Experiments against the kernel's own books.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::check::{Check, ONE_PERCENT};
use crate::lives::{books, stopwatch};
use crate::parse::{self, Span, number_after};
use crate::run::{Bench, Started, Unable, number, row_of};
use crate::sample::{Sample, Series, unix_ns};
use crate::stolen::{Stolen, Watch};
use crate::taskstats::{SWITCH, Taskstats};

/// Readings nearer than this to a switch are of no certain side of it: two clocks, and the reading itself.
const SETTLED_NS: u64 = 50_000;

/// A file of two numbers and more.
fn numbers<const N: usize>(path: &str) -> Option<[u64; N]> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text
        .split_ascii_whitespace()
        .map_while(|word| word.parse().ok());
    let mut values = [0; N];
    for value in &mut values {
        *value = words.next()?;
    }
    Some(values)
}

/// Threads that share a CPU.
pub(crate) fn spinners(bench: &Bench) -> Result<Vec<Check>> {
    books(&bench.measure(&[], &bench.workload("spin", &[]))?)
}

/// Two threads that pass a turn to and fro on one CPU, as fast as they can.
pub(crate) fn storm(bench: &Bench) -> Result<Vec<Check>> {
    let command = bench.workload("pingpong", &["--cpu", "0", "--threads", "1"]);
    books(&bench.measure(&[], &command)?)
}

/// A thread that the network wakes a thousand times a second.
pub(crate) fn network(bench: &Bench) -> Result<Vec<Check>> {
    books(&bench.measure(&[], &bench.workload("tcp-recv", &["--period", "1ms"]))?)
}

/// A thread that sleeps: its own stopwatch says for how long, and how long at most.
pub(crate) fn sleeper(bench: &Bench) -> Result<Vec<Check>> {
    let measured = bench.measure(&[], &bench.workload("sleep-loop", &[]))?;
    let mut checks = stopwatch(&measured, "sleeper", "sleep")?;
    checks.extend(books(&measured)?);
    Ok(checks)
}

/// A thread that waits for a mutex: the other one says how long it held it.
pub(crate) fn mutex(bench: &Bench) -> Result<Vec<Check>> {
    let measured = bench.measure(&[], &bench.workload("mutex", &[]))?;
    let mut checks = stopwatch(&measured, "waiter", "lock")?;
    checks.extend(books(&measured)?);
    Ok(checks)
}

/// A thread with a quota: the cgroup says how long there was none left.
pub(crate) fn quota(bench: &Bench) -> Result<Vec<Check>> {
    let measured = bench.measure(&[], &bench.workload("quota", &[]))?;
    let throttled = number(&measured.report, "/total/runnable_ns/throttled")?;
    let contended = number(&measured.report, "/total/runnable_ns/contended")?;
    let unknown = number(&measured.report, "/total/time_ns/unknown")?;
    let theirs = number(&measured.truth, "/facts/throttled_ns")?;
    let mut used_up = Check::time(
        "quota used up, all threads",
        "cpu.stat",
        throttled,
        theirs,
        ONE_PERCENT.unknown(unknown),
    );
    if contended > throttled / 100 {
        used_up = used_up.differs_by_definition(
            "with others on the CPU, its end and its beginning are a matter of view",
        );
    }
    let mut checks = vec![used_up];
    checks.extend(books(&measured)?);
    Ok(checks)
}

/// A window on threads that were there before and stay: what the kernel's counters grew by meanwhile.
pub(crate) fn window(bench: &Bench) -> Result<Vec<Check>> {
    let started = bench.start("spin", &[])?;
    let (pid, tid) = (started.pid(), started.tid("spinner-0")?);
    let schedstat = format!("/proc/{pid}/task/{tid}/schedstat");
    let series = Series::start(Box::new(move || numbers::<3>(&schedstat)));
    let status = format!("/proc/{pid}/task/{tid}/status");
    let switches = Series::start(Box::new(move || {
        let text = fs::read_to_string(&status).ok()?;
        Some([number_after(&text, "nonvoluntary_ctxt_switches:")?])
    }));
    let theirs = measured_between(bench, pid, tid)?;
    let (counters, switches) = (series.finish()?, switches.finish()?);
    // While it queues, all that it ran is booked; while it runs, all that it queued for is.
    let [ran, queued] = [("runnable", 0), ("running", 1)].map(|(state, place)| {
        let (from, until) = theirs.settled(&counters, |its| its == state)?;
        Ok::<_, anyhow::Error>((
            from.at_ns()..until.at_ns(),
            until.values[place] - from.values[place],
            until.values[2] - from.values[2],
        ))
    });
    let (ran, queued) = (ran?, queued?);
    let (from, until) = theirs.settled(&switches, |its| its == "running")?;
    let involuntary = until.values[0] - from.values[0];
    let (counted, clocks_ns) = (from.at_ns()..until.at_ns(), theirs.clocks_ns);
    let within = |state: &str, window: &Range<u64>| theirs.sum(window, |span| span.state == state);
    let begun = |state: &str, window: &Range<u64>| theirs.begun(window, |span| span.state == state);
    // A stay that begins and ends between two updates of the run queue's clock is no span.
    let stays = number(row_of(&theirs.report, tid)?, "/runqueue_delay/count")?;
    let spans = theirs.begun(&(0..u64::MAX), |span| span.state == "runnable");
    let counted_only = ONE_PERCENT.theirs_more(stays.saturating_sub(spans));
    Ok(vec![
        Check::time(
            "running, spinner-0",
            "schedstat",
            within("running", &ran.0),
            ran.1,
            ONE_PERCENT
                .plus(clocks_ns)
                .unknown(theirs.unknown(&ran.0))
                // The kernel's account of run time leaves it out.
                .ours_more(
                    theirs
                        .stolen
                        .between(&theirs.cpus(), ran.0.start, ran.0.end)?,
                ),
        ),
        Check::time(
            "on a run queue, spinner-0",
            "schedstat",
            within("runnable", &queued.0),
            queued.1,
            ONE_PERCENT
                .plus(clocks_ns)
                .unknown(theirs.unknown(&queued.0)),
        ),
        Check::count(
            "given a CPU, spinner-0",
            "schedstat",
            begun("running", &queued.0),
            queued.2,
            counted_only,
        ),
        Check::count(
            "involuntary switches, spinner-0",
            "status",
            begun("runnable", &counted),
            involuntary,
            counted_only,
        ),
    ])
}

/// A window on one thread of a process.
struct Measured {
    report: Value,
    spans: Vec<Span>,
    stolen: Stolen,
    clocks_ns: u64,
}

/// Measures a process, a little away from the ends of what is read beside.
fn measured_between(bench: &Bench, pid: u32, tid: u32) -> Result<Measured> {
    let watch = Watch::start();
    std::thread::sleep(Duration::from_millis(50));
    let measured = bench.window(pid);
    std::thread::sleep(Duration::from_millis(50));
    let stolen = watch.finish();
    let (report, csv) = measured?;
    let spans = parse::spans(&csv).context("the table of spans can be read")?;
    Ok(Measured {
        clocks_ns: report["clock_error_ns"].as_u64().unwrap_or(0) * 2,
        report,
        spans: spans.into_iter().filter(|span| span.tid == tid).collect(),
        stolen,
    })
}

impl Measured {
    /// The first and the last reading of the window during all of which the thread was in such a state: what
    /// the kernel books only when that state ends is not pending then.
    fn settled<const N: usize>(
        &self,
        samples: &[Sample<N>],
        is_settled: impl Fn(&str) -> bool,
    ) -> Result<(Sample<N>, Sample<N>)> {
        let from_ns = number(&self.report, "/window/start_unix_ns")?;
        let until_ns = from_ns + number(&self.report, "/window/duration_ns")?;
        let holds = |sample: &&Sample<N>| {
            let is_inside = sample.before_ns > from_ns && sample.after_ns < until_ns;
            let span = self.spans.iter().find(|span| {
                let end_ns = span.start_unix_ns + span.duration_ns;
                span.start_unix_ns + SETTLED_NS < sample.before_ns
                    && end_ns > sample.after_ns + SETTLED_NS
            });
            is_inside && span.is_some_and(|span| is_settled(&span.state))
        };
        let mut settled = samples.iter().filter(holds);
        let first = settled.next().copied();
        let last = settled.next_back().copied();
        first
            .zip(last)
            .context("no two readings during which the thread stayed in one state")
    }

    fn sum(&self, window: &Range<u64>, of: impl Fn(&Span) -> bool) -> u64 {
        let spans = self.spans.iter().filter(|span| of(span));
        spans
            .map(|span| span.within(window.start, window.end))
            .sum()
    }

    fn begun(&self, window: &Range<u64>, of: impl Fn(&Span) -> bool) -> u64 {
        let begun = |span: &&Span| of(span) && window.contains(&span.start_unix_ns);
        u64::try_from(self.spans.iter().filter(begun).count()).unwrap_or(u64::MAX)
    }

    fn unknown(&self, window: &Range<u64>) -> u64 {
        self.sum(window, |span| span.state == "unknown")
    }

    fn cpus(&self) -> Vec<usize> {
        let ran = self.spans.iter().filter(|span| span.state == "running");
        let mut cpus: Vec<usize> = ran.map(|span| span.cpu).collect();
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }
}

/// The switch of delay accounting, put back when dropped.
struct Accounting {
    before: String,
}

impl Accounting {
    fn on() -> Result<Self> {
        let unable = |error| {
            Unable(format!(
                "{SWITCH} can't be set ({error}): CONFIG_TASK_DELAY_ACCT and root"
            ))
        };
        let before = fs::read_to_string(SWITCH).map_err(unable)?;
        fs::write(SWITCH, "1").map_err(unable)?;
        Ok(Self { before })
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        // It could be written before.
        let _ = fs::write(SWITCH, &self.before);
    }
}

/// A thread that reads from a disk: the kernel's delay accounting says how long it waited for that.
pub(crate) fn delays(bench: &Bench) -> Result<Vec<Check>> {
    let accounting = Accounting::on()?;
    let started = bench.start("disk-read", &["--cpu", "0"])?;
    let (pid, tid) = (started.pid(), started.tid("reader")?);
    let taskstats = Taskstats::open()?;
    taskstats.of(tid)?;
    let series = Series::start(Box::new(move || {
        let delays = taskstats.of(tid).ok()?;
        Some([delays.block_ns, delays.cpu_ns, delays.blocks])
    }));
    let ours = measured_between(bench, pid, tid)?;
    let samples = series.finish()?;
    drop(accounting);
    // While it queues, all its waits are booked; while it waits, all that it queued for is.
    let [blocked, queued] = [("runnable", 0), ("blocked", 1)].map(|(state, place)| {
        let (from, until) = ours.settled(&samples, |its| its == state)?;
        let grown = |place: usize| until.values[place] - from.values[place];
        let both = (from.at_ns()..until.at_ns(), grown(place), grown(2));
        Ok::<_, anyhow::Error>(both)
    });
    let (blocked, queued) = (blocked?, queued?);
    let is_wait = |span: &Span| span.state == "blocked" && span.reason == "disk-io";
    // Theirs are the waits that the kernel flags as such (`in_iowait`), by another clock; ours are those of which
    // the evidence says so, a lock on the way to the disk among them.
    let why = "theirs are waits with in_iowait set, ours those for the file";
    let disk_waits = Check::count(
        "waits for a disk, reader",
        "taskstats",
        ours.begun(&blocked.0, is_wait),
        blocked.2,
        ONE_PERCENT,
    )
    .differs_by_definition(why);
    let disk_time = Check::time(
        "blocked for disk-io, reader",
        "taskstats",
        ours.sum(&blocked.0, is_wait),
        blocked.1,
        ONE_PERCENT,
    )
    .differs_by_definition(why);
    let queue = Check::time(
        "on a run queue, reader",
        "taskstats",
        ours.sum(&queued.0, |span| span.state == "runnable"),
        queued.1,
        ONE_PERCENT
            .plus(ours.clocks_ns)
            .unknown(ours.unknown(&queued.0)),
    );
    Ok(vec![disk_waits, disk_time, queue])
}

/// Every switch of the host: the records that a service has read, and the kernel's count.
pub(crate) fn host(bench: &Bench) -> Result<Vec<Check>> {
    let address = TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .context("a free port")?;
    let mut command = Command::new(&bench.schedscope);
    command.args(["run", "--listen", &address.to_string()]);
    let service = Started::start(command)?;
    let start = Instant::now();
    while scrape(address).is_err() {
        if start.elapsed() > Duration::from_secs(30) {
            bail!("the service does not get healthy");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let load = bench.start("pingpong", &["--threads", "1"])?;
    let series = Series::start(Box::new(|| {
        let text = fs::read_to_string("/proc/stat").ok()?;
        Some([number_after(&text, "ctxt ")?])
    }));
    let mut ends = Vec::new();
    for pause in [Duration::from_millis(300), bench.time, Duration::ZERO] {
        let before = unix_ns();
        let text = scrape(address)?;
        ends.push((before, unix_ns(), text));
        std::thread::sleep(pause);
    }
    let [_, first, last] = &ends[..] else {
        bail!("two scrapes");
    };
    let [theirs] = series.grown(first.0.midpoint(first.1), last.0.midpoint(last.1))?;
    let switches = |text: &str| {
        number_after(text, "schedscope_events_total{kind=\"switch\"}")
            .context("a count of switches on /metrics")
    };
    let lost = |text: &str| -> u64 {
        let lines = text
            .lines()
            .filter(|line| line.starts_with("schedscope_events_dropped_total"));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    let ours = switches(&last.2)?.saturating_sub(switches(&first.2)?);
    // While a scrape is answered the host goes on: at both ends.
    let seconds = bench.time.as_micros().max(1);
    let answering = u128::from(first.1 - first.0 + last.1 - last.0) / 1000;
    let meanwhile = u64::try_from(u128::from(theirs) * answering / seconds)?;
    drop((load, service));
    Ok(vec![Check::count(
        "switches, whole host",
        "/proc/stat",
        ours,
        theirs,
        ONE_PERCENT
            .plus(meanwhile)
            .unknown(lost(&last.2).saturating_sub(lost(&first.2))),
    )])
}

/// What a service says of itself.
fn scrape(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    anyhow::ensure!(text.starts_with("HTTP/1.1 200"), "it answers {text:.40}");
    Ok(text)
}
