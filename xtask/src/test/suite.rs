//! One test binary: found among what cargo built, and run.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::PRIVILEGED_PREFIX;
use super::instructions;
use super::libtest::{self, End, Outcome};
use crate::booted;
use crate::build::Tools;
use crate::process::{capture, describe};
use crate::vm;
use crate::workspace::Workspace;

/// How long to wait for output after a binary's end, if something it started still holds the pipe.
const GRACE: Duration = Duration::from_secs(2);

/// Name of [`Suite::Instructions`].
pub(super) const INSTRUCTIONS: &str = "instructions";
/// Name of [`Suite::Booted`].
pub(super) const BOOTED: &str = "booted";
/// Name of [`Suite::Kernels`].
pub(super) const KERNELS: &str = "kernels";

/// A set of tests that run together.
pub(crate) enum Suite {
    /// A binary of Rust's test harness.
    Binary(Binary),
    /// The examples in the documentation.
    Doctests,
    /// The packages in a booted systemd.
    Booted,
    /// Counts of instructions, against those that are written down.
    Instructions,
    /// Other kernels, booted under emulation.
    Kernels,
}

/// A binary of Rust's test harness.
pub(crate) struct Binary {
    name: String,
    executable: PathBuf,
    package_dir: PathBuf,
    privileged: bool,
    /// It is a file of tests, so that it would be odd if it had none.
    must_have_tests: bool,
}

/// How to run suites.
pub(crate) struct Settings<'a> {
    /// The checkout.
    pub(crate) workspace: &'a Workspace,
    /// For the compilation of doctests.
    pub(crate) tools: &'a Tools,
    /// Parts of the names of tests to run; none means all.
    pub(crate) filters: &'a [String],
    /// For each suite.
    pub(crate) timeout: Duration,
    /// Where programs are that tests start, by the variable that tells them.
    pub(crate) programs: &'a [(&'static str, PathBuf)],
}

/// A test binary that cargo built.
#[derive(Debug, PartialEq, Eq)]
struct Artifact {
    package: String,
    target: String,
    kind: String,
    executable: PathBuf,
    package_dir: PathBuf,
}

/// All tests of the workspace.
pub(crate) fn of_workspace(workspace: &Workspace, tools: &Tools) -> Result<Vec<Suite>> {
    let mut cargo = tools.cargo(workspace)?;
    cargo.args(["test", "--workspace", "--no-run"]);
    let artifacts = build(cargo.arg("--message-format=json-render-diagnostics"))?;
    let binaries = artifacts
        .into_iter()
        .map(|artifact| Suite::Binary(Binary::new(artifact)));
    Ok(binaries
        .chain([
            Suite::Doctests,
            Suite::Instructions,
            Suite::Kernels,
            Suite::Booted,
        ])
        .collect())
}

/// Runs a cargo command that builds tests, and returns the binaries by the names of their files.
pub(crate) fn executables(cargo: &mut Command) -> Result<BTreeMap<String, PathBuf>> {
    let artifacts = build(cargo.arg("--message-format=json-render-diagnostics"))?;
    let named = artifacts
        .into_iter()
        .map(|artifact| (artifact.target, artifact.executable));
    Ok(named.collect())
}

/// Runs a cargo command that builds tests, and returns the binaries.
fn build(cargo: &mut Command) -> Result<Vec<Artifact>> {
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("can't start `{}`", describe(cargo)))?;
    if !output.status.success() {
        bail!(
            "the tests don't build: `{}` failed ({})",
            describe(cargo),
            output.status
        );
    }
    artifacts(&String::from_utf8_lossy(&output.stdout))
}

/// Reads cargo's messages, one JSON object on a line.
fn artifacts(messages: &str) -> Result<Vec<Artifact>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line)
            .with_context(|| format!("cargo printed a message that is not JSON: {line}"))?;
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        let is_test = message.pointer("/profile/test").and_then(Value::as_bool) == Some(true);
        if text("/reason") != Some("compiler-artifact") || !is_test {
            continue;
        }
        let Some(executable) = text("/executable") else {
            continue;
        };
        let manifest = Path::new(text("/manifest_path").context("a message without its manifest")?);
        let dir = manifest
            .parent()
            .context("a manifest without a directory")?;
        found.push(Artifact {
            // Every package of the workspace lies in a directory of its own name.
            package: dir
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            target: text("/target/name").unwrap_or_default().to_owned(),
            kind: text("/target/kind/0").unwrap_or_default().to_owned(),
            executable: PathBuf::from(executable),
            package_dir: dir.to_path_buf(),
        });
    }
    Ok(found)
}

