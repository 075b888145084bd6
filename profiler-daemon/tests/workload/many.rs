//! Very many threads and processes, very short ones, and ones with hostile names: no workloads with a truth for
//! each thread, but what a user can do to a profiler.

use std::ffi::{CString, c_int, c_void};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use serde_json::{Value, json};

use crate::options::Options;
use crate::truth::thread_cpu_ns;

/// Processes of the bomb that may be there at once, so that it is none.
const MOST_CHILDREN: u64 = 64;

/// A stack that is enough for a thread that waits.
const STACK_BYTES: usize = 32 << 10;

/// Names that do harm where they are printed as they are. The kernel keeps 15 bytes.
const NAMES: [&[u8]; 12] = [
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    b"a\nb\rc\td",
    b"\"quote\\\"",
    b"'; DROP TABLE",
    b"</script><b>",
    b"<img src=x>&lt;",
    b"\xff\xfe\xc3(\x80",
    b"\xe2\x80\xaefdp.exe",
    b"{a=\"b\"} 1\n#",
    b"a;b c;d 1",
    b"fifteen-bytes-x",
];

/// Threads that all wait until the standard input ends.
pub(crate) fn crowd(options: &Options) -> Result<()> {
    let count = options.threads_or(1000);
    let gate = Arc::new(Barrier::new(count + 1));
    for _ in 0..count {
        let gate = Arc::clone(&gate);
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || gate.wait())
            .context("starting a thread")?;
    }
    tell(&json!({ "event": "ready", "threads": count }))?;
    wait_for_end()
}

/// Threads with the worst names that there are, until the standard input ends.
pub(crate) fn hostile() -> Result<()> {
    let gate = Arc::new(Barrier::new(NAMES.len() + 1));
    for name in NAMES {
        let gate = Arc::clone(&gate);
        let name = CString::new(name).context("a name has no NUL")?;
        thread::spawn(move || {
            let named = rustix::thread::set_name(&name);
            gate.wait();
            while named.is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
    }
    gate.wait();
    tell(&json!({ "event": "ready", "threads": NAMES.len() }))?;
    wait_for_end()
}

/// Threads that live for the hold time (50 us), one after the other, each computing.
pub(crate) fn brief(options: &Options) -> Result<()> {
    let life = options.hold_or(0).max(Duration::from_micros(50));
    let end = Instant::now() + options.duration;
    let cpu_ns = Arc::new(AtomicU64::new(0));
    let mut started: u64 = 0;
    while Instant::now() < end {
        let cpu_ns = Arc::clone(&cpu_ns);
        let short = thread::Builder::new()
            .name("brief".to_owned())
            .spawn(move || {
                let until = Instant::now() + life;
                while Instant::now() < until {}
                cpu_ns.fetch_add(thread_cpu_ns(), Ordering::Relaxed);
            });
        let joined = short.context("starting a thread")?.join();
        joined.map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        started += 1;
    }
    let cpu_ns = cpu_ns.load(Ordering::Relaxed);
    tell(&json!({ "event": "truth", "threads_started": started, "cpu_ns": cpu_ns }))
}

/// Processes that end at once, one each period (500 us), and never more than a few at a time.
pub(crate) fn bomb(options: &Options) -> Result<()> {
    let period = options.period_or(0).max(Duration::from_micros(100));
    let end = Instant::now() + options.duration;
    let mut stack = vec![0_u8; 64 << 10];
    let (mut forks, mut alive): (u64, u64) = (0, 0);
    let mut next = Instant::now();
    while Instant::now() < end {
        fork(&mut stack)?;
        (forks, alive) = (forks + 1, alive + 1);
        while alive > 0 && reap(alive >= MOST_CHILDREN)? {
            alive -= 1;
        }
        next += period;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    while alive > 0 && reap(true)? {
        alive -= 1;
    }
    tell(&json!({ "event": "truth", "forks": forks }))
}

/// Whether a child has ended, or does while this waits.
fn reap(waits: bool) -> Result<bool> {
    let options = if waits {
        WaitOptions::empty()
    } else {
        WaitOptions::NOHANG
    };
    match wait(options) {
        Ok(child) => Ok(child.is_some()),
        Err(Errno::CHILD) => Ok(false),
        Err(error) => Err(error).context("waiting for a child"),
    }
}

/// Ends at once.
extern "C" fn nothing(_: *mut c_void) -> c_int {
    0
}

/// A child that ends at once.
#[expect(unsafe_code, reason = "the quickest way to a child")]
fn fork(stack: &mut [u8]) -> Result<()> {
    let top = stack.as_mut_ptr_range().end;
    // The ABI wants 16 bytes.
    let top = top.wrapping_sub(top.addr() % 16).cast();
    // SAFETY: the child has a copy of all memory, and its function touches none of it.
    let pid = unsafe { libc::clone(nothing, top, libc::SIGCHLD, std::ptr::null_mut()) };
    anyhow::ensure!(pid > 0, "clone: {}", std::io::Error::last_os_error());
    Ok(())
}

fn wait_for_end() -> Result<()> {
    let mut rest = Vec::new();
    let ended = std::io::stdin().read_to_end(&mut rest);
    ended.map(drop).context("reading the standard input")
}

fn tell(what: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")
        .and_then(|()| out.flush())
        .context("writing")
}
