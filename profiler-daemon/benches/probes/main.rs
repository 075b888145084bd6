//! What the probes take each time, in nanoseconds, by the kernel's own count, and an empty probe beside them: the
//! count itself is in each figure. Needs root: `cargo bench -p profiler-daemon --bench probes`.
//!
//! Two threads pass a byte to and fro through pipes on one CPU, so that each switch is one of a thread that
//! blocks; in the rows of an idle host twenty threads sleep 10 ms at a time, and what the probes need is out of
//! the caches each time.

#[expect(unsafe_code, reason = "libbpf is a C library")]
mod empty;
#[path = "../rows/mod.rs"]
mod rows;

use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_setaffinity};
use schedscope::core::Stream;
use schedscope::source::evidence::EvidenceTargets;
use schedscope::source::{Counting, Kernel, Options};

use self::empty::Empty;
use self::rows::Rows;

/// What is attached.
enum Attached {
    /// Nothing but a program that does nothing, at this hook.
    Empty(&'static std::ffi::CStr),
    /// The probes, with these settings; of these hooks it is told.
    Probes {
        options: Options,
        /// The threads that switch are targets themselves.
        is_target: bool,
        hooks: &'static [&'static str],
    },
}

/// What the threads do.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    Storm,
    Idle,
}

const SERVICE: Options = Options {
    syscalls: true,
    throttling: true,
    ..Options::PLAIN
};

const ATTACH: Options = Options {
    ring_records: 256 * 1024,
    wakeups: true,
    wakers: true,
    stacks: Some(1_000_000),
    ..SERVICE
};

const SWITCH: &[&str] = &["sched_switch"];
const EACH: &[&str] = &["sched_switch", "sched_wakeup", "sched_waking"];

fn all() -> Vec<(&'static str, Attached)> {
    let probes = |options, hooks| Attached::Probes {
        options,
        is_target: false,
        hooks,
    };
    let target = |options, hooks| Attached::Probes {
        options,
        is_target: true,
        hooks,
    };
    let wakeups = Options {
        wakeups: true,
        ..SERVICE
    };
    let wakers = Options {
        wakers: true,
        ..wakeups
    };
    vec![
        ("empty", Attached::Empty(c"sched_switch")),
        ("plain", probes(Options::PLAIN, SWITCH)),
        ("service", probes(SERVICE, SWITCH)),
        ("empty", Attached::Empty(c"sched_wakeup")),
        ("with wakeups", probes(wakeups, &EACH[..2])),
        ("empty", Attached::Empty(c"sched_waking")),
        ("with wakers, too", probes(wakers, EACH)),
        ("attach to another process", probes(ATTACH, EACH)),
        ("attach to those who switch", target(ATTACH, EACH)),
    ]
}

fn main() -> anyhow::Result<()> {
    let rows = Rows::from_arguments("probes");
    let (rounds, time) = if rows.is_quick {
        (1, Duration::from_millis(60))
    } else {
        (7, Duration::from_millis(400))
    };
    let all = all();
    for (load, suffix) in [(Load::Storm, ""), (Load::Idle, ", idle host")] {
        let mut costs: BTreeMap<(usize, String), Vec<f64>> = BTreeMap::new();
        for _ in 0..rounds {
            for (place, (name, attached)) in all.iter().enumerate() {
                for (hook, cost) in measure(attached, load, time)? {
                    let name = format!("{hook}, {name}{suffix}");
                    if rows.wants(&name) {
                        costs.entry((place, name)).or_default().push(cost);
                    }
                }
            }
        }
        for ((_, name), costs) in costs {
            rows.print(&name, "ns a call", costs);
        }
    }
    Ok(())
}

/// Nanoseconds a call, by hook.
fn measure(attached: &Attached, load: Load, time: Duration) -> anyhow::Result<Vec<(String, f64)>> {
    let per_call = |before: (u64, u64), after: (u64, u64)| {
        (after.1 - before.1) as f64 / (after.0 - before.0) as f64
    };
    match attached {
        Attached::Empty(hook) => {
            let empty = Empty::attach(hook).context("can't attach an empty program")?;
            let threads = Threads::start(load)?;
            let counting = Counting::start().context("can't have the kernel count")?;
            let before = empty.runs()?;
            thread::sleep(time);
            let after = empty.runs()?;
            drop(counting);
            threads.stop();
            let name = hook.to_string_lossy().into_owned();
            Ok(vec![(name, per_call(before, after))])
        }
        Attached::Probes {
            options,
            is_target,
            hooks,
        } => {
            let mut kernel = Kernel::start(options)?;
            let own = [std::process::id()];
            kernel.set_evidence_targets(EvidenceTargets::Processes(if *is_target {
                &own
            } else {
                &[1]
            }))?;
            let threads = Threads::start(load)?;
            let counting = Counting::start().context("can't have the kernel count")?;
            let before = runs(&kernel);
            let start = Instant::now();
            let mut used = Vec::new();
            while start.elapsed() < time {
                thread::sleep(Duration::from_millis(4));
                let used = &mut used;
                kernel.drain(move |streams| {
                    used.clear();
                    used.extend(streams.iter().map(Stream::len));
                    &*used
                });
            }
            let after = runs(&kernel);
            drop(counting);
            threads.stop();
            let cost = |hook: &&str| {
                let name = (*hook).to_owned();
                let cost = per_call(*before.get(*hook)?, *after.get(*hook)?);
                Some((name, cost))
            };
            Ok(hooks.iter().filter_map(cost).collect())
        }
    }
}

/// Runs and run time by hook.
fn runs(kernel: &Kernel) -> BTreeMap<String, (u64, u64)> {
    let stats = kernel.probe_stats().into_iter();
    stats
        .map(|probe| (probe.name, (probe.runs, probe.run_time_ns)))
        .collect()
}

/// Threads that make switches.
struct Threads {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(load: Load) -> anyhow::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let threads = match load {
            Load::Storm => {
                let (near, far) = (std::io::pipe()?, std::io::pipe()?);
                vec![
                    side(&over, near.0, far.1, true),
                    side(&over, far.0, near.1, false),
                ]
            }
            Load::Idle => (0..20)
                .map(|_| {
                    let over = Arc::clone(&over);
                    thread::spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            thread::sleep(Duration::from_millis(10));
                        }
                    })
                })
                .collect(),
        };
        // They are to be under way.
        thread::sleep(Duration::from_millis(20));
        Ok(Self { over, threads })
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // One that broke shows in that nothing was counted.
            let _ = thread.join();
        }
    }
}

/// One end of a pair on the last CPU: passes on what comes, and ends with the other.
fn side(
    over: &Arc<AtomicBool>,
    mut from: PipeReader,
    mut to: PipeWriter,
    is_first: bool,
) -> JoinHandle<()> {
    let over = Arc::clone(over);
    thread::spawn(move || {
        let last = thread::available_parallelism().map_or(0, |count| count.get() - 1);
        let mut cpus = CpuSet::new();
        cpus.set(last);
        // Elsewhere it is slower, and the figure of a call the same.
        let _ = sched_setaffinity(None, &cpus);
        let mut goes_on = !is_first || to.write_all(b"x").is_ok();
        while goes_on {
            let came = matches!(from.read(&mut [0]), Ok(1));
            goes_on = came && !over.load(Ordering::Relaxed) && to.write_all(b"x").is_ok();
        }
    })
}
