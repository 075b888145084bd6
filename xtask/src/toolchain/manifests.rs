//! What reads the files for clusters and images as those read them: Kubernetes' published schemas
//! (`kubernetes-validate`), Docker's own parser (`dockerfile`), both Python packages, and `kubectl`,
//! which has kustomize inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::download::Apt;
use super::wrapper::write_script;
use crate::process::{capture, find};
use crate::stamp;
use crate::workspace::Workspace;

const READERS: &str = "kubernetes-validate and dockerfile, Python packages, 1\n";
const KUBECTL: &str = "kubectl";
const KUBECTL_RECIPE: &str = "Debian's kubernetes-client, 1\n";

/// `validate VERSION FILE...`; a version is as `v1.30.0`, or `newest`.
const VALIDATE: &str = r#"#!/bin/sh
dir=$(dirname "$(readlink -f "$0")")
if [ "$1" = newest ]; then set -- "" "$@"; else set -- "$1" "$@"; fi
version=${1#v}
shift 2
PYTHONPATH="$dir/site" PYTHONDONTWRITEBYTECODE=1 \
    exec python3 -m kubernetes_validate --strict ${version:+--kubernetes-version "${version%.0}"} "$@"
"#;

/// `dockerfile FILE` prints its instructions, each as a JSON list on a line.
const DOCKERFILE: &str = r#"#!/bin/sh
dir=$(dirname "$(readlink -f "$0")")
PYTHONPATH="$dir/site" PYTHONDONTWRITEBYTECODE=1 exec python3 -c '
import dockerfile, json, sys
for command in dockerfile.parse_file(sys.argv[1]):
    print(json.dumps([command.cmd.upper(), *command.flags, *command.value]))' "$@"
"#;

/// Where `validate` and `dockerfile` are.
pub(crate) fn readers(workspace: &Workspace) -> Result<PathBuf> {
    let dir = workspace.tools().join("manifests");
    if !stamp::is_current(&dir, READERS) {
        ensure!(find("python3").is_some(), "this machine has no Python");
    }
    stamp::ensure(&dir, READERS, |dir| {
        eprintln!("fetching Kubernetes' schemas and Docker's parser for the tests (20 MB)");
        let site = dir.join("site");
        stamp::empty(&site)?;
        let mut install = Command::new("python3");
        install
            .args(["-m", "pip", "install", "--quiet", "--no-compile"])
            .args(["--disable-pip-version-check", "--no-input"])
            .args(["--only-binary", ":all:", "--target"])
            .arg(&site)
            .args(["kubernetes-validate>=1.31", "dockerfile>=3.4"]);
        capture(&mut install).context("pip can't fetch kubernetes-validate and dockerfile")?;
        let schemas = site.join("kubernetes_validate/kubernetes-json-schema");
        keep_oldest_and_newest(&schemas)?;
        write_script(dir, "validate", VALIDATE)?;
        write_script(dir, "dockerfile", DOCKERFILE)
    })?;
    Ok(dir)
}

/// There are schemas of a dozen versions, of 10 MB each.
fn keep_oldest_and_newest(schemas: &Path) -> Result<()> {
    let entries =
        fs::read_dir(schemas).with_context(|| format!("can't read {}", schemas.display()))?;
    let mut versions: Vec<(u32, PathBuf)> = Vec::new();
    for entry in entries.flatten() {
        // `v1.30.0-local-strict`
        let name = entry.file_name().to_string_lossy().into_owned();
        let minor = name.split('.').nth(1).and_then(|minor| minor.parse().ok());
        versions.extend(minor.map(|minor| (minor, entry.path())));
    }
    let minors = || versions.iter().map(|(minor, _)| *minor);
    let (oldest, newest) = (minors().min(), minors().max());
    for (minor, path) in &versions {
        if Some(*minor) != oldest && Some(*minor) != newest {
            fs::remove_dir_all(path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// `kubectl`, found on `PATH` or fetched.
pub(crate) fn kubectl(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(program) = find(KUBECTL) {
        return Ok(program);
    }
    let dir = workspace.tools().join(KUBECTL);
    if !stamp::is_current(&dir, KUBECTL_RECIPE) {
        ensure!(Apt::is_available(), "this machine has no apt");
    }
    let program = |dir: &Path| dir.join("root/usr/bin").join(KUBECTL);
    stamp::ensure(&dir, KUBECTL_RECIPE, |dir| {
        eprintln!("fetching Debian's kubectl for the tests (8 MB)");
        let root = dir.join("root");
        stamp::empty(&root)?;
        let apt = Apt::open(&workspace.tools().join("apt"))?;
        apt.unpack_only(&["kubernetes-client"], &root)?;
        capture(Command::new(program(dir)).args(["version", "--client"]))
            .context("the fetched kubectl does not start")
            .map(drop)
    })?;
    Ok(program(&dir))
}
