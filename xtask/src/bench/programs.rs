//! What is measured, built.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build::{self, Tools};
use crate::process::describe;
use crate::workspace::Workspace;

/// Benches that tables are made of, by their names.
pub(super) const BENCHES: [&str; 3] = ["probes", "core", "sinks"];

/// The programs.
pub(super) struct Programs {
    pub(super) schedscope: PathBuf,
    pub(super) workload: PathBuf,
    benches: Vec<(String, PathBuf)>,
}

impl Programs {
    /// Those that somebody else has built: `schedscope=PATH`, `workload=PATH` and benches.
    pub(super) fn given(words: &[String]) -> Result<Self> {
        let mut all = Vec::new();
        for word in words {
            let (name, path) = word
                .split_once('=')
                .with_context(|| format!("NAME=PATH expected, got '{word}'"))?;
            all.push((name.to_owned(), PathBuf::from(path)));
        }
        Self::of(all)
    }

    /// Builds them, optimized.
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let tools = Tools::prepare(workspace)?;
        build::build_probes(workspace, &tools.bpf)?;
        let mut cargo = tools.cargo(workspace)?;
        cargo
            .args(["build", "--release", "--package=profiler-daemon"])
            .args(["--bin=schedscope", "--example=workload"])
            .args(BENCHES.map(|bench| format!("--bench={bench}")))
            .arg("--message-format=json-render-diagnostics");
        let output = cargo
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("can't start `{}`", describe(&cargo)))?;
        ensure!(
            output.status.success(),
            "what is to be measured does not build: `{}` failed ({})",
            describe(&cargo),
            output.status
        );
        let messages = String::from_utf8_lossy(&output.stdout);
        let mut all = Vec::new();
        for line in messages.lines().filter(|line| line.starts_with('{')) {
            let message: Value = serde_json::from_str(line)
                .with_context(|| format!("cargo printed a message that is not JSON: {line}"))?;
            let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
            if let (Some(name), Some(path)) = (text("/target/name"), text("/executable")) {
                all.push((name.to_owned(), PathBuf::from(path)));
            }
        }
        Self::of(all)
    }

    fn of(mut all: Vec<(String, PathBuf)>) -> Result<Self> {
        let mut take = |name: &str| {
            let place = all.iter().position(|its| its.0 == name);
            place.map(|place| all.swap_remove(place).1)
        };
        let (schedscope, workload) = (take("schedscope"), take("workload"));
        let (Some(schedscope), Some(workload)) = (schedscope, workload) else {
            bail!("both `schedscope` and `workload` are needed");
        };
        Ok(Self {
            schedscope,
            workload,
            benches: all,
        })
    }

    /// A bench, or why there is none.
    pub(super) fn bench(&self, name: &str) -> Result<&PathBuf, String> {
        let its = self.benches.iter().find(|its| its.0 == name);
        its.map(|its| &its.1)
            .ok_or_else(|| format!("the bench `{name}` was not given"))
    }
}
