//! From flags to the source's settings, and from its errors to exit codes.

use crate::cli::{ClockArg, ProbeArgs};
use crate::exit::{Exit, Failure};
use crate::source::{ClockChoice, Options, StartError, StartFailure};

/// Settings for measuring by hand: wakeups are recorded unless told otherwise, so that a thread that
/// waits for a CPU right now shows as such.
pub(super) fn for_attach(flags: &ProbeArgs) -> Options {
    apply(
        Options {
            wakeups: true,
            ..Options::default()
        },
        flags,
    )
}

/// Flags overrule.
pub(super) fn apply(mut options: Options, flags: &ProbeArgs) -> Options {
    options.ring_records = flags.ring_records.unwrap_or(options.ring_records);
    options.wakeups = flags.wakeups.unwrap_or(options.wakeups);
    options.clock = flags.clock.map_or(options.clock, |clock| match clock {
        ClockArg::Auto => ClockChoice::Auto,
        ClockArg::RunQueue => ClockChoice::RunQueue,
        ClockArg::Monotonic => ClockChoice::Monotonic,
    });
    options
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
