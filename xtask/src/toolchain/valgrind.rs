//! Debian's Valgrind, by which instructions are counted.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::download::Apt;
use super::wrapper::write_script;
use crate::process::{capture, find};
use crate::stamp;
use crate::workspace::Workspace;

const PROGRAM: &str = "valgrind";
const RECIPE: &str = "Debian's valgrind, 1\n";

/// Debian's own script looks for the program where it would be installed.
const SCRIPT: &str = "#!/bin/sh\n\
    root=$(dirname \"$(readlink -f \"$0\")\")/root\n\
    export VALGRIND_LIB=\"$root/usr/libexec/valgrind\"\n\
    [ -d \"$VALGRIND_LIB\" ] || export VALGRIND_LIB=$(echo \"$root\"/usr/lib/*/valgrind)\n\
    exec \"$root/usr/bin/valgrind.bin\" \"$@\"\n";

/// The program, found on `PATH` or fetched.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(program) = find(PROGRAM) {
        return Ok(program);
    }
    let dir = workspace.tools().join(PROGRAM);
    if !stamp::is_current(&dir, RECIPE) {
        ensure!(Apt::is_available(), "this machine has no apt");
    }
    stamp::ensure(&dir, RECIPE, |dir| {
        eprintln!("fetching Debian's valgrind to count instructions (15 MB)");
        let root = dir.join("root");
        stamp::empty(&root)?;
        // What it depends on is the C library.
        Apt::open(&workspace.tools().join("apt"))?.unpack_only(&[PROGRAM], &root)?;
        write_script(dir, PROGRAM, SCRIPT)?;
        capture(Command::new(dir.join(PROGRAM)).args(["--tool=callgrind", "--version"]))
            .context("the unpacked valgrind does not start")?;
        Ok(())
    })?;
    Ok(dir.join(PROGRAM))
}