impl Suite {
    /// Package, kind and name, as the table shows them.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Binary(binary) => &binary.name,
            Self::Doctests => "documentation",
            Self::Booted => BOOTED,
            Self::Instructions => INSTRUCTIONS,
            Self::Kernels => KERNELS,
        }
    }

    /// Whether it loads probes.
    pub(crate) fn is_privileged(&self) -> bool {
        match self {
            Self::Binary(binary) => binary.privileged,
            // The emulator needs no rights.
            Self::Doctests | Self::Instructions | Self::Kernels => false,
            Self::Booted => true,
        }
    }

    /// Whether it comes to the same whatever else the machine does: it measures no time, or in a machine of its own.
    pub(super) fn is_undisturbed(&self) -> bool {
        matches!(self, Self::Instructions | Self::Kernels)
    }

    /// Whether it holds times against each other, which others on the same CPUs disturb.
    pub(super) fn needs_quiet(&self) -> bool {
        matches!(self, Self::Binary(binary) if binary.privileged)
    }

    /// Runs its tests, showing what they print, but for what it returns with the outcome; if it can't be run for
    /// the reason given, all of them are skipped.
    pub(super) fn run(
        &self,
        settings: &Settings<'_>,
        unable: Option<&str>,
    ) -> Result<(Outcome, String)> {
        let outcome = match (self, unable) {
            (Self::Binary(binary), None) => binary.run(settings),
            (Self::Binary(binary), Some(reason)) => binary.decline(settings, reason),
            (Self::Booted, unable) => {
                let unable = unable.map(str::to_owned).or_else(booted::why_not);
                Ok(match unable {
                    Some(reason) => booted::decline(settings.filters, &reason),
                    None => {
                        // Built beside the tests, which start it, too.
                        let binary = settings.workspace.target().join("debug/schedscope");
                        booted::run(settings.workspace, &binary, settings.filters)
                    }
                })
            }
            (Self::Doctests, _) => {
                let mut cargo = settings.tools.cargo(settings.workspace)?;
                cargo.args(["test", "--workspace", "--doc", "--no-fail-fast", "--"]);
                let (output, end) =
                    watch(cargo.args(settings.filters), settings.timeout, io::stdout())?;
                Ok(libtest::judge_doctests(&output, &end))
            }
            (Self::Instructions, _) => return instructions::run_suite(settings),
            (Self::Kernels, _) => return vm::suite(settings.workspace, settings.filters),
        };
        Ok((outcome?, String::new()))
    }
}

impl Binary {
    fn new(artifact: Artifact) -> Self {
        let Artifact {
            package,
            target,
            kind,
            executable,
            package_dir,
        } = artifact;
        let must_have_tests = kind == "test";
        let privileged = must_have_tests && target.starts_with(PRIVILEGED_PREFIX);
        let name = format!("{package} {kind} {target}");
        Self {
            name,
            executable,
            package_dir,
            privileged,
            must_have_tests,
        }
    }

    fn run(&self, settings: &Settings<'_>) -> Result<Outcome> {
        let all = self.list()?;
        let mut outcome = Outcome::default();
        if all.is_empty() && self.must_have_tests {
            outcome
                .failed
                .push("there is no test in it: is it compiled out?".to_owned());
        }
        let tests = select(&all, settings.filters);
        if tests.is_empty() {
            return Ok(outcome);
        }
        let chosen = (tests.len() < all.len()).then_some(&tests[..]);
        let mut outcome = self.attempt(settings, &tests, chosen)?;
        if self.privileged && is_worth_another(&outcome, &tests) {
            let failed = outcome.failed.clone();
            println!("\n== again: {}", failed.join(", "));
            outcome.amend(self.attempt(settings, &failed, Some(&failed))?);
        }
        Ok(outcome)
    }

    /// Runs these tests, which are all that it has unless some are chosen.
    fn attempt(
        &self,
        settings: &Settings<'_>,
        tests: &[String],
        chosen: Option<&[String]>,
    ) -> Result<Outcome> {
        let mut command = self.command();
        command.arg("--show-output");
        for (variable, path) in settings.programs {
            command.env(variable, path);
        }
        if self.privileged {
            command.arg("--test-threads=1");
        }
        if let Some(chosen) = chosen {
            command.arg("--exact").args(chosen);
        }
        let (output, end) = watch(&mut command, settings.timeout, io::stdout())?;
        Ok(libtest::judge(tests, &output, &end))
    }

    fn decline(&self, settings: &Settings<'_>, reason: &str) -> Result<Outcome> {
        let tests = select(&self.list()?, settings.filters);
        let skipped = tests.into_iter().map(|name| {
            println!("not run: {name}: {reason}");
            (name, reason.to_owned())
        });
        Ok(Outcome {
            skipped: skipped.collect(),
            ..Outcome::default()
        })
    }

    /// The names of all its tests.
    fn list(&self) -> Result<Vec<String>> {
        let listed = capture(self.command().args(["--list", "--format", "terse"]))?;
        Ok(libtest::parse_list(&listed))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        // As cargo does.
        command
            .current_dir(&self.package_dir)
            .env("CARGO_MANIFEST_DIR", &self.package_dir);
        command
    }
}

