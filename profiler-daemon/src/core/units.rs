//! Figures by unit: systemd units, containers, pods. Which process belongs to which unit is told from
//! outside ([`UnitNews`]), since files say so; here it is only booked.
//!
//! A unit has a number, which indexes an array: no record is looked up in a map. Number 0 is
//! [`UnitNumber::OTHER`], for all that has no number of its own.

use std::sync::Arc;

use super::figures::Figures;
use super::snapshot::Waiting;

/// Number of a unit, as long as it is there; given again afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitNumber(pub u16);

impl UnitNumber {
    /// All processes of which nobody has said anything else.
    pub const OTHER: Self = Self(0);

    /// The highest one: who took how much from whom is a square of this side.
    pub const MAX: Self = Self(1000);
}

/// Stands for interrupts among [`UnitSnapshot::culprits`]. No unit has such a serial.
pub const INTERRUPTS: u64 = u64::MAX;

/// What interrupts are called where a unit's name would be.
pub const INTERRUPTS_NAME: &str = "interrupts";

/// What the outside tells of units, in the order in which it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitNews {
    /// Numbers whose units are gone, for good.
    pub closed: Vec<UnitNumber>,
    /// Numbers that stand for new units, or for units that are now called something else.
    pub named: Vec<(UnitNumber, Arc<str>)>,
    /// Processes with the units that they belong to now.
    pub placed: Vec<(u32, UnitNumber)>,
}

impl UnitNews {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.named.is_empty() && self.placed.is_empty()
    }
}

/// One unit.
#[derive(Clone, Debug)]
pub struct UnitSnapshot {
    /// Which one in this run: unlike its number never used again. 0 is [`UnitNumber::OTHER`].
    pub serial: u64,
    /// What it is called; empty for [`UnitNumber::OTHER`].
    pub label: Arc<str>,
    /// Since when it is counted for.
    pub since_ns: u64,
    /// What its threads did, with the elapsed part of what they are doing.
    pub figures: Figures,
    /// Threads alive.
    pub alive: usize,
    /// Waits and stays on a run queue that have not ended, by what they are for.
    pub waiting: Waiting,
    /// Who had a CPU that its threads were queued for, by serial, or [`INTERRUPTS`]: for how long, in
    /// nanoseconds. Stays that have not ended are not in it.
    pub culprits: Vec<(u64, u128)>,
}

impl UnitSnapshot {
    /// What was added since `earlier`, an older snapshot of the same unit.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |serial: u64| {
            let row = earlier.culprits.iter().find(|row| row.0 == serial);
            row.map_or(0, |row| row.1)
        };
        let grown = |&(serial, ns): &(u64, u128)| (serial, ns.saturating_sub(before(serial)));
        Self {
            figures: self.figures.since(&earlier.figures),
            culprits: self
                .culprits
                .iter()
                .map(grown)
                .filter(|row| row.1 > 0)
                .collect(),
            ..self.clone()
        }
    }
}

/// What is kept of one unit.
#[derive(Debug)]
struct Row {
    serial: u64,
    label: Arc<str>,
    since_ns: u64,
    figures: Figures,
    /// By the culprit's number; only as long as need be.
    lost_ns: Vec<u128>,
    lost_to_interrupts_ns: u128,
}

impl Row {
    fn new(serial: u64, label: Arc<str>, since_ns: u64) -> Self {
        Self {
            serial,
            label,
            since_ns,
            figures: Figures::default(),
            lost_ns: Vec::new(),
            lost_to_interrupts_ns: 0,
        }
    }
}

/// All units, and what counts for none: together, the host. No unit if nobody asked for figures by unit.
///
/// Time is booked for one unit and not for the host as well: their sum is taken when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Units {
    rows: Vec<Option<Box<Row>>>,
    /// What counts for no unit: what was before there were any, and what those did that are gone.
    rest: Figures,
    /// How many there have ever been, the one that stands for all others not counted.
    made: u64,
}

impl Units {
    /// From now on there are figures by unit.
    pub(super) fn keep(&mut self, now_ns: u64) {
        if self.rows.is_empty() {
            self.rows
                .push(Some(Box::new(Row::new(0, "".into(), now_ns))));
        }
    }

    /// Where threads of this unit are booked.
    #[inline]
    pub(super) fn figures(&mut self, number: UnitNumber) -> &mut Figures {
        match self.rows.get_mut(usize::from(number.0)) {
            Some(Some(row)) => &mut row.figures,
            _ => &mut self.rest,
        }
    }

