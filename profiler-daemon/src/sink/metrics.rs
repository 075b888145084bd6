//! The figures for Prometheus.
//!
//! In: a [`Scrape`], which is a snapshot and what the service knows of itself. Out: OpenMetrics text, or
//! the older Prometheus text. What there is to see stands in [`catalogue`]; every family that is served
//! is in it, with the labels that it says, and the other way round.
//!
//! The number of series is bounded: some 150 for the host and each target (of which there are at most
//! [`MAX_TARGETS`](crate::daemon::config::MAX_TARGETS)), a handful per CPU and probe.

pub mod attribution;
pub mod buckets;
pub mod catalogue;
pub mod monotone;
pub mod plain;

use std::collections::HashMap;
use std::fmt;

use profiler_ebpf::Kind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::report::{Dropped, states};
use crate::core::ranking::Ranking;
use crate::core::{
    Cause, Figures, LatencyHistogram, Origin, Reason, Share, Snapshot, Spent, Waiting, Who,
};
use attribution::Attribution;
use catalogue::{Metric, Type};
use monotone::Monotone;

/// Everything that one scrape is made from.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// Changes when the counters begin anew: the core was restarted, or targets were redefined.
    pub generation: u64,
    /// The figures.
    pub snapshot: Snapshot,
    /// What processes are called that held CPUs which others waited for: the unit, or the process's own
    /// name. Of one that is not there the name of a thread is taken.
    pub processes: HashMap<u32, String>,
    /// The service itself.
    pub own: Own,
}

/// What the service knows of itself. All counts are since the probes were attached.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Version of this program.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The clock that stamps the records: `run-queue` or `monotonic`.
    pub clock: &'static str,
    /// Whether wakeups are recorded.
    pub wakeups_recorded: bool,
    /// Records lost, by CPU and kind; zeros too, so that a first loss is seen as an increase.
    pub dropped: Vec<Dropped>,
    /// Fullest that a ring was when it was drained since the previous scrape, from 0 to 1.
    pub ring_fill: f64,
    /// What the probes cost.
    pub probes: Vec<ProbeCost>,
    /// CPU time of this process, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory of this process that is in RAM, in bytes.
    pub resident_bytes: u64,
    /// Time from the snapshot's moment to now, in nanoseconds.
    pub lag_ns: u64,
    /// How far the clocks of two CPUs may be apart, in nanoseconds, if that was measured.
    pub clock_error_ns: Option<u64>,
    /// Times that the rings were drained.
    pub drains: u64,
    /// Times that the draining thread woke up.
    pub drain_wakeups: u64,
    /// Times that all threads were read again because records had been lost.
    pub resyncs: u64,
}

/// What one probe cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeCost {
    /// The hook.
    pub name: String,
    /// Runs while the kernel was counting.
    pub runs: u64,
    /// Time of those runs, in nanoseconds.
    pub run_ns: u64,
    /// Runs that the kernel left out because the probe was running already.
    pub missed: u64,
}

/// Turns scrapes into text, and remembers what it said, so that no counter goes back.
#[derive(Debug, Default)]
pub struct Exporter {
    generation: u64,
    /// What was said of the host and of each target.
    said: HashMap<String, Said>,
}

/// What was said of one target.
#[derive(Debug, Default)]
struct Said {
    /// Time by share.
    shares: Monotone,
    /// Of these, the runnable one by origin and cause.
    runnable: Monotone,
    /// And the blocked one by reason.
    blocked: Monotone,
    /// Who held the CPU.
    culprits: Attribution,
}

