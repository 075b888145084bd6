//! What dominates, in sentences.

use std::fmt::Write as _;

use super::{hanging, title};
use crate::sink::report::Report;
use crate::sink::text::{TextOptions, safe};
use crate::sink::verdict::Kind;

/// The findings, one a paragraph, and what their percentages are of.
pub(super) fn verdict(report: &Report, text: TextOptions) -> String {
    let mut out = title("Verdict:", text);
    for finding in &report.verdict {
        let sentence = format!("* {} {}", safe(&finding.text), safe(&finding.advice));
        let lines = hanging(&sentence, text, 2, 4);
        let style = match finding.kind {
            Kind::None | Kind::Stuck | Kind::Problem | Kind::Caveat => text.bad(),
            Kind::Idle | Kind::Busy => text.good(),
            Kind::Question | Kind::Note => text.dim(),
        };
        // Only the mark is coloured: it says at a glance what kind of sentence follows.
        let _ = write!(out, "  {style}*{style:#}{}", &lines[3..]);
    }
    let says = |words| report.verdict.iter().any(|its| its.text.contains(words));
    let working = "Working time: running, queued, or waiting for disks, memory or the kernel.";
    let terms = match (says("working time"), says("non-idle time")) {
        (false, false) => String::new(),
        (true, false) => working.to_owned(),
        (false, true) => {
            "Non-idle time: all but waits such as epoll or sleep; waits for locks and peers are in it, which may \
             be idleness."
                .to_owned()
        }
        (true, true) => format!(
            "{working} Non-idle time: the same, and waiting for locks and peers, which may be idleness."
        ),
    };
    if !terms.is_empty() {
        let (dim, lines) = (text.dim(), hanging(&terms, text, 2, 2));
        let _ = writeln!(out, "{dim}{}{dim:#}", lines.trim_end());
    }
    out
}
