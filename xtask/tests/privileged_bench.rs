//! `cargo xtask bench`, tried: short rounds of some of everything. What it measures then means nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Some of ours. Others would have to be fetched first.
const MODES: [&str; 2] = ["service", "attach"];

/// What cargo has built for this test run, unoptimized.
fn built(name: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let path = own.parent()?.parent()?.join(name);
    path.is_file().then_some(path)
}

#[test]
fn every_part_of_the_bench_works() {
    let programs = [
        ("schedscope", built("schedscope")),
        ("workload", built("examples/workload")),
    ];
    let programs: Option<Vec<(String, PathBuf)>> = programs
        .into_iter()
        .map(|(name, path)| Some((name.to_owned(), path?)))
        .collect();
    let Some(programs) = programs else {
        println!(
            "not run: every_part_of_the_bench_works: its programs are built by `cargo xtask test`"
        );
        return;
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["bench", "--quick", "storms", "daemon", "start"]);
    command.args(["-w", "futex"]);
    for mode in MODES {
        command.args(["-m", mode]);
    }
    for (name, path) in &programs {
        command.args(["--program", &format!("{name}={}", path.display())]);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = command
        .env("CARGO_MANIFEST_DIR", root)
        .output()
        .expect("xtask starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    println!("{text}");
    let sections: Vec<&str> = text.split("\n== ").collect();
    let section = |title: &str| {
        let found = sections.iter().find(|its| its.starts_with(title));
        *found.unwrap_or_else(|| panic!("a table '{title}' expected:\n{text}\n{errors}"))
    };
    let table = section("Watched: 8 pairs that pass a turn by futex");
    for mode in MODES {
        let mut rows = table.lines();
        let row = rows.find(|line| line.starts_with(&format!("{mode}  ")));
        let row = row.unwrap_or_else(|| panic!("a row '{mode}' expected:\n{table}"));
        assert!(!row.contains("not run"), "{row}");
        assert!(row.contains(|its: char| its.is_ascii_digit()), "{row}");
    }
    for (title, row) in [
        ("The bars", "service: CPU time"),
        ("The daemon in the fastest switching", "attach"),
        ("The daemon on a host that idles", "service"),
        ("The service's memory", "200 threads"),
        ("attach, from its start", "first screen"),
    ] {
        let table = section(title).replace('`', "");
        assert!(table.contains(row), "'{row}' expected in:\n{table}");
    }
}
