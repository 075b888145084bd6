//! Interrupts: time on a CPU that no thread had.

use std::ops::Range;

use profiler_ebpf::{Interrupts, interrupt};

/// Interrupts of one kind. What `ksoftirqd` and threads of interrupts do is done by threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterruptKind {
    /// The timer's, and what expires in it.
    Timer,
    /// The network softirqs: packets that are received and sent.
    Network,
    /// The block softirqs: devices that have done their work.
    Block,
    /// Devices' interrupts, those by other CPUs, and the other softirqs.
    Other,
}

impl InterruptKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; interrupt::KINDS] =
        [Self::Timer, Self::Network, Self::Block, Self::Other];

    /// The name in reports and metrics, where a thread's name would be. Not longer than one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timer => "timer interrupt",
            Self::Network => "network softirq",
            Self::Block => "block softirq",
            Self::Other => "other interrupt",
        }
    }
}

const _: () = {
    assert!(InterruptKind::Timer as usize == interrupt::TIMER);
    assert!(InterruptKind::Network as usize == interrupt::NETWORK);
    assert!(InterruptKind::Block as usize == interrupt::BLOCK);
    assert!(InterruptKind::Other as usize == interrupt::OTHER);
};

/// How long a CPU was in interrupts between two looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interrupted {
    pub(super) from_ns: u64,
    pub(super) until_ns: u64,
    /// By kind; together not more than the time between.
    ns: [u32; interrupt::KINDS],
}

impl Interrupted {
    #[cfg(test)]
    pub(super) fn of(time_ns: Range<u64>, ns: [u32; interrupt::KINDS]) -> Self {
        Self {
            from_ns: time_ns.start,
            until_ns: time_ns.end,
            ns,
        }
    }

    /// The same for what of it was after this moment: time never goes back on a CPU.
    pub(super) fn not_before(mut self, ts_ns: u64) -> Option<Self> {
        self.from_ns = self.from_ns.max(ts_ns);
        // Interrupts are timed by another clock than switches.
        let mut room_ns = self.until_ns.saturating_sub(self.from_ns);
        for ns in &mut self.ns {
            *ns = u32::try_from(room_ns).unwrap_or(u32::MAX).min(*ns);
            room_ns -= u64::from(*ns);
        }
        (self.all_ns() > 0).then_some(self)
    }

    fn all_ns(&self) -> u64 {
        self.ns.iter().copied().map(u64::from).sum()
    }

    /// What of it counts up to this moment: in proportion, so that parts sum to the whole.
    fn until(&self, ts_ns: u64) -> u64 {
        let whole_ns = self.until_ns - self.from_ns;
        let part_ns = ts_ns.clamp(self.from_ns, self.until_ns) - self.from_ns;
        if part_ns == whole_ns {
            return self.all_ns();
        }
        let product = u128::from(self.all_ns()) * u128::from(part_ns);
        u64::try_from(product / u128::from(whole_ns)).unwrap_or(u64::MAX)
    }

    /// What of it counts within this time, by kind.
    pub(super) fn within(
        &self,
        time_ns: &Range<u64>,
    ) -> impl Iterator<Item = (InterruptKind, u64)> + use<> {
        let all_ns = self.all_ns();
        let sum_ns = self.until(time_ns.end) - self.until(time_ns.start);
        let mut rest_ns = sum_ns;
        let mut weight_ns = all_ns;
        let kinds = InterruptKind::ALL.into_iter().zip(self.ns);
        kinds.filter_map(move |(kind, ns)| {
            let ns = u64::from(ns);
            // Of what is left its part of what is left, so that the last one gets all of it.
            let part_ns = match weight_ns {
                0 => 0,
                _ if sum_ns == all_ns => ns,
                _ => {
                    let product = u128::from(rest_ns) * u128::from(ns);
                    u64::try_from(product / u128::from(weight_ns)).unwrap_or(u64::MAX)
                }
            };
            rest_ns -= part_ns;
            weight_ns -= ns;
            (part_ns > 0).then_some((kind, part_ns))
        })
    }
}

/// What a CPU had spent, and when that was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    spent_ns: [u32; interrupt::KINDS],
    at_ns: u64,
}

/// What was told of each CPU.
#[derive(Debug, Default)]
pub(super) struct Reckoning {
    cpus: Vec<Option<Told>>,
}

impl Reckoning {
    /// What is new in a record, with the CPU. The first one of a CPU is the measure for the second.
    pub(super) fn take_in(&mut self, record: &Interrupts) -> Option<(usize, Interrupted)> {
        let cpu = usize::from(record.cpu);
        if self.cpus.len() <= cpu {
            self.cpus.resize(cpu + 1, None);
        }
        let told = self.cpus.get_mut(cpu)?;
        let now = Told {
            spent_ns: record.spent_ns,
            at_ns: record.ts_ns,
        };
        let before = *told.get_or_insert(now);
        let mut ns = record.spent_ns;
        for (ns, before) in ns.iter_mut().zip(before.spent_ns) {
            *ns = ns.wrapping_sub(before);
        }
        // Two records of one time, from two rings, may come in the wrong order: the second has nothing.
        if ns.iter().any(|&ns| ns > u32::MAX / 2) {
            return None;
        }
        *told = Some(now);
        let mut interrupted = Interrupted {
            from_ns: record.ts_ns.saturating_sub(u64::from(record.within_ns)),
            until_ns: record.ts_ns,
            ns,
        };
        // More than there was time for: the record before was lost, or comes only now. What it told is in here.
        if interrupted.all_ns() > u64::from(record.within_ns) {
            interrupted.from_ns = interrupted.from_ns.min(before.at_ns);
        }
        Some((cpu, interrupted))
    }
}

