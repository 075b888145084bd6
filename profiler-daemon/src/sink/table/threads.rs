//! The threads, one a row: where their time went, how long they waited, and why.

use super::{Named, shorten};
use crate::sink::report::{Distribution, FigureRow, Report, ThreadRow, is_idle};
use crate::sink::text::{Column, Grid, duration, percent, safe, short_count};

/// The rows that all grids have: threads and their sum.
pub(super) struct Rows<'a> {
    threads: Vec<&'a ThreadRow>,
    total: &'a FigureRow,
}

impl<'a> Rows<'a> {
    pub(super) fn new(threads: Vec<&'a ThreadRow>, report: &'a Report) -> Self {
        Self {
            threads,
            total: &report.total.figures,
        }
    }

    /// Where the time went.
    pub(super) fn time(&self) -> Grid {
        let share = |part: fn(&FigureRow) -> u64| {
            move |row: &FigureRow| percent(part(row), row.observed_ns)
        };
        let time = |part: fn(&FigureRow) -> u64| move |row: &FigureRow| duration(part(row));
        let running = |row: &FigureRow| row.time_ns.running;
        let runnable = |row: &FigureRow| row.time_ns.runnable;
        let blocked = |row: &FigureRow| row.time_ns.blocked;
        let unknown = |row: &FigureRow| row.time_ns.unknown;
        let mut columns = self.names();
        columns.extend([
            self.column("running", "%", 0, share(running)),
            self.column("running", "time", 6, time(running)),
            self.column("runnable", "%", 0, share(runnable)),
            self.column("runnable", "time", 4, time(runnable)),
            self.column("blocked", "%", 0, share(blocked)),
            self.column("blocked", "time", 7, time(blocked)),
            self.column("unknown", "%", 0, share(unknown)),
            self.column("unknown", "time", 8, time(unknown)),
            self.column("switches", "vol", 0, |row| {
                short_count(row.switches.voluntary)
            }),
            self.column("switches", "invol", 0, |row| {
                short_count(row.switches.involuntary)
            }),
            self.column("switches", "migr", 5, |row| short_count(row.migrations)),
            self.now(),
        ]);
        Grid {
            columns,
            prose: false,
        }
    }

    /// How long they waited each time.
    pub(super) fn waits(&self) -> Grid {
        let queue =
            |cell: fn(&Distribution) -> String| move |row: &FigureRow| cell(&row.runqueue_delay);
        let off = |cell: fn(&Distribution) -> String| move |row: &FigureRow| cell(&row.offcpu);
        let count = |of: &Distribution| short_count(of.count);
        let p50 = |of: &Distribution| quantile(of, of.p50_ns);
        let p90 = |of: &Distribution| quantile(of, of.p90_ns);
        let p99 = |of: &Distribution| quantile(of, of.p99_ns);
        let p999 = |of: &Distribution| quantile(of, of.p999_ns);
        let max = |of: &Distribution| quantile(of, of.max_ns);
        let (queued, left) = ("run-queue delay", "off-CPU");
        let mut columns = self.names();
        columns.extend([
            self.column(queued, "count", 0, queue(count)),
            self.column(queued, "P50", 0, queue(p50)),
            self.column(queued, "P90", 2, queue(p90)),
            self.column(queued, "P99", 0, queue(p99)),
            self.column(queued, "P99.9", 0, queue(p999)),
            self.column(queued, "max", 0, queue(max)),
            self.column(left, "count", 0, off(count)),
            self.column(left, "P50", 1, off(p50)),
            self.column(left, "P90", 3, off(p90)),
            self.column(left, "P99", 0, off(p99)),
            self.column(left, "P99.9", 4, off(p999)),
            self.column(left, "max", 0, off(max)),
        ]);
        Grid {
            columns,
            prose: false,
        }
    }

