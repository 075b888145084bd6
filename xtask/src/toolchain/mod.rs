//! The compiler and linker for the probes, and what else a build needs.

pub(crate) mod chromium;
pub(crate) mod debian;
pub(crate) mod download;
pub(crate) mod duckdb;
pub(crate) mod elf;
pub(crate) mod manifests;
pub(crate) mod peers;
pub(crate) mod pprof;
pub(crate) mod prometheus;
pub(crate) mod rpm;
pub(crate) mod rustup;
pub(crate) mod suites;
pub(crate) mod valgrind;
pub(crate) mod wrapper;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::process::{capture, describe, find, output};
use crate::stamp;
use crate::workspace::Workspace;

/// The target that the probes are compiled for: every machine that is supported is little-endian.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";

/// Set to use a compiler of one's own for the probes.
const RUSTC_VARIABLE: &str = "SCHEDSCOPE_BPF_RUSTC";
/// Set to use a linker of one's own for the probes.
const LINKER_VARIABLE: &str = "SCHEDSCOPE_BPF_LINKER";

/// A compiler and a linker that can make BPF objects.
pub(crate) struct BpfToolchain {
    /// The cargo to use with it; `None` is the one that started xtask.
    pub(crate) cargo: Option<PathBuf>,
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// The compiler's clippy, if it has one.
    pub(crate) clippy: Option<PathBuf>,
    /// `bpf-linker`, of the compiler's LLVM version or a newer one.
    pub(crate) linker: PathBuf,
    /// The compiler has no `core` for BPF, so it is built from source.
    pub(crate) build_std: bool,
    /// What it is, and why it was taken.
    pub(crate) origin: String,
}

impl BpfToolchain {
    /// Takes the first that is there and works: what the environment names, a rustup nightly with
    /// `rust-src` beside a `bpf-linker`, Debian's packages.
    pub(crate) fn pick(workspace: &Workspace) -> Result<Self> {
        if let Some(own) = from_environment(workspace)? {
            return Ok(own);
        }
        let why_not_rustup = match rustup::find_toolchain()? {
            rustup::Found::Usable(toolchain) => match toolchain.verify(workspace) {
                Ok(()) => return Ok(toolchain),
                Err(error) => format!("{} does not work: {error:#}", toolchain.origin),
            },
            rustup::Found::Lacking(what) => what,
        };
        let mut toolchain = match debian::prepare(workspace) {
            Ok(toolchain) => toolchain,
            Err(error) => bail!(
                "no toolchain for the probes. rustup: {why_not_rustup}. Debian's packages: \
                 {error:#}. To go on, run these two commands:\n  \
                 rustup toolchain install nightly --component rust-src\n  \
                 cargo install bpf-linker --locked\n\
                 (a release of bpf-linker from github.com/aya-rs/bpf-linker does as well; its \
                 LLVM must be as new as the nightly's)"
            ),
        };
        toolchain.verify(workspace)?;
        toolchain.origin = format!("{} (because {why_not_rustup})", toolchain.origin);
        Ok(toolchain)
    }

    /// A cargo command for the BPF target, run in `dir`, without the host's settings and with more
    /// flags for the compiler.
    pub(crate) fn cargo(&self, dir: &Path, target_dir: &Path, more_flags: &[&str]) -> Command {
        let own = || env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let cargo = self
            .cargo
            .as_ref()
            .map_or_else(own, |cargo| cargo.clone().into_os_string());
        let mut command = Command::new(cargo);
        for variable in [
            "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS",
            "RUSTDOC",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_BUILD_TARGET",
        ] {
            command.env_remove(variable);
        }
        // The separator keeps a path with spaces in one piece. BTF, which the kernel and aya want,
        // is made from the debug information.
        let flags = [
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=--btf".to_owned(),
        ]
        .into_iter()
        .chain(more_flags.iter().map(|flag| (*flag).to_owned()))
        .collect::<Vec<_>>();
        command
            .current_dir(dir)
            .env("RUSTC", &self.rustc)
            // aya-ebpf uses inline assembly for BPF, which no stable compiler admits to.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_DIR", target_dir);
        command
    }

    /// Arguments of `cargo build` and the like that follow the subcommand.
    pub(crate) fn target_arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["--target", BPF_TARGET];
        if self.build_std {
            arguments.extend(["-Z", "build-std=core"]);
        }
        arguments
    }

    /// Proves, once for each pair of compiler and linker, that they make a BPF object with BTF.
    fn verify(&self, workspace: &Workspace) -> Result<()> {
        let linker = fs::metadata(&self.linker)
            .with_context(|| format!("can't find the linker {}", self.linker.display()))?;
        let recipe = format!(
            "{}\n{} {:?}\nbuild-std {}\n{}\n",
            capture(Command::new(&self.rustc).arg("-vV"))?.trim(),
            self.linker.display(),
            linker.modified().context("the linker's file has no time")?,
            self.build_std,
            CHECK_SOURCE,
        );
        let dir = workspace.tools().join("bpf-check");
        stamp::ensure(&dir, &recipe, |dir| {
            fs::write(dir.join("Cargo.toml"), CHECK_MANIFEST)
                .and_then(|()| fs::write(dir.join("main.rs"), CHECK_SOURCE))
                .with_context(|| format!("can't write in {}", dir.display()))?;
            let target_dir = dir.join("target");
            let mut build = self.cargo(dir, &target_dir, &[]);
            build
                .args(["build", "--quiet", "--release"])
                .args(self.target_arguments());
            let result = output(&mut build)?;
            ensure!(
                result.status.success(),
                "a trial object could not be built with {} and {}: `{}`: {}",
                self.rustc.display(),
                self.linker.display(),
                describe(&build),
                String::from_utf8_lossy(&result.stderr).trim()
            );
            check_object(&target_dir.join(BPF_TARGET).join("release/check"))
        })?;
        Ok(())
    }
}

