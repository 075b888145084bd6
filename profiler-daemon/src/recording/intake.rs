//! A core whose input is recorded, if anybody wants it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use profiler_ebpf::ThreadRecord;

use super::journal::Entry;
use super::tape::Tape;
use crate::core::{Core, Seen, Stream};

/// A core, and a tape that gets what the core gets. Whatever changes figures goes through here.
#[derive(Debug)]
pub struct Intake {
    core: Core,
    tape: Option<Tape>,
}

impl Intake {
    /// Without a tape nothing is recorded.
    #[must_use]
    pub fn new(core: Core, tape: Option<Tape>) -> Self {
        Self { core, tape }
    }

    /// The core, to ask.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The core, for what no recording needs to know.
    pub fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// The tape, if there is one.
    #[must_use]
    pub fn tape(&self) -> Option<&Tape> {
        self.tape.as_ref()
    }

    /// Begins a recording. [`Self::begin_part`] must follow before anything else.
    pub fn set_tape(&mut self, tape: Tape) {
        self.tape = Some(tape);
    }

    /// Ends the recording.
    pub fn drop_tape(&mut self) {
        self.tape = None;
    }

    /// [`Core::found`].
    pub fn found(&mut self, threads: &[ThreadRecord], read_ns: RangeInclusive<u64>) {
        if let Some(tape) = &self.tape {
            tape.found(threads, *read_ns.start(), *read_ns.end());
        }
        self.core.found(threads, read_ns);
    }

    /// [`Core::found`], and a recording can begin here.
    pub fn begin_part(&mut self, threads: &[ThreadRecord], read_ns: RangeInclusive<u64>) {
        if let Some(tape) = &self.tape {
            tape.part(threads, *read_ns.start(), *read_ns.end());
        }
        self.core.found(threads, read_ns);
    }

    /// [`Core::seen`].
    pub fn seen(&mut self, waits: impl IntoIterator<Item = Seen>) {
        let Some(tape) = &self.tape else {
            return self.core.seen(waits);
        };
        let waits: Vec<Seen> = waits.into_iter().collect();
        tape.seen(waits.clone(), Entry::Seen);
        self.core.seen(waits);
    }

    /// [`Core::seen_waiting`].
    pub fn seen_waiting(&mut self, waits: impl IntoIterator<Item = Seen>) {
        let Some(tape) = &self.tape else {
            return self.core.seen_waiting(waits);
        };
        let waits: Vec<Seen> = waits.into_iter().collect();
        tape.seen(waits.clone(), Entry::SeenWaiting);
        self.core.seen_waiting(waits);
    }

    /// [`Core::feed`].
    pub fn feed(&mut self, streams: &[Stream<'_>], watermark_ns: u64) -> &[usize] {
        let used = self.core.feed(streams, watermark_ns);
        if let Some(tape) = &self.tape {
            tape.feed(streams, used, watermark_ns);
        }
        used
    }

    /// [`Core::doubt`].
    pub fn doubt(&mut self, cpu: usize, from_ns: u64, until_ns: u64) {
        if let Some(tape) = &self.tape {
            tape.doubt(cpu, from_ns, until_ns);
        }
        self.core.doubt(cpu, from_ns, until_ns);
    }

    /// [`Core::untold_quotas`].
    pub fn untold_quotas(&mut self, groups: BTreeSet<u64>) {
        if let Some(tape) = &self.tape {
            tape.untold_quotas(&groups);
        }
        self.core.untold_quotas(groups);
    }

    /// [`Core::join`].
    pub fn join(&mut self, target: usize, tgids: &BTreeSet<u32>) {
        if let Some(tape) = &self.tape {
            tape.join(target, tgids);
        }
        self.core.join(target, tgids);
    }

    /// [`Core::begin_window`].
    pub fn begin_window(&mut self) {
        if let Some(tape) = &self.tape {
            tape.begin_window();
        }
        self.core.begin_window();
    }
}
