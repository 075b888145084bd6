//! Every order of events that the memory model allows between a probe and the daemon at one ring.
//!
//! The consumer is the daemon's own (`src/source/protocol.rs`), compiled here with loom's atomics. The
//! producer does what the probe does (`profiler-ebpf/src/probes/ring.rs`), with the ordering that the
//! machine gives its plain stores: on x86-64 the head is a release store, on arm64 it is none. That the
//! probe stores nothing before it has read the tail is an acquire load here; in the probe it is a branch.

#[path = "../src/source/protocol.rs"]
mod protocol;

/// What `protocol.rs` expects beside itself.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

use std::sync::atomic::AtomicUsize;

use loom::{cell::UnsafeCell, sync::Arc, thread};

use protocol::{Arrival, Consumer, ERASED, Header, Slot, WORDS};
use sync::Ordering;

/// So small that it wraps and fills at once.
const SLOTS: usize = 2;

/// More than fit, so that slots are used again.
const RECORDS: u64 = 3;

/// One ring.
struct Ring {
    header: Header,
    slots: Vec<Slot>,
    /// Stands for the memory of each slot where the head alone says who may touch it: loom fails the
    /// test if both sides do so without one having seen that the other was done.
    turns: Option<Vec<UnsafeCell<()>>>,
}

impl Ring {
    fn new(arrival: Arrival) -> Self {
        Self {
            header: Header::default(),
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            turns: (arrival == Arrival::ByHead)
                .then(|| (0..SLOTS).map(|_| UnsafeCell::new(())).collect()),
        }
    }

    /// Reads what the consumer says is there.
    fn read(&self, slot: usize) -> [u64; WORDS] {
        let load = || {
            let words = &self.slots[slot].words;
            [0, 1, 2, 3].map(|word: usize| words[word].load(Ordering::Relaxed))
        };
        match &self.turns {
            Some(turns) => turns[slot].with(|_| load()),
            None => load(),
        }
    }
}

/// The probe of one CPU.
///
/// It keeps its head itself, where the real one reads back what it wrote to the header: loom looks for
/// other orders only around the last access to a value, and would miss some if that was the probe's own.
struct Probe {
    ring: Arc<Ring>,
    head: u64,
    publish: Ordering,
}

impl Probe {
    /// Writes a record as the probe does; false if the ring is full.
    fn write(&mut self, number: u64) -> bool {
        let ring = &self.ring;
        let tail = ring.header.tail.load(Ordering::Acquire);
        if self.head.wrapping_sub(tail) >= SLOTS as u64 {
            return false;
        }
        let slot = usize::try_from(self.head).expect("a small number") % SLOTS;
        let store = || {
            for (word, value) in ring.slots[slot].words.iter().zip(words(number)) {
                word.store(value, Ordering::Relaxed);
            }
        };
        match &ring.turns {
            Some(turns) => turns[slot].with_mut(|_| store()),
            None => store(),
        }
        self.head = self.head.wrapping_add(1);
        ring.header.head.store(self.head, self.publish);
        true
    }
}

/// The words of a record: all different, and different from those of every other.
fn words(number: u64) -> [u64; WORDS] {
    [1, 2, 3, 4].map(|word| (number + 1) * 10 + word)
}

/// Lets a probe write and the daemon read, at most `at_once` records at a time, and checks that what was
/// written arrives whole, once, and in order.
fn check(arrival: Arrival, publish: Ordering, at_once: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&orders);
    model.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let ring = Arc::new(Ring::new(arrival));
        let mut consumer = Consumer::new(arrival, &ring.slots);
        let mut probe = Probe {
            ring: Arc::clone(&ring),
            head: 0,
            publish,
        };
        let probe = thread::spawn(move || {
            (0..RECORDS)
                .filter(|&number| probe.write(number))
                .collect::<Vec<_>>()
        });
        let mut seen = Vec::new();
        let mut drain = |seen: &mut Vec<[u64; WORDS]>| {
            let ready = consumer.poll(&ring.header, &ring.slots);
            assert!(ready.len() <= SLOTS, "no more than there are slots");
            let slots: Vec<usize> = ready.first.chain(ready.second).take(at_once).collect();
            seen.extend(slots.iter().map(|&slot| ring.read(slot)));
            consumer.give_back(&ring.header, &ring.slots, slots.len());
            slots.len()
        };
        drain(&mut seen);
        drain(&mut seen);
        let written = probe.join().expect("the probe does not fail");
        while drain(&mut seen) > 0 {}

        let expected: Vec<_> = written.iter().map(|&number| words(number)).collect();
        assert_eq!(seen, expected, "whole, once, and in order");
        if arrival == Arrival::ByContent {
            let is_erased = |slot: &Slot| {
                slot.words
                    .iter()
                    .all(|word| word.load(Ordering::Relaxed) == ERASED)
            };
            assert!(
                ring.slots.iter().all(is_erased),
                "what was given back is erased"
            );
        }
    });
    let orders = orders.load(Ordering::Relaxed);
    assert!(
        orders > 50,
        "only {orders} orders were tried: the model is blind to something"
    );
}

#[test]
fn records_arrive_whole_where_stores_keep_their_order() {
    check(Arrival::ByHead, Ordering::Release, SLOTS);
}

#[test]
fn records_arrive_whole_one_by_one_where_stores_keep_their_order() {
    check(Arrival::ByHead, Ordering::Release, 1);
}

#[test]
fn records_arrive_whole_where_stores_come_in_any_order() {
    check(Arrival::ByContent, Ordering::Relaxed, SLOTS);
}

#[test]
fn records_arrive_whole_one_by_one_where_stores_come_in_any_order() {
    check(Arrival::ByContent, Ordering::Relaxed, 1);
}

/// The model can see a torn record: the head is not enough where stores come in any order.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_head_is_not_enough_where_stores_come_in_any_order() {
    check(Arrival::ByHead, Ordering::Relaxed, SLOTS);
}
