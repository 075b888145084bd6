//! Benches of the daemon's package, whose rows come as objects.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::figures::Figure;
use super::table::{Column, Row, Table, Unit};
use crate::process::{describe, output};

/// A line as a bench prints it with `--format json`; what else is in it is for other readers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Printed {
    /// A figure of a row.
    Figure {
        row: String,
        unit: String,
        median: f64,
        least: f64,
        most: f64,
    },
    /// A stage of the core, in a row.
    Stage {
        row: String,
        stage: String,
        ns_per_event: Option<f64>,
        ns_per_event_least: Option<f64>,
        ns_per_event_most: Option<f64>,
        allocations_per_event: Option<f64>,
    },
}

/// A cell: row, column, figure.
type Cell = (String, String, Figure);

impl Printed {
    fn cells(self) -> Vec<Cell> {
        match self {
            Self::Figure {
                row,
                unit,
                median,
                least,
                most,
            } => vec![(row, unit, Figure::told(median, least, most))],
            Self::Stage {
                row,
                stage,
                ns_per_event,
                ns_per_event_least,
                ns_per_event_most,
                allocations_per_event,
            } => {
                let all = [ns_per_event_least, ns_per_event, ns_per_event_most];
                let cost = Figure::of(all.into_iter().flatten());
                let mut cells = vec![(row.clone(), format!("{stage}, ns a record"), cost)];
                if let Some(count) = allocations_per_event {
                    let name = "allocations a record".to_owned();
                    cells.push((row, name, Figure::of([count])));
                }
                cells
            }
        }
    }
}

/// Runs a bench, and takes its rows into a table: a column for each unit.
pub(super) fn run(program: &Path, quick: bool, table: &mut Table) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["--format", "json"]);
    if quick {
        command.arg("--quick");
    }
    let result = output(&mut command)?;
    let errors = String::from_utf8_lossy(&result.stderr);
    let last = errors.lines().last().unwrap_or_default();
    ensure!(
        result.status.success(),
        "`{}` failed ({}): {last}",
        describe(&command),
        result.status
    );
    take(&String::from_utf8_lossy(&result.stdout), table)
}

fn take(text: &str, table: &mut Table) -> Result<()> {
    for line in text.lines() {
        let printed: Printed = serde_json::from_str(line)
            .with_context(|| format!("a bench should print rows as objects, and printed {line}"))?;
        for (row, column, figure) in printed.cells() {
            put(table, &row, &column, figure);
        }
    }
    ensure!(!table.rows.is_empty(), "a bench printed no rows");
    Ok(())
}

/// Puts a figure where it belongs, in a row and a column that are added where they are not there yet.
fn put(table: &mut Table, row: &str, column: &str, figure: Figure) {
    let place = table.columns.iter().position(|its| its.name == column);
    let column = place.unwrap_or_else(|| {
        table.columns.push(Column {
            name: column.to_owned(),
            unit: Unit::Plain,
        });
        table.columns.len() - 1
    });
    let place = table.rows.iter().position(|its| its.name == row);
    let place = place.unwrap_or_else(|| {
        table.rows.push(Row {
            name: row.to_owned(),
            figures: Vec::new(),
            lack: None,
        });
        table.rows.len() - 1
    });
    let figures = &mut table.rows[place].figures;
    if figures.len() <= column {
        figures.resize(column + 1, Figure::default());
    }
    figures[column] = figure;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_several_units_share_a_line() {
        let text = r#"{"bench":"core","row":"a","unit":"ns a record","median":2.0,"least":1.0,"most":9.0,"rounds":3}
{"bench":"core","row":"b","unit":"ns a record","median":3.0,"least":3.0,"most":3.0,"rounds":1,"cpus":4}
{"bench":"core","row":"a","unit":"allocations","median":0.0,"least":0.0,"most":0.0,"rounds":1}
"#;
        let mut table = Table::new("d", "", "", &[]);
        take(text, &mut table).expect("rows");
        assert_eq!(table.median("a", "ns a record"), Some(2.0));
        assert_eq!(table.median("a", "allocations"), Some(0.0));
        assert_eq!(table.median("b", "ns a record"), Some(3.0));
        assert_eq!(table.median("b", "allocations"), None);
        assert_eq!(table.most("a", "ns a record"), Some(9.0));
        assert!(take("warming up\n", &mut table).is_err());
    }

    #[test]
    fn stages_of_the_core_are_columns() {
        let text = r#"{"bench":"core","row":"turns","stage":"decode","cpus":2,"ns_per_event":2.5,"ns_per_event_least":2.0,"ns_per_event_most":4.0,"allocations_per_event":null}
{"bench":"core","row":"turns","stage":"whole","cpus":2,"ns_per_event":30.0,"ns_per_event_least":29.0,"ns_per_event_most":31.0,"allocations_per_event":0.0}
"#;
        let mut table = Table::new("d", "", "", &[]);
        take(text, &mut table).expect("rows");
        assert_eq!(table.median("turns", "decode, ns a record"), Some(2.5));
        assert_eq!(table.most("turns", "whole, ns a record"), Some(31.0));
        assert_eq!(table.median("turns", "allocations a record"), Some(0.0));
    }
}
