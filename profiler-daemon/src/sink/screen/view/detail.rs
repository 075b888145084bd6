//! The chosen row in detail: how long it was queued, what it was blocked for, who had a part in it, and its
//! longest waits with where in the kernel they were.

use std::fmt::Write as _;

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Canvas;
use crate::core::{
    Cause, Detail as Whose, Figures, LongWait, Share, Waited, Waker, WakerKind, Who,
};
use crate::sink::screen::model::{Detail, Model};
use crate::sink::screen::row::{Row, by_label};
use crate::sink::screen::state::Screen;
use crate::sink::text::{duration, percent, safe, thousands};

/// Rows of a list.
const MOST: usize = 6;

/// Frames of a stack.
const FRAMES: usize = 6;

/// What is shorter is all the same: 1.02 us.
const SHORTEST_NS: u64 = 1 << 8;

/// From so many columns on there is room for three lists beside one another.
const WIDE: u16 = 120;

/// Cells of the longest bar of a histogram.
const LONGEST: u64 = 14;

/// What belongs together: a heading and its lines.
struct Section {
    title: String,
    lines: Vec<String>,
}

impl Canvas<'_> {
    /// The chosen row in detail.
    pub(super) fn detail(&mut self, area: Rect, screen: &Screen, model: &Model) {
        let chosen = screen.chosen().and_then(|place| screen.rows().get(place));
        let line = "─".repeat(usize::from(area.width));
        self.text(area.x, area.y, area.width, &line, self.palette.quiet());
        let Some(row) = chosen else { return };
        let heading = format!(" {} ", heading(row));
        let bold = self.palette.heading();
        self.text(area.x + 1, area.y, area.width - 2, &heading, bold);
        let Some(detail) = model.detail(&row.key, screen.level, screen.span) else {
            let gone = "It did nothing in this time, or has ended.";
            self.text(area.x, area.y + 1, area.width, gone, self.palette.quiet());
            return;
        };
        let sections = sections(row, &detail, screen, model);
        let inside = Rect::new(area.x, area.y + 1, area.width, area.height - 1);
        if area.width < WIDE {
            return self.flow(inside, 2, &sections);
        }
        // How long, by whom, and single waits each have a column of their own.
        let (how_long, rest) = sections.split_at(2);
        let (by_whom, single) = rest.split_at(3);
        let width = area.width / 3;
        for (number, sections) in (0..).zip([how_long, by_whom, single]) {
            let column = Rect::new(area.x + number * width, inside.y, width, inside.height);
            self.flow(column, 1, sections);
        }
    }

    /// Fills columns with sections, one after the other; what has no room is left out.
    fn flow(&mut self, area: Rect, columns: u16, sections: &[Section]) {
        let width = area.width / columns;
        let (mut column, mut y) = (0, area.y);
        for section in sections.iter().filter(|section| !section.lines.is_empty()) {
            // A heading with one line is of use; less is not.
            if y > area.y && y + 2 > area.bottom() {
                column += 1;
                y = area.y;
            }
            if column >= columns {
                return;
            }
            let room = width - 1;
            let bold = self.palette.heading();
            self.text(area.x + column * width, y, room, &section.title, bold);
            y += 1;
            for line in &section.lines {
                if y >= area.bottom() {
                    column += 1;
                    y = area.y;
                    if column >= columns {
                        return;
                    }
                }
                self.text(area.x + column * width + 1, y, room - 1, line, Style::new());
                y += 1;
            }
        }
    }
}

fn heading(row: &Row) -> String {
    let name = safe(&row.name);
    let mut heading = match row.id {
        0 => name,
        id => format!("{name}/{id}"),
    };
    if row.threads > 1 {
        let _ = write!(heading, ", {} threads", thousands(row.threads as u64));
    }
    if !row.unit.is_empty() && row.id > 0 {
        let _ = write!(heading, " of {}", safe(&row.unit));
    }
    if row.ended {
        heading += ", ended";
    }
    if let Some((what, ns)) = &row.open {
        let _ = write!(heading, ", waiting for {what} for {}", duration(*ns));
    }
    heading
}

fn sections(row: &Row, detail: &Detail<'_>, screen: &Screen, model: &Model) -> Vec<Section> {
    let figures = &detail.account.figures;
    let whose = &detail.account.detail;
    let section = |title: &str, lines| Section {
        title: title.to_owned(),
        lines,
    };
    vec![
        section("Time", time(figures, row.observed_ns())),
        Section {
            title: format!(
                "Delay for a CPU: {} times",
                thousands(figures.runqueue_delay.count())
            ),
            lines: histogram(figures),
        },
        section("Blocked for", reasons(whose, screen.idle)),
        section("Woken by", wakers(whose)),
        section("CPU held by", culprits(whose, screen, model)),
        section("Longest waits", waits(&detail.waits)),
        section("Where in the kernel the first was", stack(&detail.waits)),
    ]
}

