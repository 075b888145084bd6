//! What libbpf-sys needs to build its libbpf: libelf and zlib with their headers, `make` and
//! `pkg-config`.
//!
//! The libraries are linked statically where that can be done, so that the shipped binary doesn't
//! need libelf on the machine that it runs on. `target/xtask/elf/lib` holds archives only, and the
//! linker looks there first.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::download::Apt;
use super::wrapper::{self, multiarch_libraries};
use crate::process::{capture, find, join_path, output};
use crate::stamp;
use crate::workspace::Workspace;

const RECIPE: &str = "libelf and zlib, headers and archives, 2\n";
const HOST_RECIPE: &str = "make and pkgconf, 1\n";
const HEADERS: &[&str] = &["libelf.h", "gelf.h", "zlib.h", "zconf.h"];
const ARCHIVES: &[&str] = &["libelf.a", "libz.a"];
/// Where the directory's content comes from, in words.
const ORIGIN: &str = "origin";

/// Headers and archives for libbpf-sys, ready to use.
pub(crate) struct Elf {
    dir: PathBuf,
    host_tools: Option<PathBuf>,
}

impl Elf {
    /// Finds or fetches everything; says on standard error what it did, if it did something.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self> {
        let target = workspace.target();
        ensure!(
            !target.to_string_lossy().contains(char::is_whitespace),
            "libbpf can't be built in {}: its Makefile takes no path with a space; move the \
             checkout, or set CARGO_TARGET_DIR to a path without one",
            target.display()
        );
        let compiler = compiler()?;
        let host_tools = host_tools(workspace)?;
        let dir = workspace.tools().join("elf");
        if !is_whole(&dir) && dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("can't remove {}", dir.display()))?;
        }
        if stamp::ensure(&dir, RECIPE, |dir| make(workspace, &compiler, dir))? {
            eprintln!("libelf: {}", read_origin(&dir));
        }
        Ok(Self { dir, host_tools })
    }

    /// Where libelf comes from, in words.
    pub(crate) fn origin(&self) -> String {
        read_origin(&self.dir)
    }

    /// The variables that a build needs; where nothing is unusual about this machine, these are
    /// just what `.cargo/config.toml` says.
    pub(crate) fn variables(&self) -> Result<Vec<(&'static str, OsString)>> {
        let mut variables = vec![
            (
                "C_INCLUDE_PATH",
                join_path(
                    &self.dir.join("include"),
                    env::var_os("C_INCLUDE_PATH").as_deref(),
                )?,
            ),
            (
                "LIBBPF_SYS_LIBRARY_PATH",
                join_path(
                    &self.dir.join("lib"),
                    env::var_os("LIBBPF_SYS_LIBRARY_PATH").as_deref(),
                )?,
            ),
        ];
        if let Some(host_tools) = &self.host_tools {
            variables.push((
                "PATH",
                join_path(host_tools, env::var_os("PATH").as_deref())?,
            ));
        }
        Ok(variables)
    }
}

fn read_origin(dir: &Path) -> String {
    fs::read_to_string(dir.join(ORIGIN))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Whether every link in the directory still leads to a file.
fn is_whole(dir: &Path) -> bool {
    fs::read_dir(dir.join("lib"))
        .is_ok_and(|entries| entries.flatten().all(|entry| entry.path().exists()))
}

/// The C compiler that build scripts will use.
fn compiler() -> Result<OsString> {
    let compiler = env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    let path = Path::new(&compiler);
    if path.is_file() || find(path).is_some() {
        return Ok(compiler);
    }
    bail!(
        "no C compiler: `{}` is not on PATH, and libbpf is written in C; \
         on Debian: apt-get install gcc libc6-dev",
        path.display()
    )
}

/// A directory with `make` and `pkg-config`, if the machine lacks one of them.
fn host_tools(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let pkg_config = env::var_os("PKG_CONFIG").unwrap_or_else(|| OsString::from("pkg-config"));
    let has = |program: &OsStr| Path::new(program).is_file() || find(program).is_some();
    if has(OsStr::new("make")) && has(&pkg_config) {
        return Ok(None);
    }
    let dir = workspace.tools().join("host");
    if !stamp::is_current(&dir, HOST_RECIPE) && !Apt::is_available() {
        bail!(
            "libbpf needs `make` and `pkg-config`, and one of them is not on PATH; install them \
             with this machine's package manager (on Debian: apt-get install make pkg-config)"
        );
    }
    let fetched = stamp::ensure(&dir, HOST_RECIPE, |dir| {
        let root = dir.join("root");
        Apt::open(&workspace.tools().join("apt"))?.unpack(&["make", "pkgconf-bin"], &root)?;
        let bin = dir.join("bin");
        let libraries = format!("../root/{}", multiarch_libraries(&root)?);
        wrapper::write(&bin, "make", "../root/usr/bin/make", &libraries)?;
        wrapper::write(&bin, "pkg-config", "../root/usr/bin/pkgconf", &libraries)
    })?;
    if fetched {
        eprintln!("make, pkg-config: Debian's, unpacked in {}", dir.display());
    }
    Ok(Some(dir.join("bin")))
}

fn make(workspace: &Workspace, compiler: &OsStr, dir: &Path) -> Result<()> {
    let (include, lib) = (dir.join("include"), dir.join("lib"));
    stamp::empty(&include)?;
    stamp::empty(&lib)?;

    let system = system_archives(compiler)?;
    for archive in &system {
        let link = lib.join(archive.file_name().context("an archive has a name")?);
        symlink(archive, &link).with_context(|| format!("can't link {}", link.display()))?;
    }
    if !system.is_empty() && links(compiler, dir)?.is_ok() {
        return write_origin(dir, "the system's, linked statically");
    }

    stamp::empty(&lib)?;
    let mut reason = "this machine has no apt to fetch libelf-dev with".to_owned();
    if Apt::is_available() {
        match fetch(workspace, dir) {
            Ok(packages) => match links(compiler, dir)? {
                Ok(()) => {
                    let origin = format!("{}, unpacked, linked statically", packages.join(", "));
                    return write_origin(dir, &origin);
                }
                Err(message) => reason = format!("fetched libelf-dev does not link: {message}"),
            },
            Err(error) => reason = format!("{error:#}"),
        }
    }

    stamp::empty(&include)?;
    stamp::empty(&lib)?;
    if links(compiler, dir)?.is_ok() {
        return write_origin(dir, &format!("the system's, linked dynamically ({reason})"));
    }
    bail!(
        "libelf and zlib with their headers are needed to build libbpf, and were not found \
         ({reason}); install them with this machine's package manager (on Debian: apt-get install \
         libelf-dev zlib1g-dev; on Fedora: dnf install elfutils-libelf-devel zlib-devel)"
    )
}

fn write_origin(dir: &Path, origin: &str) -> Result<()> {
    fs::write(dir.join(ORIGIN), format!("{origin}\n"))
        .with_context(|| format!("can't write in {}", dir.display()))
}

/// The system's static archives, if it has all of them.
fn system_archives(compiler: &OsStr) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for archive in ARCHIVES {
        let answer = capture(Command::new(compiler).arg(format!("-print-file-name={archive}")))?;
        let path = PathBuf::from(answer.trim());
        // The compiler answers with the bare name when it has no such file.
        if !path.is_absolute() {
            return Ok(Vec::new());
        }
        found.push(path);
    }
    Ok(found)
}

