//! The request server: one request in a thousand is stalled on purpose, and every one of them has to be found
//! and named; and what a sampling profiler shows of the same run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::check::{Allowed, Check, ONE_PERCENT};
use crate::parse::{self, Span};
use crate::run::{Bench, Measured, Unable, finish, number, row_of};

/// What each kind of stall has to be called: time on a run queue for a cause, or a reason.
const KINDS: [(&str, Called); 5] = [
    ("lock", Called::Blocked("lock")),
    ("sleep", Called::Blocked("sleep")),
    ("hog", Called::Contended("hog")),
    ("quota", Called::Throttled),
    ("disk", Called::Disk),
];

/// The calls around a stall, and reading the clock.
const CALL_NS: u64 = 200_000;

#[derive(Clone, Copy)]
enum Called {
    Blocked(&'static str),
    Contended(&'static str),
    Throttled,
    /// The file system has it go on while the disk writes, or does not: it is the disk in any case.
    Disk,
}

impl Called {
    /// The list of the longest waits that it belongs to.
    fn list(self) -> &'static str {
        match self {
            Self::Contended(_) | Self::Throttled => "runqueue",
            Self::Blocked("sleep") => "idle",
            Self::Blocked(_) | Self::Disk => "blocked",
        }
    }

    /// How much of a span this is.
    fn share(self, span: &Span) -> u64 {
        let is_reason = |reason: &str| span.state == "blocked" && span.reason == reason;
        match self {
            Self::Blocked(reason) if is_reason(reason) => span.duration_ns,
            Self::Disk if is_reason("fs-sync") || is_reason("disk-io") => span.duration_ns,
            Self::Contended(culprit) if span.culprit == culprit => span.contended_ns,
            Self::Throttled => span.throttled_ns,
            _ => 0,
        }
    }
}

/// A line of the server's own log.
struct Stall {
    kind: String,
    start_unix_ns: u64,
    end_unix_ns: u64,
    stalled_ns: u64,
}

impl Stall {
    fn overlaps(&self, from_ns: u64, duration_ns: u64) -> bool {
        from_ns < self.end_unix_ns && from_ns + duration_ns > self.start_unix_ns
    }
}

impl Stall {
    /// How much of what it overlaps is called this.
    fn share(&self, called: Called, spans: &[Span]) -> u64 {
        let spans = spans.iter();
        let within = spans.filter(|span| self.overlaps(span.start_unix_ns, span.duration_ns));
        within.map(|span| called.share(span)).sum()
    }

    /// How much of it the server runs and queues, on its way into the wait and out of it.
    fn on_its_way(&self, called: Called, spans: &[Span]) -> u64 {
        let spans = spans.iter();
        let within = spans.filter(|span| self.overlaps(span.start_unix_ns, span.duration_ns));
        let ways = within.filter(|span| span.state == "running" || span.state == "runnable");
        ways.map(|span| self.within(span).saturating_sub(called.share(span)))
            .sum()
    }

    /// Whether nearly all of it is there, under its name.
    fn is_found(&self, called: Called, spans: &[Span]) -> bool {
        let share = self.share(called, spans);
        let is_whole = share + self.on_its_way(called, spans) >= self.stalled_ns / 10 * 9;
        share >= self.stalled_ns / 2 && is_whole
    }

