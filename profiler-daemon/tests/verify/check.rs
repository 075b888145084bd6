//! One figure of ours against the same one of somebody else's: what is compared, and what may lie between.

use std::fmt::Write as _;

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds.
    Time,
    /// Things.
    Count,
}

/// How far two figures may be apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Thousandths of their figure.
    pub(crate) thousandths: u64,
    /// And so much, either way: what one of the two leaves out, or can't resolve.
    pub(crate) plus: u64,
    /// And so much, if ours is the smaller one: time that we say we don't know.
    pub(crate) unknown: u64,
    /// And so much, if ours is the smaller one: what theirs has in it by its definition.
    pub(crate) theirs_more: u64,
    /// And so much, if ours is the larger one: what theirs leaves out by its definition.
    pub(crate) ours_more: u64,
}

/// The bar: within 1%.
pub(crate) const ONE_PERCENT: Allowed = Allowed {
    thousandths: 10,
    plus: 0,
    unknown: 0,
    theirs_more: 0,
    ours_more: 0,
};

impl Allowed {
    pub(crate) const fn plus(self, plus: u64) -> Self {
        Self { plus, ..self }
    }

    pub(crate) const fn unknown(self, unknown: u64) -> Self {
        Self { unknown, ..self }
    }

    pub(crate) const fn theirs_more(self, theirs_more: u64) -> Self {
        Self {
            theirs_more,
            ..self
        }
    }

    pub(crate) const fn ours_more(self, ours_more: u64) -> Self {
        Self { ours_more, ..self }
    }

    fn below(self, theirs: u64) -> u64 {
        let more = self.unknown.saturating_add(self.theirs_more);
        self.either_way(theirs).saturating_add(more)
    }

    fn above(self, theirs: u64) -> u64 {
        self.either_way(theirs).saturating_add(self.ours_more)
    }

    fn either_way(self, theirs: u64) -> u64 {
        let share = u128::from(theirs) * u128::from(self.thousandths) / 1000;
        u64::try_from(share)
            .unwrap_or(u64::MAX)
            .saturating_add(self.plus)
    }
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// What, and of whom.
    pub(crate) figure: String,
    /// Who says the other figure.
    pub(crate) oracle: &'static str,
    pub(crate) unit: Unit,
    pub(crate) ours: u64,
    pub(crate) theirs: u64,
    pub(crate) allowed: Allowed,
    /// Why the two are shown beside one another and not judged, if they mean different things.
    pub(crate) differs_by: Option<&'static str>,
}

impl Check {
    /// Two times, in nanoseconds.
    pub(crate) fn time(
        figure: impl Into<String>,
        oracle: &'static str,
        ours: u64,
        theirs: u64,
        allowed: Allowed,
    ) -> Self {
        Self {
            figure: figure.into(),
            oracle,
            unit: Unit::Time,
            ours,
            theirs,
            allowed,
            differs_by: None,
        }
    }

    /// Shows the two, and judges nothing: they are not the same thing, for this reason.
    pub(crate) fn differs_by_definition(self, why: &'static str) -> Self {
        Self {
            differs_by: Some(why),
            ..self
        }
    }

    /// Two counts.
    pub(crate) fn count(
        figure: impl Into<String>,
        oracle: &'static str,
        ours: u64,
        theirs: u64,
        allowed: Allowed,
    ) -> Self {
        Self {
            unit: Unit::Count,
            ..Self::time(figure, oracle, ours, theirs, allowed)
        }
    }

    /// Whether the two agree.
    pub(crate) fn holds(&self) -> bool {
        let difference = self.ours.abs_diff(self.theirs);
        if self.ours < self.theirs {
            difference <= self.allowed.below(self.theirs)
        } else {
            difference <= self.allowed.above(self.theirs)
        }
    }

    fn cells(&self) -> [String; 7] {
        let difference = format!(
            "{}{}",
            if self.ours < self.theirs { "-" } else { "+" },
            share(self.ours.abs_diff(self.theirs), self.theirs)
        );
        let above = self.allowed.above(self.theirs);
        let below = self.allowed.below(self.theirs);
        let allowed = if self.differs_by.is_some() {
            "-".to_owned()
        } else if self.allowed.theirs_more == u64::MAX {
            format!("at most +{}", share(above, self.theirs))
        } else if below != above {
            let (below, above) = (share(below, self.theirs), share(above, self.theirs));
            format!("-{below} +{above}")
        } else {
            share(above, self.theirs)
        };
        let verdict = match self.differs_by {
            Some(why) => format!("differs by definition: {why}"),
            None if self.holds() => "holds".to_owned(),
            None => "DIFFERS".to_owned(),
        };
        [
            self.figure.clone(),
            self.oracle.to_owned(),
            value(self.unit, self.ours),
            value(self.unit, self.theirs),
            difference,
            allowed,
            verdict,
        ]
    }
}

/// A part of a whole as a percentage, or plainly where the whole is nothing.
#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn share(part: u64, whole: u64) -> String {
    if part == 0 {
        "0%".to_owned()
    } else if whole == 0 {
        format!("{part}")
    } else {
        let percent = part as f64 * 100.0 / whole as f64;
        if percent >= 100.0 {
            format!("{percent:.0}%")
        } else {
            format!("{percent:.2}%")
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
fn value(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Count => value.to_string(),
        Unit::Time if value < 10_000_000 => format!("{:.1} us", value as f64 / 1e3),
        Unit::Time => format!("{:.2} ms", value as f64 / 1e6),
    }
}

/// What came of an experiment.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Figures were compared.
    Compared(Vec<Check>),
    /// It can't be done here, for this reason.
    NotRun(String),
}

