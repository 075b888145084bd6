//! The probes in the running kernel, against the kernel's own accounts.

#[path = "../common/mod.rs"]
mod common;
mod shedding;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::not_run;
use common::schedscope::{Running, may_load_probes, schedscope};
use profiler_ebpf::{Clock, Gap, Switch, ThreadRecord, Wakeup, switch_flags, thread_flags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use schedscope::core::decode::Event;
use schedscope::source::{ClockChoice, Kernel, Options, StartError, StartFailure};
use support::*;

#[test]
fn nothing_is_lost_at_full_speed() {
    let Some((mut kernel, _turn)) = start("nothing_is_lost_at_full_speed", AMPLE) else {
        return;
    };
    let mut log = Log::default();
    let storm = Storm::run(cpu(), 100_000, || log.drain(&mut kernel));
    log.drain(&mut kernel);
    assert_eq!(kernel.losses().total(), 0, "{:?}", kernel.losses());
    log.check_continuity(&mut kernel);
    for tid in storm.tids {
        let left = log
            .switches()
            .filter(|switch| switch.prev_tid == tid)
            .count() as u64;
        assert_eq!(
            left,
            context_switches(tid),
            "each time that {tid} left a CPU is there once"
        );
        assert!(left >= 100_000, "{left} switches are no storm");
    }
    storm.end();
}

/// A stamped switch-in has the very figures that the kernel's own books have after it.
#[test]
fn run_queue_delay_is_the_kernels_own() {
    let Some((mut kernel, _turn)) = start("run_queue_delay_is_the_kernels_own", AMPLE) else {
        return;
    };
    if kernel.clock() != Clock::RunQueue {
        not_run(
            "run_queue_delay_is_the_kernels_own",
            "the run queue's clock can't be used here",
        );
        return;
    }
    let mut log = Log::default();
    // Two storms on one CPU: threads wait for each other.
    let storms: Vec<Storm> = thread::scope(|scope| {
        let storms: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| Storm::run(cpu(), 5_000, || {})))
            .collect();
        while storms.iter().any(|storm| !storm.is_finished()) {
            thread::sleep(Duration::from_millis(5));
            log.drain(&mut kernel);
        }
        storms
            .into_iter()
            .map(|storm| storm.join().expect("no panic"))
            .collect()
    });
    log.drain(&mut kernel);
    let mut switches_in = 0;
    let mut not_seen = Vec::new();
    for tid in storms.iter().flat_map(|storm| storm.tids) {
        let mut ins: Vec<_> = log
            .switches()
            .filter(|switch| switch.next_tid == tid)
            .collect();
        // It may have been on another CPU first.
        ins.sort_by_key(|switch| switch.ts_ns);
        for pair in ins.windows(2) {
            assert!(
                pair[0].next_delay_ns <= pair[1].next_delay_ns,
                "delay grows: {pair:?}"
            );
            // Whether such a run is counted depends on the kernel's version.
            if pair[0].flags & switch_flags::NEXT_UNQUEUED == 0
                && pair[0].next_runs.wrapping_add(1) != pair[1].next_runs
            {
                not_seen.push(pair.to_vec());
            }
        }
        switches_in += ins.len();
        let last = ins.last().expect("it ran");
        let (delay_ns, runs) = schedstat(tid);
        assert!(delay_ns > 0, "it had to wait");
        if u64::from(last.next_runs) + 1 == runs {
            assert_eq!(last.next_delay_ns, delay_ns, "{last:?}");
        } else {
            not_seen.push(vec![last]);
        }
    }
    // No probe runs at the switch from a thread that is hidden from BPF.
    let tolerated = if hidden_threads(&mut kernel).is_empty() {
        0
    } else {
        switches_in / 100
    };
    assert!(not_seen.len() <= tolerated, "after or at {not_seen:?}");
    storms.into_iter().for_each(Storm::end);
}

