//! Who had each CPU and when: what a stay on its run queue is divided by.
//!
//! Of each CPU two things are kept. The last stints, bounded, say who had it. For what is longer ago
//! there are marks, at every so many stints, with how long the CPU had been busy by then: between two
//! of them it is known whether anybody ran, but not who.
//!
//! Interrupts take their time from whoever has the CPU, the idle task too. It is told how long they took
//! between two looks, not when: cut at a moment in between, they count in proportion.

use std::collections::VecDeque;
use std::ops::Range;

use super::interrupts::{InterruptKind, Interrupted};
use super::latest::Latest;
use super::threads::Slot;

/// Stints kept of all CPUs together, 40 bytes each, and the least and the most of one CPU. Powers of two.
const STINTS: usize = 1 << 18;
const MIN_STINTS: usize = 512;
const MAX_STINTS: usize = 1 << 14;

/// Of interrupts so many times fewer are kept: not every stint has some.
const STINTS_AN_INTERRUPTION: usize = 4;

/// There is a mark at every so many stints.
const STINTS_A_MARK: u32 = 64;
/// Marks kept of all CPUs together, 24 bytes each, and the most of one CPU.
const MARKS: usize = 1 << 19;
const MAX_MARKS: usize = 1 << 13;

/// A thread for good: slots are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runner {
    pub(super) slot: Slot,
    pub(super) serial: u64,
}

impl Runner {
    /// Stands for interrupts. No thread has such a number.
    pub(super) fn interrupts(kind: InterruptKind) -> Self {
        Self {
            slot: Slot::default(),
            serial: u64::MAX - kind as u64,
        }
    }

    /// The interrupts that it stands for, if it does for any.
    pub(super) fn kind(self) -> Option<InterruptKind> {
        let mut kinds = InterruptKind::ALL.into_iter();
        kinds.find(|kind| u64::MAX - self.serial == *kind as u64)
    }
}

/// Who has a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody: the idle task.
    Idle,
    /// This thread.
    Thread(Runner),
    /// Nobody can tell.
    Unknown,
}

/// Time of a CPU by what it was used for, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit stands with each time")]
pub(super) struct Use {
    /// Some thread had it, or interrupts.
    pub(super) busy_ns: u64,
    /// Nobody had it.
    pub(super) idle_ns: u64,
    /// Nobody can tell.
    pub(super) unknown_ns: u64,
}

/// How long a CPU had been busy, and how long that is not known, at some moment.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    busy_ns: u64,
    unknown_ns: u64,
}

impl Tally {
    fn after(self, holder: Holder, duration_ns: u64) -> Self {
        match holder {
            Holder::Idle => self,
            Holder::Thread(_) => Self {
                busy_ns: self.busy_ns.saturating_add(duration_ns),
                ..self
            },
            Holder::Unknown => Self {
                unknown_ns: self.unknown_ns.saturating_add(duration_ns),
                ..self
            },
        }
    }
}

/// A time during which one holder had the CPU; it lasts until the next one begins.
#[derive(Clone, Copy, Debug)]
struct Stint {
    from_ns: u64,
    before: Tally,
    holder: Holder,
}

#[derive(Debug, Default)]
struct Cpu {
    stints: Latest<Stint>,
    /// In order of time; each lies within one stint.
    interrupted: VecDeque<Interrupted>,
    marks: VecDeque<(u64, Tally)>,
    /// Stints since the last mark.
    unmarked: u32,
}

/// The use of all CPUs.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    cpus: Vec<Cpu>,
    /// Most stints of one CPU.
    bound: usize,
    /// Most marks of one CPU.
    marks: usize,
}

