//! Who or what counts most: bounded sums by key.

use std::collections::BTreeMap;

/// How often and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Times.
    pub count: u64,
    /// All of them together, in nanoseconds.
    pub ns: u128,
}

impl Weight {
    /// One time of this duration.
    #[must_use]
    pub fn once(ns: u64) -> Self {
        Self {
            count: 1,
            ns: u128::from(ns),
        }
    }

    fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.ns = self.ns.saturating_add(other.ns);
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            ns: self.ns.saturating_sub(earlier.ns),
        }
    }
}

/// Sums by key, of the keys that count most; what is folded is counted as [`Ranking::other`], so that
/// all of it together is exact.
///
/// When there is no room for a new key, the lighter half of all keys is folded. One that comes again
/// later begins anew: its sum may be too small, never too large.
#[derive(Clone, Debug)]
pub struct Ranking<K, L = ()> {
    rows: BTreeMap<K, (L, Weight)>,
    other: Weight,
}

/// Most keys that are kept apart.
pub const MAX_KEYS: usize = 128;

impl<K, L> Default for Ranking<K, L> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            other: Weight::default(),
        }
    }
}

impl<K, L> Ranking<K, L> {
    /// Bytes of memory that it takes beside itself, about.
    pub(super) fn heap_bytes(&self) -> usize {
        self.rows.len() * size_of::<(K, L, Weight)>()
    }
}

impl<K: Copy + Ord, L: Clone> Ranking<K, L> {
    /// Adds to a key's sum; `label` is what is kept with a new one.
    pub(super) fn add(&mut self, key: K, weight: Weight, label: impl FnOnce() -> L) {
        if let Some((_, sum)) = self.rows.get_mut(&key) {
            return sum.add(weight);
        }
        if self.rows.len() >= MAX_KEYS {
            self.fold();
        }
        self.rows.insert(key, (label(), weight));
    }

    /// Adds the sums of another one.
    pub fn merge(&mut self, other: &Self) {
        for (key, (label, weight)) in &other.rows {
            self.add(*key, *weight, || label.clone());
        }
        self.add_other(other.other);
    }

    /// Adds what has no key.
    pub(super) fn add_other(&mut self, weight: Weight) {
        self.other.add(weight);
    }

    fn fold(&mut self) {
        let mut keys: Vec<(Weight, K)> = self.rows.iter().map(|(k, (_, w))| (*w, *k)).collect();
        keys.sort_by_key(|&(weight, key)| (weight.ns, weight.count, key));
        for (weight, key) in keys.into_iter().take(MAX_KEYS / 2) {
            self.rows.remove(&key);
            self.other.add(weight);
        }
    }

    /// The keys with their sums, the heaviest first.
    #[must_use]
    pub fn rows(&self) -> Vec<(K, &L, Weight)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(k, (l, w))| (*k, l, *w)).collect();
        rows.sort_by_key(|&(key, _, weight)| (std::cmp::Reverse((weight.ns, weight.count)), key));
        rows
    }

    /// What was folded, and what never had a key.
    #[must_use]
    pub fn other(&self) -> Weight {
        self.other
    }

    /// Replaces what is kept with the keys, where there is something newer.
    pub(super) fn relabel(&mut self, newer: impl Fn(&K) -> Option<L>) {
        for (key, (label, _)) in &mut self.rows {
            if let Some(newer) = newer(key) {
                *label = newer;
            }
        }
    }

    /// What was added since `earlier`, an older copy of this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let rows = self
            .rows
            .iter()
            .map(|(key, (label, weight))| {
                let before = earlier.rows.get(key).map_or(Weight::default(), |row| row.1);
                (*key, (label.clone(), weight.since(before)))
            })
            .filter(|(_, (_, weight))| *weight != Weight::default())
            .collect();
        Self {
            rows,
            other: self.other.since(earlier.other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_KEYS, Ranking, Weight};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_heaviest_stay(
            weights in prop::collection::vec((0u32..400, 1u64..1000), 0..2000),
        ) {
            let mut ranking: Ranking<u32> = Ranking::default();
            let mut all = 0;
            for &(key, ns) in &weights {
                ranking.add(key, Weight::once(ns), || ());
                all += u128::from(ns);
            }
            // One that is heavier than all others together can't be folded once it is in.
            ranking.add(1000, Weight::once(10_000_000), || ());
            for &(key, ns) in &weights {
                ranking.add(key, Weight::once(ns), || ());
                all += u128::from(ns);
            }
            let rows = ranking.rows();
            prop_assert!(rows.len() <= MAX_KEYS);
            prop_assert_eq!(rows[0].0, 1000);
            let sum: u128 = rows.iter().map(|row| row.2.ns).sum();
            prop_assert_eq!(sum + ranking.other().ns, all + 10_000_000);
        }
    }

    #[test]
    fn a_difference_leaves_out_what_did_not_grow() {
        let mut ranking: Ranking<u32, &str> = Ranking::default();
        ranking.add(1, Weight::once(10), || "a");
        ranking.add(2, Weight::once(5), || "b");
        let earlier = ranking.clone();
        ranking.add(2, Weight::once(7), || "never asked for");
        ranking.add_other(Weight::once(3));
        let since = ranking.since(&earlier);
        assert_eq!(since.rows(), [(2, &"b", Weight::once(7))]);
        assert_eq!(since.other(), Weight::once(3));
    }
}
