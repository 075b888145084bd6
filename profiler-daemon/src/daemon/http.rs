//! The service's HTTP side: `/metrics`, `/healthz` and a page that says so.
//!
//! In: something that answers for the engine ([`Figures`]). Everything a client can use up is bounded
//! ([`Limits`]): connections, the size and the time of a request's head, the time of an answer, the life
//! of a connection. Scrapes are made one at a time, so that the counters of a later one never go back
//! behind an earlier one, and the memory of one scrape is all that scrapes need.

mod format;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;

use crate::sink::metrics::{Exporter, Scrape};
use format::Format;

const TEXT: &str = "text/plain; charset=utf-8";

/// Who answers for the engine. Errors are shown to the client, so they say what happened in a sentence.
pub trait Figures: Send + Sync + 'static {
    /// Everything that a scrape shows, as of now.
    fn scrape(&self) -> impl Future<Output = anyhow::Result<Scrape>> + Send;

    /// How many records have been read so far. On a living host this grows all the time: asking alone
    /// makes some.
    fn events(&self) -> impl Future<Output = anyhow::Result<u64>> + Send;
}

/// What clients can use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Size of a request's head, in bytes; not less than 8 KiB.
    pub head_bytes: usize,
    /// Time for a request's head to arrive, and for a connection to be idle.
    pub head_time: Duration,
    /// Time for the engine to answer; then the client gets status 503.
    pub answer_time: Duration,
    /// Life of a connection; then it is closed after the answer under way.
    pub connection_life: Duration,
    /// Time for an answer under way to be fetched when its connection is to be closed.
    pub grace: Duration,
    /// Without a new record for this long, the service is not healthy.
    pub stalled_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_bytes: 16 * 1024,
            head_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(5),
            connection_life: Duration::from_mins(5),
            grace: Duration::from_secs(2),
            stalled_after: Duration::from_secs(10),
        }
    }
}

/// Why an address can't be served on.
#[derive(Debug, thiserror::Error)]
#[error("can't serve on {listen}: {cause}; {remedy}")]
pub struct BindError {
    listen: SocketAddr,
    /// Part of the message, so not the error's source: it would be said twice.
    cause: std::io::Error,
    remedy: String,
}

/// Takes the address. The error says who to look for and what to change.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(listen).await.map_err(|cause| {
        use std::io::ErrorKind;
        let elsewhere = "choose another with --listen or `listen` in the configuration";
        let remedy = match cause.kind() {
            ErrorKind::AddrInUse => format!(
                "see who has it with `ss -ltnp 'sport = :{}'`, or {elsewhere}",
                listen.port()
            ),
            ErrorKind::AddrNotAvailable => {
                format!("this host has no such address (`ip address` lists them): {elsewhere}")
            }
            ErrorKind::PermissionDenied => format!(
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it, or {elsewhere}"
            ),
            _ => elsewhere.to_owned(),
        };
        BindError {
            listen,
            cause,
            remedy,
        }
    })
}

struct Shared<F> {
    figures: F,
    limits: Limits,
    exporter: Mutex<Exporter>,
    pulse: Mutex<Pulse>,
}

/// When the number of records was last seen to change.
struct Pulse {
    events: u64,
    changed: Instant,
}

/// What is served where.
pub fn router<F: Figures>(figures: F, limits: Limits) -> Router {
    let shared = Shared {
        figures,
        limits,
        exporter: Mutex::default(),
        pulse: Mutex::new(Pulse {
            events: 0,
            changed: Instant::now(),
        }),
    };
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics::<F>))
        .route("/healthz", get(health::<F>))
        .fallback(|| async {
            let text = "not found: there are /metrics and /healthz\n";
            (StatusCode::NOT_FOUND, [(CONTENT_TYPE, TEXT)], text)
        })
        .with_state(Arc::new(shared))
}

async fn landing() -> Html<&'static str> {
    Html(concat!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Schedscope</title></head>\n",
        "<body>\n<h1>Schedscope ",
        env!("CARGO_PKG_VERSION"),
        "</h1>\n<ul>\n",
        "<li><a href=\"/metrics\">/metrics</a>: the figures, for Prometheus</li>\n",
        "<li><a href=\"/healthz\">/healthz</a>: whether records arrive</li>\n",
        "</ul>\n</body>\n</html>\n",
    ))
}

async fn metrics<F: Figures>(State(shared): State<Arc<Shared<F>>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>();
    let format = Format::preferred(&accept.join(","));
    let answer = async {
        let mut exporter = shared.exporter.lock().await;
        let scrape = shared.figures.scrape().await?;
        let text = match format {
            Format::OpenMetrics => exporter.openmetrics(&scrape).map(String::into_bytes),
            Format::Protobuf => Ok(exporter.protobuf(&scrape)),
            Format::Plain => exporter.prometheus(&scrape).map(String::into_bytes),
        };
        text.map_err(|_| anyhow::anyhow!("the figures can't be put in words; please report this"))
    };
    match in_time(&shared.limits, answer).await {
        Ok(body) => (
            [(CONTENT_TYPE, format.content_type()), (VARY, "Accept")],
            body,
        )
            .into_response(),
        Err(why) => unavailable(&why),
    }
}

async fn health<F: Figures>(State(shared): State<Arc<Shared<F>>>) -> Response {
    let events = match in_time(&shared.limits, shared.figures.events()).await {
        Ok(events) => events,
        Err(why) => return unavailable(&why),
    };
    let mut pulse = shared.pulse.lock().await;
    if pulse.events != events {
        *pulse = Pulse {
            events,
            changed: Instant::now(),
        };
    }
    let silence = pulse.changed.elapsed();
    if silence > shared.limits.stalled_after {
        return unavailable(&format!(
            "no record has come from the probes for {} s, though switching threads makes some all the \
             time; restart the service, and see `schedscope check`",
            silence.as_secs()
        ));
    }
    let headers = [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-store")];
    (headers, "ok\n").into_response()
}

/// The answer, or why there is none.
async fn in_time<T>(
    limits: &Limits,
    answer: impl Future<Output = anyhow::Result<T>>,
) -> Result<T, String> {
    match tokio::time::timeout(limits.answer_time, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!(
            "the engine has not answered for {:?}: the host is overloaded or the service is stuck",
            limits.answer_time
        )),
    }
}

fn unavailable(why: &str) -> Response {
    let headers = [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-store")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, format!("{why}\n")).into_response()
}

/// Serves until `shutdown` is done, then lets the answers under way be fetched.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else {
            continue;
        };
        let serving = connection(stream, router.clone(), limits, closed.clone());
        connections.spawn(async move {
            serving.await;
            drop(place);
        });
    }
    drop(listener);
    // Nobody listening means that there is no connection.
    let _ = closing.send(true);
    while connections.join_next().await.is_some() {}
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(_) => {
            // Out of descriptors, or the client has gone: neither gets better by hurrying.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut closed: watch::Receiver<bool>,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    tokio::select! {
        // What goes wrong on a connection is the client's business.
        _ = serving.as_mut() => return,
        () = tokio::time::sleep(limits.connection_life) => {}
        _ = closed.wait_for(|&closed| closed) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.grace, serving).await;
}
