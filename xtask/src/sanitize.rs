//! `cargo xtask sanitize`: the ring's protocol under `AddressSanitizer` and `ThreadSanitizer`.
//!
//! The test that is compiled needs the standard library alone, so no dependency has to be built again. What
//! decodes records and recordings goes through `AddressSanitizer` by `cargo xtask fuzz --sanitizer address`.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::process::run;
use crate::workspace::Workspace;

/// The test, from the root of the checkout.
const TEST: &str = "profiler-daemon/tests/ring_threads.rs";

/// What the test harness hands from thread to thread goes through parts of the standard library that are not
/// compiled with the sanitizer, which so can't see in what order that happens.
const HARNESS: &str = "race:test::run_test\nrace:CompletedTest\n";

/// Builds the test with each sanitizer and runs it.
pub(crate) fn sanitize(workspace: &Workspace) -> Result<ExitCode> {
    let dir = workspace.tools().join("sanitize");
    fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let harness = dir.join("harness");
    fs::write(&harness, HARNESS).with_context(|| format!("can't write {}", harness.display()))?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    for sanitizer in ["address", "thread"] {
        println!("== {sanitizer}");
        let program = dir.join(sanitizer);
        let mut compiler = Command::new("rustc");
        compiler
            .current_dir(workspace.root())
            .args(["--test", "--edition", "2024", "-O", "--target", &target])
            .arg(format!("-Zsanitizer={sanitizer}"))
            // The standard library has no sanitizer in it. What it does with memory is seen all the same, since
            // that goes through functions that the sanitizer replaces.
            .arg("-Cunsafe-allow-abi-mismatch=sanitizer")
            .arg(TEST)
            .arg("-o")
            .arg(&program)
            .env("RUSTC_BOOTSTRAP", "1");
        run(&mut compiler)?;
        let mut test = Command::new(&program);
        test.env("ASAN_OPTIONS", "detect_leaks=0").env(
            "TSAN_OPTIONS",
            format!("halt_on_error=1 suppressions={}", harness.display()),
        );
        run(&mut test)?;
    }
    Ok(ExitCode::SUCCESS)
}
