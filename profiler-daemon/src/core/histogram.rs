//! Latency histograms: base-2 log-linear, with a bounded relative error and the exact maximum.

use histogram::{Config, Histogram};

/// Each octave is cut in 2^7 buckets: no value is more than 1/128 of itself away from its bucket's end.
const GROUPING_POWER: u8 = 7;

/// Values from 2^44 ns (4.9 hours) on share the last bucket; the maximum stays exact.
const MAX_VALUE_POWER: u8 = 44;

const MAX_VALUE: u64 = (1 << MAX_VALUE_POWER) - 1;

/// The quantiles that every report has.
pub const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Distribution of durations in nanoseconds.
///
/// An empty one holds no buckets, so a thread that never waits costs nothing.
#[derive(Clone, Default)]
pub struct LatencyHistogram {
    buckets: Option<Box<Histogram>>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl std::fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatencyHistogram")
            .field("count", &self.count)
            .field("sum_ns", &self.sum_ns)
            .field("max_ns", &self.max_ns)
            .finish_non_exhaustive()
    }
}

impl LatencyHistogram {
    /// Largest relative error of a quantile: at most this part of the true value above it.
    pub const RELATIVE_ERROR: f64 = 1.0 / (1u32 << GROUPING_POWER) as f64;

    /// Adds one duration.
    #[inline]
    pub fn record(&mut self, duration_ns: u64) {
        let Some(buckets) = self.buckets_mut() else {
            return;
        };
        // In range by the clamp, so this cannot fail.
        if buckets.increment(duration_ns.min(MAX_VALUE)).is_ok() {
            self.count += 1;
            self.sum_ns += u128::from(duration_ns);
            self.max_ns = self.max_ns.max(duration_ns);
        }
    }

    fn buckets_mut(&mut self) -> Option<&mut Histogram> {
        if self.buckets.is_none() {
            // The two constants make a valid configuration; a test holds that.
            let config = Config::new(GROUPING_POWER, MAX_VALUE_POWER).ok()?;
            self.buckets = Some(Box::new(Histogram::with_config(&config)));
        }
        self.buckets.as_deref_mut()
    }

    /// How many durations it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their exact sum, in nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    /// The longest, exact; 0 when empty. After [`Self::since`], if the longest was there before, the
    /// end of the highest bucket that grew.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The [`QUANTILES`], in nanoseconds: each is the end of the bucket in which it lies, so at most
    /// [`Self::RELATIVE_ERROR`] above the true one and never below it. Zeros when empty.
    #[must_use]
    pub fn quantiles_ns(&self) -> [u64; QUANTILES.len()] {
        let mut found = [const { None }; QUANTILES.len()];
        if let Some(buckets) = &self.buckets {
            // The quantiles are constants between 0 and 1, so this cannot fail.
            let _ = buckets.quantile_buckets_into(&QUANTILES, &mut found);
        }
        found.map(|bucket| bucket.map_or(0, |bucket| bucket.end().min(self.max_ns)))
    }

    /// The buckets that hold something: upper end (inclusive, nanoseconds) and count, rising.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets
            .iter()
            .flat_map(|buckets| buckets.iter())
            .filter(|bucket| bucket.count() > 0)
            .map(|bucket| (bucket.end(), bucket.count()))
    }

    /// What was added since `earlier`, an older copy of this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let (Some(now), Some(before)) = (&self.buckets, &earlier.buckets) else {
            return self.clone();
        };
        let Ok(buckets) = now.checked_sub(before) else {
            return self.clone();
        };
        let top_ns = buckets
            .iter()
            .filter(|b| b.count() > 0)
            .last()
            .map_or(0, |b| b.end());
        Self {
            count: self.count.saturating_sub(earlier.count),
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
            max_ns: if self.max_ns > earlier.max_ns {
                self.max_ns
            } else {
                top_ns.min(self.max_ns)
            },
            buckets: Some(Box::new(buckets)),
        }
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        if let Some(buckets) = &mut self.buckets {
            buckets.reset();
        }
        (self.count, self.sum_ns, self.max_ns) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{LatencyHistogram, QUANTILES};
    use proptest::prelude::*;

    fn of(values: &[u64]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::default();
        for &value in values {
            histogram.record(value);
        }
        histogram
    }

    #[test]
    fn empty_is_all_zero() {
        let empty = LatencyHistogram::default();
        assert_eq!((empty.count(), empty.sum_ns(), empty.max_ns()), (0, 0, 0));
        assert_eq!(empty.quantiles_ns(), [0; 4]);
    }

    #[test]
    fn the_longest_possible_wait_is_kept() {
        let histogram = of(&[u64::MAX, 1]);
        assert_eq!(histogram.max_ns(), u64::MAX);
        assert_eq!(histogram.count(), 2);
    }

    proptest! {
        #[test]
        fn quantiles_stay_within_the_stated_error(
            values in prop::collection::vec((0u32..43).prop_flat_map(|p| 0u64..(1 << p).max(2)), 1..400),
        ) {
            let histogram = of(&values);
            let mut sorted = values.clone();
            sorted.sort_unstable();
            prop_assert!(LatencyHistogram::RELATIVE_ERROR <= 0.01);
            // Nearest rank, in integers.
            let per_mille = [500, 900, 990, 999];
            for ((quantile, thousandths), got) in
                QUANTILES.iter().zip(per_mille).zip(histogram.quantiles_ns())
            {
                let rank = (sorted.len() * thousandths).div_ceil(1000).max(1);
                let truth = sorted[rank - 1];
                prop_assert!(got >= truth, "P{quantile}: {got} below the true {truth}");
                let allowed = truth as f64 * (1.0 + LatencyHistogram::RELATIVE_ERROR);
                prop_assert!(got as f64 <= allowed, "P{quantile}: {got} above {truth} by too much");
            }
            prop_assert_eq!(histogram.max_ns(), *sorted.last().unwrap_or(&0));
            prop_assert_eq!(histogram.sum_ns(), u128::from(values.iter().sum::<u64>()));
        }

        #[test]
        fn a_difference_holds_just_what_was_added(
            before in prop::collection::vec(0u64..1_000_000_000, 0..50),
            after in prop::collection::vec(0u64..1_000_000_000, 0..50),
        ) {
            let earlier = of(&before);
            let mut later = earlier.clone();
            for &value in &after {
                later.record(value);
            }
            let difference = later.since(&earlier);
            let expected = of(&after);
            prop_assert_eq!(difference.count(), expected.count());
            prop_assert_eq!(difference.sum_ns(), expected.sum_ns());
            prop_assert_eq!(
                difference.buckets().collect::<Vec<_>>(),
                expected.buckets().collect::<Vec<_>>()
            );
            prop_assert!(difference.max_ns() >= expected.max_ns());
            let allowed = expected.max_ns() as f64 * (1.0 + LatencyHistogram::RELATIVE_ERROR);
            prop_assert!(difference.max_ns() as f64 <= allowed);
        }
    }
}