impl Exporter {
    /// Nothing has been exported yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One scrape as OpenMetrics text (1.0.0). The error can only come from the encoder and says nothing.
    pub fn openmetrics(&mut self, scrape: &Scrape) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(catalogue::PREFIX);
        registry.register_collector(Box::new(self.families(scrape)));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }

    /// One scrape as Prometheus text (0.0.4).
    pub fn prometheus(&mut self, scrape: &Scrape) -> Result<String, fmt::Error> {
        Ok(plain::from_openmetrics(&self.openmetrics(scrape)?))
    }

    fn families(&mut self, scrape: &Scrape) -> Families {
        if self.generation != scrape.generation {
            self.generation = scrape.generation;
            self.said.clear();
        }
        let snapshot = &scrape.snapshot;
        // Those that are no longer there would otherwise stay for good.
        let host = crate::daemon::config::HOST;
        self.said
            .retain(|name, _| name == host || snapshot.targets.iter().any(|t| t.name == *name));
        let mut families = Families::default();
        let target = Target {
            name: host,
            figures: &snapshot.host,
            alive: snapshot.alive,
            open: snapshot.open,
            waiting: &snapshot.waiting,
        };
        let by_process = |tgid: &u32, who: &Who| (u64::from(*tgid), *tgid, who.comm.display());
        let said = self.target(&mut families, &target);
        said.interference(&mut families, host, &snapshot.inflicted, scrape, by_process);
        for target in &snapshot.targets {
            let by_thread = |serial: &u64, who: &Who| (*serial, who.tgid, who.comm.display());
            let culprits = &target.total.detail.culprits;
            let said = self.target(
                &mut families,
                &Target {
                    name: &target.name,
                    figures: &target.total.figures,
                    alive: target.alive,
                    open: target.open,
                    waiting: &target.waiting,
                },
            );
            said.interference(&mut families, &target.name, culprits, scrape, by_thread);
        }
        records(&mut families, scrape);
        own(&mut families, &scrape.own);
        families
    }

    fn target(&mut self, families: &mut Families, target: &Target<'_>) -> &mut Said {
        use catalogue as c;
        let Target { name, figures, .. } = *target;
        families.histogram(&c::RUNQUEUE_DELAY, name, &figures.runqueue_delay);
        families.histogram(&c::OFFCPU, name, &figures.offcpu);
        let said = self.said.entry(name.to_owned()).or_default();
        said.time(families, name, figures);
        families.count(&c::SWITCHES, &[name, "voluntary"], figures.voluntary);
        families.count(&c::SWITCHES, &[name, "involuntary"], figures.involuntary);
        families.count(&c::WAKEUPS, &[name], figures.wakeups);
        families.count(&c::MIGRATIONS, &[name], figures.migrations);
        families.count(&c::THREADS, &[name], target.alive as u64);
        families.count(&c::OPEN_WAITS, &[name], target.open);
        // All of them at any time: a series that comes and goes is hard to alert on.
        for (state, of) in states(target.waiting) {
            families.count(&c::WAITING_THREADS, &[name, state], of.threads);
            families.seconds(&c::OLDEST_WAIT, &[name, state], of.oldest_ns);
        }
        families.count(&c::CENSORED_WAITS, &[name], figures.censored);
        said
    }
}

/// What is served of the host and of each target alike.
struct Target<'a> {
    name: &'a str,
    figures: &'a Figures,
    alive: usize,
    open: u64,
    waiting: &'a Waiting,
}

impl Said {
    /// The shares of time, and the parts of two of them, which sum to theirs in any case.
    fn time(&mut self, families: &mut Families, name: &str, figures: &Figures) {
        use catalogue as c;
        let shares = Share::ALL.map(|share| figures.time(share));
        let shares: Vec<u128> = self.shares.export(&shares).to_vec();
        for (share, &ns) in Share::ALL.iter().zip(&shares) {
            families.seconds(&c::THREAD_TIME, &[name, share.name()], ns);
        }
        let queued = Origin::ALL
            .iter()
            .flat_map(|&origin| Cause::ALL.map(|cause| (origin, cause)));
        let parts: Vec<u128> = queued
            .clone()
            .map(|(origin, cause)| figures.spent(Spent::Queued(origin, cause)))
            .collect();
        let parts = self
            .runnable
            .divide(&parts, shares[Share::Runnable as usize]);
        for ((origin, cause), &ns) in queued.zip(parts) {
            families.seconds(&c::RUNNABLE, &[name, cause.name(), origin.name()], ns);
        }
        let parts: Vec<u128> = Reason::all()
            .map(|reason| figures.blocked(reason))
            .collect();
        let parts = self.blocked.divide(&parts, shares[Share::Blocked as usize]);
        for (reason, &ns) in Reason::all().zip(parts) {
            families.seconds(&c::BLOCKED, &[name, reason.name()], ns);
        }
    }

    /// Who held the CPU that the threads of `victim` were queued for; `row` makes a key, the process and
    /// the name of a thread of it from a row.
    fn interference<K: Copy + Ord>(
        &mut self,
        families: &mut Families,
        victim: &str,
        culprits: &Ranking<K, Who>,
        scrape: &Scrape,
        row: impl Fn(&K, &Who) -> (u64, u32, String),
    ) {
        let rows = culprits.rows();
        let whole = rows.iter().map(|row| row.2.ns).sum::<u128>() + culprits.other().ns;
        let rows = rows.iter().map(|(key, who, weight)| {
            let (key, tgid, thread) = row(key, who);
            let process = scrape.processes.get(&tgid).filter(|name| !name.is_empty());
            let name = process
                .cloned()
                .unwrap_or_else(|| program(&thread).to_owned());
            (key, name, weight.ns)
        });
        self.culprits.book(rows, whole, scrape.snapshot.at_ns);
        for (name, ns) in self.culprits.sums() {
            families.seconds(&catalogue::INTERFERENCE, &[victim, name], ns);
        }
    }
}

/// The name of a process without what sets its kind apart: of `kworker/3:1H` only `kworker`.
#[must_use]
pub fn program(comm: &str) -> &str {
    match comm.split('/').next() {
        None | Some("") => comm,
        Some(name) => name,
    }
}

fn records(families: &mut Families, scrape: &Scrape) {
    use catalogue as c;
    let counts = &scrape.snapshot.counts;
    // A doorbell is no event, and never gets that far.
    let events = Kind::ALL.iter().zip(&counts.events);
    for (kind, &count) in events.filter(|(kind, _)| **kind != Kind::Doorbell) {
        families.count(&c::EVENTS, &[kind.name()], count);
    }
    for dropped in &scrape.own.dropped {
        let cpu = dropped.cpu.to_string();
        families.count(&c::EVENTS_DROPPED, &[&cpu, dropped.kind], dropped.count);
    }
    families.count(&c::EVENTS_UNDECODABLE, &[], counts.undecodable);
    for (conflict, count) in scrape.snapshot.conflicts.iter() {
        families.count(&c::CONFLICTS, &[conflict.name()], count);
    }
}

