//! Who may ask: TLS, client certificates and passwords, from a web configuration in the form that
//! Prometheus' own exporters use
//! (<https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>).

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use serde::Deserialize;

use super::turns::{Origin, Turns};

/// A web configuration is not larger than this, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Passwords that were right are remembered, so that a hash is worked out once for each; so many at most.
const MAX_KNOWN: usize = 256;

/// Compared with where there is no such user, so that the time does not tell.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuuL5c0RjfGdMC2vrA2nVvSuqkUtPNFgp2";

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WebConfig {
    tls_server_config: Option<TlsConfig>,
    /// Users with the bcrypt hashes of their passwords.
    basic_auth_users: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsConfig {
    cert_file: PathBuf,
    key_file: PathBuf,
    #[serde(default)]
    client_auth_type: ClientAuth,
    client_ca_file: Option<PathBuf>,
    #[serde(default)]
    min_version: Option<TlsVersion>,
    #[serde(default)]
    max_version: Option<TlsVersion>,
}

/// What is wanted of clients. The two kinds of Prometheus that take any certificate, whoever signed it, are
/// left out: they prove nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum ClientAuth {
    #[default]
    NoClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum TlsVersion {
    TLS12,
    TLS13,
}

/// Why a web configuration was not taken.
#[derive(Debug, thiserror::Error)]
#[error("the web configuration {path}: {what}")]
pub struct GuardError {
    path: PathBuf,
    what: String,
}

/// Who may ask.
#[derive(Debug)]
pub struct Guard {
    pub(super) tls: Option<Arc<ServerConfig>>,
    users: BTreeMap<String, String>,
    /// Digests of what was right, with keys that nobody knows.
    known: Mutex<HashSet<(u64, u64)>>,
    keys: (RandomState, RandomState),
    /// One hash at a time is worked out: each takes tens of milliseconds of a CPU.
    turns: Turns,
}

impl Default for Guard {
    /// Everybody may ask.
    fn default() -> Self {
        Self {
            tls: None,
            users: BTreeMap::new(),
            known: Mutex::default(),
            keys: (RandomState::new(), RandomState::new()),
            turns: Turns::default(),
        }
    }
}

impl Guard {
    /// As this file says. Paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Self, GuardError> {
        Self::read(path).map_err(|what| GuardError {
            path: path.to_owned(),
            what,
        })
    }

    fn read(path: &Path) -> Result<Self, String> {
        let directory = path.parent().unwrap_or(Path::new("."));
        Self::parse(&read_file(path)?, directory)
    }

    /// As the text of a file in this directory says. The error is what is wrong with it.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let config: WebConfig = serde_norway::from_str(text).map_err(|error| error.to_string())?;
        for (user, hash) in &config.basic_auth_users {
            let parts: Result<bcrypt::HashParts, _> = hash.parse();
            if parts.is_err() {
                return Err(format!(
                    "the password of user {user:?} is not hashed with bcrypt; `htpasswd -nBC 10 \"\"` does it"
                ));
            }
        }
        let tls = config.tls_server_config;
        Ok(Self {
            tls: tls.map(|tls| tls.server(directory)).transpose()?,
            users: config.basic_auth_users,
            ..Self::default()
        })
    }

    /// Whether a request with these headers is answered, if that can be told without working out a hash.
    pub(super) fn recognizes(&self, headers: &HeaderMap) -> Option<bool> {
        if self.users.is_empty() {
            return Some(true);
        }
        let Some((user, password)) = credentials(headers) else {
            return Some(false);
        };
        let digest = self.digest(&user, &password);
        self.known().contains(&digest).then_some(true)
    }

    fn digest(&self, user: &str, password: &str) -> (u64, u64) {
        let pair = (user, password);
        (self.keys.0.hash_one(pair), self.keys.1.hash_one(pair))
    }

    /// Whether a request with these headers, from there, is answered. It may wait for its turn for long.
    pub(super) async fn admits(&self, headers: &HeaderMap, origin: Origin) -> bool {
        let Some((user, password)) = credentials(headers) else {
            return false;
        };
        let digest = self.digest(&user, &password);
        let turn = self.turns.take(origin).await;
        // Somebody else may have shown it meanwhile.
        if self.known().contains(&digest) {
            return true;
        }
        let hash = self.users.get(&user).cloned();
        let check = tokio::task::spawn_blocking(move || {
            // The turn lasts until the work is done, even if nobody waits for it any more.
            let _turn = turn;
            let hash_or_other = hash.as_deref().unwrap_or(NOBODY);
            let fits = bcrypt::verify(password, hash_or_other).unwrap_or(false);
            fits && hash.is_some()
        });
        let is_right = check.await.unwrap_or(false);
        if is_right {
            let mut known = self.known();
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(digest);
        }
        is_right
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<(u64, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// User and password, if the headers have them.
#[must_use]
pub fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn read_file(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MAX_FILE => Err(format!("it is larger than {MAX_FILE} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("can't read it: {error}")),
    }
}

impl TlsConfig {
    fn server(&self, directory: &Path) -> Result<Arc<ServerConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: Vec<_> = [(TlsVersion::TLS12, &TLS12), (TlsVersion::TLS13, &TLS13)]
            .into_iter()
            .filter(|(version, _)| {
                self.min_version.is_none_or(|least| *version >= least)
                    && self.max_version.is_none_or(|most| *version <= most)
            })
            .map(|(_, version)| version)
            .collect();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|_| "min_version is above max_version".to_owned())?;
        let builder = match (self.client_auth_type, &self.client_ca_file) {
            (ClientAuth::NoClientCert, None) => builder.with_no_client_auth(),
            (ClientAuth::NoClientCert, Some(_)) => {
                return Err("client_ca_file needs a client_auth_type that verifies".to_owned());
            }
            (_, None) => return Err("client_auth_type needs a client_ca_file".to_owned()),
            (kind, Some(file)) => {
                let mut roots = rustls::RootCertStore::empty();
                for certificate in certificates(&directory.join(file))? {
                    roots
                        .add(certificate)
                        .map_err(|error| format!("client_ca_file {}: {error}", file.display()))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if kind == ClientAuth::VerifyClientCertIfGiven {
                    verifier.allow_unauthenticated()
                } else {
                    verifier
                };
                let verifier = verifier.build().map_err(|error| error.to_string())?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key_file = directory.join(&self.key_file);
        let key = PrivateKeyDer::from_pem_file(&key_file)
            .map_err(|error| format!("key_file {}: {error}", key_file.display()))?;
        let server = builder.with_single_cert(certificates(&directory.join(&self.cert_file))?, key);
        server
            .map(Arc::new)
            .map_err(|error| format!("cert_file and key_file don't go together: {error}"))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect();
    match all.map_err(wrong)? {
        none if none.is_empty() => Err(format!("{} has no certificate", path.display())),
        all => Ok(all),
    }
}

/// The guard that is on duty; it can be relieved while connections are served.
#[derive(Clone, Debug, Default)]
pub struct Duty(Arc<RwLock<Arc<Guard>>>);

impl Duty {
    /// This one is on duty.
    #[must_use]
    pub fn new(guard: Guard) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(guard))))
    }

    /// From now on this one is, for connections to come.
    pub fn relieve(&self, guard: Guard) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(guard);
    }

    pub(super) fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::NOBODY;

    #[test]
    fn comparing_with_nobody_takes_as_long_as_with_somebody() {
        let parts: bcrypt::HashParts = NOBODY.parse().expect("a hash");
        assert_eq!(parts.get_cost(), 10);
        assert!(bcrypt::verify("x", NOBODY).is_ok_and(|fits| !fits));
    }
}
