//! What must hold for every report, whatever was measured: the parts sum to their whole.

use std::collections::BTreeMap;

use serde_json::Value;

use super::number;

/// Reasons to wait of a thread that has nothing to do.
const IDLE: &[&str] = &["event-wait", "sleep", "kthread-idle", "net-accept"];

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
        // The total may fold another rest of calls than a thread, so only their sum is compared.
        let reasons = |figures: &Value| {
            let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
            for (reason, ns) in figures["blocked_ns"].as_object().expect("reasons") {
                let name = reason.split('(').next().unwrap_or_default();
                *reasons.entry(name.to_owned()).or_default() += number::<u64>(ns);
            }
            reasons
        };
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, ns) in threads.iter().flat_map(reasons) {
            *sums.entry(reason).or_default() += ns;
        }
        assert_eq!(
            reasons(total),
            sums,
            "reasons: total and sum over the threads"
        );
    }
    let contended: u64 = number(&total["runnable_ns"]["contended"]);
    for culprits in ["culprits_by_process", "culprits_by_unit"] {
        check_culprits(total, culprits, contended);
    }
    for (list, is_open) in [("worst", false), ("stuck", true)] {
        for waits in ["runqueue", "blocked", "idle"] {
            let waits = report[list][waits].as_array().expect("a list of waits");
            for wait in waits {
                assert_eq!(wait["open"], is_open, "{list}: {wait}");
                check_wait(wait, duration_ns);
            }
        }
    }
}

/// Those who held the CPU, with all others, held it for as long as it was waited for.
#[track_caller]
fn check_culprits(figures: &Value, field: &str, contended: u64) {
    let rest: u64 = number(&figures[format!("{field}_other_ns")]);
    let named = figures[field].as_array().expect("a list of culprits");
    let named: u64 = named.iter().map(|row| number::<u64>(&row["ns"])).sum();
    assert_eq!(named + rest, contended, "{field} of {figures}");
}

/// Checks a single wait, and what others did meanwhile.
#[track_caller]
fn check_wait(wait: &Value, window: u64) {
    let duration: u64 = number(&wait["duration_ns"]);
    assert!(duration <= window, "within the window: {wait}");
    let sum_of = |culprits: &Value| -> u64 {
        let culprits = culprits.as_array().expect("a list of culprits");
        culprits.iter().map(|row| number::<u64>(&row["ns"])).sum()
    };
    match wait["causes"].as_object() {
        Some(causes) => {
            let sum: u64 = causes.values().map(number::<u64>).sum();
            assert_eq!(sum, duration, "{wait}");
            assert!(
                sum_of(&wait["culprits"]) <= number::<u64>(&causes["contended"]),
                "{wait}"
            );
        }
        None => assert!(wait["reason"].is_string(), "{wait}"),
    }
    for link in wait["chain"].as_array().expect("a chain") {
        let parts = ["running_ns", "runnable_ns", "blocked_ns", "unknown_ns"];
        assert_eq!(
            sum(link, &parts),
            number::<u64>(&link["duration_ns"]),
            "{wait}"
        );
        assert!(
            sum_of(&link["culprits"]) <= number::<u64>(&link["runnable_ns"]),
            "{wait}"
        );
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
    let idle = IDLE.iter().filter_map(|reason| reasons.get(*reason));
    let idle: u64 = idle.map(number::<u64>).sum();
    assert_eq!(idle, number::<u64>(&figures["idle_ns"]), "{figures}");
    let origins = ["woken", "preempted", "yielded", "forked", "unknown"];
    assert_eq!(
        sum(&figures["runnable_by_origin_ns"], &origins),
        runnable,
        "{figures}"
    );
    check_culprits(
        figures,
        "culprits",
        number(&figures["runnable_ns"]["contended"]),
    );
    let explained = figures["explain"].as_array().expect("a list of evidence");
    let explained: u64 = explained.iter().map(|row| number::<u64>(&row["ns"])).sum();
    let unexplained: u64 = number(&figures["explain_other"]["wait_ns"]);
    assert_eq!(explained + unexplained, blocked, "{figures}");
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
