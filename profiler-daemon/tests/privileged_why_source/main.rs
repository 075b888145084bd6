//! What the probes tell about why threads wait, against programs with a known truth.

#[path = "../common/mod.rs"]
mod common;
mod found;
mod support;
mod user_stacks;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use profiler_ebpf::{Switch, Waking, switch_flags, syscall, waker_context};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};
use schedscope::core::classify::FileKind;
use schedscope::core::decode::Event;
use schedscope::core::merge::Merger;
use schedscope::source::evidence::{EvidenceTargets, file_kind, stack};
use schedscope::source::quotas::groups_with_quota;
use schedscope::source::symbols::Symbols;
use schedscope::source::{Kernel, Options};

use common::schedscope::may_load_probes;
use common::{Workload, not_run, number};
use support::{ALL, Recording, record};

/// The part of the blocked time of these waits that `is_right` holds for.
fn share(waits: &[(Switch, Switch)], is_right: impl Fn(&Switch) -> bool) -> f64 {
    let span = |(out, back): &(Switch, Switch)| (back.ts_ns - out.ts_ns) as f64;
    let whole: f64 = waits.iter().map(span).sum();
    let right: f64 = waits
        .iter()
        .filter(|(out, _)| is_right(out))
        .map(span)
        .sum();
    right / whole
}

/// Numbers of system calls.
struct Numbers {
    sleep: &'static [u16],
    futex: &'static [u16],
    epoll: &'static [u16],
    read: &'static [u16],
    write: &'static [u16],
    receive: &'static [u16],
    /// Those that wait for a child, and for it to begin its program.
    child: &'static [u16],
    sched_yield: u16,
}

/// Those of `arch/x86/entry/syscalls/syscall_64.tbl` in the kernel's source, or of `include/uapi/asm-generic/unistd.h`.
const NUMBERS: Numbers = if cfg!(target_arch = "x86_64") {
    Numbers {
        sleep: &[230, 35],
        futex: &[202],
        epoll: &[232, 281],
        read: &[0],
        write: &[1],
        receive: &[45, 0],
        child: &[61, 247, 435, 58],
        sched_yield: 24,
    }
} else {
    Numbers {
        sleep: &[115, 101],
        futex: &[98],
        epoll: &[22],
        read: &[63],
        write: &[64],
        receive: &[207, 63],
        child: &[260, 95, 435, 220],
        sched_yield: 124,
    }
};

#[test]
fn system_calls_that_threads_wait_in_are_told() {
    const TEST: &str = "system_calls_that_threads_wait_in_are_told";
    if !may_load_probes(TEST) {
        return;
    }
    let none = [syscall::NONE];
    let cases: &[(&str, &str, &[u16])] = &[
        ("sleep-loop", "sleeper", NUMBERS.sleep),
        ("mutex", "waiter", NUMBERS.futex),
        ("epoll", "waiter", NUMBERS.epoll),
        ("pipe-read", "waiter", NUMBERS.read),
        ("pipe-write", "waiter", NUMBERS.write),
        ("tcp-recv", "waiter", NUMBERS.receive),
        ("waitpid", "parent", NUMBERS.child),
        ("userfaultfd", "toucher", &none),
    ];
    let options = Options {
        syscalls: true,
        ..Options::default()
    };
    for (workload, thread, expected) in cases {
        let Some((running, recording)) = record(TEST, workload, &[], &options) else {
            continue;
        };
        let (_, tid) = running.member(thread);
        let waits = recording.waits(tid);
        let is_right = |out: &Switch| {
            out.flags & switch_flags::PREV_SYSCALL != 0 && expected.contains(&out.prev_syscall)
        };
        let share = share(&waits, is_right);
        assert!(
            share >= 0.98,
            "{workload}: {share} of {} waits, such as {:?}",
            waits.len(),
            waits.iter().find(|(out, _)| !is_right(out))
        );
        for switch in recording.switches() {
            let read = switch.flags & (switch_flags::PREV_SYSCALL | switch_flags::PREV_KTHREAD);
            let gives_up = switch.flags & switch_flags::PREEMPT == 0 && switch.prev_tid != 0;
            if gives_up && switch.prev_state != 0 {
                assert_ne!(read, 0, "{switch:?}");
            } else {
                // Of a runnable thread only a user thread's call is read.
                assert_eq!(read & switch_flags::PREV_KTHREAD, 0, "{switch:?}");
                assert!(gives_up || read == 0, "{switch:?}");
            }
        }
    }
}

