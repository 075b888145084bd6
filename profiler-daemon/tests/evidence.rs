//! Which wait the evidence of a wait is of.

mod support;

use std::sync::Arc;

use profiler_ebpf::ThreadRecord;
use schedscope::core::classify::{FileKind, Stack};
use schedscope::core::{Core, Reason, Seen, Selector, Snapshot, Stream, TargetSpec};
use support::{MS, S, START_NS, asleep, on_cpu, switch, wakeup};

const TID: u32 = 100;

/// A thread in a pipe, which leaves its CPU while the threads are read.
fn leaves_while_it_is_found(left_ns: u64) -> Core {
    let mut core = Core::new(vec![TargetSpec {
        name: "web".to_owned(),
        selector: Selector::Pid(TID),
        per_thread: true,
    }]);
    let leaving = [switch(left_ns, TID, S, 0)];
    core.found(
        &[ThreadRecord {
            runs: 5,
            ..asleep(TID, b"web")
        }],
        left_ns + 1..=START_NS,
    );
    core.feed(&[Stream::new(&leaving)], START_NS);
    core.begin_window();
    core
}

fn in_a_pipe(left_ns: u64) -> Seen {
    let frames = ["schedule", "anon_pipe_read", "vfs_read"];
    Seen {
        tid: TID,
        left_ns,
        file: FileKind::Pipe,
        stack: Arc::new(Stack::new(frames.map(str::to_owned).to_vec())),
        user_stack: None,
    }
}

#[track_caller]
fn check(snapshot: &Snapshot, reason: Reason, blocked_ns: u64) {
    let figures = &snapshot.targets[0].total.figures;
    assert_eq!(
        figures.blocked(reason),
        u128::from(blocked_ns),
        "{figures:?}"
    );
}

#[test]
fn a_wait_that_began_before_the_window_is_known_by_its_beginning() {
    let left_ns = START_NS - 2 * MS;
    let mut core = leaves_while_it_is_found(left_ns);
    core.seen_waiting([in_a_pipe(left_ns)]);
    core.feed(&[], START_NS + 10 * MS);
    check(&core.snapshot(), Reason::Pipe, 10 * MS);
}

#[test]
fn so_it_is_when_it_ends() {
    let left_ns = START_NS - 2 * MS;
    let mut core = leaves_while_it_is_found(left_ns);
    core.seen([in_a_pipe(left_ns)]);
    let back = [
        wakeup(START_NS + 10 * MS, TID),
        switch(START_NS + 11 * MS, 0, 0, TID),
    ];
    core.feed(&[Stream::new(&back)], START_NS + 20 * MS);
    let snapshot = core.snapshot();
    check(&snapshot, Reason::Pipe, 10 * MS);
    // It is among the longest as far as it lies within the window, though it gives no sample.
    let waits: Vec<_> = snapshot.targets[0].worst.blocked.iter().collect();
    let [wait] = waits[..] else {
        panic!("one wait expected: {waits:?}");
    };
    assert_eq!(
        (wait.from_ns, wait.until_ns),
        (START_NS, START_NS + 10 * MS)
    );
    assert!(!wait.is_open && wait.stack.is_some(), "{wait:?}");
    let figures = &snapshot.targets[0].total.figures;
    assert_eq!((figures.offcpu.count(), figures.censored), (0, 1));
}

/// The end of the window comes between the wait's beginning and its end.
#[test]
fn a_wait_that_outlasts_the_window_is_known_by_its_end() {
    let left_ns = START_NS + 5 * MS;
    for first_feed_ns in [START_NS + 4 * MS, left_ns, START_NS + 7 * MS] {
        let mut core = support::core(&[on_cpu(TID, b"web", 0)]);
        let ring = [
            switch(left_ns, TID, S, 0),
            switch(START_NS + 11 * MS, 0, 0, TID),
        ];
        core.seen([in_a_pipe(left_ns)]);
        let used = core.feed(&[Stream::new(&ring)], first_feed_ns)[0];
        core.feed(&[Stream::new(&ring[used..])], START_NS + 10 * MS);
        check(&core.snapshot(), Reason::Pipe, 5 * MS);
    }
}

#[test]
fn evidence_of_another_wait_says_nothing() {
    let left_ns = START_NS - 2 * MS;
    for other_ns in [0, left_ns - MS, left_ns + 1] {
        let mut core = leaves_while_it_is_found(left_ns);
        core.seen_waiting([in_a_pipe(other_ns)]);
        core.feed(&[], START_NS + 10 * MS);
        check(&core.snapshot(), Reason::Pipe, 0);
    }
}
