//! Instructions of the core and of the probes, against those that are written down: what became slower is
//! found however busy the machine is.
//!
//! * The core, compiled as in a release but alone, takes in simulated records under callgrind
//!   (`profiler-daemon/benches/instructions.rs`): instructions for a thousand records, case by case.
//! * The probes, as compiled: instructions in each function of the object.
//!
//! They depend on the compiler, so the file says by which one they were made, and with another one nothing
//! is compared. `UPDATE_EXPECT=1` writes the file anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol, SymbolKind};
use serde_json::{Value, json};

use super::libtest::Outcome;
use super::suite::Settings;
use crate::process::{capture, run};
use crate::stamp;
use crate::toolchain::valgrind;
use crate::workspace::Workspace;

/// What counts may grow by in percent before that is a failure: the core's differ a little by how the C
/// library copies memory on this processor, the probes' not at all.
const CORE_TOLERANCE: u64 = 2;
const PROBES_TOLERANCE: u64 = 1;

/// The file with what is expected.
const EXPECTED: &str = "profiler-daemon/benches/instructions.json";
/// Bytes of an instruction of BPF. One that loads 64 bits is two of them.
const BPF_INSTRUCTION: u64 = 8;

/// Instructions by what they are of.
type Counts = BTreeMap<String, u64>;

/// One of the two things that are counted.
struct Part {
    name: &'static str,
    unit: &'static str,
    tolerance: u64,
    compiler: String,
    /// Or why there are none.
    counts: Result<Counts>,
}

/// Counts and compares; the text is the counts.
pub(super) fn run_suite(settings: &Settings<'_>) -> Result<(Outcome, String)> {
    let workspace = settings.workspace;
    let path = workspace.root().join(EXPECTED);
    let parts = [
        Part {
            name: "core",
            unit: "instructions for 1,000 records",
            tolerance: CORE_TOLERANCE,
            compiler: version(&rustc())?,
            counts: count_core(workspace),
        },
        Part {
            name: "probes",
            unit: "instructions",
            tolerance: PROBES_TOLERANCE,
            compiler: version(&settings.tools.bpf.rustc)?,
            counts: count_probes(&workspace.probes()),
        },
    ];
    if env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        write(&path, &parts)?;
    }
    let expected = fs::read_to_string(&path)
        .with_context(|| format!("can't read {}; UPDATE_EXPECT=1 makes it", path.display()))?;
    let expected: Value = serde_json::from_str(&expected)
        .with_context(|| format!("{} is no JSON", path.display()))?;
    let mut outcome = Outcome::default();
    let mut text = String::new();
    for part in &parts {
        let expected = &expected[part.name];
        let name = format!("instructions of the {}", part.name);
        match part.judge(expected) {
            Verdict::NotRun(reason) => {
                let _ = writeln!(text, "not run: {name}: {reason}");
                outcome.skipped.push((name, reason));
            }
            Verdict::Compared { lines, failed } => {
                // Writing to a string can't fail.
                let _ = writeln!(text, "{name} ({}), by {}", part.unit, part.compiler);
                text.extend(lines.iter().flat_map(|line| [line.as_str(), "\n"]));
                if failed.is_empty() {
                    outcome.passed += 1;
                } else {
                    outcome.failed.push(format!(
                        "{name}: more than {} percent from {EXPECTED}: {}; if that is meant, \
                         `UPDATE_EXPECT=1 cargo xtask test --suite instructions` writes it anew",
                        part.tolerance,
                        failed.join(", ")
                    ));
                }
            }
        }
    }
    Ok((outcome, text))
}

/// What came of a comparison.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It can't be made, for this reason.
    NotRun(String),
    /// A line for each count, and those that are off.
    Compared {
        lines: Vec<String>,
        failed: Vec<String>,
    },
}

