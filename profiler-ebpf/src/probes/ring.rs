//! The producer's side of the per-CPU rings.
//!
//! A ring belongs to one CPU and has one producer there. That holds because the hooks that write to it
//! can't interrupt one another: `sched_switch` runs with interrupts off (`__schedule` in
//! kernel/sched/core.c turns them off before it takes the run queue's lock), so do `sched_wakeup_new`
//! (`wake_up_new_task` holds `p->pi_lock` with `raw_spin_lock_irqsave`) and `sched_wakeup`
//! (`try_to_wake_up` likewise, `sched_ttwu_pending` with `rq_lock_irqsave`), save where a thread wakes
//! itself, which the probe leaves out. `sched_waking` holds `p->pi_lock` like `sched_wakeup`, and leaves
//! the same case out. `sched_migrate_task` (`set_task_cpu`) is called with `p->pi_lock` or the lock of the
//! thread's run queue held, as the kernel asserts there, and both are only ever taken with interrupts
//! off; so is the run queue's lock in which `tg_throttle_down` and `tg_unthrottle_up` run. Hooks that run
//! with interrupts on use [`crate::side`].
//!
//! A record is four words. It is stored before the head that publishes it. The words and the head are
//! volatile, so the compiler keeps their order, and the kernel's JIT compilers never change it. What
//! the hardware does with that order is the consumer's to know: x86-64 keeps it, arm64 needn't, and
//! there the consumer tells by the slot itself whether a record has arrived (see the daemon's
//! `source::ring`). So the producer needs no barrier, which on arm64 would cost more than the rest.
//! In the other direction, slots are only written after the tail that gave them back was read; no
//! hardware makes a store visible before a load that it depends on by a branch is done.

use core::mem::{offset_of, size_of, transmute};

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE, helpers::bpf_get_smp_processor_id, macros::map, maps::Array,
};
use profiler_ebpf::{
    Fork, Gap, Interrupts, Kind, Migrate, RECORD_BYTES, Switch, Throttle, Throttled, Wakeup,
    Waking,
    ring::{self, Counter, Shed},
    shed::is_kept,
};

use crate::{config::config, side};

#[repr(C)]
pub(crate) struct Header {
    head: u64,
    gap_from: u64,
    gap_until: u64,
    gap_lost: u64,
    dropped: [u64; ring::COUNTERS],
    shed: [u64; ring::SHED_COUNTERS],
    _pad: [u64; 12],
    tail: u64,
    keep: u64,
    _pad2: [u64; 30],
}

const _: () = {
    assert!(size_of::<Header>() == ring::HEADER_BYTES);
    assert!(offset_of!(Header, head) == ring::HEAD);
    assert!(offset_of!(Header, gap_from) == ring::GAP_FROM);
    assert!(offset_of!(Header, gap_until) == ring::GAP_UNTIL);
    assert!(offset_of!(Header, gap_lost) == ring::GAP_LOST);
    assert!(offset_of!(Header, dropped) == ring::DROPPED);
    assert!(offset_of!(Header, shed) == ring::SHED);
    assert!(offset_of!(Header, tail) == ring::TAIL);
    assert!(offset_of!(Header, keep) == ring::KEEP);
};

/// A record as it is stored.
pub(crate) type Words = [u64; RECORD_BYTES / size_of::<u64>()];

// The loader sets the number of entries of both.
#[map]
static RING_HEADERS: Array<Header> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static RING_SLOTS: Array<Words> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// A record that goes into the ring.
pub(crate) trait Record: Copy {
    /// What counts its losses.
    const COUNTER: Counter;
    /// Whether it may use the part of the ring that is kept for rare records.
    const RARE: bool;

    /// Its bytes as words.
    fn words(self) -> Words;
}

macro_rules! record {
    ($record:ty, $counter:ident, rare: $rare:literal) => {
        impl Record for $record {
            const COUNTER: Counter = Counter::$counter;
            const RARE: bool = $rare;

            #[inline(always)]
            fn words(self) -> Words {
                // SAFETY: Records have this size and no padding that is not a field of theirs; every
                // bit pattern is a valid word.
                unsafe { transmute::<Self, Words>(self) }
            }
        }
    };
}
record!(Switch, Switch, rare: false);
record!(Wakeup, Wakeup, rare: false);
record!(Fork, Fork, rare: true);
record!(Waking, Waking, rare: false);
record!(Migrate, Migrate, rare: false);
record!(Interrupts, Waking, rare: false);
record!(Throttle, Throttle, rare: true);
record!(Throttled, Throttle, rare: true);

