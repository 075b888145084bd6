//! The quickest part of `cargo xtask verify`: the same program, judging the tests' own build.

mod common;

use std::process::Command;

use common::schedscope::may_load_probes;
use common::workload_program;

/// Runs one experiment of `verify`, prints its table, and fails unless all of it holds.
#[track_caller]
fn verify(machine: &str, experiment: &str) {
    let output = Command::new(workload_program().with_file_name("verify"))
        .args([
            "--short",
            "--schedscope",
            env!("CARGO_BIN_EXE_schedscope"),
            "--dir",
            env!("CARGO_TARGET_TMPDIR"),
            machine,
            "--only",
            experiment,
        ])
        .output()
        .expect("the program starts");
    let table = String::from_utf8_lossy(&output.stdout);
    println!("{table}");
    assert!(
        output.status.success(),
        "{}: {table}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(table.contains(experiment), "{table}");
}

/// Run time and time on a run queue: the kernel's books.
#[test]
fn threads_that_compute_agree_with_the_kernel() {
    if may_load_probes("threads_that_compute_agree_with_the_kernel") {
        verify("--quiet", "spin");
    }
}

/// Waits, their longest and their reason: the program's own stopwatch, while a CPU is busy.
#[test]
fn threads_that_wait_agree_with_their_stopwatch() {
    if may_load_probes("threads_that_wait_agree_with_their_stopwatch") {
        verify("--busy", "sleep");
        verify("--busy", "mutex");
    }
}
