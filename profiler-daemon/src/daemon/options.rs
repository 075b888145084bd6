//! From flags and configuration to the source's settings, and from its errors to exit codes.

use std::time::Duration;

use super::config::{self, Config, DEFAULT_STACKS, ProbeFlags, Stacks};
use crate::exit::{Exit, Failure};
use crate::source::{ClockChoice, Options, StartError, StartFailure};

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

/// Wakeups double the records, and what is measured by hand is often a storm: twice the service's
/// rings, 2 MiB a CPU, unless there are so many CPUs that it adds up.
fn attach_ring_records() -> u32 {
    const MANY_CPUS: usize = 64;
    let default = Options::default().ring_records;
    match aya::util::nr_cpus() {
        Ok(cpus) if cpus <= MANY_CPUS => 2 * default,
        _ => default,
    }
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

/// How the process should end when the engine did not start.
pub(super) fn start_failure(error: anyhow::Error) -> Failure {
    let exit = match error.downcast_ref::<StartError>().map(StartError::failure) {
        Some(StartFailure::NotAllowed) => Exit::NotAllowed,
        Some(StartFailure::Usage) => Exit::Usage,
        Some(StartFailure::Internal) | None => Exit::Internal,
    };
    Failure { exit, error }
}
