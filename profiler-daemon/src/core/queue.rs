//! Why a thread on a run queue did not run: a stay there is divided into its causes.
//!
//! First comes what a CPU quota took; of the rest it is contended what somebody else or an interrupt had
//! the CPU for, and placement what nobody had it for. It is the CPU that counts whose queue the thread was on: a
//! thread that was moved while it was queued was on several.

use std::ops::Range;

use profiler_ebpf::Migrate;

use super::quota::{Quota, Quotas};
use super::spent::Cause;
use super::thread::{LOST_CPU, NO_CPU, NO_MOVES, Thread};
use super::timeline::{Runner, Timeline};

/// Nanoseconds by cause, in the order of [`Cause::ALL`].
pub(super) type Causes = [u64; Cause::COUNT];

/// A queued thread goes to another CPU.
#[derive(Clone, Copy, Debug)]
struct Move {
    ts_ns: u64,
    from: u32,
    to: u32,
}

/// Moves kept of one stay; where a thread is after more is not known.
const MAX_MOVES: usize = 32;

/// For so many there is room at once.
const FEW_MOVES: usize = 4;

/// What the record that gives a thread a CPU says of its stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Arriving {
    pub(super) cpu: Option<usize>,
    /// When a quota kept it off, where the kernel says so for each thread.
    pub(super) throttled_ns: Option<Range<u64>>,
}

/// The run queues of all CPUs.
#[derive(Debug, Default)]
pub(super) struct RunQueues {
    pub(super) timeline: Timeline,
    pub(super) quotas: Quotas,
    /// Of the thread that just gets a CPU.
    pub(super) arriving: Arriving,
    moves: Moves,
}

/// Moves of threads that are queued: a list for each that has moved, used again by the next one.
#[derive(Debug, Default)]
struct Moves {
    lists: Vec<Vec<Move>>,
    free: Vec<u32>,
}

impl Moves {
    fn of(&self, thread: &Thread) -> &[Move] {
        let list = usize::try_from(thread.moves)
            .ok()
            .and_then(|number| self.lists.get(number));
        list.map_or(&[], Vec::as_slice)
    }

    /// The list of a thread, empty if it has none yet.
    fn of_mut(&mut self, thread: &mut Thread) -> Option<&mut Vec<Move>> {
        if thread.moves == NO_MOVES {
            thread.moves = match self.free.pop() {
                Some(number) => number,
                None => {
                    let number = u32::try_from(self.lists.len()).ok()?;
                    self.lists.push(Vec::with_capacity(FEW_MOVES));
                    number
                }
            };
        }
        self.lists.get_mut(usize::try_from(thread.moves).ok()?)
    }

    #[cold]
    fn forget(&mut self, thread: &mut Thread) {
        if let Some(list) = self.of_mut(thread) {
            list.clear();
            self.free.push(thread.moves);
        }
        thread.moves = NO_MOVES;
    }
}

impl RunQueues {
    /// A thread that is queued, or about to be, goes to another CPU.
    pub(super) fn migrate(&mut self, thread: &mut Thread, record: &Migrate) {
        let Some(moves) = self.moves.of_mut(thread) else {
            return;
        };
        let to = if moves.len() < MAX_MOVES {
            record.to_cpu
        } else {
            LOST_CPU
        };
        if moves.len() <= MAX_MOVES {
            moves.push(Move {
                ts_ns: record.ts_ns,
                from: record.from_cpu,
                to,
            });
        }
    }

    /// The stay of a thread begins on this CPU's queue, if that is known, or is over.
    #[inline]
    pub(super) fn begin_stay(&mut self, thread: &mut Thread, cpu: u32) {
        thread.queue_cpu = cpu;
        if thread.moves != NO_MOVES {
            self.moves.forget(thread);
        }
    }

    /// Divides a part of a thread's stay on the run queue by cause; the sum is its length. `visit` is
    /// told who had the CPU for how long when it was contended, the latest first, as far as that goes back, and of
    /// the last `steps` who had each CPU at most.
    pub(super) fn divide(
        &self,
        thread: &Thread,
        time_ns: Range<u64>,
        steps: usize,
        mut visit: impl FnMut(Runner, u64),
    ) -> Causes {
        let mut causes = Causes::default();
        if thread.moves == NO_MOVES {
            let cpu = self.only_cpu(thread);
            let may_be_held = self.arriving.throttled_ns.is_some()
                || thread.is_throttled
                || (thread.cpu_cgroup != 0 && !self.quotas.is_empty());
            if let (Some(cpu), false) = (cpu, may_be_held) {
                let used = self.timeline.divide(cpu, time_ns, steps, visit);
                return [used.busy_ns, 0, used.idle_ns, used.unknown_ns];
            }
            self.stretch(thread, time_ns, cpu, steps, &mut causes, &mut visit);
            return causes;
        }
        self.follow(thread, time_ns, |time_ns, cpu| {
            self.stretch(thread, time_ns, cpu, steps, &mut causes, &mut visit);
        });
        causes
    }

