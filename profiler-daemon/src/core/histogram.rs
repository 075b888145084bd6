//! Latency histograms: base-2 log-linear, with a bounded relative error and the exact maximum.

use histogram::{Config, Quantile, SparseHistogram};

/// Each octave is cut in 2^7 buckets: no value is more than 1/128 of itself away from its bucket's end.
const GROUPING_POWER: u8 = 7;

/// Values from 2^44 ns (4.9 hours) on share the last bucket; the maximum stays exact.
const MAX_VALUE_POWER: u8 = 44;

/// From so many different buckets on they are kept in rows; below, only those that hold something.
const MANY: usize = 8;

const MAX_VALUE: u64 = (1 << MAX_VALUE_POWER) - 1;

/// The quantiles that every report has.
pub const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Distribution of durations in nanoseconds.
///
/// It holds only the buckets with something in them until those are many, so that a thread that seldom
/// waits costs next to nothing.
#[derive(Clone, Default)]
pub struct LatencyHistogram {
    buckets: Buckets,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

#[derive(Clone)]
enum Buckets {
    /// By index, rising: those that hold something.
    Few(Vec<(u16, u64)>),
    /// By octave: found without a search.
    Many(Box<Rows>),
}

impl Default for Buckets {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

/// Buckets of a row: of one octave, or of what is below the first.
const ROW: usize = 1 << GROUPING_POWER;

/// Rows that there can be.
const ROWS: usize = (MAX_VALUE_POWER - GROUPING_POWER + 1) as usize;

/// Buckets of those octaves that something fell into.
#[derive(Clone)]
struct Rows {
    /// By octave: one more than the place of its row, or 0 if it has none.
    places: [u8; ROWS],
    rows: Vec<[u64; ROW]>,
}

impl Rows {
    #[inline]
    fn add(&mut self, index: u16, count: u64) {
        self.row(usize::from(index) / ROW)[usize::from(index) % ROW] += count;
    }

    /// The row of an octave.
    #[inline]
    fn row(&mut self, octave: usize) -> &mut [u64; ROW] {
        let place = self.places.get(octave).copied().unwrap_or(0);
        let place = usize::from(place).wrapping_sub(1);
        if place < self.rows.len() {
            &mut self.rows[place]
        } else {
            self.begin(octave)
        }
    }

    /// Whole rows at a time.
    fn merge(&mut self, other: &Self) {
        for (octave, &place) in other.places.iter().enumerate() {
            if let Some(more) = other.rows.get(usize::from(place).wrapping_sub(1)) {
                for (sum, more) in self.row(octave).iter_mut().zip(more) {
                    *sum += more;
                }
            }
        }
    }

    #[cold]
    fn begin(&mut self, octave: usize) -> &mut [u64; ROW] {
        let place = self.rows.len();
        if let Some(its) = self.places.get_mut(octave) {
            *its = u8::try_from(place + 1).unwrap_or(0);
        }
        self.rows.push([0; ROW]);
        &mut self.rows[place]
    }

