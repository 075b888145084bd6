//! Records become figures. Pure: no clock, no files, no threads, no `unsafe`; time comes from the
//! records, and no input can make it panic.
//!
//! In the order of the flow:
//!
//! * [`decode`]: the bytes of a slot to an [`decode::Event`].
//! * [`merge`]: the streams of many CPUs to one, by time, up to a watermark.
//! * [`state`]: what the kernel's state word says.
//! * `reconstruct`: records to states, thread by thread; `threads` holds who is alive, and `found` is
//!   what the task iterator says of them.
//! * `spans`: states to booked time and samples, `straight` of nearly all in a shorter way. [`conflict`] names what can be wrong with records and
//!   what is done then; `gaps` knows what a loss, and what was left out on
//!   purpose, puts in doubt; `shedding` counts the latter.
//! * [`classify`]: what is known of a wait to a [`reason`]; `why` collects it.
//! * `timeline`: who had each CPU when, the last times in a `latest`. By it, and by the quotas of `quota`, `queue` divides a stay on a
//!   run queue into its causes.
//! * `births`: which processes began.
//! * `history`: what threads did of late, and `blame`: whose doing a wait was; [`who`] names them.
//! * [`units`]: the same by unit, as it is told from outside who belongs to which.
//! * [`figures`], [`histogram`] and [`ranking`]: what is counted, together an [`account`]; [`spent`] says
//!   what time can be counted as, and [`worst`] keeps the longest waits.
//! * `tally`: what single threads did, to be held against the kernel's books.
//! * [`snapshot`]: all figures at one moment; `extremes`: what is out of the ordinary then; [`now`]: what every
//!   thread is doing.
//! * `trail`: what threads of targets did, one by one.

pub mod account;
mod births;
mod blame;
pub mod classify;
pub mod conflict;
pub mod decode;
mod extremes;
pub mod figures;
mod found;
mod gaps;
pub mod histogram;
mod history;
pub mod interrupts;
mod latest;
pub mod merge;
pub mod now;
mod queue;
mod quota;
pub mod ranking;
pub mod reason;
mod reconstruct;
mod shedding;
mod size;
pub mod snapshot;
mod spans;
pub mod spent;
pub mod state;
mod straight;
mod tally;
mod target;
mod thread;
mod threads;
mod timeline;
mod trail;
pub mod units;
pub mod who;
mod why;
pub mod worst;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use profiler_ebpf::ThreadRecord;

pub use account::{Account, Detail};
pub use births::Birth;
pub use classify::Wait;
pub use conflict::{Conflict, Conflicts};
pub use extremes::LongestOpen;
pub use figures::Figures;
pub use histogram::LatencyHistogram;
pub use interrupts::InterruptKind;
pub use merge::Stream;
pub use now::ThreadNow;
pub use reason::Reason;
pub use reconstruct::Reconstruction;
pub use shedding::{ShedCounts, Shedding};
pub use snapshot::{Counts, OpenWaits, Snapshot, TargetSnapshot, ThreadSnapshot, Waiting};
pub use spent::{Cause, Origin, Share, Spent};
pub use state::WaitState;
pub use tally::Tally;
pub use target::{Selector, TargetSpec};
pub use thread::{Comm, Identity, is_unsafe};
pub use trail::{Culprit, Doing, Span, Trail};
pub use units::{UnitNews, UnitNumber, UnitSnapshot};
pub use who::{Waker, WakerKind, Who};
pub use why::Seen;
pub use worst::{Link, LongWait, Waited, Worst};

/// The whole way from records to figures, for live and for recorded ones.
#[derive(Debug)]
pub struct Core {
    merger: merge::Merger,
    machine: Reconstruction,
    /// Everything up to here has been taken in.
    watermark_ns: u64,
}

impl Core {
    /// Knows nothing yet and is to watch these targets.
    #[must_use]
    pub fn new(targets: Vec<TargetSpec>) -> Self {
        Self {
            merger: merge::Merger::default(),
            machine: Reconstruction::new(targets),
            watermark_ns: 0,
        }
    }

