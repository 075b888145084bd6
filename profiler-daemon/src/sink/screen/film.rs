//! What a recording shows, picture by picture, so that any moment of it can be gone to at once.
//!
//! A picture has all figures up to its moment; what happened between two moments is their difference. Memory
//! is bounded: where there is no room for more, every second picture goes, and new ones come half as often.

use std::cmp::Reverse;
use std::sync::Arc;

use super::model::{Model, TREND};
use crate::core::{LongWait, Snapshot};

/// Time from one picture to the next, where there is room.
pub const FINEST_NS: u64 = 100_000_000;

/// Most pictures.
const MAX_PICTURES: usize = 2_000;

/// Most bytes that they take, about.
pub const MAX_BYTES: usize = 256 << 20;

/// Long waits of each kind that can be gone to.
const MAX_MARKS: usize = 10;

/// Threads whose figures are compared for one moment: so many take a tenth of a second. The rest of the
/// trend is left out.
const MAX_COMPARED: usize = 30_000;

/// All figures at one moment.
#[derive(Debug)]
struct Picture {
    snapshot: Arc<Snapshot>,
    bytes: usize,
    /// The longest run-queue delay since the picture before.
    longest_ns: u64,
}

/// The pictures of a recording, as far as it was read.
#[derive(Debug)]
pub struct Film {
    pictures: Vec<Picture>,
    every_ns: u64,
    bytes: usize,
    max_bytes: usize,
    /// Nothing more comes.
    pub is_whole: bool,
}

