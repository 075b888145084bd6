//! The rules as a document.

use std::fmt::Write as _;

use super::rules::FALLBACK;
use super::{FACTS, Limit, MOST, RULES, Rule, Topic, placeholders};

/// `docs/verdicts.md`.
#[must_use]
pub fn document() -> String {
    let mut text = format!(
        "\
# Verdicts

A report begins with a verdict: at most {MOST} sentences on what dominates, the most important first. In the JSON report
it is `verdict`, a list of:

| field | meaning |
|---|---|
| `rule` | the rule that fired, below |
| `kind` | what it means, below |
| `text` | what was found, with its figures |
| `advice` | what to do |
| `figures` | the figures by name, below: durations in nanoseconds (`NAME_ns`), shares from 0 to 1, counts, names |
| `evidence` | where in the report they come from, as JSON pointers (RFC 6901) |

## Kinds

In the order of a verdict; findings of one kind are in the order of the time they are about. A question about waits that
go on while nothing else does comes with the stuck ones.

| kind | meaning |
|---|---|
| `none` | no verdict, since the evidence is thin; it stands alone |
| `stuck` | a wait that goes on and should have ended long ago |
| `idle` | there was nothing to do |
| `problem` | it kept threads from their work |
| `busy` | threads ran; ranked like a problem |
| `question` | it kept threads from their work, or it was idleness: what is said with it decides |
| `note` | rare or small, but worth knowing |
| `caveat` | how far the rest can be trusted |

## What a percentage is of

* The time threads **wanted to run**: running, queued for a CPU, or unknown. Waits for a CPU are parts of it.
* **Working time**: the same, and waits that are never idleness: {}. Those waits are parts of it.
* **Non-idle time**: the same, and all other waits but idle ones. Locks, peers and children are parts of it: a thread
  in such a wait may be kept from its work, or have none.

Unknown time is in all three, so that a share is never too high because records were lost. A thread that neither ran
nor was queued within the window is in none of them: what it waits for says nothing about the others. Rules on waits
that go on look at it. Times of several threads are added up.

## Rules
",
        super::facts::SURE.join(", "),
    );
    for rule in RULES {
        section(&mut text, rule);
    }
    text += "\n## Figures\n\n| name | meaning |\n|---|---|\n";
    for fact in FACTS {
        let _ = writeln!(text, "| `{}` | {} |", fact.name, fact.meaning);
    }
    text
}

fn section(text: &mut String, rule: &Rule) {
    let _ = writeln!(text, "\n### `{}` ({})\n", rule.name, rule.kind.name());
    let _ = writeln!(text, "About {}.\n", topic(rule.topic));
    let limits: Vec<String> = rule.when.iter().map(limit).collect();
    let when = match rule.name {
        FALLBACK => "no other rule fires, but for notes and caveats".to_owned(),
        _ => limits.join(", "),
    };
    let _ = writeln!(text, "* Fires when: {when}.");
    if !rule.unless.is_empty() {
        let names: Vec<String> = rule.unless.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "* Unless one of these did: {}.", names.join(", "));
    }
    let _ = writeln!(text, "* Says: {}", rule.says);
    let _ = writeln!(text, "* Advises: {}", rule.advice);
    let mut figures: Vec<&str> = placeholders(rule.says).collect();
    figures.extend(rule.when.iter().map(Limit::fact));
    figures.sort_unstable();
    figures.dedup();
    let figures: Vec<String> = figures.iter().map(|name| format!("`{name}`")).collect();
    let _ = writeln!(text, "* Quotes: {}.", figures.join(", "));
}

fn topic(topic: Topic) -> String {
    match topic {
        Topic::Whole => "all that the target did".to_owned(),
        Topic::Queue => "waiting for a CPU".to_owned(),
        Topic::Cause(cause) => format!("waiting for a CPU, cause `{cause}`"),
        Topic::Blocked(reasons) => format!("waiting for {}", list(reasons)),
        Topic::OpenQueue => "waits for a CPU that go on".to_owned(),
        Topic::Open([]) => "waits that go on and are not idle".to_owned(),
        Topic::Open(reasons) => format!("waits that go on, for {}", list(reasons)),
    }
}

fn list(reasons: &[&str]) -> String {
    let names: Vec<String> = reasons.iter().map(|reason| format!("`{reason}`")).collect();
    names.join(", ")
}

fn limit(limit: &Limit) -> String {
    match limit {
        Limit::AtLeast(fact, bound) => format!("`{fact}` is at least {}", bound.words()),
        Limit::Below(fact, bound) => format!("`{fact}` is below {}", bound.words()),
        Limit::Known(fact) => format!("`{fact}` is known"),
    }
}