    /// Takes the careful way with every record, though most need it not: for tests of the other one.
    pub fn be_careful(&mut self) {
        self.machine.spans.is_careful = true;
    }

    /// Takes in the threads that one whole pass of the task iterator found; `read_ns` is when the pass
    /// began and when it was over, by the records' clock: the start rather too early, the end rather
    /// too late.
    ///
    /// Nothing after the start may have been taken in yet. What was found counts when the watermark
    /// reaches the end: then threads without records are known by it, names and parents are filled in,
    /// and after a loss the threads are cleared of doubt that are proven not to have run.
    pub fn found(&mut self, threads: &[ThreadRecord], read_ns: RangeInclusive<u64>) {
        self.machine.found(threads, read_ns);
    }

    /// Takes in what was seen of waits that end, before the records of their ends.
    pub fn seen(&mut self, waits: impl IntoIterator<Item = Seen>) {
        self.machine.seen(waits);
    }

    /// Takes in what was seen of waits that went on when it was looked at. All records up to then must
    /// be in; what has ended since is left alone.
    pub fn seen_waiting(&mut self, waits: impl IntoIterator<Item = Seen>) {
        self.machine.seen_waiting(waits);
    }

    /// Takes in all records up to `watermark_ns` and returns how many of each stream were used.
    ///
    /// The number of a stream is that of its CPU; a stream that belongs to no CPU comes last.
    /// A watermark before the last one changes nothing.
    pub fn feed(&mut self, streams: &[Stream<'_>], watermark_ns: u64) -> &[usize] {
        let machine = &mut self.machine;
        machine.expect(streams.len(), self.watermark_ns);
        self.watermark_ns = self.watermark_ns.max(watermark_ns);
        let used = self.merger.merge(streams, self.watermark_ns, &mut *machine);
        machine.settle_passes(self.watermark_ns);
        machine.explain_waiting(self.watermark_ns);
        used
    }

    /// These cgroups have CPU quotas, and no record will tell when they are used up: what their threads wait
    /// for a CPU has an unknown cause.
    pub fn untold_quotas(&mut self, groups: BTreeSet<u64>) {
        self.machine.spans.queues.quotas.untold(groups);
    }

    /// A CPU has been losing records between these times, and its ring has no room yet to say so.
    pub fn doubt(&mut self, cpu: usize, from_ns: u64, until_ns: u64) {
        self.machine.spans.gaps.add(cpu, from_ns, until_ns);
    }

    /// Begins the window at the watermark: what was counted so far is forgotten.
    ///
    /// Every pass of the task iterator must have ended before it.
    pub fn begin_window(&mut self) {
        self.machine.begin_window(self.watermark_ns);
    }

    /// Watches these targets from the watermark on. One that was watched before keeps its figures.
    pub fn retarget(&mut self, targets: Vec<TargetSpec>) {
        self.machine.retarget(targets, self.watermark_ns);
    }

    /// Adds processes to the target with this number from the watermark on, if that is a
    /// [`Selector::Tree`]; their children to come follow them.
    pub fn join(&mut self, target: usize, tgids: &BTreeSet<u32>) {
        let tgids: Vec<u32> = tgids.iter().copied().collect();
        self.machine.join(target, &tgids, self.watermark_ns);
    }

    /// Forgets the threads that have ended one by one; what they did stays in their targets' totals.
    pub fn forget_ended(&mut self) {
        for target in &mut self.machine.spans.ledger.targets {
            target.forget_ended();
        }
    }

    /// From now on, keeps figures by unit. Everything is [`UnitNumber::OTHER`]'s until told otherwise.
    pub fn keep_units(&mut self) {
        self.machine.spans.ledger.units.keep(self.watermark_ns);
    }

    /// Takes in which units there are and which processes belong to them, from the watermark on.
    pub fn learn_units(&mut self, news: &UnitNews) {
        self.machine.learn_units(news, self.watermark_ns);
    }

    /// What every thread of the host is doing as of the watermark.
    #[must_use]
    pub fn threads_now(&self) -> Vec<ThreadNow> {
        self.machine.threads_now(self.watermark_ns)
    }

    /// All figures as of the watermark.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.machine.snapshot(self.watermark_ns)
    }

