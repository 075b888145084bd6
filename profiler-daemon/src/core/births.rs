//! Which processes began, for those who keep books of processes.

/// Births that are kept until somebody takes them. Beyond, the newer ones are not told.
const MAX: usize = 1 << 15;

/// A process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Its id.
    pub tgid: u32,
    /// The process that made it; 0 if that is not known.
    pub parent_tgid: u32,
}

/// Those that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Births(Vec<Birth>);

impl Births {
    pub(super) fn note(&mut self, tgid: u32, parent_tgid: u32) {
        if self.0.len() < MAX {
            self.0.push(Birth { tgid, parent_tgid });
        }
    }

    pub(super) fn take(&mut self) -> Vec<Birth> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Birth, Births, MAX};
    use crate::core::decode::Event;
    use crate::core::{Core, Stream};
    use profiler_ebpf::Fork;

    #[test]
    fn processes_are_told_once_and_threads_are_not() {
        let fork = |ts_ns, tid, tgid, parent_tid| {
            Event::Fork(Fork {
                ts_ns,
                tid,
                tgid,
                parent_tid,
                ..Fork::default()
            })
            .encode()
        };
        let slots = [fork(1, 10, 10, 4), fork(2, 11, 10, 10), fork(3, 12, 12, 11)];
        let mut core = Core::new(Vec::new());
        core.feed(&[Stream::new(&slots)], 10);
        let birth = |tgid, parent_tgid| Birth { tgid, parent_tgid };
        // A process is its parent's even if another thread than the first one made it.
        assert_eq!(core.take_births(), [birth(10, 0), birth(12, 10)]);
        assert!(!core.has_births());
        assert_eq!(core.take_births(), []);
    }

    #[test]
    fn there_are_not_too_many() {
        let mut births = Births::default();
        for tgid in 1..=1 << 16 {
            births.note(tgid, 1);
        }
        assert_eq!(births.take().len(), MAX);
    }
}
