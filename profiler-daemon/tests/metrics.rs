//! What `/metrics` says of a known history, and that it never takes back what it said.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::process::{Command, Stdio};

use profiler_ebpf::{Switch, switch_flags};
use proptest::prelude::*;
use schedscope::core::decode::Event;
use schedscope::core::{Core, Selector, Stream, TargetSpec, UnitNews, UnitNumber};
use schedscope::sink::metrics::catalogue::{self, CATALOGUE, Type};
use schedscope::sink::metrics::protobuf::{self, MetricFamily};
use schedscope::sink::metrics::{Exporter, program};
use support::prometheus;
use support::shop::shop;
use support::{
    DEAD, HOSTILE, MS, S, START_NS, expect_file, fork, gap, history, hostile, scrape, switch,
    wakeup,
};

/// Value by series, as `name{labels}`.
fn parse(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" # {").next().unwrap_or(line))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            let value = value.parse().expect("a number");
            (series.to_owned(), value)
        })
        .collect()
}

/// The names of a series' labels.
fn label_names(series: &str) -> BTreeSet<String> {
    let Some((_, labels)) = series.split_once('{') else {
        return BTreeSet::new();
    };
    labels
        .trim_end_matches('}')
        .split("\",")
        .filter_map(|label| label.split_once('='))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn a_scrape_is_as_documented() {
    let scrape = scrape(history(true));
    let openmetrics = Exporter::new().openmetrics(&scrape).expect("encodes");
    expect_file("tests/golden/metrics.openmetrics.txt", &openmetrics);
    let plain = Exporter::new().prometheus(&scrape).expect("encodes");
    expect_file("tests/golden/metrics.prometheus.txt", &plain);
    assert_eq!(parse(&openmetrics), parse(&plain));
}

#[test]
fn the_documentation_is_up_to_date() {
    expect_file("../docs/metrics.md", &catalogue::document());
}

#[test]
fn the_catalogue_has_all_series_and_no_other() {
    let text = Exporter::new()
        .openmetrics(&scrape(history(true)))
        .expect("encodes");
    let mut seen: HashMap<&str, BTreeSet<String>> = HashMap::new();
    let series = parse(&text);
    for series in series.keys() {
        let name = series.split('{').next().expect("a name");
        seen.entry(name).or_default().extend(label_names(series));
    }
    for metric in CATALOGUE {
        let name = metric.series();
        let mut labels: BTreeSet<String> = metric
            .labels
            .iter()
            .map(|label| label.name.to_owned())
            .collect();
        if metric.kind == Type::Histogram {
            for suffix in ["_sum", "_count"] {
                let found = seen.remove(format!("{name}{suffix}").as_str());
                assert_eq!(found.as_ref(), Some(&labels), "{name}{suffix}");
            }
            labels.insert("le".to_owned());
            let found = seen.remove(format!("{name}_bucket").as_str());
            assert_eq!(found, Some(labels), "{name}_bucket");
        } else {
            assert_eq!(seen.remove(name.as_str()), Some(labels), "{name}");
        }
    }
    assert!(seen.is_empty(), "not in the catalogue: {seen:?}");
}

/// The files that Prometheus and Grafana are given.
const DEPLOYED: [&str; 5] = [
    "prometheus/scrape.yml",
    "prometheus/rules.yml",
    "prometheus/alerts.yml",
    "prometheus/tests/alerts.yml",
    "grafana/schedscope.json",
];

fn deploy(file: &str) -> std::path::PathBuf {
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    deploy.join(file)
}

#[test]
fn dashboards_and_alerts_name_only_what_is_in_the_catalogue() {
    let mut known = BTreeSet::new();
    for metric in CATALOGUE {
        let name = metric.series();
        if metric.kind == Type::Histogram {
            known.extend(["_bucket", "_sum", "_count"].map(|suffix| name.clone() + suffix));
        }
        known.insert(name);
    }
    for file in DEPLOYED {
        let text = std::fs::read_to_string(deploy(file)).expect("it is in the repository");
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let names = text.split(|c| !is_part(c));
        let names: BTreeSet<&str> = names.filter(|its| its.starts_with("schedscope_")).collect();
        for name in &names {
            assert!(known.contains(*name), "{file}: {name} is in no catalogue");
        }
        assert!(
            !names.is_empty() || file.ends_with("scrape.yml"),
            "{file} has none"
        );
    }
}

/// `promtool`, or `None` after it was said that the test is not run.
fn promtool(test: &str) -> Option<Command> {
    let found = prometheus::program("promtool");
    if found.is_none() {
        println!("not run: {test}: there is no promtool");
    }
    found.map(Command::new)
}

#[test]
fn promtool_finds_nothing_wrong() {
    const TEST: &str = "promtool_finds_nothing_wrong";
    let Some(mut tool) = promtool(TEST) else {
        return;
    };
    let mut check = tool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let text = Exporter::new()
        .prometheus(&scrape(shop()))
        .expect("encodes");
    let mut input = check.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let outcome = check.wait_with_output().expect("it ends");
    assert!(
        outcome.status.success() && outcome.stderr.is_empty(),
        "{outcome:?}"
    );
    let commands: [&[&str]; 2] = [
        &["check", "config", "prometheus/scrape.yml"],
        &["test", "rules", "prometheus/tests/alerts.yml"],
    ];
    for arguments in commands {
        let mut tool = promtool(TEST).expect("it was there");
        let outcome = tool.current_dir(deploy("")).args(arguments).output();
        let outcome = outcome.expect("it starts");
        assert!(outcome.status.success(), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn buckets_add_up() {
    let text = Exporter::new()
        .openmetrics(&scrape(history(false)))
        .expect("encodes");
    let series = parse(&text);
    let of = |name: &str| series[name].to_string();
    // 2 ms to 10 ms of queueing, one a millisecond, and 50 ms once, 1 ms twice.
    let le = |bound: &str| {
        of(&format!(
            "schedscope_runqueue_delay_seconds_bucket{{le=\"{bound}\",target=\"host\"}}"
        ))
    };
    assert_eq!(le("0.0005"), "0");
    assert_eq!(le("0.0025"), "3", "1, 1 and 2 ms");
    assert_eq!(le("0.025"), "11");
    assert_eq!(le("0.1"), "12");
    assert_eq!(le("+Inf"), "12");
    let name = "schedscope_runqueue_delay_seconds";
    assert_eq!(of(&format!("{name}_count{{target=\"host\"}}")), "12");
    assert_eq!(of(&format!("{name}_sum{{target=\"host\"}}")), "0.106");
    assert_eq!(of(&format!("{name}_count{{target=\"web\"}}")), "11");
}

/// A series, and its value in a scrape of [`shop`].
#[track_caller]
fn check_shop(series: &[(&str, &str)]) {
    let text = Exporter::new()
        .openmetrics(&scrape(shop()))
        .expect("encodes");
    let all = parse(&text);
    for (name, value) in series {
        let name = format!("schedscope_{name}");
        assert_eq!(
            all.get(&name).map(f64::to_string).as_deref(),
            Some(*value),
            "{name}"
        );
    }
}

#[test]
fn it_is_told_why_threads_waited() {
    check_shop(&[
        (
            "blocked_seconds_total{target=\"web\",reason=\"lock\"}",
            "0.042",
        ),
        (
            "blocked_seconds_total{target=\"web\",reason=\"disk-io\"}",
            "0.015",
        ),
        (
            "blocked_seconds_total{target=\"web\",reason=\"pipe\"}",
            "0.5",
        ),
        (
            "blocked_seconds_total{target=\"web\",reason=\"other\"}",
            "1",
        ),
        ("blocked_seconds_total{target=\"web\",reason=\"tty\"}", "0"),
        (
            "runnable_seconds_total{target=\"web\",cause=\"contended\",origin=\"preempted\"}",
            "0.035",
        ),
        (
            "runnable_seconds_total{target=\"web\",cause=\"throttled\",origin=\"preempted\"}",
            "0.09",
        ),
        (
            "interference_seconds_total{victim=\"web\",culprit=\"batch.service\"}",
            "0.035",
        ),
        (
            "interference_seconds_total{victim=\"host\",culprit=\"batch.service\"}",
            "0.035",
        ),
        (
            "interference_seconds_total{victim=\"web\",culprit=\"other\"}",
            "0",
        ),
    ]);
}

#[test]
fn waits_that_go_on_are_told_in_all_states() {
    check_shop(&[
        ("waiting_threads{target=\"web\",state=\"pipe\"}", "1"),
        ("oldest_wait_seconds{target=\"web\",state=\"pipe\"}", "0.5"),
        ("waiting_threads{target=\"web\",state=\"event-wait\"}", "3"),
        (
            "oldest_wait_seconds{target=\"web\",state=\"event-wait\"}",
            "1",
        ),
        ("oldest_wait_seconds{target=\"web\",state=\"other\"}", "1"),
        ("waiting_threads{target=\"web\",state=\"runnable\"}", "0"),
        (
            "oldest_wait_seconds{target=\"web\",state=\"runnable\"}",
            "0",
        ),
        ("waiting_threads{target=\"host\",state=\"lock\"}", "0"),
    ]);
}

/// The value of a series of the protobuf form, and the series in the words of the text.
fn series_of(family: &MetricFamily, metric: &protobuf::Metric) -> (String, f64) {
    let labels = metric.label.iter();
    let labels: Vec<String> = labels
        .map(|label| format!("{}=\"{}\"", label.name, label.value))
        .collect();
    let braces = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", labels.join(","))
    };
    let value = match (&metric.counter, &metric.gauge, &metric.histogram) {
        (Some(counter), None, None) => counter.value,
        (None, Some(gauge), None) => gauge.value,
        (None, None, Some(histogram)) => histogram.sample_sum,
        _ => panic!("one kind of value: {metric:?}"),
    };
    let suffix = if metric.histogram.is_some() {
        "_sum"
    } else {
        ""
    };
    (format!("{}{suffix}{braces}", family.name), value)
}

#[test]
fn protobuf_says_the_same_as_text() {
    let scrape = scrape(shop());
    let text = parse(&Exporter::new().prometheus(&scrape).expect("encodes"));
    let families = protobuf::decode(&Exporter::new().protobuf(&scrape)).expect("decodes");
    let mut seen = 0;
    for family in &families {
        for metric in &family.metric {
            let (series, value) = series_of(family, metric);
            let expected = text.get(&series);
            assert_eq!(expected, Some(&value), "{series}");
            seen += 1;
            if let Some(histogram) = &metric.histogram {
                let count = text[&series.replacen("_sum", "_count", 1)];
                assert_eq!((histogram.sample_count as f64).to_bits(), count.to_bits());
                seen += 1 + histogram.bucket.len();
            }
            // Everything that counts says when it began: with the window, or when the unit was told.
            let counter = metric.counter.as_ref().map(|its| its.created);
            let histogram = metric.histogram.as_ref().map(|its| its.created);
            if let Some(created) = counter.or(histogram) {
                let created = created.expect("it began at some time").seconds;
                let began = scrape.unix_ns - (scrape.snapshot.at_ns - scrape.snapshot.start_ns);
                let seconds = |ns: u64| i64::try_from(ns / 1_000_000_000).expect("not so far");
                let lifetime = seconds(began)..=seconds(scrape.unix_ns);
                assert!(lifetime.contains(&created), "{series}: {created}");
            }
        }
    }
    assert_eq!(seen, text.len(), "nothing is left out");
    // As text that would be series of their own.
    let openmetrics = Exporter::new().openmetrics(&scrape).expect("encodes");
    assert!(!openmetrics.contains("_created"), "{openmetrics}");
}

/// Whatever a unit is called, it is the value of a label: the same one in protobuf as in the text, where no line
/// and no series begins within it.
#[test]
fn hostile_names_are_values_of_labels() {
    let mut core = hostile();
    let names: Vec<String> = HOSTILE
        .iter()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    for (number, name) in (3..).map(UnitNumber).zip(&names) {
        core.learn_units(&UnitNews {
            named: vec![(number, name.as_str().into())],
            placed: vec![(100, number)],
            ..UnitNews::default()
        });
    }
    let scrape = scrape(core.snapshot());
    let text = parse(&Exporter::new().prometheus(&scrape).expect("encodes"));
    let families = protobuf::decode(&Exporter::new().protobuf(&scrape)).expect("decodes");
    let mut seen = BTreeSet::new();
    for family in &families {
        for metric in &family.metric {
            let mut metric = metric.clone();
            for label in &mut metric.label {
                if names.contains(&label.value) {
                    seen.insert(label.value.clone());
                }
                let escaped = label.value.replace('\\', "\\\\").replace('"', "\\\"");
                label.value = escaped.replace('\n', "\\n");
            }
            let (series, value) = series_of(family, &metric);
            assert_eq!(text.get(&series), Some(&value), "{series:?}");
        }
    }
    assert!(!seen.is_empty(), "{names:?}");
    let openmetrics = Exporter::new().openmetrics(&scrape).expect("encodes");
    assert_eq!(parse(&openmetrics), text);
}

#[test]
fn native_buckets_hold_what_the_classic_ones_do() {
    let scrape = scrape(history(false));
    let families = protobuf::decode(&Exporter::new().protobuf(&scrape)).expect("decodes");
    let mut histograms = 0;
    for family in families.iter().filter(|family| family.kind == 4) {
        for metric in &family.metric {
            let histogram = metric.histogram.as_ref().expect("it is one");
            let (mut count, mut sum) = (0, histogram.zero_count);
            for delta in &histogram.positive_delta {
                count += delta;
                sum += u64::try_from(count).expect("a count");
            }
            assert_eq!(sum, histogram.sample_count, "{}", family.name);
            let last = histogram.bucket.last().expect("+Inf");
            assert_eq!(last.cumulative_count, histogram.sample_count);
            let places: u32 = histogram.positive_span.iter().map(|span| span.length).sum();
            assert_eq!(places as usize, histogram.positive_delta.len());
            histograms += 1;
        }
    }
    assert_eq!(
        histograms,
        2 * 2 + 3,
        "host and web twice, two units and the others"
    );
}

#[test]
fn exemplars_tell_the_longest_waits() {
    let scrape = scrape(history(false));
    let openmetrics = Exporter::new().openmetrics(&scrape).expect("encodes");
    let exemplars: Vec<&str> = openmetrics
        .lines()
        .filter(|line| line.contains(" # {"))
        .collect();
    // The worker lost its CPU for 50 ms, which ended 451 ms after the start.
    let began = (scrape.unix_ns / 1_000_000_000 - 1) as f64;
    let line = format!(
        "schedscope_runqueue_delay_seconds_bucket{{le=\"0.05\",target=\"web\"}} 10 # \
         {{thread=\"web-worker/101\",culprit=\"hog/500\"}} 0.05 {:.3}",
        began + 0.451
    );
    assert!(
        exemplars.contains(&line.as_str()),
        "{line} in {exemplars:#?}"
    );
    assert!(exemplars.iter().all(|line| line.contains("target=\"web\"")));
    let plain = Exporter::new().prometheus(&scrape).expect("encodes");
    assert!(!plain.contains(" # "), "the older format has none");
    let families = protobuf::decode(&Exporter::new().protobuf(&scrape)).expect("decodes");
    let exemplars = families.iter().flat_map(|family| &family.metric);
    let buckets = exemplars.filter_map(|metric| metric.histogram.as_ref());
    let count = buckets
        .flat_map(|its| &its.bucket)
        .filter(|b| b.exemplar.is_some())
        .count();
    assert_eq!(count, openmetrics.matches(" # {").count());
}

#[test]
fn the_catalogue_names_all_reasons() {
    for reason in schedscope::core::Reason::all() {
        let name = format!("`{}`", reason.name());
        assert!(
            catalogue::BLOCKED.labels[1].values.contains(&name),
            "{name}"
        );
    }
}

#[test]
fn a_process_without_a_unit_goes_by_its_name() {
    let mut scrape = scrape(shop());
    scrape.processes.clear();
    let text = Exporter::new().openmetrics(&scrape).expect("encodes");
    let series =
        "schedscope_interference_seconds_total{victim=\"web\",culprit=\"batch-1\"} 0.035\n";
    assert!(text.contains(series), "{text}");
    assert_eq!(program("kworker/1:2H"), "kworker");
    assert_eq!(program("/bin/sh"), "/bin/sh");
}

#[test]
fn hostile_names_are_escaped() {
    let mut snapshot = shop();
    snapshot.targets[0].name = "a\"b\\c\nd} 5".to_owned();
    let mut scrape = scrape(snapshot);
    scrape.processes = [(500, "x\"y\\z\n} 7".to_owned())].into();
    let text = Exporter::new().openmetrics(&scrape).expect("encodes");
    assert!(
        text.contains("culprit=\"x\\\"y\\\\z\\n} 7\"} 0.035\n"),
        "{text}"
    );
    assert!(
        text.contains("schedscope_threads{target=\"a\\\"b\\\\c\\nd} 5\"} 5\n"),
        "{text}"
    );
    assert_eq!(
        text.lines().filter(|line| line.starts_with("d}")).count(),
        0
    );
}

/// Counters of a scrape, each by its series.
fn counters(text: &str) -> BTreeMap<String, f64> {
    let mut all = parse(text);
    let gauges: Vec<String> = CATALOGUE
        .iter()
        .filter(|metric| metric.kind == Type::Gauge)
        .map(|metric| metric.series())
        .collect();
    all.retain(|series, _| {
        let name = series.split('{').next().unwrap_or(series);
        !gauges.iter().any(|gauge| gauge == name)
    });
    all
}

/// Nanoseconds of all states of a target.
fn whole_ns(series: &BTreeMap<String, f64>, target: &str) -> f64 {
    let prefix = format!("schedscope_thread_time_seconds_total{{target=\"{target}\"");
    let parts = series.iter().filter(|(name, _)| name.starts_with(&prefix));
    parts.map(|(_, seconds)| seconds * 1e9).sum()
}

/// Whether the parts of a state of a target sum to it.
fn parts_sum(series: &BTreeMap<String, f64>, target: &str, state: &str) -> bool {
    let whole =
        format!("schedscope_thread_time_seconds_total{{target=\"{target}\",state=\"{state}\"}}");
    let prefix = format!("schedscope_{state}_seconds_total{{target=\"{target}\"");
    let parts = series.iter().filter(|(name, _)| name.starts_with(&prefix));
    let sum: f64 = parts.map(|(_, seconds)| seconds).sum();
    (series[&whole] - sum).abs() < 1e-9
}

fn target() -> Vec<TargetSpec> {
    vec![TargetSpec {
        name: "web".to_owned(),
        selector: Selector::Pid(100),
        per_thread: false,
    }]
}

/// A thread comes in with the kernel's own run-queue delay, as there are no wakeup records.
fn stamped(ts_ns: u64, next_tid: u32, next_delay_ns: u64) -> profiler_ebpf::RawRecord {
    Event::Switch(Switch {
        ts_ns,
        next_tid,
        next_delay_ns,
        flags: switch_flags::NEXT_STAMPED,
        ..Switch::default()
    })
    .encode()
}

#[test]
fn blocked_time_that_was_queueing_is_not_taken_back() {
    let mut core = Core::new(target());
    core.found(&[support::asleep(100, b"web")], START_NS - MS..=START_NS);
    core.feed(&[], START_NS);
    core.begin_window();
    let at = |ms: u64| START_NS + ms * MS;
    let mut exporter = Exporter::new();
    let mut now = |core: &Core| {
        let scrape = scrape(core.snapshot());
        parse(&exporter.openmetrics(&scrape).expect("encodes"))
    };
    let state = |series: &BTreeMap<String, f64>, state: &str| {
        series[&format!("schedscope_thread_time_seconds_total{{target=\"web\",state=\"{state}\"}}")]
    };
    core.feed(
        &[Stream::new(&[
            stamped(at(10), 100, 0),
            switch(at(20), 100, S, 0),
        ])],
        at(100),
    );
    let before = now(&core);
    assert!(
        (state(&before, "blocked") - 0.090).abs() < 1e-9,
        "found asleep, and the open wait"
    );
    // It was woken at once and queued for 79 ms.
    core.feed(&[Stream::new(&[stamped(at(101), 100, 79 * MS)])], at(101));
    let after = now(&core);
    assert!(
        (state(&after, "blocked") - 0.090).abs() < 1e-9,
        "stands still"
    );
    assert!(
        (whole_ns(&after, "web") - 101e6).abs() < 1.0,
        "the sum is exact"
    );
    assert!(parts_sum(&after, "web", "blocked") && parts_sum(&after, "web", "runnable"));
    // The runnable time is told as soon as the whole has grown enough.
    core.feed(&[Stream::new(&[switch(at(110), 100, S, 0)])], at(300));
    let late = now(&core);
    assert!((state(&late, "runnable") - 0.079).abs() < 1e-9);
    assert!((state(&late, "blocked") - 0.202).abs() < 1e-9);
    assert!((state(&late, "running") - 0.019).abs() < 1e-9);
}

#[test]
fn a_new_generation_begins_anew() {
    let mut exporter = Exporter::new();
    let series = "schedscope_thread_time_seconds_total{target=\"web\",state=\"running\"}";
    let mut scrape = scrape(history(false));
    let first = parse(&exporter.openmetrics(&scrape).expect("encodes"))[series];
    assert!(first > 1.0);
    scrape.snapshot.targets[0].total.figures = schedscope::core::Figures::default();
    let held = parse(&exporter.openmetrics(&scrape).expect("encodes"))[series];
    assert_eq!(
        held.to_bits(),
        first.to_bits(),
        "a counter does not go back"
    );
    scrape.generation += 1;
    let anew = parse(&exporter.openmetrics(&scrape).expect("encodes"))[series];
    assert_eq!(anew.to_bits(), 0f64.to_bits());
}

proptest! {
    // A scrape costs a millisecond without optimization.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_counter_goes_back(
        steps in prop::collection::vec((0u8..6, 0u32..4, 0u32..4, 0u64..3_000_000), 1..60),
    ) {
        let mut core = Core::new(target());
        core.found(&[support::asleep(100, b"a"), support::on_cpu(101, b"b", 0)], START_NS - MS..=START_NS);
        core.feed(&[], START_NS);
        core.begin_window();
        let mut exporter = Exporter::new();
        let mut now_ns = START_NS;
        let mut delay_ns = [0; 8];
        let mut before = BTreeMap::new();
        for (what, a, b, step_ns) in steps {
            now_ns += step_ns;
            let (one, other) = (a + 99, b + 99);
            delay_ns[b as usize] += step_ns / 2;
            let record = match what {
                0 => switch(now_ns, one, [0, S, S, DEAD][b as usize % 4], other),
                1 => wakeup(now_ns, one),
                2 => fork(now_ns, one, other),
                3 => gap(now_ns.saturating_sub(step_ns / 2), now_ns, 3),
                _ => stamped(now_ns, other, delay_ns[b as usize]),
            };
            let records = [record];
            let cpu = (a as usize + b as usize) % 2;
            let mut streams = [Stream::default(), Stream::default()];
            streams[cpu] = Stream::new(&records);
            now_ns += step_ns / 3;
            core.feed(&streams, now_ns);
            let snapshot = core.snapshot();
            let truth = [snapshot.host.observed_ns(), snapshot.targets[0].total.figures.observed_ns()];
            let text = exporter.openmetrics(&scrape(snapshot)).expect("encodes");
            let after = counters(&text);
            for (series, value) in &before {
                let now = after.get(series);
                prop_assert!(now >= Some(value), "{} went from {} to {:?}", series, value, now);
            }
            for (name, truth) in ["host", "web"].iter().zip(truth) {
                let whole = whole_ns(&after, name);
                prop_assert!((whole - truth as f64).abs() < 1.0, "{}: {} of {}", name, whole, truth);
                prop_assert!(parts_sum(&after, name, "blocked"));
                prop_assert!(parts_sum(&after, name, "runnable"));
            }
            before = after;
        }
    }
}
