//! The HTTP side over real sockets: what is answered, and that no client can use it up.

#[path = "support/browser.rs"]
mod browser;
#[path = "http/guarded.rs"]
mod guarded;
#[path = "http/page.rs"]
mod page;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schedscope::core::{Comm, Reason, Share, ThreadNow};
use schedscope::daemon::http::{Duty, Figures, Guard, Limits, Listen, bind, router, serve};
use schedscope::sink::api::View;
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
    /// Takes its time for a scrape.
    Slow,
    /// Answers, but no record comes.
    Silent,
    /// Never answers.
    Stuck,
    /// Has ended.
    Gone,
}

impl Figures for Engine {
    async fn scrape(&self) -> anyhow::Result<Scrape> {
        if let Behaviour::Slow = self.behaviour {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.events().await?;
        Ok(scrape(history(false)))
    }

    async fn view(&self) -> anyhow::Result<View> {
        self.events().await?;
        let Scrape {
            snapshot,
            window,
            unix_ns,
            ..
        } = scrape(history(false));
        let thread = ThreadNow {
            tid: 101,
            tgid: 100,
            comm: Comm(*b"web-worker\0\0\0\0\0\0"),
            unit: 1,
            share: Share::Blocked,
            elapsed_ns: 5_000_000,
            reason: Some(Reason::Lock),
            inflicted_ns: 7,
        };
        let running = ThreadNow {
            tid: 102,
            share: Share::Running,
            reason: None,
            ..thread
        };
        Ok(View {
            snapshot,
            unix_ns,
            window,
            threads: vec![thread, running],
            columns: Vec::new(),
        })
    }

    async fn events(&self) -> anyhow::Result<u64> {
        match self.behaviour {
            Behaviour::Alive | Behaviour::Slow => {
                Ok(self.events.fetch_add(1, Ordering::Relaxed) + 1)
            }
            Behaviour::Silent => Ok(7),
            Behaviour::Stuck => std::future::pending().await,
            Behaviour::Gone => anyhow::bail!("the drain thread has ended"),
        }
    }
}

struct Server {
    address: SocketAddr,
    /// Records that the [`Engine`] has told of.
    events: Arc<AtomicU64>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(behaviour: Behaviour, limits: Limits) -> Server {
    start_guarded(behaviour, limits, Guard::default()).await
}

async fn start_guarded(behaviour: Behaviour, limits: Limits, guard: Guard) -> Server {
    let engine = Engine {
        behaviour,
        ..Engine::default()
    };
    let events = Arc::clone(&engine.events);
    Server {
        events,
        ..serve_figures(engine, limits, guard).await
    }
}

/// Serves the figures of whoever has some.
async fn serve_figures<F: Figures>(figures: F, limits: Limits, guard: Guard) -> Server {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    let (stop, stopped) = oneshot::channel();
    let router = router(figures, limits);
    let task = tokio::spawn(serve(
        listener,
        router,
        limits,
        Duty::new(guard),
        async move {
            let _ = stopped.await;
        },
    ));
    Server {
        address,
        events: Arc::default(),
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
    let policy = header(&landing, "content-security-policy").expect("there is one");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    let missing = ask(server.address, "/metrics/../etc", "").await;
    assert_eq!(status(&missing), "404");
    assert_eq!(
        body(&missing),
        "not found: there are /, /metrics, /healthz, /readyz, /api/v1/units, /api/v1/threads, \
         /api/v1/delays and /api/v1/recordings\n"
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
    for path in ["/metrics", "/healthz", "/readyz", "/api/v1/units"] {
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
async fn the_api_sorts_limits_and_filters() {
    let server = start(Behaviour::Alive, Limits::default()).await;
    let json = async |path: &str| -> serde_json::Value {
        let answer = ask(server.address, path, "").await;
        assert_eq!(status(&answer), "200", "{answer}");
        assert_eq!(header(&answer, "content-type"), Some("application/json"));
        serde_json::from_str(body(&answer)).expect("JSON")
    };
    let units = json("/api/v1/units?sort=runqueue_delay&limit=2").await;
    assert_eq!(units["schema"], 1);
    assert_eq!(units["matching"], 3);
    assert_eq!(units["units"][0]["unit"], "web.service");
    let delay = &units["units"][0]["runqueue_delay"];
    assert_eq!(
        (&delay["count"], &delay["max_ns"]),
        (&11.into(), &50_000_000.into())
    );
    assert_eq!(units["host"]["threads"], 4);
    let units = json("/api/v1/units?filter=batch*").await;
    assert_eq!(
        (&units["matching"], &units["units"][0]["unit"]),
        (&1.into(), &"batch.service".into())
    );
    let threads = json("/api/v1/threads?state=blocked&sort=elapsed").await;
    assert_eq!(threads["matching"], 1);
    let thread = &threads["threads"][0];
    assert_eq!(
        (&thread["reason"], &thread["idle"]),
        (&"lock".into(), &false.into())
    );
    assert_eq!(
        (&thread["unit"], &thread["comm"]),
        (&"web.service".into(), &"web-worker".into())
    );
    assert_eq!(json("/api/v1/threads?limit=0").await["matching"], 2);
    assert_eq!(json("/api/v1/delays").await["bounds_ns"][0], 1_000);
    for wrong in [
        "/api/v1/units?sort=colour",
        "/api/v1/units?limit=100000",
        "/api/v1/units?limit=-1",
        "/api/v1/units?colour=blue",
        "/api/v1/units?state=running",
        "/api/v1/threads?state=asleep",
    ] {
        let answer = ask(server.address, wrong, "").await;
        assert_eq!(status(&answer), "400", "{wrong}: {answer}");
        assert!(body(&answer).contains("docs/http.md"), "{answer}");
    }
}

/// The longest that a good scrape may take while others do what they can.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long a scrape takes that asks for it once.
async fn good_scrape(address: SocketAddr) -> Duration {
    let begun = Instant::now();
    let answer = ask(address, "/metrics", "").await;
    assert_eq!(status(&answer), "200", "{answer}");
    begun.elapsed()
}

/// The better of a few: what a busy machine adds is not the server's.
async fn best_scrape(address: SocketAddr) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(good_scrape(address).await);
    }
    best
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
    good_scrape(server.address).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), slow[0].read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the first one has lost its place");
}

#[tokio::test]
async fn a_thousand_connections_delay_nobody() {
    let server = start(Behaviour::Alive, Limits::default()).await;
    let mut crowd = Vec::new();
    for number in 0..1_000 {
        let mut stream = TcpStream::connect(server.address)
            .await
            .expect("it listens");
        // Some say nothing, some a little of a head, some ask and fetch nothing.
        let request: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /metrics HTTP/1.1\r\nX-Slow: ",
            _ => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        // Those that came first may have lost their places already.
        let _ = stream.write_all(request).await;
        crowd.push(stream);
    }
    let took = best_scrape(server.address).await;
    assert!(took < PATIENCE, "{took:?}");
}

#[tokio::test]
async fn scrapes_at_once_share_their_answer() {
    let server = start(Behaviour::Slow, Limits::default()).await;
    let crowd: Vec<_> = (0..100)
        .map(|_| tokio::spawn(good_scrape(server.address)))
        .collect();
    for one in crowd {
        one.await.expect("it is answered");
    }
    let made = server.events.load(Ordering::Relaxed);
    assert!(
        (1..=20).contains(&made),
        "{made} scrapes were made for a hundred"
    );
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("schedscope-http.sock");
    // One that was left over is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&path));
    let listener = bind(Listen::Unix(path.clone()))
        .await
        .expect("the path is free");
    let taken = bind(Listen::Unix(path.clone()))
        .await
        .expect_err("it is taken")
        .to_string();
    assert!(
        taken.contains("Address already in use") && taken.contains("ss -lxp"),
        "{taken}"
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let router = router(Engine::default(), Limits::default());
    let task = tokio::spawn(serve(
        listener,
        router,
        Limits::default(),
        Duty::default(),
        async move {
            let _ = stopped.await;
        },
    ));
    let mut stream = tokio::net::UnixStream::connect(&path)
        .await
        .expect("it listens");
    let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    assert_eq!((status(&answer), body(&answer)), ("200", "ok\n"));
    stop.send(()).expect("it runs");
    task.await.expect("it ends");
    assert!(!path.exists(), "nothing is left over");
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