fn time(figures: &Figures, whole_ns: u64) -> Vec<String> {
    let line = |name: &str, ns: u128| {
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        let share = percent(ns, whole_ns);
        format!("{name:<11}{:>8} {share:>6}", duration(ns))
    };
    let shares = [Share::Running, Share::Blocked, Share::Unknown]
        .map(|share| (share.name(), figures.time(share)));
    let causes = Cause::ALL.map(|cause| match cause {
        Cause::Unknown => ("queued, ?", figures.runnable(cause)),
        cause => (cause.name(), figures.runnable(cause)),
    });
    let [running, blocked, unknown] = shares;
    let all = [running]
        .into_iter()
        .chain(causes)
        .chain([blocked, unknown]);
    let mut lines: Vec<String> = all
        .filter(|(_, ns)| *ns > 0)
        .map(|(name, ns)| line(name, ns))
        .collect();
    lines.push(format!(
        "switches: {} to wait, {} taken off",
        thousands(figures.voluntary),
        thousands(figures.involuntary)
    ));
    lines
}

/// Delays by powers of four: an octave is too fine for a screen.
fn histogram(figures: &Figures) -> Vec<String> {
    let mut counts = [0u64; 24];
    for (end_ns, count) in figures.runqueue_delay.buckets() {
        let power = usize::try_from(end_ns.max(SHORTEST_NS).ilog2() / 2).unwrap_or(0);
        if let Some(sum) = counts.get_mut(power) {
            *sum += count;
        }
    }
    let filled = |count: &u64| *count > 0;
    let first = counts.iter().position(filled);
    let last = counts.iter().rposition(filled);
    let (Some(first), Some(last)) = (first, last) else {
        return Vec::new();
    };
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    (first..=last)
        .map(|power| {
            let count = counts[power];
            let cells = (count * LONGEST).div_ceil(most);
            let bar = "█".repeat(usize::try_from(cells).unwrap_or(0));
            let below = duration(1 << (2 * power + 2));
            let count = thousands(count);
            format!("<{below:>7} {bar:<14} {count}")
        })
        .collect()
}

fn reasons(whose: &Whose, idle: bool) -> Vec<String> {
    let rows = whose.waits.rows().into_iter();
    rows.filter(|(wait, (), _)| idle || !wait.reason.is_idle())
        .take(MOST)
        .map(|(wait, (), weight)| {
            let ns = u64::try_from(weight.ns).unwrap_or(u64::MAX);
            let count = thousands(weight.count);
            format!(
                "{:>7} {:<12} {count}x, {}",
                duration(ns),
                wait.name(),
                wait.explain()
            )
        })
        .collect()
}

fn wakers(whose: &Whose) -> Vec<String> {
    let rows = whose.wakers.rows().into_iter();
    rows.take(MOST)
        .map(|(waker, who, weight)| {
            format!("{:>7}x {}", thousands(weight.count), ender(waker, *who))
        })
        .collect()
}

fn ender(waker: Waker, who: Option<Who>) -> String {
    match (waker.kind, who) {
        (WakerKind::Thread, Some(who)) => format!("{}/{}", who.comm.display(), who.tid),
        (WakerKind::Thread, None) => format!("?/{}", waker.number),
        (WakerKind::Timer, _) => "a timer".to_owned(),
        (WakerKind::Network, _) => "the network".to_owned(),
        (WakerKind::Block, _) => "a block device".to_owned(),
        (WakerKind::Ipi, _) => "another CPU".to_owned(),
        (WakerKind::Irq, _) if waker.number > 0 => format!("interrupt {}", waker.number),
        (WakerKind::Irq, _) => "an interrupt".to_owned(),
        (WakerKind::Unknown, _) => "something unseen".to_owned(),
    }
}

fn culprits(whose: &Whose, screen: &Screen, model: &Model) -> Vec<String> {
    let label = |who: &Who| model.label(who, screen.level);
    by_label(&whose.culprits, &label)
        .into_iter()
        .take(MOST)
        .map(|(name, ns)| format!("{:>7} {}", duration(ns), safe(&name)))
        .collect()
}

fn waits(waits: &[&LongWait]) -> Vec<String> {
    waits
        .iter()
        .take(MOST)
        .map(|wait| {
            let what = match &wait.waited {
                Waited::Cpu(origin, _) => format!("a CPU ({})", origin.name()),
                Waited::Other(wait) => wait.name(),
            };
            let by = match (&wait.waited, wait.culprits.first()) {
                (Waited::Cpu(..), Some((who, _))) => {
                    format!(", held by {}/{}", who.comm.display(), who.tid)
                }
                _ if wait.waker.kind == WakerKind::Unknown => String::new(),
                _ => format!(", ended by {}", ender(wait.waker, wait.waker_thread)),
            };
            let goes_on = if wait.is_open { ", goes on" } else { "" };
            format!("{:>7} {what}{by}{goes_on}", duration(wait.duration_ns()))
        })
        .collect()
}

fn stack(waits: &[&LongWait]) -> Vec<String> {
    let stacks = waits.iter().filter_map(|wait| wait.stack.as_ref());
    let first = stacks
        .map(|stack| stack.frames())
        .find(|its| !its.is_empty());
    let frames = first.unwrap_or_default().iter();
    frames.take(FRAMES).map(|frame| safe(frame)).collect()
}