const CHECK_MANIFEST: &str = "[package]\nname = \"check\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
     [[bin]]\nname = \"check\"\npath = \"main.rs\"\n\n\
     [profile.release]\ndebug = 2\npanic = \"abort\"\ncodegen-units = 1\n\n[workspace]\n";

const CHECK_SOURCE: &str = "#![no_std]\n#![no_main]\n\n\
     #[unsafe(no_mangle)]\n#[unsafe(link_section = \"raw_tp/check\")]\n\
     pub extern \"C\" fn check(context: *const u64) -> u64 {\n    \
     context.addr().checked_ilog2().map_or(0, u64::from)\n}\n\n\
     #[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! {\n    loop {}\n}\n";

/// Checks that a file is a BPF object that describes its types.
pub(crate) fn check_object(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    check_bytes(&bytes).map_err(|what| anyhow!("{} {what}", path.display()))
}

fn check_bytes(bytes: &[u8]) -> Result<(), &'static str> {
    // The machine is a 16-bit field at offset 18 of every ELF header; BPF is 247.
    if !bytes.starts_with(b"\x7fELF") || bytes.get(18..20) != Some(&[247, 0]) {
        return Err("is not a BPF object");
    }
    // A section's name may be the end of another's, such as .rel.BTF.
    if !bytes.windows(5).any(|window| window == b".BTF\0") {
        return Err(
            "has no .BTF section: the linker ran without --btf or without debug information",
        );
    }
    Ok(())
}

/// The program of this name that lies beside the compiler.
fn beside(rustc: &Path, name: &str) -> Option<PathBuf> {
    Some(rustc.with_file_name(name)).filter(|path| path.is_file())
}

fn from_environment(workspace: &Workspace) -> Result<Option<BpfToolchain>> {
    let (rustc, linker) = match (env::var_os(RUSTC_VARIABLE), env::var_os(LINKER_VARIABLE)) {
        (None, None) => return Ok(None),
        (Some(rustc), linker) => (
            PathBuf::from(rustc),
            PathBuf::from(linker.unwrap_or_else(|| "bpf-linker".into())),
        ),
        (None, Some(_)) => bail!("{LINKER_VARIABLE} is set without {RUSTC_VARIABLE}; set both"),
    };
    let resolve = |path: PathBuf, variable: &str| {
        if path.is_file() {
            Some(path.clone())
        } else {
            find(&path)
        }
        .with_context(|| {
            format!(
                "{variable} names {}, which is neither a file nor on PATH",
                path.display()
            )
        })
    };
    let rustc = resolve(rustc, RUSTC_VARIABLE)?;
    let linker = resolve(linker, LINKER_VARIABLE)?;
    let sysroot = PathBuf::from(capture(Command::new(&rustc).args(["--print", "sysroot"]))?.trim());
    let build_std = !sysroot.join("lib/rustlib").join(BPF_TARGET).is_dir();
    ensure!(
        !build_std || rustup::has_source(&sysroot),
        "{} (from {RUSTC_VARIABLE}) has neither a `core` for {BPF_TARGET} nor the source to build \
         one: {} is missing",
        rustc.display(),
        sysroot.join(rustup::SOURCE).display()
    );
    let toolchain = BpfToolchain {
        cargo: None,
        clippy: beside(&rustc, "clippy-driver"),
        origin: format!(
            "{} and {}, from {RUSTC_VARIABLE} and {LINKER_VARIABLE}",
            rustc.display(),
            linker.display()
        ),
        rustc,
        linker,
        build_std,
    };
    toolchain.verify(workspace)?;
    Ok(Some(toolchain))
}

#[cfg(test)]
mod tests {
    use super::check_bytes;

    #[test]
    fn only_bpf_objects_with_types_are_taken() {
        let mut object = b"\x7fELF".to_vec();
        object.resize(18, 0);
        object.extend([247, 0]);
        assert!(check_bytes(&object).expect_err("no types").contains(".BTF"));
        object.extend(b".rel.BTF\0");
        assert_eq!(check_bytes(&object), Ok(()));
        // An x86-64 object.
        if let Some(machine) = object.get_mut(18) {
            *machine = 62;
        }
        assert!(
            check_bytes(&object)
                .expect_err("not BPF")
                .contains("BPF object")
        );
        assert!(check_bytes(b"").is_err());
    }
}
