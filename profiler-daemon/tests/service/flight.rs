//! The service's flight recorder, as somebody with an incident meets it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::schedscope::{PATIENCE, may_load_probes, run};
use crate::common::service::Service;

/// Asks for something with this method; the head and the body of the answer.
fn ask(service: &Service, method: &str, path: &str, header: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(service.address()).expect("it listens");
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let end = answer.windows(4).position(|its| its == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.expect("a head") + 4);
    (String::from_utf8_lossy(head).into_owned(), body.to_owned())
}

fn files(service: &Service) -> Vec<serde_json::Value> {
    let (head, body) = ask(service, "GET", "/api/v1/recordings", "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let list: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    list["recordings"].as_array().expect("a list").clone()
}

#[test]
fn what_is_kept_is_written_listed_and_fetched() {
    if !may_load_probes("what_is_kept_is_written_listed_and_fetched") {
        return;
    }
    let directory = format!(
        "{}/flight-{}",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    let flags = [
        "--flight-last",
        "2s",
        "--flight-files",
        "1",
        "--flight-directory",
        &directory,
    ];
    let service = Service::start(flags);
    assert_eq!(files(&service), [] as [serde_json::Value; 0]);
    thread::sleep(Duration::from_millis(1_500));

    let foreign = "Origin: https://example.com\r\n";
    let (head, _) = ask(&service, "POST", "/api/v1/recordings", foreign);
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let (head, body) = ask(
        &service,
        "POST",
        "/api/v1/recordings",
        "Content-Length: 0\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    let written: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let name = written["name"].as_str().expect("a name").to_owned();
    assert!(
        head.contains(&format!("location: /api/v1/recordings/{name}")),
        "{head}"
    );
    assert_eq!(files(&service), std::slice::from_ref(&written));

    // Again at once is too soon.
    let (head, _) = ask(&service, "POST", "/api/v1/recordings", "");
    assert!(head.starts_with("HTTP/1.1 429"), "{head}");
    assert!(head.contains("retry-after: "), "{head}");

    let (head, body) = ask(&service, "GET", &format!("/api/v1/recordings/{name}"), "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(Some(body.len() as u64), written["bytes"].as_u64());
    let fetched = format!("{directory}/fetched");
    std::fs::write(&fetched, body).expect("the build directory can be written");
    let reported = run(["report", &fetched, "--output", "json"]);
    reported.expect_code(0);
    let report: serde_json::Value = serde_json::from_str(&reported.stdout).expect("JSON");
    assert_eq!(report["target"]["kind"], "host");
    assert_eq!(report["loss"]["dropped"], 0, "{}", report["loss"]);
    let threads = report["threads"].as_array().expect("threads");
    let pid = u64::from(service.pid());
    let own = threads.iter().filter(|thread| thread["tgid"] == pid);
    assert!(own.count() >= 2, "the service itself is in it");
    let length_ns = report["window"]["duration_ns"].as_u64().expect("a number");
    assert!(
        (500_000_000..4_000_000_000).contains(&length_ns),
        "{length_ns}"
    );

    for stranger in [
        "..%2F..%2Fetc%2Fpasswd",
        "fetched",
        "%00",
        &format!("{name}.part"),
    ] {
        let (head, _) = ask(
            &service,
            "GET",
            &format!("/api/v1/recordings/{stranger}"),
            "",
        );
        assert!(head.starts_with("HTTP/1.1 404"), "{stranger}: {head}");
    }

    // A signal writes the next one, and only the newest is kept.
    let start = Instant::now();
    while files(&service).iter().any(|file| file["name"] == name) {
        assert!(start.elapsed() < PATIENCE, "nothing else is written");
        service.signal(Signal::USR1);
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(files(&service).len(), 1);
    let outcome = {
        service.signal(Signal::TERM);
        service.finish(PATIENCE)
    };
    outcome.expect_code(0);
    assert!(
        outcome.stderr.contains("SIGUSR1: wrote schedscope-"),
        "{outcome:?}"
    );
    std::fs::remove_dir_all(directory).expect("it is there");
}

#[test]
fn without_a_flight_recorder_the_service_says_how_to_get_one() {
    if !may_load_probes("without_a_flight_recorder_the_service_says_how_to_get_one") {
        return;
    }
    let service = Service::start::<&str>([]);
    let (head, body) = ask(&service, "POST", "/api/v1/recordings", "");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(body.contains("set flight_recorder.last"), "{body}");
    // It asks to write what is not kept, which is no reason to end.
    service.signal(Signal::USR1);
    assert_eq!(service.get("/healthz", "").status, 200);

    let outcome = run([
        "run",
        "--flight-last",
        "2s",
        "--flight-directory",
        "/proc/nowhere",
        "--listen",
        "127.0.0.1:0",
    ]);
    outcome.expect_code(2);
    let message = &outcome.stderr;
    assert!(
        message.contains("give flight_recorder.directory a place"),
        "{message}"
    );
}
