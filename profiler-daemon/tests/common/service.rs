//! A service that runs, and what it serves.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::schedscope::{Outcome, Running, patience, schedscope};

/// A service that runs; killed when dropped.
pub(crate) struct Service {
    running: Running,
    address: SocketAddr,
}

/// A server's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Service {
    /// Starts `schedscope run` on a free port, and returns when it is healthy.
    #[track_caller]
    pub(crate) fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::start_with([], arguments)
    }

    /// [`Self::start`] with these variables in its environment.
    #[track_caller]
    pub(crate) fn start_with<'a, S: AsRef<OsStr>>(
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let is_healthy =
            |address| get(address, "/healthz", "").is_some_and(|answer| answer.status == 200);
        Self::start_until(is_healthy, environment, arguments)
    }

    /// [`Self::start`] with a configuration that lets only some in: it returns when it listens.
    #[track_caller]
    pub(crate) fn start_guarded(configuration: &Path) -> Self {
        let listens = |address| TcpStream::connect(address).is_ok();
        let arguments = [OsStr::new("--config"), configuration.as_os_str()];
        Self::start_until(listens, [], arguments)
    }

    #[track_caller]
    fn start_until<'a, S: AsRef<OsStr>>(
        is_there: impl Fn(SocketAddr) -> bool,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let address = free_address();
        let mut command = schedscope(["run", "--listen", &address.to_string()]);
        command.envs(environment).args(arguments);
        let mut service = Self {
            running: Running::start(command),
            address,
        };
        let start = Instant::now();
        while !is_there(address) {
            if service.running.has_ended() || start.elapsed() > patience() {
                let outcome = service.running.finish(Duration::ZERO);
                panic!("the service did not get healthy: {outcome:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        service
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits until it ends.
    #[track_caller]
    pub(crate) fn finish(self, patience: Duration) -> Outcome {
        self.running.finish(patience)
    }

    /// Asks for something.
    #[track_caller]
    pub(crate) fn get(&self, path: &str, accept: &str) -> Answer {
        get(self.address, path, accept).expect("the service answers")
    }

    /// Scrapes the metrics.
    #[track_caller]
    pub(crate) fn scrape(&self) -> Samples {
        let answer = self.get("/metrics", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        Samples::parse(&answer.body)
    }

    /// Scrapes until something holds for a sample, and returns that.
    #[track_caller]
    pub(crate) fn scrape_until(&self, holds: impl Fn(&Samples) -> bool) -> Samples {
        self.scrape_within(Duration::from_secs(5), holds)
    }

    /// [`Self::scrape_until`], for so long.
    #[track_caller]
    pub(crate) fn scrape_within(
        &self,
        patience: Duration,
        holds: impl Fn(&Samples) -> bool,
    ) -> Samples {
        let start = Instant::now();
        loop {
            let samples = self.scrape();
            if holds(&samples) {
                return samples;
            }
            assert!(start.elapsed() < patience, "{samples:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// An address on the loopback whose port is free now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("the listener has an address")
}

/// Asks a server for something; `None` if it does not answer.
pub(crate) fn get(address: SocketAddr, path: &str, accept: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// The samples of a scrape, by name and labels as they are written.
#[derive(Clone, Debug)]
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads the text formats of Prometheus.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let value = value
                    .parse()
                    .unwrap_or_else(|_| panic!("a number in '{line}'"));
                (series.to_owned(), value)
            });
        Self(samples.collect())
    }

    /// The value of one series.
    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        let value = self.0.get(series);
        *value.unwrap_or_else(|| panic!("a series '{series}' expected in {:?}", self.0.keys()))
    }

    /// The sum of all series of this metric with this label.
    pub(crate) fn sum(&self, metric: &str, label: &str) -> f64 {
        let of_metric = |series: &str| series.split('{').next() == Some(metric);
        let samples = self.0.iter();
        samples
            .filter(|(series, _)| of_metric(series) && series.contains(label))
            .map(|(_, value)| value)
            .sum()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All values of a label of a metric.
    pub(crate) fn labels(&self, metric: &str, label: &str) -> BTreeSet<String> {
        let (start, label) = (format!("{metric}{{"), format!("{label}=\""));
        let series = self
            .0
            .keys()
            .filter_map(|series| series.strip_prefix(&start));
        let values = series.filter_map(|labels| labels.split(&label).nth(1)?.split('"').next());
        values.map(str::to_owned).collect()
    }

    /// Whether a series has this label.
    pub(crate) fn has(&self, label: &str) -> bool {
        self.0.keys().any(|series| series.contains(label))
    }

    /// Fails if a counter went back or a series got lost since an earlier scrape.
    #[track_caller]
    pub(crate) fn assert_grown_from(&self, earlier: &Self) {
        let is_counter = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        for (series, before) in earlier.0.iter().filter(|(series, _)| is_counter(series)) {
            let now = self.value(series);
            assert!(now >= *before, "{series} went from {before} back to {now}");
        }
    }
}
