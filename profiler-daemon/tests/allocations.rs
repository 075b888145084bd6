//! Once everything has grown to its bounds, the core asks nothing of the allocator: what it needs for a
//! record it has.
//!
//! One test alone in its binary: what other threads allocate would be counted as well.

#[path = "../benches/storm/mod.rs"]
mod storm;

use std::alloc::System;

use schedscope::core::{Core, Selector, TargetSpec};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use storm::{Setting, Storm};
use wildmatch::WildMatch;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Switches between two looks.
const SWITCHES: u64 = 40_000;
/// Until histories have grown: marks of a CPU's use are what takes longest, and have room for twice as many
/// from then on.
const SETTLING_SWITCHES: u64 = 560_000;
const LOOKS: u64 = 4;

/// Who has figures of his own has them grow: a bucket that is met for the first time, a wait that is among the
/// longest. That becomes ever rarer.
const RECORDS_A_GROWTH: usize = 1_000;

fn target(name: &str, per_thread: bool) -> TargetSpec {
    TargetSpec {
        name: name.to_owned(),
        selector: Selector::Comm(WildMatch::new(name)),
        per_thread,
    }
}

/// How often the allocator is asked for something while records are taken in, and how many those are.
fn allocations(setting: Setting, targets: Vec<TargetSpec>) -> (usize, usize) {
    let mut storm = Storm::new(setting);
    let mut core = Core::new(targets);
    let births = storm.births();
    core.feed(&births.streams(), births.watermark_ns);
    core.begin_window();
    let mut switches = 0;
    while switches < SETTLING_SWITCHES || !storm.is_settled() {
        let chunk = storm.run(SWITCHES);
        core.feed(&chunk.streams(), chunk.watermark_ns);
        switches += SWITCHES;
    }
    let chunks: Vec<_> = (0..LOOKS).map(|_| storm.run(SWITCHES)).collect();
    let streams: Vec<_> = chunks.iter().map(storm::Chunk::streams).collect();
    let before = core.events();
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    for (streams, chunk) in streams.iter().zip(&chunks) {
        core.feed(streams, chunk.watermark_ns);
    }
    let change = region.change();
    assert!(
        core.events() - before >= LOOKS * SWITCHES,
        "records were taken in"
    );
    let records = chunks.iter().map(storm::Chunk::len).sum();
    (change.allocations + change.reallocations, records)
}

#[test]
fn a_record_needs_no_memory() {
    let small = Setting {
        cpus: 2,
        threads: 64,
        wakeups: true,
        wakers: true,
        mixed: true,
    };
    let large = Setting {
        cpus: 64,
        threads: 20_000,
        ..small
    };
    let cases = [
        ("a small host", small, None),
        (
            "without wakers",
            Setting {
                wakers: false,
                ..small
            },
            None,
        ),
        (
            "nothing but turns",
            Setting {
                mixed: false,
                ..small
            },
            None,
        ),
        ("a large host", large, None),
        (
            "a target that is not there",
            small,
            Some(target("nobody", true)),
        ),
        ("a target", small, Some(target("*", false))),
        ("figures of each thread", small, Some(target("*", true))),
    ];
    let mut spent = Vec::new();
    for (what, setting, target) in cases {
        let grows = target.as_ref().is_some_and(|its| its.name == "*");
        let (count, records) = allocations(setting, target.into_iter().collect());
        let allowed = if grows { records / RECORDS_A_GROWTH } else { 0 };
        if count > allowed {
            spent.push(format!("{what}: {count} times for {records} records"));
        }
    }
    assert!(
        spent.is_empty(),
        "the allocator was asked for something: {spent:?}"
    );
}