#[test]
fn without_being_asked_nothing_is_read() {
    const TEST: &str = "without_being_asked_nothing_is_read";
    if !may_load_probes(TEST) {
        return;
    }
    let Some((running, recording)) = record(TEST, "pipe-read", &[], &Options::default()) else {
        return;
    };
    assert!(!recording.waits(running.member("waiter").1).is_empty());
    let extra =
        switch_flags::PREV_SYSCALL | switch_flags::PREV_KTHREAD | switch_flags::PREV_THROTTLED;
    for event in &recording.events {
        match event {
            Event::Switch(record) => {
                assert_eq!((record.flags & extra, record.prev_syscall), (0, 0));
            }
            Event::Waking(_)
            | Event::Migrate(_)
            | Event::Throttle(_)
            | Event::Throttled(_)
            | Event::CgroupMove(_) => {
                panic!("not asked for: {event:?}")
            }
            _ => {}
        }
    }
    assert!(recording.evidence.is_empty());
}

/// `TASK_RTLOCK_WAIT` (`include/linux/sched.h`).
const RTLOCK_WAIT: u16 = 0x1000;

/// Who should have woken a thread.
enum Expected {
    /// The thread of this name.
    Thread(&'static str),
    /// A timer, wherever it expires.
    Timer,
    /// One of these numbers of this context.
    Context(u8, &'static [u32]),
}

#[test]
fn wakers_are_told_and_belong_to_their_waits() {
    const TEST: &str = "wakers_are_told_and_belong_to_their_waits";
    if !may_load_probes(TEST) {
        return;
    }
    let cases = [
        ("pipe-read", "waiter", Expected::Thread("waker")),
        ("mutex", "waiter", Expected::Thread("holder")),
        ("sleep-loop", "sleeper", Expected::Timer),
        // NET_RX_SOFTIRQ: the loopback device's other end.
        (
            "tcp-recv",
            "waiter",
            Expected::Context(waker_context::SOFTIRQ, &[3]),
        ),
    ];
    for (workload, thread, expected) in cases {
        let Some((running, recording)) = record(TEST, workload, &[], &ALL) else {
            continue;
        };
        let (_, tid) = running.member(thread);
        let mut waits = recording.waits(tid);
        // With PREEMPT_RT it waits for the kernel's spinlocks, too, and whoever lets go of one wakes it.
        waits.retain(|(out, _)| out.prev_state & RTLOCK_WAIT == 0);
        assert!(waits.len() >= 3, "{workload}: {} waits", waits.len());
        // By the count of runs, and by the order alone.
        let by_runs: HashMap<u16, &Waking> = recording
            .wakings(tid)
            .map(|waking| (waking.runs, waking))
            .collect();
        let mut matched = 0;
        for (out, back) in &waits {
            let Some(waking) = by_runs.get(&back.next_runs) else {
                continue;
            };
            matched += 1;
            assert!(waking.ts_ns <= back.ts_ns, "{waking:?} after {back:?}");
            let is_right = match expected {
                Expected::Thread(name) => {
                    waking.context == waker_context::THREAD
                        && waking.waker_tid == running.member(name).1
                }
                // HRTIMER_SOFTIRQ: most timers expire there with PREEMPT_RT.
                Expected::Timer => {
                    waking.context == waker_context::TIMER
                        || (waking.context, waking.vector) == (waker_context::SOFTIRQ, 8)
                }
                Expected::Context(context, vectors) => {
                    waking.context == context && vectors.contains(&waking.vector)
                }
            };
            assert!(is_right, "{workload}: {waking:?} ends {out:?}");
        }
        assert!(
            matched * 100 >= waits.len() * 98,
            "{workload}: {matched} of {} waits have a waker",
            waits.len()
        );
    }
}

#[test]
fn migrations_are_told() {
    const TEST: &str = "migrations_are_told";
    if !may_load_probes(TEST) {
        return;
    }
    let allowed = sched_getaffinity(None).expect("the CPUs are known");
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    let [first, second, ..] = cpus[..] else {
        return not_run(TEST, "there is one CPU only");
    };
    let mut kernel = Kernel::start(&ALL).expect("the probes load");
    let (send, receive) = std::sync::mpsc::channel();
    let mover = std::thread::spawn(move || {
        send.send(gettid().as_raw_nonzero().get().cast_unsigned())
            .expect("it is awaited");
        for cpu in [first, second].repeat(10) {
            let mut set = CpuSet::new();
            set.set(cpu);
            sched_setaffinity(None, &set).expect("an allowed CPU");
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let tid = receive.recv().expect("it is sent");
    let mut recording = Recording::default();
    recording.go_on(
        &mut kernel,
        &mut Merger::default(),
        Duration::from_millis(300),
    );
    mover.join().expect("it does not fail");
    let moves: Vec<_> = recording
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Migrate(record) if record.tid == tid => {
                Some((record.from_cpu as usize, record.to_cpu as usize))
            }
            _ => None,
        })
        .collect();
    // From the second choice on, each is one move; the first is if it was elsewhere.
    assert!((19..=20).contains(&moves.len()), "{moves:?}");
    let expected = [(first, second), (second, first)].repeat(10);
    assert_eq!(moves[moves.len() - 19..], expected[..19], "{moves:?}");
}

#[test]
fn throttled_time_is_the_kernels() {
    const TEST: &str = "throttled_time_is_the_kernels";
    if !may_load_probes(TEST) {
        return;
    }
    let mut kernel = Kernel::start(&ALL).expect("the probes load");
    let mut recording = Recording::default();
    let mut merger = Merger::default();
    // Recorded from before the group's beginning to after its end.
    let running = match Workload::start("quota", &["--duration", "2s"]) {
        Ok(running) => running,
        Err(reason) => return not_run(TEST, &reason),
    };
    let (_, tid) = running.member("limited");
    let threads = kernel.threads().expect("threads can be read");
    let found = threads.iter().find(|thread| thread.tid == tid);
    let cgroup = found.expect("the thread is there").cpu_cgroup;
    let limited = groups_with_quota();
    recording.go_on(&mut kernel, &mut merger, Duration::from_millis(3_500));
    let truth = running.finish();
    let facts = &truth["facts"];
    let kernels_ns: u64 = number(&facts["throttled_ns"]);
    if let Some(lack) = kernel.lacks().iter().find(|its| its.what == "throttling") {
        return not_run(TEST, &lack.reason);
    }
    // Which of them depends on the kernel; never both.
    let sum_ns = by_group(&recording.events, cgroup) + by_thread(&recording.events, tid);
    let difference = sum_ns.abs_diff(kernels_ns) as f64 / kernels_ns as f64;
    println!("throttled: {sum_ns} ns here, {kernels_ns} ns in cpu.stat");
    assert!(
        difference < 0.03,
        "{sum_ns} ns here, {kernels_ns} ns in cpu.stat: {truth}"
    );
    assert!(cgroup > 1, "the cgroup that was made has an id: {cgroup}");
    assert!(
        limited.contains(&cgroup),
        "{cgroup} has a quota: {limited:?}"
    );
}

/// How long a group was held back, summed over the CPUs, where groups are throttled as a whole.
fn by_group(events: &[Event], cgroup: u64) -> u64 {
    let mut since_ns = HashMap::new();
    let mut sum_ns = 0;
    for event in events {
        match event {
            Event::Throttle(record) if record.cgroup == cgroup && record.on != 0 => {
                let before = since_ns.insert(record.cpu, record.ts_ns);
                assert_eq!(before, None, "it was held back already: {record:?}");
            }
            Event::Throttle(record) if record.cgroup == cgroup => {
                let began_ns = since_ns.remove(&record.cpu);
                let began_ns =
                    began_ns.unwrap_or_else(|| panic!("it was not held back: {record:?}"));
                // The kernel counts from when the first thread was held back.
                sum_ns += record.ts_ns - began_ns.max(record.since_ns);
            }
            _ => {}
        }
    }
    sum_ns
}

/// How long a thread was held back, where each is throttled by itself.
fn by_thread(events: &[Event], tid: u32) -> u64 {
    let (mut sum_ns, mut left_ns, mut ended) = (0, None, None);
    for event in events {
        match event {
            Event::Throttled(record) if record.tid == tid => ended = Some(*record),
            Event::Switch(switch) if switch.prev_tid == tid => {
                let is_throttled = switch.flags & switch_flags::PREV_THROTTLED != 0;
                left_ns = is_throttled.then_some(switch.ts_ns);
            }
            Event::Switch(switch) if switch.next_tid == tid => {
                // Each says so as it leaves, and again as it comes back, right before the switch.
                assert_eq!(left_ns.is_some(), ended.is_some(), "{switch:?}");
                if let (Some(left_ns), Some(record)) = (left_ns.take(), ended.take()) {
                    assert_eq!(record.ts_ns, switch.ts_ns);
                    assert!(record.since_ns <= left_ns, "{record:?}, left at {left_ns}");
                    assert!(record.until_ns <= switch.ts_ns, "{record:?}");
                    sum_ns += record.until_ns - record.since_ns;
                }
            }
            _ => {}
        }
    }
    sum_ns
}

/// The root of the hierarchy with the cpu controller, of whichever version.
fn cpu_hierarchy() -> Option<PathBuf> {
    let first = Path::new("/sys/fs/cgroup/cpu");
    if first.join("cpu.cfs_quota_us").exists() || first.join("cpu.shares").exists() {
        return Some(first.to_owned());
    }
    let second = Path::new("/sys/fs/cgroup");
    let controllers = std::fs::read_to_string(second.join("cgroup.subtree_control")).ok()?;
    let has_cpu = controllers.split_whitespace().any(|its| its == "cpu");
    has_cpu.then(|| second.to_owned())
}

#[test]
fn a_move_to_another_cgroup_is_told() {
    const TEST: &str = "a_move_to_another_cgroup_is_told";
    if !may_load_probes(TEST) {
        return;
    }
    let Some(hierarchy) = cpu_hierarchy() else {
        return not_run(TEST, "the cpu controller is in no hierarchy of cgroups");
    };
    let group = hierarchy.join(format!("schedscope-test-{}", std::process::id()));
    if std::fs::create_dir(&group).is_err() {
        return not_run(TEST, "no cgroup with the cpu controller can be made");
    }
    let inode = std::fs::metadata(&group).expect("it was made").ino();
    let running = Workload::start("mutex", &["--duration", "20s"]).expect("it needs nothing");
    let mut kernel = Kernel::start(&ALL).expect("the probes load");
    let mut recording = Recording::default();
    let mut merger = Merger::default();
    let move_to = |to: &Path| {
        std::fs::write(to.join("cgroup.procs"), running.pid().to_string())
            .expect("it can be moved");
    };
    move_to(&group);
    let inside = kernel.threads().expect("threads can be read");
    move_to(&hierarchy);
    recording.go_on(&mut kernel, &mut merger, Duration::from_millis(100));
    std::fs::remove_dir(&group).expect("it is empty");
    let (_, holder) = running.member("holder");
    let (_, waiter) = running.member("waiter");
    let moves: Vec<_> = recording
        .events
        .iter()
        .filter_map(|event| match event {
            Event::CgroupMove(record) if record.tid == running.pid() => {
                Some((record.cgroup, record.whole_process))
            }
            _ => None,
        })
        .collect();
    // One record for the whole process. Outside of all groups it is in the root, 1, or in an autogroup.
    assert_eq!(moves.len(), 2, "{moves:?}");
    assert_eq!(moves[0], (inode, 1), "{moves:?}");
    assert!(matches!(moves[1], (0 | 1, 1)), "{moves:?}");
    for tid in [holder, waiter] {
        let found = inside
            .iter()
            .find(|thread| thread.tid == tid)
            .expect("it lives");
        assert_eq!(found.cpu_cgroup, inode, "thread {tid}");
    }
}

#[test]
fn evidence_shows_what_long_waits_were_spent_in() {
    const TEST: &str = "evidence_shows_what_long_waits_were_spent_in";
    if !may_load_probes(TEST) {
        return;
    }
    let symbols = Symbols::read().expect("root may read the kernel's symbols");
    let cases = [
        ("pipe-read", "waiter", FileKind::Pipe, "pipe_read"),
        ("pipe-write", "waiter", FileKind::Pipe, "pipe_write"),
        (
            "unix-socket",
            "waiter",
            FileKind::UnixSocket,
            "unix_stream_read_generic",
        ),
        ("tcp-recv", "waiter", FileKind::InetSocket, "tcp_recvmsg"),
        ("eventfd", "waiter", FileKind::Event, "eventfd_read"),
        ("timerfd", "waiter", FileKind::Timer, "timerfd_read"),
        // What it calls to wait, `io_cqring_wait`, is a part of it on some kernels.
        ("io-uring", "waiter", FileKind::IoUring, "io_uring_enter"),
        ("tty", "waiter", FileKind::Tty, "n_tty_read"),
        ("mutex", "waiter", FileKind::NotKnown, "futex"),
    ];
    for (workload, thread, file, function) in cases {
        let Some((running, recording)) = record(TEST, workload, &[], &ALL) else {
            continue;
        };
        let (_, tid) = running.member(thread);
        let waits = recording.waits(tid);
        assert!(waits.len() >= 3, "{workload}: {} waits", waits.len());
        let mut matched = 0;
        for (out, back) in &waits {
            let evidence = recording
                .evidence
                .iter()
                .find(|evidence| evidence.tid == tid && evidence.left_ns == out.ts_ns);
            let Some(evidence) = evidence else { continue };
            matched += 1;
            assert_eq!(evidence.tgid, running.member(thread).0);
            assert_eq!(
                evidence.syscall, out.prev_syscall,
                "{workload}: {evidence:?}"
            );
            let names: Vec<_> = stack(evidence)
                .iter()
                .filter_map(|&address| symbols.name(address))
                .collect();
            assert!(
                names.iter().any(|name| name.contains(function)),
                "{workload}: {function} in {names:?}"
            );
            assert_eq!(file_kind(evidence), file, "{workload}: {evidence:?}");
            // The clocks are related to a few microseconds.
            assert!(
                evidence.woken_ns >= out.ts_ns && evidence.woken_ns <= back.ts_ns + 100_000,
                "{workload}: {evidence:?} between {out:?} and {back:?}"
            );
        }
        assert!(
            // One of a few dozen may fall to a thread that the host hides.
            (matched + 1) * 100 >= waits.len() * 98,
            "{workload}: evidence of {matched} of {} waits",
            waits.len()
        );
    }
}

#[test]
fn evidence_is_taken_of_long_waits_of_chosen_processes_only() {
    const TEST: &str = "evidence_is_taken_of_long_waits_of_chosen_processes_only";
    if !may_load_probes(TEST) {
        return;
    }
    let sleeps = |period| {
        Workload::start("pipe-read", &["--duration", "20s", "--period", period])
            .expect("it needs nothing")
    };
    let (chosen, short, other) = (sleeps("20ms"), sleeps("2ms"), sleeps("20ms"));
    let options = Options {
        stacks: Some(10_000_000),
        ..ALL
    };
    let mut kernel = Kernel::start(&options).expect("the probes load");
    kernel
        .set_evidence_targets(EvidenceTargets::Processes(&[chosen.pid(), short.pid()]))
        .expect("the targets can be set");
    let mut recording = Recording::default();
    let mut merger = Merger::default();
    recording.go_on(&mut kernel, &mut merger, Duration::from_millis(500));
    let of = |recording: &Recording, workload: &Workload| {
        let (_, tid) = workload.member("waiter");
        recording
            .evidence
            .iter()
            .filter(|evidence| evidence.tid == tid)
            .count()
    };
    assert!(of(&recording, &chosen) >= 10, "{}", of(&recording, &chosen));
    assert_eq!(of(&recording, &other), 0, "not chosen");
    for evidence in &recording.evidence {
        assert!(
            evidence.woken_ns - evidence.left_ns >= 10_000_000,
            "{evidence:?}"
        );
    }
    // Chosen anew while it runs.
    kernel
        .set_evidence_targets(EvidenceTargets::Processes(&[other.pid()]))
        .expect("the targets can be set");
    recording.go_on(&mut kernel, &mut merger, Duration::from_millis(50));
    recording.evidence.clear();
    recording.go_on(&mut kernel, &mut merger, Duration::from_millis(500));
    assert_eq!(of(&recording, &chosen), 0, "no longer chosen");
    assert!(of(&recording, &other) >= 10, "{}", of(&recording, &other));
}
