//! Other people's tools, which figures and costs are compared with: from `PATH`, or from Debian's packages.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::download::Apt;
use super::wrapper;
use crate::process::find;
use crate::stamp;
use crate::workspace::Workspace;

/// A Debian package with programs that are wanted.
struct Package {
    name: &'static str,
    /// What it depends on, but not for these programs.
    without: &'static [&'static str],
    programs: &'static [&'static str],
}

const PACKAGES: &[Package] = &[
    Package {
        name: "linux-perf",
        without: &[],
        programs: &["perf"],
    },
    Package {
        name: "libbpf-tools",
        without: &[],
        programs: &[
            "cpudist",
            "offcputime",
            "runqlat",
            "runqslower",
            "wakeuptime",
        ],
    },
    Package {
        name: "bpftrace",
        without: &[],
        programs: &["bpftrace"],
    },
    Package {
        name: "rt-tests",
        // For scripts beside them.
        without: &["python3"],
        programs: &["cyclictest", "hackbench"],
    },
];

/// Raised when what is unpacked, or how it is started, changes.
const RECIPE: &str = "a peer's package with its libraries, 1\n";

/// Finds or fetches a program, and returns where it is.
pub(crate) type Prepare = fn(&Workspace) -> Result<PathBuf>;

/// Those whose figures ours are held against, each with the variable that tells where it is.
pub(crate) const TO_CHECK_WITH: [(&str, Prepare); 3] = [
    ("SCHEDSCOPE_PERF", |workspace| prepare(workspace, "perf")),
    ("SCHEDSCOPE_RUNQLAT", |workspace| {
        prepare(workspace, "runqlat")
    }),
    ("SCHEDSCOPE_CYCLICTEST", |workspace| {
        prepare(workspace, "cyclictest")
    }),
];

/// A peer by the name of its program, found on `PATH` or fetched.
pub(crate) fn prepare(workspace: &Workspace, program: &str) -> Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    let Some(package) = PACKAGES
        .iter()
        .find(|package| package.programs.contains(&program))
    else {
        bail!("no package is known that has '{program}'");
    };
    let dir = workspace.tools().join("peers").join(package.name);
    if !stamp::is_current(&dir, RECIPE) {
        ensure!(Apt::is_available(), "this machine has no apt");
    }
    stamp::ensure(&dir, RECIPE, |dir| {
        eprintln!("fetching Debian's {}", package.name);
        let root = dir.join("root");
        stamp::empty(&root)?;
        let apt = Apt::open(&workspace.tools().join("apt"))?;
        apt.unpack_without(&[package.name], package.without, &root)?;
        for superfluous in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
            let path = root.join(superfluous);
            if path.is_dir() {
                fs::remove_dir_all(&path)
                    .with_context(|| format!("can't remove {}", path.display()))?;
            }
        }
        // A package that depends on nothing but the C library brings no directory of libraries.
        let libraries = wrapper::multiarch_libraries(&root).unwrap_or_else(|_| "usr/lib".into());
        let merged = libraries.trim_start_matches("usr/");
        let libraries = format!("../root/{libraries}:$here/../root/{merged}");
        for program in package.programs {
            let place = ["usr/bin", "usr/sbin", "bin", "sbin"]
                .into_iter()
                .find(|place| root.join(place).join(program).is_file())
                .with_context(|| format!("the package {} has no '{program}'", package.name))?;
            let started = format!("../root/{place}/{program}");
            wrapper::write(&dir.join("bin"), program, &started, &libraries)?;
        }
        Ok(())
    })?;
    Ok(dir.join("bin").join(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_comes_from_one_package() {
        let mut programs: Vec<_> = PACKAGES
            .iter()
            .flat_map(|package| package.programs)
            .collect();
        let count = programs.len();
        programs.sort_unstable();
        programs.dedup();
        assert_eq!(programs.len(), count, "{programs:?}");
    }

    #[test]
    fn a_program_that_no_package_has_is_named() {
        let workspace = Workspace::find().expect("the tests run in the checkout");
        let error = prepare(&workspace, "no-such-peer").expect_err("there is none");
        assert!(error.to_string().contains("no-such-peer"), "{error}");
    }
}
