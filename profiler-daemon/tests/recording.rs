//! Recordings: what was recorded makes the same figures again, and a damaged file gives what is whole of it.

#[path = "support/browser.rs"]
mod browser;
#[path = "recording/exports.rs"]
mod exports;
mod model;
#[path = "recording/programs.rs"]
mod programs;

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use model::feed::{Feeder, Run};
use model::shed::Plan;
use model::{Config, Kernel, Random, faults};
use profiler_ebpf::{RawRecord, Switch, WIRE_VERSION, Wakeup};
use proptest::prelude::*;
use schedscope::core::classify::{FileKind, Stack};
use schedscope::core::decode::Event;
use schedscope::core::{Core, Seen, Selector, Stream};
use schedscope::recording::facts::{Process, Target};
use schedscope::recording::format::{FILE_HEAD_BYTES, FORMAT_VERSION, FileHead};
use schedscope::recording::{
    Damage, Facts, Header, Intake, Last, OpenError, Reader, Recorder, Replay, Settings, Summary,
    Tape, Watched,
};
use wildmatch::WildMatch;
use zerocopy::IntoBytes;

/// What a host may be called: it must be shown as it is, and do nothing.
const HOSTILE_HOST: &str = "</script><img src=x onerror=pwned=1>&amp;";

/// A core that watches every thread, as the recording says.
fn core() -> Core {
    Core::new(header(0).specs())
}

fn as_recorded(header: &Header) -> Watched {
    Watched {
        specs: header.specs(),
        is_as_recorded: true,
    }
}

fn header(start_ns: u64) -> Header {
    Header {
        version: "1.2.3".to_owned(),
        wire_version: WIRE_VERSION,
        arch: std::env::consts::ARCH.to_owned(),
        host: HOSTILE_HOST.to_owned(),
        boot_id: "b6f3".to_owned(),
        kernel: "6.18.0".to_owned(),
        cpus: 3,
        clock: "run-queue".to_owned(),
        start_unix_ns: 1_700_000_000_000_000_000,
        start_ns,
        wakeups: true,
        targets: vec![Target {
            kind: "comm".to_owned(),
            value: "*".to_owned(),
            selector: Selector::Comm(WildMatch::new("*")),
        }],
    }
}

fn facts(number: u32) -> Facts {
    Facts {
        processes: [(number, Process::default())].into(),
        notes: vec![format!("note {number}")],
        ..Facts::default()
    }
}

/// A file of this test run alone.
fn path(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recordings");
    fs::create_dir_all(&directory).expect("the build directory can be written");
    directory.join(format!("{name}.{}", std::process::id()))
}

fn settings(path: &Path) -> Settings {
    Settings {
        path: path.to_owned(),
        max_bytes: None,
        keep: None,
        last: None,
    }
}

fn start(settings: Settings) -> (Recorder, Tape) {
    Recorder::start(settings).expect("the build directory can be written")
}

/// What was seen of a wait, as often as not with a stack.
fn seen(random: &mut Random, left_ns: u64) -> Seen {
    let functions = ["__schedule", "futex_do_wait", "do_syscall_64"].map(str::to_owned);
    let stack = if random.one_in(2) {
        Stack::new(functions.to_vec())
    } else {
        Stack::default()
    };
    Seen {
        tid: u32::try_from(random.below(60)).expect("below 60"),
        left_ns,
        file: FileKind::ALL[random.place(FileKind::COUNT)],
        stack: Arc::new(stack),
        user_stack: random.one_in(3).then_some(7),
    }
}

/// A history with losses.
fn run(seed: u64, steps: usize) -> Run {
    let mut run = Run::new(Config::small(Kernel::Both), seed, steps);
    let mut random = Random::new(seed);
    run.losses = faults::overflow(&mut run.machine.streams, &mut random, 5, false);
    run
}

