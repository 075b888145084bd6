//! What the task iterator found: who is alive, and what they do.
//!
//! A pass takes a while, and a thread may do this and that between being read and the end of the
//! pass. So what was found is not looked at before all records up to the end of the pass are in. Then
//! it is simple: a thread without records since the pass began does what it was read doing, and of one
//! with such records more is known already.

use std::ops::RangeInclusive;

use profiler_ebpf::{CgroupMove, ThreadRecord, thread_flags};

use super::classify::{Call, Evidence, FileKind, classify};

use super::conflict::Conflict;
use super::gaps::Concern;
use super::reconstruct::{Cpu, Reconstruction};
use super::spans::What;
use super::spent::Origin;
use super::state::StateWord;
use super::thread::{Comm, LOST_CPU, NEVER, NO_CPU, State, Thread};
use super::threads::Slot;

/// Passes of the iterator that wait for the records up to their end.
#[derive(Debug, Default)]
pub(super) struct Passes {
    waiting: Vec<Pass>,
    /// Ids whose threads ended, or got another id, while passes were waiting: who was found under
    /// one of them is gone.
    vacated: Vec<u32>,
    /// Names that threads nobody knew got meanwhile, oldest first.
    names: Vec<(u32, Comm)>,
    /// Threads nobody knew that were woken meanwhile.
    woken: Vec<u32>,
    /// Threads nobody knew that went to another CPU meanwhile.
    moved: Vec<u32>,
    /// Threads and processes that went to another cgroup meanwhile, oldest first.
    regrouped: Vec<CgroupMove>,
    /// Threads that were born meanwhile, and the nameless threads that made them.
    nameless: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Pass {
    /// By thread id.
    threads: Vec<ThreadRecord>,
    read_ns: RangeInclusive<u64>,
}

impl Passes {
    /// Notes that the thread with this id is gone.
    pub(super) fn vacated(&mut self, tid: u32) {
        if !self.waiting.is_empty() {
            self.vacated.push(tid);
        }
    }

    /// Notes that a thread that nobody knows got another name: it may have been read before that.
    pub(super) fn renamed(&mut self, tid: u32, comm: Comm) {
        if !self.waiting.is_empty() {
            self.names.push((tid, comm));
        }
    }

    /// Notes that a thread that nobody knows was woken: it may have been read before that.
    pub(super) fn woken(&mut self, tid: u32) {
        if !self.waiting.is_empty() {
            self.woken.push(tid);
        }
    }

    /// Notes that a thread that nobody knows went to another CPU: it may have been read before that.
    pub(super) fn moved(&mut self, tid: u32) {
        if !self.waiting.is_empty() {
            self.moved.push(tid);
        }
    }

    /// Notes that a thread went to another cgroup: it may have been read before that.
    pub(super) fn regrouped(&mut self, record: &CgroupMove) {
        if !self.waiting.is_empty() {
            self.regrouped.push(*record);
        }
    }

    /// Notes that a thread was made by one whose name is not known yet.
    pub(super) fn born(&mut self, tid: u32, parent_tid: u32) {
        if !self.waiting.is_empty() {
            self.nameless.push((tid, parent_tid));
        }
    }
}

impl Reconstruction {
    /// Takes in the threads that one whole pass of the task iterator found, when the records up to
    /// the end of the pass are in.
    pub fn found(&mut self, threads: &[ThreadRecord], read_ns: RangeInclusive<u64>) {
        let mut threads = threads.to_vec();
        threads.sort_unstable_by_key(|record| record.tid);
        self.passes.waiting.push(Pass { threads, read_ns });
    }

