//! Those who are measured beside us: perf, the tools of libbpf-tools, and bpftrace with its own `runqlat.bt`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{capture, find};
use crate::toolchain::peers::prepare;
use crate::workspace::Workspace;

/// What `runqlat.bt` includes for the sake of one number, where there need be no headers of the kernel.
const SCHED_H: &str = "#include <linux/sched.h>";
const TASK_RUNNING: &str = "#define TASK_RUNNING 0";

/// Which of them are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) perf: bool,
    pub(super) libbpf_tools: bool,
    pub(super) bpftrace: bool,
}

/// The programs, or for each why it can't be had.
pub(super) struct Peers {
    perf: Result<PathBuf, String>,
    runqlat: Result<PathBuf, String>,
    offcputime: Result<PathBuf, String>,
    bpftrace: Result<PathBuf, String>,
}

impl Peers {
    /// Finds them on `PATH`, or fetches them.
    pub(super) fn prepare(workspace: &Workspace, wanted: Wanted) -> Self {
        let its = |program, is_wanted| {
            if is_wanted {
                prepare(workspace, program).map_err(|error| format!("{error:#}"))
            } else {
                Err("not asked for".to_owned())
            }
        };
        Self {
            perf: its("perf", wanted.perf),
            runqlat: its("runqlat", wanted.libbpf_tools),
            offcputime: its("offcputime", wanted.libbpf_tools),
            bpftrace: its("bpftrace", wanted.bpftrace),
        }
    }

    /// perf.
    pub(super) fn perf(&self) -> Result<&Path, String> {
        path(&self.perf)
    }

    /// A program of libbpf-tools.
    pub(super) fn libbpf(&self, name: &str) -> Result<&Path, String> {
        match name {
            "runqlat" => path(&self.runqlat),
            "offcputime" => path(&self.offcputime),
            _ => Err(format!("'{name}' is no peer")),
        }
    }

    /// bpftrace.
    pub(super) fn bpftrace(&self) -> Result<&Path, String> {
        path(&self.bpftrace)
    }

    /// The text of bpftrace's `runqlat.bt`, so that it needs no headers.
    pub(super) fn runqlat_bt(&self) -> Result<String, String> {
        const NAME: &str = "runqlat.bt";
        let program = self.bpftrace()?;
        // Beside the unpacked program, or where it is installed.
        let unpacked = program.parent().and_then(Path::parent);
        let unpacked = unpacked.map(|dir| dir.join("root/usr/sbin").join(NAME));
        let installed = [PathBuf::from("/usr/sbin").join(NAME)];
        let path = find(NAME)
            .into_iter()
            .chain(unpacked)
            .chain(installed)
            .find(|path| path.is_file())
            .ok_or_else(|| format!("bpftrace came without {NAME}"))?;
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("can't read {}: {error}", path.display()))?;
        Ok(text.replace(SCHED_H, TASK_RUNNING))
    }

    /// The versions of those that there are.
    pub(super) fn told(&self) -> String {
        let all = [
            ("perf", &self.perf),
            ("libbpf-tools' runqlat", &self.runqlat),
            ("bpftrace", &self.bpftrace),
        ];
        let told = all.into_iter().filter_map(|(name, found)| {
            let version = capture(Command::new(found.as_ref().ok()?).arg("--version")).ok()?;
            let last = version.lines().next()?.split(' ').next_back()?;
            Some(format!("{name} {last}"))
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

fn path(found: &Result<PathBuf, String>) -> Result<&Path, String> {
    found.as_deref().map_err(Clone::clone)
}
