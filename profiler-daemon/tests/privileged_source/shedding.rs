//! Threads are left out by the probes: who is kept has all its records, and the core knows of the others.

use std::time::Duration;

use profiler_ebpf::{Shed, shed};
use schedscope::core::{Core, Selector, Share, Spent, TargetSpec, ThreadSnapshot};

use super::*;

/// An event is recorded at most this long after its time.
const SLACK: Duration = Duration::from_millis(5);

/// The kernel on one side, a core on the other.
struct Flow {
    kernel: Kernel,
    core: Core,
}

impl Flow {
    fn new(mut kernel: Kernel) -> Self {
        let target = TargetSpec {
            name: "self".to_owned(),
            selector: Selector::Pid(std::process::id()),
            per_thread: true,
        };
        let mut core = Core::new(vec![target]);
        let from_ns = kernel.now_ns();
        let threads = kernel.threads().expect("they can be read");
        let until_ns = kernel.now_ns();
        core.found(&threads, from_ns..=until_ns);
        thread::sleep(SLACK);
        let mut flow = Self { kernel, core };
        flow.take_in(until_ns);
        flow.core.begin_window();
        flow
    }

    fn take_in(&mut self, until_ns: u64) {
        let core = &mut self.core;
        self.kernel.drain(|streams| core.feed(streams, until_ns));
    }

    /// Takes in everything up to now.
    fn catch_up(&mut self) {
        let now_ns = self.kernel.now_ns();
        thread::sleep(SLACK);
        self.take_in(now_ns);
    }

    fn tell(&mut self, ts_ns: u64, shift: u8, switches: u64) {
        self.kernel.tell(&Event::Shed(Shed {
            ts_ns,
            switches,
            shift,
            ..Shed::default()
        }));
    }

    fn thread(&self, tid: u32) -> ThreadSnapshot {
        let snapshot = self.core.snapshot();
        let its = |row: &&std::sync::Arc<ThreadSnapshot>| row.identity.tid == tid;
        let row = snapshot.targets[0].threads.iter().find(its);
        ThreadSnapshot::clone(row.unwrap_or_else(|| panic!("{tid} is not there")))
    }
}

/// Storms on one CPU, one pair after the other, until there are threads of either kind among them.
fn storms(flow: &mut Flow, mask: u32, rounds: u32) -> Vec<Storm> {
    let mut storms: Vec<Storm> = Vec::new();
    let is_enough = |storms: &[Storm]| {
        let kept = |tid: &u32| shed::is_kept(*tid, mask);
        let (kept, left_out): (Vec<u32>, Vec<u32>) =
            storms.iter().flat_map(|storm| storm.tids).partition(kept);
        // A pair of which nobody is kept, too.
        let is_hidden = |storm: &Storm| storm.tids.iter().all(|tid| !kept.contains(tid));
        !kept.is_empty() && !left_out.is_empty() && storms.iter().any(is_hidden)
    };
    while !is_enough(&storms) {
        assert!(storms.len() < 64, "the hash keeps nobody, or everybody");
        storms.push(Storm::run(cpu(), rounds, || flow.catch_up()));
        flow.catch_up();
    }
    storms
}

#[test]
fn who_is_kept_has_all_records_and_others_have_none_made_up() {
    const SHIFT: u8 = 1;
    const ROUNDS: u32 = 2_000;
    let name = "who_is_kept_has_all_records_and_others_have_none_made_up";
    let Some((kernel, _turn)) = start(name, AMPLE) else {
        return;
    };
    let mut flow = Flow::new(kernel);
    let mask = shed::mask(SHIFT);
    // The core first, the probes when nothing older can come.
    let from_ns = flow.kernel.now_ns();
    flow.tell(from_ns, SHIFT, 0);
    thread::sleep(SLACK);
    flow.kernel.keep(SHIFT);
    let storms = storms(&mut flow, mask, ROUNDS);
    flow.catch_up();
    assert_eq!(
        flow.kernel.losses().total(),
        0,
        "{:?}",
        flow.kernel.losses()
    );
    let mut hidden_switches = 0;
    for storm in &storms {
        let is_hidden = storm.tids.iter().all(|&tid| !shed::is_kept(tid, mask));
        for tid in storm.tids {
            let figures = flow.thread(tid).account.figures;
            let left = context_switches(tid);
            hidden_switches += if is_hidden { left } else { 0 };
            if shed::is_kept(tid, mask) {
                // It was born and fell asleep meanwhile, so all its books are of this time.
                assert_eq!(figures.voluntary + figures.involuntary, left, "{tid}");
                assert_eq!(figures.time(Share::Unknown), 0, "{tid}: {figures:?}");
                let (delay_ns, runs) = schedstat(tid);
                // Whether a run is counted that begins without a stamp depends on the kernel's version.
                let count = figures.runqueue_delay.count();
                assert!(
                    count.abs_diff(runs) <= 2 + runs / 100,
                    "{tid}: {count} of {runs}"
                );
                let seen_ns = figures.runqueue_delay.sum_ns();
                let error_ns = seen_ns.abs_diff(u128::from(delay_ns));
                assert!(
                    error_ns <= 100_000 + u128::from(delay_ns / 50),
                    "{tid}: {seen_ns} ns of delay, by the kernel {delay_ns} ns"
                );
            } else {
                assert_eq!(figures.runqueue_delay.count(), 0, "{tid}");
                assert_eq!(figures.offcpu.count(), 0, "{tid}");
                assert_eq!(figures.spent(Spent::Shed), figures.observed_ns(), "{tid}");
            }
        }
    }
    let counted = flow.kernel.shed_counts().switches;
    assert!(
        counted + 100 >= hidden_switches && hidden_switches > u64::from(ROUNDS),
        "{counted} left out, {hidden_switches} between threads that are not kept"
    );

    // All are kept again, and known as soon as they do something.
    let until_ns = flow.kernel.keep(0);
    flow.tell(until_ns, 0, counted);
    thread::sleep(SLACK);
    let again = Storm::run(cpu(), ROUNDS, || flow.catch_up());
    flow.catch_up();
    let snapshot = flow.core.snapshot();
    assert_eq!(snapshot.shedding.shift, 0);
    assert_eq!(snapshot.shedding.most_shift, SHIFT);
    assert_eq!(snapshot.counts.shed.switches, counted);
    for tid in again.tids {
        let figures = flow.thread(tid).account.figures;
        assert_eq!(figures.time(Share::Unknown), 0, "{tid}: {figures:?}");
        assert_eq!(
            figures.voluntary + figures.involuntary,
            context_switches(tid)
        );
    }
    again.end();
    storms.into_iter().for_each(Storm::end);
}
