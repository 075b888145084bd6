//! Where records were lost or left out on purpose, and which open spans that puts in doubt.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use profiler_ebpf::shed;

/// Records of one CPU were lost in this time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loss {
    /// The CPU's stream; `None` when losses of several CPUs were folded into one.
    cpu: Option<usize>,
    /// First lost record.
    from_ns: u64,
    /// Last lost record.
    until_ns: u64,
    /// Latest end of this loss and all before it.
    none_after_ns: u64,
}

/// In this time only the records of some threads were written; the end is not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    from_ns: u64,
    /// [`u64::MAX`] as long as it goes on.
    until_ns: u64,
    /// See [`shed::is_kept`].
    mask: u32,
}

impl Stretch {
    fn hides(&self, tid: u32) -> bool {
        !shed::is_kept(tid, self.mask)
    }
}

/// Losses and shedding that may still matter. Bounded: the oldest are folded into one that covers all of
/// them, which can only put more in doubt, never less.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    losses: VecDeque<Loss>,
    stretches: VecDeque<Stretch>,
    /// Nothing puts in doubt what comes after this.
    sure_after_ns: u64,
}

/// A time of a thread, and what of it a loss could concern.
#[derive(Clone, Debug)]
pub(super) struct Concern {
    pub(super) tid: u32,
    pub(super) time_ns: RangeInclusive<u64>,
    /// The CPU that it runs on, if it does. Then only losses of that CPU concern it, since its leaving would
    /// be recorded there; one that does not run is concerned by those of any.
    pub(super) running_on: Option<usize>,
}

impl Gaps {
    /// Most losses kept apart.
    const BOUND: usize = 256;

    /// Most stretches of shedding kept apart.
    const STRETCHES: usize = 64;

    /// From now on only those threads are kept; 0 ends that. Returns whether there are fewer than before.
    pub(super) fn shed(&mut self, ts_ns: u64, mask: u32) -> bool {
        let before = self.mask();
        if mask == before {
            return false;
        }
        let mut from_ns = ts_ns;
        if let Some(last) = self.stretches.back_mut() {
            if last.until_ns == u64::MAX {
                last.until_ns = ts_ns.max(last.from_ns);
            }
            // They are in order of time, whatever records say.
            from_ns = from_ns.max(last.until_ns);
        }
        if mask != 0 {
            self.stretches.push_back(Stretch {
                from_ns,
                until_ns: u64::MAX,
                mask,
            });
        }
        if self.stretches.len() > Self::STRETCHES
            && let (Some(oldest), Some(next)) =
                (self.stretches.pop_front(), self.stretches.front_mut())
        {
            next.from_ns = next.from_ns.min(oldest.from_ns);
            next.until_ns = next.until_ns.max(oldest.until_ns);
            // Who is kept with the one that has more bits is kept with both.
            next.mask |= oldest.mask;
        }
        let last = self.stretches.iter().map(|stretch| stretch.until_ns).max();
        self.sure_after_ns = self.latest_ns().max(last.unwrap_or(0));
        mask > before
    }

    /// Whether records were ever left out.
    pub(super) fn has_shed(&self) -> bool {
        !self.stretches.is_empty()
    }

    /// The mask of those who are kept now; 0 if all are.
    fn mask(&self) -> u32 {
        let last = self.stretches.back();
        last.filter(|last| last.until_ns == u64::MAX)
            .map_or(0, |last| last.mask)
    }

    /// Whether records of this thread (or, for 0, of idling) are left out now.
    #[inline]
    pub(super) fn hides(&self, tid: u32) -> bool {
        self.sure_after_ns == u64::MAX && !shed::is_kept(tid, self.mask())
    }

    /// From when on records of a thread may have been left out on purpose in this time.
    #[inline]
    pub(super) fn shed_from(&self, tid: u32, time_ns: RangeInclusive<u64>) -> Option<u64> {
        if self.stretches.is_empty() || self.sure_after_ns < *time_ns.start() {
            return None;
        }
        self.first_stretch(tid, *time_ns.start(), *time_ns.end())
    }

    #[cold]
    fn first_stretch(&self, tid: u32, start_ns: u64, end_ns: u64) -> Option<u64> {
        // In order of time, so of those that reach into it the first one counts.
        self.stretches
            .iter()
            .rev()
            .take_while(|stretch| stretch.until_ns > start_ns)
            .filter(|stretch| stretch.from_ns <= end_ns && stretch.hides(tid))
            .map(|stretch| stretch.from_ns.max(start_ns))
            .min()
    }

