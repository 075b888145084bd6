//! The report on a known history, as JSON and as a table; and the live screen.

#[path = "report/completion.rs"]
mod completion;
mod screen;
mod support;

use proptest::prelude::*;
use schedscope::core::{Snapshot, Stream};
use schedscope::sink::json;
use schedscope::sink::report::{Dropped, Exit, FigureRow, Report, ReportFacts, Total, is_idle};
use schedscope::sink::table::{TableOptions, render};
use schedscope::sink::text::TextOptions;
use support::shop::shop;
use support::{D, DEAD, MS, S, START_NS, expect_file, fork, gap, history, switch, wakeup};
use unicode_width::UnicodeWidthStr;

const DROPPED: [Dropped; 3] = [
    Dropped {
        cpu: 0,
        kind: "switch",
        count: 4,
    },
    Dropped {
        cpu: 0,
        kind: "wakeup",
        count: 1,
    },
    Dropped {
        cpu: 1,
        kind: "switch",
        count: 0,
    },
];

fn report(snapshot: &Snapshot, dropped: &[Dropped]) -> Report {
    let unit_of = |tgid: u32| match tgid {
        100 => "web.service".to_owned(),
        500 => "batch.service".to_owned(),
        _ => String::new(),
    };
    let facts = ReportFacts {
        version: "1.2.3",
        start_unix_ns: 1_795_210_483_000_000_000,
        target_kind: "pid",
        target_value: "100",
        dropped,
        missed: if dropped.is_empty() { 0 } else { 2 },
        clock_error_ns: Some(1_500),
        wakeups: true,
        unit_of: &unit_of,
        name_of: &|tgid| {
            let name = if tgid == 500 { "batch" } else { "" };
            name.to_owned()
        },
        user_stack_of: &|_, id| vec![format!("frame of stack {id}"), "main".to_owned()],
        notes: &[],
        exit: None,
    };
    Report::new(snapshot, &snapshot.targets[0], &facts)
}

fn json_of(report: &Report) -> serde_json::Value {
    let mut bytes = Vec::new();
    json::write(report, &mut bytes).expect("writing to memory works");
    assert_eq!(bytes.split(|&byte| byte == b'\n').count(), 2, "one line");
    serde_json::from_slice(&bytes).expect("a report is JSON")
}

const TABLE: TableOptions = TableOptions {
    text: TextOptions::PLAIN,
    max_threads: 50,
    all: false,
    worst: 5,
    explain: false,
};

fn table(report: &Report, width: usize, colors: bool) -> String {
    let options = TableOptions {
        text: TextOptions { width, colors },
        ..TABLE
    };
    render(report, &options)
}

#[test]
fn json_is_as_documented() {
    let value = json_of(&report(&history(false), &[]));
    let pretty = serde_json::to_string_pretty(&value).expect("JSON can be written") + "\n";
    expect_file("tests/golden/report.json", &pretty);
    assert_schema(&value);
}

#[test]
fn json_tells_what_was_lost() {
    let value = json_of(&report(&history(true), &DROPPED));
    let pretty = serde_json::to_string_pretty(&value["loss"]).expect("JSON can be written") + "\n";
    expect_file("tests/golden/report-lossy-loss.json", &pretty);
    assert!(value["total"]["time_ns"]["unknown"].as_u64() > Some(0));
}

#[test]
fn the_table_reads_well() {
    let whole = report(&history(false), &[]);
    expect_file("tests/golden/report.txt", &table(&whole, 100, false));
    expect_file("tests/golden/report-80.txt", &table(&whole, 80, false));
    expect_file("tests/golden/report-140.txt", &table(&whole, 140, false));
    let lossy = report(&history(true), &DROPPED);
    expect_file("tests/golden/report-lossy.txt", &table(&lossy, 100, false));
}

#[test]
fn json_says_why() {
    let value = json_of(&report(&shop(), &[]));
    let pretty = serde_json::to_string_pretty(&value).expect("JSON can be written") + "\n";
    expect_file("tests/golden/why.json", &pretty);
    assert_schema(&value);
}

#[test]
fn the_table_says_why() {
    let report = report(&shop(), &[]);
    for width in [80, 100, 120] {
        let text = table(&report, width, false);
        expect_file(&format!("tests/golden/why-{width}.txt"), &text);
    }
    let everything = TableOptions {
        all: true,
        worst: 20,
        explain: true,
        ..TABLE
    };
    let text = render(&report, &everything);
    expect_file("tests/golden/why-everything.txt", &text);
    let least = TableOptions { worst: 0, ..TABLE };
    assert!(!render(&report, &least).contains("Longest waits"));
}

