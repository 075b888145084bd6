//! Every way in which records can contradict one another, and two in which a pass of the task iterator
//! could be misread: what is counted, what the time is booked as, and that no sample is made of what
//! was interrupted.
//!
//! Each row is a short history of thread 7, in microseconds of a window of 100.

use profiler_ebpf::{Fork, Gap, RawRecord, Rename, Switch, ThreadRecord, Wakeup};
use profiler_ebpf::{switch_flags, thread_flags};
use schedscope::core::decode::Event;
use schedscope::core::{Conflict, Core, Selector, Share, Snapshot, Stream, TargetSpec};
use wildmatch::WildMatch;

/// When the window begins.
const START_NS: u64 = 1_000_000;
/// How long it is.
const LENGTH_US: u64 = 100;
const CPUS: usize = 2;
/// The count of runs and the run-queue delay with which the kernel had a thread that was found.
const RUNS: u16 = 5;
const DELAY_US: u64 = 1_000;
const SLEEPING: u32 = 1;

/// What the task iterator finds, just before the window and later.
#[derive(Clone, Copy)]
enum Found {
    Nobody,
    /// Thread 7, on this CPU.
    Running(u32),
    /// Thread 7, on a run queue.
    Queued,
    /// Thread 7, asleep.
    Asleep,
}

/// Who leaves a CPU.
#[derive(Clone, Copy)]
enum Out {
    Idle,
    Sleeps(u32),
    Preempted(u32),
}

/// Who gets a CPU, and which of its figures the kernel tells.
#[derive(Clone, Copy)]
enum In {
    Idle,
    Bare(u32),
    /// With the count of its runs.
    Counted(u32, u16),
    /// With the count of its runs and its run-queue delay since it was found, in microseconds.
    Stamped(u32, u16, u64),
}

/// Something that happens; times come first, in microseconds of the window.
#[derive(Clone, Copy)]
enum Step {
    Switch(u64, usize, Out, In),
    Wakeup(u64, u32),
    Fork(u64, u32),
    /// A CPU lost records between these times.
    Loss(u64, u64, usize),
    /// A pass of the task iterator between these times, and how much further the kernel's count of
    /// runs and run-queue delay were by then.
    Pass(u64, u64, Found, u16, u64),
    /// Everything so far is taken in and shown: what follows comes later.
    Look(u64),
}

use Conflict::{
    DelayDisagrees, Inverted, MissedExit, MissedRun, MissedSwitchIn, MissedSwitchOut, MissedWakeup,
    RanElsewhere, TidReused, UnseenThread, WokenTwice,
};
use Found::{Asleep, Nobody, Queued, Running};
use Out::{Preempted, Sleeps};
use Step::{Look, Loss, Pass};

struct Row {
    what: &'static str,
    /// The one that is counted, and nothing else.
    conflict: Option<Conflict>,
    found: Found,
    steps: &'static [Step],
    /// Microseconds of thread 7: running, runnable, blocked, unknown.
    time_us: [u128; 4],
    /// Samples of thread 7: run-queue delays, stays off the CPU.
    samples: [u64; 2],
}

