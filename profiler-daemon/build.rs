//! Tells the crate where the compiled probes are.

use std::{env, fs, path::PathBuf};

/// Where `cargo xtask build` puts them, seen from the workspace.
const PROBES: &str = "target/probes/schedscope-probes";

fn main() -> std::io::Result<()> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    let probes = manifest.join("..").join(PROBES);
    println!("cargo::rerun-if-changed={}", probes.display());
    let probes = if probes.exists() {
        probes.canonicalize()?
    } else {
        // Everything but the probes can be built, tested and linted without a BPF toolchain; the
        // binary says what it lacks when it is asked to load them.
        println!(
            "cargo::warning=no probes in {PROBES}: run `cargo xtask build` for a whole binary"
        );
        let empty = env::var_os("OUT_DIR")
            .map(PathBuf::from)
            .unwrap_or_default()
            .join("no-probes");
        fs::write(&empty, [])?;
        empty
    };
    println!("cargo::rustc-env=SCHEDSCOPE_PROBES={}", probes.display());
    Ok(())
}
