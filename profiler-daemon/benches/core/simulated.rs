//! Hosts that are simulated.

use schedscope::core::merge::Merger;
use schedscope::core::{Core, Reconstruction, Selector, TargetSpec};
use wildmatch::WildMatch;

use super::rows::{Costs, Output, Row, merged};
use super::storm::{Chunk, Setting, Storm};

/// Switches of all CPUs in a round.
const SWITCHES: u64 = 60_000;
const ROUNDS: usize = 15;
const QUICK_ROUNDS: usize = 5;

const CPUS: [u32; 4] = [2, 16, 64, 256];
const THREADS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];

fn everybody(per_thread: bool) -> Vec<TargetSpec> {
    vec![TargetSpec {
        name: "all".to_owned(),
        selector: Selector::Comm(WildMatch::new("*")),
        per_thread,
    }]
}

pub(crate) fn measure(output: &Output, is_quick: bool) {
    let small = Setting {
        cpus: 2,
        threads: 16,
        wakeups: true,
        wakers: true,
        mixed: false,
    };
    let rounds = if is_quick { QUICK_ROUNDS } else { ROUNDS };
    let few = [
        ("turns, wakeups only", false, Vec::new()),
        ("turns", true, Vec::new()),
        ("turns, all in a target", true, everybody(false)),
        ("turns, figures of each thread", true, everybody(true)),
    ];
    for (what, wakers, targets) in few {
        let setting = Setting { wakers, ..small };
        row(output, what, setting, &targets, rounds);
    }
    for cpus in CPUS {
        for threads in THREADS {
            let is_extreme = [2, 256].contains(&cpus) && [1_000, 100_000].contains(&threads);
            if is_quick && !is_extreme {
                continue;
            }
            for (what, mixed) in [("turns", false), ("mixed", true)] {
                let setting = Setting {
                    cpus,
                    threads,
                    wakeups: true,
                    wakers: true,
                    mixed,
                };
                row(output, what, setting, &[], rounds);
            }
        }
    }
}

fn row(output: &Output, what: &str, setting: Setting, targets: &[TargetSpec], rounds: usize) {
    let name = format!("{what}, {} CPUs, {} threads", setting.cpus, setting.threads);
    if !output.wants(&name) {
        return;
    }
    let mut storm = Storm::new(setting);
    let mut host = Host {
        machine: Reconstruction::new(targets.to_vec()),
        core: Core::new(targets.to_vec()),
        mergers: [Merger::default(), Merger::default()],
        streams: setting.cpus as usize,
        watermark_ns: 0,
    };
    host.settle(&storm.births());
    host.machine.begin_window(host.watermark_ns);
    host.core.begin_window();
    while !storm.is_settled() {
        host.settle(&storm.run(SWITCHES));
    }
    // Everything that grows to its bounds has grown.
    for _ in 0..rounds / 2 {
        host.settle(&storm.run(SWITCHES));
    }
    let mut costs = Costs::default();
    for _ in 0..rounds {
        host.round(&storm.run(SWITCHES), &mut costs);
    }
    let row = Row {
        name,
        input: "simulated",
        cpus: setting.cpus as usize,
        threads: setting.threads as usize,
    };
    output.print(&row, costs);
    host.expect_no_trouble(&row.name);
}

/// What takes in the records: each stage has its own.
struct Host {
    machine: Reconstruction,
    core: Core,
    mergers: [Merger; 2],
    streams: usize,
    watermark_ns: u64,
}

impl Host {
    fn settle(&mut self, chunk: &Chunk) {
        self.round(chunk, &mut Costs::default());
    }

    fn round(&mut self, chunk: &Chunk, costs: &mut Costs) {
        let streams = chunk.streams();
        let [timed, ordering] = &mut self.mergers;
        let merged = merged(&streams, chunk.watermark_ns, ordering);
        costs.pure(&streams, chunk.watermark_ns, timed);
        costs.reconstruct(&mut self.machine, &merged, self.streams, self.watermark_ns);
        costs.whole(&mut self.core, &streams, chunk.watermark_ns, true);
        costs.end_round();
        self.watermark_ns = chunk.watermark_ns;
    }

    /// The history was one that a kernel can have: what is measured is the common way.
    fn expect_no_trouble(&self, name: &str) {
        let snapshot = self.core.snapshot();
        let conflicts: Vec<_> = snapshot
            .conflicts
            .iter()
            .filter(|&(_, count)| count > 0)
            .collect();
        assert!(conflicts.is_empty(), "{name}: {conflicts:?}");
    }
}
