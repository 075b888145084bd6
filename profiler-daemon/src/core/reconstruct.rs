//! Records to states: what every thread and every CPU is doing.
//!
//! One rule for each kind of record. Each closes the open span of the threads that it touches, has
//! [`Spans`] book it, and opens the next. What is done when records contradict one another is in
//! [`Conflict`].

use std::sync::Arc;

use profiler_ebpf::{Exec, Fork, Gap, RawRecord, Rename, Shed, Switch, Throttled, Wakeup};
use profiler_ebpf::{shed, switch_flags, thread_flags};

use super::account::Account;
use super::births::Births;
use super::conflict::{Conflict, Conflicts};
use super::decode::{self, Event};
use super::found::Passes;
use super::history::History;
use super::interrupts::Reckoning;
use super::merge::Sink;
use super::queue::Arriving;
use super::ranking::Ranking;
use super::shedding::Shedding;
use super::snapshot::{Counts, ThreadSnapshot};
use super::spans::{Arrival, Spans};
use super::spent::Origin;
use super::state::{StateWord, WaitState};
use super::target::{Target, TargetSpec};
use super::thread::{Comm, NEVER, NO_CPU, State, Thread};
use super::threads::{Slot, Threads};
use super::timeline::{Holder, Runner};
use super::units::{UnitNews, UnitNumber};
use super::who::Departed;
use super::why::{Evidence, call_of, wait_of};

/// What a CPU is doing, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cpu {
    #[default]
    Unknown,
    Idle,
    /// It runs the thread in this slot, unless that has gone since.
    Runs(Slot),
}

/// The machine as the records show it.
#[derive(Debug, Default)]
pub struct Reconstruction {
    pub(super) threads: Threads,
    pub(super) cpus: Vec<Cpu>,
    pub(super) spans: Spans,
    pub(super) counts: Counts,
    pub(super) passes: Passes,
    pub(super) window_start_ns: Option<u64>,
    pub(super) departed: Departed,
    pub(super) births: Births,
    pub(super) history: History,
    pub(super) evidence: Evidence,
    /// What said, last on each CPU, how long a quota kept off the thread that comes in next.
    pub(super) throttled: Vec<Option<Throttled>>,
    /// What was told of interrupts.
    pub(super) reckoning: Reckoning,
    pub(super) shedding: Shedding,
}

impl<'a> Sink<'a> for &mut Reconstruction {
    #[inline]
    fn record(&mut self, stream: usize, raw: &'a RawRecord) {
        Reconstruction::record(self, stream, raw);
    }

    fn looks_ahead(&self) -> bool {
        self.threads.len() >= MANY_THREADS
    }

    #[inline]
    fn expect(&self, stream: usize, raw: &'a RawRecord) {
        if let Some(tid) = decode::thread_of(raw) {
            self.threads.expect(tid);
        }
        self.spans.queues.timeline.expect(stream);
    }
}

/// So many threads are more than a second-level cache has room for.
const MANY_THREADS: usize = 4096;

impl Reconstruction {
    /// A machine of which nothing is known yet.
    #[must_use]
    pub fn new(targets: Vec<TargetSpec>) -> Self {
        let mut this = Self::default();
        this.spans.ledger.targets = targets.into_iter().map(Target::new).collect();
        this
    }

    /// Says that so many streams follow, and that everything up to here may have been shown: a record
    /// from before comes too late.
    pub fn expect(&mut self, streams: usize, shown_ns: u64) {
        self.spans.shown_ns = self.spans.shown_ns.max(shown_ns);
        if self.cpus.len() < streams {
            self.cpus.resize(streams, Cpu::Unknown);
            self.throttled.resize(streams, None);
        }
    }

    /// Begins the window: what was booked so far is forgotten, what is open counts from here on.
    pub fn begin_window(&mut self, start_ns: u64) {
        self.window_start_ns = Some(start_ns);
        self.counts = Counts::default();
        self.shedding.begin_window(start_ns);
        self.spans.conflicts = Conflicts::default();
        if let Some(notes) = &mut self.spans.notes {
            notes.clear();
        }
        self.spans.ledger.inflicted = Ranking::default();
        self.spans.ledger.units.clear();
        for target in &mut self.spans.ledger.targets {
            target.clear();
        }
        for thread in self.threads.iter_mut() {
            let is_queued = match thread.state {
                State::Queued(_) => true,
                State::Waiting(_) => thread.woken_ns != NEVER,
                State::Running | State::Unknown => false,
            };
            if is_queued {
                thread.state = State::Queued(Origin::Found);
            }
            thread.since_ns = start_ns;
            thread.met_ns = start_ns;
            thread.observed_from_ns = start_ns;
            thread.forget_stay();
            thread.inflicted_ns = 0;
            if let Some(account) = &mut thread.account {
                **account = Account::default();
            }
        }
    }

