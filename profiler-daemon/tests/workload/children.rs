//! Processes and threads that come, go, stop, and change their names.

use std::ffi::{CString, c_int, c_void};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use rustix::time::ClockId;

use crate::cpu::burn_until_due;
use crate::crew::{Crew, Process, own_program, own_tid, pin, say};
use crate::truth::{Expect, Meter, nanos};

/// A child that lives for some time, waited for by its parent.
pub(crate) fn waitpid(crew: &mut Crew) -> Result<()> {
    let life = crew.options.hold_or(250);
    crew.thread(
        "parent",
        Expect::blocked("child-wait", "child"),
        move |meter, stop| {
            while !stop.due() {
                let mut child = own_program()?
                    .arg("doze")
                    .arg("--duration")
                    .arg(format!("{}us", life.as_micros()))
                    .spawn()
                    .context("starting the child")?;
                let status = meter
                    .wait(|| child.wait())
                    .context("waiting for the child")?;
                ensure!(status.success(), "the child failed: {status}");
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// Sleeps once, without any output: the child of `waitpid`.
pub(crate) fn doze(duration: Duration) {
    thread::sleep(duration);
}

/// Ends at once: the child of `fork-storm`.
pub(crate) fn nothing() {}

/// How long the child of `vfork` keeps its parent, in milliseconds; the child reads it from here,
/// since it may not touch anything else.
static VFORK_HOLD_MS: AtomicI32 = AtomicI32::new(0);

/// What the vforked child does: it waits, and ends.
extern "C" fn vforked(_: *mut c_void) -> c_int {
    let millis = VFORK_HOLD_MS.load(Ordering::Relaxed);
    #[expect(
        unsafe_code,
        reason = "the child shares its parent's memory; only plain system calls are safe"
    )]
    // SAFETY: poll of no descriptors, with a timeout, touches no memory but the stack and `errno`.
    unsafe {
        libc::poll(std::ptr::null_mut(), 0, millis)
    };
    0
}

/// A parent that is held by its child until that has ended (`CLONE_VFORK`, as `vfork` and
/// `posix_spawn` do it).
pub(crate) fn vfork(crew: &mut Crew) -> Result<()> {
    let hold = crew.options.hold_or(20);
    VFORK_HOLD_MS.store(i32::try_from(hold.as_millis())?, Ordering::Relaxed);
    crew.thread(
        "parent",
        Expect::blocked("child-wait", "child"),
        move |meter, stop| {
            let mut stack = vec![0_u8; 64 << 10];
            while !stop.due() {
                let pid = meter.wait(|| clone_vfork(&mut stack));
                let pid = Pid::from_raw(pid)
                    .with_context(|| format!("clone: {}", std::io::Error::last_os_error()))?;
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
                    .context("waitpid")?;
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// Runs [`vforked`] on the given stack in a child that shares this process's memory; the child's id,
/// or -1. Returns when the child has ended.
#[expect(unsafe_code, reason = "only the raw call shows the parent's wait")]
fn clone_vfork(stack: &mut [u8]) -> i32 {
    let top = stack.as_mut_ptr_range().end;
    // The ABI wants 16 bytes.
    let top = top.wrapping_sub(top.addr() % 16).cast();
    let flags = libc::CLONE_VFORK | libc::CLONE_VM | libc::SIGCHLD;
    // SAFETY: the stack is the child's alone while this thread is suspended, and the function uses
    // little of it; the function makes one system call and returns, which ends the child.
    unsafe { libc::clone(vforked, top, flags, std::ptr::null_mut()) }
}

/// A process that is stopped (SIGSTOP) and continued (SIGCONT), and computes in between.
pub(crate) fn sigstop(crew: &mut Crew) -> Result<()> {
    let (hold, period) = (crew.options.hold_or(50), crew.options.period_or(50));
    let pid = stoppee(crew)?.pid;
    crew.thread("stopper", Expect::mixed(), move |meter, stop| {
        while !stop.due() {
            thread::sleep(period);
            rustix::process::kill_process(pid, Signal::STOP).context("SIGSTOP")?;
            rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED)
                .context("waiting for the stop")?;
            let start = Instant::now();
            thread::sleep(hold);
            rustix::process::kill_process(pid, Signal::CONT).context("SIGCONT")?;
            meter.waited(start.elapsed());
        }
        Ok(())
    })?;
    Ok(())
}

/// A process that a tracer stops (`PTRACE_INTERRUPT`) and lets go on, and that computes in between.
pub(crate) fn ptrace(crew: &mut Crew) -> Result<()> {
    let (hold, period) = (crew.options.hold_or(50), crew.options.period_or(50));
    // A tracer holds a thread, not a process.
    let tid = stoppee(crew)?.tid;
    let raw = tid.as_raw_nonzero().get();
    crew.thread("tracer", Expect::mixed(), move |meter, stop| {
        trace(libc::PTRACE_SEIZE, raw).context("PTRACE_SEIZE")?;
        while !stop.due() {
            thread::sleep(period);
            trace(libc::PTRACE_INTERRUPT, raw).context("PTRACE_INTERRUPT")?;
            let stopped = rustix::process::waitid(WaitId::Pid(tid), WaitIdOptions::STOPPED);
            stopped.context("waiting for the stop")?;
            let start = Instant::now();
            thread::sleep(hold);
            trace(libc::PTRACE_CONT, raw).context("PTRACE_CONT")?;
            meter.waited(start.elapsed());
        }
        // The tracer's end lets the process go.
        Ok(())
    })?;
    Ok(())
}

/// One ptrace request without address or data.
fn trace(request: libc::c_uint, pid: i32) -> std::io::Result<()> {
    let none = std::ptr::null_mut::<c_void>();
    #[expect(unsafe_code, reason = "ptrace has no safe form")]
    // SAFETY: these requests ignore the address, and take the data as a number: no option, no signal.
    let result = unsafe { libc::ptrace(request, pid, none, none) };
    if result == -1 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// The process that is stopped: it computes, and takes each gap of more than a millisecond in its
/// own time for a wait (so its own figure has preemptions in it; the exact time is the stopper's).
/// It has one named thread, on the crew's CPU.
fn stoppee(crew: &mut Crew) -> Result<Process> {
    let cpu = crew.options.cpu_or_last()?.to_string();
    crew.process(&["stoppee", "--cpu", &cpu])
}

/// See [`stoppee`].
pub(crate) fn stoppee_body(crew: &mut Crew) -> Result<()> {
    let expect = Expect::blocked("stopped", "stopper");
    crew.thread("stoppee", expect, |meter, stop| {
        let mut last = Instant::now();
        while !stop.due() {
            let now = Instant::now();
            let gap = now - last;
            if gap > Duration::from_millis(1) {
                meter.waited(gap);
            }
            last = now;
        }
        Ok(())
    })?;
    Ok(())
}

/// Short-lived threads and processes, one of each per period.
pub(crate) fn fork_storm(crew: &mut Crew) -> Result<()> {
    let period = crew.options.period_or(1);
    crew.thread("forker", Expect::mixed(), move |meter, stop| {
        let (mut threads, mut processes): (u64, u64) = (0, 0);
        while !stop.due() {
            thread::Builder::new()
                .name("short-thread".to_owned())
                .spawn(|| ())
                .context("starting a thread")?
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            threads += 1;
            let status = own_program()?
                .arg("nothing")
                .stdin(Stdio::null())
                .status()
                .context("starting a process")?;
            ensure!(status.success(), "the process failed: {status}");
            processes += 1;
            meter.wait(|| thread::sleep(period));
        }
        meter.fact("threads_started", threads);
        meter.fact("processes_started", processes);
        Ok(())
    })?;
    Ok(())
}

/// A thread that takes a new name each period: `renamed-1`, `renamed-2`, and so on.
pub(crate) fn renames(crew: &mut Crew) -> Result<()> {
    let period = crew.options.period_or(10);
    crew.thread(
        "renamer",
        Expect::blocked("sleep", "timer"),
        move |meter, stop| {
            let mut count: u64 = 0;
            let mut name = String::from("renamer");
            while !stop.due() {
                meter.wait(|| thread::sleep(period));
                count += 1;
                name = format!("renamed-{count}");
                rustix::thread::set_name(&CString::new(name.as_str())?)
                    .context("naming a thread")?;
            }
            meter.fact("renames", count);
            meter.fact("last_name", name);
            Ok(())
        },
    )?;
    Ok(())
}

/// A thread other than the first one runs another program half-way: this one, as `after-exec`. The
/// thread gets the process's id then, and all other threads end.
pub(crate) fn exec_from_thread(crew: &mut Crew) -> Result<()> {
    let half = crew.options.duration / 2;
    let cpu = crew.options.cpu;
    crew.options.duration *= 2;
    crew.thread("execer", Expect::mixed(), move |_: &mut Meter, _| {
        thread::sleep(half);
        let mut program = own_program()?;
        program
            .arg("after-exec")
            .arg("--duration")
            .arg(format!("{}us", half.as_micros()))
            .arg("--name")
            .arg(own_tid().to_string());
        if let Some(cpu) = cpu {
            program.arg("--cpu").arg(cpu.to_string());
        }
        Err(program.exec()).context("exec")
    })?;
    crew.thread("bystander", Expect::mixed(), move |_: &mut Meter, stop| {
        burn_until_due(stop);
        Ok(())
    })?;
    Ok(())
}

/// What runs after the exec: the process's only thread computes and sleeps by halves. Its truth has
/// the id that it had before.
pub(crate) fn after_exec(crew: &Crew) -> Result<()> {
    if let Some(cpu) = crew.options.cpu {
        pin(cpu)?;
    }
    rustix::thread::set_name(c"after-exec").context("naming the thread")?;
    let mut meter = Meter::start("after-exec", Expect::blocked("sleep", "timer"))?;
    let start = Instant::now();
    while start.elapsed() < crew.options.duration {
        meter.wait(|| thread::sleep(Duration::from_millis(10)));
    }
    let before: Option<u32> = crew
        .options
        .name
        .as_deref()
        .and_then(|tid| tid.parse().ok());
    meter.fact("tid_before_exec", before);
    // CPU time is the thread's, and does not start anew with the program.
    let cpu = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    meter.fact("cpu_ns_since_birth", nanos(Duration::try_from(cpu)?));
    let pid = std::process::id();
    let truth = serde_json::to_value(meter.finish()?)?;
    say(&serde_json::json!({
        "event": "truth", "workload": "exec-from-thread", "pid": pid, "threads": [truth], "facts": {},
    }))
}