impl Part {
    fn judge(&self, expected: &Value) -> Verdict {
        let compiler = expected["compiler"].as_str().unwrap_or_default();
        if compiler != self.compiler {
            return Verdict::NotRun(format!(
                "{EXPECTED} is of {compiler}, and this compiler is {}",
                self.compiler
            ));
        }
        let counts = match &self.counts {
            Ok(counts) => counts,
            Err(error) => return Verdict::NotRun(format!("{error:#}")),
        };
        let none = serde_json::Map::new();
        let before = expected["counts"].as_object().unwrap_or(&none);
        let names = before.keys().chain(counts.keys());
        let mut names: Vec<&String> = names.collect();
        names.sort_unstable();
        names.dedup();
        let (mut lines, mut failed) = (Vec::new(), Vec::new());
        for name in names {
            let was = before.get(name).and_then(Value::as_u64);
            let now = counts.get(name).copied();
            let Some((was, now)) = was.zip(now) else {
                let what = if now.is_some() { "is new" } else { "is gone" };
                lines.push(format!("  {name:<36} {what}"));
                failed.push(format!("{name} {what}"));
                continue;
            };
            let change = (now as f64 / was.max(1) as f64 - 1.0) * 100.0;
            let (less, more) = (100 - self.tolerance, 100 + self.tolerance);
            let mark = if now * 100 > was * more {
                failed.push(format!("{name} {was} -> {now}"));
                "  MORE"
            } else if now * 100 < was * less {
                "  less: worth writing down"
            } else {
                ""
            };
            lines.push(format!(
                "  {name:<36} {was:>10} -> {now:>10} {change:>+7.2} %{mark}"
            ));
        }
        Verdict::Compared { lines, failed }
    }
}

fn write(path: &Path, parts: &[Part]) -> Result<()> {
    let mut all = serde_json::Map::new();
    for part in parts {
        let counts = part
            .counts
            .as_ref()
            .map_err(|error| anyhow::anyhow!("there is nothing to write: {error:#}"))?;
        all.insert(
            part.name.to_owned(),
            json!({ "compiler": part.compiler, "unit": part.unit, "counts": counts }),
        );
    }
    let text = serde_json::to_string_pretty(&all).context("counts can be written")?;
    fs::write(path, text + "\n").with_context(|| format!("can't write {}", path.display()))
}

/// The compiler of host builds.
fn rustc() -> PathBuf {
    env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from)
}

/// Which compiler it is, of which LLVM, for which machine.
fn version(rustc: &Path) -> Result<String> {
    let text = capture(Command::new(rustc).arg("-vV"))?;
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let rest = lines.filter(|line| line.starts_with("host:") || line.starts_with("LLVM"));
    Ok(rest.fold(first, |all, line| format!("{all}, {line}")))
}

/// Builds the core with what feeds it, and has callgrind count.
fn count_core(workspace: &Workspace) -> Result<Counts> {
    let valgrind = valgrind::prepare(workspace).context("there is no valgrind")?;
    let dir = workspace.tools().join("instructions");
    let program = build_core(workspace, &dir)?;
    let mut counts = Counts::new();
    for case in capture(Command::new(&program).arg("list"))?.lines() {
        let profile = dir.join("callgrind.out");
        let mut counting = Command::new(&valgrind);
        counting
            .args(["--tool=callgrind", "--collect-atstart=no"])
            .arg("--toggle-collect=*measured*")
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(&program)
            .arg(case);
        let records: u64 = capture(&mut counting)?
            .trim()
            .parse()
            .with_context(|| format!("the case {case} did not say how many records it was"))?;
        let text = fs::read_to_string(&profile)
            .with_context(|| format!("can't read {}", profile.display()))?;
        let total = total(&text).with_context(|| format!("{case}: callgrind has no total"))?;
        ensure!(records > 0 && total > 0, "{case}: nothing was counted");
        counts.insert(case.to_owned(), total * 1000 / records);
    }
    Ok(counts)
}

/// The sum in a file of callgrind's.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    line.trim().parse().ok()
}