    /// Takes in one record of the stream (CPU) with this number, which must be an expected one.
    #[inline]
    pub fn record(&mut self, stream: usize, raw: &RawRecord) {
        match Event::decode(raw) {
            Ok(event) => {
                self.counts.events[event.kind() as usize - 1] += 1;
                match event {
                    Event::Switch(record) => self.switch(stream, &record),
                    Event::Wakeup(record) => self.wakeup(&record),
                    Event::Fork(record) => self.fork(&record),
                    Event::Gap(record) => self.gap(stream, &record),
                    Event::Rename(record) => self.rename(&record),
                    Event::Exec(record) => self.exec(&record),
                    // They say why a thread waits, never what it does.
                    Event::Waking(record) => self.waking(&record),
                    Event::Migrate(record) => self.migrate(&record),
                    Event::Throttle(record) => self.spans.queues.quotas.take_in(&record),
                    Event::CgroupMove(record) => self.cgroup_move(&record),
                    Event::Throttled(record) => self.throttled(stream, record),
                    Event::Interrupts(record) => self.interrupts(&record),
                    Event::Shed(record) => self.shed(&record),
                }
            }
            Err(_) => self.counts.undecodable += 1,
        }
        self.charge();
    }

    fn switch(&mut self, cpu: usize, record: &Switch) {
        let prev = match self.cpus.get(cpu) {
            Some(&Cpu::Runs(slot)) if self.is_at(slot, record.prev_tid) => Some(slot),
            was => {
                let was = was.copied().unwrap_or_default();
                self.other_than_known(was, cpu, record);
                let is_same = match was {
                    Cpu::Idle => record.prev_tid == 0,
                    Cpu::Runs(slot) => self.is_at(slot, record.prev_tid),
                    Cpu::Unknown => false,
                };
                if !is_same {
                    self.spans.queues.timeline.discredit(cpu);
                }
                self.find_or_meet(record.prev_tid, record.ts_ns)
            }
        };
        if let Some(prev) = prev {
            self.leave(prev, cpu, record);
        }
        let next = self.find_or_meet(record.next_tid, record.ts_ns);
        let runs = next.and_then(|slot| self.enter(slot, cpu, record));
        let (now, holder) = match runs {
            // How long it stays nobody will tell.
            _ if self.spans.gaps.hides(record.next_tid) => (Cpu::Unknown, Holder::Unknown),
            Some(runner) => (Cpu::Runs(runner.slot), Holder::Thread(runner)),
            None if record.next_tid == 0 => (Cpu::Idle, Holder::Idle),
            None => (Cpu::Unknown, Holder::Unknown),
        };
        if let Some(cpu) = self.cpus.get_mut(cpu) {
            *cpu = now;
        }
        self.spans.queues.timeline.hold(cpu, record.ts_ns, holder);
    }

    fn is_at(&self, slot: Slot, tid: u32) -> bool {
        self.threads
            .get(slot)
            .is_some_and(|thread| thread.tid == tid)
    }

    /// The thread that leaves a CPU is not the one that was known to be there.
    fn other_than_known(&mut self, was: Cpu, cpu: usize, record: &Switch) {
        let Cpu::Runs(slot) = was else { return };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if thread.running_on() != Some(cpu) {
            return;
        }
        if self.spans.doubt(thread, record.ts_ns).is_none() && self.took_over(slot, cpu, record) {
            return;
        }
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        let now_ns = self.spans.not_before(thread, record.ts_ns);
        self.spans
            .contradict(thread, now_ns, None, Conflict::MissedSwitchOut);
        thread.forget_counts();
    }

