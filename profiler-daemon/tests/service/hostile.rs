//! Clients that mean no good: what they cost the service, and whoever scrapes it meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::clocks::{self, Clocks, Took};
use crate::common::schedscope::may_load_probes;
use crate::common::service::Service;
use crate::status_field;

/// `prometheus:secret` and `prometheus:wrong`, encoded.
const RIGHT: &str = "cHJvbWV0aGV1czpzZWNyZXQ=";
const WRONG: &str = "cHJvbWV0aGV1czp3cm9uZw==";

/// The longest that hostile clients may delay a good scrape.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long each kind of them has.
const ROUND: Duration = Duration::from_millis(1_500);

/// How much memory all of them may cost, in KiB: 128 connections with a head of 16 KiB and TLS' buffers.
const MEMORY_KIB: u64 = 24 << 10;

/// What all clients need.
#[derive(Clone)]
struct Site {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    over: Arc<AtomicBool>,
}

/// What a kind of client does.
type Attack = fn(&Site);

type Secure = StreamOwned<ClientConnection, TcpStream>;

impl Site {
    fn new(address: SocketAddr, fixtures: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(fixtures.join("ca.pem")).expect("a fixture");
        roots.add(authority).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the usual versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address,
            tls: Arc::new(tls),
            over: Arc::default(),
        }
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        Some(stream)
    }

    fn secure(&self) -> Option<Secure> {
        let name = "localhost".try_into().expect("a name");
        let client = ClientConnection::new(Arc::clone(&self.tls), name).expect("a client");
        Some(StreamOwned::new(client, self.connect()?))
    }

    /// Asks for the metrics with this password; the status.
    fn scrape(&self, password: &str) -> Option<String> {
        let mut stream = self.secure()?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Basic {password}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        // An end without TLS' own farewell is one, too.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).ok()?;
        Some(answer.get(9..12)?.to_owned())
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }
}

/// Waits between two deeds, so that the clients do not use up the CPUs by themselves.
fn pause() {
    thread::sleep(Duration::from_millis(2));
}

