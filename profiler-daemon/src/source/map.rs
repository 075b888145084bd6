//! Mappings of BPF arrays.

use std::{io, os::fd::AsFd, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared, writable mapping of a `BPF_F_MMAPABLE` array's values. It keeps the map alive by itself.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: The mapping belongs to the process, not to a thread; access to what is in it is by atomics, or
// guarded by those who read it.
unsafe impl Send for Mapping {}
// SAFETY: As above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of the array, which must not be more than it has.
    pub(crate) fn new(map: impl AsFd, bytes: usize) -> io::Result<Self> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: No address is asked for, so nothing that is mapped already is touched.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, access, flags, map, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }

    /// Where it begins: on a page boundary.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How long it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping was made by `new` with this length, and whatever borrows from it is gone.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping that exists can be unmapped");
    }
}