    /// The whole host's.
    pub(super) fn host(&self) -> Figures {
        let mut host = self.rest.clone();
        for row in self.rows.iter().flatten() {
            host.merge(&row.figures);
        }
        host
    }

    /// A thread of one unit had a CPU that one of another was queued for.
    #[inline]
    pub(super) fn charge(&mut self, victim: UnitNumber, culprit: UnitNumber, duration_ns: u64) {
        let Some(Some(row)) = self.rows.get_mut(usize::from(victim.0)) else {
            return;
        };
        let culprit = usize::from(culprit.0);
        if row.lost_ns.len() <= culprit {
            row.lost_ns.resize(culprit + 1, 0);
        }
        row.lost_ns[culprit] += u128::from(duration_ns);
    }

    /// Interrupts had a CPU that a thread of a unit was queued for.
    pub(super) fn charge_interrupts(&mut self, victim: UnitNumber, duration_ns: u64) {
        if let Some(Some(row)) = self.rows.get_mut(usize::from(victim.0)) {
            row.lost_to_interrupts_ns += u128::from(duration_ns);
        }
    }

    /// Gives a number a name. If it stood for no unit, it begins with nothing.
    pub(super) fn name(&mut self, number: UnitNumber, label: Arc<str>, now_ns: u64) {
        if number == UnitNumber::OTHER || number > UnitNumber::MAX {
            return;
        }
        self.keep(now_ns);
        let place = usize::from(number.0);
        if self.rows.len() <= place {
            self.rows.resize_with(place + 1, || None);
        }
        match &mut self.rows[place] {
            Some(row) => row.label = label,
            none => {
                self.made += 1;
                *none = Some(Box::new(Row::new(self.made, label, now_ns)));
            }
        }
    }

    /// A unit is gone. What it took from others is from now on what nobody in particular took.
    pub(super) fn close(&mut self, number: UnitNumber) {
        let place = usize::from(number.0);
        if place == 0 || place >= self.rows.len() {
            return;
        }
        if let Some(row) = self.rows[place].take() {
            self.rest.merge(&row.figures);
        }
        for row in self.rows.iter_mut().flatten() {
            if let Some(lost_ns) = row.lost_ns.get_mut(place) {
                let gone_ns = std::mem::take(lost_ns);
                row.lost_ns[0] += gone_ns;
            }
        }
    }

    /// The serial of the unit with this number.
    pub(super) fn serial(&self, number: UnitNumber) -> u64 {
        let row = self.rows.get(usize::from(number.0));
        row.and_then(Option::as_ref).map_or(0, |row| row.serial)
    }

    /// Whether a number stands for a unit.
    pub(super) fn has(&self, number: UnitNumber) -> bool {
        matches!(self.rows.get(usize::from(number.0)), Some(Some(_)))
    }

    /// Forgets what was counted.
    pub(super) fn clear(&mut self) {
        self.rest = Figures::default();
        for row in self.rows.iter_mut().flatten() {
            row.figures = Figures::default();
            row.lost_ns.clear();
            row.lost_to_interrupts_ns = 0;
        }
    }

    /// All of them as of now, without what is open; and for each number the place in that list.
    pub(super) fn snapshot(&self) -> (Vec<UnitSnapshot>, Vec<usize>) {
        let serials: Vec<u64> = self
            .rows
            .iter()
            .map(|row| row.as_ref().map_or(0, |row| row.serial))
            .collect();
        let mut places = Vec::with_capacity(self.rows.len());
        let mut units = Vec::new();
        for row in &self.rows {
            let Some(row) = row else {
                // What still has this number has nothing else.
                places.push(0);
                continue;
            };
            places.push(units.len());
            let lost = serials
                .iter()
                .zip(&row.lost_ns)
                .chain([(&INTERRUPTS, &row.lost_to_interrupts_ns)]);
            units.push(UnitSnapshot {
                serial: row.serial,
                label: Arc::clone(&row.label),
                since_ns: row.since_ns,
                figures: row.figures.clone(),
                alive: 0,
                waiting: Waiting::default(),
                culprits: lost
                    .filter(|(_, ns)| **ns > 0)
                    .map(|(&serial, &ns)| (serial, ns))
                    .collect(),
            });
        }
        (units, places)
    }
}
