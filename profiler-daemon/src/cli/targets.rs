//! What is measured, as the command line says it: for every command that measures by hand.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use clap_complete::ArgValueCandidates;

use crate::completion;
use crate::daemon::config::parse_id;

/// Targets: any number of them, of any kind.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Targets, as many as you like")]
pub struct Targets {
    /// Process to measure: all its threads, those to come included
    #[arg(value_name = "PID", value_parser = id, add = ArgValueCandidates::new(completion::pids))]
    pub pid: Vec<u32>,

    /// Measure one thread
    #[arg(long, value_name = "TID", value_parser = id, add = ArgValueCandidates::new(completion::tids))]
    pub tid: Vec<u32>,

    /// Measure all threads whose name fits (`*` and `?` as in a shell)
    #[arg(long, value_name = "GLOB", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(completion::comms))]
    pub comm: Vec<String>,

    /// Measure all processes of a systemd unit, container or pod, by the name that reports show for it
    /// (`*` and `?` as in a shell; `.service` can be left out)
    #[arg(long, value_name = "GLOB", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(completion::units))]
    pub unit: Vec<String>,

    /// Measure all processes of a control group and of those below it, such as system.slice
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,

    /// Measure all processes of a container, by its name or the first digits of its id
    #[arg(long, value_name = "NAME|ID", add = ArgValueCandidates::new(completion::containers))]
    pub container: Vec<String>,

    /// Measure the processes that a PID or a COMMAND has started or will start, too, and what those start
    #[arg(short, long)]
    pub follow: bool,

    /// Start this command and measure it; its exit code is passed on
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The id of a process or thread.
fn id(text: &str) -> Result<u32, String> {
    parse_id(text).map_err(|error| format!("{error}; --comm '{text}*' measures by name"))
}
