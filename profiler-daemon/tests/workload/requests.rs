//! A server of which one request in a thousand is stalled on purpose, each by one of five things, with the
//! program's own log of every stall: what a profiler of waits has to find, all of it.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::mem::size_of;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use crate::cgroup::QuotaGroup;
use crate::cpu::burn_for;
use crate::crew::{Crew, Stop, Unavailable, own_tid};
use crate::truth::{Expect, Meter, nanos, unix_ns};

/// One request in so many is stalled.
const ONE_IN: u64 = 1000;

/// Time between two requests, in microseconds.
const PERIOD_US: u64 = 500;

/// What a request takes that is not stalled.
const WORK: Duration = Duration::from_micros(20);

/// What the process may use of a CPU, in percent: several times as much as it needs, but for a stall.
const QUOTA_PERCENT: u32 = 40;

/// The hog looks this often whether the time is over.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A pause of a thread that computes, of which it asks whether that was the quota's doing.
const TAKEN_AWAY: Duration = Duration::from_millis(10);

/// When a thread that computes has had its quota taken for certain, though others want the CPU, too.
const QUOTA_PATIENCE: Duration = Duration::from_secs(10);

/// What the disk takes at least for as much as is written to it at once, and the most that is tried.
const DISK_TIME: Duration = Duration::from_millis(20);
const MOST_WRITTEN: usize = 256 << 20;
const BLOCK: usize = 1 << 20;

/// What stalls a request.
#[derive(Clone, Copy, Debug)]
enum Stall {
    /// Another thread holds a lock.
    Lock,
    /// The server sleeps.
    Sleep,
    /// A real-time thread of another process takes the CPU.
    Hog,
    /// The server computes until its quota is used up.
    Quota,
    /// The server has much written to the disk, and waits for it.
    Disk,
}

impl Stall {
    const ALL: [Self; 5] = [Self::Lock, Self::Sleep, Self::Hog, Self::Quota, Self::Disk];

    fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Sleep => "sleep",
            Self::Hog => "hog",
            Self::Quota => "quota",
            Self::Disk => "disk",
        }
    }

    /// What stalls this request, if anything does.
    fn of(request: u64) -> Option<Self> {
        let number = request / ONE_IN;
        let is_stalled = request % ONE_IN == ONE_IN - 1;
        let turn = usize::try_from(number).unwrap_or(0) % Self::ALL.len();
        is_stalled.then(|| Self::ALL.get(turn).copied())?
    }
}

/// A lock, and the thread that takes it when it is asked to.
#[derive(Clone)]
struct Lock {
    mutex: Arc<Mutex<()>>,
    is_held: Arc<AtomicBool>,
}

/// Waits, idle by any profiler's standards, until something can be read or the time is over.
fn wait_to_read(socket: &impl std::os::fd::AsFd, timeout: Option<Duration>) -> Result<bool> {
    let timeout = timeout.map(rustix::time::Timespec::try_from).transpose();
    let timeout = timeout.context("a timeout")?;
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    Ok(poll(&mut fds, timeout.as_ref()).context("poll")? > 0)
}

/// The server's means to stall itself.
struct Server {
    lock: Lock,
    ask_locker: UnixStream,
    hog: UnixDatagram,
    hold: Duration,
    file: File,
    written: usize,
    /// How long the cgroup was without quota so far.
    throttled_ns: Box<dyn Fn() -> Result<u64> + Send>,
}

impl Server {
    /// Stalls, and tells for how long.
    fn stall(&mut self, kind: Stall) -> Result<Duration> {
        match kind {
            Stall::Lock => {
                self.ask_locker
                    .write_all(&[1])
                    .context("asking for the lock to be held")?;
                while !self.lock.is_held.load(Ordering::Acquire) {
                    rustix::thread::sched_yield();
                }
                let start = Instant::now();
                drop(
                    self.lock
                        .mutex
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner),
                );
                Ok(start.elapsed())
            }
            Stall::Sleep => {
                let start = Instant::now();
                thread::sleep(self.hold);
                Ok(start.elapsed())
            }
            Stall::Hog => {
                let start = Instant::now();
                // It takes the CPU at once: before this call returns.
                self.hog.send(&[1]).context("waking the hog")?;
                Ok(start.elapsed())
            }
            Stall::Quota => {
                let before = (self.throttled_ns)()?;
                let start = Instant::now();
                let mut last = start;
                loop {
                    let now = Instant::now();
                    let pause = now - last;
                    // The kernel's sum is of all CPUs that the group's threads are on, and grows when the time
                    // without quota ends: it says that this was one, and the clock how long for this thread.
                    if pause > TAKEN_AWAY && (self.throttled_ns)()? - before >= nanos(TAKEN_AWAY) {
                        return Ok(pause);
                    }
                    ensure!(
                        now - start < QUOTA_PATIENCE,
                        "a quota of {QUOTA_PERCENT}% is not used up by {QUOTA_PATIENCE:?} of computing"
                    );
                    last = now;
                }
            }
            Stall::Disk => write_through(&mut self.file, self.written),
        }
    }
}

