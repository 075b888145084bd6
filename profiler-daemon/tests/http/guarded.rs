//! Who is let in, and who is not: passwords, TLS and client certificates.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use schedscope::daemon::http::{Guard, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Behaviour, PATIENCE, ask, exchange, header, short, start_guarded, status};

/// A web configuration in a directory of its own, with the certificates of `tests/fixtures/tls`.
fn web_config(name: &str, text: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    for file in ["ca.pem", "server.pem", "server-key.pem"] {
        std::fs::copy(fixtures.join(file), directory.join(file)).expect("a fixture");
    }
    let path = directory.join("web.yml");
    std::fs::write(&path, text).expect("it is written");
    path
}

/// The user `prometheus` with the password `secret`; a hash that costs little, for the test's sake.
fn users() -> String {
    let hash = bcrypt::hash("secret", 4).expect("it hashes");
    format!("basic_auth_users:\n  prometheus: {hash}\n")
}

/// `prometheus:secret`, encoded.
const RIGHT: &str = "Authorization: Basic cHJvbWV0aGV1czpzZWNyZXQ=\r\n";

#[tokio::test]
async fn a_password_opens_what_is_behind_it() {
    let guard = Guard::load(&web_config("users", &users())).expect("it is right");
    let server = start_guarded(Behaviour::Alive, Limits::default(), guard).await;
    for path in ["/", "/metrics", "/healthz", "/api/v1/units", "/no-such"] {
        let answer = ask(server.address, path, "").await;
        assert_eq!(status(&answer), "401", "{path}");
        assert!(header(&answer, "www-authenticate").is_some_and(|its| its.starts_with("Basic ")));
    }
    for wrong in [
        // prometheus:wrong, nobody:secret, prometheus:, and what is none of it.
        "Basic cHJvbWV0aGV1czp3cm9uZw==",
        "Basic bm9ib2R5OnNlY3JldA==",
        "Basic cHJvbWV0aGV1czo=",
        "Basic !",
        "Bearer cHJvbWV0aGV1czpzZWNyZXQ=",
        "Basic",
    ] {
        let wrong = format!("Authorization: {wrong}\r\n");
        assert_eq!(
            status(&ask(server.address, "/metrics", &wrong).await),
            "401",
            "{wrong}"
        );
    }
    assert_eq!(status(&ask(server.address, "/metrics", RIGHT).await), "200");
    // Who guesses is slow, and nobody else is.
    let guesses: Vec<_> = (0..50)
        .map(|number| {
            let guess = format!("Authorization: Basic cHJvbWV0aGV1czp{number:03}\r\n");
            tokio::spawn(async move { ask(server.address, "/metrics", &guess).await })
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(status(&ask(server.address, "/metrics", RIGHT).await), "200");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    drop(guesses);
}

#[tokio::test]
async fn a_web_configuration_that_is_wrong_says_what() {
    for (name, text, expected) in [
        (
            "plain",
            "basic_auth_users: {a: secret}",
            "not hashed with bcrypt",
        ),
        ("colour", "colour: blue", "unknown field `colour`"),
        (
            "no-file",
            "tls_server_config: {cert_file: none.pem, key_file: server-key.pem}",
            "none.pem",
        ),
        (
            "other-key",
            "tls_server_config: {cert_file: ca.pem, key_file: server-key.pem}",
            "don't go together",
        ),
        (
            "no-ca",
            "tls_server_config: {cert_file: server.pem, key_file: server-key.pem, \
             client_auth_type: RequireAndVerifyClientCert}",
            "needs a client_ca_file",
        ),
        (
            "any",
            "tls_server_config: {cert_file: server.pem, key_file: server-key.pem, \
             client_auth_type: RequireAnyClientCert}",
            "unknown variant `RequireAnyClientCert`",
        ),
    ] {
        let path = web_config(name, text);
        let message = Guard::load(&path).expect_err("it is wrong").to_string();
        let start = format!("the web configuration {}: ", path.display());
        assert!(message.starts_with(&start), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

/// Asks over TLS with what OpenSSL has; `None` if there is no such program.
async fn ask_tls(address: SocketAddr, arguments: &'static [&'static str]) -> Option<String> {
    let asking = tokio::task::spawn_blocking(move || run_openssl(address, arguments));
    asking.await.expect("it does not panic")
}

fn run_openssl(address: SocketAddr, arguments: &[&str]) -> Option<String> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let mut client = Command::new("openssl")
        .current_dir(fixtures)
        .args([
            "s_client",
            "-quiet",
            "-CAfile",
            "ca.pem",
            "-verify_return_error",
        ])
        .args([
            "-verify_hostname",
            "localhost",
            "-connect",
            &address.to_string(),
        ])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // It may have been refused before it could ask.
    let _ = client.stdin.as_mut()?.write_all(request);
    let output = client.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn tls_takes_whom_it_should() {
    const CLIENT: &[&str] = &["-cert", "client.pem", "-key", "client-key.pem"];
    const OTHER: &[&str] = &["-cert", "other.pem", "-key", "other-key.pem"];
    const TLS: &str = "tls_server_config: {cert_file: server.pem, key_file: server-key.pem, \
                       client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem}";
    let guard = Guard::load(&web_config("tls", TLS)).expect("it is right");
    let server = start_guarded(Behaviour::Alive, short(), guard).await;
    let Some(answer) = ask_tls(server.address, CLIENT).await else {
        println!("not run: tls_takes_whom_it_should: there is no openssl");
        return;
    };
    assert_eq!(status(&answer), "200", "{answer}");
    for refused in [&[], OTHER] {
        let answer = ask_tls(server.address, refused)
            .await
            .expect("there is openssl");
        assert_eq!(answer, "", "{refused:?}");
    }
    // Neither plain HTTP nor garbage nor silence is taken for anything, or stays for long.
    assert!(
        !exchange(server.address, "GET / HTTP/1.1\r\n\r\n")
            .await
            .contains("200")
    );
    let silent = TcpStream::connect(server.address)
        .await
        .expect("it listens");
    let begun = Instant::now();
    let mut garbage = TcpStream::connect(server.address)
        .await
        .expect("it listens");
    garbage
        .write_all(&[0x16, 3, 1, 0xff, 0xff, 0, 0, 0])
        .await
        .expect("it reads");
    for mut stream in [silent, garbage] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        let _ = ended.await.expect("it is closed");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        status(&ask_tls(server.address, CLIENT).await.expect("openssl")),
        "200"
    );
}
