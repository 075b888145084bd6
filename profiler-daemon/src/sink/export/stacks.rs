//! Time added up by where it was spent: who, in what state, for what, and where in the kernel.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::core::classify::{Call, Stack};
use crate::core::{Comm, Doing, Reason, Seen, Span};

/// Waits that something is kept of until they end.
const MAX_SEEN: usize = 1 << 16;

/// Why a thread did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Why {
    Queued(&'static str),
    Blocked(Reason, Call),
}

/// Where time was spent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    tgid: u32,
    comm: Comm,
    why: Why,
    stack: Option<Arc<Stack>>,
}

/// How often, and how long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub(super) count: u64,
    pub(super) ns: u64,
}

/// Off-CPU time by place.
#[derive(Debug, Default)]
pub struct Stacks {
    seen: HashMap<(u32, u64), Arc<Stack>>,
    places: HashMap<Place, Weight>,
    /// Of a wait, its name.
    names: HashMap<Why, String>,
}

impl Stacks {
    pub(super) fn seen(&mut self, waits: &[Seen]) {
        if self.seen.len() + waits.len() > MAX_SEEN {
            // Those that are still here have mostly ended unseen.
            self.seen.clear();
        }
        let with_stack = waits.iter().filter(|its| !its.stack.frames().is_empty());
        self.seen
            .extend(with_stack.map(|its| ((its.tid, its.left_ns), Arc::clone(&its.stack))));
    }

    pub(super) fn span(&mut self, span: &Span) {
        match span.doing {
            Doing::Queued([contended, throttled, placement, unknown]) => {
                for (cause, ns) in [
                    ("contended", contended),
                    ("throttled", throttled),
                    ("placement", placement),
                    ("unknown cause", unknown),
                ] {
                    self.add(span, Why::Queued(cause), ns, None);
                }
            }
            Doing::Blocked(wait) => {
                let why = Why::Blocked(wait.reason, wait.call);
                self.names.entry(why).or_insert_with(|| wait.name());
                let stack = self.seen.remove(&(span.tid, span.left_ns));
                self.add(span, why, span.duration_ns(), stack);
            }
            Doing::Running | Doing::Unknown => {}
        }
    }

    fn add(&mut self, span: &Span, why: Why, ns: u64, stack: Option<Arc<Stack>>) {
        if ns == 0 {
            return;
        }
        let place = Place {
            tgid: span.tgid,
            comm: span.comm,
            why,
            stack,
        };
        let weight = self.places.entry(place).or_default();
        weight.count += 1;
        weight.ns += ns;
    }

    /// Each place as frames, the outermost first: process, thread, state, cause or reason, functions.
    pub(super) fn rows(&self, name_of: impl Fn(u32) -> String) -> BTreeMap<Vec<String>, Weight> {
        let mut rows: BTreeMap<Vec<String>, Weight> = BTreeMap::new();
        for (place, weight) in &self.places {
            let mut frames = vec![name_of(place.tgid), place.comm.display()];
            match place.why {
                Why::Queued(cause) => {
                    frames.push("runnable".to_owned());
                    frames.push(cause.to_owned());
                }
                why @ Why::Blocked(..) => {
                    frames.push("blocked".to_owned());
                    frames.push(self.names.get(&why).cloned().unwrap_or_default());
                }
            }
            if let Some(stack) = &place.stack {
                frames.extend(stack.frames().iter().rev().cloned());
            }
            let row = rows.entry(frames).or_default();
            row.count += weight.count;
            row.ns += weight.ns;
        }
        rows
    }
}

/// What a process is called in frames: by its name if that is known.
pub(super) fn process_name(facts: &crate::recording::Facts, tgid: u32) -> String {
    match facts.processes.get(&tgid) {
        Some(process) if !process.name.is_empty() => process.name.clone(),
        _ => format!("process {tgid}"),
    }
}
