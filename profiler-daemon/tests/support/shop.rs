//! A second in the life of a process that waits for all kinds of things.

use std::collections::BTreeMap;
use std::sync::Arc;

use profiler_ebpf::{
    RawRecord, Switch, ThreadRecord, Throttled, Wakeup, Waking, switch_flags, thread_flags,
    waker_context,
};
use schedscope::core::classify::{Call, FileKind, Stack};
use schedscope::core::decode::Event;
use schedscope::core::{Seen, Snapshot, Stream};

use super::{D, S, START_NS, asleep, core, on_cpu};

/// Records of two CPUs as they come to be.
#[derive(Default)]
struct Script {
    cpus: [Vec<RawRecord>; 2],
    /// How often each thread was given a CPU.
    runs: BTreeMap<u32, u16>,
}

fn at(us: u64) -> u64 {
    START_NS + us * 1_000
}

fn number(call: &str) -> u16 {
    match Call::named(call) {
        Some(Call::Number(number)) => number,
        _ => panic!("{call} is a call of every architecture"),
    }
}

impl Script {
    fn push(&mut self, cpu: usize, event: Event) {
        self.cpus[cpu].push(event.encode());
    }

    /// `next` gets the CPU of `prev`, which leaves in this state, with these flags and in this call.
    fn switch(&mut self, cpu: usize, us: u64, prev: (u32, u16, u8, &str), next_tid: u32) {
        let (prev_tid, prev_state, mut flags, call) = prev;
        let mut prev_syscall = 0;
        if !call.is_empty() {
            flags |= switch_flags::PREV_SYSCALL;
            prev_syscall = number(call);
        }
        let runs = self.runs.entry(next_tid).or_default();
        *runs += u16::from(next_tid != 0);
        let next_runs = *runs;
        self.push(
            cpu,
            Event::Switch(Switch {
                ts_ns: at(us),
                prev_tid,
                prev_state,
                next_tid,
                next_runs,
                prev_syscall,
                flags: flags | switch_flags::NEXT_COUNTED,
                ..Switch::default()
            }),
        );
    }

    /// The CPU is idle until `next` gets it.
    fn enter(&mut self, cpu: usize, us: u64, next_tid: u32) {
        self.switch(cpu, us, (0, 0, 0, ""), next_tid);
    }

    /// Something on the first CPU wakes a thread up, which goes on the queue of the second.
    fn wake(&mut self, (by, on): (usize, usize), us: u64, tid: u32, how: (u8, u32, u32)) {
        let (context, waker_tid, vector) = how;
        let runs = self.runs.get(&tid).copied().unwrap_or(0) + 1;
        self.push(
            by,
            Event::Waking(Waking {
                ts_ns: at(us),
                tid,
                waker_tid,
                vector,
                runs,
                context,
                ..Waking::default()
            }),
        );
        self.push(
            by,
            Event::Wakeup(Wakeup {
                ts_ns: at(us),
                tid,
                cpu: u32::try_from(on).expect("a small number"),
                ..Wakeup::default()
            }),
        );
    }
}

fn in_call(call: &str, record: ThreadRecord) -> ThreadRecord {
    ThreadRecord {
        syscall: number(call),
        flags: thread_flags::SYSCALL,
        ..record
    }
}

fn stack(frames: &[&str]) -> Arc<Stack> {
    Arc::new(Stack::new(
        frames.iter().map(|&frame| frame.to_owned()).collect(),
    ))
}

/// One second of process 100 on two CPUs:
///
/// * 100 and 104 wait in `epoll_wait` throughout;
/// * 101 waits 42 ms for a lock that 102 holds, who is queued for 35 ms of it behind a stranger; then
///   15 ms for a disk; then in `epoll_wait`, woken by a timer every 100 ms;
/// * 102 has no quota from 300 to 390 ms, and from 500 ms on it waits for a pipe;
/// * 105, whose name is hostile, waits in a call that says nothing, since before the window.
pub(crate) fn shop() -> Snapshot {
    let mut pictures = shop_pictures(1_000_000);
    pictures.pop().expect("one at the end")
}

/// The same history at its beginning, and each time when so many microseconds have gone by.
pub(crate) fn shop_pictures(every_us: usize) -> Vec<Snapshot> {
    let mut core = core(&[
        in_call("epoll_pwait", asleep(100, b"shop")),
        on_cpu(101, b"shop-front", 0),
        on_cpu(102, b"shop-store", 1),
        in_call("epoll_pwait", asleep(104, b"shop-log")),
        in_call("getrandom", asleep(105, b"\"a\\\x1b[31m\xff\n")),
        ThreadRecord {
            tgid: 500,
            ..in_call("epoll_pwait", asleep(501, b"batch-1"))
        },
    ]);
    let mut script = Script::default();
    let timer = (waker_context::TIMER, 0, 0);
    script.switch(0, 10_000, (101, S, 0, "futex"), 0);
    script.wake((1, 1), 11_900, 501, timer);
    script.switch(1, 12_000, (102, 0, switch_flags::PREEMPT, ""), 501);
    script.switch(1, 47_000, (501, S, 0, "clock_nanosleep"), 102);
    script.wake((1, 0), 52_000, 101, (waker_context::THREAD, 102, 0));
    script.enter(0, 52_050, 101);
    script.switch(0, 60_000, (101, D, switch_flags::PREV_IOWAIT, "pread64"), 0);
    script.wake((0, 0), 75_000, 101, (waker_context::SOFTIRQ, 0, 4));
    script.enter(0, 75_010, 101);
    script.switch(0, 80_000, (101, S, 0, "epoll_pwait"), 0);
    for round in 1..10 {
        script.wake((0, 0), round * 100_000, 101, timer);
        script.enter(0, round * 100_000 + 20, 101);
        script.switch(0, round * 100_000 + 2_000, (101, S, 0, "epoll_pwait"), 0);
    }
    script.switch(1, 300_000, (102, 0, switch_flags::PREV_THROTTLED, ""), 0);
    script.push(
        1,
        Event::Throttled(Throttled {
            ts_ns: at(400_000),
            since_ns: at(300_000),
            until_ns: at(390_000),
            tid: 102,
            ..Throttled::default()
        }),
    );
    script.enter(1, 400_000, 102);
    script.switch(1, 500_000, (102, S, 0, "read"), 0);
    core.seen([Seen {
        tid: 101,
        left_ns: at(60_000),
        file: FileKind::Regular,
        stack: stack(&[
            "io_schedule",
            "folio_wait_bit_common",
            "filemap_read",
            "vfs_read",
        ]),
        user_stack: Some(7),
    }]);
    let mut pictures = vec![core.snapshot()];
    let mut used = [0, 0];
    for us in (0..=1_000_000).step_by(every_us).skip(1) {
        let streams = [0, 1].map(|cpu: usize| Stream::new(&script.cpus[cpu][used[cpu]..]));
        let fed = core.feed(&streams, at(us));
        for (sum, fed) in used.iter_mut().zip(fed) {
            *sum += fed;
        }
        if us == 1_000_000 {
            core.seen_waiting([Seen {
                tid: 102,
                left_ns: at(500_000),
                file: FileKind::Pipe,
                stack: stack(&["anon_pipe_read", "vfs_read", "ksys_read"]),
                user_stack: None,
            }]);
        }
        pictures.push(core.snapshot());
    }
    pictures
}
