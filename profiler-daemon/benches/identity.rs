//! What it costs to know the units of all processes of a host: `cargo bench --bench identity [PROCESSES]`.
//!
//! Makes so many processes that do nothing (2,000 if not said), and times what the registry does with
//! all that there are. Only the number of processes counts, not that of threads.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use schedscope::core::Birth;
use schedscope::identity::{Known, Registry};

/// Asked of itself: wait to be killed.
const WAIT: &str = "--wait";

/// Processes that go away with it.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended by itself is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == WAIT) {
        loop {
            std::thread::park();
        }
    }
    let count = arguments
        .iter()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(2000);
    let this = std::env::current_exe()?;
    let mut crowd = Crowd(Vec::new());
    for _ in 0..count {
        crowd.0.push(Command::new(&this).arg(WAIT).spawn()?);
    }
    let tgids: Vec<u32> = crowd.0.iter().map(Child::id).collect();
    let births: Vec<Birth> = tgids
        .iter()
        .map(|&tgid| Birth {
            tgid,
            parent_tgid: std::process::id(),
        })
        .collect();

    let mut registry = Registry::default();
    let start = Instant::now();
    let clock = |seconds| start + Duration::from_secs(seconds);
    let mut found = HashMap::new();
    report("discover", count, || registry.discover(clock(0)));
    report("born", count, || registry.born(&births, clock(60)));
    report("look at born", count, || {
        registry.look_at_born(&births, clock(60));
    });
    report("known, names read", count, || {
        found = registry.known(tgids.iter().copied(), clock(61));
    });
    let first: HashMap<u32, Known> = found.clone();
    report("known, fresh", count, || {
        found = registry.known(tgids.iter().copied(), clock(62));
    });
    report("known, stale", count, || {
        found = registry.known(tgids.iter().copied(), clock(90));
    });
    report("sweep", count, || registry.sweep(clock(3600)));
    anyhow::ensure!(found == first && found.len() == count, "all are known");
    println!("{:?}", registry.size());
    Ok(())
}

fn report(what: &str, count: usize, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let took = start.elapsed();
    println!(
        "{what:20} {:8.3} ms, {:6.0} ns a process",
        took.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e9 / count as f64
    );
}
