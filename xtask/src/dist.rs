//! `cargo xtask dist`: what is given away, in `target/dist`.
//!
//! The binary is built for release; man pages and completions come from the binary itself, so they fit
//! it; `cargo-deb` makes the Debian package as the table in `profiler-daemon/Cargo.toml` says, and
//! `rpmbuild` the other one by `deploy/rpm/schedscope.spec`. All is made in `target/packing`: the tests
//! pack the build that they test, and must not leave it where somebody looks for what to give away.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build;
use crate::install;
use crate::process::{capture, join_path, run};
use crate::stamp;
use crate::toolchain::rpm;
use crate::workspace::Workspace;

/// The version of cargo-deb that makes the package.
const DEB_VERSION: &str = "3.8.0";

/// What to make.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the packages, and with them the build of cargo-deb.
    #[arg(long, alias = "no-deb")]
    no_packages: bool,
}

/// The packages.
pub(crate) struct Packages {
    /// Debian's kind.
    pub(crate) deb: PathBuf,
    /// The other kind.
    pub(crate) rpm: PathBuf,
}

/// How hard packages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// For those who fetch them.
    Small,
    /// For those who try them at once.
    Quick,
}

/// `cargo xtask dist`.
pub(crate) fn dist(workspace: &Workspace, args: &Args) -> Result<()> {
    let binary = build::build(workspace, &build::Args { debug: false })?;
    let packing = directory(workspace);
    files(&binary, &packing)?;
    if !args.no_packages {
        deb(workspace, &packing, Packing::Small)?;
        match rpm::builder(workspace) {
            Ok(builder) => drop(rpm(workspace, &builder, &packing, Packing::Small)?),
            Err(error) => println!("not made: the RPM package, without rpmbuild: {error:#}"),
        }
    }
    let dir = workspace.root().join("target/dist");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("can't remove {}", dir.display()))?;
    }
    fs::rename(&packing, &dir)
        .with_context(|| format!("can't rename {} to {}", packing.display(), dir.display()))?;
    let made = fs::read_dir(&dir).with_context(|| format!("can't read {}", dir.display()))?;
    let mut made: Vec<_> = made.flatten().map(|entry| entry.path()).collect();
    made.sort();
    for path in made {
        if path == generated(&dir) {
            println!("{} (man pages, completions)", path.display());
        } else {
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// Fetches and builds what [`pack`] needs.
pub(crate) fn prepare(workspace: &Workspace) -> Result<()> {
    cargo_deb(workspace)?;
    rpm::builder(workspace)?;
    Ok(())
}

/// Makes both packages of this binary, to be tried.
pub(crate) fn pack(workspace: &Workspace, binary: &Path) -> Result<Packages> {
    let dir = directory(workspace);
    files(binary, &dir)?;
    Ok(Packages {
        deb: deb(workspace, &dir, Packing::Quick)?,
        rpm: rpm(workspace, &rpm::builder(workspace)?, &dir, Packing::Quick)?,
    })
}

/// cargo-deb finds the files by a path from the manifest, so it does not move with `CARGO_TARGET_DIR`.
fn directory(workspace: &Workspace) -> PathBuf {
    workspace.root().join("target/packing")
}

fn generated(dir: &Path) -> PathBuf {
    dir.join("generated")
}

/// The binary, and what it says of itself.
fn files(binary: &Path, dir: &Path) -> Result<()> {
    stamp::empty(dir)?;
    run(Command::new(binary).arg("generate").arg(generated(dir)))?;
    let copy = dir.join("schedscope");
    fs::copy(binary, &copy).with_context(|| format!("can't write {}", copy.display()))?;
    Ok(())
}

fn cargo_deb(workspace: &Workspace) -> Result<PathBuf> {
    install::cargo_program(workspace, "cargo-deb", DEB_VERSION)
}

fn deb(workspace: &Workspace, dir: &Path, packing: Packing) -> Result<PathBuf> {
    let deb = dir.join(format!(
        "schedscope_{}_{}.deb",
        env!("CARGO_PKG_VERSION"),
        debian_architecture()
    ));
    let program = cargo_deb(workspace)?;
    let own = program.parent().context("a program is in a directory")?;
    let path = join_path(own, env::var_os("PATH").as_deref())?;
    let mut cargo = workspace.cargo();
    cargo
        .env("CARGO_TARGET_DIR", workspace.target())
        .env("PATH", path)
        .args(["deb", "--quiet", "--no-build", "--package=profiler-daemon"])
        // The backtraces of a report that users send should have lines.
        .args(["--no-strip", "--deb-revision="])
        .arg("--output")
        .arg(&deb);
    if packing == Packing::Quick {
        cargo.arg("--fast");
    }
    run(&mut cargo).context("can't make the Debian package")?;
    Ok(deb)
}

fn rpm(workspace: &Workspace, builder: &Path, dir: &Path, packing: Packing) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let scratch = dir.join("rpm");
    let define = |name: &str, value: &Path| format!("--define={name} {}", value.display());
    let mut command = Command::new(builder);
    command
        .args(["-bb", "--quiet"])
        .arg(define("_topdir", &scratch))
        .arg(define("_rpmdir", dir))
        // Nothing is looked up in it, and it need not be there.
        .arg(define("_dbpath", &scratch.join("none")))
        .arg("--define=_rpmfilename schedscope-%{VERSION}-%{RELEASE}.%{ARCH}.rpm")
        .arg(define("version", Path::new(version)))
        .arg(define("checkout", workspace.root()))
        .arg(define("dist", dir));
    if packing == Packing::Quick {
        command.arg("--define=_binary_payload w1.gzdio");
    }
    command.arg(workspace.root().join("deploy/rpm/schedscope.spec"));
    capture(&mut command).context("can't make the RPM package")?;
    fs::remove_dir_all(&scratch).with_context(|| format!("can't remove {}", scratch.display()))?;
    let arch = env::consts::ARCH;
    Ok(dir.join(format!("schedscope-{version}-1.{arch}.rpm")))
}

/// What Debian calls the architecture that this is built for.
fn debian_architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use crate::process::find;

    fn deploy(file: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../deploy")
            .join(file)
    }

    fn read(file: &str) -> String {
        fs::read_to_string(deploy(file)).expect("it is in the checkout")
    }

    /// The values of a setting of the unit.
    fn settings(name: &str) -> Vec<String> {
        let unit = read("systemd/schedscope.service");
        let values = unit.lines().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key == name).then(|| value.to_owned())
        });
        values.collect()
    }

    /// How exposed the unit leaves the host, from 0 to 10; the same is measured booted.
    #[test]
    fn systemd_rates_the_unit_two_or_better() {
        const NAME: &str = "systemd_rates_the_unit_two_or_better";
        if find("systemd-analyze").is_none() {
            println!("not run: {NAME}: no systemd-analyze on PATH");
            return;
        }
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(deploy("systemd/schedscope.service"))
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        if complaint.contains("unrecognized option") {
            println!("not run: {NAME}: systemd-analyze is older than 250");
            return;
        }
        let rating = text
            .split_once("Overall exposure level for schedscope.service: ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("a rating in {text}{complaint}"));
        assert!(rating <= 2.0, "{rating}: {text}");
    }

    #[test]
    fn the_unit_has_no_capability_but_those_for_the_probes() {
        for setting in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            assert_eq!(settings(setting), ["CAP_BPF CAP_PERFMON"], "{setting}");
        }
    }

    #[test]
    fn what_the_unit_needs_is_made_when_the_package_is_installed() {
        let user = settings("User");
        let made = read("sysusers.d/schedscope.conf");
        assert!(
            made.lines()
                .any(|line| line.starts_with(&format!("u {} ", user[0]))),
            "{user:?} in {made}"
        );
        let root = settings("RootDirectory");
        let made = read("tmpfiles.d/schedscope.conf");
        assert!(
            made.lines()
                .any(|line| line.starts_with(&format!("d {} ", root[0]))),
            "{root:?} in {made}"
        );
    }
}
