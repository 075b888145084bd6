//! Exports as the programs read them that they are made for, where this machine has those.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::browser::Browser;
use super::exports::Recorded;
use super::{HOSTILE_HOST, path};

/// The program of this name, where `cargo xtask test` says that it is, or on `PATH`.
fn program(name: &str) -> Option<PathBuf> {
    let told = std::env::var_os(format!("SCHEDSCOPE_{}", name.to_uppercase()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file());
    told.map(PathBuf::from).or(on_path)
}

fn not_run(test: &str, what: &str) {
    println!("not run: {test}: there is no {what} here");
}

/// What a program prints.
fn output(program: &PathBuf, arguments: &[&OsStr]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.expect("the program can be started");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// An export as a file, gone when dropped.
struct Exported(PathBuf);

impl Exported {
    fn new(recorded: &Recorded, format: &str) -> Self {
        let path = path("export").with_extension(format);
        std::fs::write(&path, recorded.export(format)).expect("the build directory can be written");
        Self(path)
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("it was just exported");
    }
}

#[test]
fn duckdb_groups_a_table_into_the_report() {
    let Some(duckdb) = program("duckdb") else {
        return not_run("duckdb_groups_a_table_into_the_report", "DuckDB");
    };
    let recorded = Recorded::new("parquet", 35);
    let table = Exported::new(&recorded, "parquet");
    let ask = |sql: &str| -> Vec<BTreeMap<String, Value>> {
        let sql = sql.replace("spans", &format!("'{}'", table.0.display()));
        let answer = output(&duckdb, &["-json", "-c", &sql].map(OsStr::new));
        serde_json::from_str(&answer).expect("a list of rows")
    };
    let number = |value: &Value| {
        let text = value.to_string();
        text.trim_matches('"').parse::<u64>().expect("a number")
    };
    let rows = ask("select tid, state, sum(duration_ns) as ns from spans group by tid, state");
    let times: BTreeMap<(u64, String), u64> = rows
        .iter()
        .map(|row| {
            let state = row["state"].as_str().expect("a name").to_owned();
            ((number(&row["tid"]), state), number(&row["ns"]))
        })
        .collect();
    assert_eq!(times, recorded.times());
    let reasons = ask(
        "select reason, sum(duration_ns) as ns from spans where state = 'blocked' group by reason",
    );
    for row in &reasons {
        let reason = row["reason"].as_str().expect("a name");
        assert_eq!(number(&row["ns"]), recorded.total(&["blocked_ns", reason]));
    }
    let causes = ask(
        "select sum(contended_ns) as contended, sum(throttled_ns) as throttled, sum(placement_ns) as placement,
         sum(cause_unknown_ns) as unknown from spans",
    );
    for (cause, ns) in &causes[0] {
        assert_eq!(
            number(ns),
            recorded.total(&["runnable_ns", cause]),
            "{cause}"
        );
    }
    let hosts = ask("select distinct host, boot_id from spans");
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0]["host"], HOSTILE_HOST);
}

#[test]
fn pprof_reads_a_profile_with_all_that_is_in_the_report() {
    let Some(pprof) = program("pprof") else {
        return not_run(
            "pprof_reads_a_profile_with_all_that_is_in_the_report",
            "pprof",
        );
    };
    let recorded = Recorded::new("pprof", 36);
    let profile = Exported::new(&recorded, "pprof");
    let raw = output(&pprof, &[OsStr::new("-raw"), profile.0.as_os_str()]);
    let (samples, places) = raw.split_once("Locations\n").expect("two sections");
    // `     1: 0x0 M=1 lock :0:0 s=0()`: what stands after the mapping is the function.
    let names: BTreeMap<u64, &str> = places
        .lines()
        .take_while(|line| !line.starts_with("Mappings"))
        .filter_map(|line| {
            let (number, rest) = line.trim().split_once(": ")?;
            let (_, name) = rest.split_once("M=1 ")?;
            let name = name.split_once(" :0").map_or(name, |(name, _)| name);
            Some((number.parse().ok()?, name.trim()))
        })
        .collect();
    let (_, samples) = samples
        .split_once("off-cpu/nanoseconds")
        .expect("what samples are");
    let mut read: BTreeMap<Vec<&str>, u64> = BTreeMap::new();
    for line in samples.lines().skip(1).filter(|line| line.contains(':')) {
        let (values, places) = line.split_once(':').expect("values and places");
        let ns = values.split_whitespace().last().expect("two values");
        let places = places.split_whitespace();
        let frames = places.map(|place| names[&place.parse::<u64>().expect("a number")]);
        let frames: Vec<&str> = frames.collect::<Vec<_>>().into_iter().rev().collect();
        *read.entry(frames).or_default() += ns.parse::<u64>().expect("a number");
    }
    let folded = recorded.text("folded");
    let expected: BTreeMap<Vec<&str>, u64> = super::exports::places(&folded).into_iter().collect();
    assert_eq!(read, expected);
    let off_cpu = ["runnable", "blocked"].map(|state| recorded.total(&["time_ns", state]));
    assert_eq!(read.values().sum::<u64>(), off_cpu.iter().sum::<u64>());
}

