//! What must hold for every report, whatever was measured: the parts sum to their whole.

use serde_json::Value;

use super::number;

/// Fails unless the report has all that schema 1 has, and its books balance to the nanosecond.
#[track_caller]
pub(crate) fn check(report: &Value) {
    assert_eq!(report["schema"], 1);
    assert_eq!(report["tool"], "schedscope");
    assert!(report["version"].is_string());
    let start_unix_ns: u64 = number(&report["window"]["start_unix_ns"]);
    // 2024, in nanoseconds since 1970: a boot time here would be a mistake of clocks.
    assert!(start_unix_ns > 1_700_000_000 * 1_000_000_000);
    for field in ["kind", "value"] {
        assert!(report["target"][field].is_string(), "{}", report["target"]);
    }
    for field in ["events", "dropped", "inverted", "censored_spans"] {
        let _: u64 = number(&report["loss"][field]);
    }
    let duration_ns: u64 = number(&report["window"]["duration_ns"]);
    let threads = report["threads"].as_array().expect("a list of threads");
    for thread in threads {
        check_figures(thread);
        for field in ["tid", "tgid"] {
            let _: u32 = number(&thread[field]);
        }
        for field in ["comm", "unit"] {
            assert!(thread[field].is_string(), "{field} of {thread}");
        }
        let observed_ns: u64 = number(&thread["observed_ns"]);
        assert!(
            observed_ns <= duration_ns,
            "a life within the window of {duration_ns} ns: {thread}"
        );
    }
    let total = &report["total"];
    check_figures(total);
    if report["loss"]["unlisted_threads"] == 0 {
        for pointer in [
            "/observed_ns",
            "/time_ns/running",
            "/time_ns/runnable",
            "/time_ns/blocked",
            "/time_ns/unknown",
            "/switches/voluntary",
            "/switches/involuntary",
            "/runqueue_delay/count",
            "/runqueue_delay/sum_ns",
            "/offcpu/count",
            "/offcpu/sum_ns",
        ] {
            let of = |figures: &Value| figures.pointer(pointer).map_or(0, number::<u64>);
            let sum: u64 = threads.iter().map(of).sum();
            assert_eq!(of(total), sum, "{pointer}: total and sum over the threads");
        }
    }
}

/// Checks the figures of one thread, or of all.
#[track_caller]
fn check_figures(figures: &Value) {
    let time = &figures["time_ns"];
    let whole: u64 = number(&figures["observed_ns"]);
    assert_eq!(
        sum(time, &["running", "runnable", "blocked", "unknown"]),
        whole,
        "{figures}"
    );
    let runnable: u64 = number(&time["runnable"]);
    let causes = ["contended", "throttled", "placement", "unknown"];
    assert_eq!(sum(&figures["runnable_ns"], &causes), runnable, "{figures}");
    let reasons = figures["blocked_ns"].as_object().expect("reasons");
    let blocked: u64 = reasons.values().map(number::<u64>).sum();
    assert_eq!(blocked, number::<u64>(&time["blocked"]), "{figures}");
    for field in ["wakeups", "migrations"] {
        let _: u64 = number(&figures[field]);
    }
    for field in ["voluntary", "involuntary"] {
        let _: u64 = number(&figures["switches"][field]);
    }
    for field in ["wakers", "culprits"] {
        assert!(figures[field].is_array(), "{field} of {figures}");
    }
    check_distribution(&figures["runqueue_delay"], runnable);
    check_distribution(&figures["offcpu"], whole);
}

/// Checks a distribution of spans which are part of `whole`.
#[track_caller]
fn check_distribution(spans: &Value, whole: u64) {
    let of = |field: &str| number::<u64>(&spans[field]);
    let error = spans["relative_error"]
        .as_f64()
        .expect("an error is stated");
    assert!((0.0..=0.01).contains(&error), "{spans}");
    let quantiles = ["p50_ns", "p90_ns", "p99_ns", "p999_ns"].map(of);
    assert!(quantiles.is_sorted(), "{spans}");
    let max_ns = of("max_ns");
    assert!(
        quantiles[3] as f64 <= max_ns as f64 * (1.0 + error),
        "{spans}"
    );
    assert!(max_ns <= of("sum_ns"), "{spans}");
    assert!(
        of("sum_ns") <= whole,
        "spans are part of {whole} ns: {spans}"
    );
    assert!(max_ns == 0 || of("count") > 0, "{spans}");
}

#[track_caller]
fn sum(parts: &Value, names: &[&str]) -> u64 {
    names.iter().map(|name| number::<u64>(&parts[name])).sum()
}

/// The thread with this id that lived longest, if ids were reused.
#[track_caller]
pub(crate) fn thread(report: &Value, tid: u32) -> &Value {
    let threads = report["threads"].as_array().expect("a list of threads");
    threads
        .iter()
        .filter(|thread| thread["tid"] == tid)
        .max_by_key(|thread| number::<u64>(&thread["observed_ns"]))
        .unwrap_or_else(|| panic!("a thread {tid} expected in {report}"))
}

/// All threads with this name.
pub(crate) fn named<'a>(report: &'a Value, name: &str) -> Vec<&'a Value> {
    let threads = report["threads"].as_array().expect("a list of threads");
    threads
        .iter()
        .filter(|thread| thread["comm"] == name)
        .collect()
}

/// One of the four parts of a thread's time.
#[track_caller]
pub(crate) fn time(thread: &Value, part: &str) -> u64 {
    number(&thread["time_ns"][part])
}

/// Fails unless two figures agree within a part of the larger one plus a constant.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: u64, truth: u64, part: f64, plus_ns: u64) {
    let allowed = found.max(truth) as f64 * part + plus_ns as f64;
    let off = found.abs_diff(truth);
    assert!(
        off as f64 <= allowed,
        "{what}: found {found}, truth {truth}, {off} apart, at most {allowed:.0} allowed"
    );
}
