//! Native histograms of Prometheus: exponential buckets, as fine as the figures that they are made from.

use crate::core::LatencyHistogram;

/// Buckets of the host's and the targets' histograms: each is 2^(1/32), 2.2%, wide.
pub(super) const SCHEMA: i32 = 5;

/// Buckets of the units' histograms, of which there are many: each is 2^(1/8), 9.1%, wide.
pub(super) const UNIT_SCHEMA: i32 = 3;

/// What is shorter has the bucket of its own that every native histogram has for zero: the clock's step.
pub(super) const ZERO_THRESHOLD: f64 = 1e-9;

/// The buckets that hold something.
///
/// Bucket `i` of schema `s` takes what is above `2^((i-1) / 2^s)` seconds, and at most `2^(i / 2^s)`. A
/// duration counts where the end of its finer bucket lies: in its own bucket or, for one in the last part
/// in 128 below the bound, in the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Native {
    pub(super) schema: i32,
    /// What is at most [`ZERO_THRESHOLD`].
    pub(super) zeros: u64,
    /// Number and count, rising.
    pub(super) buckets: Vec<(i32, u64)>,
}

impl Native {
    pub(super) fn new(of: &LatencyHistogram, schema: i32) -> Self {
        let mut native = Self {
            schema,
            ..Self::default()
        };
        for (end_ns, count) in of.buckets() {
            if end_ns <= 1 {
                native.zeros += count;
                continue;
            }
            let number = number(end_ns, schema);
            match native.buckets.last_mut() {
                Some((last, sum)) if *last == number => *sum += count,
                _ => native.buckets.push((number, count)),
            }
        }
        native
    }
}

/// The bucket of a duration.
fn number(ns: u64, schema: i32) -> i32 {
    let exact = (ns as f64 / 1e9).log2() * f64::from(1 << schema);
    // Some hundreds: 64 bits of nanoseconds are 2^34 s.
    #[expect(clippy::cast_possible_truncation, reason = "between -1000 and 1200")]
    let number = exact.ceil() as i32;
    number
}

#[cfg(test)]
mod tests {
    use super::{Native, SCHEMA, UNIT_SCHEMA, number};
    use crate::core::LatencyHistogram;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below() {
        assert_eq!(number(1_000_000_000, SCHEMA), 0);
        assert_eq!(number(1_000_000_001, SCHEMA), 1);
        assert_eq!(number(2_000_000_000, SCHEMA), 32);
        assert_eq!(number(500_000_000, UNIT_SCHEMA), -8);
        assert!(number(u64::MAX, SCHEMA) < 1200);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_a_bucket_is_off_by_one_at_most(
            values in prop::collection::vec((0u32..43).prop_flat_map(|p| 0u64..(1 << p).max(2)), 1..200),
            is_unit in any::<bool>(),
        ) {
            let mut histogram = LatencyHistogram::default();
            let schema = if is_unit { UNIT_SCHEMA } else { SCHEMA };
            let error = LatencyHistogram::RELATIVE_ERROR;
            for &value in &values {
                histogram.record(value);
            }
            let native = Native::new(&histogram, schema);
            let counted: u64 = native.buckets.iter().map(|bucket| bucket.1).sum();
            prop_assert_eq!(counted + native.zeros, values.len() as u64);
            prop_assert!(native.buckets.is_sorted_by(|left, right| left.0 < right.0));
            let within = |bound: f64| values.iter().filter(|&&v| v as f64 <= bound).count() as u64;
            let mut sum = native.zeros;
            for &(number, count) in &native.buckets {
                sum += count;
                let bound_ns = 1e9 * (f64::from(number) / f64::from(1 << schema)).exp2();
                // One nanosecond for the rounding of bounds.
                prop_assert!(sum <= within(bound_ns + 1.0));
                prop_assert!(sum >= within(bound_ns / (1.0 + error) - 1.0));
            }
        }
    }
}