    /// Whether it is the same thread under another id, and if so gives it that id.
    ///
    /// When a thread that is not its process's leader execs, it takes over the leader's id (and the
    /// leader, which is about to end, gets its id) some time before the exec record (`de_thread`,
    /// fs/exec.c). Either of them may leave a CPU in between.
    fn took_over(&mut self, slot: Slot, cpu: usize, record: &Switch) -> bool {
        let Some(thread) = self.threads.get(slot) else {
            return false;
        };
        let (known_tid, tgid) = (thread.tid, thread.tgid);
        if tgid == 0 {
            return false;
        }
        let other = self
            .threads
            .find(record.prev_tid)
            .and_then(|slot| self.threads.get(slot));
        let is_elsewhere = |other: &Thread| {
            other.tgid == tgid && other.running_on().is_some_and(|other_cpu| other_cpu != cpu)
        };
        if record.prev_tid == tgid && other.is_none_or(is_elsewhere) {
            self.exchange(known_tid, tgid, true, record.ts_ns);
            return true;
        }
        let is_dead = StateWord::read(u32::from(record.prev_state), false) == StateWord::Dead;
        if known_tid == tgid && is_dead && other.is_some_and(is_elsewhere) {
            self.exchange(record.prev_tid, tgid, true, record.ts_ns);
            return true;
        }
        false
    }

    /// A thread takes over its leader's id and start; the leader, if it is still there, gets its id.
    fn exchange(&mut self, tid: u32, leader_tid: u32, is_ahead: bool, now_ns: u64) {
        self.settle_shed(tid, now_ns);
        self.settle_shed(leader_tid, now_ns);
        // While they can still be found.
        self.charge();
        let leader = self
            .threads
            .find(leader_tid)
            .and_then(|slot| self.threads.get(slot));
        // Without the leader nobody says when the process started.
        let start_ns = leader.map_or(0, |leader| leader.start_ns);
        self.passes.vacated(tid);
        self.threads.exchange(tid, leader_tid);
        let slot = self.threads.find(leader_tid);
        if let Some(thread) = slot.and_then(|slot| self.threads.get_mut(slot)) {
            thread.start_ns = start_ns;
            thread.is_exchanged = is_ahead;
        }
    }

    /// A thread is about to have another id. Whether it is kept hangs on that, so what is in doubt because of
    /// the one that it has is settled before.
    fn settle_shed(&mut self, tid: u32, now_ns: u64) {
        let slot = self.threads.find(tid);
        let Some(thread) = slot.and_then(|slot| self.threads.get_mut(slot)) else {
            return;
        };
        let now_ns = self.spans.not_before(thread, now_ns);
        if self.spans.shed_from(thread, now_ns).is_some() {
            self.spans.lose(thread, now_ns, now_ns, None);
            thread.forget_counts();
        }
    }

    fn leave(&mut self, slot: Slot, cpu: usize, record: &Switch) {
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        let preempted = record.flags & switch_flags::PREEMPT != 0;
        let state = StateWord::read(u32::from(record.prev_state), preempted);
        let is_voluntary = state != StateWord::Runnable;
        let ts_ns = record.ts_ns;
        let (now_ns, in_order) = if self.spans.leave_straight(thread, cpu, ts_ns, is_voluntary) {
            (ts_ns, true)
        } else {
            let left = self.spans.leave(thread, cpu, ts_ns);
            self.spans.ledger.book(thread, |figures| {
                figures.voluntary += u64::from(is_voluntary);
                figures.involuntary += u64::from(!is_voluntary);
            });
            left
        };
        let left_ns = if in_order { now_ns } else { NEVER };
        thread.cpu = u32::try_from(cpu).unwrap_or(NO_CPU);
        thread.proven_ns = now_ns;
        thread.forget_stay();
        thread.left_ns = left_ns;
        thread.departed_ns = ts_ns;
        thread.is_unstamped = false;
        self.spans.queues.begin_stay(thread, NO_CPU);
        thread.is_throttled = record.flags & switch_flags::PREV_THROTTLED != 0;
        match state {
            StateWord::Runnable => {
                thread.state = State::Queued(if call_of(record).is_yield() {
                    Origin::Yielded
                } else {
                    Origin::Preempted
                });
                thread.queue_cpu = thread.cpu;
                thread.is_unstamped = record.prev_state != 0;
                thread.woken_ns = left_ns;
            }
            StateWord::Waiting(state) => thread.state = State::Waiting(wait_of(record, state)),
            // A thread that was never on a run queue can't leave a CPU.
            StateWord::New => thread.state = State::Waiting(wait_of(record, WaitState::Other)),
            StateWord::Dead => self.retire(slot, now_ns),
        }
    }

