//! Whether two sets of figures differ by more than chance.

/// Two-sided p of the Mann-Whitney test: how likely it is that two sets from the same distribution differ
/// in rank by so much. By the normal approximation with ties, which is good from eight values each.
pub(super) fn mann_whitney(first: &[f64], second: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = first.iter().map(|&value| (value, true)).collect();
    all.extend(second.iter().map(|&value| (value, false)));
    all.sort_by(|left, right| left.0.total_cmp(&right.0));
    let (firsts, seconds) = (first.len() as f64, second.len() as f64);
    let total = firsts + seconds;
    let mut rank_sum = 0.0;
    let mut ties = 0.0;
    let mut start = 0;
    for run in all.chunk_by(|left, right| left.0.total_cmp(&right.0).is_eq()) {
        let length = run.len() as f64;
        // All of a run share the mean of their places, which count from one.
        let rank = start as f64 + f64::midpoint(1.0, length);
        rank_sum += rank * run.iter().filter(|(_, is_first)| *is_first).count() as f64;
        ties += length.powi(3) - length;
        start += run.len();
    }
    let wins = rank_sum - firsts * (firsts + 1.0) / 2.0;
    let spread = total + 1.0 - ties / (total * (total - 1.0));
    let variance = firsts * seconds / 12.0 * spread;
    if variance <= 0.0 || !variance.is_finite() {
        return 1.0;
    }
    // Half a rank is taken off for the step from ranks to the smooth curve.
    let distance = ((wins - firsts * seconds / 2.0).abs() - 0.5).max(0.0);
    two_sided(distance / variance.sqrt())
}

/// How much of the normal distribution lies beyond so many standard deviations, on both sides.
///
/// `erfc` by W. J. Cody's bound of Abramowitz and Stegun 7.1.26, exact to 2e-7.
fn two_sided(deviations: f64) -> f64 {
    let x = deviations / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [
        1.061_405_429,
        -1.453_152_027,
        1.421_413_741,
        -0.284_496_736,
        0.254_829_592,
    ];
    let sum = terms.into_iter().fold(0.0, |sum, term| (sum + term) * t);
    (sum * (-x * x).exp()).clamp(0.0, 1.0)
}

/// Which of these hold when all are asked at once: with `level`, the chance that any of them is found
/// where there is nothing (Holm's method).
pub(super) fn hold(p: &[f64], level: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&x, &y| p[x].total_cmp(&p[y]));
    let mut holds = vec![false; p.len()];
    for (place, &number) in order.iter().enumerate() {
        if p[number] > level / (p.len() - place) as f64 {
            break;
        }
        holds[number] = true;
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::{hold, mann_whitney, two_sided};
    use proptest::prelude::*;

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }

    #[test]
    fn the_tails_are_those_of_the_tables() {
        for (deviations, expected) in [(0.0, 1.0), (1.0, 0.317_31), (1.96, 0.05), (3.29, 0.001)] {
            assert_near(two_sided(deviations), expected);
        }
    }

    #[test]
    fn known_examples_have_their_p() {
        // By another program, with the normal approximation and its correction, and with ties.
        let a = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30];
        let b = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.15, 1.29];
        assert_near(mann_whitney(&a, &b), 0.132_91);
        assert_near(mann_whitney(&a, &a), 1.0);
        assert_near(mann_whitney(&[1.0; 9], &[1.0; 9]), 1.0);
    }

    #[test]
    fn many_questions_need_stronger_answers() {
        assert_eq!(hold(&[0.04], 0.05), [true]);
        assert_eq!(hold(&[0.04, 0.04], 0.05), [false, false]);
        assert_eq!(hold(&[0.04, 0.02], 0.05), [true, true]);
        assert_eq!(hold(&[0.3, 0.001, 0.03], 0.05), [false, true, false]);
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_p_is_a_chance(
            a in prop::collection::vec(0u8..20, 0..30),
            b in prop::collection::vec(0u8..20, 0..30),
        ) {
            let [a, b] = [a, b].map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
            let p = mann_whitney(&a, &b);
            prop_assert!((0.0..=1.0).contains(&p), "{}", p);
            prop_assert!((p - mann_whitney(&b, &a)).abs() < 1e-9);
        }
    }
}
