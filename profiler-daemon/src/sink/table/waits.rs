//! Single waits: those that have not ended, and the longest that have.

use std::fmt::Write as _;

use super::{
    Named, TableOptions, hanging, indent, inset, paragraph, plural, shorten, title, waker,
};
use crate::sink::report::{
    Culprit, Ender, LinkRow, Open, Report, RunnableRow, ThreadRow, Worst, WorstRow, is_idle,
};
use crate::sink::text::{Column, Grid, TextOptions, duration, safe, thousands, utc};

/// Threads that are named for each thing that is waited for.
const NAMED: usize = 3;

/// Columns of a name that can be of any length.
const WIDE: usize = 32;

/// What is waited for, and the threads that do.
type Kind<'a> = (&'a str, Vec<(&'a ThreadRow, &'a Open)>);

/// Who was in the midst of a wait at the end, by what it is for.
pub(super) fn open(report: &Report, options: &TableOptions) -> String {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for row in &report.threads {
        // What can't be known is no wait.
        let Some(open) = row.open.as_ref().filter(|open| open.state != "unknown") else {
            continue;
        };
        let name = open.reason.as_deref().unwrap_or(open.state);
        match kinds.iter_mut().find(|(its, _)| *its == name) {
            Some((_, threads)) => threads.push((row, open)),
            None => kinds.push((name, vec![(row, open)])),
        }
    }
    for (_, threads) in &mut kinds {
        threads.sort_by_key(|(_, open)| std::cmp::Reverse(open.elapsed_ns));
    }
    let oldest =
        |threads: &[(&ThreadRow, &Open)]| threads.first().map_or(0, |its| its.1.elapsed_ns);
    kinds.sort_by_key(|(_, threads)| std::cmp::Reverse(oldest(threads)));
    let (listed, idle): (Vec<_>, Vec<_>) = kinds
        .into_iter()
        .partition(|(name, _)| options.all || !is_idle(name));
    if listed.is_empty() {
        return String::new();
    }
    let column = |header, left, cell: &dyn Fn(&Kind<'_>) -> String| Column {
        group: "",
        header,
        left,
        expendable: 0,
        cells: listed.iter().map(cell).collect(),
    };
    let columns = vec![
        column("FOR", true, &|(name, _)| shorten(name, WIDE)),
        column("threads", false, &|(_, threads)| {
            thousands(threads.len() as u64)
        }),
        column("longest", false, &|(_, threads)| duration(oldest(threads))),
        column("who", true, &|(_, threads)| names(threads)),
    ];
    let mut out = title("Still waiting when the window ended:", options.text);
    let grid = Grid {
        columns,
        prose: true,
    };
    out += &inset(grid, options.text);
    if !idle.is_empty() {
        let list: Vec<String> = idle
            .iter()
            .map(|(name, threads)| {
                format!(
                    "{} in {name} for up to {}",
                    plural(threads.len() as u64, "thread"),
                    duration(oldest(threads))
                )
            })
            .collect();
        out += &paragraph(&format!("Idle: {}.", list.join("; ")), options.text, 2);
    }
    out
}

fn names(threads: &[(&ThreadRow, &Open)]) -> String {
    let first = threads.iter().take(NAMED);
    let mut names: Vec<String> = first
        .map(|(row, open)| {
            let name = Named(&row.comm, row.tid);
            format!("{name} {}", duration(open.elapsed_ns))
        })
        .collect();
    if threads.len() > NAMED {
        names.push(format!("{} more", threads.len() - NAMED));
    }
    names.join(", ")
}

/// The longest waits that have ended, each with all that is known of it.
pub(super) fn worst(report: &Report, options: &TableOptions) -> String {
    let names = [
        "Longest run-queue delays:",
        "Longest waits:",
        "Longest idle waits:",
    ];
    lists(&report.worst, names, report, options)
}

/// The longest of those that go on.
pub(super) fn stuck(report: &Report, options: &TableOptions) -> String {
    let names = [
        "Longest of the run-queue delays that go on:",
        "Longest of the waits that go on:",
        "Longest of the idle waits that go on:",
    ];
    lists(&report.stuck, names, report, options)
}