impl Timeline {
    /// From now on this CPU has another holder. Time never goes back on a CPU: an older record counts
    /// as of the last one.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "every switch comes here, and a call takes a fifth of it"
    )]
    pub(super) fn hold(&mut self, cpu: usize, ts_ns: u64, holder: Holder) {
        if self.cpus.len() <= cpu {
            self.extend(cpu);
        }
        let Some(its) = self.cpus.get_mut(cpu) else {
            return;
        };
        let (from_ns, before) = match its.stints.newest() {
            Some(last) => {
                let from_ns = ts_ns.max(last.from_ns);
                (from_ns, its.tally(last, from_ns))
            }
            None => (ts_ns, Tally::default()),
        };
        let Cpu {
            stints,
            marks,
            unmarked,
            ..
        } = its;
        stints.push(Stint {
            from_ns,
            before,
            holder,
        });
        *unmarked += 1;
        if *unmarked >= STINTS_A_MARK {
            *unmarked = 0;
            while marks.len() >= self.marks {
                marks.pop_front();
            }
            marks.push_back((from_ns, before));
        }
    }

    /// There is one more CPU. The bounds fall as CPUs come.
    #[cold]
    fn extend(&mut self, cpu: usize) {
        self.cpus.resize_with(cpu + 1, Cpu::default);
        self.bound = (STINTS / self.cpus.len().next_power_of_two()).clamp(MIN_STINTS, MAX_STINTS);
        self.marks = (MARKS / self.cpus.len()).clamp(1, MAX_MARKS);
        for cpu in &mut self.cpus {
            cpu.stints.bound(self.bound);
        }
    }

    /// A CPU was in interrupts while it had its present holder.
    pub(super) fn interrupt(&mut self, cpu: usize, interrupted: Interrupted) {
        let Some(its) = self.cpus.get_mut(cpu) else {
            return;
        };
        let Some(stint) = its.stints.newest() else {
            return;
        };
        let earliest_ns = its
            .interrupted
            .back()
            .map_or(stint.from_ns, |last| stint.from_ns.max(last.until_ns));
        let Some(interrupted) = interrupted.not_before(earliest_ns) else {
            return;
        };
        while its.interrupted.len() >= self.bound / STINTS_AN_INTERRUPTION {
            its.interrupted.pop_front();
        }
        its.interrupted.push_back(interrupted);
    }

    /// Who is said to have this CPU now has it no more, nobody can tell since when.
    pub(super) fn discredit(&mut self, cpu: usize) {
        if let Some(last) = self
            .cpus
            .get_mut(cpu)
            .and_then(|cpu| cpu.stints.newest_mut())
        {
            last.holder = Holder::Unknown;
        }
    }

    /// Who has a CPU, if it is who had it at this moment and no interrupt took anything since.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "every switch asks, and a call takes as long as the answer"
    )]
    pub(super) fn holder_since(&self, cpu: usize, from_ns: u64) -> Option<Holder> {
        let cpu = self.cpus.get(cpu)?;
        let last = cpu.stints.newest()?;
        let is_whole = last.from_ns <= from_ns && !cpu.was_interrupted_since(from_ns);
        is_whole.then_some(last.holder)
    }

    /// This CPU is asked for soon.
    #[inline]
    pub(super) fn expect(&self, cpu: usize) {
        if let Some(its) = self.cpus.get(cpu) {
            its.stints.expect();
        }
    }

    /// How a CPU was used in this time. `visit` is told who had it and for how long, the latest first, of
    /// the last `steps` stints at most.
    pub(super) fn divide(
        &self,
        cpu: usize,
        time_ns: Range<u64>,
        steps: usize,
        mut visit: impl FnMut(Runner, u64),
    ) -> Use {
        let mut used = Use::default();
        let mut end_ns = time_ns.end;
        if time_ns.is_empty() {
            return used;
        }
        // Mostly who has the CPU now had it all the time.
        if let Some(holder) = self.holder_since(cpu, time_ns.start) {
            let duration_ns = end_ns - time_ns.start;
            match holder {
                Holder::Idle => used.idle_ns = duration_ns,
                Holder::Unknown => used.unknown_ns = duration_ns,
                Holder::Thread(runner) => {
                    used.busy_ns = duration_ns;
                    visit(runner, duration_ns);
                }
            }
            return used;
        }
        let Some(cpu) = self.cpus.get(cpu) else {
            used.unknown_ns = end_ns - time_ns.start;
            return used;
        };
        let newest = place_before(&cpu.stints, end_ns);
        let mut left = None;
        let places = (0..newest).rev().take(steps);
        for stint in places.filter_map(|place| cpu.stints.get(place)) {
            let start_ns = stint.from_ns.max(time_ns.start);
            let duration_ns = end_ns.saturating_sub(start_ns);
            if duration_ns > 0 {
                let in_interrupts_ns = match stint.holder {
                    Holder::Unknown => 0,
                    _ => cpu.name_interrupts(start_ns..end_ns, &mut visit),
                };
                let rest_ns = duration_ns - in_interrupts_ns;
                used.busy_ns += in_interrupts_ns;
                match stint.holder {
                    Holder::Idle => used.idle_ns += rest_ns,
                    Holder::Unknown => used.unknown_ns += rest_ns,
                    Holder::Thread(runner) => {
                        used.busy_ns += rest_ns;
                        if rest_ns > 0 {
                            visit(runner, rest_ns);
                        }
                    }
                }
            }
            end_ns = end_ns.min(start_ns);
            left = Some((stint.from_ns, stint.before));
            if end_ns <= time_ns.start {
                return used;
            }
        }
        let rest_ns = end_ns - time_ns.start;
        let known = left
            .zip(cpu.earliest_from(time_ns.start))
            .filter(|((end_ns, _), (from_ns, _))| from_ns < end_ns);
        if let Some(((end_ns, end), (from_ns, start))) = known {
            let whole_ns = end_ns - from_ns;
            // More only if interrupts within a stint are forgotten by now.
            let busy_ns = end.busy_ns.saturating_sub(start.busy_ns).min(whole_ns);
            let unknown_ns = end.unknown_ns.saturating_sub(start.unknown_ns);
            let idle_ns = whole_ns.saturating_sub(busy_ns).saturating_sub(unknown_ns);
            used.busy_ns += busy_ns;
            used.idle_ns += idle_ns;
            used.unknown_ns += rest_ns.saturating_sub(busy_ns).saturating_sub(idle_ns);
        } else {
            used.unknown_ns += rest_ns;
        }
        used
    }
}

