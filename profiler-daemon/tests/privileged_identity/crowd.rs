//! Very many threads: what it costs to know the units of all of them.
//!
//! `SCHEDSCOPE_CROWD=PROCESSES,THREADS` makes as many processes with as many threads each, ten processes to a cgroup;
//! with `SCHEDSCOPE_BINARY` the service is another build. docs/overhead.md has what came of 50,000 threads. They take
//! room for as many ids (`/proc/sys/kernel/pid_max`).

use std::fs;
use std::time::{Duration, Instant};

use crate::churn::{Herd, resident_kib};
use crate::common::not_run;
use crate::common::schedscope::may_load_probes;
use crate::common::service::{Samples, Service};
use crate::unified;

/// Processes that share a cgroup.
const TOGETHER: usize = 10;

/// What the service may take beside what it takes anyway, in bytes a thread.
const BYTES_A_THREAD: u64 = 2_048;

/// What it takes anyway, in KiB. The tests' own build has twice the code.
const BASE_KIB: u64 = 48 << 10;

/// Processes, and threads of each.
fn asked() -> (usize, usize) {
    let asked = std::env::var("SCHEDSCOPE_CROWD").unwrap_or_default();
    let numbers = asked.split_once(',');
    let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.unwrap_or((30, 100))
}

/// The CPU time that a process has had.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let fields: Vec<&str> = fields.split(' ').collect();
    // The 14th and 15th of all (proc_pid_stat(5)), in ticks of 10 ms.
    let ticks = |place: usize| fields[place].parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

fn in_crowd(samples: &Samples) -> f64 {
    samples.sum("schedscope_unit_threads", "unit=\"churn-")
}

#[test]
fn a_crowd_of_threads_is_named_and_costs_little() {
    const TEST: &str = "crowd::a_crowd_of_threads_is_named_and_costs_little";
    if !may_load_probes(TEST) {
        return;
    }
    let Some(unified) = unified(TEST) else { return };
    let (processes, threads) = asked();
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").expect("procfs is mounted");
    let most: usize = most.trim().parse().expect("a number");
    if processes * threads > most * 3 / 4 {
        not_run(TEST, "kernel.pid_max is too small for so many threads");
        return;
    }
    let mut herd = Herd::new(&unified, threads);
    for _ in 0..processes / TOGETHER {
        herd.grow_by(TOGETHER);
    }
    herd.await_threads(processes * threads);

    let begun = Instant::now();
    let service = Service::start(["--max-units", "500"]);
    println!("{:.2?} until it is healthy", begun.elapsed());
    let all = (processes * threads) as f64;
    let samples =
        service.scrape_within(Duration::from_secs(30), |samples| in_crowd(samples) == all);
    println!(
        "{:.2?} until {all} threads are in their units, {} of them; {:.2?} of CPU time, {} KiB",
        begun.elapsed(),
        processes / TOGETHER,
        cpu_time(service.pid()),
        resident_kib(&service),
    );
    let host = samples.sum("schedscope_threads", "target=\"host\"");
    assert!(host >= all, "{host} threads of the host");

    let (before, then) = (cpu_time(service.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(if all > 10_000.0 { 30 } else { 3 }));
    let used = cpu_time(service.pid()) - before;
    println!(
        "{:.2?} of CPU time in {:.1?} without a scrape: {:.2}% of one",
        used,
        then.elapsed(),
        used.as_secs_f64() / then.elapsed().as_secs_f64() * 100.0
    );
    let before = cpu_time(service.pid());
    let mut took: Vec<Duration> = (0..10)
        .map(|_| {
            let asked = Instant::now();
            assert_eq!(service.get("/metrics", "").status, 200);
            asked.elapsed()
        })
        .collect();
    took.sort();
    let kib = resident_kib(&service);
    println!(
        "a scrape takes {:.1?} (median; longest {:.1?}) and {:.1?} of CPU time; then {kib} KiB",
        took[5],
        took[9],
        (cpu_time(service.pid()) - before) / 10,
    );
    let allowed_kib = BASE_KIB + all as u64 * BYTES_A_THREAD / 1024;
    assert!(kib < allowed_kib, "{kib} KiB, at most {allowed_kib}");
}
