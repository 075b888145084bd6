//! The last so many of something: a ring whose length is a power of two, so that a place in it takes no comparison.

use prefetch_index::prefetch_index;

/// What was added last, up to a bound; the oldest goes as another one comes.
#[derive(Debug)]
pub(super) struct Latest<T> {
    /// What was added as number n is at n, cut to the bound.
    slots: Vec<T>,
    /// One less than the bound.
    mask: usize,
    /// How many have been added.
    added: usize,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            mask: 0,
            added: 0,
        }
    }
}

impl<T: Copy> Latest<T> {
    /// Keeps no more than this from now on, rounded up to a power of two.
    pub(super) fn bound(&mut self, bound: usize) {
        let bound = bound.max(1).next_power_of_two();
        if bound != self.mask + 1 {
            let kept = self.len().min(bound);
            self.slots = (self.len() - kept..self.len())
                .filter_map(|place| self.get(place).copied())
                .collect();
            self.added = self.slots.len();
            self.mask = bound - 1;
        }
    }

    #[inline]
    pub(super) fn push(&mut self, item: T) {
        match self.slots.get_mut(self.added & self.mask) {
            Some(slot) => *slot = item,
            None => self.slots.push(item),
        }
        self.added = self.added.wrapping_add(1);
    }

    /// The newest is asked for soon, and another one added.
    #[inline]
    pub(super) fn expect(&self) {
        prefetch_index(&self.slots, self.added.wrapping_sub(1) & self.mask);
        prefetch_index(&self.slots, self.added & self.mask);
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The newest.
    #[inline]
    pub(super) fn newest(&self) -> Option<&T> {
        self.slots.get(self.added.wrapping_sub(1) & self.mask)
    }

    /// The newest, to be changed.
    pub(super) fn newest_mut(&mut self) -> Option<&mut T> {
        self.slots.get_mut(self.added.wrapping_sub(1) & self.mask)
    }

    /// By age: 0 is the oldest that is kept.
    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<&T> {
        if place < self.slots.len() {
            let oldest = self.added.wrapping_sub(self.slots.len());
            self.slots.get(oldest.wrapping_add(place) & self.mask)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Latest;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn the_last_ones_are_there_in_their_order(
            first in 0u32..5,
            second in 0u32..5,
            counts in (0u32..40, 0u32..40),
        ) {
            let mut latest = Latest::default();
            let mut expected = VecDeque::new();
            for (power, count) in [(first, counts.0), (second, counts.1)] {
                let bound = 1 << power;
                latest.bound(bound);
                while expected.len() > bound {
                    expected.pop_front();
                }
                for number in 0..count {
                    latest.push((power, number));
                    expected.push_back((power, number));
                    if expected.len() > bound {
                        expected.pop_front();
                    }
                    prop_assert_eq!(latest.newest(), expected.back());
                }
                let all: Vec<_> = (0..latest.len()).filter_map(|place| latest.get(place)).collect();
                prop_assert_eq!(all, expected.iter().collect::<Vec<_>>());
                prop_assert_eq!(latest.get(latest.len()), None);
            }
        }
    }

    #[test]
    fn an_empty_one_has_none() {
        let mut latest: Latest<u8> = Latest::default();
        latest.bound(4);
        assert!(
            latest.newest().is_none() && latest.newest_mut().is_none() && latest.get(0).is_none()
        );
    }
}
