//! Debian's compiler for the web browsers' sake (`rustc-web`), which has a `core` for BPF and whose
//! LLVM is in the archive as a library, with a `bpf-linker` built against that very library.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::BpfToolchain;
use super::download::Apt;
use super::wrapper::{self, multiarch_libraries};
use crate::process::{capture, run};
use crate::stamp;
use crate::workspace::Workspace;

const PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];
/// The directory of the unpacked compiler, which the linker's wrapper refers to.
const COMPILER: &str = "bpf-rustc";
const LINKER_VERSION: &str = "0.13.0";
/// LLVM versions that this bpf-linker can be built for.
const LINKER_LLVMS: [u32; 3] = [21, 22, 23];

/// Unpacks the compiler and builds the linker, unless that has been done.
pub(crate) fn prepare(workspace: &Workspace) -> Result<BpfToolchain> {
    let compiler = workspace.tools().join(COMPILER);
    let recipe = format!("{} with wrapper, 1\n", PACKAGES.join(" "));
    if !stamp::is_current(&compiler, &recipe) {
        ensure!(Apt::is_available(), "this machine has no apt");
    }
    stamp::ensure(&compiler, &recipe, |dir| {
        eprintln!(
            "fetching Debian's {} (about 135 MB; 600 MB unpacked) to {}",
            PACKAGES.join(", "),
            compiler.display()
        );
        let root = dir.join("root");
        stamp::empty(&root)?;
        let packages = Apt::open(&workspace.tools().join("apt"))?
            .unpack(PACKAGES, &root)
            .context("Debian 12 has them in its security archive, bookworm-security")?;
        eprintln!("unpacked {}", packages.join(", "));
        let libraries = format!("../root/{}", multiarch_libraries(&root)?);
        for program in ["rustc", "clippy-driver"] {
            let path = format!("../root/usr/bin/{program}");
            wrapper::write(&dir.join("bin"), program, &path, &libraries)?;
        }
        Ok(())
    })?;
    let rustc = compiler.join("bin/rustc");
    let version = capture(Command::new(&rustc).arg("-vV"))?;
    let llvm = llvm_major(&version).with_context(|| {
        format!(
            "`{} -vV` does not tell its LLVM version: {version}",
            rustc.display()
        )
    })?;
    ensure!(
        LINKER_LLVMS.contains(&llvm),
        "Debian's rustc-web is built with LLVM {llvm}, and bpf-linker {LINKER_VERSION} knows only \
         {LINKER_LLVMS:?}"
    );

    let linker = workspace.tools().join("bpf-linker");
    let recipe = format!("bpf-linker {LINKER_VERSION}, dynamic, 1\n{version}");
    stamp::ensure(&linker, &recipe, |dir| {
        build_linker(workspace, &compiler, llvm, dir)
    })?;
    let release = version.lines().next().unwrap_or_default();
    Ok(BpfToolchain {
        cargo: None,
        clippy: Some(compiler.join("bin/clippy-driver")),
        rustc,
        linker: linker.join("bin/bpf-linker"),
        build_std: false,
        origin: format!(
            "Debian's rustc-web, {release}, LLVM {llvm}, with bpf-linker {LINKER_VERSION}, in {}",
            workspace.tools().display()
        ),
    })
}

/// Builds bpf-linker into `dir`, against the LLVM in the unpacked `compiler`.
fn build_linker(workspace: &Workspace, compiler: &Path, llvm: u32, dir: &Path) -> Result<()> {
    eprintln!("building bpf-linker {LINKER_VERSION} against LLVM {llvm}, once (about a minute)");
    let root = compiler.join("root");
    let libraries = root.join(multiarch_libraries(&root)?);
    // bpf-linker looks for `lib/libLLVM.so`, a name that only the development package has. The
    // shared library is enough: that saves its 400 MB of static ones.
    let llvm_lib = dir.join("llvm/lib");
    stamp::empty(&llvm_lib)?;
    symlink(find_llvm(&libraries)?, llvm_lib.join("libLLVM.so"))
        .with_context(|| format!("can't link in {}", llvm_lib.display()))?;
    let build = workspace.tools().join("bpf-linker-build");
    run(workspace
        .cargo()
        .args(["install", "--quiet", "--locked", "--no-default-features"])
        .arg(format!("--features=llvm-{llvm}"))
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--target-dir")
        .arg(&build)
        .arg(format!("bpf-linker@{LINKER_VERSION}"))
        .env("LLVM_PREFIX", dir.join("llvm"))
        .env("LIBRARY_PATH", &libraries)
        .env("LD_LIBRARY_PATH", &libraries)
        // All of its work is LLVM's.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS"))
    .context("can't build bpf-linker")?;
    fs::remove_dir_all(&build).with_context(|| format!("can't remove {}", build.display()))?;
    // The wrapper brings LLVM's own dependencies, which an rpath in the linker would not.
    let libraries = format!("../../{COMPILER}/root/{}", multiarch_libraries(&root)?);
    wrapper::write(
        &dir.join("bin"),
        "bpf-linker",
        "../root/bin/bpf-linker",
        &libraries,
    )
}

/// The shared library of LLVM: `libLLVM.so.22.1`.
fn find_llvm(libraries: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(libraries).with_context(|| format!("can't read {}", libraries.display()))?;
    entries
        .flatten()
        .find(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("libLLVM.so.")
        })
        .map(|entry| entry.path())
        .with_context(|| format!("{} has no libLLVM.so.*", libraries.display()))
}

/// The major LLVM version in the output of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let version = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn the_llvm_version_is_read_from_the_compiler() {
        let version = "rustc 1.96.0\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\nbinary: rustc\n"), None);
    }
}
