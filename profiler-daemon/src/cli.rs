//! The command line, as data. Help, completions and man page come from here.

mod exports;
mod recordings;
mod shown;
mod targets;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use exports::{ExportArgs, ExportTo, Exporting, Format};
pub(crate) use recordings::size;
pub use recordings::{Choice, DiffArgs, Record, ReportOn};
pub use shown::Shown;
pub use targets::Targets;

use crate::core::worst::MAX_WORST;
use crate::daemon::config::{Overrides, ProbeFlags};

/// Says why threads wait: for a CPU, for something else, or not at all.
#[derive(Debug, Parser)]
#[command(
    name = "schedscope",
    version,
    about,
    long_about = "Schedscope watches the kernel's scheduler and tells, for every thread, how long it ran, how long it\n\
        waited for a CPU (run-queue delay) and how long it waited for something else.",
    after_help = "Examples:\n  \
        schedscope check                           what this host allows\n  \
        schedscope top                             what all threads do, on a live screen\n  \
        schedscope attach 1234 -d 10s              a process for ten seconds, and a report\n  \
        schedscope record -o stall.sched -d 1m     everything, to report on it later\n  \
        schedscope run                             a service that Prometheus scrapes\n\n\
        `schedscope COMMAND --help` has examples for each. Exit codes: 0 done, 1 internal error, 2 wrong usage \
        or configuration, 3 not allowed by the kernel or a permission, 4 no such target, 5 damaged input. \
        `attach -- COMMAND` returns the command's own code.",
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure a process, a thread or a command, and report
    Attach(Attach),
    /// Record what happens, to report on it later or elsewhere
    Record(Record),
    /// Report on a recording
    Report(ReportOn),
    /// Show what all threads of the host do, on a live screen
    Top(Top),
    /// Say what got better or worse between two recordings
    Diff(DiffArgs),
    /// Give what is in a recording to other programs
    Export(ExportArgs),
    /// Run as a service that Prometheus scrapes
    Run(Run),
    /// Say what this host allows, and what follows from what it lacks
    Check(Check),
    /// Write the man pages and the shells' completions to a directory (for packages)
    #[command(hide = true)]
    Generate {
        /// The directory; it is made if it is not there.
        directory: PathBuf,
    },
    /// Wait to be measured, then become the command (internal: `attach -- COMMAND` uses it)
    #[command(hide = true)]
    ExecGate {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// `schedscope attach`.
#[derive(Args, Debug)]
#[command(
    override_usage = "schedscope attach [OPTIONS] [PID]... [-- COMMAND [ARG]...]",
    after_help = "Examples:\n  \
        schedscope attach 1234 --duration 10s       process 1234, for ten seconds\n  \
        schedscope attach 1234 --follow             with all that it starts, until Ctrl-C\n  \
        schedscope attach --unit nginx -d 10s       all processes of nginx.service\n  \
        schedscope attach --container web 1234      both: a report for each\n  \
        schedscope attach --comm 'nginx*' -d 5s     every thread with such a name\n  \
        schedscope attach 1234 -d 1m --worst 10     the ten longest waits of each kind\n  \
        schedscope attach --output json 1234 -d 1m  for other programs\n  \
        schedscope attach 1234 -d 9s --export html=x.html  with a page for a browser\n  \
        schedscope attach -- make -j8               a command, from start to exit\n\n\
        Without --duration it measures until Ctrl-C or until the targets have ended; the report comes in any \
        case. Of several targets, a thread counts for the first that takes it."
)]
pub struct Attach {
    /// How long to measure, such as 10s, 500ms or 2m
    #[arg(short, long, value_name = "TIME", value_parser = positive_duration, conflicts_with = "command")]
    pub duration: Option<Duration>,

    /// Show where in the program the longest waits were: takes a user stack whenever a thread blocks,
    /// and needs programs with frame pointers
    #[arg(long)]
    pub user_stacks: bool,

    /// What to measure.
    #[command(flatten)]
    pub targets: Targets,

    /// What is shown meanwhile.
    #[command(flatten)]
    pub shown: Shown,

    /// How and where to report.
    #[command(flatten)]
    pub reporting: Reporting,

    /// What else to write.
    #[command(flatten)]
    pub exporting: Exporting,

    /// The probes' settings.
    #[command(flatten)]
    pub probes: ProbeFlags,
}

/// `schedscope top`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        schedscope top                             the live screen; ? there shows the keys\n  \
        schedscope top --interval 1s               a line a second, like vmstat\n  \
        schedscope top -d 10s > report.txt         without a terminal: a report\n  \
        schedscope top -d 1m --output json | jq .  the same for programs\n\n\
        NO_COLOR=1 leaves out the colors: every part of a bar has a letter, too.")]
pub struct Top {
    /// How long to measure, such as 10s, 500ms or 2m; until q or Ctrl-C without it
    #[arg(short, long, value_name = "TIME", value_parser = positive_duration)]
    pub duration: Option<Duration>,

    /// What is shown meanwhile.
    #[command(flatten)]
    pub shown: Shown,

    /// How and where to report, where there is no live screen or a file for it.
    #[command(flatten)]
    pub reporting: Reporting,

