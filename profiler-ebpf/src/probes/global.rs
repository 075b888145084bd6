//! Words that all programs share.

use core::cell::UnsafeCell;

/// A word that every CPU reads and writes as a whole.
#[repr(transparent)]
pub(crate) struct Global(UnsafeCell<u64>);

// SAFETY: It is read and written as a whole.
unsafe impl Sync for Global {}

impl Global {
    pub(crate) const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        // SAFETY: A static is valid and aligned.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        // SAFETY: As above.
        unsafe { self.0.get().write_volatile(value) };
    }
}
