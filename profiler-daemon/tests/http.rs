//! The HTTP side over real sockets: what is answered, and that no client can use it up.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schedscope::daemon::http::{Figures, Limits, bind, router, serve};
use schedscope::sink::metrics::Scrape;
use support::{history, scrape};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// An engine that answers as it is told to.
#[derive(Clone, Default)]
struct Engine {
    /// Records so far; each question adds one while `alive`.
    events: Arc<AtomicU64>,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Default)]
enum Behaviour {
    #[default]
    Alive,
    /// Answers, but no record comes.
    Silent,
    /// Never answers.
    Stuck,
    /// Has ended.
    Gone,
}

impl Figures for Engine {
    async fn scrape(&self) -> anyhow::Result<Scrape> {
        self.events().await?;
        Ok(scrape(history(false)))
    }

    async fn events(&self) -> anyhow::Result<u64> {
        match self.behaviour {
            Behaviour::Alive => Ok(self.events.fetch_add(1, Ordering::Relaxed) + 1),
            Behaviour::Silent => Ok(7),
            Behaviour::Stuck => std::future::pending().await,
            Behaviour::Gone => anyhow::bail!("the drain thread has ended"),
        }
    }
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(behaviour: Behaviour, limits: Limits) -> Server {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    let (stop, stopped) = oneshot::channel();
    let engine = Engine {
        behaviour,
        ..Engine::default()
    };
    let router = router(engine, limits);
    let task = tokio::spawn(serve(listener, router, limits, async move {
        let _ = stopped.await;
    }));
    Server {
        address,
        stop,
        task,
    }
}

/// Sends this and reads until the other side closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = Vec::new();
    // A reset after a refused request is an end like any other.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

async fn ask(address: SocketAddr, path: &str, header: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
    exchange(address, &request).await
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Short enough for a test, long enough for a busy machine.
fn short() -> Limits {
    Limits {
        connections: 2,
        head_time: Duration::from_millis(300),
        answer_time: Duration::from_millis(300),
        stalled_after: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_that_was_asked_for() {
    let server = start(Behaviour::Alive, Limits::default()).await;
    let plain = ask(server.address, "/metrics", "").await;
    assert_eq!(status(&plain), "200");
    assert_eq!(
        header(&plain, "content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(body(&plain).starts_with("# HELP schedscope_runqueue_delay_seconds "));
    assert!(body(&plain).contains("# TYPE schedscope_events_total counter\n"));
    assert!(!body(&plain).contains("# EOF"));
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let openmetrics = ask(server.address, "/metrics", accept).await;
    assert_eq!(
        header(&openmetrics, "content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(header(&openmetrics, "vary"), Some("Accept"));
    assert!(body(&openmetrics).ends_with("# EOF\n"));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = start(Behaviour::Alive, Limits::default()).await;
    let landing = ask(server.address, "/", "").await;
    assert_eq!(status(&landing), "200");
    assert!(body(&landing).contains("<a href=\"/metrics\">"));
    let missing = ask(server.address, "/metrics/../etc", "").await;
    assert_eq!(status(&missing), "404");
    assert_eq!(
        body(&missing),
        "not found: there are /metrics and /healthz\n"
    );
    let posted =
        "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(status(&exchange(server.address, posted).await), "405");
    let head = "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let head = exchange(server.address, head).await;
    assert_eq!((status(&head), body(&head)), ("200", ""));
}

#[tokio::test]
async fn health_follows_the_records() {
    let server = start(Behaviour::Alive, short()).await;
    for _ in 0..3 {
        let answer = ask(server.address, "/healthz", "").await;
        assert_eq!((status(&answer), body(&answer)), ("200", "ok\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let server = start(Behaviour::Silent, short()).await;
    assert_eq!(
        status(&ask(server.address, "/healthz", "").await),
        "200",
        "they may still come"
    );
    tokio::time::sleep(Duration::from_millis(400)).await;
    let answer = ask(server.address, "/healthz", "").await;
    assert_eq!(status(&answer), "503");
    assert!(
        body(&answer).starts_with("no record has come from the probes for "),
        "{answer}"
    );
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_unavailable() {
    let server = start(Behaviour::Stuck, short()).await;
    for path in ["/metrics", "/healthz"] {
        let answer = ask(server.address, path, "").await;
        assert_eq!(status(&answer), "503");
        let expected = "the engine has not answered for 300ms: the host is overloaded or the service is \
                        stuck\n";
        assert_eq!(body(&answer), expected);
    }
    let server = start(Behaviour::Gone, short()).await;
    for path in ["/metrics", "/healthz"] {
        let answer = ask(server.address, path, "").await;
        assert_eq!(
            (status(&answer), body(&answer)),
            ("503", "the drain thread has ended\n")
        );
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start(Behaviour::Alive, Limits::default()).await;
    let large = format!("X-Large: {}\r\n", "x".repeat(64 * 1024));
    assert_eq!(
        status(&ask(server.address, "/metrics", &large).await),
        "431"
    );
    let many = "X-Many: x\r\n".repeat(1_000);
    assert_eq!(status(&ask(server.address, "/metrics", &many).await), "431");
}

#[tokio::test]
async fn slow_clients_lose_their_place() {
    let server = start(Behaviour::Alive, short()).await;
    // Two that never finish their request take both places.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address)
            .await
            .expect("it listens");
        stream
            .write_all(b"GET /metrics HTT")
            .await
            .expect("it reads");
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    let answer = ask(server.address, "/metrics", "").await;
    assert_eq!(status(&answer), "200");
    assert!(
        begun.elapsed() >= Duration::from_millis(100),
        "there was no place at first"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_ends_in_time() {
    let limits = Limits {
        connection_life: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = start(Behaviour::Alive, limits).await;
    let mut stream = TcpStream::connect(server.address)
        .await
        .expect("it listens");
    for _ in 0..2 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("it reads");
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).await.expect("it answers");
        assert!(answer[..length].ends_with(b"ok\n"));
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection outlives its time");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn shutdown_frees_the_port_and_lets_answers_be_fetched() {
    let limits = Limits {
        answer_time: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = start(Behaviour::Stuck, limits).await;
    let address = server.address;
    let under_way = tokio::spawn(async move { ask(address, "/metrics", "").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.send(()).expect("it runs");
    assert_eq!(status(&under_way.await.expect("it was answered")), "503");
    tokio::time::timeout(Duration::from_secs(10), server.task)
        .await
        .expect("it ends")
        .expect("without a panic");
    bind(address).await.expect("the port is free again");
}

#[tokio::test]
async fn an_address_that_cannot_be_had_says_why() {
    let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .expect("a free port");
    let address = taken.local_addr().expect("it has an address");
    let message = bind(address).await.expect_err("it is taken").to_string();
    let port = address.port();
    assert_eq!(
        message,
        format!(
            "can't serve on {address}: Address already in use (os error 98); see who has it with \
             `ss -ltnp 'sport = :{port}'`, or choose another with --listen or `listen` in the \
             configuration"
        )
    );
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9750));
    let message = bind(elsewhere)
        .await
        .expect_err("a documentation address")
        .to_string();
    assert!(
        message.contains("this host has no such address"),
        "{message}"
    );
}
