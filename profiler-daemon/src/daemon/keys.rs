//! From what a terminal sends to what a screen is told.

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::sink::screen::Key;

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// A key that the screen knows.
    Key(Key),
    /// The program is to stop until its user wants it again.
    Suspend,
    /// It is to end.
    Quit,
    /// Nothing that matters. A change of size is one: drawing is enough for it.
    Nothing,
}

impl From<&Event> for Pressed {
    fn from(event: &Event) -> Self {
        let Event::Key(event) = event else {
            return Self::Nothing;
        };
        if event.kind == KeyEventKind::Release {
            return Self::Nothing;
        }
        let control = event.modifiers.contains(KeyModifiers::CONTROL);
        Self::Key(match event.code {
            KeyCode::Char('c') if control => return Self::Quit,
            KeyCode::Char('z') if control => return Self::Suspend,
            KeyCode::Char(letter) if !control => Key::Char(letter),
            KeyCode::Up => Key::Up,
            KeyCode::Down => Key::Down,
            KeyCode::Left => Key::Left,
            KeyCode::Right => Key::Right,
            KeyCode::PageUp => Key::PageUp,
            KeyCode::PageDown => Key::PageDown,
            KeyCode::Home => Key::Home,
            KeyCode::End => Key::End,
            KeyCode::Enter => Key::Enter,
            KeyCode::Esc => Key::Escape,
            KeyCode::Backspace => Key::Backspace,
            KeyCode::Tab => Key::Tab,
            _ => return Self::Nothing,
        })
    }
}