    /// What for, and whose doing it was.
    pub(super) fn why(&self) -> Grid {
        let cause = |part: fn(&FigureRow) -> u64| move |row: &FigureRow| duration(part(row));
        let mut columns = self.names();
        columns.extend([
            Column {
                left: true,
                ..self.column("blocked", "mostly for", 0, mostly_for)
            },
            self.column("blocked", "idle", 4, cause(|row| row.idle_ns)),
            self.column(
                "runnable",
                "contended",
                0,
                cause(|row| row.runnable_ns.contended),
            ),
            self.column(
                "runnable",
                "throttled",
                2,
                cause(|row| row.runnable_ns.throttled),
            ),
            self.column(
                "runnable",
                "placement",
                3,
                cause(|row| row.runnable_ns.placement),
            ),
            Column {
                left: true,
                ..self.column("", "CPU mostly held by", 1, mostly_held)
            },
            Column {
                left: true,
                ..self.column("", "mostly woken by", 5, mostly_woken)
            },
        ]);
        // A column of nothing would only push others out.
        columns.retain(|column| {
            let is_spare = matches!(column.header, "idle" | "throttled" | "mostly woken by");
            !is_spare || column.cells.iter().any(|cell| cell != "0" && cell != "-")
        });
        Grid {
            columns,
            prose: false,
        }
    }

    fn names(&self) -> Vec<Column> {
        let tids = self.threads.iter().map(|row| row.tid.to_string());
        let comms = self.threads.iter().map(|row| safe(&row.comm));
        vec![
            Column {
                group: "",
                header: "TID",
                left: false,
                expendable: 0,
                cells: tids.chain([String::new()]).collect(),
            },
            Column {
                group: "",
                header: "COMM",
                left: true,
                expendable: 0,
                cells: comms.chain(["TOTAL".to_owned()]).collect(),
            },
        ]
    }

    /// What each thread was in the midst of at the end.
    fn now(&self) -> Column {
        let cells = self.threads.iter().map(|row| match (&row.open, row.ended) {
            (Some(open), _) => {
                let reason = open.reason.as_deref().filter(|&reason| reason != "unknown");
                let state = shorten(reason.unwrap_or(open.state), WIDE);
                format!("{state} {}", duration(open.elapsed_ns))
            }
            (None, true) => "ended".to_owned(),
            (None, false) => "running".to_owned(),
        });
        Column {
            group: "",
            header: "at the end",
            left: true,
            expendable: 3,
            cells: cells.chain([String::new()]).collect(),
        }
    }

    fn column(
        &self,
        group: &'static str,
        header: &'static str,
        expendable: u8,
        cell: impl Fn(&FigureRow) -> String,
    ) -> Column {
        let rows = self.threads.iter().map(|row| &row.figures);
        Column {
            group,
            header,
            left: false,
            expendable,
            cells: rows.chain([self.total]).map(cell).collect(),
        }
    }
}

/// A distribution of nothing has no quantiles, which is not the same as zero.
fn quantile(of: &Distribution, ns: u64) -> String {
    if of.count == 0 {
        "-".to_owned()
    } else {
        duration(ns)
    }
}

/// Columns of a name at most.
const WIDE: usize = 24;

/// What a thread was blocked for most of the time, if possible by something else than idleness.
fn mostly_for(row: &FigureRow) -> String {
    let reasons = row.reasons();
    let work = reasons.iter().find(|(reason, _)| !is_idle(reason));
    match work.or(reasons.first()) {
        Some((reason, ns)) => format!("{} {}", shorten(reason, WIDE), duration(*ns)),
        None => "-".to_owned(),
    }
}

fn mostly_held(row: &FigureRow) -> String {
    row.culprits.first().map_or("-".to_owned(), |culprit| {
        let name = Named(&culprit.comm, culprit.tid).to_string();
        format!("{} {}", shorten(&name, WIDE), duration(culprit.ns))
    })
}

fn mostly_woken(row: &FigureRow) -> String {
    row.wakers.first().map_or("-".to_owned(), |waker| {
        let name = super::waker(waker.kind, waker.tid, &waker.comm, waker.irq);
        format!("{} {}x", shorten(&name, WIDE), short_count(waker.count))
    })
}
