//! What a thread's own clock leaves out: time that the hypervisor, or an interrupt, took from the CPU.
//!
//! The kernel keeps two clocks for each run queue (`update_rq_clock_task`, kernel/sched/core.c): `clock`, which is
//! wall time and which we and `run_delay` use, and `clock_task`, which leaves out what it knows to be stolen
//! (`CONFIG_PARAVIRT_TIME_ACCOUNTING`, `CONFIG_IRQ_TIME_ACCOUNTING`) and by which a thread's run time is counted.
//! How far the two have come apart is in debugfs, in nanoseconds, for each CPU.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::sample::unix_ns;

/// Time between two readings, each of which takes less than a millisecond.
const INTERVAL: Duration = Duration::from_millis(50);

/// `/proc/stat` counts in ticks of user space's clock: 100 a second on every architecture that this runs on.
const TICK_NS: u64 = 10_000_000;

/// What was taken from each CPU up to the moment between two.
#[derive(Clone, Debug)]
struct Reading {
    before_ns: u64,
    after_ns: u64,
    /// By CPU, in nanoseconds.
    stolen: Vec<u64>,
}

/// Where it is read.
enum Source {
    /// `sched/debug` of debugfs.
    Clocks(File),
    /// `/proc/stat`, in ticks.
    Ticks,
}

impl Source {
    fn find() -> Self {
        match clocks() {
            Ok(file) => Self::Clocks(file),
            Err(error) => {
                eprintln!("steal time is only known in ticks of 10 ms: {error:#}");
                Self::Ticks
            }
        }
    }

    fn read(&self) -> Option<Reading> {
        let before_ns = unix_ns();
        let stolen = match self {
            Self::Clocks(file) => difference_of_clocks(&whole(file)?),
            Self::Ticks => ticks(&std::fs::read_to_string("/proc/stat").ok()?),
        }?;
        Some(Reading {
            before_ns,
            after_ns: unix_ns(),
            stolen,
        })
    }

    /// How much two readings may miss of what lies between them.
    fn resolution_ns(&self) -> u64 {
        match self {
            Self::Clocks(_) => 0,
            Self::Ticks => TICK_NS,
        }
    }
}

/// The scheduler's file in debugfs, whether or not that is mounted: a mount that no directory has needs none.
fn clocks() -> Result<File> {
    let context = fsopen("debugfs", FsOpenFlags::FSOPEN_CLOEXEC).context("opening debugfs")?;
    fsconfig_create(&context).context("debugfs")?;
    let mount = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
    .context("mounting debugfs for this program alone")?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(&mount, "sched/debug", flags, Mode::empty())
        .context("opening sched/debug in debugfs")?;
    let file = File::from(file);
    let text = whole(&file).context("reading sched/debug")?;
    difference_of_clocks(&text).context("clocks of CPUs in sched/debug")?;
    Ok(file)
}

