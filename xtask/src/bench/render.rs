//! Tables for people: on a terminal, and as the generated part of a document.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::bars::Bar;
use super::figures::Figure;
use super::table::{Table, Unit};

/// Between these two lines of the document nothing is written by hand.
const BEGIN: &str = "<!-- begin: written by `cargo xtask bench` -->";
const END: &str = "<!-- end: written by `cargo xtask bench` -->";

/// Begins what stands in place of figures, as long as it may be.
const NOT_RUN: &str = "not run: ";

/// What tables look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Terminal,
    Markdown,
}

/// For a terminal.
pub(crate) fn text(tables: &[Table], bars: &[Bar]) -> String {
    all(tables, bars, Form::Terminal)
}

/// For a document.
pub(crate) fn markdown(tables: &[Table], bars: &[Bar]) -> String {
    all(tables, bars, Form::Markdown)
}

fn all(tables: &[Table], bars: &[Bar], form: Form) -> String {
    let mut text = String::new();
    if !bars.is_empty() {
        section(&mut text, form, "The bars");
        let mut rows = vec![["bar", "limit", "measured", ""].map(str::to_owned).to_vec()];
        rows.extend(bars.iter().map(|bar| {
            let measured = bar.value.map_or_else(
                || "not measured".to_owned(),
                |value| number(value, bar.unit),
            );
            let verdict = match bar.is_met() {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            vec![
                bar.what.to_owned(),
                format!(
                    "{} {}",
                    bar.limit.word(),
                    number(bar.limit.value(), bar.unit)
                ),
                measured,
                verdict.to_owned(),
            ]
        }));
        grid(&mut text, form, &rows);
    }
    for table in tables {
        section(&mut text, form, &table.title);
        let _ = writeln!(text, "{}.\n", table.taken);
        let mut head = vec![String::new()];
        head.extend(table.columns.iter().map(|column| column.name.clone()));
        let mut rows = vec![head];
        for row in &table.rows {
            let mut cells = vec![row.name.clone()];
            match &row.lack {
                Some(reason) => cells.push(format!("{NOT_RUN}{reason}")),
                None => cells.extend(
                    row.figures
                        .iter()
                        .zip(&table.columns)
                        .map(|(figure, column)| cell(figure, column.unit)),
                ),
            }
            cells.resize(rows[0].len(), String::new());
            rows.push(cells);
        }
        grid(&mut text, form, &rows);
    }
    text
}

fn section(text: &mut String, form: Form, title: &str) {
    let _ = match form {
        Form::Terminal => writeln!(text, "\n== {}", title.replace('`', "")),
        Form::Markdown => writeln!(text, "\n### {title}\n"),
    };
}

/// Rows of cells, the first of them the heading.
fn grid(text: &mut String, form: Form, rows: &[Vec<String>]) {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let cells = cells.filter(|its| !its.starts_with(NOT_RUN));
        cells.map(|its| its.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        match form {
            Form::Terminal => {
                let mut line = String::new();
                for (place, (its, width)) in row.iter().zip(&widths).enumerate() {
                    let _ = if place == 0 {
                        write!(line, "{its:<width$}")
                    } else {
                        write!(line, "  {its:<width$}")
                    };
                }
                let _ = writeln!(text, "{}", line.trim_end());
            }
            Form::Markdown => {
                let _ = writeln!(text, "| {} |", row.join(" | "));
                if number == 0 {
                    let _ = writeln!(text, "|{}", "---|".repeat(count));
                }
            }
        }
    }
}

/// A figure: its median, and how far rounds were from one another.
fn cell(figure: &Figure, unit: Unit) -> String {
    let (Some(median), Some((least, most))) = (figure.median(), figure.spread()) else {
        return "-".to_owned();
    };
    let median = number(median, unit);
    if figure.count() == 1 {
        return median;
    }
    let bare = |value| {
        let text = number(value, unit);
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    let (least, most) = (bare(least), bare(most));
    if least == most {
        return median;
    }
    format!("{median} ({least} to {most})")
}

/// A number as its unit is written.
fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ratio => format!("{value:.3}"),
        Unit::Nanoseconds if value.abs() < 1000.0 => format!("{value:.1} ns"),
        Unit::Nanoseconds => format!("{} ns", grouped(value)),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Mebibytes => format!("{value:.1} MiB"),
        Unit::Bytes => format!("{} B", grouped(value)),
        Unit::Percent => format!("{value:.2}%"),
        Unit::Count => grouped(value),
        Unit::Rate | Unit::Plain if value.abs() >= 1000.0 => grouped(value),
        Unit::Rate | Unit::Plain => format!("{value:.1}"),
    }
}

