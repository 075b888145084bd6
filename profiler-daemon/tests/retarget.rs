//! Targets that come, stay and go while the core measures, and processes that come to targets.

mod support;

use std::collections::BTreeSet;

use profiler_ebpf::{Fork, RawRecord, Switch, ThreadRecord, switch_flags};
use schedscope::core::decode::Event;
use schedscope::core::{
    Core, Figures, Reason, Selector, Share, Snapshot, Spent, Stream, TargetSpec, UnitNews,
    UnitNumber, UnitSnapshot, Waiting,
};
use support::{MS, START_NS, asleep, core, fork as birth, history, on_cpu, switch, wakeup};

fn spec(name: &str, tid: u32) -> TargetSpec {
    TargetSpec {
        name: name.to_owned(),
        selector: Selector::Tid(tid),
        per_thread: false,
    }
}

/// Threads 1 and 2 take turns on a CPU, at these times.
fn turns(times: impl IntoIterator<Item = u64>) -> Vec<RawRecord> {
    times
        .into_iter()
        .enumerate()
        .map(|(number, ts_ns)| {
            let (prev_tid, next_tid) = if number % 2 == 0 { (1, 2) } else { (2, 1) };
            let flags = switch_flags::PREEMPT;
            Event::Switch(Switch {
                ts_ns,
                prev_tid,
                next_tid,
                flags,
                ..Switch::default()
            })
            .encode()
        })
        .collect()
}

fn running_ns(snapshot: &Snapshot, name: &str) -> Option<u128> {
    let target = snapshot.targets.iter().find(|target| target.name == name)?;
    assert_eq!(
        Share::ALL
            .iter()
            .map(|&share| target.total.figures.time(share))
            .sum::<u128>(),
        target.total.figures.observed_ns(),
    );
    Some(target.total.figures.time(Share::Running))
}

#[test]
fn a_target_that_stays_keeps_its_figures_and_a_new_one_counts_from_now_on() {
    let mut core = Core::new(vec![spec("goes", 1), spec("stays", 2)]);
    let threads: Vec<ThreadRecord> = [1, 2]
        .map(|tid| ThreadRecord {
            tid,
            tgid: tid,
            start_ns: 1,
            ..ThreadRecord::default()
        })
        .into();
    core.found(&threads, 0..=0);
    core.feed(&[Stream::new(&turns([10, 20]))], 100);
    core.begin_window();

    // Thread 1 runs from the window's start at 100 to 200, then thread 2 to 300, and so on.
    core.feed(&[Stream::new(&turns([200, 300, 400]))], 450);
    let before = core.snapshot();
    assert_eq!(running_ns(&before, "goes"), Some(200));
    assert_eq!(running_ns(&before, "stays"), Some(150));

    core.retarget(vec![spec("stays", 2), spec("comes", 1)]);
    core.feed(&[Stream::new(&turns([]))], 450);
    let records: Vec<RawRecord> = turns([0, 500, 600]).split_off(1);
    core.feed(&[Stream::new(&records)], 650);
    let after = core.snapshot();
    assert_eq!(running_ns(&after, "goes"), None);
    assert_eq!(
        running_ns(&after, "stays"),
        Some(250),
        "400 to 500 went on, 600 to 650 came"
    );
    assert_eq!(
        running_ns(&after, "comes"),
        Some(100),
        "500 to 600, nothing from before"
    );
    let comes = after.targets.iter().find(|target| target.name == "comes");
    assert_eq!(
        comes.map(|target| target.total.figures.observed_ns()),
        Some(200),
        "450 to 650"
    );
    assert_eq!(after.host.observed_ns(), 2 * 550);
}

/// Ids of the threads of the first target, those that ended included.
fn tids(core: &Core) -> Vec<u32> {
    let snapshot = core.snapshot();
    let target = &snapshot.targets[0];
    let mut tids: Vec<u32> = target.threads.iter().map(|t| t.identity.tid).collect();
    assert_eq!(target.unlisted, 0);
    tids.sort_unstable();
    tids
}

fn tree(tgids: &[u32]) -> TargetSpec {
    TargetSpec {
        selector: Selector::Tree(tgids.iter().copied().collect()),
        per_thread: true,
        ..spec("tree", 0)
    }
}

fn process(tgid: u32, parent_tgid: u32) -> ThreadRecord {
    ThreadRecord {
        tid: tgid,
        tgid,
        parent_tgid,
        start_ns: 1,
        comm: *b"somebody\0\0\0\0\0\0\0\0",
        ..ThreadRecord::default()
    }
}

