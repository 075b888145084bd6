//! From flags and configuration to the source's settings, and from its errors to exit codes.

use std::time::Duration;

use super::config::{self, Config, DEFAULT_STACKS, ProbeFlags, Stacks};
use crate::exit::{Exit, Failure};
use crate::source::{ClockChoice, Options, StartError, StartFailure, pids};

/// Settings for measuring by hand: wakeups are recorded unless told otherwise, so that a thread that
/// waits for a CPU right now shows as such.
pub(super) fn for_attach(flags: &ProbeFlags, user_stacks: bool) -> Options {
    let default = Options::default();
    Options {
        ring_records: flags.ring_records.unwrap_or_else(attach_ring_records),
        wakeups: flags.wakeups.unwrap_or(true),
        clock: flags.clock.map_or(default.clock, clock),
        syscalls: flags.reasons.unwrap_or(true),
        throttling: flags.reasons.unwrap_or(true),
        wakers: flags.wakers.unwrap_or(true),
        stacks: nanoseconds(flags.stacks.map_or(Some(DEFAULT_STACKS), |Stacks(its)| its)),
        user_stacks,
    }
}

/// What is measured by hand is often a storm, with wakeups in its records, on CPUs that all want to run
/// something else than the drain thread: rings for a sixth of a second of the fastest switching known (1.5
/// million records a second and CPU), unless there are so many CPUs that it adds up.
fn attach_ring_records() -> u32 {
    const MOST: u32 = 1 << 18;
    /// Records in all rings together: 64 MiB.
    const ALL: u32 = 1 << 21;
    let default = Options::default().ring_records;
    let cpus = aya::util::nr_cpus()
        .ok()
        .and_then(|cpus| u32::try_from(cpus).ok());
    let each = cpus
        .and_then(|cpus| ALL.checked_div(cpus))
        .unwrap_or(default);
    let power = each.checked_ilog2().map_or(default, |power| 1 << power);
    power.clamp(default, MOST)
}

/// Settings for the service.
pub(super) fn for_service(config: &Config) -> Options {
    Options {
        ring_records: config.ring.records_per_cpu,
        wakeups: config.probes.wakeups,
        clock: clock(config.probes.clock),
        syscalls: config.probes.reasons,
        throttling: config.probes.reasons,
        wakers: config.probes.wakers,
        // Without a target there is nobody whose waits are looked at.
        stacks: nanoseconds(config.probes.stacks.filter(|_| !config.targets.is_empty())),
        // Reading the symbols of others' programs is nothing for a service.
        user_stacks: false,
    }
}

fn nanoseconds(stacks: Option<Duration>) -> Option<u64> {
    stacks.map(|threshold| u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX))
}

fn clock(choice: config::ClockChoice) -> ClockChoice {
    match choice {
        config::ClockChoice::Auto => ClockChoice::Auto,
        config::ClockChoice::RunQueue => ClockChoice::RunQueue,
        config::ClockChoice::Monotonic => ClockChoice::Monotonic,
    }
}

/// Finds out how ids of this PID namespace and those in records go together: before anything is looked for
/// by its id.
pub(super) fn learn_ids() -> Result<(), Failure> {
    pids::open().map_err(|error| start_failure(error.into()))
}

/// How the process should end when the engine did not start.
pub(super) fn start_failure(error: anyhow::Error) -> Failure {
    let exit = match error.downcast_ref::<StartError>().map(StartError::failure) {
        Some(StartFailure::NotAllowed) => Exit::NotAllowed,
        Some(StartFailure::Usage) => Exit::Usage,
        Some(StartFailure::Internal) | None => Exit::Internal,
    };
    Failure { exit, error }
}
