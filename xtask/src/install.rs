//! Cargo programs that tasks need, built once below `target/xtask`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::run;
use crate::stamp;
use crate::workspace::Workspace;

/// Builds a program of this name and version, without its default features, unless that has been done.
/// Returns where it is.
pub(crate) fn cargo_program(workspace: &Workspace, name: &str, version: &str) -> Result<PathBuf> {
    let dir = workspace.tools().join(name);
    let recipe = format!("{name} {version}, quick build, 1\n");
    stamp::ensure(&dir, &recipe, |dir| {
        eprintln!("building {name} {version}, once (about a minute)");
        let build = workspace.tools().join(format!("{name}-build"));
        run(workspace
            .cargo()
            .args(["install", "--quiet", "--locked", "--no-default-features"])
            .arg(format!("{name}@{version}"))
            .arg("--root")
            .arg(dir)
            .arg("--target-dir")
            .arg(&build)
            // Such programs have little to do: what counts is how soon they are there.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0"))?;
        fs::remove_dir_all(&build).with_context(|| format!("can't remove {}", build.display()))
    })?;
    Ok(dir.join("bin").join(name))
}
