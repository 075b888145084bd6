//! Has the probes leave out threads when the rings would overflow, and tells the core so.
//!
//! The core must never take what was left out for what did not happen. So it is told of fewer threads first,
//! and the probes are told when no event can be under way any more that carries an older time; of more threads
//! it is told afterwards.

mod controller;

use profiler_ebpf::Shed;

use self::controller::{Controller, Drained};
use crate::core::ShedCounts;
use crate::core::decode::Event;
use crate::source::Kernel;

/// What is kept is told again this often, even if nothing changes: a recording from which some records are
/// missing goes on by it.
const AGAIN_EVERY_NS: u64 = 2_000_000_000;

/// What a drain found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// How full the fullest ring was, from 0 to 1.
    pub(super) fill: f64,
    /// Records read, and lost, since the start.
    pub(super) read: u64,
    pub(super) lost: u64,
    /// How long the drain before took.
    pub(super) busy_ns: u64,
}

/// What is kept, and who knows of it.
#[derive(Debug, Default)]
pub(super) struct Shedder {
    controller: Controller,
    /// What the core knows.
    told_shift: u8,
    told_counts: ShedCounts,
    told_ns: u64,
    has_told: bool,
    /// What the probes are to do from this time on: the core knows of it already.
    due_ns: Option<u64>,
    read: u64,
    lost: u64,
    is_excused: bool,
}

impl Shedder {
    /// The next drain comes late for reasons of our own, and says nothing of the load.
    pub(super) fn excuse(&mut self) {
        self.is_excused = true;
    }

    /// Whether something is to be done within a slack.
    pub(super) fn is_due(&self) -> bool {
        self.due_ns.is_some()
    }

    /// Whether threads are left out, as far as the core knows.
    pub(super) fn is_on(&self) -> bool {
        self.told_shift > 0
    }

    /// Does what a drain asks for. `slack_ns` is how long after its time an event can be recorded at most.
    /// Returns whether all threads are kept again that were not before.
    pub(super) fn act(&mut self, kernel: &mut Kernel, found: Found, slack_ns: u64) -> bool {
        let now_ns = kernel.now_ns();
        if self.due_ns.is_some_and(|due_ns| now_ns >= due_ns) {
            self.due_ns = None;
            kernel.keep(self.told_shift);
        }
        let drained = Drained {
            now_ns,
            fill: found.fill,
            read: found.read.saturating_sub(self.read),
            lost: found.lost.saturating_sub(self.lost),
            busy_ns: found.busy_ns,
        };
        (self.read, self.lost) = (found.read, found.lost);
        if std::mem::take(&mut self.is_excused) {
            return false;
        }
        let shift = self.controller.take_in(drained);
        let before = self.told_shift;
        if shift > before {
            self.tell(kernel, shift, now_ns);
            self.due_ns = Some(now_ns.saturating_add(slack_ns));
        } else if shift < before {
            self.due_ns = None;
            let from_ns = kernel.keep(shift);
            self.tell(kernel, shift, from_ns);
        } else if self.has_told {
            let is_again = now_ns >= self.told_ns.saturating_add(AGAIN_EVERY_NS);
            if is_again || kernel.shed_counts() != self.told_counts {
                self.tell(kernel, shift, now_ns);
            }
        }
        shift == 0 && before > 0
    }

    /// Tells again what is kept, and how much was left out by now, if that ever happened.
    pub(super) fn tell_again(&mut self, kernel: &mut Kernel, at_ns: u64) {
        if self.has_told && at_ns > self.told_ns {
            self.tell(kernel, self.told_shift, at_ns);
        }
    }

    fn tell(&mut self, kernel: &mut Kernel, shift: u8, at_ns: u64) {
        // What is told goes forward in time, though the relation of the clocks is measured anew now and then.
        self.told_ns = at_ns.max(self.told_ns.saturating_add(1));
        let counts = kernel.shed_counts();
        let before = &mut self.told_counts;
        let small = |now: u64, before: &mut u64| {
            let count = u32::try_from(now.saturating_sub(*before)).unwrap_or(u32::MAX);
            *before += u64::from(count);
            count
        };
        let record = Shed {
            ts_ns: self.told_ns,
            switches: counts.switches.saturating_sub(before.switches),
            wakeups: small(counts.wakeups, &mut before.wakeups),
            wakings: small(counts.wakings, &mut before.wakings),
            migrations: small(counts.migrations, &mut before.migrations),
            shift,
            ..Shed::default()
        };
        before.switches = counts.switches;
        kernel.tell(&Event::Shed(record));
        self.told_shift = shift;
        self.has_told = true;
    }
}
