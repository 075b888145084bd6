//! A program with a known truth, to check the profiler against.
//!
//! Each workload does one thing to its threads, by their own stopwatches and the kernel's accounts;
//! `workload list` names them, [`options::Options`] says what it prints.

mod cgroup;
mod channels;
mod children;
mod cpu;
mod crew;
mod events;
mod locks;
mod many;
mod options;
mod requests;
mod storage;
mod switches;
mod truth;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use serde_json::json;

use crew::{Crew, Unavailable};
use options::Options;

/// Exit code of a workload that the host can't do.
const UNAVAILABLE: u8 = 77;

/// One workload.
struct Workload {
    name: &'static str,
    about: &'static str,
    set_up: fn(&mut Crew) -> Result<()>,
}

const fn row(
    name: &'static str,
    about: &'static str,
    set_up: fn(&mut Crew) -> Result<()>,
) -> Workload {
    Workload {
        name,
        about,
        set_up,
    }
}

/// All workloads, by theme.
#[rustfmt::skip]
const WORKLOADS: &[Workload] = &[
    row("spin", "spinners on one CPU", cpu::spin),
    row("yield", "threads that call sched_yield on one CPU", cpu::yielding),
    row("hog", "a spinning victim beside hogs of another process", cpu::hog),
    row("quota", "a spinner in a cgroup with a CPU quota (root)", cpu::quota),
    row("flood", "a spinning victim beside a thread that the network's softirqs interrupt", channels::flood),
    row("sleep-loop", "sleeps of 10 ms", locks::sleep_loop),
    row("mutex", "a futex mutex, held by a sleeper", locks::mutex),
    row("preempted-holder", "a futex mutex, held by a thread that a hog preempts", locks::preempted_holder),
    row("condvar", "a futex condition variable", locks::condvar),
    row("flock", "a file lock, held by a sleeper", locks::flock),
    row("descriptors", "threads that make and close descriptors of one table", locks::descriptors),
    row("epoll", "epoll_wait on an eventfd", events::epoll),
    row("poll", "poll on an eventfd", events::poll),
    row("select", "select on an eventfd", events::select),
    row("eventfd", "read of an eventfd", events::eventfd),
    row("timerfd", "read of a timerfd", events::timerfd),
    row("io-uring", "io_uring_enter that waits for a completion", events::io_uring),
    row("stuck", "one wait on a pipe for the whole time", events::stuck),
    row("pipe-read", "read of an empty pipe", channels::pipe_read),
    row("pipe-write", "write to a full pipe", channels::pipe_write),
    row("unix-socket", "recv from a Unix stream socket", channels::unix_socket),
    row("tcp-recv", "recv from a TCP connection", channels::tcp_recv),
    row("tcp-send", "send to a TCP connection that is full", channels::tcp_send),
    row("tcp-accept", "accept on a TCP socket", channels::tcp_accept),
    row("tty", "read of a pseudo terminal", channels::tty),
    row("disk-read", "O_DIRECT reads (--dir on a disk)", storage::disk_read),
    row("fsync", "fsync of small writes (--dir on a disk)", storage::fsync),
    row("page-fault", "touches pages of a file that are not cached (--dir on a disk)", storage::page_fault),
    row("userfaultfd", "touches pages that another thread provides", storage::userfaultfd),
    row("mmap-lock", "mprotect while another thread fills memory", storage::mmap_lock),
    row("waitpid", "waits for children", children::waitpid),
    row("vfork", "waits for vforked children", children::vfork),
    row("sigstop", "a process that is stopped and continued", children::sigstop),
    row("ptrace", "a process that a tracer stops", children::ptrace),
    row("fork-storm", "short-lived threads and processes", children::fork_storm),
    row("renames", "a thread that changes its name", children::renames),
    row("exec-from-thread", "exec by a thread that is not the first", children::exec_from_thread),
    row("pingpong", "pairs that pass a turn to and fro", switches::pingpong),
    row("requests", "a server of which one request in a thousand is stalled (root)", requests::requests),
    row("storm", "pairs that pass a turn on every CPU", switches::storm),
];

/// The process that takes the CPU from the server of `requests`; not a workload of its own.
const PREEMPTOR: Workload = row("preemptor", "", requests::preemptor);

/// The process that `sigstop` and `ptrace` stop; not a workload of its own.
const STOPPEE: Workload = row("stoppee", "", children::stoppee_body);

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Unavailable>() {
            Some(reason) => {
                println!(
                    "{}",
                    json!({ "event": "unavailable", "reason": reason.to_string() })
                );
                ExitCode::from(UNAVAILABLE)
            }
            None => {
                eprintln!("workload: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run(options: Options) -> Result<()> {
    match options.workload.as_str() {
        "list" => {
            for workload in WORKLOADS {
                println!("{:<18} {}", workload.name, workload.about);
            }
            return Ok(());
        }
        "doze" => {
            children::doze(options.duration);
            return Ok(());
        }
        "nothing" => {
            children::nothing();
            return Ok(());
        }
        "crowd" => return many::crowd(&options),
        "hostile" => return many::hostile(),
        "brief" => return many::brief(&options),
        "bomb" => return many::bomb(&options),
        "after-exec" => return children::after_exec(&Crew::new("after-exec", options)),
        _ => {}
    }
    let workload = WORKLOADS
        .iter()
        .chain([&STOPPEE, &PREEMPTOR])
        .find(|workload| workload.name == options.workload)
        .with_context(|| {
            format!(
                "there is no workload '{}'; 'workload list' prints them",
                options.workload
            )
        })?;
    let mut crew = Crew::new(workload.name, options);
    (workload.set_up)(&mut crew)?;
    crew.run()
}