    /// What else to write.
    #[command(flatten)]
    pub exporting: Exporting,

    /// The probes' settings.
    #[command(flatten)]
    pub probes: ProbeFlags,
}

/// How and where to report.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Report")]
pub struct Reporting {
    /// How to report
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// Write the report to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output_file: Option<PathBuf>,

    /// What the table shows.
    #[command(flatten)]
    pub view: View,
}

/// What the table shows; JSON has all of it in any case.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Table")]
pub struct View {
    /// Show idleness, too: threads and waits with nothing to do, which are summed up otherwise
    #[arg(short, long)]
    pub all: bool,

    /// How many of the longest waits to show of each kind, at most 20; 0 for none
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = worst_count)]
    pub worst: usize,

    /// Show what the reasons of waits were concluded from, and where in the kernel the longest were
    #[arg(short, long)]
    pub explain: bool,
}

/// How to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs: one JSON document
    Json,
}

/// `schedscope run`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    schedscope run                                http://127.0.0.1:9750/metrics\n  \
    schedscope run --config /etc/schedscope.toml  targets and settings from a file\n  \
    schedscope run --listen 127.0.0.1:9999        another address\n  \
    schedscope run --flight-last 30s              with a flight recorder\n\n\
    SIGHUP reads the configuration again; SIGUSR1 has the flight recorder write; SIGTERM and Ctrl-C end the \
    service.")]
pub struct Run {
    /// Configuration file (TOML); the flags below overrule it
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Flags that overrule the file.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// `schedscope check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    schedscope check                what can be measured here, and what follows from the rest\n  \
    schedscope check --output json  the same for programs\n\n\
    Exit code 0 if scheduling can be measured here, 3 if not.")]
pub struct Check {
    /// How to report
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    let example = "a time with a unit, such as 10s, 500ms or 2m";
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_millis(1) => Ok(duration),
        Ok(_) => Err(format!("must be at least 1ms: give {example}")),
        Err(error) => Err(format!("{error}: give {example}")),
    }
}

fn worst_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count <= MAX_WORST => Ok(count),
        _ => Err(format!("must be a number from 0 to {MAX_WORST}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command};
    use clap::{CommandFactory, Parser};

    /// A heading holds for all that follows, also outside of what it was given for.
    #[test]
    fn general_options_stand_before_those_with_a_heading() {
        let cli = Cli::command();
        for (command, option) in [
            ("attach", "duration"),
            ("attach", "user_stacks"),
            ("top", "duration"),
            ("record", "duration"),
            ("record", "user_stacks"),
        ] {
            let command = cli
                .find_subcommand(command)
                .expect("there is such a command");
            let argument = command.get_arguments().find(|its| its.get_id() == option);
            let heading = argument.expect("it has that option").get_help_heading();
            assert_eq!(heading, None, "{option} of {}", command.get_name());
        }
    }

    #[test]
    fn every_command_has_examples_that_can_be_parsed() {
        let cli = Cli::command();
        let commands = cli.get_subcommands().filter(|its| !its.is_hide_set());
        for command in commands.chain([&cli]) {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let lines = help
                .lines()
                .filter(|line| line.starts_with("  schedscope "));
            let mut count = 0;
            for line in lines {
                count += 1;
                // What the example says ends at two spaces, where what it does begins.
                let words = line.trim().split("  ").next().unwrap_or_default();
                let words = words
                    .split(" > ")
                    .flat_map(|words| words.split(" | "))
                    .next();
                let words = words.unwrap_or_default();
                let words = words.split_whitespace().map(|word| word.trim_matches('\''));
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
            assert!(count >= 2, "{}: {help}", command.get_name());
        }
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_after_two_dashes_keeps_its_own_flags() {
        let cli = Cli::try_parse_from(["schedscope", "attach", "--", "ls", "--all", "-d", "x"]);
        let Ok(Cli {
            command: Command::Attach(attach),
        }) = cli
        else {
            panic!("{cli:?}")
        };
        assert_eq!(attach.targets.command, ["ls", "--all", "-d", "x"]);
        assert_eq!(attach.duration, None);
    }

    #[test]
    fn targets_of_any_kind_go_together() {
        let line = "schedscope attach 12 --tid 13 --comm a* --comm b 14 --unit c --container d -f -- ls 15";
        let cli = Cli::try_parse_from(line.split(' '));
        let Ok(Cli {
            command: Command::Attach(attach),
        }) = cli
        else {
            panic!("{cli:?}")
        };
        assert_eq!(attach.targets.pid, [12, 14]);
        assert_eq!(attach.targets.tid, [13]);
        assert_eq!(attach.targets.comm, ["a*", "b"]);
        assert_eq!(attach.targets.unit, ["c"]);
        assert_eq!(attach.targets.container, ["d"]);
        assert_eq!(attach.targets.command, ["ls", "15"]);
        assert!(attach.targets.follow);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            &["schedscope", "attach", "12", "--duration", "0s"][..],
            &["schedscope", "attach", "12", "--duration", "10"],
            &["schedscope", "attach", "12", "--worst", "21"],
            &["schedscope", "attach", "12", "--worst", "-1"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
