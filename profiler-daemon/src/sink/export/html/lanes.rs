//! What threads did as rows of a timeline, in bounded memory and with nothing made up.
//!
//! As long as there is room each span is a cell of its own. When there is none any more, spans that are
//! shorter than some power of two are merged: of each such stretch of a thread's time a cell says how the
//! merged part of it was spent, and no longer in what order. The power grows until there is room again.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::core::{Comm, Culprit, Doing, Span, WakerKind, Who};
use crate::sink::export::SHED;

/// Cells of all rows.
const MAX_CELLS: usize = 40_000;

/// Rows that are followed, and rows that are drawn.
const MAX_FOLLOWED: usize = 5_000;
const MAX_DRAWN: usize = 200;

/// The shortest stretch that is merged.
const MIN_MERGED_NS: u64 = 1 << 10;

/// Above this nothing is merged further: there is a cell or two a row.
const MAX_MERGED_NS: u64 = 1 << 44;

/// Culprits that a cell names.
const MAX_NAMED: usize = 4;

/// How time is spent, in the order of a cell's shares.
pub(super) const KINDS: [&str; 8] = [
    "running",
    "contended",
    "throttled",
    "placement",
    "queued, cause unknown",
    "blocked",
    "idle",
    "unknown",
];
const RUNNING: usize = 0;
const QUEUED: usize = 1;
const BLOCKED: usize = 5;
const IDLE: usize = 6;
const UNKNOWN: usize = 7;

type Shares = [u64; KINDS.len()];

/// A span, or a stretch of time with the spans that are merged in it.
#[derive(Clone, Debug, Default)]
struct Cell {
    from_ns: u64,
    length_ns: u64,
    shares: Shares,
    /// Of a span alone: the number of the reason's name.
    reason: Option<usize>,
    /// Of a span alone: the number of the name of whoever ended it.
    waker: Option<usize>,
    /// Numbers of names, and for how long they had the CPU.
    held: Vec<(usize, u64)>,
}

impl Cell {
    fn take_in(&mut self, shares: &Shares, held: &[(usize, u64)]) {
        for (sum, ns) in self.shares.iter_mut().zip(shares) {
            *sum += ns;
        }
        for &(who, ns) in held {
            match self.held.iter_mut().find(|(its, _)| *its == who) {
                Some((_, sum)) => *sum += ns,
                None => self.held.push((who, ns)),
            }
        }
        keep_most(&mut self.held);
    }
}

fn keep_most(held: &mut Vec<(usize, u64)>) {
    if held.len() > MAX_NAMED {
        held.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
        held.truncate(MAX_NAMED);
    }
}

/// A thread.
#[derive(Clone, Debug)]
struct Lane {
    tid: u32,
    tgid: u32,
    comm: Comm,
    from_ns: u64,
    until_ns: u64,
    sums: Shares,
    alone: Vec<Cell>,
    /// By the number of the stretch.
    merged: BTreeMap<u64, Cell>,
}

impl Lane {
    fn new(span: &Span) -> Self {
        Self {
            tid: span.tid,
            tgid: span.tgid,
            comm: span.comm,
            from_ns: span.from_ns,
            until_ns: span.until_ns,
            sums: Shares::default(),
            alone: Vec::new(),
            merged: BTreeMap::new(),
        }
    }

    fn cells(&self) -> usize {
        self.alone.len() + self.merged.len()
    }

    /// Merges a cell that is shorter than a stretch: it lies in one of them or in two.
    fn merge(&mut self, cell: &Cell, stretch_ns: u64) {
        let until_ns = cell.from_ns + cell.length_ns;
        let first = cell.from_ns / stretch_ns;
        let border_ns = ((first + 1) * stretch_ns).min(until_ns);
        let (part, rest) = split(&cell.shares, border_ns - cell.from_ns, cell.length_ns);
        // Whom the second part is to be charged to is not known; the first names them all.
        self.stretch(first, stretch_ns).take_in(&part, &cell.held);
        if border_ns < until_ns {
            self.stretch(first + 1, stretch_ns).take_in(&rest, &[]);
        }
    }

    fn stretch(&mut self, number: u64, stretch_ns: u64) -> &mut Cell {
        self.merged.entry(number).or_insert_with(|| Cell {
            from_ns: number * stretch_ns,
            length_ns: stretch_ns,
            ..Cell::default()
        })
    }

    /// Merges what is shorter than this, twice what it was before.
    fn coarsen(&mut self, stretch_ns: u64) {
        for (_, cell) in std::mem::take(&mut self.merged) {
            let stretch = self.stretch(cell.from_ns / stretch_ns, stretch_ns);
            stretch.take_in(&cell.shares, &cell.held);
        }
        let (short, alone) = std::mem::take(&mut self.alone)
            .into_iter()
            .partition(|cell: &Cell| cell.length_ns < stretch_ns);
        self.alone = alone;
        for cell in short {
            self.merge(&cell, stretch_ns);
        }
    }

