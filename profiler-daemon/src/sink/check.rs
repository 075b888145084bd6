//! What `schedscope check` says: what this host has, what it lacks, and what follows.
//!
//! In: rows that the source side found out. Out: text for people, or data for [`json`](super::json).

use std::fmt::Write as _;

use anstyle::Style;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::text::{TextOptions, safe, wrap};

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// The main job runs without it, or with less of it, but something is given up.
    Limited,
    /// The main job can't run.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What it belongs to, such as `kernel`, `permission`, `field`; rows of a group stand together.
    pub group: &'static str,
    /// What was looked at.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What follows, if it is not as it should be; else empty.
    pub consequence: String,
    /// What helps, if something does; else empty.
    pub remedy: String,
}

impl Row {
    /// A thing that is as it should be.
    #[must_use]
    pub fn ok(group: &'static str, name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            group,
            name: name.into(),
            state: State::Ok,
            detail: detail.into(),
            consequence: String::new(),
            remedy: String::new(),
        }
    }

    /// The same thing, but not as it should be.
    #[must_use]
    pub fn but(
        self,
        state: State,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            state,
            consequence: consequence.into(),
            remedy: remedy.into(),
            ..self
        }
    }
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `schedscope`.
    pub tool: &'static str,
    /// Version of the program.
    pub version: String,
    /// Whether the main job can run here.
    pub able: bool,
    /// One thing each.
    pub rows: Vec<Row>,
}

impl Check {
    /// The main job can run if nothing is [`State::Missing`].
    #[must_use]
    pub fn new(version: &str, rows: Vec<Row>) -> Self {
        Self {
            schema: SCHEMA,
            tool: "schedscope",
            version: version.to_owned(),
            able: rows.iter().all(|row| row.state != State::Missing),
            rows,
        }
    }

    /// The text for people: the rows, group by group, then the verdict.
    #[must_use]
    pub fn render(&self, text: TextOptions) -> String {
        let widest = |of: fn(&Row) -> &str| {
            let widths = self.rows.iter().map(|row| safe(of(row)).width());
            widths.max().unwrap_or(0)
        };
        let name_width = widest(|row| &row.name);
        let indent = 2 + STATE_WIDTH + 2 + name_width + 2;
        let mut out = String::new();
        for group in self.rows.chunk_by(|left, right| left.group == right.group) {
            let bold = text.bold();
            let heading = group.first().map_or("", |row| row.group);
            let _ = writeln!(out, "{bold}{heading}{bold:#}");
            for row in group {
                out += &row.render(text, name_width, indent);
            }
        }
        out.push('\n');
        out + &self.verdict(text)
    }

    fn verdict(&self, text: TextOptions) -> String {
        let count = |state| self.rows.iter().filter(|row| row.state == state).count();
        let (style, sentence) = match (count(State::Missing), count(State::Limited)) {
            (0, 0) => (
                text.good(),
                "This host can be measured, and lacks nothing.".to_owned(),
            ),
            (0, limits) => (
                text.good(),
                format!(
                    "This host can be measured, with {limits} {}.",
                    plural(limits, "limit")
                ),
            ),
            (missing, _) => (
                text.bad(),
                format!(
                    "This host can NOT be measured: {missing} {} missing, see above.",
                    if missing == 1 {
                        "thing is"
                    } else {
                        "things are"
                    }
                ),
            ),
        };
        format!("{style}{sentence}{style:#}\n")
    }
}

/// Width of the word for a state.
const STATE_WIDTH: usize = 7;

