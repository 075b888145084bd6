//! Reading what Rust's test harness prints.
//!
//! Only its plain text is stable. Tests and the programs that they start may print between its
//! lines, so no single line is believed alone: the list of tests, the lines, the summary and the
//! exit status must fit together, and whatever doesn't fit is a failure.

use std::collections::{BTreeMap, BTreeSet};

/// The sign by which a test says that this host can't run it: `not run: NAME: REASON` on a line.
const NOT_RUN: &str = "not run: ";
/// The reason for tests that are skipped without one.
const IGNORED: &str = "marked #[ignore]";

/// How a test binary ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With exit status 0.
    Success,
    /// With another one, or by a signal; in words.
    Failure(String),
    /// It was stopped after this many seconds.
    TimedOut(u64),
}

/// What came of the tests of one binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How many passed.
    pub(crate) passed: usize,
    /// Which failed, each with what is known about it.
    pub(crate) failed: Vec<String>,
    /// Which were not run, by name, with the reason.
    pub(crate) skipped: Vec<(String, String)>,
    /// Which of those that passed did so only when they were run again.
    pub(crate) again: Vec<String>,
}

impl Outcome {
    /// Takes in what came of those that failed when they were run again.
    pub(crate) fn amend(&mut self, second: Self) {
        let has_passed = |name: &String| {
            !second.failed.contains(name) && second.skipped.iter().all(|(its, _)| its != name)
        };
        self.again = self.failed.drain(..).filter(has_passed).collect();
        self.passed += second.passed;
        self.failed = second.failed;
        self.skipped.extend(second.skipped);
    }
}

/// The names in the output of `--list --format terse`.
pub(crate) fn parse_list(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

/// Judges a binary by its list of tests, its output (with `--show-output`) and its end.
pub(crate) fn judge(tests: &[String], output: &str, end: &End) -> Outcome {
    let known: BTreeSet<&str> = tests.iter().map(String::as_str).collect();
    let lines = read_lines(output, &known);
    let summary = summaries(output).last();
    let mut failed: BTreeSet<&str> = lines.failed.clone();
    if summary.is_some() {
        // A line of its own can be torn apart by other output; the harness lists the names again.
        failed.extend(failures(output, &known));
    }
    let mut problems = Vec::new();
    let mut declined: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, reason) in not_run(output) {
        if !known.contains(name) {
            problems.push(format!(
                "`{NOT_RUN}{name}` was printed, but there is no such test"
            ));
        } else if !failed.contains(name) && !lines.ignored.contains_key(name) {
            declined.insert(name, reason);
        }
    }

    let (passed, unnamed_ignored) = if let Some(summary) = summary {
        let reported = summary.passed + summary.failed + summary.ignored;
        if reported != tests.len() {
            problems.push(format!(
                "{} tests are listed, but {reported} reported",
                tests.len()
            ));
        }
        // A failure whose name could not be read is a failure all the same.
        let unnamed_failed = summary.failed.saturating_sub(failed.len());
        problems.extend((0..unnamed_failed).map(|_| "a test with an unreadable name".to_owned()));
        let unnamed_ignored = summary.ignored.saturating_sub(lines.ignored.len());
        (
            summary.passed.saturating_sub(declined.len()),
            unnamed_ignored,
        )
    } else {
        // It ended half-way.
        let passed = lines
            .passed
            .iter()
            .filter(|name| !declined.contains_key(*name))
            .count();
        let has_result = |name: &str| {
            lines.passed.contains(name)
                || lines.ignored.contains_key(name)
                || failed.contains(name)
                || declined.contains_key(name)
        };
        let lost = tests.iter().filter(|name| !has_result(name));
        problems.extend(lost.map(|name| format!("{name} (no result)")));
        (passed, 0)
    };
    match end {
        End::Success if summary.is_none() => problems.push("ended without a summary".to_owned()),
        End::Success if !failed.is_empty() => {
            problems.push("tests failed, but it ended with success".to_owned());
        }
        End::Failure(how) if failed.is_empty() && problems.is_empty() => {
            problems.push(format!("every test passed, but it ended with {how}"));
        }
        End::TimedOut(seconds) => problems.push(format!("stopped after {seconds} s")),
        End::Success | End::Failure(_) => {}
    }

    let skipped = lines
        .ignored
        .iter()
        .chain(&declined)
        .map(|(name, reason)| ((*name).to_owned(), (*reason).to_owned()))
        .chain((0..unnamed_ignored).map(|_| ("(unnamed)".to_owned(), IGNORED.to_owned())))
        .collect();
    let failed = failed
        .into_iter()
        .map(str::to_owned)
        .chain(problems)
        .collect();
    Outcome {
        passed,
        failed,
        skipped,
        again: Vec::new(),
    }
}

