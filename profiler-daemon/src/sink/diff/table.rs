//! A comparison for people.

use std::fmt::Write as _;

use super::{Diff, Judgement, MIN_BLOCKS, Row, Unit};
use crate::sink::text::{Column, Grid, TextOptions, duration, short_count, thousands};

/// What got worse and better first, then the rest, and how that was found out.
#[must_use]
pub fn render(diff: &Diff, text: TextOptions) -> String {
    let [before, after] = diff.duration_ns.map(duration);
    let mut out = format!("{after} compared with {before} before\n\n");
    let of = |wanted: &[Judgement]| {
        let rows = diff.rows.iter();
        rows.filter(|row| wanted.contains(&row.judgement))
            .collect::<Vec<&Row>>()
    };
    let (bad, good, dim) = (text.bad(), text.good(), text.dim());
    for (title, style, rows) in [
        ("Worse:", bad, of(&[Judgement::Worse])),
        ("Better:", good, of(&[Judgement::Better])),
        (
            "Other, neither good nor bad by itself:",
            text.bold(),
            of(&[Judgement::More, Judgement::Less]),
        ),
        (
            "No difference that could be told from chance, or too little to matter:",
            dim,
            of(&[Judgement::Noise]),
        ),
        ("Too little evidence to tell:", dim, of(&[Judgement::Thin])),
    ] {
        if !rows.is_empty() {
            let _ = writeln!(out, "{style}{title}{style:#}");
            out.push_str(&grid(&rows).render(text, false));
            out.push('\n');
        }
    }
    out.push_str(&basis(diff));
    out
}

fn grid(rows: &[&Row]) -> Grid {
    let column = |header, left, cells: Vec<String>| Column {
        group: "",
        header,
        left,
        expendable: 0,
        cells,
    };
    let cells = |cell: &dyn Fn(&Row) -> String| rows.iter().map(|row| cell(row)).collect();
    Grid {
        columns: vec![
            column("FIGURE", true, cells(&|row| row.name.clone())),
            column("BEFORE", false, cells(&|row| value(row.unit, row.before))),
            column("AFTER", false, cells(&|row| value(row.unit, row.after))),
            column("CHANGE", false, cells(&change)),
            column("P", false, cells(&chance)),
        ],
        prose: false,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are not negative, and what is beyond 64 bits saturates"
)]
fn value(unit: Unit, value: f64) -> String {
    let rounded = value.round() as u64;
    match unit {
        Unit::Ns => duration(rounded),
        Unit::NsPerSecond => format!("{}/s", duration(rounded)),
        Unit::PerSecond => format!("{}/s", short_count(rounded)),
    }
}

fn change(row: &Row) -> String {
    if row.before <= 0.0 {
        return "new".to_owned();
    }
    if row.after <= 0.0 {
        return "gone".to_owned();
    }
    let ratio = row.after / row.before;
    if ratio >= 2.0 {
        format!("x{ratio:.1}")
    } else {
        format!("{:+.1}%", (ratio - 1.0) * 100.0)
    }
}

fn chance(row: &Row) -> String {
    match row.p {
        None => String::new(),
        Some(p) if p < 0.0001 => "<0.0001".to_owned(),
        Some(p) => format!("{p:.4}"),
    }
}

/// How it was found out, and what stands against it.
fn basis(diff: &Diff) -> String {
    let [before, after] = diff.blocks;
    let mut out = format!(
        "By blocks of {}: {before} before, {after} after. P: chance of such a difference between two runs that are\n\
         alike (Mann-Whitney); judged for all figures at once at 5% (Holm), changes below 5% left aside.\n",
        duration(diff.block_ns)
    );
    if before.min(after) < MIN_BLOCKS {
        let _ = writeln!(
            out,
            "With fewer than {MIN_BLOCKS} blocks nothing is concluded: record for longer."
        );
    }
    let [before, after] = diff.lost;
    if before + after > 0 {
        let _ = writeln!(
            out,
            "Records were lost, which makes figures smaller: {} before, {} after.",
            thousands(before),
            thousands(after)
        );
    }
    let [before, after] = diff.shed;
    if before + after > 0 {
        let _ = writeln!(
            out,
            "Threads were left out, which makes sums smaller: {} records before, {} after.",
            thousands(before),
            thousands(after)
        );
    }
    out
}
