//! System calls by number.

use std::sync::LazyLock;

use profiler_ebpf::syscall;

use super::syscalls;
use super::{FileKind, Reason};

/// The system call that a thread waits in, or why none is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Nobody looked.
    NotRead,
    /// It is in none: an exception, such as a page fault, brought it into the kernel.
    None,
    /// One by an ABI that is not the machine's own, whose numbers mean others.
    Foreign,
    /// The one with this number, by the table of this machine's architecture.
    Number(u16),
}

impl Call {
    /// As a record has it (`profiler_ebpf::Switch::prev_syscall`).
    #[must_use]
    pub const fn from_wire(number: u16) -> Self {
        match number {
            syscall::NONE => Self::None,
            syscall::FOREIGN_ABI => Self::Foreign,
            number => Self::Number(number),
        }
    }

    /// The call with this name, if this machine's architecture has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let number: syscalls_table::Sysno = name.parse().ok()?;
        u16::try_from(number.id()).ok().map(Self::Number)
    }

    /// Its name; of one that this program doesn't know its number.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::NotRead => "not read".to_owned(),
            Self::None => "none".to_owned(),
            Self::Foreign => "foreign-abi".to_owned(),
            Self::Number(number) => match known(number) {
                Some(name) => name.to_owned(),
                None => format!("syscall-{number}"),
            },
        }
    }

    /// Its name, if it is one of this machine's.
    #[must_use]
    pub fn known(self) -> Option<&'static str> {
        match self {
            Self::Number(number) => known(number),
            _ => None,
        }
    }

    /// What a thread in it waits for, and whether the kind of file was needed to say so.
    #[must_use]
    pub fn waits_for(self, file: FileKind) -> Option<(bool, Reason)> {
        let Self::Number(number) = self else {
            return None;
        };
        TABLE.get(usize::from(number))?[file as usize]
    }

    /// Whether its first argument is a descriptor, as far as the rules know: else what is found under
    /// that number has nothing to do with it.
    #[must_use]
    pub fn takes_file(self) -> bool {
        FileKind::ALL
            .into_iter()
            .any(|file| matches!(self.waits_for(file), Some((true, _))))
    }

    /// Whether it is `sched_yield`.
    #[must_use]
    pub fn is_yield(self) -> bool {
        self == Self::Number(syscalls_table::Sysno::sched_yield as u16)
    }
}

use ::syscalls as syscalls_table;

fn known(number: u16) -> Option<&'static str> {
    syscalls_table::Sysno::new(usize::from(number)).map(|call| call.name())
}

/// The numbers that a table is made for; those of all architectures are smaller.
pub(super) const NUMBERS: u16 = 1024;

type Row = [Option<(bool, Reason)>; FileKind::COUNT];

/// The rules by number and kind of file: blocking is too frequent to compare names.
static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |number: u16| {
        let name = known(number);
        FileKind::ALL.map(|file| name.and_then(|name| syscalls::find(name, file)))
    };
    (0..NUMBERS).map(row).collect()
});

#[cfg(test)]
mod tests {
    use super::Call;
    use crate::core::classify::{FileKind, syscalls::RULES};
    use crate::core::reason::Reason;

    #[test]
    fn the_table_says_what_the_rules_say() {
        let mut tried = 0;
        for rule in RULES {
            for name in rule.calls {
                // An architecture has not every call.
                let Some(call) = Call::named(name) else {
                    continue;
                };
                assert_eq!(call.known(), Some(*name));
                let file = rule.file.unwrap_or(FileKind::NotKnown);
                let expected = Some((rule.file.is_some(), rule.reason));
                assert_eq!(call.waits_for(file), expected, "{name} on {file:?}");
                tried += 1;
            }
        }
        assert!(tried > 40, "only {tried}");
    }

    #[test]
    fn what_is_no_known_call_has_a_name_all_the_same() {
        assert_eq!(Call::Number(1023).name(), "syscall-1023");
        assert_eq!(Call::from_wire(u16::MAX), Call::None);
        assert_eq!(Call::from_wire(u16::MAX - 1).name(), "foreign-abi");
        assert_eq!(Call::Number(u16::MAX - 2).waits_for(FileKind::Pipe), None);
    }

    #[test]
    fn only_calls_on_descriptors_take_files() {
        for (name, takes) in [("read", true), ("sendto", true), ("clock_nanosleep", false)] {
            let call = Call::named(name);
            assert_eq!(call.map(Call::takes_file), Some(takes), "{name}");
        }
    }

    #[test]
    fn yielding_is_told_from_waiting() {
        assert!(Call::named("sched_yield").is_some_and(Call::is_yield));
        assert!(!Call::None.is_yield());
        let futex = Call::named("futex").and_then(|call| call.waits_for(FileKind::NotKnown));
        assert_eq!(futex, Some((false, Reason::Lock)));
    }
}