/// Judges `cargo test --doc`, which compiles and runs an unknown number of binaries.
pub(crate) fn judge_doctests(output: &str, end: &End) -> Outcome {
    let mut outcome = Outcome::default();
    for summary in summaries(output) {
        outcome.passed += summary.passed;
        outcome
            .failed
            .extend((0..summary.failed).map(|_| "a doctest".to_owned()));
        outcome
            .skipped
            .extend((0..summary.ignored).map(|_| ("doctest".to_owned(), IGNORED.to_owned())));
    }
    match end {
        End::Failure(how) if outcome.failed.is_empty() => {
            outcome.failed.push(format!("ended with {how}"));
        }
        End::TimedOut(seconds) => outcome.failed.push(format!("stopped after {seconds} s")),
        End::Success | End::Failure(_) => {}
    }
    outcome
}

/// The numbers in `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summary {
    passed: usize,
    failed: usize,
    ignored: usize,
}

fn summaries(output: &str) -> impl Iterator<Item = Summary> {
    output.lines().filter_map(|line| {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            counts
                .split(';')
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        };
        Some(Summary {
            passed: count("passed")?,
            failed: count("failed")?,
            ignored: count("ignored")?,
        })
    })
}

/// What the lines `test NAME ... RESULT` say.
#[derive(Default)]
struct Lines<'a> {
    passed: BTreeSet<&'a str>,
    failed: BTreeSet<&'a str>,
    ignored: BTreeMap<&'a str, &'a str>,
}

fn read_lines<'a>(output: &'a str, known: &BTreeSet<&str>) -> Lines<'a> {
    let mut lines = Lines::default();
    for line in output.lines() {
        let Some((name, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        else {
            continue;
        };
        let name = name.strip_suffix(" - should panic").unwrap_or(name);
        if !known.contains(name) {
            continue;
        }
        if result == "ok" {
            lines.passed.insert(name);
        } else if result.starts_with("FAILED") || result.ends_with("FAILED") {
            lines.failed.insert(name);
        } else if let Some(reason) = result.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(',').trim();
            lines
                .ignored
                .insert(name, if reason.is_empty() { IGNORED } else { reason });
        }
    }
    lines
}

/// The names under the last `failures:`.
fn failures<'a>(output: &'a str, known: &BTreeSet<&str>) -> Vec<&'a str> {
    let Some(start) = output.rfind("\nfailures:\n") else {
        return Vec::new();
    };
    output[start..]
        .lines()
        .skip(2)
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|name| known.contains(name))
        .collect()
}

