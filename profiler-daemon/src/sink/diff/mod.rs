//! Two runs beside one another: what got better, what got worse, and what may be chance.
//!
//! Each run is cut into blocks of the same length. A figure differs if its values in the blocks of one run
//! do from those of the other by more than chance (the Mann-Whitney test, which asks nothing of how they are
//! distributed), all figures asked at once (Holm's method), and if the difference is large enough to
//! matter. Blocks of the same run are alike, too, so what holds for two runs need not hold for the next two:
//! recordings under the same load are what can be compared.

mod statistics;
mod table;

use serde::Serialize;

use crate::core::{Cause, Figures, Reason, Share, Snapshot};
use statistics::{hold, mann_whitney};

pub use table::render;

/// Version of the JSON of a comparison.
pub const SCHEMA: u32 = 1;

/// With fewer blocks in a run nothing is concluded.
pub const MIN_BLOCKS: usize = 8;

/// Chance that any figure is said to differ where none does.
const LEVEL: f64 = 0.05;

/// What is smaller does not matter: a part of the larger figure, and a time a second of wall time.
const MIN_CHANGE: f64 = 0.05;
const MIN_NS_A_SECOND: f64 = 100_000.0;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    Less,
    Neither,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Nanoseconds of all threads in a second of wall time.
    NsPerSecond,
    /// Nanoseconds.
    Ns,
    /// Times a second.
    PerSecond,
}

/// What is said of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// It got better.
    Better,
    /// It got worse.
    Worse,
    /// It is more, which is neither good nor bad by itself.
    More,
    /// It is less, which is neither good nor bad by itself.
    Less,
    /// It may be chance, or is too little to matter.
    Noise,
    /// A run is too short to tell.
    Thin,
}

/// A figure in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name, as in reports: `runnable.contended`, `blocked.lock`, `runqueue_delay.p99`.
    pub name: String,
    /// What it is counted in.
    pub unit: Unit,
    /// In the first run.
    pub before: f64,
    /// In the second one.
    pub after: f64,
    /// How likely such a difference is by chance, asked for this figure alone; `null` where there are
    /// too few blocks.
    pub p: Option<f64>,
    /// What follows.
    pub judgement: Judgement,
}

/// Two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How long a block is.
    pub block_ns: u64,
    /// Blocks of the first run and of the second one.
    pub blocks: [usize; 2],
    /// How long the runs are.
    pub duration_ns: [u64; 2],
    /// Records lost in each.
    pub lost: [u64; 2],
    /// Records left out in each because there were too many.
    pub shed: [u64; 2],
    /// The figures; those that neither run has are left out.
    pub rows: Vec<Row>,
}

/// A run, as snapshots at its beginning and after each block.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    snapshots: Vec<Snapshot>,
}

impl Blocks {
    /// From snapshots in the order of time, the first one as of the beginning.
    #[must_use]
    pub fn new(snapshots: Vec<Snapshot>) -> Self {
        Self { snapshots }
    }

    fn len(&self) -> usize {
        self.snapshots.len().saturating_sub(1)
    }

    fn duration_ns(&self) -> u64 {
        match (self.snapshots.first(), self.snapshots.last()) {
            (Some(first), Some(last)) => last.at_ns.saturating_sub(first.at_ns),
            _ => 0,
        }
    }

    fn shed(&self) -> u64 {
        self.snapshots
            .last()
            .map_or(0, |last| last.counts.shed.total())
    }

    fn lost(&self) -> u64 {
        self.snapshots.last().map_or(0, |last| last.counts.lost)
    }

    /// A figure over the whole run, and in each block.
    fn values(&self, figure: &Figure) -> (f64, Vec<f64>) {
        let of = |from: &Snapshot, to: &Snapshot| {
            let added = total(to).since(&total(from));
            figure.of(&added, to.at_ns.saturating_sub(from.at_ns))
        };
        let whole = match (self.snapshots.first(), self.snapshots.last()) {
            (Some(first), Some(last)) => of(first, last),
            _ => 0.0,
        };
        let pairs = self.snapshots.windows(2);
        let blocks = pairs.filter_map(|pair| match pair {
            [from, to] => Some(of(from, to)),
            _ => None,
        });
        (whole, blocks.collect())
    }
}

/// All targets together.
fn total(snapshot: &Snapshot) -> Figures {
    let mut sum = Figures::default();
    for target in &snapshot.targets {
        sum.merge(&target.total.figures);
    }
    sum
}

/// Something that is compared.
struct Figure {
    name: String,
    unit: Unit,
    better: Better,
    read: Box<dyn Fn(&Figures) -> f64>,
}

