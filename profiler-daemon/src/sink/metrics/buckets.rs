//! The buckets of the histograms on `/metrics`.

use crate::core::LatencyHistogram;

/// Upper bounds in nanoseconds: 1 to 10 s in steps of 2.5, 2 and 2 (two and a half octaves of ten).
///
/// They are round, so that a rule can say `le="0.01"`, and not edges of the finer buckets that the
/// figures are kept in, which are at most one part in 128 wide. A duration counts towards a bound only
/// if the whole of its finer bucket lies within it: never one that is longer than the bound, and always
/// one that is at least one part in 128 shorter.
pub const BOUNDS_NS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Counts between each bound and the one before; the last is what is above all bounds.
#[must_use]
pub fn counts(histogram: &LatencyHistogram) -> [u64; BOUNDS_NS.len() + 1] {
    let mut counts = [0; BOUNDS_NS.len() + 1];
    add(&mut counts, histogram.buckets());
    counts
}

/// Adds finer buckets, given by their ends and counts, to such counts.
pub fn add(counts: &mut [u64; BOUNDS_NS.len() + 1], finer: impl Iterator<Item = (u64, u64)>) {
    for (end_ns, count) in finer {
        counts[BOUNDS_NS.partition_point(|&bound_ns| bound_ns < end_ns)] += count;
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS_NS, counts};
    use crate::core::LatencyHistogram;
    use proptest::prelude::*;

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS_NS.is_sorted_by(|left, right| left < right));
    }

    proptest! {
        #[test]
        fn a_bound_is_never_flattered(
            values in prop::collection::vec((0u32..40).prop_flat_map(|p| 0u64..(2 << p)), 0..300),
        ) {
            let mut histogram = LatencyHistogram::default();
            for &value in &values {
                histogram.record(value);
            }
            let counts = counts(&histogram);
            prop_assert_eq!(counts.iter().sum::<u64>(), histogram.count());
            let mut within = 0;
            for (&bound_ns, count) in BOUNDS_NS.iter().zip(counts) {
                within += count;
                let at_most = |limit: f64| {
                    values.iter().filter(|&&value| value as f64 <= limit).count() as u64
                };
                prop_assert!(within <= at_most(bound_ns as f64));
                let surely = bound_ns as f64 / (1.0 + LatencyHistogram::RELATIVE_ERROR);
                prop_assert!(within >= at_most(surely));
            }
        }
    }
}
