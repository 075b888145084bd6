//! What rounds of a measurement say together. Pure.

use serde::{Deserialize, Serialize};

/// From so many rounds on, the spread is told by quartiles.
const MANY: usize = 12;

/// One figure of several rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What each round gave, in the order of the rounds.
    rounds: Vec<f64>,
}

impl Figure {
    /// Of these rounds; what is no number (a division by nothing) is left out.
    pub(crate) fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        Self {
            rounds: rounds.into_iter().filter(|its| its.is_finite()).collect(),
        }
    }

    /// Of a program that tells its median and spread, and not its rounds.
    pub(crate) fn told(median: f64, least: f64, most: f64) -> Self {
        Self::of([least, median, most])
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.rounds.push(value);
        }
    }

    /// How many rounds there were.
    pub(crate) fn count(&self) -> usize {
        self.rounds.len()
    }

    /// The middle one; of an even number, the mean of the two in the middle.
    pub(crate) fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let half = sorted.len() / 2;
        let upper = sorted.get(half)?;
        if sorted.len().is_multiple_of(2) {
            sorted
                .get(half - 1)
                .map(|lower| f64::midpoint(*lower, *upper))
        } else {
            Some(*upper)
        }
    }

    /// The most.
    pub(crate) fn most(&self) -> Option<f64> {
        self.sorted().last().copied()
    }

    /// How far rounds are from one another: the least and the most, and of many the quartiles, since of those the
    /// ends say only how bad the worst moment was.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        let sorted = self.sorted();
        let cut = if sorted.len() < MANY {
            0
        } else {
            sorted.len() / 4
        };
        Some((*sorted.get(cut)?, *sorted.get(sorted.len() - 1 - cut)?))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn the_spread_of_few_is_their_ends_and_of_many_their_quartiles() {
        assert_eq!(Figure::default().spread(), None);
        assert_eq!(Figure::of([3.0, 9.0, 1.0]).spread(), Some((1.0, 9.0)));
        let many = (1..=20).map(f64::from);
        assert_eq!(Figure::of(many).spread(), Some((6.0, 15.0)));
    }

    #[test]
    fn the_median_of_any_number_of_rounds() {
        assert_eq!(Figure::default().median(), None);
        assert_eq!(Figure::of([3.0]).median(), Some(3.0));
        assert_eq!(Figure::of([3.0, 1.0]).median(), Some(2.0));
        assert_eq!(Figure::of([9.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Figure::of([9.0, 1.0, 2.0, 4.0]).median(), Some(3.0));
    }

    #[test]
    fn one_bad_round_moves_the_spread_and_not_the_median() {
        let figure = Figure::of([1.01, 1.02, 1.03, 40.0, 1.02]);
        assert_eq!(figure.median(), Some(1.02));
        assert_eq!(figure.spread(), Some((1.01, 40.0)));
        assert_eq!(figure.most(), Some(40.0));
    }

    #[test]
    fn what_is_no_number_does_not_count() {
        let mut figure = Figure::of([f64::NAN, 1.0, f64::INFINITY]);
        figure.add(f64::NAN);
        figure.add(2.0);
        assert_eq!((figure.count(), figure.median()), (2, Some(1.5)));
    }
}
