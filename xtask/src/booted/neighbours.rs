//! Two units that share a CPU, by name, in what a real Prometheus has of them.
//!
//! The one that is slowed never sleeps, so it waits whenever the other has the CPU: what the kernel
//! counts as the other's usage is what it must be charged, whatever else runs on this machine. And the
//! kernel's own sum of what the one has waited (`/proc/PID/schedstat`) is the sum over all culprits.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::machine::Machine;

/// How far figures may be from the kernel's.
const TOLERANCE: f64 = 0.05;

/// Least that is looked at, in seconds.
const LEAST: f64 = 4.0;

/// A figure at a time, both in seconds.
type Sample = (f64, f64);

pub(super) fn are_named(machine: &Machine) -> Result<()> {
    machine.run(
        "cpu=$(sed -n 's/^Cpus_allowed_list:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/self/status)\n\
         systemd-run --quiet --unit=victim -p CPUAffinity=$cpu bash -c 'while :; do :; done'\n\
         systemd-run --quiet --unit=hog -p CPUAffinity=$cpu \
         bash -c 'while :; do :; done & while :; do :; done'",
    )?;
    let pair = r#"schedscope_unit_interference_seconds_total{victim="victim.service",culprit="hog.service"}"#;
    machine.until(20, &format!("{} | grep -- '=>'", instant(pair)))?;
    // What the kernel says meanwhile.
    let kernel = machine.run(
        "pid=$(systemctl show -p MainPID --value victim)\n\
         for i in $(seq 70); do\n\
         used=$(sed -n 's/^usage_usec //p' /sys/fs/cgroup/system.slice/hog.service/cpu.stat)\n\
         read -r ran waited runs </proc/$pid/schedstat\n\
         echo \"$(date +%s.%N) $used $waited\"; sleep 0.1; done",
    )?;
    let mut used = Vec::new();
    let mut waited = Vec::new();
    for line in kernel.lines() {
        let numbers: Option<Vec<f64>> = line.split(' ').map(|part| part.parse().ok()).collect();
        let Some(&[at, used_us, waited_ns]) = numbers.as_deref() else {
            anyhow::bail!("not three numbers: {line}");
        };
        used.push((at, used_us / 1e6));
        waited.push((at, waited_ns / 1e9));
    }
    let charged = samples(machine, pair)?;
    agree("what is charged to hog.service", &charged, &used)?;
    let all = r#"schedscope_unit_interference_seconds_total{victim="victim.service"}"#;
    let all = samples(machine, all)?;
    agree("what is charged to anybody", &all, &waited)?;
    let first = machine.run(&instant(
        "topk(1, rate(schedscope_unit_interference_seconds_total{victim=\"victim.service\"}[5s]))",
    ))?;
    ensure!(
        first.contains("culprit=\"hog.service\""),
        "the first culprit is {first}"
    );
    machine.run("systemctl stop victim hog; systemctl reset-failed")?;
    Ok(())
}

/// A script that asks Prometheus.
fn instant(query: &str) -> String {
    format!("/mnt/promtool query instant http://127.0.0.1:9090 '{query}'")
}

/// What Prometheus has scraped of these series in the last seconds, their sum at each scrape.
fn samples(machine: &Machine, series: &str) -> Result<Vec<Sample>> {
    let answer = machine.run(&instant(&format!("{series}[7s]")))?;
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for line in answer.lines() {
        // `1.5 @[1795837357.401]`, the time being that of the scrape.
        let Some((value, at)) = line.split_once(" @[") else {
            continue;
        };
        let value: f64 = value.parse().with_context(|| line.to_owned())?;
        *sums.entry(at.trim_end_matches(']')).or_default() += value;
    }
    ensure!(sums.len() >= 4, "too few scrapes: {answer}");
    let sample = |(at, sum): (&str, f64)| Ok((at.parse()?, sum));
    sums.into_iter().map(sample).collect()
}

/// What a figure was at a time, between the two around it.
fn at(samples: &[Sample], time: f64) -> Option<f64> {
    let after = samples.iter().position(|(at, _)| *at >= time)?;
    let (before, after) = (samples.get(after.checked_sub(1)?)?, samples.get(after)?);
    let share = (time - before.0) / (after.0 - before.0);
    Some(before.1 + share * (after.1 - before.1))
}

/// Whether a figure grew as the kernel's did, from the first to the last time at which both are known.
fn agree(what: &str, ours: &[Sample], kernel: &[Sample]) -> Result<()> {
    let both = |(time, value): &Sample| Some((*time, *value, at(kernel, *time)?));
    let both: Vec<_> = ours.iter().filter_map(both).collect();
    let first = both.first().context("no time in common")?;
    let last = both.last().context("no time in common")?;
    let (took, grown, kernel_grown) = (last.0 - first.0, last.1 - first.1, last.2 - first.2);
    println!("  {what}: {grown:.3} s in {took:.1} s, by the kernel {kernel_grown:.3} s");
    ensure!(took >= LEAST, "only {took} s are in common");
    let share = grown / kernel_grown;
    ensure!(
        (share - 1.0).abs() <= TOLERANCE,
        "{what}: {share} of the kernel's figure"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{agree, at};

    const KERNEL: [(f64, f64); 3] = [(1.0, 0.0), (3.0, 1.0), (9.0, 4.0)];

    #[test]
    fn figures_are_compared_at_the_same_times() {
        assert_eq!(at(&KERNEL, 2.0), Some(0.5));
        assert_eq!(at(&KERNEL, 6.0), Some(2.5));
        assert_eq!(at(&KERNEL, 0.5), None);
        assert_eq!(at(&KERNEL, 9.5), None);
    }

    #[test]
    fn figures_that_grow_otherwise_are_seen() {
        assert!(agree("it", &[(2.0, 10.0), (9.0, 13.5)], &KERNEL).is_ok());
        assert!(agree("it", &[(2.0, 10.0), (9.0, 13.8)], &KERNEL).is_err());
        assert!(agree("it", &[(2.0, 10.0), (9.0, 13.2)], &KERNEL).is_err());
        // Not long enough to tell.
        assert!(agree("it", &[(3.0, 1.0), (5.0, 2.0)], &KERNEL).is_err());
    }
}
