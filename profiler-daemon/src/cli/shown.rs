//! What is shown while measuring goes on.

use std::time::Duration;

use clap::Args;

use super::positive_duration;

/// A live screen on a terminal, lines, or nothing.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
#[command(next_help_heading = "While it measures")]
pub struct Shown {
    /// No live screen, also on a terminal: only the report at the end
    #[arg(long)]
    pub no_screen: bool,

    /// Time between two pictures of the live screen
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = positive_duration)]
    pub refresh: Duration,

    /// Print a line each such time, like vmstat, in place of the live screen
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub interval: Option<Duration>,
}
