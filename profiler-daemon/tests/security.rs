//! What `SECURITY.md` says of the code is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The checkout.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("it is in a workspace").to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A file's lines of code, without what stands in comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn has_unsafe(code: &str) -> bool {
    ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern "]
        .iter()
        .any(|word| code.contains(word))
        || code.contains("#[unsafe(")
}

/// Files below a folder that have `unsafe` in them, as `SECURITY.md` names them.
fn unsafe_files(folder: &str) -> BTreeSet<String> {
    let folder = root().join(folder);
    let mut found = Vec::new();
    sources(&folder, &mut found);
    assert!(found.len() > 5, "only {} files", found.len());
    found
        .into_iter()
        .filter(|path| has_unsafe(&code(path)))
        .map(|path| {
            let below = path.strip_prefix(&folder).expect("it is below");
            below.display().to_string()
        })
        .collect()
}

/// The files that the table with this heading names, in its first column.
fn listed(heading: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("SECURITY.md")).expect("it is there");
    let (_, table) = text
        .split_once(heading)
        .unwrap_or_else(|| panic!("no table {heading}"));
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let first = rows.filter_map(|row| row.split('|').nth(1));
    let names = first.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[test]
fn every_file_with_unsafe_code_is_listed() {
    for (folder, heading) in [
        (
            "profiler-daemon/src/source",
            "| file (`profiler-daemon/src/source/`) |",
        ),
        (
            "profiler-ebpf/src/probes",
            "| file (`profiler-ebpf/src/probes/`) |",
        ),
    ] {
        assert_eq!(listed(heading), unsafe_files(folder), "{folder}");
    }
    for folder in ["core", "sink", "identity", "recording", "daemon"] {
        let files = unsafe_files(&format!("profiler-daemon/src/{folder}"));
        assert_eq!(files, BTreeSet::new(), "{folder}");
    }
}

/// The only program that is started is the user's own, behind `attach --`.
#[test]
fn no_shell_is_started_and_programs_by_one_place_only() {
    let mut found = Vec::new();
    let folder = root().join("profiler-daemon/src");
    sources(&folder, &mut found);
    let starts: BTreeSet<String> = found
        .iter()
        .filter(|path| {
            let code = code(path);
            let own = code.split("#[cfg(test)]").next().unwrap_or_default();
            let words = [
                "process::Command",
                "posix_spawn",
                "execve",
                ".exec()",
                "libc::system",
            ];
            words.iter().any(|word| own.contains(word))
        })
        .map(|path| {
            path.strip_prefix(&folder)
                .expect("below")
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(starts, BTreeSet::from(["daemon/gate.rs".to_owned()]));
    for path in found {
        let code = code(&path);
        for word in ["\"sh\"", "\"bash\"", "\"/bin/sh\""] {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}
