//! Debian's Chromium without a screen, with which tests look at pages as a browser shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::download::Apt;
use super::wrapper::{multiarch_libraries, write_script};
use crate::process::{capture, find};
use crate::stamp;
use crate::workspace::Workspace;

/// The headless build alone brings no interface of its own; a font is what pages need to be drawn.
const PACKAGES: &[&str] = &["chromium-headless-shell", "fonts-dejavu-core"];
/// What it depends on only to open other programs, or for a desktop.
const WITHOUT: &[&str] = &["x11-utils", "xdg-utils", "default-dbus-system-bus"];
/// What a page without video, graphics cards or other languages never uses: half of the disk space.
const SUPERFLUOUS: &[&str] = &[
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "usr/lib/chromium/libVkLayer_khronos_validation.so",
    "usr/lib/chromium/chrome_200_percent.pak",
];
const RECIPE: &str = "Debian's chromium-headless-shell, 1\n";
/// Names of browsers that a machine may have already.
const PROGRAMS: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];

/// The program, found on `PATH` or fetched.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(program) = PROGRAMS.into_iter().find_map(find) {
        return Ok(program);
    }
    let dir = workspace.tools().join("chromium");
    if !stamp::is_current(&dir, RECIPE) {
        ensure!(Apt::is_available(), "this machine has no apt");
    }
    stamp::ensure(&dir, RECIPE, |dir| {
        eprintln!(
            "fetching Debian's chromium-headless-shell for the tests (120 MB; 300 MB unpacked)"
        );
        let root = dir.join("root");
        stamp::empty(&root)?;
        Apt::open(&workspace.tools().join("apt"))?.unpack_without(PACKAGES, WITHOUT, &root)?;
        for path in SUPERFLUOUS.iter().map(|path| root.join(path)) {
            remove(&path)?;
        }
        write_wrapper(dir)?;
        capture(Command::new(dir.join("chromium")).arg("--version"))
            .context("the unpacked Chromium does not start")?;
        Ok(())
    })?;
    Ok(dir.join("chromium"))
}

fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() {
        fs::remove_dir_all(path)
    } else if path.exists() {
        fs::remove_file(path)
    } else {
        Ok(())
    };
    result.with_context(|| format!("can't remove {}", path.display()))
}

/// Writes the script that starts it with its own libraries and fonts, wherever the checkout lies.
fn write_wrapper(dir: &Path) -> Result<()> {
    let libraries = multiarch_libraries(&dir.join("root"))?;
    let merged = libraries.trim_start_matches("usr/");
    let script = format!(
        "#!/bin/sh\n\
         root=$(dirname \"$(readlink -f \"$0\")\")/root\n\
         export LD_LIBRARY_PATH=\"$root/{libraries}:$root/{merged}:$root/{libraries}/nss:\
         $root/{libraries}/pulseaudio\"\n\
         export FONTCONFIG_SYSROOT=\"$root\"\n\
         exec \"$root/usr/lib/chromium/chromium-headless-shell\" \"$@\"\n"
    );
    write_script(dir, "chromium", &script)
}