/// Records a history in ten chunks or more: the figures that came of it live, and what came of the
/// recording.
fn record(run: &Run, seed: u64, settings: Settings) -> (String, Summary) {
    let (recorder, tape) = start(settings);
    tape.header(header(run.start_ns));
    let mut intake = Intake::new(core(), Some(tape));
    let mut feeder = Feeder::new(run, seed);
    feeder.go_to(&mut intake, run.start_ns);
    intake.begin_window();
    let mut random = Random::new(seed);
    for step in 1..=10 {
        let until_ns = run.start_ns + (run.end_ns - run.start_ns) / 10 * step;
        intake.seen([seen(&mut random, until_ns)]);
        feeder.go_to(&mut intake, until_ns);
        intake.seen_waiting([seen(&mut random, until_ns)]);
        // Each makes a chunk of what came before it.
        recorder.facts(facts(u32::try_from(step).expect("ten at most")));
    }
    feeder.go_to(&mut intake, run.end_ns);
    intake.drop_tape();
    recorder.facts(facts(99));
    let live = format!("{:?}", intake.core().snapshot());
    (live, recorder.finish().expect("the writer ends well"))
}

/// A recording of a history as bytes, with its figures.
fn recorded(name: &str, seed: u64, steps: usize) -> (String, Vec<u8>) {
    let path = path(name);
    let (live, summary) = record(&run(seed, steps), seed, settings(&path));
    let bytes = fs::read(&path).expect("it was just written");
    fs::remove_file(&path).expect("it was just read");
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!((summary.lost, summary.stopped), (0, None));
    (live, bytes)
}

/// The figures of a recording, what else is known of it, and what is missing of it.
fn replayed(bytes: &[u8]) -> Result<(Core, Facts, Damage), OpenError> {
    let mut reader = Reader::new(Cursor::new(bytes))?;
    let mut replay = Replay::new(reader.header(), as_recorded(reader.header()), 0..u64::MAX);
    replay.run(&mut reader, |_| {})?;
    let (core, facts) = replay.finish();
    Ok((core, facts, reader.damage()))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_was_recorded_makes_the_same_figures(seed in any::<u64>(), steps in 0usize..600) {
        let (live, bytes) = recorded("same", seed, steps);
        let (core, last, damage) = replayed(&bytes).expect("it is whole");
        prop_assert_eq!(damage, Damage::default());
        prop_assert_eq!(last, facts(99));
        prop_assert_eq!(format!("{:?}", core.snapshot()), live);
    }

    /// Which threads' records were left out meanwhile is in the stream, so a recording knows it, too.
    #[test]
    fn a_recording_of_a_shed_storm_makes_the_same_figures(
        seed in any::<u64>(),
        steps in 100usize..600,
        changes in 1usize..6,
    ) {
        let config = Config { groups: false, ..Config::small(Kernel::Both) };
        let mut run = Run::new(config, seed, steps);
        let time_ns = run.start_ns + 1..run.end_ns + 1;
        let mut plan = Plan::new(&mut Random::new(seed), config.cpus, time_ns, changes);
        plan.carry_out(&mut run.machine, run.end_ns);
        let path = path("shed");
        let (live, _) = record(&run, seed, settings(&path));
        let bytes = fs::read(&path).expect("it was just written");
        fs::remove_file(&path).expect("it was just read");
        let (core, _, damage) = replayed(&bytes).expect("it is whole");
        let snapshot = core.snapshot();
        prop_assert_eq!(damage, Damage::default());
        prop_assert_eq!(snapshot.counts.shed.total(), plan.left_out);
        prop_assert_eq!(format!("{snapshot:?}"), live);
    }

    #[test]
    fn a_part_of_the_window_can_be_told_by_itself(seed in any::<u64>(), from in 0u64..100, length in 1u64..100) {
        let run = run(seed, 300);
        let path = path("part");
        record(&run, seed, settings(&path));
        let at = |percent: u64| run.start_ns + (run.end_ns - run.start_ns) * percent.min(100) / 100;
        let (from_ns, until_ns) = (at(from), at(from + length));
        let mut reader = Reader::open(&path).expect("it is whole");
        let header = reader.header().clone();
        let mut replay = Replay::new(&header, as_recorded(&header), from_ns..until_ns);
        replay.run(&mut reader, |_| {}).expect("it can be read");
        fs::remove_file(&path).expect("it was just read");
        let snapshot = replay.finish().0.snapshot();
        prop_assert_eq!((snapshot.start_ns, snapshot.at_ns), (from_ns, until_ns));
        for thread in &snapshot.targets[0].threads {
            let until_ns = thread.ended_ns.unwrap_or(until_ns);
            let observed_ns = until_ns - thread.observed_from_ns;
            prop_assert_eq!(thread.account.figures.observed_ns(), u128::from(observed_ns));
        }
    }

    #[test]
    fn no_bytes_at_all_break_a_reader(mut bytes in prop::collection::vec(any::<u8>(), 0..600), is_headed: bool) {
        if is_headed {
            bytes.splice(..0, FileHead::current().as_bytes().iter().copied());
        }
        prop_assert!(replayed(&bytes).is_err());
    }
}

