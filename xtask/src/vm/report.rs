//! What came of the guests, for people.

use std::fmt::Write as _;

use anyhow::Result;

use super::checks::Check;
use super::kernels::{Image, Kernel};
use super::machine::{Ran, Section};
use crate::test::libtest::{self, End, Outcome};

/// How tests give a figure to the table: `figure: TEXT` on a line.
const FIGURE: &str = "figure: ";

/// What came of one kernel.
pub(super) struct Row {
    name: &'static str,
    /// What is to be known of the boot, in words.
    about: String,
    /// Why it could not be tried, if it couldn't.
    refused: Option<String>,
    cells: Vec<Cell>,
    /// The end of what the guest said, if it did not end well.
    tail: Option<String>,
}

/// What came of a check.
struct Cell {
    check: Check,
    result: Outcome,
    /// By the guest's clock.
    seconds: f64,
    figures: Vec<String>,
    /// All that it printed.
    output: String,
}

impl Row {
    /// A kernel that can't be had, or can't be booted here.
    pub(super) fn refused(kernel: &Kernel, reason: String) -> Self {
        Self {
            name: kernel.name,
            about: String::new(),
            refused: Some(reason),
            cells: Vec::new(),
            tail: None,
        }
    }

    /// Judges what a guest said.
    pub(super) fn new(image: &Image, checks: &[Check], ran: Result<Ran>) -> Self {
        let package = &image.package;
        let (ran, error) = match ran {
            Ok(ran) => (ran, None),
            Err(error) => (Ran::default(), Some(format!("{error:#}"))),
        };
        let cells = checks.iter().enumerate();
        let cells = cells.map(|(number, check)| Cell::new(*check, ran.checks.get(number)));
        let mut about = match (&ran.release, error) {
            (_, Some(error)) => format!("{package}: {error}"),
            (Some(release), None) => format!(
                "Linux {release} ({package}), first process after {:.1} s, {:.0} s in all",
                ran.up_seconds,
                ran.took.as_secs_f64()
            ),
            (None, None) => format!("{package} did not reach its first process"),
        };
        if ran.failed_boots > 0 {
            // Writing to a string can't fail.
            let _ = write!(about, "; {} boots did not get there", ran.failed_boots);
        }
        if ran.release.is_some() && !ran.is_done {
            about.push_str("; it did not come to its end");
        }
        Self {
            name: image.kernel.name,
            about,
            refused: None,
            cells: cells.collect(),
            tail: (!ran.is_done).then_some(ran.tail),
        }
    }

    /// The checks that failed.
    pub(super) fn failed(&self) -> Vec<Check> {
        let failed = self.cells.iter().filter(|cell| cell.has_failed());
        failed.map(|cell| cell.check).collect()
    }

    /// Takes in what came of the checks that failed when they were done again.
    pub(super) fn amend(&mut self, second: Self) {
        let _ = write!(self.about, "; again: {}", second.about);
        self.tail = second.tail;
        for cell in second.cells {
            let first = self.cells.iter_mut();
            for first in first.filter(|first| first.check.name == cell.check.name) {
                first.result.amend(cell.result.clone());
                first.seconds = cell.seconds;
                first.figures.clone_from(&cell.figures);
                first.output.clone_from(&cell.output);
            }
        }
    }

    /// Nothing failed, and it was tried.
    pub(super) fn is_good(&self) -> bool {
        self.refused.is_none() && self.failed().is_empty()
    }

    /// All that is known of it, several lines.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        if let Some(reason) = &self.refused {
            let _ = writeln!(text, "\n{}: not run: {reason}", self.name);
            return text;
        }
        let _ = writeln!(text, "\n{}: {}", self.name, self.about);
        for cell in &self.cells {
            let _ = writeln!(
                text,
                "  {:<11} {:<8} {:>6.1} s  {}",
                cell.check.name,
                cell.word(),
                cell.seconds,
                cell.note()
            );
            for figure in cell.figures.iter().skip(1) {
                let _ = writeln!(text, "  {:<31}{figure}", "");
            }
            if cell.has_failed() {
                for line in cell.output.lines() {
                    let _ = writeln!(text, "    | {line}");
                }
            }
        }
        if let Some(tail) = &self.tail {
            let _ = writeln!(text, "  the end of what it said:");
            for line in tail.lines() {
                let _ = writeln!(text, "    | {line}");
            }
        }
        text
    }
}

