//! Debian's Prometheus with its `promtool`, which tests scrape and check with.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::download::Apt;
use crate::process::find;
use crate::stamp;
use crate::workspace::Workspace;

const PACKAGES: &[&str] = &["prometheus"];
const RECIPE: &str = "Debian's prometheus, 1\n";
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// The directory that has both programs, found on `PATH` or fetched.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let found = find(PROGRAMS[0]).and_then(|path| Some(path.parent()?.to_path_buf()));
    if let Some(dir) = found.filter(|dir| dir.join(PROGRAMS[1]).is_file()) {
        return Ok(dir);
    }
    let dir = workspace.tools().join("prometheus");
    if !stamp::is_current(&dir, RECIPE) {
        ensure!(Apt::is_available(), "this machine has no apt");
    }
    stamp::ensure(&dir, RECIPE, |dir| {
        eprintln!("fetching Debian's prometheus for the tests");
        let root = dir.join("root");
        stamp::empty(&root)?;
        Apt::open(&workspace.tools().join("apt"))?.unpack(PACKAGES, &root)?;
        for program in PROGRAMS {
            let path = root.join("usr/bin").join(program);
            ensure!(path.is_file(), "the package has no {}", path.display());
        }
        Ok(())
    })?;
    Ok(dir.join("root/usr/bin"))
}