    /// A thread gets a CPU. Returns who it is.
    #[inline]
    fn enter(&mut self, slot: Slot, cpu: usize, record: &Switch) -> Option<Runner> {
        let throttled = match self.throttled.get_mut(cpu) {
            Some(last) if last.is_some() => last.take(),
            _ => None,
        };
        let thread = self.threads.get_mut(slot)?;
        let runner = Runner {
            slot,
            serial: thread.serial,
        };
        self.evidence.refine(thread);
        let has = |flag: u8| record.flags & flag != 0;
        let runs = has(switch_flags::NEXT_COUNTED).then_some(record.next_runs);
        let delay_ns = has(switch_flags::NEXT_STAMPED).then_some(record.next_delay_ns);
        self.spans.counts = Some(runs.is_some());
        self.spans.stamped |= delay_ns.is_some();
        let was = (thread.state, thread.since_ns);
        let number = u32::try_from(cpu).unwrap_or(NO_CPU);
        let has_moved = thread.cpu != number && thread.cpu != NO_CPU;
        let unqueued = has(switch_flags::NEXT_UNQUEUED);
        let straight = if throttled.is_none() {
            self.spans.arrive_straight(thread, cpu, record, has_moved)
        } else {
            None
        };
        let mut now_ns = record.ts_ns;
        let (stay, held) = if let Some(booked) = straight {
            (booked.stay(), booked.held)
        } else {
            let mut arrival = Arrival {
                now_ns,
                runs,
                delay_ns,
                unqueued,
            };
            self.spans.queues.arriving = Arriving {
                cpu: Some(cpu),
                throttled_ns: throttled
                    .filter(|its| its.tid == thread.tid)
                    .map(|its| its.since_ns..its.until_ns.max(its.since_ns)),
            };
            let stay = self.spans.arrive(thread, &mut arrival, has_moved);
            now_ns = arrival.now_ns;
            (stay, None)
        };
        // Only who watches somebody asks what others did.
        if !self.spans.ledger.targets.is_empty() {
            self.look_back(slot, cpu, was, (now_ns, runs), &stay);
        }
        let thread = self.threads.get_mut(slot)?;
        let queues = &mut self.spans.queues;
        if straight.is_none() {
            queues.arriving = Arriving::default();
        }
        queues.quotas.runs(thread.cpu_cgroup, cpu, now_ns);
        queues.begin_stay(thread, NO_CPU);
        thread.is_throttled = false;
        thread.state = State::Running;
        thread.cpu = number;
        thread.proven_ns = now_ns;
        thread.forget_stay();
        thread.runs = runs;
        thread.delay_ns = delay_ns.unwrap_or(NEVER);
        thread.unqueued = unqueued;
        thread.is_unstamped = false;
        let unit = thread.unit;
        if let Some((culprit, duration_ns)) = held {
            self.charge_thread(culprit, unit, duration_ns);
        }
        Some(runner)
    }