impl Figure {
    fn new(
        name: String,
        unit: Unit,
        better: Better,
        read: impl Fn(&Figures) -> f64 + 'static,
    ) -> Self {
        Self {
            name,
            unit,
            better,
            read: Box::new(read),
        }
    }

    fn of(&self, figures: &Figures, duration_ns: u64) -> f64 {
        let value = (self.read)(figures);
        match self.unit {
            Unit::Ns => value,
            Unit::NsPerSecond | Unit::PerSecond => value * 1e9 / duration_ns.max(1) as f64,
        }
    }

    /// Whether a change is large enough to matter.
    fn matters(&self, before: f64, after: f64) -> bool {
        let change = (after - before).abs();
        let least = match self.unit {
            Unit::NsPerSecond => MIN_NS_A_SECOND,
            Unit::Ns | Unit::PerSecond => 0.0,
        };
        change > before.max(after) * MIN_CHANGE && change > least
    }

    fn judge(&self, before: f64, after: f64, holds: bool) -> Judgement {
        if !holds || !self.matters(before, after) {
            return Judgement::Noise;
        }
        match (self.better, after < before) {
            (Better::Less, true) => Judgement::Better,
            (Better::Less, false) => Judgement::Worse,
            (Better::Neither, true) => Judgement::Less,
            (Better::Neither, false) => Judgement::More,
        }
    }
}

/// All that is compared, in the order of reports.
fn figures() -> Vec<Figure> {
    let time = Unit::NsPerSecond;
    let mut figures = vec![Figure::new(
        "running".to_owned(),
        time,
        Better::Neither,
        |its| its.time(Share::Running) as f64,
    )];
    figures.push(Figure::new(
        "runnable".to_owned(),
        time,
        Better::Less,
        |its| its.time(Share::Runnable) as f64,
    ));
    figures.extend(Cause::ALL.into_iter().map(|cause| {
        let name = format!("runnable.{}", cause.name());
        Figure::new(name, time, Better::Less, move |its| {
            its.runnable(cause) as f64
        })
    }));
    figures.extend(Reason::all().map(|reason| {
        let name = format!("blocked.{}", reason.name());
        let better = if reason.is_idle() {
            Better::Neither
        } else {
            Better::Less
        };
        Figure::new(name, time, better, move |its| its.blocked(reason) as f64)
    }));
    for (place, name) in ["p50", "p90", "p99"].into_iter().enumerate() {
        let name = format!("runqueue_delay.{name}");
        figures.push(Figure::new(name, Unit::Ns, Better::Less, move |its| {
            let quantiles = its.runqueue_delay.quantiles_ns();
            quantiles.get(place).map_or(0.0, |&ns| ns as f64)
        }));
    }
    let rate = Unit::PerSecond;
    figures.push(Figure::new(
        "switches.voluntary".to_owned(),
        rate,
        Better::Neither,
        |its| its.voluntary as f64,
    ));
    figures.push(Figure::new(
        "switches.involuntary".to_owned(),
        rate,
        Better::Less,
        |its| its.involuntary as f64,
    ));
    figures.push(Figure::new(
        "wakeups".to_owned(),
        rate,
        Better::Neither,
        |its| its.wakeups as f64,
    ));
    figures
}

impl Diff {
    /// Compares the second run with the first one.
    #[must_use]
    pub fn new(before: &Blocks, after: &Blocks, block_ns: u64) -> Self {
        let is_thin = before.len().min(after.len()) < MIN_BLOCKS;
        let compared: Vec<_> = figures()
            .into_iter()
            .map(|figure| {
                let ((before, befores), (after, afters)) =
                    (before.values(&figure), after.values(&figure));
                (
                    figure,
                    before,
                    after,
                    (!is_thin).then(|| mann_whitney(&befores, &afters)),
                )
            })
            .filter(|(_, before, after, _)| *before > 0.0 || *after > 0.0)
            .collect();
        let p: Vec<f64> = compared.iter().map(|its| its.3.unwrap_or(1.0)).collect();
        let rows =
            compared
                .into_iter()
                .zip(hold(&p, LEVEL))
                .map(|((figure, before, after, p), holds)| Row {
                    judgement: match p {
                        Some(_) => figure.judge(before, after, holds),
                        None => Judgement::Thin,
                    },
                    name: figure.name,
                    unit: figure.unit,
                    before,
                    after,
                    p,
                });
        Self {
            schema: SCHEMA,
            block_ns,
            blocks: [before.len(), after.len()],
            duration_ns: [before.duration_ns(), after.duration_ns()],
            lost: [before.lost(), after.lost()],
            shed: [before.shed(), after.shed()],
            rows: rows.collect(),
        }
    }
}
