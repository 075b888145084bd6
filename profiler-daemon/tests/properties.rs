//! Properties of the whole core, against a model scheduler that knows the truth.

mod model;

use std::collections::BTreeSet;

use model::feed::{Feeder, Run};
use model::truth::{Truth, View};
use model::{Config, Kernel, Machine};
use proptest::prelude::*;
use schedscope::core::{
    Conflicts, Figures, Selector, Share, Snapshot, TargetSpec, ThreadSnapshot,
};
use wildmatch::WildMatch;

/// Each case is a history of some hundred events; the time that tests take is for breadth.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    // More with PROPTEST_CASES in the environment.
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 48 };
    ProptestConfig { cases, failure_persistence: None, ..default }
}

fn kernels() -> impl Strategy<Value = Kernel> {
    prop_oneof![
        3 => Just(Kernel::Stamps),
        3 => Just(Kernel::Both),
        1 => Just(Kernel::Wakeups),
        1 => Just(Kernel::Bare),
    ]
}

/// Whom a target takes in.
#[derive(Clone, Copy, Debug)]
enum Taken {
    Everybody,
    NamedA,
    Process(u32),
}

impl Taken {
    fn spec(self) -> TargetSpec {
        TargetSpec {
            name: "target".to_owned(),
            selector: match self {
                Self::Everybody => Selector::Comm(WildMatch::new("*")),
                Self::NamedA => Selector::Comm(WildMatch::new("a*")),
                Self::Process(pid) => Selector::Pid(pid),
            },
            per_thread: true,
        }
    }

    /// From when on a thread counts for the target.
    fn admits(self, machine: &Machine, task: usize, run: &Run) -> Option<u64> {
        let state = &machine.tasks[task];
        match self {
            Self::Everybody => Some(0),
            Self::Process(pid) => (state.tgid == pid).then_some(0),
            Self::NamedA => {
                let at_start = state.names.iter().rfind(|name| name.0 <= run.start_ns);
                let later = state.names.iter().filter(|name| name.0 > run.start_ns);
                at_start.into_iter().chain(later).find(|name| name.1[0] == b'a').map(|name| name.0)
            }
        }
    }
}

fn taken() -> impl Strategy<Value = Taken> {
    prop_oneof![
        2 => Just(Taken::Everybody),
        2 => Just(Taken::NamedA),
        1 => (1u32..12).prop_map(Taken::Process),
    ]
}

/// A thread's figures beside what says whose they are.
type Row = (Option<(u32, [u8; 16])>, u64, Option<u64>, Truth);

/// Ids that two threads had in turn, when one execed that was not its leader. Between that and the
/// record that tells of it, a core can't know who has which.
fn exchanged(machine: &Machine) -> BTreeSet<u32> {
    let processes: BTreeSet<u32> =
        machine.tasks.iter().filter(|task| task.took_over).map(|task| task.tgid).collect();
    let of_processes = machine.tasks.iter().filter(|task| processes.contains(&task.tgid));
    of_processes.flat_map(|task| task.tids.iter().copied()).collect()
}

fn row(thread: &ThreadSnapshot, exchanged: &BTreeSet<u32>) -> Row {
    let tid = thread.identity.tid;
    let id = (!exchanged.contains(&tid)).then_some((tid, thread.comm.0));
    (id, thread.observed_from_ns, thread.ended_ns, Truth::from(&thread.figures))
}

/// Everything that a snapshot of a history without faults says is true, to the nanosecond.
fn check_exact(run: &Run, taken: Taken, snapshot: &Snapshot) {
    let machine = &run.machine;
    let at_ns = snapshot.at_ns;
    assert_eq!(snapshot.conflicts, Conflicts::default());
    assert_eq!(snapshot.counts.undecodable, 0);
    let exchanged = exchanged(machine);
    let is_wake_hidden = !machine.config.wakeups;
    let mut host = Truth::default();
    let mut target = Truth::default();
    let mut rows: Vec<Row> = Vec::new();
    let (mut alive, mut open) = (0, 0);
    for task in 0..machine.tasks.len() {
        let state = &machine.tasks[task];
        let born_ns = state.changes[0].0;
        let ended_ns = machine.ended_ns(task, at_ns);
        if born_ns > at_ns || ended_ns.is_some_and(|ended_ns| ended_ns <= run.start_ns) {
            continue;
        }
        alive += usize::from(ended_ns.is_none());
        open += u64::from(machine.is_open(task, at_ns));
        let view = View { start_ns: run.start_ns, at_ns, admitted_ns: 0, is_wake_hidden };
        host.add(&machine.truth(task, view));
        let Some(admitted_ns) = taken.admits(machine, task, run) else { continue };
        if admitted_ns > ended_ns.unwrap_or(at_ns) {
            continue;
        }
        let truth = machine.truth(task, View { admitted_ns, ..view });
        target.add(&truth);
        let last_ns = ended_ns.unwrap_or(at_ns);
        let name = state.names.iter().rfind(|name| name.0 <= last_ns).expect("born with a name");
        let id = (!exchanged.contains(&state.tid)).then_some((state.tid, name.1));
        let observed_ns = run.start_ns.max(admitted_ns).max(born_ns);
        rows.push((id, observed_ns, ended_ns, truth));
    }
    assert_eq!(Truth::from(&snapshot.host), host, "the host at {at_ns}");
    assert_eq!((snapshot.alive, snapshot.open), (alive, open), "threads alive and waiting");
    let of_target = &snapshot.targets[0];
    let mut seen: Vec<Row> = of_target.threads.iter().map(|t| row(t, &exchanged)).collect();
    rows.sort();
    seen.sort();
    for (seen, true_row) in seen.iter().zip(&rows) {
        assert_eq!(seen, true_row, "a thread at {at_ns}");
    }
    assert_eq!(seen.len(), rows.len(), "threads of the target");
    assert_eq!(Truth::from(&of_target.total), target, "the target at {at_ns}");
}

