//! Places for connections: there are only so many, and who does nothing loses its to who comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// An answer may be fetched for so long before its connection counts as idle; and who has opened TLS may take
/// so long to ask.
const FETCH_TIME: Duration = Duration::from_secs(2);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It has not asked for anything yet.
    Nothing,
    /// It has begun TLS in earnest, and not asked yet.
    Greeting,
    /// It waits for an answer.
    Asking,
    /// It has an answer, since then.
    Answered(Instant),
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    since: Instant,
    doing: Mutex<Doing>,
    leave: Notify,
}

impl Place {
    /// It has begun TLS in earnest: a crowd that says nothing is not to push it out meanwhile.
    pub(super) fn greets(&self) {
        self.set(Doing::Greeting);
    }

    /// It asks for something.
    pub(super) fn asks(&self) {
        self.set(Doing::Asking);
    }

    /// It has its answer.
    pub(super) fn answered(&self) {
        self.set(Doing::Answered(Instant::now()));
    }

    /// Until somebody else needs the place.
    pub(super) async fn lost(&self) {
        self.leave.notified().await;
    }

    fn set(&self, doing: Doing) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    /// How soon it is to leave, if it may have to: those that never asked first, then those that are idle,
    /// then those that are about to ask or may still fetch their answer; of each the oldest first.
    fn rank(&self) -> Option<(u8, Instant)> {
        match *self.doing.lock().unwrap_or_else(PoisonError::into_inner) {
            Doing::Nothing => Some((0, self.since)),
            Doing::Greeting if self.since.elapsed() > FETCH_TIME => Some((1, self.since)),
            Doing::Greeting => Some((2, self.since)),
            Doing::Answered(at) if at.elapsed() > FETCH_TIME => Some((1, at)),
            Doing::Answered(at) => Some((2, at)),
            Doing::Asking => None,
        }
    }
}

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<HashMap<u64, Arc<Place>>>,
    made: Mutex<u64>,
}

/// A place that is taken; free again when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    places: Arc<Places>,
    number: u64,
    pub(super) place: Arc<Place>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.remove(&self.number);
    }
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
            made: Mutex::default(),
        })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Place>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if need be that of a connection that does nothing; `None` if all are busy.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut taken = self.taken();
        if taken.len() >= self.most {
            let idle = taken
                .iter()
                .filter_map(|(&number, place)| Some((place.rank()?, number)));
            let (_, number) = idle.min()?;
            if let Some(place) = taken.remove(&number) {
                place.leave.notify_one();
            }
        }
        let place = Arc::new(Place {
            since: Instant::now(),
            doing: Mutex::new(Doing::Nothing),
            leave: Notify::new(),
        });
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        *made += 1;
        taken.insert(*made, Arc::clone(&place));
        Some(Taken {
            places: Arc::clone(self),
            number: *made,
            place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn who_never_asked_leaves_first_and_who_waits_for_an_answer_stays() {
        let places = Places::new(3);
        let asking = places.take().expect("free");
        asking.place.asks();
        let first = places.take().expect("free");
        let second = places.take().expect("free");
        let third = places.take().expect("the first one's");
        assert_eq!(places.taken().len(), 3);
        assert!(!places.taken().contains_key(&first.number));
        drop(first);
        assert_eq!(places.taken().len(), 3, "it had none any more");
        third.place.answered();
        let fourth = places.take().expect("the second one's");
        assert!(!places.taken().contains_key(&second.number));
        fourth.place.asks();
        let fifth = places.take().expect("the third one's");
        assert!(!places.taken().contains_key(&third.number));
        fifth.place.asks();
        assert!(places.take().is_none(), "all three ask");
        drop(fifth);
        assert!(places.take().is_some());
    }

    #[test]
    fn a_silent_crowd_pushes_nobody_out_who_has_begun_to_speak() {
        let places = Places::new(3);
        let speaking = places.take().expect("free");
        speaking.place.greets();
        let crowd: Vec<_> = (0..100)
            .map(|_| places.take().expect("a silent one's"))
            .collect();
        assert!(places.taken().contains_key(&speaking.number));
        assert!(!places.taken().contains_key(&crowd[0].number));
    }
}
