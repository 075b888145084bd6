//! Why the probes can't be started.

use std::io;

use super::fields::{Fault, Finding};

/// Why [`super::Kernel::start`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel does not let this process load the probes.
    #[error(
        "the kernel refused to {action} ({source}); run as root, or give schedscope the capabilities \
         CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN does as well); `schedscope check` says what is missing"
    )]
    Permission {
        /// What was attempted.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has no type information.
    #[error(
        "the kernel's type information can't be read from {path} ({source}); a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y is needed, and /sys has to be mounted"
    )]
    NoBtf {
        /// Where it should be.
        path: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The kernel lacks a field that nothing works without, or has it in an unknown form.
    #[error(
        "Linux {release} has {}; Linux 5.10 or newer is needed, and if this is one, this version of \
             schedscope is too old for it: {consequence}",
        describe(finding)
    )]
    Field {
        /// The kernel's release.
        release: String,
        /// What was found.
        finding: Finding,
        /// What follows.
        consequence: &'static str,
    },
    /// The kernel has no such hook, or it has unknown arguments.
    #[error(
        "Linux {release} has no tracepoint `{tracepoint}` of a known form; Linux 5.10 or newer with \
             CONFIG_DEBUG_INFO_BTF=y is needed"
    )]
    Tracepoint {
        /// The kernel's release.
        release: String,
        /// The hook.
        tracepoint: &'static str,
    },
    /// A choice that this kernel can't serve.
    #[error(
        "the clock `run-queue` was asked for, but Linux {release} doesn't have {missing}; use the \
             clock `auto`"
    )]
    Clock {
        /// The kernel's release.
        release: String,
        /// The first field that is missing.
        missing: String,
    },
    /// An option out of its bounds.
    #[error(
        "a ring of {records} records was asked for; it must be a power of two from {min} to {max}"
    )]
    RingSize {
        /// What was asked for.
        records: u32,
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// There is not enough memory for the rings.
    #[error(
        "the kernel has no memory for {cpus} rings of {records} records ({mebibytes} MiB) ({source}); \
         choose smaller rings"
    )]
    Memory {
        /// How many.
        cpus: usize,
        /// Records in each.
        records: u32,
        /// Together.
        mebibytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something that should work did not.
    #[error("can't {action}: {reason}; {}", remedy(reason))]
    Internal {
        /// What was attempted.
        action: String,
        /// What went wrong, with all its causes.
        reason: String,
    },
}

/// What kind of failure it is; the program's exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The kernel or a permission doesn't allow it.
    NotAllowed,
    /// An option is wrong.
    Usage,
    /// Neither.
    Internal,
}

impl StartError {
    /// What kind of failure it is.
    #[must_use]
    pub fn failure(&self) -> StartFailure {
        match self {
            Self::Permission { .. }
            | Self::NoBtf { .. }
            | Self::Field { .. }
            | Self::Tracepoint { .. }
            | Self::Memory { .. } => StartFailure::NotAllowed,
            Self::Clock { .. } | Self::RingSize { .. } => StartFailure::Usage,
            Self::Internal { reason, .. } if exhausted(reason).is_some() => {
                StartFailure::NotAllowed
            }
            Self::Internal { .. } => StartFailure::Internal,
        }
    }
}

/// What the process has no more of, if that is what a message with the kernel's answer in it says, and how it gets
/// more.
#[must_use]
pub fn exhausted(message: &str) -> Option<&'static str> {
    const LIMITS: [(&str, &str); 2] = [
        (
            "(os error 24)",
            "the limit of open files is too low: raise it, with `ulimit -n 1024` in a shell or LimitNOFILE= in a unit",
        ),
        (
            "(os error 12)",
            "there is no memory for it, or a limit is too low: see `ulimit -v` in a shell, or MemoryMax= in a unit",
        ),
    ];
    let mut limits = LIMITS.iter();
    let (_, remedy) = limits.find(|(answer, _)| message.contains(answer))?;
    Some(remedy)
}

/// What to do about something that should have worked.
fn remedy(reason: &str) -> &'static str {
    exhausted(reason).unwrap_or(
        "this is a fault of schedscope or a kernel that it doesn't know: please report it with the output of \
         `schedscope check`",
    )
}

/// A finding in words that follow "Linux x.y has".
fn describe(finding: &Finding) -> String {
    match &finding.offset {
        Ok(offset) => format!("`{}` at offset {offset}", finding.name),
        Err(Fault::Missing) => format!("no field `{}`", finding.name),
        Err(Fault::Size { found }) => {
            format!(
                "a field `{}` of an unexpected size ({found} bytes)",
                finding.name
            )
        }
    }
}

/// An error and all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The kernel's answer that an error of a library goes back to, if there is one.
pub(crate) fn kernel_answer(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
}
