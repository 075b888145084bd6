//! Whether the numbers can be trusted, and how far.

use std::fmt::Write as _;

use super::plural;
use crate::sink::report::{Report, ShedRow};
use crate::sink::text::{TextOptions, duration, percent, safe, thousands, wrap};

/// The last lines of the report.
pub(super) fn trust(report: &Report, text: TextOptions) -> String {
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
    if let Some(shed) = &loss.shed {
        say(text.bad(), &shedding(shed));
    }
    if !whole || loss.shed.is_none() {
        say(style, &verdict);
    }
    let plain = anstyle::Style::new();
    if total.time_ns.unknown > 0 {
        say(
            plain,
            &format!(
                "Unknown: {} of the threads' time ({}), because {}. Nothing was guessed: no delay was made \
                 from that time.",
                percent(total.time_ns.unknown, total.observed_ns),
                duration(total.time_ns.unknown),
                match total.unknown_shed_ns {
                    Some(shed_ns) if shed_ns == total.time_ns.unknown =>
                        "these threads were left out".to_owned(),
                    Some(shed_ns) => format!(
                        "threads were left out ({}), and events are missing or contradict one another",
                        duration(shed_ns)
                    ),
                    None => "events are missing or contradict one another".to_owned(),
                },
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

/// What was left out, of whom, and what that means for the figures.
fn shedding(shed: &ShedRow) -> String {
    let least = one_in(shed.least_kept);
    let now = match shed.kept {
        kept if kept >= 1.0 => "all again at the end".to_owned(),
        kept => format!("{} at the end", one_in(kept)),
    };
    format!(
        "SHED: for {} there were more events than could be read, and only some threads of this host were \
         followed ({least} at the least, {now}). Their figures are complete; of the others that time is unknown, \
         so that sums over all threads are too small. {} were left out.",
        duration(shed.duration_ns),
        plural(shed.events, "event"),
    )
}

/// A fraction that is one in a power of two.
pub(crate) fn one_in(fraction: f64) -> String {
    format!("1 in {:.0}", (1.0 / fraction).round())
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
