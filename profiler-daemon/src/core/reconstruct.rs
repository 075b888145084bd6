//! Events to spans: what every thread and every CPU is doing, and what it did until now.
//!
//! One rule for each kind of event. Each closes the open span of the threads that it touches, books
//! the time, and opens the next span. All time between two events of a thread goes through
//! [`Spans::settle`], so no nanosecond is booked twice or left out.

use profiler_ebpf::{Exec, Fork, Gap, RawRecord, Rename, Switch, ThreadRecord, Wakeup};
use profiler_ebpf::{switch_flags, thread_flags};

use super::conflict::{Conflict, Conflicts};
use super::decode::Event;
use super::gaps::Gaps;
use super::snapshot::{Counts, ThreadSnapshot};
use super::state::{StateWord, WaitState};
use super::target::{Ledger, Selector, Target, TargetSpec};
use super::thread::{Comm, NEVER, NO_CPU, Origin, Share, State, Thread};
use super::threads::{Slot, Threads};

/// The kernel's delay and ours may differ by this much, or by one part in a hundred: the time in
/// which a queued thread is on its way from one run queue to another is in ours only.
const DELAY_TOLERANCE_NS: u64 = 20_000;

/// The machine as the records show it.
#[derive(Debug, Default)]
pub struct Reconstruction {
    pub(super) threads: Threads,
    /// Thread on each CPU, as far as known; 0 is the idle task.
    cpus: Vec<Option<u32>>,
    pub(super) spans: Spans,
    pub(super) counts: Counts,
    pub(super) window_start_ns: Option<u64>,
}

/// What books time: apart from the threads, so that both can be borrowed at once.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) ledger: Ledger,
    pub(super) gaps: Gaps,
    pub(super) conflicts: Conflicts,
}

impl Reconstruction {
    /// A machine of which nothing is known yet.
    #[must_use]
    pub fn new(targets: Vec<TargetSpec>) -> Self {
        let mut this = Self::default();
        this.spans.ledger.targets = targets.into_iter().map(Target::new).collect();
        this
    }

    /// Takes in a thread that the task iterator found; the iteration began at `read_ns`.
    ///
    /// Before the window this sets a provisional state, which any record overrules. Later it names
    /// threads whose birth was lost, and clears threads of doubt that can't have run since.
    pub fn found(&mut self, record: &ThreadRecord, read_ns: u64) {
        let known = self.threads.find(record.tid).filter(|&slot| {
            self.threads
                .get(slot)
                .is_some_and(|thread| thread.start_ns == record.start_ns || thread.start_ns == 0)
        });
        match known {
            Some(slot) => self.confirm(slot, record, read_ns),
            None => self.discover(record, read_ns),
        }
    }

    fn discover(&mut self, record: &ThreadRecord, read_ns: u64) {
        self.evict(record.tid, read_ns);
        let mut thread = Thread::unseen(record.tid, read_ns);
        name(&mut thread, record);
        thread.provisional = self.window_start_ns.is_none();
        thread.cpu = record.cpu;
        thread.runs = Some(record.runs);
        thread.delay_ns = record.run_delay_ns;
        thread.state = if record.flags & thread_flags::ON_CPU != 0 {
            State::Running
        } else {
            match StateWord::read(record.state, false) {
                StateWord::Runnable => State::Queued(Origin::Found),
                StateWord::Waiting(wait) => State::Waiting(wait),
                StateWord::Dead => return,
            }
        };
        self.spans.ledger.enroll(&mut thread);
        self.threads.insert(thread);
    }

    fn confirm(&mut self, slot: Slot, record: &ThreadRecord, read_ns: u64) {
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if thread.tgid == 0 {
            name(thread, record);
            self.spans.ledger.enroll(thread);
        }
        let off_cpu = record.flags & thread_flags::ON_CPU == 0 && thread.state != State::Running;
        if off_cpu && thread.runs == Some(record.runs) && read_ns > thread.since_ns {
            if let (State::Unknown, StateWord::Waiting(wait)) =
                (thread.state, StateWord::read(record.state, false))
            {
                self.spans
                    .settle(thread, read_ns, Share::Unknown, WaitState::Other);
                thread.state = State::Waiting(wait);
            }
            thread.proven_ns = read_ns;
        }
    }

