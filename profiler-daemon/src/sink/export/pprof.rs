//! Off-CPU time as a profile that `pprof` reads (`profile.proto` of github.com/google/pprof), not compressed.

use std::collections::HashMap;
use std::io::{self, Write};

use prost::Message;

use super::stacks::{Graph, Stacks};
use super::{Export, Outcome, Run};
use crate::core::{Culprit, Seen, Span};

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    name: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
    #[prost(int64, tag = "9")]
    time_ns: i64,
    #[prost(int64, tag = "10")]
    duration_ns: i64,
}

/// Adds up, and writes at the end.
pub struct Pprof<'a, W> {
    out: W,
    run: Run<'a>,
    from_ns: u64,
    until_ns: u64,
    stacks: Stacks,
}

impl<'a, W: Write> Pprof<'a, W> {
    /// Writes here.
    pub fn new(out: W, run: Run<'a>) -> Self {
        Self {
            out,
            run,
            from_ns: u64::MAX,
            until_ns: 0,
            stacks: Stacks::new(Graph::OffCpu),
        }
    }
}

impl<W: Write> Export for Pprof<'_, W> {
    fn seen(&mut self, waits: &[Seen]) {
        self.stacks.seen(waits);
    }

    fn span(&mut self, span: &Span, culprits: &[Culprit]) -> io::Result<()> {
        self.from_ns = self.from_ns.min(span.from_ns);
        self.until_ns = self.until_ns.max(span.until_ns);
        self.stacks.span(span, culprits);
        Ok(())
    }

    fn finish(mut self: Box<Self>, _: &Outcome<'_>) -> io::Result<()> {
        let mut names = Names::default();
        // The first string is empty by the format's rule.
        names.string("");
        let mut profile = Profile {
            sample_type: vec![
                ValueType {
                    name: names.string("waits"),
                    unit: names.string("count"),
                },
                ValueType {
                    name: names.string("off-cpu"),
                    unit: names.string("nanoseconds"),
                },
            ],
            time_ns: signed(self.run.header.unix_ns(self.from_ns)),
            duration_ns: signed(self.until_ns.saturating_sub(self.from_ns)),
            ..Profile::default()
        };
        for (frames, weight) in self.stacks.rows(self.run) {
            // The innermost comes first.
            profile.sample.push(Sample {
                location: frames.iter().rev().map(|name| names.place(name)).collect(),
                value: vec![signed(weight.count), signed(weight.ns)],
            });
        }
        for (id, &name) in (1..).zip(&names.places) {
            profile.function.push(Function { id, name });
            profile.location.push(Location {
                id,
                line: vec![Line { function: id }],
            });
        }
        profile.strings = names.strings;
        self.out.write_all(&profile.encode_to_vec())?;
        self.out.flush()
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Strings and places by their numbers. A place is a function, and both have the same number, from one on.
#[derive(Default)]
struct Names {
    strings: Vec<String>,
    numbers: HashMap<String, i64>,
    places: Vec<i64>,
    place_of: HashMap<i64, u64>,
}

impl Names {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = signed(self.strings.len() as u64);
        self.strings.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn place(&mut self, name: &str) -> u64 {
        let name = self.string(name);
        if let Some(&place) = self.place_of.get(&name) {
            return place;
        }
        self.places.push(name);
        let place = self.places.len() as u64;
        self.place_of.insert(name, place);
        place
    }
}