fn lists(worst: &Worst, names: [&str; 3], report: &Report, options: &TableOptions) -> String {
    let mut out = String::new();
    let lists = [&worst.runqueue, &worst.blocked, &worst.idle];
    let shown = if options.all { 3 } else { 2 };
    for (name, rows) in names.into_iter().zip(lists).take(shown) {
        let rows = alike(rows);
        let rows = &rows[..rows.len().min(options.worst)];
        if rows.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out += &title(name, options.text);
        for (place, (row, more)) in rows.iter().enumerate() {
            out += &one(place + 1, row, *more, report, options);
        }
    }
    out
}

/// The waits, each with how many more there are like it: threads of a pool that has nothing to do would
/// push out all others.
fn alike(rows: &[WorstRow]) -> Vec<(&WorstRow, usize)> {
    let same = |left: &WorstRow, right: &WorstRow| {
        let is_whole = |row: &WorstRow| row.cut && row.open;
        is_whole(left)
            && is_whole(right)
            && left.comm == right.comm
            && left.reason == right.reason
            && left.kernel_stack == right.kernel_stack
            && left.user_stack == right.user_stack
    };
    let mut kinds: Vec<(&WorstRow, usize)> = Vec::new();
    for row in rows {
        match kinds.iter_mut().find(|(its, _)| same(its, row)) {
            Some((_, more)) => *more += 1,
            None => kinds.push((row, 0)),
        }
    }
    kinds
}

fn one(
    place: usize,
    row: &WorstRow,
    more: usize,
    report: &Report,
    options: &TableOptions,
) -> String {
    let text = options.text;
    let details = 2 + place.to_string().len() + 2;
    let sentence = format!("{place}. {}", what(row, more, report));
    let mut out = hanging(&sentence, text, 2, details + 2);
    if !row.culprits.is_empty() {
        let sentence = format!("CPU held by {}", held_by(&row.culprits));
        out += &paragraph(&sentence, text, details);
    }
    if row.origin.is_none() {
        out += &chain(row, text, details);
    } else if let Some(ender) = row.waker.as_ref().filter(|_| row.origin == Some("woken")) {
        out += &paragraph(&format!("woken by {}", words(ender)), text, details);
    }
    if options.explain && !row.kernel_stack.is_empty() {
        let frames = row.kernel_stack.iter();
        let frames: Vec<String> = frames
            .map(|frame| shorten(&safe(frame), 2 * WIDE))
            .collect();
        let sentence = format!("in the kernel: {}", frames.join(" < "));
        let (dim, lines) = (text.dim(), paragraph(&sentence, text, details));
        let _ = writeln!(out, "{dim}{}{dim:#}", lines.trim_end());
    }
    out + &user_stack(&row.user_stack, text, details)
}

/// Who waited, how long, for what and when.
fn what(row: &WorstRow, more: usize, report: &Report) -> String {
    let (who, waited) = match (more, row.open) {
        (0, false) => (Named(&row.comm, row.tid).to_string(), "waited"),
        (0, true) => (Named(&row.comm, row.tid).to_string(), "has waited"),
        _ => (
            format!("{} and {more} more like it", Named(&row.comm, row.tid)),
            "have waited",
        ),
    };
    let long = duration(row.duration_ns);
    let mut line = match (&row.reason, row.origin) {
        (Some(reason), _) if reason == "unknown" => {
            format!("{who} {waited} {long}, and nothing tells what for")
        }
        (Some(reason), _) => {
            let explain = row.explain.as_deref().unwrap_or_default();
            format!("{who} {waited} {long} for {reason} [{explain}]")
        }
        (None, origin) => {
            let causes = row.causes.map(causes).unwrap_or_default();
            let origin = match origin {
                Some("unknown") | None => String::new(),
                Some(origin) => format!("{origin}, "),
            };
            format!("{who} {waited} {long} for a CPU: {origin}{causes}")
        }
    };
    let from = clock(row.start_unix_ns, report.window.start_unix_ns);
    let _ = match (row.cut, row.open) {
        (true, true) => write!(line, ", since before the window and still"),
        (true, false) => write!(line, ", since before the window"),
        (false, true) => write!(line, ", from {from} and still"),
        (false, false) => write!(line, ", from {from}"),
    };
    line
}

