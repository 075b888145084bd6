//! When cgroups were out of CPU quota, on kernels that stop a whole group at once (before Linux 6.18).
//!
//! Of each group on each CPU its times with and without quota are kept. A beginning or an end that nobody
//! saw never makes a group look held back, or free, for longer than is certain: what was before the
//! probes came, or was lost, follows from the next record or from a thread that runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use profiler_ebpf::Throttle;

use super::thread::NEVER;

/// What a group may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quota {
    /// It may run.
    Left,
    /// It is held back.
    UsedUp,
    /// Nobody can tell.
    Unknown,
}

/// A time of a group; it lasts until the next one begins.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    from_ns: u64,
    quota: Quota,
}

/// One cgroup on one CPU.
#[derive(Debug, Default)]
struct Group {
    stretches: VecDeque<Stretch>,
    /// What was before the first stretch is forgotten; else there was quota.
    is_cut: bool,
}

/// When groups were held back. Bounded: what is older is not known any more.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    groups: BTreeMap<(u64, u32), Group>,
    /// Groups of which it is not known what they may do now.
    doubtful: usize,
    /// What began before this may have begun unseen: records were lost, or a group was forgotten.
    unseen_ns: u64,
    /// Groups with quotas that no record tells of.
    untold: BTreeSet<u64>,
}

/// Times kept of one group on one CPU, two for each period, which is 100 ms unless somebody set it
/// otherwise.
const MAX_STRETCHES: usize = 512;
/// Groups kept, one on each CPU counted apart.
const MAX_GROUPS: usize = 1 << 14;

impl Group {
    fn quota(&self) -> Quota {
        self.stretches.back().map_or(Quota::Left, |last| last.quota)
    }

    /// When it was last heard of. A group that is held back is heard of when that ends.
    fn last_ns(&self) -> u64 {
        match self.stretches.back() {
            Some(last) if last.quota == Quota::UsedUp => NEVER,
            Some(last) => last.from_ns,
            None => 0,
        }
    }

    /// From now on something else holds. Time never goes back.
    fn turn(&mut self, from_ns: u64, quota: Quota) {
        if self.quota() == quota {
            return;
        }
        let from_ns = self
            .stretches
            .back()
            .map_or(from_ns, |last| from_ns.max(last.from_ns));
        self.stretches.push_back(Stretch { from_ns, quota });
        if self.stretches.len() > MAX_STRETCHES {
            self.stretches.pop_front();
            self.is_cut = true;
        }
    }

    /// It was held back up to now, as is known only now, at least since `from_ns`.
    fn was_held(&mut self, from_ns: u64) {
        while let Some(last) = self.stretches.back()
            && last.quota == Quota::Unknown
            && last.from_ns >= from_ns
        {
            self.stretches.pop_back();
        }
        self.turn(from_ns, Quota::UsedUp);
    }
}

