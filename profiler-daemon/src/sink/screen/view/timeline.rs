//! The line that says which moment of a recording is shown, and when delays were long.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{BAR_STEP, BARS, Canvas, bar_of};
use crate::sink::screen::film::Film;
use crate::sink::screen::travel::Travel;
use crate::sink::text::duration;

/// Where in which recording the screen is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What there is of the recording.
    pub film: &'a Film,
    /// Where in it.
    pub travel: &'a Travel,
}

impl Canvas<'_> {
    /// The line above the keys: the moment, the longest delay at each time, and how it moves.
    pub(super) fn timeline(&mut self, area: Rect, place: Place<'_>) {
        let Place { film, travel } = place;
        let y = area.bottom() - 2;
        let at_ns = travel.at_ns(film);
        let reading = if film.is_whole { "" } else { " so far" };
        let moment = format!(
            "{} of {}{reading} ",
            clock(at_ns - film.start_ns()),
            clock(film.end_ns() - film.start_ns())
        );
        let begin = self.text(0, y, area.width, &moment, self.palette.heading());
        let ticks = format!("ticks of {}", duration(travel.tick_ns(film)));
        let speed = match travel.speed() {
            _ if !travel.playing => String::new(),
            percent if percent % 100 == 0 => format!(", playing x{}", percent / 100),
            percent => format!(", playing x{}", percent as f64 / 100.0),
        };
        let motion = format!(" {ticks}{speed}");
        let room = u16::try_from(motion.len()).unwrap_or(area.width);
        let end = area.width.saturating_sub(room);
        let style = if travel.playing {
            self.palette.alarm()
        } else {
            self.palette.quiet()
        };
        self.text(end, y, room, &motion, style);
        self.delays(
            Rect::new(begin, y, end.saturating_sub(begin), 1),
            film,
            at_ns,
        );
    }

    /// The longest delay at each time; the longest waits stand out, and the moment that is shown.
    fn delays(&mut self, area: Rect, film: &Film, at_ns: u64) {
        let cells = usize::from(area.width);
        let mut longest_ns = film.longest_delays(cells);
        let mut has_wait = vec![false; cells];
        for wait in film.longest_waits() {
            if let Some(place) = film.place(wait.until_ns, cells) {
                has_wait[place] = true;
                longest_ns[place] = longest_ns[place].max(wait.duration_ns());
            }
        }
        let shown = film.place(at_ns, cells);
        // The longest of all fills its cell.
        let most_ns = longest_ns.iter().copied().max().unwrap_or(0);
        let lowest_ns = most_ns as f64 / BAR_STEP.powf(BARS.len() as f64 - 1.0);
        for (x, place) in (area.x..).zip(0..cells) {
            let is_shown = shown == Some(place);
            let bar = match bar_of(longest_ns[place], lowest_ns) {
                ' ' if is_shown => '│',
                bar => bar,
            };
            let style = match (is_shown, has_wait[place]) {
                (true, _) => self.palette.chosen(),
                (false, true) => self.palette.alarm(),
                (false, false) => Style::new(),
            };
            self.text(x, area.y, 1, &bar.to_string(), style);
        }
    }
}

/// Minutes, seconds and tenths, rounded: a recording of a second may miss a microsecond of it.
fn clock(ns: u64) -> String {
    let tenths = ns.saturating_add(50_000_000) / 100_000_000;
    format!("{}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}