/// The parts of all figures sum to the time that was observed.
fn check_books(snapshot: &Snapshot) {
    let parts = |figures: &Figures| {
        let blocked: u128 = schedscope::core::WaitState::ALL.iter().map(|&w| figures.blocked(w)).sum();
        assert_eq!(blocked, figures.time(Share::Blocked));
        figures.observed_ns()
    };
    parts(&snapshot.host);
    for target in &snapshot.targets {
        let mut sum = 0;
        for thread in &target.threads {
            let life_ns = thread
                .ended_ns
                .unwrap_or(snapshot.at_ns)
                .checked_sub(thread.observed_from_ns)
                .expect("ends after it began");
            assert_eq!(parts(&thread.figures), u128::from(life_ns), "{thread:?}");
            sum += parts(&thread.figures);
        }
        assert_eq!(parts(&target.total), sum);
    }
}

/// A few moments of a window, in order.
fn moments(feeder: &mut Feeder, run: &Run) -> Vec<u64> {
    let length_ns = run.end_ns - run.start_ns;
    let mut moments: Vec<u64> =
        (0..3).map(|_| run.start_ns + feeder.random.below(length_ns)).collect();
    moments.push(run.end_ns);
    moments.sort_unstable();
    moments
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn without_faults_everything_is_exact(
        kernel in kernels(),
        counts_unqueued in any::<bool>(),
        taken in taken(),
        steps in 0usize..600,
        seed in any::<u64>(),
    ) {
        let config = Config { counts_unqueued, ..Config::small(kernel) };
        let run = Run::new(config, seed, steps);
        let (mut core, mut feeder) = run.begin(vec![taken.spec()], seed);
        for at_ns in moments(&mut feeder, &run) {
            feeder.go_to(&mut core, at_ns);
            let snapshot = core.snapshot();
            check_exact(&run, taken, &snapshot);
            check_books(&snapshot);
        }
    }
}

#[test]
fn zz_debug() {
    let Ok(args) = std::env::var("DBG") else { return };
    let parts: Vec<&str> = args.split(',').collect();
    let kernel = match parts[0] { "Stamps" => Kernel::Stamps, "Both" => Kernel::Both, "Wakeups" => Kernel::Wakeups, _ => Kernel::Bare };
    let steps: usize = parts[1].parse().unwrap();
    let seed: u64 = parts[2].parse().unwrap();
    let run = Run::new(Config::small(kernel), seed, steps);
    println!("window {} .. {} read {:?}", run.start_ns, run.end_ns, run.read_ns);
    for (n, t) in run.machine.tasks.iter().enumerate() {
        println!("task {n} tids {:?} tgid {} start {} found_q {:?} switched {} took {} changes {:?} names {:?}", t.tids, t.tgid, t.start_ns, t.found_queued_ns, t.was_switched, t.took_over, t.changes.iter().filter(|c| c.0 + 30000 > run.start_ns).collect::<Vec<_>>(), t.names);
    }
    for f in &run.found { println!("found {f:?}"); }
    let (mut core, mut feeder) = run.begin(vec![Taken::Everybody.spec()], seed);
    let mut all: Vec<(u64, usize, String)> = Vec::new();
    for (s, stream) in run.machine.streams.iter().enumerate() {
        for w in stream {
            let e = schedscope::core::decode::Event::decode(&w.raw).unwrap();
            all.push((w.visible_ns, s, format!("{e:?}")));
        }
    }
    all.sort_by_key(|a| (a.0, a.1));
    let mut before = core.snapshot();
    for (ts, s, e) in all {
        if ts <= run.start_ns { println!("{ts} [{s}] {e}"); continue; }
        feeder.go_to(&mut core, ts);
        let snap = core.snapshot();
        println!("{ts} [{s}] {e}  {}", if snap.conflicts == before.conflicts { String::new() } else { format!("CONFLICT {:?}", snap.conflicts) });
        before = snap;
    }
}
