//! Prometheus' own programs, where there are some.

use std::path::PathBuf;

/// The program of this name, where `cargo xtask test` says that they are, or on `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let told = std::env::var_os("SCHEDSCOPE_PROMETHEUS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    told.into_iter()
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}