    /// How much of a span lies within the stall, which is the last part of what the log has.
    fn within(&self, span: &Span) -> u64 {
        let from_ns = self
            .end_unix_ns
            .saturating_sub(self.stalled_ns)
            .max(span.start_unix_ns);
        let until_ns = self.end_unix_ns.min(span.start_unix_ns + span.duration_ns);
        until_ns.saturating_sub(from_ns)
    }
}

fn log(truth: &Value) -> Result<(u32, Vec<Stall>)> {
    let threads = truth["threads"].as_array().into_iter().flatten();
    let mut servers = threads.filter(|thread| thread["name"] == "server");
    let server = servers.next().context("a server in the truth")?;
    let stalls = server.pointer("/facts/stalls").and_then(Value::as_array);
    let stalls = stalls.context("a log of stalls")?.iter().map(|stall| {
        Ok(Stall {
            kind: stall["kind"].as_str().unwrap_or_default().to_owned(),
            start_unix_ns: number(stall, "/start_unix_ns")?,
            end_unix_ns: number(stall, "/end_unix_ns")?,
            stalled_ns: number(stall, "/stalled_ns")?,
        })
    });
    let tid = u32::try_from(number(server, "/tid")?)?;
    Ok((tid, stalls.collect::<Result<_>>()?))
}

/// What the server's thread did.
fn spans_of(measured: &Measured, tid: u32) -> Result<Vec<Span>> {
    let spans = parse::spans(&measured.csv).context("the table of spans can be read")?;
    Ok(spans.into_iter().filter(|span| span.tid == tid).collect())
}

/// All of them are there, with their lengths and their reasons.
pub(crate) fn found(bench: &Bench) -> Result<Vec<Check>> {
    judge(&bench.measure(&[], &bench.workload("requests", &[]))?)
}

fn judge(measured: &Measured) -> Result<Vec<Check>> {
    let (tid, stalls) = log(&measured.truth)?;
    let spans = spans_of(measured, tid)?;
    let row = row_of(&measured.report, tid)?;
    ensure!(
        stalls.len() >= KINDS.len(),
        "{} stalls: the run is too short for all kinds",
        stalls.len()
    );
    let mut checks = Vec::new();
    for (kind, called) in KINDS {
        let of_kind: Vec<&Stall> = stalls.iter().filter(|stall| stall.kind == kind).collect();
        checks.push(Check::count(
            format!("requests stalled by: {kind}"),
            "its log",
            count(
                of_kind
                    .iter()
                    .filter(|stall| stall.is_found(called, &spans)),
            ),
            count(of_kind.iter()),
            EXACT,
        ));
        checks.push(Check::time(
            format!("for how long: {kind}"),
            "its log",
            of_kind
                .iter()
                .map(|stall| stall.share(called, &spans))
                .sum(),
            of_kind.iter().map(|stall| stall.stalled_ns).sum(),
            ONE_PERCENT
                .plus(CALL_NS * count(of_kind.iter()))
                .theirs_more(
                    of_kind
                        .iter()
                        .map(|stall| stall.on_its_way(called, &spans))
                        .sum(),
                ),
        ));
    }
    // The lists have so many places; a stall shorter than the last that is listed has none.
    let is_long_enough = |stall: &&Stall| {
        let called = KINDS.iter().find(|kind| kind.0 == stall.kind);
        let longest = spans
            .iter()
            .filter(|span| stall.overlaps(span.start_unix_ns, span.duration_ns))
            .filter(|span| called.is_some_and(|called| called.1.share(span) > 0))
            .map(|span| {
                (
                    called.map_or("", |called| called.1.list()),
                    span.duration_ns,
                )
            })
            .max_by_key(|its| its.1);
        longest.is_some_and(|(list, longest_ns)| longest_ns > shortest_listed(measured, list))
    };
    let long: Vec<&Stall> = stalls.iter().filter(is_long_enough).collect();
    ensure!(
        long.len() >= KINDS.len(),
        "{} of {} stalls are among the longest waits: others waited for longer",
        long.len(),
        stalls.len()
    );
    checks.push(Check::count(
        format!(
            "of all {}, those long enough for the worst waits",
            stalls.len()
        ),
        "its log",
        count(long.iter().filter(|stall| is_listed(measured, tid, stall))),
        count(long.iter()),
        EXACT,
    ));
    let shortest = stalls
        .iter()
        .map(|stall| stall.stalled_ns)
        .min()
        .unwrap_or(0);
    let p999 = number(row, "/offcpu/p999_ns")?;
    checks.push(Check::count(
        "P99.9 off the CPU is that of a stalled request",
        "its log",
        u64::from(p999 >= shortest / 2),
        1,
        EXACT,
    ));
    Ok(checks)
}

const EXACT: Allowed = Allowed {
    thousandths: 0,
    plus: 0,
    unknown: 0,
    theirs_more: 0,
    ours_more: 0,
};

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    u64::try_from(items.count()).unwrap_or(u64::MAX)
}

/// The last place of a list of longest waits.
fn shortest_listed(measured: &Measured, list: &str) -> u64 {
    let waits = measured.report["worst"][list].as_array();
    let waits = waits.into_iter().flatten();
    let shortest = waits.filter_map(|wait| wait["duration_ns"].as_u64()).min();
    shortest.unwrap_or(0)
}

