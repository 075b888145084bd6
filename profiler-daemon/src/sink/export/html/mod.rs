//! One page that needs nothing else: verdict, timeline, histograms, tables.
//!
//! The page is [`PAGE`] with what is to be shown as JSON in its middle; it makes text of it, never markup.

mod lanes;

use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;

use self::lanes::{Lanes, Timeline};
use super::{Export, Holder, Outcome, Run};
use crate::core::units::INTERRUPTS_NAME;
use crate::core::{Cause, Culprit, Doing, Reason, Span};
use crate::sink::report::Report;

const PAGE: &str = include_str!("page.html");

/// Where the JSON goes.
const PLACE: &str = "\"the data\"";

/// Pairs of processes that are told apart, and that are shown.
const MAX_PAIRS: usize = 1 << 16;
const MAX_SHOWN: usize = 40;

/// Threads that are listed.
const MAX_THREADS: usize = 100;

/// Gathers, and writes at the end.
pub struct Html<'a, W> {
    out: W,
    run: Run<'a>,
    lanes: Lanes,
    /// For how long somebody had a CPU that the process waited for.
    pairs: HashMap<(u32, Holder), u64>,
    /// Contended time that is in no pair.
    nobody_ns: u64,
}

impl<'a, W: Write> Html<'a, W> {
    /// Writes here.
    pub fn new(out: W, run: Run<'a>) -> Self {
        Self {
            out,
            run,
            lanes: Lanes::default(),
            pairs: HashMap::new(),
            nobody_ns: 0,
        }
    }

    fn interference(&self) -> Interference<'_> {
        let mut pairs: Vec<Pair<'_>> = self
            .pairs
            .iter()
            .map(|(&(victim, culprit), &ns)| Pair {
                victim: self.process(victim),
                culprit: match culprit {
                    Holder::Process(tgid) => self.process(tgid),
                    Holder::Interrupts(kind) => Process {
                        tgid: 0,
                        name: kind.display(),
                        unit: INTERRUPTS_NAME,
                    },
                },
                ns,
            })
            .collect();
        pairs.sort_by_key(|pair| {
            let ids = (pair.victim.tgid, pair.culprit.tgid);
            (std::cmp::Reverse(pair.ns), ids, pair.culprit.name.clone())
        });
        let less_ns: u64 = pairs.iter().skip(MAX_SHOWN).map(|pair| pair.ns).sum();
        pairs.truncate(MAX_SHOWN);
        Interference {
            pairs,
            other_ns: less_ns + self.nobody_ns,
        }
    }

    fn process(&self, tgid: u32) -> Process<'a> {
        Process {
            tgid,
            name: self.run.process_name(tgid),
            unit: self.run.unit(tgid),
        }
    }
}

impl<W: Write> Export for Html<'_, W> {
    fn span(&mut self, span: &Span, culprits: &[Culprit]) -> io::Result<()> {
        self.lanes.span(span, culprits);
        if let Doing::Queued(causes) = span.doing {
            let mut rest_ns = causes[Cause::Contended as usize];
            for culprit in culprits {
                let pair = (span.tgid, Holder::of(&culprit.who));
                let ns = culprit.ns.min(rest_ns);
                if self.pairs.len() < MAX_PAIRS || self.pairs.contains_key(&pair) {
                    *self.pairs.entry(pair).or_default() += ns;
                    rest_ns -= ns;
                }
            }
            self.nobody_ns += rest_ns;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, outcome: &Outcome<'_>) -> io::Result<()> {
        let run = self.run;
        let lanes = std::mem::take(&mut self.lanes);
        let describe = |tgid| [run.process_name(tgid), run.unit(tgid).to_owned()];
        let snapshot = outcome.snapshot;
        let delays = snapshot.targets.iter().map(|target| {
            let histogram = &target.total.figures.runqueue_delay;
            histogram.buckets().collect()
        });
        let threads = outcome.reports.iter().map(|report| report.total.threads);
        let reports = outcome.reports.iter().map(shortened);
        let page = Page {
            host: &run.header.host,
            kernel: &run.header.kernel,
            idle_reasons: Reason::all()
                .filter(|reason| reason.is_idle())
                .map(Reason::name)
                .collect(),
            reports: reports.collect(),
            delays: delays.collect(),
            interference: self.interference(),
            timeline: lanes.finish(threads.sum(), snapshot.start_ns, describe),
        };
        let data = serde_json::to_string(&page)?;
        let (before, after) = PAGE.split_once(PLACE).unwrap_or((PAGE, ""));
        let out = &mut self.out;
        out.write_all(before.as_bytes())?;
        out.write_all(harmless(&data).as_bytes())?;
        out.write_all(after.as_bytes())?;
        out.flush()
    }
}

/// The report with so many of its threads as somebody looks at; they are in the order of what hurts.
fn shortened(report: &Report) -> Report {
    let mut report = report.clone();
    report.threads.truncate(MAX_THREADS);
    report
}

/// JSON in which nothing looks like markup, whatever names there are in it.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + json.len() / 50);
    for letter in json.chars() {
        match letter {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            other => text.push(other),
        }
    }
    text
}

#[derive(Serialize)]
struct Page<'a> {
    host: &'a str,
    kernel: &'a str,
    idle_reasons: Vec<&'static str>,
    reports: Vec<Report>,
    /// Run-queue delays of each target: end of a bucket in nanoseconds, and how many are in it.
    delays: Vec<Vec<(u64, u64)>>,
    interference: Interference<'a>,
    timeline: Timeline,
}

/// Who slowed whom; sums to the contended time.
#[derive(Serialize)]
struct Interference<'a> {
    pairs: Vec<Pair<'a>>,
    other_ns: u64,
}

#[derive(Serialize)]
struct Pair<'a> {
    victim: Process<'a>,
    culprit: Process<'a>,
    ns: u64,
}

#[derive(Serialize)]
struct Process<'a> {
    tgid: u32,
    name: String,
    unit: &'a str,
}

#[cfg(test)]
mod tests {
    use super::{PAGE, PLACE, harmless};

    #[test]
    fn the_page_has_one_place_for_the_data_and_no_outside_resource() {
        assert_eq!(PAGE.matches(PLACE).count(), 1);
        for outside in ["src=", "href=\"h", "url(", "@import", "fetch(", "XMLHttp"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }

    #[test]
    fn no_name_ends_the_script_or_begins_markup() {
        let name = "</script><img src=x onerror=alert(1)>&amp;\u{2028}";
        let json = serde_json::to_string(name).expect("text");
        let safe = harmless(&json);
        assert!(!safe.contains(['<', '>', '&', '\u{2028}']), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).expect("JSON"), name);
    }
}
