//! What is promised, held against what was measured.

use super::table::{Table, Unit};

/// A promise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) what: &'static str,
    pub(crate) limit: Limit,
    /// What was measured, if that was.
    pub(crate) value: Option<f64>,
    pub(crate) unit: Unit,
}

/// Which side of a number is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::AtMost(_) => "at most",
            Self::AtLeast(_) => "at least",
        }
    }

    pub(crate) fn value(self) -> f64 {
        match self {
            Self::AtMost(value) | Self::AtLeast(value) => value,
        }
    }
}

impl Bar {
    /// Whether it is met, if that is known.
    pub(crate) fn is_met(&self) -> Option<bool> {
        self.value.map(|value| match self.limit {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        })
    }
}

/// Tables by their keys.
struct Measured<'a>(&'a [Table]);

impl Measured<'_> {
    fn median(&self, key: &str, row: &str, column: &str) -> Option<f64> {
        let table = self.0.iter().find(|table| table.key == key)?;
        table.median(row, column)
    }

    /// The most of a cell in all rows that there are.
    fn worst(&self, key: &str, column: &str) -> Option<f64> {
        let table = self.0.iter().find(|table| table.key == key)?;
        let rows = table.rows.iter();
        rows.filter_map(|row| table.most(&row.name, column))
            .reduce(f64::max)
    }

    /// One row's median as a share of another's.
    fn share(&self, key: &str, column: &str, ours: &str, theirs: &str) -> Option<f64> {
        Some(self.median(key, ours, column)? / self.median(key, theirs, column)?)
    }
}

// Tables and columns, as the parts that measure name them.
const PIPE: &str = "a1-pipe-pinned";
const ADDED: &str = "added to a switch";
const PROBES: &str = "b-probes";
const CALL: &str = "ns a call";

/// Whose costs on that storm the bars below compare, by their names in the plan.
pub(crate) const JUDGED: [&str; 6] = [
    "service",
    "attach, no stacks",
    "attach",
    "runqlat",
    "runqlat -P",
    "offcputime",
];

/// All bars.
pub(crate) fn judge(tables: &[Table]) -> Vec<Bar> {
    let all = Measured(tables);
    let over_empty = |row: &str| {
        Some(all.median(PROBES, row, CALL)? - all.median(PROBES, "sched_switch, empty", CALL)?)
    };
    let bar = |what, limit, unit, value| Bar {
        what,
        limit,
        value,
        unit,
    };
    // From nanoseconds a record to records a second.
    let core = |row: &str| Some(1e9 / all.median("d-core", row, "whole, ns a record")?);
    let at_most = |limit| Limit::AtMost(limit);
    vec![
        bar(
            "service: CPU time of the pinned pipe storm with it, against without",
            at_most(1.08),
            Unit::Ratio,
            all.median(PIPE, "service", "CPU time"),
        ),
        bar(
            "service: what it adds to a switch there, against what `runqlat` adds",
            at_most(0.3),
            Unit::Ratio,
            all.share(PIPE, ADDED, "service", "runqlat"),
        ),
        bar(
            "service: its `sched_switch` probe, over an empty probe",
            at_most(15.0),
            Unit::Nanoseconds,
            over_empty("sched_switch, service"),
        ),
        bar(
            "attach without stacks: what it adds, against `runqlat -P`",
            at_most(1.0),
            Unit::Ratio,
            all.share(PIPE, ADDED, "attach, no stacks", "runqlat -P"),
        ),
        bar(
            "attach with stacks: what it adds, against `offcputime`",
            at_most(0.5),
            Unit::Ratio,
            all.share(PIPE, ADDED, "attach", "offcputime"),
        ),
        bar(
            "everything on: the daemon's CPU time for a record",
            at_most(60.0),
            Unit::Nanoseconds,
            all.median("c1-events", "service, everything", "CPU for a record"),
        ),
        bar(
            "records lost in the fastest switching, any mode, any run",
            at_most(0.0),
            Unit::Count,
            all.worst("c1-events", "lost"),
        ),
        bar(
            "core, one CPU's time: records a second, 2 CPUs",
            Limit::AtLeast(20e6),
            Unit::Count,
            core("turns, 2 CPUs, 16 threads"),
        ),
        bar(
            "core, one CPU's time: records a second, 256 CPUs and 100,000 threads",
            Limit::AtLeast(10e6),
            Unit::Count,
            core("turns, 256 CPUs, 100000 threads"),
        ),
        bar(
            "idle: the daemon's wakeups a second",
            at_most(2.0),
            Unit::Rate,
            all.median("c2-idle", "service", "wakeups a second"),
        ),
        bar(
            "idle: the daemon's share of a CPU",
            at_most(0.1),
            Unit::Percent,
            all.median("c2-idle", "service", "of a CPU"),
        ),
        bar(
            "memory with 1,000 threads, without the rings",
            at_most(24.0),
            Unit::Mebibytes,
            all.median("c3-memory", "1,000 threads", "without the rings"),
        ),
        bar(
            "memory for each further thread",
            at_most(256.0),
            Unit::Bytes,
            all.median("c3-memory", "11,000 threads", "each further thread"),
        ),
        bar(
            "attach: from its start to the first screen",
            at_most(300.0),
            Unit::Milliseconds,
            all.median("f-start", "first screen", "time"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Figure;

    #[test]
    fn what_is_measured_is_judged_and_what_is_not_is_not() {
        let mut table = Table::new(
            "a1-pipe-pinned",
            "",
            "",
            &[
                ("CPU time", Unit::Ratio),
                ("added to a switch", Unit::Nanoseconds),
            ],
        );
        table.push("service", vec![Figure::of([1.09]), Figure::of([100.0])]);
        table.push("runqlat", vec![Figure::of([1.3]), Figure::of([500.0])]);
        let mut lost = Table::new("c1-events", "", "", &[("lost", Unit::Count)]);
        lost.push("top", vec![Figure::of([0.0, 0.0])]);
        lost.push("record", vec![Figure::of([0.0, 3.0, 0.0])]);
        let mut core = Table::new("d-core", "", "", &[("whole, ns a record", Unit::Plain)]);
        core.push("turns, 2 CPUs, 16 threads", vec![Figure::of([40.0])]);
        let bars = judge(&[table, lost, core]);
        let verdict = |part: &str| {
            let bar = bars.iter().find(|bar| bar.what.contains(part));
            bar.expect("there is such a bar").is_met()
        };
        assert_eq!(verdict("against without"), Some(false));
        assert_eq!(verdict("what `runqlat` adds"), Some(true));
        assert_eq!(verdict("records lost"), Some(false));
        assert_eq!(verdict("a second, 2 CPUs"), Some(true));
        assert_eq!(verdict("over an empty probe"), None);
        assert_eq!(bars.iter().filter(|bar| bar.is_met().is_none()).count(), 10);
    }
}
