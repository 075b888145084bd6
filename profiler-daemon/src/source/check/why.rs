//! What this host has of what tells why threads wait. All of it is optional.

use profiler_ebpf::{config::ABSENT, why::programs};

use super::{Row, State, Topic, row};
use crate::source::{
    btf::{Btf, Kind},
    fields::Need,
    symbols::Symbols,
    why,
};

/// Name of the row on CPU quotas.
const QUOTAS: &str = "CPU quotas";

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
    row(Topic::Hook, QUOTAS, state, found).otherwise(Need::Throttling.consequence())
}

/// Says what could not be known before the probes were tried.
pub(super) fn settle(rows: &mut Vec<Row>) {
    let is_tried = rows
        .iter()
        .any(|row| row.topic == Topic::Trial && row.state == State::Ok);
    let is_refused = rows.iter().any(|row| row.name == why::THROTTLING);
    if !is_tried {
        return;
    }
    // What was refused has a row with the reason.
    rows.retain(|row| !(is_refused && row.name == QUOTAS));
    for row in rows.iter_mut().filter(|row| row.name == QUOTAS) {
        if row.state == State::Unknown {
            row.state = State::Ok;
            "told by functions of the kernel".clone_into(&mut row.found);
        }
    }
}

fn symbols() -> Row {
    let (state, found) = match Symbols::read() {
        Ok(symbols) => (State::Ok, format!("{} functions", symbols.len())),
        Err(error) => (State::Missing, error.to_string()),
    };
    row(Topic::Machinery, "names of kernel functions", state, found)
        .otherwise("kernel stacks can't be read: waits are told apart by system call and file only")
}

#[cfg(test)]
mod tests {
    use super::{QUOTAS, settle};
    use crate::source::check::{Row, State, Topic, row};
    use crate::source::why;

    /// What the row on quotas says once the probes were tried, and whether it is there.
    fn settled(trial: State, others: Vec<Row>) -> Option<State> {
        let mut rows = others;
        rows.push(row(Topic::Hook, QUOTAS, State::Unknown, "perhaps"));
        rows.push(row(Topic::Trial, "probes", trial, ""));
        settle(&mut rows);
        let quotas = rows.iter().find(|row| row.name == QUOTAS);
        quotas.map(|row| row.state)
    }

    #[test]
    fn trying_tells_whether_quotas_can_be_followed() {
        assert_eq!(settled(State::Ok, Vec::new()), Some(State::Ok));
        assert_eq!(settled(State::Missing, Vec::new()), Some(State::Unknown));
        let refused = row(Topic::Hook, why::THROTTLING, State::Missing, "EPERM");
        assert_eq!(settled(State::Ok, vec![refused]), None);
    }
}