/// Where a cut falls must not matter: each byte of the beginning, and then every so many.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length.min(1_500))
        .chain((1_500..length).step_by(173))
        .chain([length - 1])
}

#[test]
fn a_file_that_was_cut_gives_what_is_whole() {
    let (_, bytes) = recorded("cut", 11, 1_500);
    let whole = replayed(&bytes).expect("it is whole").0;
    let mut before_ns = 0;
    let mut readable = 0;
    for cut in cuts(bytes.len()) {
        let Ok((core, _, damage)) = replayed(&bytes[..cut]) else {
            assert_eq!(readable, 0, "{cut} bytes have less than fewer of them");
            continue;
        };
        readable += 1;
        assert!(damage.is_unfinished, "{cut}");
        assert_eq!(
            (damage.chunks, damage.records.min(1)),
            (0, damage.records.min(1))
        );
        assert!((before_ns..=whole.watermark_ns()).contains(&core.watermark_ns()));
        before_ns = core.watermark_ns();
        let snapshot = core.snapshot();
        assert!(snapshot.counts.total() <= whole.snapshot().counts.total());
    }
    assert_eq!(
        before_ns,
        whole.watermark_ns(),
        "the last bytes only say that it ended"
    );
    assert!(readable > 20, "{readable}");
}

#[test]
fn a_bit_that_flipped_costs_one_chunk() {
    let (_, bytes) = recorded("flip", 12, 1_500);
    let whole = replayed(&bytes).expect("it is whole").0;
    let mut random = Random::new(5);
    let mut lossy = 0;
    for place in cuts(bytes.len()) {
        let mut bytes = bytes.clone();
        bytes[place] ^= 1 << random.below(8);
        let Ok((core, _, damage)) = replayed(&bytes) else {
            assert!(
                place < FILE_HEAD_BYTES,
                "{place}: only the file's head stands there once"
            );
            continue;
        };
        assert!(damage.is_any(), "{place}");
        let snapshot = core.snapshot();
        if core.watermark_ns() == whole.watermark_ns()
            && snapshot.counts.lost > whole.snapshot().counts.lost
        {
            lossy += 1;
        }
        for thread in &snapshot.targets[0].threads {
            let until_ns = thread.ended_ns.unwrap_or(core.watermark_ns());
            let observed_ns = until_ns.saturating_sub(thread.observed_from_ns);
            assert_eq!(
                thread.account.figures.observed_ns(),
                u128::from(observed_ns),
                "{place}"
            );
        }
    }
    assert!(
        lossy > 20,
        "a chunk that is lost is told as lost records: {lossy}"
    );
}

#[test]
fn what_is_no_recording_is_told_apart() {
    let is = |bytes: &[u8]| {
        replayed(bytes)
            .map(|_| ())
            .expect_err("nothing can be read")
    };
    assert!(matches!(is(b""), OpenError::Empty));
    assert!(matches!(is(b"PK\x03\x04"), OpenError::NotARecording));
    assert!(matches!(is(b"schedrec"), OpenError::Head));
    let next = FileHead::of_version(FORMAT_VERSION + 1);
    assert!(matches!(is(next.as_bytes()), OpenError::Version(2)));
    let message = is(next.as_bytes()).to_string();
    assert!(
        message.contains("version 2") && message.contains("version 1"),
        "{message}"
    );
    let mut zeros = FileHead::current().as_bytes().to_vec();
    zeros.resize(32 << 20, 0);
    assert!(matches!(is(&zeros), OpenError::Head));
}