    /// Notes a loss.
    pub(super) fn add(&mut self, cpu: usize, from_ns: u64, until_ns: u64) {
        let until_ns = until_ns.max(from_ns);
        // A loss may be told of more than once while it goes on.
        let same = self.losses.iter().rposition(|loss| loss.cpu == Some(cpu));
        if let Some(place) = same
            && self
                .losses
                .get(place)
                .is_some_and(|loss| loss.from_ns == from_ns)
        {
            for (number, loss) in self.losses.range_mut(place..).enumerate() {
                if number == 0 {
                    loss.until_ns = loss.until_ns.max(until_ns);
                }
                loss.none_after_ns = loss.none_after_ns.max(until_ns);
            }
            self.sure_after_ns = self.sure_after_ns.max(until_ns);
            return;
        }
        self.sure_after_ns = self.sure_after_ns.max(until_ns);
        self.losses.push_back(Loss {
            cpu: Some(cpu),
            from_ns,
            until_ns,
            none_after_ns: until_ns.max(self.latest_ns()),
        });
        if self.losses.len() > Self::BOUND
            && let (Some(oldest), Some(next)) = (self.losses.pop_front(), self.losses.front_mut())
        {
            next.cpu = None;
            next.from_ns = next.from_ns.min(oldest.from_ns);
            next.until_ns = next.until_ns.max(oldest.until_ns);
        }
    }

    /// Whether nothing puts in doubt what comes after this.
    #[inline]
    pub(super) fn is_sure_from(&self, proven_ns: u64) -> bool {
        self.sure_after_ns < proven_ns
    }

    /// From when on a thread is in doubt.
    #[inline]
    #[must_use]
    pub(super) fn doubt(&self, of: &Concern) -> Option<u64> {
        if self.sure_after_ns < *of.time_ns.start() {
            return None;
        }
        self.first_doubt(of)
    }

    fn latest_ns(&self) -> u64 {
        self.losses.back().map_or(0, |loss| loss.none_after_ns)
    }

    #[cold]
    fn first_doubt(&self, of: &Concern) -> Option<u64> {
        let shed = self.first_stretch(of.tid, *of.time_ns.start(), *of.time_ns.end());
        self.loss(of).into_iter().chain(shed).min()
    }

    /// The same as far as records were lost.
    pub(super) fn loss(&self, of: &Concern) -> Option<u64> {
        self.first_in(*of.time_ns.start(), *of.time_ns.end(), of.running_on)
    }

