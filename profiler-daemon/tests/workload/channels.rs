//! Threads that wait for another end: pipes, sockets, a terminal.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;

use crate::crew::Crew;
use crate::events::woken;

/// Reads a byte at a time from a stream that gets one each period.
fn read_bytes(
    crew: &mut Crew,
    reason: &'static str,
    mut reader: impl Read + Send + 'static,
    mut writer: impl Write + Send + 'static,
) -> Result<()> {
    woken(
        crew,
        reason,
        move || reader.read_exact(&mut [0]).context("reading"),
        move |_| writer.write_all(b"x").context("writing"),
    )
}

/// Writes chunks to a stream that is full, and is relieved of one each period.
fn write_full(
    crew: &mut Crew,
    reason: &'static str,
    reader: impl Read + Send + 'static,
    mut writer: impl Write + Send + 'static,
    chunk: usize,
) -> Result<()> {
    let block = vec![0; chunk];
    let mut drained = vec![0; chunk];
    let mut reader = Some(reader);
    woken(
        crew,
        reason,
        move || match writer.write_all(&block) {
            // The reader has gone, because the time is over.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            result => result.context("writing"),
        },
        move |last| {
            if last {
                reader = None;
            }
            match &mut reader {
                Some(reader) => reader.read_exact(&mut drained).context("reading"),
                None => Ok(()),
            }
        },
    )
}

/// `read` of an empty pipe.
pub(crate) fn pipe_read(crew: &mut Crew) -> Result<()> {
    let (reader, writer) = std::io::pipe().context("pipe")?;
    read_bytes(crew, "pipe", reader, writer)
}

/// `write` to a full pipe.
pub(crate) fn pipe_write(crew: &mut Crew) -> Result<()> {
    let (reader, writer) = std::io::pipe().context("pipe")?;
    let size = rustix::pipe::fcntl_getpipe_size(&writer).context("the pipe's size")?;
    write_full(crew, "pipe", reader, writer, size)
}

/// `recv` from a Unix stream socket.
pub(crate) fn unix_socket(crew: &mut Crew) -> Result<()> {
    let (reader, writer) = UnixStream::pair().context("socketpair")?;
    read_bytes(crew, "unix-socket", reader, writer)
}

/// Two ends of a TCP connection over the loopback.
fn tcp_pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening on the loopback")?;
    let address = listener.local_addr().context("the listener's address")?;
    let near = TcpStream::connect(address).context("connecting over the loopback")?;
    near.set_nodelay(true).context("TCP_NODELAY")?;
    let (far, _) = listener.accept().context("accepting over the loopback")?;
    Ok((near, far))
}

/// `recv` from a TCP connection.
pub(crate) fn tcp_recv(crew: &mut Crew) -> Result<()> {
    let (near, far) = tcp_pair()?;
    read_bytes(crew, "net-recv", far, near)
}

/// `send` to a TCP connection whose other end does not read.
pub(crate) fn tcp_send(crew: &mut Crew) -> Result<()> {
    let (near, far) = tcp_pair()?;
    // Small buffers, so that a chunk does not fit in both.
    set_socket_send_buffer_size(&near, 128 << 10).context("SO_SNDBUF")?;
    set_socket_recv_buffer_size(&far, 128 << 10).context("SO_RCVBUF")?;
    write_full(crew, "net-send", far, near, 512 << 10)
}

/// `accept` on a listening TCP socket.
pub(crate) fn tcp_accept(crew: &mut Crew) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening on the loopback")?;
    let address = listener.local_addr().context("the listener's address")?;
    woken(
        crew,
        "net-accept",
        move || {
            listener.accept().context("accept")?;
            Ok(())
        },
        move |_| {
            TcpStream::connect(address).context("connecting over the loopback")?;
            Ok(())
        },
    )
}

/// `read` of a pseudo terminal, as a shell does at its prompt.
pub(crate) fn tty(crew: &mut Crew) -> Result<()> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).context("opening a pseudo terminal")?;
    rustix::pty::grantpt(&master).context("grantpt")?;
    rustix::pty::unlockpt(&master).context("unlockpt")?;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, flags).context("the terminal's far side")?;
    let mut attributes = rustix::termios::tcgetattr(&slave).context("tcgetattr")?;
    // One byte at a time, without waiting for the end of a line.
    attributes.make_raw();
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &attributes).context("tcsetattr")?;
    let (slave, master) = (File::from(slave), Arc::new(File::from(master)));
    // The near side must outlive the last read: closing it is a hang-up.
    let kept = Arc::clone(&master);
    crew.at_end(move || {
        drop(kept);
        Ok(serde_json::Map::new())
    });
    read_bytes(crew, "tty", slave, master)
}