#[test]
fn records_of_another_version_or_machine_are_refused() {
    let path = path("others");
    for (header, expected) in [
        (
            Header {
                wire_version: 1,
                ..header(0)
            },
            "records have version 1",
        ),
        (
            Header {
                arch: "vax".to_owned(),
                ..header(0)
            },
            "recorded on vax",
        ),
    ] {
        let (recorder, tape) = start(settings(&path));
        tape.header(header);
        drop(tape);
        recorder.finish().expect("the writer ends well");
        let error = Reader::open(&path).err().expect("it is refused");
        assert!(error.to_string().contains(expected), "{error}");
    }
    fs::remove_file(&path).expect("it was just read");
}

#[test]
fn a_recording_stays_within_its_size() {
    let path = path("full");
    let max_bytes = 12_000;
    let limited = Settings {
        max_bytes: Some(max_bytes),
        ..settings(&path)
    };
    let (_, summary) = record(&run(13, 3_000), 13, limited);
    assert_eq!(summary.stopped, Some(schedscope::recording::Stop::Full));
    assert!(
        summary.bytes <= max_bytes && summary.bytes > max_bytes / 4,
        "{summary:?}"
    );
    let bytes = fs::read(&path).expect("it was just written");
    let (core, last, damage) = replayed(&bytes).expect("it is whole");
    assert_eq!((last, damage), (facts(99), Damage::default()));
    assert!(core.events() > 100);
    fs::remove_file(&path).expect("it was just read");
}

