//! The service's configuration: a TOML file, flags that overrule it, and errors that name the line.
//!
//! In: the file's text and [`Overrides`]. Out: a [`Config`] in which every value is within its bounds.
//! What each key means is in [`keys::KEYS`], from which the default file and the documentation are made.

mod diagnose;
pub mod flags;
mod flight;
pub mod keys;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, de};

use super::http::Listen;
use crate::core::{Selector, TargetSpec, UnitNumber};
use crate::source::pids;
pub use flags::{Overrides, ProbeFlags};
pub use flight::{Conditions, FlightFlags, FlightRecorder};

/// The name that stands for the whole host where targets are named.
pub const HOST: &str = "host";

/// Most targets: each costs some 200 KiB and a hundred series.
pub const MAX_TARGETS: usize = 64;

/// Longest name of a target, in bytes.
const MAX_NAME: usize = 64;

/// Longest name of a thread that the kernel keeps, in bytes.
const MAX_COMM: usize = profiler_ebpf::COMM_BYTES - 1;

/// Highest thread id that a kernel gives (`PID_MAX_LIMIT`).
const MAX_PID: u32 = 1 << 22;

/// A configuration is not larger than this, in bytes; anything larger is another kind of file.
const MAX_FILE: u64 = 1 << 20;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it is served.
    #[serde(deserialize_with = "listen")]
    pub listen: Listen,
    /// Who may ask.
    pub web: Web,
    /// The rings between the probes and the daemon.
    pub ring: Ring,
    /// What the probes do.
    pub probes: Probes,
    /// How the rings are emptied.
    pub drain: Drain,
    /// What the metrics show.
    pub metrics: Metrics,
    /// Figures by unit.
    pub units: Units,
    /// What is kept of the last while.
    pub flight_recorder: FlightRecorder,
    /// Targets that get series of their own.
    #[serde(rename = "target")]
    pub targets: Vec<Target>,
}

/// The rings between the probes and the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Ring {
    /// Records that each CPU's ring holds; a power of two.
    #[serde(deserialize_with = "records")]
    pub records_per_cpu: u32,
}

/// What the probes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Probes {
    /// Whether wakeups are recorded, too.
    pub wakeups: bool,
    /// Whether it is recorded why threads wait: their system calls, and quotas of CPU time.
    pub reasons: bool,
    /// Whether it is recorded who wakes whom.
    pub wakers: bool,
    /// How long a wait of a target must be for the kernel's stack to be taken; `None` for never.
    #[serde(deserialize_with = "stacks")]
    pub stacks: Option<Duration>,
    /// The clock that stamps the records.
    #[serde(deserialize_with = "clock")]
    pub clock: ClockChoice,
    /// How often the probes' own cost is sampled; `None` for never.
    #[serde(deserialize_with = "stats_interval")]
    pub stats_interval: Option<Duration>,
}

/// Who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Web {
    /// The file that says so; empty for everybody.
    pub config: PathBuf,
}

/// What the metrics show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Metrics {
    /// The time that the quantiles are of.
    #[serde(deserialize_with = "window")]
    pub window: Duration,
}

/// Figures by unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Units {
    /// Most units that have series of their own.
    #[serde(deserialize_with = "max_units")]
    pub max: u16,
}

/// How the rings are emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Drain {
    /// Longest time between two drains.
    #[serde(deserialize_with = "drain_interval")]
    pub max_interval: Duration,
}

/// Of waits that are at least so long the kernel's stack is taken, unless told otherwise.
pub const DEFAULT_STACKS: Duration = Duration::from_millis(1);

/// How long a wait must be for its stack to be taken; `None` for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stacks(pub Option<Duration>);

/// The clock that stamps the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ClockChoice {
    /// The run queue's own if it can be reached, else the monotonic one
    #[default]
    Auto,
    /// The run queue's own
    RunQueue,
    /// The monotonic one: dearer, and needs wakeups
    Monotonic,
}

/// A target that gets series of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawTarget")]
pub struct Target {
    /// Value of the label `target`.
    pub name: String,
    /// Its threads.
    pub threads: Threads,
}

/// The threads of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Those of a process.
    Pid(u32),
    /// One.
    Tid(u32),
    /// Those with a name that fits; `*` and `?` stand for anything and for one character.
    Comm(String),
}

