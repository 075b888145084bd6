//! Cgroups that come and go, with many threads: what the service keeps of them stays bounded, and a scrape is
//! fast.
//!
//! `SCHEDSCOPE_CHURN=GROUPS,THREADS,LIFETIME,SECONDS` makes as many cgroups with as many threads each, each for as
//! long, for so long altogether; with `SCHEDSCOPE_BINARY` the service is another build. docs/service.md has what
//! came of 1,000 cgroups with 10 threads each.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::Workload;
use crate::common::schedscope::{BINARY, may_load_probes};
use crate::common::service::{Samples, Service};
use crate::unified;

/// How much more memory the service may have at the end than after a third of the time, in KiB.
const GROWTH_KIB: u64 = 16 << 10;

/// How many cgroups and threads there are, and for how many seconds each cgroup, and all of it.
struct Size {
    groups: usize,
    threads: usize,
    lifetime: usize,
    seconds: usize,
}

impl Size {
    fn asked() -> Self {
        let asked = std::env::var("SCHEDSCOPE_CHURN").unwrap_or_default();
        let mut numbers = asked.split(',').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        match (next(), next(), next(), next()) {
            (Some(groups), Some(threads), Some(lifetime), Some(seconds)) => Self {
                groups,
                threads,
                lifetime,
                seconds,
            },
            _ => Self {
                groups: 60,
                threads: 5,
                lifetime: 5,
                seconds: 12,
            },
        }
    }
}

/// Cgroups full of processes, one of which wakes up now and then; each a service's of a name of its own.
struct Herd {
    slice: PathBuf,
    threads: usize,
    alive: VecDeque<(PathBuf, Child)>,
    left: Vec<PathBuf>,
    made: usize,
}

impl Herd {
    fn new(unified: &Path, threads: usize) -> Self {
        let slice = unified.join(format!("schedscope-churn-{}.slice", std::process::id()));
        fs::create_dir_all(&slice).expect("root may make cgroups");
        Self {
            slice,
            threads,
            alive: VecDeque::new(),
            left: Vec::new(),
            made: 0,
        }
    }

    /// One cgroup more.
    fn grow(&mut self) {
        let group = self.slice.join(format!("churn-{}.service", self.made));
        self.made += 1;
        fs::create_dir(&group).expect("root may make cgroups");
        // The shell is in it before it makes the others, and is one of them.
        let script = "echo $$ >$0/cgroup.procs; i=2; while [ $i -lt $1 ]; do sleep 1000 & i=$((i+1)); done; \
                      while :; do sleep 5; done";
        let shell = Command::new("sh")
            .args(["-c", script])
            .arg(&group)
            .arg(self.threads.to_string())
            .stdin(Stdio::null())
            .spawn()
            .expect("there is a shell");
        self.alive.push_back((group, shell));
    }

