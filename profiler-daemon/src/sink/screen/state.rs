//! What is shown of a model, and how: keys change it.

use super::model::{Model, Span};
use super::part::Part;
use super::row::{Level, Row, RowKey};

/// A key, as far as the screen knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// Back in time, in a recording.
    Left,
    /// On in time, in a recording.
    Right,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the first row.
    Home,
    /// To the last row.
    End,
    /// Opens and closes the details of the chosen row.
    Enter,
    /// Ends typing, closes what is open.
    Escape,
    /// Takes back a character.
    Backspace,
    /// The next level.
    Tab,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    Stay,
    /// End.
    Quit,
}

/// What rows are sorted by, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Time kept from work: first waits for a CPU, a disk or memory, then those that may be idleness.
    #[default]
    Hurt,
    /// P99 of the run-queue delay.
    P99,
    /// The longest run-queue delay.
    Max,
    /// Time on a CPU.
    Running,
    /// The name, from A to Z.
    Name,
}

impl Sort {
    /// All of them, in the order in which a key goes through them.
    pub const ALL: [Self; 5] = [Self::Hurt, Self::P99, Self::Max, Self::Running, Self::Name];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hurt => "waiting",
            Self::P99 => "P99",
            Self::Max => "max",
            Self::Running => "running",
            Self::Name => "name",
        }
    }

    fn moved(self, by: usize) -> Self {
        let place = Self::ALL.iter().position(|its| *its == self).unwrap_or(0);
        Self::ALL[(place + by) % Self::ALL.len()]
    }

    fn sort(self, rows: &mut [Row]) {
        match self {
            // Who waits for a lock or a peer may have nothing to do; who waits for a CPU or a disk has.
            Self::Hurt => rows.sort_by_cached_key(|row| {
                let surely = row.of(Part::surely_hurts);
                let key = row.key.clone();
                std::cmp::Reverse((surely, row.hurt_ns(), row.parts[0], std::cmp::Reverse(key)))
            }),
            Self::P99 => rows.sort_by_cached_key(|row| down(row, row.p99_ns)),
            Self::Max => rows.sort_by_cached_key(|row| down(row, row.max_ns)),
            Self::Running => rows.sort_by_cached_key(|row| down(row, row.parts[0])),
            Self::Name => rows.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id))),
        }
    }
}

/// The largest first; equal ones by what they did on a CPU, and in an order that stays.
fn down(row: &Row, by: u64) -> (std::cmp::Reverse<(u64, u64)>, RowKey) {
    (std::cmp::Reverse((by, row.parts[0])), row.key.clone())
}

/// What is shown.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key's own switch, and any of them goes with any other"
)]
pub struct Screen {
    /// What a row is.
    pub level: Level,
    /// Over which time.
    pub span: Span,
    /// In which order.
    pub sort: Sort,
    /// Rows must have this in their names; small letters stand for large ones, too.
    pub filter: String,
    /// Whether what is typed goes to the filter.
    pub typing: bool,
    /// Whether the figures stand still.
    pub paused: bool,
    /// Whether idleness is shown like all else.
    pub idle: bool,
    /// Whether the chosen row is shown in detail; by the screen's height if nobody has said.
    pub detail: Option<bool>,
    /// Whether the help is shown.
    pub help: bool,
    rows: Vec<Row>,
    chosen: Option<RowKey>,
    /// Where the chosen row was last.
    place: usize,
    /// The first row on the screen, and how many there is room for.
    pub(super) first: usize,
    pub(super) page: usize,
}

impl Screen {
    /// The rows, sorted and filtered.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Number of the chosen row, if there are any.
    #[must_use]
    pub fn chosen(&self) -> Option<usize> {
        (!self.rows.is_empty()).then_some(self.place)
    }

    /// Takes the rows from the model, which has newer figures.
    pub fn refresh(&mut self, model: &Model) {
        let mut rows = model.rows(self.level, self.span, self.idle);
        let wanted = self.filter.to_lowercase();
        if !wanted.is_empty() {
            rows.retain(|row| is_like(row, &wanted));
        }
        self.sort.sort(&mut rows);
        self.rows = rows;
        let key = self.chosen.as_ref();
        let place = key.and_then(|key| self.rows.iter().position(|row| row.key == *key));
        match place {
            Some(place) => self.place = place,
            // Nobody has chosen one, or it is gone: the same place.
            None => self.place = self.place.min(self.rows.len().saturating_sub(1)),
        }
    }

