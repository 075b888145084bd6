//! Properties of the whole core, against a model scheduler that knows the truth.

#[path = "support/balance.rs"]
mod balance;
mod model;

use std::collections::BTreeSet;

use balance::{check_books, check_parts};
use model::checks::check_sound;
use model::feed::{Feeder, Run};
use model::truth::{Stays, Truth, View};
use model::{Config, Kernel, Machine, Random, faults};
use profiler_ebpf::{KIND_OFFSET, Kind, RawRecord, Switch, ThreadRecord};
use proptest::prelude::*;
use schedscope::core::decode::Event;
use schedscope::core::{Conflicts, Core, Selector, Snapshot, Stream, TargetSpec, ThreadSnapshot};
use wildmatch::WildMatch;

/// Other histories in each run, so that breadth comes with time. Each is some hundred events, and a
/// failure names the seed that makes it again.
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
                at_start
                    .into_iter()
                    .chain(later)
                    .find(|name| name.1[0] == b'a')
                    .map(|name| name.0)
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
    let processes: BTreeSet<u32> = machine
        .tasks
        .iter()
        .filter(|task| task.took_over)
        .map(|task| task.tgid)
        .collect();
    let of_processes = machine
        .tasks
        .iter()
        .filter(|task| processes.contains(&task.tgid));
    of_processes
        .flat_map(|task| task.tids.iter().copied())
        .collect()
}

fn row(thread: &ThreadSnapshot, exchanged: &BTreeSet<u32>) -> Row {
    let tid = thread.identity.tid;
    let id = (!exchanged.contains(&tid)).then_some((tid, thread.comm.0));
    (
        id,
        thread.observed_from_ns,
        thread.ended_ns,
        Truth::from(&thread.account.figures),
    )
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
        let view = View {
            start_ns: run.start_ns,
            at_ns,
            admitted_ns: 0,
            is_wake_hidden,
        };
        host.add(&machine.truth(task, view));
        let Some(admitted_ns) = taken.admits(machine, task, run) else {
            continue;
        };
        if admitted_ns > ended_ns.unwrap_or(at_ns) {
            continue;
        }
        let truth = machine.truth(
            task,
            View {
                admitted_ns,
                ..view
            },
        );
        target.add(&truth);
        let last_ns = ended_ns.unwrap_or(at_ns);
        let name = state
            .names
            .iter()
            .rfind(|name| name.0 <= last_ns)
            .expect("born with a name");
        let id = (!exchanged.contains(&state.tid)).then_some((state.tid, name.1));
        let observed_ns = run.start_ns.max(admitted_ns).max(born_ns);
        rows.push((id, observed_ns, ended_ns, truth));
    }
    assert_eq!(Truth::from(&snapshot.host), host, "the host at {at_ns}");
    assert_eq!(
        (snapshot.alive, snapshot.open),
        (alive, open),
        "threads alive and waiting"
    );
    let of_target = &snapshot.targets[0];
    let mut seen: Vec<Row> = of_target
        .threads
        .iter()
        .map(|t| row(t, &exchanged))
        .collect();
    rows.sort();
    seen.sort();
    for (seen, true_row) in seen.iter().zip(&rows) {
        assert_eq!(seen, true_row, "a thread at {at_ns}");
    }
    assert_eq!(seen.len(), rows.len(), "threads of the target");
    assert_eq!(
        Truth::from(&of_target.total.figures),
        target,
        "the target at {at_ns}"
    );
}

