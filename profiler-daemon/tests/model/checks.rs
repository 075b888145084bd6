//! What holds of figures whatever was lost.

use schedscope::core::{Snapshot, ThreadSnapshot};

use super::feed::Run;
use super::truth::{Distribution, Truth, View};
use super::{Machine, Task};

/// What no figure of a history with losses that were told of may exceed.
pub(crate) fn check_sound(run: &Run, snapshot: &Snapshot) {
    let machine = &run.machine;
    for thread in &snapshot.targets[0].threads {
        let Some(task) = task_of(machine, thread) else {
            continue;
        };
        let at_ns = thread.ended_ns.unwrap_or(snapshot.at_ns);
        let view = View {
            start_ns: run.start_ns,
            at_ns,
            admitted_ns: thread.observed_from_ns,
            is_wake_hidden: false,
        };
        let truth = machine.truth(task, view);
        let seen = Truth::from(&thread.account.figures);
        let at_most = |seen: u128, truth: u128, what: &str| {
            assert!(
                seen <= truth,
                "{what}: {seen} of {truth} ns\n{seen:?}\n{truth:?}\n{thread:?}"
            );
        };
        at_most(seen.time_ns[0], truth.time_ns[0], "running");
        at_most(seen.time_ns[1], truth.time_ns[1], "runnable");
        if thread.ended_ns.is_some() || machine.config.wakeups {
            at_most(seen.time_ns[2], truth.time_ns[2], "blocked");
            for (seen, truth) in seen.blocked_ns.iter().zip(truth.blocked_ns) {
                at_most(*seen, truth, "blocked in one state");
            }
        } else {
            // Open waits may have been woken, which only the next switch-in tells.
            let waiting = |truth: &Truth| truth.time_ns[1] + truth.time_ns[2];
            at_most(waiting(&seen), waiting(&truth), "waiting");
        }
        let stays = machine.stays(task, false);
        check_samples(&seen.runqueue_delay, &stays.queued_ns);
        check_samples(&seen.offcpu, &stays.offcpu_ns);
    }
}

/// Whom a row is about; `None` if the records don't say when that thread was born.
pub(crate) fn task_of(machine: &Machine, thread: &ThreadSnapshot) -> Option<Task> {
    let id = thread.identity;
    let task = machine
        .tasks
        .iter()
        .position(|task| (task.start_ns == id.start_ns && task.tid == id.tid) && id.start_ns != 0);
    assert!(task.is_some() || id.start_ns == 0, "nobody was {id:?}");
    task
}

/// Every sample is a wait that really was.
fn check_samples(seen: &Distribution, truth_ns: &[u64]) {
    let truth = Distribution::from(truth_ns);
    for &(end, count) in &seen.buckets {
        let real = truth
            .buckets
            .iter()
            .find(|bucket| bucket.0 == end)
            .map_or(0, |b| b.1);
        assert!(
            count <= real,
            "{count} samples of {end} ns, really {real} {seen:?} {truth_ns:?}"
        );
    }
    assert!(
        seen.count == 0 || truth_ns.contains(&seen.max_ns),
        "no wait of {} ns",
        seen.max_ns
    );
}