    fn first_in(&self, start_ns: u64, end_ns: u64, running_on: Option<usize>) -> Option<u64> {
        // Spans are short and losses many when it matters: begin with the newest.
        self.losses
            .iter()
            .rev()
            .take_while(|loss| loss.none_after_ns >= start_ns)
            .filter(|loss| loss.until_ns >= start_ns && loss.from_ns <= end_ns)
            .filter(|loss| running_on.is_none() || loss.cpu.is_none() || loss.cpu == running_on)
            .map(|loss| loss.from_ns.max(start_ns))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::{Concern, Gaps};
    use profiler_ebpf::shed;
    use proptest::prelude::*;
    use std::ops::RangeInclusive;

    fn doubt(gaps: &Gaps, time_ns: RangeInclusive<u64>, running_on: Option<usize>) -> Option<u64> {
        gaps.doubt(&Concern {
            tid: 1,
            time_ns,
            running_on,
        })
    }

    /// Ids of threads that are shed and kept at a half.
    fn two_threads() -> (u32, u32) {
        let first = |kept: bool| {
            let mut ids = 1..100;
            ids.find(|&tid| shed::is_kept(tid, shed::mask(1)) == kept)
        };
        first(false).zip(first(true)).expect("both kinds")
    }

    #[test]
    fn only_those_who_are_not_kept_are_in_doubt_while_threads_are_shed() {
        let (hidden, kept) = two_threads();
        let mut gaps = Gaps::default();
        assert!(!gaps.hides(hidden));
        assert!(gaps.shed(100, shed::mask(1)));
        assert!(!gaps.shed(120, shed::mask(1)), "the same is told again");
        assert!(gaps.hides(hidden) && gaps.hides(0) && !gaps.hides(kept));
        assert!(!gaps.shed(200, 0));
        assert!(!gaps.hides(hidden));
        let doubt = |tid, time_ns: RangeInclusive<u64>| {
            assert_eq!(
                gaps.doubt(&Concern {
                    tid,
                    time_ns: time_ns.clone(),
                    running_on: Some(3)
                }),
                gaps.shed_from(tid, time_ns.clone()),
            );
            gaps.shed_from(tid, time_ns)
        };
        assert_eq!(doubt(hidden, 50..=250), Some(100));
        assert_eq!(doubt(hidden, 150..=250), Some(150));
        assert_eq!(doubt(hidden, 50..=99), None);
        assert_eq!(doubt(hidden, 200..=250), None, "the end is complete");
        assert_eq!(doubt(kept, 0..=1000), None);
    }

    proptest! {
        #[test]
        fn folding_forgets_no_shedding(
            steps in prop::collection::vec((1u64..100, 0u8..6), 1..200),
            tid in 1u32..1000,
            start_ns in 0u64..10_000,
        ) {
            let mut gaps = Gaps::default();
            let mut now_ns = 0;
            let mut hidden: Vec<(u64, u64)> = Vec::new();
            for (step_ns, shift) in steps {
                now_ns += step_ns;
                let was_hidden = gaps.hides(tid);
                gaps.shed(now_ns, shed::mask(shift));
                let is_hidden = gaps.hides(tid);
                prop_assert_eq!(is_hidden, !shed::is_kept(tid, shed::mask(shift)));
                match (was_hidden, is_hidden) {
                    (false, true) => hidden.push((now_ns, u64::MAX)),
                    (true, false) => hidden.last_mut().expect("begun").1 = now_ns,
                    _ => {}
                }
            }
            prop_assert!(gaps.stretches.len() <= Gaps::STRETCHES);
            let expected = hidden
                .iter()
                .filter(|&&(_, until_ns)| until_ns > start_ns)
                .map(|&(from_ns, _)| from_ns.max(start_ns))
                .min();
            let got = gaps.shed_from(tid, start_ns..=u64::MAX);
            if gaps.stretches.len() < Gaps::STRETCHES {
                prop_assert_eq!(got, expected);
            } else if let Some(expected) = expected {
                prop_assert!(got.is_some_and(|got| got <= expected));
            }
        }
    }

    #[test]
    fn a_running_thread_is_in_doubt_only_by_its_own_cpu() {
        let mut gaps = Gaps::default();
        gaps.add(1, 100, 200);
        assert_eq!(doubt(&gaps, 50..=250, Some(0)), None);
        assert_eq!(doubt(&gaps, 50..=250, Some(1)), Some(100));
        assert_eq!(doubt(&gaps, 50..=250, None), Some(100));
        assert_eq!(doubt(&gaps, 150..=250, None), Some(150));
        assert_eq!(doubt(&gaps, 201..=250, None), None);
        assert_eq!(doubt(&gaps, 50..=99, None), None);
    }

    proptest! {
        #[test]
        fn doubt_begins_with_the_first_loss_that_is_not_over(
            // Few starts, so that some losses are told of twice.
            losses in prop::collection::vec((0usize..3, 0u64..30, 0u64..100), 0..40),
            start_ns in 0u64..140,
            length_ns in 0u64..40,
            running_on in prop::option::of(0usize..3),
        ) {
            let mut gaps = Gaps::default();
            for &(cpu, from_ns, lost_ns) in &losses {
                gaps.add(cpu, from_ns, from_ns + lost_ns);
            }
            let expected = losses
                .iter()
                .filter(|&&(cpu, from_ns, lost_ns)| {
                    from_ns + lost_ns >= start_ns
                        && from_ns <= start_ns + length_ns
                        && running_on.is_none_or(|on| on == cpu)
                })
                .map(|&(_, from_ns, _)| from_ns.max(start_ns))
                .min();
            prop_assert_eq!(doubt(&gaps, start_ns..=start_ns + length_ns, running_on), expected);
        }

        #[test]
        fn folding_forgets_no_doubt(
            losses in prop::collection::vec((0usize..3, 0u64..1000, 0u64..100), 250..600),
            start_ns in 0u64..1100,
            running_on in prop::option::of(0usize..3),
        ) {
            let mut gaps = Gaps::default();
            for &(cpu, from_ns, length_ns) in &losses {
                gaps.add(cpu, from_ns, from_ns + length_ns);
            }
            prop_assert!(gaps.losses.len() <= Gaps::BOUND);
            for &(cpu, from_ns, length_ns) in &losses {
                if from_ns + length_ns >= start_ns && running_on.is_none_or(|on| on == cpu) {
                    let doubt_ns = doubt(&gaps, start_ns..=u64::MAX, running_on);
                    prop_assert!(doubt_ns.is_some_and(|doubt_ns| doubt_ns <= from_ns.max(start_ns)));
                }
            }
        }
    }
}
