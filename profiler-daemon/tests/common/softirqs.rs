//! How long a CPU was in softirqs, by the kernel's own tracing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::number;

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// The network softirqs on one CPU, traced into a buffer of our own until it is asked.
pub(crate) struct NetworkSoftirqs {
    instance: PathBuf,
    cpu: usize,
}

impl NetworkSoftirqs {
    /// Starts to trace; says why if the host can't.
    pub(crate) fn watch(cpu: usize) -> Result<Self, String> {
        let instance = Path::new(INSTANCES).join(format!("schedscope-{}", std::process::id()));
        fs::create_dir(&instance).map_err(|error| format!("{}: {error}", instance.display()))?;
        let this = Self { instance, cpu };
        this.set("trace_clock", "mono")?;
        this.set(&format!("per_cpu/cpu{cpu}/buffer_size_kb"), "24000")?;
        for event in ["softirq_entry", "softirq_exit"] {
            // NET_TX_SOFTIRQ and NET_RX_SOFTIRQ.
            this.set(
                &format!("events/irq/{event}/filter"),
                "vec == 2 || vec == 3",
            )?;
            this.set(&format!("events/irq/{event}/enable"), "1")?;
        }
        Ok(this)
    }

    fn set(&self, file: &str, value: &str) -> Result<(), String> {
        let path = self.instance.join(file);
        fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Stops, and tells how many there were in the window of a report, and how long they took, in
    /// nanoseconds.
    #[track_caller]
    pub(crate) fn within(self, report: &Value) -> (u64, u64) {
        self.set("tracing_on", "0").expect("it can be stopped");
        let trace = self.instance.join(format!("per_cpu/cpu{}/trace", self.cpu));
        let trace = fs::read_to_string(trace).expect("a trace");
        let overrun = trace.lines().any(|line| line.contains("LOST"));
        assert!(!overrun, "the buffer is large enough");
        let start: u64 = number(&report["window"]["start_unix_ns"]);
        let start_us = (start - unix_less_monotonic_ns()) / 1000;
        let end_us = start_us + number::<u64>(&report["window"]["duration_ns"]) / 1000;
        let (mut count, mut sum_us, mut entered) = (0, 0, None);
        for (at_us, is_entry) in trace.lines().filter_map(event) {
            if is_entry {
                entered = Some(at_us);
            } else if let Some(entered) = entered.take()
                && (start_us..end_us).contains(&entered)
            {
                count += 1;
                sum_us += at_us - entered;
            }
        }
        (count, sum_us * 1000)
    }
}

impl Drop for NetworkSoftirqs {
    fn drop(&mut self) {
        // Nothing else can be done about it.
        let _ = fs::remove_dir(&self.instance);
    }
}

/// Time in microseconds, and whether it is the beginning: `sender-12 [001] ..s1. 12.345678: softirq_entry: ...`.
fn event(line: &str) -> Option<(u64, bool)> {
    let (before, after) = line.split_once(": softirq_")?;
    let (seconds, micros) = before.rsplit(' ').next()?.split_once('.')?;
    let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    Some((at_us, after.starts_with("entry")))
}

fn unix_less_monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let monotonic = u64::try_from(now.tv_sec).expect("after the start") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("positive");
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    let unix = unix.expect("after 1970").as_nanos();
    u64::try_from(unix).expect("before 2554") - monotonic
}
