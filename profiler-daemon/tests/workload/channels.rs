//! Threads that wait for another end: pipes, sockets, a terminal.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::{
    set_socket_broadcast, set_socket_recv_buffer_size, set_socket_reuseaddr,
    set_socket_send_buffer_size,
};
use rustix::net::{AddressFamily, SocketType};
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;

use crate::cpu::burn_until_due;
use crate::crew::Crew;
use crate::events::woken;
use crate::truth::Expect;

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

/// Sockets that get each datagram of a flood.
const LISTENERS: u16 = 64;

/// A UDP socket on a port of all addresses, next to others.
fn listen(port: u16) -> Result<UdpSocket> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    set_socket_reuseaddr(&socket, true)?;
    set_socket_broadcast(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new([0, 0, 0, 0].into(), port))?;
    Ok(socket.into())
}

/// A victim that computes, beside a thread that sends datagrams to many sockets at once: most of the work
/// is the network softirq's, on top of the sender.
pub(crate) fn flood(crew: &mut Crew) -> Result<()> {
    let cpu = crew.options.cpu_or_last()?;
    let first = listen(0).context("a UDP socket")?;
    let port = first.local_addr().context("its port")?.port();
    let more = (1..LISTENERS).map(|_| listen(port));
    let more = more.collect::<Result<Vec<_>>>().context("UDP sockets")?;
    crew.thread_on(Some(cpu), "sender", Expect::mixed(), move |_, stop| {
        let _kept_open = more;
        while !stop.due() {
            first
                .send_to(b"x", ("127.255.255.255", port))
                .context("sending to the loopback's broadcast address")?;
        }
        Ok(())
    })?;
    let expect = Expect::contended("sender");
    crew.thread_on(Some(cpu), "victim", expect, |_, stop| {
        burn_until_due(stop);
        Ok(())
    })?;
    Ok(())
}