/// A slot of this CPU's ring that is to be written to next.
///
/// It is reserved before the record is made: the helpers that find it would push what is known of the
/// record out of the registers.
pub(crate) struct Place {
    header: *mut Header,
    head: u64,
    slot: *mut u64,
}

/// The ring of this CPU.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    header: *mut Header,
    pub(crate) cpu: u32,
}

/// Finds the ring of this CPU.
#[inline(always)]
pub(crate) fn here() -> Option<Ring> {
    // SAFETY: The helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // There is a header for each possible CPU.
    let header = RING_HEADERS.get_ptr_mut(cpu)?;
    Some(Ring { header, cpu })
}

/// Finds the place for a record in this CPU's ring, or counts it as lost. `ts_ns` says when that happened.
#[inline(always)]
pub(crate) fn reserve<R: Record>(ts_ns: impl Fn() -> u64) -> Option<Place> {
    here()?.reserve::<R>(ts_ns)
}

impl Ring {
    /// Whether a record that concerns this thread alone is to be left out, and if so counts it.
    #[inline(always)]
    pub(crate) fn sheds(self, counter: Shed, tid: impl Fn() -> u32) -> bool {
        self.sheds_both(counter, || (tid(), 0), || false)
    }

    /// Whether a record that concerns these two threads is to be left out, and if so counts it. It is not if
    /// either of them is kept, or it is indispensable.
    ///
    /// The daemon sets what is kept beside the tail, which is needed next in any case.
    #[inline(always)]
    pub(crate) fn sheds_both(
        self,
        counter: Shed,
        tids: impl Fn() -> (u32, u32),
        is_indispensable: impl Fn() -> bool,
    ) -> bool {
        // SAFETY: The map's memory is valid and aligned. The daemon writes it: one aligned word, so the read
        // is whole.
        let mask = unsafe { (&raw const (*self.header).keep).read_volatile() };
        if mask == 0 || is_indispensable() {
            return false;
        }
        let (one, other) = tids();
        let both = u64::from(one) << 32 | u64::from(other);
        leaves_out(self.header, mask, both, counter as u64) != 0
    }

    /// Finds the place for a record, or counts it as lost.
    #[inline(always)]
    pub(crate) fn reserve<R: Record>(self, ts_ns: impl Fn() -> u64) -> Option<Place> {
        let Self { header, cpu } = self;
        // SAFETY: The map's memory is valid and aligned, and this CPU is the only one to write this field.
        let mut head = unsafe { (&raw const (*header).head).read_volatile() };
        // SAFETY: As above.
        let lost = unsafe { (&raw const (*header).gap_lost).read_volatile() };
        // SAFETY: As above, but the daemon writes it: one aligned word, so the read is whole.
        let tail = unsafe { (&raw const (*header).tail).read_volatile() };
        let used = head.wrapping_sub(tail);
        let limit = u64::from(if R::RARE {
            config!(ring_records)
        } else {
            config!(ring_limit)
        });
        if lost != 0 || used >= limit {
            head = match crowded(header, cpu, ts_ns(), (R::COUNTER as u64) << 32 | limit) {
                NO_ROOM => return None,
                head => head,
            };
        }
        // With this record there are as many as ring the bell. What it wakes runs after the hook at the
        // earliest, since interrupts are off, and so finds the record.
        let mask = u64::from(config!(doorbell_mask));
        if used & mask == mask {
            side::ring_doorbell();
        }
        place(header, cpu, head)
    }
}

/// Whether a record of these two threads, one in each half of `both`, is left out with this mask; counts it
/// if so. Out of the way of the hooks, which have nothing to do with it as long as everybody is kept.
#[cold]
#[inline(never)]
fn leaves_out(header: *mut Header, mask: u64, both: u64, counter: u64) -> u64 {
    const SWITCH: u64 = Shed::Switch as u64;
    const WAKEUP: u64 = Shed::Wakeup as u64;
    const WAKING: u64 = Shed::Waking as u64;
    // The verifier looks at each call by itself and has to see that there is something to point to.
    if header.is_null() {
        return 0;
    }
    let mask = mask as u32;
    if is_kept((both >> 32) as u32, mask) || is_kept(both as u32, mask) {
        return 0;
    }
    // SAFETY: The caller got the header from the map; this CPU alone writes all that is written here.
    let header = unsafe { &mut *header };
    let count = match counter {
        SWITCH => &mut header.shed[Shed::Switch as usize],
        WAKEUP => &mut header.shed[Shed::Wakeup as usize],
        WAKING => &mut header.shed[Shed::Waking as usize],
        _ => &mut header.shed[Shed::Migrate as usize],
    };
    *count = count.wrapping_add(1);
    1
}