fn fork(ts_ns: u64, tid: u32, tgid: u32, parent_tid: u32) -> RawRecord {
    Event::Fork(Fork {
        ts_ns,
        tid,
        tgid,
        parent_tid,
        start_ns: ts_ns,
        ..Fork::default()
    })
    .encode()
}

/// The child has a lower id than its parent, as after the ids began anew.
#[test]
fn children_that_are_there_and_those_to_come_follow() {
    let mut core = Core::new(vec![tree(&[50])]);
    let found = [
        process(1, 0),
        process(50, 1),
        process(40, 50),
        process(30, 40),
        process(60, 1),
    ];
    core.found(&found, 0..=0);
    core.feed(&[Stream::new(&[])], 5);
    core.begin_window();
    assert_eq!(tids(&core), [30, 40, 50]);
    // A thread of a grandchild, which makes a process of its own; and one of a stranger's.
    let later = [
        fork(10, 31, 30, 30),
        fork(11, 70, 70, 31),
        fork(12, 80, 80, 60),
        fork(13, 90, 90, 70),
    ];
    core.feed(&[Stream::new(&later)], 20);
    assert_eq!(tids(&core), [30, 31, 40, 50, 70, 90]);
}

/// It is made while the threads are read, by a thread that was not known then.
#[test]
fn a_child_that_is_born_while_threads_are_read_follows() {
    let mut core = Core::new(vec![tree(&[50])]);
    core.found(&[process(1, 0), process(50, 1)], 0..=10);
    core.feed(&[Stream::new(&[fork(5, 51, 51, 50)])], 10);
    core.begin_window();
    assert_eq!(tids(&core), [50, 51]);
}

#[test]
fn an_id_that_a_stranger_gets_is_not_followed() {
    let mut core = Core::new(vec![tree(&[50])]);
    core.found(&[process(1, 0), process(50, 1)], 0..=0);
    core.feed(&[Stream::new(&[])], 5);
    core.begin_window();
    let again = [fork(10, 50, 50, 1), fork(11, 51, 51, 50)];
    core.feed(&[Stream::new(&again)], 20);
    let snapshot = core.snapshot();
    assert_eq!((snapshot.targets[0].alive, tids(&core)), (0, vec![50]));
}

#[test]
fn processes_that_join_count_from_then_on() {
    let mut core = Core::new(vec![tree(&[])]);
    core.found(&[process(1, 0), process(50, 1)], 0..=0);
    core.feed(&[Stream::new(&[])], 5);
    core.begin_window();
    core.feed(&[Stream::new(&[])], 100);
    assert!(tids(&core).is_empty());
    core.join(0, &BTreeSet::from([50]));
    core.feed(&[Stream::new(&[fork(130, 51, 51, 50)])], 150);
    let snapshot = core.snapshot();
    let observed = snapshot.targets[0].threads.iter();
    let observed: Vec<_> = observed
        .map(|t| (t.identity.tid, t.account.figures.observed_ns()))
        .collect();
    assert_eq!(observed, [(50, 50), (51, 20)]);
}

/// Takes in what belongs to which unit, as of now.
fn learn(core: &mut Core, placed: &[(u32, u16)], closed: &[u16]) {
    core.learn_units(&UnitNews {
        placed: placed
            .iter()
            .map(|&(tgid, number)| (tgid, UnitNumber(number)))
            .collect(),
        closed: closed.iter().map(|&number| UnitNumber(number)).collect(),
        ..UnitNews::default()
    });
}

/// The unit with this name; the others' is empty.
#[track_caller]
fn unit(snapshot: &Snapshot, label: &str) -> UnitSnapshot {
    let mut units = snapshot.units.iter();
    let unit = units.find(|unit| &*unit.label == label);
    unit.unwrap_or_else(|| panic!("no unit {label:?}")).clone()
}

/// What each unit has sums to what the host has.
#[track_caller]
fn assert_units_sum_up(snapshot: &Snapshot) {
    for spent in Spent::all() {
        let sum: u128 = snapshot
            .units
            .iter()
            .map(|unit| unit.figures.spent(spent))
            .sum();
        assert_eq!(sum, snapshot.host.spent(spent), "{spent:?}");
    }
    let count = |figures: &Figures| (figures.runqueue_delay.count(), figures.wakeups);
    let counts = snapshot.units.iter().map(|unit| count(&unit.figures));
    let sum = counts.fold((0, 0), |sum, its| (sum.0 + its.0, sum.1 + its.1));
    assert_eq!(sum, count(&snapshot.host));
    let alive: usize = snapshot.units.iter().map(|unit| unit.alive).sum();
    assert_eq!(alive, snapshot.alive);
}