impl Cpu {
    /// The tally at this moment of a stint.
    #[inline]
    fn tally(&self, stint: &Stint, ts_ns: u64) -> Tally {
        let tally = stint.before.after(stint.holder, ts_ns - stint.from_ns);
        if stint.holder != Holder::Idle || self.interrupted.is_empty() {
            return tally;
        }
        let busy_ns = self.name_interrupts(stint.from_ns..ts_ns, &mut |_, _| {});
        Tally {
            busy_ns: tally.busy_ns.saturating_add(busy_ns),
            ..tally
        }
    }

    #[inline]
    fn was_interrupted_since(&self, ts_ns: u64) -> bool {
        let last = self.interrupted.back();
        last.is_some_and(|its| its.until_ns > ts_ns)
    }

    /// How long it was in interrupts within this time, with the kinds told to `visit`.
    #[inline]
    fn name_interrupts(&self, time_ns: Range<u64>, visit: &mut impl FnMut(Runner, u64)) -> u64 {
        if !self.was_interrupted_since(time_ns.start) {
            return 0;
        }
        let is_over = |its: &Interrupted| its.until_ns <= time_ns.start;
        let mut sum_ns = 0;
        let later = self
            .interrupted
            .partition_point(|its| its.from_ns < time_ns.end);
        let latest_first = self.interrupted.range(..later).rev();
        for its in latest_first.take_while(|its| !is_over(its)) {
            for (kind, ns) in its.within(&time_ns) {
                sum_ns += ns;
                visit(Runner::interrupts(kind), ns);
            }
        }
        sum_ns
    }

    /// The tally at this moment, or at the first one after it that there is a tally of.
    fn earliest_from(&self, ts_ns: u64) -> Option<(u64, Tally)> {
        let place = place_before(&self.stints, ts_ns.saturating_add(1));
        if let Some(stint) = place
            .checked_sub(1)
            .and_then(|place| self.stints.get(place))
        {
            return Some((ts_ns, self.tally(stint, ts_ns)));
        }
        let mark = self.marks.partition_point(|&(from_ns, _)| from_ns < ts_ns);
        let first = self
            .stints
            .get(0)
            .map(|stint| (stint.from_ns, stint.before));
        let mark = self.marks.get(mark).copied();
        first
            .into_iter()
            .chain(mark)
            .min_by_key(|&(ts_ns, _)| ts_ns)
    }
}

