//! What a thread's time is shown as. Each part has a letter and a colour, so that it can be told by either.

use ratatui::style::{Color, Modifier, Style};

use crate::core::{Cause, Figures, Reason, Spent};

/// A part of time, as a bar shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// On a CPU.
    Running,
    /// Queued while another thread or an interrupt had the CPU.
    Contended,
    /// Queued because the cgroup's CPU quota was used up.
    Throttled,
    /// Queued while the CPU was idle.
    Placement,
    /// Blocked by a lock, of the program's or of the kernel's.
    Lock,
    /// Blocked by a disk or a file system.
    Disk,
    /// Blocked by a page fault or for want of memory.
    Memory,
    /// Blocked by the network.
    Network,
    /// Blocked by another process: pipes, local sockets, terminals.
    Ipc,
    /// Blocked by something else that is not idleness.
    Other,
    /// Blocked with nothing to do.
    Idle,
    /// Not known.
    Unknown,
}

struct Look {
    letter: char,
    name: &'static str,
    /// A colour of the palette by Okabe and Ito, which people with any colour vision can tell apart, in
    /// the nearest of xterm's 256; and whether black text is read better on it than white.
    color: u8,
    dark_text: bool,
}

const fn look(letter: char, name: &'static str, color: u8, dark_text: bool) -> Look {
    Look {
        letter,
        name,
        color,
        dark_text,
    }
}

/// In the order of [`Part::ALL`].
const LOOKS: [Look; Part::COUNT] = [
    look('R', "running", 36, true),
    look('C', "contended: CPU in use", 166, false),
    look('T', "throttled: CPU quota", 175, true),
    look('P', "placement: CPU was idle", 227, true),
    look('L', "lock", 214, true),
    look('D', "disk, file system", 74, true),
    look('M', "page fault, memory", 25, false),
    look('N', "network", 117, true),
    look('I', "pipe, socket, terminal", 67, false),
    look('O', "other waits", 245, true),
    look('.', "idle: nothing to do", 236, false),
    look('?', "not known", 240, false),
];

impl Part {
    /// How many there are.
    pub const COUNT: usize = 12;

    /// All of them, in the order in which a bar has them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Running,
        Self::Contended,
        Self::Throttled,
        Self::Placement,
        Self::Lock,
        Self::Disk,
        Self::Memory,
        Self::Network,
        Self::Ipc,
        Self::Other,
        Self::Idle,
        Self::Unknown,
    ];

    /// The part that this is shown as.
    #[must_use]
    pub fn of(spent: Spent) -> Self {
        match spent {
            Spent::Running => Self::Running,
            Spent::Unknown | Spent::Shed | Spent::Queued(_, Cause::Unknown) => Self::Unknown,
            Spent::Queued(_, Cause::Contended) => Self::Contended,
            Spent::Queued(_, Cause::Throttled) => Self::Throttled,
            Spent::Queued(_, Cause::Placement) => Self::Placement,
            Spent::Blocked(reason) => Self::of_reason(reason),
        }
    }

    /// The part that blocked time of this reason is shown as.
    #[must_use]
    pub fn of_reason(reason: Reason) -> Self {
        match reason {
            _ if reason.is_idle() => Self::Idle,
            Reason::Lock | Reason::KernelLock => Self::Lock,
            Reason::DiskIo | Reason::FsSync => Self::Disk,
            Reason::PageFault | Reason::MemoryReclaim => Self::Memory,
            Reason::NetRecv | Reason::NetSend | Reason::NetConnect | Reason::NetAccept => {
                Self::Network
            }
            Reason::Unknown => Self::Unknown,
            Reason::Pipe | Reason::UnixSocket | Reason::Tty => Self::Ipc,
            _ => Self::Other,
        }
    }

    /// Its letter in bars.
    #[must_use]
    pub fn letter(self) -> char {
        LOOKS[self as usize].letter
    }

    /// What it means.
    #[must_use]
    pub fn name(self) -> &'static str {
        LOOKS[self as usize].name
    }

    /// Whether it is time in which a thread was kept from its work for sure: waits for locks and peers may
    /// be idleness.
    #[must_use]
    pub fn surely_hurts(self) -> bool {
        matches!(
            self,
            Self::Contended | Self::Throttled | Self::Placement | Self::Disk | Self::Memory
        )
    }

    /// Whether it is time in which a thread was kept from its work.
    #[must_use]
    pub fn hurts(self) -> bool {
        !matches!(self, Self::Running | Self::Idle | Self::Unknown)
    }
}