/// Writes so many bytes, and tells how long it then took until they were on the disk.
fn write_through(file: &mut File, bytes: usize) -> Result<Duration> {
    let block = vec![0x5a; BLOCK];
    file.rewind().context("seek")?;
    for _ in 0..bytes / BLOCK {
        file.write_all(&block).context("writing to --dir")?;
    }
    let start = Instant::now();
    file.sync_data().context("fdatasync")?;
    Ok(start.elapsed())
}

/// As many bytes as take the disk [`DISK_TIME`] at least; half as many again, since times vary.
fn slow_for_the_disk(file: &mut File) -> Result<usize> {
    let mut bytes = 4 * BLOCK;
    while bytes < MOST_WRITTEN {
        if write_through(file, bytes)? > DISK_TIME {
            return Ok(bytes / 2 * 3);
        }
        bytes *= 2;
    }
    Err(Unavailable(format!(
        "{MOST_WRITTEN} bytes are on the disk within {DISK_TIME:?}: name a directory on a slower one by --dir"
    ))
    .into())
}

/// Where the hog is told to take its CPU.
fn hog_path(crew: &Crew) -> PathBuf {
    let owner = match &crew.options.name {
        Some(name) => name.clone(),
        None => std::process::id().to_string(),
    };
    let name = format!("schedscope-hog-{owner}");
    // A socket's path is short: 107 bytes.
    std::env::temp_dir().join(name)
}

/// The server, its client, a thread that holds a lock, and a process that takes the CPU.
pub(crate) fn requests(crew: &mut Crew) -> Result<()> {
    // Whether it may at all is found out here, where it can be told.
    set_policy(libc::SCHED_FIFO, 1)?;
    set_policy(libc::SCHED_OTHER, 0)?;
    let cpu = crew.options.cpu_or_last()?;
    let hold = crew.options.hold_or(20);
    let period = crew.options.period_or_us(PERIOD_US);
    let path = hog_path(crew);
    let (owner, cpu_text) = (std::process::id().to_string(), cpu.to_string());
    let hold_text = format!("{}us", hold.as_micros());
    crew.process(&[
        "preemptor",
        "--cpu",
        &cpu_text,
        "--name",
        &owner,
        "--hold",
        &hold_text,
    ])?;
    let hog = UnixDatagram::unbound().context("a socket")?;
    hog.connect(&path)
        .with_context(|| format!("connecting to '{}'", path.display()))?;
    let file_path = crew
        .options
        .dir
        .join(format!("schedscope-requests-{owner}.data"));
    let mut file = File::create(&file_path)
        .with_context(|| format!("creating '{}'; see --dir", file_path.display()))?;
    // It lives as long as the descriptor.
    std::fs::remove_file(&file_path)
        .with_context(|| format!("removing '{}'", file_path.display()))?;
    let written = slow_for_the_disk(&mut file)?;
    let group = QuotaGroup::enter(QUOTA_PERCENT)?;
    let throttled_ns = Box::new(group.throttled_ns());
    crew.fact("quota_percent", QUOTA_PERCENT);
    crew.fact("written_bytes", written);
    crew.fact("one_in", ONE_IN);

    let lock = Lock {
        mutex: Arc::default(),
        is_held: Arc::default(),
    };
    let (ask_locker, asked) = UnixStream::pair().context("a socket pair")?;
    let (client, serving) = UnixStream::pair().context("a socket pair")?;
    add_locker(crew, asked, lock.clone(), hold)?;
    let server = Server {
        lock,
        ask_locker,
        hog,
        hold,
        file,
        written,
        throttled_ns,
    };
    add_server(crew, cpu, serving, server)?;
    add_client(crew, client, period)?;
    crew.at_end(move || group.leave());
    Ok(())
}

