//! `cargo xtask fuzz`: libFuzzer on the targets in `profiler-daemon/fuzz`.
//!
//! cargo-fuzz knows the flags with which a fuzzer is built, and compiles; xtask starts what comes of that
//! itself, so that it can count. The stable compiler does, if it is told that it is allowed to.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::build::{self, Tools};
use crate::install;
use crate::process::{describe, find, run};
use crate::workspace::Workspace;

/// The version of cargo-fuzz that is built.
const VERSION: &str = "0.13.2";

/// Where the targets are, from the root of the checkout.
const CRATE: &str = "profiler-daemon/fuzz";

/// Longest input that is tried, in bytes: what is longer finds nothing else, only later.
const MOST_BYTES: usize = 4096;

/// One input may take so long, in seconds, and so much memory, in MiB.
const SLOWEST: u32 = 10;
const LARGEST: u32 = 1024;

/// What to fuzz, and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets [default: all].
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Time for each target [default: 1m, or without end if there is a number of executions].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Executions of each target; with a time, what comes first.
    #[arg(long, value_name = "COUNT")]
    runs: Option<u64>,
    /// Put what has been found worth keeping into the corpus in the repository, as few inputs as reach the same code.
    #[arg(long)]
    merge: bool,
    /// `none` for speed, or `address`, which sees wrong accesses to memory as well.
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = ["none", "address"])]
    sanitizer: String,
}

/// What came of one target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    executions: u64,
    /// Edges of the program that were taken.
    covered: u64,
    /// Where the input is that broke a promise, and the last lines that were printed.
    finding: Option<String>,
}

