//! What the integration tests share: files with the expected output, and a small history to feed to
//! the core.

#![allow(dead_code, reason = "each test crate uses a part of it")]

pub(crate) mod prometheus;
pub(crate) mod shop;

use std::path::Path;

use profiler_ebpf::{Fork, Gap, RawRecord, Rename, Switch, ThreadRecord, Wakeup, thread_flags};
use schedscope::core::decode::Event;
use schedscope::core::{Core, Selector, Snapshot, Stream, TargetSpec, UnitNews, UnitNumber};
use schedscope::sink::metrics::{Own, ProbeCost, Scrape, SelfChecked};
use schedscope::sink::recent::{Brief, Window};
use schedscope::sink::report::Dropped;

/// Compares with a file of the project; with `UPDATE_EXPECT=1` in the environment writes it instead.
#[track_caller]
pub(crate) fn expect_file(path: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        std::fs::write(&path, actual).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_EXPECT=1 makes it", path.display()));
    let differs = expected
        .lines()
        .zip(actual.lines())
        .position(|(e, a)| e != a);
    assert!(
        expected == actual,
        "{} is out of date (first difference in line {}); if the change is right, run the tests once \
         with UPDATE_EXPECT=1 and look at the diff.\n--- now ---\n{actual}",
        path.display(),
        differs.map_or(
            expected.lines().count().min(actual.lines().count()),
            |line| line
        ) + 1,
    );
}

/// What a program may call a thread, and a user a unit: things that do something to a terminal, to a page, to a
/// line of text or to its direction, and what is no text at all.
pub(crate) const HOSTILE: [&[u8]; 10] = [
    b"\x1b[31mred",
    b"\x1b]0;title\x07",
    b"say \"x\\\"",
    b"a\nb{c=\"d\"} 1",
    b"\xff\xfe\xc3(",
    b"fifteen-bytes-x",
    b"</td><script>",
    b"\xe2\x80\xaefdp.exe",
    b"\xe2\x81\xa6a\xe2\x80\x8bb",
    b"\t\r\x7f;--,'",
];

/// Threads of process 100 with such names, and a history in which each waits, queues and runs.
pub(crate) fn hostile() -> Core {
    let tids = 200..;
    let found: Vec<ThreadRecord> = HOSTILE
        .iter()
        .zip(tids.clone())
        .map(|(comm, tid)| asleep(tid, comm))
        .collect();
    let mut core = core(&found);
    let mut records = Vec::new();
    for (place, tid) in (0..).zip(tids).take(HOSTILE.len()) {
        let at_ns = START_NS + (place * 10 + 1) * MS;
        records.push(wakeup(at_ns, tid));
        records.push(switch(at_ns + 3 * MS, 0, 0, tid));
        records.push(switch(at_ns + 5 * MS, tid, S, 0));
    }
    core.feed(&[Stream::new(&records)], START_NS + 200 * MS);
    core
}

/// A millisecond, in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;

/// When the window of [`history`] begins, by the records' clock.
pub(crate) const START_NS: u64 = 1_000 * MS;

/// Sleeping in a way that a signal ends, in the kernel's state word.
pub(crate) const S: u16 = 1;

/// Sleeping in a way that no signal ends.
pub(crate) const D: u16 = 2;

/// Gone.
pub(crate) const DEAD: u16 = 0x80;

/// A thread of process 100, found asleep.
pub(crate) fn asleep(tid: u32, comm: &[u8]) -> ThreadRecord {
    ThreadRecord {
        start_ns: u64::from(tid),
        comm: name(comm),
        tid,
        tgid: 100,
        parent_tgid: 1,
        state: u32::from(S),
        flags: 0,
        ..ThreadRecord::default()
    }
}

/// A thread of process 100, found on a CPU.
pub(crate) fn on_cpu(tid: u32, comm: &[u8], cpu: u32) -> ThreadRecord {
    ThreadRecord {
        state: 0,
        cpu,
        flags: thread_flags::ON_CPU,
        ..asleep(tid, comm)
    }
}

/// A name as the kernel keeps it.
pub(crate) fn name(bytes: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..bytes.len()].copy_from_slice(bytes);
    comm
}

pub(crate) fn switch(ts_ns: u64, prev_tid: u32, prev_state: u16, next_tid: u32) -> RawRecord {
    Event::Switch(Switch {
        ts_ns,
        prev_tid,
        prev_state,
        next_tid,
        ..Switch::default()
    })
    .encode()
}

pub(crate) fn wakeup(ts_ns: u64, tid: u32) -> RawRecord {
    Event::Wakeup(Wakeup {
        ts_ns,
        tid,
        ..Wakeup::default()
    })
    .encode()
}

pub(crate) fn fork(ts_ns: u64, parent_tid: u32, tid: u32) -> RawRecord {
    Event::Fork(Fork {
        ts_ns,
        start_ns: ts_ns,
        tid,
        tgid: 100,
        parent_tid,
        ..Fork::default()
    })
    .encode()
}

