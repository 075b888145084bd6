//! Whatever the records say, memory stays bounded, and what is beyond a bound is counted.

use std::sync::Arc;

use profiler_ebpf::{Fork, RawRecord, Switch};
use schedscope::core::classify::FileKind;
use schedscope::core::decode::Event;
use schedscope::core::{Core, Seen, Selector, Share, Stream, TargetSpec};
use wildmatch::WildMatch;

/// Threads that have ended and are listed one by one (`MAX_ENDED` in `core::target`).
const LISTED: u32 = 10_000;
const DEAD: u16 = 0x80;

fn switch(ts_ns: u64, prev_tid: u32, prev_state: u16, next_tid: u32) -> RawRecord {
    Event::Switch(Switch {
        ts_ns,
        prev_tid,
        prev_state,
        next_tid,
        ..Switch::default()
    })
    .encode()
}

fn everybody() -> Core {
    let mut core = Core::new(vec![TargetSpec {
        name: "target".to_owned(),
        selector: Selector::Comm(WildMatch::new("*")),
        per_thread: true,
    }]);
    core.feed(&[Stream::new(&[])], 1);
    core.begin_window();
    core
}

#[test]
fn threads_beyond_the_list_are_counted_and_stay_in_the_total() {
    let beyond = 7;
    let mut core = everybody();
    let records: Vec<RawRecord> = (1..=LISTED + beyond)
        .flat_map(|tid| {
            // Each queues for 2 ns and runs for 3.
            let born_ns = u64::from(tid) * 10;
            let fork = Event::Fork(Fork {
                ts_ns: born_ns,
                start_ns: born_ns,
                tid,
                tgid: tid,
                ..Fork::default()
            });
            let enters = switch(born_ns + 2, 0, 0, tid);
            let ends = switch(born_ns + 5, tid, DEAD, 0);
            [fork.encode(), enters, ends]
        })
        .collect();
    core.feed(&[Stream::new(&records)], u64::MAX);
    let snapshot = core.snapshot();
    let target = &snapshot.targets[0];
    assert_eq!(target.threads.len(), LISTED as usize);
    assert_eq!(target.unlisted, u64::from(beyond));
    for figures in [&target.total.figures, &snapshot.host] {
        let all = u128::from(LISTED + beyond);
        assert_eq!(figures.time(Share::Runnable), 2 * all);
        assert_eq!(figures.time(Share::Running), 3 * all);
        assert_eq!(u128::from(figures.runqueue_delay.count()), all);
    }
}

/// What was seen of waits beyond the bound (`MAX_EVIDENCE` in `core::why`) pushes out the oldest, and costs no more
/// than what came before: somebody may have fifty thousand threads that wait.
#[test]
fn evidence_beyond_the_bound_is_as_cheap() {
    const BOUND: u32 = 1 << 14;
    let mut core = everybody();
    let mut took = Vec::new();
    for round in 0..4 {
        let first = round * BOUND;
        let start = std::time::Instant::now();
        core.seen((first..first + BOUND).map(|tid| Seen {
            tid,
            left_ns: u64::from(tid % 1_000),
            file: FileKind::NotKnown,
            stack: Arc::default(),
            user_stack: None,
        }));
        took.push(start.elapsed());
    }
    // Looking through all that is kept each time took a hundred times as long.
    assert!(took[3] < took[0] * 20, "{took:?}");
}

#[test]
fn ids_that_no_kernel_gives_make_no_threads() {
    let mut core = everybody();
    let records: Vec<RawRecord> = (0..1_000_u32)
        .map(|number| switch(10 + u64::from(number), 1 << 22, 1, u32::MAX - number))
        .collect();
    core.feed(&[Stream::new(&records)], u64::MAX);
    let snapshot = core.snapshot();
    assert_eq!((snapshot.alive, snapshot.host.observed_ns()), (0, 0));
    assert_eq!(snapshot.counts.total(), 1_000);
}
