//! `cargo xtask booted`: the package in a real systemd.
//!
//! A small Debian is made from Debian's archive, booted in namespaces of its own, and the package is
//! installed there, started, scraped by a real Prometheus, reloaded, wedged, stopped and purged. The
//! kernel is this machine's, so the probes are real, too. Process ids of the service are those of its
//! namespace and not the kernel's, so names of units are not looked at here.

mod checks;
mod machine;
mod root;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use self::checks::CHECKS;
use self::machine::Machine;
use crate::dist;
use crate::stamp;
use crate::workspace::Workspace;

/// What to install.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take this package; without, `cargo xtask dist` makes one.
    #[arg(long, value_name = "FILE")]
    deb: Option<PathBuf>,
}

/// Runs all checks, until one fails: each builds on those before.
pub(crate) fn booted(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if let Some(why) = machine::why_not() {
        for (name, _) in CHECKS {
            println!("not run: {name}: {why}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let deb = match &args.deb {
        Some(deb) => deb.clone(),
        None => dist::package(workspace)?,
    };
    let root = root::prepare(workspace)?;
    let share = workspace.tools().join("booted-share");
    stamp::empty(&share)?;
    fs::copy(&deb, share.join("schedscope.deb"))
        .with_context(|| format!("can't copy {}", deb.display()))?;
    let start = Instant::now();
    let machine = Machine::boot(&root, &workspace.tools().join("booted-scratch"), &share)?;
    println!("booted in {:.1} s", start.elapsed().as_secs_f64());
    for (number, (name, check)) in CHECKS.iter().enumerate() {
        let start = Instant::now();
        let result = check(&machine);
        let took = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("passed: {name} ({took:.1} s)"),
            Err(error) => {
                println!("failed: {name}: {error:#}");
                if let Ok(journal) = machine.run("journalctl -u schedscope --no-pager -n 40") {
                    println!("{journal}");
                }
                for (name, _) in &CHECKS[number + 1..] {
                    println!("not run: {name}: one before it failed");
                }
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
