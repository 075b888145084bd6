//! Who took how much, for good: sums by name that never go back, of ranks that lose the light ones and
//! name the others better later.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Names that have a series of their own, for each victim.
pub const MAX_NAMES: usize = 32;

/// The name under which all others are summed up.
pub const OTHER: &str = "other";

/// What counts as of late: half of it is forgotten after this time.
const HALF_LIFE_NS: u64 = 300_000_000_000;

/// A name that nothing was added to for so long is forgotten: whatever had it has mostly gone.
const KEEP_NS: u64 = 3_600_000_000_000;

/// Keys that are remembered where those that are not there may come back. Beyond, such are forgotten.
const MAX_KEYS: usize = 4096;

/// Sums by name of what was seen to be added to each key.
///
/// What a key grows by is booked under the name that it has by then, once, also if the key was gone
/// meanwhile. What is not booked under a name is booked as [`OTHER`], so that all of it together is
/// the whole that is given, and nothing ever shrinks. There are at most so many names as it was told, [`MAX_NAMES`] by default. A new one
/// takes the place of the one that grew least of late, if it has grown more than that by itself, and one
/// that has not grown for an hour ends; the old one's sum is forgotten, and it begins at zero if it comes
/// back.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// Names at most.
    most: usize,
    /// Keys that are remembered at least; twice as many as there are now, if that is more.
    keys_kept: usize,
    /// Largest sum seen of each key.
    keys: HashMap<u64, u128>,
    names: BTreeMap<String, Sum>,
    /// All that was ever booked under a name, forgotten ones included.
    booked: u128,
    other: u128,
    at_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    total: u128,
    of_late: f64,
    /// When it last grew.
    grown_ns: u64,
}

impl Default for Attribution {
    fn default() -> Self {
        Self {
            most: MAX_NAMES,
            keys_kept: MAX_KEYS,
            keys: HashMap::new(),
            names: BTreeMap::new(),
            booked: 0,
            other: 0,
            at_ns: 0,
        }
    }
}

impl Attribution {
    /// Nothing has been booked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// [`Self::new`] with at most so many names, which forgets keys soon: for those that never come back once they are
    /// gone.
    #[must_use]
    pub fn forgetting(most: usize) -> Self {
        Self {
            most,
            keys_kept: most,
            ..Self::default()
        }
    }

    /// Books what was added since the last time: `rows` are keys with their names and sums as of
    /// `at_ns`, each key once; `whole` is the sum of all keys, of those without a row, too.
    pub fn book(
        &mut self,
        rows: impl IntoIterator<Item = (u64, String, u128)>,
        whole: u128,
        at_ns: u64,
    ) {
        let mut growth: BTreeMap<String, u128> = BTreeMap::new();
        let mut there = HashSet::new();
        for (key, name, sum) in rows {
            there.insert(key);
            let most = self.keys.entry(key).or_default();
            let grown = sum.saturating_sub(*most);
            *most = sum.max(*most);
            if grown > 0 && !name.is_empty() && name != OTHER {
                *growth.entry(name).or_default() += grown;
            }
        }
        if self.keys.len() > self.keys_kept.max(2 * there.len()) {
            self.keys.retain(|key, _| there.contains(key));
            self.keys.shrink_to(self.keys_kept);
        }
        self.forget(at_ns);
        let (old, mut new): (Vec<_>, Vec<_>) = growth
            .into_iter()
            .partition(|(name, _)| self.names.contains_key(name));
        new.sort_by_key(|&(_, grown)| std::cmp::Reverse(grown));
        // No more than there is: a key that was forgotten may come back with what it had.
        let mut left = whole.saturating_sub(self.booked.saturating_add(self.other));
        for (name, grown) in old.into_iter().chain(new) {
            let grown = grown.min(left);
            if grown > 0 && self.has_place(&name, grown) {
                let sum = self.names.entry(name).or_default();
                sum.total += grown;
                sum.of_late += grown as f64;
                sum.grown_ns = at_ns;
                self.booked += grown;
                left -= grown;
            }
        }
        self.other = self.other.max(whole.saturating_sub(self.booked));
    }

