//! The service's HTTP side: `/metrics`, `/healthz`, `/readyz`, the JSON API and the built-in page.
//!
//! In: something that answers for the engine ([`Figures`]). Everything a client can use up is bounded
//! ([`Limits`]): connections, the size and the time of a request's head, the time of an answer, the life
//! of a connection. Where there is no place for one more connection, one that does nothing loses its. Scrapes
//! are made one at a time, so that the counters of a later one never go back behind an earlier one; who asks
//! while one is made gets the next one together with all others who do.

mod api;
mod format;
mod guard;
mod listen;
mod places;
mod recordings;
mod turns;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;

use super::flight::FlightRecorder;
use crate::sink::api::View;
use crate::sink::metrics::{Exporter, Scrape};
use format::Format;
pub use guard::{Duty, Guard, GuardError, credentials};
use listen::Stream;
pub use listen::{BindError, Listen, Listener, bind};
use places::{Places, Taken};

const TEXT: &str = "text/plain; charset=utf-8";

/// Who answers for the engine. Errors are shown to the client, so they say what happened in a sentence.
pub trait Figures: Send + Sync + 'static {
    /// Everything that a scrape shows, as of now.
    fn scrape(&self) -> impl Future<Output = anyhow::Result<Scrape>> + Send;

    /// How many records have been read so far. On a living host this grows all the time: asking alone
    /// makes some.
    fn events(&self) -> impl Future<Output = anyhow::Result<u64>> + Send;

    /// Everything that the JSON API shows, as of now.
    fn view(&self) -> impl Future<Output = anyhow::Result<View>> + Send;

    /// What keeps the last while, if anything does.
    fn flight_recorder(&self) -> Option<&FlightRecorder> {
        None
    }
}

/// What clients can use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once that have said something. For a further one, one that does nothing is closed; if all
    /// are busy, the further one is.
    pub connections: usize,
    /// Connections at once that have said nothing yet; for a further one the oldest is closed.
    pub silent: usize,
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
            connections: 128,
            silent: 256,
            head_bytes: 16 * 1024,
            head_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(5),
            connection_life: Duration::from_mins(5),
            grace: Duration::from_secs(2),
            stalled_after: Duration::from_secs(10),
        }
    }
}

struct Shared<F> {
    figures: F,
    limits: Limits,
    scrapes: Mutex<Scrapes>,
    view: Mutex<Option<(Instant, Arc<View>)>>,
    pulse: Mutex<Pulse>,
}

/// Makes scrapes, one at a time, and has the last one of each format.
#[derive(Default)]
struct Scrapes {
    exporter: Exporter,
    last: Vec<(Format, Instant, Bytes)>,
}

impl Scrapes {
    /// A scrape that was begun after `asked`, if there is one.
    fn since(&self, asked: Instant, format: Format) -> Option<Bytes> {
        let last = self
            .last
            .iter()
            .find(|(its, begun, _)| *its == format && *begun >= asked);
        last.map(|(_, _, body)| body.clone())
    }

    fn make(&mut self, scrape: &Scrape, format: Format, begun: Instant) -> anyhow::Result<Bytes> {
        let exporter = &mut self.exporter;
        let body = match format {
            Format::OpenMetrics => exporter.openmetrics(scrape).map(String::into_bytes),
            Format::Protobuf => Ok(exporter.protobuf(scrape)),
            Format::Plain => exporter.prometheus(scrape).map(String::into_bytes),
        };
        let body = body.map(Bytes::from).map_err(|_| {
            anyhow::anyhow!("the figures can't be put in words; please report this")
        })?;
        self.last.retain(|(its, _, _)| *its != format);
        self.last.push((format, begun, body.clone()));
        Ok(body)
    }
}

/// When the number of records was last seen to change.
struct Pulse {
    events: u64,
    changed: Instant,
}

const PATHS: &str = "/, /metrics, /healthz, /readyz, /api/v1/units, /api/v1/threads, /api/v1/delays and /api/v1/recordings";

/// What is served where.
pub fn router<F: Figures>(figures: F, limits: Limits) -> Router {
    let shared = Shared {
        figures,
        limits,
        scrapes: Mutex::default(),
        view: Mutex::default(),
        pulse: Mutex::new(Pulse {
            events: 0,
            changed: Instant::now(),
        }),
    };
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics::<F>))
        .route("/healthz", get(health::<F>))
        .route("/readyz", get(readiness::<F>))
        .route("/api/v1/units", get(api::units::<F>))
        .route("/api/v1/threads", get(api::threads::<F>))
        .route("/api/v1/delays", get(api::delays::<F>))
        .route(
            "/api/v1/recordings",
            get(recordings::list::<F>).post(recordings::write::<F>),
        )
        .route("/api/v1/recordings/{name}", get(recordings::fetch::<F>))
        .fallback(|| async {
            let text = format!("not found: there are {PATHS}\n");
            (StatusCode::NOT_FOUND, [(CONTENT_TYPE, TEXT)], text)
        })
        .with_state(Arc::new(shared))
}