#[test]
fn a_browser_shows_the_page_and_asks_nobody_for_anything() {
    let Some(mut browser) = Browser::start() else {
        return not_run(
            "a_browser_shows_the_page_and_asks_nobody_for_anything",
            "Chromium",
        );
    };
    let recorded = Recorded::new("html", 37);
    let page = Exported::new(&recorded, "html");
    let address = format!("file://{}", page.0.display());
    for (width, height, dark, name) in [
        (1280, 900, false, "export-light"),
        (390, 800, true, "export-narrow-dark"),
    ] {
        browser.resize(width, height, dark);
        browser.open(&address);
        browser.until("document.documentElement.dataset.ready === 'yes'");
        browser.picture(name);
        assert_eq!(browser.complaints(), Vec::<String>::new());
        // It may have been asked for twice: some versions of Chromium do so of a file.
        assert!(browser.requests().iter().all(|its| *its == address));
        let is_too_wide = "document.documentElement.scrollWidth > innerWidth";
        assert_eq!(browser.ask(is_too_wide), false, "{name} scrolls sideways");
    }
    let about = browser.ask("document.getElementById('about').textContent");
    let about = about.as_str().expect("text");
    assert!(about.contains(HOSTILE_HOST), "{about}");
    assert_eq!(browser.ask("typeof pwned"), "undefined");
    let told: Vec<String> = browser.texts("#verdict li");
    let verdict = recorded.report["verdict"].as_array().expect("findings");
    assert_eq!(told.len(), verdict.len());
    for (told, finding) in told.iter().zip(verdict) {
        assert!(
            told.contains(finding["text"].as_str().expect("a sentence")),
            "{told}"
        );
    }
    // Everything that is drawn sums to what the report has, and so does who slows whom.
    let kinds = "timeline.rows.reduce((sums, row) => sums.map((sum, kind) => sum + row.sums_ns[kind]), Array(8).fill(0))";
    let sums: Vec<u64> = serde_json::from_value(browser.ask(kinds)).expect("numbers");
    let total = |path: &[&str]| recorded.total(path);
    let idle_ns = total(&["idle_ns"]);
    let expected = [
        total(&["time_ns", "running"]),
        total(&["runnable_ns", "contended"]),
        total(&["runnable_ns", "throttled"]),
        total(&["runnable_ns", "placement"]),
        total(&["runnable_ns", "unknown"]),
        total(&["time_ns", "blocked"]) - idle_ns,
        idle_ns,
        total(&["time_ns", "unknown"]),
    ];
    assert_eq!(sums, expected);
    let drawn = "timeline.rows.every(row => row.sums_ns.reduce((a, b) => a + b) === row.cells.flatMap(cell => cell[2]).reduce((sum, share) => sum + share[1], 0))";
    assert_eq!(browser.ask(drawn), true);
    let blamed =
        "data.interference.pairs.reduce((sum, pair) => sum + pair.ns, data.interference.other_ns)";
    assert_eq!(browser.ask(blamed), expected[1]);
    let delays = "data.delays.flat().reduce((sum, bucket) => sum + bucket[1], 0)";
    assert_eq!(browser.ask(delays), total(&["runqueue_delay", "count"]));
    // The timeline zooms, and says of a cell what it is.
    browser.ask("zoom(.01)");
    let part = browser.ask("(view[1] - view[0]) / window_ns");
    assert!(
        (part.as_f64().expect("a number") - 0.01).abs() < 1e-6,
        "{part}"
    );
    let culprit = "(() => { for (const row of timeline.rows) for (const cell of row.cells) if (cell[5].length) return describe(row, cell[0] + cell[1] / 2, 0); })()";
    let told = browser.ask(culprit);
    assert!(
        told.as_str()
            .is_some_and(|text| text.contains("CPU held by ")),
        "{told}"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
