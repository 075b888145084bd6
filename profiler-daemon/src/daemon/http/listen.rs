//! Where connections come from: a TCP address, a Unix socket, or a socket that systemd has opened.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::turns::{Origin, origin};

/// Connections that may wait to be accepted; the kernel takes no more than `net.core.somaxconn`, 4,096 by
/// default. For one more than that it drops the first packet, which the client sends again after a second.
const BACKLOG: u32 = 4096;

/// Longest path of a Unix socket, in bytes (`sockaddr_un`, with its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// Where to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// The first socket that systemd hands over (`LISTEN_FDS`).
    Systemd,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            _ if text == "systemd" => return Ok(Self::Systemd),
            Some(path) if path.starts_with('/') && path.len() <= MAX_SOCKET_PATH => {
                return Ok(Self::Unix(path.into()));
            }
            Some(path) => {
                return Err(format!(
                    "expected a path from / on of at most {MAX_SOCKET_PATH} bytes behind \"unix:\", found \
                     {path:?}"
                ));
            }
            None => {}
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!(
                "expected an IP address and a port such as \"127.0.0.1:9750\" or \"[::1]:9750\", \
                 \"unix:/PATH\", or \"systemd\", found {text:?}"
            )
        })
    }
}

/// Why an address can't be served on.
#[derive(Debug, thiserror::Error)]
#[error("can't serve on {listen}: {cause}; {remedy}")]
pub struct BindError {
    listen: Listen,
    /// Part of the message, so not the error's source: it would be said twice.
    cause: io::Error,
    remedy: String,
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, with the file to remove at the end if it is our own.
    Unix(UnixListener, Option<PathBuf>),
}

/// A connection's two directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    /// The TCP address, if it has one.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Unix(..) => Err(ErrorKind::Unsupported.into()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Origin)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                (Box::new(stream), Some(origin(from.ip())))
            }
            Self::Unix(listener, _) => (Box::new(listener.accept().await?.0), None),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Some(path)) = self {
            // If it is gone already, so much the better.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes the address. The error says who to look for and what to change.
pub async fn bind(listen: impl Into<Listen>) -> Result<Listener, BindError> {
    let listen = listen.into();
    let bound = match &listen {
        Listen::Tcp(address) => bind_tcp(*address).map(Listener::Tcp),
        Listen::Unix(path) => bind_unix(path),
        Listen::Systemd => from_systemd(),
    };
    bound.map_err(|cause| BindError {
        remedy: remedy(&listen, cause.kind()),
        listen,
        cause,
    })
}

fn remedy(listen: &Listen, kind: ErrorKind) -> String {
    let elsewhere = "choose another with --listen or `listen` in the configuration";
    match (listen, kind) {
        (Listen::Systemd, _) => "start it by a socket unit of systemd, or ".to_owned() + elsewhere,
        (Listen::Unix(path), ErrorKind::AddrInUse) => {
            let path = path.display();
            format!("see who has it with `ss -lxp src {path}`, or {elsewhere}")
        }
        (Listen::Unix(_), _) => {
            format!("its directory must be there and be writable: make it, or {elsewhere}")
        }
        (Listen::Tcp(address), ErrorKind::AddrInUse) => format!(
            "see who has it with `ss -ltnp 'sport = :{}'`, or {elsewhere}",
            address.port()
        ),
        (_, ErrorKind::AddrNotAvailable) => {
            format!("this host has no such address (`ip address` lists them): {elsewhere}")
        }
        (_, ErrorKind::PermissionDenied) => format!(
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it, or {elsewhere}"
        ),
        _ => elsewhere.to_owned(),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restart must not wait for connections of before to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let bound = UnixListener::bind(path).or_else(|error| {
        let is_left_over = error.kind() == ErrorKind::AddrInUse
            && std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        if !is_left_over {
            return Err(error);
        }
        // Nobody is there any more: somebody was killed.
        std::fs::remove_file(path)?;
        UnixListener::bind(path)
    })?;
    Ok(Listener::Unix(bound, Some(path.to_owned())))
}

fn from_systemd() -> io::Result<Listener> {
    let mut handed = listenfd::ListenFd::from_env();
    if let Ok(Some(listener)) = handed.take_tcp_listener(0) {
        listener.set_nonblocking(true)?;
        return TcpListener::from_std(listener).map(Listener::Tcp);
    }
    match handed.take_unix_listener(0)? {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            // The file is systemd's.
            UnixListener::from_std(listener).map(|listener| Listener::Unix(listener, None))
        }
        None => Err(io::Error::other("systemd has handed over no socket")),
    }
}

#[cfg(test)]
mod tests {
    use super::Listen;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "127.0.0.1:9750",
            "[::1]:80",
            "unix:/run/a b.sock",
            "systemd",
        ] {
            let listen: Listen = text.parse().expect("it is right");
            assert_eq!(listen.to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "",
            "localhost",
            "1.2.3.4",
            "unix:",
            "unix:run/x",
            &long,
            "Systemd",
        ] {
            let message = text.parse::<Listen>().expect_err("it is wrong");
            assert!(message.starts_with("expected "), "{message}");
        }
    }
}
