//! What a service manager gets to know of the service, and what the service keeps for itself.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::common::Workload;
use crate::common::schedscope::{may_load_probes, programs_of, scratch_file};
use crate::common::service::Service;

/// Longest time until something is told that will be told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a service tells its news; the test plays the manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new() -> Self {
        let path = scratch_file("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket in the scratch directory");
        Self { socket, path }
    }

    /// Starts a service that is to give a sign of life at least so often.
    fn start(&self, watchdog: Option<Duration>, arguments: &[&str]) -> Service {
        let path = self.path.to_str().expect("a path in UTF-8");
        let limit = watchdog.map(|limit| limit.as_micros().to_string());
        let limit = limit.as_deref().map(|limit| ("WATCHDOG_USEC", limit));
        let environment = [("NOTIFY_SOCKET", path)].into_iter().chain(limit);
        Service::start_with(environment, arguments)
    }

    /// The next news, if there are some in this time.
    fn next(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        let within = within.max(Duration::from_millis(1));
        self.socket
            .set_read_timeout(Some(within))
            .expect("not zero");
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// News until some have this line; all of them.
    #[track_caller]
    fn until(&self, line: &str) -> Vec<String> {
        let start = Instant::now();
        let mut all = Vec::new();
        while let Some(news) = self.next(PATIENCE.saturating_sub(start.elapsed())) {
            let found = has(&news, line);
            all.push(news);
            if found {
                return all;
            }
        }
        panic!("'{line}' was not told: {all:?}")
    }

    /// All news of this time.
    fn during(&self, time: Duration) -> Vec<String> {
        let start = Instant::now();
        std::iter::from_fn(|| self.next(time.checked_sub(start.elapsed())?)).collect()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // A file left behind harms nothing.
        let _ = fs::remove_file(&self.path);
    }
}

fn has(news: &str, line: &str) -> bool {
    news.lines().any(|its| its.starts_with(line))
}

#[test]
fn the_manager_is_told_of_the_start_of_reloads_and_of_the_end() {
    if !may_load_probes("the_manager_is_told_of_the_start_of_reloads_and_of_the_end") {
        return;
    }
    let manager = Manager::new();
    let file = scratch_file("reload.toml");
    fs::write(&file, "").expect("the configuration is written");
    let path = file.to_str().expect("a path in UTF-8");
    let service = manager.start(None, &["--config", path]);
    assert_eq!(manager.until("READY=1").len(), 1, "nothing before it");
    assert!(programs_of(service.pid()).len() >= 2);

    // Whether the new configuration is taken or refused, the reload has an end.
    for text in ["[drain]\nmax_interval = \"100ms\"\n", "no = \"such key\"\n"] {
        fs::write(&file, text).expect("the configuration is written");
        let before = monotonic_us();
        service.signal(Signal::HUP);
        let news = manager.until("RELOADING=1").pop().unwrap_or_default();
        let when = news
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("a time in {news:?}"));
        assert!((before..=monotonic_us()).contains(&when), "{news:?}");
        manager.until("READY=1");
    }

    service.signal(Signal::TERM);
    manager.until("STOPPING=1");
    service.finish(PATIENCE).expect_code(0);
    fs::remove_file(&file).expect("the scratch file goes away");
}

fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let number = |part: i64| u64::try_from(part).expect("not negative");
    number(now.tv_sec) * 1_000_000 + number(now.tv_nsec) / 1_000
}

/// The server goes on answering, so that whoever only looked whether it does would be fooled.
#[test]
fn a_stuck_drain_thread_gives_no_sign_of_life() {
    const LIMIT: Duration = Duration::from_secs(2);
    if !may_load_probes("a_stuck_drain_thread_gives_no_sign_of_life") {
        return;
    }
    let manager = Manager::new();
    let service = manager.start(Some(LIMIT), &[]);
    manager.until("WATCHDOG=1");
    let news = manager.during(LIMIT);
    let signs = news.iter().filter(|news| has(news, "WATCHDOG=1")).count();
    assert!(signs >= 2, "{signs} signs of life in {LIMIT:?}: {news:?}");
    assert!(
        news.iter().any(|news| has(news, "STATUS=Watching ")),
        "{news:?}"
    );

    let drain = thread_named(service.pid(), "drain");
    let stopped = Stopped::stop(drain);
    // A sign that was on its way may still come.
    manager.during(LIMIT / 4);
    let news = manager.during(LIMIT);
    assert!(!news.iter().any(|news| has(news, "WATCHDOG=1")), "{news:?}");
    let stuck = "STATUS=The drain thread has not answered for ";
    assert!(news.iter().any(|news| has(news, stuck)), "{news:?}");
    assert_eq!(service.get("/", "").status, 200, "the server lives");

    drop(stopped);
    manager.until("WATCHDOG=1");
}

