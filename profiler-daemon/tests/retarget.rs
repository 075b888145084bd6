//! Targets that come, stay and go while the core measures.

use profiler_ebpf::{RawRecord, Switch, ThreadRecord, switch_flags};
use schedscope::core::decode::Event;
use schedscope::core::{Core, Selector, Share, Snapshot, Stream, TargetSpec};

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
