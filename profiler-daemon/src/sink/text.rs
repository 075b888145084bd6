//! Plain text for people: units, names made harmless, columns that fit, colours where they belong.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How wide the text may be and whether it may be coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Columns.
    pub width: usize,
    /// Whether escape sequences for colours may be written.
    pub colors: bool,
}

impl TextOptions {
    /// Columns where there is no terminal that has a number of its own.
    pub const WIDTH: usize = 100;

    /// For a file.
    pub const PLAIN: Self = Self {
        width: Self::WIDTH,
        colors: false,
    };

    /// Lines of prose are not longer than this, since the eye loses its way.
    pub(super) fn prose(self) -> usize {
        self.width.min(Self::WIDTH)
    }

    /// What fits the standard output: colours only on a terminal, and not when `NO_COLOR` is set to
    /// anything or the terminal calls itself `dumb`.
    #[must_use]
    pub fn for_stdout() -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let columns =
            rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            width: if terminal && columns > 0 {
                columns
            } else {
                Self::WIDTH
            },
            colors: terminal && !set("NO_COLOR") && !dumb,
        }
    }

    pub(super) fn bold(self) -> Style {
        self.style(Style::new().bold())
    }

    pub(super) fn dim(self) -> Style {
        self.style(Style::new().dimmed())
    }

    pub(super) fn good(self) -> Style {
        self.style(AnsiColor::Green.on_default())
    }

    pub(super) fn bad(self) -> Style {
        self.style(AnsiColor::Yellow.on_default().bold())
    }

    fn style(self, style: Style) -> Style {
        if self.colors { style } else { Style::new() }
    }
}

/// A duration with three significant digits and its unit: `0`, `999ns`, `1.23ms`, `12.3s`, `2.50h`.
#[must_use]
pub fn duration(ns: u64) -> String {
    const UNITS: [(u64, &str); 7] = [
        (1, "ns"),
        (1_000, "µs"),
        (1_000_000, "ms"),
        (1_000_000_000, "s"),
        (60 * 1_000_000_000, "min"),
        (3_600 * 1_000_000_000, "h"),
        (86_400 * 1_000_000_000, "d"),
    ];
    if ns == 0 {
        return "0".to_owned();
    }
    let rounded = |unit_ns: u64, decimals: usize| {
        let scale = 10u128.pow(u32::try_from(decimals).unwrap_or(0));
        let unit_ns = u128::from(unit_ns);
        let scaled = (u128::from(ns) * scale + unit_ns / 2) / unit_ns;
        (scaled, scale)
    };
    for (place, &(unit_ns, name)) in UNITS.iter().enumerate() {
        // A unit holds up to 999, seconds and those above up to where the next one begins.
        let limit = match UNITS.get(place + 1) {
            Some(&(next_ns, _)) => u128::from(next_ns / unit_ns).min(1_000),
            None => u128::MAX,
        };
        for decimals in [2, 1, 0] {
            if unit_ns == 1 && decimals > 0 {
                continue;
            }
            let (scaled, scale) = rounded(unit_ns, decimals);
            let fits = decimals == 0 || scaled < 1_000;
            if fits && scaled < limit.saturating_mul(scale) {
                return match decimals {
                    0 => format!("{scaled}{name}"),
                    _ => format!("{}.{:0decimals$}{name}", scaled / scale, scaled % scale),
                };
            }
        }
    }
    format!("{ns}ns")
}

/// A number with its thousands apart: `1,234,567`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes, such as `3.4 MiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = bytes as f64 / 1024.0;
    let mut units = UNITS.into_iter();
    let mut unit = units.next().unwrap_or_default();
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    for next in units {
        // What rounds to 1024 is one of the next unit.
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.1} {unit}")
}

/// A number in at most five characters: `99999`, `123k`, `1.23M`.
#[must_use]
pub fn short_count(number: u64) -> String {
    if number < 100_000 {
        return number.to_string();
    }
    for (unit, name) in [(1_000u64, "k"), (1_000_000, "M"), (1_000_000_000, "G")] {
        for decimals in [2usize, 1, 0] {
            let scale = 10u128.pow(u32::try_from(decimals).unwrap_or(0));
            let scaled = (u128::from(number) * scale + u128::from(unit / 2)) / u128::from(unit);
            if scaled < 1_000 {
                return match decimals {
                    0 => format!("{scaled}{name}"),
                    _ => format!("{}.{:0decimals$}{name}", scaled / scale, scaled % scale),
                };
            }
        }
    }
    format!("{:.1e}", number as f64)
}

