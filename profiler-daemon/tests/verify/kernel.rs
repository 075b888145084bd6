//! Experiments against the kernel's own books.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::check::{Check, ONE_PERCENT};
use crate::parse::number_after;
use crate::run::{Bench, Measured, Started, Unable, number, row_of};
use crate::sample::{Series, unix_ns};
use crate::taskstats::{SWITCH, Taskstats};

/// What the kernel books of a moment later or earlier than we do: its account of a thread that runs is as
/// old as the last tick, which is 4 ms at 250 Hz, at both ends of a window.
const TICKS_NS: u64 = 8_000_000;

/// From one reading of the kernel's books to the next, at the end of a thread's life.
const READING_NS: u64 = 200_000;

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

/// Whole lives of a workload's threads: what they used of a CPU and queued for one, and how often.
///
/// A thread reads its own books last of all but its end; what it does after that is what the two can't agree on.
fn lives(measured: &Measured) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let threads = measured.truth["threads"].as_array();
    for truth in threads.context("threads in the truth")? {
        let name = truth["name"].as_str().unwrap_or_default();
        let tid = u32::try_from(number(truth, "/tid")?)?;
        let row = row_of(&measured.report, tid)?;
        let age = number(truth, "/after/boottime_ns")? - number(row, "/start_ns")?;
        let tail = number(row, "/observed_ns")?.saturating_sub(age) + READING_NS;
        let unknown = number(row, "/time_ns/unknown")?;
        let allowed = ONE_PERCENT.plus(tail).unknown(unknown);
        checks.push(Check::time(
            format!("running, {name}"),
            "thread clock",
            number(row, "/time_ns/running")?,
            number(truth, "/after/cpu_ns")?,
            // The thread's clock stops while the hypervisor runs something else; ours does not.
            allowed.ours_more(measured.steal_ns),
        ));
        checks.push(Check::time(
            format!("on a run queue, {name}"),
            "schedstat",
            number(row, "/time_ns/runnable")?,
            number(truth, "/after/schedstat_delay_ns")?,
            allowed,
        ));
        // Waits of which one end is not known, and the switches at the thread's end.
        for kind in ["voluntary", "involuntary"] {
            let theirs = number(truth, &format!("/after/{kind}"))?;
            let unseen = if unknown > 0 { theirs } else { 0 };
            checks.push(Check::count(
                format!("{kind} switches, {name}"),
                "status",
                number(row, &format!("/switches/{kind}"))?,
                theirs,
                ONE_PERCENT.plus(3).unknown(unseen),
            ));
        }
    }
    Ok(checks)
}

/// Threads that share a CPU.
pub(crate) fn spinners(bench: &Bench) -> Result<Vec<Check>> {
    lives(&bench.measure(&[], &[], &bench.workload("spin", &[]))?)
}

/// Two threads that pass a turn to and fro on one CPU, as fast as they can.
pub(crate) fn storm(bench: &Bench) -> Result<Vec<Check>> {
    let command = bench.workload("pingpong", &["--cpu", "0", "--threads", "1"]);
    lives(&bench.measure(&[], &[], &command)?)
}

/// A thread that the network wakes a thousand times a second.
pub(crate) fn network(bench: &Bench) -> Result<Vec<Check>> {
    lives(&bench.measure(&[], &[], &bench.workload("tcp-recv", &["--period", "1ms"]))?)
}

/// A thread that sleeps: its own stopwatch says for how long, and how long at most.
pub(crate) fn sleeper(bench: &Bench) -> Result<Vec<Check>> {
    stopwatch(
        &bench.measure(&[], &[], &bench.workload("sleep-loop", &[]))?,
        "sleeper",
        "sleep",
    )
}

/// A thread that waits for a mutex: the other one says how long it held it.
pub(crate) fn mutex(bench: &Bench) -> Result<Vec<Check>> {
    stopwatch(
        &bench.measure(&[], &[], &bench.workload("mutex", &[]))?,
        "waiter",
        "lock",
    )
}

/// What a thread timed around its waits is what it was blocked and queued for afterwards.
fn stopwatch(measured: &Measured, name: &str, reason: &str) -> Result<Vec<Check>> {
    let threads = measured.truth["threads"].as_array().into_iter().flatten();
    let mut threads = threads.filter(|truth| truth["name"] == name);
    let truth = threads.next().context("the thread is in the truth")?;
    let row = row_of(&measured.report, u32::try_from(number(truth, "/tid")?)?)?;
    let delay = number(truth, "/after/schedstat_delay_ns")?
        .saturating_sub(number(truth, "/before/schedstat_delay_ns")?);
    let waits = number(truth, "/waits")?;
    let unknown = number(row, "/time_ns/unknown")?;
    // To read a clock twice and to call the kernel takes a microsecond or two that are no wait.
    let allowed = ONE_PERCENT.unknown(unknown);
    let waited = number(truth, "/waited_ns")?;
    // What it queued for after its waits is in its stopwatch, too; what it queued for elsewhere is not.
    let allowed = allowed.theirs_more(delay + waits * 5_000);
    let queued = number(row, "/time_ns/runnable")?;
    let mut checks = vec![
        Check::time(
            format!("blocked, {name}"),
            "stopwatch",
            number(row, "/time_ns/blocked")?,
            waited,
            // Before its loop it may have waited to be let in.
            allowed.plus(queued.saturating_sub(delay) + 1_000_000),
        ),
        Check::time(
            format!("of that for {reason}, {name}"),
            "stopwatch",
            number(row, &format!("/blocked_ns/{reason}"))?,
            waited,
            allowed.plus(1_000_000),
        ),
        Check::time(
            format!("longest off a CPU, {name}"),
            "stopwatch",
            number(row, "/offcpu/max_ns")?,
            number(truth, "/longest_ns")?,
            ONE_PERCENT.unknown(unknown).plus(500_000),
        ),
    ];
    checks.extend(lives(measured)?);
    Ok(checks)
}