#[test]
fn a_wakeup_has_the_time_of_the_enqueue() {
    // While it is moved to its CPU, a thread that sleeps may be queued there before it is woken: since
    // Linux 6.12 the fair class keeps some sleepers on their queues for a while.
    const SETTLED: u16 = 8;
    let options = Options {
        wakeups: true,
        ..AMPLE
    };
    let Some((mut kernel, _turn)) = start("a_wakeup_has_the_time_of_the_enqueue", options) else {
        return;
    };
    assert!(kernel.wakeups());
    let mut log = Log::default();
    let storm = Storm::run(cpu(), 2_000, || log.drain(&mut kernel));
    log.drain(&mut kernel);
    // Wakeups may stand in the ring of the CPU that gave them.
    let mut events: Vec<_> = log.cpus().iter().flatten().collect();
    events.sort_by_key(|event| event.ts_ns());
    for tid in storm.tids {
        let mut woken: Option<&Wakeup> = None;
        let mut last: Option<&Switch> = None;
        let mut sleeps = false;
        let mut compared = 0;
        for event in &events {
            match event {
                Event::Wakeup(wakeup) if wakeup.tid == tid => woken = Some(wakeup),
                Event::Switch(switch) if switch.prev_tid == tid => {
                    // One who is preempted need not be woken.
                    sleeps = switch.flags & switch_flags::PREEMPT == 0 && switch.prev_state != 0;
                    woken = None;
                }
                Event::Switch(switch) if switch.next_tid == tid => {
                    let before = last.replace(switch);
                    // A switch from a thread that is hidden from BPF is not seen.
                    let before = before
                        .filter(|before| before.next_runs.wrapping_add(1) == switch.next_runs);
                    if switch.next_runs < SETTLED || before.is_none() {
                        continue;
                    }
                    assert_eq!(sleeps, woken.is_some(), "{woken:?} {switch:?}");
                    if let (Some(wakeup), Some(before)) = (woken, before) {
                        let waited_ns = switch.next_delay_ns - before.next_delay_ns;
                        assert_eq!(
                            waited_ns,
                            switch.ts_ns - wakeup.ts_ns,
                            "{wakeup:?} {switch:?}"
                        );
                        compared += 1;
                    }
                }
                _ => {}
            }
        }
        assert!(compared >= 100, "only {compared} waits began with a wakeup");
    }
    storm.end();
}

#[test]
fn what_a_full_ring_loses_is_counted_and_placed() {
    let Some((mut kernel, _turn)) = start("what_a_full_ring_loses_is_counted_and_placed", SMALL)
    else {
        return;
    };
    let mut log = Log::default();
    let mut begun = Instant::now();
    let storm = Storm::run(cpu(), 20_000, || {
        // Too seldom for so small a ring, and often enough for many gaps.
        if begun.elapsed() > Duration::from_millis(10) {
            log.drain(&mut kernel);
            begun = Instant::now();
        }
    });
    storm.end();
    // The ring has room again; the next switches bring the records of the gaps that are still open.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        log.drain(&mut kernel);
        if (0..kernel.cpus()).all(|cpu| kernel.open_gap(cpu).is_none()) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "a gap stays open although there is room"
        );
        thread::sleep(Duration::from_millis(1));
    }
    let losses = kernel.losses();
    log.drain(&mut kernel);
    assert!(
        losses.total() > 1_000,
        "a ring of 64 records can't hold such a storm: {losses:?}"
    );
    for (stream, losses) in log.cpus().iter().zip(&losses.cpus) {
        let gaps: Vec<&Gap> = stream
            .iter()
            .filter_map(|event| {
                if let Event::Gap(gap) = event {
                    Some(gap)
                } else {
                    None
                }
            })
            .collect();
        let lost: u64 = gaps.iter().map(|gap| gap.lost).sum();
        assert_eq!(
            lost,
            losses.switches + losses.wakeups + losses.forks,
            "{gaps:?}"
        );
        for gap in gaps {
            assert!(gap.lost > 0 && gap.ts_ns <= gap.until_ns, "{gap:?}");
        }
    }
    log.check_continuity(&mut kernel);
}

#[test]
fn births_find_room_in_a_ring_full_of_switches() {
    // The part that is kept for births has room for some of other programs too.
    let options = Options {
        ring_records: 1024,
        ..SMALL
    };
    let Some((mut kernel, _turn)) = start("births_find_room_in_a_ring_full_of_switches", options)
    else {
        return;
    };
    let storm = Storm::run(cpu(), 5_000, || {});
    let child = thread::spawn(|| {
        pin(cpu());
        thread::spawn(tid).join().expect("no panic")
    });
    let child = child.join().expect("no panic");
    assert!(
        kernel.losses().cpus[cpu()].switches > 0,
        "the ring is full: {:?}",
        kernel.losses()
    );
    let mut log = Log::default();
    log.drain(&mut kernel);
    let born = log
        .events()
        .any(|event| matches!(event, Event::Fork(fork) if fork.tid == child));
    assert!(
        born,
        "{child} was born on a CPU whose ring was full of switches"
    );
    storm.end();
}

#[test]
fn the_doorbell_rings_when_a_ring_fills() {
    let Some((mut kernel, _turn)) = start("the_doorbell_rings_when_a_ring_fills", SMALL) else {
        return;
    };
    let mut log = Log::default();
    log.drain(&mut kernel);
    kernel.clear_doorbell();
    let storm = Storm::run(cpu(), 200, || {});
    let mut fds = [PollFd::from_borrowed_fd(kernel.as_fd(), PollFlags::IN)];
    let rung = poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        }),
    )
    .expect("poll works");
    assert_eq!(rung, 1, "a ring was full and nobody rang");
    log.drain(&mut kernel);
    assert!(kernel.fill() > 0.5, "the fullest that a ring was");
    assert!(
        kernel.fill() < f64::EPSILON,
        "is forgotten when it has been asked for"
    );
    storm.end();
}

