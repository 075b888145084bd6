//! Leaves threads out of a machine's records, as the probes and the daemon do under overload.
//!
//! The probes of each CPU see a change at a moment of their own. The core is told of fewer threads before the
//! first of them sees it, and of more when the last one has.

use std::ops::Range;

use profiler_ebpf::{Kind, Shed, shed};
use schedscope::core::decode::Event;

use super::{DEAD, Machine, Random, Written};

/// From some moment on other threads are kept.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// When the core is told.
    pub(crate) told_ns: u64,
    pub(crate) shift: u8,
    /// When each CPU's probes see it.
    seen_ns: Vec<u64>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Records that were left out.
    pub(crate) left_out: u64,
}

impl Plan {
    /// Changes at random moments within this time; the first one leaves threads out.
    pub(crate) fn new(random: &mut Random, cpus: usize, time_ns: Range<u64>, steps: usize) -> Self {
        let length_ns = time_ns.end - time_ns.start;
        let mut moments: Vec<u64> = (0..steps)
            .map(|_| time_ns.start + random.below(length_ns))
            .collect();
        moments.sort_unstable();
        moments.dedup();
        let mut plan = Self::default();
        let mut before = 0;
        for (number, &at_ns) in moments.iter().enumerate() {
            let next_ns = moments.get(number + 1).copied().unwrap_or(time_ns.end);
            let shift = u8::try_from(random.below(4)).expect("small");
            let shift = if shift == before {
                (shift + 1) % 4
            } else {
                shift
            };
            // All is done before the next change begins.
            let takes_ns = random.below(next_ns - at_ns);
            let seen_ns: Vec<u64> = (0..cpus)
                .map(|_| at_ns + random.below(takes_ns + 1))
                .collect();
            plan.steps.push(Step {
                told_ns: if shift > before {
                    at_ns
                } else {
                    at_ns + takes_ns
                },
                shift,
                seen_ns,
            });
            before = shift;
        }
        plan
    }

    /// The shift that the probes of a CPU know at a moment.
    fn shift_at(&self, cpu: usize, at_ns: u64) -> u8 {
        let seen = self.steps.iter().rfind(|step| step.seen_ns[cpu] <= at_ns);
        seen.map_or(0, |step| step.shift)
    }

    /// Leaves the records out, and has the core told.
    pub(crate) fn carry_out(&mut self, machine: &mut Machine, end_ns: u64) {
        let cpus = machine.config.cpus;
        let mut gone: Vec<(u64, Kind)> = Vec::new();
        for cpu in 0..cpus {
            let mut stream = std::mem::take(&mut machine.streams[cpu]);
            stream.retain(|written| {
                let mask = shed::mask(self.shift_at(cpu, written.visible_ns));
                let event = Event::decode(&written.raw).expect("the machine wrote it");
                let is_kept = is_kept(&event, mask);
                if !is_kept {
                    gone.push((written.visible_ns, event.kind()));
                }
                is_kept
            });
            machine.streams[cpu] = stream;
        }
        self.left_out = gone.len() as u64;
        let last = self.steps.last().map_or(0, |step| step.shift);
        let mut tell = |told_ns: u64, shift: u8| {
            let mut record = Shed {
                ts_ns: told_ns,
                shift,
                ..Shed::default()
            };
            gone.retain(|&(visible_ns, kind)| {
                let is_new = visible_ns < told_ns;
                match kind {
                    _ if !is_new => {}
                    Kind::Switch => record.switches += 1,
                    Kind::Wakeup => record.wakeups += 1,
                    Kind::Migrate => record.migrations += 1,
                    kind => panic!("{kind:?} is never left out"),
                }
                !is_new
            });
            let side = &mut machine.streams[cpus];
            let place = side.partition_point(|written| written.visible_ns <= told_ns);
            let raw = Event::Shed(record).encode();
            side.insert(
                place,
                Written {
                    raw,
                    visible_ns: told_ns,
                },
            );
        };
        for step in &self.steps {
            tell(step.told_ns, step.shift);
        }
        tell(end_ns, last);
    }

    /// The times in which the core takes a thread with one of these ids for one that is left out.
    pub(crate) fn hidden(&self, tids: &[u32]) -> Vec<Range<u64>> {
        let mut hidden: Vec<Range<u64>> = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            let mask = shed::mask(step.shift);
            if tids.iter().any(|&tid| !shed::is_kept(tid, mask)) {
                let next = self.steps.get(number + 1);
                hidden.push(step.told_ns..next.map_or(u64::MAX, |next| next.told_ns));
            }
        }
        hidden
    }
}

/// What the probes do.
fn is_kept(event: &Event, mask: u32) -> bool {
    let kept = |tid: u32| shed::is_kept(tid, mask);
    match event {
        Event::Switch(record) => {
            kept(record.prev_tid) || kept(record.next_tid) || record.prev_state & DEAD != 0
        }
        Event::Wakeup(record) => kept(record.tid),
        Event::Migrate(record) => kept(record.tid),
        _ => true,
    }
}