    fn choose(&mut self, place: usize) {
        self.place = place.min(self.rows.len().saturating_sub(1));
        // The first row is the worst, whichever that is, until another one is chosen.
        let row = self.rows.get(self.place).filter(|_| self.place > 0);
        self.chosen = row.map(|row| row.key.clone());
    }

    /// Makes room for so many rows, and moves them so that the chosen one is among them.
    pub(super) fn fit(&mut self, page: usize) {
        self.page = page.max(1);
        let last = self.rows.len().saturating_sub(self.page);
        self.first = self.first.min(last).min(self.place);
        if self.place >= self.first + self.page {
            self.first = self.place + 1 - self.page;
        }
    }

    /// Whether the chosen row is shown in detail on a screen of this height.
    #[must_use]
    pub fn has_detail(&self, height: u16) -> bool {
        self.detail.unwrap_or(height >= 30)
    }

    /// Does what a key says; `model` is what is shown, and `height` that of the screen.
    pub fn press(&mut self, key: Key, model: &Model, height: u16) -> Step {
        if self.help {
            self.help = false;
            return Step::Stay;
        }
        if self.typing {
            self.type_in(key, model);
            return Step::Stay;
        }
        match key {
            Key::Char('q') => return Step::Quit,
            Key::Char('?' | 'h') => self.help = true,
            Key::Char(' ' | 'p') => self.paused = !self.paused,
            Key::Char('/') => self.typing = true,
            Key::Char('s') => self.sort = self.sort.moved(1),
            Key::Char('S') => self.sort = self.sort.moved(Sort::ALL.len() - 1),
            Key::Char('i') => self.idle = !self.idle,
            Key::Char('t') | Key::Tab => self.go_to(self.level.next()),
            Key::Char('1') => self.go_to(Level::Threads),
            Key::Char('2') => self.go_to(Level::Processes),
            Key::Char('3') => self.go_to(Level::Units),
            Key::Char('a') => {
                self.span = match self.span {
                    Span::Tick => Span::Whole,
                    Span::Whole => Span::Tick,
                };
            }
            Key::Char('d') | Key::Enter => self.detail = Some(!self.has_detail(height)),
            Key::Escape if !self.filter.is_empty() => self.filter.clear(),
            Key::Escape => self.detail = Some(false),
            Key::Up | Key::Char('k') => return self.step(self.place.saturating_sub(1)),
            Key::Down | Key::Char('j') => return self.step(self.place + 1),
            Key::PageUp => return self.step(self.place.saturating_sub(self.page)),
            Key::PageDown => return self.step(self.place + self.page),
            Key::Home | Key::Char('g') => return self.step(0),
            Key::End | Key::Char('G') => return self.step(usize::MAX),
            Key::Char(_) | Key::Backspace | Key::Left | Key::Right => {}
        }
        self.refresh(model);
        Step::Stay
    }

    fn step(&mut self, place: usize) -> Step {
        self.choose(place);
        Step::Stay
    }

    fn go_to(&mut self, level: Level) {
        self.level = level;
        self.chosen = None;
        self.place = 0;
    }

    fn type_in(&mut self, key: Key, model: &Model) {
        match key {
            Key::Char(letter) => self.filter.push(letter),
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Escape => {
                self.filter.clear();
                self.typing = false;
            }
            Key::Enter => self.typing = false,
            Key::Up => self.choose(self.place.saturating_sub(1)),
            Key::Down => self.choose(self.place + 1),
            _ => {}
        }
        self.refresh(model);
    }
}

fn is_like(row: &Row, wanted: &str) -> bool {
    row.name.to_lowercase().contains(wanted)
        || row.unit.to_lowercase().contains(wanted)
        || (row.id > 0 && row.id.to_string().starts_with(wanted))
}
