//! The figures for Prometheus.
//!
//! In: a [`Scrape`], which is a snapshot and what the service knows of itself. Out: OpenMetrics text, or
//! the older Prometheus text. What there is to see stands in [`catalogue`]; every family that is served
//! is in it, with the labels that it says, and the other way round.
//!
//! The number of series is bounded: some 60 for the host and each target (of which there are at most
//! [`MAX_TARGETS`](crate::daemon::config::MAX_TARGETS)), a handful per CPU and probe.

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

use super::report::Dropped;
use crate::core::{Figures, LatencyHistogram, Reason, Share, Snapshot};
use catalogue::{Metric, Type};
use monotone::Monotone;

/// Everything that one scrape is made from.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// Changes when the counters begin anew: the core was restarted, or targets were redefined.
    pub generation: u64,
    /// The figures.
    pub snapshot: Snapshot,
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
    /// Time by part, of the host and of each target.
    time: HashMap<String, Monotone>,
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
            self.time.clear();
        }
        let snapshot = &scrape.snapshot;
        // Those that are no longer there would otherwise stay for good.
        let host = crate::daemon::config::HOST;
        self.time
            .retain(|name, _| name == host || snapshot.targets.iter().any(|t| t.name == *name));
        let mut families = Families::default();
        self.target(
            &mut families,
            host,
            &snapshot.host,
            snapshot.alive,
            snapshot.open,
        );
        for target in &snapshot.targets {
            self.target(
                &mut families,
                &target.name,
                &target.total.figures,
                target.alive,
                target.open,
            );
        }
        records(&mut families, scrape);
        own(&mut families, &scrape.own);
        families
    }

    fn target(
        &mut self,
        families: &mut Families,
        name: &str,
        figures: &Figures,
        alive: usize,
        open: u64,
    ) {
        use catalogue as c;
        families.histogram(&c::RUNQUEUE_DELAY, name, &figures.runqueue_delay);
        families.histogram(&c::OFFCPU, name, &figures.offcpu);
        // One vector for both families, so that the reasons sum to the blocked time in any case.
        let unblocked = [Share::Running, Share::Runnable, Share::Unknown];
        let parts: Vec<u128> = unblocked
            .iter()
            .map(|&share| figures.time(share))
            .chain(Reason::all().map(|reason| figures.blocked(reason)))
            .collect();
        let time = self.time.entry(name.to_owned()).or_default().export(&parts);
        let (times, reasons) = time.split_at(unblocked.len());
        for (share, &ns) in unblocked.iter().zip(times) {
            families.seconds(&c::THREAD_TIME, &[name, share.name()], ns);
        }
        let blocked_ns: u128 = reasons.iter().sum();
        families.seconds(&c::THREAD_TIME, &[name, Share::Blocked.name()], blocked_ns);
        for (reason, &ns) in Reason::all().zip(reasons) {
            families.seconds(&c::BLOCKED, &[name, reason.name()], ns);
        }
        families.count(&c::SWITCHES, &[name, "voluntary"], figures.voluntary);
        families.count(&c::SWITCHES, &[name, "involuntary"], figures.involuntary);
        families.count(&c::WAKEUPS, &[name], figures.wakeups);
        families.count(&c::MIGRATIONS, &[name], figures.migrations);
        families.count(&c::THREADS, &[name], alive as u64);
        families.count(&c::OPEN_WAITS, &[name], open);
        families.count(&c::CENSORED_WAITS, &[name], figures.censored);
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
