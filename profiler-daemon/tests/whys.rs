//! What is kept of single waits: who ended them, what kept the waker, quotas, and what was seen of them.

use std::sync::Arc;

use profiler_ebpf::{
    CgroupMove, Fork, Gap, RawRecord, Switch, ThreadRecord, Throttle, Throttled, Wakeup, Waking,
    switch_flags,
};
use schedscope::core::classify::{Call, FileKind, Stack};
use schedscope::core::decode::Event;
use schedscope::core::{
    Cause, Core, LongWait, Origin, Reason, Seen, Selector, Stream, TargetSnapshot, TargetSpec,
    Waited, WakerKind,
};

const MS: u64 = 1_000_000;

/// Records of two CPUs, by time.
#[derive(Default)]
struct Script {
    cpus: [Vec<RawRecord>; 2],
    /// How often each thread has been given a CPU.
    runs: [u16; 8],
}

impl Script {
    fn born(&mut self, ts_ns: u64, tid: u32) {
        let fork = Fork {
            ts_ns,
            start_ns: ts_ns,
            tid,
            tgid: tid,
            cpu: 0,
            ..Fork::default()
        };
        self.cpus[0].push(Event::Fork(fork).encode());
    }

    fn switch(&mut self, cpu: usize, at_ms: u64, from: (u32, u16, u16), to: u32) {
        let (prev_tid, prev_state, prev_syscall) = from;
        let runs = &mut self.runs[to as usize];
        let mut flags = switch_flags::NEXT_COUNTED;
        flags |= match prev_state {
            0 => switch_flags::PREEMPT,
            _ => switch_flags::PREV_SYSCALL,
        };
        let switch = Switch {
            ts_ns: at_ms * MS,
            prev_tid,
            prev_state,
            prev_syscall,
            next_tid: to,
            next_runs: *runs,
            flags,
            ..Switch::default()
        };
        *runs += u16::from(to != 0);
        self.cpus[cpu].push(Event::Switch(switch).encode());
    }

    fn wake(&mut self, by_cpu: usize, at_ms: u64, waker: u32, tid: u32, cpu: u32) {
        let waking = Waking {
            ts_ns: at_ms * MS,
            tid,
            waker_tid: waker,
            runs: self.runs[tid as usize],
            ..Waking::default()
        };
        let wakeup = Wakeup {
            ts_ns: at_ms * MS,
            tid,
            cpu,
            ..Wakeup::default()
        };
        let both = [
            Event::Waking(waking).encode(),
            Event::Wakeup(wakeup).encode(),
        ];
        self.cpus[by_cpu].extend(both);
    }

    /// Feeds it to a core that watches one process.
    fn play(&self, pid: u32, until_ms: u64, prepare: impl FnOnce(&mut Core)) -> TargetSnapshot {
        let mut core = Core::new(vec![TargetSpec {
            name: "target".to_owned(),
            selector: Selector::Pid(pid),
            per_thread: true,
        }]);
        core.feed(&[Stream::new(&[]), Stream::new(&[])], 1);
        core.begin_window();
        prepare(&mut core);
        let streams = self.cpus.each_ref().map(|its| Stream::new(its));
        core.feed(&streams, until_ms * MS);
        core.snapshot().targets.remove(0)
    }
}

/// The idle task; a thread that was preempted; one that waits in a call.
const IDLE: (u32, u16, u16) = (0, 1, u16::MAX);
fn preempted(tid: u32) -> (u32, u16, u16) {
    (tid, 0, 0)
}
fn waits(tid: u32, call: &str) -> (u32, u16, u16) {
    match Call::named(call) {
        Some(Call::Number(number)) => (tid, 1, number),
        _ => panic!("no call {call}"),
    }
}

const VICTIM: u32 = 1;
const HOLDER: u32 = 2;
const HOG: u32 = 3;

/// The victim waits from 10 to 60 ms for a lock. Its holder runs to 20 ms, is preempted by a hog until 50 ms,
/// and lets go at 60 ms.
fn preempted_holder() -> Script {
    let mut script = Script::default();
    for tid in [VICTIM, HOLDER, HOG] {
        script.born(MS, tid);
    }
    script.switch(0, 5, IDLE, VICTIM);
    script.switch(1, 5, IDLE, HOLDER);
    script.switch(0, 10, waits(VICTIM, "futex"), 0);
    script.switch(1, 20, preempted(HOLDER), HOG);
    script.switch(1, 50, preempted(HOG), HOLDER);
    script.wake(1, 60, HOLDER, VICTIM, 0);
    script.switch(0, 61, IDLE, VICTIM);
    script
}