/// The slot for the record at `head`.
#[inline(always)]
fn place(header: *mut Header, cpu: u32, head: u64) -> Option<Place> {
    let records = config!(ring_records);
    let slot = cpu.wrapping_mul(records) | (head as u32 & records.wrapping_sub(1));
    // There are that many slots for each possible CPU.
    let slot = RING_SLOTS.get_ptr_mut(slot)?.cast::<u64>();
    Some(Place { header, head, slot })
}

impl Place {
    /// Stores a record and publishes it.
    #[inline(always)]
    pub(crate) fn put<R: Record>(self, record: R) {
        self.fill(record.words());
    }

    #[inline(always)]
    fn fill(self, words: Words) {
        for (number, word) in words.into_iter().enumerate() {
            // SAFETY: The slot is a whole record in the map's memory, aligned to words; it is this CPU's
            // to write, since it lies between head and tail.
            unsafe { self.slot.wrapping_add(number).write_volatile(word) };
        }
        let head = self.head.wrapping_add(1);
        // SAFETY: As where the head was read.
        unsafe { (&raw mut (*self.header).head).write_volatile(head) };
    }
}

/// Says that [`crowded`] found no room.
const NO_ROOM: u64 = u64::MAX;

/// Deals with a ring that is full, or has lost records since its last gap record.
///
/// Writes the gap record if there is room for it and for one record more, and returns the head after it.
/// Else counts the record at `ts_ns` as lost, and returns [`NO_ROOM`]. `counter_and_limit` has the
/// record's loss counter in its high half and its limit in the low one: a BPF function has few arguments.
#[cold]
#[inline(never)]
fn crowded(header: *mut Header, cpu: u32, ts_ns: u64, counter_and_limit: u64) -> u64 {
    const SWITCH: u64 = Counter::Switch as u64;
    const WAKEUP: u64 = Counter::Wakeup as u64;
    const WAKING: u64 = Counter::Waking as u64;
    const MIGRATE: u64 = Counter::Migrate as u64;
    const THROTTLE: u64 = Counter::Throttle as u64;
    // The verifier looks at each call by itself and has to see that there is something to point to.
    if header.is_null() {
        return NO_ROOM;
    }
    let limit = counter_and_limit & u64::from(u32::MAX);
    // SAFETY: The caller got the header from the map; this CPU alone writes all that is written here.
    let header = unsafe { &mut *header };
    // SAFETY: The daemon writes the tail: one aligned word, so the read is whole.
    let tail = unsafe { (&raw const header.tail).read_volatile() };
    let head = header.head;
    if header.gap_lost == 0 || head.wrapping_sub(tail).wrapping_add(2) > limit {
        // A wakeup is stamped by the clock of another run queue, which may be behind.
        if header.gap_lost == 0 || ts_ns < header.gap_from {
            header.gap_from = ts_ns;
        }
        if header.gap_lost == 0 || ts_ns > header.gap_until {
            header.gap_until = ts_ns;
        }
        header.gap_lost = header.gap_lost.wrapping_add(1);
        let dropped = match counter_and_limit >> 32 {
            SWITCH => &mut header.dropped[Counter::Switch as usize],
            WAKEUP => &mut header.dropped[Counter::Wakeup as usize],
            WAKING => &mut header.dropped[Counter::Waking as usize],
            MIGRATE => &mut header.dropped[Counter::Migrate as usize],
            THROTTLE => &mut header.dropped[Counter::Throttle as usize],
            _ => &mut header.dropped[Counter::Fork as usize],
        };
        *dropped = dropped.wrapping_add(1);
        return NO_ROOM;
    }
    let gap = Gap {
        ts_ns: header.gap_from,
        until_ns: header.gap_until,
        lost: header.gap_lost,
        _pad: [0; 7],
        kind: Kind::Gap as u8,
    };
    // SAFETY: As for the other records.
    let words = unsafe { transmute::<Gap, Words>(gap) };
    header.gap_lost = 0;
    match place(header, cpu, head) {
        Some(place) => place.fill(words),
        None => return NO_ROOM,
    }
    head.wrapping_add(1)
}

/// Counts a record that another channel had no room for.
#[inline(always)]
pub(crate) fn count_lost(counter: Counter) {
    // SAFETY: The helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(header) = RING_HEADERS.get_ptr_mut(cpu) {
        // SAFETY: The map's memory is valid and aligned, and only the program that runs writes to this
        // counter of this CPU.
        let dropped = unsafe { &mut (*header).dropped[counter as usize] };
        *dropped = dropped.wrapping_add(1);
    }
}