/// A part of a whole. Only what is exactly nothing reads `0%`, and only the whole reads `100%`.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if part == 0 {
        return "0%".to_owned();
    }
    if part >= whole {
        return "100%".to_owned();
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    match (part * 1_000 + whole / 2) / whole {
        0 => "<0.1%".to_owned(),
        1_000.. => ">99.9%".to_owned(),
        tenths => format!("{}.{}%", tenths / 10, tenths % 10),
    }
}

/// A name from outside that can't move the cursor, turn the text around or hide: what controls,
/// reorders or has no width is replaced by U+FFFD.
#[must_use]
pub fn safe(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            // Line and paragraph separators have a width, and break the line.
            '\u{2028}' | '\u{2029}' => char::REPLACEMENT_CHARACTER,
            // Controls have none, and neither have joiners, marks and the controls of direction.
            _ if c.width().unwrap_or(0) == 0 => char::REPLACEMENT_CHARACTER,
            _ => c,
        })
        .collect()
}

/// Date and time in UTC: `2026-11-20 21:34:43`.
#[must_use]
pub fn utc(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years: leap days come last in a year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Breaks a sentence into lines of at most `width` columns, the later ones indented.
#[must_use]
pub fn wrap(sentence: &str, width: usize, indent: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in sentence.split_whitespace() {
        let columns = word.width();
        if column > 0 && column + 1 + columns > width {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += columns;
    }
    text.push('\n');
    text
}

/// The same in at most `width` columns: what has no room is cut off, and a `…` says so.
#[must_use]
pub fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut columns = 1;
    for c in text.chars() {
        columns += c.width().unwrap_or(0);
        if columns > width {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// A column of a [`Grid`].
#[derive(Debug)]
pub(super) struct Column {
    /// Columns with the same one stand together under it; may be empty.
    pub(super) group: &'static str,
    pub(super) header: &'static str,
    pub(super) left: bool,
    /// Where there is no room, columns are left out from the highest number down; 0 always stays.
    pub(super) expendable: u8,
    pub(super) cells: Vec<String>,
}

/// Rows and columns of text.
#[derive(Debug, Default)]
pub(super) struct Grid {
    pub(super) columns: Vec<Column>,
    /// Whether the last column is prose, of which what has no room is cut off.
    pub(super) prose: bool,
}

impl Grid {
    /// The text; the last row is a sum if `total`. A column without room is left out.
    pub(super) fn render(mut self, options: TextOptions, total: bool) -> String {
        while self.width() > options.width {
            if self.cut_prose(options.width) {
                break;
            }
            let Some(least) = self
                .columns
                .iter()
                .enumerate()
                .filter(|(_, column)| column.expendable > 0)
                .max_by_key(|(_, column)| column.expendable)
                .map(|(place, _)| place)
            else {
                break;
            };
            self.columns.remove(least);
        }
        let mut text = String::new();
        if self.columns.iter().any(|column| !column.group.is_empty()) {
            push_line(&mut text, options.bold(), &self.group_line());
        }
        let headers = self.line(|column| column.header);
        push_line(&mut text, options.bold(), &headers);
        let rows = self
            .columns
            .iter()
            .map(|c| c.cells.len())
            .max()
            .unwrap_or(0);
        for row in 0..rows {
            let style = if total && row + 1 == rows {
                options.bold()
            } else {
                Style::new()
            };
            let line = self.line(|column| column.cells.get(row).map_or("", String::as_str));
            push_line(&mut text, style, &line);
        }
        text
    }

    /// Cuts the last column, if it is prose and enough is left of it.
    fn cut_prose(&mut self, width: usize) -> bool {
        const LEAST: usize = 20;
        let excess = self.width().saturating_sub(width);
        let Some(last) = self.columns.last_mut().filter(|_| self.prose) else {
            return false;
        };
        let room = last.width().saturating_sub(excess);
        if room < LEAST {
            return false;
        }
        for cell in &mut last.cells {
            *cell = shorten(cell, room);
        }
        true
    }

    fn width(&self) -> usize {
        let gaps: usize = (0..self.columns.len()).map(|place| self.gap(place)).sum();
        self.widths().iter().sum::<usize>() + gaps
    }

    /// The width of each column; one that stands under a long name alone is as wide as that.
    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(Column::width).collect();
        for (first, members) in self.groups() {
            let has = widths[first..first + members].iter().sum::<usize>() + members - 1;
            widths[first] += self.columns[first].group.width().saturating_sub(has);
        }
        widths
    }

    /// First column and number of columns of each group.
    fn groups(&self) -> Vec<(usize, usize)> {
        let mut groups = Vec::new();
        let mut first = 0;
        for same in self
            .columns
            .chunk_by(|left, right| left.group == right.group)
        {
            groups.push((first, same.len()));
            first += same.len();
        }
        groups
    }

    /// Blanks before a column: groups are set apart by one more.
    fn gap(&self, place: usize) -> usize {
        match place.checked_sub(1).and_then(|left| self.columns.get(left)) {
            None => 0,
            Some(left) if left.group != self.columns[place].group => 2,
            Some(_) => 1,
        }
    }

    fn line<'a>(&'a self, cell: impl Fn(&'a Column) -> &'a str) -> String {
        let mut line = String::new();
        for (place, (column, width)) in self.columns.iter().zip(self.widths()).enumerate() {
            let text = cell(column);
            let padding = width.saturating_sub(text.width());
            let (before, after) = if column.left {
                (0, padding)
            } else {
                (padding, 0)
            };
            let _ = write!(line, "{:1$}", "", self.gap(place) + before);
            line.push_str(text);
            let _ = write!(line, "{:after$}", "");
        }
        line
    }

    fn group_line(&self) -> String {
        let mut line = String::new();
        let widths = self.widths();
        for (first, members) in self.groups() {
            let _ = write!(line, "{:1$}", "", self.gap(first));
            let width = widths[first..first + members].iter().sum::<usize>() + members - 1;
            let name = self.columns[first].group;
            // A rule shows what belongs together, where there is room for one on both sides.
            if !name.is_empty() && name.width() + 4 <= width {
                let label = format!(" {name} ");
                let _ = write!(line, "{label:-^width$}");
            } else {
                let _ = write!(line, "{name:^width$}");
            }
        }
        line
    }
}

impl Column {
    fn width(&self) -> usize {
        self.cells
            .iter()
            .map(|cell| cell.width())
            .chain([self.header.width()])
            .max()
            .unwrap_or(0)
    }
}

fn push_line(text: &mut String, style: Style, line: &str) {
    let _ = writeln!(text, "{style}{}{style:#}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::{Column, Grid, TextOptions};
    use super::{duration, percent, safe, short_count, shorten, thousands, utc, wrap};
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        for (size, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (3_565_158, "3.4 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(super::bytes(size), expected);
        }
    }

    #[test]
    fn durations_have_three_digits_and_the_unit_that_fits() {
        for (ns, text) in [
            (0, "0"),
            (1, "1ns"),
            (999, "999ns"),
            (1_000, "1.00µs"),
            (1_234, "1.23µs"),
            (9_994, "9.99µs"),
            (9_996, "10.0µs"),
            (99_960, "100µs"),
            (999_499, "999µs"),
            (999_500, "1.00ms"),
            (1_230_000, "1.23ms"),
            (59_900_000_000, "59.9s"),
            (59_990_000_000, "1.00min"),
            (90_000_000_000, "1.50min"),
            (9_000_000_000_000, "2.50h"),
            (86_400_000_000_000, "1.00d"),
            (u64::MAX, "213504d"),
        ] {
            assert_eq!(duration(ns), text, "{ns} ns");
        }
    }

    #[test]
    fn counts_stay_short() {
        for (number, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (1_234_567, "1.23M"),
            (u64::MAX, "1.8e19"),
        ] {
            assert_eq!(short_count(number), text);
        }
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(123), "123");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn only_nothing_is_zero_and_only_all_is_a_hundred() {
        assert_eq!(percent(0, 0), "0%");
        assert_eq!(percent(0, 9), "0%");
        assert_eq!(percent(9, 9), "100%");
        assert_eq!(percent(1, 3), "33.3%");
        assert_eq!(percent(1, 1_000_000), "<0.1%");
        assert_eq!(percent(999_999, 1_000_000), ">99.9%");
        assert_eq!(percent(u64::MAX - 1, u64::MAX), ">99.9%");
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399_000_000_000), "2000-02-28 23:59:59");
        assert_eq!(utc(951_782_400_000_000_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_210_483_999_999_999), "2026-11-20 21:34:43");
        assert_eq!(utc(4_107_542_400_000_000_000), "2100-03-01 00:00:00");
    }

    #[test]
    fn names_cannot_act_on_the_terminal() {
        assert_eq!(safe("a\x1b[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(
            safe("x\u{202e}y\u{2066}\u{200b}"),
            "x\u{fffd}y\u{fffd}\u{fffd}"
        );
        assert_eq!(
            safe("l\u{2028}m\u{2029}\u{85}"),
            "l\u{fffd}m\u{fffd}\u{fffd}"
        );
        assert_eq!(safe("漢字 ünïcode"), "漢字 ünïcode");
    }

    #[test]
    fn sentences_break_between_words() {
        assert_eq!(wrap("one two  three", 8, 2), "one two\n  three\n");
        assert_eq!(wrap("", 8, 2), "\n");
    }

    #[test]
    fn what_is_cut_off_is_marked() {
        assert_eq!(shorten("abcd", 4), "abcd");
        assert_eq!(shorten("abcde", 4), "abc…");
        assert_eq!(shorten("漢字漢字", 6), "漢字…");
    }

    fn column(header: &'static str, expendable: u8, cells: &[&str]) -> Column {
        Column {
            group: "",
            header,
            left: false,
            expendable,
            cells: cells.iter().map(|&cell| cell.to_owned()).collect(),
        }
    }

    #[test]
    fn a_grid_leaves_out_what_matters_least() {
        let text = |width, group| {
            let mut grid = Grid {
                columns: vec![
                    column("ID", 0, &["1", "漢字"]),
                    column("LESS", 1, &["a", "b"]),
                    column("LEAST", 2, &["c", "d"]),
                ],
                prose: false,
            };
            grid.columns[1].group = group;
            let options = TextOptions {
                width,
                colors: false,
            };
            grid.render(options, false)
        };
        assert_eq!(
            text(15, ""),
            "  ID LESS LEAST\n   1    a     c\n漢字    b     d\n"
        );
        assert_eq!(text(14, ""), "  ID LESS\n   1    a\n漢字    b\n");
        assert_eq!(text(1, ""), "  ID\n   1\n漢字\n");
        assert_eq!(
            text(19, "longer"),
            "      longer\n  ID    LESS  LEAST\n   1       a      c\n漢字       b      d\n"
        );
        assert_eq!(
            text(18, "longer"),
            "      longer\n  ID    LESS\n   1       a\n漢字       b\n",
            "the name of a group needs room, too"
        );
    }

    #[test]
    fn prose_is_cut_before_a_column_is_left_out() {
        let text = |width| {
            let grid = Grid {
                columns: vec![
                    column("ID", 0, &["1"]),
                    column("LESS", 1, &["a"]),
                    Column {
                        left: true,
                        ..column("SAID", 2, &["what has been said is said"])
                    },
                ],
                prose: true,
            };
            let options = TextOptions {
                width,
                colors: false,
            };
            grid.render(options, false)
        };
        assert_eq!(
            text(33),
            "ID LESS SAID\n 1    a what has been said is sa…\n"
        );
        assert_eq!(text(27), "ID LESS\n 1    a\n", "too little would be left");
    }

    proptest! {
        #[test]
        fn durations_are_short_and_close(ns in any::<u64>(), bits in 0u32..64) {
            let ns = ns >> bits;
            let text = duration(ns);
            if ns < 86_400_000 * 1_000_000_000 {
                prop_assert!(text.width() <= 7, "{}", text);
            }
            let digits = text.trim_end_matches(char::is_alphabetic);
            let unit = match text.strip_prefix(digits) {
                Some("µs") => 1e3,
                Some("ms") => 1e6,
                Some("s") => 1e9,
                Some("min") => 6e10,
                Some("h") => 3.6e12,
                Some("d") => 8.64e13,
                _ => 1.0,
            };
            let read = digits.parse::<f64>().map_or(f64::NAN, |number| number * unit);
            prop_assert!((read - ns as f64).abs() <= ns as f64 * 0.00501, "{}: {}", ns, text);
        }

        #[test]
        fn safe_names_have_a_width_of_their_own(name in any::<String>()) {
            let harmless = |c: char| !c.is_control() && c != '\u{2028}' && c != '\u{202e}';
            prop_assert!(safe(&name).chars().all(harmless), "{:?}", name);
        }
    }
}
