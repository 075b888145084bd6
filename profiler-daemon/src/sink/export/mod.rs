//! What threads did, in the formats of other programs.
//!
//! An [`Export`] gets what was seen of waits and what threads did, in about the order of time, and then what
//! processes are called. [`csv`] and [`perfetto`] write while they get it; [`folded`] and [`pprof`] add it
//! up by [`stacks`] first.

pub mod csv;
pub mod folded;
pub mod perfetto;
pub mod pprof;
pub mod stacks;

use std::io;

use crate::core::{Doing, Seen, Span};
use crate::recording::Facts;

/// A format.
pub trait Export {
    /// Takes in what was seen of waits whose ends are still to come.
    fn seen(&mut self, waits: &[Seen]);

    /// Takes in what a thread did.
    fn span(&mut self, span: &Span) -> io::Result<()>;

    /// Ends it, with what is known of processes.
    fn finish(self: Box<Self>, facts: &Facts) -> io::Result<()>;
}

/// What a thread did, as reports name it: the share, and of a wait the reason.
#[must_use]
pub fn state(doing: &Doing) -> (&'static str, String) {
    match doing {
        Doing::Running => ("running", String::new()),
        Doing::Queued(_) => ("runnable", String::new()),
        Doing::Blocked(wait) => ("blocked", wait.name()),
        Doing::Unknown => ("unknown", String::new()),
    }
}
