//! What is run in the guests: the tests' binaries, the binary itself, and what they are linked with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::checks::Check;
use super::cross::Cross;
use super::initramfs::Archive;
use super::kernels::Arch;
use crate::build::{self, Tools};
use crate::process::{capture, run};
use crate::stamp;
use crate::test::suite;
use crate::workspace::Workspace;

/// Tells the tests that they are alone on their machine, and may stop its clock and its CPUs.
const GUEST_VARIABLE: &str = "SCHEDSCOPE_GUEST";
/// Tells the tests which binary to try.
const BINARY_VARIABLE: &str = "SCHEDSCOPE_BINARY";

/// Which build of the binary is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// The one that the tests are built with.
    Tests,
    /// What users get.
    Release,
}

/// The programs for guests of one architecture. They lie there where they lie here, because the tests know the
/// others' places from their build.
pub(super) struct Programs {
    /// By file of tests.
    suites: BTreeMap<String, PathBuf>,
    files: Vec<PathBuf>,
    /// Where tests write.
    scratch: PathBuf,
    /// The release build, if that is tried.
    binary: Option<PathBuf>,
    strip: PathBuf,
    /// For what is stripped.
    dir: PathBuf,
}

impl Programs {
    /// Builds what the checks need.
    pub(super) fn build(
        workspace: &Workspace,
        arch: Arch,
        checks: &[Check],
        profile: Profile,
    ) -> Result<Self> {
        let tools = Tools::prepare(workspace)?;
        build::build_probes(workspace, &tools.bpf)?;
        let cross = match arch {
            Arch::Amd64 => None,
            Arch::Arm64 => Some(Cross::prepare(workspace)?),
        };
        let cargo = || match &cross {
            None => tools.cargo(workspace),
            Some(cross) => Ok(cross.cargo(workspace)),
        };
        // The whole workspace and the tests' profile, as for `cargo xtask test`, so that nothing is built twice.
        let mut example = cargo()?;
        run(example.args(["build", "--workspace", "--example=workload"]))?;
        let names: BTreeSet<&str> = checks.iter().map(|check| check.suite).collect();
        let mut tests = cargo()?;
        tests.args(["test", "--workspace", "--no-run"]);
        for name in &names {
            tests.args(["--test", name]);
        }
        let suites = suite::executables(&mut tests)?;
        for name in names {
            ensure!(
                suites.contains_key(name),
                "there is no file of tests {name}"
            );
        }
        let target = match &cross {
            None => workspace.target().to_path_buf(),
            Some(cross) => cross.target(),
        };
        let binary = match (profile, &cross) {
            (Profile::Release, None) => {
                Some(build::build(workspace, &build::Args { debug: false })?)
            }
            _ => None,
        };
        let debug = target.join("debug");
        let mut files: Vec<PathBuf> = suites.values().cloned().collect();
        files.push(debug.join("examples/workload"));
        files.push(binary.clone().unwrap_or_else(|| debug.join("schedscope")));
        Ok(Self {
            suites,
            files,
            scratch: match &cross {
                None => target.join("tmp"),
                Some(cross) => cross.scratch(),
            },
            binary,
            strip: cross.map_or_else(|| PathBuf::from("strip"), |cross| cross.strip()),
            dir: workspace.tools().join("vm-programs"),
        })
    }

    /// The program with a file of tests, by its place in the guest.
    pub(super) fn of(&self, suite: &str) -> Result<&str> {
        let path = self.suites.get(suite).context("no such file of tests")?;
        path.to_str().context("the checkout's path is not text")
    }

    /// Lines for the shell of the guest.
    pub(super) fn environment(&self) -> String {
        let mut lines = format!("export {GUEST_VARIABLE}=1\n");
        // Writing to a string can't fail.
        let _ = writeln!(lines, "mkdir -p '{}'", self.scratch.display());
        if let Some(binary) = &self.binary {
            let _ = writeln!(lines, "export {BINARY_VARIABLE}='{}'", binary.display());
        }
        lines
    }

    /// Puts all of them into the guest, with the libraries that they are linked with.
    pub(super) fn add_to(&self, archive: &mut Archive) -> Result<()> {
        stamp::empty(&self.dir)?;
        let mut libraries = BTreeSet::new();
        for (number, file) in self.files.iter().enumerate() {
            let small = self.dir.join(number.to_string());
            // Lines for a debugger are nine tenths of the size.
            capture(
                Command::new(&self.strip)
                    .arg("--strip-debug")
                    .arg("-o")
                    .args([&small, file]),
            )
            .context("`strip` comes with the C compiler (Debian's package binutils)")?;
            archive.copy(&small, &place(file)?)?;
            if self.strip.as_os_str() == OsStr::new("strip") {
                libraries.extend(libraries_of(file)?);
            }
        }
        for library in libraries {
            archive.copy(&library, &place(&library)?)?;
        }
        Ok(())
    }
}

fn place(path: &Path) -> Result<String> {
    let path = path.to_str().context("a path that is not text")?;
    Ok(path.to_owned())
}

/// The shared libraries that a program of this machine is linked with, and their loader.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = capture(Command::new("ldd").arg(program))?;
    Ok(read_ldd(&listed))
}

fn read_ldd(listed: &str) -> Vec<PathBuf> {
    let paths = listed.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        path.split(" (").next().filter(|path| path.starts_with('/'))
    });
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\
             \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            read_ldd(listed),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert_eq!(read_ldd("\tstatically linked\n"), Vec::<PathBuf>::new());
    }
}