impl Default for Film {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

impl Film {
    /// Nothing has been read; at most so much memory is taken, and two pictures in any case.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            pictures: Vec::new(),
            every_ns: FINEST_NS,
            bytes: 0,
            max_bytes,
            is_whole: false,
        }
    }

    /// Time from one picture to the next.
    #[must_use]
    pub fn every_ns(&self) -> u64 {
        self.every_ns
    }

    /// How many pictures there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// Bytes of memory that they take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When it begins.
    #[must_use]
    pub fn start_ns(&self) -> u64 {
        let first = self.pictures.first();
        first.map_or(0, |picture| picture.snapshot.at_ns)
    }

    /// How far it goes by now.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        let last = self.pictures.last();
        last.map_or(0, |picture| picture.snapshot.at_ns)
    }

    /// Whether a picture is wanted of this moment.
    #[must_use]
    pub fn wants(&self, at_ns: u64) -> bool {
        let start_ns = self.start_ns();
        let number = |at_ns: u64| at_ns.saturating_sub(start_ns) / self.every_ns;
        self.is_empty() || number(at_ns) > number(self.end_ns())
    }

    /// Adds a picture, of a later moment than all others. One from the beginning of a window begins anew.
    pub fn add(&mut self, snapshot: Snapshot) {
        if snapshot.at_ns == snapshot.start_ns {
            self.pictures.clear();
            self.bytes = 0;
        }
        let longest_ns = match self.pictures.last() {
            Some(before) => longest_delay_ns(&snapshot, &before.snapshot),
            None => 0,
        };
        let bytes = snapshot.bytes();
        self.bytes += bytes;
        self.pictures.push(Picture {
            snapshot: Arc::new(snapshot),
            bytes,
            longest_ns,
        });
        while self.pictures.len() > 2
            && (self.bytes > self.max_bytes || self.pictures.len() > MAX_PICTURES)
        {
            self.thin();
        }
    }

    /// Leaves out every second picture.
    fn thin(&mut self) {
        self.every_ns *= 2;
        let all = std::mem::take(&mut self.pictures);
        let mut longest_ns = 0;
        for (number, picture) in all.into_iter().enumerate() {
            longest_ns = picture.longest_ns.max(longest_ns);
            if number % 2 == 0 {
                self.pictures.push(Picture {
                    longest_ns,
                    ..picture
                });
                longest_ns = 0;
            }
        }
        self.bytes = self.pictures.iter().map(|picture| picture.bytes).sum();
    }

    /// The last picture that is not after this moment, or the first.
    fn at(&self, at_ns: u64) -> Option<&Arc<Snapshot>> {
        let later = self
            .pictures
            .partition_point(|picture| picture.snapshot.at_ns <= at_ns);
        let picture = self.pictures.get(later.saturating_sub(1))?;
        Some(&picture.snapshot)
    }

    /// Has the model show this moment, as after ticks of this length; nothing if it shows it.
    pub fn show(&self, model: &mut Model, at_ns: u64, tick_ns: u64) {
        let (Some(wanted), Some(before)) = (self.at(at_ns), self.at(at_ns.saturating_sub(tick_ns)))
        else {
            return;
        };
        let shown = model.tick().map(|tick| (tick.start_ns, tick.at_ns));
        if shown == Some((before.at_ns, wanted.at_ns)) {
            return;
        }
        // One tick further; everything else begins anew.
        if shown.is_none_or(|(_, at_ns)| at_ns != before.at_ns) {
            model.rewind();
            for picture in self.ticks_until(at_ns, tick_ns) {
                model.take(picture);
            }
        }
        model.take(Arc::clone(wanted));
        model.judge();
    }

    /// The pictures at the ends of the ticks before this moment, the oldest first.
    fn ticks_until(&self, at_ns: u64, tick_ns: u64) -> Vec<Arc<Snapshot>> {
        let mut pictures: Vec<Arc<Snapshot>> = Vec::new();
        let mut compared = 0;
        for tick in 1..=TREND as u64 {
            let Some(moment_ns) = at_ns.checked_sub(tick.saturating_mul(tick_ns)) else {
                break;
            };
            let Some(picture) = self.at(moment_ns) else {
                break;
            };
            pictures.push(Arc::clone(picture));
            let threads = picture.targets.iter().map(|target| target.threads.len());
            compared += threads.sum::<usize>();
            if moment_ns < self.start_ns() || compared > MAX_COMPARED {
                break;
            }
        }
        pictures.dedup_by_key(|picture| picture.at_ns);
        pictures.reverse();
        // What is asked for comes last, and no other one of the same moment.
        let wanted_ns = self.at(at_ns).map(|wanted| wanted.at_ns);
        pictures.retain(|picture| Some(picture.at_ns) != wanted_ns);
        pictures
    }

    /// The longest run-queue delay in each of so many parts of the whole, in nanoseconds.
    #[must_use]
    pub fn longest_delays(&self, parts: usize) -> Vec<u64> {
        let mut longest = vec![0; parts];
        let mut from = 0;
        for picture in &self.pictures {
            if let Some(place) = self.place(picture.snapshot.at_ns, parts) {
                // It stands for all since the picture before.
                for its in &mut longest[from..=place] {
                    *its = picture.longest_ns.max(*its);
                }
                from = place + usize::from(place + 1 < parts);
            }
        }
        longest
    }

    /// In which of so many parts of the whole a moment lies.
    #[must_use]
    pub fn place(&self, at_ns: u64, parts: usize) -> Option<usize> {
        let whole_ns = u128::from(self.end_ns() - self.start_ns()).max(1);
        let from_start_ns = u128::from(at_ns.saturating_sub(self.start_ns()));
        let last = parts.checked_sub(1)?;
        let place = from_start_ns * last as u128 / whole_ns;
        Some(usize::try_from(place).unwrap_or(last).min(last))
    }

    /// The longest waits for a CPU and the longest for something else that have ended, idleness left aside,
    /// by when they did.
    #[must_use]
    pub fn longest_waits(&self) -> Vec<&LongWait> {
        let Some(last) = self.pictures.last() else {
            return Vec::new();
        };
        let worst = || last.snapshot.targets.iter().map(|target| &target.worst);
        let mut waits = longest_of(worst().flat_map(|worst| worst.queued.iter()));
        waits.extend(longest_of(worst().flat_map(|worst| worst.blocked.iter())));
        waits.sort_by_key(|wait| wait.until_ns);
        waits
    }
}

fn longest_of<'a>(waits: impl Iterator<Item = &'a LongWait>) -> Vec<&'a LongWait> {
    let mut waits: Vec<&LongWait> = waits.collect();
    waits.sort_by_key(|wait| Reverse(wait.duration_ns()));
    waits.truncate(MAX_MARKS);
    waits
}

/// The longest run-queue delay between two moments.
fn longest_delay_ns(now: &Snapshot, before: &Snapshot) -> u64 {
    let targets = now.targets.iter().zip(&before.targets);
    let delays = targets.map(|(now, before)| {
        let (now, before) = (&now.total.figures, &before.total.figures);
        now.runqueue_delay.since(&before.runqueue_delay).max_ns()
    });
    delays.max().unwrap_or(0)
}