/// Most tests of a suite that are run again.
const MAX_AGAIN: usize = 3;

/// Whether what failed is run again: a few tests that hold real time against the kernel's, which whatever
/// else the machine does can upset. What is broken fails again.
fn is_worth_another(outcome: &Outcome, tests: &[String]) -> bool {
    let is_test = |name: &String| tests.contains(name);
    (1..=MAX_AGAIN).contains(&outcome.failed.len()) && outcome.failed.iter().all(is_test)
}

/// Those of the tests that are meant.
fn select(tests: &[String], filters: &[String]) -> Vec<String> {
    let meant = tests.iter().filter(|name| is_meant(name, filters));
    meant.cloned().collect()
}

/// Whether a name contains one of the filters, or there is none.
pub(crate) fn is_meant(name: &str, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// Runs a command, passing on what it prints, and returns its standard output and how it ended.
fn watch(
    command: &mut Command,
    timeout: Duration,
    echo: impl Write + Send + 'static,
) -> Result<(String, End)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start `{}`", describe(command)))?;
    let stdout = child.stdout.take().context("standard output is a pipe")?;
    let collected = Arc::new(Mutex::new(Vec::new()));
    let (done, finished) = mpsc::channel();
    let sink = Arc::clone(&collected);
    thread::spawn(move || {
        copy(stdout, &sink, echo);
        // Nobody listens any more if it took too long.
        let _ = done.send(());
    });
    let end = wait(&mut child, timeout).with_context(|| format!("`{}`", describe(command)))?;
    // What it started may hold the pipe for ever; its own output is there by now.
    let _ = finished.recv_timeout(GRACE);
    let bytes = collected
        .lock()
        .map_or_else(|broken| broken.into_inner().clone(), |bytes| bytes.clone());
    Ok((String::from_utf8_lossy(&bytes).into_owned(), end))
}

fn copy(mut from: impl Read, to: &Mutex<Vec<u8>>, mut echo: impl Write) {
    let mut buffer = [0; 8192];
    while let Ok(count) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        if let Ok(mut to) = to.lock() {
            to.extend_from_slice(bytes);
        }
        // A closed standard output must not end the tests.
        let _ = echo.write_all(bytes).and_then(|()| echo.flush());
    }
}

fn wait(child: &mut Child, timeout: Duration) -> io::Result<End> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() {
                End::Success
            } else {
                End::Failure(status.to_string())
            });
        }
        if start.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(End::TimedOut(timeout.as_secs()));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_are_the_test_binaries_only() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/c/a/Cargo.toml","target":{"kind":["lib"],"name":"x"},"profile":{"test":true},"executable":"/t/x-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/c/a/Cargo.toml","target":{"kind":["bin"],"name":"y"},"profile":{"test":false},"executable":"/t/y"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        let found = artifacts(messages).expect("the messages are well-formed");
        let expected = Artifact {
            package: "a".to_owned(),
            target: "x".to_owned(),
            kind: "lib".to_owned(),
            executable: PathBuf::from("/t/x-1"),
            package_dir: PathBuf::from("/c/a"),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_few_failures_are_worth_another_attempt_and_named_after_it() {
        let names = ["a", "b", "c", "d", "e"].map(str::to_owned);
        let failed = |names: &[String]| Outcome {
            failed: names.to_vec(),
            passed: 5 - names.len(),
            ..Outcome::default()
        };
        assert!(!is_worth_another(&failed(&[]), &names));
        assert!(!is_worth_another(&failed(&names[..4]), &names));
        let stopped = failed(&["stopped after 600 s".to_owned()]);
        assert!(!is_worth_another(&stopped, &names));
        let mut outcome = failed(&names[..2]);
        assert!(is_worth_another(&outcome, &names));
        outcome.amend(Outcome {
            passed: 1,
            ..failed(&names[1..2])
        });
        let expected = Outcome {
            passed: 4,
            failed: vec!["b".to_owned()],
            again: vec!["a".to_owned()],
            ..Outcome::default()
        };
        assert_eq!(outcome, expected);
    }

    #[test]
    fn a_command_that_hangs_is_stopped() {
        let mut command = Command::new("sleep");
        command.arg("100");
        let (_, end) =
            watch(&mut command, Duration::from_millis(50), io::sink()).expect("sleep starts");
        assert_eq!(end, End::TimedOut(0));
    }

    #[test]
    fn output_survives_a_grandchild_that_keeps_the_pipe() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo here; sleep 10 & exit 3"]);
        let start = Instant::now();
        let (output, end) =
            watch(&mut command, Duration::from_secs(5), io::sink()).expect("sh starts");
        assert_eq!(output, "here\n");
        assert_eq!(end, End::Failure("exit status: 3".to_owned()));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
