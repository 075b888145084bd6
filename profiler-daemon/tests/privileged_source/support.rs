//! What the tests of the probes share: their start, what they wrote, and the kernel's own accounts.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write, pipe};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use profiler_ebpf::{RawRecord, Switch, ThreadRecord};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use schedscope::core::decode::Event;
use schedscope::source::{ClockChoice, Kernel, Options, procfs};

use crate::common::schedscope::may_load_probes;

/// A small ring, to be filled.
pub(super) const SMALL: Options = Options {
    ring_records: 64,
    wakeups: false,
    clock: ClockChoice::Auto,
    ..Options::PLAIN
};

/// Rings that hold whatever these tests do, even if the reader is kept off its CPU for long.
pub(super) const AMPLE: Options = Options {
    ring_records: 256 * 1024,
    wakeups: false,
    clock: ClockChoice::Auto,
    ..Options::PLAIN
};

/// One test at a time: they fill rings with their storms.
pub(super) static TURN: Mutex<()> = Mutex::new(());

/// The probes, or none if this host can't run them, which has then been said; and the turn, which ends
/// when it is dropped.
pub(super) fn start(test: &str, options: Options) -> Option<(Kernel, MutexGuard<'static, ()>)> {
    if !may_load_probes(test) {
        return None;
    }
    // One that failed leaves nothing behind that matters to the next.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = Kernel::start(&options).unwrap_or_else(|error| panic!("{error}"));
    Some((kernel, turn))
}

pub(super) fn tid() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

/// The CPU that tests keep busy: the last that this process may use.
pub(super) fn cpu() -> usize {
    let allowed = sched_getaffinity(None).expect("the own affinity can be read");
    (0..CpuSet::MAX_CPU)
        .rev()
        .find(|&cpu| allowed.is_set(cpu))
        .expect("one is allowed")
}

pub(super) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("an allowed CPU can be chosen");
}

pub(super) fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("after the start")
}

/// All records so far, taken out of the rings: one vector a CPU, and one of renames and execs.
#[derive(Default)]
pub(super) struct Log {
    pub(super) streams: Vec<Vec<Event>>,
}

impl Log {
    pub(super) fn drain(&mut self, kernel: &mut Kernel) {
        let mut used = Vec::new();
        kernel.drain(|streams| {
            self.streams.resize_with(streams.len(), Vec::new);
            for (log, stream) in self.streams.iter_mut().zip(streams) {
                let records = stream.first.iter().chain(stream.second);
                let decode = |record: &RawRecord| Event::decode(record).expect("a known kind");
                log.extend(records.map(decode));
                used.push(stream.len());
            }
            &used
        });
    }

    /// The streams of the CPUs.
    pub(super) fn cpus(&self) -> &[Vec<Event>] {
        let (_, cpus) = self.streams.split_last().expect("drained before");
        cpus
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.streams.iter().flatten()
    }

    pub(super) fn switches(&self) -> impl Iterator<Item = &Switch> {
        self.events().filter_map(|event| match event {
            Event::Switch(switch) => Some(switch),
            _ => None,
        })
    }

    /// Fails unless each CPU's records are in order, and the thread that comes in at each switch is the
    /// one that leaves at the next, but where records were lost, or no probe ran because that thread is
    /// hidden from BPF.
    pub(super) fn check_continuity(&self, kernel: &mut Kernel) {
        let hidden = hidden_threads(kernel);
        for (cpu, stream) in self.cpus().iter().enumerate() {
            let mut running = None;
            let mut last_ns = 0;
            for event in stream {
                match event {
                    Event::Switch(switch) => {
                        assert!(
                            switch.ts_ns >= last_ns,
                            "CPU {cpu}: back in time at {switch:?}"
                        );
                        last_ns = switch.ts_ns;
                        let before = running.replace(switch.next_tid);
                        let before = before.filter(|tid| !hidden.contains(tid));
                        assert!(
                            before.is_none_or(|tid| tid == switch.prev_tid),
                            "CPU {cpu}: {before:?} ran, but {switch:?}"
                        );
                    }
                    Event::Gap(_) => running = None,
                    _ => {}
                }
            }
        }
    }
}

/// Threads that are in /proc and that the kernel does not show to BPF programs: some hosts hide their
/// supervisor so, and run no probe while it is current.
pub(super) fn hidden_threads(kernel: &mut Kernel) -> BTreeSet<u32> {
    let shown = kernel.threads().expect("they can be read");
    let mut all = shown.clone();
    procfs::add_missing(&mut all);
    let ids = |threads: &[ThreadRecord]| threads.iter().map(|thread| thread.tid).collect();
    let (all, shown): (BTreeSet<u32>, BTreeSet<u32>) = (ids(&all), ids(&shown));
    all.difference(&shown).copied().collect()
}

/// Two threads on one CPU that hand a byte to and fro, and then wait.
pub(super) struct Storm {
    pub(super) tids: [u32; 2],
    /// Each thread waits for it before it ends.
    pub(super) release: [mpsc::Sender<()>; 2],
    pub(super) threads: [JoinHandle<()>; 2],
}

impl Storm {
    /// Runs `rounds` rounds, calling `meanwhile` now and then; both threads are asleep on return.
    pub(super) fn run(cpu: usize, rounds: u32, mut meanwhile: impl FnMut()) -> Self {
        let (there, back) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let (ready, is_ready) = mpsc::channel();
        let start = |mut from: std::io::PipeReader, mut to: std::io::PipeWriter, begins: bool| {
            let ready = ready.clone();
            let (release, released) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                pin(cpu);
                ready.send(tid()).expect("the test waits");
                let mut byte = [0];
                if begins {
                    to.write_all(&byte).expect("the other one reads");
                }
                for round in 0..rounds {
                    from.read_exact(&mut byte).expect("the other one writes");
                    if !(begins && round + 1 == rounds) {
                        to.write_all(&byte).expect("the other one reads");
                    }
                }
                ready.send(tid()).expect("the test waits");
                // Fails when the test is through, and ends the wait just so.
                let _ = released.recv();
            });
            (release, thread)
        };
        let (first_release, first) = start(back.0, there.1, true);
        let (second_release, second) = start(there.0, back.1, false);
        let mut tids = Vec::new();
        while tids.len() < 4 {
            match is_ready.recv_timeout(Duration::from_millis(1)) {
                Ok(tid) => tids.push(tid),
                Err(_) => meanwhile(),
            }
        }
        // They have said so, and are about to fall asleep.
        thread::sleep(Duration::from_millis(20));
        let tids: BTreeSet<u32> = tids.into_iter().collect();
        let tids: Vec<u32> = tids.into_iter().collect();
        Self {
            tids: tids.try_into().expect("two threads"),
            release: [first_release, second_release],
            threads: [first, second],
        }
    }

    pub(super) fn end(self) {
        drop(self.release);
        for thread in self.threads {
            thread.join().expect("no panic");
        }
    }
}

/// `/proc/self/task/TID/schedstat`: nanoseconds of waiting for a CPU, and times that one was given.
pub(super) fn schedstat(tid: u32) -> (u64, u64) {
    let text =
        fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).expect("a thread of ours");
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect();
    (numbers[1], numbers[2])
}

/// Times that a thread has left a CPU, by `/proc/self/task/TID/status`.
pub(super) fn context_switches(tid: u32) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/self/task/{tid}/status")).expect("a thread of ours");
    let count = |line: &str| {
        line.split_once("_ctxt_switches:")?
            .1
            .trim()
            .parse::<u64>()
            .ok()
    };
    status.lines().filter_map(count).sum()
}
