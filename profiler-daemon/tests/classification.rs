//! `docs/classification.md` says what the rules say: its tables are made from them.

mod common;
mod support;

use std::fmt::Write as _;

use schedscope::core::classify::{Call, Evidence, FileKind, classify, symbols, syscalls};
use schedscope::core::{Cause, Origin, Reason, WaitState, WakerKind};
use support::expect_file;

/// Relative to the package.
const PAGE: &str = "../docs/classification.md";

/// Programs of the workload suite that wait so.
const fn programs(reason: Reason) -> &'static [&'static str] {
    match reason {
        Reason::Lock => &["mutex", "condvar", "flock", "preempted-holder"],
        Reason::EventWait => &["epoll", "poll", "select", "eventfd"],
        Reason::Sleep => &["sleep-loop", "timerfd"],
        Reason::DiskIo => &["disk-read"],
        Reason::FsSync => &["fsync"],
        Reason::NetRecv => &["tcp-recv"],
        Reason::NetSend => &["tcp-send"],
        Reason::NetAccept => &["tcp-accept"],
        Reason::Pipe => &["pipe-read", "pipe-write", "stuck"],
        Reason::UnixSocket => &["unix-socket"],
        Reason::Tty => &["tty"],
        Reason::PageFault => &["page-fault", "userfaultfd"],
        Reason::KernelLock => &["mmap-lock"],
        Reason::ChildWait => &["waitpid", "vfork"],
        Reason::Stopped => &["sigstop", "ptrace"],
        Reason::IoUring => &["io-uring"],
        Reason::NetConnect
        | Reason::MemoryReclaim
        | Reason::KthreadIdle
        | Reason::Exit
        | Reason::Other
        | Reason::Unknown => &[],
    }
}

/// How to see a reason that no program of the suite is for.
const fn recipe(reason: Reason) -> &'static str {
    match reason {
        Reason::NetConnect => "a `connect` to a listener whose backlog is full",
        Reason::MemoryReclaim => "a program that fills its cgroup up to `memory.high`",
        Reason::KthreadIdle => "`kthreadd`, `kswapd0`: any host has them",
        Reason::Exit => "a process with many threads that ends while one of them dumps core",
        Reason::Other => "a pipe that is written every 300 µs: waits below `--stacks`",
        Reason::Unknown => "a kernel thread that waits for another one",
        _ => "",
    }
}

