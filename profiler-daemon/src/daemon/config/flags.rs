//! Flags that overrule the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use super::{ClockChoice, Stacks, Target, Threads};
use super::{FlightFlags, Listen};
use super::{
    parse_drain_interval, parse_id, parse_listen, parse_max_units, parse_records, parse_stacks,
    parse_stats_interval, parse_window,
};

/// What the flags of the service say instead of the file; `None` where they say nothing.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct Overrides {
    /// Where to serve: an address and a port, `unix:/PATH`, or `systemd` for a socket that systemd has
    /// opened [default: 127.0.0.1:9750]
    #[arg(short, long, value_name = "ADDRESS:PORT", value_parser = parse_listen)]
    pub listen: Option<Listen>,

    /// File with TLS and passwords, as Prometheus' exporters have it [default: none]
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,

    /// One more target with series of its own, such as `web=comm:nginx*`, `db=pid:1234` or `x=tid:99`
    #[arg(long, value_name = "NAME=KIND:VALUE", value_parser = parse_target)]
    pub target: Vec<Target>,

    /// Longest time between two drains of the rings [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_drain_interval)]
    pub drain_interval: Option<Duration>,

    /// How often the probes' own cost is sampled; 0s for never [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_stats_interval)]
    pub stats_interval: Option<Duration>,

    /// Time that the quantiles are of [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_window)]
    pub window: Option<Duration>,

    /// Most units that have series of their own, at most 1000 [default: 100]
    #[arg(long, value_name = "COUNT", value_parser = parse_max_units)]
    pub max_units: Option<u16>,

    /// What is kept of the last while.
    #[command(flatten)]
    pub flight: FlightFlags,

    /// The probes' settings.
    #[command(flatten)]
    pub probes: ProbeFlags,
}

/// Settings of the probes that every measuring command has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Probes")]
pub struct ProbeFlags {
    /// Records that the ring of each CPU holds: a power of two, 32 bytes each; what measures by hand takes
    /// up to 262144, and 64 MiB for all CPUs together [default: 32768]
    #[arg(long, value_name = "COUNT", value_parser = parse_records)]
    pub ring_records: Option<u32>,

    /// Clock that stamps the records [default: auto]
    #[arg(long, value_enum, value_name = "CLOCK")]
    pub clock: Option<ClockChoice>,

    /// Whether to attach to wakeups as well; without, a waiting thread shows as blocked until it runs
    /// [default: on for attach, off for the service]
    #[arg(long, value_name = "BOOL")]
    pub wakeups: Option<bool>,

    /// Whether to record why threads wait: their system calls, and CPU quotas [default: true]
    #[arg(long, value_name = "BOOL")]
    pub reasons: Option<bool>,

    /// Whether to record who wakes whom [default: on for attach, off for the service]
    #[arg(long, value_name = "BOOL")]
    pub wakers: Option<bool>,

    /// How long a wait of a target must be for the kernel's stack to be taken as it ends; 0s for all
    /// waits, off for none [default: 1ms]
    #[arg(long, value_name = "TIME", value_parser = parse_stacks)]
    pub stacks: Option<Stacks>,
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