    fn forget(&mut self, at_ns: u64) {
        let elapsed_ns = at_ns.saturating_sub(self.at_ns);
        self.at_ns = at_ns;
        self.names
            .retain(|_, sum| at_ns.saturating_sub(sum.grown_ns) < KEEP_NS);
        let left = 0.5f64.powf(elapsed_ns as f64 / HALF_LIFE_NS as f64);
        for sum in self.names.values_mut() {
            sum.of_late *= left;
        }
    }

    fn has_place(&mut self, name: &str, grown: u128) -> bool {
        if self.names.contains_key(name) || self.names.len() < self.most {
            return true;
        }
        let least = self
            .names
            .iter()
            .min_by(|(_, left), (_, right)| left.of_late.total_cmp(&right.of_late));
        let Some((least, sum)) = least.map(|(name, sum)| (name.clone(), *sum)) else {
            return false;
        };
        if sum.of_late < grown as f64 {
            self.names.remove(&least);
            return true;
        }
        false
    }

    /// The names with their sums, and [`OTHER`] with all others'.
    pub fn sums(&self) -> impl Iterator<Item = (&str, u128)> {
        let names = self
            .names
            .iter()
            .map(|(name, sum)| (name.as_str(), sum.total));
        names.chain([(OTHER, self.other)])
    }
}

#[cfg(test)]
mod tests {
    use super::{Attribution, MAX_NAMES, OTHER};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn sums(of: &Attribution) -> BTreeMap<String, u128> {
        of.sums()
            .map(|(name, sum)| (name.to_owned(), sum))
            .collect()
    }

    fn row(key: u64, name: &str, sum: u128) -> (u64, String, u128) {
        (key, name.to_owned(), sum)
    }

    #[test]
    fn a_name_keeps_what_was_booked_under_it() {
        let mut of = Attribution::new();
        of.book([row(1, "a", 10), row(2, "b", 5)], 17, 0);
        assert_eq!(
            of.sums().collect::<Vec<_>>(),
            [("a", 10), ("b", 5), (OTHER, 2)]
        );
        // It has another name now, and the light one was folded.
        of.book([row(1, "c", 14)], 23, 1);
        assert_eq!(
            of.sums().collect::<Vec<_>>(),
            [("a", 10), ("b", 5), ("c", 4), (OTHER, 4)]
        );
        // The folded one comes back, and may have begun anew: only what is surely new counts as its.
        of.book([row(1, "c", 14), row(2, "b", 7)], 30, 2);
        assert_eq!(
            of.sums().collect::<Vec<_>>(),
            [("a", 10), ("b", 7), ("c", 4), (OTHER, 9)]
        );
    }

    #[test]
    fn a_whole_that_shrinks_takes_nothing_back() {
        let mut of = Attribution::new();
        of.book([row(1, "a", 10)], 12, 0);
        of.book([row(1, "a", 6)], 6, 1);
        assert_eq!(of.sums().collect::<Vec<_>>(), [("a", 10), (OTHER, 2)]);
        of.book([row(1, "a", 13)], 13, 2);
        assert_eq!(of.sums().collect::<Vec<_>>(), [("a", 11), (OTHER, 2)]);
    }

    #[test]
    fn what_has_not_grown_for_long_ends() {
        let mut of = Attribution::new();
        of.book([row(1, "a", 10), row(2, "b", 5)], 15, 0);
        of.book([row(1, "a", 10), row(2, "b", 6)], 16, super::KEEP_NS - 1);
        assert_eq!(sums(&of)["a"], 10);
        of.book([row(1, "a", 10), row(2, "b", 6)], 16, super::KEEP_NS);
        assert_eq!(of.sums().collect::<Vec<_>>(), [("b", 6), (OTHER, 0)]);
        of.book([row(1, "a", 13), row(2, "b", 6)], 19, super::KEEP_NS + 1);
        assert_eq!(
            of.sums().collect::<Vec<_>>(),
            [("a", 3), ("b", 6), (OTHER, 0)]
        );
    }