/// A few moments of a window, in order.
fn moments(feeder: &mut Feeder<'_>, run: &Run) -> Vec<u64> {
    let length_ns = run.end_ns - run.start_ns;
    let mut moments: Vec<u64> = (0..3)
        .map(|_| run.start_ns + feeder.random.below(length_ns))
        .collect();
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

proptest! {
    #![proptest_config(config())]

    #[test]
    fn losses_that_are_told_of_invent_nothing(
        kernel in kernels(),
        steps in 0usize..600,
        seed in any::<u64>(),
        per_mille in 1u64..150,
        loses_forks in any::<bool>(),
    ) {
        let config = Config {
            groups: false,
            // An id that was used again unseen can't be told from its last owner.
            max_tid: if loses_forks { 1_000 } else { 60 },
            ..Config::small(kernel)
        };
        let mut run = Run::new(config, seed, steps);
        let random = &mut Random::new(seed);
        run.losses =
            faults::overflow(&mut run.machine.streams, random, per_mille, loses_forks);
        let (mut core, mut feeder) = run.begin(vec![Taken::Everybody.spec()], seed);
        for at_ns in moments(&mut feeder, &run) {
            feeder.go_to(&mut core, at_ns);
            let snapshot = core.snapshot();
            check_books(&snapshot);
            check_sound(&run, &snapshot);
        }
    }
}

/// What nobody can tell from the records that there are, because they are those of another history that
/// is as good.
#[derive(Clone, Copy, Debug, Default)]
struct Unprovable {
    /// Wrong clocks make every time this wrong, at most.
    error_ns: u64,
    /// Wakeup records alone tell when a wait ended, and wrong clocks can move one that was in vain into
    /// the wait, and the one that ended it past the switch that follows. Then nothing but the whole stay
    /// off the CPU bounds the delay.
    misplaces_wakeups: bool,
    /// Both records of a run that the kernel does not count can be missing.
    hides_uncounted: bool,
}

/// No sample is longer than the longest wait of its kind that there was, as far as that can be proven.
fn check_longest(run: &Run, snapshot: &Snapshot, but: Unprovable) {
    let mut all = Stays::default();
    for task in 0..run.machine.tasks.len() {
        let stays = run.machine.stays(task, but.hides_uncounted);
        all.queued_ns.extend(stays.queued_ns);
        all.offcpu_ns.extend(stays.offcpu_ns);
    }
    if but.misplaces_wakeups {
        all.queued_ns.extend_from_slice(&all.offcpu_ns);
    }
    let longest = |stays_ns: &[u64]| stays_ns.iter().max().copied().unwrap_or(0) + but.error_ns;
    let stays = [longest(&all.queued_ns), longest(&all.offcpu_ns)];
    let all =
        std::iter::once(&snapshot.host).chain(snapshot.targets.iter().map(|t| &t.total.figures));
    for figures in all {
        let seen = [figures.runqueue_delay.max_ns(), figures.offcpu.max_ns()];
        for (seen, longest) in seen.iter().zip(stays) {
            assert!(*seen <= longest, "{seen} ns, at most {longest} ns");
        }
    }
}

/// What is done to records without anybody being told.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Drop,
    Repeat,
    Skew,
    Cut,
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        Just(Fault::Drop),
        Just(Fault::Repeat),
        Just(Fault::Skew),
        Just(Fault::Cut)
    ];
    prop::collection::vec(fault, 1..3)
}

/// Clocks are wrong by so much at most.
const SKEW_NS: u64 = 2_000;

fn do_silently(fault: Fault, run: &mut Run, random: &mut Random, per_mille: u64) {
    let streams = &mut run.machine.streams;
    match fault {
        Fault::Drop => faults::drop_silently(streams, random, per_mille),
        Fault::Repeat => faults::repeat(streams, random, per_mille),
        Fault::Skew => faults::skew(streams, random, SKEW_NS),
        Fault::Cut => faults::cut(streams, random),
    }
}

