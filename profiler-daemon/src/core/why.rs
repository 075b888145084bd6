//! Why threads waited: what other records say of a stay off the CPU, and what is kept of it once the
//! thread has a CPU again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use profiler_ebpf::{CgroupMove, Interrupts, Migrate, Switch, Throttled, Waking, switch_flags};

use super::blame::{Culprits, Witnesses};
use super::classify::{self, Call, FileKind, Stack, Wait, classify};
use super::history::{Past, SHORT_NS};
use super::ranking::{Ranking, Weight};
use super::reason::Reason;
use super::reconstruct::Reconstruction;
use super::spans::{Held, Spans, Stay, What};
use super::spent::Origin;
use super::state::WaitState;
use super::thread::{State, Thread};
use super::threads::Slot;
use super::timeline::Runner;
use super::units::UnitNumber;
use super::who::{Names, Waker, WakerKind, Who};
use super::worst::{LongWait, Waited};

/// What was seen of a wait: where the thread stood, and what its system call worked on.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The thread.
    pub tid: u32,
    /// When it left its CPU; 0 if that was before the probes were attached.
    pub left_ns: u64,
    /// What the call's descriptor stands for.
    pub file: FileKind,
    /// Where in the kernel it waited.
    pub stack: Arc<Stack>,
    /// Where in its program it waited, by the number under which the kernel keeps that.
    pub user_stack: Option<u32>,
}

/// What was seen of waits whose end is still to come.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    waits: BTreeMap<(u32, u64), Seen>,
    /// The same waits, the oldest first.
    by_age: BTreeSet<(u64, u32)>,
    /// Those that nobody has looked for among the waits that go on since the records of their
    /// beginnings came in.
    fresh: Vec<(u32, u64)>,
    /// What was seen of the wait that ends just now.
    latest: Option<Seen>,
}

/// Waits that something is kept of. Beyond, the oldest is dropped: its wait has ended unseen.
const MAX_EVIDENCE: usize = 1 << 14;

impl Evidence {
    fn add(&mut self, seen: Seen) {
        if self.waits.len() >= MAX_EVIDENCE
            && let Some((left_ns, tid)) = self.by_age.pop_first()
        {
            self.waits.remove(&(tid, left_ns));
        }
        self.by_age.insert((seen.left_ns, seen.tid));
        self.waits.insert((seen.tid, seen.left_ns), seen);
    }

    /// The wait of a thread ends: takes what was seen of it, if anything was.
    #[inline]
    pub(super) fn refine(&mut self, thread: &mut Thread) {
        self.latest = None;
        if self.waits.is_empty() {
            return;
        }
        if let State::Waiting(wait) = thread.state {
            self.latest = self.waits.remove(&key(thread));
            if let Some(seen) = &self.latest {
                self.by_age.remove(&(seen.left_ns, seen.tid));
                thread.state = State::Waiting(wait.with(seen.file, &seen.stack));
            }
        }
    }
}

/// A wait, as who saw it names it.
fn key(thread: &Thread) -> (u32, u64) {
    (thread.tid, thread.departed_ns)
}

fn waked_by_thread(waker: Waker) -> bool {
    waker.kind == WakerKind::Thread
}

/// The system call that the outgoing thread of a switch is in.
pub(super) fn call_of(record: &Switch) -> Call {
    if record.flags & switch_flags::PREV_SYSCALL != 0 {
        Call::from_wire(record.prev_syscall)
    } else {
        Call::NotRead
    }
}

/// Why the outgoing thread of a switch waits, as far as the switch tells.
pub(super) fn wait_of(record: &Switch, state: WaitState) -> Wait {
    const ALL: u8 =
        switch_flags::PREV_SYSCALL | switch_flags::PREV_IOWAIT | switch_flags::PREV_KTHREAD;
    if record.flags & ALL == switch_flags::PREV_SYSCALL
        && state == WaitState::Sleeping
        && let Some(wait) = classify::asleep_in(record.prev_syscall)
    {
        return wait;
    }
    classify(&classify::Evidence {
        state,
        iowait: record.flags & switch_flags::PREV_IOWAIT != 0,
        kthread: record.flags & switch_flags::PREV_KTHREAD != 0,
        call: call_of(record),
        file: FileKind::NotKnown,
        symbol: None,
    })
}

