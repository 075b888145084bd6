//! A fixed input for one part of the core, to have its instructions counted: they are the same on a busy
//! machine and on an idle one. `cargo xtask test --suite instructions` runs this under callgrind and
//! compares the counts with `instructions.toml` beside this file.
//!
//! `instructions CASE` prints how many records it was; `instructions list` prints the cases. Only what
//! happens in [`measured`] counts.

#[path = "storm/mod.rs"]
mod storm;

use std::hint::black_box;
use std::process::ExitCode;

use schedscope::core::decode::Event;
use schedscope::core::merge::Merger;
use schedscope::core::{Core, Selector, TargetSpec};
use storm::{Chunk, Setting, Storm};
use wildmatch::WildMatch;

/// Switches that are counted, and those before.
const SWITCHES: u64 = 6_000;
const SETTLING_SWITCHES: u64 = 20_000;

const TURNS: Setting = Setting {
    cpus: 2,
    threads: 64,
    wakeups: true,
    wakers: true,
    mixed: false,
};
const SWITCHES_ONLY: Setting = Setting {
    wakeups: false,
    wakers: false,
    ..TURNS
};
const MIXED: Setting = Setting {
    mixed: true,
    ..TURNS
};
const MANY: Setting = Setting {
    cpus: 256,
    threads: 4_096,
    ..MIXED
};

#[derive(Clone, Copy)]
enum Part {
    Decode,
    Merge,
    /// Of a host without targets, with one, or with one that has figures of each thread.
    Whole(Option<bool>),
    /// Of a host without targets, by unit, as the service has it.
    Units,
}

/// What can be counted.
const CASES: [(&str, Setting, Part); 8] = [
    ("decode", MIXED, Part::Decode),
    ("merge-2-cpus", MIXED, Part::Merge),
    ("merge-256-cpus", MANY, Part::Merge),
    ("whole-turns", TURNS, Part::Whole(None)),
    ("whole-service", SWITCHES_ONLY, Part::Units),
    ("whole-mixed", MIXED, Part::Whole(None)),
    ("whole-mixed-each-thread", MIXED, Part::Whole(Some(true))),
    ("whole-mixed-256-cpus", MANY, Part::Whole(None)),
];

/// Callgrind counts from where this is entered until it is left.
#[inline(never)]
fn measured(work: impl FnOnce()) {
    work();
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().skip(1).find(|word| !word.starts_with('-')) else {
        // So `cargo bench` runs it.
        eprintln!("not run: instructions: `cargo xtask test --suite instructions` counts them");
        return ExitCode::SUCCESS;
    };
    if name == "list" {
        for (name, _, _) in CASES {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    let Some((_, setting, part)) = CASES.into_iter().find(|(its, _, _)| *its == name) else {
        eprintln!("error: there is no case `{name}`: `list` prints those that there are");
        return ExitCode::FAILURE;
    };
    println!("{}", count(setting, part));
    ExitCode::SUCCESS
}

/// Does it, and returns how many records it was done for.
fn count(setting: Setting, part: Part) -> usize {
    let mut storm = Storm::new(setting);
    let targets = match part {
        Part::Whole(Some(per_thread)) => vec![TargetSpec {
            name: "all".to_owned(),
            selector: Selector::Comm(WildMatch::new("*")),
            per_thread,
        }],
        _ => Vec::new(),
    };
    let mut core = Core::new(targets);
    if let Part::Units = part {
        core.keep_units();
    }
    let mut merger = Merger::default();
    let mut settle = |chunk: &Chunk| {
        if let Part::Whole(_) | Part::Units = part {
            core.feed(&chunk.streams(), chunk.watermark_ns);
        }
    };
    settle(&storm.births());
    settle(&storm.run(SETTLING_SWITCHES));
    while !storm.is_settled() {
        settle(&storm.run(SETTLING_SWITCHES));
    }
    let chunk = storm.run(SWITCHES);
    let streams = chunk.streams();
    match part {
        Part::Decode => measured(|| {
            for raw in chunk.cpus.iter().flatten() {
                // A failure is decoded as well.
                let _ = black_box(Event::decode(raw));
            }
        }),
        Part::Merge => measured(|| {
            merger.merge(&streams, chunk.watermark_ns, |stream, raw| {
                black_box((stream, raw));
            });
        }),
        Part::Whole(_) | Part::Units => measured(|| {
            core.feed(&streams, chunk.watermark_ns);
        }),
    }
    chunk.len()
}