/// Compiles the core alone, which is a matter of seconds, where the whole daemon in a release is one of minutes.
fn build_core(workspace: &Workspace, dir: &Path) -> Result<PathBuf> {
    let root = workspace.root();
    let cargo_toml =
        fs::read_to_string(root.join("Cargo.toml")).context("can't read Cargo.toml")?;
    let source = dir.join("src");
    fs::create_dir_all(&source).with_context(|| format!("can't create {}", source.display()))?;
    let benches = root.join("profiler-daemon/benches");
    let files = [
        (dir.join("Cargo.toml"), manifest(root, &cargo_toml)?),
        (
            source.join("lib.rs"),
            format!(
                "#[path = \"{}\"]\npub mod core;\n",
                root.join("profiler-daemon/src/core/mod.rs").display()
            ),
        ),
    ];
    for (path, text) in files {
        // What has not changed is not compiled anew.
        if !fs::read_to_string(&path).is_ok_and(|old| old == text) {
            fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    // The versions of the workspace. Cargo leaves out what is not needed, so it is taken anew when it changes only.
    stamp::ensure(
        &dir.join("lock"),
        &fs::read_to_string(root.join("Cargo.lock")).context("can't read Cargo.lock")?,
        |_| {
            fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock"))
                .context("can't copy Cargo.lock")?;
            Ok(())
        },
    )?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(dir.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env_remove("RUSTFLAGS");
    run(&mut cargo).context("can't build the core alone")?;
    ensure!(benches.is_dir(), "{} is missing", benches.display());
    Ok(dir.join("target/release/instructions"))
}

/// What the core depends on.
const DEPENDENCIES: [&str; 7] = [
    "histogram",
    "prefetch-index",
    "serde",
    "syscalls",
    "thiserror",
    "wildmatch",
    "zerocopy",
];

/// The manifest of the core alone, with the workspace's own words for what it depends on.
fn manifest(root: &Path, workspace: &str) -> Result<String> {
    let mut text = format!(
        "[package]\nname = \"instructions\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [lib]\nname = \"schedscope\"\npath = \"src/lib.rs\"\n\n\
         [[bin]]\nname = \"instructions\"\npath = \"{}\"\n\n[dependencies]\n",
        root.join("profiler-daemon/benches/instructions.rs")
            .display()
    );
    for name in DEPENDENCIES {
        let line = workspace
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")))
            .with_context(|| format!("Cargo.toml does not say which {name}"))?;
        text += line;
        text.push('\n');
    }
    // Writing to a string can't fail.
    let _ = write!(
        text,
        "profiler-ebpf = {{ path = \"{}\", features = [\"decode\"] }}\n\n\
         [profile.release]\nlto = \"thin\"\ncodegen-units = 1\n\n[workspace]\n",
        root.join("profiler-ebpf").display()
    );
    Ok(text)
}

/// Instructions of each function in the object of the probes.
fn count_probes(path: &Path) -> Result<Counts> {
    let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let object =
        object::File::parse(&*bytes).with_context(|| format!("{} is no object", path.display()))?;
    let functions = object
        .symbols()
        .filter(|its| its.kind() == SymbolKind::Text);
    let mut counts = Counts::new();
    for function in functions.filter(|its| its.size() > 0) {
        let name = function.name().context("a function without a name")?;
        // A mangled name depends on where the checkout lies.
        let name = if name.starts_with('_') {
            "called by them"
        } else {
            name
        };
        *counts.entry(name.to_owned()).or_default() += function.size() / BPF_INSTRUCTION;
    }
    ensure!(!counts.is_empty(), "{} has no function", path.display());
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(counts: &[(&str, u64)]) -> Part {
        let counts = counts.iter().map(|&(name, count)| (name.to_owned(), count));
        Part {
            name: "core",
            unit: "instructions",
            tolerance: 2,
            compiler: "rustc 1".to_owned(),
            counts: Ok(counts.collect()),
        }
    }

    fn expected() -> Value {
        json!({ "compiler": "rustc 1", "counts": { "a": 1000, "b": 50 } })
    }

    #[test]
    fn more_than_the_tolerance_fails_and_less_does_not() {
        let failed = |a, b| match part(&[("a", a), ("b", b)]).judge(&expected()) {
            Verdict::Compared { failed, .. } => failed,
            Verdict::NotRun(reason) => vec![reason],
        };
        assert!(failed(1000, 50).is_empty());
        assert!(failed(1020, 51).is_empty());
        assert!(failed(500, 1).is_empty());
        assert_eq!(failed(1021, 50), ["a 1000 -> 1021"]);
    }

    #[test]
    fn what_comes_or_goes_is_told() {
        let verdict = part(&[("b", 50), ("c", 1)]).judge(&expected());
        let Verdict::Compared { failed, lines } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(failed, ["a is gone", "c is new"]);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn another_compiler_is_not_compared() {
        let mut other = part(&[("a", 9999)]);
        other.compiler = "rustc 2".to_owned();
        let Verdict::NotRun(reason) = other.judge(&expected()) else {
            panic!("it was compared");
        };
        assert!(
            reason.contains("rustc 1") && reason.contains("rustc 2"),
            "{reason}"
        );
    }

    #[test]
    fn the_total_of_callgrind_is_found() {
        assert_eq!(
            total("events: Ir\nfn=(1)\n1 2\ntotals: 14252162\n"),
            Some(14_252_162)
        );
        assert_eq!(total("events: Ir\n"), None);
    }
}
