//! Threads that were asleep before anybody looked, and threads that give their CPU up.

use std::time::{Duration, Instant};

use profiler_ebpf::evidence::EvidenceRecord;
use profiler_ebpf::{switch_flags, thread_flags};
use schedscope::core::classify::FileKind;
use schedscope::core::merge::Merger;
use schedscope::source::evidence::{EvidenceTargets, file_kind, stack};
use schedscope::source::symbols::Symbols;
use schedscope::source::{Kernel, Options};

use crate::NUMBERS;
use crate::common::schedscope::may_load_probes;
use crate::common::{Workload, not_run};
use crate::support::{ALL, Recording, record};

/// System calls asked for, and nothing more.
const CALLS: Options = Options {
    syscalls: true,
    ..Options::PLAIN
};

#[test]
fn sleepers_that_are_found_say_their_system_call() {
    const TEST: &str = "sleepers_that_are_found_say_their_system_call";
    if !may_load_probes(TEST) {
        return;
    }
    let stuck = |workload| {
        Workload::start(workload, &["--duration", "20s", "--period", "10s"])
            .expect("it needs nothing")
    };
    let (pipe, epoll, mutex) = (stuck("pipe-read"), stuck("epoll"), stuck("mutex"));
    let spinner = stuck("spin");
    std::thread::sleep(Duration::from_millis(100));
    let mut kernel = Kernel::start(&CALLS).expect("the probes load");
    assert_eq!(kernel.lacks(), &[], "all of it works on this kernel");
    let threads = kernel.threads().expect("threads can be read");
    for (workload, calls) in [
        (&pipe, NUMBERS.read),
        (&epoll, NUMBERS.epoll),
        (&mutex, NUMBERS.futex),
    ] {
        let (_, tid) = workload.member("waiter");
        let found = threads.iter().find(|thread| thread.tid == tid);
        let found = found.expect("it is asleep");
        assert_ne!(found.flags & thread_flags::SYSCALL, 0, "{found:?}");
        assert!(calls.contains(&found.syscall), "{found:?}: not {calls:?}");
    }
    for thread in &threads {
        let sleeps = thread.state != 0 && thread.flags & thread_flags::ON_CPU == 0;
        if thread.flags & thread_flags::SYSCALL == 0 {
            assert_eq!(thread.syscall, 0, "{thread:?}");
        } else {
            let is_user = thread.flags & thread_flags::KTHREAD == 0;
            assert!(sleeps && is_user, "{thread:?}");
        }
        if thread.tgid == spinner.pid() && thread.tid != thread.tgid {
            assert_eq!(thread.flags & thread_flags::SYSCALL, 0, "{thread:?}");
        }
    }
    drop(kernel);
    let mut plain = Kernel::start(&Options::PLAIN).expect("the probes load");
    for thread in plain.threads().expect("threads can be read") {
        let read = (thread.flags & thread_flags::SYSCALL, thread.syscall);
        assert_eq!(read, (0, 0), "not asked for: {thread:?}");
    }
}

#[test]
fn yields_are_told_from_preemptions() {
    const TEST: &str = "yields_are_told_from_preemptions";
    if !may_load_probes(TEST) {
        return;
    }
    // Room for all that yielders do in a second.
    let options = Options {
        ring_records: 1 << 20,
        ..CALLS
    };
    let count = |workload, thread: &str| {
        let (running, recording) = record(TEST, workload, &["--threads", "2"], &options)?;
        let (_, tid) = running.member(thread);
        let (mut left, mut yields) = (0, 0);
        for switch in recording.switches().filter(|switch| switch.prev_tid == tid) {
            let gave_up = switch.flags & switch_flags::PREEMPT == 0 && switch.prev_state == 0;
            left += 1;
            yields += usize::from(
                gave_up
                    && switch.flags & switch_flags::PREV_SYSCALL != 0
                    && switch.prev_syscall == NUMBERS.sched_yield,
            );
        }
        Some((left, yields))
    };
    let Some((left, yields)) = count("yield", "yielder-0") else {
        return;
    };
    println!("yield: {yields} of {left} times");
    assert!(left >= 1_000, "{left} switches");
    assert!(yields * 100 >= left * 99, "{yields} of {left}");
    let Some((left, yields)) = count("spin", "spinner-0") else {
        return;
    };
    println!("spin: {yields} of {left} times");
    if left == 0 {
        return not_run(TEST, "the spinner was never interrupted");
    }
    assert_eq!(yields, 0, "of {left}");
}

