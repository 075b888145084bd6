//! The short form of `cargo xtask verify`: the same program, judging the tests' own build.

mod common;

use std::process::Command;

use common::schedscope::may_load_probes;
use common::workload_program;

/// Runs `verify`, prints its table, and fails unless all of it holds.
#[track_caller]
fn verify(arguments: &[&str]) {
    let output = Command::new(workload_program().with_file_name("verify"))
        .args(["--short", "--schedscope", env!("CARGO_BIN_EXE_schedscope")])
        .args(["--dir", env!("CARGO_TARGET_TMPDIR")])
        .args(arguments)
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
}

#[test]
fn figures_agree_with_others_on_a_quiet_machine() {
    if may_load_probes("figures_agree_with_others_on_a_quiet_machine") {
        verify(&["--quiet"]);
    }
}

#[test]
fn figures_agree_with_others_while_a_cpu_is_busy() {
    if may_load_probes("figures_agree_with_others_while_a_cpu_is_busy") {
        verify(&["--busy"]);
    }
}
