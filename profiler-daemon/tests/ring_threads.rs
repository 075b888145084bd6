//! A probe and the daemon at one ring, as threads that really run beside one another: what was written arrives
//! whole, once and in order, and what had no place is counted.
//!
//! The consumer is the daemon's own (`src/source/protocol.rs`), the producer does what the probe does. The file
//! needs nothing but that and the standard library, so that `cargo xtask sanitize` can compile it with sanitizers,
//! and an interpreter such as Miri can run it (`cargo miri test --test ring_threads`). `loom_ring.rs` tries every
//! order of few accesses; this tries very many, with the machine's own order.

#[path = "../src/source/protocol.rs"]
mod protocol;

/// What `protocol.rs` expects beside itself.
mod sync {
    pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
}

use std::thread;

use protocol::{Arrival, COUNTERS, Consumer, ERASED, Header, Slot, WORDS};
use sync::Ordering;

/// So small that it wraps and fills all the time.
const SLOTS: usize = 8;

/// Records that the probe tries to write. An interpreter takes a million times as long.
const RECORDS: u64 = if cfg!(miri) { 200 } else { 300_000 };

/// Waits for the other side. On a busy machine giving up the CPU would cost a turn of all others each time; an
/// interpreter goes on with this thread until it does.
fn pause() {
    if cfg!(miri) {
        thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// The words of a record, all different, and different from those of every other.
fn words(number: u64) -> [u64; WORDS] {
    [1, 2, 3, 4].map(|word| number.wrapping_mul(8) + word)
}

/// Writes as the probe does. Returns how many records there was a place for.
fn write_all(header: &Header, slots: &[Slot], publish: Ordering) -> u64 {
    let mut head: u64 = 0;
    for _ in 0..RECORDS {
        let tail = header.tail.load(Ordering::Acquire);
        if head.wrapping_sub(tail) >= slots.len() as u64 {
            header.dropped[0].fetch_add(1, Ordering::Relaxed);
            pause();
            continue;
        }
        let place = usize::try_from(head).expect("few records") % slots.len();
        for (word, value) in slots[place].words.iter().zip(words(head)) {
            word.store(value, Ordering::Relaxed);
        }
        head += 1;
        header.head.store(head, publish);
    }
    head
}

/// Reads what has arrived, checks it, and gives part of it back.
fn read_some(
    consumer: &mut Consumer,
    header: &Header,
    slots: &[Slot],
    next: &mut u64,
    most: usize,
) -> usize {
    let ready = consumer.poll(header, slots);
    assert!(ready.len() <= slots.len(), "no more than there are slots");
    let mut used = 0;
    for place in ready.first.chain(ready.second).take(most) {
        let load = |word: usize| slots[place].words[word].load(Ordering::Relaxed);
        assert_eq!(
            [0, 1, 2, 3].map(load),
            words(*next),
            "whole, once, and in order"
        );
        *next += 1;
        used += 1;
    }
    consumer.give_back(header, slots, used);
    used
}

fn check(arrival: Arrival, publish: Ordering, most: usize) {
    let header = Header::default();
    let slots: Vec<Slot> = (0..SLOTS).map(|_| Slot::default()).collect();
    let mut consumer = Consumer::new(arrival, &slots);
    let mut next = 0;
    let written = thread::scope(|scope| {
        let probe = scope.spawn(|| write_all(&header, &slots, publish));
        while !probe.is_finished() {
            if read_some(&mut consumer, &header, &slots, &mut next, most) == 0 {
                pause();
            }
        }
        probe.join().expect("the probe does not fail")
    });
    while read_some(&mut consumer, &header, &slots, &mut next, most) > 0 {}
    assert_eq!(next, written, "all that was written");
    let counts = header
        .dropped
        .each_ref()
        .map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts.len(), COUNTERS);
    assert_eq!(counts[0] + written, RECORDS, "what had no place is counted");
    if arrival == Arrival::ByContent {
        let erased = |slot: &Slot| {
            let mut words = slot.words.iter();
            words.all(|word| word.load(Ordering::Relaxed) == ERASED)
        };
        assert!(slots.iter().all(erased), "what was given back is erased");
    }
}

#[test]
fn all_records_arrive_where_stores_keep_their_order() {
    check(Arrival::ByHead, Ordering::Release, SLOTS);
    check(Arrival::ByHead, Ordering::Release, 3);
}

#[test]
fn all_records_arrive_where_stores_come_in_any_order() {
    check(Arrival::ByContent, Ordering::Relaxed, SLOTS);
    check(Arrival::ByContent, Ordering::Relaxed, 1);
}

/// A header that says nonsense does not make the daemon read beyond its slots.
#[test]
fn a_damaged_header_stays_within_the_slots() {
    for head in [u64::MAX, 1 << 63, SLOTS as u64 + 1, u64::from(u32::MAX)] {
        let header = Header::default();
        let slots: Vec<Slot> = (0..SLOTS).map(|_| Slot::default()).collect();
        let mut consumer = Consumer::new(Arrival::ByHead, &slots);
        header.head.store(head, Ordering::Relaxed);
        for used in [3, usize::MAX, 0, 8] {
            let ready = consumer.poll(&header, &slots);
            assert!(ready.len() <= SLOTS, "{ready:?}");
            assert!(ready.first.end <= SLOTS && ready.second.end <= SLOTS);
            consumer.give_back(&header, &slots, used);
        }
    }
}
