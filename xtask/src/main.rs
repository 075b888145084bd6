//! Project tasks: sets up what the build needs, builds, runs, tests and lints.
//!
//! `cargo xtask help` lists the tasks. Everything that a task installs lies under `target/xtask`;
//! the system is never changed. See `docs/building.md`.

mod bench;
mod booted;
mod build;
mod dist;
mod environment;
mod fuzz;
mod install;
mod lint;
#[cfg(test)]
mod manifests;
mod process;
mod run;
mod sanitize;
mod stamp;
mod test;
mod toolchain;
mod verify;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Sets up, builds, runs, tests and lints Schedscope.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what the probes and libbpf need; nothing to do the second time.
    Setup,
    /// Build the probes and, with them inside, `schedscope`.
    Build(build::Args),
    /// Build `schedscope` and start it: `cargo xtask run -- attach 1234`.
    Run(run::Args),
    /// Run every test and count: unit, property, golden, model, and as root the privileged ones.
    Test(test::Args),
    /// Check formatting, clippy on both sides, documentation and dependencies.
    Lint(lint::Args),
    /// Lint, then test: what a change must pass.
    Ci(test::Args),
    /// Make what is given away: the binary, the packages for Debian and others, man pages and completions.
    Dist(dist::Args),
    /// Install the packages in a booted systemd, and try them: scrapes, reload, watchdog, sandbox.
    Booted(booted::Args),
    /// Compare our figures with programs' own, the kernel's and other tools', and print the table.
    Verify(verify::Args),
    /// Let a fuzzer try the parts that take input from others; builds cargo-fuzz the first time.
    Fuzz(fuzz::Args),
    /// Try the ring between probes and daemon under sanitizers of memory and of threads.
    Sanitize,
    /// Try other kernels, and machines with many CPUs: Debian's kernels, booted under emulation.
    Vm(vm::Args),
    /// Measure what watching costs, beside perf, bpftrace and others, and write it into docs/overhead.md.
    Bench(bench::Args),
    /// Print the variables with which other tools build as xtask does: `eval "$(cargo xtask env)"`.
    Env,
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match cli.task {
        Task::Setup => build::set_up(&workspace)?,
        Task::Build(args) => {
            build::build(&workspace, &args)?;
        }
        Task::Run(args) => return run::run(&workspace, &args),
        Task::Test(args) => return test::test(&workspace, &args),
        Task::Lint(args) => return lint::lint(&workspace, &args),
        Task::Ci(args) => {
            let linted = lint::lint(&workspace, &lint::Args::default())?;
            let tested = test::test(&workspace, &args)?;
            return Ok(if linted == ExitCode::SUCCESS {
                tested
            } else {
                linted
            });
        }
        Task::Dist(args) => dist::dist(&workspace, &args)?,
        Task::Bench(args) => return bench::bench(&workspace, &args),
        Task::Booted(args) => return booted::booted(&workspace, &args),
        Task::Verify(args) => return verify::verify(&workspace, &args),
        Task::Fuzz(args) => return fuzz::fuzz(&workspace, &args),
        Task::Sanitize => return sanitize::sanitize(&workspace),
        Task::Vm(args) => return vm::vm(&workspace, &args),
        Task::Env => environment::print(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
