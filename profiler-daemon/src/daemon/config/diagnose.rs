//! Where in a configuration file an error is, and what was probably meant.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::KEYS;

/// A line, from 1 on, and what is wrong there.
pub(super) type Problem = (usize, String);

/// The file's keys with their places.
pub(super) struct Outline<'a> {
    text: &'a str,
    table: Spanned<DeTable<'a>>,
}

impl<'a> Outline<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Problem> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let place = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        match errors.iter().min_by_key(|error| place(error)) {
            None => Ok(Self { text, table }),
            Some(first) => Err((
                line_at(text, place(first)),
                format!("this is not TOML: {}", one_line(first.message())),
            )),
        }
    }

    /// Names the first key that nobody knows, and the nearest one that somebody does.
    pub(super) fn reject_unknown_keys(&self) -> Result<(), Problem> {
        let mut unknown = Vec::new();
        find_unknown(self.table.get_ref(), "", &mut unknown);
        unknown.sort();
        let Some((place, path)) = unknown.into_iter().next() else {
            return Ok(());
        };
        let hint = match nearest(&path) {
            Some(known) => format!("did you mean `{known}`?"),
            None => {
                let all: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
                format!("known keys: {}", all.join(", "))
            }
        };
        Err((
            line_at(self.text, place),
            format!("unknown key `{path}`; {hint}"),
        ))
    }

    /// What an error of the deserializer means, and where.
    pub(super) fn explain(&self, error: &toml::de::Error) -> Problem {
        let message = one_line(error.message());
        let Some(span) = error.span() else {
            return (1, message);
        };
        let line = line_at(self.text, span.start);
        match key_at(self.table.get_ref(), "", span.start) {
            Some(path) => (line, format!("{path}: {message}")),
            None => (line, message),
        }
    }

    /// The line in which the target with this number, from 0 on, is named.
    pub(super) fn line_of_target(&self, number: usize) -> usize {
        let name = self
            .table
            .get_ref()
            .get("target")
            .and_then(|targets| targets.get_ref().as_array()?.get(number))
            .and_then(|target| target.get_ref().get("name"));
        name.map_or(1, |name| line_at(self.text, name.span().start))
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count() + 1
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        key.to_owned()
    } else {
        format!("{prefix}.{key}")
    }
}

fn is_section(path: &str) -> bool {
    KEYS.iter()
        .filter_map(|key| key.path.strip_prefix(path))
        .any(|rest| rest.starts_with('.'))
}

/// Collects the keys that are neither known nor a section with known ones, with their places.
fn find_unknown(table: &DeTable<'_>, prefix: &str, unknown: &mut Vec<(usize, String)>) {
    for (key, value) in table {
        let path = join(prefix, key.get_ref());
        if KEYS.iter().any(|known| known.path == path) {
            continue;
        }
        if !is_section(&path) {
            unknown.push((key.span().start, path));
            continue;
        }
        match value.get_ref() {
            DeValue::Table(inner) => find_unknown(inner, &path, unknown),
            DeValue::Array(items) => {
                for inner in items.iter().filter_map(|item| item.get_ref().as_table()) {
                    find_unknown(inner, &path, unknown);
                }
            }
            // A section that is no table: the deserializer says what it expected.
            _ => {}
        }
    }
}

/// The known key or section that is written most like this one.
fn nearest(path: &str) -> Option<&'static str> {
    let leaf = path.rsplit('.').next().unwrap_or(path);
    let sections = KEYS.iter().filter_map(|key| key.path.split_once('.'));
    let names = KEYS.iter().map(|key| key.path);
    names
        .chain(sections.map(|(section, _)| section))
        .map(|known| {
            let known_leaf = known.rsplit('.').next().unwrap_or(known);
            let whole = strsim::osa_distance(path, known);
            // The right key in the wrong section, or without one.
            let by_leaf = strsim::osa_distance(leaf, known_leaf) + usize::from(path != leaf);
            (whole.min(by_leaf), known)
        })
        .filter(|&(distance, known)| distance <= 1 + known.len().min(path.len()) / 4)
        .min()
        .map(|(_, known)| known)
}

/// The path of the innermost key at this place.
fn key_at(table: &DeTable<'_>, prefix: &str, offset: usize) -> Option<String> {
    for (key, value) in table {
        let path = join(prefix, key.get_ref());
        let inner = match value.get_ref() {
            DeValue::Table(inner) => key_at(inner, &path, offset),
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| item.get_ref().as_table())
                .find_map(|inner| key_at(inner, &path, offset)),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
        if (key.span().start..value.span().end).contains(&offset) || value.span().contains(&offset)
        {
            return Some(path);
        }
    }
    None
}
