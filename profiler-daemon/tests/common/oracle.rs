//! The kernel's own account of a thread over the very window of a report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::number;

/// Time between two samples; the accounts of a thread that runs are as old as the last tick, which
/// is 4 ms or less on the kernels that this runs on.
const INTERVAL: Duration = Duration::from_millis(4);

/// One reading of `/proc/PID/task/TID/schedstat`, at a Unix time, in nanoseconds.
#[derive(Clone, Copy)]
struct Sample {
    at: u64,
    run: u64,
    delay: u64,
}

/// What a thread did within a window, by the kernel's account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) run_ns: u64,
    pub(crate) delay_ns: u64,
}

/// Samples `schedstat` of some threads until it is asked.
///
/// The window of a report lies somewhere between two samples at each end; the figures there are
/// interpolated, which is right within one slice.
pub(crate) struct Schedstat {
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<BTreeMap<u32, Vec<Sample>>>,
}

impl Schedstat {
    /// Starts to sample these threads, given as process and thread id.
    pub(crate) fn watch(threads: &[(u32, u32)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let threads = threads.to_vec();
        let sampler = thread::spawn(move || {
            let mut samples: BTreeMap<u32, Vec<Sample>> = BTreeMap::new();
            while !stopped.load(Ordering::Acquire) {
                for &(pid, tid) in &threads {
                    samples.entry(tid).or_default().extend(read(pid, tid));
                }
                thread::sleep(INTERVAL);
            }
            samples
        });
        Self { stop, sampler }
    }

    /// Stops, and tells what each thread did within the window of the report, by thread id.
    #[track_caller]
    pub(crate) fn within(self, report: &Value) -> BTreeMap<u32, Account> {
        self.stop.store(true, Ordering::Release);
        let samples = self.sampler.join().expect("sampling does not fail");
        let start: u64 = number(&report["window"]["start_unix_ns"]);
        let end = start + number::<u64>(&report["window"]["duration_ns"]);
        let account = |samples: &Vec<Sample>| {
            let (from, to) = (at(samples, start), at(samples, end));
            Account {
                run_ns: to.run - from.run,
                delay_ns: to.delay - from.delay,
            }
        };
        samples
            .iter()
            .map(|(tid, samples)| (*tid, account(samples)))
            .collect()
    }
}

fn read(pid: u32, tid: u32) -> Option<Sample> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let mut fields = text
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok());
    Some(Sample {
        at: u64::try_from(unix.as_nanos()).ok()?,
        run: fields.next()?,
        delay: fields.next()?,
    })
}

/// The figures at a moment between two samples.
#[track_caller]
fn at(samples: &[Sample], unix_ns: u64) -> Sample {
    let after = samples.partition_point(|sample| sample.at < unix_ns);
    let (Some(left), Some(right)) = (samples.get(after.wrapping_sub(1)), samples.get(after)) else {
        panic!("the window is not within the time of the samples");
    };
    // Both factors are some milliseconds, so the product is far from the end of its type.
    let between =
        |from: u64, to: u64| from + (to - from) * (unix_ns - left.at) / (right.at - left.at);
    Sample {
        at: unix_ns,
        run: between(left.run, right.run),
        delay: between(left.delay, right.delay),
    }
}
