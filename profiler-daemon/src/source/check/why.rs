//! What this host has of what tells why threads wait. All of it is optional.

use profiler_ebpf::{config::ABSENT, why::programs};

use super::{Row, State, Topic, row};
use crate::source::{
    btf::{Btf, Kind},
    fields::Need,
    symbols::Symbols,
    why,
};

/// Hooks and functions, and the kernel's symbols.
pub(super) fn rows(btf: &Btf) -> Vec<Row> {
    let tracepoint = |name: &str, consequence: &str| {
        let is_there = btf.tracepoint_parameters(name).is_some();
        let (state, found) = presence(is_there);
        row(Topic::Hook, &format!("tracepoint {name}"), state, found).otherwise(consequence)
    };
    let interrupts = "a wakeup in such an interrupt is taken for one by the thread it interrupted";
    let mut rows = vec![
        tracepoint(
            programs::SCHED_WAKING,
            "who wakes a thread is not known, nor what long waits were spent in",
        ),
        tracepoint(
            programs::SCHED_MIGRATE_TASK,
            "a thread that changes run queues while it waits is seen only when it runs",
        ),
        tracepoint(
            programs::CGROUP_ATTACH_TASK,
            "a thread that goes to another cgroup is taken to be in its first one",
        ),
    ];
    rows.extend(
        programs::CONTEXTS[..programs::COMMON_CONTEXTS]
            .iter()
            .map(|(entry, _)| tracepoint(entry, interrupts)),
    );
    let (state, found) = presence(btf.find("bpf_get_task_stack", Kind::Func).is_some());
    rows.push(
        row(Topic::Machinery, "stacks of waiting threads", state, found)
            .otherwise("waits are told apart by system call and file only"),
    );
    rows.push(throttling(btf));
    rows.push(symbols());
    rows
}

fn presence(is_there: bool) -> (State, &'static str) {
    if is_there {
        (State::Ok, "there")
    } else {
        (State::Missing, "not there")
    }
}

fn throttling(btf: &Btf) -> Row {
    let (config, _) = why::survey(btf);
    let functions = [programs::TG_THROTTLE_DOWN, programs::TG_UNTHROTTLE_UP];
    let (state, found) = if config.task_throttled != ABSENT {
        (State::Ok, "told by each thread")
    } else if functions
        .iter()
        .all(|name| btf.find(name, Kind::Func).is_some())
    {
        // Whether they can be attached to shows only when it is tried.
        (
            State::Unknown,
            "told by functions of the kernel, if it lets them be hooked",
        )
    } else {
        (State::Missing, "not told")
    };
    row(Topic::Hook, "CPU quotas", state, found).otherwise(Need::Throttling.consequence())
}

fn symbols() -> Row {
    let (state, found) = match Symbols::read() {
        Ok(symbols) => (State::Ok, format!("{} functions", symbols.len())),
        Err(error) => (State::Missing, error.to_string()),
    };
    row(Topic::Machinery, "names of kernel functions", state, found)
        .otherwise("kernel stacks can't be read: waits are told apart by system call and file only")
}
