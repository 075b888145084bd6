//! What `schedscope check` says: what this host has, what it lacks, and what follows.
//!
//! In: the [`Facts`] that the source side found out. Out: text for people, or data for
//! [`json`](super::json).

use std::fmt::Write as _;

use anstyle::Style;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::text::{TextOptions, safe, wrap};
use crate::source::check::{self, Facts, Topic};

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Not as it should be: something is given up, but measuring works.
    Limited,
    /// It can't be told.
    Unknown,
    /// Without it nothing can be measured.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What it belongs to: `host`, `permission`, `machinery`, `hook`, `field` or `trial`.
    pub topic: &'static str,
    /// What was looked for.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What follows and what helps; empty if it is as it should be.
    pub consequence: String,
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
    /// Whether this host can be measured.
    pub able: bool,
    /// One thing each, those of a topic together.
    pub rows: Vec<Row>,
}

impl Check {
    /// What these facts come to.
    #[must_use]
    pub fn new(version: &str, facts: &Facts) -> Self {
        let able = facts.can_measure();
        Self {
            schema: SCHEMA,
            tool: "schedscope",
            version: version.to_owned(),
            able,
            rows: facts.rows.iter().map(|fact| row(fact, able)).collect(),
        }
    }

    /// The text for people: the rows, topic by topic, then the verdict.
    #[must_use]
    pub fn render(&self, text: TextOptions) -> String {
        let widths = self.rows.iter().map(|row| safe(&row.name).width());
        let name_width = widths.max().unwrap_or(0);
        let mut out = String::new();
        for topic in self.rows.chunk_by(|left, right| left.topic == right.topic) {
            let bold = text.bold();
            let heading = topic.first().map_or("", |row| heading(row.topic));
            let _ = writeln!(out, "{bold}{heading}{bold:#}");
            for row in topic {
                row.render(&mut out, text, name_width);
            }
        }
        out.push('\n');
        out + &self.verdict(text)
    }

    fn verdict(&self, text: TextOptions) -> String {
        let count = |state| self.rows.iter().filter(|row| row.state == state).count();
        let style = if self.able { text.good() } else { text.bad() };
        let sentence = match (self.able, count(State::Limited) + count(State::Unknown)) {
            (true, 0) => "This host can be measured, and lacks nothing.".to_owned(),
            (true, 1) => "This host can be measured; one thing is limited, see above.".to_owned(),
            (true, limits) => {
                format!("This host can be measured; {limits} things are limited, see above.")
            }
            (false, _) => {
                "This host can NOT be measured: see what is missing above, and what helps."
                    .to_owned()
            }
        };
        format!("{style}{sentence}{style:#}\n")
    }
}

fn row(fact: &check::Row, able: bool) -> Row {
    let state = match fact.state {
        check::State::Ok => State::Ok,
        check::State::Unknown => State::Unknown,
        // Measuring was tried and works, so this can't be what it would need.
        check::State::Missing if able || !fact.essential => State::Limited,
        check::State::Missing => State::Missing,
    };
    Row {
        topic: match fact.topic {
            Topic::Host => "host",
            Topic::Permission => "permission",
            Topic::Machinery => "machinery",
            Topic::Hook => "hook",
            Topic::Field => "field",
            Topic::Trial => "trial",
        },
        name: fact.name.clone(),
        state,
        found: fact.found.clone(),
        consequence: match state {
            State::Ok => String::new(),
            _ => fact.consequence.clone(),
        },
    }
}

fn heading(topic: &str) -> &str {
    match topic {
        "host" => "Host",
        "permission" => "Permissions",
        "machinery" => "BPF",
        "hook" => "Hooks",
        "field" => "Kernel fields",
        "trial" => "All together",
        other => other,
    }
}

/// Width of the word for a state.
const STATE_WIDTH: usize = 7;

