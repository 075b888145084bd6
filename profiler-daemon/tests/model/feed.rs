//! Gives a machine's records to a core, in pieces of any size.

use std::ops::RangeInclusive;

use profiler_ebpf::{RawRecord, ThreadRecord};
use schedscope::core::{Core, Stream, TargetSpec};
use schedscope::recording::Intake;

use super::faults::Loss;
use super::{Config, Machine, Random};

/// What can be fed: a core, or one whose input is recorded.
pub(crate) trait Fed {
    fn watermark_ns(&self) -> u64;
    fn found(&mut self, threads: &[ThreadRecord], read_ns: RangeInclusive<u64>);
    fn doubt(&mut self, cpu: usize, from_ns: u64, until_ns: u64);
    fn feed(&mut self, streams: &[Stream<'_>], watermark_ns: u64) -> &[usize];
}

impl Fed for Core {
    fn watermark_ns(&self) -> u64 {
        self.watermark_ns()
    }

    fn found(&mut self, threads: &[ThreadRecord], read_ns: RangeInclusive<u64>) {
        self.found(threads, read_ns);
    }

    fn doubt(&mut self, cpu: usize, from_ns: u64, until_ns: u64) {
        self.doubt(cpu, from_ns, until_ns);
    }

    fn feed(&mut self, streams: &[Stream<'_>], watermark_ns: u64) -> &[usize] {
        self.feed(streams, watermark_ns)
    }
}

impl Fed for Intake {
    fn watermark_ns(&self) -> u64 {
        self.core().watermark_ns()
    }

    fn found(&mut self, threads: &[ThreadRecord], read_ns: RangeInclusive<u64>) {
        self.found(threads, read_ns);
    }

    fn doubt(&mut self, cpu: usize, from_ns: u64, until_ns: u64) {
        self.doubt(cpu, from_ns, until_ns);
    }

    fn feed(&mut self, streams: &[Stream<'_>], watermark_ns: u64) -> &[usize] {
        self.feed(streams, watermark_ns)
    }
}

/// A machine's history with a window in it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    /// What the task iterator found, and when it read it: at first, and then now and again.
    pub(crate) passes: Vec<(Vec<ThreadRecord>, RangeInclusive<u64>)>,
    /// When the window begins.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// What the rings lost.
    pub(crate) losses: Vec<Loss>,
}

impl Run {
    /// Lets a machine run; attaches to it, reads its threads, and lets it run for so many steps.
    pub(crate) fn new(config: Config, seed: u64, steps: usize) -> Self {
        let mut machine = Machine::new(config, seed);
        machine.steps(config.threads as usize * 8);
        machine.attach();
        machine.steps(config.threads as usize / 2);
        let first = machine.pass();
        machine.is_starting = false;
        let start_ns = *first.1.end();
        let mut passes = vec![first];
        for _ in 0..4 {
            machine.steps(steps / 4);
            if steps > 0 {
                passes.push(machine.pass());
            }
        }
        machine.now_ns += 1;
        Self {
            passes,
            start_ns,
            end_ns: machine.now_ns,
            machine,
            losses: Vec::new(),
        }
    }

    /// A core that has begun the window, and what feeds it further.
    pub(crate) fn begin(&self, targets: Vec<TargetSpec>, seed: u64) -> (Core, Feeder<'_>) {
        let mut core = Core::new(targets);
        let mut feeder = Feeder::new(self, seed);
        feeder.go_to(&mut core, self.start_ns);
        core.begin_window();
        (core, feeder)
    }
}

/// Feeds streams in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Feeder<'r> {
    run: &'r Run,
    raw: Vec<Vec<RawRecord>>,
    next: Vec<usize>,
    next_pass: usize,
    pub(crate) random: Random,
}

impl<'r> Feeder<'r> {
    pub(crate) fn new(run: &'r Run, seed: u64) -> Self {
        let streams = &run.machine.streams;
        Self {
            run,
            raw: streams
                .iter()
                .map(|s| s.iter().map(|written| written.raw).collect())
                .collect(),
            next: vec![0; streams.len()],
            next_pass: 0,
            random: Random::new(seed),
        }
    }

    /// Feeds up to a watermark, in one piece or several.
    pub(crate) fn go_to(&mut self, core: &mut impl Fed, watermark_ns: u64) {
        while let Some((found, read_ns)) = self.run.passes.get(self.next_pass)
            && *read_ns.start() <= watermark_ns
        {
            // Nothing after the beginning of a pass may be in before it is over.
            self.pieces(core, *read_ns.start());
            core.found(found, read_ns.clone());
            self.next_pass += 1;
        }
        self.pieces(core, watermark_ns);
    }

    fn pieces(&mut self, core: &mut impl Fed, watermark_ns: u64) {
        while self.random.one_in(2) && core.watermark_ns() < watermark_ns {
            let ahead_ns = watermark_ns - core.watermark_ns();
            let step_ns = self.random.below(ahead_ns);
            self.piece(core, core.watermark_ns() + step_ns);
        }
        self.piece(core, watermark_ns);
    }

    /// What is visible of each ring, some time after the watermark, cut where the ring wraps.
    fn piece(&mut self, core: &mut impl Fed, watermark_ns: u64) {
        let now_ns = watermark_ns.saturating_add(self.random.below(20_000));
        for loss in self.run.losses.iter().filter(|loss| loss.told_ns > now_ns) {
            let lost_ns: Vec<u64> = loss
                .lost_ns
                .iter()
                .copied()
                .filter(|&ns| ns <= now_ns)
                .collect();
            if let (Some(&from_ns), Some(&until_ns)) = (lost_ns.iter().min(), lost_ns.iter().max())
            {
                core.doubt(loss.cpu, from_ns, until_ns);
            }
        }
        let mut streams = Vec::new();
        let written = &self.run.machine.streams;
        for ((raw, written), &next) in self.raw.iter().zip(written).zip(&self.next) {
            let visible = written
                .partition_point(|w| w.visible_ns <= now_ns)
                .max(next);
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
