//! One line on the terminal that says how far something has come. Silent where there is no terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What takes less than that needs no line, and nobody reads one more often.
const EVERY: Duration = Duration::from_secs(1);

/// A line that is written over again and again; gone when this is dropped.
pub(super) struct Progress {
    start: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
            shown: None,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Shows nothing, since the terminal is used for something else.
    pub(super) fn off() -> Self {
        Self {
            is_terminal: false,
            ..Self::start()
        }
    }

    /// Shows this once a second, after how long it has been going on.
    pub(super) fn show(&mut self, line: impl FnOnce(Duration) -> String) {
        let elapsed = self.start.elapsed();
        let is_due = self.shown.map_or(elapsed, |at| at.elapsed()) >= EVERY;
        if self.is_terminal && is_due {
            self.shown = Some(Instant::now());
            // A line that can't be shown is none that anybody waits for.
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", line(elapsed));
        }
    }

    /// Takes the line away, so that something else can be said.
    pub(super) fn clear(&mut self) {
        if self.is_terminal && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