/// Nanoseconds by part, in the order of [`Part::ALL`].
pub type Parts = [u64; Part::COUNT];

/// The time of these figures by part.
#[must_use]
pub fn parts(figures: &Figures) -> Parts {
    let mut parts = [0u64; Part::COUNT];
    for spent in Spent::all() {
        let ns = u64::try_from(figures.spent(spent)).unwrap_or(u64::MAX);
        let part = &mut parts[Part::of(spent) as usize];
        *part = part.saturating_add(ns);
    }
    parts
}

/// How many cells of a bar each part gets: in all `cells`, if there is any time at all.
#[must_use]
pub fn shares(parts: &Parts, cells: u16) -> [u16; Part::COUNT] {
    let whole: u128 = parts.iter().map(|&ns| u128::from(ns)).sum();
    let mut given = [0u16; Part::COUNT];
    if whole == 0 {
        return given;
    }
    let exact = |part: usize| u128::from(parts[part]) * u128::from(cells);
    let mut rest: Vec<(u128, usize)> = Vec::with_capacity(Part::COUNT);
    for (part, cells) in given.iter_mut().enumerate() {
        *cells = u16::try_from(exact(part) / whole).unwrap_or(0);
        rest.push((exact(part) % whole, part));
    }
    // The cells left over go to those that miss most of one.
    let left = cells.saturating_sub(given.iter().sum());
    rest.sort_by_key(|&(rest, part)| (std::cmp::Reverse(rest), part));
    for &(_, part) in rest.iter().take(usize::from(left)) {
        given[part] += 1;
    }
    given
}

/// How things are told apart on a screen: by colours, or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    /// Whether there may be colours.
    pub colors: bool,
}

impl Palette {
    /// Of a cell of a bar.
    #[must_use]
    pub fn part(self, part: Part) -> Style {
        let look = &LOOKS[part as usize];
        match (self.colors, part) {
            (false, _) => Style::new(),
            (true, Part::Idle | Part::Unknown) => Style::new().fg(Color::Indexed(245)),
            (true, _) => Style::new()
                .bg(Color::Indexed(look.color))
                .fg(Color::Indexed(if look.dark_text { 16 } else { 231 })),
        }
    }

    /// Of what heads something.
    #[must_use]
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of what matters less.
    #[must_use]
    pub fn quiet(self) -> Style {
        if self.colors {
            Style::new().fg(Color::Indexed(245))
        } else {
            Style::new()
        }
    }

    /// Of what wants attention.
    #[must_use]
    pub fn alarm(self) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if self.colors {
            bold.fg(Color::Indexed(214))
        } else {
            bold
        }
    }

    /// Of the row that is chosen.
    #[must_use]
    pub fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, shares};
    use proptest::prelude::*;

    #[test]
    fn each_part_has_its_place_and_a_letter_of_its_own() {
        let mut letters: Vec<char> = Part::ALL.iter().map(|part| part.letter()).collect();
        for (place, part) in Part::ALL.iter().enumerate() {
            assert_eq!(*part as usize, place);
        }
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), Part::COUNT);
    }

    proptest! {
        #[test]
        fn a_bar_is_full_and_fair(
            parts in prop::array::uniform12(prop_oneof![Just(0u64), any::<u64>(), 0u64..1000]),
            cells in 0u16..300,
        ) {
            let whole: u128 = parts.iter().map(|&ns| u128::from(ns)).sum();
            let given = shares(&parts, cells);
            let sum: u16 = given.iter().sum();
            prop_assert_eq!(sum, if whole > 0 { cells } else { 0 });
            for (&ns, &got) in parts.iter().zip(&given) {
                let exact = u128::from(ns) * u128::from(cells);
                let (got, off) = (u128::from(got), whole);
                prop_assert!(got * whole < exact + off.max(1) && got * whole + off >= exact);
            }
        }
    }
}