const ROWS: [Row; 21] = [
    Row {
        what: "a thread that nobody announced gets a CPU",
        conflict: Some(UnseenThread),
        found: Nobody,
        steps: &[Step::Switch(40, 0, Out::Idle, In::Bare(7))],
        time_us: [60, 0, 0, 0],
        samples: [0, 0],
    },
    Row {
        what: "a thread that nobody announced leaves a CPU",
        conflict: Some(UnseenThread),
        found: Nobody,
        steps: &[Step::Switch(40, 0, Sleeps(7), In::Idle)],
        time_us: [0, 0, 60, 0],
        samples: [0, 0],
    },
    Row {
        what: "a running thread gets another CPU",
        conflict: Some(MissedSwitchOut),
        found: Running(0),
        steps: &[Step::Switch(40, 1, Out::Idle, In::Counted(7, RUNS + 1))],
        time_us: [60, 0, 0, 40],
        samples: [0, 0],
    },
    Row {
        what: "its CPU switches away from idle",
        conflict: Some(MissedSwitchOut),
        found: Running(0),
        steps: &[Step::Switch(40, 0, Out::Idle, In::Idle)],
        time_us: [0, 0, 0, 100],
        samples: [0, 0],
    },
    Row {
        what: "what was seen before a known loss stays",
        conflict: Some(MissedSwitchOut),
        found: Running(0),
        steps: &[
            Loss(15, 30, 0),
            Step::Switch(40, 1, Out::Idle, In::Counted(7, RUNS + 1)),
        ],
        time_us: [75, 0, 0, 25],
        samples: [0, 0],
    },
    Row {
        what: "a sleeping thread leaves a CPU",
        conflict: Some(MissedSwitchIn),
        found: Asleep,
        steps: &[Step::Switch(40, 0, Sleeps(7), In::Idle)],
        time_us: [0, 0, 60, 40],
        samples: [0, 0],
    },
    Row {
        what: "a queued thread leaves a CPU",
        conflict: Some(MissedSwitchIn),
        found: Running(0),
        steps: &[
            Step::Switch(10, 0, Preempted(7), In::Idle),
            Step::Switch(40, 0, Sleeps(7), In::Idle),
        ],
        time_us: [10, 0, 60, 30],
        samples: [0, 0],
    },
    Row {
        what: "the kernel counts a run more than the records",
        conflict: Some(MissedRun),
        found: Running(0),
        steps: &[
            Step::Switch(10, 0, Sleeps(7), In::Idle),
            Step::Wakeup(30, 7),
            Step::Switch(50, 0, Out::Idle, In::Counted(7, RUNS + 2)),
        ],
        time_us: [60, 0, 0, 40],
        samples: [0, 0],
    },
    Row {
        what: "a sleeper comes in, and nothing says when it was woken",
        conflict: Some(MissedWakeup),
        found: Running(0),
        steps: &[
            Step::Switch(10, 0, Sleeps(7), In::Idle),
            Step::Switch(50, 0, Out::Idle, In::Counted(7, RUNS + 1)),
        ],
        time_us: [60, 0, 0, 40],
        // How long it was off the CPU is known.
        samples: [0, 1],
    },
    Row {
        what: "a thread that runs on one CPU leaves another",
        conflict: Some(RanElsewhere),
        found: Running(1),
        steps: &[Step::Switch(40, 0, Sleeps(7), In::Idle)],
        time_us: [0, 0, 60, 40],
        samples: [0, 0],
    },
    Row {
        what: "an id is given to a new thread, and the old one's end was not seen",
        conflict: Some(TidReused),
        found: Asleep,
        steps: &[Step::Fork(40, 7)],
        time_us: [0, 60, 0, 40],
        samples: [0, 0],
    },
    Row {
        what: "a switch comes later than what was shown already",
        conflict: Some(Inverted),
        found: Running(0),
        steps: &[
            Look(60),
            Step::Switch(40, 0, Sleeps(7), In::Idle),
            Step::Wakeup(70, 7),
            Step::Switch(90, 0, Out::Idle, In::Bare(7)),
        ],
        time_us: [50, 20, 10, 20],
        // The stay on the run queue was seen whole, the stay off the CPU was not.
        samples: [1, 0],
    },
    Row {
        what: "a sleeper comes in late",
        conflict: Some(Inverted),
        found: Running(0),
        steps: &[
            Step::Switch(10, 0, Sleeps(7), In::Idle),
            Step::Wakeup(30, 7),
            Look(60),
            Step::Switch(50, 0, Out::Idle, In::Bare(7)),
        ],
        time_us: [50, 20, 20, 10],
        samples: [0, 0],
    },
    Row {
        what: "the kernel says that a sleeper was woken earlier",
        conflict: Some(DelayDisagrees),
        found: Running(0),
        steps: &[
            Step::Switch(10, 0, Sleeps(7), In::Idle),
            Step::Wakeup(70, 7),
            Step::Switch(90, 0, Out::Idle, In::Stamped(7, RUNS + 1, 60)),
        ],
        time_us: [20, 20, 20, 40],
        samples: [0, 1],
    },
    Row {
        what: "the kernel says that a sleeper queued for longer than it was off the CPU",
        conflict: Some(DelayDisagrees),
        found: Running(0),
        steps: &[
            Step::Switch(50, 0, Sleeps(7), In::Idle),
            Step::Switch(60, 0, Out::Idle, In::Stamped(7, RUNS + 1, 50)),
        ],
        time_us: [90, 0, 0, 10],
        samples: [0, 0],
    },
    Row {
        what: "the kernel says that a preempted thread queued for less",
        conflict: Some(DelayDisagrees),
        found: Running(0),
        steps: &[
            Step::Switch(10, 0, Preempted(7), In::Idle),
            Step::Switch(50, 0, Out::Idle, In::Stamped(7, RUNS + 1, 10)),
        ],
        // The records saw both ends: they count.
        time_us: [60, 40, 0, 0],
        samples: [1, 1],
    },
    Row {
        what: "a sleeper is woken, and woken again",
        conflict: Some(WokenTwice),
        found: Running(0),
        steps: &[
            Step::Switch(10, 0, Sleeps(7), In::Idle),
            Step::Wakeup(30, 7),
            Step::Wakeup(60, 7),
            Step::Switch(80, 0, Out::Idle, In::Counted(7, RUNS + 1)),
        ],
        time_us: [30, 20, 20, 30],
        samples: [0, 1],
    },
    Row {
        what: "a thread in doubt is not found",
        conflict: Some(MissedExit),
        found: Running(0),
        steps: &[Loss(15, 30, 0), Pass(40, 50, Nobody, 0, 0), Look(50)],
        time_us: [15, 0, 0, 35],
        samples: [0, 0],
    },
    Row {
        what: "a sleeper in doubt is not found",
        conflict: Some(MissedExit),
        found: Asleep,
        steps: &[Loss(15, 30, 1), Pass(40, 50, Nobody, 0, 0), Look(50)],
        time_us: [0, 0, 15, 35],
        samples: [0, 0],
    },
    Row {
        what: "a thread whose leaving was lost is woken after the iterator read it asleep",
        conflict: None,
        found: Running(0),
        steps: &[
            Loss(15, 15, 0),
            Pass(20, 40, Asleep, 0, 0),
            Step::Wakeup(30, 7),
            Look(40),
        ],
        time_us: [15, 60, 0, 25],
        samples: [0, 0],
    },
    Row {
        what: "what the iterator read says nothing of a wait that began after a loss",
        conflict: None,
        found: Running(0),
        steps: &[
            Step::Switch(10, 0, Preempted(7), In::Idle),
            Pass(20, 70, Running(1), 1, 20),
            Step::Switch(30, 1, Out::Idle, In::Stamped(7, RUNS + 1, 20)),
            Loss(45, 50, 1),
            Step::Switch(60, 1, Sleeps(7), In::Idle),
            Look(70),
            Loss(75, 75, 1),
            // It was woken, nobody knows when, and the kernel counted a part of its stay.
            Pass(80, 90, Queued, 2, 22),
            Look(90),
        ],
        time_us: [25, 30, 0, 45],
        samples: [1, 1],
    },
];

