//! Places for connections: there are only so many, and who does nothing loses its to who comes.
//!
//! Who has said nothing yet waits in a hall, and a crowd of those pushes out nobody but one another. Who has begun
//! TLS, or asks, has a place in the room. Where either is full, somebody of the address with the most connections
//! leaves, so that a crowd from one address pushes out nobody from elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::turns::Origin;

/// An answer may be fetched for so long before its connection counts as idle; and who has opened TLS may take
/// so long to ask.
const FETCH_TIME: Duration = Duration::from_secs(2);

/// What a connection in the room is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It has begun TLS in earnest, and not asked yet.
    Greeting,
    /// It waits for its password to be checked.
    Proving,
    /// It waits for an answer.
    Asking,
    /// It has an answer.
    Answered,
}

/// One connection.
#[derive(Debug)]
struct Place {
    origin: Origin,
    doing: Doing,
    /// It does this since then.
    since: Instant,
    leave: Arc<Notify>,
}

impl Place {
    /// How soon it is to leave, if it may have to: those whose passwords nobody knows first, then those that are
    /// idle, then those that are about to ask or may still fetch their answer.
    fn rank(&self) -> Option<u8> {
        match self.doing {
            Doing::Proving => Some(0),
            Doing::Greeting | Doing::Answered if self.since.elapsed() > FETCH_TIME => Some(1),
            Doing::Greeting | Doing::Answered => Some(2),
            Doing::Asking => None,
        }
    }
}

/// Connections in the order in which they came, and how many there are of each address.
#[derive(Debug, Default)]
struct Crowd {
    places: BTreeMap<u64, Place>,
    of: HashMap<Origin, usize>,
}

impl Crowd {
    fn insert(&mut self, number: u64, place: Place) {
        *self.of.entry(place.origin).or_default() += 1;
        self.places.insert(number, place);
    }

    fn remove(&mut self, number: u64) -> Option<Place> {
        let place = self.places.remove(&number)?;
        if let Some(count) = self.of.get_mut(&place.origin) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&place.origin);
            }
        }
        Some(place)
    }

    /// The first to have come of the address with the most.
    fn oldest_of_the_most(&self) -> Option<u64> {
        let most = self.of.values().max()?;
        let mut places = self.places.iter();
        let first = places.find(|(_, place)| self.of.get(&place.origin) == Some(most))?;
        Some(*first.0)
    }

    /// Whoever is to leave first, if somebody may have to.
    fn least_busy(&self) -> Option<u64> {
        let places = self.places.iter().filter_map(|(&number, place)| {
            let of_its_address = self.of.get(&place.origin).copied().unwrap_or(0);
            let order = (place.rank()?, usize::MAX - of_its_address, place.since);
            Some((order, number))
        });
        places.min().map(|(_, number)| number)
    }

    /// Has this one leave.
    fn expel(&mut self, number: u64) {
        if let Some(place) = self.remove(number) {
            place.leave.notify_one();
        }
    }
}

#[derive(Debug, Default)]
struct Both {
    hall: Crowd,
    room: Crowd,
    made: u64,
}

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most_in_hall: usize,
    most_in_room: usize,
    both: Mutex<Both>,
}

/// A place that is taken; free again when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    places: Arc<Places>,
    number: u64,
    origin: Origin,
    leave: Arc<Notify>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut both = self.places.both();
        both.hall.remove(self.number);
        both.room.remove(self.number);
    }
}

impl Places {
    /// So many who speak, and so many who have not yet.
    pub(super) fn new(most_in_room: usize, most_in_hall: usize) -> Arc<Self> {
        Arc::new(Self {
            most_in_hall,
            most_in_room,
            both: Mutex::default(),
        })
    }

    fn both(&self) -> MutexGuard<'_, Both> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the hall, if need be that of somebody who has been there for long.
    pub(super) fn take(self: &Arc<Self>, origin: Origin) -> Taken {
        let leave = Arc::new(Notify::new());
        let mut both = self.both();
        both.made += 1;
        let number = both.made;
        let place = Place {
            origin,
            doing: Doing::Greeting,
            since: Instant::now(),
            leave: Arc::clone(&leave),
        };
        both.hall.insert(number, place);
        if both.hall.places.len() > self.most_in_hall
            && let Some(oldest) = both.hall.oldest_of_the_most()
        {
            both.hall.expel(oldest);
        }
        Taken {
            places: Arc::clone(self),
            number,
            origin,
            leave,
        }
    }
}

