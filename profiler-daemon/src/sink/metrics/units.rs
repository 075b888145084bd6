//! The series of units: a part of those of targets, since there are many units.

use std::collections::HashMap;

use super::attribution::{Attribution, OTHER};
use super::catalogue as c;
use super::exemplars::Exemplars;
use super::families::Families;
use super::monotone::Monotone;
use super::native::UNIT_SCHEMA;
use super::{Scrape, window};
use crate::core::units::{INTERRUPTS, INTERRUPTS_NAME};
use crate::core::{Cause, Figures, Reason, Share, UnitSnapshot};

/// Culprits that have a series of their own, for each unit.
const MAX_CULPRITS: usize = 8;

/// How the time of a unit's threads is divided: in the order of [`states`].
const STATES: [&str; 5] = ["running", "runnable", "blocked", "idle", "unknown"];

/// Place of `runnable` in [`STATES`].
const RUNNABLE: usize = 1;

/// What was said of units, by serial.
#[derive(Debug, Default)]
pub(super) struct UnitsSaid(HashMap<u64, UnitSaid>);

/// What was said of one.
#[derive(Debug)]
struct UnitSaid {
    states: Monotone,
    causes: Monotone,
    culprits: Attribution,
}

impl Default for UnitSaid {
    fn default() -> Self {
        Self {
            states: Monotone::default(),
            causes: Monotone::default(),
            culprits: Attribution::forgetting(MAX_CULPRITS),
        }
    }
}

impl UnitsSaid {
    /// Adds the series of all units.
    pub(super) fn say(&mut self, families: &mut Families, scrape: &Scrape) {
        let units = &scrape.snapshot.units;
        // Those that are gone have no series any more.
        self.0
            .retain(|serial, _| units.iter().any(|unit| unit.serial == *serial));
        let names = units.iter().map(|unit| (unit.serial, name(unit)));
        let names: HashMap<u64, &str> = names.chain([(INTERRUPTS, INTERRUPTS_NAME)]).collect();
        for unit in units {
            families.created_unix_ns = scrape.unix_of(unit.since_ns);
            let said = self.0.entry(unit.serial).or_default();
            said.unit(families, unit, scrape, &names);
        }
        if let Some(others) = units.len().checked_sub(1) {
            families.count(&c::UNITS, &[], others as u64);
        }
    }
}

/// What a unit is called in labels.
#[must_use]
pub(crate) fn name(unit: &UnitSnapshot) -> &str {
    if unit.label.is_empty() {
        OTHER
    } else {
        &unit.label
    }
}

impl UnitSaid {
    fn unit(
        &mut self,
        families: &mut Families,
        unit: &UnitSnapshot,
        scrape: &Scrape,
        names: &HashMap<u64, &str>,
    ) {
        let (name, figures) = (name(unit), &unit.figures);
        let delays = &figures.runqueue_delay;
        families.histogram(
            &c::UNIT_RUNQUEUE_DELAY,
            name,
            delays,
            UNIT_SCHEMA,
            Exemplars::default(),
        );
        if let Some(recent) = scrape.window.units.get(&unit.serial) {
            window(families, &c::UNIT_RUNQUEUE_DELAY_WINDOW, name, recent);
        }
        let states = self.states.export(&states(figures)).to_vec();
        for (state, &ns) in STATES.iter().zip(&states) {
            families.seconds(&c::UNIT_THREAD_TIME, &[name, state], ns);
        }
        let causes = Cause::ALL.map(|cause| figures.runnable(cause));
        let causes = self.causes.divide(&causes, states[RUNNABLE]);
        for (cause, &ns) in Cause::ALL.iter().zip(causes) {
            families.seconds(&c::UNIT_RUNNABLE, &[name, cause.name()], ns);
        }
        families.count(&c::UNIT_THREADS, &[name], unit.alive as u64);
        families.seconds(
            &c::UNIT_OLDEST_RUNNABLE,
            &[name],
            unit.waiting.runnable.oldest_ns,
        );
        let whole = unit.culprits.iter().map(|row| row.1).sum();
        let rows = unit.culprits.iter().map(|&(serial, ns)| {
            let culprit = names.get(&serial).copied().unwrap_or(OTHER);
            (serial, culprit.to_owned(), ns)
        });
        self.culprits.book(rows, whole, scrape.snapshot.at_ns);
        for (culprit, ns) in self.culprits.sums() {
            families.seconds(&c::UNIT_INTERFERENCE, &[name, culprit], ns);
        }
    }
}

/// All time of a unit's threads, in the order of [`STATES`].
fn states(figures: &Figures) -> [u128; STATES.len()] {
    let idle = Reason::all().filter(|reason| reason.is_idle());
    let idle: u128 = idle.map(|reason| figures.blocked(reason)).sum();
    let unexplained = figures.blocked(Reason::Unknown);
    [
        figures.time(Share::Running),
        figures.time(Share::Runnable),
        figures
            .time(Share::Blocked)
            .saturating_sub(idle + unexplained),
        idle,
        figures.time(Share::Unknown) + unexplained,
    ]
}