/// Everything that a core shows of a run at some moments; the last is after all of it.
fn show(run: &Run, taken: Taken, seed: u64, mut look: impl FnMut(&Snapshot)) -> Snapshot {
    let (mut core, mut feeder) = run.begin(vec![taken.spec()], seed);
    for at_ns in moments(&mut feeder, run) {
        feeder.go_to(&mut core, at_ns);
        look(&core.snapshot());
    }
    core.snapshot()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn chunks_and_looks_make_no_difference(
        kernel in kernels(),
        steps in 0usize..400,
        seed in any::<u64>(),
        per_mille in 0u64..50,
    ) {
        // Three things do make a difference: when it is known of a loss, what is in when the task
        // iterator's finds are looked at, and a look before a wakeup with an old stamp is in.
        let mut run = Run::new(Config::small(kernel), seed, steps);
        let random = &mut Random::new(seed);
        faults::overflow(&mut run.machine.streams, random, per_mille, false);
        faults::show_all_in_order(&mut run.machine.streams);
        run.passes.truncate(1);
        let once = show(&run, Taken::Everybody, seed, |_| {});
        let again = show(&run, Taken::Everybody, !seed, |_| {});
        let (once, again) = (format!("{once:#?}"), format!("{again:#?}"));
        for (once, again) in once.lines().zip(again.lines()) {
            prop_assert_eq!(once, again);
        }
    }

    #[test]
    fn differences_sum_up(
        kernel in kernels(),
        taken in taken(),
        steps in 0usize..400,
        seed in any::<u64>(),
        per_mille in 0u64..50,
    ) {
        let mut run = Run::new(Config::small(kernel), seed, steps);
        let random = &mut Random::new(seed);
        run.losses = faults::overflow(&mut run.machine.streams, random, per_mille, false);
        let mut before: Option<Snapshot> = None;
        let mut sum = Truth::default();
        let last = show(&run, taken, seed, |now| {
            let step = before.as_ref().map_or_else(|| now.clone(), |before| now.since(before));
            check_parts(&step);
            sum.add(&Truth::from(&step.host));
            before = Some(now.clone());
        });
        let whole = Truth::from(&last.host);
        prop_assert_eq!(sum.time_ns.iter().sum::<u128>(), whole.time_ns.iter().sum::<u128>());
        prop_assert_eq!(&sum.runqueue_delay.buckets, &whole.runqueue_delay.buckets);
        prop_assert_eq!(&sum.offcpu.buckets, &whole.offcpu.buckets);
        prop_assert_eq!(sum.voluntary + sum.involuntary, whole.voluntary + whole.involuntary);
        prop_assert_eq!(sum.censored, whole.censored);
    }

    #[test]
    fn faults_that_nobody_tells_of_make_no_long_delay(
        kernel in prop_oneof![Just(Kernel::Stamps), Just(Kernel::Both), Just(Kernel::Wakeups)],
        steps in 0usize..600,
        seed in any::<u64>(),
        per_mille in 1u64..100,
        faults in faults(),
    ) {
        let config = Config { groups: false, max_tid: 1_000, ..Config::small(kernel) };
        let mut run = Run::new(config, seed, steps);
        let random = &mut Random::new(seed);
        let mut but = Unprovable::default();
        for fault in faults {
            match fault {
                Fault::Drop | Fault::Cut => but.hides_uncounted = true,
                Fault::Repeat => {}
                Fault::Skew => {
                    but.error_ns += SKEW_NS;
                    but.misplaces_wakeups = kernel == Kernel::Wakeups;
                }
            }
            do_silently(fault, &mut run, random, per_mille);
        }
        show(&run, Taken::Everybody, seed, |snapshot| {
            check_books(snapshot);
            check_longest(&run, snapshot, but);
        });
    }

    #[test]
    fn the_straight_way_books_what_the_careful_way_books(
        kernel in kernels(),
        taken in prop_oneof![Just(Taken::NamedA), (1u32..12).prop_map(Taken::Process)],
        steps in 0usize..600,
        seed in any::<u64>(),
        per_mille in 0u64..60,
        faults in faults(),
    ) {
        let config = Config { max_tid: 1_000, ..Config::small(kernel) };
        let mut run = Run::new(config, seed, steps);
        let random = &mut Random::new(seed);
        if per_mille > 20 {
            for fault in faults {
                do_silently(fault, &mut run, random, per_mille);
            }
        } else {
            run.losses = faults::overflow(&mut run.machine.streams, random, per_mille, false);
        }
        let shown = |is_careful: bool| {
            let (mut core, mut feeder) = run.begin(vec![taken.spec()], seed);
            core.keep_units();
            if is_careful {
                core.be_careful();
            }
            let mut shown = Vec::new();
            for at_ns in moments(&mut feeder, &run) {
                feeder.go_to(&mut core, at_ns);
                let snapshot = core.snapshot();
                let buckets = [&snapshot.host.runqueue_delay, &snapshot.host.offcpu]
                    .map(|its| its.buckets().collect::<Vec<_>>());
                shown.push(format!("{snapshot:#?}\n{buckets:?}\n{:?}", core.threads_now()));
            }
            shown
        };
        let (straight, careful) = (shown(false), shown(true));
        let lines = |shown: Vec<String>| shown.join("\n");
        for (straight, careful) in lines(straight).lines().zip(lines(careful).lines()) {
            prop_assert_eq!(straight, careful);
        }
    }

    #[test]
    fn spoiled_records_break_nothing(
        kernel in kernels(),
        steps in 0usize..300,
        seed in any::<u64>(),
        per_mille in 1u64..300,
    ) {
        let mut run = Run::new(Config::small(kernel), seed, steps);
        let random = &mut Random::new(seed);
        faults::spoil(&mut run.machine.streams, random, per_mille);
        run.end_ns = u64::MAX;
        show(&run, Taken::NamedA, seed, check_books);
    }
}

