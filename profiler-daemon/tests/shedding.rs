//! Threads are left out because there is too much to record: those that are kept stay exact, of the others
//! nothing is invented. Against the model scheduler, which knows the truth.

#[path = "support/balance.rs"]
mod balance;
mod model;

use balance::check_books;
use model::checks::{check_sound, task_of};
use model::feed::Run;
use model::shed::Plan;
use model::truth::{Truth, View};
use model::{Change, Config, Kernel, Machine, Random, Task};
use proptest::prelude::*;
use schedscope::core::{Conflicts, Selector, Share, Snapshot, Spent, TargetSpec, ThreadSnapshot};

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    // More with PROPTEST_CASES in the environment.
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        default.cases
    } else {
        48
    };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..default
    }
}

fn kernels() -> impl Strategy<Value = Kernel> {
    prop_oneof![
        3 => Just(Kernel::Stamps),
        3 => Just(Kernel::Both),
        1 => Just(Kernel::Wakeups),
        1 => Just(Kernel::Bare),
    ]
}

fn everybody() -> TargetSpec {
    TargetSpec {
        name: "target".to_owned(),
        selector: Selector::All,
        per_thread: true,
    }
}

/// A history, what was left out of it, and how many records there were before.
fn run(config: Config, seed: u64, steps: usize, changes: usize) -> (Run, Plan, u64) {
    let mut run = Run::new(config, seed, steps);
    let random = &mut Random::new(seed ^ 1);
    let time_ns = run.start_ns + 1..run.end_ns + 1;
    let mut plan = Plan::new(random, config.cpus, time_ns, changes);
    let streams = &run.machine.streams;
    let all = streams.iter().flatten();
    let all = all
        .filter(|written| written.visible_ns > run.start_ns)
        .count() as u64;
    plan.carry_out(&mut run.machine, run.end_ns);
    (run, plan, all)
}

/// Some moments, the last of them after everything.
fn moments(random: &mut Random, run: &Run) -> Vec<u64> {
    let length_ns = run.end_ns - run.start_ns;
    let mut moments: Vec<u64> = (0..4)
        .map(|_| run.start_ns + random.below(length_ns))
        .collect();
    moments.push(run.end_ns);
    moments.sort_unstable();
    moments
}

/// One who was never left out: everything is as if nobody had been.
fn check_kept(run: &Run, task: Task, thread: &ThreadSnapshot, at_ns: u64) {
    let view = View {
        start_ns: run.start_ns,
        at_ns,
        admitted_ns: 0,
        is_wake_hidden: !run.machine.config.wakeups,
    };
    let truth = run.machine.truth(task, view);
    let seen = Truth::from(&thread.account.figures);
    assert_eq!(seen, truth, "kept, at {at_ns}: {thread:?}");
}

/// Of others it is unknown what they did from when they were first left out to when they are first seen again,
/// and nothing else is.
fn check_left_out(machine: &Machine, plan: &Plan, task: Task, thread: &ThreadSnapshot, at_ns: u64) {
    let figures = &thread.account.figures;
    let state = &machine.tasks[task];
    let switches = || {
        let is_switch =
            |change: &Change| matches!(change, Change::Enter { .. } | Change::Leave { .. });
        let switches = state.changes.iter().filter(move |its| is_switch(&its.1));
        switches.map(|its| its.0)
    };
    // The first time that it gets a CPU says how often it had got one before.
    let enters = || {
        let is_enter = |change: &Change| matches!(change, Change::Enter { .. });
        let enters = state.changes.iter().filter(move |its| is_enter(&its.1));
        enters.map(|its| its.0)
    };
    let (mut most_ns, mut end_ns) = (0, thread.observed_from_ns);
    for hidden in plan.hidden(&state.tids) {
        // Without a record of its wakeup a thread that was asleep may have been woken before.
        let from_ns = if machine.config.wakeups && !machine.config.stamps {
            hidden.start
        } else {
            switches().rfind(|&ns| ns <= hidden.start).unwrap_or(0)
        };
        let until_ns = enters().find(|&ns| ns >= hidden.end).unwrap_or(u64::MAX);
        let from_ns = from_ns.max(end_ns);
        end_ns = until_ns.min(at_ns).max(from_ns);
        most_ns += u128::from(end_ns - from_ns);
    }
    let unknown_ns = figures.time(Share::Unknown);
    assert!(figures.spent(Spent::Shed) <= unknown_ns);
    assert!(
        unknown_ns <= most_ns,
        "{unknown_ns} of {most_ns} ns: {thread:?} {plan:?}"
    );
}

fn check(run: &Run, plan: &Plan, snapshot: &Snapshot) {
    let machine = &run.machine;
    assert_eq!(snapshot.conflicts, Conflicts::default(), "{plan:?}");
    check_books(snapshot);
    check_sound(run, snapshot);
    for thread in &snapshot.targets[0].threads {
        let task = task_of(machine, thread).expect("births are never left out");
        let at_ns = thread.ended_ns.unwrap_or(snapshot.at_ns);
        if plan.hidden(&machine.tasks[task].tids).is_empty() {
            check_kept(run, task, thread, at_ns);
        } else {
            check_left_out(machine, plan, task, thread, at_ns);
        }
    }
    let alive = (0..machine.tasks.len()).filter(|&task| {
        machine.tasks[task].changes[0].0 <= snapshot.at_ns
            && machine.ended_ns(task, snapshot.at_ns).is_none()
    });
    assert_eq!(snapshot.alive, alive.count(), "ends are never left out");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn who_is_kept_is_exact_and_of_others_nothing_is_invented(
        kernel in kernels(),
        counts_unqueued in any::<bool>(),
        threads in 8u32..24,
        steps in 0usize..800,
        changes in 1usize..6,
        seed in any::<u64>(),
    ) {
        let config = Config {
            counts_unqueued,
            groups: false,
            threads,
            max_tid: 200,
            ..Config::small(kernel)
        };
        let (run, plan, all) = run(config, seed, steps, changes);
        let (mut core, mut feeder) = run.begin(vec![everybody()], seed);
        for at_ns in moments(&mut feeder.random, &run) {
            feeder.go_to(&mut core, at_ns);
            check(&run, &plan, &core.snapshot());
        }
        let last = core.snapshot();
        prop_assert_eq!(last.counts.shed.total(), plan.left_out);
        // The changes themselves are told by records, too. (A wakeup that was in vain may have an older time
        // than the window's.)
        let told = plan.steps.len() as u64 + 1;
        if !config.wakeups {
            prop_assert_eq!(last.counts.total() - told + plan.left_out, all);
        }
        let shift = plan.steps.last().map_or(0, |step| step.shift);
        prop_assert_eq!(last.shedding.shift, shift);
    }

    /// Threads that exec take over other ids, kept ones and such that are not. Between that and the record that
    /// tells of it nobody can know who has which, but nothing breaks.
    #[test]
    fn ids_that_change_hands_meanwhile_break_nothing(
        kernel in kernels(),
        steps in 0usize..800,
        changes in 1usize..6,
        seed in any::<u64>(),
    ) {
        let (run, _, _) = run(Config::small(kernel), seed, steps, changes);
        let (mut core, mut feeder) = run.begin(vec![everybody()], seed);
        for at_ns in moments(&mut feeder.random, &run) {
            feeder.go_to(&mut core, at_ns);
            check_books(&core.snapshot());
        }
    }
}