impl Target {
    /// The target as the core knows it: figures for the whole only.
    #[must_use]
    pub fn spec(&self) -> TargetSpec {
        TargetSpec {
            name: self.name.clone(),
            selector: match &self.threads {
                Threads::Pid(pid) => Selector::Pid(pids::wanted(*pid)),
                Threads::Tid(tid) => Selector::Tid(pids::wanted(*tid)),
                Threads::Comm(pattern) => Selector::Comm(wildmatch::WildMatch::new(pattern)),
            },
            per_thread: false,
        }
    }
}

/// Why a configuration was not taken. Each message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error(
        "can't read the configuration {path}: {cause}; give another one with --config, or none to \
         use the defaults"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why. It is part of the message, so not the error's source: it would be said twice.
        cause: std::io::Error,
    },
    /// What the file says is not valid.
    #[error("{path}:{line}: {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong and what would be right.
        what: String,
    },
    /// Flags and file together are not valid.
    #[error("{0}")]
    Combination(String),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9750)).into(),
            web: Web::default(),
            ring: Ring::default(),
            probes: Probes::default(),
            drain: Drain::default(),
            metrics: Metrics::default(),
            units: Units::default(),
            flight_recorder: FlightRecorder::default(),
            targets: Vec::new(),
        }
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            records_per_cpu: 32_768,
        }
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            wakeups: false,
            reasons: true,
            wakers: false,
            stacks: Some(DEFAULT_STACKS),
            clock: ClockChoice::Auto,
            stats_interval: Some(Duration::from_mins(1)),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            max_interval: Duration::from_secs(1),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(1),
        }
    }
}

impl Default for Units {
    fn default() -> Self {
        Self { max: 100 }
    }
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |path: &Path| {
            let file = std::fs::File::open(path)?;
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_FILE + 1), &mut text)?;
            if text.len() as u64 > MAX_FILE {
                return Err(std::io::Error::other(format!(
                    "it is larger than {MAX_FILE} bytes"
                )));
            }
            Ok(text)
        };
        let text = read(path).map_err(|cause| ConfigError::Read {
            path: path.to_owned(),
            cause,
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a file; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let invalid = |(line, what)| ConfigError::Invalid {
            path: path.to_owned(),
            line,
            what,
        };
        let outline = diagnose::Outline::parse(text).map_err(invalid)?;
        outline.reject_unknown_keys().map_err(invalid)?;
        let config: Self =
            toml::from_str(text).map_err(|error| invalid(outline.explain(&error)))?;
        check_targets(&config.targets)
            .map_err(|(number, what)| invalid((outline.line_of_target(number), what)))?;
        Ok(config)
    }

    /// This configuration, with what the flags say instead where they say something.
    pub fn apply(mut self, flags: Overrides) -> Result<Self, ConfigError> {
        let Overrides {
            listen,
            web_config,
            target,
            drain_interval,
            stats_interval,
            window,
            max_units,
            flight,
            probes,
        } = flags;
        let ProbeFlags {
            ring_records,
            clock,
            wakeups,
            reasons,
            wakers,
            stacks,
        } = probes;
        self.listen = listen.unwrap_or(self.listen);
        self.web.config = web_config.unwrap_or(self.web.config);
        self.ring.records_per_cpu = ring_records.unwrap_or(self.ring.records_per_cpu);
        self.probes.wakeups = wakeups.unwrap_or(self.probes.wakeups);
        self.probes.reasons = reasons.unwrap_or(self.probes.reasons);
        self.probes.wakers = wakers.unwrap_or(self.probes.wakers);
        if let Some(Stacks(stacks)) = stacks {
            self.probes.stacks = stacks;
        }
        self.probes.clock = clock.unwrap_or(self.probes.clock);
        if let Some(interval) = stats_interval {
            self.probes.stats_interval = (!interval.is_zero()).then_some(interval);
        }
        self.drain.max_interval = drain_interval.unwrap_or(self.drain.max_interval);
        self.metrics.window = window.unwrap_or(self.metrics.window);
        self.units.max = max_units.unwrap_or(self.units.max);
        self.flight_recorder.apply(flight);
        self.targets.extend(target);
        check_targets(&self.targets).map_err(|(_, what)| ConfigError::Combination(what))?;
        Ok(self)
    }
}