/// The moments before and after a sleep enclose its two switches, as the relation of the clocks has it.
#[test]
fn the_clocks_are_related_as_well_as_is_said() {
    let Some((mut kernel, _turn)) = start("the_clocks_are_related_as_well_as_is_said", AMPLE)
    else {
        return;
    };
    let mut log = Log::default();
    let mut sleeps = Vec::new();
    // Whatever the start waited for is then long past.
    thread::sleep(Duration::from_millis(5));
    for _ in 0..50 {
        let before = (monotonic_ns(), kernel.now_ns());
        thread::sleep(Duration::from_millis(1));
        sleeps.push((before, (kernel.now_ns(), monotonic_ns())));
    }
    kernel.calibrate().expect("it worked at the start");
    log.drain(&mut kernel);
    // Measured before and after; in between the clocks drift by far less than a microsecond.
    let error_ns = kernel.clock_error_ns() + 1_000;
    assert!(error_ns < 20_000, "known to {error_ns} ns only");
    let own = tid();
    let mut compared = 0;
    for ((before_ns, before_record_ns), (after_record_ns, after_ns)) in sleeps {
        assert!(after_ns - before_ns >= 1_000_000, "it slept");
        // Far more than the error, and less than a sleep: there is one that it can be.
        let near = before_record_ns - 500_000..after_record_ns + 500_000;
        let mut near = log.switches().filter(|switch| near.contains(&switch.ts_ns));
        let left = near.find(|switch| switch.prev_tid == own && switch.prev_state != 0);
        let back = near.find(|switch| switch.next_tid == own);
        // A thread that is hidden from BPF may have had the CPU before or after.
        let (Some(left), Some(back)) = (left, back) else {
            continue;
        };
        compared += 1;
        assert!(
            left.ts_ns + error_ns >= before_record_ns,
            "{left:?} before {before_record_ns}"
        );
        assert!(
            back.ts_ns <= after_record_ns + error_ns,
            "{back:?} after {after_record_ns}"
        );
    }
    assert!(compared >= 40, "only {compared} of 50 sleeps were seen");
}

#[test]
fn the_other_clock_works_without_stamps() {
    let options = Options {
        clock: ClockChoice::Monotonic,
        ..AMPLE
    };
    let Some((mut kernel, _turn)) = start("the_other_clock_works_without_stamps", options) else {
        return;
    };
    assert_eq!(kernel.clock(), Clock::Monotonic);
    assert!(kernel.wakeups(), "they are needed with this clock");
    let before_ns = monotonic_ns();
    let storm = Storm::run(cpu(), 500, || {});
    let after_ns = monotonic_ns();
    let mut log = Log::default();
    log.drain(&mut kernel);
    let own: Vec<_> = log
        .switches()
        .filter(|switch| storm.tids.contains(&switch.prev_tid))
        .collect();
    assert!(own.len() >= 1_000, "{} switches", own.len());
    for switch in own {
        assert!((before_ns..=after_ns).contains(&switch.ts_ns), "{switch:?}");
        assert_eq!(switch.flags & switch_flags::NEXT_STAMPED, 0, "{switch:?}");
        assert_eq!(switch.next_delay_ns, 0, "{switch:?}");
    }
    storm.end();
}

#[test]
fn the_task_iterator_agrees_with_proc() {
    let Some((mut kernel, _turn)) = start("the_task_iterator_agrees_with_proc", AMPLE) else {
        return;
    };
    let storm = Storm::run(cpu(), 100, || {});
    let threads = kernel.threads().expect("they can be read");
    let own = tid();
    let process = std::process::id();
    let ours: BTreeMap<u32, &ThreadRecord> = threads
        .iter()
        .filter(|thread| thread.tgid == process)
        .map(|thread| (thread.tid, thread))
        .collect();
    for tid in storm.tids {
        let thread = ours.get(&tid).expect("it sleeps");
        let comm = fs::read_to_string(format!("/proc/self/task/{tid}/comm")).expect("it sleeps");
        let name = thread
            .comm
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        assert_eq!(name, comm.trim_end().as_bytes());
        let (delay_ns, runs) = schedstat(tid);
        assert_eq!(thread.run_delay_ns, delay_ns);
        assert_eq!(u64::from(thread.runs) + 1, runs);
        assert_eq!(thread.parent_tgid, std::os::unix::process::parent_id());
        assert_eq!(thread.state & 0xff, 1, "interruptible sleep: {thread:?}");
        assert_eq!(thread.flags, 0, "{thread:?}");
        assert_eq!(thread.start_ns / 10_000_000, start_ticks(tid), "{thread:?}");
    }
    let reader = ours.get(&own).expect("the reader is a thread too");
    assert_eq!(reader.flags, thread_flags::ON_CPU, "{reader:?}");
    let kthreadd = threads
        .iter()
        .find(|thread| thread.tid == 2)
        .expect("every kernel has it");
    assert_eq!(&kthreadd.comm[..9], b"kthreadd\0");
    assert_ne!(kthreadd.flags & thread_flags::KTHREAD, 0, "{kthreadd:?}");
    let ids: BTreeSet<u32> = threads.iter().map(|thread| thread.tid).collect();
    assert_eq!(ids.len(), threads.len(), "each thread is there once");
    storm.end();
}

