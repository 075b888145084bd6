//! The running kernel as a source of records.

use std::os::fd::{AsFd, BorrowedFd};

use aya::{Ebpf, maps::RingBuf};
use profiler_ebpf::{
    Clock, Kind, THREAD_RECORD_BYTES, ThreadRecord,
    config::{maps, programs},
    evidence::{EVIDENCE_BYTES, EvidenceRecord},
    ring::{Counter, Shed as ShedCounter},
    shed,
    why::programs as why_programs,
};

use crate::core::{ShedCounts, Stream, decode::Event};

use super::{
    clock::{self, RecordClock, Relation},
    error::StartError,
    evidence::{Channel, EvidenceLosses, EvidenceTargets},
    load::{self, Hook, refused},
    ring::Rings,
    side::Side,
    stats::{self, ProbeStats},
    threads::{self, ThreadsError},
    why::{self, Lack},
};

/// Which clock is to stamp the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockChoice {
    /// The run queue's if the kernel has it.
    #[default]
    Auto,
    /// The run queue's, or none.
    RunQueue,
    /// `CLOCK_MONOTONIC`.
    Monotonic,
}

/// How the probes are to be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each turns one thing on, and any may go with any"
)]
pub struct Options {
    /// Records in the ring of each CPU: a power of two, 32 bytes each.
    pub ring_records: u32,
    /// Whether each wakeup is to be recorded. They are in any case where the kernel's own run-queue
    /// books can't be used.
    pub wakeups: bool,
    /// Which clock is to stamp the records.
    pub clock: ClockChoice,
    /// Whether the system calls are read that threads block or yield in.
    pub syscalls: bool,
    /// Whether wakers and migrations are recorded.
    pub wakers: bool,
    /// Whether it is recorded when cgroups run out of CPU quota, and which thread is in which cgroup;
    /// and migrations.
    pub throttling: bool,
    /// How long, in nanoseconds, a wait of a thread of [`Kernel::set_evidence_targets`] must be for
    /// evidence to be taken: its kernel stack and the like. 0 takes all, `None` none.
    pub stacks: Option<u64>,
    /// Whether the user stack is taken with it, whenever a thread of these processes blocks: before it is
    /// known how long the wait will be. Only with [`Options::stacks`].
    pub user_stacks: bool,
}

impl Options {
    /// What is switched, born and renamed, and nothing more, with rings of the default size.
    pub const PLAIN: Self = Self {
        ring_records: 32 * 1024,
        wakeups: false,
        clock: ClockChoice::Auto,
        syscalls: false,
        wakers: false,
        throttling: false,
        stacks: None,
        user_stacks: false,
    };
}

impl Default for Options {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// Records that were lost on the way, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// For each possible CPU.
    pub cpus: Vec<CpuLosses>,
    /// Events that the kernel did not run a probe for that would have recorded them, because it was running already.
    pub missed: u64,
}

/// Records of one CPU that were lost because there was no room for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuLosses {
    /// Switches that its ring had no room for.
    pub switches: u64,
    /// Wakeups that its ring had no room for.
    pub wakeups: u64,
    /// Forks that its ring had no room for.
    pub forks: u64,
    /// Renames that the side channel had no room for.
    pub renames: u64,
    /// Execs that the side channel had no room for.
    pub execs: u64,
    /// Wakers that its ring had no room for.
    pub wakings: u64,
    /// Migrations that its ring had no room for.
    pub migrations: u64,
    /// Beginnings and ends of throttling that its ring had no room for.
    pub throttles: u64,
    /// Moves between cgroups that the side channel had no room for.
    pub cgroup_moves: u64,
}

impl CpuLosses {
    /// What was lost, by the kind of record.
    pub fn by_kind(&self) -> impl Iterator<Item = (Kind, u64)> + use<> {
        [
            (Kind::Switch, self.switches),
            (Kind::Wakeup, self.wakeups),
            (Kind::Fork, self.forks),
            (Kind::Rename, self.renames),
            (Kind::Exec, self.execs),
            (Kind::Waking, self.wakings),
            (Kind::Migrate, self.migrations),
            (Kind::Throttle, self.throttles),
            (Kind::CgroupMove, self.cgroup_moves),
        ]
        .into_iter()
    }

    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_kind().map(|(_, count)| count).sum()
    }
}

impl Losses {
    /// All CPUs and kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.missed + self.cpus.iter().map(CpuLosses::total).sum::<u64>()
    }
}

