//! Gives a machine's records to a core, in pieces of any size.

use std::ops::RangeInclusive;

use profiler_ebpf::{RawRecord, ThreadRecord};
use schedscope::core::{Core, Stream, TargetSpec};

use super::{Config, Machine, Random, Written};

/// A machine's history with a window in it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) found: Vec<ThreadRecord>,
    /// When the task iterator read them.
    pub(crate) read_ns: RangeInclusive<u64>,
    /// When the window begins.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

impl Run {
    /// Lets a machine run; attaches to it, reads its threads, and lets it run for so many steps.
    pub(crate) fn new(config: Config, seed: u64, steps: usize) -> Self {
        let mut machine = Machine::new(config, seed);
        machine.steps(config.threads as usize * 8);
        machine.attach();
        machine.steps(config.threads as usize / 2);
        let (found, read_ns) = machine.pass();
        machine.is_starting = false;
        let start_ns = *read_ns.end();
        machine.steps(steps);
        machine.now_ns += 1;
        Self { found, read_ns, start_ns, end_ns: machine.now_ns, machine }
    }

    /// A core that has begun the window, and what feeds it further.
    pub(crate) fn begin(&self, targets: Vec<TargetSpec>, seed: u64) -> (Core, Feeder) {
        let mut core = Core::new(targets);
        let mut feeder = Feeder::new(&self.machine.streams, seed);
        // Nothing after the beginning of the pass may be in before it is over.
        feeder.go_to(&mut core, *self.read_ns.start());
        core.found(&self.found, self.read_ns.clone());
        feeder.go_to(&mut core, self.start_ns);
        core.begin_window();
        (core, feeder)
    }
}

/// Feeds streams in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Feeder {
    raw: Vec<Vec<RawRecord>>,
    visible_ns: Vec<Vec<u64>>,
    next: Vec<usize>,
    pub(crate) random: Random,
}

impl Feeder {
    pub(crate) fn new(streams: &[Vec<Written>], seed: u64) -> Self {
        Self {
            raw: streams.iter().map(|s| s.iter().map(|written| written.raw).collect()).collect(),
            visible_ns: streams
                .iter()
                .map(|s| s.iter().map(|written| written.visible_ns).collect())
                .collect(),
            next: vec![0; streams.len()],
            random: Random::new(seed),
        }
    }

    /// Feeds up to a watermark, in one piece or several.
    pub(crate) fn go_to(&mut self, core: &mut Core, watermark_ns: u64) {
        while self.random.one_in(2) && core.watermark_ns() < watermark_ns {
            let ahead_ns = watermark_ns - core.watermark_ns();
            let step_ns = self.random.below(ahead_ns);
            self.piece(core, core.watermark_ns() + step_ns);
        }
        self.piece(core, watermark_ns);
    }

    /// What is visible of each ring, some time after the watermark, cut where the ring wraps.
    fn piece(&mut self, core: &mut Core, watermark_ns: u64) {
        let now_ns = watermark_ns.saturating_add(self.random.below(20_000));
        let mut streams = Vec::new();
        for ((raw, visible_ns), &next) in self.raw.iter().zip(&self.visible_ns).zip(&self.next) {
            let visible = visible_ns.partition_point(|&ns| ns <= now_ns).max(next);
            let records = &raw[next..visible];
            let (first, second) = records.split_at(self.random.place(records.len() + 1));
            streams.push(Stream { first, second });
        }
        let used = core.feed(&streams, watermark_ns);
        for (next, used) in self.next.iter_mut().zip(used) {
            *next += used;
        }
    }
}
