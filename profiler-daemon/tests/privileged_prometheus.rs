//! A real Prometheus scrapes the service, in text and in protobuf, while the host is busy; every query of
//! the dashboard and every recording rule gives data.

mod common;
#[path = "support/prometheus.rs"]
mod prometheus;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::Workload;
use common::not_run;
use common::number as whole_number;
use common::schedscope::{PATIENCE, Running, may_load_probes, schedscope};
use common::service::{Answer, Service, free_address, get};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A Prometheus that scrapes each second; killed when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Prometheus {
    /// Scrapes this address with the rules of `deploy`; `None` if there is no such program.
    fn start(name: &str, target: SocketAddr, native: bool) -> Option<Self> {
        let program = prometheus::program("prometheus")?;
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("prometheus-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let config = deploy("prometheus/scrape.yml")
            .replace("127.0.0.1:9750", &target.to_string())
            .replace("interval: 15s", "interval: 1s")
            .replace("scrape_timeout: 5s", "scrape_timeout: 1s")
            .replace(
                "- rules.yml",
                &format!("- {}", deploy_path("prometheus/rules.yml").display()),
            )
            .replace(
                "- alerts.yml",
                &format!("- {}", deploy_path("prometheus/alerts.yml").display()),
            );
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, config).expect("it is written");
        let address = free_address();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(Stdio::null());
        if native {
            command.arg("--enable-feature=native-histograms");
        }
        let child = command.spawn().expect("it starts");
        Some(Self {
            child,
            address,
            directory,
        })
    }

    /// What a query gives, as of now or of this time.
    fn query(&self, query: &str, at: Option<f64>) -> Vec<Value> {
        let time = at.map_or_else(String::new, |at| format!("&time={at}"));
        let path = format!("/api/v1/query?query={}{time}", encode(query));
        let Some(answer) = get(self.address, &path, "") else {
            return Vec::new();
        };
        let body: Value = serde_json::from_str(&whole(&answer)).unwrap_or_default();
        // While it starts it says so in plain text.
        assert!(
            body.is_null() || body["status"] == "success",
            "{query}: {body}"
        );
        body["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// What a query gives, once it gives something.
    #[track_caller]
    fn query_until(&self, query: &str, begun: Instant) -> Vec<Value> {
        loop {
            let result = self.query(query, None);
            if !result.is_empty() {
                return result;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "no data: {query}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn deploy_path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(file)
}

fn deploy(file: &str) -> String {
    std::fs::read_to_string(deploy_path(file)).expect("it is in the repository")
}

/// The body of an answer, which comes in chunks if it is long.
fn whole(answer: &Answer) -> String {
    if !answer.head.contains("transfer-encoding: chunked") {
        return answer.body.clone();
    }
    let (mut body, mut rest) = (String::new(), answer.body.as_str());
    while let Some((length, chunks)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("the length of a chunk");
        body += &chunks[..length];
        rest = chunks[length..].strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

/// As a part of an address.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn number(result: &Value) -> f64 {
    let text = result["value"][1].as_str().unwrap_or_default();
    text.parse()
        .unwrap_or_else(|_| panic!("a number in {result}"))
}

/// All queries of the dashboard, with its variables as somebody would choose them.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&deploy("grafana/schedscope.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    targets
        .flatten()
        .filter_map(|target| target["expr"].as_str())
        .map(|query| {
            query
                .replace("$__rate_interval", "10s")
                .replace("$instance", ".*")
                .replace("$target", "host")
                .replace("$unit", ".*")
        })
        .collect()
}

#[test]
fn prometheus_takes_both_forms_and_the_dashboard_has_data() {
    const TEST: &str = "prometheus_takes_both_forms_and_the_dashboard_has_data";
    if !may_load_probes(TEST) {
        return;
    }
    let _load = Workload::start("mutex", &["--duration", "60s"]).expect("no special needs");
    let service = Service::start(["--stats-interval", "1s"]);
    let classic = Prometheus::start("classic", service.address(), false);
    let native = Prometheus::start("native", service.address(), true);
    let (Some(classic), Some(native)) = (classic, native) else {
        return not_run(TEST, "there is no prometheus");
    };
    let begun = Instant::now();
    let queries = dashboard_queries();
    assert!(queries.len() >= 15, "{queries:?}");
    for query in &queries {
        for prometheus in [&classic, &native] {
            // A heat map of classic buckets is only where those are.
            if query.contains("_bucket") && prometheus.address == native.address {
                continue;
            }
            prometheus.query_until(query, begun);
        }
    }
    let rules = deploy("prometheus/rules.yml");
    let rules = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "));
    for rule in rules.filter(|rule| !rule.contains("interference")) {
        classic.query_until(rule, begun);
    }
    assert!(
        classic.query("up == 0", None).is_empty(),
        "every scrape succeeds"
    );

    // Both are of the same scrape, and of all that there was since the service started: the window is
    // longer than that.
    let host = "{target=\"host\"}";
    let quantile = format!("histogram_quantile(0.99, schedscope_runqueue_delay_seconds{host})");
    let exact = "schedscope_runqueue_delay_window_seconds{target=\"host\",stat=\"p99\"}";
    let found = native.query_until(&quantile, begun);
    let at = found[0]["value"][0].as_f64().expect("a time");
    let (estimate, exact) = (number(&found[0]), number(&native.query(exact, Some(at))[0]));
    let error = (estimate / exact - 1.0).abs();
    assert!(
        error < 0.031,
        "P99 is {estimate} by native buckets, {exact} in truth"
    );
    println!("P99 is {estimate} s by native buckets and {exact} s in truth");
}

/// Stops a workload, or lets it go on.
fn send(workload: &Workload, signal: Signal) {
    let pid = i32::try_from(workload.pid()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal).expect("it is a child");
}

/// The service, as Prometheus understood it, and `attach` have seen the very same waits: those of a workload
/// that is let run only while both look.
#[test]
fn prometheus_and_a_report_agree_on_p99() {
    const TEST: &str = "prometheus_and_a_report_agree_on_p99";
    if !may_load_probes(TEST) {
        return;
    }
    let workload = Workload::start("storm", &["--duration", "90s"]).expect("no special needs");
    send(&workload, Signal::STOP);
    // Its threads take a moment to stop.
    thread::sleep(Duration::from_millis(300));
    let pid = workload.pid().to_string();
    let service = Service::start(["--target", &format!("storm=pid:{pid}")]);
    let Some(prometheus) = Prometheus::start("p99", service.address(), true) else {
        return not_run(TEST, "there is no prometheus");
    };
    let begun = Instant::now();
    prometheus.query_until("schedscope_runqueue_delay_seconds{target=\"storm\"}", begun);
    let mut attach = Running::start(schedscope([
        "attach",
        &pid,
        "--duration",
        "8s",
        "--output",
        "json",
    ]));
    attach.wait_until_it_measures();
    send(&workload, Signal::CONT);
    thread::sleep(Duration::from_secs(5));
    send(&workload, Signal::STOP);
    let outcome = attach.finish(PATIENCE);
    outcome.expect_code(0);
    let report = outcome.json();
    let delay = &report["total"]["runqueue_delay"];
    let (count, p99_ns): (u32, u32) = (
        whole_number(&delay["count"]),
        whole_number(&delay["p99_ns"]),
    );

    // The scrapes since it was stopped have it all.
    thread::sleep(Duration::from_secs(2));
    let ask = |query: &str| number(&prometheus.query_until(query, Instant::now())[0]);
    let series = "schedscope_runqueue_delay_seconds{target=\"storm\"}";
    let counted = ask(&format!("histogram_count({series})"));
    let estimate = ask(&format!("histogram_quantile(0.99, {series})"));
    let exact = f64::from(p99_ns) / 1e9;
    println!(
        "P99 is {estimate} s of {counted} waits by Prometheus, {exact} s of {count} by the report"
    );
    assert!(count > 10_000, "{delay}");
    // Being stopped and let go is a wait or two of each thread, at the edge of what attach sees.
    assert!(
        (counted / f64::from(count) - 1.0).abs() < 0.001,
        "{counted} waits, and {count}"
    );
    // The native bucket's 3.0%, and the report's 0.8%.
    assert!(
        (estimate / exact - 1.0).abs() < 0.038,
        "{estimate} s and {exact} s"
    );
}