/// Field 22 of `/proc/self/task/TID/stat`, in hundredths of a second.
fn start_ticks(tid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).expect("a thread of ours");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .expect("a number")
}

#[test]
fn births_names_and_programs_are_told() {
    let Some((mut kernel, _turn)) = start("births_names_and_programs_are_told", AMPLE) else {
        return;
    };
    let child = thread::Builder::new()
        .name("a-first-name".into())
        .spawn(tid)
        .expect("a thread");
    let child = child.join().expect("no panic");
    let mut command = Command::new("/bin/true")
        .spawn()
        .expect("every system has it");
    let process = command.id();
    command.wait().expect("it ends");
    let mut log = Log::default();
    log.drain(&mut kernel);

    let fork = |tid| {
        log.events().find_map(|event| match event {
            Event::Fork(fork) if fork.tid == tid => Some(*fork),
            _ => None,
        })
    };
    let born = fork(child).expect("the thread's birth");
    assert_eq!((born.tgid, born.parent_tid), (std::process::id(), tid()));
    assert!(born.start_ns > 0);
    let born = fork(process).expect("the process's birth");
    assert_eq!((born.tgid, born.parent_tid), (process, tid()));
    let renamed = log.events().find_map(|event| match event {
        Event::Rename(rename) if rename.tid == child => Some(rename.comm),
        _ => None,
    });
    assert_eq!(
        renamed.as_ref().map(|comm| &comm[..]),
        Some(&b"a-first-name\0\0\0\0"[..])
    );
    let exec = log.events().any(|event| {
        matches!(event, Event::Exec(exec) if exec.tid == process && exec.old_tid == process)
    });
    assert!(exec, "/bin/true was executed");
    // A thread's end is a switch that it does not come back from.
    let dead = log
        .switches()
        .find(|switch| switch.prev_tid == child && switch.prev_state & 0x80 != 0);
    assert!(dead.is_some(), "the thread's end");
}

#[test]
fn unusable_options_are_refused() {
    for ring_records in [0, 1, 32, 100, 3 << 20, 1 << 30] {
        let options = Options {
            ring_records,
            ..Options::default()
        };
        let Err(error) = Kernel::start(&options) else {
            panic!("a ring of {ring_records} records was accepted");
        };
        assert!(matches!(error, StartError::RingSize { .. }), "{error:?}");
        assert_eq!(error.failure(), StartFailure::Usage);
        assert!(error.to_string().contains("power of two"), "{error}");
    }
}

/// Ids of the BPF programs that a process holds, by its descriptors.
fn programs_of(pid: u32) -> BTreeSet<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
        })
        .collect()
}

#[test]
fn a_killed_process_leaves_nothing_in_the_kernel() {
    const TEST: &str = "a_killed_process_leaves_nothing_in_the_kernel";
    if !may_load_probes(TEST) {
        return;
    }
    let pid = std::process::id().to_string();
    let daemon = Running::start(schedscope(["attach", "--duration", "60s", &pid]));
    let deadline = Instant::now() + Duration::from_secs(20);
    let held = loop {
        let held = programs_of(daemon.pid());
        // Four hooks at least, the iterator and the clock reader.
        if held.len() >= 6 {
            break held;
        }
        assert!(Instant::now() < deadline, "only {held:?} were loaded");
        thread::sleep(Duration::from_millis(20));
    };
    daemon.signal(rustix::process::Signal::KILL);
    let loaded = || -> BTreeSet<u32> {
        aya::programs::loaded_programs()
            .flatten()
            .map(|program| program.id())
            .collect()
    };
    // The kernel frees programs a moment after the last descriptor is gone.
    while !loaded().is_disjoint(&held) {
        assert!(Instant::now() < deadline, "{held:?} outlive their process");
        thread::sleep(Duration::from_millis(20));
    }
}