/// Number of the thread of this name.
fn thread_named(pid: u32, name: &str) -> i32 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    tasks
        .map(|task| task.expect("a thread").path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
        .and_then(|task| task.file_name()?.to_str()?.parse().ok())
        .unwrap_or_else(|| panic!("{pid} has no thread '{name}'"))
}

/// One thread that a tracer keeps from running, while the others go on; SIGSTOP would stop them all.
struct Stopped(i32);

impl Stopped {
    fn stop(tid: i32) -> Self {
        trace(libc::PTRACE_SEIZE, tid);
        trace(libc::PTRACE_INTERRUPT, tid);
        // It can be let go only once it has stopped.
        let stat = format!("/proc/{tid}/stat");
        let start = Instant::now();
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") t ")) {
            assert!(start.elapsed() < PATIENCE, "the thread does not stop");
            thread::sleep(Duration::from_millis(5));
        }
        Self(tid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        trace(libc::PTRACE_DETACH, self.0);
    }
}

fn trace(request: libc::c_uint, tid: i32) {
    let none = std::ptr::null_mut::<libc::c_void>();
    #[expect(unsafe_code, reason = "ptrace has no safe form")]
    // SAFETY: These requests read and write no memory of this process.
    let result = unsafe { libc::ptrace(request, tid, none, none) };
    let error = std::io::Error::last_os_error();
    assert_eq!(result, 0, "ptrace request {request}: {error}");
}

/// What may be kept here: nothing, but on kernels that ask at each use of a program or a map, which are
/// those before 5.19, `CAP_PERFMON` and `CAP_BPF` (include/uapi/linux/capability.h).
fn may_be_kept() -> u64 {
    let release = schedscope::source::kernel_release();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    if version >= (Some(5), Some(19)) {
        0
    } else {
        1 << 38 | 1 << 39
    }
}

#[test]
fn all_threads_keep_only_the_capabilities_that_are_still_needed() {
    if !may_load_probes("all_threads_keep_only_the_capabilities_that_are_still_needed") {
        return;
    }
    // Rings so small that records are lost, since all threads are read again then.
    let service = Service::start(["--stats-interval", "0s", "--ring-records", "64"]);
    let storm = Workload::start("storm", &["--duration", "20s"]).expect("no special needs");
    let dropped = "schedscope_events_dropped_total";
    service.scrape_until(|samples| samples.sum(dropped, "kind=\"switch\"") > 0.0);
    // They are read when no more is being lost.
    drop(storm);
    service.scrape_until(|samples| samples.value("schedscope_resyncs_total") > 0.0);

    let tasks = fs::read_dir(format!("/proc/{}/task", service.pid())).expect("it runs");
    let mut threads = 0;
    for task in tasks {
        let status = task.expect("a thread").path().join("status");
        let status = fs::read_to_string(status).expect("the thread is there");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
            number.unwrap_or_else(|| panic!("{name} in {status}"))
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set) & !may_be_kept(), 0, "{set} {status}");
        }
        assert_eq!(field("NoNewPrivs:"), 1, "{status}");
        threads += 1;
    }
    assert!(threads >= 3, "{threads} threads");
    let drain = thread_named(service.pid(), "drain");
    let stat = fs::read_to_string(format!("/proc/{drain}/stat")).expect("the thread is there");
    // The nineteenth field; two are before the name's end (proc(5)).
    let nice = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(16))
        .expect("a nice value");
    assert_eq!(nice, "-20", "it may still raise its own priority");
}