impl Row {
    fn render(&self, out: &mut String, text: TextOptions, name_width: usize) {
        let (style, word) = match self.state {
            State::Ok => (text.good(), "ok"),
            State::Limited => (text.bad(), "limited"),
            State::Unknown => (text.bad(), "unknown"),
            State::Missing => (text.bad(), "MISSING"),
        };
        let name = safe(&self.name);
        let padding = name_width.saturating_sub(name.width());
        let _ = write!(out, "  {style}{word:STATE_WIDTH$}{style:#}  {name}");
        // What does not fit beside the name is put below, as what follows is.
        let indent = 2 + STATE_WIDTH + 2;
        let found = safe(&self.found);
        let mut below = vec![(Style::new(), self.consequence.as_str())];
        if indent + name_width + 2 + found.width() <= text.width {
            let line = format!("{:padding$}  {found}", "");
            out.push_str(line.trim_end());
        } else {
            below.insert(0, (text.dim(), &self.found));
        }
        out.push('\n');
        for (style, sentence) in below {
            for line in wrap(&safe(sentence), text.prose().saturating_sub(indent), 0).lines() {
                if !line.is_empty() {
                    let _ = writeln!(out, "{:indent$}{style}{line}{style:#}", "");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, State};
    use crate::sink::text::TextOptions;
    use crate::source::check::{Facts, Row, State as Found, Topic};
    use unicode_width::UnicodeWidthStr;

    fn row(topic: Topic, name: &str, state: Found, found: &str) -> Row {
        Row {
            topic,
            name: name.to_owned(),
            state,
            found: found.to_owned(),
            essential: topic != Topic::Field,
            consequence: format!("without {name} nothing is as it was: get it"),
        }
    }

    fn facts(permission: Found, trial: Found) -> Facts {
        Facts {
            rows: vec![
                row(Topic::Host, "Linux", Found::Ok, "6.18.0"),
                row(
                    Topic::Permission,
                    "CAP_\x1b[2JBPF",
                    permission,
                    &"long ".repeat(20),
                ),
                row(
                    Topic::Field,
                    "task_struct.in_iowait",
                    Found::Missing,
                    "not there",
                ),
                row(Topic::Trial, "all together", trial, ""),
            ],
        }
    }

    #[test]
    fn a_host_that_is_not_able_says_what_helps() {
        let check = Check::new("1.2.3", &facts(Found::Missing, Found::Missing));
        assert!(!check.able);
        let expected = "\
Host
  ok       Linux                  6.18.0
Permissions
  MISSING  CAP_\u{fffd}[2JBPF
           long long long long long long long long long long long long long long long long long long
           long long
           without CAP_\u{fffd}[2JBPF nothing is as it was: get it
Kernel fields
  limited  task_struct.in_iowait  not there
           without task_struct.in_iowait nothing is as it was: get it
All together
  MISSING  all together
           without all together nothing is as it was: get it

This host can NOT be measured: see what is missing above, and what helps.
";
        let text = check.render(TextOptions::PLAIN);
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.width() <= 100), "{text}");
        let colors = TextOptions {
            colors: true,
            ..TextOptions::PLAIN
        };
        assert!(check.render(colors).contains("\x1b["));
    }

    #[test]
    fn what_was_tried_and_works_is_not_missing() {
        let check = Check::new("1.2.3", &facts(Found::Missing, Found::Ok));
        assert!(check.able);
        assert!(check.rows.iter().all(|row| row.state != State::Missing));
        let text = check.render(TextOptions::PLAIN);
        let verdict = "\nThis host can be measured; 2 things are limited, see above.\n";
        assert!(text.ends_with(verdict), "{text}");
        let one = Check::new("1.2.3", &facts(Found::Ok, Found::Ok));
        let text = one.render(TextOptions::PLAIN);
        assert!(
            text.ends_with("; one thing is limited, see above.\n"),
            "{text}"
        );
        let mut all = facts(Found::Ok, Found::Ok);
        all.rows.remove(2);
        let text = Check::new("1.2.3", &all).render(TextOptions::PLAIN);
        assert!(
            text.ends_with("\nThis host can be measured, and lacks nothing.\n"),
            "{text}"
        );
        assert!(
            !text.contains("nothing is as it was"),
            "nothing follows from what is there"
        );
    }

    #[test]
    fn json_has_a_row_each() {
        let check = Check::new("1.2.3", &facts(Found::Unknown, Found::Missing));
        let mut bytes = Vec::new();
        crate::sink::json::write(&check, &mut bytes).expect("writing to memory works");
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("it is JSON");
        assert_eq!(value["schema"], 1);
        assert_eq!(value["able"], false);
        let states = ["ok", "unknown", "limited", "missing"];
        let topics = ["host", "permission", "field", "trial"];
        for (number, (state, topic)) in states.into_iter().zip(topics).enumerate() {
            assert_eq!(value["rows"][number]["state"], state);
            assert_eq!(value["rows"][number]["topic"], topic);
        }
        assert_eq!(value["rows"][0]["consequence"], "");
        assert_eq!(bytes.last(), Some(&b'\n'));
    }
}