fn longest(snapshot: &TargetSnapshot) -> &LongWait {
    let waits = snapshot.stuck.blocked.iter();
    let mut waits = waits.chain(snapshot.worst.blocked.iter());
    waits.next().expect("a wait")
}

#[test]
fn the_chain_names_who_kept_the_holder_of_a_lock() {
    let snapshot = preempted_holder().play(VICTIM, 100, |_| {});
    let wait = longest(&snapshot);
    assert_eq!((wait.from_ns, wait.until_ns), (10 * MS, 60 * MS));
    assert!(!wait.is_open);
    let Waited::Other(reason) = wait.waited else {
        panic!("{wait:?}")
    };
    assert_eq!(reason.reason, Reason::Lock);
    assert_eq!(wait.waker.kind, WakerKind::Thread);
    assert_eq!(wait.waker_thread.map(|who| who.tid), Some(HOLDER));
    let [link] = &wait.chain[..] else {
        panic!("{:?}", wait.chain)
    };
    assert_eq!(link.who.tid, HOLDER);
    assert_eq!(
        [
            link.running_ns,
            link.runnable_ns,
            link.blocked_ns,
            link.unknown_ns
        ],
        [20 * MS, 30 * MS, 0, 0]
    );
    let culprits: Vec<(u32, u64)> = link.culprits.iter().map(|c| (c.0.tid, c.1)).collect();
    assert_eq!(culprits, [(HOG, 30 * MS)]);
    let wakers = snapshot.total.detail.wakers.rows();
    assert_eq!(wakers.len(), 1);
    assert_eq!(wakers[0].2.ns, u128::from(50 * MS));
}

#[test]
fn the_chain_follows_a_waker_that_waited_itself() {
    let mut script = Script::default();
    for tid in [VICTIM, HOLDER, HOG] {
        script.born(MS, tid);
    }
    script.switch(0, 5, IDLE, VICTIM);
    script.switch(1, 5, IDLE, HOLDER);
    script.switch(0, 10, waits(VICTIM, "futex"), 0);
    // The holder waits for a third, which runs all the time.
    script.switch(1, 12, waits(HOLDER, "read"), 0);
    script.switch(0, 13, IDLE, HOG);
    script.wake(0, 40, HOG, HOLDER, 1);
    script.switch(1, 41, IDLE, HOLDER);
    script.switch(0, 42, waits(HOG, "read"), 0);
    script.wake(1, 45, HOLDER, VICTIM, 0);
    script.switch(0, 46, IDLE, VICTIM);
    let snapshot = script.play(VICTIM, 100, |_| {});
    let chain: Vec<(u32, [u64; 3])> = longest(&snapshot)
        .chain
        .iter()
        .map(|link| {
            let parts = [link.running_ns, link.runnable_ns, link.blocked_ns];
            (link.who.tid, parts.map(|ns| ns / MS))
        })
        .collect();
    assert_eq!(chain, [(HOLDER, [6, 1, 28]), (HOG, [27, 1, 0])]);
}

#[test]
fn a_wait_that_goes_on_is_the_longest_until_it_ends() {
    let script = preempted_holder();
    for (until_ms, expected) in [(30, (20, true)), (59, (49, true)), (100, (50, false))] {
        let snapshot = script.play(VICTIM, until_ms, |_| {});
        let wait = longest(&snapshot);
        assert_eq!((wait.duration_ns() / MS, wait.is_open), expected);
        let lists = [&snapshot.stuck.blocked, &snapshot.worst.blocked];
        let waits: usize = lists.iter().map(|list| list.iter().count()).sum();
        assert_eq!(waits, 1, "not twice");
        let open = snapshot.waiting.blocked(Reason::Lock);
        let expected = if expected.1 {
            (1, expected.0 * MS)
        } else {
            (0, 0)
        };
        assert_eq!((open.threads, open.oldest_ns), expected);
    }
}

