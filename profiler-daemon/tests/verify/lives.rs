//! Threads that keep their own books: what those grew by from one reading to the other, and what our table of
//! spans has between the same two moments.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::check::{Allowed, Check, ONE_PERCENT};
use crate::parse::{self, Span};
use crate::run::{Measured, number, row_of};

/// Leaving a call that waits, and reading the clock; and the same at its beginning.
const CALL_NS: u64 = 50_000;

/// What the spans of a thread are between two moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    from_ns: u64,
    until_ns: u64,
    pub(crate) running_ns: u64,
    pub(crate) runnable_ns: u64,
    pub(crate) unknown_ns: u64,
    /// Blocked for a reason that was asked for, and queued right after that: as long as a call that waits does
    /// not return.
    pub(crate) waited_ns: u64,
    /// Of that, on a run queue.
    woken_ns: u64,
    longest_wait_ns: u64,
    /// Where it ran.
    cpus: Vec<usize>,
}

impl Window {
    fn of(spans: &[Span], tid: u32, from_ns: u64, until_ns: u64, reason: &str) -> Self {
        let mut window = Self {
            from_ns,
            until_ns,
            ..Self::default()
        };
        let mut wait_ns = 0;
        for span in spans.iter().filter(|span| span.tid == tid) {
            let time_ns = span.within(from_ns, until_ns);
            match &*span.state {
                "running" => {
                    window.running_ns += time_ns;
                    wait_ns = 0;
                    if time_ns > 0 && !window.cpus.contains(&span.cpu) {
                        window.cpus.push(span.cpu);
                    }
                }
                "blocked" if span.reason == reason => wait_ns += time_ns,
                "runnable" => {
                    window.runnable_ns += time_ns;
                    if wait_ns > 0 {
                        wait_ns += time_ns;
                        window.woken_ns += time_ns;
                    }
                }
                "blocked" => wait_ns = 0,
                _ => {
                    window.unknown_ns += time_ns;
                    wait_ns = 0;
                }
            }
            if wait_ns > 0 && span.state != "running" {
                window.waited_ns += time_ns;
            }
            window.longest_wait_ns = window.longest_wait_ns.max(wait_ns);
        }
        window
    }
}

/// A thread of a workload: what it says, and what we say of the same time.
struct Life<'a> {
    name: &'a str,
    truth: &'a Value,
    row: &'a Value,
    window: Window,
    /// What can have been stolen from its CPUs.
    stolen_ns: u64,
    /// How far our clocks may be from one another, at both ends.
    clocks_ns: u64,
}

impl Life<'_> {
    /// How much a counter of the kernel's grew by between the thread's own two readings.
    fn grown(&self, name: &str) -> Result<u64> {
        let after = number(self.truth, &format!("/after/{name}"))?;
        Ok(after.saturating_sub(number(self.truth, &format!("/before/{name}"))?))
    }

    /// A number of both readings, added up.
    fn both(&self, name: &str) -> Result<u64> {
        let after = number(self.truth, &format!("/after/{name}"))?;
        Ok(after + number(self.truth, &format!("/before/{name}"))?)
    }
}

fn lives<'a>(measured: &'a Measured, reason: &str) -> Result<Vec<Life<'a>>> {
    let spans = parse::spans(&measured.csv).context("the table of spans can be read")?;
    let threads = measured.truth["threads"].as_array();
    let threads = threads.context("threads in the truth")?;
    ensure!(!threads.is_empty(), "no threads in the truth");
    let clocks_ns = measured.report["clock_error_ns"].as_u64().unwrap_or(0) * 2;
    threads
        .iter()
        .map(|truth| {
            let tid = u32::try_from(number(truth, "/tid")?)?;
            let from_ns = number(truth, "/before/unix_ns")?;
            let until_ns = number(truth, "/after/unix_ns")?;
            let window = Window::of(&spans, tid, from_ns, until_ns, reason);
            Ok(Life {
                name: truth["name"].as_str().unwrap_or_default(),
                truth,
                row: row_of(&measured.report, tid)?,
                stolen_ns: measured.stolen.between(&window.cpus, from_ns, until_ns)?,
                window,
                clocks_ns,
            })
        })
        .collect()
}