    /// Looks at the passes that ended by `now_ns`, up to which all records are in.
    pub fn settle_passes(&mut self, now_ns: u64) {
        while let Some(place) = self
            .passes
            .waiting
            .iter()
            .position(|pass| *pass.read_ns.end() <= now_ns)
        {
            let mut pass = self.passes.waiting.remove(place);
            for (tid, comm) in &self.passes.names {
                if let Ok(place) = pass.threads.binary_search_by_key(tid, |record| record.tid)
                    && let Some(record) = pass.threads.get_mut(place)
                {
                    record.comm = comm.0;
                }
            }
            for its in &self.passes.regrouped {
                let is_moved = |record: &ThreadRecord| match its.whole_process {
                    0 => record.tid == its.tid,
                    // The record names the first thread.
                    _ => record.tgid == its.tid,
                };
                let moved = pass.threads.iter_mut().filter(|record| is_moved(record));
                moved.for_each(|record| record.cpu_cgroup = its.cgroup);
            }
            self.passes.vacated.sort_unstable();
            self.passes.woken.sort_unstable();
            self.passes.moved.sort_unstable();
            self.follow_parents(&pass);
            for record in &pass.threads {
                if self.passes.vacated.binary_search(&record.tid).is_err() {
                    self.compare(record, *pass.read_ns.start(), now_ns);
                }
            }
            self.reap(&pass, now_ns);
            self.name_newborn(now_ns);
            self.charge();
        }
        if self.passes.waiting.is_empty() {
            self.passes.vacated.clear();
            self.passes.names.clear();
            self.passes.regrouped.clear();
            self.passes.woken.clear();
            self.passes.moved.clear();
            self.passes.nameless.clear();
        }
    }

    /// Puts the children of processes that are followed into their targets, and the children's children.
    fn follow_parents(&mut self, pass: &Pass) {
        let is_first = |record: &&ThreadRecord| record.tid == record.tgid;
        let mut came = true;
        while came {
            came = false;
            for process in pass.threads.iter().filter(is_first) {
                let ledger = &mut self.spans.ledger;
                came |= ledger.follow(process.tgid, process.parent_tgid);
            }
        }
    }

    /// Gives threads that the pass came too early for the names of those that made them.
    fn name_newborn(&mut self, now_ns: u64) {
        for (tid, parent_tid) in std::mem::take(&mut self.passes.nameless) {
            let parent = self
                .threads
                .find(parent_tid)
                .and_then(|slot| self.threads.get(slot));
            let (Some(parent), Some(slot)) = (parent.cloned(), self.threads.find(tid)) else {
                continue;
            };
            if let Some(thread) = self.threads.get_mut(slot)
                && thread.comm == Comm::default()
            {
                thread.inherit(&parent);
                self.spans.ledger.follow(thread.tgid, parent.tgid);
                self.admit(slot, now_ns);
            }
        }
    }

