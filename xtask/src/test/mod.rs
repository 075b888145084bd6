//! `cargo xtask test`: every test of the workspace, counted.
//!
//! Cargo builds the test binaries; xtask runs them itself, so that each is judged by its own list
//! of tests, has a time limit, and is run the way it needs: binaries whose name starts with
//! `privileged_` as root, one test at a time, or not at all, and then each of their tests is
//! reported as not run.
//!
//! A test that finds that this host can't run it prints `not run: NAME: REASON` and returns; it
//! counts as skipped.

mod instructions;
pub(crate) mod libtest;
pub(crate) mod privileges;
mod programs;
pub(crate) mod suite;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::libtest::Outcome;
use self::suite::{Settings, Suite};
use crate::booted;
use crate::build::{self, Tools};
use crate::workspace::Workspace;

/// Name of binaries that need root and a kernel that takes probes.
const PRIVILEGED_PREFIX: &str = "privileged_";

/// Which tests to run, and how.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only suites whose name contains this.
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// Run only tests whose name contains one of these.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Stop a suite that takes longer, and count it as failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

/// A suite's name with what came of it.
struct Report {
    name: String,
    outcome: Outcome,
    took: Duration,
}

/// Runs the tests; success means that some passed and none failed.
pub(crate) fn test(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let tools = Tools::prepare(workspace)?;
    eprintln!("probes: {}", tools.bpf.origin);
    build::build_probes(workspace, &tools.bpf)?;

    let unable = privileges::why_not();
    let is_wanted = |name: &str| {
        args.suite
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    };
    let (programs, mut suites) = if args.suite.as_deref() == Some(suite::INSTRUCTIONS) {
        // It needs none of the other binaries, whose building takes minutes.
        (Vec::new(), vec![Suite::Instructions])
    } else {
        let boots = unable.is_none() && is_wanted(suite::BOOTED) && booted::why_not().is_none();
        let (programs, suites) = thread::scope(|scope| {
            let programs = scope.spawn(|| {
                let programs = programs::prepare(workspace);
                if boots {
                    booted::fetch(workspace);
                }
                programs
            });
            let suites = suite::of_workspace(workspace, &tools);
            (programs.join(), suites)
        });
        let Ok(programs) = programs else {
            bail!("the search for the programs that tests start has panicked");
        };
        (programs, suites?)
    };
    suites.retain(|suite| is_wanted(suite.name()));
    suites.sort_by_key(|suite| (suite.is_privileged(), suite.name().to_owned()));
    let settings = Settings {
        workspace,
        tools: &tools,
        filters: &args.filters,
        timeout: Duration::from_secs(args.timeout),
        programs: &programs,
    };
    let reports = run(&suites, &settings, unable.as_deref())?;
    let failed = reports
        .iter()
        .any(|report| !report.outcome.failed.is_empty());
    let passed = reports.iter().any(|report| report.outcome.passed > 0);
    if !passed && !failed {
        eprintln!("error: no test was run");
    }
    // The totals are the last line, whatever happened.
    print!("{}", summarize(&reports));
    Ok(if passed && !failed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the suites one after the other; but those that nothing disturbs beside the others, until one comes that
/// they would disturb.
fn run(suites: &[Suite], settings: &Settings<'_>, unable: Option<&str>) -> Result<Vec<Report>> {
    let (beside, others): (Vec<&Suite>, Vec<&Suite>) =
        suites.iter().partition(|suite| suite.is_undisturbed());
    let report = |suite: &Suite| {
        let start = Instant::now();
        let unable = unable.filter(|_| suite.is_privileged());
        let (outcome, text) = suite.run(settings, unable)?;
        if !text.is_empty() {
            println!("\n== {}\n{text}", suite.name());
        }
        Ok(Report {
            name: suite.name().to_owned(),
            outcome,
            took: start.elapsed(),
        })
    };
    thread::scope(|scope| {
        let mut counting = Some(scope.spawn(|| {
            let reports = beside.into_iter().map(report);
            reports.collect::<Result<Vec<_>>>()
        }));
        let mut counted = || match counting.take().map(thread::ScopedJoinHandle::join) {
            None => Ok(Vec::new()),
            Some(Ok(reports)) => reports,
            Some(Err(_)) => bail!("a suite beside the others has panicked"),
        };
        let mut reports = Vec::new();
        for suite in others {
            if suite.needs_quiet() {
                reports.extend(counted()?);
            }
            println!("\n== {}", suite.name());
            reports.push(report(suite)?);
        }
        reports.extend(counted()?);
        Ok(reports)
    })
}

/// The table of suites, then every test that was not run or failed, then the totals on a line.
fn summarize(reports: &[Report]) -> String {
    let mut text = String::new();
    let width = reports
        .iter()
        .map(|report| report.name.len())
        .max()
        .unwrap_or(0)
        .max(5);
    let mut line = |cells: &[&str; 5]| {
        let [name, passed, failed, skipped, took] = cells;
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{name:<width$} {passed:>7} {failed:>7} {skipped:>7} {took:>9}"
        );
    };
    line(&["\nsuite", "passed", "failed", "skipped", "time"]);
    let mut totals = [0; 3];
    for Report {
        name,
        outcome,
        took,
    } in reports
    {
        let counts = [outcome.passed, outcome.failed.len(), outcome.skipped.len()];
        let [passed, failed, skipped] = counts.map(|count| count.to_string());
        line(&[
            name,
            &passed,
            &failed,
            &skipped,
            &format!("{:.1} s", took.as_secs_f64()),
        ]);
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
    }
    text.push('\n');
    for Report {
        name: suite,
        outcome,
        ..
    } in reports
    {
        for (name, reason) in &outcome.skipped {
            let _ = writeln!(text, "not run: {name}: {reason} ({suite})");
        }
    }
    for Report {
        name: suite,
        outcome,
        ..
    } in reports
    {
        for name in &outcome.failed {
            let _ = writeln!(text, "failed: {suite}: {name}");
        }
    }
    for Report {
        name: suite,
        outcome,
        ..
    } in reports
    {
        for name in &outcome.again {
            let _ = writeln!(text, "passed only when run again: {suite}: {name}");
        }
    }
    let [passed, failed, skipped] = totals;
    let _ = writeln!(text, "{passed} passed, {failed} failed, {skipped} skipped");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_summary_is_the_plain_total() {
        let report = |name: &str, passed, failed: &[&str], skipped: &[(&str, &str)]| Report {
            name: name.to_owned(),
            outcome: Outcome {
                passed,
                failed: failed.iter().map(|name| (*name).to_owned()).collect(),
                skipped: skipped
                    .iter()
                    .map(|(name, reason)| ((*name).to_owned(), (*reason).to_owned()))
                    .collect(),
                again: vec!["flickers".to_owned(); usize::from(name == "core")],
            },
            took: Duration::from_millis(1234),
        };
        let text = summarize(&[
            report("core", 7, &[], &[]),
            report("privileged_ring", 1, &["wraps"], &[("storm", "one CPU")]),
        ]);
        assert!(text.ends_with(
            "\nnot run: storm: one CPU (privileged_ring)\nfailed: privileged_ring: wraps\n\
             passed only when run again: core: flickers\n\
             8 passed, 1 failed, 1 skipped\n"
        ));
        assert!(
            text.contains("\ncore                  7       0       0     1.2 s\n"),
            "{text}"
        );
    }
}