    /// Those that hold something, rising.
    fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let octaves = (0u16..).zip(&self.places);
        let rows = octaves.filter_map(|(octave, &place)| {
            let row = self.rows.get(usize::from(place).checked_sub(1)?)?;
            Some((octave << GROUPING_POWER, row))
        });
        rows.flat_map(|(first, row)| (first..).zip(row).map(|(index, &count)| (index, count)))
            .filter(|(_, count)| *count > 0)
    }
}

/// The index of a value's bucket, as [`histogram`] counts them: values below 2^(power + 1) have one each,
/// and each octave above has 2^power.
#[inline]
fn index_of(value: u64) -> u16 {
    // What is below the second octave is cut as finely as that.
    let shift = (value | ROW as u64).ilog2() - u32::from(GROUPING_POWER);
    let index = u64::from(shift) * ROW as u64 + (value >> shift);
    // Values are cut short at the last bucket, whose number fits.
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// Of buckets with rising names, how much there is more in each than there was.
fn grown<K: Ord>(
    now: impl Iterator<Item = (K, u64)>,
    before: impl Iterator<Item = (K, u64)>,
) -> impl Iterator<Item = (K, u64)> {
    let mut before = before.peekable();
    now.filter_map(move |(bucket, count)| {
        while before.next_if(|its| its.0 < bucket).is_some() {}
        let was = before.next_if(|its| its.0 == bucket);
        let more = count.saturating_sub(was.map_or(0, |its| its.1));
        (more > 0).then_some((bucket, more))
    })
}

impl Buckets {
    #[inline]
    fn add(&mut self, index: u16, count: u64) {
        match self {
            Self::Many(rows) => rows.add(index, count),
            Self::Few(_) => self.add_to_few(index, count),
        }
    }

    #[inline(never)]
    fn add_to_few(&mut self, index: u16, count: u64) {
        let Self::Few(few) = self else { return };
        match few.binary_search_by_key(&index, |(its, _)| *its) {
            Ok(place) => few[place].1 += count,
            Err(place) => few.insert(place, (index, count)),
        }
        if few.len() > MANY {
            self.spread();
        }
    }

    /// Keeps rows from now on.
    #[cold]
    fn spread(&mut self) {
        let mut rows = Box::new(Rows {
            places: [0; ROWS],
            rows: Vec::new(),
        });
        for (index, count) in self.iter() {
            rows.add(index, count);
        }
        *self = Self::Many(rows);
    }

    /// Those that hold something, rising: index and count.
    fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let (few, many) = match self {
            Self::Few(few) => (Some(few.iter().copied()), None),
            Self::Many(rows) => (None, Some(rows.iter())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    /// The two constants make a valid configuration; a test holds that.
    fn config() -> Option<Config> {
        Config::new(GROUPING_POWER, MAX_VALUE_POWER).ok()
    }

    fn sparse(&self) -> Option<SparseHistogram> {
        let (indices, counts) = self.iter().map(|(at, n)| (u32::from(at), n)).unzip();
        SparseHistogram::from_parts(Self::config()?, indices, counts).ok()
    }

    fn since(&self, earlier: &Self) -> Self {
        let mut added = Self::default();
        for (index, count) in grown(self.iter(), earlier.iter()) {
            added.add(index, count);
        }
        added
    }

    fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Many(rows), Self::Many(other)) => rows.merge(other),
            (this, other) => {
                for (index, count) in other.iter() {
                    this.add(index, count);
                }
            }
        }
    }
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
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "every switch comes here twice, and a call takes a quarter of it"
    )]
    pub fn record(&mut self, duration_ns: u64) {
        self.buckets.add(index_of(duration_ns.min(MAX_VALUE)), 1);
        self.count += 1;
        self.sum_ns += u128::from(duration_ns);
        self.max_ns = self.max_ns.max(duration_ns);
    }

    /// Bytes of memory that it takes beside itself, about.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.buckets {
            Buckets::Few(few) => few.len() * size_of::<(u16, u64)>(),
            Buckets::Many(rows) => size_of::<Rows>() + size_of_val(rows.rows.as_slice()),
        }
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
        // The quantiles are constants between 0 and 1, so none of this can fail.
        let sparse = self.buckets.sparse().filter(|_| self.count > 0);
        if let Some(Ok(Some(of))) = sparse.map(|sparse| sparse.quantiles(&QUANTILES)) {
            for (quantile, found) in QUANTILES.iter().zip(&mut found) {
                *found = Quantile::new(*quantile)
                    .ok()
                    .and_then(|q| of.get(&q).cloned());
            }
        }
        found.map(|bucket| bucket.map_or(0, |bucket| bucket.end().min(self.max_ns)))
    }

    /// The buckets that hold something: upper end (inclusive, nanoseconds) and count, rising.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let sparse = self.buckets.sparse();
        let buckets = sparse.into_iter().flat_map(|sparse| {
            let buckets = sparse.iter().map(|bucket| (bucket.end(), bucket.count()));
            buckets.collect::<Vec<_>>()
        });
        buckets.filter(|(_, count)| *count > 0)
    }

    /// Adds all that another one holds.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.merge(&other.buckets);
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// What was added since `earlier`, an older copy of this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if self.count == earlier.count {
            return Self::default();
        }
        let difference = Self {
            buckets: self.buckets.since(&earlier.buckets),
            ..Self::default()
        };
        let top_ns = difference.buckets().last().map_or(0, |(end_ns, _)| end_ns);
        Self {
            count: self.count.saturating_sub(earlier.count),
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
            max_ns: if self.max_ns > earlier.max_ns {
                self.max_ns
            } else {
                top_ns.min(self.max_ns)
            },
            ..difference
        }
    }
}

