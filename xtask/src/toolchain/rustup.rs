//! A rustup nightly as the compiler of the probes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{BpfToolchain, beside};
use crate::process::{capture, find, output};

/// Where rustup's component `rust-src` lies in a sysroot.
pub(crate) const SOURCE: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";

/// Whether a sysroot has the source of `core`, for `-Z build-std`.
pub(crate) fn has_source(sysroot: &Path) -> bool {
    sysroot.join(SOURCE).is_file()
}

/// What looking for a nightly led to.
pub(crate) enum Found {
    /// All is there; that the linker fits the compiler is still to be shown.
    Usable(BpfToolchain),
    /// What is missing, as a clause.
    Lacking(String),
}

/// Looks for a nightly with `rust-src`, and a `bpf-linker` on PATH.
pub(crate) fn find_toolchain() -> Result<Found> {
    let Some(rustup) = find("rustup") else {
        return Ok(Found::Lacking("there is no rustup on PATH".to_owned()));
    };
    let list = output(Command::new(&rustup).args(["toolchain", "list"]))?;
    let names = nightlies(&String::from_utf8_lossy(&list.stdout));
    if names.is_empty() {
        return Ok(Found::Lacking("rustup has no nightly".to_owned()));
    }
    for name in &names {
        let rustc = output(Command::new(&rustup).args(["which", "rustc", "--toolchain", name]))?;
        if !rustc.status.success() {
            continue;
        }
        let rustc = PathBuf::from(String::from_utf8_lossy(&rustc.stdout).trim());
        let sysroot = capture(Command::new(&rustc).args(["--print", "sysroot"]))?;
        if !has_source(Path::new(sysroot.trim())) {
            continue;
        }
        let Some(linker) = find("bpf-linker") else {
            return Ok(Found::Lacking(format!(
                "rustup's {name} has rust-src, but there is no bpf-linker on PATH"
            )));
        };
        // build-std is between a cargo and the library source of the same release.
        return Ok(Found::Usable(BpfToolchain {
            cargo: beside(&rustc, "cargo"),
            clippy: beside(&rustc, "clippy-driver"),
            origin: format!("rustup's {name} with rust-src, and {}", linker.display()),
            rustc,
            linker,
            build_std: true,
        }));
    }
    Ok(Found::Lacking(format!(
        "rustup's {} has no rust-src",
        names.join(" and ")
    )))
}

/// The nightlies in `rustup toolchain list`: the undated one first, then the newest.
fn nightlies(list: &str) -> Vec<String> {
    let mut names: Vec<String> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name == "nightly" || name.starts_with("nightly-"))
        .map(str::to_owned)
        .collect();
    let is_dated = |name: &String| name.starts_with("nightly-2");
    names.sort_by(|a, b| is_dated(a).cmp(&is_dated(b)).then_with(|| b.cmp(a)));
    names
}

#[cfg(test)]
mod tests {
    use super::nightlies;

    #[test]
    fn the_undated_nightly_comes_first_and_then_the_newest() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\n\
             nightly-2025-01-02-x86_64-unknown-linux-gnu\nnightly-x86_64-unknown-linux-gnu\n\
             nightly-2026-03-04-x86_64-unknown-linux-gnu\n1.95.0-x86_64-unknown-linux-gnu\n";
        let expected = [
            "nightly-x86_64-unknown-linux-gnu",
            "nightly-2026-03-04-x86_64-unknown-linux-gnu",
            "nightly-2025-01-02-x86_64-unknown-linux-gnu",
        ];
        assert_eq!(nightlies(list), expected);
        assert_eq!(nightlies("no installed toolchains\n"), Vec::<String>::new());
    }
}
