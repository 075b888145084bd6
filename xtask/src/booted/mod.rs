//! `cargo xtask booted`: the packages in a real systemd; a suite of `cargo xtask test`, too.
//!
//! A small Debian is made from Debian's archive, booted in namespaces of its own, and the package is
//! installed there, started, scraped by a real Prometheus, reloaded, wedged, stopped and purged, and
//! then the other package. The kernel is this machine's, so the probes are real, too. Process ids are those of
//! the booted machine's namespace, which the service translates.

mod checks;
mod machine;
mod neighbours;
mod root;
mod rpm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use self::checks::{CHECKS, Check};
use self::machine::Machine;
use crate::build;
use crate::dist::{self, Packages};
use crate::process::capture;
use crate::stamp;
use crate::test::libtest::Outcome;
use crate::test::suite::is_meant;
use crate::toolchain::prometheus;
use crate::toolchain::rpm::Rpm;
use crate::workspace::Workspace;

/// What to install.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Pack this `schedscope`, such as the tests' own in `target/debug`; without, one is built for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Go on to no check after the last whose name contains one of these.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// What is fetched and made once.
struct Means {
    root: PathBuf,
    rpm: Rpm,
    prometheus: PathBuf,
}

/// Runs all checks, until one fails: each builds on those before.
pub(crate) fn booted(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let outcome = match why_not() {
        Some(reason) => decline(&args.filters, &reason),
        None => {
            let binary = match &args.binary {
                Some(binary) => binary.clone(),
                None => build::build(workspace, &build::Args { debug: false })?,
            };
            run(workspace, &binary, &args.filters)
        }
    };
    for failure in &outcome.failed {
        eprintln!("failed: {failure}");
    }
    Ok(if outcome.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Why this machine can't boot one inside, if it can't.
pub(crate) fn why_not() -> Option<String> {
    machine::why_not()
}

/// Those up to the last whose name contains one of the filters; without a filter, all.
fn chosen(filters: &[String]) -> &'static [Check] {
    let last = CHECKS.iter().rposition(|(name, _)| is_meant(name, filters));
    &CHECKS[..last.map_or(0, |last| last + 1)]
}

/// None of them is run, for this reason.
pub(crate) fn decline(filters: &[String], reason: &str) -> Outcome {
    skip(chosen(filters), reason)
}

fn skip(checks: &[Check], reason: &str) -> Outcome {
    let skipped = checks.iter().map(|(name, _)| {
        println!("not run: {name}: {reason}");
        ((*name).to_owned(), reason.to_owned())
    });
    Outcome {
        skipped: skipped.collect(),
        ..Outcome::default()
    }
}

/// Packs this binary, boots, and tries all there; after a failure once more, from the start.
pub(crate) fn run(workspace: &Workspace, binary: &Path, filters: &[String]) -> Outcome {
    let checks = chosen(filters);
    if checks.is_empty() {
        return Outcome::default();
    }
    let means = match prepare(workspace) {
        Ok(means) => means,
        Err(error) => return skip(checks, &format!("{error:#}")),
    };
    let attempt = || {
        attempt(workspace, &means, binary, checks).unwrap_or_else(|error| Outcome {
            failed: vec![format!("{error:#}")],
            ..Outcome::default()
        })
    };
    let first = attempt();
    if first.failed.is_empty() {
        return first;
    }
    println!("\n== again: {}", first.failed.join(", "));
    let mut second = attempt();
    if second.failed.is_empty() {
        second.again = first.failed;
    }
    second
}

/// Fetches and makes beforehand what [`run`] needs. What it could not get, that says.
pub(crate) fn fetch(workspace: &Workspace) {
    let _ = prepare(workspace);
}

/// Two of these use no CPU at the same time for long: one waits for the network, one for the compiler.
fn prepare(workspace: &Workspace) -> Result<Means> {
    let rpm = Rpm::prepare(workspace)?;
    let prometheus = prometheus::prepare(workspace)?;
    thread::scope(|scope| {
        let root = scope.spawn(|| root::prepare(workspace));
        dist::prepare(workspace)?;
        let root = root
            .join()
            .map_err(|_| anyhow::anyhow!("making a Debian broke"))?;
        Ok(Means {
            root: root?,
            rpm,
            prometheus,
        })
    })
}

/// The directory that the machine sees as `/mnt`: the packages, and programs that are no part of it.
fn share(workspace: &Workspace, means: &Means, packages: &Packages) -> Result<PathBuf> {
    let share = workspace.tools().join("booted-share");
    stamp::empty(&share)?;
    for (from, name) in [
        (&packages.deb, "schedscope.deb"),
        (&packages.rpm, "schedscope.rpm"),
        (&means.prometheus.join("prometheus"), "prometheus"),
        (&means.prometheus.join("promtool"), "promtool"),
    ] {
        let to = share.join(name);
        fs::hard_link(from, &to)
            .or_else(|_| fs::copy(from, &to).map(drop))
            .with_context(|| format!("can't copy {}", from.display()))?;
    }
    capture(
        Command::new("cp")
            .arg("-a")
            .arg(means.rpm.dir())
            .arg(share.join("rpm")),
    )?;
    Ok(share)
}

fn attempt(
    workspace: &Workspace,
    means: &Means,
    binary: &Path,
    checks: &[Check],
) -> Result<Outcome> {
    let packages = dist::pack(workspace, binary)?;
    let share = share(workspace, means, &packages)?;
    let start = Instant::now();
    let machine = Machine::boot(
        &means.root,
        &workspace.tools().join("booted-scratch"),
        &share,
    )?;
    println!("booted in {:.1} s", start.elapsed().as_secs_f64());
    let mut outcome = Outcome::default();
    for (number, (name, check)) in checks.iter().enumerate() {
        let start = Instant::now();
        let result = check(&machine);
        let took = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("passed: {name} ({took:.1} s)");
                outcome.passed += 1;
            }
            Err(error) => {
                println!("failed: {name}: {error:#}");
                if let Ok(journal) = machine.run("journalctl -u schedscope --no-pager -n 40") {
                    println!("{journal}");
                }
                outcome.failed.push((*name).to_owned());
                let rest = skip(&checks[number + 1..], "one before it failed");
                outcome.skipped.extend(rest.skipped);
                break;
            }
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::{CHECKS, chosen};

    #[test]
    fn checks_that_others_build_on_are_run_with_them() {
        assert_eq!(chosen(&[]).len(), CHECKS.len());
        let last = |filter: &str| chosen(&[filter.to_owned()]).last().map(|(name, _)| *name);
        assert_eq!(
            last("Prometheus"),
            Some("a real Prometheus scrapes it"),
            "its name"
        );
        assert!(chosen(&["Prometheus".to_owned()]).len() > 1);
        assert_eq!(last("no such check"), None);
    }
}