fn own(families: &mut Families, own: &Own) {
    use catalogue as c;
    families.gauge(&c::RING_FILL, &[], own.ring_fill);
    families.gauge(&c::WATERMARK_LAG, &[], seconds(own.lag_ns));
    if let Some(ns) = own.clock_error_ns {
        families.gauge(&c::CLOCK_ERROR, &[], seconds(ns));
    }
    families.count(&c::DRAINS, &[], own.drains);
    families.count(&c::DRAIN_WAKEUPS, &[], own.drain_wakeups);
    families.count(&c::RESYNCS, &[], own.resyncs);
    for probe in &own.probes {
        families.seconds(&c::PROBE_RUN, &[&probe.name], probe.run_ns);
        families.count(&c::PROBE_RUNS, &[&probe.name], probe.runs);
        families.count(&c::PROBE_MISSED, &[&probe.name], probe.missed);
    }
    families.seconds(&c::PROCESS_CPU, &[], own.cpu_ns);
    families.count(&c::PROCESS_MEMORY, &[], own.resident_bytes);
    families.info(&c::BUILD, &[&own.version]);
    let wakeups = if own.wakeups_recorded {
        "true"
    } else {
        "false"
    };
    families.info(&c::PROBES, &[&own.kernel, own.clock, wakeups]);
}

fn seconds(ns: impl Into<u128>) -> f64 {
    ns.into() as f64 / 1e9
}

/// All series of a scrape, family by family.
#[derive(Debug, Default)]
struct Families(HashMap<&'static str, Vec<Series>>);

#[derive(Debug)]
struct Series {
    /// In the order of the metric's labels.
    labels: Vec<String>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Count(u64),
    Float(f64),
    Histogram {
        sum: f64,
        count: u64,
        buckets: Vec<(f64, u64)>,
    },
    One,
}

impl Families {
    fn push(&mut self, metric: &'static Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        self.0.entry(metric.name).or_default().push(Series {
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            value,
        });
    }

    fn count(&mut self, metric: &'static Metric, labels: &[&str], count: u64) {
        self.push(metric, labels, Value::Count(count));
    }

    fn seconds(&mut self, metric: &'static Metric, labels: &[&str], ns: impl Into<u128>) {
        self.push(metric, labels, Value::Float(seconds(ns)));
    }

    fn gauge(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.push(metric, labels, Value::Float(value));
    }

    fn info(&mut self, metric: &'static Metric, labels: &[&str]) {
        self.push(metric, labels, Value::One);
    }

    fn histogram(&mut self, metric: &'static Metric, target: &str, of: &LatencyHistogram) {
        let bounds = buckets::BOUNDS_NS.iter().map(|&ns| seconds(ns));
        let buckets = bounds.chain([f64::INFINITY]).zip(buckets::counts(of));
        let value = Value::Histogram {
            sum: seconds(of.sum_ns()),
            count: of.count(),
            buckets: buckets.collect(),
        };
        self.push(metric, &[target], value);
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in catalogue::CATALOGUE {
            let Some(series) = self.0.get(metric.name) else {
                continue;
            };
            let unit = metric.unit.map(|unit| Unit::Other(unit.to_owned()));
            let kind = match metric.kind {
                Type::Counter => MetricType::Counter,
                Type::Gauge => MetricType::Gauge,
                Type::Histogram => MetricType::Histogram,
                Type::Info => MetricType::Info,
            };
            let mut family =
                encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
            for series in series {
                encode_series(&mut family, metric, series)?;
            }
        }
        Ok(())
    }
}

fn encode_series(family: &mut MetricEncoder<'_>, metric: &Metric, series: &Series) -> fmt::Result {
    let names = metric.labels.iter().map(|label| label.name);
    let labels: Vec<(&str, &str)> = names
        .zip(series.labels.iter().map(String::as_str))
        .collect();
    let labels = labels.as_slice();
    if let Value::One = series.value {
        return family.encode_info(&labels);
    }
    // A series without labels has no braces.
    if labels.is_empty() {
        encode_value(family, metric.kind, &series.value)
    } else {
        encode_value(
            &mut family.encode_family(&labels)?,
            metric.kind,
            &series.value,
        )
    }
}

fn encode_value(encoder: &mut MetricEncoder<'_>, kind: Type, value: &Value) -> fmt::Result {
    match (value, kind) {
        (Value::Count(count), Type::Counter) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(count, None)
        }
        (Value::Float(value), Type::Counter) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(value, None)
        }
        (Value::Count(count), _) => encoder.encode_gauge(count),
        (Value::Float(value), _) => encoder.encode_gauge(value),
        (
            Value::Histogram {
                sum,
                count,
                buckets,
            },
            _,
        ) => encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None),
        (Value::One, _) => encoder.encode_gauge(&1u64),
    }
}
