//! Where in a recording the screen is, and how it moves: keys and time change it.

use super::film::Film;
use super::state::Key;

/// Times from one picture of the screen to the next that can be chosen.
const TICKS_NS: [u64; 5] = [
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
];

/// How fast it can be played, in percent of the real speed.
const SPEEDS: [u64; 8] = [10, 25, 50, 100, 200, 500, 1_000, 6_000];

/// The real one.
const REAL_SPEED: usize = 3;

/// Ticks of a large step.
const LARGE_STEP: u64 = 10;

/// A place in a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Travel {
    /// Nanoseconds from its beginning.
    place_ns: u64,
    tick_ns: u64,
    speed: usize,
    /// Whether time goes on by itself.
    pub playing: bool,
    /// Time that has gone by since the last tick.
    waited_ns: u64,
}

impl Travel {
    /// At the end of the first tick, which has this length.
    #[must_use]
    pub fn new(tick_ns: u64) -> Self {
        let tick_ns = tick_ns.max(1);
        Self {
            place_ns: tick_ns,
            tick_ns,
            speed: REAL_SPEED,
            playing: false,
            waited_ns: 0,
        }
    }

    /// Length of a tick, in nanoseconds: what was asked for, or as short as there are pictures.
    #[must_use]
    pub fn tick_ns(&self, film: &Film) -> u64 {
        self.tick_ns.max(film.every_ns())
    }

    /// How fast it is played, in percent of the real speed.
    #[must_use]
    pub fn speed(&self) -> u64 {
        SPEEDS[self.speed]
    }

    /// The moment, by the records' clock.
    #[must_use]
    pub fn at_ns(&self, film: &Film) -> u64 {
        film.start_ns() + self.place_ns.min(length_ns(film))
    }

    /// Does what a key says, if it is a key for this.
    pub fn press(&mut self, key: Key, film: &Film) -> bool {
        let place_ns = self.place_ns.min(length_ns(film));
        let tick_ns = self.tick_ns(film);
        let large_ns = tick_ns.saturating_mul(LARGE_STEP);
        match key {
            Key::Left => self.go_to(place_ns.saturating_sub(tick_ns)),
            Key::Right => self.go_to(place_ns + tick_ns),
            Key::Char('[') => self.go_to(place_ns.saturating_sub(large_ns)),
            Key::Char(']') => self.go_to(place_ns + large_ns),
            Key::Char('0') => self.go_to(0),
            // As far as it will be read.
            Key::Char('$') => self.go_to(u64::MAX),
            Key::Char('n') => self.go_to_wait(film, true),
            Key::Char('N') => self.go_to_wait(film, false),
            Key::Char(' ' | 'p') => self.play(film),
            Key::Char('+') => self.speed = (self.speed + 1).min(SPEEDS.len() - 1),
            Key::Char('-') => self.speed = self.speed.saturating_sub(1),
            Key::Char('z') => self.zoom(TICKS_NS.iter().rev().find(|&&its| its < self.tick_ns)),
            Key::Char('Z') => self.zoom(TICKS_NS.iter().find(|&&its| its > self.tick_ns)),
            _ => return false,
        }
        // Nothing is beyond the end, unless more of it will be read.
        if film.is_whole {
            self.place_ns = self.place_ns.min(length_ns(film));
        }
        true
    }

    fn go_to(&mut self, place_ns: u64) {
        self.place_ns = place_ns;
        self.waited_ns = 0;
    }

    /// To the next of the longest waits, or to the one before: to the end of the tick in which it ended.
    fn go_to_wait(&mut self, film: &Film, is_next: bool) {
        let start_ns = film.start_ns();
        let place_ns = self.at_ns(film) - start_ns;
        let tick_ns = self.tick_ns(film);
        let ends = film.longest_waits().into_iter().map(|wait| {
            let until_ns = wait.until_ns.saturating_sub(start_ns);
            let ticks = until_ns.div_ceil(tick_ns);
            ticks.saturating_mul(tick_ns).min(length_ns(film))
        });
        let found = if is_next {
            ends.filter(|&end_ns| end_ns > place_ns).min()
        } else {
            ends.filter(|&end_ns| end_ns < place_ns).max()
        };
        if let Some(end_ns) = found {
            self.playing = false;
            self.go_to(end_ns);
        }
    }

    /// Stops, or goes on; from the end, it begins anew.
    fn play(&mut self, film: &Film) {
        self.playing = !self.playing;
        if self.playing && film.is_whole && self.place_ns >= length_ns(film) {
            self.go_to(0);
        }
    }

    fn zoom(&mut self, tick_ns: Option<&u64>) {
        if let Some(&tick_ns) = tick_ns {
            self.tick_ns = tick_ns;
            self.waited_ns = 0;
        }
    }

    /// So much time has gone by.
    pub fn wait(&mut self, elapsed_ns: u64, film: &Film) {
        if !self.playing {
            return;
        }
        let passed_ns = u128::from(elapsed_ns) * u128::from(self.speed()) / 100;
        let passed_ns = u64::try_from(passed_ns).unwrap_or(u64::MAX);
        self.waited_ns = self.waited_ns.saturating_add(passed_ns);
        let tick_ns = self.tick_ns(film);
        let whole_ns = self.waited_ns / tick_ns * tick_ns;
        self.waited_ns -= whole_ns;
        self.place_ns = self.place_ns.saturating_add(whole_ns).min(length_ns(film));
        if film.is_whole && self.place_ns == length_ns(film) {
            self.playing = false;
        }
    }
}

fn length_ns(film: &Film) -> u64 {
    film.end_ns() - film.start_ns()
}
