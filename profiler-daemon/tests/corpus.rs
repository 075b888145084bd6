//! What fuzzers have found worth keeping, and what they found wrong, once more: `fuzz/corpus` through the
//! targets of `fuzz/src`, without a fuzzer. `cargo xtask fuzz` looks for more.

mod model;
#[expect(unreachable_pub, reason = "for the fuzzer it is a library")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use model::feed::{Feeder, Run};
use model::{Config, Kernel, Random, faults};
use schedscope::core::Core;
use schedscope::recording::format::{CHUNK_HEAD_BYTES, ChunkHead, ChunkKind, FILE_HEAD_BYTES};
use schedscope::recording::{Facts, Intake, Recorder, Settings};
use zerocopy::FromBytes;

use targets::{TARGETS, chunks};

/// Bytes that all of it may have.
const MOST: u64 = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a target, each with its name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = fuzz().join("corpus").join(target);
    let entries = fs::read_dir(&directory);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let read = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path()).expect("the corpus can be read");
        (entry.path(), bytes)
    };
    entries.flatten().map(read).collect()
}

#[test]
fn the_corpus_breaks_nothing() {
    let mut all = 0;
    for (name, run) in TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() > 5, "{name} has {} inputs", inputs.len());
        for (path, bytes) in inputs {
            all += bytes.len() as u64;
            let ran = std::panic::catch_unwind(|| run(&bytes));
            assert!(ran.is_ok(), "{} through {name}", path.display());
        }
        run(&[]);
    }
    assert!(
        all <= MOST,
        "{all} bytes: `cargo xtask fuzz --merge` makes it smaller"
    );
}

/// What a fuzzer without eyes does: other inputs in each run, made from those that are there.
#[test]
fn inputs_like_those_of_the_corpus_break_nothing() {
    // More with PROPTEST_CASES in the environment, which the other tests of properties heed, too.
    let cases = std::env::var("PROPTEST_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let seed = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(7, |time| time.as_secs());
    let mut random = Random::new(seed);
    for (name, run) in TARGETS {
        let inputs: Vec<Vec<u8>> = corpus(name).into_iter().map(|input| input.1).collect();
        let start = std::time::Instant::now();
        for _ in 0..cases {
            let bytes = mutated(&inputs, &mut random);
            if std::panic::catch_unwind(|| run(&bytes)).is_err() {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("found-{name}"));
                fs::write(&path, &bytes).expect("the build directory can be written");
                panic!("{name} with the input in {} (seed {seed})", path.display());
            }
        }
        println!("{name}: {cases} inputs in {:?}", start.elapsed());
    }
}

/// An input with some bytes changed, repeated, left out, or taken from another one.
fn mutated(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = inputs[random.place(inputs.len())].clone();
    for _ in 0..=random.below(6) {
        let place = random.place(bytes.len() + 1);
        let end = (place + random.place(32)).min(bytes.len());
        match random.below(6) {
            0 if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
            1 if place < bytes.len() => {
                let odd = [0, 1, 0x7f, 0x80, 0xff, b'"', b'/', b'\n'];
                bytes[place] = odd[random.place(odd.len())];
            }
            2 => drop(bytes.drain(place..end)),
            3 => {
                let piece = bytes[place..end].to_vec();
                let at = random.place(bytes.len() + 1);
                bytes.splice(at..at, piece);
            }
            4 => {
                let other = &inputs[random.place(inputs.len())];
                let from = random.place(other.len() + 1);
                let to = (from + random.place(200)).min(other.len());
                bytes.splice(place..place, other[from..to].iter().copied());
            }
            _ => bytes.insert(place, u8::try_from(random.below(256)).expect("a byte")),
        }
    }
    bytes.truncate(8 << 10);
    bytes
}

#[test]
fn every_target_can_be_fuzzed() {
    let programs = fs::read_dir(fuzz().join("fuzz_targets")).expect("it is there");
    let programs = programs
        .flatten()
        .filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned()));
    let targets: BTreeSet<String> = TARGETS.iter().map(|its| its.0.to_owned()).collect();
    assert_eq!(programs.collect::<BTreeSet<String>>(), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("it is there");
    for target in targets {
        let name = format!("name = \"{target}\"");
        assert!(manifest.contains(&name), "{target} is in no [[bin]]");
    }
}

/// A recording of a small history with losses.
fn recording(seed: u64, steps: usize) -> Vec<u8> {
    let mut run = Run::new(Config::small(Kernel::Both), seed, steps);
    let mut random = Random::new(seed);
    run.losses = faults::overflow(&mut run.machine.streams, &mut random, 5, false);
    let name = format!("seed-{}-{seed}.sched", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let settings = Settings {
        path: path.clone(),
        max_bytes: None,
        keep: None,
        last: None,
    };
    let (recorder, tape) = Recorder::start(settings).expect("the build directory can be written");
    let header = schedscope::recording::Header {
        start_ns: run.start_ns,
        ..chunks::header()
    };
    let core = Core::new(header.specs());
    tape.header(header);
    let mut intake = Intake::new(core, Some(tape));
    let mut feeder = Feeder::new(&run, seed);
    feeder.go_to(&mut intake, run.start_ns);
    intake.begin_window();
    feeder.go_to(&mut intake, run.start_ns.midpoint(run.end_ns));
    recorder.facts(Facts {
        notes: vec!["a note".to_owned()],
        dropped: vec![(0, "switch".to_owned(), 3)],
        ..Facts::default()
    });
    feeder.go_to(&mut intake, run.end_ns);
    intake.drop_tape();
    recorder.facts(Facts::default());
    recorder.finish().expect("it can be written");
    let bytes = fs::read(&path).expect("it was recorded");
    fs::remove_file(&path).expect("it was recorded");
    bytes
}

/// The chunks of a recording as the target `chunks` takes them.
fn taken_apart(file: &[u8]) -> Vec<u8> {
    let mut rest = &file[FILE_HEAD_BYTES..];
    let mut bytes = Vec::new();
    while let Ok((head, packed)) = ChunkHead::read_from_prefix(rest) {
        let length = head.packed_bytes.get() as usize;
        let size = head.content_bytes.get() as usize;
        let content = zstd::bulk::decompress(&packed[..length], size).expect("it is whole");
        if head.kind != ChunkKind::Header as u8 {
            bytes.extend(chunks::chunk(&head, &content));
        }
        rest = &rest[CHUNK_HEAD_BYTES + length..];
    }
    bytes
}

/// A recording and its chunks, put together again, make the same figures: the target `chunks` tries what it
/// should. With `UPDATE_EXPECT=1` they become seeds.
#[test]
fn recordings_are_seeds() {
    for (seed, steps) in [(1, 60), (2, 200)] {
        let file = recording(seed, steps);
        let apart = taken_apart(&file);
        for (target, bytes) in [("recording", &file), ("chunks", &apart)] {
            let run = TARGETS
                .iter()
                .find(|its| its.0 == target)
                .expect("it is there")
                .1;
            run(bytes);
            if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
                let path = fuzz()
                    .join("corpus")
                    .join(target)
                    .join(format!("recorded-{seed}"));
                fs::write(path, bytes).expect("the corpus can be written");
            }
        }
        let again = chunks::file(&apart);
        let reader = schedscope::recording::Reader::new(&again[..]);
        let mut reader = reader.expect("a header comes first");
        let mut entries = 0;
        while let Some(part) = reader.next_part().expect("it lies in memory") {
            entries += usize::from(matches!(part, schedscope::recording::Part::Entries(_)));
        }
        assert!(
            entries >= 2 && reader.damage().chunks == 0,
            "{:?}",
            reader.damage()
        );
    }
}
