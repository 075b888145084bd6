//! The core does no I/O: no clock, no files, no network, no threads, no logging, no `unsafe`. And it
//! does not hash on the way of a record.

use std::fs;
use std::path::{Path, PathBuf};

/// What its sources must not name.
const FORBIDDEN: [&str; 14] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::process",
    "std::thread",
    "std::time",
    "std::env",
    "tokio",
    "aya",
    "rustix",
    "crate::source",
    "crate::daemon",
    "println!",
    "unsafe ",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the core's folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn no_source_of_the_core_names_the_outside() {
    let mut found = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core"),
        &mut found,
    );
    assert!(found.len() > 10, "only {} files", found.len());
    for path in found {
        let text = fs::read_to_string(&path).expect("a source file");
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            let named = FORBIDDEN.iter().find(|word| line.contains(**word));
            assert_eq!(
                named,
                None,
                "{}, code line {}: {line}",
                path.display(),
                number + 1
            );
        }
    }
}

/// The files that every record passes through.
const PATH_OF_RECORDS: [&str; 7] = [
    "decode.rs",
    "gaps.rs",
    "merge.rs",
    "reconstruct.rs",
    "spans.rs",
    "thread.rs",
    "threads.rs",
];

#[test]
fn no_record_is_looked_up_in_a_map() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
    for file in PATH_OF_RECORDS {
        let text = fs::read_to_string(core.join(file)).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for map in ["HashMap", "HashSet", "BTreeMap", "BTreeSet"] {
            assert!(!code.contains(map), "{file} uses a {map}");
        }
    }
}
