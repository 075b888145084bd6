//! The verdict: what dominates, in plain sentences, each with its figures, where they stand in the
//! report, and what to do about it.
//!
//! In: a [`Report`]. Out: [`Finding`]s, the most important first. The rules are data ([`RULES`]): each
//! says of which [`Topic`] it speaks, from which limits of which [`FACTS`] on it fires, and its words.
//! `docs/verdicts.md` is made from the same tables. What the evidence can't bear is not said, and that is
//! said.

mod document;
mod facts;
mod rules;

use std::collections::BTreeMap;

use serde::Serialize;

pub use document::document;
pub use facts::{Bound, FACTS, Fact, Figure, Scene, Value};
pub use rules::{Kind, Limit, RULES, Rule, Topic};

use super::report::Report;

/// Findings of a verdict at most: whoever needs more reads the tables.
pub const MOST: usize = 4;

/// One thing that a verdict says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Name of the rule that fired.
    pub rule: &'static str,
    /// What it means for the reader.
    pub kind: Kind,
    /// What was found, in one sentence with its figures.
    pub text: String,
    /// What to do.
    pub advice: String,
    /// The figures, by name: durations in nanoseconds (`NAME_ns`), shares from 0 to 1, counts, names.
    pub figures: BTreeMap<String, Value>,
    /// Where in the report the figures come from, as JSON pointers (RFC 6901).
    pub evidence: Vec<String>,
}

/// What is to be said of a report.
#[must_use]
pub fn judge(report: &Report) -> Vec<Finding> {
    let mut fired: Vec<(&Rule, Scene<'_>)> = Vec::new();
    let base = facts::Base::of(report);
    for rule in RULES {
        let is_silenced = |name: &&str| fired.iter().any(|(other, _)| other.name == *name);
        if rule.name == rules::FALLBACK || rule.unless.iter().any(is_silenced) {
            continue;
        }
        let scene = Scene::new(report, &base, rule.topic);
        if rule.fires(&scene) {
            fired.push((rule, scene));
        }
    }
    if let Some(place) = fired.iter().position(|(rule, _)| rule.kind == Kind::None) {
        let (rule, scene) = &fired[place];
        return vec![rule.finding(scene)];
    }
    if fired.iter().all(|(rule, _)| rule.kind >= Kind::Note)
        && let Some(rule) = RULES.iter().find(|rule| rule.name == rules::FALLBACK)
    {
        fired.push((rule, Scene::new(report, &base, rule.topic)));
    }
    fired.sort_by_key(|(rule, scene)| (rule.rank(), std::cmp::Reverse(scene.weight_ns())));
    // A caveat on all that is said must not be pushed out by the last thing that is.
    let caveats = fired
        .iter()
        .filter(|(rule, _)| rule.kind == Kind::Caveat)
        .count();
    let mut room = MOST.saturating_sub(caveats);
    fired.retain(|(rule, _)| {
        let stays = rule.kind == Kind::Caveat || room > 0;
        room -= usize::from(stays && rule.kind != Kind::Caveat);
        stays
    });
    fired.truncate(MOST);
    fired
        .iter()
        .map(|(rule, scene)| rule.finding(scene))
        .collect()
}

impl Rule {
    /// Whether all its limits are kept.
    #[must_use]
    pub fn fires(&self, scene: &Scene<'_>) -> bool {
        self.when.iter().all(|limit| {
            let value = scene.figure(limit.fact()).map(|figure| figure.value);
            limit.holds(value.as_ref())
        })
    }

    fn finding(&self, scene: &Scene<'_>) -> Finding {
        let mut used = Vec::new();
        let words = |name: &str| scene.figure(name).map(|figure| figure.value.words());
        let text = fill(self.says, &words, &mut used);
        let advice = fill(self.advice, &words, &mut used);
        // What it fired for is evidence, too, said or not.
        used.extend(self.when.iter().map(|limit| limit.fact().to_owned()));
        let mut figures = BTreeMap::new();
        let mut evidence: Vec<String> = Vec::new();
        for name in used {
            let Some(figure) = scene.figure(&name) else {
                continue;
            };
            for pointer in figure.evidence {
                if !evidence.contains(&pointer) {
                    evidence.push(pointer);
                }
            }
            let is_time = matches!(figure.value, Value::Time(_));
            figures.insert(name + if is_time { "_ns" } else { "" }, figure.value);
        }
        Finding {
            rule: self.name,
            kind: self.kind,
            text,
            advice,
            figures,
            evidence,
        }
    }
}

/// Fills in a sentence: `{name}` stands for a figure, and `[...]` is left out as a whole if a figure in it
/// is not known. A figure that is not known elsewhere is a `?`. Adds the names that were used.
fn fill(template: &str, figure: &dyn Fn(&str) -> Option<String>, used: &mut Vec<String>) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((clause, next)) = after.split_once(']') else {
            break;
        };
        text += &names(before, figure, used);
        if placeholders(clause).all(|name| figure(name).is_some()) {
            text += &names(clause, figure, used);
        }
        rest = next;
    }
    text + &names(rest, figure, used)
}

fn names(
    template: &str,
    figure: &dyn Fn(&str) -> Option<String>,
    used: &mut Vec<String>,
) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, next)) = after.split_once('}') else {
            break;
        };
        text += before;
        text += figure(name).as_deref().unwrap_or("?");
        used.push(name.to_owned());
        rest = next;
    }
    text + rest
}

/// The figures that a sentence names, in its order.
pub(super) fn placeholders(template: &str) -> impl Iterator<Item = &str> {
    template
        .split('{')
        .skip(1)
        .filter_map(|part| part.split('}').next())
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn clauses_without_their_figures_are_left_out() {
        let figure = |name: &str| (name != "none").then(|| format!("<{{{name}}}>"));
        for (template, text) in [
            ("plain", "plain"),
            ("{a} and {b}", "<{a}> and <{b}>"),
            ("{a}[ by {none}], [b {b}]", "<{a}>, b <{b}>"),
            ("{none} and [x", "? and [x"),
        ] {
            assert_eq!(fill(template, &figure, &mut Vec::new()), text);
        }
    }
}
