//! Threads that were asleep before anybody looked, and threads that give their CPU up.

use profiler_ebpf::{switch_flags, thread_flags};
use schedscope::source::{Kernel, Options};

use crate::common::schedscope::may_load_probes;
use crate::common::{Workload, not_run};
use crate::support::record;

/// System calls asked for, and nothing more.
const CALLS: Options = Options {
    syscalls: true,
    ..Options::PLAIN
};

/// Numbers of system calls on x86-64 (`arch/x86/entry/syscalls/syscall_64.tbl`).
#[cfg(target_arch = "x86_64")]
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
    std::thread::sleep(std::time::Duration::from_millis(100));
    let mut kernel = Kernel::start(&CALLS).expect("the probes load");
    assert_eq!(kernel.lacks(), &[], "all of it works on this kernel");
    let threads = kernel.threads().expect("threads can be read");
    for (workload, calls) in [(&pipe, &[0][..]), (&epoll, &[232, 281]), (&mutex, &[202])] {
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

/// `sched_yield` on x86-64.
#[cfg(target_arch = "x86_64")]
#[test]
fn yields_are_told_from_preemptions() {
    const TEST: &str = "yields_are_told_from_preemptions";
    const SCHED_YIELD: u16 = 24;
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
                    && switch.prev_syscall == SCHED_YIELD,
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