/// What all targets together must keep to; the error has the number of the one that doesn't.
fn check_targets(targets: &[Target]) -> Result<(), (usize, String)> {
    let mut names = HashSet::new();
    for (number, target) in targets.iter().enumerate() {
        if !names.insert(target.name.as_str()) {
            let what = format!(
                "there are two targets with the name {:?}; each needs its own",
                target.name
            );
            return Err((number, what));
        }
        if number >= MAX_TARGETS {
            let what = format!(
                "more than {MAX_TARGETS} targets; take fewer, or join several with a comm that fits all"
            );
            return Err((number, what));
        }
    }
    Ok(())
}

/// A target as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct RawTarget {
    name: String,
    #[serde(default, deserialize_with = "id")]
    pid: Option<u32>,
    #[serde(default, deserialize_with = "id")]
    tid: Option<u32>,
    comm: Option<String>,
}

impl TryFrom<RawTarget> for Target {
    type Error = String;

    fn try_from(raw: RawTarget) -> Result<Self, String> {
        let threads = match (raw.pid, raw.tid, raw.comm) {
            (Some(pid), None, None) => Threads::Pid(pid),
            (None, Some(tid), None) => Threads::Tid(tid),
            (None, None, Some(comm)) => Threads::Comm(comm),
            _ => {
                return Err(format!(
                    "target {:?} needs exactly one of pid, tid and comm",
                    raw.name
                ));
            }
        };
        Self::new(raw.name, threads)
    }
}

impl Target {
    /// A target, if its name and what it asks for can be.
    pub fn new(name: String, threads: Threads) -> Result<Self, String> {
        if name == HOST {
            return Err(format!(
                "the name {HOST:?} stands for the whole host, which is always there; choose another"
            ));
        }
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(format!(
                "the name of a target has 1 to {MAX_NAME} bytes and no control characters, found {name:?}"
            ));
        }
        if let Threads::Comm(pattern) = &threads {
            let least = pattern.chars().filter(|&c| c != '*');
            let least: usize = least.map(|c| if c == '?' { 1 } else { c.len_utf8() }).sum();
            if pattern.is_empty() {
                return Err(
                    "comm is empty; expected the name of a thread, such as \"nginx*\"".into(),
                );
            }
            if least > MAX_COMM {
                return Err(format!(
                    "no thread can have the name {pattern:?}: the kernel keeps {MAX_COMM} bytes; \
                     shorten it and end it with *"
                ));
            }
        }
        Ok(Self { name, threads })
    }
}

/// Reads where to serve.
pub fn parse_listen(text: &str) -> Result<Listen, String> {
    text.parse()
}

/// Reads the number of records in a ring.
pub fn parse_records(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) => check_records(number),
        Err(_) => Err(records_expected(&format!("{text:?}"))),
    }
}

fn check_records(number: i64) -> Result<u32, String> {
    use profiler_ebpf::ring::{MAX_RECORDS, MIN_RECORDS};
    u32::try_from(number)
        .ok()
        .filter(|records| {
            records.is_power_of_two() && (MIN_RECORDS..=MAX_RECORDS).contains(records)
        })
        .ok_or_else(|| records_expected(&number.to_string()))
}

fn records_expected(found: &str) -> String {
    use profiler_ebpf::ring::{MAX_RECORDS, MIN_RECORDS};
    format!("expected a power of two from {MIN_RECORDS} to {MAX_RECORDS}, found {found}")
}

/// Reads the choice of a clock.
pub fn parse_clock(text: &str) -> Result<ClockChoice, String> {
    clap::ValueEnum::from_str(text, false).map_err(|_| format!("expected {CLOCKS}, found {text:?}"))
}

const CLOCKS: &str = "\"auto\", \"run-queue\" or \"monotonic\"";

/// Reads how often the probes' cost is sampled; zero for never.
pub fn parse_stats_interval(text: &str) -> Result<Duration, String> {
    let (low, high) = (Duration::from_secs(1), Duration::from_hours(24));
    match humantime::parse_duration(text) {
        Ok(interval) if interval.is_zero() || (low..=high).contains(&interval) => Ok(interval),
        _ => Err(format!(
            "expected a duration from \"1s\" to \"1day\", or \"0s\" for never, found {text:?}"
        )),
    }
}

