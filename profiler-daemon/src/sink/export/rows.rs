//! Spans as rows of a table: which columns there are, and what a span has in each.
//!
//! Texts come by number, so that a name that a million rows have is made once.

use std::collections::HashMap;

use super::{Run, SHED, state};
use crate::core::classify::{Call, Wait};
use crate::core::units::INTERRUPTS_NAME;
use crate::core::{Comm, Culprit, Doing, Reason, Span, WakerKind};

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A number below 2^31.
    Small,
    /// Nanoseconds.
    Nanoseconds,
    /// Nanoseconds since 1970 (UTC).
    Time,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub kind: Kind,
    /// Whether every row has something there.
    pub is_required: bool,
}

const fn always(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        is_required: true,
    }
}

const fn at_times(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        is_required: false,
    }
}

/// All columns; `docs/exports.md` says what they mean.
pub const COLUMNS: [Column; 24] = [
    always("host", Kind::Text),
    at_times("boot_id", Kind::Text),
    always("tid", Kind::Small),
    always("tgid", Kind::Small),
    always("comm", Kind::Text),
    at_times("process", Kind::Text),
    at_times("unit", Kind::Text),
    always("state", Kind::Text),
    at_times("reason", Kind::Text),
    always("start_unix_ns", Kind::Time),
    always("duration_ns", Kind::Nanoseconds),
    at_times("cpu", Kind::Small),
    at_times("contended_ns", Kind::Nanoseconds),
    at_times("throttled_ns", Kind::Nanoseconds),
    at_times("placement_ns", Kind::Nanoseconds),
    at_times("cause_unknown_ns", Kind::Nanoseconds),
    at_times("culprit_tid", Kind::Small),
    at_times("culprit_tgid", Kind::Small),
    at_times("culprit_comm", Kind::Text),
    at_times("culprit_unit", Kind::Text),
    at_times("culprit_ns", Kind::Nanoseconds),
    at_times("waker", Kind::Text),
    at_times("waker_tid", Kind::Small),
    at_times("waker_comm", Kind::Text),
];

/// What a row has in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    Empty,
    /// A number.
    Number(u64),
    /// The text of this number.
    Text(usize),
}

impl Cell {
    fn small(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// A row.
pub type Row = [Cell; COLUMNS.len()];

/// Makes rows, and keeps their texts.
pub struct Rows<'a> {
    run: Run<'a>,
    texts: Vec<String>,
    numbers: HashMap<String, usize>,
    comms: HashMap<Comm, Cell>,
    reasons: HashMap<(Reason, Call), Cell>,
    /// Name and unit by process.
    processes: HashMap<u32, [Cell; 2]>,
    host: [Cell; 2],
}

impl<'a> Rows<'a> {
    /// Of this run.
    #[must_use]
    pub fn new(run: Run<'a>) -> Self {
        let mut rows = Self {
            run,
            texts: Vec::new(),
            numbers: HashMap::new(),
            comms: HashMap::new(),
            reasons: HashMap::new(),
            processes: HashMap::new(),
            host: [Cell::Empty; 2],
        };
        rows.host = [
            Cell::Text(rows.number(run.header.host.clone())),
            rows.text(run.header.boot_id.clone()),
        ];
        rows
    }

    /// The texts by their numbers. Those that are there stay.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// A span as a row.
    pub fn row(&mut self, span: &Span, culprits: &[Culprit]) -> Row {
        let [host, boot_id] = self.host;
        let [process, unit] = self.process(span.tgid);
        let (reason, [contended, throttled, placement, unknown]) = match span.doing {
            Doing::Blocked(wait) => (self.reason(wait), [Cell::Empty; 4]),
            Doing::Queued(causes) => (Cell::Empty, causes.map(Cell::Number)),
            Doing::Running | Doing::Unknown => (Cell::Empty, [Cell::Empty; 4]),
            Doing::Shed => (Cell::Text(self.number(SHED.to_owned())), [Cell::Empty; 4]),
        };
        let [
            culprit_tid,
            culprit_tgid,
            culprit_comm,
            culprit_unit,
            culprit_ns,
        ] = self.culprit(culprits);
        let [waker, waker_tid, waker_comm] = self.waker(span);
        [
            host,
            boot_id,
            Cell::small(span.tid),
            Cell::small(span.tgid),
            self.comm(span.comm),
            process,
            unit,
            Cell::Text(self.known(state(&span.doing))),
            reason,
            Cell::Number(self.run.header.unix_ns(span.from_ns)),
            Cell::Number(span.duration_ns()),
            span.cpu.map_or(Cell::Empty, |cpu| Cell::Number(cpu as u64)),
            contended,
            throttled,
            placement,
            unknown,
            culprit_tid,
            culprit_tgid,
            culprit_comm,
            culprit_unit,
            culprit_ns,
            waker,
            waker_tid,
            waker_comm,
        ]
    }

    /// Whoever had the CPU longest.
    fn culprit(&mut self, culprits: &[Culprit]) -> [Cell; 5] {
        let Some(most) = culprits.iter().max_by_key(|culprit| culprit.ns) else {
            return [Cell::Empty; 5];
        };
        let unit = if most.who.is_interrupts() {
            Cell::Text(self.known(INTERRUPTS_NAME))
        } else {
            self.process(most.who.tgid)[1]
        };
        [
            Cell::small(most.who.tid),
            Cell::small(most.who.tgid),
            self.comm(most.who.comm),
            unit,
            Cell::Number(most.ns),
        ]
    }

    fn waker(&mut self, span: &Span) -> [Cell; 3] {
        if span.waker.kind == WakerKind::Unknown {
            return [Cell::Empty; 3];
        }
        let kind = Cell::Text(self.known(span.waker.kind.name()));
        match span.waker_thread {
            Some(who) => [kind, Cell::small(who.tid), self.comm(who.comm)],
            None => [kind, Cell::Empty, Cell::Empty],
        }
    }

    fn process(&mut self, tgid: u32) -> [Cell; 2] {
        if let Some(&cells) = self.processes.get(&tgid) {
            return cells;
        }
        let process = self.run.facts.processes.get(&tgid);
        let name = process.map_or_else(String::new, |its| its.name.clone());
        let cells = [self.text(name), self.text(self.run.unit(tgid).to_owned())];
        self.processes.insert(tgid, cells);
        cells
    }

    fn comm(&mut self, comm: Comm) -> Cell {
        if let Some(&cell) = self.comms.get(&comm) {
            return cell;
        }
        let cell = Cell::Text(self.number(comm.display()));
        self.comms.insert(comm, cell);
        cell
    }

    fn reason(&mut self, wait: Wait) -> Cell {
        let key = (wait.reason, wait.call);
        if let Some(&cell) = self.reasons.get(&key) {
            return cell;
        }
        let cell = Cell::Text(self.number(wait.name()));
        self.reasons.insert(key, cell);
        cell
    }

    /// The number of a text that is mostly there already.
    fn known(&mut self, text: &str) -> usize {
        match self.numbers.get(text) {
            Some(&number) => number,
            None => self.number(text.to_owned()),
        }
    }

    /// A text that may be empty, and then is none.
    fn text(&mut self, text: String) -> Cell {
        if text.is_empty() {
            return Cell::Empty;
        }
        Cell::Text(self.number(text))
    }

    fn number(&mut self, text: String) -> usize {
        let next = self.texts.len();
        *self.numbers.entry(text).or_insert_with_key(|text| {
            self.texts.push(text.clone());
            next
        })
    }
}