/// A whole number with commas between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 && digits != "0" {
        text.insert(0, '-');
    }
    text
}

/// Puts the generated part of a document between its markers.
pub(crate) fn write_into(path: &Path, generated: &str) -> Result<()> {
    let old = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let new = splice(&old, generated);
    let new = new.with_context(|| format!("in {}", path.display()))?;
    if new != old {
        fs::write(path, new).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn splice(old: &str, generated: &str) -> Result<String> {
    let missing = || format!("the lines `{BEGIN}` and `{END}` should be there, in this order");
    let (before, rest) = old.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    ensure!(!after.contains(BEGIN), "{}, once", missing());
    Ok(format!(
        "{before}{BEGIN}\n{}\n\n{END}{after}",
        generated.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::bars::Limit;
    use crate::bench::table::Row;

    fn tables() -> (Vec<Table>, Vec<Bar>) {
        let mut table = Table::new(
            "a1",
            "`perf bench sched pipe`",
            "2026-11-28, Linux 6.18",
            &[
                ("slowdown", Unit::Ratio),
                ("added to a switch", Unit::Nanoseconds),
                ("lost", Unit::Count),
            ],
        );
        table.push(
            "service",
            vec![
                Figure::of([1.05, 1.04, 1.06]),
                Figure::of([100.0, 90.0, 1234.5]),
                Figure::of([0.0, 0.0]),
            ],
        );
        table.push(
            "runqlat",
            vec![Figure::of([1.34]), Figure::of([-1234.4]), Figure::default()],
        );
        table.rows.push(Row::lacking(
            "runqlat.bt",
            "this machine has no apt".to_owned(),
        ));
        let bar = |what, value| Bar {
            what,
            limit: Limit::AtMost(1.08),
            value,
            unit: Unit::Ratio,
        };
        let bars = vec![
            bar("service on the storm", Some(1.05)),
            bar("top", Some(1.09)),
            bar("record", None),
        ];
        (vec![table], bars)
    }

    #[test]
    fn tables_for_a_terminal() {
        let (tables, bars) = tables();
        let expected = "
== The bars
bar                   limit          measured
service on the storm  at most 1.080  1.050         met
top                   at most 1.080  1.090         MISSED
record                at most 1.080  not measured

== perf bench sched pipe
2026-11-28, Linux 6.18.

            slowdown                added to a switch         lost
service     1.050 (1.040 to 1.060)  100.0 ns (90.0 to 1,234)  0
runqlat     1.340                   -1,234 ns                 -
runqlat.bt  not run: this machine has no apt
";
        assert_eq!(text(&tables, &bars), expected);
    }

    #[test]
    fn tables_for_a_document() {
        let (tables, bars) = tables();
        let expected = "
### The bars

| bar | limit | measured |  |
|---|---|---|---|
| service on the storm | at most 1.080 | 1.050 | met |
| top | at most 1.080 | 1.090 | MISSED |
| record | at most 1.080 | not measured |  |

### `perf bench sched pipe`

2026-11-28, Linux 6.18.

|  | slowdown | added to a switch | lost |
|---|---|---|---|
| service | 1.050 (1.040 to 1.060) | 100.0 ns (90.0 to 1,234) | 0 |
| runqlat | 1.340 | -1,234 ns | - |
| runqlat.bt | not run: this machine has no apt |  |  |
";
        assert_eq!(markdown(&tables, &bars), expected);
    }

    #[test]
    fn a_document_keeps_what_was_written_by_hand() {
        let old = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nBy hand.\n");
        let new = splice(&old, "\nnew\n").expect("the markers are there");
        assert_eq!(
            new,
            format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nBy hand.\n")
        );
        assert_eq!(splice(&new, "\nnew\n").expect("again"), new);
        assert!(splice("# Title\n", "new").is_err());
    }
}