impl Row {
    fn render(&self, text: TextOptions, name_width: usize, indent: usize) -> String {
        let (style, word) = match self.state {
            State::Ok => (text.good(), "ok"),
            State::Limited => (text.bad(), "limited"),
            State::Missing => (text.bad(), "MISSING"),
        };
        let name = safe(&self.name);
        let padding = name_width - name.width().min(name_width);
        let mut out = format!(
            "  {style}{word:STATE_WIDTH$}{style:#}  {name}{:padding$}  ",
            ""
        );
        let width = text.prose().max(indent + 20) - indent;
        let plain = Style::new();
        for (number, (style, sentence)) in [
            (plain, self.detail.as_str()),
            (plain, &self.consequence),
            (text.dim(), &self.remedy),
        ]
        .into_iter()
        .filter(|(_, sentence)| !sentence.is_empty())
        .enumerate()
        {
            for (line_number, line) in wrap(&safe(sentence), width, 0).lines().enumerate() {
                if number + line_number > 0 {
                    let _ = write!(out, "{:indent$}", "");
                }
                let _ = writeln!(out, "{style}{line}{style:#}");
            }
        }
        if !out.ends_with('\n') {
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        out
    }
}

fn plural(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{what}{ending}")
}

#[cfg(test)]
mod tests {
    use super::{Check, Row, State};
    use crate::sink::text::TextOptions;
    use unicode_width::UnicodeWidthStr;

    fn rows() -> Vec<Row> {
        vec![
            Row::ok("kernel", "release", "Linux 6.18.0, x86_64"),
            Row::ok(
                "kernel",
                "type information",
                "/sys/kernel/btf/vmlinux, 5.2 MiB",
            ),
            Row::ok("field", "task_struct.in_iowait", "not there").but(
                State::Limited,
                "waits for block devices are not told apart from other uninterruptible waits",
                "",
            ),
        ]
    }

    fn unable() -> Vec<Row> {
        let mut rows = rows();
        rows.push(Row::ok("permission", "CAP_\x1b[2JBPF", "").but(
            State::Missing,
            "the probes can't be loaded",
            "run as root, or give schedscope the capabilities CAP_BPF and CAP_PERFMON",
        ));
        rows
    }

    const PLAIN: TextOptions = TextOptions {
        width: 100,
        colors: false,
    };

    #[test]
    fn a_host_that_is_able_with_limits() {
        let check = Check::new("1.2.3", rows());
        assert!(check.able);
        let expected = "\
kernel
  ok       release                Linux 6.18.0, x86_64
  ok       type information       /sys/kernel/btf/vmlinux, 5.2 MiB
field
  limited  task_struct.in_iowait  not there
                                  waits for block devices are not told apart from other
                                  uninterruptible waits

This host can be measured, with 1 limit.
";
        assert_eq!(check.render(PLAIN), expected);
        let whole = Check::new("1.2.3", rows()[..2].to_vec());
        assert!(
            whole
                .render(PLAIN)
                .ends_with("This host can be measured, and lacks nothing.\n")
        );
    }

    #[test]
    fn a_host_that_is_not_able_says_what_helps() {
        let check = Check::new("1.2.3", unable());
        assert!(!check.able);
        let text = check.render(PLAIN);
        let expected = "\
permission
  MISSING  CAP_\u{fffd}[2JBPF            the probes can't be loaded
                                  run as root, or give schedscope the capabilities CAP_BPF and
                                  CAP_PERFMON

This host can NOT be measured: 1 thing is missing, see above.
";
        assert!(text.ends_with(expected), "{text}");
        assert!(text.lines().all(|line| line.width() <= 100), "{text}");
        let colors = TextOptions {
            width: 100,
            colors: true,
        };
        assert!(check.render(colors).contains("\x1b["));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn json_has_a_row_each() {
        let mut bytes = Vec::new();
        let check = Check::new("1.2.3", unable());
        crate::sink::json::write(&check, &mut bytes).expect("writing to memory works");
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("it is JSON");
        assert_eq!(value["schema"], 1);
        assert_eq!(value["able"], false);
        assert_eq!(value["rows"][3]["state"], "missing");
        assert_eq!(value["rows"][2]["state"], "limited");
        assert_eq!(value["rows"][0]["group"], "kernel");
        assert_eq!(value["rows"][0]["consequence"], "");
        assert_eq!(bytes.last(), Some(&b'\n'));
    }
}
