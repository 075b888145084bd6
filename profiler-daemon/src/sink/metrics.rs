//! The figures for Prometheus.
//!
//! In: a [`Scrape`], which is a snapshot and what the service knows of itself. Out: OpenMetrics text, the
//! older Prometheus text, or Prometheus protobuf with native histograms. What there is to see stands in [`catalogue`]; every family that is served
//! is in it, with the labels that it says, and the other way round.
//!
//! The number of series is bounded: some 150 for the host and each target (of which there are at most
//! [`MAX_TARGETS`](crate::daemon::config::MAX_TARGETS)), some 50 for each unit (of which there are as many
//! as the configuration allows), a handful per CPU and probe.

pub mod attribution;
pub mod buckets;
pub mod catalogue;
mod exemplars;
mod families;
mod metric;
pub mod monotone;
mod native;
pub mod plain;
pub mod protobuf;
mod units;

use std::collections::HashMap;
use std::fmt;

use profiler_ebpf::Kind;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::recent::{Brief, Window};
use super::report::{Dropped, states};
use crate::core::ranking::Ranking;
use crate::core::{
    Cause, Figures, Origin, Reason, Share, ShedCounts, Shedding, Snapshot, Spent, Waiting, Who,
};
use attribution::Attribution;
use catalogue::Metric;
use exemplars::Exemplars;
use families::Families;
use monotone::Monotone;
use units::UnitsSaid;
pub(crate) use units::name as unit_name;

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
    /// The figures of the last minute or so.
    pub window: Window,
    /// The snapshot's moment, in nanoseconds since 1970.
    pub unix_ns: u64,
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
    /// Records left out on purpose.
    pub shed: ShedCounts,
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
    /// What holding figures against the kernel's own has shown.
    pub self_check: SelfChecked,
}

/// What holding some threads' figures against the kernel's own has shown so far.
#[derive(Clone, Debug, Default)]
pub struct SelfChecked {
    /// Comparisons that agreed.
    pub agree: u64,
    /// Comparisons that did not.
    pub differ: u64,
    /// Comparisons that agreed only because some of the time was unknown.
    pub unsure: u64,
    /// Each figure that was compared: its name, ours and the kernel's, in nanoseconds; all threads together.
    pub figures: Vec<(&'static str, u64, u64)>,
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
    units: UnitsSaid,
}

/// What was said of one target.
#[derive(Debug, Default)]
struct Said {
    /// Time by share.
    shares: Monotone,
    /// Of these, the runnable one by origin and cause.
    runnable: Monotone,
    /// The blocked one by reason.
    blocked: Monotone,
    /// And the unknown one by cause.
    unknown: Monotone,
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
        let families = self.families(scrape);
        let exemplars = exemplars::lines(&families);
        Ok(exemplars::insert(&text(families)?, &exemplars))
    }

    /// One scrape as Prometheus text (0.0.4), which has no exemplars.
    pub fn prometheus(&mut self, scrape: &Scrape) -> Result<String, fmt::Error> {
        Ok(plain::from_openmetrics(&text(self.families(scrape))?))
    }

    /// One scrape as Prometheus protobuf, delimited: with native histograms beside the classic ones.
    pub fn protobuf(&mut self, scrape: &Scrape) -> Vec<u8> {
        protobuf::encode(&self.families(scrape))
    }

    fn families(&mut self, scrape: &Scrape) -> Families {
        if self.generation != scrape.generation {
            self.generation = scrape.generation;
            self.said.clear();
            self.units = UnitsSaid::default();
        }
        let snapshot = &scrape.snapshot;
        // Those that are no longer there would otherwise stay for good.
        let host = crate::daemon::config::HOST;
        self.said
            .retain(|name, _| name == host || snapshot.targets.iter().any(|t| t.name == *name));
        let mut families = Families::default();
        families.created_unix_ns = scrape.unix_of(snapshot.start_ns);
        let target = Target {
            exemplars: Exemplars::default(),
            recent: scrape.window.host.as_ref(),
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
                    exemplars: exemplars::of(&target.worst.queued, |ns| scrape.unix_of(ns)),
                    recent: scrape.window.targets.get(&target.name),
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
        self.units.say(&mut families, scrape);
        families
    }

    fn target(&mut self, families: &mut Families, target: &Target<'_>) -> &mut Said {
        use catalogue as c;
        let Target { name, figures, .. } = *target;
        let (delays, offcpu) = (&figures.runqueue_delay, &figures.offcpu);
        let exemplars = target.exemplars.clone();
        families.histogram(&c::RUNQUEUE_DELAY, name, delays, native::SCHEMA, exemplars);
        families.histogram(
            &c::OFFCPU,
            name,
            offcpu,
            native::SCHEMA,
            Exemplars::default(),
        );
        if let Some(recent) = target.recent {
            window(families, &c::RUNQUEUE_DELAY_WINDOW, name, recent);
        }
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
    exemplars: Exemplars,
    recent: Option<&'a Brief>,
    name: &'a str,
    figures: &'a Figures,
    alive: usize,
    open: u64,
    waiting: &'a Waiting,
}

impl Scrape {
    /// A time of the snapshot's clock, in nanoseconds since 1970.
    fn unix_of(&self, at_ns: u64) -> u64 {
        self.unix_ns
            .saturating_sub(self.snapshot.at_ns.saturating_sub(at_ns))
    }
}

fn text(families: Families) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(catalogue::PREFIX);
    registry.register_collector(Box::new(families));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// The quantiles and the maximum of the last minute or so.
fn window(families: &mut Families, metric: &'static Metric, name: &str, recent: &Brief) {
    for (stat, ns) in recent.delay.stats() {
        families.seconds(metric, &[name, stat], ns);
    }
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
        let parts = [Spent::Unknown, Spent::Shed].map(|spent| figures.spent(spent));
        let parts = self.unknown.divide(&parts, shares[Share::Unknown as usize]);
        for (cause, &ns) in ["lost", "shed"].iter().zip(parts) {
            families.seconds(&c::UNKNOWN, &[name, cause], ns);
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
    // The kinds that can be left out, zeros too.
    for (kind, count) in scrape.own.shed.by_kind() {
        families.count(&c::EVENTS_SHED, &[kind.name()], count);
    }
    let shedding = &scrape.snapshot.shedding;
    families.gauge(&c::KEPT, &[], Shedding::fraction(shedding.shift));
    families.seconds(&c::SHEDDING, &[], shedding.duration_ns);
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
    let check = &own.self_check;
    families.count(&c::SELF_CHECKS, &["agrees"], check.agree);
    families.count(&c::SELF_CHECKS, &["differs"], check.differ);
    families.count(&c::SELF_CHECKS, &["unsure"], check.unsure);
    for &(figure, ours_ns, kernel_ns) in &check.figures {
        families.seconds(&c::SELF_CHECKED, &[figure, "schedscope"], ours_ns);
        families.seconds(&c::SELF_CHECKED, &[figure, "kernel"], kernel_ns);
        if kernel_ns > 0 {
            families.gauge(
                &c::SELF_CHECK_RATIO,
                &[figure],
                ours_ns as f64 / kernel_ns as f64,
            );
        }
    }
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