fn whole(file: &File) -> Option<String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let count = file.read_at(&mut piece, bytes.len() as u64).ok()?;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(piece.get(..count)?);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `cpu#0, 2445.402 MHz`, and below it `  .clock        : 17546339.099316`, in milliseconds.
fn difference_of_clocks(text: &str) -> Option<Vec<u64>> {
    let mut all: Vec<u64> = Vec::new();
    let mut cpu = None;
    let mut clock = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("cpu#") {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            cpu = digits.parse::<usize>().ok();
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name.trim() {
            ".clock" => clock = milli(value.trim()),
            ".clock_task" => {
                let stolen = clock.take()?.saturating_sub(milli(value.trim())?);
                let cpu = cpu.take()?;
                if all.len() <= cpu {
                    all.resize(cpu + 1, 0);
                }
                *all.get_mut(cpu)? = stolen;
            }
            _ => {}
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Milliseconds with six decimals, in nanoseconds.
fn milli(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    if part.len() != 6 {
        return None;
    }
    Some(whole.parse::<u64>().ok()? * 1_000_000 + part.parse::<u64>().ok()?)
}

/// `cpu0 user nice system idle iowait irq softirq steal ...`
fn ticks(text: &str) -> Option<Vec<u64>> {
    let mut all: Vec<u64> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let cpu = words.next().and_then(|word| word.strip_prefix("cpu"));
        let Some(cpu) = cpu.and_then(|number| number.parse::<usize>().ok()) else {
            continue;
        };
        if all.len() <= cpu {
            all.resize(cpu + 1, 0);
        }
        *all.get_mut(cpu)? = words.nth(7)?.parse::<u64>().ok()? * TICK_NS;
    }
    (!all.is_empty()).then_some(all)
}

/// Readings that are being taken.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Stolen>,
}

impl Watch {
    /// Begins to read.
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = thread::spawn(move || {
            let source = Source::find();
            let mut readings: Vec<Reading> = source.read().into_iter().collect();
            while !stopped.load(Ordering::Acquire) {
                thread::sleep(INTERVAL);
                readings.extend(source.read());
            }
            Stolen {
                readings,
                resolution_ns: source.resolution_ns(),
            }
        });
        Self { stop, reader }
    }

    /// Stops, and tells what was read.
    pub(crate) fn finish(self) -> Stolen {
        self.stop.store(true, Ordering::Release);
        self.reader.join().unwrap_or_default()
    }
}

/// What was taken from CPUs during a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stolen {
    readings: Vec<Reading>,
    resolution_ns: u64,
}

impl Stolen {
    /// The most that can have been taken from these CPUs between two moments: what was from the last reading
    /// before the one to the first reading after the other.
    pub(crate) fn between(&self, cpus: &[usize], from_ns: u64, until_ns: u64) -> Result<u64> {
        let outside = "steal time was not read around the window";
        let mut before = self.readings.iter().rev();
        let before = before.find(|reading| reading.after_ns <= from_ns);
        let mut after = self.readings.iter();
        let after = after.find(|reading| reading.before_ns >= until_ns);
        let (before, after) = (before.context(outside)?, after.context(outside)?);
        let grown = cpus.iter().map(|&cpu| {
            let of = |reading: &Reading| reading.stolen.get(cpu).copied().unwrap_or(0);
            of(after).saturating_sub(of(before)) + self.resolution_ns
        });
        Ok(grown.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_read_by_cpu() {
        let text = "Sched Debug Version: v0.11\nktime   : 17.5\n\ncpu#0, 2445.402 MHz\n  .nr_running : 1\n  \
                    .clock                         : 17546339.099316\n  \
                    .clock_task                    : 17410538.662212\n\ncpu#2, 1 MHz\n  .clock : 2.000001\n  \
                    .clock_task : 1.000000\n";
        let expected = vec![135_800_437_104, 0, 1_000_001];
        assert_eq!(difference_of_clocks(text), Some(expected));
        assert_eq!(difference_of_clocks("nothing"), None);
    }

    #[test]
    fn ticks_are_read_by_cpu() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 0 0 0 0 0 0 0 1 0 0\nintr 5\n";
        assert_eq!(ticks(text), Some(vec![80_000_000, 10_000_000]));
        assert_eq!(ticks("intr 5\n"), None);
    }

    #[test]
    fn a_window_has_what_was_stolen_around_it() {
        let reading = |at_ns, stolen: [u64; 2]| Reading {
            before_ns: at_ns,
            after_ns: at_ns + 1,
            stolen: stolen.to_vec(),
        };
        let stolen = Stolen {
            readings: vec![
                reading(0, [5, 5]),
                reading(100, [7, 5]),
                reading(200, [8, 6]),
                reading(300, [9, 90]),
            ],
            resolution_ns: 0,
        };
        assert_eq!(stolen.between(&[0], 150, 199).ok(), Some(1));
        assert_eq!(stolen.between(&[0, 1], 150, 201).ok(), Some(87));
        assert_eq!(stolen.between(&[0], 50, 60).ok(), Some(2));
        assert!(stolen.between(&[0], 250, 301).is_err());
    }
}