/// Builds the targets and runs them, one after the other.
pub(crate) fn fuzz(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let all = targets(workspace)?;
    for wanted in &args.targets {
        ensure!(
            all.contains(wanted),
            "there is no target {wanted}: there are {}",
            all.join(", ")
        );
    }
    let is_wanted = |name: &&String| args.targets.is_empty() || args.targets.contains(name);
    let wanted: Vec<&String> = all.iter().filter(is_wanted).collect();
    let programs = build(workspace, &args.sanitizer)?;
    let mut rows = Vec::new();
    for name in wanted {
        let places = Places::of(workspace, name)?;
        let program = programs.join(name);
        if args.merge {
            merge(&program, &places)?;
        }
        println!("== {name}");
        let start = Instant::now();
        let outcome = one(&program, &places, args)?;
        if let Some(finding) = &outcome.finding {
            println!("{finding}");
        }
        rows.push((name.as_str(), outcome, start.elapsed()));
    }
    print!("{}", table(&rows));
    let is_clean = rows.iter().all(|row| row.1.finding.is_none());
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Directories of a target.
struct Places {
    /// Inputs that are in the repository.
    kept: PathBuf,
    /// Those that were found here.
    found: PathBuf,
    /// Those that broke something.
    broken: PathBuf,
}

impl Places {
    fn of(workspace: &Workspace, target: &str) -> Result<Self> {
        let ours = workspace.tools().join("fuzz");
        let places = Self {
            kept: workspace.root().join(CRATE).join("corpus").join(target),
            found: ours.join("corpus").join(target),
            broken: ours.join("findings").join(target),
        };
        for dir in [&places.kept, &places.found, &places.broken] {
            fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
        }
        Ok(places)
    }
}

/// Names of all targets: each has a file.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let dir = workspace.root().join(CRATE).join("fuzz_targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("can't read {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds all targets; returns the directory that they lie in.
fn build(workspace: &Workspace, sanitizer: &str) -> Result<PathBuf> {
    ensure!(
        find("c++").is_some(),
        "no C++ compiler, which libFuzzer is built with: on Debian, apt-get install g++"
    );
    let tools = Tools::prepare(workspace)?;
    // The daemon's build script embeds them.
    build::build_probes(workspace, &tools.bpf)?;
    let cargo_fuzz = install::cargo_program(workspace, "cargo-fuzz", VERSION)?;
    let target_dir = workspace.tools().join("fuzz").join(sanitizer);
    let mut command = Command::new(cargo_fuzz);
    command
        .current_dir(workspace.root())
        .args(["build", "--release", "--fuzz-dir", CRATE])
        .args(["--sanitizer", sanitizer])
        .arg("--target-dir")
        .arg(&target_dir)
        .envs(tools.elf.variables()?)
        .env("RUSTC_BOOTSTRAP", "1");
    run(&mut command).context("the targets don't build")?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(target_dir.join(target).join("release"))
}

/// Runs one target.
fn one(program: &Path, places: &Places, args: &Args) -> Result<Outcome> {
    let mut command = started(program, places);
    if let Some(runs) = args.runs {
        command.arg(format!("-runs={runs}"));
    }
    let usual = args.runs.is_none().then_some(Duration::from_mins(1));
    if let Some(time) = args.time.or(usual) {
        command.arg(format!("-max_total_time={}", time.as_secs().max(1)));
    }
    command.arg(&places.found).arg(&places.kept);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start `{}`", describe(&command)))?;
    let output = child.stderr.take().context("it has an output")?;
    let mut outcome = Outcome::default();
    let mut last = VecDeque::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("the fuzzer can't be read")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        outcome.take(&line);
        if last.len() == 40 {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait().context("the fuzzer is gone")?;
    if !status.success() {
        let said: Vec<String> = last.into();
        outcome.finding = Some(format!(
            "{}\nfound: the input lies in {}; copy it to {} once it is mended",
            said.join("\n"),
            places.broken.display(),
            places.kept.display(),
        ));
    }
    Ok(outcome)
}

/// Replaces the inputs in the repository by as few of all that there are as reach the same code.
fn merge(program: &Path, places: &Places) -> Result<()> {
    let merged = places.found.with_extension("merged");
    crate::stamp::empty(&merged)?;
    let mut command = started(program, places);
    command
        .args(["-set_cover_merge=1", "-use_counters=0"])
        .arg(&merged)
        .args([&places.kept, &places.found])
        .stderr(Stdio::null());
    run(&mut command)?;
    fs::remove_dir_all(&places.kept)
        .and_then(|()| fs::rename(&merged, &places.kept))
        .with_context(|| format!("can't replace {}", places.kept.display()))
}

fn started(program: &Path, places: &Places) -> Command {
    let mut command = Command::new(program);
    command
        .arg(format!("-artifact_prefix={}/", places.broken.display()))
        .arg(format!("-max_len={MOST_BYTES}"))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-rss_limit_mb={LARGEST}"))
        .args(["-print_final_stats=1", "-detect_leaks=0"]);
    command
}

impl Outcome {
    /// Reads a line of libFuzzer's.
    fn take(&mut self, line: &str) {
        // #12345  NEW    cov: 2101 ft: 9123 corp: 512/31Kb lim: 4096 exec/s: 5121 rss: 88Mb
        let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
        if let Some(rest) = line.strip_prefix('#') {
            let mut words = rest.split_ascii_whitespace();
            self.executions = number(words.next()).unwrap_or(self.executions);
            if words.by_ref().any(|word| word == "cov:") {
                self.covered = number(words.next()).unwrap_or(self.covered);
            }
        } else if let Some(rest) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number(Some(rest.trim())).unwrap_or(self.executions);
        }
    }
}

/// What came of all targets.
fn table(rows: &[(&str, Outcome, Duration)]) -> String {
    let mut text = format!(
        "\n{:<12}{:>14}{:>10}{:>12}{:>10}\n",
        "target", "executions", "seconds", "per second", "edges"
    );
    for (name, outcome, took) in rows {
        let seconds = took.as_secs_f64();
        let rate = outcome.executions as f64 / seconds.max(0.001);
        let finding = if outcome.finding.is_some() {
            "  FOUND"
        } else {
            ""
        };
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{name:<12}{:>14}{seconds:>10.0}{rate:>12.0}{:>10}{finding}",
            outcome.executions, outcome.covered
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn the_fuzzers_lines_are_read() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: seed corpus: files: 7",
            "#8\tINITED cov: 101 ft: 102 corp: 7/31b exec/s: 0 rss: 40Mb",
            "#4096\tpulse  cov: 120 ft: 201 corp: 9/40b lim: 4 exec/s: 2048 rss: 41Mb",
            "stat::number_of_executed_units: 5000",
            "#thing cov: x",
        ] {
            outcome.take(line);
        }
        let expected = Outcome {
            executions: 5000,
            covered: 120,
            finding: None,
        };
        assert_eq!(outcome, expected);
    }
}