    fn compare(&mut self, record: &ThreadRecord, begin_ns: u64, now_ns: u64) {
        let Some(state) = state_of(record) else {
            return;
        };
        let Some(slot) = self.threads.find(record.tid) else {
            return self.discover(record, state, begin_ns, now_ns);
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if thread.start_ns == 0 {
            thread.start_ns = record.start_ns;
        }
        match thread.start_ns.cmp(&record.start_ns) {
            std::cmp::Ordering::Equal => self.confirm(slot, record, state, begin_ns, now_ns),
            // The id was used again, and the fork lost.
            std::cmp::Ordering::Less => {
                self.spans.conflicts.count(Conflict::MissedExit);
                self.evict(record.tid, now_ns);
                self.discover(record, state, begin_ns, now_ns);
            }
            // The id was used again after the thread was read.
            std::cmp::Ordering::Greater => {}
        }
    }

    /// A thread of which no record has told.
    fn discover(&mut self, record: &ThreadRecord, state: State, begin_ns: u64, now_ns: u64) {
        let was_woken = self.passes.woken.binary_search(&record.tid).is_ok();
        let state = self.state_now(record.tid, state, was_woken, begin_ns, now_ns);
        let cpu = record.cpu as usize;
        if state == State::Running && self.runs_another(cpu, now_ns) {
            // The one that runs there has taken over this id, and will soon be seen to have it.
            return;
        }
        let mut thread = Thread::unseen(record.tid, now_ns);
        describe(&mut thread, record);
        adopt(&mut thread, record, state, begin_ns);
        let has_moved = self.passes.moved.binary_search(&record.tid).is_ok();
        if matches!(state, State::Queued(_)) && !was_woken && !has_moved {
            thread.queue_cpu = record.cpu;
        }
        if let Some(slot) = self.add(thread)
            && state == State::Running
            && let Some(cpu @ Cpu::Unknown) = self.cpus.get_mut(cpu)
        {
            *cpu = Cpu::Runs(slot);
        }
    }

    /// What a thread does that was read in this state, and was woken or not since the pass began.
    fn state_now(
        &self,
        tid: u32,
        state: State,
        was_woken: bool,
        begin_ns: u64,
        now_ns: u64,
    ) -> State {
        let meanwhile = Concern {
            tid,
            time_ns: begin_ns..=now_ns,
            running_on: None,
        };
        match state {
            // If it had been woken, and had run, before it was read, there would be records of that.
            State::Waiting(_) if was_woken => match self.spans.gaps.doubt(&meanwhile) {
                None => State::Queued(Origin::Found),
                Some(_) => State::Unknown,
            },
            state => state,
        }
    }

    /// Whether the records say without doubt that some thread runs on this CPU.
    fn runs_another(&self, cpu: usize, now_ns: u64) -> bool {
        let Some(&Cpu::Runs(slot)) = self.cpus.get(cpu) else {
            return false;
        };
        self.threads.get(slot).is_some_and(|thread| {
            thread.running_on() == Some(cpu) && self.spans.doubt(thread, now_ns).is_none()
        })
    }

    /// A thread that is known.
    fn confirm(
        &mut self,
        slot: Slot,
        record: &ThreadRecord,
        state: State,
        begin_ns: u64,
        now_ns: u64,
    ) {
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if thread.tgid == 0 || thread.comm == Comm::default() {
            let renamed = thread.comm;
            describe(thread, record);
            if renamed != Comm::default() {
                thread.comm = renamed;
            }
            self.admit(slot, now_ns);
        }
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        let spans = &mut self.spans;
        if thread.state != State::Unknown && spans.doubt(thread, now_ns).is_none() {
            let is_unproven = thread.runs.is_none() && spans.counts != Some(false);
            let is_queued = matches!((thread.state, state), (State::Waiting(_), State::Queued(_)));
            // A run after it was read may have been lost.
            let meanwhile = Concern {
                tid: thread.tid,
                time_ns: begin_ns..=now_ns,
                running_on: thread.running_on(),
            };
            let may_be_old = spans.gaps.doubt(&meanwhile).is_some();
            if is_unproven && !thread.is_woken() && !may_be_old {
                // It has not had a CPU since it was met. But nothing proves that it was off the CPU
                // from then to now: its next switch-in is proven only from here on.
                thread.runs = Some(record.runs);
                thread.delay_ns = record.run_delay_ns;
                thread.left_ns = NEVER;
                if is_queued {
                    // When it was woken nobody can tell: the kernel may have counted a part of this
                    // stay on the run queue already.
                    spans.settle(thread, now_ns, What::Unknown);
                    thread.state = state;
                }
            }
            return;
        }
        if thread.since_ns >= begin_ns {
            return;
        }
        let is_counted = spans.counts == Some(true) && !thread.unqueued && !thread.is_unstamped;
        let has_not_run = is_counted && thread.runs == Some(record.runs);
        let was_woken = thread
            .last_woken_ns()
            .is_some_and(|woken_ns| woken_ns >= begin_ns);
        if has_not_run {
            let was_woken_before = thread.woken_ns < begin_ns;
            let meanwhile = Concern {
                tid: thread.tid,
                time_ns: begin_ns..=now_ns,
                running_on: None,
            };
            let is_sure = spans.gaps.doubt(&meanwhile).is_none();
            match (thread.state, state) {
                (State::Queued(_), State::Queued(_)) => return thread.prove(begin_ns),
                (State::Waiting(_), State::Waiting(_)) if !was_woken_before => {
                    return thread.prove(begin_ns);
                }
                (State::Waiting(_), State::Queued(_))
                    if was_woken_before || (was_woken && is_sure) =>
                {
                    return thread.prove(begin_ns);
                }
                // Its wakeup was lost; the kernel's delay will tell when it was.
                (State::Waiting(_), State::Queued(_)) if spans.stamped => return,
                _ => {}
            }
        }
        // What it did since the loss nobody knows, but what it does now is known.
        let sure_ns = spans.doubt(thread, now_ns).unwrap_or(thread.since_ns);
        // What the kernel counted is of use only if the wait that is cut here is in it.
        let delay_ns = (is_counted && !has_not_run).then_some(record.run_delay_ns);
        spans.lose(thread, sure_ns, now_ns, delay_ns);
        let state = self.state_now(record.tid, state, was_woken, begin_ns, now_ns);
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        adopt(thread, record, state, begin_ns);
    }

    /// Closes threads in doubt that the pass did not find.
    ///
    /// Others are left alone: in a PID namespace the iterator does not see all threads.
    fn reap(&mut self, pass: &Pass, now_ns: u64) {
        let is_found = |tid: u32| {
            pass.threads
                .binary_search_by_key(&tid, |record| record.tid)
                .is_ok_and(|place| {
                    pass.threads
                        .get(place)
                        .is_some_and(|record| state_of(record).is_some())
                })
        };
        let gone: Vec<u32> = self
            .threads
            .iter()
            .filter(|thread| thread.since_ns < *pass.read_ns.start())
            .filter(|thread| {
                let is_unknown = thread.state == State::Unknown
                    && self.spans.shed_from(thread, now_ns).is_none();
                // An end is never left out on purpose.
                is_unknown || self.spans.loss(thread, now_ns).is_some()
            })
            .map(|thread| thread.tid)
            .filter(|&tid| !is_found(tid))
            .collect();
        for tid in gone {
            self.spans.conflicts.count(Conflict::MissedExit);
            self.evict(tid, now_ns);
        }
    }
}

/// What a thread was read doing; `None` if it was gone already, or not yet born.
fn state_of(record: &ThreadRecord) -> Option<State> {
    if record.flags & thread_flags::ON_CPU != 0 {
        return Some(State::Running);
    }
    match StateWord::read(record.state, false) {
        StateWord::Runnable => Some(State::Queued(Origin::Found)),
        StateWord::Waiting(state) => {
            let has = |flag: u8| record.flags & flag != 0;
            Some(State::Waiting(classify(&Evidence {
                state,
                iowait: has(thread_flags::IOWAIT),
                kthread: has(thread_flags::KTHREAD),
                call: if has(thread_flags::SYSCALL) {
                    Call::from_wire(record.syscall)
                } else {
                    Call::NotRead
                },
                file: FileKind::NotKnown,
                symbol: None,
            })))
        }
        StateWord::Dead | StateWord::New => None,
    }
}

fn describe(thread: &mut Thread, record: &ThreadRecord) {
    thread.start_ns = record.start_ns;
    thread.comm = Comm(record.comm);
    thread.tgid = record.tgid;
    thread.parent_tgid = record.parent_tgid;
    thread.kthread = record.flags & thread_flags::KTHREAD != 0;
    thread.cpu_cgroup = record.cpu_cgroup;
}

/// Takes over what a thread was read doing. Losses since the pass began put it in doubt.
fn adopt(thread: &mut Thread, record: &ThreadRecord, state: State, begin_ns: u64) {
    thread.state = state;
    thread.cpu = record.cpu;
    thread.queue_cpu = match state {
        State::Queued(_) => LOST_CPU,
        _ => NO_CPU,
    };
    thread.runs = Some(record.runs);
    thread.delay_ns = record.run_delay_ns;
    thread.unqueued = false;
    // One that was preempted on its way to sleep and then woken looks like any other on the queue.
    thread.is_unstamped = matches!(state, State::Queued(_));
    thread.proven_ns = begin_ns;
    thread.forget_stay();
}
