//! Where in their programs threads waited: stacks get their names while the programs still run.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::source::user_symbols::UserSymbols;

/// Stacks by process and number: functions, the innermost first.
pub(super) type NamedStacks = HashMap<(u32, u32), Vec<String>>;

/// Stacks that are named; the kernel has no room for more.
const MAX_STACKS: usize = 1 << 15;

struct Unnamed {
    tgid: u32,
    number: u32,
    addresses: Vec<u64>,
}

/// Names stacks in a thread of its own: reading a program's symbols takes longer than a ring may wait.
pub(super) struct UserStacks {
    unnamed: mpsc::Sender<Unnamed>,
    namer: JoinHandle<NamedStacks>,
    known: HashSet<(u32, u32)>,
}

impl UserStacks {
    pub(super) fn start() -> std::io::Result<Self> {
        let (unnamed, inbox) = mpsc::channel::<Unnamed>();
        let namer = std::thread::Builder::new()
            .name("user-symbols".into())
            .spawn(move || {
                let mut symbols = UserSymbols::new();
                let mut named = NamedStacks::new();
                for stack in inbox {
                    let frames = symbols.frames(stack.tgid, &stack.addresses);
                    let names = frames.iter().map(ToString::to_string).collect();
                    named.insert((stack.tgid, stack.number), names);
                }
                named
            })?;
        Ok(Self {
            unnamed,
            namer,
            known: HashSet::new(),
        })
    }

    /// Whether this stack has not been asked for yet, and there is room for it.
    pub(super) fn is_new(&self, tgid: u32, number: u32) -> bool {
        self.known.len() < MAX_STACKS && !self.known.contains(&(tgid, number))
    }

    /// Has a stack named.
    pub(super) fn name(&mut self, tgid: u32, number: u32, addresses: Vec<u64>) {
        self.known.insert((tgid, number));
        // Without the thread there are no names; that it broke shows at the end.
        let _ = self.unnamed.send(Unnamed {
            tgid,
            number,
            addresses,
        });
    }

    /// All names, once the last one is there.
    pub(super) fn finish(self) -> NamedStacks {
        drop(self.unnamed);
        self.namer.join().unwrap_or_default()
    }
}
