//! Starting other programs, with errors that name them.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// A command as one would type it, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Runs a command on xtask's own terminal; an error unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't start `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed; if it fails, the error carries its messages.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}",
            describe(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command without a terminal and returns all of it, whether it succeeds or not.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start `{}`", describe(command)))
}

/// The program of this name that a shell would start.
pub(crate) fn find(program: impl AsRef<Path>) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(program.as_ref()))
        .find(|path| path.is_file())
}

/// A search path with `dir` in front of (or without `last`, behind) what it was.
pub(crate) fn join_path(dir: &Path, rest: Option<&OsStr>) -> Result<std::ffi::OsString> {
    let rest = rest.map(env::split_paths).into_iter().flatten();
    env::join_paths(std::iter::once(dir.to_path_buf()).chain(rest.filter(|path| path != dir)))
        .with_context(|| format!("{} can't be part of a search path", dir.display()))
}