    fn queued_ns(&self) -> u64 {
        self.sums[QUEUED..BLOCKED].iter().sum()
    }
}

/// What falls to the first part of a time, and the rest.
fn split(shares: &Shares, part_ns: u64, whole_ns: u64) -> (Shares, Shares) {
    let part = shares.map(|ns| {
        let part = u128::from(ns) * u128::from(part_ns) / u128::from(whole_ns.max(1));
        u64::try_from(part).unwrap_or(ns)
    });
    let rest = std::array::from_fn(|kind| shares[kind] - part[kind]);
    (part, rest)
}

/// The rows under way.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_serial: HashMap<u64, Lane>,
    cells: usize,
    /// Shorter spans are merged; 0 as long as none is.
    merged_below_ns: u64,
    names: Vec<String>,
    reasons: HashMap<String, usize>,
    people: HashMap<(u32, Comm), usize>,
}

impl Lanes {
    pub(super) fn span(&mut self, span: &Span, culprits: &[Culprit]) {
        if span.duration_ns() == 0 {
            return;
        }
        if !self.by_serial.contains_key(&span.serial) && self.by_serial.len() >= MAX_FOLLOWED {
            return;
        }
        let cell = self.cell(span, culprits);
        let lane = self
            .by_serial
            .entry(span.serial)
            .or_insert_with(|| Lane::new(span));
        (lane.tid, lane.tgid, lane.comm) = (span.tid, span.tgid, span.comm);
        lane.until_ns = lane.until_ns.max(span.until_ns);
        for (sum, ns) in lane.sums.iter_mut().zip(cell.shares) {
            *sum += ns;
        }
        let before = lane.cells();
        if cell.length_ns < self.merged_below_ns {
            lane.merge(&cell, self.merged_below_ns);
        } else {
            lane.alone.push(cell);
        }
        self.cells += lane.cells() - before;
        if self.cells > MAX_CELLS {
            self.make_room();
        }
    }

    fn make_room(&mut self) {
        while self.cells > MAX_CELLS / 4 * 3 && self.merged_below_ns < MAX_MERGED_NS {
            self.merged_below_ns = (self.merged_below_ns * 2).max(MIN_MERGED_NS);
            let lanes = self.by_serial.values_mut();
            self.cells = lanes
                .map(|lane| {
                    lane.coarsen(self.merged_below_ns);
                    lane.cells()
                })
                .sum();
        }
    }

    fn cell(&mut self, span: &Span, culprits: &[Culprit]) -> Cell {
        let length_ns = span.duration_ns();
        let mut shares = Shares::default();
        let mut reason = None;
        match span.doing {
            Doing::Running => shares[RUNNING] = length_ns,
            Doing::Queued(causes) => shares[QUEUED..BLOCKED].copy_from_slice(&causes),
            Doing::Blocked(wait) => {
                let kind = if wait.reason.is_idle() { IDLE } else { BLOCKED };
                shares[kind] = length_ns;
                reason = Some(self.reason(wait.name()));
            }
            Doing::Unknown => shares[UNKNOWN] = length_ns,
            Doing::Shed => {
                shares[UNKNOWN] = length_ns;
                reason = Some(self.reason(SHED.to_owned()));
            }
        }
        let mut held: Vec<(usize, u64)> = culprits
            .iter()
            .map(|culprit| (self.person(culprit.who), culprit.ns))
            .collect();
        keep_most(&mut held);
        let waker = match (span.waker.kind, span.waker_thread) {
            (WakerKind::Unknown, _) => None,
            (_, Some(who)) => Some(self.person(who)),
            (kind, None) => Some(self.reason(kind.name().to_owned())),
        };
        Cell {
            from_ns: span.from_ns,
            length_ns,
            shares,
            reason,
            waker,
            held,
        }
    }

    fn reason(&mut self, name: String) -> usize {
        let next = self.names.len();
        *self.reasons.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }

    fn person(&mut self, who: Who) -> usize {
        let next = self.names.len();
        *self.people.entry((who.tid, who.comm)).or_insert_with(|| {
            let name = who.comm.display();
            self.names.push(if who.is_interrupts() {
                name
            } else {
                format!("{name}/{}", who.tid)
            });
            next
        })
    }