/// A copy of a histogram that takes only as much memory as it has different durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compact {
    /// As of [`LatencyHistogram::buckets`].
    buckets: Box<[(u64, u64)]>,
    max_ns: u64,
}

impl LatencyHistogram {
    /// A copy that can be kept.
    #[must_use]
    pub fn compact(&self) -> Compact {
        Compact {
            buckets: self.buckets().collect(),
            max_ns: self.max_ns,
        }
    }
}

impl Compact {
    /// The buckets that hold something, as [`LatencyHistogram::buckets`].
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().copied()
    }

    /// How many durations it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.1).sum()
    }

    /// What was added since `earlier`, an older copy of the same histogram. Its maximum is exact if it is
    /// the largest ever, else the end of its highest bucket.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let added: Vec<_> = grown(self.buckets(), earlier.buckets()).collect();
        let top_ns = added.last().map_or(0, |bucket| bucket.0);
        Self {
            max_ns: if self.max_ns > earlier.max_ns {
                self.max_ns
            } else {
                top_ns.min(self.max_ns)
            },
            buckets: added.into(),
        }
    }

    /// The [`QUANTILES`] and the maximum with their names, in nanoseconds, as
    /// [`LatencyHistogram::quantiles_ns`]. Zeros when empty.
    #[must_use]
    pub fn stats(&self) -> [(&'static str, u64); 5] {
        // Nearest rank, in integers.
        let quantile = |thousandths: u64| {
            let rank = (self.count() * thousandths).div_ceil(1000).max(1);
            let mut counted = 0;
            let bucket = self.buckets.iter().find(|bucket| {
                counted += bucket.1;
                counted >= rank
            });
            bucket.map_or(0, |bucket| bucket.0.min(self.max_ns))
        };
        [
            ("p50", quantile(500)),
            ("p90", quantile(900)),
            ("p99", quantile(990)),
            ("p999", quantile(999)),
            ("max", self.max_ns),
        ]
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

    #[test]
    fn few_and_many_buckets_are_the_same_ones() {
        let config = super::Buckets::config().expect("a valid configuration");
        for power in 0..44 {
            for value in [1u64 << power, (1 << power) + 1, (2 << power) - 1] {
                let mut all = histogram::Histogram::with_config(&config);
                let value = value.min(super::MAX_VALUE);
                all.increment(value).expect("in range");
                let all = histogram::SparseHistogram::from(&all);
                assert_eq!(all.index(), [u32::from(super::index_of(value))], "{value}");
            }
        }
    }

    #[test]
    fn with_many_buckets_nothing_changes_but_the_memory() {
        let values: Vec<u64> = (0..2000).map(|n| n * n * 977).collect();
        let mut histogram = LatencyHistogram::default();
        for (number, &value) in values.iter().enumerate() {
            histogram.record(value);
            assert_eq!(histogram.count(), number as u64 + 1);
        }
        assert!(matches!(histogram.buckets, super::Buckets::Many(_)));
        let half = of(&values[..8]);
        assert!(matches!(half.buckets, super::Buckets::Few(_)));
        let rest = histogram.since(&half);
        let mut sum = half.clone();
        sum.merge(&rest);
        assert_eq!(sum.count(), histogram.count());
        assert!(sum.buckets().eq(histogram.buckets()));
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
            let mut sum = earlier.clone();
            sum.merge(&difference);
            prop_assert!(sum.buckets().eq(later.buckets()));
            prop_assert_eq!(sum.sum_ns(), later.sum_ns());
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
            let compact = later.compact().since(&earlier.compact());
            prop_assert_eq!(
                compact.buckets().collect::<Vec<_>>(),
                difference.buckets().collect::<Vec<_>>()
            );
            prop_assert_eq!(compact.count(), difference.count());
            let stats = compact.stats().map(|(_, ns)| ns);
            prop_assert_eq!(&stats[..4], &difference.quantiles_ns()[..]);
            prop_assert_eq!(stats[4], difference.max_ns());
        }
    }
}
