//! `DuckDB`, with which a test asks a table of spans for its sums: the Python package, unpacked, behind a
//! script that takes what the program of that name takes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::wrapper::write_script;
use crate::process::{capture, find};
use crate::stamp;
use crate::workspace::Workspace;

const PROGRAM: &str = "duckdb";
const RECIPE: &str = "duckdb's Python package, 1\n";

/// Answers `duckdb -json -c SQL`.
const SCRIPT: &str = r#"#!/bin/sh
dir=$(dirname "$(readlink -f "$0")")
PYTHONPATH="$dir/site" exec python3 -c '
import json, sys, duckdb
answer = duckdb.sql(sys.argv[3])
names = answer.columns
print(json.dumps([dict(zip(names, row)) for row in answer.fetchall()]))' "$@"
"#;

/// The program, found on `PATH` or fetched.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(program) = find(PROGRAM) {
        return Ok(program);
    }
    let dir = workspace.tools().join(PROGRAM);
    if !stamp::is_current(&dir, RECIPE) {
        ensure!(find("python3").is_some(), "this machine has no Python");
    }
    stamp::ensure(&dir, RECIPE, |dir| {
        eprintln!("fetching duckdb's Python package for the tests (20 MB)");
        let site = dir.join("site");
        stamp::empty(&site)?;
        let mut install = Command::new("python3");
        install
            .args(["-m", "pip", "install", "--quiet", "--no-deps"])
            .args(["--disable-pip-version-check", "--no-input"])
            .args(["--only-binary", ":all:", "--target"])
            .arg(&site)
            .arg("duckdb>=1.1");
        capture(&mut install).context("pip can't fetch duckdb")?;
        write_script(dir, PROGRAM, SCRIPT)?;
        capture(Command::new(dir.join(PROGRAM)).args(["-json", "-c", "select 1"]))
            .context("the fetched duckdb does not answer")?;
        Ok(())
    })?;
    Ok(dir.join(PROGRAM))
}
