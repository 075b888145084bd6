//! What the probes saw of waits, in the words of the core: kinds of files, and names of functions.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use profiler_ebpf::evidence::EvidenceRecord;

use crate::core::Seen;
use crate::core::classify::Stack;
use crate::source::evidence::{file_kind, stack};
use crate::source::symbols::{Symbols, SymbolsError};

/// Stacks kept with their names. A program waits at few places; beyond, all begin anew.
const MAX_STACKS: usize = 1 << 14;

/// Reads evidence.
pub(super) struct Witness {
    symbols: Names,
    stacks: HashMap<Box<[u64]>, Arc<Stack>>,
    /// A stack without names, and one that was not taken.
    nothing: Arc<Stack>,
    /// Met since somebody asked.
    user_stacks: Vec<(u32, u32)>,
}

/// The kernel's functions.
enum Names {
    /// A thread reads them: it takes longer than a ring may wait.
    Coming(JoinHandle<Result<Symbols, SymbolsError>>),
    There(Symbols),
    Missing(String),
    NotWanted,
}

impl Witness {
    /// `wanted` is whether stacks are taken at all.
    pub(super) fn new(wanted: bool) -> Self {
        let symbols = if wanted {
            let reader = std::thread::Builder::new().name("symbols".into());
            match reader.spawn(Symbols::read) {
                Ok(thread) => Names::Coming(thread),
                Err(error) => Names::Missing(error.to_string()),
            }
        } else {
            Names::NotWanted
        };
        Self {
            symbols,
            stacks: HashMap::new(),
            nothing: Arc::default(),
            user_stacks: Vec::new(),
        }
    }

    /// Why functions have no names, if stacks are taken and they have none.
    pub(super) fn lack(&self) -> Option<&str> {
        match &self.symbols {
            Names::Missing(why) => Some(why),
            _ => None,
        }
    }

    /// What a record says.
    pub(super) fn read(&mut self, record: &EvidenceRecord) -> Seen {
        Seen {
            tid: record.tid,
            left_ns: record.left_ns,
            file: file_kind(record),
            stack: self.named(stack(record)),
            user_stack: self.user_stack(record),
        }
    }

    /// The number of the user stack, if there is one; a new one is noted.
    fn user_stack(&mut self, record: &EvidenceRecord) -> Option<u32> {
        let number = u32::try_from(record.user_stack_id).ok()?;
        if !self.user_stacks.contains(&(record.tgid, number)) {
            self.user_stacks.push((record.tgid, number));
        }
        Some(number)
    }

    /// Processes and numbers of the user stacks that were met since this was last asked.
    pub(super) fn take_user_stacks(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.user_stacks)
    }

    fn named(&mut self, addresses: &[u64]) -> Arc<Stack> {
        if addresses.is_empty() {
            return Arc::clone(&self.nothing);
        }
        if let Some(stack) = self.stacks.get(addresses) {
            return Arc::clone(stack);
        }
        let Names::There(symbols) = &self.symbols else {
            return Arc::clone(&self.nothing);
        };
        let name = |&address: &u64| match symbols.name(address) {
            Some(name) => name.to_owned(),
            None => format!("{address:#x}"),
        };
        let stack = Arc::new(Stack::new(addresses.iter().map(name).collect()));
        if self.stacks.len() >= MAX_STACKS {
            self.stacks.clear();
        }
        self.stacks.insert(addresses.into(), Arc::clone(&stack));
        stack
    }

    /// Waits until the names are there, or known to be missing. Until then stacks have none.
    pub(super) fn await_names(&mut self) {
        if !matches!(self.symbols, Names::Coming(_)) {
            return;
        }
        let coming = std::mem::replace(&mut self.symbols, Names::NotWanted);
        if let Names::Coming(thread) = coming {
            self.symbols = match thread.join() {
                Ok(Ok(symbols)) => Names::There(symbols),
                Ok(Err(error)) => Names::Missing(error.to_string()),
                Err(_) => Names::Missing("the thread that reads them broke".to_owned()),
            };
        }
    }
}
