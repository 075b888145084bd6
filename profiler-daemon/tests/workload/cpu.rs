//! Threads that want the CPU: spinners, yielders, hogs, and a spinner under a CPU quota.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cgroup::QuotaGroup;
use crate::crew::{Crew, Stop};
use crate::truth::Expect;

/// Computes until the time is over.
pub(crate) fn burn_until_due(stop: &Stop) {
    while !stop.due() {
        spin_loop();
    }
}

/// Computes for some wall time.
pub(crate) fn burn_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        spin_loop();
    }
}

/// Adds a thread that does nothing but compute.
fn spinner(crew: &mut Crew, cpu: usize, name: &str, expect: Expect) -> Result<()> {
    crew.thread_on(Some(cpu), name, expect, |_, stop| {
        burn_until_due(stop);
        Ok(())
    })?;
    Ok(())
}

/// `--threads` spinners on one CPU: each runs for one part in as many, and is queued for the rest.
pub(crate) fn spin(crew: &mut Crew) -> Result<()> {
    let cpu = crew.options.cpu_or_last()?;
    let base = crew.options.name.clone();
    for number in 0..crew.options.threads_or(3) {
        let name = match &base {
            Some(base) => base.clone(),
            None => format!("spinner-{number}"),
        };
        spinner(crew, cpu, &name, Expect::mixed())?;
    }
    Ok(())
}

/// Threads on one CPU that hand it to each other with `sched_yield`.
pub(crate) fn yielding(crew: &mut Crew) -> Result<()> {
    let cpu = crew.options.cpu_or_last()?;
    for number in 0..crew.options.threads_or(2) {
        let name = format!("yielder-{number}");
        crew.thread_on(Some(cpu), &name, Expect::mixed(), |meter, stop| {
            let mut yields: u64 = 0;
            while !stop.due() {
                rustix::thread::sched_yield();
                yields += 1;
            }
            meter.fact("yields", yields);
            Ok(())
        })?;
    }
    Ok(())
}

/// A victim that computes, beside hogs of another process on the same CPU.
pub(crate) fn hog(crew: &mut Crew) -> Result<()> {
    let cpu = crew.options.cpu_or_last()?;
    let hogs = crew.options.threads_or(1).to_string();
    let cpu_text = cpu.to_string();
    crew.process(&[
        "spin",
        "--cpu",
        &cpu_text,
        "--threads",
        &hogs,
        "--name",
        "hog",
    ])?;
    spinner(crew, cpu, "victim", Expect::contended("hog"))?;
    Ok(())
}

/// A spinner in a cgroup that may use `--quota` percent of a CPU; with `--threads N`, beside N hogs
/// outside of the cgroup.
pub(crate) fn quota(crew: &mut Crew) -> Result<()> {
    let cpu = crew.options.cpu_or_last()?;
    let hogs = crew.options.threads_or(0);
    if hogs > 0 {
        let (cpu, hogs) = (cpu.to_string(), hogs.to_string());
        crew.process(&["spin", "--cpu", &cpu, "--threads", &hogs, "--name", "hog"])?;
    }
    let expect = if hogs > 0 {
        Expect::contended("hog")
    } else {
        Expect::mixed()
    };
    let group = QuotaGroup::enter(crew.options.quota)?;
    spinner(crew, cpu, "limited", expect)?;
    crew.fact("quota_percent", crew.options.quota);
    crew.at_end(move || group.leave());
    Ok(())
}
