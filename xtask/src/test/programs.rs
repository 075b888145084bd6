//! Programs that tests start and that are not ours: found on this machine, or fetched.

use std::path::PathBuf;

use anyhow::Result;

use crate::toolchain::{chromium, duckdb, pprof, prometheus};
use crate::workspace::Workspace;

/// Finds or fetches a program, and returns where it is.
type Prepare = fn(&Workspace) -> Result<PathBuf>;

/// All of them, each with the variable that tells tests where it is.
const PROGRAMS: [(&str, Prepare); 4] = [
    ("SCHEDSCOPE_PROMETHEUS", prometheus::prepare),
    ("SCHEDSCOPE_CHROMIUM", chromium::prepare),
    ("SCHEDSCOPE_DUCKDB", duckdb::prepare),
    ("SCHEDSCOPE_PPROF", pprof::prepare),
];

/// Those that can be had. The tests that miss one say so themselves.
///
/// It waits for the network, where a build waits for the CPU: the two go well together.
pub(super) fn prepare(workspace: &Workspace) -> Vec<(&'static str, PathBuf)> {
    let found = PROGRAMS
        .iter()
        .map(|(variable, prepare)| (*variable, prepare(workspace)));
    let usable = found.filter_map(|(variable, found)| match found {
        Ok(path) => Some((variable, path)),
        Err(error) => {
            eprintln!("warning: what needs {variable} is not run: {error:#}");
            None
        }
    });
    usable.collect()
}
