//! The report for people: what was measured, where each thread's time went, how long it waited, and
//! whether the numbers can be trusted.

use std::fmt::Write as _;

use super::report::{Distribution, Exit, FigureRow, Report, ThreadRow};
use super::text::{
    Column, Grid, TextOptions, duration, percent, safe, short_count, thousands, utc, wrap,
};

/// What the table shows of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// How wide, and whether in colours.
    pub text: TextOptions,
    /// Threads listed at most; the total has them all.
    pub max_threads: usize,
}

/// The report as text. It ends with a line break.
#[must_use]
pub fn render(report: &Report, options: &TableOptions) -> String {
    let text = options.text;
    let mut out = heading(report, text);
    out.push('\n');
    let listed = report.threads.len().min(options.max_threads);
    let rows = Rows {
        threads: &report.threads[..listed],
        total: &report.total.figures,
    };
    out += &rows.time().render(text, true);
    out.push('\n');
    out += &rows.waits().render(text, true);
    let hidden = report.total.threads.saturating_sub(listed as u64);
    if hidden > 0 {
        out += &wrap(
            &format!(
                "{} more thread{} in the total, but not listed here: see --output json.",
                thousands(hidden),
                if hidden == 1 { " is" } else { "s are" },
            ),
            text.prose(),
            2,
        );
    }
    out.push('\n');
    out += &trust(report, text);
    out
}

fn heading(report: &Report, text: TextOptions) -> String {
    let value = safe(&report.target.value);
    let target = match report.target.kind.as_str() {
        "pid" => format!("process {value}"),
        "tid" => format!("thread {value}"),
        "comm" => format!("threads named {value}"),
        "command" => format!("command: {value}"),
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

/// The rows that both tables have: threads and their sum.
struct Rows<'a> {
    threads: &'a [ThreadRow],
    total: &'a FigureRow,
}

impl Rows<'_> {
    fn time(&self) -> Grid {
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
        Grid { columns }
    }

    fn waits(&self) -> Grid {
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
        Grid { columns }
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
            (Some(open), _) => format!("{} {}", open.state, duration(open.elapsed_ns)),
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

/// Whether the numbers can be trusted, and how far.
fn trust(report: &Report, text: TextOptions) -> String {
    let loss = &report.loss;
    let total = &report.total.figures;
    let whole = loss.dropped == 0 && loss.inverted == 0 && loss.undecodable == 0;
    let style = if whole { text.good() } else { text.bad() };
    let verdict = if whole {
        format!(
            "Complete: all {} of this host were read, none was dropped, none was out of order.",
            plural(loss.events, "event"),
        )
    } else {
        incomplete(report)
    };
    let mut out = String::new();
    let mut say = |style: anstyle::Style, sentence: &str| {
        let lines = wrap(sentence, text.prose(), 2);
        let _ = writeln!(out, "{style}{}{style:#}", lines.trim_end());
    };
    say(style, &verdict);
    let plain = anstyle::Style::new();
    if total.time_ns.unknown > 0 {
        say(
            plain,
            &format!(
                "Unknown: {} of the threads' time ({}), because events are missing or contradict one \
                 another. Nothing was guessed: no delay was made from that time.",
                percent(total.time_ns.unknown, total.observed_ns),
                duration(total.time_ns.unknown),
            ),
        );
    }
    if loss.censored_spans > 0 {
        say(
            plain,
            &format!(
                "Cut off: {} began before the window, had not ended with it, or fell into a loss. Their \
                 time is counted above, but their length is not known, so they are not among the delays.",
                plural(loss.censored_spans, "wait"),
            ),
        );
    }
    say(
        plain,
        &format!(
            "Error: P50 to P99.9 are at most {:.1}% too high and never too low; counts, times and maxima \
             are exact{}.",
            // What is rounded for display is rounded up.
            (total.runqueue_delay.relative_error * 1000.0).ceil() / 10.0,
            match report.clock_error_ns {
                Some(ns) if ns > 0 => format!(
                    ", but for clocks of CPUs that differ by up to {}",
                    duration(ns)
                ),
                _ => String::new(),
            },
        ),
    );
    if !report.conflicts.is_empty() {
        let list: Vec<String> = report
            .conflicts
            .iter()
            .map(|(name, count)| format!("{name} {}", thousands(*count)))
            .collect();
        say(
            text.dim(),
            &format!("Contradictions on this host: {}.", list.join(", ")),
        );
    }
    for note in &report.notes {
        say(plain, &format!("Note: {}", safe(note)));
    }
    out
}

/// CPUs and kinds that are named where events were dropped.
const SHOWN: usize = 4;

fn incomplete(report: &Report) -> String {
    let loss = &report.loss;
    let mut sentence = "INCOMPLETE:".to_owned();
    if loss.dropped > 0 {
        let _ = write!(
            sentence,
            " {} of {} of this host ({}) were dropped.",
            thousands(loss.dropped),
            plural(loss.events.saturating_add(loss.dropped), "event"),
            percent(loss.dropped, loss.events.saturating_add(loss.dropped)),
        );
    }
    if loss.dropped > loss.missed {
        sentence += " The daemon did not empty a ring in time";
        let mut by: Vec<_> = loss.dropped_by.iter().collect();
        by.sort_by_key(|dropped| std::cmp::Reverse(dropped.count));
        let mut list: Vec<String> = by
            .iter()
            .take(SHOWN)
            .map(|d| format!("CPU {} {} {}", d.cpu, d.kind, thousands(d.count)))
            .collect();
        if by.len() > SHOWN {
            list.push(format!("{} more", by.len() - SHOWN));
        }
        if !list.is_empty() {
            let _ = write!(sentence, " ({})", list.join(", "));
        }
        sentence += ": larger rings lose less, see --ring-records.";
    }
    if loss.missed > 0 {
        let _ = write!(
            sentence,
            " {} of them were never recorded, because a probe was running already on that CPU.",
            thousands(loss.missed),
        );
    }
    if loss.inverted > 0 {
        let _ = write!(
            sentence,
            " {} came out of order and gave no delay.",
            plural(loss.inverted, "event"),
        );
    }
    if loss.undecodable > 0 {
        let _ = write!(
            sentence,
            " {} could not be read by this version.",
            plural(loss.undecodable, "event"),
        );
    }
    sentence
}

fn plural(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {what}{ending}", thousands(number))
}
