//! The side channel: a BPF ring buffer for what is rare, and for waking the daemon.
//!
//! Renames and execs go here because their hooks run with interrupts on, where a wakeup or a switch can
//! come between any two instructions: they must not touch the rings, which have a single producer. The
//! ring buffer takes records from any context, and is dear only in comparison with the rings.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::RingBuf,
};
use core::mem::transmute;
use profiler_ebpf::{CgroupMove, Exec, Kind, Rename, ring::Counter};

use crate::{
    config::config,
    ring::{self, Words},
};

// The loader sets the size.
#[map]
static SIDE: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Sends a rename; `counter` counts it if there is no room.
#[inline(always)]
pub(crate) fn send_rename(rename: Rename, counter: Counter) {
    // SAFETY: A record is as long as its words and has no padding that is not a field of it.
    send(unsafe { transmute::<Rename, Words>(rename) }, counter);
}

/// Sends an exec.
#[inline(always)]
pub(crate) fn send_exec(exec: Exec) {
    // SAFETY: As above.
    send(unsafe { transmute::<Exec, Words>(exec) }, Counter::Exec);
}

/// Sends a move to another cgroup; `counter` counts it if there is no room.
#[inline(always)]
pub(crate) fn send_move(record: CgroupMove, counter: Counter) {
    // SAFETY: As above.
    send(unsafe { transmute::<CgroupMove, Words>(record) }, counter);
}

/// Sends a record, or counts it as lost. The daemon is woken only if much has piled up.
#[inline(always)]
fn send(words: Words, counter: Counter) {
    let waiting = SIDE.query(u64::from(BPF_RB_AVAIL_DATA));
    let wakeup = if waiting >= u64::from(config!(side_mark)) {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    if SIDE.output::<Words>(words, u64::from(wakeup)).is_err() {
        ring::count_lost(counter);
    }
}

/// Wakes the daemon.
///
/// If the channel is full the bell is lost, and not missed: the records that fill it have rung already.
#[cold]
#[inline(never)]
pub(crate) fn ring_doorbell() -> u32 {
    let words: Words = [0, 0, 0, (Kind::Doorbell as u64) << 56];
    // A BPF function must return something.
    u32::from(
        SIDE.output::<Words>(words, u64::from(BPF_RB_FORCE_WAKEUP))
            .is_err(),
    )
}