    /// The CPU of a stay without moves: where it was queued, and where it got a CPU, if both agree.
    fn only_cpu(&self, thread: &Thread) -> Option<usize> {
        if thread.queue_cpu == LOST_CPU {
            return None;
        }
        match (known(thread.queue_cpu), self.arriving.cpu) {
            // It was moved, and nobody saw when.
            (Some(queue), Some(arrival)) if queue != arrival => None,
            (queue, arrival) => queue.or(arrival),
        }
    }

    /// Tells `visit` which CPU's queue a thread was on, and when.
    fn follow(
        &self,
        thread: &Thread,
        time_ns: Range<u64>,
        mut visit: impl FnMut(Range<u64>, Option<usize>),
    ) {
        let moves = self.moves.of(thread);
        let first = moves.iter().rposition(|its| its.ts_ns <= time_ns.start);
        let mut cpu = match (first.and_then(|place| moves.get(place)), moves.first()) {
            (Some(before), _) => known(before.to),
            (None, Some(after)) => known(thread.queue_cpu).or(known(after.from)),
            (None, None) => known(thread.queue_cpu),
        };
        let mut from_ns = time_ns.start;
        for its in moves.iter().skip(first.map_or(0, |place| place + 1)) {
            let until_ns = its.ts_ns.clamp(from_ns, time_ns.end);
            visit(from_ns..until_ns, cpu);
            from_ns = until_ns;
            cpu = known(its.to);
        }
        if self
            .arriving
            .cpu
            .is_some_and(|arrival| cpu != Some(arrival))
        {
            cpu = None;
        }
        visit(from_ns..time_ns.end, cpu);
    }

    fn stretch(
        &self,
        thread: &Thread,
        time_ns: Range<u64>,
        cpu: Option<usize>,
        steps: usize,
        causes: &mut Causes,
        mut visit: impl FnMut(Runner, u64),
    ) {
        let mut book = |time_ns: Range<u64>, quota| {
            let duration_ns = time_ns.end.saturating_sub(time_ns.start);
            match (quota, cpu) {
                (Quota::UsedUp, _) => causes[Cause::Throttled as usize] += duration_ns,
                (Quota::Left, Some(cpu)) => {
                    let used = self.timeline.divide(cpu, time_ns, steps, &mut visit);
                    causes[Cause::Contended as usize] += used.busy_ns;
                    causes[Cause::Placement as usize] += used.idle_ns;
                    causes[Cause::Unknown as usize] += used.unknown_ns;
                }
                (Quota::Unknown, _) | (Quota::Left, None) => {
                    causes[Cause::Unknown as usize] += duration_ns;
                }
            }
        };
        match (&self.arriving.throttled_ns, cpu) {
            (Some(held_ns), _) => {
                let start_ns = held_ns.start.clamp(time_ns.start, time_ns.end);
                let end_ns = held_ns.end.clamp(start_ns, time_ns.end);
                book(end_ns..time_ns.end, Quota::Left);
                book(start_ns..end_ns, Quota::UsedUp);
                book(time_ns.start..start_ns, Quota::Left);
            }
            // It is not back yet, so nobody has said when there was quota again.
            (None, _) if thread.is_throttled && self.arriving.cpu.is_none() => {
                book(time_ns, Quota::UsedUp);
            }
            // What should have said it was lost.
            (None, _) if thread.is_throttled => book(time_ns, Quota::Unknown),
            (None, Some(cpu)) if thread.cpu_cgroup != 0 => {
                self.quotas.divide(thread.cpu_cgroup, cpu, time_ns, book);
            }
            _ => book(time_ns, Quota::Left),
        }
    }
}

/// Whether the stay of a thread that gets this CPU now was on this CPU's queue and no other, and no quota can have
/// had a part in it.
#[inline]
pub(super) fn is_simple(thread: &Thread, cpu: usize) -> bool {
    let is_here = thread.queue_cpu == NO_CPU || known(thread.queue_cpu) == Some(cpu);
    is_here && thread.moves == NO_MOVES && !thread.is_throttled && thread.cpu_cgroup == 0
}

fn known(cpu: u32) -> Option<usize> {
    usize::try_from(cpu).ok().filter(|_| cpu < LOST_CPU)
}
