//! Causes of run-queue delay and culprits, against a model scheduler that knows who was where and when.

mod model;

use std::collections::BTreeMap;
use std::ops::Range;

use model::feed::Run;
use model::{Change, Config, Kernel};
use profiler_ebpf::Kind;
use proptest::prelude::*;
use schedscope::core::{Cause, Figures, Origin, Selector, Spent, TargetSpec};
use wildmatch::WildMatch;

/// Nanoseconds by cause, in the order of [`Cause::ALL`].
type Causes = [u128; Cause::COUNT];

/// What the model says.
#[derive(Debug, Default)]
struct Truth {
    /// Of stays that began in the window.
    seen: Causes,
    /// Of stays that had begun before it.
    found: Causes,
    /// Who had the CPU meanwhile, by thread id; 0 for interrupts.
    culprits: BTreeMap<u32, u128>,
}

/// What interrupts took of a CPU within this time.
fn interrupted(told: &[(u64, u64, u64)], time_ns: &Range<u64>) -> u128 {
    let until = |(from_ns, until_ns, ns): (u64, u64, u64), ts_ns: u64| {
        let part_ns = ts_ns.clamp(from_ns, until_ns) - from_ns;
        u128::from(ns) * u128::from(part_ns) / u128::from((until_ns - from_ns).max(1))
    };
    let first = told.partition_point(|its| its.1 <= time_ns.start);
    let told = told[first..].iter().take_while(|its| its.0 < time_ns.end);
    told.map(|&its| until(its, time_ns.end) - until(its, time_ns.start))
        .sum()
}

/// Who had a CPU, and from when on.
type Held = Vec<(u64, Option<usize>)>;

/// Who had each CPU; nothing is known of one before its first record.
fn timeline(run: &Run) -> Vec<(u64, Held)> {
    let machine = &run.machine;
    let mut cpus: Vec<Held> = vec![Vec::new(); machine.config.cpus];
    for (task, state) in machine.tasks.iter().enumerate() {
        let mut on = None;
        for &(ts_ns, change) in &state.changes {
            match change {
                Change::Enter { cpu } => {
                    cpus[cpu].push((ts_ns, Some(task)));
                    on = Some(cpu);
                }
                Change::Leave { .. } => cpus[on.expect("entered")].push((ts_ns, None)),
                Change::Born | Change::Wake => {}
            }
        }
    }
    let first_record = |cpu: usize| {
        let mut records = machine.streams[cpu].iter();
        let switch = records.find(|its| its.raw.0[31] == Kind::Switch as u8);
        switch.map_or(u64::MAX, |its| {
            u64::from_ne_bytes(its.raw.0[..8].try_into().expect("8 bytes"))
        })
    };
    cpus.into_iter()
        .enumerate()
        .map(|(cpu, mut held)| {
            // Who comes in does so after somebody has left.
            held.sort_by_key(|&(ts_ns, task)| (ts_ns, task.is_some()));
            (first_record(cpu), held)
        })
        .collect()
}

impl Truth {
    fn add(
        &mut self,
        run: &Run,
        cpu: usize,
        of: &(u64, Held),
        time_ns: Range<u64>,
        is_found: bool,
    ) {
        let (known_from_ns, held) = of;
        let told = &run.machine.interrupts[cpu].told;
        let causes = if is_found {
            &mut self.found
        } else {
            &mut self.seen
        };
        let unknown_ns = known_from_ns.clamp(&time_ns.start, &time_ns.end) - time_ns.start;
        causes[Cause::Unknown as usize] += u128::from(unknown_ns);
        let mut from_ns = time_ns.start + unknown_ns;
        let mut place = held.partition_point(|&(ts_ns, _)| ts_ns <= from_ns);
        while from_ns < time_ns.end {
            let holder = place.checked_sub(1).and_then(|place| held[place].1);
            let until_ns = held.get(place).map_or(u64::MAX, |next| next.0);
            let until_ns = until_ns.min(time_ns.end);
            let interrupted_ns = interrupted(told, &(from_ns..until_ns));
            let rest_ns = u128::from(until_ns - from_ns) - interrupted_ns;
            causes[Cause::Contended as usize] += interrupted_ns;
            *self.culprits.entry(0).or_default() += interrupted_ns;
            match holder {
                None => causes[Cause::Placement as usize] += rest_ns,
                Some(task) => {
                    causes[Cause::Contended as usize] += rest_ns;
                    let tid = run.machine.tasks[task].tid;
                    *self.culprits.entry(tid).or_default() += rest_ns;
                }
            }
            (from_ns, place) = (until_ns, place + 1);
        }
    }

