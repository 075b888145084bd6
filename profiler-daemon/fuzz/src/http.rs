//! Any bytes on a connection: each answer is whole, of a status that is documented, and the connection ends.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use schedscope::core::{Comm, Reason, Share, ThreadNow};
use schedscope::daemon::http::{Figures, Guard, Limits, converse, router};
use schedscope::sink::api::View;
use schedscope::sink::metrics::Scrape;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::Runtime;

use super::support::{history, scrape};

/// Longest that a conversation may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Turns that the server gets before its client hangs up.
const TURNS: usize = 64;

/// Takes the bytes as all that a client says.
///
/// # Panics
///
/// If answering does, if an answer makes no sense, or if there is no end of it.
pub fn run(data: &[u8]) {
    let answers = exchange(data);
    if answers.is_empty() {
        return;
    }
    let status = status(&answers);
    let is_known = matches!(
        status,
        200 | 204 | 400 | 404 | 405 | 411 | 413 | 414 | 417 | 431 | 505
    );
    assert!(
        is_known,
        "status {status}: {}",
        String::from_utf8_lossy(&answers)
    );
}

/// The status of the first answer.
pub(crate) fn status(answers: &[u8]) -> u16 {
    let digits = answers
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5));
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("an answer begins with its status")
}

/// Says this to a server, and hears what comes back.
pub(crate) fn exchange(data: &[u8]) -> Vec<u8> {
    thread_local! {
        static SERVER: RefCell<(Runtime, Router)> = RefCell::new(server());
    }
    SERVER.with_borrow(|(runtime, router)| {
        let talk = async {
            let (ours, theirs) = duplex(64 << 10);
            let (mut listening, mut speaking) = tokio::io::split(ours);
            let guard = Guard::default();
            let serving = converse(theirs, router.clone(), &guard, Limits::default());
            let saying = async {
                // The other side may have heard enough.
                let _ = speaking.write_all(data).await;
                // Who hangs up gets no answer any more. Nothing here waits for anything but the other side, so
                // that all is answered after some turns.
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
                let _ = speaking.shutdown().await;
            };
            let mut answers = Vec::new();
            let hearing = listening.read_to_end(&mut answers);
            let ((), (), _) = tokio::join!(serving, saying, hearing);
            answers
        };
        let talked = runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await });
        talked.expect("the conversation ends")
    })
}

fn server() -> (Runtime, Router) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime can be made");
    (runtime, router(Engine, Limits::default()))
}

/// An engine that always says the same.
struct Engine;

impl Engine {
    fn figures() -> Scrape {
        static FIGURES: OnceLock<Scrape> = OnceLock::new();
        FIGURES.get_or_init(|| scrape(history(true))).clone()
    }
}

impl Figures for Engine {
    async fn scrape(&self) -> anyhow::Result<Scrape> {
        Ok(Self::figures())
    }

    async fn events(&self) -> anyhow::Result<u64> {
        static EVENTS: AtomicU64 = AtomicU64::new(0);
        Ok(EVENTS.fetch_add(1, Ordering::Relaxed))
    }

    async fn view(&self) -> anyhow::Result<View> {
        let Scrape {
            snapshot,
            window,
            unix_ns,
            ..
        } = Self::figures();
        let thread = |tid, comm, share, reason| ThreadNow {
            tid,
            tgid: 100,
            comm: Comm(comm),
            unit: 1,
            share,
            elapsed_ns: 5_000_000,
            reason,
            inflicted_ns: 7,
        };
        Ok(View {
            snapshot,
            unix_ns,
            window,
            threads: vec![
                thread(101, *b"web-worker\0\0\0\0\0\0", Share::Running, None),
                thread(
                    102,
                    *b"\"a\\\x1b[31m\xff\n\0\0\0\0\0\0",
                    Share::Blocked,
                    Some(Reason::Lock),
                ),
            ],
            columns: Vec::new(),
        })
    }
}
