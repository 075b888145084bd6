//! Where records were lost, and which open spans that puts in doubt.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

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

/// Losses that may still matter. Bounded: the oldest are folded into one that covers all of them,
/// which can only put more in doubt, never less.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    losses: VecDeque<Loss>,
}

impl Gaps {
    /// Most losses kept apart.
    const BOUND: usize = 256;

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
            return;
        }
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

    /// From when on a thread is in doubt, in a time in which losses would concern it.
    ///
    /// One that runs is put in doubt only by losses of its own CPU, since its leaving would be
    /// recorded there; one that does not run, by those of any.
    #[inline]
    #[must_use]
    pub(super) fn doubt(
        &self,
        time_ns: RangeInclusive<u64>,
        running_on: Option<usize>,
    ) -> Option<u64> {
        if self.losses.is_empty() || self.latest_ns() < *time_ns.start() {
            return None;
        }
        self.first_in(*time_ns.start(), *time_ns.end(), running_on)
    }

    fn latest_ns(&self) -> u64 {
        self.losses.back().map_or(0, |loss| loss.none_after_ns)
    }

    #[cold]
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
    use super::Gaps;
    use proptest::prelude::*;

    #[test]
    fn a_running_thread_is_in_doubt_only_by_its_own_cpu() {
        let mut gaps = Gaps::default();
        gaps.add(1, 100, 200);
        assert_eq!(gaps.doubt(50..=250, Some(0)), None);
        assert_eq!(gaps.doubt(50..=250, Some(1)), Some(100));
        assert_eq!(gaps.doubt(50..=250, None), Some(100));
        assert_eq!(gaps.doubt(150..=250, None), Some(150));
        assert_eq!(gaps.doubt(201..=250, None), None);
        assert_eq!(gaps.doubt(50..=99, None), None);
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
            prop_assert_eq!(gaps.doubt(start_ns..=start_ns + length_ns, running_on), expected);
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
                    let doubt_ns = gaps.doubt(start_ns..=u64::MAX, running_on);
                    prop_assert!(doubt_ns.is_some_and(|doubt_ns| doubt_ns <= from_ns.max(start_ns)));
                }
            }
        }
    }
}