/// Takes the lock whenever it is asked to, for a time.
fn add_locker(crew: &mut Crew, mut asked: UnixStream, lock: Lock, hold: Duration) -> Result<()> {
    let body = move |meter: &mut Meter, _: &Stop| {
        loop {
            // The server closes its end when it is done.
            meter.wait(|| wait_to_read(&asked, None))?;
            if asked
                .read(&mut [0])
                .context("reading what the server asks")?
                == 0
            {
                break;
            }
            let guard = lock.mutex.lock().unwrap_or_else(PoisonError::into_inner);
            lock.is_held.store(true, Ordering::Release);
            meter.wait(|| thread::sleep(hold));
            lock.is_held.store(false, Ordering::Release);
            drop(guard);
        }
        Ok(())
    };
    crew.thread("locker", Expect::blocked("event-wait", "server"), body)?;
    Ok(())
}

/// Answers requests one after the other, and keeps the log of those that are stalled.
fn add_server(
    crew: &mut Crew,
    cpu: usize,
    mut requests: UnixStream,
    mut server: Server,
) -> Result<()> {
    let body = move |meter: &mut Meter, _: &Stop| {
        let mut log: Vec<Value> = Vec::new();
        let mut served: u64 = 0;
        let mut number = [0; size_of::<u64>()];
        // The client closes its end when the time is over.
        while meter.wait(|| requests.read_exact(&mut number)).is_ok() {
            burn_for(WORK);
            if let Some(kind) = Stall::of(u64::from_le_bytes(number)) {
                let start_unix_ns = unix_ns();
                let stalled = server.stall(kind)?;
                log.push(json!({
                    "kind": kind.name(),
                    "request": u64::from_le_bytes(number),
                    "start_unix_ns": start_unix_ns,
                    "end_unix_ns": unix_ns(),
                    "stalled_ns": nanos(stalled),
                }));
            }
            served += 1;
        }
        meter.fact("tid", own_tid());
        meter.fact("served", served);
        meter.fact("stalls", log);
        Ok(())
    };
    crew.thread_on(Some(cpu), "server", Expect::mixed(), body)?;
    Ok(())
}

/// Sends requests at their times, whether or not those before have been answered.
fn add_client(crew: &mut Crew, mut server: UnixStream, period: Duration) -> Result<()> {
    let body = move |meter: &mut Meter, stop: &Stop| {
        let start = Instant::now();
        let mut sent: u64 = 0;
        while !stop.due() {
            // A server that has failed says why itself.
            if server.write_all(&sent.to_le_bytes()).is_err() {
                break;
            }
            sent += 1;
            let due = period * u32::try_from(sent).context("too many requests")?;
            let early = due.saturating_sub(start.elapsed());
            if !early.is_zero() {
                meter.wait(|| thread::sleep(early));
            }
        }
        meter.fact("sent", sent);
        Ok(())
    };
    crew.thread("client", Expect::blocked("sleep", "timer"), body)?;
    Ok(())
}

/// A real-time thread that takes its CPU for a time whenever it is told to: the process beside the server.
pub(crate) fn preemptor(crew: &mut Crew) -> Result<()> {
    let path = hog_path(crew);
    // Left by one that was killed, if it is there.
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path)
        .with_context(|| format!("making the socket '{}'", path.display()))?;
    let hold = crew.options.hold_or(20);
    let cpu = crew.options.cpu_or_last()?;
    let body = move |meter: &mut Meter, stop: &Stop| {
        set_policy(libc::SCHED_FIFO, 1)?;
        while !stop.due() {
            if meter.wait(|| wait_to_read(&socket, Some(LOOK_EVERY)))? {
                socket
                    .recv(&mut [0])
                    .context("reading what the server says")?;
                burn_for(hold);
            }
        }
        Ok(())
    };
    crew.thread_on(Some(cpu), "hog", Expect::mixed(), body)?;
    crew.at_end(move || {
        std::fs::remove_file(&path).with_context(|| format!("removing '{}'", path.display()))?;
        Ok(serde_json::Map::new())
    });
    Ok(())
}

/// Changes the calling thread's scheduling: a real-time one runs before all that are not.
#[expect(unsafe_code, reason = "rustix has no form of sched_setscheduler")]
fn set_policy(policy: libc::c_int, sched_priority: libc::c_int) -> Result<()> {
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: the kernel reads the parameters, which live beyond the call.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Unavailable(format!(
            "no thread may be real-time here ({error}): that takes root, or CAP_SYS_NICE"
        ))
        .into());
    }
    Ok(())
}
