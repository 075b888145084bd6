//! Building and starting `schedscope`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::build;
use crate::workspace::Workspace;

/// What to start.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build without optimization, for a debugger.
    #[arg(long)]
    debug: bool,
    /// Start it through `sudo`: loading probes needs root or capabilities.
    #[arg(long)]
    sudo: bool,
    /// Arguments of `schedscope`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// `cargo xtask run`: becomes `schedscope`, so that signals and the exit code are its own.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let binary = build::build(workspace, &build::Args { debug: args.debug })?;
    let mut command = if args.sudo {
        let mut command = Command::new("sudo");
        command.arg(&binary);
        command
    } else {
        Command::new(&binary)
    };
    let error = command.args(&args.arguments).exec();
    Err(error).with_context(|| format!("can't start {}", binary.display()))
}
