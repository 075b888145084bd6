//! What was measured, as tables that can be kept in files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::figures::Figure;

/// One table: what one part, or one workload of a part, gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// The file's name, and where it stands among the others.
    pub(crate) key: String,
    pub(crate) title: String,
    /// When, on what host, what else the host did.
    pub(crate) taken: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

/// A column of figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) unit: Unit,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// A ratio to the same without: `1.034`.
    Ratio,
    Nanoseconds,
    Milliseconds,
    Mebibytes,
    Bytes,
    Percent,
    /// A number of things.
    Count,
    /// Things each second, or the like, of which there may be few.
    Rate,
    /// Whatever the row's name says.
    Plain,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// One for each column; without rounds where there is none.
    pub(crate) figures: Vec<Figure>,
    /// Why there are none.
    pub(crate) lack: Option<String>,
}

impl Row {
    /// A row that could not be measured.
    pub(crate) fn lacking(name: &str, reason: String) -> Self {
        Self {
            name: name.to_owned(),
            figures: Vec::new(),
            lack: Some(reason),
        }
    }
}

impl Table {
    /// An empty one.
    pub(crate) fn new(key: &str, title: &str, taken: &str, columns: &[(&str, Unit)]) -> Self {
        Self {
            key: key.to_owned(),
            title: title.to_owned(),
            taken: taken.to_owned(),
            columns: columns
                .iter()
                .map(|(name, unit)| Column {
                    name: (*name).to_owned(),
                    unit: *unit,
                })
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, name: &str, figures: Vec<Figure>) {
        self.rows.push(Row {
            name: name.to_owned(),
            figures,
            lack: None,
        });
    }

    /// The median of a cell.
    pub(crate) fn median(&self, row: &str, column: &str) -> Option<f64> {
        let column = self.columns.iter().position(|its| its.name == column)?;
        let row = self.rows.iter().find(|its| its.name == row)?;
        row.figures.get(column)?.median()
    }

    /// The most of a cell.
    pub(crate) fn most(&self, row: &str, column: &str) -> Option<f64> {
        let column = self.columns.iter().position(|its| its.name == column)?;
        let row = self.rows.iter().find(|its| its.name == row)?;
        row.figures.get(column)?.most()
    }
}

/// A directory of tables: a part that is measured anew takes the place of what it gave before.
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens it.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Keeps a table.
    pub(crate) fn put(&self, table: &Table) -> Result<()> {
        let path = self.dir.join(format!("{}.json", table.key));
        let text = serde_json::to_string_pretty(table).context("a table can be written")?;
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
    }

    /// All that is kept, in the order of their keys.
    pub(crate) fn all(&self) -> Result<Vec<Table>> {
        let entries = fs::read_dir(&self.dir)
            .with_context(|| format!("can't read {}", self.dir.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|its| its == "json"));
        paths.sort();
        paths.iter().map(|path| read(path)).collect()
    }
}

fn read(path: &Path) -> Result<Table> {
    let text =
        fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is not a table of this version: remove it and measure that part again",
            path.display()
        )
    })
}