/// Whether one of the report's longest waits is of this stall.
fn is_listed(measured: &Measured, tid: u32, stall: &Stall) -> bool {
    ["runqueue", "blocked", "idle"].iter().any(|list| {
        let waits = measured.report["worst"][list].as_array();
        waits.into_iter().flatten().any(|wait| {
            let number = |name: &str| wait[name].as_u64().unwrap_or(0);
            wait["tid"] == tid && stall.overlaps(number("start_unix_ns"), number("duration_ns"))
        })
    })
}

/// What samples show of stalled requests, by kind.
#[derive(Debug, Default)]
struct Sampled {
    stalls: u64,
    stalled_ns: u64,
    /// Samples of the server within stalls.
    samples: u64,
    /// Stalls without any.
    unseen: u64,
    /// Stalls that were found and named.
    found: u64,
}

/// `perf record` at two rates over the same server and, in the same run, our own spans: how many samples fall into
/// stalled requests, and how many of those are found by their spans.
pub(crate) fn sampled(bench: &Bench) -> Result<String> {
    let perf = Bench::peer("perf")?;
    let mut text = String::from(
        "perf record, samples of the server's thread:\n\n\
         rate     samples   stalled by  requests  stalled for  samples in that  expected, if running  requests without any  found here\n",
    );
    for rate in ["99", "999"] {
        let file = bench.file("perf.data");
        let mut before = vec![perf.as_os_str()];
        before.extend(
            [
                "record",
                "-q",
                "-F",
                rate,
                "-g",
                "-k",
                "CLOCK_REALTIME",
                "-o",
            ]
            .map(OsStr::new),
        );
        before.extend([file.as_os_str(), OsStr::new("--")]);
        let measured = bench.measure(&before, &bench.workload("requests", &[]));
        let shown = measured.and_then(|measured| {
            let mut command = Command::new(&perf);
            command
                .args(["script", "-F", "tid,time", "-G", "--ns", "-i"])
                .arg(&file);
            let (code, samples, errors) = finish(command, Duration::from_mins(1))?;
            ensure!(code == Some(0), "perf script failed: {errors}");
            sample_rows(&measured, &samples, rate)
        });
        let _ = std::fs::remove_file(&file);
        text.push_str(&shown?);
    }
    Ok(text)
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn sample_rows(measured: &Measured, text: &str, rate: &str) -> Result<String> {
    let (tid, stalls) = log(&measured.truth)?;
    let times: Vec<u64> = text
        .lines()
        .filter_map(|line| sample_of(line, tid))
        .collect();
    if times.is_empty() {
        return Err(Unable("perf took no sample of the server".to_owned()).into());
    }
    let spans = spans_of(measured, tid)?;
    let mut kinds: BTreeMap<&str, Sampled> = BTreeMap::new();
    for stall in &stalls {
        // The stall is the last part of what the log has: the computing before it is not stalled.
        let from_ns = stall.end_unix_ns.saturating_sub(stall.stalled_ns);
        let is_within = |at_ns: &&u64| (from_ns..stall.end_unix_ns).contains(*at_ns);
        let samples = count(times.iter().filter(is_within));
        let kind = kinds.entry(&stall.kind).or_default();
        kind.stalls += 1;
        kind.stalled_ns += stall.stalled_ns;
        kind.samples += samples;
        kind.unseen += u64::from(samples == 0);
        let called = KINDS.iter().find(|its| its.0 == stall.kind);
        kind.found += u64::from(called.is_some_and(|its| stall.is_found(its.1, &spans)));
    }
    let rate_hz: f64 = rate.parse()?;
    let rows = kinds.iter().map(|(kind, seen)| {
        let expected = seen.stalled_ns as f64 / 1e9 * rate_hz;
        format!(
            "{rate:>4} Hz  {:>8}  {kind:<10}  {:>8}  {:>8.1} ms  {:>15}  {expected:>21.1}  {:>20}  {:>10}\n",
            times.len(),
            seen.stalls,
            seen.stalled_ns as f64 / 1e6,
            seen.samples,
            seen.unseen,
            seen.found,
        )
    });
    Ok(rows.collect())
}

/// `  1234  1795210483.123456789: `
fn sample_of(line: &str, tid: u32) -> Option<u64> {
    let mut words = line.split_whitespace();
    let its: u32 = words.next()?.parse().ok()?;
    let (seconds, part) = words.next()?.trim_end_matches(':').split_once('.')?;
    let (seconds, part): (u64, u64) = (seconds.parse().ok()?, part.parse().ok()?);
    (its == tid).then_some(seconds * 1_000_000_000 + part)
}
