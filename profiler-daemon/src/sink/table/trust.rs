//! Whether the numbers can be trusted, and how far.

use std::fmt::Write as _;

use super::plural;
use crate::sink::report::Report;
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
