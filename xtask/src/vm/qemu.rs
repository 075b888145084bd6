//! qemu and busybox: Debian's, unpacked.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernels::Arch;
use crate::process::capture;
use crate::stamp;
use crate::toolchain::download::Apt;
use crate::toolchain::wrapper::{self, multiarch_libraries};
use crate::workspace::Workspace;

/// The emulators with the libraries that they are linked with, and what the guests' first process is.
const PACKAGES: &[&str] = &["qemu-system-x86", "busybox-static"];
/// Here is the emulation itself, as a module; what this package needs beside is for screens and sound.
const MODULES: &[&str] = &["qemu-system-common"];
/// Network cards' boot code: the guests have no network.
const WITHOUT: &[&str] = &["qemu-system-common", "ipxe-qemu"];
const RECIPE: &str = "Debian's qemu-system-x86 and busybox-static, 1\n";

/// For guests of another architecture, only when one is asked for.
const FOREIGN_PACKAGES: &[&str] = &["qemu-system-arm"];
const FOREIGN_RECIPE: &str = "Debian's qemu-system-arm and busybox-static:arm64, 1\n";

/// An emulator, and the programs for its guests.
pub(super) struct Qemu {
    /// Starts it.
    pub(super) program: PathBuf,
    /// A static busybox for the guest.
    pub(super) busybox: PathBuf,
}

/// Unpacks them, unless that has been done.
pub(super) fn prepare(workspace: &Workspace, arch: Arch) -> Result<Qemu> {
    match arch {
        Arch::Amd64 => {
            let dir = workspace.tools().join("qemu");
            make(
                workspace,
                &dir,
                RECIPE,
                PACKAGES,
                "qemu-system-x86_64",
                |_| Ok(()),
            )
        }
        Arch::Arm64 => {
            let dir = workspace.tools().join("qemu-arm64");
            make(
                workspace,
                &dir,
                FOREIGN_RECIPE,
                FOREIGN_PACKAGES,
                "qemu-system-aarch64",
                |root| {
                    let apt = super::cross::archive(workspace)?;
                    apt.unpack_only(&["busybox-static:arm64"], root)
                },
            )
        }
    }
}

fn make(
    workspace: &Workspace,
    dir: &Path,
    recipe: &str,
    packages: &[&str],
    program: &str,
    more: impl Fn(&Path) -> Result<()>,
) -> Result<Qemu> {
    ensure!(
        stamp::is_current(dir, recipe) || Apt::is_available(),
        "this machine has no apt to fetch qemu with"
    );
    stamp::ensure(dir, recipe, |dir| {
        eprintln!(
            "fetching Debian's {} for virtual machines (30 MB)",
            packages.join(", ")
        );
        let root = dir.join("root");
        stamp::empty(&root)?;
        let apt = Apt::open(&workspace.tools().join("apt"))?;
        apt.unpack_without(packages, WITHOUT, &root)?;
        apt.unpack_only(MODULES, &root)?;
        more(&root)?;
        let libraries = multiarch_libraries(&root)?;
        let merged = libraries.trim_start_matches("usr/");
        let script = format!(
            "#!/bin/sh\n\
             root=$(dirname \"$(readlink -f \"$0\")\")/root\n\
             export LD_LIBRARY_PATH=\"$root/{libraries}:$root/{merged}\"\n\
             export QEMU_MODULE_DIR=\"$root/{libraries}/qemu\"\n\
             exec \"$root/usr/bin/{program}\" -L \"$root/usr/share/qemu\" -L \"$root/usr/share/seabios\" \"$@\"\n"
        );
        wrapper::write_script(dir, "qemu", &script)?;
        capture(Command::new(dir.join("qemu")).arg("--version"))
            .context("the unpacked qemu does not start")?;
        Ok(())
    })?;
    Ok(Qemu {
        program: dir.join("qemu"),
        busybox: dir.join("root/bin/busybox"),
    })
}