#[test]
fn what_was_seen_of_a_wait_refines_its_reason_and_no_other() {
    let read = |left_ms: u64, with: bool| {
        let mut script = Script::default();
        script.born(MS, VICTIM);
        script.switch(0, 5, IDLE, VICTIM);
        script.switch(0, 10, waits(VICTIM, "read"), 0);
        script.wake(1, 30, 0, VICTIM, 0);
        script.switch(0, 31, IDLE, VICTIM);
        let snapshot = script.play(VICTIM, 100, |core| {
            let stack = Arc::new(Stack::new(vec!["schedule".into(), "pipe_read".into()]));
            let seen = Seen {
                tid: VICTIM,
                left_ns: left_ms * MS,
                file: FileKind::Pipe,
                stack,
                user_stack: Some(7),
            };
            core.seen(with.then_some(seen));
        });
        let wait = longest(&snapshot).clone();
        let Waited::Other(reason) = wait.waited else {
            panic!("{wait:?}")
        };
        (reason.name(), wait.stack.is_some(), wait.user_stack)
    };
    assert_eq!(read(10, true), ("pipe".to_owned(), true, Some(7)));
    assert_eq!(read(11, true), ("other(read)".to_owned(), false, None));
    assert_eq!(read(10, false), ("other(read)".to_owned(), false, None));
}

#[test]
fn a_quota_is_no_neighbours_fault() {
    // The victim leaves at 20 ms because its quota is used up, has quota again at 70 ms, and comes back at
    // 80 ms. A hog has the CPU all the while.
    let mut script = Script::default();
    script.born(MS, VICTIM);
    script.born(MS, HOG);
    script.switch(0, 5, IDLE, VICTIM);
    let mut leaves = Switch {
        ts_ns: 20 * MS,
        prev_tid: VICTIM,
        next_tid: HOG,
        flags: switch_flags::NEXT_COUNTED | switch_flags::PREV_THROTTLED,
        ..Switch::default()
    };
    script.cpus[0].push(Event::Switch(leaves).encode());
    script.runs[HOG as usize] += 1;
    let told = Throttled {
        ts_ns: 80 * MS,
        since_ns: 19 * MS,
        until_ns: 70 * MS,
        tid: VICTIM,
        ..Throttled::default()
    };
    let open = script.play(VICTIM, 60, |_| {});
    assert_eq!(causes(&open), [0, 40, 0, 0], "while it goes on");
    script.cpus[0].push(Event::Throttled(told).encode());
    script.switch(0, 80, preempted(HOG), VICTIM);
    let snapshot = script.play(VICTIM, 90, |_| {});
    assert_eq!(causes(&snapshot), [10, 50, 0, 0]);
    let culprits = snapshot.total.detail.culprits.rows();
    assert_eq!(culprits.len(), 1);
    assert_eq!(
        (culprits[0].1.tid, culprits[0].2.ns),
        (HOG, u128::from(10 * MS))
    );
    // Had what tells of the quota been lost, nobody would be blamed.
    leaves.ts_ns = 90 * MS;
    leaves.next_tid = 0;
    script.cpus[0].push(Event::Switch(leaves).encode());
    script.switch(0, 95, IDLE, VICTIM);
    let snapshot = script.play(VICTIM, 96, |_| {});
    assert_eq!(causes(&snapshot), [10, 50, 0, 5]);
}

/// The cgroup with a quota.
const GROUP: u64 = 77;

impl Script {
    fn goes_to(&mut self, at_ms: u64, tid: u32, cgroup: u64) {
        let record = CgroupMove {
            ts_ns: at_ms * MS,
            cgroup,
            tid,
            whole_process: 1,
            ..CgroupMove::default()
        };
        self.cpus[0].push(Event::CgroupMove(record).encode());
    }

    /// The group's quota on CPU 0 is used up, or there is some again: told by this CPU.
    fn quota(&mut self, by_cpu: usize, at_ms: u64, on: u8) {
        let record = Throttle {
            ts_ns: at_ms * MS,
            cgroup: GROUP,
            cpu: 0,
            on,
            ..Throttle::default()
        };
        self.cpus[by_cpu].push(Event::Throttle(record).encode());
    }
}

/// The victim goes to the group, and is off the CPU from 20 ms on, when a hog comes.
fn limited() -> Script {
    let mut script = Script::default();
    script.born(MS, VICTIM);
    script.born(MS, HOG);
    script.switch(0, 5, IDLE, VICTIM);
    script.goes_to(6, VICTIM, GROUP);
    script.quota(0, 20, 1);
    script.switch(0, 20, preempted(VICTIM), HOG);
    script
}

fn culprits(snapshot: &TargetSnapshot) -> Vec<(u32, u128)> {
    let rows = snapshot.total.detail.culprits.rows();
    let row = rows
        .iter()
        .map(|its| (its.1.tid, its.2.ns / u128::from(MS)));
    row.collect()
}

