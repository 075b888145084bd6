//! Where the fields of a per-CPU ring's header are, in bytes.
//!
//! The header is [`HEADER_BYTES`] long. The probes write the first half, the daemon the second, and the
//! two are kept 128 bytes apart where they are busy, so that the prefetcher of neither side pulls in the
//! other's line. What the probes write only while they shed has lines of its own.

/// Size of a header: a power of two, so that the place of a CPU's is found by a shift.
pub const HEADER_BYTES: usize = 512;
/// Records ever written (`u64`); the producer stores it after the record.
pub const HEAD: usize = 0;
/// Earliest time of a record lost since the last [`crate::Gap`] (`u64`).
pub const GAP_FROM: usize = 8;
/// Latest time of a record lost since the last [`crate::Gap`] (`u64`).
pub const GAP_UNTIL: usize = 16;
/// Records lost since the last [`crate::Gap`] (`u64`).
pub const GAP_LOST: usize = 24;
/// Records ever lost, one counter a [`Counter`] (`u64` each).
pub const DROPPED: usize = 32;
/// Records ever left out on purpose, one counter a [`Shed`] (`u64` each).
pub const SHED: usize = 128;
/// Records ever read (`u64`); the consumer stores it after it has done with them.
pub const TAIL: usize = 256;
/// Which threads' records are written (`u64`): the mask of [`crate::shed::is_kept`]. 0 for all.
pub const KEEP: usize = 264;
/// A ring keeps one part in this many for what is rare and hard to do without (forks and gaps),
/// so that a storm of switches can't crowd it out.
pub const RESERVE_DIVISOR: u32 = 16;
/// What a loss counter counts; its place among them.
///
/// Each is written by one program alone, or by some that can't interrupt one another on a CPU, so
/// that no count is lost although none is atomic.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// [`crate::Switch`] records for which the ring had no room.
    Switch = 0,
    /// [`crate::Wakeup`] records for which the ring had no room.
    Wakeup = 1,
    /// [`crate::Fork`] records for which the ring had no room.
    Fork = 2,
    /// [`crate::Rename`] records for which the side channel had no room.
    Rename = 3,
    /// [`crate::Exec`] records for which the side channel had no room.
    Exec = 4,
    /// As `Rename` and `CgroupMove`, for the names and groups that threads are made with.
    FirstName = 5,
    /// [`crate::Waking`] and [`crate::Interrupts`] records for which the ring had no room.
    Waking = 6,
    /// [`crate::Migrate`] records for which the ring had no room.
    Migrate = 7,
    /// [`crate::Throttle`] and [`crate::Throttled`] records for which the ring had no room.
    Throttle = 8,
    /// [`crate::CgroupMove`] records for which the side channel had no room.
    CgroupMove = 9,
    /// [`crate::evidence::EvidenceRecord`]s for which their channel had no room.
    Evidence = 10,
    /// The same, not taken because the CPU's budget for the second was used up.
    EvidenceBudget = 11,
}
/// How many loss counters there are.
pub const COUNTERS: usize = 12;
/// What a counter of records counts that were left out because of [`KEEP`]; its place among them.
///
/// Each is written by one program alone, as the loss counters are.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// [`crate::Switch`] records.
    Switch = 0,
    /// [`crate::Wakeup`] records.
    Wakeup = 1,
    /// [`crate::Waking`] records.
    Waking = 2,
    /// [`crate::Migrate`] records.
    Migrate = 3,
}
/// How many of these there are.
pub const SHED_COUNTERS: usize = 4;
/// The smallest ring, in records: the reserve must hold a few.
pub const MIN_RECORDS: u32 = 64;
/// The largest ring, in records a CPU.
pub const MAX_RECORDS: u32 = 1 << 20;