/// Names and reasons of `not run: NAME: REASON`; names hold `::` but no `: `.
fn not_run(output: &str) -> impl Iterator<Item = (&str, &str)> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix(NOT_RUN)?.split_once(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn failure() -> End {
        End::Failure("exit status: 101".to_owned())
    }

    #[test]
    fn a_list_holds_tests_and_not_benchmarks() {
        let text = "a::b: test\nbench_me: benchmark\nc: test\n";
        assert_eq!(parse_list(text), ["a::b", "c"]);
    }

    #[test]
    fn all_passed() {
        let output = "\nrunning 2 tests\ntest a ... ok\ntest b - should panic ... ok\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; \
             finished in 0.00s\n";
        let outcome = judge(&names(&["a", "b"]), output, &End::Success);
        assert_eq!(
            outcome,
            Outcome {
                passed: 2,
                ..Outcome::default()
            }
        );
    }

    #[test]
    fn failed_ignored_and_not_run_are_told_apart() {
        let output = "\nrunning 4 tests\ntest a ... ok\ntest b ... FAILED\n\
             test c ... ignored, needs two machines\ntest d ... ok\n\nsuccesses:\n\n\
             ---- d stdout ----\nnot run: d: no cgroup controllers here\n\n\nsuccesses:\n    a\n    d\n\n\
             failures:\n\n---- b stdout ----\nboom\n\n\nfailures:\n    b\n\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.00s\n";
        let outcome = judge(&names(&["a", "b", "c", "d"]), output, &failure());
        assert_eq!(outcome.passed, 1);
        assert_eq!(outcome.failed, ["b"]);
        assert_eq!(
            outcome.skipped,
            [
                ("c".to_owned(), "needs two machines".to_owned()),
                ("d".to_owned(), "no cgroup controllers here".to_owned())
            ]
        );
    }

    #[test]
    fn a_test_that_says_not_run_and_fails_has_failed() {
        let output = "test d ... FAILED\n\nfailures:\n\n---- d stdout ----\nnot run: d: no btf\n\n\
             \nfailures:\n    d\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; \
             0 filtered out; finished in 0.00s\n";
        let outcome = judge(&names(&["d"]), output, &failure());
        assert_eq!(
            outcome,
            Outcome {
                failed: vec!["d".to_owned()],
                ..Outcome::default()
            }
        );
    }

    #[test]
    fn a_line_torn_by_a_child_process_hides_no_failure() {
        let output = "test b ... a child's words\nFAILED\n\nfailures:\n\n\nfailures:\n    b\n\n\
             test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; \
             finished in 0.00s\n";
        assert_eq!(judge(&names(&["b"]), output, &failure()).failed, ["b"]);
        let unreadable = "test b ... a child's words\nFAILED\n\
             test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; \
             finished in 0.00s\n";
        assert_eq!(
            judge(&names(&["b"]), unreadable, &failure()).failed.len(),
            1
        );
    }

    #[test]
    fn a_crash_fails_every_test_without_a_result() {
        let output = "running 3 tests\ntest a ... ok\ntest b ... ";
        let end = End::Failure("signal: 11 (SIGSEGV)".to_owned());
        let outcome = judge(&names(&["a", "b", "c"]), output, &end);
        assert_eq!(outcome.passed, 1);
        assert_eq!(outcome.failed, ["b (no result)", "c (no result)"]);
    }

    #[test]
    fn a_binary_that_exits_early_with_success_has_failed() {
        let outcome = judge(&names(&["a"]), "test a ... ok\n", &End::Success);
        assert_eq!(outcome.failed, ["ended without a summary"]);
    }

    #[test]
    fn a_failing_exit_status_after_passing_tests_is_a_failure() {
        let output = "test a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; \
             0 measured; 0 filtered out; finished in 0.00s\n";
        let outcome = judge(&names(&["a"]), output, &failure());
        assert_eq!(outcome.passed, 1);
        assert_eq!(
            outcome.failed,
            ["every test passed, but it ended with exit status: 101"]
        );
    }

    #[test]
    fn tests_that_vanish_between_list_and_run_are_a_failure() {
        let output = "test a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; \
             0 measured; 1 filtered out; finished in 0.00s\n";
        let outcome = judge(&names(&["a", "b"]), output, &End::Success);
        assert_eq!(outcome.failed, ["2 tests are listed, but 1 reported"]);
    }

    #[test]
    fn a_timeout_is_a_failure() {
        let outcome = judge(&names(&["a"]), "test a ... ", &End::TimedOut(60));
        assert_eq!(outcome.passed, 0);
        assert_eq!(outcome.failed, ["a (no result)", "stopped after 60 s"]);
    }

    #[test]
    fn not_run_of_an_unknown_test_is_a_failure() {
        let output = "test a ... ok\nnot run: z: for no reason\n\ntest result: ok. 1 passed; \
             0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let outcome = judge(&names(&["a"]), output, &End::Success);
        assert_eq!(outcome.passed, 1);
        assert_eq!(
            outcome.failed,
            ["`not run: z` was printed, but there is no such test"]
        );
    }

    #[test]
    fn a_summary_in_a_tests_own_output_is_not_taken() {
        let output = "---- a stdout ----\ntest result: ok. 7 passed; 0 failed; 0 ignored; \
             0 measured; 0 filtered out; finished in 0.00s\n\ntest result: ok. 1 passed; \
             0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let outcome = judge(&names(&["a"]), output, &End::Success);
        assert_eq!(
            outcome,
            Outcome {
                passed: 1,
                ..Outcome::default()
            }
        );
    }

    #[test]
    fn doctests_add_up_over_their_binaries() {
        let output = "   Doc-tests one\n\nrunning 1 test\ntest src/a.rs - a (line 1) ... ok\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; \
             finished in 0.00s\n\n   Doc-tests two\n\ntest result: FAILED. 1 passed; 1 failed; \
             1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let outcome = judge_doctests(output, &failure());
        assert_eq!(
            (outcome.passed, outcome.failed.len(), outcome.skipped.len()),
            (2, 1, 1)
        );
        assert_eq!(
            judge_doctests("error: could not compile\n", &failure())
                .failed
                .len(),
            1
        );
    }
}