/// What threads used of a CPU and queued for one, and how often they were switched, by their own books.
pub(crate) fn books(measured: &Measured) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for life in lives(measured, "")? {
        checks.push(running(&life)?);
        let Life { name, window, .. } = &life;
        let files = ONE_PERCENT
            .plus(life.both("files_ns")? + life.clocks_ns)
            .unknown(window.unknown_ns);
        let delay_ns = life.grown("schedstat_delay_ns")?;
        if life.grown("voluntary")? == 0 {
            // It never slept: what it did not queue for it ran. Both have stolen time in it.
            checks.push(Check::time(
                format!("running, {name}"),
                "wall less schedstat",
                window.running_ns,
                (window.until_ns - window.from_ns).saturating_sub(delay_ns),
                files,
            ));
        }
        checks.push(Check::time(
            format!("on a run queue, {name}"),
            "schedstat",
            window.runnable_ns,
            delay_ns,
            files,
        ));
        for kind in ["voluntary", "involuntary"] {
            let theirs = number(life.truth, &format!("/after/{kind}"))?;
            let unseen = if number(life.row, "/time_ns/unknown")? > 0 {
                theirs
            } else {
                0
            };
            checks.push(Check::count(
                format!("{kind} switches, {name}"),
                "status",
                number(life.row, &format!("/switches/{kind}"))?,
                theirs,
                // Of its whole life. Theirs are as of its last reading: after that it hands over its truth,
                // may wait for somebody who does the same, and ends, each of which is a switch.
                ONE_PERCENT.unknown(unseen).ours_more(3),
            ));
        }
    }
    Ok(checks)
}

/// A thread's run time by its own clock.
fn running(life: &Life<'_>) -> Result<Check> {
    Ok(Check::time(
        format!("running, {}", life.name),
        "thread clock",
        life.window.running_ns,
        life.grown("cpu_ns")?,
        ONE_PERCENT
            .plus(life.both("clock_ns")? + life.clocks_ns)
            .unknown(life.window.unknown_ns)
            // That clock stops while the hypervisor runs something else; ours does not.
            .ours_more(life.stolen_ns),
    ))
}

/// The same for all threads, and nothing else.
pub(crate) fn clocks(measured: &Measured) -> Result<Vec<Check>> {
    lives(measured, "")?.iter().map(running).collect()
}

/// What a thread timed around its waits is what it was off the CPU for, and for this reason.
pub(crate) fn stopwatch(measured: &Measured, name: &str, reason: &str) -> Result<Vec<Check>> {
    let all = lives(measured, reason)?;
    let mut all = all.iter().filter(|life| life.name == name);
    let life = all.next().context("the thread is in the truth")?;
    let window = &life.window;
    // Their stopwatch goes on while the thread is on its way into the call and out of it, or loses its CPU there.
    let preempted_ns = window.runnable_ns - window.woken_ns;
    let allowed: Allowed = ONE_PERCENT.plus(life.clocks_ns).unknown(window.unknown_ns);
    Ok(vec![
        Check::time(
            format!("{reason}, until it went on, {name}"),
            "stopwatch",
            window.waited_ns,
            number(life.truth, "/waited_ns")?,
            allowed.theirs_more(window.running_ns + preempted_ns),
        ),
        Check::time(
            format!("longest wait, {name}"),
            "stopwatch",
            window.longest_wait_ns,
            number(life.truth, "/longest_ns")?,
            allowed.theirs_more(CALL_NS + preempted_ns),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(state: &str, start_unix_ns: u64, duration_ns: u64) -> Span {
        Span {
            tid: 5,
            state: state.to_owned(),
            start_unix_ns,
            duration_ns,
            cpu: 1,
            ..Span::default()
        }
    }

    #[test]
    fn a_window_cuts_spans_and_joins_waits() {
        let spans = [
            span("runnable", 0, 100),
            span("running", 100, 50),
            span("blocked", 150, 30),
            span("runnable", 180, 10),
            span("running", 190, 10),
            span("runnable", 200, 5),
            span("unknown", 205, 5),
            span("running", 210, 40),
        ];
        let window = Window::of(&spans, 5, 120, 230, "");
        assert_eq!(window.running_ns, 30 + 10 + 20);
        assert_eq!(window.runnable_ns, 10 + 5);
        assert_eq!((window.unknown_ns, window.waited_ns), (5, 40));
        assert_eq!((window.woken_ns, window.longest_wait_ns), (10, 40));
        assert_eq!(window.cpus, [1]);
        assert_eq!(Window::of(&spans, 5, 120, 230, "lock").waited_ns, 0);
        assert_eq!(Window::of(&spans, 6, 120, 230, "").running_ns, 0);
    }
}