    /// The first wakeup ends a wait. One of a thread that does not wait starts nothing.
    fn wakeup(&mut self, record: &Wakeup) {
        let Some(slot) = self.threads.find(record.tid) else {
            return self.passes.woken(record.tid);
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if matches!(thread.state, State::Running | State::Queued(_)) {
            thread.rewoken_ns = record.ts_ns;
            return;
        }
        let (now_ns, in_order) = self.spans.in_order(thread, record.ts_ns);
        // One out of order is as good as none: it does not say when the wait ended.
        if in_order && !thread.is_woken() {
            thread.woken_ns = now_ns;
            self.spans.queues.begin_stay(thread, record.cpu);
        } else if in_order && now_ns > thread.woken_ns {
            thread.rewoken_ns = now_ns;
        }
    }

    fn fork(&mut self, record: &Fork) {
        if self.evict(record.tid, record.ts_ns) {
            self.spans.conflicts.count(Conflict::TidReused);
        }
        let now_ns = record.ts_ns.max(self.spans.shown_ns);
        let parent = self
            .threads
            .find(record.parent_tid)
            .and_then(|slot| self.threads.get(slot));
        if record.tid == record.tgid {
            let parent_tgid = parent.map_or(0, |parent| parent.tgid);
            self.births.note(record.tgid, parent_tgid);
            self.spans.ledger.forget_process(record.tgid);
            self.spans.ledger.follow(record.tgid, parent_tgid);
        }
        let mut thread = Thread::unseen(record.tid, now_ns);
        thread.start_ns = record.start_ns;
        thread.tgid = record.tgid;
        match parent {
            Some(parent) if parent.comm != Comm::default() => thread.inherit(parent),
            _ => self.passes.born(record.tid, record.parent_tid),
        }
        if record.flags & thread_flags::OWN_NAME != 0 {
            thread.comm = Comm::default();
        }
        thread.kthread = record.flags & thread_flags::KTHREAD != 0;
        thread.state = State::Queued(Origin::Forked);
        thread.queue_cpu = u32::from(record.cpu);
        if now_ns == record.ts_ns {
            thread.woken_ns = now_ns;
        } else {
            self.spans.conflicts.count(Conflict::Inverted);
        }
        thread.delay_ns = 0;
        // Its first switch-in reads zero.
        thread.runs = Some(u16::MAX);
        self.add(thread);
    }

    fn gap(&mut self, cpu: usize, record: &Gap) {
        self.counts.lost = self.counts.lost.saturating_add(record.lost);
        self.spans.gaps.add(cpu, record.ts_ns, record.until_ns);
        let quotas = &mut self.spans.queues.quotas;
        quotas.lose(record.ts_ns, record.until_ns);
        let timeline = &mut self.spans.queues.timeline;
        timeline.hold(cpu, record.ts_ns, Holder::Unknown);
    }

    /// Records of some threads are left out from now on, or of others than before. Which spans that puts in
    /// doubt `gaps` knows. Of a CPU it is still known who has it if that is one who is kept; when another one
    /// leaves it, or its idling ends, is not recorded.
    fn shed(&mut self, record: &Shed) {
        self.counts.shed.add(record);
        self.shedding.take_in(record);
        let mask = shed::mask(record.shift);
        if !self.spans.gaps.shed(record.ts_ns, mask) {
            return;
        }
        for (number, cpu) in self.cpus.iter_mut().enumerate() {
            let is_kept = match *cpu {
                Cpu::Unknown => true,
                Cpu::Idle => false,
                Cpu::Runs(slot) => {
                    let thread = self.threads.get(slot);
                    thread.is_some_and(|thread| shed::is_kept(thread.tid, mask))
                }
            };
            if !is_kept {
                *cpu = Cpu::Unknown;
                let timeline = &mut self.spans.queues.timeline;
                timeline.hold(number, record.ts_ns, Holder::Unknown);
            }
        }
    }

    fn rename(&mut self, record: &Rename) {
        let Some(slot) = self.threads.find(record.tid) else {
            return self.passes.renamed(record.tid, Comm(record.comm));
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        thread.comm = Comm(record.comm);
        self.admit(slot, record.ts_ns);
    }

    fn exec(&mut self, record: &Exec) {
        if record.tid != record.old_tid {
            self.passes.vacated(record.old_tid);
            let has_old_tid = self.threads.find(record.old_tid).is_some();
            let slot = self.threads.find(record.tid);
            match slot.and_then(|slot| self.threads.get_mut(slot)) {
                Some(thread) if thread.is_exchanged => thread.is_exchanged = false,
                _ if has_old_tid => {
                    self.exchange(record.old_tid, record.tid, false, record.ts_ns);
                }
                _ => {}
            }
        }
        for target in &mut self.spans.ledger.targets {
            if target.spec.selector.command() == Some(record.tid) && target.exec_ns.is_none() {
                target.begin(record.tid, record.ts_ns);
            }
        }
        if let Some(slot) = self.threads.find(record.tid) {
            self.admit(slot, record.ts_ns);
        }
    }

    /// Puts a thread into a target that takes it from now on.
    pub(super) fn admit(&mut self, slot: Slot, now_ns: u64) {
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if self.spans.ledger.enroll(thread) {
            thread.observed_from_ns = self.spans.not_before(thread, now_ns);
        }
    }

    /// Adds processes, by their ids, rising, to a target; what they have done so far does not count for it.
    pub(super) fn join(&mut self, target: usize, tgids: &[u32], now_ns: u64) {
        self.spans.ledger.join(target, tgids.iter().copied());
        self.enroll_all(now_ns, |thread| tgids.binary_search(&thread.tgid).is_ok());
    }

    /// Puts threads into the targets that take them from now on.
    fn enroll_all(&mut self, now_ns: u64, is_meant: impl Fn(&Thread) -> bool) {
        for thread in self.threads.iter_mut().filter(|thread| is_meant(thread)) {
            if self.spans.ledger.enroll(thread) {
                thread.observed_from_ns = self.spans.not_before(thread, now_ns);
            }
        }
    }

    /// Watches these targets from now on; threads that come to one count for it from `now_ns` on.
    pub(super) fn retarget(&mut self, specs: Vec<TargetSpec>, now_ns: u64) {
        let moved = self.spans.ledger.retarget(specs);
        for thread in self.threads.iter_mut() {
            let number = thread.target.map(usize::from);
            thread.target = number.and_then(|number| moved.get(number).copied().flatten());
            if thread.target.is_none() {
                thread.account = None;
            }
        }
        self.enroll_all(now_ns, |thread| thread.target.is_none());
    }

    /// Takes note of what units there are and who belongs to them, from `now_ns` on.
    pub(super) fn learn_units(&mut self, news: &UnitNews, now_ns: u64) {
        let closed = |number: UnitNumber| news.closed.contains(&number);
        if !news.closed.is_empty() {
            self.place(now_ns, |thread| {
                closed(thread.unit).then_some(UnitNumber::OTHER)
            });
        }
        let units = &mut self.spans.ledger.units;
        for &number in &news.closed {
            units.close(number);
        }
        for (number, label) in &news.named {
            units.name(*number, Arc::clone(label), now_ns);
        }
        let mut placed = news.placed.clone();
        placed.sort_unstable_by_key(|&(tgid, _)| tgid);
        self.place(now_ns, |thread| {
            let told = placed.binary_search_by_key(&thread.tgid, |&(tgid, _)| tgid);
            told.ok().map(|place| placed[place].1)
        });
    }

    /// Puts threads into the units that `unit_of` says. What they have done so far stays with the old ones.
    fn place(&mut self, now_ns: u64, unit_of: impl Fn(&Thread) -> Option<UnitNumber>) {
        for thread in self.threads.iter_mut() {
            let units = &self.spans.ledger.units;
            let number = unit_of(thread).map(|number| {
                if units.has(number) {
                    number
                } else {
                    UnitNumber::OTHER
                }
            });
            if let Some(number) = number.filter(|&number| number != thread.unit) {
                self.spans.settle_open(thread, now_ns);
                thread.unit = number;
            }
        }
        self.charge();
    }

    /// The thread with this id, if need be as one that was never announced; the idle task is none.
    #[inline]
    fn find_or_meet(&mut self, tid: u32, now_ns: u64) -> Option<Slot> {
        match self.threads.find(tid) {
            Some(slot) => Some(slot),
            None if tid == 0 => None,
            None => {
                self.spans.conflicts.count(Conflict::UnseenThread);
                self.add(Thread::unseen(tid, now_ns.max(self.spans.shown_ns)))
            }
        }
    }

    pub(super) fn add(&mut self, mut thread: Thread) -> Option<Slot> {
        if thread.unit == UnitNumber::OTHER {
            // One whose parent is not known has its process's.
            let leader = self.threads.find(thread.tgid);
            let leader = leader.and_then(|slot| self.threads.get(slot));
            thread.unit = leader.map_or(UnitNumber::OTHER, |leader| leader.unit);
        }
        self.spans.ledger.enroll(&mut thread);
        self.threads.insert(thread)
    }

    /// Closes the thread that still has this id, though it is known to be gone.
    pub(super) fn evict(&mut self, tid: u32, now_ns: u64) -> bool {
        let Some(slot) = self.threads.find(tid) else {
            return false;
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return false;
        };
        let now_ns = self.spans.not_before(thread, now_ns);
        let sure_ns = self.spans.doubt(thread, now_ns).unwrap_or(thread.since_ns);
        self.spans.lose(thread, sure_ns, now_ns, None);
        self.retire(slot, now_ns);
        true
    }

    /// A thread is gone; what it did stays with its target.
    fn retire(&mut self, slot: Slot, now_ns: u64) {
        // While it can still be found.
        self.charge();
        let Some(mut thread) = self.threads.remove(slot) else {
            return;
        };
        self.passes.vacated(thread.tid);
        self.departed.add(&thread);
        self.spans.queues.begin_stay(&mut thread, NO_CPU);
        self.bury(&thread);
        let target = thread
            .target
            .and_then(|t| self.spans.ledger.targets.get_mut(usize::from(t)));
        if let (Some(target), Some(account)) = (target, thread.account.take()) {
            target.end(ThreadSnapshot::ended(&thread, *account, now_ns));
        }
    }
}
