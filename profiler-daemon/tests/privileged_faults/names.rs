//! Threads with the worst names that there are, in a cgroup with such a name: through every output.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::common::books;
use super::common::schedscope::{Outcome, may_load_probes, run, scratch_file};
use super::common::service::Service;
use super::support::{Cgroup, Helper, hierarchy};

/// What a text may have beside what is printed: nothing that does something to a terminal, and no mark that
/// turns the direction of writing.
fn is_harmless(text: &str) -> bool {
    !text
        .chars()
        .any(|c| (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}'))
}

#[track_caller]
fn expect_harmless(what: &str, outcome: &Outcome) {
    outcome.expect_code(0);
    assert!(is_harmless(&outcome.stdout), "{what}: {:?}", outcome.stdout);
    assert!(is_harmless(&outcome.stderr), "{what}: {:?}", outcome.stderr);
}

#[test]
fn hostile_names_do_no_harm_in_any_output() {
    if !may_load_probes("names::hostile_names_do_no_harm_in_any_output") {
        return;
    }
    let group = hierarchy(None)
        .and_then(|at| Cgroup::make(&at, "</script>\"\\;\u{202e}\u{1b}[31m\u{7f}{a=\"b\"}").ok());
    let hostile = Helper::start(&["hostile"]);
    if let Some(group) = &group {
        group.take(hostile.pid());
    }
    let threads = hostile.ready["threads"].as_u64().expect("a number");
    let pid = hostile.pid().to_string();

    // As it is measured.
    let json = run(["attach", "-d", "300ms", "--output", "json", &pid]);
    expect_harmless("JSON", &json);
    let report = json.json();
    books::check(&report);
    assert_eq!(report["total"]["threads"], threads + 1);
    let table = run(["attach", "-d", "300ms", "--all", "--explain", &pid]);
    expect_harmless("table", &table);
    assert!(table.stdout.contains("fifteen-bytes-x"), "{}", table.stdout);
    let lines = run(["top", "-d", "1100ms"]);
    expect_harmless("lines", &lines);

    // By name, which may be as hostile.
    let odd = run(["attach", "-d", "100ms", "--comm", "\u{1b}]0;x\u{7}*"]);
    assert!(is_harmless(&odd.stderr), "{odd:?}");

    recorded(&pid);
    served(&pid);
    drop(hostile);
    drop(group);
}

/// A recording, and everything that is made from it.
fn recorded(pid: &str) {
    let file = scratch_file("hostile.sched");
    let path = file.to_str().expect("a plain name");
    run(["record", "-d", "400ms", "-o", path, pid]).expect_code(0);
    for output in ["json", "table"] {
        let report = run(["report", path, "--output", output]);
        expect_harmless(output, &report);
    }
    expect_harmless("diff", &run(["diff", path, path]));
    for format in ["folded", "folded-runqueue", "csv", "json"] {
        let export = run(["export", format, path]);
        expect_harmless(format, &export);
        check_text(format, &export.stdout);
    }
    for format in ["svg", "svg-runqueue", "html"] {
        let export = run(["export", format, path]);
        export.expect_code(0);
        assert!(!export.stdout.contains("<img src=x>"), "{format}");
        assert!(!export.stdout.contains("<script><b>"), "{format}");
        assert!(!export.stdout.contains('\u{1b}'), "{format}");
    }
    for format in ["perfetto", "pprof", "parquet"] {
        let out = scratch_file(format);
        let mut command = Command::new(env!("CARGO_BIN_EXE_schedscope"));
        command.args(["export", format, path, "-o"]).arg(&out);
        let status = command.status().expect("the program starts");
        assert!(status.success(), "{format}");
        let bytes = std::fs::read(&out).expect("it was written");
        assert!(bytes.len() > 100, "{format}");
        // Names in it are text that says nothing to a terminal.
        for raw in [&b"\x1b[31mred"[..], b"\x1b]0;title", b"\xe2\x80\xaefdp"] {
            let has_it = bytes.windows(raw.len()).any(|place| place == raw);
            assert!(!has_it, "{format} has {raw:?}");
        }
        std::fs::remove_file(&out).expect("it was written");
    }
    std::fs::remove_file(&file).expect("it was recorded");
}

/// What a reader of the format makes of each line.
fn check_text(format: &str, text: &str) {
    let mut lines = text.lines();
    match format {
        "json" => {
            let parsed: Result<Value, _> = serde_json::from_str(text.trim_end());
            assert!(parsed.is_ok(), "{text}");
        }
        "csv" => {
            let columns = lines.next().expect("a heading").split(',').count();
            for line in lines {
                assert_eq!(fields(line), columns, "{line}");
            }
        }
        // Frames between semicolons, a blank and a number.
        _ => {
            for line in lines {
                let (frames, count) = line.rsplit_once(' ').expect("a number at the end");
                assert!(count.parse::<u64>().is_ok() && !frames.is_empty(), "{line}");
            }
        }
    }
}

/// Fields of a line of CSV.
fn fields(line: &str) -> usize {
    let mut is_quoted = false;
    let separators = line.chars().filter(|&letter| {
        is_quoted ^= letter == '"';
        letter == ',' && !is_quoted
    });
    separators.count() + 1
}

/// The service: metrics in all formats, the API.
fn served(pid: &str) {
    let target = format!("odd\"\\=pid:{pid}");
    let service = Service::start(["--target", &target, "--wakers", "true"]);
    let accepts = [
        ("text", ""),
        ("OpenMetrics", "application/openmetrics-text; version=1.0.0"),
    ];
    for (what, accept) in accepts {
        let answer = service.get("/metrics", accept);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(is_harmless(&answer.body), "{what}");
        for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
            check_sample(line);
        }
        promtool(what, &answer.body);
    }
    for path in ["threads?limit=10000", "units?limit=10000", "delays"] {
        let answer = service.get(&format!("/api/v1/{path}"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        let mut texts = Vec::new();
        collect(&body, &mut texts);
        for text in texts {
            assert!(is_harmless(text) && !text.contains('\n'), "{text:?}");
        }
    }
}

fn collect<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, texts)),
        _ => {}
    }
}

/// A name, labels in braces whose values have every quote and backslash escaped, and a value.
#[track_caller]
fn check_sample(line: &str) {
    let mut rest = line;
    if let Some(place) = line.find('{') {
        rest = &line[place + 1..];
        while !rest.starts_with('}') {
            let (_, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            let mut is_escaped = false;
            let end = value.find(|letter| {
                let ends = letter == '"' && !is_escaped;
                is_escaped = letter == '\\' && !is_escaped;
                ends
            });
            rest = &value[end.unwrap_or_else(|| panic!("{line}")) + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = rest.trim_start_matches('}');
    }
    let value = rest.split_whitespace().last().unwrap_or_default();
    assert!(value.parse::<f64>().is_ok(), "{line}");
}

/// Prometheus' own check, where it is there.
fn promtool(what: &str, body: &str) {
    let Some(directory) = std::env::var_os("SCHEDSCOPE_PROMETHEUS") else {
        return;
    };
    if what != "text" {
        return;
    }
    let mut tool = Command::new(Path::new(&directory).join("promtool"))
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut input = tool.stdin.take().expect("it is a pipe");
    input.write_all(body.as_bytes()).expect("it reads");
    drop(input);
    let output = tool.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
}
