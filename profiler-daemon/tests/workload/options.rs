//! The command line of the workload program.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// What the user asked for; each workload reads what concerns it.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "workload",
    about = "Does one thing to threads, and says what it did.",
    long_about = "Does one thing to threads for a while, as a truth to check a profiler against.\n\
        Prints a line of JSON when all threads are there (event \"ready\"), and one at the end \
        (event \"truth\"): per thread what it is built to do, what its own stopwatch says and what \
        the kernel's accounts say. Where the host can't do it, one line (event \"unavailable\") and \
        exit code 77."
)]
pub(crate) struct Options {
    /// Which one; 'list' prints them all.
    pub(crate) workload: String,

    /// How long.
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    pub(crate) duration: Duration,

    /// Time between two events (wake-ups, renames, starts); default by workload.
    #[arg(long, value_parser = parse_duration)]
    period: Option<Duration>,

    /// How long a lock is held, a child lives or stays stopped; default by workload.
    #[arg(long, value_parser = parse_duration)]
    hold: Option<Duration>,

    /// The CPU for all threads of the workload; default by workload, mostly any.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,

    /// How many threads (spin, yield, descriptors), pairs (pingpong, storm: on each CPU) or hogs (hog, quota).
    #[arg(long)]
    threads: Option<usize>,

    /// What the pairs pass the turn with: futex or pipe.
    #[arg(long, default_value = "futex", value_parser = ["futex", "pipe"])]
    pub(crate) kind: String,

    /// Directory for files that must be on a disk.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) dir: PathBuf,

    /// CPU quota of the 'quota' workload, in percent of one CPU.
    #[arg(long, default_value_t = 20)]
    pub(crate) quota: u32,

    /// Name for the threads of 'spin', instead of 'spinner-N'.
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Ends when its standard input does, and is killed with the process that started it.
    #[arg(long, hide = true)]
    pub(crate) helper: bool,
}

impl Options {
    /// The period, or the workload's own.
    pub(crate) fn period_or(&self, millis: u64) -> Duration {
        self.period.unwrap_or(Duration::from_millis(millis))
    }

    /// The period, or the workload's own in microseconds.
    pub(crate) fn period_or_us(&self, micros: u64) -> Duration {
        self.period.unwrap_or(Duration::from_micros(micros))
    }

    /// The hold time, or the workload's own.
    pub(crate) fn hold_or(&self, millis: u64) -> Duration {
        self.hold.unwrap_or(Duration::from_millis(millis))
    }

    /// The number of threads, or the workload's own.
    pub(crate) fn threads_or(&self, count: usize) -> usize {
        self.threads.unwrap_or(count)
    }

    /// The CPU, or the last one that is allowed.
    pub(crate) fn cpu_or_last(&self) -> Result<usize> {
        match self.cpu {
            Some(cpu) => Ok(cpu),
            None => crate::crew::allowed_cpus()?
                .last()
                .copied()
                .context("no CPU is allowed for this process"),
        }
    }
}

/// Reads `3s`, `200ms`, `50us` or plain seconds.
fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().with_context(|| {
        format!("a number and 's', 'ms' or 'us' expected, such as '200ms', got '{text}'")
    })?;
    match &text[digits.len()..] {
        "" | "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "us" => Ok(Duration::from_micros(number)),
        unit => bail!("'{unit}' is no unit; 's', 'ms' and 'us' are"),
    }
}
