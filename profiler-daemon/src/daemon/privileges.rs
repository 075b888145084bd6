//! Gives up what the service needs no more once its probes are attached.
//!
//! Capabilities belong to threads, and a new thread has those of the one that starts it. So it is done in
//! both threads that there are by then, the one that drains and the first one, before others are started.

use std::fmt::Write as _;

use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};

/// What reading the kernel's figures may take. From Linux 5.19 on a process may use the BPF programs and
/// maps that it holds without any. Before, where `kernel.unprivileged_bpf_disabled` is set, `bpf(2)` asks
/// for `CAP_BPF` each time, and for `CAP_PERFMON` where tracing programs are concerned.
const FOR_READING: [CapabilitySet; 3] = [
    CapabilitySet::empty(),
    CapabilitySet::BPF,
    CapabilitySet::BPF.union(CapabilitySet::PERFMON),
];

/// Has this thread keep only the capabilities that are needed from here on, and returns them.
///
/// `still_works` tries what the service goes on doing. `costs_sampled` is whether the kernel is to count
/// what the probes cost now and then.
pub(super) fn give_up(
    costs_sampled: bool,
    mut still_works: impl FnMut() -> bool,
) -> Result<CapabilitySet, Errno> {
    let held = capabilities(None)?.permitted;
    let wanted = wanted(costs_sampled);
    for reading in FOR_READING {
        set(held, held & (wanted | reading))?;
        if still_works() {
            return keep(wanted | reading);
        }
    }
    // What does not work with all of them has another reason, and tells it when it is used.
    keep(FOR_READING.into_iter().fold(wanted, CapabilitySet::union))
}

/// Has this thread, and those that it starts, keep only these capabilities, and gives up the ways to get
/// others by starting a program. Returns those of them that are there.
pub(super) fn keep(these: CapabilitySet) -> Result<CapabilitySet, Errno> {
    let kept = capabilities(None)?.permitted & these;
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    set(kept, kept)?;
    Ok(kept)
}

/// What is kept if it is there, whatever reading takes.
fn wanted(costs_sampled: bool) -> CapabilitySet {
    let mut wanted = CapabilitySet::empty();
    // `BPF_ENABLE_STATS` needs it. It allows nearly everything, so the unit that comes with Schedscope
    // does without.
    if costs_sampled {
        wanted |= CapabilitySet::SYS_ADMIN;
    }
    // Names of containers and pods that start later are in directories that only root may enter. Root
    // needs nothing for that, and the unit does without unless the administrator adds it.
    if !geteuid().is_root() {
        wanted |= CapabilitySet::DAC_READ_SEARCH;
    }
    wanted
}

fn set(permitted: CapabilitySet, effective: CapabilitySet) -> Result<(), Errno> {
    set_capabilities(
        None,
        CapabilitySets {
            effective,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// `CAP_BPF, CAP_PERFMON`, or `none`.
pub(super) fn names(set: CapabilitySet) -> String {
    let mut text = String::new();
    for (name, _) in set.iter_names() {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string can't fail.
        let _ = write!(text, "{comma}CAP_{name}");
    }
    if text.is_empty() {
        text.push_str("none");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_their_usual_names() {
        let two = CapabilitySet::BPF | CapabilitySet::PERFMON;
        let named = names(two);
        let mut named: Vec<_> = named.split(", ").collect();
        named.sort_unstable();
        assert_eq!(named, ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(names(CapabilitySet::empty()), "none");
    }

    /// What is left in a thread, and in one that it starts, if what is tried works with this only.
    fn left(costs_sampled: bool, needed: CapabilitySet) -> [CapabilitySets; 2] {
        // In a thread of its own, so that the other tests keep what they have.
        let given_up = std::thread::spawn(move || {
            let works = || capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
            give_up(costs_sampled, works).expect("anybody may give up");
            let below = std::thread::spawn(|| capabilities(None).expect("anybody may look"));
            let below = below.join().expect("it does not panic");
            [capabilities(None).expect("anybody may look"), below]
        });
        given_up.join().expect("it does not panic")
    }

    #[test]
    fn a_thread_and_those_it_starts_keep_only_what_is_needed() {
        let held = capabilities(None).expect("anybody may look").permitted;
        let (bpf, perfmon) = (CapabilitySet::BPF, CapabilitySet::PERFMON);
        for needed in [CapabilitySet::empty(), bpf, bpf | perfmon] {
            for costs_sampled in [false, true] {
                for sets in left(costs_sampled, needed) {
                    let kept = held & (wanted(costs_sampled) | needed);
                    assert_eq!(sets.permitted, kept);
                    assert_eq!(sets.effective, kept);
                    assert!(sets.inheritable.is_empty(), "{sets:?}");
                }
            }
        }
    }
}