fn ns(us: u64) -> u64 {
    START_NS + us * 1_000
}

/// The record of a step and the stream that it is in.
fn record(step: Step) -> Option<(usize, Event)> {
    let (stream, event) = match step {
        Step::Switch(us, cpu, prev, next) => {
            let (prev_tid, prev_state, preempt) = match prev {
                Out::Idle => (0, 0, 0),
                Sleeps(tid) => (tid, 1, 0),
                Preempted(tid) => (tid, 0, switch_flags::PREEMPT),
            };
            let (counted, stamped) = (switch_flags::NEXT_COUNTED, switch_flags::NEXT_STAMPED);
            let (next_tid, next_runs, delay_us, told) = match next {
                In::Idle => (0, 0, 0, 0),
                In::Bare(tid) => (tid, 0, 0, 0),
                In::Counted(tid, runs) => (tid, runs, 0, counted),
                In::Stamped(tid, runs, us) => (tid, runs, DELAY_US + us, counted | stamped),
            };
            let switch = Switch {
                ts_ns: ns(us),
                prev_tid,
                prev_state,
                next_tid,
                next_runs,
                next_delay_ns: delay_us * 1_000,
                flags: preempt | told,
                ..Switch::default()
            };
            (cpu, Event::Switch(switch))
        }
        Step::Wakeup(us, tid) => {
            let ts_ns = ns(us);
            let wakeup = Wakeup {
                ts_ns,
                tid,
                ..Wakeup::default()
            };
            (0, Event::Wakeup(wakeup))
        }
        Step::Fork(us, tid) => {
            let fork = Fork {
                ts_ns: ns(us),
                start_ns: ns(us),
                tid,
                tgid: tid,
                ..Fork::default()
            };
            (0, Event::Fork(fork))
        }
        Loss(from_us, until_us, cpu) => {
            let gap = Gap {
                ts_ns: ns(from_us),
                until_ns: ns(until_us),
                lost: 1,
                ..Gap::default()
            };
            (cpu, Event::Gap(gap))
        }
        Pass(..) | Look(_) => return None,
    };
    Some((stream, event))
}

