//! `cargo xtask verify`: our figures against those of others, as a table.
//!
//! What is compared, and how, is in `profiler-daemon/tests/verify`; here that program is
//! built, and given what it compares with.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::build::{self, Tools, build_probes};
use crate::process::run;
use crate::test::privileges;
use crate::toolchain::peers;
use crate::workspace::Workspace;

/// What to compare.
#[derive(clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
pub(crate) struct Args {
    /// Only on a machine that does nothing else; on both kinds without either flag.
    #[arg(long, conflicts_with = "busy")]
    quiet: bool,
    /// Only with one CPU busy with something else.
    #[arg(long)]
    busy: bool,
    /// A minute instead of several.
    #[arg(long)]
    short: bool,
    /// Only experiments whose names hold this; `--list` has the names.
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// Print what experiments there are.
    #[arg(long)]
    list: bool,
    /// Judge a build without optimization, as the tests do.
    #[arg(long)]
    debug: bool,
}

/// Builds, compares, and fails unless everything agrees.
pub(crate) fn verify(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if let Some(reason) = privileges::why_not().filter(|_| !args.list) {
        bail!("nothing can be compared: {reason}");
    }
    let binary = build::build(workspace, &build::Args { debug: args.debug })?;
    // The programs that compare and are measured come as tests have them.
    let tools = Tools::prepare(workspace)?;
    build_probes(workspace, &tools.bpf)?;
    let mut cargo = tools.cargo(workspace)?;
    cargo.args(["build", "--package=profiler-daemon"]);
    run(cargo.args(["--example=workload", "--example=verify"]))?;
    let examples = workspace.target().join("debug/examples");
    let mut program = Command::new(examples.join("verify"));
    program.arg("--schedscope").arg(binary);
    program.arg("--dir").arg(workspace.target());
    let flags = [
        ("--quiet", args.quiet),
        ("--busy", args.busy),
        ("--short", args.short),
        ("--list", args.list),
    ];
    program.args(flags.iter().filter(|flag| flag.1).map(|flag| flag.0));
    if let Some(part) = &args.only {
        program.arg("--only").arg(part);
    }
    for (variable, prepare) in peers::TO_CHECK_WITH {
        match prepare(workspace) {
            Ok(path) => {
                program.env(variable, path);
            }
            Err(error) => eprintln!("warning: what needs {variable} is not run: {error:#}"),
        }
    }
    let status = program
        .status()
        .with_context(|| format!("can't start {}", examples.join("verify").display()))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
