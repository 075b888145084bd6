//! Exemplars: of each bucket of a target's run-queue delays that holds one of its longest waits, which wait
//! that was: who waited, who woke it, and who had the CPU.

use std::fmt::Write as _;

use super::buckets::BOUNDS_NS;
use super::catalogue::RUNQUEUE_DELAY;
use super::families::{Families, Value};
use super::seconds;
use crate::core::worst::Longest;
use crate::core::{LongWait, WakerKind, Who};

/// One wait.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LongOne {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) seconds: f64,
    /// When it ended, in nanoseconds since 1970.
    pub(super) unix_ns: u64,
}

impl LongOne {
    fn new(wait: &LongWait, unix_ns: u64) -> Self {
        let mut labels = vec![("thread", name(&wait.who))];
        match (wait.waker.kind, &wait.waker_thread) {
            (WakerKind::Unknown, _) => {}
            (WakerKind::Thread, Some(who)) => labels.push(("waker", name(who))),
            (kind, _) => labels.push(("waker", kind.name().to_owned())),
        }
        if let Some((who, _)) = wait.culprits.first() {
            labels.push(("culprit", name(who)));
        }
        Self {
            labels,
            seconds: seconds(wait.duration_ns()),
            unix_ns,
        }
    }

    /// As OpenMetrics has it, behind the value of a bucket.
    fn write(&self, text: &mut String) {
        let labels = self.labels.iter();
        let labels: Vec<String> = labels
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
            .collect();
        // Writing to a string can't fail.
        let _ = write!(
            text,
            " # {{{}}} {} {:.3}",
            labels.join(","),
            self.seconds,
            seconds(self.unix_ns)
        );
    }
}

/// `NAME/TID`: 24 characters at most, so that three of them are within the 128 that an exemplar may have.
fn name(who: &Who) -> String {
    format!("{}/{}", who.comm.display(), who.tid)
}

/// The longest wait of each bucket, by the bucket's place.
pub(super) type Exemplars = Vec<(usize, LongOne)>;

/// The exemplars among these waits.
pub(super) fn of(long: &Longest, unix_of: impl Fn(u64) -> u64) -> Exemplars {
    let mut found: Exemplars = Vec::new();
    // The longest come first.
    for wait in long.iter() {
        let duration_ns = wait.duration_ns();
        let bucket = BOUNDS_NS.partition_point(|&bound_ns| bound_ns < duration_ns);
        if found.iter().all(|(its, _)| *its != bucket) {
            found.push((bucket, LongOne::new(wait, unix_of(wait.until_ns))));
        }
    }
    found
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The exemplars of all series of the run-queue delays, each as text with the place of its bucket's line
/// among all bucket lines of the metric.
pub(super) fn lines(families: &Families) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    for (number, series) in families.of(&RUNQUEUE_DELAY).iter().enumerate() {
        let Value::Histogram { exemplars, .. } = &series.value else {
            continue;
        };
        for (bucket, exemplar) in exemplars {
            let mut text = String::new();
            exemplar.write(&mut text);
            lines.push((number * (BOUNDS_NS.len() + 1) + bucket, text));
        }
    }
    lines
}

/// Puts exemplars behind the lines that they belong to: the crate that writes the text takes only such
/// exemplars that it has collected itself.
pub(super) fn insert(text: &str, lines: &[(usize, String)]) -> String {
    let start = format!("{}_bucket{{", RUNQUEUE_DELAY.series());
    let mut out = String::with_capacity(text.len() + lines.len() * 128);
    let mut place = 0;
    for line in text.lines() {
        out.push_str(line);
        if line.starts_with(&start) {
            if let Some((_, exemplar)) = lines.iter().find(|(its, _)| *its == place) {
                out.push_str(exemplar);
            }
            place += 1;
        }
        out.push('\n');
    }
    out
}