/// The built-in page, whole: it loads nothing from anywhere but this server's API.
const PAGE: &str = include_str!("http/page.html");

/// Lets the page run what it has in itself and ask this server, and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE).into_response()
}

async fn metrics<F: Figures>(State(shared): State<Arc<Shared<F>>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>();
    let format = Format::preferred(&accept.join(","));
    let asked = Instant::now();
    let answer = async {
        let mut scrapes = shared.scrapes.lock().await;
        if let Some(body) = scrapes.since(asked, format) {
            return Ok(body);
        }
        let begun = Instant::now();
        let scrape = shared.figures.scrape().await?;
        scrapes.make(&scrape, format, begun)
    };
    match in_time(&shared.limits, answer).await {
        Ok(body) => {
            let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "Accept")];
            (headers, body).into_response()
        }
        Err(why) => unavailable(&why),
    }
}

/// The probes are attached before anything is served, and detached only with the engine.
async fn readiness<F: Figures>(State(shared): State<Arc<Shared<F>>>) -> Response {
    match in_time(&shared.limits, shared.figures.events()).await {
        Ok(_) => ok(),
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
    ok()
}

fn ok() -> Response {
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

/// So many connections are accepted before those there are get their turn, so that whoever came first is heard
/// first, and the kernel's queue stays the only long one.
const ACCEPTED_AT_ONCE: usize = 8;

/// Serves until `shutdown` is done, then lets the answers under way be fetched.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    duty: Duty,
    shutdown: impl Future<Output = ()>,
) {
    let places = Places::new(limits.connections, limits.silent);
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut at_once = 0;
    loop {
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, origin)) = accepted else {
            // Out of descriptors, or the client has gone: neither gets better by hurrying.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let taken = places.take(origin);
        let (router, guard, closed) = (router.clone(), duty.guard(), closed.clone());
        connections.spawn(async move {
            let serving = connection(stream, router, guard, &taken, limits, closed);
            tokio::select! {
                () = serving => {}
                () = taken.lost() => {}
            }
        });
        at_once += 1;
        // Never so many that one loses its place before it was heard.
        if at_once >= ACCEPTED_AT_ONCE.min(limits.silent) {
            at_once = 0;
            tokio::task::yield_now().await;
        }
    }
    drop(listener);
    // Nobody listening means that there is no connection.
    let _ = closing.send(true);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: Box<dyn Stream>,
    router: Router,
    guard: Arc<Guard>,
    taken: &Taken,
    limits: Limits,
    closed: watch::Receiver<bool>,
) {
    let Some(tls) = guard.tls.clone() else {
        return conversation(stream, router, &guard, taken, limits, closed).await;
    };
    let handshake = async {
        let greeting = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        taken.greets();
        greeting.into_stream(tls).await
    };
    if let Ok(Ok(stream)) = tokio::time::timeout(limits.head_time, handshake).await {
        conversation(stream, router, &guard, taken, limits, closed).await;
    }
}

/// Serves one connection until its other side has no more to ask, whatever it is made of.
pub async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    router: Router,
    guard: &Guard,
    limits: Limits,
) {
    // It has no address.
    let taken = Places::new(1, 1).take(None);
    // Nobody asks for it to be closed.
    let (_closing, closed) = watch::channel(false);
    conversation(stream, router, guard, &taken, limits, closed).await;
}

async fn conversation(
    stream: impl Stream,
    router: Router,
    guard: &Guard,
    taken: &Taken,
    limits: Limits,
    mut closed: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request: axum::http::Request<hyper::body::Incoming>| {
        let router = &router;
        async move {
            let headers = request.headers();
            let is_right = match guard.recognizes(headers) {
                Some(known) => known,
                None => {
                    taken.proves();
                    guard.admits(headers, taken.origin()).await
                }
            };
            let answer = if is_right {
                taken.asks();
                router.call(request).await
            } else {
                Ok(unauthorized())
            };
            taken.answered();
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), answer);
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

fn unauthorized() -> axum::http::Response<Body> {
    let headers = [
        (CONTENT_TYPE, TEXT),
        (
            WWW_AUTHENTICATE,
            "Basic realm=\"schedscope\", charset=\"UTF-8\"",
        ),
    ];
    let text = "a user name and a password are needed\n";
    (StatusCode::UNAUTHORIZED, headers, text).into_response()
}
