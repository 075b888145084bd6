//! The section `flight_recorder`: what the service keeps of the last while, to be written on demand.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::FromText;
use crate::daemon::trigger::Condition;

/// Most files that are kept.
const MAX_FILES: u32 = 1_000;

/// Least memory: a second of a storm.
const MIN_MEMORY: u64 = 8 << 20;

/// What is kept of the last while, and where it is written on demand.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct FlightRecorder {
    /// How long a while; `None` for no flight recorder.
    #[serde(deserialize_with = "last")]
    pub last: Option<Duration>,
    /// Where files are written.
    pub directory: PathBuf,
    /// Most bytes that are kept in memory.
    #[serde(deserialize_with = "max_memory")]
    pub max_memory: u64,
    /// Most files; the oldest are removed.
    #[serde(deserialize_with = "files")]
    pub files: u32,
    /// When a file is written without being asked for.
    #[serde(deserialize_with = "when")]
    pub when: Conditions,
}

/// Conditions, of which any leads to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(pub Vec<Condition>);

impl Default for FlightRecorder {
    fn default() -> Self {
        Self {
            last: None,
            directory: PathBuf::from("/var/lib/schedscope"),
            max_memory: 64 << 20,
            files: 8,
            when: Conditions::default(),
        }
    }
}

/// Flags that overrule the section.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Flight recorder")]
pub struct FlightFlags {
    /// Keep the last so long in memory, to be written on POST /api/v1/recordings or SIGUSR1; 0s for no flight
    /// recorder [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = parse_last)]
    pub flight_last: Option<Duration>,

    /// Where it is written [default: /var/lib/schedscope]
    #[arg(long, value_name = "DIRECTORY")]
    pub flight_directory: Option<PathBuf>,

    /// Most memory to keep it in [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_max_memory)]
    pub flight_max_memory: Option<u64>,

    /// Keep the newest so many files, at most 1000 [default: 8]
    #[arg(long, value_name = "COUNT", value_parser = parse_files)]
    pub flight_files: Option<u32>,

    /// Write also when one of these is met, such as `run-queue-delay>50ms,blocked>10s`: by a thread of a
    /// target [default: none]
    #[arg(long, value_name = "CONDITIONS", value_parser = parse_when)]
    pub flight_when: Option<Conditions>,
}

impl FlightRecorder {
    /// What the flags say instead, where they say something.
    pub(super) fn apply(&mut self, flags: FlightFlags) {
        if let Some(last) = flags.flight_last {
            self.last = (!last.is_zero()).then_some(last);
        }
        if let Some(directory) = flags.flight_directory {
            self.directory = directory;
        }
        self.max_memory = flags.flight_max_memory.unwrap_or(self.max_memory);
        self.files = flags.flight_files.unwrap_or(self.files);
        if let Some(when) = flags.flight_when {
            self.when = when;
        }
    }
}

/// Reads how long a while is kept; zero for no flight recorder.
pub(super) fn parse_last(text: &str) -> Result<Duration, String> {
    let (low, high) = (Duration::from_secs(1), Duration::from_hours(1));
    match humantime::parse_duration(text) {
        Ok(last) if last.is_zero() || (low..=high).contains(&last) => Ok(last),
        _ => Err(format!(
            "expected a duration from \"1s\" to \"1h\", or \"0s\" for no flight recorder, found {text:?}"
        )),
    }
}

/// Reads how much memory is taken.
pub(super) fn parse_max_memory(text: &str) -> Result<u64, String> {
    match crate::cli::size(text) {
        Ok(bytes) if bytes >= MIN_MEMORY => Ok(bytes),
        _ => Err(format!(
            "expected a size of at least \"8M\", such as \"64M\" or \"1G\", found {text:?}"
        )),
    }
}

/// Reads how many files are kept.
pub(super) fn parse_files(text: &str) -> Result<u32, String> {
    let number = text
        .parse()
        .ok()
        .and_then(|number| check_files(number).ok());
    number.ok_or_else(|| files_expected(&format!("{text:?}")))
}

fn check_files(number: i64) -> Result<u32, String> {
    let files = u32::try_from(number).ok();
    files
        .filter(|files| (1..=MAX_FILES).contains(files))
        .ok_or_else(|| files_expected(&number.to_string()))
}

fn files_expected(found: &str) -> String {
    format!("expected a number from 1 to {MAX_FILES}, found {found}")
}

/// Reads conditions, between commas.
pub(super) fn parse_when(text: &str) -> Result<Conditions, String> {
    let conditions = text.split(',').filter(|text| !text.trim().is_empty());
    let conditions: Result<Vec<Condition>, _> =
        conditions.map(|text| text.trim().parse()).collect();
    conditions
        .map(Conditions)
        .map_err(|error| format!("{error}; found {text:?}"))
}

fn last<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let last = from.deserialize_str(FromText {
        expected: "a string with a duration, such as \"30s\", or \"0s\" for none",
        parse: parse_last,
    })?;
    Ok((!last.is_zero()).then_some(last))
}

fn max_memory<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_str(FromText {
        expected: "a string with a size, such as \"64M\"",
        parse: parse_max_memory,
    })
}

fn files<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    check_files(i64::deserialize(from)?).map_err(D::Error::custom)
}

fn when<'de, D: Deserializer<'de>>(from: D) -> Result<Conditions, D::Error> {
    from.deserialize_str(FromText {
        expected: "a string with conditions, such as \"run-queue-delay>50ms\"",
        parse: parse_when,
    })
}
