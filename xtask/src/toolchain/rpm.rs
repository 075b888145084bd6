//! `rpmbuild` and `rpm`, which make and try the RPM package, on machines that have other packages.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::download::Apt;
use super::wrapper::{multiarch_libraries, write_script};
use crate::process::{capture, find};
use crate::stamp;
use crate::workspace::Workspace;

const RECIPE: &str = "Debian's rpm, 2\n";
const BUILD: &str = "rpmbuild";
const INSTALL: &str = "rpm";

/// What the package depends on for scripts that are of no use here.
const WITHOUT: [&str; 3] = ["perl", "perl-base", "debugedit"];

/// Both programs as unpacked from Debian's packages: they run wherever the directory is.
pub(crate) struct Rpm {
    dir: PathBuf,
}

impl Rpm {
    /// Unpacks them, unless that has been done.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self> {
        let dir = workspace.tools().join("rpm");
        if !stamp::is_current(&dir, RECIPE) {
            ensure!(Apt::is_available(), "this machine has no apt");
        }
        stamp::ensure(&dir, RECIPE, |dir| {
            eprintln!("fetching Debian's rpm (10 MB)");
            let root = dir.join("root");
            stamp::empty(&root)?;
            let apt = Apt::open(&workspace.tools().join("apt"))?;
            apt.unpack_without(&[INSTALL], &WITHOUT, &root)?;
            // Two names for one place, of which only one is on the loader's path below.
            let libraries = multiarch_libraries(&root)?;
            let other = root.join(libraries.trim_start_matches("usr/"));
            for entry in fs::read_dir(other).into_iter().flatten().flatten() {
                let to = root.join(&libraries).join(entry.file_name());
                fs::rename(entry.path(), &to)
                    .with_context(|| format!("can't move to {}", to.display()))?;
            }
            for program in [BUILD, INSTALL] {
                write_script(&dir.join("bin"), program, &script(program, &libraries))?;
                capture(Command::new(dir.join("bin").join(program)).arg("--version"))
                    .with_context(|| format!("the fetched {program} does not start"))?;
            }
            Ok(())
        })?;
        Ok(Self { dir })
    }

    /// The directory, for a machine that is to have `bin/rpm` as well.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }
}

/// `rpmbuild`, found on `PATH` or fetched.
pub(crate) fn builder(workspace: &Workspace) -> Result<PathBuf> {
    match find(BUILD) {
        Some(program) => Ok(program),
        None => Ok(Rpm::prepare(workspace)?.dir.join("bin").join(BUILD)),
    }
}

/// Starts a program with its libraries and its configuration, wherever they are.
fn script(program: &str, libraries: &str) -> String {
    format!(
        "#!/bin/sh\n\
         root=$(dirname \"$(readlink -f \"$0\")\")/../root\n\
         export RPM_CONFIGDIR=\"$root/usr/lib/rpm\" RPM_POPTEXEC_PATH=\"$root/usr/bin\"\n\
         export LD_LIBRARY_PATH=\"$root/{libraries}\"\n\
         exec \"$root/usr/bin/{program}\" \"$@\"\n"
    )
}