/// How many stints began before this moment. Mostly it is one of the last.
fn place_before(stints: &Latest<Stint>, ts_ns: u64) -> usize {
    let is_later = |place: usize| stints.get(place).is_some_and(|s| s.from_ns >= ts_ns);
    let mut reach = 4;
    while reach < stints.len() && is_later(stints.len() - reach) {
        reach *= 8;
    }
    let (mut low, mut high) = (stints.len().saturating_sub(reach), stints.len());
    while low < high {
        let middle = low.midpoint(high);
        if is_later(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::{
        Holder, InterruptKind, Interrupted, MAX_STINTS, Runner, STINTS_A_MARK, Timeline, Use,
    };
    use crate::core::threads::Slot;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn holder(number: u64) -> Holder {
        match number {
            0 => Holder::Idle,
            9 => Holder::Unknown,
            serial => Holder::Thread(Runner {
                slot: Slot::default(),
                serial,
            }),
        }
    }

    #[test]
    fn a_stay_is_divided_between_those_who_ran() {
        let mut timeline = Timeline::default();
        for (ts_ns, who) in [(100, 1), (150, 0), (170, 2), (200, 9), (210, 1)] {
            timeline.hold(3, ts_ns, holder(who));
        }
        let mut named = Vec::new();
        let used = timeline.divide(3, 120..230, 100, |runner, duration_ns| {
            named.push((runner.serial, duration_ns));
        });
        assert_eq!(named, [(1, 20), (2, 30), (1, 30)]);
        let expected = Use {
            busy_ns: 80,
            idle_ns: 20,
            unknown_ns: 10,
        };
        assert_eq!(used, expected);
        timeline.discredit(3);
        let used = timeline.divide(3, 210..230, 100, |_, _| {});
        assert_eq!(used.unknown_ns, 20);
        let used = timeline.divide(0, 120..230, 100, |_, _| {});
        assert_eq!(used.unknown_ns, 110, "nothing is known of that CPU");
    }

    #[test]
    fn interrupts_take_from_threads_and_from_idling() {
        let mut timeline = Timeline::default();
        timeline.hold(0, 100, holder(1));
        timeline.interrupt(0, Interrupted::of(150..200, [0, 30, 0, 10]));
        timeline.hold(0, 200, holder(0));
        timeline.interrupt(0, Interrupted::of(200..300, [5, 0, 0, 0]));
        timeline.hold(0, 300, holder(2));
        let mut named = Vec::new();
        let used = timeline.divide(0, 100..310, 100, |runner, duration_ns| {
            named.push((runner.kind(), runner.serial, duration_ns));
        });
        let of = |kind: InterruptKind| Runner::interrupts(kind).serial;
        let (network, other) = (InterruptKind::Network, InterruptKind::Other);
        let expected = [
            (None, 2, 10),
            (Some(InterruptKind::Timer), of(InterruptKind::Timer), 5),
            (Some(network), of(network), 30),
            (Some(other), of(other), 10),
            (None, 1, 60),
        ];
        assert_eq!(named, expected);
        let expected = Use {
            busy_ns: 115,
            idle_ns: 95,
            unknown_ns: 0,
        };
        assert_eq!(used, expected);
    }

    #[test]
    fn what_is_too_long_ago_has_a_cause_but_no_name() {
        let mut timeline = Timeline::default();
        let count = MAX_STINTS as u64 * 3;
        for number in 0..count {
            timeline.hold(0, number * 10, holder(number % 2));
        }
        let mut named_ns = 0;
        let all_ns = (count - 1) * 10;
        let used = timeline.divide(0, 0..all_ns, usize::MAX, |_, duration_ns| {
            named_ns += duration_ns;
        });
        assert_eq!(used.busy_ns + used.idle_ns + used.unknown_ns, all_ns);
        assert_eq!(named_ns, (MAX_STINTS as u64 - 1) / 2 * 10);
        // Before the first mark nothing is known.
        assert!(used.unknown_ns <= u64::from(STINTS_A_MARK) * 10, "{used:?}");
        assert_eq!(used.busy_ns, used.idle_ns);
    }

    proptest! {
        #[test]
        fn every_nanosecond_has_one_holder(
            steps in prop::collection::vec((0u64..50, 0u64..10, 0u32..30), 1..200),
            from in 0u64..1500,
            length in 0u64..1500,
            reach in 0usize..200,
        ) {
            let mut timeline = Timeline::default();
            // Who had each nanosecond, and where interrupts were told of.
            let mut truth: BTreeMap<u64, u64> = BTreeMap::new();
            let mut told: Vec<Interrupted> = Vec::new();
            let mut now = 10;
            for (step, who, ns) in steps {
                let interrupted = Interrupted::of(now..now + step, [0, ns, ns / 2, 0]);
                if !truth.is_empty() && let Some(interrupted) = interrupted.not_before(now) {
                    timeline.interrupt(0, interrupted);
                    told.push(interrupted);
                }
                now += step;
                timeline.hold(0, now, holder(who));
                truth.insert(now, who);
            }
            let window = from..from + length;
            let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
            for ns in window.clone() {
                let who = truth.range(..=ns).next_back().map_or(9, |(_, &who)| who);
                *expected.entry(who).or_default() += 1;
            }
            for its in told {
                let (_, &who) = truth.range(..=its.from_ns).next_back().expect("a holder");
                if who != 9 {
                    for (kind, ns) in its.within(&window) {
                        *expected.entry(who).or_default() -= ns;
                        *expected.entry(Runner::interrupts(kind).serial).or_default() += ns;
                    }
                }
            }
            expected.retain(|_, ns| *ns > 0);
            let unknown_ns = expected.remove(&9).unwrap_or(0);
            let idle_ns = expected.remove(&0).unwrap_or(0);
            let busy_ns = expected.values().sum();
            let mut got: BTreeMap<u64, u64> = BTreeMap::new();
            let mut named = |runner: Runner, duration_ns: u64| {
                *got.entry(runner.serial).or_default() += duration_ns;
            };
            let used = timeline.divide(0, window.clone(), usize::MAX, &mut named);
            prop_assert_eq!(used, Use { busy_ns, idle_ns, unknown_ns });
            prop_assert_eq!(&got, &expected);
            // With few steps the causes are the same, and only names are missing.
            let used = timeline.divide(0, window, reach, |_, _| {});
            if reach > 0 {
                prop_assert_eq!(used, Use { busy_ns, idle_ns, unknown_ns });
            }
        }
    }
}
