//! What the target waited for, and whose doing that was.

use std::fmt::Write as _;

use super::{Named, TableOptions, inset, paragraph, plural, shorten, title, waker, work_first};
use crate::sink::report::{Explain, FigureRow, ProcessCulprit, Report, is_idle};
use crate::sink::text::{Column, Grid, duration, percent, safe, short_count, thousands};

/// Processes that are named for having had the CPU.
const PROCESSES: usize = 5;

/// Their threads that are named beside each.
const THREADS: usize = 3;

/// What ended waits, at most so many.
const WAKERS: usize = 5;

/// Columns of a name that can be of any length.
const WIDE: usize = 32;

/// A column from one cell for each row.
fn column<R>(
    header: &'static str,
    left: bool,
    expendable: u8,
    rows: &[R],
    cell: impl Fn(&R) -> String,
) -> Column {
    Column {
        group: "",
        header,
        left,
        expendable,
        cells: rows.iter().map(cell).collect(),
    }
}

/// The time on run queues: its causes, how it began, and who had the CPU.
pub(super) fn runnable(report: &Report, options: &TableOptions) -> String {
    let total = &report.total.figures;
    let whole_ns = total.time_ns.runnable;
    if whole_ns == 0 {
        return String::new();
    }
    let text = options.text;
    let mut out = title(
        &format!(
            "Waiting for a CPU: {}, {} of the threads' time.",
            duration(whole_ns),
            percent(whole_ns, total.observed_ns),
        ),
        text,
    );
    let mut causes = total.runnable_ns.parts().to_vec();
    causes.retain(|&(_, ns)| ns > 0);
    causes.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
    out += &inset(
        Grid {
            columns: vec![
                column("CAUSE", true, 0, &causes, |(name, _)| (*name).to_owned()),
                column("time", false, 0, &causes, |&(_, ns)| duration(ns)),
                column("of it", false, 0, &causes, |&(_, ns)| percent(ns, whole_ns)),
                column("", true, 1, &causes, |(name, _)| meaning(name).to_owned()),
            ],
            prose: true,
        },
        text,
    );
    let mut origins = total.runnable_by_origin_ns.parts().to_vec();
    origins.retain(|&(_, ns)| ns > 0);
    origins.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
    let origins: Vec<String> = origins
        .iter()
        .map(|&(name, ns)| format!("{} {}", began(name), duration(ns)))
        .collect();
    out += &paragraph(
        &format!("By how it began: {}.", origins.join(", ")),
        text,
        2,
    );
    out + &culprits(report, options)
}

fn meaning(cause: &str) -> &'static str {
    match cause {
        "contended" => "another thread or an interrupt had it",
        "throttled" => "the CPU quota of the cgroup was used up: nobody else's doing",
        "placement" => "the CPU was idle, and on its way to the thread",
        _ => "records of that CPU were lost, or it was too long ago",
    }
}

fn began(origin: &str) -> &str {
    match origin {
        "unknown" => "before the window",
        origin => origin,
    }
}

