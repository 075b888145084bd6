//! The consumer's side of the per-CPU rings: which slots may be read, and when they are given back.
//!
//! This file has no `unsafe` and knows nothing of mappings; `tests/loom_ring.rs` compiles it a second
//! time, with loom's atomics, and tries every order of events that the memory model allows.
//!
//! # Memory ordering
//!
//! The producer is a BPF program: plain, aligned, word-sized loads and stores that compiler and JIT keep
//! in program order. It reads the tail, stores the record's four words, and then stores the head.
//!
//! *From the producer to here* (a published record is whole):
//!
//! * x86-64: stores become visible in program order, so the head is a release store in all but name.
//!   An acquire load of the head here makes the record visible ([`Arrival::ByHead`]).
//! * arm64: the head may become visible before the record, and a barrier in the probe would cost more
//!   than the rest of it. So every word of a slot is set to [`ERASED`], which no record contains, before
//!   the slot is given back; a record has arrived when none of its words is that any more
//!   ([`Arrival::ByContent`]). Each word is a single-copy atomic store, so it is there wholly or not
//!   at all, and no older value can come back: the erasing store is ordered before the producer's next
//!   one by what follows. The head then only says where to look. A fence with acquire stands between that look and
//!   the reads of the records: without it these would race with the stores, in the memory model if not on a
//!   processor, which never reads a word older than one that it has read before (found by Miri).
//!
//! *From here to the producer* (a slot isn't overwritten while it is read, nor before it is erased): the
//! tail is stored with release after the last read and the erasing. The producer's plain load of the tail
//! is followed by a branch on it, and only then by stores: on both architectures a store is not made
//! visible before a load that it depends on through a branch has its value.

use super::sync::{AtomicU64, Ordering, fence};

/// Words in a record.
pub(crate) const WORDS: usize = 4;

/// What an erased slot's words are. A record never has this word: it would be a time, a delay, or a pair
/// of thread ids with all bits set, or a kind that doesn't exist.
pub(crate) const ERASED: u64 = u64::MAX;

/// How many loss counters a header has.
pub(crate) const COUNTERS: usize = 12;

/// How many counters of what was left out a header has.
pub(crate) const SHED_COUNTERS: usize = 4;

/// A ring's header; see `profiler_ebpf::ring` for the fields.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub(crate) head: AtomicU64,
    pub(crate) gap_from: AtomicU64,
    pub(crate) gap_until: AtomicU64,
    pub(crate) gap_lost: AtomicU64,
    pub(crate) dropped: [AtomicU64; COUNTERS],
    pub(crate) shed: [AtomicU64; SHED_COUNTERS],
    _pad: [AtomicU64; 12],
    pub(crate) tail: AtomicU64,
    pub(crate) keep: AtomicU64,
    _pad2: [AtomicU64; 30],
}

/// The place of one record.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) words: [AtomicU64; WORDS],
}

impl Slot {
    /// Makes the slot one whose record has not arrived.
    pub(crate) fn erase(&self) {
        for word in &self.words {
            word.store(ERASED, Ordering::Relaxed);
        }
    }

    fn has_arrived(&self) -> bool {
        self.words
            .iter()
            .all(|word| word.load(Ordering::Relaxed) != ERASED)
    }
}

/// How to tell that a record that the head has passed is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The head says so: stores become visible in program order.
    ByHead,
    /// The slot says so.
    ByContent,
}

/// The records that may be read, as ranges of slots: the older part, and what follows it at the ring's
/// beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) first: core::ops::Range<usize>,
    pub(crate) second: core::ops::Range<usize>,
}

impl Ready {
    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }
}

/// Where the consumer stands in one ring.
#[derive(Debug)]
pub(crate) struct Consumer {
    arrival: Arrival,
    /// Records ever read.
    tail: u64,
    /// Records after the tail that are known to be there.
    arrived: usize,
}

impl Consumer {
    /// A consumer of a ring that is empty and has no producer yet. `slots` is a power of two long.
    pub(crate) fn new(arrival: Arrival, slots: &[Slot]) -> Self {
        if arrival == Arrival::ByContent {
            slots.iter().for_each(Slot::erase);
        }
        Self {
            arrival,
            tail: 0,
            arrived: 0,
        }
    }

    /// Finds what may be read now; it stays as it is until it is given back.
    pub(crate) fn poll(&mut self, header: &Header, slots: &[Slot]) -> Ready {
        let head = header.head.load(Ordering::Acquire);
        // The header is the kernel's, but a slice must not go wrong even if it were damaged.
        let published = usize::try_from(head.wrapping_sub(self.tail))
            .map_or(slots.len(), |n| n.min(slots.len()));
        match self.arrival {
            Arrival::ByHead => self.arrived = published,
            Arrival::ByContent => {
                while self.arrived < published
                    && slots[slot_of(self.tail, self.arrived, slots.len())].has_arrived()
                {
                    self.arrived += 1;
                }
                // The records are read as plain memory from here on.
                fence(Ordering::Acquire);
            }
        }
        let start = slot_of(self.tail, 0, slots.len());
        let before_wrap = self.arrived.min(slots.len() - start);
        Ready {
            first: start..start + before_wrap,
            second: 0..self.arrived - before_wrap,
        }
    }

    /// Gives the `used` oldest records that [`Self::poll`] found back to the producer.
    pub(crate) fn give_back(&mut self, header: &Header, slots: &[Slot], used: usize) {
        let used = used.min(self.arrived);
        if used == 0 {
            return;
        }
        if self.arrival == Arrival::ByContent {
            for number in 0..used {
                slots[slot_of(self.tail, number, slots.len())].erase();
            }
        }
        self.arrived -= used;
        self.tail = self.tail.wrapping_add(used as u64);
        header.tail.store(self.tail, Ordering::Release);
    }
}

/// The slot of the record that is `number` after `position`.
fn slot_of(position: u64, number: usize, slots: usize) -> usize {
    // Only the low bits count, whatever the width of an index.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the mask keeps only low bits"
    )]
    let position = position as usize;
    position.wrapping_add(number) & (slots - 1)
}