#[test]
fn the_chain_of_a_wait_is_told_in_order() {
    let report = report(&shop(), &[]);
    let wait = &report.worst.blocked[0];
    assert_eq!((wait.tid, wait.duration_ns), (101, 42 * MS));
    assert_eq!(wait.reason.as_deref(), Some("lock"));
    let link = &wait.chain[0];
    assert_eq!(
        (link.tid, link.runnable_ns, link.running_ns),
        (102, 35 * MS, 7 * MS)
    );
    assert_eq!(link.culprits[0].unit, "batch.service");
    let text = table(&report, 100, false);
    let told = [
        "  1. shop-front/101 waited 42.0ms for lock [system call futex], from 21:34:43.010",
        "     woken by shop-store/102, which meanwhile was queued 35.0ms (CPU held by batch-1/501 35.0ms),",
        "       ran 7.00ms",
    ];
    assert!(text.contains(&told.join("\n")), "{text}");
}

#[test]
fn waits_that_go_on_have_lists_of_their_own() {
    let report = report(&shop(), &[]);
    let stuck = &report.stuck.blocked;
    let waits: Vec<(u32, u64)> = stuck.iter().map(|row| (row.tid, row.duration_ns)).collect();
    assert_eq!(waits, [(105, 1_000 * MS), (102, 500 * MS)]);
    assert!(stuck.iter().all(|row| row.open));
    let ended = &report.worst;
    let mut ended = ended
        .runqueue
        .iter()
        .chain(&ended.blocked)
        .chain(&ended.idle);
    assert!(ended.all(|row| !row.open));
    let text = table(&report, 100, false);
    let places = [
        "Still waiting",
        "Longest of the waits that go on:",
        "Longest waits:",
    ]
    .map(|title| text.find(title).expect("there is such a list"));
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn a_rank_that_folds_still_sums_up() {
    // 300 processes take the CPU from 101 in turns, which is more than are told apart.
    let mut core = support::core(&[support::on_cpu(101, b"victim", 0)]);
    let (mut cpu0, mut now_ns, mut holder) = (Vec::new(), START_NS + MS, (101, 0));
    for round in 0..300u32 {
        let next = 1_000 + round;
        cpu0.push(fork(now_ns, 1, next));
        cpu0.push(switch(now_ns + 1, holder.0, holder.1, next));
        holder = (next, DEAD);
        now_ns += MS + u64::from(round);
    }
    cpu0.push(switch(now_ns, holder.0, DEAD, 101));
    core.feed(&[Stream::new(&cpu0)], now_ns + MS);
    let report = report(&core.snapshot(), &[]);
    let total = &report.total;
    assert!(total.figures.runnable_ns.contended >= 300 * MS);
    assert_eq!(total.figures.culprits.len(), 10);
    assert!(total.figures.culprits_other_ns > 0);
    total_holds(total).expect("sums hold");
}

#[test]
fn the_table_fits() {
    for (snapshot, dropped) in [
        (history(false), [].as_slice()),
        (history(true), &DROPPED),
        (shop(), &[]),
    ] {
        let report = report(&snapshot, dropped);
        for width in 80..160 {
            let options = TableOptions {
                text: TextOptions {
                    width,
                    colors: false,
                },
                all: width % 2 == 0,
                worst: 20,
                explain: true,
                ..TABLE
            };
            for line in render(&report, &options).lines() {
                assert!(line.width() <= width, "{width} columns: {line}");
            }
        }
    }
}

#[test]
fn the_table_is_coloured_only_on_request() {
    let report = report(&shop(), &DROPPED);
    let plain = table(&report, 100, false);
    assert!(
        !plain.contains('\x1b'),
        "the hostile name must not get through"
    );
    let colored = table(&report, 100, true);
    assert!(colored.contains("\x1b[1m"));
    let mut stripped = String::new();
    let mut escaped = false;
    for c in colored.chars() {
        match c {
            '\x1b' => escaped = true,
            'm' if escaped => escaped = false,
            _ if escaped => {}
            _ => stripped.push(c),
        }
    }
    assert_eq!(stripped, plain, "colours change nothing else");
}

#[test]
fn a_hostile_name_reaches_every_output_harmless() {
    let report = report(&history(false), &[]);
    let name = "\"a\\\u{fffd}[31m\u{fffd}\u{fffd}";
    let value = json_of(&report);
    let names: Vec<_> = value["threads"]
        .as_array()
        .expect("threads are a list")
        .iter()
        .map(|thread| thread["comm"].as_str().expect("a name is a string"))
        .collect();
    assert!(names.contains(&name), "{names:?}");
    assert!(table(&report, 100, false).contains(name));
}

#[test]
fn rows_that_are_not_listed_are_announced() {
    let report = report(&history(false), &[]);
    let options = TableOptions {
        text: TextOptions {
            width: 100,
            colors: false,
        },
        max_threads: 1,
        ..TABLE
    };
    let text = render(&report, &options);
    assert!(text.contains("3 more threads are in the total"), "{text}");
    assert!(!text.contains("helper"));
}

#[test]
fn a_command_is_reported_from_its_exec_to_its_end() {
    let mut core = schedscope::core::Core::new(vec![schedscope::core::TargetSpec {
        name: "command".to_owned(),
        selector: schedscope::core::Selector::Command(100),
        per_thread: true,
    }]);
    core.feed(&[], START_NS);
    core.begin_window();
    let exec = schedscope::core::decode::Event::Exec(profiler_ebpf::Exec {
        ts_ns: START_NS + 10 * MS,
        tid: 100,
        old_tid: 100,
        ..profiler_ebpf::Exec::default()
    })
    .encode();
    let cpu0 = [
        fork(START_NS + MS, 1, 100),
        switch(START_NS + 2 * MS, 0, 0, 100),
        exec,
        switch(START_NS + 30 * MS, 100, DEAD, 0),
    ];
    core.feed(&[Stream::new(&cpu0)], START_NS + 500 * MS);
    let snapshot = core.snapshot();
    let mut report = report(&snapshot, &[]);
    report.exit = Some(Exit::Code(3));
    assert_eq!(report.window.start_unix_ns, 1_795_210_483_010_000_000);
    assert_eq!(report.window.duration_ns, 20 * MS);
    assert_eq!(report.threads[0].figures.observed_ns, 20 * MS);
    assert_eq!(report.threads[0].figures.time_ns.running, 20 * MS);
    assert_eq!(json_of(&report)["exit"]["code"], 3);
    assert!(table(&report, 100, false).contains("exit code 3"));
}

/// Field names and types of schema 1, as other programs rely on them.
fn assert_schema(value: &serde_json::Value) {
    for path in [
        "/schema",
        "/window/start_unix_ns",
        "/window/duration_ns",
        "/loss/events",
        "/loss/dropped",
        "/loss/inverted",
        "/loss/censored_spans",
        "/threads/0/tid",
        "/threads/0/tgid",
    ] {
        assert!(
            value.pointer(path).is_some_and(serde_json::Value::is_u64),
            "{path}"
        );
    }
    for path in [
        "/tool",
        "/version",
        "/target/kind",
        "/target/value",
        "/threads/0/comm",
        "/threads/0/unit",
    ] {
        assert!(
            value
                .pointer(path)
                .is_some_and(serde_json::Value::is_string),
            "{path}"
        );
    }
    for owner in ["/threads/0", "/total"] {
        for path in [
            "time_ns/running",
            "time_ns/runnable",
            "time_ns/blocked",
            "time_ns/unknown",
            "runnable_ns/contended",
            "runnable_ns/throttled",
            "runnable_ns/placement",
            "runnable_ns/unknown",
            "switches/voluntary",
            "switches/involuntary",
            "wakeups",
            "migrations",
        ] {
            let path = format!("{owner}/{path}");
            assert!(
                value.pointer(&path).is_some_and(serde_json::Value::is_u64),
                "{path}"
            );
        }
        for distribution in ["runqueue_delay", "offcpu"] {
            for field in [
                "count", "sum_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns",
            ] {
                let path = format!("{owner}/{distribution}/{field}");
                assert!(
                    value.pointer(&path).is_some_and(serde_json::Value::is_u64),
                    "{path}"
                );
            }
            let path = format!("{owner}/{distribution}/relative_error");
            assert!(
                value.pointer(&path).is_some_and(serde_json::Value::is_f64),
                "{path}"
            );
        }
        assert!(
            value
                .pointer(&format!("{owner}/blocked_ns"))
                .is_some_and(serde_json::Value::is_object)
        );
        assert!(
            value
                .pointer(&format!("{owner}/wakers"))
                .is_some_and(serde_json::Value::is_array)
        );
        assert!(
            value
                .pointer(&format!("{owner}/culprits"))
                .is_some_and(serde_json::Value::is_array)
        );
    }
}

fn sums_hold(figures: &FigureRow) -> Result<(), TestCaseError> {
    let runnable = &figures.runnable_ns;
    prop_assert_eq!(figures.time_ns.sum(), figures.observed_ns);
    prop_assert_eq!(
        runnable.contended + runnable.throttled + runnable.placement + runnable.unknown,
        figures.time_ns.runnable
    );
    prop_assert_eq!(
        figures.blocked_ns.values().sum::<u64>(),
        figures.time_ns.blocked
    );
    prop_assert!(figures.blocked_ns.values().all(|&ns| ns > 0));
    let origins = figures.runnable_by_origin_ns.parts();
    prop_assert_eq!(
        origins.iter().map(|part| part.1).sum::<u64>(),
        figures.time_ns.runnable
    );
    let idle = figures
        .blocked_ns
        .iter()
        .filter(|(reason, _)| is_idle(reason));
    prop_assert_eq!(idle.map(|(_, ns)| ns).sum::<u64>(), figures.idle_ns);
    let explained: u64 = figures.explain.iter().map(|row| row.ns).sum();
    prop_assert_eq!(
        explained + figures.explain_other.wait_ns,
        figures.time_ns.blocked
    );
    let held: u64 = figures.culprits.iter().map(|row| row.ns).sum();
    prop_assert_eq!(held + figures.culprits_other_ns, runnable.contended);
    Ok(())
}

fn total_holds(total: &Total) -> Result<(), TestCaseError> {
    sums_hold(&total.figures)?;
    let contended_ns = total.figures.runnable_ns.contended;
    let by_process: u64 = total.culprits_by_process.iter().map(|row| row.ns).sum();
    prop_assert_eq!(
        by_process + total.culprits_by_process_other_ns,
        contended_ns
    );
    let by_unit: u64 = total.culprits_by_unit.iter().map(|row| row.ns).sum();
    prop_assert_eq!(by_unit + total.culprits_by_unit_other_ns, contended_ns);
    Ok(())
}

proptest! {
    #[test]
    fn parts_sum_to_their_whole(
        steps in prop::collection::vec((0u8..5, 0u32..4, 0u32..4, 0u64..3_000_000), 0..120),
    ) {
        let mut core = support::core(&[support::asleep(100, b"a"), support::on_cpu(101, b"b", 0)]);
        let mut now_ns = START_NS;
        let mut cpus = [Vec::new(), Vec::new()];
        for (what, a, b, step_ns) in steps {
            now_ns += step_ns;
            let (one, other) = (a + 99, b + 99);
            let cpu = &mut cpus[(a as usize + b as usize) % 2];
            match what {
                0 => cpu.push(switch(now_ns, one, [0, S, D, DEAD][b as usize % 4], other)),
                1 => cpu.push(wakeup(now_ns, one)),
                2 => cpu.push(fork(now_ns, one, other)),
                3 => cpu.push(gap(now_ns.saturating_sub(step_ns / 2), now_ns, 3)),
                _ => cpu.push(switch(now_ns, 0, 0, other)),
            }
        }
        let end_ns = now_ns + 1_000_000;
        core.feed(&[Stream::new(&cpus[0]), Stream::new(&cpus[1])], end_ns);
        let snapshot = core.snapshot();
        let report = report(&snapshot, &[]);
        prop_assert_eq!(report.window.duration_ns, end_ns - START_NS);
        total_holds(&report.total)?;
        let details = &snapshot.targets[0].total.detail;
        let held: u128 = details.culprits.rows().iter().map(|row| row.2.ns).sum();
        prop_assert_eq!(
            held + details.culprits.other().ns,
            u128::from(report.total.figures.runnable_ns.contended)
        );
        for row in report.worst.runqueue.iter().chain(&report.worst.blocked) {
            if let Some(causes) = row.causes {
                prop_assert_eq!(causes.parts().iter().map(|part| part.1).sum::<u64>(), row.duration_ns);
            }
            for link in &row.chain {
                prop_assert_eq!(
                    link.running_ns + link.runnable_ns + link.blocked_ns + link.unknown_ns,
                    link.duration_ns
                );
            }
        }
        let mut observed_ns = 0;
        for (row, thread) in report.threads.iter().map(|row| {
            let same = |t: &&std::sync::Arc<schedscope::core::ThreadSnapshot>| {
                t.identity.tid == row.tid && t.identity.start_ns == row.start_ns
            };
            (row, snapshot.targets[0].threads.iter().find(same))
        }) {
            sums_hold(&row.figures)?;
            observed_ns += row.figures.observed_ns;
            if thread.is_some_and(|t| t.observed_from_ns == START_NS && t.ended_ns.is_none()) {
                prop_assert_eq!(row.figures.observed_ns, report.window.duration_ns);
            }
        }
        prop_assert_eq!(observed_ns, report.total.figures.observed_ns);
        for line in table(&report, 100, false).lines() {
            prop_assert!(line.width() <= 100);
        }
    }
}
