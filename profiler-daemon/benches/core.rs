//! What a record costs in the core, on one CPU: nanoseconds a record, the median of several rounds.
//!
//! Pairs of threads pass a turn to and fro on each CPU, as in the `storm` workload: each turn is a
//! waking, a wakeup and a switch. Run with `cargo bench -p profiler-daemon --bench core`;
//! a part of a row's name after it measures that alone.

use std::time::Instant;

use profiler_ebpf::{Fork, RawRecord, Switch, Wakeup, Waking, switch_flags};
use schedscope::core::decode::Event;
use schedscope::core::{Core, Selector, Stream, TargetSpec};
use wildmatch::WildMatch;

const TURN_NS: u64 = 1_500;
const ROUNDS: usize = 15;
/// Turns of all CPUs in a round.
const TURNS: u64 = 40_000;

/// A host.
#[derive(Clone, Copy)]
struct Host {
    cpus: u32,
    /// Pairs of threads on each.
    pairs: u32,
}

impl Host {
    /// Turns of each CPU in a round.
    fn turns(self) -> u64 {
        TURNS / u64::from(self.cpus)
    }

    fn tid(self, cpu: u32, pair: u32, side: u32) -> u32 {
        1000 + (cpu * self.pairs + pair) * 2 + side
    }
}

/// The births of all threads, as of the first CPU.
fn births(host: Host) -> Vec<RawRecord> {
    let all = (0..host.cpus).flat_map(|cpu| (0..host.pairs).map(move |pair| (cpu, pair)));
    all.flat_map(|(cpu, pair)| [host.tid(cpu, pair, 0), host.tid(cpu, pair, 1)])
        .map(|tid| {
            Event::Fork(Fork {
                ts_ns: 10,
                start_ns: u64::from(tid),
                tid,
                tgid: 1000,
                ..Fork::default()
            })
            .encode()
        })
        .collect()
}

/// One round on one CPU, from this time on: who runs wakes its partner and goes to sleep.
fn turns(host: Host, cpu: u32, from_ns: u64, first: u64, with_wakers: bool) -> Vec<RawRecord> {
    let mut records = Vec::new();
    let mut now = from_ns;
    for turn in first..first + host.turns() {
        let pair = u32::try_from(turn / 2 % u64::from(host.pairs)).unwrap_or(0);
        let side = u32::try_from(turn % 2).unwrap_or(0);
        let next_pair = u32::try_from(turn.div_ceil(2) % u64::from(host.pairs)).unwrap_or(0);
        let next_side = 1 - side;
        let (prev, next) = (
            host.tid(cpu, pair, side),
            host.tid(cpu, next_pair, next_side),
        );
        let runs = u16::try_from((turn / 2 / u64::from(host.pairs)) % 65_536).unwrap_or(0);
        if with_wakers {
            records.push(
                Event::Waking(Waking {
                    ts_ns: now,
                    tid: next,
                    waker_tid: prev,
                    runs,
                    ..Waking::default()
                })
                .encode(),
            );
        }
        records.push(
            Event::Wakeup(Wakeup {
                ts_ns: now,
                tid: next,
                cpu,
                ..Wakeup::default()
            })
            .encode(),
        );
        now += TURN_NS;
        records.push(
            Event::Switch(Switch {
                ts_ns: now,
                next_delay_ns: 0,
                prev_tid: prev,
                next_tid: next,
                prev_state: 1,
                next_runs: runs,
                prev_syscall: 0,
                flags: switch_flags::NEXT_COUNTED | switch_flags::PREV_SYSCALL,
                ..Switch::default()
            })
            .encode(),
        );
    }
    records
}

fn measure(name: &str, host: Host, targets: &[TargetSpec], with_wakers: bool) {
    // A part of a name as the argument chooses rows; cargo adds flags of its own.
    let mut chosen = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    if chosen.next().is_some_and(|word| !name.contains(&word)) {
        return;
    }
    let mut core = Core::new(targets.to_vec());
    let births = births(host);
    core.feed(&[Stream::new(&births)], 20);
    core.begin_window();
    let mut costs = Vec::new();
    for round in 0..ROUNDS {
        let from_ns = 1_000 + round as u64 * host.turns() * TURN_NS * 2;
        let first = round as u64 * host.turns();
        let records: Vec<Vec<RawRecord>> = (0..host.cpus)
            .map(|cpu| turns(host, cpu, from_ns, first, with_wakers))
            .collect();
        let streams: Vec<Stream<'_>> = records.iter().map(|its| Stream::new(its)).collect();
        let count: usize = records.iter().map(Vec::len).sum();
        let start = Instant::now();
        core.feed(&streams, from_ns + host.turns() * TURN_NS * 2 - 1);
        costs.push(start.elapsed().as_secs_f64() * 1e9 / count as f64);
    }
    costs.sort_by(f64::total_cmp);
    println!(
        "{name:<32} {:6.1} ns a record (from {:.1} to {:.1})",
        costs[costs.len() / 2],
        costs[0],
        costs[costs.len() - 1]
    );
}

fn main() {
    let everybody = |per_thread| TargetSpec {
        name: "all".to_owned(),
        selector: Selector::Comm(WildMatch::new("*")),
        per_thread,
    };
    let small = Host { cpus: 2, pairs: 4 };
    measure("host alone", small, &[], false);
    measure("host alone, wakers", small, &[], true);
    measure("all in a target", small, &[everybody(false)], true);
    measure(
        "all in a target, each thread",
        small,
        &[everybody(true)],
        true,
    );
    for (cpus, pairs) in [(2, 500), (16, 32), (64, 80), (256, 196), (256, 1_950)] {
        let name = format!("{cpus} CPUs, {} threads", cpus * pairs * 2);
        measure(&name, Host { cpus, pairs }, &[], true);
    }
}
