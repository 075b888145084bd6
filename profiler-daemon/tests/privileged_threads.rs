//! Threads that are born, die, change their names and their ids while they are measured.

mod common;

use common::books::{named, thread, time};
use common::oracle::{check_against_kernel, row_of, truth_of};
use common::schedscope::{may_load_probes, measure_command, measure_process, settled};
use common::{Workload, number};

#[test]
fn threads_that_come_and_go_are_all_there() {
    if !may_load_probes("threads_that_come_and_go_are_all_there") {
        return;
    }
    let measured = settled(|| measure_command(&[], "fork-storm", &["--duration", "1s"]));
    let truth = truth_of(&measured.truth, "forker");
    let started: usize = number(&truth["facts"]["threads_started"]);
    assert_eq!(
        measured.report["loss"]["dropped"], 0,
        "{}",
        measured.report["loss"]
    );
    let short = named(&measured.report, "short-thread");
    assert_eq!(short.len(), started, "each short thread has its row");
    for row in short {
        assert_eq!(row["ended"], true, "{row}");
        assert!(time(row, "running") + time(row, "unknown") > 0, "{row}");
    }
    for row in measured.report["threads"].as_array().expect("threads") {
        assert_eq!(
            row["tgid"], truth["pid"],
            "processes that it started are not asked for"
        );
    }
    check_against_kernel(&measured.report, truth);
}

#[test]
fn threads_born_within_the_window_are_seen() {
    if !may_load_probes("threads_born_within_the_window_are_seen") {
        return;
    }
    let workload = Workload::start("fork-storm", &["--duration", "20s", "--period", "20ms"])
        .expect("it needs nothing");
    let report = measure_process(workload.pid(), &["--duration", "1s"]);
    let short = named(&report, "short-thread").len();
    assert!(
        (10..=60).contains(&short),
        "{short} threads in a second, one each 20 ms and some"
    );
    let (_, forker) = workload.member("forker");
    let window_ns: u64 = number(&report["window"]["duration_ns"]);
    assert_eq!(
        number::<u64>(&thread(&report, forker)["observed_ns"]),
        window_ns
    );
}

#[test]
fn names_follow_renames() {
    if !may_load_probes("names_follow_renames") {
        return;
    }
    let measured = settled(|| measure_command(&[], "renames", &["--duration", "500ms"]));
    let truth = truth_of(&measured.truth, "renamer");
    let row = row_of(&measured.report, truth);
    assert_eq!(row["comm"], truth["facts"]["last_name"], "{row}");
    check_against_kernel(&measured.report, truth);
}

#[test]
fn an_exec_by_another_thread_keeps_one_thread_with_its_new_name() {
    if !may_load_probes("an_exec_by_another_thread_keeps_one_thread_with_its_new_name") {
        return;
    }
    let measured = settled(|| measure_command(&[], "exec-from-thread", &["--duration", "1s"]));
    let truth = truth_of(&measured.truth, "after-exec");
    let rows = named(&measured.report, "after-exec");
    assert_eq!(rows.len(), 1, "{:?}", measured.report["threads"]);
    assert_eq!(
        rows[0]["tid"], truth["pid"],
        "the thread has the process's id now"
    );
    let waited: u64 = number(&truth["waited_ns"]);
    assert!(
        time(rows[0], "blocked") >= waited - waited / 50,
        "{}",
        rows[0]
    );
    let bystander = named(&measured.report, "bystander");
    assert_eq!(bystander.len(), 1, "{:?}", measured.report["threads"]);
    assert_eq!(bystander[0]["ended"], true, "exec ends the other threads");
}