    /// Begins the window: what was booked so far is forgotten, what is open counts from here on.
    pub fn begin_window(&mut self, start_ns: u64) {
        self.window_start_ns = Some(start_ns);
        self.counts = Counts::default();
        self.spans.conflicts = Conflicts::default();
        self.spans.ledger.host = super::figures::Figures::default();
        for target in &mut self.spans.ledger.targets {
            target.clear();
        }
        for slot in self.threads.slots() {
            let Some(thread) = self.threads.get_mut(slot) else {
                continue;
            };
            if self.spans.doubt(thread).is_some() {
                thread.state = State::Unknown;
            }
            if let (State::Waiting(_), true) = (thread.state, thread.woken_ns != NEVER) {
                thread.state = State::Queued(Origin::Found);
            }
            thread.provisional = false;
            thread.observed_from_ns = start_ns;
            thread.since_ns = start_ns;
            thread.left_ns = NEVER;
            thread.woken_ns = NEVER;
            if let Some(figures) = &mut thread.figures {
                **figures = super::figures::Figures::default();
            }
        }
    }

    /// Takes in one record of the stream (CPU) with this number.
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
                }
            }
            Err(_) => self.counts.undecodable += 1,
        }
    }

    fn switch(&mut self, cpu: usize, record: &Switch) {
        if self.cpus.len() <= cpu {
            self.cpus.resize(cpu + 1, None);
        }
        match self.cpus[cpu].replace(record.next_tid) {
            Some(was) if was != record.prev_tid && was != 0 => {
                self.missed_switch_out(cpu, was, record);
            }
            _ => {}
        }
        if record.prev_tid != 0 {
            self.leave(cpu, record);
        }
        if record.next_tid != 0 {
            self.enter(cpu, record);
        }
    }

    /// A thread that was on this CPU is not there any more, and nobody saw it leave.
    fn missed_switch_out(&mut self, cpu: usize, tid: u32, record: &Switch) {
        let Some(thread) = self
            .threads
            .find(tid)
            .and_then(|slot| self.threads.get_mut(slot))
        else {
            return;
        };
        if thread.running_on() == Some(cpu) {
            self.spans.conflicts.count(Conflict::MissedSwitchOut);
            self.spans.lose(thread, record.ts_ns);
        }
    }

    fn leave(&mut self, cpu: usize, record: &Switch) {
        let Some(slot) = self.find_or_meet(record.prev_tid, record.ts_ns) else {
            return;
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        let now_ns = self.spans.in_order(thread, record.ts_ns);
        match thread.state {
            _ if thread.provisional => {
                self.spans
                    .settle(thread, now_ns, Share::Running, WaitState::Other);
            }
            State::Running if thread.running_on() == Some(cpu) => {
                self.spans.settle_open(thread, now_ns);
            }
            State::Running => self
                .spans
                .contradict(thread, now_ns, Conflict::RanElsewhere),
            State::Queued(_) | State::Waiting(_) => {
                self.spans
                    .contradict(thread, now_ns, Conflict::MissedSwitchIn);
            }
            State::Unknown => self.spans.settle_open(thread, now_ns),
        }
        thread.provisional = false;
        thread.cpu = u32::try_from(cpu).unwrap_or(NO_CPU);
        thread.left_ns = now_ns;
        thread.woken_ns = NEVER;
        let preempted = record.flags & switch_flags::PREEMPT != 0;
        match StateWord::read(u32::from(record.prev_state), preempted) {
            StateWord::Runnable => {
                self.spans
                    .ledger
                    .book(thread, |figures| figures.involuntary += 1);
                thread.state = State::Queued(Origin::Preempted);
                thread.woken_ns = now_ns;
            }
            StateWord::Waiting(wait) => {
                self.spans
                    .ledger
                    .book(thread, |figures| figures.voluntary += 1);
                thread.state = State::Waiting(wait);
            }
            StateWord::Dead => {
                self.spans
                    .ledger
                    .book(thread, |figures| figures.voluntary += 1);
                self.retire(slot, now_ns);
            }
        }
    }

    fn enter(&mut self, cpu: usize, record: &Switch) {
        let Some(slot) = self.find_or_meet(record.next_tid, record.ts_ns) else {
            return;
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        let now_ns = self.spans.in_order(thread, record.ts_ns);
        let runs = (record.flags & switch_flags::NEXT_COUNTED != 0).then_some(record.next_runs);
        let delay_ns =
            (record.flags & switch_flags::NEXT_STAMPED != 0).then_some(record.next_delay_ns);
        if thread.provisional {
            self.spans
                .settle(thread, now_ns, Share::Unknown, WaitState::Other);
        } else {
            self.spans.end_offcpu(thread, now_ns, runs, delay_ns);
        }
        let cpu = u32::try_from(cpu).unwrap_or(NO_CPU);
        if thread.cpu != cpu && thread.cpu != NO_CPU {
            self.spans
                .ledger
                .book(thread, |figures| figures.migrations += 1);
        }
        thread.provisional = false;
        thread.state = State::Running;
        thread.cpu = cpu;
        thread.left_ns = NEVER;
        thread.woken_ns = NEVER;
        thread.runs = runs;
        thread.delay_ns = delay_ns.unwrap_or(NEVER);
    }

    /// The first wakeup of a wait counts. A wakeup of a thread that does not wait starts nothing.
    fn wakeup(&mut self, record: &Wakeup) {
        let Some(slot) = self.find_or_meet(record.tid, record.ts_ns) else {
            return;
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if thread.provisional {
            thread.state = State::Queued(Origin::Found);
        } else if matches!(thread.state, State::Waiting(_)) && thread.woken_ns == NEVER {
            thread.woken_ns = self.spans.in_order(thread, record.ts_ns);
        }
    }

    fn fork(&mut self, record: &Fork) {
        if self.evict(record.tid, record.ts_ns) {
            self.spans.conflicts.count(Conflict::TidReused);
        }
        let parent = self
            .threads
            .find(record.parent_tid)
            .and_then(|slot| self.threads.get(slot));
        let mut thread = Thread::unseen(record.tid, record.ts_ns);
        if let Some(parent) = parent {
            thread.comm = parent.comm;
            thread.parent_tgid = if parent.tgid == record.tgid {
                parent.parent_tgid
            } else {
                parent.tgid
            };
        }
        thread.start_ns = record.start_ns;
        thread.tgid = record.tgid;
        thread.kthread = record.flags & thread_flags::KTHREAD != 0;
        thread.state = State::Queued(Origin::Forked);
        thread.woken_ns = record.ts_ns;
        thread.delay_ns = 0;
        // Its first switch-in reads zero.
        thread.runs = Some(u16::MAX);
        self.spans.ledger.enroll(&mut thread);
        self.threads.insert(thread);
    }

    fn gap(&mut self, cpu: usize, record: &Gap) {
        self.counts.lost += record.lost;
        self.spans.gaps.add(cpu, record.ts_ns, record.until_ns);
    }

    fn rename(&mut self, record: &Rename) {
        let Some(slot) = self.threads.find(record.tid) else {
            return;
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        thread.comm = Comm(record.comm);
        self.admit(slot, record.ts_ns);
    }

    fn exec(&mut self, record: &Exec) {
        if record.tid != record.old_tid
            && let Some(slot) = self.threads.find(record.old_tid)
        {
            // The thread that called exec takes over the id of its process's first thread.
            self.evict(record.tid, record.ts_ns);
            self.threads.rekey(slot, record.tid);
        }
        for target in &mut self.spans.ledger.targets {
            if target.spec.selector == Selector::Command(record.tid) && target.exec_ns.is_none() {
                target.exec_ns = Some(record.ts_ns);
            }
        }
        if let Some(slot) = self.threads.find(record.tid) {
            self.admit(slot, record.ts_ns);
        }
    }

    /// Puts a thread into a target that takes it from now on, with its figures from now on.
    fn admit(&mut self, slot: Slot, now_ns: u64) {
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if thread.target.is_some() {
            return;
        }
        let now_ns = now_ns.max(thread.since_ns);
        self.spans.settle_open(thread, now_ns);
        if self.spans.ledger.enroll(thread) {
            thread.observed_from_ns = now_ns;
        }
    }

    /// The thread with this id, if need be as one that was never announced.
    #[inline]
    fn find_or_meet(&mut self, tid: u32, now_ns: u64) -> Option<Slot> {
        if let Some(slot) = self.threads.find(tid) {
            return Some(slot);
        }
        self.spans.conflicts.count(Conflict::UnseenThread);
        let mut thread = Thread::unseen(tid, now_ns);
        self.spans.ledger.enroll(&mut thread);
        self.threads.insert(thread)
    }

    /// Closes the thread that still has this id, though another one has it now.
    fn evict(&mut self, tid: u32, now_ns: u64) -> bool {
        let Some(slot) = self.threads.find(tid) else {
            return false;
        };
        if let Some(thread) = self.threads.get_mut(slot) {
            let now_ns = now_ns.max(thread.since_ns);
            self.spans.lose(thread, now_ns);
        }
        self.retire(slot, now_ns);
        true
    }

    /// A thread is gone; what it did stays with its target.
    fn retire(&mut self, slot: Slot, now_ns: u64) {
        let Some(mut thread) = self.threads.remove(slot) else {
            return;
        };
        let target = thread
            .target
            .and_then(|t| self.spans.ledger.targets.get_mut(usize::from(t)));
        if let (Some(target), Some(figures)) = (target, thread.figures.take()) {
            target.end(ThreadSnapshot::ended(&thread, *figures, now_ns));
        }
    }
}

fn name(thread: &mut Thread, record: &ThreadRecord) {
    thread.start_ns = record.start_ns;
    thread.comm = Comm(record.comm);
    thread.tgid = record.tgid;
    thread.parent_tgid = record.parent_tgid;
    thread.kthread = record.flags & thread_flags::KTHREAD != 0;
}

impl Spans {
    /// Books a thread's time up to `until_ns` as one share. Nothing else books time.
    #[inline]
    pub(super) fn settle(
        &mut self,
        thread: &mut Thread,
        until_ns: u64,
        share: Share,
        wait: WaitState,
    ) {
        let Some(duration_ns) = until_ns.checked_sub(thread.since_ns) else {
            return;
        };
        thread.since_ns = until_ns;
        self.ledger
            .book(thread, |figures| figures.add_time(share, wait, duration_ns));
    }

    /// Books the open span up to `until_ns` as what it was, and as unknown from where it is in doubt.
    #[inline]
    fn settle_open(&mut self, thread: &mut Thread, until_ns: u64) {
        for (share, wait, end_ns) in self.parts(thread, until_ns) {
            self.settle(thread, end_ns, share, wait);
        }
    }

    /// The open span cut in its parts, in order: share, kind of wait, end. They cover it whole.
    pub(super) fn parts(&self, thread: &Thread, until_ns: u64) -> [(Share, WaitState, u64); 3] {
        let sure_ns = self.doubt(thread).unwrap_or(until_ns).min(until_ns);
        let (share, wait) = match thread.state {
            State::Running => (Share::Running, WaitState::Other),
            State::Queued(_) => (Share::Runnable, WaitState::Other),
            State::Waiting(wait) => (Share::Blocked, wait),
            State::Unknown => (Share::Unknown, WaitState::Other),
        };
        // An unknown woken time is later than any other.
        let turn_ns = if share == Share::Blocked {
            thread.woken_ns.min(sure_ns)
        } else {
            sure_ns
        };
        [
            (share, wait, turn_ns),
            (Share::Runnable, WaitState::Other, sure_ns),
            (Share::Unknown, WaitState::Other, until_ns),
        ]
    }

    /// From when on the open span of a thread is in doubt, if it is.
    #[inline]
    fn doubt(&self, thread: &Thread) -> Option<u64> {
        self.gaps
            .doubt(thread.since_ns.max(thread.proven_ns), thread.running_on())
    }

    /// A record's time, or the start of the open span if the record is older than that.
    #[inline]
    fn in_order(&mut self, thread: &mut Thread, ts_ns: u64) -> u64 {
        if ts_ns >= thread.since_ns {
            return ts_ns;
        }
        if !thread.provisional {
            self.conflicts.count(Conflict::Inverted);
            // What began or ends here has no length that could be trusted.
            thread.left_ns = NEVER;
            thread.woken_ns = if thread.woken_ns == NEVER {
                NEVER
            } else {
                thread.since_ns
            };
        }
        thread.since_ns
    }

    /// The open span is contradicted: what is not sure of it is unknown.
    #[cold]
    fn contradict(&mut self, thread: &mut Thread, now_ns: u64, conflict: Conflict) {
        self.conflicts.count(conflict);
        self.lose(thread, now_ns);
    }

    /// Books the open span as unknown from where it is in doubt, else from its start; what the thread
    /// does from now on is unknown.
    fn lose(&mut self, thread: &mut Thread, now_ns: u64) {
        if let Some(doubt_ns) = self.doubt(thread) {
            self.settle_open(thread, doubt_ns.min(now_ns));
        }
        self.settle(thread, now_ns, Share::Unknown, WaitState::Other);
        thread.state = State::Unknown;
        thread.left_ns = NEVER;
        thread.woken_ns = NEVER;
    }

    /// A thread gets a CPU: books the time since it left the last one, and takes samples of it if the
    /// whole of it was seen.
    fn end_offcpu(
        &mut self,
        thread: &mut Thread,
        now_ns: u64,
        runs: Option<u16>,
        delay_ns: Option<u64>,
    ) {
        match (thread.runs, runs) {
            // The kernel counted no run in between: no loss concerns this wait.
            (Some(before), Some(now)) if before.wrapping_add(1) == now => thread.proven_ns = now_ns,
            (Some(_), Some(_)) if thread.state != State::Unknown => {
                return self.contradict(thread, now_ns, Conflict::MissedRun);
            }
            _ if thread.state != State::Unknown && self.doubt(thread).is_some() => {
                return self.lose(thread, now_ns);
            }
            _ => {}
        }
        // What the kernel says this wait's run-queue delay was, all of it.
        let kernel_ns = match delay_ns {
            Some(now) if thread.delay_ns != NEVER => now.checked_sub(thread.delay_ns),
            _ => None,
        };
        match thread.state {
            State::Unknown => return self.settle_open(thread, now_ns),
            State::Running => return self.contradict(thread, now_ns, Conflict::MissedSwitchOut),
            State::Waiting(_) => {
                if thread.woken_ns == NEVER {
                    let Some(kernel_ns) = kernel_ns else {
                        self.conflicts.count(Conflict::MissedWakeup);
                        self.settle(thread, now_ns, Share::Unknown, WaitState::Other);
                        return self.sample(thread, now_ns, None);
                    };
                    let enqueued_ns = now_ns.saturating_sub(kernel_ns);
                    if enqueued_ns < thread.since_ns {
                        // It queued from before the window on, or clocks differ.
                        if thread.left_ns != NEVER {
                            self.conflicts.count(Conflict::DelayDisagrees);
                        }
                        thread.left_ns = NEVER;
                    }
                    thread.woken_ns = enqueued_ns.max(thread.since_ns);
                    let queued_ns = (enqueued_ns >= thread.since_ns).then_some(kernel_ns);
                    self.ledger.book(thread, |figures| figures.wakeups += 1);
                    self.settle_open(thread, now_ns);
                    return self.sample(thread, now_ns, queued_ns);
                }
                self.ledger.book(thread, |figures| figures.wakeups += 1);
            }
            State::Queued(_) => {}
        }
        let queued_ns = (thread.woken_ns != NEVER).then(|| now_ns.saturating_sub(thread.woken_ns));
        if let (Some(ours), Some(kernel)) = (queued_ns, kernel_ns) {
            let difference = ours.abs_diff(kernel);
            if difference > DELAY_TOLERANCE_NS.max(ours / 100) {
                self.conflicts.count(Conflict::DelayDisagrees);
            }
        }
        self.settle_open(thread, now_ns);
        self.sample(thread, now_ns, queued_ns);
    }

    fn sample(&mut self, thread: &mut Thread, now_ns: u64, queued_ns: Option<u64>) {
        let offcpu_ns = (thread.left_ns != NEVER).then(|| now_ns.saturating_sub(thread.left_ns));
        // A newborn thread was never on a CPU that it could have left.
        let censored = offcpu_ns.is_none() && thread.state != State::Queued(Origin::Forked);
        self.ledger.book(thread, |figures| {
            if let Some(queued_ns) = queued_ns {
                figures.runqueue_delay.record(queued_ns);
            }
            if let Some(offcpu_ns) = offcpu_ns {
                figures.offcpu.record(offcpu_ns);
            }
            figures.censored += u64::from(censored);
        });
    }
}
