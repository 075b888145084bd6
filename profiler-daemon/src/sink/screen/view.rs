//! All of it to the cells of a screen.
//!
//! From the top: what is measured, the verdict, a line for the sum of all, the rows, the chosen row in
//! detail, where in a recording it is, and the keys.

mod detail;
mod overlay;
mod timeline;

use std::fmt::Write as _;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::model::{Model, Span};
use super::part::{self, Palette, Part, Parts, shares};
use super::row::{Level, Row};
use super::state::{Screen, Sort};
use crate::sink::text::{duration, safe, shorten, thousands, wrap};
pub use timeline::Place;

/// A smaller screen has room for nothing but saying so.
pub const SMALLEST: (u16, u16) = (60, 12);

/// Lines above the rows: the title, two of the verdict, the heading and the sum.
const HEAD: u16 = 5;

/// Draws what is shown of the model.
pub fn draw(buffer: &mut Buffer, screen: &mut Screen, model: &Model, palette: Palette) {
    draw_all(buffer, screen, model, palette, None);
}

/// Draws what is shown of the model at a place in a recording, and the place.
pub fn draw_recorded(
    buffer: &mut Buffer,
    screen: &mut Screen,
    model: &Model,
    palette: Palette,
    place: Place<'_>,
) {
    draw_all(buffer, screen, model, palette, Some(place));
}

fn draw_all(
    buffer: &mut Buffer,
    screen: &mut Screen,
    model: &Model,
    palette: Palette,
    place: Option<Place<'_>>,
) {
    let area = buffer.area;
    let mut canvas = Canvas { buffer, palette };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        let message = format!(
            "{}x{} is too small: {width}x{height}",
            area.width, area.height
        );
        canvas.text(0, 0, area.width, &message, Style::new());
        return;
    }
    let foot = 1 + u16::from(place.is_some());
    let detail = detail_height(screen, area.height);
    let rows = area.height - HEAD - foot - detail;
    screen.fit(usize::from(rows));
    canvas.title(area, screen, model);
    let nothing_yet = match place {
        Some(_) => "Reading the recording ...",
        None => "Attaching to the scheduler ...",
    };
    canvas.verdict(area, model, nothing_yet);
    let columns = Columns::new(area.width, screen.level);
    canvas.heading(&columns, screen, HEAD - 2);
    canvas.total(&columns, screen, model, HEAD - 1);
    canvas.rows(&columns, screen, model, HEAD);
    if detail > 0 {
        let below = Rect::new(0, HEAD + rows, area.width, detail);
        canvas.detail(below, screen, model);
    }
    if let Some(place) = place {
        canvas.timeline(area, place);
    }
    canvas.keys(area, screen, place.is_some());
    if screen.help {
        canvas.help(area, place.is_some());
    }
}

fn detail_height(screen: &Screen, height: u16) -> u16 {
    match screen.has_detail(height) {
        true if height >= 40 => height / 2,
        true => (height / 2).max(9).min(height.saturating_sub(HEAD + 3)),
        false => 0,
    }
}

/// A buffer, and how things look in it.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    palette: Palette,
}

/// Where the columns of the rows begin, and how wide they are.
struct Columns {
    name: u16,
    bar: u16,
    trend: u16,
    culprit: u16,
}

/// Width of a duration.
const TIME: u16 = 7;

impl Columns {
    fn new(width: u16, level: Level) -> Self {
        let room = width.saturating_sub(3 * (TIME + 1));
        let trend = if width < 72 {
            0
        } else {
            (width / 12).clamp(6, 30)
        };
        let room = room.saturating_sub(trend + 1);
        let name = match level {
            Level::Units => room * 2 / 5,
            _ => room / 3,
        };
        let name = name.clamp(14, 48);
        let culprit = (room / 3).min(44);
        let bar = room.saturating_sub(name + culprit + 2);
        Self {
            name,
            bar,
            trend,
            culprit,
        }
    }

    /// Beginnings of the name, the bar, the three times, the trend and the culprit.
    fn places(&self) -> [u16; 7] {
        let bar = self.name + 1;
        let times = bar + self.bar + 1;
        let trend = times + 3 * (TIME + 1);
        let culprit = trend + self.trend + u16::from(self.trend > 0);
        let [p50, p99, max] = [0, 1, 2].map(|number| times + number * (TIME + 1));
        [0, bar, p50, p99, max, trend, culprit]
    }
}

