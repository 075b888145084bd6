//! A table of spans for programs that ask questions of many of them, such as `DuckDB` or Spark, with the
//! columns of [`rows`](super::rows).

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::rows::{COLUMNS, Cell, Column, Kind, Rows};
use super::{Export, Outcome, Run};
use crate::core::{Culprit, Span};

/// Version of the table's columns: they may get more, none changes its meaning without a new one.
pub const SCHEMA: u32 = 1;

/// Rows that are gathered before they are written.
const GROUP_ROWS: usize = 1 << 17;

/// Rows of a column, for as long as they are gathered.
#[derive(Debug, Default)]
struct Gathered {
    /// What is there: numbers, or numbers of texts.
    values: Vec<u64>,
    /// Of each row, whether something is there: 1 or 0.
    levels: Vec<i16>,
}

/// Writes a table.
pub struct Parquet<'a, W: Write + Send> {
    out: SerializedFileWriter<W>,
    rows: Rows<'a>,
    gathered: [Gathered; COLUMNS.len()],
    /// The first texts of [`Rows::texts`], as they are written.
    texts: Vec<ByteArray>,
    count: usize,
}

impl<'a, W: Write + Send> Parquet<'a, W> {
    /// Begins with what the format needs to stand there first.
    pub fn new(out: W, run: Run<'a>) -> io::Result<Self> {
        let schema = parse_message_type(&schema()).map_err(io::Error::other)?;
        let out = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties(run)))
            .map_err(failed)?;
        Ok(Self {
            out,
            rows: Rows::new(run),
            gathered: Default::default(),
            texts: Vec::new(),
            count: 0,
        })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.count == 0 {
            return Ok(());
        }
        let known = self.rows.texts();
        let new = known.iter().skip(self.texts.len());
        self.texts
            .extend(new.map(|text| ByteArray::from(text.as_str())));
        let mut group = self.out.next_row_group()?;
        for (column, gathered) in COLUMNS.iter().zip(&mut self.gathered) {
            let Some(mut out) = group.next_column()? else {
                break;
            };
            write_column(&mut out, column, gathered, &self.texts)?;
            out.close()?;
            gathered.values.clear();
            gathered.levels.clear();
        }
        group.close()?;
        self.count = 0;
        Ok(())
    }
}

impl<W: Write + Send> Export for Parquet<'_, W> {
    fn span(&mut self, span: &Span, culprits: &[Culprit]) -> io::Result<()> {
        let row = self.rows.row(span, culprits);
        for (cell, gathered) in row.into_iter().zip(&mut self.gathered) {
            let value = match cell {
                Cell::Empty => None,
                Cell::Number(number) => Some(number),
                Cell::Text(number) => Some(number as u64),
            };
            gathered.levels.push(i16::from(value.is_some()));
            gathered.values.extend(value);
        }
        self.count += 1;
        if self.count >= GROUP_ROWS {
            self.write_group().map_err(failed)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, _: &Outcome<'_>) -> io::Result<()> {
        self.write_group().map_err(failed)?;
        self.out.finish().map_err(failed)?;
        self.out.inner_mut().flush()
    }
}

fn write_column(
    out: &mut SerializedColumnWriter<'_>,
    column: &Column,
    gathered: &Gathered,
    texts: &[ByteArray],
) -> Result<(), ParquetError> {
    let values = gathered.values.iter();
    let levels = (!column.is_required).then_some(&gathered.levels[..]);
    match column.kind {
        Kind::Text => {
            let text = |&number: &u64| {
                let place = usize::try_from(number).unwrap_or(usize::MAX);
                texts.get(place).cloned().unwrap_or_default()
            };
            write::<ByteArrayType>(out, &values.map(text).collect::<Vec<_>>(), levels)
        }
        Kind::Small => {
            let small = |&number: &u64| i32::try_from(number).unwrap_or(i32::MAX);
            write::<Int32Type>(out, &values.map(small).collect::<Vec<_>>(), levels)
        }
        Kind::Nanoseconds | Kind::Time => {
            let long = |&number: &u64| i64::try_from(number).unwrap_or(i64::MAX);
            write::<Int64Type>(out, &values.map(long).collect::<Vec<_>>(), levels)
        }
    }
}

fn write<T: DataType>(
    out: &mut SerializedColumnWriter<'_>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    out.typed::<T>().write_batch(values, levels, None).map(drop)
}

/// The columns in the language of the format.
fn schema() -> String {
    let column = |column: &Column| {
        let repetition = if column.is_required {
            "REQUIRED"
        } else {
            "OPTIONAL"
        };
        let (kind, meaning) = match column.kind {
            Kind::Text => ("BYTE_ARRAY", " (STRING)"),
            Kind::Small => ("INT32", ""),
            Kind::Nanoseconds | Kind::Time => ("INT64", ""),
        };
        format!("{repetition} {kind} {}{meaning};", column.name)
    };
    let columns: Vec<String> = COLUMNS.iter().map(column).collect();
    format!("message spans {{ {} }}", columns.join(" "))
}

fn properties(run: Run<'_>) -> WriterProperties {
    let facts = [
        ("schedscope.schema", SCHEMA.to_string()),
        ("schedscope.version", run.header.version.clone()),
        ("schedscope.kernel", run.header.kernel.clone()),
    ];
    let facts = facts.map(|(key, value)| KeyValue::new(key.to_owned(), value));
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("schedscope version {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(facts.to_vec()));
    for column in &COLUMNS {
        let path = ColumnPath::from(column.name);
        match column.kind {
            Kind::Text | Kind::Small => {}
            // Hardly any is there twice.
            Kind::Nanoseconds => {
                properties = properties.set_column_dictionary_enabled(path, false);
            }
            // Each is a little later than the one before.
            Kind::Time => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        }
    }
    properties.build()
}

/// An error of the writer; who has closed a pipe is told apart.
fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}
