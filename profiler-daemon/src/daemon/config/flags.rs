//! Flags that overrule the configuration file.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ClockChoice, Target, Threads};
use super::{parse_drain_interval, parse_id, parse_listen, parse_records, parse_stats_interval};

/// What the flags say instead of the file; `None` where they say nothing.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct Overrides {
    /// Serve /metrics and /healthz at this address and port.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_listen)]
    pub listen: Option<SocketAddr>,
    /// Records that each CPU's ring holds; a power of two.
    #[arg(long, value_name = "NUMBER", value_parser = parse_records)]
    pub ring_records: Option<u32>,
    /// Record wakeups, too.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub wakeups: Option<bool>,
    /// The clock that stamps the records.
    #[arg(long, value_enum)]
    pub clock: Option<ClockChoice>,
    /// How often the probes' own cost is sampled; 0s for never.
    #[arg(long, value_name = "DURATION", value_parser = parse_stats_interval)]
    pub stats_interval: Option<Duration>,
    /// Longest time between two drains of the rings.
    #[arg(long, value_name = "DURATION", value_parser = parse_drain_interval)]
    pub drain_interval: Option<Duration>,
    /// One more target with series of its own, such as `web=comm:nginx*`, `db=pid:1234` or `x=tid:99`.
    #[arg(long, value_name = "NAME=KIND:VALUE", value_parser = parse_target)]
    pub target: Vec<Target>,
}

/// Reads a target as it is given in a flag.
pub fn parse_target(text: &str) -> Result<Target, String> {
    let parts = text
        .split_once('=')
        .and_then(|(name, rest)| Some((name, rest.split_once(':')?)));
    let Some((name, (kind, value))) = parts else {
        return Err(format!(
            "expected NAME=KIND:VALUE such as \"web=comm:nginx*\", found {text:?}"
        ));
    };
    let threads = match kind {
        "pid" => Threads::Pid(parse_id(value)?),
        "tid" => Threads::Tid(parse_id(value)?),
        "comm" => Threads::Comm(value.to_owned()),
        _ => {
            return Err(format!(
                "expected pid, tid or comm before the colon, found {kind:?}"
            ));
        }
    };
    Target::new(name.to_owned(), threads)
}