    #[test]
    fn what_has_no_name_is_among_the_others() {
        let mut of = Attribution::new();
        of.book([row(1, "", 10), row(2, OTHER, 5)], 20, 0);
        assert_eq!(of.sums().collect::<Vec<_>>(), [(OTHER, 20)]);
    }

    #[test]
    fn a_heavy_one_takes_the_place_of_one_that_has_stopped() {
        let mut of = Attribution::new();
        let first: Vec<_> = (0..MAX_NAMES as u64)
            .map(|key| row(key, &format!("n{key}"), 1_000 + u128::from(key)))
            .collect();
        let whole: u128 = first.iter().map(|row| row.2).sum();
        of.book(first.clone(), whole, 0);
        let mut rows = first.clone();
        rows.push(row(100, "light", 500));
        of.book(rows, whole + 500, 1);
        assert_eq!(sums(&of).get("light"), None);
        assert_eq!(sums(&of)[OTHER], 500);
        let mut rows = first;
        rows.push(row(100, "light", 500));
        rows.push(row(101, "heavy", 5_000));
        of.book(rows, whole + 5_500, 2);
        let now = sums(&of);
        assert_eq!(now["heavy"], 5_000);
        assert_eq!(now.get("n0"), None, "the one that grew least");
        assert_eq!((now[OTHER], now.len()), (500, MAX_NAMES + 1));
    }

    #[test]
    fn keys_that_never_come_back_are_not_kept() {
        let mut of = Attribution::forgetting(2);
        for key in 0..1000 {
            let rows = [
                row(0, "stays", 2 * u128::from(key) + 2),
                row(key + 1, "goes", 3),
            ];
            // What those had that are gone is nobody's in particular.
            of.book(rows, 5 * (u128::from(key) + 1), key);
            assert!(of.keys.len() <= 5, "{}", of.keys.len());
        }
        let expected = [("goes", 3000), ("stays", 2000), (OTHER, 0)];
        assert_eq!(of.sums().collect::<Vec<_>>(), expected);
    }

    proptest! {
        #[test]
        fn nothing_shrinks_and_the_whole_is_exact(
            steps in prop::collection::vec(
                (prop::collection::vec((0u64..60, 0u128..1000), 0..40), 0u128..50, any::<bool>()),
                1..20,
            ),
        ) {
            let mut of = Attribution::new();
            let mut truth: BTreeMap<u64, u128> = BTreeMap::new();
            let (mut folded, mut forgotten) = (0, 0);
            let mut before: BTreeMap<String, u128> = BTreeMap::new();
            for (step, (added, nameless, folds)) in steps.into_iter().enumerate() {
                for (key, sum) in added {
                    *truth.entry(key).or_default() += sum;
                }
                folded += nameless;
                if folds && let Some((_, sum)) = truth.pop_first() {
                    folded += sum;
                }
                let whole = truth.values().sum::<u128>() + folded;
                let rows = truth.iter().map(|(key, sum)| row(*key, &format!("n{}", key % 36), *sum));
                of.book(rows, whole, step as u64 * 1_000_000_000);
                let now = sums(&of);
                prop_assert!(now.len() <= MAX_NAMES + 1);
                for (name, sum) in &before {
                    match now.get(name) {
                        Some(its) => prop_assert!(its >= sum, "{}: {} to {}", name, sum, its),
                        None => forgotten += sum,
                    }
                }
                let all = now.values().sum::<u128>() + forgotten;
                prop_assert!(all <= whole && (all == whole || forgotten > 0), "{} of {}", all, whole);
                before = now;
            }
        }
    }
}
