//! `pprof`, the program that profiles are made for: Go's own, out of Debian's package of Go.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::download::Apt;
use crate::process::find;
use crate::stamp;
use crate::workspace::Workspace;

const PROGRAM: &str = "pprof";
/// The packages of Debian 12 and 13 that have it ready to run.
const PACKAGES: [&str; 2] = ["golang-1.19-go", "golang-1.24-go"];
const RECIPE: &str = "pprof of Debian's Go, 1\n";

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
        eprintln!(
            "fetching pprof for the tests, in Debian's package of Go (45 MB; 14 MB are kept)"
        );
        let root = dir.join("root");
        stamp::empty(&root)?;
        let apt = Apt::open(&workspace.tools().join("apt"))?;
        unpack_one(&apt, &root)?;
        let found = find_below(&root)?;
        let kept = dir.join(PROGRAM);
        fs::rename(&found, &kept).with_context(|| format!("can't move {}", found.display()))?;
        fs::remove_dir_all(&root).with_context(|| format!("can't remove {}", root.display()))
    })?;
    Ok(dir.join(PROGRAM))
}

/// Unpacks the first of the packages that this Debian has.
fn unpack_one(apt: &Apt, root: &Path) -> Result<()> {
    let mut failure = None;
    for package in PACKAGES {
        match apt.unpack_only(&[package], root) {
            Ok(()) => return Ok(()),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => bail!("no package has pprof"),
    }
}

/// The program among the tools of Go: `usr/lib/go-1.19/pkg/tool/linux_amd64/pprof`.
fn find_below(root: &Path) -> Result<PathBuf> {
    let mut places = vec![root.join("usr/lib")];
    while let Some(place) = places.pop() {
        let entries =
            fs::read_dir(&place).with_context(|| format!("can't read {}", place.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let is_program = entry.file_name() == PROGRAM
                && path.components().any(|part| part.as_os_str() == "tool");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => places.push(path),
                Ok(kind) if kind.is_file() && is_program => return Ok(path),
                _ => {}
            }
        }
    }
    bail!("the package of Go has no pprof")
}