/// A record of any kind, with small ids and times so that records meet.
fn any_record() -> impl Strategy<Value = RawRecord> {
    let small_tid = prop_oneof![8 => 0u32..6, 1 => any::<u32>()];
    let word = prop_oneof![4 => 0u16..4, 1 => Just(model::DEAD), 1 => any::<u16>()];
    let time = prop_oneof![20 => 0u64..2_000, 1 => any::<u64>()];
    let figures = prop_oneof![4 => 0u64..2_000, 1 => any::<u64>()];
    (
        (0u8..16, time, figures, small_tid.clone(), small_tid),
        (word, 0u16..4, any::<u8>(), any::<u8>()),
    )
        .prop_map(
            |((kind, ts_ns, figure, one, other), (word, runs, flags, odd))| {
                let mut raw = Event::Switch(Switch {
                    ts_ns,
                    next_delay_ns: figure,
                    prev_tid: one,
                    next_tid: other,
                    prev_state: word,
                    next_runs: runs,
                    flags,
                    ..Switch::default()
                })
                .encode();
                // Other kinds have ids and times in the same places, more or less.
                raw.0[KIND_OFFSET] = kind;
                let has_ids_early = [Kind::Exec, Kind::Wakeup, Kind::Waking, Kind::Migrate];
                if has_ids_early.iter().any(|its| *its as u8 == kind) {
                    raw.0[8..12].copy_from_slice(&one.to_ne_bytes());
                    raw.0[12..16].copy_from_slice(&other.to_ne_bytes());
                }
                if odd < 10 {
                    raw.0[usize::from(odd)] ^= flags;
                }
                raw
            },
        )
}

fn any_thread() -> impl Strategy<Value = ThreadRecord> {
    let state = prop_oneof![Just(0u32), Just(1), Just(0x80), Just(0x800), any::<u32>()];
    (
        0u32..6,
        0u64..3,
        state,
        0u8..8,
        0u32..4,
        0u16..4,
        0u64..2_000,
    )
        .prop_map(
            |(tid, start_ns, state, flags, cpu, runs, run_delay_ns)| ThreadRecord {
                start_ns,
                run_delay_ns,
                tid,
                tgid: tid / 2,
                state,
                cpu,
                runs,
                flags,
                ..ThreadRecord::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases * 8, ..config() })]

    #[test]
    fn any_records_at_all_break_nothing(
        pieces in prop::collection::vec(
            (
                prop::collection::vec(prop::collection::vec(any_record(), 0..30), 1..4),
                prop::collection::vec(any_thread(), 0..6),
                0u64..2_000,
                0u64..300,
            ),
            1..5,
        ),
        begin in 0usize..4,
    ) {
        let mut core = Core::new(vec![Taken::Process(1).spec(), Taken::Everybody.spec()]);
        let mut before: Option<Snapshot> = None;
        let last = pieces.len() - 1;
        for (number, (streams, threads, watermark_ns, pass_ns)) in pieces.iter().enumerate() {
            let views: Vec<Stream<'_>> = streams.iter().map(|s| Stream::new(s)).collect();
            core.found(threads, *watermark_ns..=watermark_ns.saturating_add(*pass_ns));
            core.doubt(number, *watermark_ns, *pass_ns);
            core.feed(&views, if number == last { u64::MAX } else { *watermark_ns });
            if number == begin {
                core.begin_window();
                before = None;
            }
            let snapshot = core.snapshot();
            check_books(&snapshot);
            if let Some(before) = &before {
                check_parts(&snapshot.since(before));
            }
            before = Some(snapshot);
        }
    }
}