#[cfg(test)]
mod tests {
    use super::{InterruptKind, Interrupted, Reckoning};
    use profiler_ebpf::Interrupts;
    use proptest::prelude::*;
    use std::ops::Range;

    fn record(ts_ns: u64, within_ns: u32, spent_ns: [u32; 4]) -> Interrupts {
        Interrupts {
            ts_ns,
            spent_ns,
            within_ns,
            cpu: 2,
            ..Interrupts::default()
        }
    }

    /// What a record adds after others: when, and how much.
    fn added(records: &[Interrupts]) -> Option<(Range<u64>, [u32; 4])> {
        let mut reckoning = Reckoning::default();
        let mut latest = None;
        for record in records {
            latest = reckoning.take_in(record);
        }
        latest.map(|(cpu, its)| {
            assert_eq!(cpu, 2);
            (its.from_ns..its.until_ns, its.ns)
        })
    }

    #[test]
    fn a_record_counts_from_the_one_before() {
        let first = record(1_000, 900, [500, 0, 7, 0]);
        assert_eq!(added(&[first]), Some((100..1_000, [0; 4])));
        let second = record(2_000, 300, [600, 20, 7, 0]);
        assert_eq!(
            added(&[first, second]),
            Some((1_700..2_000, [100, 20, 0, 0]))
        );
        // Only the low bits are told.
        let wrapped = [
            record(1_000, 1, [u32::MAX - 9, 0, 0, 0]),
            record(2_000, 1_000, [90, 0, 0, 0]),
        ];
        assert_eq!(added(&wrapped), Some((1_000..2_000, [100, 0, 0, 0])));
    }

    #[test]
    fn of_two_in_the_wrong_order_the_first_has_it_all() {
        let first = record(1_000, 0, [0; 4]);
        let wakeup = record(2_000, 800, [300, 0, 0, 0]);
        let switch = record(2_000, 0, [300, 5, 0, 0]);
        let all = Some((1_000..2_000, [300, 5, 0, 0]));
        assert_eq!(added(&[first, switch]), all);
        assert_eq!(added(&[first, switch, wakeup]), None);
    }

    #[test]
    fn a_record_that_was_lost_is_made_up_for_by_the_next() {
        let first = record(1_000, 0, [0; 4]);
        let later = record(5_000, 100, [2_000, 0, 0, 0]);
        assert_eq!(
            added(&[first, later]),
            Some((1_000..5_000, [2_000, 0, 0, 0]))
        );
    }

    #[test]
    fn what_was_before_a_stint_is_not_counted() {
        let its = Interrupted {
            from_ns: 100,
            until_ns: 200,
            ns: [30, 40, 0, 50],
        };
        let cut = its.not_before(150).expect("50 ns are left");
        assert_eq!((cut.from_ns, cut.ns), (150, [30, 20, 0, 0]));
        assert_eq!(its.not_before(200), None);
        assert_eq!(its.not_before(900), None);
    }

    #[test]
    fn names_are_as_short_as_threads_names() {
        for kind in InterruptKind::ALL {
            assert!(kind.name().len() < profiler_ebpf::COMM_BYTES, "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole(
            ns in prop::array::uniform4(0u32..1_000_000),
            length in 0u64..3_000_000,
            cuts in prop::collection::vec(0u64..4_000_000, 0..6),
        ) {
            let its = Interrupted { from_ns: 1_000, until_ns: 1_000 + length, ns };
            let Some(its) = its.not_before(0) else { return Ok(()) };
            prop_assert!(its.all_ns() <= length);
            let mut cuts = cuts;
            cuts.extend([0, 1_000 + length]);
            cuts.sort_unstable();
            let mut sum_ns = 0;
            for pair in cuts.windows(2) {
                let part_ns: u64 = its.within(&(pair[0]..pair[1])).map(|(_, ns)| ns).sum();
                prop_assert!(part_ns <= pair[1] - pair[0]);
                sum_ns += part_ns;
            }
            prop_assert_eq!(sum_ns, its.all_ns());
            let whole: Vec<u64> = its.within(&(0..u64::MAX)).map(|(_, ns)| ns).collect();
            let expected: Vec<u64> = its.ns.iter().map(|&ns| u64::from(ns)).filter(|&ns| ns > 0).collect();
            prop_assert_eq!(whole, expected);
        }
    }
}