/// A thread with a quota: the cgroup says how long there was none left.
pub(crate) fn quota(bench: &Bench) -> Result<Vec<Check>> {
    let measured = bench.measure(&[], &[], &bench.workload("quota", &[]))?;
    let throttled = number(&measured.report, "/total/runnable_ns/throttled")?;
    let contended = number(&measured.report, "/total/runnable_ns/contended")?;
    let unknown = number(&measured.report, "/total/time_ns/unknown")?;
    let theirs = number(&measured.truth, "/facts/throttled_ns")?;
    let mut checks = vec![Check::time(
        "quota used up, all threads",
        "cpu.stat",
        throttled,
        theirs,
        // While another thread has the CPU, whether the quota or that thread is waited for is a matter of
        // definition from the moment on at which the quota is used up, which only the kernel's own code knows.
        ONE_PERCENT.plus(contended / 10).unknown(unknown),
    )];
    // A life that ends while there is no quota left has a tail that neither books; the group's own sum is above.
    checks.extend(lives(&measured)?);
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
    let report = measured_between(bench, pid)?;
    let (from_ns, until_ns) = bounds(&report)?;
    let [run, delay, slices] = series.grown(from_ns, until_ns)?;
    let [involuntary] = switches.grown(from_ns, until_ns)?;
    let row = row_of(&report, tid)?;
    let unknown = number(row, "/time_ns/unknown")?;
    // A stay on the queue is in the kernel's sum when it ends, in ours as it goes on.
    let longest = number(row, "/runqueue_delay/max_ns")?;
    Ok(vec![
        Check::time(
            "running, spinner-0",
            "schedstat",
            number(row, "/time_ns/running")?,
            run,
            ONE_PERCENT.plus(TICKS_NS).unknown(unknown),
        ),
        Check::time(
            "on a run queue, spinner-0",
            "schedstat",
            number(row, "/time_ns/runnable")?,
            delay,
            ONE_PERCENT.plus(longest).unknown(unknown),
        ),
        Check::count(
            "given a CPU, spinner-0",
            "schedstat",
            number(row, "/runqueue_delay/count")?,
            slices,
            ONE_PERCENT
                .plus(2)
                .unknown(if unknown > 0 { slices } else { 0 }),
        ),
        Check::count(
            "involuntary switches, spinner-0",
            "status",
            number(row, "/switches/involuntary")?,
            involuntary,
            ONE_PERCENT
                .plus(2)
                .unknown(if unknown > 0 { involuntary } else { 0 }),
        ),
    ])
}

/// Measures a process, a little away from the ends of what is read beside.
fn measured_between(bench: &Bench, pid: u32) -> Result<Value> {
    std::thread::sleep(Duration::from_millis(50));
    let report = bench.window(pid)?;
    std::thread::sleep(Duration::from_millis(50));
    Ok(report)
}

fn bounds(report: &Value) -> Result<(u64, u64)> {
    let from_ns = number(report, "/window/start_unix_ns")?;
    Ok((from_ns, from_ns + number(report, "/window/duration_ns")?))
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
    let started = bench.start("disk-read", &[])?;
    let (pid, tid) = (started.pid(), started.tid("reader")?);
    let taskstats = Taskstats::open()?;
    taskstats.of(tid)?;
    let series = Series::start(Box::new(move || {
        let delays = taskstats.of(tid).ok()?;
        Some([delays.block_ns, delays.cpu_ns])
    }));
    let report = measured_between(bench, pid)?;
    let (from_ns, until_ns) = bounds(&report)?;
    let [block, cpu] = series.grown(from_ns, until_ns)?;
    drop(accounting);
    let row = row_of(&report, tid)?;
    let unknown = number(row, "/time_ns/unknown")?;
    let off = number(row, "/offcpu/max_ns")?;
    let waits = number(row, "/offcpu/count")?;
    Ok(vec![
        Check::time(
            "blocked for disk-io, reader",
            "taskstats",
            number(row, "/blocked_ns/disk-io")?,
            block,
            // Their clock starts before the thread leaves its CPU and stops when it is back on one: so theirs
            // has the stay on the run queue, and some instructions.
            ONE_PERCENT
                .plus(off)
                .unknown(unknown)
                .theirs_more(number(row, "/time_ns/runnable")? + waits * 2_000),
        ),
        Check::time(
            "on a run queue, reader",
            "taskstats",
            number(row, "/time_ns/runnable")?,
            cpu,
            ONE_PERCENT
                .plus(number(row, "/runqueue_delay/max_ns")?)
                .unknown(unknown),
        ),
    ])
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
