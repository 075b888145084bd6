//! Who had a part in waits: those that ended them, and those that had the CPU meanwhile.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ns;
use crate::core::ranking::Weight;
use crate::core::units::INTERRUPTS_NAME;
use crate::core::{self, Detail, WakerKind, Who};

/// Rows of each kind in a report.
const MOST: usize = 10;

/// What ended waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waker {
    /// `thread`, `timer`, `network`, `block`, `ipi`, `irq`, or `unknown` where nobody saw it.
    pub kind: &'static str,
    /// The thread, for `thread`; else 0.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// The interrupt's number, for `irq`, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub irq: Option<u32>,
    /// How many waits it ended.
    pub count: u64,
    /// How long they were, together.
    pub wait_ns: u64,
}

/// How often and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// How many waits.
    pub count: u64,
    /// How long they were, together.
    pub wait_ns: u64,
}

/// Who held a CPU that was waited for: a thread, or interrupts of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Culprit {
    /// The thread; 0 for interrupts, and when it is not known any more.
    pub tid: u32,
    /// Its process; 0 for interrupts, and when that is not known.
    pub tgid: u32,
    /// Its name; of interrupts their kind ([`core::InterruptKind::name`]).
    pub comm: String,
    /// The systemd unit, container or pod that it belongs to; empty when it is not known, and
    /// `interrupts` for those.
    pub unit: String,
    /// For how long.
    pub ns: u64,
}

/// A process that held a CPU that was waited for, or interrupts of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessCulprit {
    /// The process; 0 for interrupts.
    pub tgid: u32,
    /// Its name, or if that is not known that of the thread that held the CPU longest. Of interrupts
    /// their kind.
    pub comm: String,
    /// The systemd unit, container or pod that it belongs to; empty when it is not known, and
    /// `interrupts` for those.
    pub unit: String,
    /// For how long.
    pub ns: u64,
}

/// A systemd unit, container or pod that held a CPU that was waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnitCulprit {
    /// Its name; empty for processes whose unit is not known, `interrupts` for interrupts.
    pub unit: String,
    /// For how long.
    pub ns: u64,
}

/// Turns what is known of others into rows.
#[derive(Clone, Copy)]
pub(super) struct Blame<'a> {
    /// The unit of a process.
    pub(super) unit_of: &'a dyn Fn(u32) -> String,
    /// The name of a process; empty when it is not known.
    pub(super) name_of: &'a dyn Fn(u32) -> String,
}

impl Blame<'_> {
    /// Who had the CPU: the first ones, and how much of all that the others had.
    pub(super) fn culprits(&self, detail: &Detail, contended_ns: u64) -> (Vec<Culprit>, u64) {
        let rows = named(detail).collect();
        first(rows, contended_ns, |who, ns| self.culprit(who, ns))
    }

    /// The same by process.
    pub(super) fn processes(
        &self,
        detail: &Detail,
        contended_ns: u64,
    ) -> (Vec<ProcessCulprit>, u64) {
        let mut processes: BTreeMap<_, (Who, u64)> = BTreeMap::new();
        for (who, ns) in named(detail).filter(|(who, _)| is_placed(who)) {
            let kind = who.is_interrupts().then_some(who.comm.0);
            let (name, sum) = processes.entry((who.tgid, kind)).or_insert((*who, 0));
            *sum = sum.saturating_add(ns);
            if who.tid == who.tgid {
                *name = *who;
            }
        }
        let rows = processes.into_values().collect();
        first(rows, contended_ns, |who, ns| ProcessCulprit {
            tgid: who.tgid,
            comm: match (self.name_of)(who.tgid) {
                name if name.is_empty() => who.comm.display(),
                name => name,
            },
            unit: self.unit(&who),
            ns,
        })
    }

    /// The same by unit.
    pub(super) fn units(&self, detail: &Detail, contended_ns: u64) -> (Vec<UnitCulprit>, u64) {
        let mut units: BTreeMap<String, u64> = BTreeMap::new();
        for (who, ns) in named(detail).filter(|(who, _)| is_placed(who)) {
            let sum = units.entry(self.unit(who)).or_default();
            *sum = sum.saturating_add(ns);
        }
        let rows = units.into_iter().collect();
        first(rows, contended_ns, |unit, ns| UnitCulprit { unit, ns })
    }

    pub(super) fn culprit(&self, who: &Who, ns: u64) -> Culprit {
        Culprit {
            tid: who.tid,
            tgid: who.tgid,
            comm: who.comm.display(),
            unit: self.unit(who),
            ns,
        }
    }

    fn unit(&self, who: &Who) -> String {
        match who.tgid {
            0 if who.is_interrupts() => INTERRUPTS_NAME.to_owned(),
            0 => String::new(),
            tgid => (self.unit_of)(tgid),
        }
    }
}

/// Whether it is known which process it belongs to, or that it belongs to none.
fn is_placed(who: &Who) -> bool {
    who.tgid != 0 || who.is_interrupts()
}

/// Who ended waits: the first ones, and all others.
pub(super) fn wakers(detail: &Detail) -> (Vec<Waker>, Times) {
    let rows = detail.wakers.rows();
    let others = rows.iter().skip(MOST).map(|row| row.2);
    let other = others.chain([detail.wakers.other()]).fold(
        Times::default(),
        |sum, Weight { count, ns: more }| Times {
            count: sum.count.saturating_add(count),
            wait_ns: sum.wait_ns.saturating_add(ns(more)),
        },
    );
    let first = rows.into_iter().take(MOST);
    let wakers = first.map(|(waker, who, weight)| Waker {
        count: weight.count,
        wait_ns: ns(weight.ns),
        ..waker_row(waker, *who)
    });
    (wakers.collect(), other)
}

/// What ended a wait, without how often.
pub(super) fn waker_row(waker: core::Waker, who: Option<Who>) -> Waker {
    let is_thread = waker.kind == WakerKind::Thread;
    Waker {
        kind: waker.kind.name(),
        tid: if is_thread { waker.number } else { 0 },
        comm: who.map(|who| who.comm.display()).unwrap_or_default(),
        irq: (waker.kind == WakerKind::Irq && waker.number > 0).then_some(waker.number),
        count: 0,
        wait_ns: 0,
    }
}

/// Those that can still be named.
fn named(detail: &Detail) -> impl Iterator<Item = (&Who, u64)> {
    let rows = detail.culprits.rows().into_iter();
    rows.filter(|(_, who, _)| who.is_known())
        .map(|(_, who, weight)| (who, ns(weight.ns)))
}

/// Rows of those with most, and what is left of the whole for all others. No more than the whole is
/// given out.
fn first<K, R>(
    mut shares: Vec<(K, u64)>,
    whole_ns: u64,
    row: impl Fn(K, u64) -> R,
) -> (Vec<R>, u64) {
    shares.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
    let mut rest_ns = whole_ns;
    let mut rows = Vec::new();
    for (key, ns) in shares.into_iter().take(MOST) {
        let part_ns = ns.min(rest_ns);
        if part_ns > 0 {
            rest_ns -= part_ns;
            rows.push(row(key, part_ns));
        }
    }
    (rows, rest_ns)
}
