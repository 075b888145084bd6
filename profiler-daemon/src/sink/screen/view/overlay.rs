//! The help, on top of everything else.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Canvas;
use crate::sink::screen::part::Part;

const KEYS: [(&str, &str); 12] = [
    ("Up Down PgUp PgDn", "choose a row (also j k g G)"),
    ("Enter, d", "the chosen row in detail"),
    ("s, S", "sort: waiting, P99, max, running, name"),
    ("/", "filter by name, id or unit"),
    ("Esc", "clear the filter, close the detail"),
    ("t, Tab, 1 2 3", "threads, processes, units"),
    ("i", "show idleness, too"),
    ("a", "figures since the start, or of now"),
    ("space, p", "pause; measuring goes on"),
    ("Ctrl-Z", "suspend; events are lost until fg"),
    ("q, Ctrl-C", "end, with a report"),
    ("?, h", "this help; any key closes it"),
];

const KEYS_OF_A_RECORDING: [(&str, &str); 14] = [
    ("Left Right", "back or on in time, by a tick"),
    ("[ ]", "by ten ticks"),
    ("0 $", "to the start, to the end"),
    ("n N", "to the next long wait, the one before"),
    ("space, p", "play, stop"),
    ("+ -", "play faster, slower"),
    ("z Z", "shorter ticks, longer ones"),
    ("Up Down PgUp PgDn", "choose a row (also j k g G)"),
    ("Enter, d", "the chosen row in detail"),
    ("s, S", "sort: waiting, P99, max, running, name"),
    ("/, Esc", "filter by name, id or unit; clear it"),
    ("t, Tab, 1 2 3", "threads, processes, units"),
    ("i, a", "idleness, too; figures since the start"),
    ("q, ?", "end; this help, any key closes it"),
];

impl Canvas<'_> {
    pub(super) fn help(&mut self, area: Rect, is_recorded: bool) {
        let keys: &[(&str, &str)] = if is_recorded {
            &KEYS_OF_A_RECORDING
        } else {
            &KEYS
        };
        let wide = area.width >= 110;
        let lines = keys.len() + if wide { 0 } else { Part::COUNT.div_ceil(2) + 1 };
        let width = if wide { 106 } else { 60 };
        let height = u16::try_from(lines + 2).unwrap_or(u16::MAX).max(15);
        let (width, height) = (width.min(area.width), height.min(area.height));
        let x = (area.width - width) / 2;
        let y = (area.height - height) / 2;
        for line in y..y + height {
            self.text(
                x,
                line,
                width,
                &" ".repeat(usize::from(width)),
                Style::reset(),
            );
        }
        self.frame(Rect::new(x, y, width, height), " Keys ");
        let inside = (x + 2, y + 1, y + height - 1);
        for (place, (key, what)) in (inside.1..inside.2).zip(keys) {
            let bold = self.palette.heading();
            self.text(inside.0, place, 18, key, bold);
            self.text(inside.0 + 19, place, 39, what, Style::new());
        }
        for (number, part) in (0u16..).zip(Part::ALL) {
            let (x, y) = if wide {
                (inside.0 + 62, inside.1 + number)
            } else {
                let below = inside.1 + u16::try_from(keys.len()).unwrap_or(0) + 1;
                (inside.0 + number % 2 * 28, below + number / 2)
            };
            if y >= inside.2 {
                break;
            }
            let style = self.palette.part(part);
            let end = self.text(x, y, 1, &part.letter().to_string(), style);
            let room = if wide { 40 } else { 25 };
            self.text(end + 1, y, room, part.name(), Style::new());
        }
    }

    /// A border with a title.
    fn frame(&mut self, area: Rect, title: &str) {
        let quiet = self.palette.quiet();
        let inner = "─".repeat(usize::from(area.width.saturating_sub(2)));
        let edge = format!("┌{inner}┐");
        self.text(area.x, area.y, area.width, &edge, quiet);
        let edge = format!("└{inner}┘");
        self.text(area.x, area.bottom() - 1, area.width, &edge, quiet);
        for y in area.y + 1..area.bottom() - 1 {
            self.text(area.x, y, 1, "│", quiet);
            self.text(area.right() - 1, y, 1, "│", quiet);
        }
        let bold = self.palette.heading();
        self.text(area.x + 2, area.y, area.width, title, bold);
    }
}
