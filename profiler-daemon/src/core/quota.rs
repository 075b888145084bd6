//! When cgroups were out of CPU quota, on kernels that stop a whole group at once (before Linux 6.18).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use profiler_ebpf::Throttle;

use super::thread::NEVER;

/// One cgroup on one CPU.
#[derive(Debug, Default)]
struct Group {
    /// When it was held back, in order; the end of the last may be [`NEVER`].
    held_ns: VecDeque<Range<u64>>,
    /// What was before this is forgotten.
    known_from_ns: u64,
}

/// When groups were held back. Bounded: what is older is not known any more.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    groups: BTreeMap<(u64, u32), Group>,
}

/// Times kept of one group on one CPU. A period is 100 ms unless somebody set it otherwise.
const MAX_TIMES: usize = 256;
/// Groups kept, one on each CPU counted apart.
const MAX_GROUPS: usize = 1 << 14;

impl Quotas {
    pub(super) fn take_in(&mut self, record: &Throttle) {
        let key = (record.cgroup, record.cpu);
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.forget_one();
        }
        let group = self.groups.entry(key).or_default();
        let open = group.held_ns.back_mut().filter(|held| held.end == NEVER);
        match (record.on != 0, open) {
            (true, None) => group.held_ns.push_back(record.ts_ns..NEVER),
            (true, Some(_)) | (false, None) => {}
            (false, Some(held)) => {
                held.start = held.start.max(record.since_ns);
                held.end = record.ts_ns.max(held.start);
            }
        }
        if group.held_ns.len() > MAX_TIMES
            && let Some(oldest) = group.held_ns.pop_front()
        {
            group.known_from_ns = oldest.end;
        }
    }

    /// Drops the group that has not been held back for the longest time.
    fn forget_one(&mut self) {
        let last = |group: &Group| group.held_ns.back().map_or(0, |held| held.end);
        let oldest = self.groups.iter().min_by_key(|(_, group)| last(group));
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.groups.remove(&key);
        }
    }

    /// When in this time a group was held back on a CPU, in order, and from when on that is known.
    pub(super) fn held(
        &self,
        cgroup: u64,
        cpu: usize,
        time_ns: &Range<u64>,
    ) -> (Vec<Range<u64>>, u64) {
        let key = u32::try_from(cpu).map(|cpu| (cgroup, cpu));
        let Some(group) = key.ok().and_then(|key| self.groups.get(&key)) else {
            return (Vec::new(), 0);
        };
        let held = group
            .held_ns
            .iter()
            .rev()
            .take_while(|held| held.end > time_ns.start)
            .map(|held| held.start.max(time_ns.start)..held.end.min(time_ns.end))
            .filter(|held| !held.is_empty())
            .collect::<Vec<_>>();
        (held.into_iter().rev().collect(), group.known_from_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_TIMES, Quotas};
    use profiler_ebpf::Throttle;

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

    #[test]
    fn times_are_cut_to_what_is_asked_for() {
        let mut quotas = Quotas::default();
        for record in [
            throttle(100, 1, 0),
            throttle(200, 0, 120),
            throttle(300, 1, 0),
            throttle(310, 1, 0),
        ] {
            quotas.take_in(&record);
        }
        assert_eq!(
            quotas.held(7, 1, &(150..1000)).0,
            [150..200, 300..1000],
            "the second goes on"
        );
        assert_eq!(quotas.held(7, 1, &(0..150)).0.first(), Some(&(120..150)));
        assert!(quotas.held(7, 1, &(200..300)).0.is_empty());
        assert!(quotas.held(7, 0, &(0..1000)).0.is_empty());
        assert!(quotas.held(8, 1, &(0..1000)).0.is_empty());
    }

    #[test]
    fn what_is_forgotten_is_said_not_to_be_known() {
        let mut quotas = Quotas::default();
        for number in 0..=MAX_TIMES as u64 {
            quotas.take_in(&throttle(number * 100, 1, 0));
            quotas.take_in(&throttle(number * 100 + 50, 0, 0));
        }
        assert_eq!(quotas.held(7, 1, &(0..10)).1, 50);
    }
}
