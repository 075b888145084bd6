//! How the process ends: one code a kind of outcome, and the errors that lead there.

use std::process::ExitCode;

/// Why the process ends, in the code that it returns. Scripts rely on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A mistake of Schedscope's own.
    Internal = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The kernel or a permission does not allow it.
    NotAllowed = 3,
    /// The target does not exist, or ended before anything was seen of it.
    NoTarget = 4,
    /// An input file is damaged; what could be read of it was reported.
    Damaged = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that says how the process should end.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What was met, what was expected, and what to do: one line.
    pub error: anyhow::Error,
}

impl Failure {
    /// An error that ends the process with this code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }

    /// Wrong usage or configuration.
    #[must_use]
    pub fn usage(message: String) -> Self {
        Self::new(Exit::Usage, anyhow::Error::msg(message))
    }

    /// The target is not there.
    #[must_use]
    pub fn no_target(message: String) -> Self {
        Self::new(Exit::NoTarget, anyhow::Error::msg(message))
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    /// What nobody gave a code to is our own mistake.
    fn from(error: E) -> Self {
        Self::new(Exit::Internal, error)
    }
}
