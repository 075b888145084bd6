//! Commands that make recordings and read them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Exporting, Output, Reporting, Targets, View, positive_duration};
use crate::daemon::config::ProbeFlags;
use crate::daemon::trigger::Condition;

/// `schedscope record`.
#[derive(Args, Debug)]
#[command(
    override_usage = "schedscope record [OPTIONS] -o FILE [PID]... [-- COMMAND [ARG]...]",
    after_help = "Examples:\n  \
        schedscope record -o stall.sched -d 1m       the whole host, for a minute\n  \
        schedscope record -o stall.sched 1234 -d 1m  the same; the report is on process 1234\n  \
        schedscope record -o make.sched -- make      a command\n  \
        schedscope record -o day.sched --max-size 1G --rotate 8\n      \
        day.sched.1, .2, ...: the newest 8 GB are kept\n  \
        schedscope record -o stall.sched --last 30s --unit shop --when 'cpu-wait>50ms'\n      \
        the half minute before each such wait\n\n\
        `schedscope report stall.sched` reads it, here or elsewhere. All threads of the host are in a recording, \
        so any of them can be reported on later; a target says on whom to report by default, and whose kernel \
        stacks to take."
)]
pub struct Record {
    /// Where to record to; with --rotate or --last, numbers are appended
    #[arg(short = 'o', long = "file", value_name = "FILE")]
    pub file: PathBuf,

    /// How long to record, such as 10s, 500ms or 2m
    #[arg(short, long, value_name = "TIME", value_parser = positive_duration, conflicts_with = "command")]
    pub duration: Option<Duration>,

    /// End when the file has this size, such as 500M or 2G; with --rotate go on in another one
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,

    /// Keep the newest so many files
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub rotate: Option<u64>,

    /// Keep so much in memory only, and write it whenever a condition of --when is met or SIGUSR1 comes
    #[arg(long, value_name = "TIME", value_parser = positive_duration, conflicts_with = "max_size")]
    pub last: Option<Duration>,

    /// With --last: most memory to keep it in
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256M", requires = "last")]
    pub max_memory: u64,

    /// With --last: when to write. `run-queue-delay>TIME`: a thread of the target got a CPU after so
    /// long; `cpu-wait>TIME`: one is waiting for a CPU for so long; `blocked>TIME`: one is waiting for so
    /// long for something else, idleness left aside. May be given several times
    #[arg(long, value_name = "CONDITION", requires = "last")]
    pub when: Vec<Condition>,

    /// Report at the end, too
    #[arg(long, value_enum)]
    pub output: Option<Output>,

    /// Write the report to this file instead of standard output
    #[arg(long, value_name = "FILE", requires = "output")]
    pub output_file: Option<PathBuf>,

    /// Show where in the program the longest waits were: takes a user stack whenever a thread blocks,
    /// and needs programs with frame pointers
    #[arg(long)]
    pub user_stacks: bool,

    /// What to report on; without one it is the whole host.
    #[command(flatten)]
    pub targets: Targets,

    /// What else to write.
    #[command(flatten)]
    pub exporting: Exporting,

    /// What the table shows.
    #[command(flatten)]
    pub view: View,

    /// The probes' settings.
    #[command(flatten)]
    pub probes: ProbeFlags,
}

/// `schedscope report`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    schedscope report stall.sched                      on whom it was made for\n  \
    schedscope report stall.sched --comm 'nginx*'      on others: everybody is in it\n  \
    schedscope report stall.sched --from 10s --to 12s  two seconds of it\n  \
    schedscope report stall.sched --output json        for other programs\n  \
    schedscope report stall.sched --screen             back and forth in time\n\n\
    Reading a recording needs no privileges and no kernel. Exit code 5: it is damaged, and what is whole of it \
    is reported.")]
pub struct ReportOn {
    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Show it on the live screen, at any moment: Left and Right go back and on in time, space plays
    #[arg(long, conflicts_with_all = ["output", "output_file"])]
    pub screen: bool,

    /// With --screen: time from one of its pictures to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = positive_duration, requires = "screen")]
    pub tick: Duration,

    /// Whom to report on.
    #[command(flatten)]
    pub choice: Choice,

    /// How and where to report.
    #[command(flatten)]
    pub reporting: Reporting,
}

/// `schedscope diff`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    schedscope diff monday.sched tuesday.sched              on whom they were made for\n  \
    schedscope diff monday.sched tuesday.sched --unit shop  on a unit\n  \
    schedscope diff before.sched after.sched --output json  for other programs\n\n\
    Both are cut into blocks; what differs by more than the blocks of one recording do is told as better or \
    worse, the rest as noise. From eight blocks on something is concluded: record for ten seconds or more.")]
pub struct DiffArgs {
    /// The recording to compare with
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,

    /// The recording to judge
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,

    /// Whom to compare.
    #[command(flatten)]
    pub choice: Choice,

    /// How to report
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Whom a report on a recording is about, and when.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Whom and when; by default as it was recorded")]
pub struct Choice {
    /// Report on a process
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,

    /// Report on a thread
    #[arg(long, value_name = "TID")]
    pub tid: Vec<u32>,

    /// Report on all threads whose name fits (`*` and `?` as in a shell)
    #[arg(long, value_name = "GLOB")]
    pub comm: Vec<String>,

    /// Report on all processes of a unit, container or pod, by the name that reports show for it
    #[arg(long, value_name = "GLOB")]
    pub unit: Vec<String>,

    /// Report on the whole host
    #[arg(long)]
    pub host: bool,

    /// Begin so long after the recording's beginning
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub from: Option<Duration>,

    /// End so long after the recording's beginning
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub to: Option<Duration>,
}

/// A number of bytes, such as 500M.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes, such as 64k, 500M or 2G".to_owned();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes >= MIN_SIZE => Ok(bytes),
        Some(_) => Err(format!("must be at least {}k", MIN_SIZE >> 10)),
        None => Err(wrong()),
    }
}

/// Nothing fits into less.
const MIN_SIZE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("64k"), Ok(64 << 10));
        assert_eq!(size("500M"), Ok(500 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        for wrong in ["", "k", "1", "12x", "-5M", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
