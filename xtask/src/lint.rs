//! `cargo xtask lint`: formatting, clippy on both sides, documentation, dependencies.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::build::{self, Tools};
use crate::install;
use crate::process::{capture, find, run};
use crate::workspace::Workspace;

/// The version of cargo-deny that `--install-deny` builds.
const DENY_VERSION: &str = "0.20.2";
/// The targets of the fuzzer are a workspace of their own. What they share with a test is linted with that.
const FUZZ: &str = "--manifest-path=profiler-daemon/fuzz/Cargo.toml";
/// What keeps a file readable; a longer one wants to be two.
const MAX_LINES: usize = 700;

/// How to lint.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Build cargo-deny into `target/xtask` first, if this machine has none (about a minute).
    #[arg(long)]
    install_deny: bool,
    /// Also look for advisories, for which cargo-deny fetches RustSec's list from GitHub.
    #[arg(long)]
    advisories: bool,
}

/// What came of a check.
enum Outcome {
    Passed,
    Failed(String),
    NotRun(String),
}

/// Runs all checks, also after one has failed.
pub(crate) fn lint(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let tools = Tools::prepare(workspace)?;
    // The daemon's build script embeds them, and clippy runs it.
    build::build_probes(workspace, &tools.bpf)?;
    let mut deny_checks = vec!["bans", "licenses", "sources"];
    if args.advisories {
        deny_checks.push("advisories");
    }
    let checks = thread::scope(|scope| {
        // Building cargo-deny has a minute in which clippy can use the other CPUs.
        let dependencies = scope.spawn(|| dependencies(workspace, args.install_deny, &deny_checks));
        [
            ("formatting", format(workspace)),
            ("lock file", checked(lock_file(workspace))),
            ("file lengths", checked(file_lengths(workspace.root()))),
            ("clippy", checked(clippy(workspace, &tools))),
            ("clippy for the probes", clippy_probes(workspace, &tools)),
            ("documentation", checked(documentation(workspace, &tools))),
            (
                "dependencies",
                dependencies
                    .join()
                    .unwrap_or_else(|_| Outcome::Failed("the check has panicked".to_owned())),
            ),
        ]
    });
    println!();
    let mut failed = false;
    for (name, outcome) in &checks {
        match outcome {
            Outcome::Passed => println!("passed: {name}"),
            Outcome::Failed(why) => println!("failed: {name}: {why}"),
            Outcome::NotRun(why) => println!("not run: {name}: {why}"),
        }
        failed |= matches!(outcome, Outcome::Failed(_));
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn checked(result: Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn format(workspace: &Workspace) -> Outcome {
    if find("cargo-fmt").is_none() {
        return Outcome::Failed("no rustfmt: rustup component add rustfmt".to_owned());
    }
    let all = run(workspace.cargo().args(["fmt", "--all", "--check"]));
    let fuzz = || run(workspace.cargo().args(["fmt", "--check", FUZZ]));
    checked(all.and_then(|()| fuzz()).context("run `cargo fmt --all`"))
}

/// Checks that `Cargo.lock` says all that the manifests ask for, so that every machine builds the
/// same.
fn lock_file(workspace: &Workspace) -> Result<()> {
    let metadata = ["metadata", "--locked", "--format-version=1"];
    capture(workspace.cargo().args(metadata))
        .and_then(|_| capture(workspace.cargo().args(metadata).arg(FUZZ)))
        .map(drop)
        .context("commit Cargo.lock")
}

/// Checks that no source file has outgrown what one reads in a sitting.
fn file_lengths(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for package in ["profiler-daemon", "profiler-ebpf", "xtask"] {
        source_files(&root.join(package), &mut files)?;
    }
    ensure!(
        !files.is_empty(),
        "no source files under {}",
        root.display()
    );
    let too_long: Vec<String> = files
        .into_iter()
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{path} has {lines} lines"))
        .collect();
    ensure!(
        too_long.is_empty(),
        "at most {MAX_LINES} lines, but {}",
        too_long.join(", ")
    );
    Ok(())
}

fn source_files(dir: &Path, files: &mut Vec<(String, usize)>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("can't read {}", dir.display()))?
            .path();
        if path.is_dir() {
            source_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("can't read {}", path.display()))?;
            files.push((path.display().to_string(), text.lines().count()));
        }
    }
    Ok(())
}

fn clippy(workspace: &Workspace, tools: &Tools) -> Result<()> {
    if find("cargo-clippy").is_none() {
        bail!("no clippy: rustup component add clippy");
    }
    let mut cargo = tools.cargo(workspace)?;
    run(cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// The probes need the clippy of the compiler that has a `core` for BPF.
fn clippy_probes(workspace: &Workspace, tools: &Tools) -> Outcome {
    let bpf = &tools.bpf;
    let Some(clippy) = &bpf.clippy else {
        return Outcome::NotRun(format!(
            "there is no clippy-driver beside {}",
            bpf.rustc.display()
        ));
    };
    let mut cargo = bpf.cargo(
        workspace.root(),
        &workspace.tools().join("probes-lint"),
        &["-Dwarnings"],
    );
    cargo
        .args([
            "check",
            "--package=profiler-ebpf",
            "--bin=schedscope-probes",
        ])
        .args(["--features=probes", "--profile=probes"])
        .args(bpf.target_arguments())
        .env("RUSTC_WORKSPACE_WRAPPER", clippy);
    checked(run(&mut cargo))
}

fn documentation(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let mut cargo = tools.cargo(workspace)?;
    run(cargo
        .args([
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])
        .env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        ))
}

fn dependencies(workspace: &Workspace, install: bool, checks: &[&str]) -> Outcome {
    let program = workspace.tools().join("cargo-deny/bin/cargo-deny");
    let program = match find("cargo-deny") {
        Some(program) => program,
        None if install => match install::cargo_program(workspace, "cargo-deny", DENY_VERSION) {
            Ok(program) => program,
            Err(error) => return Outcome::Failed(format!("{error:#}")),
        },
        None if program.is_file() => program,
        None => {
            return Outcome::NotRun(
                "no cargo-deny on PATH; `cargo xtask lint --install-deny` builds one".to_owned(),
            );
        }
    };
    let mut deny = Command::new(&program);
    deny.current_dir(workspace.root())
        .args(["--workspace", "check", "--hide-inclusion-graph"]);
    checked(run(deny.args(checks)).context("see deny.toml"))
}
