//! Numbers for units, and who moved: what the core is told, so that it can book by unit.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::registry::Placed;
use crate::core::{UnitNews, UnitNumber};

/// A unit without processes is there for so long: one that is restarted goes on where it was.
pub const GRACE: Duration = Duration::from_mins(5);

/// What has a number.
#[derive(Debug)]
struct Place {
    label: String,
    /// Since when no process belongs to it.
    empty_since: Option<Instant>,
}

/// Gives numbers to units as they come, and takes them back when they are gone.
///
/// There are at most so many as it was told. Those that come when all are given, to units that are there,
/// are among [`UnitNumber::OTHER`] until one becomes free; then there is no grace, either.
#[derive(Debug)]
pub struct Places {
    most: usize,
    numbers: HashMap<String, UnitNumber>,
    /// By number, from 1 on.
    rows: Vec<Option<Place>>,
    /// What was told of each process.
    told: HashMap<u32, UnitNumber>,
}

impl Places {
    /// No unit has a number yet; at most `most` will.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most: most.min(usize::from(UnitNumber::MAX.0)),
            numbers: HashMap::new(),
            rows: Vec::new(),
            told: HashMap::new(),
        }
    }

    /// What has changed, now that these processes are there.
    pub fn news(&mut self, placed: &Placed, now: Instant) -> UnitNews {
        let mut news = UnitNews::default();
        self.leave(placed, now, &mut news);
        let mut by_cgroup: HashMap<u32, UnitNumber> = HashMap::new();
        let mut told = HashMap::with_capacity(placed.processes.len());
        for &(tgid, cgroup) in &placed.processes {
            let number = *by_cgroup.entry(cgroup).or_insert_with(|| {
                let label = placed.labels.get(&cgroup);
                label.map_or(UnitNumber::OTHER, |label| self.number(label, &mut news))
            });
            if self.told.get(&tgid) != Some(&number) {
                news.placed.push((tgid, number));
            }
            told.insert(tgid, number);
        }
        self.told = told;
        news
    }

    /// Takes back the numbers of units that have been gone for long enough.
    fn leave(&mut self, placed: &Placed, now: Instant, news: &mut UnitNews) {
        let there: std::collections::HashSet<&str> =
            placed.labels.values().map(String::as_str).collect();
        let news_to_come = there.iter().any(|label| !self.numbers.contains_key(*label));
        let is_full = news_to_come && self.numbers.len() >= self.most;
        for (place, number) in self.rows.iter_mut().zip(1..) {
            let Some(its) = place else { continue };
            if there.contains(its.label.as_str()) {
                its.empty_since = None;
                continue;
            }
            let since = *its.empty_since.get_or_insert(now);
            if is_full || now.saturating_duration_since(since) >= GRACE {
                self.numbers.remove(&its.label);
                *place = None;
                news.closed.push(UnitNumber(number));
            }
        }
    }

    fn number(&mut self, label: &str, news: &mut UnitNews) -> UnitNumber {
        if let Some(&number) = self.numbers.get(label) {
            return number;
        }
        if self.numbers.len() >= self.most {
            return UnitNumber::OTHER;
        }
        let free = self.rows.iter().position(Option::is_none);
        let place = free.unwrap_or(self.rows.len());
        if place == self.rows.len() {
            self.rows.push(None);
        }
        let Ok(number) = u16::try_from(place + 1).map(UnitNumber) else {
            return UnitNumber::OTHER;
        };
        self.rows[place] = Some(Place {
            label: label.to_owned(),
            empty_since: None,
        });
        self.numbers.insert(label.to_owned(), number);
        news.named.push((number, label.into()));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::{GRACE, Places};
    use crate::core::{UnitNews, UnitNumber};
    use crate::identity::registry::Placed;
    use std::time::{Duration, Instant};

    /// Processes with the units that they are in.
    fn placed(of: &[(u32, &str)]) -> Placed {
        let mut placed = Placed::default();
        for (cgroup, &(tgid, label)) in (0..).zip(of) {
            placed.processes.push((tgid, cgroup));
            placed.labels.insert(cgroup, label.to_owned());
        }
        placed
    }

    fn number(number: u16) -> UnitNumber {
        UnitNumber(number)
    }

    #[test]
    fn only_what_changes_is_told() {
        let (mut places, now) = (Places::new(10), Instant::now());
        let news = places.news(&placed(&[(1, "a"), (2, "b"), (3, "a")]), now);
        assert_eq!(
            news.named,
            [(number(1), "a".into()), (number(2), "b".into())]
        );
        assert_eq!(
            news.placed,
            [(1, number(1)), (2, number(2)), (3, number(1))]
        );
        let news = places.news(&placed(&[(1, "a"), (2, "b"), (3, "a")]), now);
        assert_eq!(news, UnitNews::default());
        let news = places.news(&placed(&[(1, "b"), (2, "b"), (3, "a")]), now);
        assert_eq!(news.placed, [(1, number(2))]);
        assert!(news.named.is_empty() && news.closed.is_empty());
    }

    #[test]
    fn a_unit_that_is_gone_keeps_its_number_for_a_while() {
        let (mut places, now) = (Places::new(10), Instant::now());
        places.news(&placed(&[(1, "a"), (2, "b")]), now);
        let gone = placed(&[(2, "b")]);
        assert!(places.news(&gone, now).closed.is_empty());
        let back = places.news(&placed(&[(2, "b"), (7, "a")]), now + GRACE / 2);
        assert_eq!(back.placed, [(7, number(1))]);
        assert!(back.named.is_empty());
        places.news(&gone, now + GRACE);
        let late = now + GRACE * 2 + Duration::from_secs(1);
        assert_eq!(places.news(&gone, late).closed, [number(1)]);
        // It is free for another.
        let news = places.news(&placed(&[(2, "b"), (8, "c")]), late);
        assert_eq!(news.named, [(number(1), "c".into())]);
    }

    #[test]
    fn there_are_no_more_than_allowed() {
        let (mut places, now) = (Places::new(2), Instant::now());
        let news = places.news(&placed(&[(1, "a"), (2, "b"), (3, "c")]), now);
        assert_eq!(news.named.len(), 2);
        assert_eq!(news.placed[2], (3, UnitNumber::OTHER));
        // As soon as one is gone, its number is for who needs it.
        let news = places.news(&placed(&[(1, "a"), (3, "c")]), now);
        assert_eq!(news.closed, [number(2)]);
        assert_eq!(news.named, [(number(2), "c".into())]);
        assert_eq!(news.placed, [(3, number(2))]);
    }
}