impl Cell {
    fn new(check: Check, section: Option<&Section>) -> Self {
        let tests = [check.test.to_owned()];
        let Some(section) = section else {
            return Self {
                check,
                result: Outcome {
                    failed: vec![format!("{} (not begun)", check.test)],
                    ..Outcome::default()
                },
                seconds: 0.0,
                figures: Vec::new(),
                output: String::new(),
            };
        };
        let end = match section.code {
            Some(0) => End::Success,
            Some(code) => End::Failure(format!("exit code {code}")),
            None => End::Failure("the end of the guest".to_owned()),
        };
        let figures = section
            .output
            .lines()
            .filter_map(|line| line.strip_prefix(FIGURE));
        Self {
            check,
            result: libtest::judge(&tests, &section.output, &end),
            seconds: section.seconds,
            figures: figures.map(str::to_owned).collect(),
            output: section.output.clone(),
        }
    }

    fn has_failed(&self) -> bool {
        !self.result.failed.is_empty()
    }

    fn word(&self) -> &'static str {
        if self.has_failed() {
            "FAILED"
        } else if !self.result.again.is_empty() {
            "again"
        } else if self.result.passed == 0 {
            "not run"
        } else {
            "ok"
        }
    }

    /// The first figure, or why it was not run.
    fn note(&self) -> String {
        let skipped = self.result.skipped.first();
        skipped.map_or_else(
            || self.figures.first().cloned().unwrap_or_default(),
            |(_, reason)| reason.clone(),
        )
    }
}

/// What came of some kernels as one outcome, the checks called `KERNEL: CHECK`, and all that is known of them.
pub(super) fn judged(rows: &[Row], checks: &[Check]) -> (Outcome, String) {
    let mut outcome = Outcome::default();
    for row in rows {
        let name = |check: &Check| format!("{}: {}", row.name, check.name);
        if let Some(reason) = &row.refused {
            let skipped = checks.iter().map(|check| (name(check), reason.clone()));
            outcome.skipped.extend(skipped);
        }
        for Cell { check, result, .. } in &row.cells {
            let names = |of: &[String]| of.iter().map(|_| name(check)).collect::<Vec<_>>();
            outcome.passed += result.passed;
            outcome.failed.extend(names(&result.failed));
            outcome.again.extend(names(&result.again));
            let skipped = result.skipped.iter();
            outcome
                .skipped
                .extend(skipped.map(|(_, reason)| (name(check), reason.clone())));
        }
    }
    let text = rows.iter().map(Row::lines).collect::<String>() + &table(rows, checks);
    (outcome, text)
}

/// Checks by kernels, in one table.
pub(super) fn table(rows: &[Row], checks: &[Check]) -> String {
    let mut text = String::from("\n");
    let width = |row: &Row| row.name.len().max(7) + 2;
    let _ = write!(text, "{:<12}", "");
    for row in rows {
        let _ = write!(text, "{:<1$}", row.name, width(row));
    }
    text.push('\n');
    for (number, check) in checks.iter().enumerate() {
        let _ = write!(text, "{:<12}", check.name);
        for row in rows {
            let word = row.cells.get(number).map_or("not run", Cell::word);
            let _ = write!(text, "{:<1$}", word, width(row));
        }
        text = text.trim_end().to_owned();
        text.push('\n');
    }
    for row in rows {
        if let Some(reason) = &row.refused {
            let _ = writeln!(text, "not run: {}: {reason}", row.name);
        }
    }
    text
}

/// The tables, for `--list`.
pub(super) fn list(kernels: &[Kernel], checks: &[Check]) -> String {
    let mut text = String::from("kernels (those with * are in the short form)\n");
    for kernel in kernels {
        let mark = if kernel.is_short { "*" } else { " " };
        let _ = writeln!(text, " {mark} {:<14}{}", kernel.name, kernel.origin());
    }
    text.push_str("checks\n");
    for check in checks {
        let mark = if check.is_short { "*" } else { " " };
        let _ = writeln!(
            text,
            " {mark} {:<14}{}::{}",
            check.name, check.suite, check.test
        );
    }
    text
}
