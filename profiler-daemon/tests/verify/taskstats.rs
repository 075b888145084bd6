//! The kernel's delay accounting of a thread, by the interface made for it: generic netlink, `TASKSTATS`
//! (include/uapi/linux/taskstats.h, genetlink.h; Documentation/accounting/taskstats.rst).

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail};
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

/// Switches the accounting on, for tasks that begin afterwards.
pub(crate) const SWITCH: &str = "/proc/sys/kernel/task_delayacct";

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const TASKSTATS_CMD_GET: u8 = 1;
const TASKSTATS_CMD_ATTR_PID: u16 = 1;
const TASKSTATS_TYPE_STATS: u16 = 3;
const TASKSTATS_TYPE_AGGR_PID: u16 = 4;

/// Of `struct nlmsghdr`, and of `struct genlmsghdr` behind it.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// What a thread was delayed by since it began, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delays {
    /// Waiting for a CPU.
    pub(crate) cpu_ns: u64,
    /// Waiting for block devices.
    pub(crate) block_ns: u64,
    /// How often.
    pub(crate) blocks: u64,
}

/// A way to ask.
pub(crate) struct Taskstats {
    socket: OwnedFd,
    family: u16,
}

impl Taskstats {
    pub(crate) fn open() -> Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(GENERIC),
        )
        .context("a netlink socket")?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).context("binding the netlink socket")?;
        let ask = message(
            GENL_ID_CTRL,
            CTRL_CMD_GETFAMILY,
            CTRL_ATTR_FAMILY_NAME,
            b"TASKSTATS\0",
        );
        let answer = exchange(&socket, &ask).context("asking for the family TASKSTATS")?;
        let family = attribute(&answer, CTRL_ATTR_FAMILY_ID)
            .and_then(|value| Some(u16::from_ne_bytes(*value.first_chunk()?)))
            .context("the kernel has no TASKSTATS (CONFIG_TASKSTATS)")?;
        Ok(Self { socket, family })
    }

    /// Of a thread that is alive.
    pub(crate) fn of(&self, tid: u32) -> Result<Delays> {
        let ask = message(
            self.family,
            TASKSTATS_CMD_GET,
            TASKSTATS_CMD_ATTR_PID,
            &tid.to_ne_bytes(),
        );
        let answer = exchange(&self.socket, &ask)?;
        attribute(&answer, TASKSTATS_TYPE_AGGR_PID)
            .and_then(|both| attribute(both, TASKSTATS_TYPE_STATS))
            .and_then(delays)
            .context("the answer has no struct taskstats")
    }
}

/// `cpu_delay_total`, `blkio_delay_total` and `blkio_count` of `struct taskstats`, whose layout only grows.
fn delays(stats: &[u8]) -> Option<Delays> {
    let field = |at: usize| {
        let bytes = stats.get(at..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    Some(Delays {
        cpu_ns: field(24)?,
        block_ns: field(40)?,
        blocks: field(32)?,
    })
}

/// A request with one attribute.
fn message(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute_length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut body = vec![command, 1, 0, 0];
    body.extend(attribute_length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // A sequence number, and the port, which the kernel fills in.
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Sends a request; the attributes of the answer.
fn exchange(socket: &OwnedFd, message: &[u8]) -> Result<Vec<u8>> {
    send(socket, message, SendFlags::empty()).context("sending to the kernel")?;
    let mut buffer = vec![0; 16 << 10];
    let (length, _) =
        recv(socket, &mut buffer[..], RecvFlags::empty()).context("reading the kernel's answer")?;
    let answer = buffer.get(..length).unwrap_or_default();
    let kind = answer.get(4..).and_then(|bytes| bytes.first_chunk());
    if kind.map(|bytes| u16::from_ne_bytes(*bytes)) == Some(NLMSG_ERROR) {
        let code = answer.get(HEADER..).and_then(|bytes| bytes.first_chunk());
        let code = code.map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        bail!("{}", std::io::Error::from_raw_os_error(-code));
    }
    let attributes = answer.get(HEADER + GENERIC_HEADER..);
    Ok(attributes.unwrap_or_default().to_vec())
}

/// The value of an attribute among others.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        // The two highest bits say how the value is stored.
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}