/// Who had the CPU, by process, with the threads that had most of it.
fn culprits(report: &Report, options: &TableOptions) -> String {
    let total = &report.total;
    let whole_ns = total.figures.runnable_ns.contended;
    let most = if options.all { usize::MAX } else { PROCESSES };
    // Who had less than a hundredth is no culprit.
    let matters = |row: &&ProcessCulprit| options.all || row.ns >= whole_ns / 100;
    let by_process = total.culprits_by_process.iter();
    let listed: Vec<&ProcessCulprit> = by_process.filter(matters).take(most).collect();
    if listed.is_empty() {
        return String::new();
    }
    let is_own = |tgid: u32| report.threads.iter().any(|row| row.tgid == tgid);
    let name = |row: &&ProcessCulprit| {
        let own = if is_own(row.tgid) { " (itself)" } else { "" };
        shorten(&format!("{}{own}", Named(&row.comm, row.tgid)), WIDE)
    };
    let threads = |row: &&ProcessCulprit| {
        let of_it = total
            .figures
            .culprits
            .iter()
            .filter(|its| its.tgid == row.tgid && its.tgid != 0);
        let names: Vec<String> = of_it
            .filter(|its| its.tid != row.tgid)
            .take(THREADS)
            .map(|its| format!("{} {}", Named(&its.comm, its.tid), duration(its.ns)))
            .collect();
        names.join(", ")
    };
    let mut columns = vec![
        column("CPU HELD BY", true, 0, &listed, name),
        column("time", false, 0, &listed, |row| duration(row.ns)),
        column("of it", false, 0, &listed, |row| percent(row.ns, whole_ns)),
        column("UNIT", true, 2, &listed, |row| {
            shorten(&safe(&row.unit), WIDE - 12)
        }),
        column("mostly its threads", true, 1, &listed, threads),
    ];
    columns.retain(|column| column.cells.iter().any(|cell| !cell.is_empty()));
    let grid = Grid {
        columns,
        prose: true,
    };
    let mut out = inset(grid, options.text);
    let listed_ns: u64 = listed.iter().map(|row| row.ns).sum();
    let rest_ns = whole_ns.saturating_sub(listed_ns);
    if rest_ns > 0 {
        let sentence = format!(
            "All others: {} ({}).",
            duration(rest_ns),
            percent(rest_ns, whole_ns)
        );
        out += &paragraph(&sentence, options.text, 2);
    }
    out
}

/// The time blocked: what for, in which system calls, and what ended it.
pub(super) fn blocked(report: &Report, options: &TableOptions) -> String {
    let total = &report.total.figures;
    let whole_ns = total.time_ns.blocked;
    if whole_ns == 0 {
        return String::new();
    }
    let text = options.text;
    let mut sentence = format!(
        "Blocked: {}, {} of the threads' time",
        duration(whole_ns),
        percent(whole_ns, total.observed_ns),
    );
    if total.idle_ns > 0 {
        let _ = write!(sentence, "; {} of it idle", duration(total.idle_ns));
    }
    let mut out = title(&(sentence + "."), text);
    let reasons = work_first(total.reasons());
    let (listed, folded): (Vec<_>, Vec<_>) = reasons
        .into_iter()
        .partition(|(reason, _)| options.all || !is_idle(reason));
    if !listed.is_empty() {
        let mut columns = vec![
            column("FOR", true, 0, &listed, |(reason, _)| shorten(reason, WIDE)),
            column("time", false, 0, &listed, |&(_, ns)| duration(ns)),
            column("of it", false, 0, &listed, |&(_, ns)| percent(ns, whole_ns)),
            column("waits", false, 0, &listed, |(reason, _)| {
                count(total, reason)
            }),
            column("in the call", true, 1, &listed, |(reason, _)| {
                calls(total, reason)
            }),
        ];
        columns.retain(|column| column.cells.iter().any(|cell| !cell.is_empty()));
        let grid = Grid {
            columns,
            prose: true,
        };
        out += &inset(grid, text);
    }
    if !folded.is_empty() {
        let list: Vec<String> = folded
            .iter()
            .map(|(reason, ns)| match calls(total, reason).as_str() {
                "" => format!("{reason} {}", duration(*ns)),
                calls => format!("{reason} {} in {calls}", duration(*ns)),
            })
            .collect();
        out += &paragraph(&format!("Idle: {}.", list.join("; ")), text, 2);
    }
    out + &wakers(total, options)
}

/// How many waits there were for a reason, as far as they are told apart.
fn count(figures: &FigureRow, reason: &str) -> String {
    let rows = figures.explain.iter().filter(|row| row.reason == reason);
    match rows.map(|row| row.count).sum() {
        0 => "-".to_owned(),
        count => short_count(count),
    }
}