fn found(found: Found, runs: u16, delay_us: u64) -> Vec<ThreadRecord> {
    let (state, cpu, flags) = match found {
        Nobody => return Vec::new(),
        Running(cpu) => (0, cpu, thread_flags::ON_CPU),
        Queued => (0, 0, 0),
        Asleep => (SLEEPING, 0, 0),
    };
    vec![ThreadRecord {
        tid: 7,
        tgid: 7,
        start_ns: 1,
        state,
        cpu,
        flags,
        runs: RUNS + runs,
        run_delay_ns: (DELAY_US + delay_us) * 1_000,
        ..ThreadRecord::default()
    }]
}

/// Feeds what has gathered.
fn feed(core: &mut Core, streams: &mut [Vec<RawRecord>], until_ns: u64) {
    let views: Vec<Stream<'_>> = streams.iter().map(|s| Stream::new(s)).collect();
    core.feed(&views, until_ns);
    streams.iter_mut().for_each(Vec::clear);
}

/// A core whose window begins, with a target that takes in threads of this name.
fn begin(name: &str, what: Found) -> Core {
    let target = TargetSpec {
        name: "target".to_owned(),
        selector: Selector::Comm(WildMatch::new(name)),
        per_thread: true,
    };
    let mut core = Core::new(vec![target]);
    core.found(&found(what, 0, 0), 0..=START_NS);
    feed(&mut core, &mut vec![Vec::new(); CPUS], START_NS);
    core.begin_window();
    core
}

fn play(row: &Row) -> Snapshot {
    let mut core = begin("*", row.found);
    let mut streams = vec![Vec::new(); CPUS];
    for &step in row.steps {
        match step {
            Look(us) => feed(&mut core, &mut streams, ns(us)),
            Pass(from_us, until_us, what, runs, delay_us) => {
                // Nothing later may be in, but what was written may be.
                feed(&mut core, &mut streams, ns(from_us));
                core.found(&found(what, runs, delay_us), ns(from_us)..=ns(until_us));
            }
            _ => {
                let (stream, event) = record(step).expect("all others are records");
                streams[stream].push(event.encode());
            }
        }
    }
    feed(&mut core, &mut streams, ns(LENGTH_US));
    core.snapshot()
}

#[test]
fn every_conflict_is_counted_and_books_no_more_than_was_seen() {
    for row in &ROWS {
        let snapshot = play(row);
        let what = row.what;
        for (conflict, count) in snapshot.conflicts.iter() {
            let expected = u64::from(Some(conflict) == row.conflict);
            assert_eq!(count, expected, "{what}: {} counted", conflict.name());
        }
        let lost = row.steps.iter().filter(|step| matches!(step, Loss(..)));
        assert_eq!(snapshot.counts.lost, lost.count() as u64, "{what}: lost");
        let total = &snapshot.targets[0].total;
        let time_us = Share::ALL.map(|share| total.figures.time(share) / 1_000);
        assert_eq!(time_us, row.time_us, "{what}: {:?}", Share::ALL);
        let samples = [
            total.figures.runqueue_delay.count(),
            total.figures.offcpu.count(),
        ];
        assert_eq!(samples, row.samples, "{what}: samples");
    }
}

#[test]
fn no_conflict_is_without_a_history() {
    for conflict in Conflict::ALL {
        let has_row = ROWS.iter().any(|row| row.conflict == Some(conflict));
        assert!(has_row, "{} has no row", conflict.name());
    }
}

#[test]
fn a_thread_does_not_end_before_it_came_to_its_target() {
    let mut core = begin("late", Running(0));
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"late");
    let rename = Event::Rename(Rename {
        ts_ns: ns(50),
        tid: 7,
        comm,
        ..Rename::default()
    });
    // Its id is given away, by a clock that is behind.
    let (_, fork) = record(Step::Fork(40, 7)).expect("a record");
    let mut streams = vec![vec![rename.encode(), fork.encode()]];
    feed(&mut core, &mut streams, ns(LENGTH_US));
    let snapshot = core.snapshot();
    let thread = &snapshot.targets[0].threads[0];
    assert_eq!(thread.observed_from_ns, ns(50));
    assert_eq!(thread.ended_ns, Some(ns(50)));
    assert_eq!(thread.account.figures.observed_ns(), 0);
}
