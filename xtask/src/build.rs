//! Building the probes, and `schedscope` with them inside.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::run;
use crate::toolchain::elf::Elf;
use crate::toolchain::{BPF_TARGET, BpfToolchain, check_object};
use crate::workspace::Workspace;

/// What to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build without optimization, for a debugger.
    #[arg(long)]
    pub(crate) debug: bool,
}

/// Everything that a build needs, found or installed.
pub(crate) struct Tools {
    /// For the probes.
    pub(crate) bpf: BpfToolchain,
    /// For libbpf-sys.
    pub(crate) elf: Elf,
}

impl Tools {
    /// Finds or installs them.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self> {
        let _lock = workspace.lock()?;
        let elf = Elf::prepare(workspace)?;
        let bpf = BpfToolchain::pick(workspace)?;
        Ok(Self { bpf, elf })
    }

    /// A host cargo command with the variables that libbpf-sys needs.
    pub(crate) fn cargo(&self, workspace: &Workspace) -> Result<std::process::Command> {
        let mut command = workspace.cargo();
        command.envs(self.elf.variables()?);
        Ok(command)
    }
}

/// `cargo xtask setup`.
pub(crate) fn set_up(workspace: &Workspace) -> Result<()> {
    let tools = Tools::prepare(workspace)?;
    eprintln!("probes: {}", tools.bpf.origin);
    eprintln!("libelf: {}", tools.elf.origin());
    Ok(())
}

/// `cargo xtask build`: sets up, builds the probes and the binary, and returns the binary.
pub(crate) fn build(workspace: &Workspace, args: &Args) -> Result<PathBuf> {
    let tools = Tools::prepare(workspace)?;
    eprintln!("probes: {}", tools.bpf.origin);
    build_probes(workspace, &tools.bpf)?;
    let mut cargo = tools.cargo(workspace)?;
    cargo.args(["build", "--package=profiler-daemon", "--bin=schedscope"]);
    let profile = if args.debug {
        "debug"
    } else {
        cargo.arg("--release");
        "release"
    };
    run(&mut cargo)?;
    Ok(workspace.target().join(profile).join("schedscope"))
}

/// Compiles the probes and puts the object where the daemon's build script finds it.
pub(crate) fn build_probes(workspace: &Workspace, bpf: &BpfToolchain) -> Result<()> {
    let target_dir = workspace.tools().join("probes-build");
    let mut cargo = bpf.cargo(workspace.root(), &target_dir, &[]);
    cargo
        .args([
            "build",
            "--package=profiler-ebpf",
            "--bin=schedscope-probes",
        ])
        .args(["--features=probes", "--profile=probes"])
        .args(bpf.target_arguments());
    run(&mut cargo).context("can't build the probes")?;
    let built = target_dir.join(BPF_TARGET).join("probes/schedscope-probes");
    check_object(&built)?;
    let object = fs::read(&built).with_context(|| format!("can't read {}", built.display()))?;
    let probes = workspace.probes();
    // The same bytes keep the file's time, so that the daemon is not built anew.
    if fs::read(&probes).is_ok_and(|old| old == object) {
        return Ok(());
    }
    let dir = probes
        .parent()
        .context("the probes' path has a directory")?;
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&probes, &object))
        .with_context(|| format!("can't write {}", probes.display()))
}