#[test]
fn units_sum_up_to_the_host_and_know_who_slowed_them() {
    for lossy in [false, true] {
        assert_units_sum_up(&history(lossy));
    }
    let snapshot = history(false);
    // The stranger preempted a worker for 50 ms.
    let (web, batch) = (
        unit(&snapshot, "web.service"),
        unit(&snapshot, "batch.service"),
    );
    assert_eq!(web.culprits, [(batch.serial, u128::from(50 * MS))]);
    assert_eq!(web.figures.runqueue_delay.count(), 11);
    assert_eq!((web.alive, batch.alive), (3, 1));
}

#[test]
fn a_process_that_moves_counts_for_its_new_unit_from_then_on() {
    let at = |ms: u64| START_NS + ms * MS;
    let mut core = core(&[
        on_cpu(100, b"web", 0),
        ThreadRecord {
            tgid: 500,
            ..asleep(500, b"hog")
        },
    ]);
    core.feed(&[], at(10));
    learn(&mut core, &[(100, 2)], &[]);
    core.feed(&[], at(30));
    let snapshot = core.snapshot();
    assert_units_sum_up(&snapshot);
    let running = |label: &str| unit(&snapshot, label).figures.time(Share::Running);
    assert_eq!(running("web.service"), u128::from(10 * MS));
    assert_eq!(running("batch.service"), u128::from(20 * MS));
    // Who is told of a unit that nobody knows, or that is gone, is among the others.
    learn(&mut core, &[(500, 7)], &[2]);
    core.feed(&[], at(40));
    let snapshot = core.snapshot();
    assert_eq!(snapshot.units.len(), 2);
    let others = unit(&snapshot, "").figures;
    assert_eq!(others.time(Share::Running), u128::from(10 * MS));
    // The time from before is gone with the unit.
    assert_eq!(others.time(Share::Blocked), u128::from(10 * MS));
    // A child is where its parent is, and its number is used again for another unit.
    core.learn_units(&UnitNews {
        named: vec![(UnitNumber(2), "new.service".into())],
        placed: vec![(100, UnitNumber(2))],
        ..UnitNews::default()
    });
    core.feed(&[Stream::new(&[birth(at(41), 100, 103)])], at(50));
    let snapshot = core.snapshot();
    let new = unit(&snapshot, "new.service");
    assert_eq!((new.serial, new.alive), (3, 2));
    assert_eq!(new.figures.time(Share::Running), u128::from(10 * MS));
}

#[test]
fn a_wait_goes_on_when_its_process_moves_to_another_unit() {
    let at = |ms: u64| START_NS + ms * MS;
    let mut core = core(&[on_cpu(100, b"web", 0)]);
    let feed = |core: &mut Core, records: &[RawRecord], ms: u64| {
        core.feed(&[Stream::new(records)], at(ms));
        let snapshot = core.snapshot();
        assert_units_sum_up(&snapshot);
        let oldest = |waiting: &Waiting| {
            let blocked = Reason::all().map(|reason| waiting.blocked(reason).oldest_ns);
            [blocked.max().unwrap_or(0), waiting.runnable.oldest_ns].map(|ns| ns / MS)
        };
        let batch = unit(&snapshot, "batch.service");
        let now = core.threads_now()[0].elapsed_ns / MS;
        (oldest(&snapshot.waiting), oldest(&batch.waiting), now)
    };
    let leaves = [switch(at(10), 100, 1, 0)];
    assert_eq!(feed(&mut core, &leaves, 20), ([10, 0], [0, 0], 10));
    learn(&mut core, &[(100, 2)], &[]);
    assert_eq!(feed(&mut core, &[], 30), ([20, 0], [20, 0], 20));
    let blocked = unit(&core.snapshot(), "batch.service").figures;
    assert_eq!(blocked.time(Share::Blocked), u128::from(10 * MS));
    let woken = [wakeup(at(32), 100)];
    assert_eq!(feed(&mut core, &woken, 35), ([0, 3], [0, 3], 3));
    learn(&mut core, &[(100, 1)], &[]);
    assert_eq!(feed(&mut core, &[], 36), ([0, 4], [0, 0], 4));
}