/// The system calls in which threads waited for a reason, the one with most time first.
fn calls(figures: &FigureRow, reason: &str) -> String {
    let mut calls: Vec<(&str, Option<&str>, u64)> = Vec::new();
    let rows = figures.explain.iter().filter(|row| row.reason == reason);
    for row in rows {
        let Some(call) = &row.call else { continue };
        match calls.iter_mut().find(|its| its.0 == call) {
            // Not every wait was looked at closely enough to know the file.
            Some((_, file, ns)) => {
                *file = file.or(row.file);
                *ns = ns.saturating_add(row.ns);
            }
            None => calls.push((call, row.file, row.ns)),
        }
    }
    calls.sort_by_key(|&(_, _, ns)| std::cmp::Reverse(ns));
    let whole_ns: u64 = calls.iter().map(|&(_, _, ns)| ns).sum();
    let several = calls.len() > 1;
    let most: Vec<String> = calls
        .into_iter()
        .take(2)
        .map(|(call, file, ns)| {
            let file = file.map(|file| format!(" on {file}")).unwrap_or_default();
            let share = if several {
                format!(" {}", percent(ns, whole_ns))
            } else {
                String::new()
            };
            format!("{call}{file}{share}")
        })
        .collect();
    most.join(", ")
}

fn wakers(figures: &FigureRow, options: &TableOptions) -> String {
    let most = if options.all { usize::MAX } else { WAKERS };
    let (listed, rest) = figures.wakers.split_at(figures.wakers.len().min(most));
    let mut list: Vec<String> = listed
        .iter()
        .map(|row| {
            format!(
                "{} {} after {}",
                waker(row.kind, row.tid, &row.comm, row.irq),
                times(row.count),
                duration(row.wait_ns),
            )
        })
        .collect();
    if listed.iter().all(|row| row.kind == "unknown") {
        return String::new();
    }
    let others = figures.wakers_other.count + rest.iter().map(|row| row.count).sum::<u64>();
    if others > 0 {
        list.push(format!("others {}", times(others)));
    }
    let sentence = format!("Ended by: {}.", list.join(", "));
    paragraph(&sentence, options.text, 2)
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{} times", thousands(count)),
    }
}

/// What the reasons were concluded from.
pub(super) fn evidence(report: &Report, options: &TableOptions) -> String {
    let total = &report.total.figures;
    let rows: Vec<&Explain> = total.explain.iter().filter(|row| row.ns > 0).collect();
    if !options.explain || rows.is_empty() {
        return String::new();
    }
    let whole_ns = total.time_ns.blocked;
    let columns = vec![
        column("REASON", true, 0, &rows, |row| shorten(&row.reason, WIDE)),
        column("because of", true, 0, &rows, |row| {
            shorten(&row.evidence, WIDE + 8)
        }),
        column("in the call", true, 4, &rows, |row| {
            let file = row
                .file
                .map(|file| format!(" on {file}"))
                .unwrap_or_default();
            shorten(
                &format!("{}{file}", row.call.as_deref().unwrap_or("-")),
                WIDE,
            )
        }),
        column("state", true, 3, &rows, |row| {
            let iowait = if row.iowait { ", iowait" } else { "" };
            format!("{}{iowait}", row.state)
        }),
        column("waits", false, 2, &rows, |row| short_count(row.count)),
        column("time", false, 0, &rows, |row| duration(row.ns)),
        column("of it", false, 1, &rows, |row| percent(row.ns, whole_ns)),
    ];
    let mut out = title(
        "Evidence: what the reasons were concluded from.",
        options.text,
    );
    let grid = Grid {
        columns,
        prose: false,
    };
    out += &inset(grid, options.text);
    let other = total.explain_other;
    if other.wait_ns > 0 {
        let sentence = format!(
            "Not told apart: {} ({}).",
            plural(other.count, "wait"),
            duration(other.wait_ns)
        );
        out += &paragraph(&sentence, options.text, 2);
    }
    out
}