/// A recorder whose threads are found anew whenever it wants that, fed with one thread's switches.
fn storm(settings: Settings, batches: u64) -> (Recorder, Intake) {
    let (recorder, tape) = start(settings);
    tape.header(header(0));
    let mut intake = Intake::new(core(), Some(tape));
    intake.begin_window();
    let mut random = Random::new(3);
    for batch in 0..batches {
        let begin_ns = batch * 1_000_000;
        if intake.tape().is_some_and(Tape::take_part_is_due) {
            intake.begin_part(&[], begin_ns + 1..=begin_ns + 2);
        }
        let mut ts_ns = begin_ns;
        let records: Vec<RawRecord> = (0..400)
            .map(|number| {
                ts_ns += 1 + random.below(2_000);
                let (prev_tid, next_tid) = (number % 2, (number + 1) % 2);
                Event::Switch(Switch {
                    ts_ns,
                    prev_tid,
                    next_tid,
                    ..Switch::default()
                })
                .encode()
            })
            .collect();
        intake.feed(&[Stream::new(&records)], begin_ns + 1_000_000);
        recorder.facts(facts(1));
        // What the writer wants is known when it has written.
        while !recorder.is_idle() {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    (recorder, intake)
}

#[test]
fn full_files_give_way_to_new_ones() {
    let path = path("rotated");
    let rotated = Settings {
        max_bytes: Some(20_000),
        keep: Some(3),
        ..settings(&path)
    };
    let (recorder, intake) = storm(rotated, 120);
    drop(intake);
    let summary = recorder.finish().expect("the writer ends well");
    assert_eq!((summary.stopped, summary.lost), (None, 0));
    let numbers: Vec<u64> = (1..100)
        .filter(|number| numbered(&path, *number).exists())
        .collect();
    assert_eq!(numbers.len(), 3, "{numbers:?}");
    assert!(numbers[0] > 1, "older ones are gone: {numbers:?}");
    let mut end_ns = 0;
    for number in numbers {
        let name = numbered(&path, number);
        let bytes = fs::read(&name).expect("it is there");
        assert!(bytes.len() <= 20_000, "{number}: {}", bytes.len());
        let (core, _, damage) = replayed(&bytes).expect("it is whole");
        assert_eq!(damage, Damage::default(), "{number}");
        let snapshot = core.snapshot();
        assert!(
            end_ns == 0 || snapshot.start_ns.abs_diff(end_ns) <= 2,
            "{number} follows"
        );
        end_ns = snapshot.at_ns;
        fs::remove_file(name).expect("it was just read");
    }
    assert_eq!(end_ns, 120_000_000);
}

#[tokio::test]
async fn a_flight_recorder_keeps_what_was_last() {
    let path = path("flight");
    let last = Last {
        time: Duration::from_millis(40),
        max_bytes: 1 << 20,
    };
    let flight = Settings {
        last: Some(last),
        ..settings(&path)
    };
    let (recorder, intake) = storm(flight, 120);
    let saved = recorder.save(None).await.expect("it can be written");
    assert_eq!(saved.path, numbered(&path, 1));
    let bytes = fs::read(&saved.path).expect("it was just written");
    assert_eq!(bytes.len() as u64, saved.bytes);
    let (core, last, damage) = replayed(&bytes).expect("it is whole");
    assert_eq!((last, damage), (facts(1), Damage::default()));
    let snapshot = core.snapshot();
    assert_eq!(snapshot.at_ns, 120_000_000, "up to the moment of saving");
    let kept_ns = snapshot.at_ns - snapshot.start_ns;
    assert!((40_000_000..60_000_000).contains(&kept_ns), "{kept_ns}");
    assert_eq!(saved.time, Duration::from_nanos(kept_ns));
    fs::remove_file(&saved.path).expect("it was just read");
    drop(intake);
    recorder.finish().expect("the writer ends well");
}

/// As the writer names the files of a series.
fn numbered(path: &Path, number: u64) -> PathBuf {
    PathBuf::from(format!("{}.{number}", path.display()))
}

/// What the program says of a file.
fn reported(bytes: &[u8], name: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let path = path(name);
    fs::write(&path, bytes).expect("the build directory can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_schedscope"));
    command.arg("report").arg(&path).args(arguments);
    let output = command.output().expect("the program can be started");
    fs::remove_file(&path).expect("it was just written");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_program_reports_what_is_whole_and_says_what_is_not() {
    let (_, bytes) = recorded("program", 21, 1_500);
    let json = ["--output", "json"];
    let (code, whole, stderr) = reported(&bytes, "whole", &json);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(whole.contains("\"kind\":\"comm\""), "{whole}");
    let (code, cut, stderr) = reported(&bytes[..bytes.len() * 3 / 4], "cut-short", &json);
    assert_eq!(code, Some(5), "{stderr}");
    assert!(
        stderr.contains("is damaged") && stderr.contains("what is whole"),
        "{stderr}"
    );
    assert!(cut.starts_with("{\"schema\":1,"), "{cut}");
    let next = FileHead::of_version(FORMAT_VERSION + 1);
    for (bytes, words) in [
        (&b""[..], "it is empty"),
        (b"%PDF-1.7", "no recording of schedscope"),
        (next.as_bytes(), "version 2 of the format"),
        (&bytes[..FILE_HEAD_BYTES + 5], "its head is damaged"),
    ] {
        let (code, stdout, stderr) = reported(bytes, "unreadable", &[]);
        assert_eq!((code, stdout.as_str()), (Some(5), ""), "{stderr}");
        assert!(
            stderr.contains(words) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
}

#[test]
fn the_program_reports_on_whom_and_when_it_is_asked_for() {
    let (_, bytes) = recorded("choice", 22, 1_500);
    let (code, host, stderr) = reported(&bytes, "host", &["--host", "--output", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let of_host: serde_json::Value = serde_json::from_str(&host).expect("a line of JSON");
    let choice = [
        "--comm", "a*", "--from", "100us", "--to", "300us", "--output", "json",
    ];
    let (code, some, stderr) = reported(&bytes, "some", &choice);
    assert_eq!(code, Some(0), "{stderr}");
    let of_some: serde_json::Value = serde_json::from_str(&some).expect("a line of JSON");
    assert_eq!(
        of_some["target"],
        serde_json::json!({"kind": "comm", "value": "a*"})
    );
    assert_eq!(of_some["window"]["duration_ns"], 200_000);
    let threads = |report: &serde_json::Value| report["threads"].as_array().map_or(0, Vec::len);
    assert!(threads(&of_some) < threads(&of_host), "{some}");
    for (arguments, code, words) in [
        (
            &["--from", "2s", "--to", "1s"][..],
            2,
            "--to is not after --from",
        ),
        (&["--from", "1h"], 2, "ends after"),
        (&["--unit", "shop"], 4, "no process in"),
        (&["--pid", "4000000"], 4, "--pid 4000000"),
        (&["--comm", "nobody*"], 4, "--host"),
    ] {
        let outcome = reported(&bytes, "wrong", arguments);
        assert_eq!(outcome.0, Some(code), "{outcome:?}");
        assert!(outcome.2.contains(words), "{outcome:?}");
    }
}

/// A second of a thread that is queued for so long, now and then a little longer, each time it wants to run.
fn queued_for(name: &str, delay_ns: u64, seed: u64) -> PathBuf {
    let path = path(name);
    let (recorder, tape) = start(settings(&path));
    tape.header(header(0));
    let mut intake = Intake::new(core(), Some(tape));
    intake.begin_window();
    let mut random = Random::new(seed);
    let (mut ts_ns, mut records) = (0, Vec::new());
    while ts_ns < 3_000_000_000 {
        let woken_ns = ts_ns + 1_000_000 + random.below(100_000);
        let runs_ns = woken_ns + delay_ns + random.below(100_000);
        ts_ns = runs_ns + 500_000;
        let switch = |ts_ns, prev_tid, prev_state, next_tid| {
            let record = Switch {
                ts_ns,
                prev_tid,
                prev_state,
                next_tid,
                ..Switch::default()
            };
            Event::Switch(record).encode()
        };
        let woken = Wakeup {
            ts_ns: woken_ns,
            tid: 7,
            ..Wakeup::default()
        };
        records.push(Event::Wakeup(woken).encode());
        records.extend([switch(runs_ns, 0, 0, 7), switch(ts_ns, 7, 2, 0)]);
    }
    intake.feed(&[Stream::new(&records)], ts_ns);
    drop(intake);
    recorder.finish().expect("the writer ends well");
    path
}

#[test]
fn a_comparison_tells_a_difference_from_chance() {
    let [before, again, slower] = [
        queued_for("before", 200_000, 1),
        queued_for("again", 200_000, 2),
        queued_for("slower", 300_000, 3),
    ];
    let compare = |after: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schedscope"));
        command.arg("diff").args([&before, after]).args(arguments);
        let output = command.output().expect("the program can be started");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let judgements = |text: &str| {
        let diff: serde_json::Value = serde_json::from_str(text).expect("a line of JSON");
        let rows = diff["rows"].as_array().expect("rows").clone();
        let judged = move |name: &str| {
            let row = rows.iter().find(|row| row["name"] == name);
            row.map_or(String::new(), |row| row["judgement"].to_string())
        };
        (judged("runnable"), judged("runqueue_delay.p99"))
    };
    let json = ["--output", "json"];
    let noise = ("\"noise\"".to_owned(), "\"noise\"".to_owned());
    assert_eq!(judgements(&compare(&again, &json)), noise);
    let worse = ("\"worse\"".to_owned(), "\"worse\"".to_owned());
    assert_eq!(judgements(&compare(&slower, &json)), worse);
    let thin = ("\"thin\"".to_owned(), "\"thin\"".to_owned());
    let short = compare(&slower, &["--to", "500ms", "--output", "json"]);
    assert_eq!(judgements(&short), thin, "five blocks");
    let table = compare(&slower, &[]);
    assert!(
        table.contains("Worse:\n") && table.contains("runqueue_delay.p99"),
        "{table}"
    );
    for path in [before, again, slower] {
        fs::remove_file(path).expect("it was just recorded");
    }
}