impl Canvas<'_> {
    /// Writes a text, cut at `width` columns; returns where it ends.
    fn text(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        let area = self.buffer.area;
        if x >= area.right() || y >= area.bottom() {
            return x;
        }
        let text = shorten(text, usize::from(width));
        let (end, _) = self
            .buffer
            .set_stringn(x, y, text, usize::from(width), style);
        end
    }

    /// Writes a text that ends in this column.
    fn right(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) {
        let long = u16::try_from(text.chars().count()).unwrap_or(width);
        self.text(x + width.saturating_sub(long), y, width, text, style);
    }

    fn title(&mut self, area: Rect, screen: &Screen, model: &Model) {
        let mut title = format!("schedscope  {}", safe(&model.about().title));
        if let Some(now) = model.now() {
            let threads: usize = now.targets.iter().map(|target| target.alive).sum();
            let threads = thousands(threads as u64);
            let seconds = now.at_ns.saturating_sub(now.start_ns) / 1_000_000_000;
            let clock = format!("{}:{:02}", seconds / 60, seconds % 60);
            let _ = write!(title, "  {threads} threads  {clock}");
            if now.counts.lost > 0 {
                let _ = write!(title, "  {} events lost", thousands(now.counts.lost));
            }
            let kept = now.shedding.shift;
            if kept > 0 {
                let _ = write!(title, "  SHEDDING: 1 thread in {} followed", 1_u32 << kept);
            } else if now.shedding.most_shift > 0 {
                let _ = write!(
                    title,
                    "  {} events shed",
                    thousands(now.counts.shed.total())
                );
            }
        }
        let heading = self.palette.heading();
        let end = self.text(0, 0, area.width, &title, heading);
        let span = match screen.span {
            Span::Tick => "now",
            Span::Whole => "since the start",
        };
        let mut modes = format!("{} by {}, {span}", screen.level.name(), screen.sort.name());
        if screen.idle {
            modes += ", idle too";
        }
        if screen.typing || !screen.filter.is_empty() {
            let cursor = if screen.typing { "_" } else { "" };
            let _ = write!(modes, "  /{}{cursor}", safe(&screen.filter));
        }
        if screen.paused {
            modes += "  PAUSED";
        }
        let room = area.width.saturating_sub(end + 2);
        let style = if screen.paused || screen.typing {
            self.palette.alarm()
        } else {
            self.palette.quiet()
        };
        let modes = shorten(&modes, usize::from(room));
        self.right(end + 2, 0, room, &modes, style);
    }

    fn verdict(&mut self, area: Rect, model: &Model, nothing_yet: &str) {
        let (text, style) = match model.verdict().first() {
            Some(finding) => (
                format!("{} {}", finding.text, finding.advice),
                self.palette.alarm(),
            ),
            None if model.now().is_none() => (nothing_yet.to_owned(), self.palette.quiet()),
            None => return,
        };
        let lines = wrap(&text, usize::from(area.width), 0);
        let mut lines = lines.lines();
        let first = lines.next().unwrap_or_default();
        self.text(0, 1, area.width, first, style);
        let rest: Vec<&str> = lines.collect();
        self.text(0, 2, area.width, &rest.join(" "), style);
    }

    fn heading(&mut self, columns: &Columns, screen: &Screen, y: u16) {
        let [name, bar, p50, p99, max, trend, culprit] = columns.places();
        let style = self.palette.heading();
        let mark = |sort: Sort, text: &str| {
            if sort == screen.sort {
                format!("{text}v")
            } else {
                text.to_owned()
            }
        };
        let names = match screen.level {
            Level::Threads => "THREAD",
            Level::Processes => "PROCESS",
            Level::Units => "UNIT",
        };
        self.text(name, y, columns.name, &mark(Sort::Name, names), style);
        let bars = match screen.sort {
            Sort::Hurt => "WAITINGv",
            Sort::Running => "RUNNINGv",
            _ => "TIME",
        };
        self.text(bar, y, columns.bar, bars, style);
        self.right(p50, y, TIME, "P50", style);
        self.right(p99, y, TIME, &mark(Sort::P99, "P99"), style);
        self.right(max, y, TIME, &mark(Sort::Max, "MAX"), style);
        if columns.trend > 0 {
            self.text(trend, y, columns.trend, "TREND", style);
        }
        self.text(culprit, y, columns.culprit, "WAITS FOR", style);
    }

    fn total(&mut self, columns: &Columns, screen: &Screen, model: &Model, y: u16) {
        if model.now().is_none() {
            return;
        }
        let total = model.total(screen.span);
        let [p50_ns, _, p99_ns, _] = total.figures.runqueue_delay.quantiles_ns();
        let max_ns = total.figures.runqueue_delay.max_ns();
        let [name, bar, ..] = columns.places();
        let count = match screen.rows().len() {
            1 => format!("1 {}", screen.level.name().trim_end_matches('s')),
            many => format!("{} {}", thousands(many as u64), screen.level.name()),
        };
        let count = count.replace("1 processe", "1 process");
        self.text(name, y, columns.name, &count, self.palette.quiet());
        // Idle threads would leave nothing else to be seen.
        let mut parts = part::parts(&total.figures);
        if !screen.idle {
            parts[Part::Idle as usize] = 0;
        }
        self.bar(bar, y, columns.bar, &parts, Style::new());
        self.times(columns, y, [p50_ns, p99_ns, max_ns], Style::new());
    }

    fn rows(&mut self, columns: &Columns, screen: &Screen, model: &Model, y: u16) {
        if screen.rows().is_empty() && model.now().is_some() {
            let message = match (screen.filter.is_empty(), screen.idle) {
                (false, _) => "No row has this in its name: Esc clears the filter.",
                (true, false) => "Nothing but idleness: i shows it.",
                (true, true) => "No threads.",
            };
            self.text(0, y, self.buffer.area.width, message, self.palette.quiet());
            return;
        }
        let shown = screen.rows().iter().enumerate();
        for (line, (place, row)) in shown.skip(screen.first).take(screen.page).enumerate() {
            let y = y + u16::try_from(line).unwrap_or(u16::MAX);
            let is_chosen = screen.chosen() == Some(place);
            self.row(columns, row, y, is_chosen);
        }
    }

    fn row(&mut self, columns: &Columns, row: &Row, y: u16, is_chosen: bool) {
        let [name, bar, _, _, _, trend, culprit] = columns.places();
        let style = match (is_chosen, row.ended) {
            (true, _) => self.palette.chosen(),
            (false, true) => self.palette.quiet(),
            (false, false) => Style::new(),
        };
        if is_chosen {
            let line = Rect::new(0, y, self.buffer.area.width, 1);
            self.buffer.set_style(line, style);
        }
        self.text(name, y, columns.name, &title(row, columns.name), style);
        self.bar(bar, y, columns.bar, &row.parts, style);
        self.times(columns, y, [row.p50_ns, row.p99_ns, row.max_ns], style);
        if columns.trend > 0 {
            let trend_text = sparkline(&row.trend, columns.trend);
            self.text(trend, y, columns.trend, &trend_text, style);
        }
        let room = self.buffer.area.width.saturating_sub(culprit);
        self.text(culprit, y, room, &waits_for(row, room), style);
    }

    fn times(&mut self, columns: &Columns, y: u16, times: [u64; 3], style: Style) {
        let [_, _, p50, p99, max, ..] = columns.places();
        for (x, ns) in [p50, p99, max].into_iter().zip(times) {
            let text = if ns == 0 {
                "-".to_owned()
            } else {
                duration(ns)
            };
            self.right(x, y, TIME, &text, style);
        }
    }

    /// A bar: each part by its letter, and by its colour if there are colours.
    fn bar(&mut self, x: u16, y: u16, width: u16, parts: &Parts, base: Style) {
        let mut x = x;
        for (part, cells) in Part::ALL.into_iter().zip(shares(parts, width)) {
            let style = if self.palette.colors {
                self.palette.part(part)
            } else {
                base
            };
            for _ in 0..cells {
                if let Some(cell) = self.buffer.cell_mut((x, y)) {
                    cell.set_char(part.letter()).set_style(style);
                }
                x += 1;
            }
        }
    }

    fn keys(&mut self, area: Rect, screen: &Screen, is_recorded: bool) {
        let keys = match (screen.typing, is_recorded) {
            (true, _) => "type to filter by name, id or unit   Enter keep   Esc clear",
            (_, false) => {
                "? help  q quit  s sort  / filter  t level  Enter detail  i idle  space pause"
            }
            (_, true) => {
                "? help  q quit  Left Right [ ] 0 $ go  n N long waits  space play  + - speed"
            }
        };
        self.text(0, area.bottom() - 1, area.width, keys, self.palette.quiet());
    }
}