/// The cause of a run-queue delay depends on where the thread is queued.
#[test]
fn throttling_brings_migrations() {
    const TEST: &str = "throttling_brings_migrations";
    if !may_load_probes(TEST) {
        return;
    }
    let attached = |options: &Options| {
        let kernel = Kernel::start(options).expect("the probes load");
        kernel
            .probe_stats()
            .iter()
            .any(|probe| probe.name == "sched_migrate_task")
    };
    let throttling = Options {
        throttling: true,
        ..Options::PLAIN
    };
    assert!(attached(&throttling));
    assert!(!attached(&CALLS));
}

#[test]
fn a_wait_that_has_not_ended_shows_what_it_is_in() {
    const TEST: &str = "a_wait_that_has_not_ended_shows_what_it_is_in";
    if !may_load_probes(TEST) {
        return;
    }
    let symbols = Symbols::read().expect("root may read the kernel's symbols");
    let long = ["--duration", "20s", "--period", "10s"];
    let stuck = Workload::start("pipe-read", &long).expect("it needs nothing");
    let other = Workload::start("pipe-read", &long).expect("it needs nothing");
    let short = ["--duration", "20s", "--period", "100ms"];
    let running = Workload::start("unix-socket", &short).expect("it needs nothing");
    std::thread::sleep(Duration::from_millis(50));
    let mut kernel = Kernel::start(&ALL).expect("the probes load");
    assert_eq!(kernel.lacks(), &[], "all of it works on this kernel");
    assert_eq!(
        kernel.open_evidence().expect("it can be read"),
        [],
        "no targets, nothing to show"
    );
    kernel
        .set_evidence_targets(EvidenceTargets::Processes(&[stuck.pid(), running.pid()]))
        .expect("the targets can be set");
    let mut recording = Recording::default();
    recording.go_on(
        &mut kernel,
        &mut Merger::default(),
        Duration::from_millis(250),
    );
    let open = kernel.open_evidence().expect("it can be read");
    recording.go_on(
        &mut kernel,
        &mut Merger::default(),
        Duration::from_millis(250),
    );
    let find = |tid| open.iter().find(|evidence| evidence.tid == tid);
    let check = |evidence: &EvidenceRecord, file, function| {
        assert_eq!(evidence.woken_ns, 0, "{evidence:?}");
        assert_eq!(file_kind(evidence), file, "{evidence:?}");
        let names: Vec<_> = stack(evidence)
            .iter()
            .filter_map(|&address| symbols.name(address))
            .collect();
        let is_there = names.iter().any(|name| name.contains(function));
        assert!(is_there, "{function} in {names:?}");
    };
    let (tgid, tid) = stuck.member("waiter");
    let evidence = find(tid).expect("it is stuck");
    check(evidence, FileKind::Pipe, "pipe_read");
    assert_eq!((evidence.left_ns, evidence.tgid), (0, tgid), "{evidence:?}");
    // It wakes now and then: this wait began while somebody looked.
    let (_, tid) = running.member("waiter");
    let evidence = find(tid).expect("it sleeps nearly all the time");
    check(evidence, FileKind::UnixSocket, "unix_stream_read_generic");
    let waits = recording.waits(tid);
    let (out, _) = waits
        .iter()
        .find(|(out, _)| out.ts_ns == evidence.left_ns)
        .unwrap_or_else(|| panic!("{evidence:?} is none of {waits:?}"));
    assert_eq!(evidence.syscall, out.prev_syscall);
    assert!(
        open.iter().all(|evidence| evidence.tgid != other.pid()),
        "not chosen"
    );
    let ended = recording.evidence.iter().find(|ended| ended.tid == tid);
    let ended = ended.expect("waits of it have ended");
    assert_eq!(stack(ended), stack(evidence), "taken in the same way");
    // And of everything, kernel threads too.
    kernel
        .set_evidence_targets(EvidenceTargets::All)
        .expect("the targets can be set");
    let begin = Instant::now();
    let open = kernel.open_evidence().expect("it can be read");
    println!("{} open waits in {:?}", open.len(), begin.elapsed());
    for workload in [&stuck, &other] {
        let (_, tid) = workload.member("waiter");
        assert!(open.iter().any(|evidence| evidence.tid == tid), "{tid}");
    }
    let mut without = Kernel::start(&CALLS).expect("the probes load");
    assert_eq!(without.open_evidence().expect("it can be read"), []);
}