    /// Records lost since the window began, as far as their gaps have been met.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.machine.counts.lost
    }

    /// Whether all threads are kept, and were.
    #[must_use]
    pub fn shedding(&self) -> Shedding {
        self.machine.shedding.as_of(self.watermark_ns)
    }

    /// Records taken in since the window began.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.machine.counts.total()
    }

    /// Whether the thread with this id is alive.
    #[must_use]
    pub fn is_alive(&self, tid: u32) -> bool {
        self.machine.threads.find(tid).is_some()
    }

    /// Threads of the host that are alive, as far as they are known.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.machine.threads.len()
    }

    /// Threads of the target with this number that are alive.
    #[must_use]
    pub fn alive(&self, target: usize) -> usize {
        self.tgids(target).count()
    }

    /// Processes of the threads of the target with this number that are alive.
    pub fn tgids(&self, target: usize) -> impl Iterator<Item = u32> + '_ {
        let of_target = move |t: &&thread::Thread| t.target.map(usize::from) == Some(target);
        self.machine
            .threads
            .iter()
            .filter(of_target)
            .map(|thread| thread.tgid)
    }

    /// Processes of the threads of all targets that are alive, once for each thread, and those that
    /// targets name, whether they are there yet or not.
    pub fn watched(&self) -> impl Iterator<Item = u32> + '_ {
        let threads = self.machine.threads.iter();
        let alive = threads
            .filter(|thread| thread.target.is_some())
            .map(|thread| thread.tgid);
        let targets = self.machine.spans.ledger.targets.iter();
        let named = targets.filter_map(|target| match target.spec.selector {
            Selector::Pid(pid) | Selector::Command(pid) | Selector::CommandTree(pid) => Some(pid),
            _ => None,
        });
        alive.chain(named)
    }

    /// Whether a target takes in every thread of the host.
    #[must_use]
    pub fn watches_all(&self) -> bool {
        let mut targets = self.machine.spans.ledger.targets.iter();
        targets.any(|target| target.spec.selector == Selector::All)
    }

    /// Whether a thread of a target has been waiting for at least so long, nobody knows why.
    #[must_use]
    pub fn has_unexplained_wait(&self, elapsed_ns: u64) -> bool {
        self.machine
            .has_unexplained_wait(self.watermark_ns, elapsed_ns)
    }

    /// Keeps what threads of targets do from now on, one by one, until it is taken.
    pub fn keep_trail(&mut self) {
        self.machine.keep_trail();
    }

    /// What threads of targets did, as far as that was booked since this was last asked.
    pub fn take_trail(&mut self) -> Trail {
        self.machine.take_trail()
    }

    /// What threads of targets are doing now, up to the watermark.
    #[must_use]
    pub fn open_trail(&self) -> Trail {
        self.machine.open_trail(self.watermark_ns)
    }

    /// The longest waits of targets that go on.
    #[must_use]
    pub fn longest_open(&self) -> LongestOpen {
        self.machine.longest_open(self.watermark_ns)
    }

    /// How many run-queue delays of targets were longer than this, to within what a histogram tells.
    #[must_use]
    pub fn delays_above(&self, delay_ns: u64) -> u64 {
        self.machine.delays_above(delay_ns)
    }

    /// Processes of all threads of the host that are alive, once for each thread.
    pub fn processes(&self) -> impl Iterator<Item = u32> + '_ {
        self.machine.threads.iter().map(|thread| thread.tgid)
    }

    /// Processes that began since this was last asked, in their order. Of very many the first are told.
    pub fn take_births(&mut self) -> Vec<Birth> {
        self.machine.births.take()
    }

    /// Whether there are births that nobody has taken.
    #[must_use]
    pub fn has_births(&self) -> bool {
        !self.machine.births.is_empty()
    }

    /// Everything up to here has been taken in.
    #[must_use]
    pub fn watermark_ns(&self) -> u64 {
        self.watermark_ns
    }
}