    /// The oldest cgroup goes.
    fn shrink(&mut self) {
        let Some((group, mut shell)) = self.alive.pop_front() else {
            return;
        };
        fs::write(group.join("cgroup.kill"), "1").expect("Linux 5.14 or newer");
        // It may be dead before it was in its cgroup.
        let _ = shell.kill();
        let _ = shell.wait();
        self.left.push(group);
        // The kernel takes a moment to bury them.
        self.left.retain(|group| fs::remove_dir(group).is_err());
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        while !self.alive.is_empty() {
            self.shrink();
        }
        for _ in 0..50 {
            self.left.retain(|group| fs::remove_dir(group).is_err());
            if self.left.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let _ = fs::remove_dir(&self.slice);
    }
}

/// Units that have series, those of this test alone or all.
fn units_in(samples: &Samples) -> BTreeSet<String> {
    samples.labels("schedscope_unit_threads", "unit")
}

fn resident_kib(service: &Service) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", service.pid()));
    let status = status.expect("the service runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.and_then(|value| value.split_whitespace().next()?.parse().ok());
    value.expect("a number")
}

#[test]
fn units_that_come_and_go_leave_memory_and_series_bounded() {
    const TEST: &str = "churn::units_that_come_and_go_leave_memory_and_series_bounded";
    if !may_load_probes(TEST) {
        return;
    }
    let Some(unified) = unified(TEST) else { return };
    let Size {
        groups,
        threads,
        lifetime,
        seconds,
    } = Size::asked();
    let most_units = groups / 3;
    let mut herd = Herd::new(&unified, threads);
    let service = Service::start(["--max-units", &most_units.to_string()]);
    for _ in 0..groups {
        herd.grow();
    }
    let begun = Instant::now();
    let mut settled_kib = None;
    let mut most_series = 0;
    let mut next_look = Duration::ZERO;
    let mut earlier = service.scrape();
    while begun.elapsed().as_secs() < seconds as u64 {
        thread::sleep(Duration::from_secs_f64(lifetime as f64 / groups as f64));
        herd.shrink();
        herd.grow();
        if begun.elapsed() < next_look {
            continue;
        }
        next_look += Duration::from_secs_f64(seconds as f64 / 12.0);
        let samples = service.scrape();
        let units = units_in(&samples);
        assert!(
            units.len() <= most_units + 1,
            "{} units: {units:?}",
            units.len()
        );
        assert!(units.contains("other"), "the rest is counted: {units:?}");
        most_series = most_series.max(samples.len());
        // Whatever comes and goes, what is known of the host only grows.
        let host = |samples: &Samples| samples.sum("schedscope_switches_total", "target=\"host\"");
        assert!(host(&samples) >= host(&earlier));
        let now_kib = resident_kib(&service);
        println!(
            "{:>4} s: {} cgroups made, {} units, {} series, {now_kib} KiB",
            begun.elapsed().as_secs(),
            herd.made,
            units.len(),
            samples.len(),
        );
        if settled_kib.is_none() && begun.elapsed().as_secs() >= seconds as u64 / 3 {
            settled_kib = Some(now_kib);
        }
        earlier = samples;
    }
    assert!(
        herd.made > groups + groups / 4,
        "{} cgroups were made",
        herd.made
    );
    let settled_kib = settled_kib.expect("it was looked at in time");
    let end_kib = resident_kib(&service);
    println!("{settled_kib} KiB, at the end {end_kib} KiB");
    assert!(
        end_kib < settled_kib + GROWTH_KIB,
        "{settled_kib} KiB, then {end_kib} KiB"
    );

    drop(herd);
    // Nobody is in them any more. They keep their series for a grace time, unless others need the places.
    let threads_of_churn =
        |samples: &Samples| samples.sum("schedscope_unit_threads", "unit=\"churn-");
    let after = service.scrape_within(Duration::from_secs(20), |samples| {
        threads_of_churn(samples) == 0.0
    });
    // Who has slowed whom may have been seen since.
    let most_series = most_series + most_series / 10;
    assert!(
        after.len() <= most_series,
        "{} series, at most {most_series}",
        after.len()
    );
}

/// The longest that a scrape of [`MANY_SERIES`] takes, in a release build. The tests' own binary is hardly
/// optimized.
const SCRAPE: Duration = Duration::from_millis(20);
const UNOPTIMIZED: u32 = 8;

const MANY_SERIES: usize = 5_000;

/// While threads switch as fast as they can, and no record is lost.
#[test]
fn thousands_of_series_are_scraped_at_once() {
    const TEST: &str = "churn::thousands_of_series_are_scraped_at_once";
    if !may_load_probes(TEST) {
        return;
    }
    let Some(unified) = unified(TEST) else { return };
    let mut herd = Herd::new(&unified, 2);
    let service = Service::start(["--max-units", "200"]);
    for _ in 0..150 {
        herd.grow();
    }
    let _load = Workload::start("storm", &["--duration", "60s"]).expect("no special needs");
    let before = service.scrape_within(Duration::from_secs(20), |samples| {
        samples.len() >= MANY_SERIES
    });
    let mut took: Vec<_> = (0..20)
        .map(|_| {
            thread::sleep(Duration::from_millis(100));
            let asked = Instant::now();
            let answer = service.get("/metrics", "");
            assert_eq!(answer.status, 200);
            asked.elapsed()
        })
        .collect();
    took.sort();
    let after = service.scrape();
    let events = |samples: &Samples| samples.sum("schedscope_events_total", "kind=\"switch\"");
    let dropped = |samples: &Samples| samples.sum("schedscope_events_dropped_total", "");
    println!(
        "{} series in {:.1?} (median; longest {:.1?}), while {} switches were recorded and {} lost",
        after.len(),
        took[10],
        took[19],
        events(&after) - events(&before),
        dropped(&after) - dropped(&before),
    );
    assert!(after.len() >= MANY_SERIES, "{} series", after.len());
    assert!(
        events(&after) > events(&before) + 10_000.0,
        "the drain goes on"
    );
    let limit = match std::env::var_os(BINARY) {
        Some(_) => SCRAPE,
        None => SCRAPE * UNOPTIMIZED,
    };
    assert!(took[10] < limit, "{took:.1?}");
}
