//! How benches print what they measured: a line for people, or with `--format json` an object a line, which
//! `cargo xtask bench` reads.
//!
//! An object has `bench`, `row` (its name), `unit`, `median`, `least`, `most` and `rounds`; figures that are
//! counted once have the same value in all three, and one round. With `--quick` there is little of everything. Words of the command line that don't begin
//! with a dash choose rows by parts of their names.

use serde_json::json;

/// Where rows go, and which are wanted.
pub(crate) struct Rows {
    bench: &'static str,
    as_json: bool,
    /// Whether it is only to be seen that it works.
    pub(crate) is_quick: bool,
    wanted: Vec<String>,
}

impl Rows {
    /// As the command line says; cargo adds flags of its own.
    pub(crate) fn from_arguments(bench: &'static str) -> Self {
        let mut rows = Self {
            bench,
            as_json: false,
            is_quick: false,
            wanted: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--format" {
                rows.as_json = words.next().is_some_and(|format| format == "json");
            } else if word == "--quick" {
                rows.is_quick = true;
            } else if !word.starts_with('-') {
                rows.wanted.push(word);
            }
        }
        rows
    }

    /// Whether a row is to be measured at all.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|part| name.contains(part))
    }

    /// Prints a row, of what its rounds gave.
    pub(crate) fn print(&self, name: &str, unit: &str, mut rounds: Vec<f64>) {
        rounds.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (rounds.first(), rounds.last()) else {
            return;
        };
        let median = rounds[rounds.len() / 2];
        if self.as_json {
            let row = json!({
                "bench": self.bench, "row": name, "unit": unit, "median": median,
                "least": least, "most": most, "rounds": rounds.len(),
            });
            println!("{row}");
        } else if rounds.len() == 1 {
            println!("{name:<44} {median:10.1} {unit}");
        } else {
            println!("{name:<44} {median:10.1} {unit} (from {least:.1} to {most:.1})");
        }
    }
}
