//! Puts the compiled probes where the daemon can include them.
//!
//! They are built before, by `cargo xtask`, with a compiler of their own. `SCHEDSCOPE_PROBES` names
//! another object to take. The code gets the path as the compile-time variable
//! `SCHEDSCOPE_PROBES` too.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Names an object to embed in place of the one that `cargo xtask` built.
const OVERRIDE: &str = "SCHEDSCOPE_PROBES";
/// Where `cargo xtask` puts the object, from this package.
const BUILT: &str = "../target/probes/schedscope-probes";

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Cargo shows this as the build's one error.
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let (object, remedy) = match env::var_os(OVERRIDE) {
        Some(path) => (
            PathBuf::from(path),
            "correct or unset the variable SCHEDSCOPE_PROBES",
        ),
        None => (
            Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(BUILT),
            "run `cargo xtask build`, which compiles them first",
        ),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).map_err(|error| {
        format!(
            "the compiled probes are not at {} ({error}): {remedy}",
            object.display()
        )
    })?;
    // The machine is a 16-bit field at offset 18 of every ELF header; BPF is 247.
    if !bytes.starts_with(b"\x7fELF") || bytes.get(18..20) != Some(&[247, 0]) {
        return Err(format!("{} is not a BPF object: {remedy}", object.display()).into());
    }
    let copy = Path::new(&env::var("OUT_DIR")?).join("schedscope-probes");
    fs::write(&copy, bytes)?;
    println!("cargo::rustc-env=SCHEDSCOPE_PROBES={}", copy.display());
    Ok(())
}
