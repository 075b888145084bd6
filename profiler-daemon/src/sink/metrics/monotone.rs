//! Counters that never go back, although what is counted may be understood better later.

/// Exports a whole that only grows, cut in parts whose borders may move.
///
/// Without wakeup records a thread that waits is counted as blocked until it gets a CPU; only then the
/// kernel's figure says how much of that time it was queued, and those nanoseconds move from one part
/// to another. A counter that shrinks would look like a restart, and invent a huge increase. So the
/// parts that have been given out too much stand still until the truth has caught up with them, and
/// what grew beside them waits meanwhile; the whole is exact at any time.
#[derive(Clone, Debug, Default)]
pub struct Monotone {
    exported: Vec<u128>,
}

impl Monotone {
    /// Nothing has been exported yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What to export now that the parts are `parts`, which must be as many as before.
    ///
    /// No part is below what was exported for it, and the sum is that of `parts`. Of all vectors like
    /// that it is the one nearest to `parts` (by the sum of squares, up to a rounding of 1 in a part),
    /// so it is `parts` itself wherever that is possible. When the sum of `parts` itself has gone back,
    /// everything stays as it was.
    pub fn export(&mut self, parts: &[u128]) -> &[u128] {
        self.divide(parts, sum(parts))
    }

    /// The same where the whole is a part of something larger, and was itself exported by one of these:
    /// the sum is `whole` instead of that of `parts`. It can be below, and above only as long as it
    /// stands still.
    pub fn divide(&mut self, parts: &[u128], whole: u128) -> &[u128] {
        self.exported.resize(parts.len(), 0);
        if whole > sum(&self.exported) {
            let lowered = lower_by(parts, &self.exported, cut(parts, &self.exported, whole));
            // The cut is a whole number: what it takes too much is less than 1 in each part it cuts.
            let mut missing = whole.saturating_sub(sum(&lowered));
            for (place, value) in lowered.into_iter().enumerate() {
                let give = missing > 0 && value < parts[place];
                missing -= u128::from(give);
                self.exported[place] = value + u128::from(give);
            }
        }
        &self.exported
    }
}

fn sum(parts: &[u128]) -> u128 {
    parts.iter().sum()
}

/// Each part less `cut`, but not below what has been exported.
fn lower_by(parts: &[u128], exported: &[u128], cut: u128) -> Vec<u128> {
    let pairs = parts.iter().zip(exported);
    pairs
        .map(|(part, &floor)| part.saturating_sub(cut).max(floor))
        .collect()
}

/// The smallest cut with which the sum is not above `whole`.
fn cut(parts: &[u128], exported: &[u128], whole: u128) -> u128 {
    let (mut low, mut high) = (0, parts.iter().copied().max().unwrap_or(0));
    while low < high {
        let middle = low + (high - low) / 2;
        if sum(&lower_by(parts, exported, middle)) <= whole {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::Monotone;
    use proptest::prelude::*;

    #[test]
    fn time_that_turns_out_to_be_another_kind_waits_until_it_can_be_told() {
        let mut exporter = Monotone::new();
        // Running, runnable, blocked.
        assert_eq!(exporter.export(&[10, 0, 90]), [10, 0, 90]);
        // Of the 90 blocked, 80 were queued, and 20 more have passed.
        assert_eq!(exporter.export(&[20, 80, 20]), [10, 20, 90]);
        assert_eq!(exporter.export(&[60, 80, 60]), [45, 65, 90]);
        assert_eq!(exporter.export(&[60, 80, 100]), [60, 80, 100]);
    }

    #[test]
    fn a_whole_that_shrinks_leaves_everything_as_it_was() {
        let mut exporter = Monotone::new();
        exporter.export(&[5, 5]);
        assert_eq!(exporter.export(&[9, 0]), [5, 5]);
        assert_eq!(exporter.export(&[9, 1]), [5, 5]);
        assert_eq!(exporter.export(&[9, 2]), [6, 5]);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut exporter = Monotone::new();
        // Far more than all threads of a host can ever have.
        let most = u128::from(u64::MAX) << 32;
        assert_eq!(exporter.export(&[most, 0]), [most, 0]);
        assert_eq!(exporter.export(&[0, most]), [most, 0]);
        assert_eq!(exporter.export(&[most, most]), [most, most]);
    }

    fn distance(left: &[u128], right: &[u128]) -> u128 {
        let pairs = left.iter().zip(right);
        pairs.map(|(&l, &r)| l.abs_diff(r).pow(2)).sum()
    }

    proptest! {
        #[test]
        fn parts_never_shrink_and_the_whole_is_exact(
            steps in prop::collection::vec(prop::collection::vec(0u128..1000, 4), 1..20),
        ) {
            let mut exporter = Monotone::new();
            let mut before = vec![0; 4];
            for parts in steps {
                let now = exporter.export(&parts).to_vec();
                prop_assert!(now.iter().zip(&before).all(|(now, before)| now >= before));
                let (whole, was) = (parts.iter().sum::<u128>(), before.iter().sum::<u128>());
                prop_assert_eq!(now.iter().sum::<u128>(), whole.max(was));
                if whole >= was && parts.iter().zip(&before).all(|(part, before)| part >= before) {
                    prop_assert_eq!(&now, &parts);
                }
                before = now;
            }
        }

        #[test]
        fn parts_of_parts_never_shrink_and_sum_to_theirs(
            steps in prop::collection::vec(prop::collection::vec(0u128..1000, 5), 1..20),
        ) {
            let (mut shares, mut reasons) = (Monotone::new(), Monotone::new());
            let mut before = vec![0; 3];
            for parts in steps {
                let (running, blocked) = parts.split_at(2);
                let whole = blocked.iter().sum();
                let share = shares.export(&[running[0], running[1], whole])[2];
                let now = reasons.divide(blocked, share).to_vec();
                prop_assert!(now.iter().zip(&before).all(|(now, before)| now >= before));
                prop_assert_eq!(now.iter().sum::<u128>(), share);
                before = now;
            }
        }

        #[test]
        fn nothing_allowed_is_nearer(
            before in prop::collection::vec(0u128..12, 3),
            parts in prop::collection::vec(0u128..24, 3),
        ) {
            let mut exporter = Monotone::new();
            exporter.export(&before);
            let now = exporter.export(&parts).to_vec();
            let whole = parts.iter().sum::<u128>();
            if whole >= before.iter().sum() {
                for first in before[0]..=whole {
                    for second in before[1]..=whole.saturating_sub(first) {
                        let third = whole - first - second;
                        if third >= before[2] {
                            let other = [first, second, third];
                            prop_assert!(
                                distance(&now, &parts) <= distance(&other, &parts),
                                "{:?} is nearer to {:?} than {:?}", other, parts, now
                            );
                        }
                    }
                }
            }
        }
    }
}