/// A thread is in another group from now on. For how long it has been queued depends on its group no more.
fn go_to_group(spans: &mut Spans, thread: &mut Thread, record: &CgroupMove) {
    if thread.cpu_cgroup == record.cgroup {
        return;
    }
    let is_queued = matches!(thread.state, State::Queued(_)) || thread.is_woken();
    if is_queued && spans.not_before(thread, record.ts_ns) == record.ts_ns {
        spans.settle_open(thread, record.ts_ns);
    }
    thread.cpu_cgroup = record.cgroup;
}

impl Reconstruction {
    /// Takes in what was seen of waits; each must come before the switch that ends it.
    pub(super) fn seen(&mut self, waits: impl IntoIterator<Item = Seen>) {
        for seen in waits {
            self.evidence.fresh.push((seen.tid, seen.left_ns));
            self.evidence.add(seen);
        }
    }

    /// Says of waits whose end is still to come what was seen as they ended. All records up to
    /// `watermark_ns` are in.
    pub(super) fn explain_waiting(&mut self, watermark_ns: u64) {
        let Evidence { waits, fresh, .. } = &mut self.evidence;
        fresh.retain(|its| {
            let Some(seen) = waits.get(its) else {
                return false;
            };
            let slot = self.threads.find(its.0);
            if let Some(thread) = slot.and_then(|slot| self.threads.get_mut(slot))
                && let State::Waiting(wait) = thread.state
                && key(thread) == *its
            {
                thread.state = State::Waiting(wait.with(seen.file, &seen.stack));
            }
            its.1 > watermark_ns
        });
    }

    /// Takes in what was seen of waits that go on.
    pub(super) fn seen_waiting(&mut self, waits: impl IntoIterator<Item = Seen>) {
        for seen in waits {
            let slot = self.threads.find(seen.tid);
            let Some(thread) = slot.and_then(|slot| self.threads.get_mut(slot)) else {
                continue;
            };
            if let State::Waiting(wait) = thread.state
                && key(thread).1 == seen.left_ns
            {
                thread.state = State::Waiting(wait.with(seen.file, &seen.stack));
                self.evidence.add(seen);
            }
        }
    }

    /// Whether a thread of a target has been waiting for at least so long, nobody knows why.
    pub(super) fn has_unexplained_wait(&self, at_ns: u64, elapsed_ns: u64) -> bool {
        self.threads.iter().any(|thread| {
            let is_unexplained = match thread.state {
                State::Waiting(wait) => matches!(wait.reason, Reason::Other | Reason::Unknown),
                _ => false,
            };
            let waited_ns = at_ns.saturating_sub(thread.began_ns());
            is_unexplained
                && thread.target.is_some()
                && !thread.is_woken()
                && waited_ns >= elapsed_ns
                && !self.evidence.waits.contains_key(&key(thread))
        })
    }

    pub(super) fn waking(&mut self, record: &Waking) {
        let slot = self.threads.find(record.tid);
        if let Some(thread) = slot.and_then(|slot| self.threads.get_mut(slot)) {
            thread.waker = Waker::of(record);
            thread.waker_runs = record.runs;
        }
    }

    pub(super) fn migrate(&mut self, record: &Migrate) {
        let Some(slot) = self.threads.find(record.tid) else {
            return self.passes.moved(record.tid);
        };
        if let Some(thread) = self.threads.get_mut(slot)
            && thread.state != State::Running
        {
            self.spans.queues.migrate(thread, record);
        }
    }

    pub(super) fn cgroup_move(&mut self, record: &CgroupMove) {
        self.passes.regrouped(record);
        let slot = self.threads.find(record.tid);
        let Some(thread) = slot.and_then(|slot| self.threads.get_mut(slot)) else {
            return;
        };
        let tgid = thread.tgid;
        if record.whole_process == 0 || tgid == 0 {
            return go_to_group(&mut self.spans, thread, record);
        }
        for thread in self.threads.iter_mut().filter(|its| its.tgid == tgid) {
            go_to_group(&mut self.spans, thread, record);
        }
    }

