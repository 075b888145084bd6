//! Building for arm64 on x86-64: Debian's compilers and libraries, unpacked.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::capture;
use crate::stamp;
use crate::toolchain::download::Apt;
use crate::toolchain::wrapper;
use crate::workspace::Workspace;

/// rustc's name of what is built for.
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Compilers that run here.
const PACKAGES: &[&str] = &[
    "rustc-web",
    "libstd-rust-web-dev",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
];
/// Libraries of the other architecture.
const FOREIGN: &[&str] = &[
    "libstd-rust-web-dev:arm64",
    "libelf-dev:arm64",
    "zlib1g-dev:arm64",
];
const RECIPE: &str = "Debian's rustc-web and gcc for arm64, 1\n";
/// What dependencies do for every event, or with all of a kernel's types, is compiled as for the tests. All else is
/// not optimized and has no lines for debuggers: it is a build that no other command can use, and most of it, such as
/// the macros' own code, does nothing in a guest.
const WORKING: &[&str] = &[
    "aya",
    "aya-obj",
    "crc32fast",
    "hashbrown",
    "histogram",
    "libbpf-sys",
    "zerocopy",
    "zstd-sys",
];

/// Compilers for arm64.
pub(super) struct Cross {
    dir: PathBuf,
    /// Cargo's target directory for it.
    build: PathBuf,
}

/// The machine's own sources, for packages of arm64, too.
pub(super) fn archive(workspace: &Workspace) -> Result<Apt> {
    Apt::open_with(
        &workspace.tools().join("apt-arm64"),
        "#clear APT::Architectures;\nAPT::Architectures { \"amd64\"; \"arm64\"; };\n",
    )
}

impl Cross {
    /// Unpacks them, unless that has been done.
    pub(super) fn prepare(workspace: &Workspace) -> Result<Self> {
        let _lock = workspace.lock()?;
        let dir = workspace.tools().join("cross-arm64");
        ensure!(
            stamp::is_current(&dir, RECIPE) || Apt::is_available(),
            "this machine has no apt to fetch a compiler for arm64 with"
        );
        stamp::ensure(&dir, RECIPE, |dir| {
            eprintln!(
                "fetching Debian's {} for arm64 (about 200 MB; 900 MB unpacked)",
                PACKAGES.join(", ")
            );
            let root = dir.join("root");
            stamp::empty(&root)?;
            let apt = archive(workspace)?;
            apt.unpack(PACKAGES, &root)?;
            apt.unpack_only(FOREIGN, &root)?;
            let bin = dir.join("bin");
            let libraries = "../root/usr/lib/x86_64-linux-gnu";
            wrapper::write(&bin, "rustc", "../root/usr/bin/rustc", libraries)?;
            for program in ["gcc", "ar", "strip"] {
                let name = format!("aarch64-linux-gnu-{program}");
                wrapper::write(&bin, &name, &format!("../root/usr/bin/{name}"), libraries)?;
            }
            capture(Command::new(bin.join("rustc")).arg("-vV"))
                .context("the unpacked rustc does not start")?;
            Ok(())
        })?;
        Ok(Self {
            dir,
            build: workspace.tools().join("cross-arm64-build"),
        })
    }

    /// A cargo command that builds for it.
    pub(super) fn cargo(&self, workspace: &Workspace) -> Command {
        let gcc = self.program("gcc");
        let foreign = self.dir.join("root/usr");
        let mut command = workspace.cargo();
        for setting in cheap() {
            command.arg("--config").arg(setting);
        }
        command
            .env("CARGO_INCREMENTAL", "0")
            .env("RUSTC", self.dir.join("bin/rustc"))
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_BUILD_TARGET", TARGET)
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", &gcc)
            // Nothing but the binary need be in the guest.
            .env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-Ctarget-feature=+crt-static",
            )
            .env("CC_aarch64_unknown_linux_gnu", &gcc)
            .env("AR_aarch64_unknown_linux_gnu", self.program("ar"))
            .env("C_INCLUDE_PATH", foreign.join("include"))
            .env(
                "LIBBPF_SYS_LIBRARY_PATH",
                foreign.join("lib/aarch64-linux-gnu"),
            );
        command
    }

    pub(super) fn strip(&self) -> PathBuf {
        self.program("strip")
    }

    /// Where cargo puts what it builds.
    pub(super) fn target(&self) -> PathBuf {
        self.build.join(TARGET)
    }

    /// Where the tests write.
    pub(super) fn scratch(&self) -> PathBuf {
        self.target().join("tmp")
    }

    fn program(&self, name: &str) -> PathBuf {
        self.dir
            .join("bin")
            .join(Path::new(&format!("aarch64-linux-gnu-{name}")))
    }
}

/// Cargo's settings for a build that is fast to make.
fn cheap() -> impl Iterator<Item = String> {
    let all = [
        "profile.dev.debug=0",
        "profile.dev.package.\"*\".opt-level=0",
    ];
    let working = WORKING.iter();
    all.map(str::to_owned)
        .into_iter()
        .chain(working.map(|name| format!("profile.dev.package.{name}.opt-level=1")))
}
