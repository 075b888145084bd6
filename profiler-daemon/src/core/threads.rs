//! All threads that are alive, in a slab; found by their id without hashing.

use super::thread::Thread;

/// Place of a thread in the slab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

const PAGE_BITS: u32 = 10;
const PAGE: usize = 1 << PAGE_BITS;
/// Thread ids go up to 2^22 on 64-bit kernels (`PID_MAX_LIMIT`).
const MAX_TID: u32 = 1 << 22;
const FREE: u32 = u32::MAX;

/// Whether a thread can have this id: 0 is every CPU's idle task.
fn is_tid(tid: u32) -> bool {
    (1..MAX_TID).contains(&tid)
}

/// Stands where there is no thread: an id that none can have.
const NOBODY: u32 = 0;

#[inline]
fn is_there(thread: &Thread) -> bool {
    thread.tid != NOBODY
}

/// The living threads.
#[derive(Debug, Default)]
pub(super) struct Threads {
    /// What is free has the id of no thread.
    slab: Vec<Thread>,
    free: Vec<Slot>,
    /// How many there have ever been.
    made: u64,
    /// Slot by thread id, in pages that are there as long as an id in them is used.
    index: Vec<Option<Box<Page>>>,
}

#[derive(Debug)]
struct Page {
    slots: [u32; PAGE],
    /// How many of them stand for a thread.
    used: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            slots: [FREE; PAGE],
            used: 0,
        }
    }
}

impl Threads {
    /// The slot of the thread with this id.
    #[inline]
    pub(super) fn find(&self, tid: u32) -> Option<Slot> {
        let page = self.index.get((tid >> PAGE_BITS) as usize)?.as_ref()?;
        match page.slots[tid as usize % PAGE] {
            FREE => None,
            slot => Some(Slot(slot)),
        }
    }

    /// The thread with this id is asked for soon: has its memory fetched meanwhile, without waiting for it.
    #[inline]
    pub(super) fn expect(&self, tid: u32) {
        let place = self.find(tid).map(|slot| slot.0 as usize);
        if let Some(thread) = place.and_then(|place| self.slab.get(place)) {
            thread.fetch();
        }
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<&Thread> {
        self.slab.get(slot.0 as usize).filter(|its| is_there(its))
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Thread> {
        let place = self.slab.get_mut(slot.0 as usize);
        place.filter(|its| is_there(its))
    }

    /// Adds a thread; its id must not be in use. `None` if no Linux kernel could have given that id.
    pub(super) fn insert(&mut self, mut thread: Thread) -> Option<Slot> {
        let tid = thread.tid;
        if !is_tid(tid) {
            return None;
        }
        self.made += 1;
        thread.serial = self.made;
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.slab.get_mut(slot.0 as usize)? = thread;
                slot
            }
            None => {
                let slot = Slot(u32::try_from(self.slab.len()).ok()?);
                self.slab.push(thread);
                slot
            }
        };
        self.set(tid, slot.0);
        Some(slot)
    }

    /// Takes a thread out.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Thread> {
        let thread = std::mem::replace(self.get_mut(slot)?, Thread::unseen(NOBODY, 0));
        if self.find(thread.tid) == Some(slot) {
            self.set(thread.tid, FREE);
        }
        self.free.push(slot);
        Some(thread)
    }

    /// Exchanges two ids: who has the one gets the other. It does not matter if one has no thread;
    /// nothing happens if no Linux kernel could have given one of them.
    pub(super) fn exchange(&mut self, a: u32, b: u32) {
        if !is_tid(a) || !is_tid(b) {
            return;
        }
        let (slot_a, slot_b) = (self.find(a), self.find(b));
        for (slot, tid) in [(slot_a, b), (slot_b, a)] {
            self.set(tid, slot.map_or(FREE, |slot| slot.0));
            if let Some(thread) = slot.and_then(|slot| self.get_mut(slot)) {
                thread.tid = tid;
            }
        }
    }

    /// Has an id, which a thread can have, stand for this slot, or for none.
    fn set(&mut self, tid: u32, slot: u32) {
        let number = (tid >> PAGE_BITS) as usize;
        if self.index.len() <= number {
            self.index.resize_with(number + 1, || None);
        }
        let page = self.index[number].get_or_insert_default();
        let was = std::mem::replace(&mut page.slots[tid as usize % PAGE], slot);
        page.used += usize::from(slot != FREE);
        page.used -= usize::from(was != FREE);
        if page.used == 0 {
            self.index[number] = None;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Thread> {
        self.slab.iter().filter(|its| is_there(its))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Thread> {
        self.slab.iter_mut().filter(|its| is_there(its))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Threads;
    use crate::core::thread::Thread;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashMap};

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0u8..3, 1u32..5000), 0..200)) {
            let mut threads = Threads::default();
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (number, (what, tid)) in steps.into_iter().enumerate() {
                match (what, threads.find(tid)) {
                    (0, None) => {
                        threads.insert(Thread::unseen(tid, number as u64));
                        model.insert(tid, number as u64);
                    }
                    (1, Some(slot)) => {
                        let gone = threads.remove(slot).map(|thread| thread.since_ns);
                        prop_assert_eq!(gone, model.remove(&tid));
                    }
                    (2, _) => {
                        threads.exchange(tid, tid + 1);
                        let (value, next) = (model.remove(&tid), model.remove(&(tid + 1)));
                        model.extend(value.map(|value| (tid + 1, value)));
                        model.extend(next.map(|next| (tid, next)));
                    }
                    _ => {}
                }
                prop_assert_eq!(threads.len(), model.len());
                let pages: BTreeSet<u32> = model.keys().map(|tid| tid >> super::PAGE_BITS).collect();
                prop_assert_eq!(threads.index.iter().flatten().count(), pages.len());
                for (&tid, &since) in &model {
                    let found = threads.find(tid).and_then(|slot| threads.get(slot));
                    prop_assert_eq!(found.map(|t| (t.tid, t.since_ns)), Some((tid, since)));
                }
            }
        }
    }

    #[test]
    fn ids_that_no_kernel_gives_are_refused() {
        let mut threads = Threads::default();
        for tid in [0, super::MAX_TID, u32::MAX] {
            assert!(threads.insert(Thread::unseen(tid, 0)).is_none());
            threads.exchange(1, tid);
            assert!(threads.find(tid).is_none());
        }
    }
}