/// The time of day, and the date if it is not that of the window's start.
fn clock(unix_ns: u64, window_unix_ns: u64) -> String {
    let (moment, start) = (utc(unix_ns), utc(window_unix_ns));
    let millis = unix_ns / 1_000_000 % 1_000;
    let same_day = moment.get(..10) == start.get(..10);
    let shown = moment.get(11..).filter(|_| same_day).unwrap_or(&moment);
    format!("{shown}.{millis:03}")
}

fn causes(causes: RunnableRow) -> String {
    let mut parts = causes.parts().to_vec();
    parts.retain(|&(_, ns)| ns > 0);
    parts.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
    let parts: Vec<String> = match parts.as_slice() {
        [(only, _)] => vec![format!("all {}", cause(only))],
        several => several
            .iter()
            .map(|(name, ns)| format!("{} {}", cause(name), duration(*ns)))
            .collect(),
    };
    parts.join(", ")
}

fn cause(name: &str) -> &str {
    match name {
        "unknown" => "of unknown cause",
        name => name,
    }
}

/// Those that had the CPU longest. Who had it for less than a hundredth of what the first had is left out.
fn held_by(culprits: &[Culprit]) -> String {
    let most_ns = culprits.first().map_or(0, |its| its.ns);
    let matters = |its: &&Culprit| its.ns >= most_ns / 100;
    let names: Vec<String> = culprits
        .iter()
        .filter(matters)
        .take(NAMED)
        .map(|its| format!("{} {}", Named(&its.comm, its.tid), duration(its.ns)))
        .collect();
    names.join(", ")
}

fn words(ender: &Ender) -> String {
    waker(ender.kind, ender.tid, &ender.comm, ender.irq)
}

/// What kept the waker, and the waker's waker: each deeper than the one that it kept.
fn chain(row: &WorstRow, text: TextOptions, columns: usize) -> String {
    let mut out = String::new();
    let mut columns = columns;
    for link in &row.chain {
        let sentence = format!(
            "woken by {}, which meanwhile {}",
            Named(&link.comm, link.tid),
            doings(link),
        );
        out += &paragraph(&sentence, text, columns);
        columns += 2;
    }
    let last = match row.chain.last() {
        Some(link) => link.waker.as_ref(),
        None => row.waker.as_ref(),
    };
    if let Some(ender) = last {
        out += &paragraph(&format!("woken by {}", words(ender)), text, columns);
    }
    out
}

/// What a waker did while it was waited for, the longest first.
fn doings(link: &LinkRow) -> String {
    let reason = link
        .reason
        .as_deref()
        .map(|reason| format!(" (mostly for {reason})"));
    let held =
        (!link.culprits.is_empty()).then(|| format!(" (CPU held by {})", held_by(&link.culprits)));
    let mut parts = vec![
        (link.running_ns, "ran", String::new()),
        (link.runnable_ns, "was queued", held.unwrap_or_default()),
        (link.blocked_ns, "waited", reason.unwrap_or_default()),
        (link.unknown_ns, "did something unknown for", String::new()),
    ];
    parts.retain(|part| part.0 > 0);
    parts.sort_by_key(|part| std::cmp::Reverse(part.0));
    let parts: Vec<String> = parts
        .iter()
        .map(|(ns, what, more)| format!("{what} {}{more}", duration(*ns)))
        .collect();
    parts.join(", ")
}

/// A stack, one function a line, since names from programs can be of any length.
fn user_stack(frames: &[String], text: TextOptions, columns: usize) -> String {
    if frames.is_empty() {
        return String::new();
    }
    let dim = text.dim();
    let room = text.width.saturating_sub(columns + 2);
    let lines: Vec<String> = frames
        .iter()
        .map(|frame| format!("{dim}  {}{dim:#}", shorten(&safe(frame), room)))
        .collect();
    indent(&format!("in the program:\n{}", lines.join("\n")), columns)
}
