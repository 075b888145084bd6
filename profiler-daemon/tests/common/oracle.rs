//! What the kernel says of a thread: of its whole life, or over the very window of a report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::books::{thread, time};
use super::{figure, number};

/// Time between two samples; the accounts of a thread that runs are as old as the last tick, which
/// is 4 ms or less on the kernels that this runs on.
const INTERVAL: Duration = Duration::from_millis(4);

/// Between two readings of the kernel's accounts, one after the other, at least.
const SETTLING_NS: u64 = 200_000;

/// One reading of `/proc/PID/task/TID/schedstat`, at a Unix time, in nanoseconds.
#[derive(Clone, Copy)]
struct Sample {
    at: u64,
    run: u64,
    delay: u64,
}

/// What a thread did, by the kernel's account, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) run: u64,
    pub(crate) delay: u64,
    /// Neither of the two.
    pub(crate) blocked: u64,
    /// The beginning of its life, before its first reading, which the others cover.
    pub(crate) head: u64,
    /// The end of its life, which no reading covers.
    pub(crate) tail: u64,
}

impl Account {
    /// The life of a thread of a workload up to its last reading; its row in the report tells when
    /// it was born.
    #[track_caller]
    pub(crate) fn of_life(truth: &Value, row: &Value) -> Self {
        let after = |field: &str| number::<u64>(&truth["after"][field]);
        let birth: u64 = number(&row["start_ns"]);
        let age = after("boottime_ns") - birth;
        let (run, delay) = (after("cpu_ns"), after("schedstat_delay_ns"));
        Self {
            run,
            delay,
            blocked: age.saturating_sub(run + delay),
            head: number::<u64>(&truth["before"]["boottime_ns"]) - birth,
            tail: number::<u64>(&row["observed_ns"]).saturating_sub(age),
        }
    }
}

/// The truth of the thread with this name.
#[track_caller]
pub(crate) fn truth_of<'a>(truth: &'a Value, name: &str) -> &'a Value {
    let threads = truth["threads"].as_array().expect("threads in the truth");
    threads
        .iter()
        .find(|thread| thread["name"] == name)
        .unwrap_or_else(|| panic!("a thread '{name}' expected in {truth}"))
}

/// The row of the thread whose truth this is.
#[track_caller]
pub(crate) fn row_of<'a>(report: &'a Value, truth: &Value) -> &'a Value {
    thread(report, number(&truth["tid"]))
}

/// The parts of a whole life agree with the kernel's within 1%.
///
/// Time that the profiler calls unknown may be missing from any part, but there must be little of it.
#[track_caller]
pub(crate) fn check_against_kernel(report: &Value, truth: &Value) {
    let row = row_of(report, truth);
    let account = Account::of_life(truth, row);
    let observed = number::<u64>(&row["observed_ns"]);
    let unknown = time(row, "unknown");
    assert!(unknown <= observed / 10, "{row} in {}", report["conflicts"]);
    let ms = |ns: u64| ns as f64 / 1e6;
    figure(&format!(
        "{}: running {:.1} ms, by the kernel {:.1}; queued {:.1}, by the kernel {:.1}; unknown {:.1}",
        truth["name"].as_str().unwrap_or_default(),
        ms(time(row, "running")),
        ms(account.run),
        ms(time(row, "runnable")),
        ms(account.delay),
        ms(unknown),
    ));
    // How long the kernel's accounts took to be read, one after the other.
    let reading = ["files_ns", "clock_ns"].map(|part| number::<u64>(&truth["after"][part]));
    let settling = SETTLING_NS.max(reading.iter().sum());
    // What the host took meanwhile.
    let steal = truth["steal_ns"].as_u64().unwrap_or(0);
    // The kernel counts no blocked time: it is what the two others leave, with the differences of both.
    for (part, by_kernel, exact_to) in [
        ("running", account.run, account.run),
        ("runnable", account.delay, account.delay),
        (
            "blocked",
            account.blocked,
            account.blocked.max(account.run + account.delay),
        ),
    ] {
        let found = time(row, part);
        let allowed = exact_to / 100 + settling + steal;
        assert!(
            found + unknown + allowed >= by_kernel && found <= by_kernel + allowed + account.tail,
            "{part} of {}: found {found} ns, by the kernel {by_kernel} ns up to {} ns before the \
             thread's end; {unknown} ns unknown: {row}",
            truth["name"],
            account.tail,
        );
    }
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
            let (run, delay) = (to.run - from.run, to.delay - from.delay);
            Account {
                run,
                delay,
                blocked: (end - start).saturating_sub(run + delay),
                head: 0,
                tail: 0,
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