/// Reads how long a wait must be for its stack to be taken.
pub fn parse_stacks(text: &str) -> Result<Stacks, String> {
    let longest = Duration::from_mins(1);
    match humantime::parse_duration(text) {
        _ if text == "off" => Ok(Stacks(None)),
        Ok(threshold) if threshold <= longest => Ok(Stacks(Some(threshold))),
        _ => Err(format!(
            "expected a duration from \"0s\" (all waits) to \"1m\", or \"off\" for none, found {text:?}"
        )),
    }
}

/// Reads the longest time between two drains.
pub fn parse_drain_interval(text: &str) -> Result<Duration, String> {
    let (low, high) = (Duration::from_millis(1), Duration::from_secs(10));
    match humantime::parse_duration(text) {
        Ok(interval) if (low..=high).contains(&interval) => Ok(interval),
        _ => Err(format!(
            "expected a duration from \"1ms\" to \"10s\", such as \"500ms\", found {text:?}"
        )),
    }
}

/// Reads the time that the quantiles are of.
pub fn parse_window(text: &str) -> Result<Duration, String> {
    let (low, high) = (Duration::from_secs(10), Duration::from_mins(10));
    match humantime::parse_duration(text) {
        Ok(window) if (low..=high).contains(&window) => Ok(window),
        _ => Err(format!(
            "expected a duration from \"10s\" to \"10m\", such as \"1m\", found {text:?}"
        )),
    }
}

/// Reads how many units may have series.
pub fn parse_max_units(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(number) => check_max_units(number),
        Err(_) => Err(units_expected(&format!("{text:?}"))),
    }
}

fn check_max_units(number: i64) -> Result<u16, String> {
    u16::try_from(number)
        .ok()
        .filter(|&max| max <= UnitNumber::MAX.0)
        .ok_or_else(|| units_expected(&number.to_string()))
}

fn units_expected(found: &str) -> String {
    format!(
        "expected a number from 0 to {}, found {found}",
        UnitNumber::MAX.0
    )
}

/// Reads the id of a process or thread.
pub fn parse_id(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) => check_id(number),
        Err(_) => Err(format!(
            "expected a number from 1 to {MAX_PID}, found {text:?}"
        )),
    }
}

fn check_id(number: i64) -> Result<u32, String> {
    u32::try_from(number)
        .ok()
        .filter(|id| (1..=MAX_PID).contains(id))
        .ok_or_else(|| format!("expected a number from 1 to {MAX_PID}, found {number}"))
}

/// A value that is written as a string and read by a function.
struct FromText<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<Listen, D::Error> {
    from.deserialize_str(FromText {
        expected: "a string with an IP address and a port, such as \"127.0.0.1:9750\"",
        parse: parse_listen,
    })
}

fn clock<'de, D: Deserializer<'de>>(from: D) -> Result<ClockChoice, D::Error> {
    from.deserialize_str(FromText {
        expected: CLOCKS,
        parse: parse_clock,
    })
}

fn stats_interval<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let interval = from.deserialize_str(FromText {
        expected: "a string with a duration, such as \"60s\", or \"0s\" for never",
        parse: parse_stats_interval,
    })?;
    Ok((!interval.is_zero()).then_some(interval))
}

fn stacks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let Stacks(stacks) = from.deserialize_str(FromText {
        expected: "a string with a duration, such as \"1ms\", or \"off\"",
        parse: parse_stacks,
    })?;
    Ok(stacks)
}

fn window<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(FromText {
        expected: "a string with a duration, such as \"1m\"",
        parse: parse_window,
    })
}

fn max_units<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    check_max_units(i64::deserialize(from)?).map_err(D::Error::custom)
}

fn drain_interval<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(FromText {
        expected: "a string with a duration, such as \"500ms\"",
        parse: parse_drain_interval,
    })
}

fn records<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    check_records(i64::deserialize(from)?).map_err(D::Error::custom)
}

fn id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    check_id(i64::deserialize(from)?)
        .map(Some)
        .map_err(D::Error::custom)
}
