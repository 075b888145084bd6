//! Which threads are kept when not all records can be: both sides have to agree.
//!
//! Threads are shed whole. One that is kept has all its records, on all CPUs; of one that is not, none is
//! promised. A fraction is one in a power of two, and who is kept at a smaller one is kept at all larger ones.

/// At most one thread in 2 to this power is kept.
pub const MAX_SHIFT: u8 = 10;

/// The mask with which one thread in 2 to the power of `shift` is kept.
#[must_use]
pub const fn mask(shift: u8) -> u32 {
    let shift = if shift < MAX_SHIFT { shift } else { MAX_SHIFT };
    (1 << shift) - 1
}

/// Whether the records of the thread with this id are kept. With a mask of 0, everybody's are; else the idle
/// task's never are by themselves.
#[must_use]
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "the probes have no calls between crates"
)]
pub const fn is_kept(tid: u32, mask: u32) -> bool {
    mask == 0 || (tid != 0 && mix(tid) & mask == 0)
}

/// Ids are given one after the other, and may be handed out in steps: no bit of an id alone may decide.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "the probes have no calls between crates"
)]
const fn mix(tid: u32) -> u32 {
    let mut mixed = tid.wrapping_mul(0x9e37_79b1);
    mixed ^= mixed >> 15;
    mixed = mixed.wrapping_mul(0x85eb_ca77);
    mixed >> 16
}

/// From now on only the records of some threads are written ([`is_kept`]), or those of more, or of all again. No
/// probe writes this: the daemon does, among the records that belong to no CPU.
///
/// It makes two promises. Up to this time everything was written that the record before it of this kind said.
/// And what is left out later is told by the next one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "decode",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
pub struct Shed {
    /// When.
    pub ts_ns: u64,
    /// [`crate::Switch`] records left out since the last record of this kind, on all CPUs.
    pub switches: u64,
    /// The same of [`crate::Wakeup`] records.
    pub wakeups: u32,
    /// The same of [`crate::Waking`] records.
    pub wakings: u32,
    /// The same of [`crate::Migrate`] records.
    pub migrations: u32,
    /// Zero.
    pub _pad: [u8; 2],
    /// One thread in 2 to this power is kept from now on; 0 for all.
    pub shift: u8,
    /// [`crate::Kind::Shed`].
    pub kind: u8,
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{MAX_SHIFT, is_kept, mask};

    #[test]
    fn the_fraction_is_about_right_however_ids_are_given() {
        for shift in 0..=MAX_SHIFT {
            for step in [1, 2, 3, 8, 64, 1000] {
                let ids = (1..=100_000u32).map(|number| number * step);
                let kept = ids.filter(|&tid| is_kept(tid, mask(shift))).count();
                let expected = 100_000 >> shift;
                let error = kept.abs_diff(expected);
                assert!(
                    error * 4 <= expected,
                    "{kept} of 100000, steps of {step}, shift {shift}"
                );
            }
        }
    }

    #[test]
    fn who_is_kept_at_a_small_fraction_is_kept_at_larger_ones() {
        for tid in 0..10_000 {
            for shift in 1..=MAX_SHIFT {
                if is_kept(tid, mask(shift)) {
                    assert!(is_kept(tid, mask(shift - 1)), "{tid} at {shift}");
                }
            }
        }
        assert!(is_kept(0, mask(0)) && !is_kept(0, mask(1)));
        assert_eq!(mask(200), mask(MAX_SHIFT));
    }
}
