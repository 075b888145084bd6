//! The same figures as lines, one for each tick, where there is no screen: like vmstat.

use std::fmt::Write as _;

use super::part::{self, Part};
use crate::core::{Account, Snapshot};
use crate::sink::text::duration;

/// The heading, to be repeated now and then.
#[must_use]
pub fn heading() -> String {
    "    time threads running contend throttl  placed blocked    idle unknown     P50     P99     max\n".to_owned()
}

/// One tick: how many threads there are, how many of them were in each state on average, and the run-queue
/// delay.
#[must_use]
pub fn line(tick: &Snapshot, start_ns: u64) -> String {
    let mut total = Account::default();
    for target in &tick.targets {
        total.merge(&target.total);
    }
    let threads: usize = tick.targets.iter().map(|target| target.alive).sum();
    let length_ns = tick.at_ns.saturating_sub(tick.start_ns).max(1);
    let parts = part::parts(&total.figures);
    let of = |is_meant: &dyn Fn(Part) -> bool| {
        let meant = Part::ALL.iter().filter(|part| is_meant(**part));
        let ns: u64 = meant.fold(0, |sum, part| sum.saturating_add(parts[*part as usize]));
        format!("{:.2}", ns as f64 / length_ns as f64)
    };
    let is_queued = |part| matches!(part, Part::Contended | Part::Throttled | Part::Placement);
    let columns = [
        of(&|part| part == Part::Running),
        of(&|part| part == Part::Contended),
        of(&|part| part == Part::Throttled),
        of(&|part| part == Part::Placement),
        of(&|part| part.hurts() && !is_queued(part)),
        of(&|part| part == Part::Idle),
        of(&|part| part == Part::Unknown),
    ];
    let delays = &total.figures.runqueue_delay;
    let [p50_ns, _, p99_ns, _] = delays.quantiles_ns();
    let times = [p50_ns, p99_ns, delays.max_ns()].map(|ns| match ns {
        0 => "-".to_owned(),
        ns => duration(ns),
    });
    let seconds = tick.at_ns.saturating_sub(start_ns) as f64 / 1e9;
    let mut line = format!("{:>8} {threads:>7}", format!("{seconds:.1}s"));
    for column in columns.iter().chain(&times) {
        let _ = write!(line, " {column:>7}");
    }
    line + "\n"
}
