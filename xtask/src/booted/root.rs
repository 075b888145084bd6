//! A small Debian with systemd, made from Debian's archive below `target/xtask`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{capture, find};
use crate::stamp;
use crate::toolchain::download::Apt;
use crate::workspace::Workspace;

/// Beside what every Debian has: what the package depends on, and what boots it. Everything else comes from
/// outside: Prometheus' dependencies alone have 300 MB of scripts for browsers.
const PACKAGES: &str = "procps,systemd,systemd-sysv,dbus";

/// The directory of the system (180 MB); made once, in some 30 seconds.
pub(super) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let dir = workspace.tools().join("booted");
    let suite = suite()?;
    let recipe = format!("{suite} with {PACKAGES}, 2\n");
    stamp::ensure(&dir, &recipe, |dir| {
        eprintln!("making a Debian {suite} with {PACKAGES}, once (half a minute)");
        let mmdebstrap = match find("mmdebstrap") {
            Some(program) => program,
            None => {
                let tools = dir.join("mmdebstrap");
                Apt::open(&workspace.tools().join("apt"))?.unpack_only(&["mmdebstrap"], &tools)?;
                tools.join("usr/bin/mmdebstrap")
            }
        };
        capture(
            Command::new(mmdebstrap)
                .args(["--quiet", "--mode=root", "--variant=essential"])
                .arg(format!("--include={PACKAGES}"))
                .args(["--format=directory", &suite])
                .arg(dir.join("root")),
        )
        .context("can't make a Debian from its archive")
        .map(drop)
    })?;
    Ok(dir.join("root"))
}

/// The Debian that the package is built on, since it needs a C library as new as that.
fn suite() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("can't read /etc/os-release")?;
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    anyhow::ensure!(
        field("ID=").as_deref() == Some("debian"),
        "the package fits the system that it was built on, and this one is not a Debian"
    );
    field("VERSION_CODENAME=").context("/etc/os-release has no VERSION_CODENAME")
}