/// The probes in the running kernel, and their records.
///
/// Programs, maps and links are held by descriptors of this process and by nothing else: they go with
/// this value, or with the process, however it ends.
pub struct Kernel {
    // The order matters: the mappings and the channel go before the programs that write to them.
    rings: Rings,
    side: Side,
    clock: RecordClock,
    ebpf: Ebpf,
    wakeups: bool,
    /// What is attached.
    hooks: Vec<Hook>,
    evidence: Option<Channel>,
    /// Whether the iterator of waits that have not ended is loaded.
    open_waits: bool,
    lacks: Vec<Lack>,
}

impl Kernel {
    /// Loads and attaches the probes. From here on records are written.
    ///
    /// What tells why threads wait is left out where the host can't do it; [`Self::lacks`] says so.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        Self::start_when(options, &mut || {})
    }

    /// The same, and waits for this before it attaches the probes that fill the rings: from then on somebody has to
    /// empty them. Loading them takes a while, too, and is done before. It may be waited for twice.
    pub fn start_when(options: &Options, is_ready: &mut dyn FnMut()) -> Result<Self, StartError> {
        let reduced = Options {
            syscalls: false,
            wakers: false,
            throttling: false,
            stacks: None,
            user_stacks: false,
            ..*options
        };
        match Self::start_with(options, is_ready) {
            // The switches' probe was refused: perhaps for what it was to do in addition.
            Err(StartError::Internal { reason, .. }) if *options != reduced => {
                let mut kernel = Self::start_with(&reduced, is_ready)?;
                kernel.lacks.push(Lack {
                    what: "reasons of waits",
                    consequence: "system calls, wakers, throttling and evidence are not recorded",
                    reason,
                });
                Ok(kernel)
            }
            started => started,
        }
    }

    fn start_with(options: &Options, is_ready: &mut dyn FnMut()) -> Result<Self, StartError> {
        let mut loaded = load::prepare(*options)?;
        let cpus = loaded.cpus;
        // Mapped, and where need be erased, before the first record can be written.
        let rings = Rings::map(
            loaded.map(maps::RING_HEADERS)?,
            loaded.map(maps::RING_SLOTS)?,
            cpus,
            options.ring_records as usize,
        )
        .map_err(|error| refused("map the rings", &error))?;
        loaded.load_iterator(programs::THREADS)?;
        loaded.load_clock_reader()?;
        let clock = RecordClock::new(loaded.clock, loaded.map(maps::CLOCK_READING)?, &loaded.ebpf)?;
        // Names and births first: whoever switches is then known.
        let mut hooks = vec![
            Hook::of(programs::TASK_RENAME),
            Hook::of(programs::SCHED_PROCESS_EXEC),
            Hook::of(programs::SCHED_WAKEUP_NEW),
        ];
        let wakeups = options.wakeups || !loaded.stamps;
        if wakeups {
            hooks.push(Hook::of(programs::SCHED_WAKEUP));
        }
        hooks.push(Hook {
            tracepoint: programs::SCHED_SWITCH,
            program: loaded.switch_program,
        });
        for hook in &hooks {
            loaded.load(hook)?;
        }
        // What tells why threads wait comes before the switches that it goes with.
        let why::Attached {
            hooks: why_hooks,
            open_waits,
            lacks,
        } = why::attach(&mut loaded, is_ready);
        for hook in &hooks {
            loaded.attach(hook)?;
        }
        hooks.extend(why_hooks);
        let mut ebpf = loaded.ebpf;
        let evidence = if loaded.why.config.evidence == 0 {
            None
        } else {
            Some(Channel::open(&mut ebpf, clock.relation())?)
        };
        let channel = ebpf
            .take_map(maps::SIDE)
            .ok_or_else(|| StartError::Internal {
                action: format!("find the map {}", maps::SIDE),
                reason: "the probes don't have it".to_owned(),
            })?;
        let channel =
            RingBuf::try_from(channel).map_err(|error| refused("map the side channel", &error))?;
        Ok(Self {
            rings,
            side: Side::new(channel),
            clock,
            ebpf,
            wakeups,
            hooks,
            evidence,
            open_waits,
            lacks,
        })
    }

    /// Which clock stamps the records.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clock()
    }

    /// Whether wakeups are recorded.
    #[must_use]
    pub fn wakeups(&self) -> bool {
        self.wakeups
    }

    /// Whether it is known when CPU quotas are used up, if that was asked for.
    #[must_use]
    pub fn follows_quotas(&self) -> bool {
        !self.lacks.iter().any(|lack| lack.what == why::THROTTLING)
    }

    /// How many CPUs the host can have: so many rings there are.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.rings.cpus()
    }

    /// All threads that there are now, idle tasks left out. Only those of the PID namespace that this
    /// process is in; their ids are the host's.
    pub fn threads(&mut self) -> Result<Vec<ThreadRecord>, ThreadsError> {
        threads::read::<_, THREAD_RECORD_BYTES>(&mut self.ebpf, programs::THREADS)
    }

    /// Evidence of the waits that have not ended, of all threads of [`Self::set_evidence_targets`] that are
    /// asleep now and in the PID namespace of this process, however short they may have been. Empty
    /// without [`Options::stacks`], or where [`Self::lacks`] says that it can't be had.
    ///
    /// It takes some ten microseconds a thread of the targets, in this call.
    pub fn open_evidence(&mut self) -> Result<Vec<EvidenceRecord>, ThreadsError> {
        if !self.open_waits {
            return Ok(Vec::new());
        }
        threads::read::<_, EVIDENCE_BYTES>(&mut self.ebpf, why_programs::OPEN_WAITS)
    }

    /// The records' time now, as the last calibration has it.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// How far [`Self::now_ns`] could be from the truth when the clocks were last related.
    #[must_use]
    pub fn clock_error_ns(&self) -> u64 {
        self.clock.relation().error_ns
    }

    /// How the records' time relates to `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn clock_relation(&self) -> Relation {
        self.clock.relation()
    }

    /// Relates the clocks anew. It takes some 50 microseconds; once in a few seconds is enough, since
    /// their rates differ by what NTP corrects: mostly below a microsecond a second, at most 500.
    pub fn calibrate(&mut self) -> Result<(), StartError> {
        self.clock.measure(&self.ebpf)?;
        match &mut self.evidence {
            Some(channel) => channel.relate(self.clock.relation()),
            None => Ok(()),
        }
    }

    /// What was asked for and this host can't do.
    #[must_use]
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// Chooses the processes whose waits evidence is taken of: those with these ids, or all. There is
    /// room for 4,096 ids, and what is beyond is left out. Without [`Options::stacks`] nothing happens.
    pub fn set_evidence_targets(&mut self, targets: EvidenceTargets<'_>) -> Result<(), StartError> {
        match &mut self.evidence {
            Some(channel) => channel.set_targets(targets),
            None => Ok(()),
        }
    }

    /// The user code addresses of a stack by its [`EvidenceRecord::user_stack_id`], the innermost first, at
    /// most 64. `None` if there is no such stack.
    ///
    /// Ids stay good as long as this value lives; the same stack has the same id each time.
    #[must_use]
    pub fn user_stack(&self, id: i32) -> Option<Vec<u64>> {
        let id = u32::try_from(id).ok()?;
        self.evidence.as_ref()?.user_stack(id)
    }

    /// How many waits' evidence was lost since the start.
    #[must_use]
    pub fn evidence_losses(&self) -> EvidenceLosses {
        let sum = |counter: Counter| {
            (0..self.cpus())
                .map(|cpu| self.rings.dropped(cpu)[counter as usize])
                .sum()
        };
        EvidenceLosses {
            no_room: sum(Counter::Evidence),
            over_budget: sum(Counter::EvidenceBudget),
        }
    }

    /// Wall time, in nanoseconds since 1970, of a moment of the records' clock.
    #[must_use]
    pub fn unix_ns(&self, record_ns: u64) -> u64 {
        let ago_ns = self.now_ns().wrapping_sub(record_ns).cast_signed();
        clock::unix_ns().saturating_add_signed(ago_ns.saturating_neg())
    }

    /// Hands out all records that are there and not yet used: a stream for each CPU, in the order of
    /// their numbers, and then one of renames and execs. `consume` says how many of each stream, from
    /// its beginning, it has used; the rest is handed out again next time.
    ///
    /// Renames and execs carry the time of the last tick or switch on their CPU, so they may be some
    /// milliseconds late, but never before what happened to their thread before them.
    pub fn drain<'a>(&mut self, consume: impl FnOnce(&[Stream<'_>]) -> &'a [usize]) {
        self.drain_with_evidence(|streams, _| consume(streams));
    }

    /// The same, and hands out, once, all evidence that has come: of each wait whose end is in these
    /// records it is there, in this call or an earlier one. In about the order in which it was taken.
    pub fn drain_with_evidence<'a>(
        &mut self,
        consume: impl FnOnce(&[Stream<'_>], &[EvidenceRecord]) -> &'a [usize],
    ) {
        // The rings first: a rename that came before a record of theirs is then in the channel, and so is
        // the evidence of a wait that ended before it.
        self.rings.poll();
        self.side.poll();
        let evidence = self.evidence.as_mut().map_or(&[][..], Channel::poll);
        let streams: Vec<_> = self
            .rings
            .streams()
            .chain(std::iter::once(self.side.stream()))
            .collect();
        let used = consume(&streams, evidence);
        let cpus = self.rings.cpus();
        for (number, &used) in used.iter().enumerate() {
            if number < cpus {
                self.rings.give_back(number, used);
            } else {
                self.side.give_back(used);
            }
        }
    }

    /// Makes the descriptor of [`AsFd`] unreadable until the doorbell rings again.
    pub fn clear_doorbell(&mut self) {
        self.side.poll();
    }

    /// The fullest that a ring was found since this was last asked, from 0 to 1.
    pub fn fill(&mut self) -> f64 {
        self.rings.take_fill()
    }

    /// Records that were lost, since the start.
    #[must_use]
    pub fn losses(&self) -> Losses {
        let cpus = (0..self.cpus())
            .map(|cpu| {
                let dropped = self.rings.dropped(cpu);
                let count = |counter: Counter| dropped[counter as usize];
                CpuLosses {
                    switches: count(Counter::Switch),
                    wakeups: count(Counter::Wakeup),
                    forks: count(Counter::Fork),
                    renames: count(Counter::Rename) + count(Counter::FirstName),
                    execs: count(Counter::Exec),
                    wakings: count(Counter::Waking),
                    migrations: count(Counter::Migrate),
                    throttles: count(Counter::Throttle),
                    cgroup_moves: count(Counter::CgroupMove),
                }
            })
            .collect();
        let probes = self.probe_stats();
        let recording = probes
            .iter()
            .filter(|probe| !why_programs::is_context(&probe.name));
        Losses {
            cpus,
            missed: recording.map(|probe| probe.missed).sum(),
        }
    }

    /// Has the probes keep one thread in 2 to the power of `shift`, all of them with 0. It holds for every event
    /// from the time on that is returned, and for some before that.
    pub fn keep(&mut self, shift: u8) -> u64 {
        self.rings.keep(shed::mask(shift));
        self.now_ns().saturating_add(self.clock_error_ns()) + 1
    }

    /// Records left out so far because their threads are not kept, all CPUs together.
    #[must_use]
    pub fn shed_counts(&self) -> ShedCounts {
        let sum = |counter: ShedCounter| {
            let cpus = 0..self.cpus();
            cpus.map(|cpu| self.rings.shed(cpu)[counter as usize]).sum()
        };
        ShedCounts {
            switches: sum(ShedCounter::Switch),
            wakeups: sum(ShedCounter::Wakeup),
            wakings: sum(ShedCounter::Waking),
            migrations: sum(ShedCounter::Migrate),
        }
    }

    /// Puts a record among those that belong to no CPU.
    pub fn tell(&mut self, event: &Event) {
        self.side.tell(event.encode());
    }

    /// Records that the rings had no room for, of all CPUs and kinds together.
    #[must_use]
    pub fn ring_losses(&self) -> u64 {
        let of_rings = [
            Counter::Switch,
            Counter::Wakeup,
            Counter::Fork,
            Counter::Waking,
            Counter::Migrate,
            Counter::Throttle,
        ];
        let cpus = 0..self.cpus();
        cpus.map(|cpu| {
            let dropped = self.rings.dropped(cpu);
            let counts = of_rings.iter().map(|&counter| dropped[counter as usize]);
            counts.sum::<u64>()
        })
        .sum()
    }

    /// Losses of one CPU that no gap record tells of yet: the times of the first and of the last record
    /// that was lost. The next record that finds room brings the gap record.
    #[must_use]
    pub fn open_gap(&self, cpu: usize) -> Option<(u64, u64)> {
        self.rings.open_gap(cpu)
    }

    /// What each attached probe has cost so far; see [`super::Counting`].
    #[must_use]
    pub fn probe_stats(&self) -> Vec<ProbeStats> {
        let read = |hook: &Hook| {
            let program = self.ebpf.program(hook.program)?.fd().ok()?;
            stats::read(hook.tracepoint, program.as_fd()).ok()
        };
        self.hooks.iter().filter_map(read).collect()
    }
}

impl AsFd for Kernel {
    /// Readable when the doorbell has rung.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.side.as_fd()
    }
}