    /// What is to be drawn of so many threads: times count from `start_ns` on.
    pub(super) fn finish(
        self,
        threads: u64,
        start_ns: u64,
        describe: impl Fn(u32) -> [String; 2],
    ) -> Timeline {
        let mut lanes: Vec<Lane> = self.by_serial.into_values().collect();
        lanes.sort_by_key(|lane| {
            let work_ns = lane.sums[BLOCKED];
            (
                std::cmp::Reverse(lane.queued_ns()),
                std::cmp::Reverse(work_ns),
                lane.tid,
            )
        });
        lanes.truncate(MAX_DRAWN);
        let rows = lanes.into_iter().map(|lane| row(lane, start_ns, &describe));
        let rows: Vec<Row> = rows.collect();
        Timeline {
            merged_below_ns: self.merged_below_ns,
            left_out: threads.saturating_sub(rows.len() as u64),
            kinds: KINDS,
            names: self.names,
            rows,
        }
    }
}

fn row(lane: Lane, start_ns: u64, describe: &impl Fn(u32) -> [String; 2]) -> Row {
    let [process, unit] = describe(lane.tgid);
    let cells = lane.merged.into_values().chain(lane.alone);
    let mut cells: Vec<DrawnCell> = cells
        .map(|cell| {
            let shares = cell.shares.into_iter().enumerate();
            DrawnCell(
                cell.from_ns.cast_signed() - start_ns.cast_signed(),
                cell.length_ns,
                shares.filter(|(_, ns)| *ns > 0).collect(),
                cell.reason,
                cell.waker,
                cell.held,
            )
        })
        .collect();
    cells.sort_by_key(|cell| cell.0);
    Row {
        tid: lane.tid,
        tgid: lane.tgid,
        comm: lane.comm.display(),
        process,
        unit,
        from_ns: lane.from_ns.saturating_sub(start_ns),
        until_ns: lane.until_ns.saturating_sub(start_ns),
        sums_ns: lane.sums,
        cells,
    }
}

/// A timeline as the page gets it; times count from its beginning.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    merged_below_ns: u64,
    /// Threads that have no row.
    left_out: u64,
    kinds: [&'static str; KINDS.len()],
    names: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    tid: u32,
    tgid: u32,
    comm: String,
    process: String,
    unit: String,
    from_ns: u64,
    until_ns: u64,
    sums_ns: Shares,
    cells: Vec<DrawnCell>,
}

/// From when on and for how long, shares by kind, then numbers of names: the reason, whoever ended it, and
/// who had the CPU for how long. A cell is one span unless it is merged: then it begins at a multiple of
/// `merged_below_ns` of the records' clock, and its shares are of what is merged there.
#[derive(Debug, Serialize)]
struct DrawnCell(
    i64,
    u64,
    Vec<(usize, u64)>,
    Option<usize>,
    Option<usize>,
    Vec<(usize, u64)>,
);

#[cfg(test)]
mod tests {
    use super::{KINDS, Lanes, MAX_CELLS};
    use crate::core::{Comm, Doing, Span, Waker};

    fn span(serial: u64, from_ns: u64, until_ns: u64, doing: Doing) -> Span {
        Span {
            serial,
            tid: 7,
            tgid: 7,
            comm: Comm::default(),
            cpu: None,
            from_ns,
            until_ns,
            doing,
            left_ns: 0,
            waker: Waker::default(),
            waker_thread: None,
        }
    }

    /// All shares of a row's cells.
    fn sums(lanes: Lanes, row: usize) -> [u64; KINDS.len()] {
        let timeline = lanes.finish(2, 0, |_| [String::new(), String::new()]);
        let mut sums = [0; KINDS.len()];
        for cell in &timeline.rows[row].cells {
            for &(kind, ns) in &cell.2 {
                sums[kind] += ns;
            }
        }
        assert_eq!(sums, timeline.rows[row].sums_ns);
        sums
    }

    #[test]
    fn few_spans_are_cells_of_their_own() {
        let mut lanes = Lanes::default();
        lanes.span(&span(1, 100, 103, Doing::Running), &[]);
        lanes.span(&span(1, 103, 110, Doing::Queued([5, 0, 2, 0])), &[]);
        assert_eq!((lanes.merged_below_ns, lanes.cells), (0, 2));
        assert_eq!(sums(lanes, 0), [3, 5, 0, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn many_spans_are_merged_and_nothing_is_lost_or_added() {
        let mut lanes = Lanes::default();
        let (mut now_ns, mut running_ns, mut queued_ns) = (1_000, 0, 0);
        for round in 0..200_000u64 {
            let length_ns = 100 + round % 7_000;
            let doing = if round % 2 == 0 {
                running_ns += length_ns;
                Doing::Running
            } else {
                queued_ns += length_ns;
                Doing::Queued([0, 0, 0, length_ns])
            };
            lanes.span(&span(1, now_ns, now_ns + length_ns, doing), &[]);
            now_ns += length_ns;
        }
        lanes.span(&span(2, 1_000, now_ns, Doing::Unknown), &[]);
        assert!(lanes.cells <= MAX_CELLS && lanes.merged_below_ns > 0);
        assert_eq!(sums(lanes, 0), [running_ns, 0, 0, 0, queued_ns, 0, 0, 0]);
    }
}
