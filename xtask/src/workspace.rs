//! Where things are.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{self, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The checkout, and the places in it that xtask writes to.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The workspace that `cargo xtask` was called in.
    pub(crate) fn find() -> Result<Self> {
        // Cargo does not compile xtask anew when the checkout is moved, so its word at run time
        // counts; what was compiled in is for an xtask that is started without cargo.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("xtask's own directory has no parent")?
            .to_path_buf();
        anyhow::ensure!(
            root.join("Cargo.toml").is_file(),
            "{} has no Cargo.toml: run `cargo xtask` from inside the checkout",
            root.display()
        );
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => path::absolute(dir).context("CARGO_TARGET_DIR is not a path")?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory for the host.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// What xtask installs, and what it builds with other flags than a plain `cargo build`.
    ///
    /// Always inside the checkout, whatever `CARGO_TARGET_DIR` says, because `.cargo/config.toml`
    /// points into it.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/xtask")
    }

    /// The compiled probes; the daemon's build script looks here.
    pub(crate) fn probes(&self) -> PathBuf {
        self.root.join("target/probes/schedscope-probes")
    }

    /// The cargo that started xtask, for host builds, in the checkout.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        if env::var_os("CARGO_TARGET_DIR").is_some() {
            // It may be relative to where the user is.
            command.env("CARGO_TARGET_DIR", &self.target);
        }
        // Set by `cargo run` for xtask itself; a build script that sees them would be built again.
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| {
                name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
            }) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Keeps other xtasks out of `target/xtask` for as long as the value lives.
    pub(crate) fn lock(&self) -> Result<File> {
        let tools = self.tools();
        fs::create_dir_all(&tools).with_context(|| format!("can't create {}", tools.display()))?;
        let path = tools.join("lock");
        let file =
            File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
        file.lock()
            .with_context(|| format!("can't lock {}", path.display()))?;
        Ok(file)
    }
}
