//! Programs that tests start and that are not ours: found on this machine, or fetched.

use std::path::PathBuf;

use crate::toolchain::peers::{self, Prepare};
use crate::toolchain::{chromium, duckdb, manifests, pprof, prometheus};
use crate::workspace::Workspace;

/// All of them, each with the variable that tells tests where it is.
const PROGRAMS: [(&str, Prepare); 6] = [
    ("SCHEDSCOPE_PROMETHEUS", prometheus::prepare),
    ("SCHEDSCOPE_CHROMIUM", chromium::prepare),
    ("SCHEDSCOPE_DUCKDB", duckdb::prepare),
    ("SCHEDSCOPE_PPROF", pprof::prepare),
    ("SCHEDSCOPE_MANIFESTS", manifests::readers),
    ("SCHEDSCOPE_KUBECTL", manifests::kubectl),
];

/// Those that can be had. The tests that miss one say so themselves.
///
/// It waits for the network, where a build waits for the CPU: the two go well together.
pub(super) fn prepare(workspace: &Workspace) -> Vec<(&'static str, PathBuf)> {
    let found = PROGRAMS
        .iter()
        .chain(&peers::TO_CHECK_WITH)
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