impl Quotas {
    /// Whether no group was ever held back, as far as anybody can tell.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.untold.is_empty()
    }

    /// These groups have quotas, and no record will tell when they are used up.
    pub(super) fn untold(&mut self, groups: BTreeSet<u64>) {
        self.untold = groups;
    }

    pub(super) fn take_in(&mut self, record: &Throttle) {
        let key = (record.cgroup, record.cpu);
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.forget_half();
        }
        let group = self.groups.entry(key).or_default();
        let was = group.quota();
        self.doubtful -= usize::from(was == Quota::Unknown);
        if record.on != 0 {
            group.turn(record.ts_ns, Quota::UsedUp);
            return;
        }
        let turned_ns = group.stretches.back().map_or(0, |last| last.from_ns);
        // Else it had quota, and that it was used up could not be missed.
        if was == Quota::Unknown || turned_ns <= self.unseen_ns {
            let since_ns = match record.since_ns {
                0 => self.unseen_ns,
                since_ns => since_ns,
            };
            group.was_held(since_ns.min(record.ts_ns));
        }
        group.turn(record.ts_ns, Quota::Left);
    }

    /// Records were lost in this time: an end may be among them, and a beginning.
    #[cold]
    pub(super) fn lose(&mut self, from_ns: u64, until_ns: u64) {
        self.unseen_ns = self.unseen_ns.max(until_ns);
        for group in self.groups.values_mut() {
            if group.quota() == Quota::UsedUp {
                group.turn(from_ns, Quota::Unknown);
                self.doubtful += 1;
            }
        }
    }

    /// A thread of this group gets this CPU, so there is quota.
    #[inline]
    pub(super) fn runs(&mut self, cgroup: u64, cpu: usize, ts_ns: u64) {
        if self.doubtful > 0 {
            self.settle_doubt(cgroup, cpu, ts_ns);
        }
    }

    #[cold]
    fn settle_doubt(&mut self, cgroup: u64, cpu: usize, ts_ns: u64) {
        let key = u32::try_from(cpu).map(|cpu| (cgroup, cpu));
        if let Some(group) = key.ok().and_then(|key| self.groups.get_mut(&key))
            && group.quota() == Quota::Unknown
        {
            group.turn(ts_ns, Quota::Left);
            self.doubtful -= 1;
        }
    }

    /// Drops the half of the groups of which nothing was heard for the longest time: one by one would
    /// take a search each.
    fn forget_half(&mut self) {
        let mut last_ns: Vec<u64> = self.groups.values().map(Group::last_ns).collect();
        let middle = last_ns.len() / 2;
        let (_, &mut until_ns, _) = last_ns.select_nth_unstable(middle);
        self.groups.retain(|_, group| group.last_ns() > until_ns);
        self.unseen_ns = self.unseen_ns.max(until_ns);
        let is_doubtful = |group: &&Group| group.quota() == Quota::Unknown;
        self.doubtful = self.groups.values().filter(is_doubtful).count();
    }

    /// Tells `visit` what a group could do on a CPU in this time, which is covered whole, the latest first.
    pub(super) fn divide(
        &self,
        cgroup: u64,
        cpu: usize,
        time_ns: Range<u64>,
        mut visit: impl FnMut(Range<u64>, Quota),
    ) {
        if self.untold.contains(&cgroup) {
            return visit(time_ns, Quota::Unknown);
        }
        let key = u32::try_from(cpu).map(|cpu| (cgroup, cpu));
        let Some(group) = key.ok().and_then(|key| self.groups.get(&key)) else {
            return visit(time_ns, Quota::Left);
        };
        let mut end_ns = time_ns.end;
        for stretch in group.stretches.iter().rev() {
            if end_ns <= time_ns.start {
                return;
            }
            let start_ns = stretch.from_ns.clamp(time_ns.start, end_ns);
            if start_ns < end_ns {
                visit(start_ns..end_ns, stretch.quota);
                end_ns = start_ns;
            }
        }
        if end_ns > time_ns.start {
            let quota = if group.is_cut {
                Quota::Unknown
            } else {
                Quota::Left
            };
            visit(time_ns.start..end_ns, quota);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        MAX_GROUPS, MAX_STRETCHES, Quota,
        Quota::{Left, Unknown, UsedUp},
        Quotas,
    };
    use profiler_ebpf::Throttle;
    use std::ops::Range;

    fn throttle(ts_ns: u64, on: u8, since_ns: u64) -> Throttle {
        Throttle {
            ts_ns,
            cgroup: 7,
            cpu: 1,
            on,
            since_ns,
            ..Throttle::default()
        }
    }

    fn after(records: &[(u64, u8, u64)]) -> Quotas {
        let mut quotas = Quotas::default();
        for &(ts_ns, on, since_ns) in records {
            quotas.take_in(&throttle(ts_ns, on, since_ns));
        }
        quotas
    }

    fn parts(
        quotas: &Quotas,
        cgroup: u64,
        cpu: usize,
        time_ns: Range<u64>,
    ) -> Vec<(Range<u64>, Quota)> {
        let mut parts = Vec::new();
        quotas.divide(cgroup, cpu, time_ns, |time_ns, quota| {
            parts.push((time_ns, quota));
        });
        parts.reverse();
        parts
    }

    #[track_caller]
    fn check(quotas: &Quotas, time_ns: Range<u64>, expected: &[(Range<u64>, Quota)]) {
        assert_eq!(parts(quotas, 7, 1, time_ns), expected);
    }

    #[test]
    fn times_are_cut_to_what_is_asked_for() {
        let quotas = after(&[(100, 1, 0), (200, 0, 120), (300, 1, 0), (310, 1, 0)]);
        check(
            &quotas,
            150..1000,
            &[(150..200, UsedUp), (200..300, Left), (300..1000, UsedUp)],
        );
        check(&quotas, 0..150, &[(0..100, Left), (100..150, UsedUp)]);
        check(&quotas, 200..300, &[(200..300, Left)]);
        check(&quotas, 250..250, &[]);
        for (cgroup, cpu) in [(7, 0), (8, 1)] {
            let other = parts(&quotas, cgroup, cpu, 0..1000);
            assert_eq!(other, [(0..1000, Left)], "group {cgroup} on CPU {cpu}");
        }
    }

    #[test]
    fn a_group_that_was_held_back_when_the_probes_came_is_known_by_its_end() {
        check(
            &after(&[(200, 0, 0)]),
            50..300,
            &[(50..200, UsedUp), (200..300, Left)],
        );
        let with_stamp = after(&[(200, 0, 90)]);
        check(
            &with_stamp,
            50..300,
            &[(50..90, Left), (90..200, UsedUp), (200..300, Left)],
        );
    }

    #[test]
    fn an_end_that_was_lost_does_not_hold_a_group_for_ever() {
        let mut quotas = after(&[(100, 1, 0)]);
        quotas.lose(150, 160);
        check(
            &quotas,
            100..900,
            &[(100..150, UsedUp), (150..900, Unknown)],
        );
        quotas.runs(7, 0, 400);
        quotas.runs(8, 1, 400);
        check(&quotas, 200..900, &[(200..900, Unknown)]);
        quotas.runs(7, 1, 500);
        check(&quotas, 200..900, &[(200..500, Unknown), (500..900, Left)]);
        assert_eq!(quotas.doubtful, 0);
    }

    #[test]
    fn after_a_loss_the_next_record_says_what_was() {
        let lossy = || {
            let mut quotas = after(&[(100, 1, 0)]);
            quotas.lose(150, 160);
            quotas
        };
        let mut again = lossy();
        again.take_in(&throttle(300, 1, 0));
        check(
            &again,
            140..400,
            &[(140..150, UsedUp), (150..300, Unknown), (300..400, UsedUp)],
        );
        let mut ended = lossy();
        ended.take_in(&throttle(300, 0, 0));
        check(
            &ended,
            140..400,
            &[
                (140..150, UsedUp),
                (150..160, Unknown),
                (160..300, UsedUp),
                (300..400, Left),
            ],
        );
        // By the kernel's stamp it is the same time that was known of before.
        let mut stamped = lossy();
        stamped.take_in(&throttle(300, 0, 100));
        check(&stamped, 140..400, &[(140..300, UsedUp), (300..400, Left)]);
        for quotas in [again, ended, stamped] {
            assert_eq!(quotas.doubtful, 0);
        }
    }

    #[test]
    fn a_beginning_that_was_lost_is_known_by_its_end() {
        let mut quotas = after(&[(100, 1, 0), (120, 0, 0)]);
        quotas.lose(150, 160);
        quotas.take_in(&throttle(200, 0, 0));
        check(
            &quotas,
            110..300,
            &[
                (110..120, UsedUp),
                (120..160, Left),
                (160..200, UsedUp),
                (200..300, Left),
            ],
        );
        // Where nothing was lost there is no beginning to miss.
        quotas.take_in(&throttle(400, 0, 0));
        check(&quotas, 200..500, &[(200..500, Left)]);
    }

    #[test]
    fn what_no_record_tells_of_is_not_known() {
        let mut quotas = Quotas::default();
        assert!(quotas.is_empty());
        quotas.untold([7].into());
        assert!(!quotas.is_empty());
        check(&quotas, 0..10, &[(0..10, Unknown)]);
        assert_eq!(parts(&quotas, 8, 1, 0..10), [(0..10, Left)]);
    }

    #[test]
    fn what_is_forgotten_is_said_not_to_be_known() {
        let mut quotas = Quotas::default();
        for number in 1..=MAX_STRETCHES as u64 {
            quotas.take_in(&throttle(number * 100, 1, 0));
            quotas.take_in(&throttle(number * 100 + 50, 0, 0));
        }
        assert_eq!(parts(&quotas, 7, 1, 0..10), [(0..10, Unknown)]);
        let kept = &quotas.groups[&(7, 1)].stretches;
        assert_eq!(kept.len(), MAX_STRETCHES);
    }

    #[test]
    fn groups_are_bounded_and_one_that_is_held_back_is_kept() {
        let mut quotas = after(&[(1, 1, 0)]);
        for cgroup in 0..MAX_GROUPS as u64 {
            let record = |ts_ns, on| Throttle {
                cgroup: 100 + cgroup,
                ..throttle(ts_ns, on, 0)
            };
            quotas.take_in(&record(10 + cgroup, 1));
            quotas.take_in(&record(11 + cgroup, 0));
        }
        let kept = quotas.groups.len();
        assert!((MAX_GROUPS / 2..=MAX_GROUPS).contains(&kept), "{kept}");
        assert!(!quotas.groups.contains_key(&(100, 1)), "the oldest");
        let newest = 99 + MAX_GROUPS as u64;
        assert!(quotas.groups.contains_key(&(newest, 1)), "the newest");
        check(&quotas, 0..9, &[(0..1, Left), (1..9, UsedUp)]);
    }
}
