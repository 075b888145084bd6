//! Why a thread was blocked: a closed set, each with what it means.

/// Why a thread waited for something else than a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// A futex, a file lock or a System V semaphore.
    Lock,
    /// Something to happen: epoll, poll, select, an eventfd, a signal.
    EventWait,
    /// A time that the thread set itself.
    Sleep,
    /// A block device.
    DiskIo,
    /// Data to be safe on a device.
    FsSync,
    /// Data from a network peer.
    NetRecv,
    /// Room to send to a network peer.
    NetSend,
    /// A network peer to answer a connection request.
    NetConnect,
    /// A connection request from a peer.
    NetAccept,
    /// The other end of a pipe.
    Pipe,
    /// The other end of a Unix-domain socket.
    UnixSocket,
    /// A terminal.
    Tty,
    /// A page of memory to be brought in.
    PageFault,
    /// Memory to be freed.
    MemoryReclaim,
    /// A lock inside the kernel.
    KernelLock,
    /// A child process.
    ChildWait,
    /// To be continued: stopped by a signal, a debugger or the freezer.
    Stopped,
    /// Completions of an `io_uring`.
    IoUring,
    /// Work, as a kernel thread does between two pieces of it.
    KthreadIdle,
    /// The end of other threads on the way out.
    Exit,
    /// A system call that says nothing about what it waits for; its name is kept.
    Other,
    /// Nobody can tell.
    Unknown,
}

/// One line of the documented set.
#[derive(Clone, Copy, Debug)]
pub struct ReasonDoc {
    /// Which one.
    pub reason: Reason,
    /// Its name in reports and metrics.
    pub name: &'static str,
    /// What such a thread waits for.
    pub meaning: &'static str,
    /// Plain idleness: views may fold it.
    pub idle: bool,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = DOCS.len();

    /// What is documented of it.
    #[must_use]
    pub const fn doc(self) -> &'static ReasonDoc {
        &DOCS[self as usize]
    }

    /// Its name in reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.doc().name
    }

    /// Whether a thread that waits so has nothing to do, rather than being kept from it.
    #[must_use]
    pub const fn is_idle(self) -> bool {
        self.doc().idle
    }

    /// Its place in arrays by reason.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// All of them, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        DOCS.iter().map(|doc| doc.reason)
    }
}

const fn work(reason: Reason, name: &'static str, meaning: &'static str) -> ReasonDoc {
    ReasonDoc {
        reason,
        name,
        meaning,
        idle: false,
    }
}

const fn idle(reason: Reason, name: &'static str, meaning: &'static str) -> ReasonDoc {
    ReasonDoc {
        reason,
        name,
        meaning,
        idle: true,
    }
}

/// The set, in the order of the numbers.
pub const DOCS: [ReasonDoc; 22] = [
    work(
        Reason::Lock,
        "lock",
        "a mutex, condition variable or join (futex), a file lock, a semaphore",
    ),
    idle(
        Reason::EventWait,
        "event-wait",
        "epoll, poll, select, an eventfd, a signal",
    ),
    idle(
        Reason::Sleep,
        "sleep",
        "a time that the thread set itself: nanosleep, a timerfd",
    ),
    work(Reason::DiskIo, "disk-io", "a block device"),
    work(
        Reason::FsSync,
        "fs-sync",
        "data to be safe on a device: fsync and its like",
    ),
    work(Reason::NetRecv, "net-recv", "data from a network peer"),
    work(
        Reason::NetSend,
        "net-send",
        "room to send to a network peer",
    ),
    work(
        Reason::NetConnect,
        "net-connect",
        "a network peer to answer a connection request",
    ),
    idle(
        Reason::NetAccept,
        "net-accept",
        "a connection request from a peer",
    ),
    work(Reason::Pipe, "pipe", "the other end of a pipe or FIFO"),
    work(
        Reason::UnixSocket,
        "unix-socket",
        "the other end of a Unix-domain socket",
    ),
    work(Reason::Tty, "tty", "a terminal"),
    work(
        Reason::PageFault,
        "page-fault",
        "a page of memory to be brought in",
    ),
    work(
        Reason::MemoryReclaim,
        "memory-reclaim",
        "memory to be freed",
    ),
    work(
        Reason::KernelLock,
        "kernel-lock",
        "a mutex or semaphore inside the kernel",
    ),
    work(
        Reason::ChildWait,
        "child-wait",
        "a child process: wait, vfork",
    ),
    work(
        Reason::Stopped,
        "stopped",
        "to be continued, after a signal, by a debugger or by the freezer",
    ),
    work(Reason::IoUring, "io-uring", "completions of an io_uring"),
    idle(
        Reason::KthreadIdle,
        "kthread-idle",
        "work, as a kernel thread does between two pieces of it",
    ),
    work(Reason::Exit, "exit", "other threads of the process to end"),
    work(
        Reason::Other,
        "other",
        "whatever the system call waits for; its name is given",
    ),
    work(Reason::Unknown, "unknown", "nobody can tell"),
];

#[cfg(test)]
mod tests {
    use super::{DOCS, Reason};

    #[test]
    fn the_set_is_in_the_order_of_its_numbers() {
        for (place, doc) in DOCS.iter().enumerate() {
            assert_eq!(doc.reason.index(), place, "{}", doc.name);
            assert_eq!(doc.reason.doc().name, doc.name);
        }
        assert_eq!(Reason::Unknown.index() + 1, Reason::COUNT);
    }
}
