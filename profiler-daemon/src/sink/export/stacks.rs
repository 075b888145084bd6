//! Time added up by where it was spent: who, in what state, for what, and where in the kernel.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Holder, Run};
use crate::core::classify::{Call, Stack};
use crate::core::units::INTERRUPTS_NAME;
use crate::core::{Cause, Comm, Culprit, Doing, Reason, Seen, Span};

/// Waits that something is kept of until they end.
const MAX_SEEN: usize = 1 << 16;

/// What time a graph is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graph {
    /// All time off the CPU, by what it was waited for: process, thread, `runnable` or `blocked`, cause or
    /// reason, functions of the kernel.
    OffCpu,
    /// Time on a run queue, by whose doing it was: process, thread, cause, process and thread that had the
    /// CPU.
    RunQueue,
}

/// Where time was spent, in words, the outermost first.
pub(super) type Frames = Vec<String>;

/// Why a thread did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Why {
    Queued(Cause),
    Blocked(Reason, Call),
}

/// Where time was spent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    tgid: u32,
    comm: Comm,
    why: Why,
    stack: Option<Arc<Stack>>,
    /// Process and name of the thread that had the CPU.
    culprit: Option<(Holder, Comm)>,
}

/// How often, and how long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub(super) count: u64,
    pub(super) ns: u64,
}

/// Time by place.
#[derive(Debug)]
pub struct Stacks {
    graph: Graph,
    seen: HashMap<(u32, u64), Arc<Stack>>,
    places: HashMap<Place, Weight>,
    /// Of a wait, its name.
    names: HashMap<Why, String>,
}

impl Stacks {
    pub(super) fn new(graph: Graph) -> Self {
        Self {
            graph,
            seen: HashMap::new(),
            places: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// What it is about.
    pub(super) fn graph(&self) -> Graph {
        self.graph
    }

    pub(super) fn seen(&mut self, waits: &[Seen]) {
        if self.graph == Graph::RunQueue {
            return;
        }
        if self.seen.len() + waits.len() > MAX_SEEN {
            // Those that are still here have mostly ended unseen.
            self.seen.clear();
        }
        let with_stack = waits.iter().filter(|its| !its.stack.frames().is_empty());
        self.seen
            .extend(with_stack.map(|its| ((its.tid, its.left_ns), Arc::clone(&its.stack))));
    }

    pub(super) fn span(&mut self, span: &Span, culprits: &[Culprit]) {
        match (span.doing, self.graph) {
            (Doing::Queued(causes), Graph::OffCpu) => {
                for (cause, ns) in Cause::ALL.into_iter().zip(causes) {
                    self.add(Place::queued(span, cause), ns);
                }
            }
            (Doing::Queued(causes), Graph::RunQueue) => {
                self.queued(span, causes, culprits);
            }
            (Doing::Blocked(wait), Graph::OffCpu) => {
                let why = Why::Blocked(wait.reason, wait.call);
                self.names.entry(why).or_insert_with(|| wait.name());
                let place = Place {
                    why,
                    stack: self.seen.remove(&(span.tid, span.left_ns)),
                    ..Place::queued(span, Cause::Unknown)
                };
                self.add(place, span.duration_ns());
            }
            (Doing::Blocked(_), Graph::RunQueue)
            | (Doing::Running | Doing::Unknown | Doing::Shed, _) => {}
        }
    }

    /// A stay on a run queue: what somebody had the CPU for counts for whoever that was.
    fn queued(&mut self, span: &Span, causes: [u64; Cause::COUNT], culprits: &[Culprit]) {
        for (cause, ns) in Cause::ALL.into_iter().zip(causes) {
            let mut rest_ns = ns;
            for its in culprits.iter().filter(|_| cause == Cause::Contended) {
                let part_ns = its.ns.min(rest_ns);
                rest_ns -= part_ns;
                let place = Place {
                    culprit: Some((Holder::of(&its.who), its.who.comm)),
                    ..Place::queued(span, cause)
                };
                self.add(place, part_ns);
            }
            self.add(Place::queued(span, cause), rest_ns);
        }
    }

    fn add(&mut self, place: Place, ns: u64) {
        if ns == 0 {
            return;
        }
        let weight = self.places.entry(place).or_default();
        weight.count += 1;
        weight.ns += ns;
    }

    /// Forgets waits that are plain idleness, and says how long they were.
    pub(super) fn leave_out_idleness(&mut self) -> u64 {
        let mut idle_ns = 0;
        self.places.retain(|place, weight| {
            let is_idle = matches!(place.why, Why::Blocked(reason, _) if reason.is_idle());
            idle_ns += if is_idle { weight.ns } else { 0 };
            !is_idle
        });
        idle_ns
    }

    /// Each place in words, once.
    pub(super) fn rows(&self, run: Run<'_>) -> BTreeMap<Frames, Weight> {
        let mut rows: BTreeMap<Frames, Weight> = BTreeMap::new();
        for (place, weight) in &self.places {
            let row = rows.entry(self.frames(place, run)).or_default();
            row.count += weight.count;
            row.ns += weight.ns;
        }
        rows
    }

    fn frames(&self, place: &Place, run: Run<'_>) -> Frames {
        let mut frames = vec![run.process_name(place.tgid), place.comm.display()];
        match place.why {
            Why::Queued(cause) => {
                if self.graph == Graph::OffCpu {
                    frames.push("runnable".to_owned());
                }
                frames.push(match cause {
                    Cause::Unknown => "unknown cause".to_owned(),
                    cause => cause.name().to_owned(),
                });
            }
            why @ Why::Blocked(..) => {
                frames.push("blocked".to_owned());
                frames.push(self.names.get(&why).cloned().unwrap_or_default());
            }
        }
        if let Some(stack) = &place.stack {
            frames.extend(stack.frames().iter().rev().cloned());
        }
        if let Some((holder, comm)) = place.culprit {
            let process = match holder {
                Holder::Process(tgid) => run.process_name(tgid),
                Holder::Interrupts(_) => INTERRUPTS_NAME.to_owned(),
            };
            frames.push(format!("by {process}"));
            frames.push(comm.display());
        }
        frames
    }
}

impl Place {
    /// On a run queue for this.
    fn queued(span: &Span, cause: Cause) -> Self {
        Self {
            tgid: span.tgid,
            comm: span.comm,
            why: Why::Queued(cause),
            stack: None,
            culprit: None,
        }
    }
}