fn code<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names = names.into_iter().map(|name| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

fn reasons() -> String {
    let mut table = "| reason | idle | waits for | program |\n|---|---|---|---|\n".to_owned();
    for reason in Reason::all() {
        let program = match programs(reason) {
            [] => recipe(reason).to_owned(),
            names => code(names.iter().copied()),
        };
        assert!(!program.is_empty(), "{} has no program", reason.name());
        let idle = if reason.is_idle() { "idle" } else { "" };
        let (name, meaning) = (reason.name(), reason.doc().meaning);
        writeln!(table, "| `{name}` | {idle} | {meaning} | {program} |").expect("a string");
    }
    table
}

fn calls() -> String {
    let mut table = "| calls | on | reason |\n|---|---|---|\n".to_owned();
    for rule in syscalls::RULES {
        let file = rule.file.map_or("any", FileKind::name);
        let (calls, reason) = (code(rule.calls.iter().copied()), rule.reason.name());
        writeln!(table, "| {calls} | {file} | `{reason}` |").expect("a string");
    }
    table
}

/// Rules that follow each other and say the same are one row.
fn functions() -> String {
    let mut table = "| functions | reason |\n|---|---|\n".to_owned();
    let same =
        |a: &symbols::Rule, b: &symbols::Rule| (a.reason, a.innermost) == (b.reason, b.innermost);
    for rules in symbols::RULES.chunk_by(same) {
        let names = code(rules.iter().map(|rule| rule.symbol));
        let itself = if rules[0].innermost { " itself" } else { "" };
        writeln!(table, "| {names}{itself} | `{}` |", rules[0].reason.name()).expect("a string");
    }
    table
}

const NOTHING: Evidence = Evidence {
    state: WaitState::Sleeping,
    iowait: false,
    kthread: false,
    call: Call::None,
    file: FileKind::NotKnown,
    symbol: None,
};

/// Examples that differ from the one above by what decides.
fn strength() -> String {
    let mut table =
        "| thread | state | call | file | in_iowait | function | reason | decided by |\n\
         |---|---|---|---|---|---|---|---|\n"
            .to_owned();
    let read = Call::named("read").expect("a call of every architecture");
    let ioctl = Call::named("ioctl").expect("a call of every architecture");
    let fsync = Call::named("fsync").expect("a call of every architecture");
    let futex = Call::named("futex").expect("a call of every architecture");
    let device = Evidence {
        state: WaitState::Uninterruptible,
        iowait: true,
        ..NOTHING
    };
    let of_kernel = Evidence {
        kthread: true,
        ..NOTHING
    };
    let examples = [
        (
            "handle_userfault",
            with(read, FileKind::Pipe, WaitState::Stopped),
        ),
        (
            "futex_wait_setup",
            with(futex, FileKind::NotKnown, WaitState::RtLock),
        ),
        (
            "handle_userfault",
            with(read, FileKind::Pipe, WaitState::Sleeping),
        ),
        (
            "io_schedule",
            Evidence {
                call: fsync,
                ..device
            },
        ),
        ("", with(futex, FileKind::NotKnown, WaitState::Sleeping)),
        ("", with(read, FileKind::Pipe, WaitState::Sleeping)),
        (
            "",
            Evidence {
                call: ioctl,
                ..device
            },
        ),
        ("", device),
        (
            "",
            Evidence {
                kthread: true,
                ..device
            },
        ),
        ("", with(read, FileKind::NotKnown, WaitState::Sleeping)),
        (
            "",
            Evidence {
                state: WaitState::Idle,
                ..of_kernel
            },
        ),
        ("", of_kernel),
        (
            "",
            Evidence {
                state: WaitState::Uninterruptible,
                ..of_kernel
            },
        ),
    ];
    for (function, evidence) in examples {
        let stack = (!function.is_empty()).then_some(function);
        let symbol = stack.and_then(|function| symbols::find(&["schedule", function]));
        let wait = classify(&Evidence { symbol, ..evidence });
        let thread = if evidence.kthread { "kernel" } else { "user" };
        let iowait = if evidence.iowait { "yes" } else { "" };
        let call = if evidence.kthread {
            String::new()
        } else {
            evidence.call.name()
        };
        let file = match evidence.file {
            FileKind::NotKnown => "",
            file => file.name(),
        };
        let function = stack.map_or(String::new(), |function| format!("`{function}`"));
        writeln!(
            table,
            "| {thread} | {} | {call} | {file} | {iowait} | {function} | `{}` | {} |",
            evidence.state.name(),
            wait.name(),
            wait.explain()
        )
        .expect("a string");
    }
    table
}

fn with(call: Call, file: FileKind, state: WaitState) -> Evidence {
    Evidence {
        call,
        file,
        state,
        ..NOTHING
    }
}

fn meanings(head: &str, rows: impl IntoIterator<Item = (&'static str, &'static str)>) -> String {
    let mut table = format!("| {head} | meaning |\n|---|---|\n");
    for (name, meaning) in rows {
        writeln!(table, "| `{name}` | {meaning} |").expect("a string");
    }
    table
}

fn causes() -> String {
    let meaning = |cause| match cause {
        Cause::Contended => "another thread had that CPU: a culprit is charged",
        Cause::Throttled => {
            "the CPU quota of its cgroup, or of one above it, was used up; as long as the kernel says \
             ([how](decisions/0002-throttling.md))"
        }
        Cause::Placement => {
            "that CPU was idle: waking from idle, the interrupt that tells it, the choice of a CPU"
        }
        Cause::Unknown => {
            "records of that CPU were lost, or the CPU is not known, or it is too long ago"
        }
    };
    meanings(
        "cause",
        Cause::ALL.map(|cause| (cause.name(), meaning(cause))),
    )
}

fn origins() -> String {
    let meaning = |origin| match origin {
        Origin::Woken => "a wait was over",
        Origin::Preempted => {
            "it lost the CPU while it still wanted to run, to another thread or a quota"
        }
        Origin::Yielded => "it gave the CPU away (`sched_yield`)",
        Origin::Forked => "it was born",
        Origin::Found => "it was queued already when the window began, or when it was found",
    };
    meanings(
        "origin",
        Origin::ALL.map(|origin| (origin.name(), meaning(origin))),
    )
}

fn wakers() -> String {
    use WakerKind::{Block, Ipi, Irq, Network, Thread, Timer, Unknown};
    let meaning = |kind| match kind {
        Thread => "a thread, by its id and name",
        Timer => "a timer that ran out: a sleep, a timeout",
        Network => "the network softirqs: a packet came in, or one was sent",
        Block => "the block softirq: a device has done its work",
        Ipi => "an interrupt by another CPU, which is how one CPU wakes threads for another",
        Irq => "another interrupt, by its number in /proc/interrupts where that is known",
        Unknown => "nobody saw it: wakers are not recorded (`--wakers`), or its record was lost",
    };
    let kinds = [Thread, Timer, Network, Block, Ipi, Irq, Unknown];
    meanings("waker", kinds.map(|kind| (kind.name(), meaning(kind))))
}

/// The page with the part between the marks of a table replaced.
fn fill(page: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- begin: {name} -->\n");
    let end = "<!-- end -->";
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("'{begin}' expected in {PAGE}"));
    let (_, after) = rest
        .split_once(end)
        .unwrap_or_else(|| panic!("'{end}' expected after '{begin}' in {PAGE}"));
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn the_documentation_says_what_the_rules_say() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let mut page = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (name, table) in [
        ("reasons", reasons()),
        ("strength", strength()),
        ("calls", calls()),
        ("functions", functions()),
        ("causes", causes()),
        ("origins", origins()),
        ("wakers", wakers()),
    ] {
        page = fill(&page, name, &table);
    }
    expect_file(PAGE, &page);
}

#[test]
fn the_programs_are_in_the_workload_suite() {
    let listed = common::workloads();
    for program in Reason::all().flat_map(programs) {
        let is_listed = listed.iter().any(|name| name == program);
        assert!(is_listed, "'{program}' is no workload");
    }
}