/// Unpacks Debian's packages and puts what is wanted of them where builds look.
fn fetch(workspace: &Workspace, dir: &Path) -> Result<Vec<String>> {
    let root = dir.join("root");
    stamp::empty(&root)?;
    let packages =
        Apt::open(&workspace.tools().join("apt"))?.unpack(&["libelf-dev", "zlib1g-dev"], &root)?;
    let libraries = root.join(multiarch_libraries(&root)?);
    let archives = ARCHIVES
        .iter()
        .map(|name| (libraries.join(name), dir.join("lib").join(name)));
    let include = root.join("usr/include");
    let headers = HEADERS.iter().map(|name| {
        // Some releases keep what depends on the architecture in a directory named after it.
        let special = libraries
            .file_name()
            .map(|triplet| include.join(triplet).join(name));
        let from = special
            .filter(|path| path.is_file())
            .unwrap_or_else(|| include.join(name));
        (from, dir.join("include").join(name))
    });
    for (from, to) in archives.chain(headers) {
        fs::copy(&from, &to).with_context(|| format!("the packages have no {}", from.display()))?;
    }
    fs::remove_dir_all(&root).with_context(|| format!("can't remove {}", root.display()))?;
    let wanted =
        |package: &String| package.starts_with("libelf-dev ") || package.starts_with("zlib1g-dev ");
    Ok(packages.into_iter().filter(wanted).collect())
}

/// Whether a program that uses libelf compiles and links with what lies in `dir`; if not, why not.
fn links(compiler: &OsStr, dir: &Path) -> Result<Result<(), String>> {
    let source = dir.join("check.c");
    let program = dir.join("check");
    // Decompressing a section is what needs zlib, and on newer releases zstd.
    let code = "#include <gelf.h>\n#include <libelf.h>\n#include <zlib.h>\n\
                int main(int argc, char **argv) {\n\
                  (void)argv;\n\
                  if (argc > 1) return elf_compress(0, 0, 0) + (zlibVersion() == 0);\n\
                  return elf_version(EV_CURRENT) == EV_NONE;\n}\n";
    fs::write(&source, code).with_context(|| format!("can't write {}", source.display()))?;
    let result = output(
        Command::new(compiler)
            .arg(&source)
            .arg("-o")
            .arg(&program)
            .arg("-isystem")
            .arg(dir.join("include"))
            .arg("-L")
            .arg(dir.join("lib"))
            .args(["-lelf", "-lz"]),
    )?;
    let outcome = if result.status.success() {
        match output(&mut Command::new(&program))? {
            result if result.status.success() => Ok(()),
            result => Err(format!("the check program failed ({})", result.status)),
        }
    } else {
        let messages = String::from_utf8_lossy(&result.stderr).into_owned();
        let first = messages
            .lines()
            .find(|line| line.contains("error") || line.contains("undefined"));
        Err(first.unwrap_or("the compiler failed").to_owned())
    };
    for path in [source, program] {
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    Ok(outcome)
}
