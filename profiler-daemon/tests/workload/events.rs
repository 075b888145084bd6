//! Threads that wait for an event, a time, or a completion.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::crew::{Crew, Flag, Unavailable};
use crate::truth::{Expect, Meter};

/// A thread that waits and a thread that ends its waits, one each period, and one last time when the
/// time is over; `wake` is told which one it is.
pub(crate) fn woken(
    crew: &mut Crew,
    reason: &'static str,
    mut wait: impl FnMut() -> Result<()> + Send + 'static,
    mut wake: impl FnMut(bool) -> Result<()> + Send + 'static,
) -> Result<()> {
    let over = Flag::default();
    let period = crew.options.period_or(20);
    let seen = Arc::clone(&over);
    crew.thread(
        "waiter",
        Expect::blocked(reason, "waker"),
        move |meter, _| {
            while !seen.load(std::sync::atomic::Ordering::Acquire) {
                meter.wait(&mut wait)?;
            }
            Ok(())
        },
    )?;
    crew.thread(
        "waker",
        Expect::blocked("sleep", "timer"),
        move |meter, stop| {
            while !stop.due() {
                meter.wait(|| thread::sleep(period));
                wake(false)?;
            }
            over.store(true, std::sync::atomic::Ordering::Release);
            wake(true)
        },
    )?;
    Ok(())
}

/// An event descriptor, and how to post to it.
fn posted() -> Result<(
    Arc<OwnedFd>,
    impl FnMut(bool) -> Result<()> + Send + 'static,
)> {
    let event = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC).context("eventfd")?);
    let posting = Arc::clone(&event);
    let post = move |_| {
        rustix::io::write(&posting, &1u64.to_ne_bytes()).context("posting the event")?;
        Ok(())
    };
    Ok((event, post))
}

/// Takes what was posted.
fn take(event: &OwnedFd) -> Result<()> {
    let mut count = [0; 8];
    rustix::io::read(event, &mut count).context("reading the event descriptor")?;
    Ok(())
}

/// `epoll_wait` on an event descriptor.
pub(crate) fn epoll(crew: &mut Crew) -> Result<()> {
    let (event, post) = posted()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create1")?;
    epoll::add(
        &epoll,
        &event,
        epoll::EventData::new_u64(0),
        epoll::EventFlags::IN,
    )
    .context("epoll_ctl")?;
    let wait = move || {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        epoll::wait(&epoll, &mut events, None).context("epoll_wait")?;
        take(&event)
    };
    woken(crew, "event-wait", wait, post)
}

/// `poll` on an event descriptor.
pub(crate) fn poll(crew: &mut Crew) -> Result<()> {
    let (event, post) = posted()?;
    let wait = move || {
        let mut fds = [PollFd::new(&event, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).context("poll")?;
        take(&event)
    };
    woken(crew, "event-wait", wait, post)
}

/// `select` on an event descriptor.
pub(crate) fn select(crew: &mut Crew) -> Result<()> {
    let (event, post) = posted()?;
    let fd = event.as_raw_fd();
    let wait = move || {
        let elements = rustix::event::fd_set_num_elements(1, fd + 1);
        let mut fds = vec![rustix::event::FdSetElement::default(); elements];
        rustix::event::fd_set_insert(&mut fds, fd);
        #[expect(unsafe_code, reason = "select takes descriptors by number")]
        // SAFETY: the set holds one descriptor, which `event` keeps open, and is long enough for it.
        let ready = unsafe { rustix::event::select(fd + 1, Some(&mut fds), None, None, None) };
        ready.context("select")?;
        take(&event)
    };
    woken(crew, "event-wait", wait, post)
}

/// A blocking `read` of an event descriptor.
pub(crate) fn eventfd(crew: &mut Crew) -> Result<()> {
    let (event, post) = posted()?;
    woken(crew, "event-wait", move || take(&event), post)
}

/// A blocking `read` of a timer descriptor.
pub(crate) fn timerfd(crew: &mut Crew) -> Result<()> {
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)
        .context("timerfd_create")?;
    let period = Timespec::try_from(crew.options.period_or(20)).context("the period")?;
    let every = Itimerspec {
        it_interval: period,
        it_value: period,
    };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)
        .context("timerfd_settime")?;
    crew.thread(
        "waiter",
        Expect::blocked("sleep", "timer"),
        move |meter, stop| {
            while !stop.due() {
                meter.wait(|| take(&timer))?;
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// `io_uring_enter` that waits for a completion which does not come, until its timeout.
///
/// Nothing is submitted and nothing completes, so the rings need not be mapped.
pub(crate) fn io_uring(crew: &mut Crew) -> Result<()> {
    let mut parameters = rustix::io_uring::io_uring_params::default();
    #[expect(unsafe_code, reason = "io_uring can be made to touch any memory")]
    // SAFETY: the parameters are all zero, so no memory of ours is handed over.
    let ring = unsafe { rustix::io_uring::io_uring_setup(4, &mut parameters) };
    let ring = match ring {
        Err(Errno::PERM | Errno::NOSYS) => {
            return Err(Unavailable(
                "io_uring is not allowed here; see sysctl kernel.io_uring_disabled".to_owned(),
            )
            .into());
        }
        ring => ring.context("io_uring_setup")?,
    };
    let period = crew.options.period_or(20);
    crew.thread(
        "waiter",
        Expect::blocked("io-uring", "timer"),
        move |meter, stop| {
            while !stop.due() {
                match meter.wait(|| enter(&ring, period)) {
                    Ok(_) | Err(Errno::TIME | Errno::INTR) => {}
                    Err(error) => return Err(error).context("io_uring_enter"),
                }
            }
            Ok(())
        },
    )?;
    Ok(())
}

#[expect(unsafe_code, reason = "io_uring can be made to touch any memory")]
fn enter(ring: &OwnedFd, timeout: Duration) -> rustix::io::Result<u32> {
    use rustix::io_uring::{IoringEnterFlags, io_uring_getevents_arg, io_uring_ptr};
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    let argument = io_uring_getevents_arg {
        ts: io_uring_ptr::new((&raw const timeout).cast_mut().cast()),
        ..io_uring_getevents_arg::default()
    };
    let flags = IoringEnterFlags::GETEVENTS | IoringEnterFlags::EXT_ARG;
    // SAFETY: nothing is submitted, and the kernel only reads the timeout, which outlives the call.
    unsafe { rustix::io_uring::io_uring_enter_arg(ring, 0, 1, flags, Some(&argument)) }
}

/// A thread that is stuck for the whole time in one wait, on an empty pipe.
pub(crate) fn stuck(crew: &mut Crew) -> Result<()> {
    let (mut reader, writer) = std::io::pipe().context("pipe")?;
    crew.thread(
        "stuck",
        Expect::blocked("pipe", "releaser"),
        move |meter: &mut Meter, _| {
            meter
                .wait(|| reader.read_exact(&mut [0]))
                .context("reading the pipe")
        },
    )?;
    crew.thread(
        "releaser",
        Expect::blocked("sleep", "timer"),
        move |meter, stop| {
            while !stop.due() {
                meter.wait(|| thread::sleep(Duration::from_millis(5)));
            }
            (&writer).write_all(&[1]).context("writing the pipe")
        },
    )?;
    Ok(())
}