/// An experiment on a machine of this kind, and what came of it.
#[derive(Debug)]
pub(crate) struct Result {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) machine: &'static str,
    pub(crate) outcome: Outcome,
}

/// The table, what was not run by name, and one line in the end.
pub(crate) fn table(results: &[Result]) -> String {
    let head = [
        "figure",
        "oracle",
        "ours",
        "theirs",
        "difference",
        "allowed",
        "verdict",
    ]
    .map(str::to_owned);
    let rows: Vec<[String; 7]> = results
        .iter()
        .filter_map(|result| match &result.outcome {
            Outcome::Compared(checks) => Some(checks),
            Outcome::NotRun(_) => None,
        })
        .flatten()
        .map(Check::cells)
        .collect();
    let mut widths = [0; 7];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    line(&mut text, &widths, &head);
    let mut rows = rows.iter();
    for result in results {
        let Outcome::Compared(checks) = &result.outcome else {
            continue;
        };
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "\n{} ({}): {}",
            result.name, result.machine, result.about
        );
        for row in rows.by_ref().take(checks.len()) {
            line(&mut text, &widths, row);
        }
    }
    text.push('\n');
    for result in results {
        if let Outcome::NotRun(reason) = &result.outcome {
            let _ = writeln!(
                text,
                "not run: {} ({}): {reason}",
                result.name, result.machine
            );
        }
    }
    let (hold, all) = tally(results);
    let _ = writeln!(text, "{hold} of {all} figures agree");
    text
}

/// How many figures agree, and how many are judged.
pub(crate) fn tally(results: &[Result]) -> (usize, usize) {
    let checks = results.iter().flat_map(|result| match &result.outcome {
        Outcome::Compared(checks) => &checks[..],
        Outcome::NotRun(_) => &[],
    });
    let judged = checks.filter(|check| check.differs_by.is_none());
    judged.fold((0, 0), |(hold, all), check| {
        (hold + usize::from(check.holds()), all + 1)
    })
}

/// Texts to the left, numbers to the right.
fn line(text: &mut String, widths: &[usize; 7], cells: &[String; 7]) {
    let mut made = String::new();
    for (place, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
        let is_text = place < 2 || place == 6;
        let (before, after) = if is_text { ("", &*pad) } else { (&*pad, "") };
        // Writing to a string can't fail.
        let _ = write!(made, "{before}{cell}{after}  ");
    }
    text.push_str(made.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ours: u64, theirs: u64, allowed: Allowed) -> Check {
        Check::time("run time", "schedstat", ours, theirs, allowed)
    }

    #[test]
    fn one_percent_is_one_percent_of_theirs() {
        assert!(check(990, 1000, ONE_PERCENT).holds());
        assert!(check(1010, 1000, ONE_PERCENT).holds());
        assert!(!check(989, 1000, ONE_PERCENT).holds());
        assert!(!check(1011, 1000, ONE_PERCENT).holds());
        assert!(check(0, 0, ONE_PERCENT).holds());
        assert!(!check(1, 0, ONE_PERCENT).holds());
        let most = check(u64::MAX, u64::MAX, ONE_PERCENT.plus(u64::MAX));
        assert!(most.holds());
    }

    #[test]
    fn what_is_unknown_excuses_too_little_and_never_too_much() {
        let allowed = ONE_PERCENT.unknown(100);
        assert!(check(890, 1000, allowed).holds());
        assert!(!check(889, 1000, allowed).holds());
        assert!(!check(1011, 1000, allowed).holds());
        let allowed = ONE_PERCENT.theirs_more(100);
        assert!(check(890, 1000, allowed).holds());
        assert!(!check(1011, 1000, allowed).holds());
        let allowed = ONE_PERCENT.ours_more(100);
        assert!(check(1110, 1000, allowed).holds());
        assert!(!check(989, 1000, allowed).holds());
        let allowed = ONE_PERCENT.plus(100);
        assert!(check(1110, 1000, allowed).holds());
    }

    #[test]
    fn the_table_names_what_differs_and_what_was_not_run() {
        let results = [
            Result {
                name: "spin",
                about: "threads that compute",
                machine: "quiet",
                outcome: Outcome::Compared(vec![
                    check(3_000_000_000, 3_001_000_000, ONE_PERCENT),
                    check(10, 5000, ONE_PERCENT.unknown(5)),
                    check(10, 5000, ONE_PERCENT).differs_by_definition("another clock"),
                    check(10, 5000, ONE_PERCENT.theirs_more(u64::MAX)),
                ]),
            },
            Result {
                name: "quota",
                about: "a thread with a quota",
                machine: "busy",
                outcome: Outcome::NotRun("no cgroups".to_owned()),
            },
        ];
        let expected = "\
figure    oracle           ours      theirs  difference       allowed  verdict

spin (quiet): threads that compute
run time  schedstat  3000.00 ms  3001.00 ms      -0.03%         1.00%  holds
run time  schedstat      0.0 us      5.0 us     -99.80%  -1.10% +1.00%  DIFFERS
run time  schedstat      0.0 us      5.0 us     -99.80%  -  differs by definition: another clock
run time  schedstat      0.0 us      5.0 us     -99.80%  at most +1.00%  holds

not run: quota (busy): no cgroups
2 of 3 figures agree
";
        let text = table(&results);
        let squeezed = |text: &str| -> Vec<String> {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            text.lines().map(words).collect()
        };
        assert_eq!(squeezed(&text), squeezed(expected));
        assert_eq!(tally(&results), (2, 3));
    }
}