impl Taken {
    /// Where it comes from.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// It has begun TLS in earnest.
    pub(super) fn greets(&self) {
        self.does(Doing::Greeting);
    }

    /// It has asked, with a password that is still to be checked. It has no right to its place before that: a crowd
    /// that guesses keeps nobody out.
    pub(super) fn proves(&self) {
        self.does(Doing::Proving);
    }

    /// It asks for something.
    pub(super) fn asks(&self) {
        self.does(Doing::Asking);
    }

    /// It has its answer.
    pub(super) fn answered(&self) {
        self.does(Doing::Answered);
    }

    /// Until somebody else needs the place.
    pub(super) async fn lost(&self) {
        self.leave.notified().await;
    }

    /// It is in the room from now on. If all others there are busy it is the one that leaves.
    fn does(&self, doing: Doing) {
        let mut both = self.places.both();
        let Both { hall, room, .. } = &mut *both;
        let since = Instant::now();
        if let Some(place) = room.places.get_mut(&self.number) {
            (place.doing, place.since) = (doing, since);
        } else if let Some(place) = hall.remove(self.number) {
            room.insert(
                self.number,
                Place {
                    doing,
                    since,
                    ..place
                },
            );
            if room.places.len() > self.places.most_in_room {
                // Who has just come is the last of its kind to leave, even where it asks at once.
                let leaves = room.least_busy().unwrap_or(self.number);
                room.expel(leaves);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_in(taken: &Taken) -> bool {
        let both = taken.places.both();
        both.room.places.contains_key(&taken.number) || both.hall.places.contains_key(&taken.number)
    }

    #[test]
    fn who_only_guesses_leaves_first_and_who_waits_for_an_answer_stays() {
        let places = Places::new(3, 8);
        let take = |does: fn(&Taken)| {
            let taken = places.take(None);
            does(&taken);
            taken
        };
        let asking = take(Taken::asks);
        let greeting = take(Taken::greets);
        let guessing = take(Taken::proves);
        let first = take(Taken::greets);
        assert!(!is_in(&guessing), "its password is nobody's");
        drop(guessing);
        assert!([&asking, &greeting, &first].into_iter().all(is_in));
        greeting.answered();
        let second = take(Taken::asks);
        assert!(
            !is_in(&first),
            "it does what it does for longer than the other"
        );
        let third = take(Taken::asks);
        assert!(!is_in(&greeting), "it has its answer");
        let fourth = take(Taken::asks);
        assert!(!is_in(&fourth), "all three ask");
        drop(second);
        let fifth = take(Taken::asks);
        assert!([&asking, &third, &fifth].into_iter().all(is_in));
    }

    #[test]
    fn a_silent_crowd_pushes_nobody_out_who_has_begun_to_speak() {
        let places = Places::new(3, 8);
        let speaking = places.take(None);
        speaking.greets();
        let crowd: Vec<_> = (0..100).map(|_| places.take(None)).collect();
        assert!(is_in(&speaking));
        let left = crowd.iter().filter(|taken| is_in(taken)).count();
        assert_eq!(left, 8, "they push out one another");
        assert!(crowd[92..].iter().all(is_in), "the oldest ones");
    }

    #[test]
    fn a_crowd_from_one_address_pushes_out_nobody_from_another() {
        let places = Places::new(4, 4);
        let (silent, greeting) = (places.take(Some(address(1))), places.take(Some(address(1))));
        greeting.greets();
        let crowd: Vec<_> = (0..100)
            .map(|number| {
                let taken = places.take(Some(address(2)));
                if number % 2 == 0 {
                    taken.greets();
                }
                taken
            })
            .collect();
        assert!(is_in(&silent) && is_in(&greeting));
        assert_eq!(crowd.iter().filter(|taken| is_in(taken)).count(), 6);
    }

    #[test]
    fn nothing_is_kept_of_those_who_have_gone() {
        let places = Places::new(2, 2);
        for number in 0..100 {
            let taken = places.take(Some(address(number)));
            if number % 3 == 0 {
                taken.asks();
            }
        }
        let both = places.both();
        for crowd in [&both.hall, &both.room] {
            assert!(crowd.places.is_empty() && crowd.of.is_empty(), "{crowd:?}");
        }
    }
}