/// Waits that go on for longer than a tick are shown as such.
const LONG_NS: u64 = 1_000_000_000;

/// Who had its CPU if it was queued for a good part of the time, else the wait that goes on.
fn waits_for(row: &Row, room: u16) -> String {
    let of = if room < 24 { "" } else { "CPU of " };
    let contended_ns = row.parts[Part::Contended as usize];
    let is_contended = contended_ns >= row.observed_ns() / 20;
    match (&row.culprit, &row.open) {
        (Some(who), _) if is_contended => format!("{of}{}", safe(who)),
        (_, Some((what, ns))) if *ns >= LONG_NS => format!("{what} {}", duration(*ns)),
        (Some(who), _) => format!("{of}{}", safe(who)),
        (None, _) => String::new(),
    }
}

/// Name and id; the id stays whole.
fn title(row: &Row, width: u16) -> String {
    let name = safe(&row.name);
    let suffix = match (row.id, row.threads) {
        (0, threads) => format!(" ({threads})"),
        (id, _) => format!("/{id}"),
    };
    let room = usize::from(width).saturating_sub(suffix.len());
    shorten(&name, room) + &suffix
}

/// The newest values as bars.
fn sparkline(values: &[u64], width: u16) -> String {
    let newest = values.iter().rev().take(usize::from(width));
    let bars: String = newest.rev().map(|&ns| bar_of(ns, TREND_NS)).collect();
    let missing = usize::from(width).saturating_sub(values.len());
    " ".repeat(missing) + &bars
}

/// The lowest bar of a trend is 10 us.
const TREND_NS: f64 = 10_000.0;

/// Each bar stands for so many times the one below: a delay that is ten times as long must not hide the
/// others.
const BAR_STEP: f64 = 2.5;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A delay as a bar of one of eight heights, the lowest of which stands for this.
fn bar_of(ns: u64, lowest_ns: f64) -> char {
    if ns == 0 {
        return ' ';
    }
    let steps = (ns as f64 / lowest_ns).max(1.0).log(BAR_STEP);
    let mut bars = (1u8..).zip(BARS);
    let fits = bars.find(|(number, _)| steps < f64::from(*number));
    fits.map_or('█', |(_, bar)| bar)
}