pub(crate) fn rename(ts_ns: u64, tid: u32, comm: &[u8]) -> RawRecord {
    Event::Rename(Rename {
        ts_ns,
        comm: name(comm),
        tid,
        ..Rename::default()
    })
    .encode()
}

pub(crate) fn gap(ts_ns: u64, until_ns: u64, lost: u64) -> RawRecord {
    Event::Gap(Gap {
        ts_ns,
        until_ns,
        lost,
        ..Gap::default()
    })
    .encode()
}

/// A core that watches process 100 and has found these threads; its window begins at [`START_NS`].
pub(crate) fn core(found: &[ThreadRecord]) -> Core {
    let mut core = Core::new(vec![TargetSpec {
        name: "web".to_owned(),
        selector: Selector::Pid(100),
        per_thread: true,
    }]);
    core.found(found, START_NS - MS..=START_NS);
    core.feed(&[], START_NS);
    core.begin_window();
    core.keep_units();
    core.learn_units(&UnitNews {
        named: vec![
            (UnitNumber(1), "web.service".into()),
            (UnitNumber(2), "batch.service".into()),
        ],
        placed: vec![(100, UnitNumber(1)), (500, UnitNumber(2))],
        ..UnitNews::default()
    });
    core
}

/// One second in the life of process 100 on two CPUs:
///
/// * 100 `web` handles a request every 100 ms: queued for 2 ms, 3 ms, ... then running for 10 ms;
/// * 101 runs on CPU 1 throughout, but for 50 ms in which it is preempted by a stranger;
/// * 102, whose name is hostile, waits in the kernel and never comes back;
/// * 103 is born, renamed, works for 20 ms and ends;
/// * with `lossy`, records of CPU 0 are lost from 700 to 710 ms.
pub(crate) fn history(lossy: bool) -> Snapshot {
    let at = |ms: u64| START_NS + ms * MS;
    let mut core = core(&[
        asleep(100, b"web"),
        on_cpu(101, b"web-worker", 1),
        on_cpu(102, b"\"a\\\x1b[31m\xff\n", 0),
        // A stranger.
        ThreadRecord {
            tgid: 500,
            ..asleep(500, b"hog")
        },
    ]);
    let mut cpu0 = vec![switch(at(5), 102, D, 0)];
    for round in 1..10 {
        let woken_ms = round * 100;
        if lossy && round == 7 {
            cpu0.push(gap(at(700), at(710), 5));
            continue;
        }
        cpu0.push(wakeup(at(woken_ms), 100));
        cpu0.push(switch(at(woken_ms + 1 + round), 0, 0, 100));
        cpu0.push(switch(at(woken_ms + 11 + round), 100, S, 0));
    }
    cpu0.push(fork(at(950), 101, 103));
    cpu0.push(switch(at(951), 0, 0, 103));
    cpu0.push(rename(at(952), 103, b"helper"));
    cpu0.push(switch(at(971), 103, DEAD, 0));
    let cpu1 = [
        wakeup(at(400), 500),
        switch(at(401), 101, 0, 500),
        switch(at(451), 500, S, 101),
    ];
    core.feed(&[Stream::new(&cpu0), Stream::new(&cpu1)], at(1_000));
    core.snapshot()
}

/// A scrape with this snapshot, of a service that runs on two CPUs.
pub(crate) fn scrape(snapshot: Snapshot) -> Scrape {
    let dropped = |cpu, kind, count| Dropped { cpu, kind, count };
    let targets = snapshot.targets.iter();
    let units = snapshot.units.iter();
    let window = Window {
        length_ns: snapshot.at_ns - snapshot.start_ns,
        host: Some(Brief::new(&snapshot.host)),
        targets: targets
            .map(|target| (target.name.clone(), Brief::new(&target.total.figures)))
            .collect(),
        units: units
            .map(|unit| (unit.serial, Brief::new(&unit.figures)))
            .collect(),
        interference: Vec::new(),
    };
    Scrape {
        generation: 1,
        snapshot,
        window,
        unix_ns: 1_700_000_000_000_000_000,
        processes: [(500, "batch.service".to_owned())].into(),
        own: Own {
            version: "1.2.3".to_owned(),
            kernel: "6.18.0".to_owned(),
            clock: "run-queue",
            wakeups_recorded: true,
            dropped: vec![
                dropped(0, "switch", 4),
                dropped(0, "wakeup", 1),
                dropped(1, "switch", 0),
                dropped(1, "wakeup", 0),
            ],
            shed: schedscope::core::ShedCounts::default(),
            ring_fill: 0.25,
            probes: vec![ProbeCost {
                name: "sched_switch".to_owned(),
                runs: 1_000,
                run_ns: 65_000,
                missed: 0,
            }],
            cpu_ns: 1_234_567,
            resident_bytes: 5 << 20,
            lag_ns: 2_000_000,
            clock_error_ns: Some(1_500),
            drains: 7,
            drain_wakeups: 8,
            resyncs: 1,
            self_check: SelfChecked {
                agree: 12,
                differ: 1,
                unsure: 0,
                figures: vec![
                    ("running", 9_900_000_000, 10_000_000_000),
                    ("runnable", 0, 0),
                ],
            },
        },
    }
}