    fn of(run: &Run) -> Self {
        let machine = &run.machine;
        let cpus = timeline(run);
        let window = run.start_ns..run.end_ns;
        let mut truth = Self::default();
        for state in &machine.tasks {
            let mut queued_ns = None;
            let mut stays = Vec::new();
            for &(ts_ns, change) in &state.changes {
                match change {
                    Change::Born | Change::Wake => queued_ns = Some((ts_ns, change)),
                    Change::Leave { word, is_preempted } if is_preempted || word == 0 => {
                        queued_ns = Some((ts_ns, change));
                    }
                    Change::Leave { .. } => {}
                    Change::Enter { .. } => {
                        stays.extend(queued_ns.take().map(|began| (began, ts_ns)));
                    }
                }
            }
            let was_seen = |from_ns| state.found_queued_ns.is_some_and(|ns| ns >= from_ns);
            // Without wakeup records nobody knows before it ends, unless it was seen.
            let is_hidden = |(from_ns, change)| {
                !machine.config.wakeups && change == Change::Wake && !was_seen(from_ns)
            };
            if let Some(began) = queued_ns.filter(|&began| !is_hidden(began)) {
                stays.push((began, window.end));
            }
            for (began, until_ns) in stays {
                let stay = began.0..until_ns;
                let is_found = stay.start <= window.start && !is_hidden(began);
                let places = state.places.iter();
                let ends = state.places.iter().skip(1).map(|its| its.0);
                for (&(from_ns, cpu), until_ns) in places.zip(ends.chain([u64::MAX])) {
                    let start_ns = from_ns.max(stay.start).max(window.start);
                    let end_ns = until_ns.min(stay.end).min(window.end);
                    if start_ns < end_ns {
                        truth.add(run, cpu, &cpus[cpu], start_ns..end_ns, is_found);
                    }
                }
            }
        }
        truth
    }
}

fn causes(figures: &Figures, origins: &[Origin]) -> Causes {
    Cause::ALL.map(|cause| {
        let spent = |&origin: &Origin| figures.spent(Spent::Queued(origin, cause));
        origins.iter().map(spent).sum()
    })
}

fn check(kernel: Kernel, steps: usize, seed: u64) -> Result<(), TestCaseError> {
    let config = Config {
        groups: false,
        ..Config::small(kernel)
    };
    let run = Run::new(config, seed, steps);
    let everybody = TargetSpec {
        name: "target".to_owned(),
        selector: Selector::Comm(WildMatch::new("*")),
        per_thread: true,
    };
    let (mut core, mut feeder) = run.begin(vec![everybody], seed);
    feeder.go_to(&mut core, run.end_ns);
    let snapshot = core.snapshot();
    let truth = Truth::of(&run);
    let total = &snapshot.targets[0].total;
    let began = [
        Origin::Woken,
        Origin::Preempted,
        Origin::Yielded,
        Origin::Forked,
    ];
    prop_assert_eq!(
        causes(&total.figures, &began),
        truth.seen,
        "stays seen to begin"
    );
    let found = causes(&total.figures, &[Origin::Found]);
    prop_assert_eq!(found.iter().sum::<u128>(), truth.found.iter().sum::<u128>());
    for cause in [Cause::Contended, Cause::Throttled, Cause::Placement] {
        let (found, true_ns) = (found[cause as usize], truth.found[cause as usize]);
        prop_assert!(found <= true_ns, "{} of {} as {:?}", found, true_ns, cause);
    }
    let mut named = BTreeMap::new();
    for (_, who, weight) in total.detail.culprits.rows() {
        *named.entry(who.tid).or_insert(0) += weight.ns;
    }
    let contended = [Cause::Contended as usize];
    for (tid, ns) in &named {
        let true_ns = truth.culprits.get(tid).copied().unwrap_or(0);
        prop_assert!(*ns <= true_ns, "{}: {} of {}", tid, ns, true_ns);
    }
    // What is missing of culprits is missing of stays that were found.
    let missing: u128 = contended.map(|place| truth.found[place] - found[place])[0];
    let named: u128 = named.values().sum();
    let in_truth: u128 = truth.culprits.values().sum();
    prop_assert_eq!(named + total.detail.culprits.other().ns + missing, in_truth);
    prop_assert_eq!(total.detail.culprits.other().ns, 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 48 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn causes_and_culprits_are_exact(
        kernel in prop_oneof![Just(Kernel::Stamps), Just(Kernel::Both), Just(Kernel::Wakeups)],
        steps in 0usize..400,
        seed in any::<u64>(),
    ) {
        check(kernel, steps, seed)?;
    }
}
