//! The report for people: what was measured, what dominates, where each thread's time went, why it waited
//! and whose doing that was, and whether the numbers can be trusted.
//!
//! `verdict` comes first, in sentences. `threads` has a row for each thread, `why` says what the target as a whole waited for, `waits` shows
//! single waits, and `trust` has the last lines. What is plain idleness is folded, unless all is asked
//! for.

mod threads;
mod trust;
mod verdict;
mod waits;
mod why;

use std::fmt::{self, Write as _};

use super::report::{Exit, Report, ThreadRow, is_idle};
use super::text::{Grid, TextOptions, duration, safe, shorten, thousands, utc, wrap};

/// What the table shows of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// How wide, and whether in colours.
    pub text: TextOptions,
    /// Threads listed at most; the total has them all.
    pub max_threads: usize,
    /// Whether idleness is shown like all else.
    pub all: bool,
    /// Longest waits shown of each kind.
    pub worst: usize,
    /// Whether to show what reasons were concluded from, and kernel stacks.
    pub explain: bool,
}

/// The report as text. It ends with a line break.
#[must_use]
pub fn render(report: &Report, options: &TableOptions) -> String {
    let text = options.text;
    let mut out = heading(report, text);
    out.push('\n');
    if !report.verdict.is_empty() {
        out += &verdict::verdict(report, text);
        out.push('\n');
    }
    let (threads, folded): (Vec<&ThreadRow>, Vec<&ThreadRow>) = report
        .threads
        .iter()
        .partition(|row| options.all || !only_idle(row));
    let listed: Vec<&ThreadRow> = threads.iter().copied().take(options.max_threads).collect();
    let unlisted = report.total.threads - listed.len() as u64 - folded.len() as u64;
    let rows = threads::Rows::new(listed, report);
    out += &rows.time().render(text, true);
    out.push('\n');
    out += &rows.waits().render(text, true);
    let times = &report.total.figures.time_ns;
    if times.runnable > 0 || times.blocked > 0 {
        out.push('\n');
        out += &rows.why().render(text, true);
    }
    if unlisted > 0 {
        let are = if unlisted == 1 { " is" } else { "s are" };
        let unlisted = thousands(unlisted);
        let line = format!(
            "{unlisted} more thread{are} in the total, but not listed here: see --output json."
        );
        out += &wrap(&line, text.prose(), 2);
    }
    if !folded.is_empty() {
        out += &wrap(&idle_threads(&folded), text.prose(), 2);
    }
    for section in [
        why::runnable(report, options),
        why::blocked(report, options),
        waits::open(report, options),
        waits::stuck(report, options),
        waits::worst(report, options),
        why::evidence(report, options),
    ] {
        if !section.is_empty() {
            out.push('\n');
            out += &section;
        }
    }
    out.push('\n');
    out += &trust::trust(report, text);
    out
}

/// Whether a thread did nothing but wait for something to do.
fn only_idle(row: &ThreadRow) -> bool {
    row.figures.idle_ns == row.figures.observed_ns && row.figures.observed_ns > 0
}

fn idle_threads(threads: &[&ThreadRow]) -> String {
    let mut reasons: Vec<(&str, u64)> = Vec::new();
    for row in threads {
        let most = row.figures.reasons();
        let Some(&(reason, _)) = most.first() else {
            continue;
        };
        match reasons.iter_mut().find(|(its, _)| *its == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let list: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{} in {reason}", thousands(*count)))
        .collect();
    let was = if threads.len() == 1 {
        "was idle throughout and is"
    } else {
        "were idle throughout and are"
    };
    format!(
        "{} {was} not listed here ({}): see --all.",
        plural(threads.len() as u64, "thread"),
        list.join(", "),
    )
}

fn heading(report: &Report, text: TextOptions) -> String {
    let value = safe(&report.target.value);
    let target = match report.target.kind.as_str() {
        "pid" => format!("process {value}"),
        "tid" => format!("thread {value}"),
        "comm" => format!("threads named {value}"),
        "command" => format!("command: {value}"),
        "host" => "the whole host".to_owned(),
        kind => format!("{} {value}", safe(kind)),
    };
    let mut line = format!(
        "{target} -- {} from {} UTC, {}",
        duration(report.window.duration_ns),
        utc(report.window.start_unix_ns),
        plural(report.total.threads, "thread"),
    );
    let ended =
        report.threads.iter().filter(|row| row.ended).count() as u64 + report.loss.unlisted_threads;
    if ended > 0 {
        let _ = write!(line, ", {} of them ended", thousands(ended));
    }
    match report.exit {
        Some(Exit::Code(code)) => {
            let _ = write!(line, "; exit code {code}");
        }
        Some(Exit::Signal(signal)) => {
            let _ = write!(line, "; ended by signal {signal}");
        }
        None => {}
    }
    let bold = text.bold();
    format!(
        "{bold}{}{bold:#}\n",
        wrap(&line, text.prose(), 2).trim_end()
    )
}

/// A thread or process by name and id; names alone are seldom unique.
struct Named<'a>(&'a str, u32);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            ("", 0) => f.write_str("a thread that is gone"),
            (interrupts, 0) => f.write_str(interrupts),
            ("", id) => write!(f, "?/{id}"),
            (name, id) => write!(f, "{}/{id}", safe(name)),
        }
    }
}

/// What ended a wait, in words.
fn waker(kind: &str, tid: u32, comm: &str, irq: Option<u32>) -> String {
    match (kind, irq) {
        ("thread", _) => Named(comm, tid).to_string(),
        ("timer", _) => "a timer".to_owned(),
        ("network", _) => "the network".to_owned(),
        ("block", _) => "a block device".to_owned(),
        ("ipi", _) => "another CPU".to_owned(),
        ("irq", Some(number)) => format!("interrupt {number}"),
        ("irq", None) => "an interrupt".to_owned(),
        _ => "something unseen".to_owned(),
    }
}

/// A line that heads a section.
fn title(sentence: &str, text: TextOptions) -> String {
    let bold = text.bold();
    let lines = wrap(sentence, text.prose(), 2);
    format!("{bold}{}{bold:#}\n", lines.trim_end())
}

/// A sentence set in by `first` columns, and its later lines by two more.
fn paragraph(sentence: &str, text: TextOptions, first: usize) -> String {
    hanging(sentence, text, first, first + 2)
}

/// A sentence set in by `first` columns, and its later lines by `later`.
fn hanging(sentence: &str, text: TextOptions, first: usize, later: usize) -> String {
    let width = text.prose().saturating_sub(first);
    indent(&wrap(sentence, width, later.saturating_sub(first)), first)
}

/// A grid set in by two columns.
fn inset(grid: Grid, text: TextOptions) -> String {
    let narrower = TextOptions {
        width: text.width.saturating_sub(2),
        ..text
    };
    indent(&grid.render(narrower, false), 2)
}

fn indent(lines: &str, columns: usize) -> String {
    let mut out = String::new();
    for line in lines.lines() {
        let _ = writeln!(out, "{:columns$}{line}", "");
    }
    out
}

/// Idleness last, else as it was.
fn work_first(reasons: Vec<(&str, u64)>) -> Vec<(&str, u64)> {
    let (idle, mut work): (Vec<_>, Vec<_>) =
        reasons.into_iter().partition(|(reason, _)| is_idle(reason));
    work.extend(idle);
    work
}

fn plural(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {what}{ending}", thousands(number))
}