/// A hundred requests that never end, a byte at a time.
fn slowloris(site: &Site) {
    let mut streams: Vec<_> = (0..100).filter_map(|_| site.secure()).collect();
    for stream in &mut streams {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n");
    }
    while site.goes_on() {
        for stream in &mut streams {
            let _ = stream.write_all(b"X");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Heads without an end, as fast as they are read.
fn header_flood(site: &Site) {
    let headers = "X-Flood: flood\r\n".repeat(512);
    while site.goes_on() {
        let Some(mut stream) = site.secure() else {
            continue;
        };
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n");
        while site.goes_on() && stream.write_all(headers.as_bytes()).is_ok() {}
        pause();
    }
}

/// A thousand connections at once, over and over.
fn crowd(site: &Site) {
    let mut streams = Vec::new();
    while site.goes_on() {
        if streams.len() == 1_000 {
            thread::sleep(Duration::from_millis(20));
            streams.clear();
        }
        streams.extend(site.connect());
    }
}

/// What is no TLS, and what begins as such.
fn bad_tls(site: &Site) {
    let kinds: [&[u8]; 4] = [
        b"GET /metrics HTTP/1.1\r\n\r\n",
        &[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc],
        &[0x16, 3, 1, 0xff, 0xff, 0, 0, 0],
        &[0; 4096],
    ];
    let mut half_open = std::collections::VecDeque::new();
    while site.goes_on() {
        for kind in kinds {
            if let Some(mut stream) = site.connect() {
                let _ = stream.write_all(kind);
                half_open.push_back(stream);
            }
        }
        if half_open.len() > 200 {
            half_open.drain(..4);
        }
        pause();
    }
}

/// Guesses, 150 of them at once.
fn wrong_passwords(site: &Site) {
    let guessers: Vec<_> = (0..150)
        .map(|_| {
            let site = site.clone();
            thread::spawn(move || {
                while site.goes_on() {
                    let status = site.scrape(WRONG);
                    assert!(
                        status.as_deref().is_none_or(|status| status == "401"),
                        "{status:?}"
                    );
                    thread::sleep(Duration::from_millis(20));
                }
            })
        })
        .collect();
    for guesser in guessers {
        guesser.join().expect("no guess is right");
    }
}

/// Scrapes for as long as a round takes; how long each took, the shortest first. None loses its place.
fn scrapes(name: &str, site: &Site, clocks: &Clocks) -> Vec<Took> {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < ROUND || took.len() < 5 {
        let asked = clocks.now();
        let status = site.scrape(RIGHT);
        took.push(clocks.since(&asked));
        assert_eq!(
            status.as_deref(),
            Some("200"),
            "{name}: scrape {} of a good client, after {:?}",
            took.len(),
            took.last()
        );
        thread::sleep(Duration::from_millis(20));
    }
    took.sort();
    println!(
        "{name}: {} scrapes, median {:.1?}, P90 {:.1?}, longest {:.1?}",
        took.len(),
        at(&took, 50),
        at(&took, 90),
        took[took.len() - 1],
    );
    took
}

fn at(sorted: &[Took], share: usize) -> Duration {
    sorted[(sorted.len() - 1) * share / 100].all
}

/// Scrapes go on while each kind of client does what it can, and then all of them.
#[test]
fn hostile_clients_cost_bounded_memory_and_delay_nobody() {
    if !may_load_probes("hostile::hostile_clients_cost_bounded_memory_and_delay_nobody") {
        return;
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    fs::create_dir_all(&directory).expect("a directory");
    for file in ["server.pem", "server-key.pem"] {
        fs::copy(fixtures.join(file), directory.join(file)).expect("a fixture");
    }
    // What `htpasswd -nBC 10` makes.
    let hash = bcrypt::hash("secret", 10).expect("it hashes");
    let web = format!(
        "tls_server_config: {{cert_file: server.pem, key_file: server-key.pem}}\n\
         basic_auth_users: {{prometheus: {hash}}}\n"
    );
    fs::write(directory.join("web.yml"), web).expect("it is written");
    let config = directory.join("schedscope.toml");
    let text = format!(
        "[web]\nconfig = \"{}\"\n",
        directory.join("web.yml").display()
    );
    fs::write(&config, text).expect("it is written");
    let service = Service::start_guarded(&config);
    let site = Site::new(service.address(), &fixtures);
    let own = Path::new("/proc").join(service.pid().to_string());

    // The kernel takes connections before there is anybody to answer.
    assert_eq!(site.scrape(RIGHT).as_deref(), Some("200"));
    let clocks = Clocks::new(&own);
    let quiet = scrapes("quiet", &site, &clocks);
    // The most is from here on: the start took more for a moment (`clear_refs`, proc_pid_clear_refs(5)).
    fs::write(own.join("clear_refs"), "5").expect("root may");
    let before_kib = most_memory_kib(&own);
    let usual = at(&quiet, 50);
    let kinds: [(&str, &[Attack]); 6] = [
        ("slowloris", &[slowloris]),
        ("header flood", &[header_flood]),
        ("1,000 connections", &[crowd]),
        ("bad TLS", &[bad_tls]),
        ("wrong passwords", &[wrong_passwords]),
        (
            "all at once",
            &[slowloris, header_flood, crowd, bad_tls, wrong_passwords],
        ),
    ];
    for (name, attacks) in kinds {
        let site = Site {
            over: Arc::default(),
            ..site.clone()
        };
        let attackers: Vec<_> = attacks
            .iter()
            .map(|attack| {
                let (attack, site) = (*attack, site.clone());
                thread::spawn(move || {
                    clocks::usual();
                    attack(&site);
                })
            })
            .collect();
        let took = scrapes(name, &site, &clocks);
        site.over.store(true, Ordering::Relaxed);
        for attacker in attackers {
            attacker.join().expect("it does not panic");
        }
        // Each of them, whatever CPUs the hostile clients use.
        for took in &took {
            assert!(
                took.by_the_service().saturating_sub(usual) <= PATIENCE,
                "{name}: {took:.1?}, and {usual:.1?} without"
            );
        }
    }
    let grown_kib = most_memory_kib(&own) - before_kib;
    println!("memory: {before_kib} KiB before, {grown_kib} KiB more at the most");
    assert!(
        grown_kib < MEMORY_KIB,
        "{grown_kib} KiB more than {before_kib} KiB"
    );
}

/// The most memory that a process has had.
fn most_memory_kib(process: &Path) -> u64 {
    status_field(process, "VmHWM:")
}