#[test]
fn a_group_without_quota_is_not_blamed_on_a_neighbour() {
    let mut script = limited();
    let open = script.play(VICTIM, 60, |_| {});
    assert_eq!(causes(&open), [0, 40, 0, 0], "while it goes on");
    // The other CPU gives out quota.
    script.quota(1, 70, 0);
    script.switch(0, 80, preempted(HOG), VICTIM);
    let snapshot = script.play(VICTIM, 90, |_| {});
    assert_eq!(causes(&snapshot), [10, 50, 0, 0]);
    assert_eq!(culprits(&snapshot), [(HOG, 10)]);
    // The hog is in no group that has a quota.
    let snapshot = script.play(HOG, 90, |_| {});
    assert_eq!(causes(&snapshot), [10, 0, 0, 0]);
    // The other 15 were before its first run.
    assert_eq!(culprits(&snapshot), [(VICTIM, 25)]);
}

#[test]
fn a_thread_that_leaves_its_group_was_held_back_until_then() {
    let mut script = limited();
    script.goes_to(50, VICTIM, 1);
    script.quota(1, 70, 0);
    script.switch(0, 80, preempted(HOG), VICTIM);
    let snapshot = script.play(VICTIM, 90, |_| {});
    assert_eq!(causes(&snapshot), [30, 30, 0, 0]);
    assert_eq!(culprits(&snapshot), [(HOG, 30)]);
}

#[test]
fn a_group_that_was_without_quota_when_the_probes_came_is_held_back_from_the_start() {
    let mut script = Script::default();
    script.born(MS, VICTIM);
    script.born(MS, HOG);
    script.switch(0, 5, IDLE, VICTIM);
    script.goes_to(6, VICTIM, GROUP);
    script.switch(0, 20, preempted(VICTIM), HOG);
    script.quota(1, 70, 0);
    script.switch(0, 80, preempted(HOG), VICTIM);
    let snapshot = script.play(VICTIM, 90, |_| {});
    assert_eq!(causes(&snapshot), [10, 50, 0, 0]);
    assert_eq!(culprits(&snapshot), [(HOG, 10)]);
}

#[test]
fn after_a_loss_nobody_is_held_back_for_ever() {
    let mut script = limited();
    let lost = Gap {
        ts_ns: 30 * MS,
        until_ns: 40 * MS,
        lost: 3,
        ..Gap::default()
    };
    script.cpus[1].push(Event::Gap(lost).encode());
    // The end was among what was lost.
    script.switch(0, 80, preempted(HOG), VICTIM);
    script.switch(0, 90, preempted(VICTIM), HOG);
    script.switch(0, 95, preempted(HOG), VICTIM);
    let snapshot = script.play(VICTIM, 96, |_| {});
    let [contended, throttled, placement, _] = causes(&snapshot);
    assert_eq!([contended, throttled, placement], [5, 10, 0]);
    assert_eq!(culprits(&snapshot), [(HOG, 5)]);
}

#[test]
fn a_move_while_threads_are_listed_is_not_undone_by_the_list() {
    let mut early = Script::default();
    early.goes_to(6, VICTIM, GROUP);
    let mut script = Script::default();
    script.switch(0, 15, IDLE, VICTIM);
    script.quota(0, 20, 1);
    script.switch(0, 20, preempted(VICTIM), HOG);
    script.quota(1, 70, 0);
    script.switch(0, 80, preempted(HOG), VICTIM);
    // Both threads were read, asleep, before the move.
    let asleep = |tid: u32| ThreadRecord {
        start_ns: u64::from(tid),
        tid,
        tgid: tid,
        comm: *b"somebody\0\0\0\0\0\0\0\0",
        state: 1,
        cpu_cgroup: 1,
        ..ThreadRecord::default()
    };
    let list = [asleep(VICTIM), asleep(HOG)];
    let snapshot = script.play(VICTIM, 90, |core| {
        core.found(&list, 2 * MS..=10 * MS);
        let streams = early.cpus.each_ref().map(|its| Stream::new(its));
        core.feed(&streams, 12 * MS);
    });
    assert_eq!(causes(&snapshot), [10, 50, 0, 0]);
}

/// Milliseconds on the run queue by cause, the time before the first switch left out.
fn causes(snapshot: &TargetSnapshot) -> [u128; Cause::COUNT] {
    Cause::ALL.map(|cause| {
        let origins = [Origin::Preempted, Origin::Woken, Origin::Yielded];
        let spent = |origin| schedscope::core::Spent::Queued(origin, cause);
        let ns = origins.map(|origin| snapshot.total.figures.spent(spent(origin)));
        ns.iter().sum::<u128>() / u128::from(MS)
    })
}
