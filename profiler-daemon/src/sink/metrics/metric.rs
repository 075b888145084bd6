//! What is said of each metric.

use std::fmt::Write as _;

/// What a metric counts or shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows while the service runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How durations are distributed.
    Histogram,
    /// Facts in labels; its value is 1.
    Info,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What is put behind the family's name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }
}

/// A label and what its values mean.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: &'static str,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name without prefix, unit and suffix.
    pub name: &'static str,
    /// What it counts or shows.
    pub kind: Type,
    /// Its unit; also the end of its name.
    pub unit: Option<&'static str>,
    /// What it means, in a line.
    pub help: &'static str,
    /// Its labels, in the order of the values that a series is given.
    pub labels: &'static [Label],
    /// What to know before relying on it; for the documentation.
    pub note: &'static str,
}

/// In front of all names.
pub const PREFIX: &str = "schedscope";

impl Metric {
    /// The name of its series; those of a histogram have `_bucket`, `_sum` and `_count` behind it.
    #[must_use]
    pub fn series(&self) -> String {
        let mut name = format!("{PREFIX}_{}", self.name);
        if let Some(unit) = self.unit {
            let _ = write!(name, "_{unit}");
        }
        name + self.kind.suffix()
    }
}