    pub(super) fn throttled(&mut self, cpu: usize, record: Throttled) {
        if let Some(last) = self.throttled.get_mut(cpu) {
            *last = Some(record);
        }
    }

    pub(super) fn interrupts(&mut self, record: &Interrupts) {
        if let Some((cpu, interrupted)) = self.reckoning.take_in(record) {
            self.spans.queues.timeline.interrupt(cpu, interrupted);
        }
    }

    pub(super) fn names(&self) -> Names<'_> {
        Names {
            threads: &self.threads,
            departed: &self.departed,
        }
    }

    fn witnesses(&self) -> Witnesses<'_> {
        Witnesses {
            names: self.names(),
            queues: &self.spans.queues,
            history: &self.history,
            gaps: &self.spans.gaps,
        }
    }

    /// Charges those who had a CPU that somebody else was queued for.
    #[inline]
    pub(super) fn charge(&mut self) {
        if self.spans.held.is_empty() {
            return;
        }
        let mut place = 0;
        while let Some(&held) = self.spans.held.get(place) {
            self.charge_one(&held);
            place += 1;
        }
        self.spans.held.clear();
    }

    fn charge_one(&mut self, held: &Held) {
        let duration_ns = held.duration_ns;
        if let Some(kind) = held.runner.kind() {
            let ledger = &mut self.spans.ledger;
            ledger.inflict(kind, duration_ns);
            ledger
                .units
                .charge_interrupts(held.victim_unit, duration_ns);
        } else {
            self.charge_thread(held.runner, held.victim_unit, duration_ns);
        }
        if let Some(number) = held.target {
            self.charge_for_target(held, number);
        }
    }

    /// The same of a thread, as far as the host and its units are concerned.
    #[inline]
    pub(super) fn charge_thread(&mut self, culprit: Runner, victim: UnitNumber, duration_ns: u64) {
        let thread = self.threads.get_mut(culprit.slot);
        let thread = thread.filter(|its| its.serial == culprit.serial);
        let unit = thread.map_or(UnitNumber::OTHER, |thread| {
            thread.inflicted_ns = thread.inflicted_ns.saturating_add(duration_ns);
            thread.unit
        });
        self.spans.ledger.units.charge(victim, unit, duration_ns);
    }

    #[inline(never)]
    fn charge_for_target(&mut self, held: &Held, number: u16) {
        let Held {
            runner,
            duration_ns,
            ..
        } = *held;
        let who = self.names().runner(runner);
        let weight = Weight::once(duration_ns);
        if let Some(target) = self.spans.ledger.targets.get_mut(usize::from(number)) {
            let culprits = &mut target.account.detail.culprits;
            culprits.add(runner.serial, weight, || who);
        }
        let victim = self.threads.find(held.victim_tid);
        let victim = victim.and_then(|slot| self.threads.get_mut(slot));
        if let Some(account) = victim.and_then(|thread| thread.account.as_mut()) {
            account.detail.culprits.add(runner.serial, weight, || who);
        }
    }

    /// The names that threads have now, by their numbers.
    pub(super) fn names_now(&self) -> BTreeMap<u64, Who> {
        let name = |thread: &Thread| (thread.serial, Who::of(thread));
        self.threads.iter().map(name).collect()
    }

    /// A thread is gone: what it took from others stays with its process.
    pub(super) fn bury(&mut self, thread: &Thread) {
        if thread.inflicted_ns > 0 {
            let who = Who::of(thread);
            let weight = Weight::once(thread.inflicted_ns);
            self.spans.ledger.inflicted.add(thread.tgid, weight, || who);
        }
    }

    /// Who took how much from others on the whole host, by process.
    pub(super) fn inflicted(&self) -> Ranking<u32, Who> {
        let mut processes: BTreeMap<u32, (Who, Weight)> = BTreeMap::new();
        for thread in self.threads.iter().filter(|its| its.inflicted_ns > 0) {
            let process = processes.entry(thread.tgid);
            let (_, sum) = process.or_insert_with(|| (Who::of(thread), Weight::default()));
            sum.count += 1;
            sum.ns += u128::from(thread.inflicted_ns);
        }
        let mut inflicted = self.spans.ledger.inflicted.clone();
        // Whole processes, the heaviest last: none is folded before all of it is in.
        let mut processes: Vec<_> = processes.into_iter().collect();
        processes.sort_by_key(|(_, (_, weight))| weight.ns);
        for (tgid, (who, weight)) in processes {
            inflicted.add(tgid, weight, || who);
        }
        inflicted
    }

    /// A thread that was off the CPU has one again: keeps what is to be known of that later. What is
    /// known of what it `was` doing is known from `since_ns` on; it got the CPU at `now_ns`, and `runs` is how
    /// often it had had one before.
    ///
    /// Most stays are short and of threads that nobody asked for; the rest is kept out of their way.
    #[inline]
    pub(super) fn look_back(
        &mut self,
        slot: Slot,
        cpu: usize,
        (was, since_ns): (State, u64),
        (now_ns, runs): (u64, Option<u16>),
        stay: &Stay,
    ) {
        let (Some(left_ns), Some(queued_ns)) = (stay.left_ns.or(stay.queued_ns), stay.queued_ns)
        else {
            return;
        };
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        if thread.target.is_some() || now_ns.saturating_sub(left_ns) >= SHORT_NS {
            let time_ns = left_ns..queued_ns;
            self.keep(slot, cpu, (was, since_ns), (now_ns, runs), stay, time_ns);
        }
    }

    #[inline(never)]
    fn keep(
        &mut self,
        slot: Slot,
        cpu: usize,
        (was, since_ns): (State, u64),
        (now_ns, runs): (u64, Option<u16>),
        stay: &Stay,
        Range {
            start: left_ns,
            end: queued_ns,
        }: Range<u64>,
    ) {
        let Some(thread) = self.threads.get_mut(slot) else {
            return;
        };
        let (wait, queued_ns) = match was {
            State::Waiting(wait) => (Some(wait), queued_ns.max(left_ns)),
            _ => (None, left_ns),
        };
        let is_of_this_wait = wait.is_some() && runs == Some(thread.waker_runs);
        let waker = if is_of_this_wait {
            thread.waker
        } else {
            Waker::default()
        };
        if let Some(notes) = &mut self.spans.notes {
            notes.woken(thread.serial, queued_ns, waker);
        }
        let past = Past {
            left_ns,
            queued_ns,
            until_ns: now_ns,
            wait,
            waker,
            cpu,
            previous: 0,
        };
        self.history.add(&mut thread.last_stay, past);
        let Some(number) = thread.target.map(usize::from) else {
            return;
        };
        let observed_ns = thread.observed_from_ns;
        let is_whole = stay.left_ns.is_some() && left_ns >= observed_ns;
        if wait.is_some() && is_whole {
            self.book_waker(slot, waker, queued_ns - left_ns);
        }
        // Of one that began before the window the part within it is told; but one whose beginning was
        // lost in between is not one wait to anybody's knowledge.
        let Some(from_ns) = stay
            .left_ns
            .or((since_ns <= observed_ns).then_some(observed_ns))
            .map(|from_ns| from_ns.max(observed_ns))
        else {
            return;
        };
        let within = Past {
            left_ns: from_ns,
            queued_ns: queued_ns.max(from_ns),
            until_ns: past.until_ns.max(from_ns),
            ..past
        };
        let Some(target) = self.spans.ledger.targets.get(number) else {
            return;
        };
        let blocked_ns = within.queued_ns - within.left_ns;
        let takes = |wait: Wait| target.worst.list(&Waited::Other(wait)).takes(blocked_ns);
        let runnable_ns = within.until_ns - within.queued_ns;
        if wait.is_some_and(takes) || target.worst.queued.takes(runnable_ns) {
            let long = self.long_waits(slot, number, was, &within);
            if let Some(target) = self.spans.ledger.targets.get_mut(number) {
                for wait in long.into_iter().flatten() {
                    target.worst.add(wait);
                }
            }
        }
    }

    /// The wait and the stay on the run queue after it, if they are among the longest of their target.
    #[cold]
    fn long_waits(
        &self,
        slot: Slot,
        target: usize,
        was: State,
        past: &Past,
    ) -> [Option<LongWait>; 2] {
        let (Some(thread), Some(target)) = (
            self.threads.get(slot),
            self.spans.ledger.targets.get(target),
        ) else {
            return [None, None];
        };
        let (blocked_ns, queued_ns) = (past.blocked_ns(), past.runnable_ns());
        let blocked = past.wait.map(Waited::Other).filter(|waited| {
            let list = target.worst.list(waited);
            list.takes(blocked_ns.end - blocked_ns.start)
        });
        let blocked = blocked.map(|waited| {
            let seen = self.evidence.latest.as_ref();
            self.long_wait(thread, blocked_ns, waited, past.waker, seen)
        });
        let queued = target
            .worst
            .queued
            .takes(queued_ns.end - queued_ns.start)
            .then(|| self.long_queue(thread, was, queued_ns, past.waker));
        [blocked, queued]
    }

    fn long_wait(
        &self,
        thread: &Thread,
        time_ns: Range<u64>,
        waited: Waited,
        waker: Waker,
        seen: Option<&Seen>,
    ) -> LongWait {
        let names = self.names();
        LongWait {
            who: Who::of(thread),
            serial: thread.serial,
            from_ns: time_ns.start,
            until_ns: time_ns.end,
            is_open: false,
            waited,
            waker,
            waker_thread: names.waker(waker),
            culprits: Vec::new(),
            chain: match (waked_by_thread(waker), waited) {
                (true, Waited::Other(_)) => self.witnesses().chain(waker, time_ns),
                _ => Vec::new(),
            },
            stack: seen.map(|seen| Arc::clone(&seen.stack)),
            user_stack: seen.and_then(|seen| seen.user_stack),
        }
    }

    fn long_queue(
        &self,
        thread: &Thread,
        was: State,
        time_ns: Range<u64>,
        waker: Waker,
    ) -> LongWait {
        let origin = match was {
            State::Queued(origin) => origin,
            _ => Origin::Woken,
        };
        let mut culprits = Culprits::default();
        let visit = |runner, duration_ns| culprits.add(runner, duration_ns);
        let queues = &self.spans.queues;
        let causes = queues.divide(thread, time_ns.clone(), usize::MAX, visit);
        LongWait {
            culprits: culprits.name(self.names()),
            ..self.long_wait(thread, time_ns, Waited::Cpu(origin, causes), waker, None)
        }
    }

    /// What a thread of a target waits for now, since when it was seen to.
    pub(super) fn open_wait(&self, thread: &Thread, at_ns: u64) -> Option<LongWait> {
        let parts = self.spans.parts(thread, at_ns);
        let mut from_ns = thread.began_ns().max(thread.observed_from_ns);
        let mut open = None;
        for (what, until_ns) in parts {
            if until_ns > from_ns {
                open = Some((what, from_ns..until_ns));
                from_ns = until_ns;
            }
        }
        let wait = match open? {
            (What::Blocked(wait), time_ns) => {
                let seen = self.evidence.waits.get(&key(thread));
                self.long_wait(thread, time_ns, Waited::Other(wait), Waker::default(), seen)
            }
            (What::Queued, time_ns) => {
                self.long_queue(thread, thread.state, time_ns, Waker::default())
            }
            (What::Running | What::Unknown | What::Shed, _) => return None,
        };
        Some(LongWait {
            is_open: true,
            ..wait
        })
    }

    fn book_waker(&mut self, slot: Slot, waker: Waker, wait_ns: u64) {
        let who = self.names().waker(waker);
        if let Some(thread) = self.threads.get_mut(slot) {
            self.spans.ledger.detail(thread, |detail| {
                detail.wakers.add(waker, Weight::once(wait_ns), || who);
            });
        }
    }
}
