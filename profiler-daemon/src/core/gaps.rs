//! Where records were lost, and which open spans that puts in doubt.

use std::collections::VecDeque;

/// Records of one CPU were lost in this time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// The CPU's stream; `None` when losses of several CPUs were folded into one.
    pub(super) cpu: Option<usize>,
    /// First lost record.
    pub(super) from_ns: u64,
    /// Last lost record.
    pub(super) until_ns: u64,
}

/// Losses that may still matter. Bounded: the oldest are folded into one that covers all of them,
/// which can only put more in doubt, never less.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    losses: VecDeque<Loss>,
    latest_until_ns: u64,
}

impl Gaps {
    /// Most losses kept apart.
    const BOUND: usize = 256;

    /// Notes a loss.
    pub(super) fn add(&mut self, cpu: usize, from_ns: u64, until_ns: u64) {
        let until_ns = until_ns.max(from_ns);
        self.latest_until_ns = self.latest_until_ns.max(until_ns);
        // A loss may be told of more than once while it goes on.
        let same = |loss: &&mut Loss| loss.cpu == Some(cpu) && loss.from_ns == from_ns;
        if let Some(loss) = self.losses.iter_mut().rev().find(same) {
            loss.until_ns = loss.until_ns.max(until_ns);
            return;
        }
        self.losses.push_back(Loss {
            cpu: Some(cpu),
            from_ns,
            until_ns,
        });
        if self.losses.len() > Self::BOUND
            && let (Some(oldest), Some(next)) = (self.losses.pop_front(), self.losses.front_mut())
        {
            *next = Loss {
                cpu: None,
                from_ns: oldest.from_ns.min(next.from_ns),
                until_ns: oldest.until_ns.max(next.until_ns),
            };
        }
    }

    /// From when on a span that has been open since `since_ns` is in doubt, if it is.
    ///
    /// A thread that runs is put in doubt only by losses of its own CPU, since its leaving would be
    /// recorded there; one that does not run, by those of any.
    #[inline]
    #[must_use]
    pub(super) fn doubt(&self, since_ns: u64, running_on: Option<usize>) -> Option<u64> {
        if self.latest_until_ns < since_ns || self.losses.is_empty() {
            return None;
        }
        self.first_after(since_ns, running_on)
    }

    #[cold]
    fn first_after(&self, since_ns: u64, running_on: Option<usize>) -> Option<u64> {
        self.losses
            .iter()
            .filter(|loss| loss.until_ns >= since_ns)
            .filter(|loss| running_on.is_none() || loss.cpu.is_none() || loss.cpu == running_on)
            .map(|loss| loss.from_ns.max(since_ns))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::Gaps;

    #[test]
    fn a_running_thread_is_in_doubt_only_by_its_own_cpu() {
        let mut gaps = Gaps::default();
        gaps.add(1, 100, 200);
        assert_eq!(gaps.doubt(50, Some(0)), None);
        assert_eq!(gaps.doubt(50, Some(1)), Some(100));
        assert_eq!(gaps.doubt(50, None), Some(100));
        assert_eq!(gaps.doubt(150, None), Some(150));
        assert_eq!(gaps.doubt(201, None), None);
    }

    #[test]
    fn folding_forgets_no_doubt() {
        let mut gaps = Gaps::default();
        for number in 0..1000u64 {
            gaps.add(
                usize::try_from(number % 4).unwrap_or(0),
                number * 10,
                number * 10 + 5,
            );
        }
        assert!(gaps.losses.len() <= Gaps::BOUND);
        assert_eq!(gaps.doubt(0, None), Some(0));
        assert_eq!(
            gaps.doubt(0, Some(3)),
            Some(0),
            "folded losses count for every CPU"
        );
        assert_eq!(gaps.doubt(9_991, Some(3)), Some(9_991));
    }
}
